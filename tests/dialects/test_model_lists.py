"""Lists of models are read in every shape, and tell what they know, and no more."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import BadReply
from llmproxy.dialects.model_lists import Listed, chats, loaded, read_models, tokens, usd_per_mtok
from tests.core.properties import quick


def read(*entries: Any, **options: Any) -> dict[str, Listed]:
    """The models of a list with these entries, by id."""
    return {one.id: one for one in read_models(json.dumps({"data": entries}).encode(), **options).models}


def one(**fields: Any) -> Listed:
    """What is read of an entry with these fields."""
    return read({"id": "m", **fields})["m"]


@pytest.mark.parametrize(
    ("body", "ids", "unread"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, ["a", "b"], 0),
        ([{"id": "a"}, "b"], ["a", "b"], 0),
        ({"models": [{"name": "models/a"}, {"model_id": "b"}, {"slug": "c"}]}, ["a", "b", "c"], 0),
        ({"result": ["a"]}, ["a"], 0),
        ({"data": None, "models": ["a"]}, ["a"], 0),
        ({"data": ["a"], "models": ["b"]}, ["a"], 0),
        ({"data": [{"id": "a"}, {"id": "a"}, {}, None, 7, "", {"id": ["x"]}]}, ["a"], 5),
        (["a" * 501, {"id": "models/"}], [], 2),
        ([], [], 0),
    ],
)
def test_shapes(body: Any, ids: list[str], unread: int) -> None:
    """Every wrapper and kind of entry is read, each model once; what has no id is counted."""
    found = read_models(json.dumps(body).encode())
    assert ([listed.id for listed in found.models], found.unread) == (ids, unread)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"null", b'"a"', b'{"data": {"a": {}}}', b"<html>\n<body>\n[1]\n</body>", b"[1"]
)
def test_what_is_no_list(raw: bytes) -> None:
    """Anything else is refused."""
    with pytest.raises(BadReply):
        read_models(raw)


def test_too_many() -> None:
    """More models than any provider has are refused before they cost time."""
    assert len(read_models(json.dumps([str(number) for number in range(50_000)]).encode()).models) == 50_000
    with pytest.raises(BadReply, match="50,001 entries"):
        read_models(json.dumps([str(number) for number in range(50_001)]).encode())


@pytest.mark.parametrize(
    ("body", "more"),
    [
        ({"models": [], "nextPageToken": "x"}, True),
        ({"models": [], "next_page_token": "x"}, True),
        ({"data": [], "has_more": True}, True),
        ({"data": [], "has_more": False, "nextPageToken": ""}, False),
        ([], False),
    ],
)
def test_pages(body: Any, more: bool) -> None:
    """A list tells whether it goes on elsewhere."""
    assert read_models(json.dumps(body).encode()).more is more


def test_encodings() -> None:
    """UTF-8 with or without a mark and UTF-16 with one are the same, behind a few lines of a log too."""
    text = '{"data": ["größe"]}'
    log = "[info] reading {}\nwarning: slow\n"
    for raw in (text.encode(), text.encode("utf-8-sig"), text.encode("utf-16"), (log + text).encode("utf-16")):
        assert loaded(raw) == {"data": ["größe"]}


@pytest.mark.parametrize(
    ("fields", "have", "lack"),
    [
        ({}, set(), set()),
        ({"supported_parameters": []}, set(), set()),
        ({"supported_parameters": ["tools", "structured_outputs"]}, {"tools", "json"}, {"reasoning"}),
        ({"supported_parameters": [{"name": "tools"}]}, set(), set()),
        ({"architecture": {"input_modalities": ["text", "image"]}}, {"vision"}, {"audio"}),
        ({"supported_input_modalities": ["audio"]}, {"audio"}, {"vision"}),
        ({"capabilities": {"function_calling": True, "vision": False}}, {"tools"}, {"vision"}),
        ({"capabilities": {"image_input": {"supported": True}, "thinking": {"supported": False}}},
         {"vision"}, {"reasoning"}),
        ({"capabilities": ["completion", "tools", "thinking"]}, {"tools", "reasoning"}, set()),
        ({"capabilities": ["streaming", "tool-calling"]}, {"tools"}, set()),
        ({"features": ["json_mode", "vision"]}, {"json", "vision"}, set()),
        ({"features": ["tools"], "supported_parameters": ["n"]}, {"tools"}, {"json", "reasoning"}),
        ({"supports_vision": True, "supports_tool_calling": False, "reasoning": {"default": "high"}},
         {"vision"}, {"tools"}),
        ({"thinking": True}, {"reasoning"}, set()),
        ({"endpoints": ["embed"]}, {"embeddings"}, set()),
        ({"type": "embedding"}, {"embeddings"}, set()),
        ({"providers": [{"provider": "a", "supports_tools": True}, {"provider": "b", "supports_tools": True}]},
         {"tools"}, set()),
        ({"providers": [{"provider": "a", "supports_tools": True}, {"provider": "b", "supports_tools": False}]},
         set(), set()),
        ({"providers": [{"provider": "a", "supports_tools": False, "status": "staging"}]}, set(), set()),
    ],
)  # fmt: skip
def test_capabilities(fields: dict[str, Any], have: set[str], lack: set[str]) -> None:
    """What is listed is there; a false flag and what a full list leaves out are lacks; all else stays open."""
    listed = one(**fields)
    assert (set(listed.capabilities), set(listed.lacks)) == (have, lack)


@pytest.mark.parametrize(
    ("fields", "chat"),
    [
        ({}, None),
        ({"type": "model"}, None),
        ({"type": "chat"}, True),
        ({"type": "embedding"}, False),
        ({"capabilities": {"completion_chat": True}}, True),
        ({"capabilities": {"completion_chat": False}}, False),
        ({"endpoints": ["generate", "chat"]}, True),
        ({"endpoints": ["chat/completions"]}, True),
        ({"endpoints": ["rerank"]}, False),
        ({"endpoints": []}, None),
        ({"supportedGenerationMethods": ["generateContent"]}, True),
        ({"supportedGenerationMethods": []}, False),
        ({"output_modalities": ["text", "image"]}, True),
        ({"output_modalities": ["image"]}, False),
        ({"supported_output_modalities": ["embeddings"]}, False),
        ({"output_modalities": ["text", "audio"], "input_modalities": ["text", "audio"]}, True),
        ({"output_modalities": ["text", "audio"], "input_modalities": ["text"]}, False),
    ],
)
def test_who_chats(fields: dict[str, Any], chat: bool | None) -> None:
    """A list that says what a model is for is believed; one that does not leaves it open."""
    assert one(**fields).chat is chat


@pytest.mark.parametrize(
    ("model_id", "said", "chat"),
    [
        ("llama-3.3-70b", None, None),
        ("llama-3.3-70b", True, True),
        ("llama-3.3-70b", False, False),
        ("gemini-2.5-flash-preview-tts", True, False),
        ("gemini-live-2.5-flash", True, False),
        ("olive-7b", True, True),
        ("nvidia/nemotron-3.5-content-safety:free", True, False),
        ("meta-llama/llama-prompt-guard-2-22m", None, False),
        ("baai/bge-m3", None, False),
        ("nvidia/nvclip", None, False),
        ("black-forest-labs/flux_1-schnell", None, False),
        ("nvidia/nemotron-parse", None, False),
        ("gpt-image-1", None, False),
        ("google/gemini-2.5-flash-image", True, None),
        ("imaginative-8b", True, True),
        ("openai/gpt-3.5-turbo-instruct", True, True),
        ("gpt-3.5-turbo-instruct", None, False),
        ("davinci-002", None, False),
    ],
)
def test_names_of_other_jobs(model_id: str, said: bool | None, chat: bool | None) -> None:
    """A name of another job counts more than what is said; one that draws is left open where it is said to chat."""
    assert chats(model_id, said) is chat


@pytest.mark.parametrize(
    ("fields", "window", "answer"),
    [
        ({"context_window": 8192, "max_completion_tokens": 1024}, 8192, 1024),
        ({"inputTokenLimit": 1048576, "outputTokenLimit": 65536}, 1048576, 65536),
        ({"context_length": 100, "top_provider": {"context_length": 90, "max_completion_tokens": 10}}, 100, 10),
        ({"context_length": None, "top_provider": {"context_length": 90}}, 90, None),
        ({"limits": {"max_input_tokens": 131072, "max_output_tokens": 4096}}, 131072, 4096),
        ({"meta": {"n_ctx": 4096, "n_ctx_train": 131072}}, 4096, None),
        ({"meta": {"n_ctx_train": 131072}}, None, None),
        ({"providers": [{"context_length": 100}, {"context_length": 50}, {}]}, 50, None),
        ({"properties": [{"property_id": "context_window", "value": "24000"}]}, 24000, None),
        ({"properties": [{"property_id": "context_window", "value": "²"}, {"property_id": ["x"]}, 3]}, None, None),
        ({"context_length": 0, "max_tokens": 5}, None, None),
        ({"context_length": "9"}, None, None),
        ({"context_length": True}, None, None),
        ({"context_length": 1 << 62}, None, None),
    ],
)
def test_sizes(fields: dict[str, Any], window: int | None, answer: int | None) -> None:
    """The window and the longest answer are found under each of their names; what is no number of tokens is none."""
    listed = one(**fields)
    assert (listed.context_tokens, listed.max_output_tokens) == (window, answer)


@pytest.mark.parametrize(
    ("pricing", "prompt", "completion", "priced"),
    [
        ({"prompt": "0.00000044", "completion": "0.00000174"}, 0.44, 1.74, True),
        ({"prompt": "0", "completion": "0"}, 0.0, 0.0, False),
        ({"prompt": "0", "completion": "0", "request": "0.005"}, 0.0, 0.0, True),
        ({"prompt": "-1", "completion": "-1"}, None, None, None),
        ({"input": 0.3, "output": 1.2}, 0.3, 1.2, True),
        ({"input": 0.060000000000000005, "output": 0}, 0.06, 0.0, True),
        ({"input": "0.0000003", "output": "0.0000012"}, 0.3, 1.2, True),
        ({"prompt": "free", "completion": None}, None, None, None),
        ({"prompt": "NaN", "completion": "Infinity"}, None, None, None),
        ({"prompt": "1e999999999", "completion": "9" * 5000}, None, None, None),
        ({"prompt": True, "completion": []}, None, None, None),
        ({}, None, None, None),
    ],
)
def test_prices(pricing: Any, prompt: float | None, completion: float | None, priced: bool | None) -> None:
    """Prices are in USD per million tokens, exactly; a price that is not fixed is none."""
    listed = one(pricing=pricing)
    assert (listed.prompt_usd_per_mtok, listed.completion_usd_per_mtok, listed.priced) == (prompt, completion, priced)


def test_prices_of_backends() -> None:
    """Backends that differ leave the price open; those that tell none do not count."""
    cheap, dear, silent = (
        {"pricing": {"input": 1, "output": 2}},
        {"pricing": {"input": 3, "output": 4}},
        {"status": "live"},
    )
    assert one(providers=[cheap, silent]).prompt_usd_per_mtok == 1.0
    assert one(providers=[cheap, dear]).prompt_usd_per_mtok is None


@pytest.mark.parametrize(
    ("fields", "ends_s"),
    [
        ({"expiration_date": "2026-01-27"}, 1769558400.0),
        ({"deprecation": "2026-01-31T12:00:00Z"}, 1769860800.0),
        ({"deprecation": "2026-01-31T12:00:00+02:00"}, 1769853600.0),
        ({"expiration_date": None, "shutdown_date": "2026-01-27"}, 1769558400.0),
        ({"expiration_date": "2098-12-31"}, None),
        ({"expiration_date": "9999-12-31"}, None),
        ({"expiration_date": "0001-01-01T00:00:00+14:00"}, None),
        ({"expiration_date": "soon"}, None),
        ({"expiration_date": 20260127}, None),
        ({}, None),
    ],
)
def test_ends(fields: dict[str, Any], ends_s: float | None) -> None:
    """An announced end is a time, a day lasts until its end; a day far away stands for none."""
    assert one(**fields).ends_s == ends_s


@pytest.mark.parametrize(
    ("fields", "active"),
    [
        ({}, None),
        ({"active": True}, True),
        ({"active": False}, False),
        ({"active": "yes"}, None),
        ({"providers": [{"status": "live"}]}, True),
        ({"providers": [{"status": "staging"}]}, False),
        ({"providers": ["openai"]}, None),
    ],
)
def test_who_is_active(fields: dict[str, Any], active: bool | None) -> None:
    """A model that is switched off, or that no backend serves yet, cannot be asked."""
    assert one(**fields).active is active


def test_tasks() -> None:
    """Only models of the wanted task are kept; of the others nothing is counted as unread."""
    entries = [{"id": "a", "task": {"name": "chat"}}, {"id": "b", "task": "chat"}, {"id": "c", "task": "sing"}, "d"]
    found = read_models(json.dumps(entries).encode(), keep_task="chat")
    assert ([listed.id for listed in found.models], found.unread) == (["a", "b"], 0)


@pytest.mark.parametrize(("value", "read_as"), [(1, 1), (0, None), (-1, None), (1.0, None), ("1", None), (True, None)])
def test_tokens(value: Any, read_as: int | None) -> None:
    """Numbers of tokens are whole and above zero."""
    assert tokens(value) == read_as


def test_scales() -> None:
    """A price for a million tokens stays what it is."""
    assert usd_per_mtok(0.3, 1) == usd_per_mtok("0.0000003") == 0.3


FIELDS = [
    "id", "name", "task", "type", "context_length", "created", "pricing", "architecture", "input_modalities",
    "output_modalities", "capabilities", "features", "endpoints", "supportedGenerationMethods", "active", "providers",
    "properties", "meta", "limits", "top_provider", "supported_parameters", "expiration_date", "thinking",
]  # fmt: skip
KEYS = ["id", "name", "prompt", "input", "value", "property_id", "status", "context_length", "supported", "pricing"]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "x", "tools", "chat", "text", "live", "-1", "1e9", "2026-01-27"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=2),
    max_leaves=5,
)  # fmt: skip


@quick
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), values) | values, max_size=3))
def test_any_list_is_read(entries: list[Any]) -> None:
    """Entries of any shape are read or passed over, and nothing is both there and lacking."""
    for listed in read_models(json.dumps({"data": entries}).encode()).models:
        assert listed.id
        assert not listed.capabilities & listed.lacks
        assert listed.ends_s is None or listed.ends_s > 0


@quick
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-16")))
def test_any_bytes(raw: bytes) -> None:
    """Whatever arrives is a list or refused, never another error."""
    with contextlib.suppress(BadReply):
        assert read_models(raw).models is not None
