"""What each quirk of the catalogue does to a request, and that a client is told of what was left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from llmproxy.core.config import Provider
from llmproxy.core.errors import BadReply, Refused, UnsupportedParameter
from llmproxy.core.types import Call, Candidate, Model
from providers.catalog import catalog, resolve
from providers.http import new_session
from providers.openai_compatible import OpenAiCompatible
from providers.quirks import adapted
from providers.whole import as_stream
from tests.fakes.upstream import Upstream, UpstreamThread
from tests.servers import Client, Server, client_of, provider, serving

MESSAGES = [{"role": "user", "content": "hello there"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
QUIRKS = {name: entry.quirks or {} for name, entry in catalog().items()}


def call_of(endpoint: Any = "chat", dialect: str = "openai", **body: Any) -> Call:
    given = {"messages": MESSAGES, **body} if endpoint == "chat" else body
    return Call("c", endpoint, "m", given, dialect=dialect)


def sent(quirks: Any, **body: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(what is sent beside the messages, what was left out)."""
    made, lost = adapted(call_of(**body), quirks)
    return {name: value for name, value in made.items() if name != "messages"}, lost


# -- one quirk after the other ----------------------------------------------------------------------------------------


def test_without_quirks_nothing_changes() -> None:
    """The very body of the call is sent."""
    call = call_of(anything=[1], max_tokens=5, n=3)
    assert adapted(call, {}) == (call.body, ())


@pytest.mark.parametrize("name", sorted(name for name, quirks in QUIRKS.items() if "unsupported_parameters" in quirks))
def test_unsupported_parameters(name: str) -> None:
    """Each is left out and named, but for those without which the answer would be another: they raise."""
    for field in QUIRKS[name]["unsupported_parameters"]:
        quirks = {"unsupported_parameters": QUIRKS[name]["unsupported_parameters"]}
        if field in ("tools", "tool_choice", "response_format"):
            with pytest.raises(UnsupportedParameter) as caught:
                sent(quirks, **{field: [TOOL] if field == "tools" else "required"})
            assert caught.value.param == field
        else:
            assert sent(quirks, **{field: "anything"}) == ({}, (field,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logit_bias", {}),
        ("logit_bias", None),
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("logprobs", False),
        ("top_logprobs", 0),
        ("store", False),
        ("parallel_tool_calls", True),
        ("tools", []),
        ("tools", None),
        ("service_tier", "auto"),
    ],
)
def test_what_says_nothing_is_left_out_without_a_word(field: str, value: Any) -> None:
    """A field that asks for what happens anyway is not missed."""
    assert sent({"unsupported_parameters": [field]}, **{field: value}) == ({}, ())


def test_tools_that_are_not_to_be_called_may_be_left_out() -> None:
    """With `tool_choice: none` a provider without tools can answer."""
    quirks = QUIRKS["aihorde"]
    assert sent(quirks, tools=[TOOL], tool_choice="none") == ({}, ("tools",))


@pytest.mark.parametrize(
    ("wanted", "given", "made"),
    [
        ("max_tokens", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("max_completion_tokens", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 6}),
        ("max_tokens", {}, {}),
    ],
)
def test_max_tokens_field(wanted: str, given: dict[str, int], made: dict[str, int]) -> None:
    """The limit of an answer goes out under the one name that is known."""
    assert sent({"max_tokens_field": wanted}, **given) == (made, ())


@pytest.mark.parametrize(("given", "made"), [(1, 16), (16, 16), (17, 17)])
def test_min_max_tokens(given: int, made: int) -> None:
    """A limit below what is taken is raised to it; none is not added."""
    quirks = {"min_max_tokens": 16}
    assert sent(quirks, max_tokens=given) == ({"max_tokens": made}, ())
    assert sent(quirks) == ({}, ())


def test_rename_parameters() -> None:
    """Mistral's word for `seed`; who uses it already is not overruled."""
    quirks = {"rename_parameters": QUIRKS["mistral"]["rename_parameters"]}
    assert sent(quirks, seed=7) == ({"random_seed": 7}, ())
    assert sent(quirks, random_seed=7) == ({"random_seed": 7}, ())


def test_max_n() -> None:
    """As many answers as are given pass, and of one alone nothing needs to be said; more raise."""
    assert sent({"max_n": 1}, n=1) == ({}, ())
    assert sent({"max_n": 3}, n=3) == ({"n": 3}, ())
    with pytest.raises(UnsupportedParameter) as caught:
        sent({"max_n": 3}, n=4)
    assert caught.value.param == "n"


def test_stop_as_list() -> None:
    """One stop text becomes a list of one."""
    assert sent({"stop_as_list": True}, stop="END") == ({"stop": ["END"]}, ())
    assert sent({"stop_as_list": True}, stop=["a", "b"]) == ({"stop": ["a", "b"]}, ())


@pytest.mark.parametrize(
    ("given", "made", "lost"),
    [
        ("none", "none", ()),
        ("high", "high", ()),
        ("minimal", "none", ("reasoning_effort",)),
        ("low", "high", ("reasoning_effort",)),
        ("xhigh", "high", ("reasoning_effort",)),
    ],
)
def test_reasoning_effort_values(given: str, made: str, lost: tuple[str, ...]) -> None:
    """An effort that is not known becomes the nearest one that is, and that is told."""
    assert sent({"reasoning_effort_values": ["none", "high"]}, reasoning_effort=given) == (
        {"reasoning_effort": made},
        lost,
    )


def test_unsupported_message_fields() -> None:
    """They are taken out of each message, which is told once; the call's own messages stay as they are."""
    messages = [{"role": "user", "content": "a", "name": "ann"}, {"role": "user", "content": "b", "name": "bob"}]
    call = call_of(messages=messages)
    made, lost = adapted(call, {"unsupported_message_fields": ["name", "reasoning_content"]})
    assert made["messages"] == [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert lost == ("messages.name",)
    assert call.body["messages"] == messages
    assert messages[0]["name"] == "ann"


def test_single_tool_call() -> None:
    """One call at a time is asked for wherever there are tools; who wants several is told."""
    quirks = {"single_tool_call": True}
    assert sent(quirks, tools=[TOOL]) == ({"tools": [TOOL], "parallel_tool_calls": False}, ())
    assert sent(quirks, tools=[TOOL], parallel_tool_calls=True)[1] == ("parallel_tool_calls",)
    assert sent(quirks) == ({}, ())


def test_embeddings_are_sent_as_they_are() -> None:
    """The quirks are about chats and completions."""
    call = call_of("embeddings", input="a", user="ann")
    assert adapted(call, QUIRKS["mistral"]) == (call.body, ())


def test_what_another_dialect_brought_along() -> None:
    """Its own fields are taken out for a provider without quirks too; an OpenAI client's are its own affair."""
    tools = [{**TOOL, "cache_control": {"type": "ephemeral"}}]
    assert sent({}, dialect="anthropic", tools=tools) == ({"tools": [TOOL]}, ("tools.cache_control",))
    assert sent({}, tools=tools) == ({"tools": tools}, ())


def test_the_catalogue_says_who_refuses_what() -> None:
    """Fields that change the answer count; hints such as `user` do not; one answer at a time refuses several."""
    assert catalog()["groq"].facts.refuses >= {"logprobs", "top_logprobs", "logit_bias", "n", "top_k"}
    assert not catalog()["mistral"].facts.refuses & {"user", "store", "service_tier"}
    assert {"seed", "n"} <= catalog()["anthropic"].facts.refuses
    assert catalog()["openai"].facts.refuses == {"top_k", "min_p", "repetition_penalty"}
    assert catalog()["openrouter"].facts.refuses == frozenset()


# -- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_session(5.0) as opened:
        yield opened


def horde(session: aiohttp.ClientSession, url: str, **fields: Any) -> OpenAiCompatible:
    """A provider with the quirks of AI Horde."""
    return OpenAiCompatible(resolve("aihorde", Provider.model_validate({"base_url": url, **fields})), session)


async def test_the_anonymous_key(
    upstream: Upstream, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key of one's own the one for everybody is sent; with one, that."""
    for variable in catalog()["aihorde"].api_key_env:
        monkeypatch.delenv(variable, raising=False)
    candidate = Candidate(Model("aihorde", "ok"))
    await horde(session, upstream.url).send(call_of(), candidate)
    await horde(session, upstream.url, api_key="mine").send(call_of(), candidate)
    assert [request.key for request in upstream.requests] == ["0000000000", "mine"]


async def read(source: OpenAiCompatible, model: str, call: Call) -> bytes:
    call.stream = True
    async with source.stream(call, Candidate(Model("aihorde", model))) as stream:
        return b"".join([piece async for piece in stream])


async def test_no_stream(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """The answer is asked for whole and given as the events of a stream, with its usage."""
    raw = await read(horde(session, upstream.url), "ok", call_of())
    assert raw.endswith(b"data: [DONE]\n\n")
    chunks = [orjson.loads(block[6:]) for block in raw.split(b"\n\n") if block.startswith(b"data: {")]
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * 3
    assert chunks[0]["choices"][0]["delta"]["content"].startswith("word0 word1")
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[2]["usage"]["completion_tokens"] == 8
    [request] = upstream.requests
    assert not {"stream", "stream_options"} & request.json.keys()


@pytest.mark.parametrize(
    ("model", "error"), [("error-200", Refused), ("not-json", BadReply), ("no-choices", None), ("status-503", Refused)]
)
async def test_no_stream_and_no_answer(
    upstream: Upstream, session: aiohttp.ClientSession, model: str, error: type[Exception] | None
) -> None:
    """What is no answer is one no more as a stream."""
    if error is None:
        assert b"delta" not in await read(horde(session, upstream.url), model, call_of())
        return
    with pytest.raises(error):
        await read(horde(session, upstream.url), model, call_of())


def test_a_whole_answer_as_a_stream() -> None:
    """Tool calls are numbered, choices keep their index, completions have text, and what is no reply raises."""
    calls = [{"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("a", "b")]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choices = [{"index": 3, "message": message, "finish_reason": "tool_calls"}]
    first = orjson.loads(as_stream({"id": "x", "choices": choices}).split(b"\n\n")[0][6:])
    assert first["choices"][0]["index"] == 3
    assert [call["index"] for call in first["choices"][0]["delta"]["tool_calls"]] == [0, 1]
    text = {"object": "text_completion", "choices": [{"text": "abc", "finish_reason": "length"}]}
    events = [orjson.loads(block[6:]) for block in as_stream(text).split(b"\n\n")[:2]]
    assert [event["choices"][0]["text"] for event in events] == ["abc", ""]
    assert events[1]["choices"][0]["finish_reason"] == "length"
    no_replies: tuple[Any, ...] = ([], {}, {"choices": None}, "text")
    for odd in no_replies:
        with pytest.raises(BadReply):
            as_stream(odd)


async def test_paths(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Cohere's reranking lies beside its compatibility address, and nothing else of it does."""
    written = Provider.model_validate({"base_url": f"{upstream.url}/compatibility/v1", "api_key": "k"})
    source = OpenAiCompatible(resolve("cohere", written), session)
    for path in ("/rerank", "/models?a=1", "//elsewhere/rerank"):
        call = Call("c", "passthrough", "m", {}, path=path, raw=(b"{}",))
        async with source.stream(call, Candidate(Model("cohere", "rerank-v3.5"))) as stream:
            assert b"".join([piece async for piece in stream])
    assert [request.path for request in upstream.requests] == [
        "/v1/v2/rerank",
        "/v1/compatibility/v1/models",
        "/v1/compatibility/v1//elsewhere/rerank",
    ]


# -- over a real server -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> Iterator[UpstreamThread]:
    with UpstreamThread(models=["ok"]) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(many: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Groq, Cohere and AI Horde by their quirks, and a provider without any."""
    names = ("groq", "cohere", "aihorde", "plain")
    config = {
        "providers": {name: provider(many.url) for name in names},
        "pools": {
            "both": {"where": {"models": ["groq/ok", "plain/ok"]}, "order": "as_listed"},
            "none": {"where": {"models": ["groq/ok", "cohere/ok"]}, "order": "as_listed"},
        },
        "local": {"models": []},
        "state": {"url": "memory"},
    }
    with serving(config, tmp_path_factory.mktemp("quirks"), "--no-local") as made:
        yield made


@pytest.fixture
async def http(server: Server, many: UpstreamThread) -> AsyncIterator[Client]:
    many.reset()
    async with client_of(server) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_client_is_told_what_was_left_out(http: Client, many: UpstreamThread, stream: bool) -> None:
    """The header names the fields, whole and streamed, and is absent where all of them were honoured."""
    body: dict[str, Any] = {"stream": stream, "logit_bias": {"1": 5}, "logprobs": True}
    reply = await http.chat("groq/ok", **body)
    assert (reply.status, reply.headers["x-llmproxy-degraded"]) == (200, "logit_bias, logprobs")
    assert not {"logit_bias", "logprobs"} & many.requests[-1].json.keys()
    for model, fields in (("plain/ok", body), ("groq/ok", {"stream": stream, "logprobs": False, "temperature": 0})):
        reply = await http.chat(model, **fields)
        assert (reply.status, reply.headers.get("x-llmproxy-degraded")) == (200, None)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_who_can_honour_a_field_is_asked_first(http: Client, stream: bool) -> None:
    """A field moves the candidate that does not know it behind the other; without the field it is the first."""
    reply = await http.chat("llmproxy/both", stream=stream, logprobs=True)
    assert reply.headers["x-llmproxy-selected-model"] == "plain/ok"
    assert "x-llmproxy-degraded" not in reply.headers
    reply = await http.chat("llmproxy/both", stream=stream)
    assert reply.headers["x-llmproxy-selected-model"] == "groq/ok"


async def test_when_nobody_can_honour_it_the_first_answers(http: Client) -> None:
    """A field that is no condition costs no answer: it is left out, and the reason says so."""
    reply = await http.chat("llmproxy/none", logit_bias={"1": 5})
    assert (reply.status, reply.headers["x-llmproxy-selected-model"]) == (200, "groq/ok")
    assert reply.headers["x-llmproxy-degraded"] == "logit_bias"
    assert reply.headers["x-llmproxy-route-reason"].endswith("behind those that honour logit_bias")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_field_that_must_be_honoured(http: Client, many: UpstreamThread, stream: bool) -> None:
    """Several answers, or tools, from one who has neither: a 400 that names the field, and nothing is sent."""
    fields: list[tuple[str, str, Any]] = [("cohere/ok", "n", 2), ("aihorde/ok", "tools", [TOOL])]
    for model, field, value in fields:
        reply = await http.chat(model, stream=stream, **{field: value})
        assert (reply.status, reply.error["param"]) == (400, field)
    assert many.count() == 0


async def test_a_provider_that_cannot_stream_is_given_the_time_of_a_whole_answer(
    many: UpstreamThread, tmp_path: Path
) -> None:
    """Its first piece is its last: `first_token_timeout` is not for it, while it is for all others."""
    config = {
        "providers": {"aihorde": provider(many.url), "plain": provider(many.url)},
        "server": {"first_token_timeout": 0.3},
        "local": {"models": []},
        "state": {"url": "memory"},
    }
    with serving(config, tmp_path, "--no-local") as server:
        async with client_of(server) as client:
            reply = await client.chat("aihorde/slow-headers+delay=0.8", stream=True)
            assert reply.text.startswith("word0")
            reply = await client.chat("plain/slow-headers+delay=0.8", stream=True)
            assert reply.json["error"]["attempts"][0]["outcome"] == "first_token_timeout"


async def test_a_provider_that_cannot_stream(http: Client, many: UpstreamThread) -> None:
    """Its client has a stream all the same, with its usage."""
    reply = await http.chat("aihorde/ok", stream=True, stream_options={"include_usage": True}, max_tokens=2, stop="x")
    assert reply.streamed
    assert reply.text.startswith("word0 word1")
    assert reply.finish_reason == "stop"
    assert reply.chunks[-1]["usage"]["completion_tokens"] == 8
    [request] = [one for one in many.requests if one.model]
    assert (request.json["max_tokens"], request.json["stop"]) == (16, ["x"])
    assert "stream" not in request.json
