"""Model lists are read in every shape, and tell what they know."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import BadReply
from llmproxy.core.types import Model
from providers.listing import filtered, parse_models
from tests.core.properties import quick

OPENROUTER = {
    "data": [
        {
            "id": "maker/thinker:free",
            "name": "Maker: Thinker (free)",
            "created": 1_760_000_000,
            "context_length": 131072,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "pricing": {"prompt": "0", "completion": "0"},
            "supported_parameters": ["tools", "tool_choice", "reasoning", "max_tokens"],
        },
        {
            "id": "maker/plain",
            "context_length": 8192,
            "architecture": {"input_modalities": ["text"]},
            "pricing": {"prompt": "0.0000005", "completion": "0.0000015"},
            "supported_parameters": ["max_tokens", "response_format"],
        },
        {"id": "router/auto", "pricing": {"prompt": "-1", "completion": "-1"}, "supported_parameters": []},
    ]
}
MISTRAL = {
    "object": "list",
    "data": [
        {
            "id": "middle-latest",
            "object": "model",
            "created": 1_750_000_000,
            "owned_by": "mistralai",
            "capabilities": {"completion_chat": True, "function_calling": True, "vision": False},
            "max_context_length": 32768,
        },
        {"id": "words-embed", "capabilities": {"completion_chat": False}, "max_context_length": 8192},
    ],
}
COHERE = {
    "models": [
        {
            "name": "commander",
            "endpoints": ["generate", "chat"],
            "context_length": 128000,
            "features": ["tools", "json_mode"],
        },
        {"name": "vectors", "endpoints": ["embed"], "context_length": 512, "features": None},
        {"name": "sorter", "endpoints": ["rerank"]},
    ]
}
GEMINI = {
    "models": [
        {
            "name": "models/flash",
            "displayName": "Flash",
            "inputTokenLimit": 1048576,
            "supportedGenerationMethods": ["generateContent", "countTokens"],
        },
        {"name": "models/vectors-001", "inputTokenLimit": 2048, "supportedGenerationMethods": ["embedContent"]},
    ]
}
CLOUDFLARE = {
    "success": True,
    "result": [
        {"id": "f0e1", "name": "@cf/maker/chatter", "task": {"id": "t1", "name": "Text Generation"}},
        {"id": "a2b3", "name": "@cf/maker/hearer", "task": {"id": "t2", "name": "Automatic Speech Recognition"}},
        {"id": "c4d5", "name": "@cf/maker/nothing"},
    ],
}
GROQ = {
    "object": "list",
    "data": [
        {
            "id": "swift",
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "X",
            "active": True,
            "context_window": 8192,
        },
        {"id": "gone", "active": False, "context_window": 8192},
    ],
}
TOGETHER = [{"id": "maker/open", "type": "chat", "context_length": 4096}, {"id": "maker/other", "type": "chat"}]


def read(body: Any, **options: Any) -> dict[str, Model]:
    return {model.id: model for model in parse_models(orjson.dumps(body), "p", **options)}


@pytest.mark.parametrize(
    ("body", "options", "ids"),
    [
        (OPENROUTER, {}, ["maker/thinker:free", "maker/plain", "router/auto"]),
        (MISTRAL, {}, ["middle-latest", "words-embed"]),
        (COHERE, {}, ["commander", "vectors", "sorter"]),
        (GEMINI, {}, ["flash", "vectors-001"]),
        (CLOUDFLARE, {"id_field": "name"}, ["@cf/maker/chatter", "@cf/maker/hearer", "@cf/maker/nothing"]),
        (CLOUDFLARE, {"id_field": "name", "keep_task": "Text Generation"}, ["@cf/maker/chatter"]),
        (CLOUDFLARE, {}, ["f0e1", "a2b3", "c4d5"]),
        (GROQ, {}, ["swift", "gone"]),
        (TOGETHER, {}, ["maker/open", "maker/other"]),
        (["a", "b", "a", ""], {}, ["a", "b"]),
        ({"data": ["a", {"id": "b"}]}, {}, ["a", "b"]),
        ({"data": [{"id": "a"}, {"id": "a", "context_length": 5}]}, {}, ["a"]),
        ({"data": [{"id": ""}, {"id": 7}, {}, None, 7, {"id": "a"}]}, {}, ["a"]),
        ({"data": []}, {}, []),
        ([], {}, []),
        ({"data": None, "models": ["a"]}, {}, ["a"]),
        ([{"id": "x", "task": "chat"}, {"id": "y", "task": "sing"}, "z"], {"keep_task": "chat"}, ["x"]),
        ([{"slug": "s", "id": "i"}, {"id": "j"}], {"id_field": "slug"}, ["s", "j"]),
    ],
)
def test_shapes(body: Any, options: dict[str, Any], ids: list[str]) -> None:
    """Every wrapper and every kind of entry is read, in order, each model once."""
    assert list(read(body, **options)) == ids


@pytest.mark.parametrize("raw", [b"", b"<html>", b"{}", b'{"data": {}}', b'"text"', b"7", b'{"error": "x"}', b"null"])
def test_what_is_no_list(raw: bytes) -> None:
    """Anything else is refused, so that it replaces no list that was there before."""
    with pytest.raises(BadReply):
        parse_models(raw, "p")


@pytest.mark.parametrize(
    ("body", "model_id", "have", "lack"),
    [
        (OPENROUTER, "maker/thinker:free", {"tools", "reasoning", "vision"}, {"json", "audio"}),
        (OPENROUTER, "maker/plain", {"json"}, {"tools", "reasoning", "vision", "audio"}),
        (OPENROUTER, "router/auto", set(), set()),
        (MISTRAL, "middle-latest", {"tools"}, {"vision"}),
        (COHERE, "commander", {"tools", "json"}, set()),
        (GROQ, "swift", set(), set()),
        ([{"id": "x", "input_modalities": ["text", "audio"]}], "x", {"audio"}, {"vision"}),
        (
            [{"id": "x", "supported_parameters": ["structured_outputs", "include_reasoning"]}],
            "x",
            {"json", "reasoning"},
            {"tools"},
        ),
        ([{"id": "x", "supported_parameters": ["n"], "features": ["tools"]}], "x", {"tools"}, {"json", "reasoning"}),
    ],
)
def test_capabilities(body: Any, model_id: str, have: set[str], lack: set[str]) -> None:
    """What a list says a model has is known, what it says the model has not is a lack, and all else stays open."""
    model = read(body)[model_id]
    assert (set(model.capabilities), set(model.lacks)) == (have, lack)


@pytest.mark.parametrize(
    ("body", "windows"),
    [
        (OPENROUTER, [131072, 8192, None]),
        (MISTRAL, [32768, 8192]),
        (COHERE, [128000, 512, None]),
        (GEMINI, [1048576, 2048]),
        (GROQ, [8192, 8192]),
        (
            [{"id": "a", "max_model_len": 5}, {"id": "b", "context_length": 0}, {"id": "c", "context_length": "9"}],
            [5, None, None],
        ),
    ],
)
def test_context_windows(body: Any, windows: list[int | None]) -> None:
    """The context window is found under each of its names."""
    assert [model.context_tokens for model in read(body).values()] == windows


@pytest.mark.parametrize(
    ("body", "chat"),
    [
        (MISTRAL, [True, False]),
        (COHERE, [True, False, False]),
        (GEMINI, [True, False]),
        (GROQ, [True, False]),
        (TOGETHER, [True, True]),
        ([{"id": "x", "endpoints": []}, {"id": "y", "endpoints": [{"name": "z"}]}], [True, True]),
    ],
)
def test_who_chats(body: Any, chat: list[bool]) -> None:
    """A list that says what a model is for is believed; retired models are for nothing."""
    assert [model.chat for model in read(body).values()] == chat


def test_prices() -> None:
    """A price is in USD per million tokens, prompt and completion added; an unknown one stays unknown."""
    prices = [model.price_usd_per_mtok for model in read(OPENROUTER).values()]
    assert prices == [0.0, pytest.approx(2.0), None]
    pricings: list[Any] = [None, [], {}, {"prompt": "x"}, "free"]
    odd = [{"id": str(place), "pricing": pricing} for place, pricing in enumerate(pricings)]
    assert {model.price_usd_per_mtok for model in read(odd).values()} == {None}


def test_dates() -> None:
    """The time of creation is kept when it is one."""
    body = [
        {"id": str(place), "created": made} for place, made in enumerate([1_700_000_000, "x", -5, 1e12, 10**12, None])
    ]
    assert [model.created_s for model in read(body).values()] == [1_700_000_000, 0, 0, 0, 0, 0]


LISTED = tuple(Model("p", name) for name in ("a", "b:free", "x/c", "x/d:free"))


@pytest.mark.parametrize(
    ("keep", "known", "ids"),
    [
        (None, (), ["a", "b:free", "x/c", "x/d:free"]),
        (("*:free",), (), ["b:free", "x/d:free"]),
        (("p/x/*",), (), ["x/c", "x/d:free"]),
        (("a", "x/c"), (), ["a", "x/c"]),
        pytest.param(
            ("x/*",),
            (),
            ["x/c", "x/d:free"],
            ),
        (("a", "unlisted"), (), ["a", "unlisted"]),
        (("p/unlisted",), (), ["unlisted"]),
        (("none*",), (), []),
        ((), (), []),
        (None, ("a", "known"), ["a", "b:free", "x/c", "x/d:free", "known"]),
        (("a",), ("known",), ["a"]),
        pytest.param(
            ("p/a",), (), ["a"],
            ),
    ],
)  # fmt: skip
def test_filters(keep: tuple[str, ...] | None, known: tuple[str, ...], ids: list[str]) -> None:
    """A filter keeps what its ids and globs name; plain ids that the list leaves out are added, each once."""
    assert [model.id for model in filtered(LISTED, "p", keep, known)] == ids


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.sampled_from(["", "x", "tools", "chat"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "name", "x", "prompt"]), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = [
    "id", "name", "task", "context_length", "created", "pricing", "architecture", "input_modalities", "capabilities",
    "endpoints", "supportedGenerationMethods", "active",
]  # fmt: skip


@quick
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), json_values) | json_values, max_size=3))
def test_any_list_is_read(entries: list[Any]) -> None:
    """Entries of any shape are read or passed over."""
    for model in parse_models(orjson.dumps({"data": entries}), "p"):
        assert model.id


@pytest.mark.parametrize("field", ["supported_parameters", "features"])
def test_odd_entries_in_lists(field: str) -> None:
    """Entries of an odd shape inside a model's own lists are passed over too."""
    assert list(read([{"id": "x", field: [{"name": "tools"}]}])) == ["x"]
