"""The loop over real HTTP: what a client sees when candidates of a scripted upstream fail in every way they do."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.fakes.upstream import UpstreamThread, eventually
from tests.servers import Answer, Client, Json, Server, client_of, provider, serving, unreachable

SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
BEGINNING = "word0 word1 word2"
HASTY = {"request_timeout": 0.7, "first_token_timeout": 0.5, "stall_timeout": 0.5, "deadline": 20}
MAX_ATTEMPTS = 4
SCHEMA: Json = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL: Json = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
OTHER_TOOL: Json = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}
TOOLS: Json = {"tools": [TOOL, OTHER_TOOL]}
FORCED_TOOL: Json = {**TOOLS, "tool_choice": "required"}
NAMED_TOOL: Json = {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
ANY_JSON: Json = {"response_format": {"type": "json_object"}}
SCHEMA_JSON: Json = {"response_format": {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}}


@dataclass(frozen=True)
class Fault:
    """A way to fail, and its word in the trail without and with streaming; None: streams survive it."""

    model: str
    whole: str
    stream: str | None
    source: str = "odd"

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "-", f"{self.source}-{self.model}".removeprefix("odd-"))


FAULTS = (
    Fault("ok", "connect_error", "connect_error", source="refused"),
    Fault("reset", "connection_lost", "connection_lost"),
    Fault("reset-headers", "connection_lost", "connection_lost"),
    Fault("silence", "request_timeout", "first_token_timeout"),
    Fault("slow-first+delay=9", "request_timeout", "first_token_timeout"),
    Fault("slow-first+delay=9+comments", "request_timeout", "first_token_timeout"),
    Fault("stall+after=0", "request_timeout", "first_token_timeout"),
    Fault("cut+after=0", "connection_lost", "connection_lost"),
    Fault("cut+rst+after=0", "connection_lost", "connection_lost"),
    Fault("cut-clean+after=0", "not_json", "truncated"),
    Fault("malformed", "not_json", None),
    Fault("in-band-error+after=0", "error_in_200", "error_in_200"),
    Fault("status-401", "401", "401", source="key"),
    Fault("status-402", "402", "402", source="credit"),
    *(Fault(f"status-{status}", str(status), str(status)) for status in (403, 404, 408, 409, 413, 429)),
    *(Fault(f"status-{status}", str(status), str(status)) for status in (500, 502, 503, 529)),
    Fault("context-length", "400", "400"),
    Fault("error-array-400", "400", "400"),
    Fault("html-200", "not_json", "truncated"),
    Fault("not-json", "not_json", "truncated"),
    Fault("error-200", "error_in_200", "error_in_200"),
    Fault("no-choices", "no_choices", "truncated"),
    Fault("empty", "empty", "empty"),
    Fault("gzip-garbage", "bad_encoding", "bad_encoding"),
)
FAULT_CASES = [
    pytest.param(fault, stream, id=f"{fault.name}-{'stream' if stream else 'whole'}")
    for fault in FAULTS
    for stream in (False, True)
    if fault.stream or not stream
]
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def mode_of(stream: bool) -> str:
    return "stream" if stream else "whole"


@pytest.fixture(scope="module")
def fake() -> Iterator[UpstreamThread]:
    """An upstream that lists nothing but two healthy models: every other one is asked for by name."""
    with UpstreamThread(models=["ok", "acme/ok-large"]) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def gateway(fake: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without patience. Faults that blame more than one model have a provider of their own for each mode."""
    with unreachable() as refused:
        modes = ("whole", "stream")
        pools = {f"listed-{mode}": [f"listed/status-503+pool={mode}", "good/ok"] for mode in modes}
        config = {
            "server": HASTY,
            "routing": {"max_attempts": MAX_ATTEMPTS},
            "local": {"models": []},
            "providers": {
                "good": provider(fake.url),
                "odd": provider(fake.url),
                "listed": provider(fake.url, model_filter=[f"status-503+pool={mode}" for mode in modes]),
                **{f"{name}-{mode}": provider(fake.url) for name in ("key", "credit") for mode in modes},
                **{f"refused-{mode}": provider(refused) for mode in modes},
            },
            "pools": {name: {"where": {"models": models}, "order": "as_listed"} for name, models in pools.items()},
        }
        with serving(config, tmp_path_factory.mktemp("gateway"), "--no-local") as server:
            yield server


@pytest.fixture
async def http(gateway: Server) -> AsyncIterator[Client]:
    async with client_of(gateway) as client:
        yield client


def assert_whole(answer: Answer, text: str | None = SENTENCE, model: str = "good/ok") -> None:
    """The answer is complete, and nothing in it tells of another candidate or of an error."""
    assert answer.status == 200
    assert answer.headers["x-llmproxy-selected-model"] == model
    if text is not None:
        assert answer.text == text
    if answer.streamed:
        assert answer.events[-1] == "[DONE]"
        assert not [chunk for chunk in answer.chunks if "error" in chunk]
        assert {chunk["model"] for chunk in answer.chunks} == {model}
        assert len({chunk["id"] for chunk in answer.chunks}) == 1
    else:
        assert answer.json["model"] == model


@pytest.mark.parametrize(("fault", "stream"), FAULT_CASES)
async def test_a_candidate_that_fails_is_passed_over(
    http: Client, fake: UpstreamThread, fault: Fault, stream: bool
) -> None:
    """The client gets the whole answer of the next candidate, and the trail names both."""
    mode = mode_of(stream)
    source = fault.source if fault.source == "odd" else f"{fault.source}-{mode}"
    model = f"{fault.model}+mode={mode}"
    answer = await http.chat(f"{source}/{model}", models=["good/ok"], stream=stream)
    assert_whole(answer)
    assert answer.finish_reason == "stop"
    assert answer.headers["x-llmproxy-attempts"] == "2"
    assert answer.trail[0] == (f"{source}/{model}", fault.stream if stream else fault.whole)
    if not stream:
        assert answer.trail[1] == ("good/ok", "ok")
    assert fake.count(model) <= 2


async def test_the_trail_of_a_stream_names_the_candidate_that_answers(http: Client) -> None:
    """As without streaming, the last entry of the trail is the one that answered."""
    answer = await http.chat("odd/status-500+mode=trail", models=["good/ok"], stream=True)
    assert [model for model, _ in answer.trail] == ["odd/status-500+mode=trail", "good/ok"]


@both_ways
async def test_a_pool_goes_on_in_its_order(http: Client, stream: bool) -> None:
    """The second candidate of an `as_listed` pool answers when the first one cannot."""
    answer = await http.chat(f"llmproxy/listed-{mode_of(stream)}", stream=stream)
    assert_whole(answer)
    assert answer.trail[0] == (f"listed/status-503+pool={mode_of(stream)}", "503")


@both_ways
async def test_a_connection_that_broke_before_a_byte_is_tried_once_more(
    http: Client, fake: UpstreamThread, stream: bool
) -> None:
    """A kept-alive connection that the upstream closed at that moment costs one more try, not the candidate."""
    model = f"once-reset+mode={mode_of(stream)}"
    answer = await http.chat(f"odd/{model}", models=["good/ok"], stream=stream)
    assert_whole(answer, model=f"odd/{model}")
    assert answer.headers["x-llmproxy-attempts"] == "1"
    assert fake.count(model) == 2


@both_ways
@pytest.mark.parametrize(
    ("model", "forces", "outcome"),
    [
        *((model, FORCED_TOOL, "unmet") for model in ("prose", "wrong-tool", "bad-args", "schema-args")),
        *((model, NAMED_TOOL, "unmet") for model in ("prose", "wrong-tool", "bad-args", "schema-args")),
        ("two-tools", {**FORCED_TOOL, "parallel_tool_calls": False}, "unmet"),
        *((model, ANY_JSON, "unmet") for model in ("prose", "truncated-json", "wrong-json")),
        *((model, SCHEMA_JSON, "unmet") for model in ("prose", "truncated-json", "wrong-json")),
        ("empty", FORCED_TOOL, "empty"),
        ("empty", SCHEMA_JSON, "empty"),
        ("cut+after=2", FORCED_TOOL, "connection_lost"),
        ("cut+after=2", SCHEMA_JSON, "connection_lost"),
    ],
)
async def test_what_the_call_forces_is_delivered_by_the_next_candidate(
    http: Client, model: str, forces: Json, outcome: str, stream: bool
) -> None:
    """An answer without the forced tool call or JSON never reaches the client, nor does any part of it."""
    name = f"{model}+{len(json.dumps(forces))}={mode_of(stream)}"
    answer = await http.chat(f"odd/{name}", models=["good/ok"], stream=stream, **forces)
    assert_whole(answer, text=None)
    assert answer.trail[0] == (f"odd/{name}", outcome)
    if "tools" in forces:
        assert answer.tool_calls == [("get_weather", '{"city": "value", "days": 3}')]
        assert answer.finish_reason == "tool_calls"
    else:
        value = json.loads(answer.text)
        assert value == ({"city": "value", "days": 3} if forces is SCHEMA_JSON else {"answer": SENTENCE})


@both_ways
@pytest.mark.parametrize(
    ("model", "forces"), [("hermes", FORCED_TOOL), ("hermes", NAMED_TOOL), ("fenced-json", SCHEMA_JSON)]
)
async def test_the_wrong_wrapping_never_reaches_the_client(
    http: Client, model: str, forces: Json, stream: bool
) -> None:
    """A call written as text, and JSON inside a fence, arrive as they were forced: unwrapped, or from the next one."""
    name = f"{model}+{len(json.dumps(forces))}={mode_of(stream)}"
    answer = await http.chat(f"odd/{name}", models=["good/ok"], stream=stream, **forces)
    assert_whole(answer, text=None, model=answer.headers["x-llmproxy-selected-model"])
    [(called, value)] = answer.tool_calls if "tools" in forces else [("", answer.text)]
    assert (called, json.loads(value)) == ("get_weather" if "tools" in forces else "", {"city": "value", "days": 3})


@both_ways
@pytest.mark.parametrize("model", ["prose", "wrong-tool", "bad-args", "schema-args"])
async def test_a_tool_that_is_only_offered_is_never_judged(http: Client, model: str, stream: bool) -> None:
    """With `tool_choice: auto` the first candidate's answer is the answer, whatever it calls."""
    answer = await http.chat(
        f"odd/{model}", "please call get_weather", models=["good/ok"], stream=stream, **TOOLS, tool_choice="auto"
    )
    assert answer.headers["x-llmproxy-attempts"] == "1"
    assert answer.headers["x-llmproxy-selected-model"] == f"odd/{model}"
    if model == "prose":
        assert answer.text == SENTENCE
    else:
        assert len(answer.tool_calls) == 1


@both_ways
@pytest.mark.parametrize("model", ["refusal", "length", "content-filter"])
async def test_an_honest_end_is_an_answer_to_what_was_forced(http: Client, model: str, stream: bool) -> None:
    """A refusal, a full window and a filter are told as they are: another candidate is not asked."""
    answer = await http.chat(f"odd/{model}", models=["good/ok"], stream=stream, **SCHEMA_JSON)
    assert (answer.status, answer.headers["x-llmproxy-attempts"]) == (200, "1")


@both_ways
async def test_an_invalid_request_is_returned_at_once(http: Client, fake: UpstreamThread, stream: bool) -> None:
    """What would be refused everywhere costs one attempt; the refusal is the client's own error."""
    model, other = f"invalid-request+mode={mode_of(stream)}", f"ok+after-invalid={mode_of(stream)}"
    answer = await http.chat(f"odd/{model}", models=[f"good/{other}"], stream=stream)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == "messages"
    assert [attempt["outcome"] for attempt in answer.error["attempts"]] == ["400"]
    assert (fake.count(model), fake.count(other)) == (1, 0)


@both_ways
@pytest.mark.parametrize(
    ("model", "uses"),
    [("unsupported-param+param=top_p", {"top_p": 0.5}), ("unsupported-tools", {**TOOLS, "tool_choice": "auto"})],
)
async def test_what_a_model_cannot_honour_is_learned(
    http: Client, fake: UpstreamThread, model: str, uses: Json, stream: bool
) -> None:
    """The first call is passed on; the second one goes to the other candidate first; calls without it still come."""
    name = f"{model}+mode={mode_of(stream)}"
    first = await http.chat(f"odd/{name}", models=["good/ok"], stream=stream, **uses)
    second = await http.chat(f"odd/{name}", models=["good/ok"], stream=stream, **uses)
    plain = await http.chat(f"odd/{name}", models=["good/ok"], stream=stream)
    assert_whole(first)
    assert_whole(second)
    assert_whole(plain, model=f"odd/{name}")
    assert [answer.headers["x-llmproxy-attempts"] for answer in (first, second, plain)] == ["2", "1", "1"]
    assert fake.count(name) == 2


async def test_the_field_that_a_refusal_names_is_the_one_that_is_learned(http: Client) -> None:
    """Google's `Unknown name "store"` is about `store`, and says nothing about JSON answers."""
    model = "odd/error-array-400+learned=1"
    await http.chat(model, models=["good/ok"], store=True)
    explained = await http.post("/v1/route/explain", {"model": model, "models": ["good/ok"], **ANY_JSON})
    assert [entry["model"] for entry in explained.json["kept"]] == [model, "good/ok"]


@both_ways
async def test_attempts_are_bounded(http: Client, fake: UpstreamThread, stream: bool) -> None:
    """No more candidates are asked than `routing.max_attempts`, and each of them once."""
    models = [f"status-500+place={place}-{mode_of(stream)}" for place in range(MAX_ATTEMPTS + 2)]
    first, *others = [f"odd/{model}" for model in models]
    answer = await http.chat(first, models=others, stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "all_candidates_failed")
    assert [fake.count(model) for model in models] == [1] * MAX_ATTEMPTS + [0, 0]


@both_ways
@pytest.mark.parametrize(
    ("models", "forces", "status", "code"),
    [
        (["status-500", "html-200", "status-429"], {}, 502, "all_candidates_failed"),
        (["silence", "reset"], {}, 502, "all_candidates_failed"),
        (["status-500"], {}, 502, "all_candidates_failed"),
        (["status-429+retry-after=20", "status-429+retry-after=40"], {}, 429, "rate_limit_exceeded"),
        (["prose", "wrong-tool", "schema-args"], FORCED_TOOL, 502, "capability_unmet"),
        (["prose", "truncated-json"], SCHEMA_JSON, 502, "capability_unmet"),
        (["prose", "status-500"], FORCED_TOOL, 502, "all_candidates_failed"),
        (["context-length", "context-length+limit=0"], {}, 400, "context_length_exceeded"),
        (["status-413", "status-413+other=1"], {}, 413, "request_too_large"),
        (["status-404", "status-404+other=1"], {}, 404, "model_not_found"),
    ],
)
async def test_when_all_fail_one_error_tells_what_happened(
    http: Client, models: list[str], forces: Json, status: int, code: str, stream: bool
) -> None:
    """A stream that nobody began has the same JSON error as a call without streaming, with every attempt in it."""
    names = [f"odd/{model}+all={mode_of(stream)}{len(models)}" for model in models]
    answer = await http.chat(names[0], models=names[1:], stream=stream, **forces)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert not answer.streamed
    attempts = answer.error["attempts"]
    assert [attempt["model"] for attempt in attempts] == names
    assert all(attempt.keys() == {"model", "outcome", "status", "ms", "reason"} for attempt in attempts)
    assert [model for model, _ in answer.trail] == names
    assert answer.headers["x-llmproxy-attempts"] == str(len(names))


async def test_the_soonest_reset_is_the_time_to_come_back(http: Client, fake: UpstreamThread) -> None:
    """When all are out of quota `Retry-After` is the smallest wait, also while nobody is asked any more."""
    models = [f"status-429+retry-after={wait_s}+soonest=1" for wait_s in (50, 30)]
    names = [f"odd/{model}" for model in models]
    answers = [await http.chat(names[0], models=names[1:]) for _ in range(2)]
    assert [answer.status for answer in answers] == [429, 429]
    assert [int(answer.headers["Retry-After"]) for answer in answers] == [30, 30]
    assert [fake.count(model) for model in models] == [1, 1]


DEATHS = [
    ("cut+after=3+trickle", "connection_lost"),
    ("cut+rst+after=3+trickle", "connection_lost"),
    ("cut-clean+after=3+trickle", "truncated"),
    ("stall+after=3", "stall_timeout"),
    ("in-band-error+after=3+trickle", "error_in_200"),
]


@pytest.mark.parametrize(("model", "code"), DEATHS)
class TestAStreamThatDiesWithNobodyLeft:
    """The client has part of an answer that nobody can finish: it is told, never left to guess."""

    async def test_it_ends_with_an_error_event(self, http: Client, model: str, code: str) -> None:
        """What came is there, then one error event, and no finish reason that would make it look whole."""
        answer = await http.chat(f"odd/{model}+raw=1", stream=True)
        assert (answer.status, answer.headers["x-llmproxy-selected-model"]) == (200, f"odd/{model}+raw=1")
        *chunks, last = answer.chunks
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == BEGINNING
        assert not [chunk for chunk in chunks if chunk["choices"][0]["finish_reason"]]
        assert {"message", "type", "param", "code"} <= last["error"].keys()
        assert last["error"]["code"] == code

    async def test_the_openai_sdk_raises_it(self, gateway: Server, model: str, code: str) -> None:
        """`APIError` comes out of the iteration after the pieces that came."""
        said: list[str] = []
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "hello there"}]
            stream = await client.chat.completions.create(model=f"odd/{model}+sdk=1", messages=messages, stream=True)
            with pytest.raises(openai.APIError) as raised:  # noqa: PT012 - the pieces before the error count
                async for chunk in stream:
                    said += [chunk.choices[0].delta.content or ""]
        assert "".join(said) == BEGINNING
        assert raised.value.code == code


@pytest.mark.parametrize(("model", "code"), DEATHS)
async def test_a_stream_that_dies_is_finished_by_the_next_candidate(http: Client, model: str, code: str) -> None:
    """The client gets each word once, one finish reason, one `[DONE]`, and no error."""
    answer = await http.chat(f"odd/{model}+over=1", models=["good/ok"], stream=True)
    assert (answer.text, answer.finish_reason, answer.events[-1]) == (SENTENCE, "stop", "[DONE]")
    assert not [chunk for chunk in answer.chunks if "error" in chunk]


@pytest.mark.parametrize("model", ["no-done", "open-after-done", "malformed", "comments", "crlf", "spaces", "split=7"])
async def test_a_stream_that_is_only_odd_is_whole(http: Client, model: str) -> None:
    """A missing `[DONE]`, a connection left open, a broken chunk, comments, any line end and chunking do not matter."""
    answer = await http.chat(f"odd/{model}", stream=True)
    assert_whole(answer, model=f"odd/{model}")


async def test_a_client_that_leaves_ends_the_upstream_and_costs_nobody_health(
    http: Client, fake: UpstreamThread
) -> None:
    """The upstream sees the connection close, and the candidate stays first in the next plan."""
    model = "trickle+tokens=400+left=1"
    async with http.streaming(f"odd/{model}", models=["good/ok"]) as response:
        assert await response.content.readany()
        response.close()
    [request] = [request for request in fake.requests if request.model == model]
    assert await eventually(lambda: request.disconnected, 3.0)
    explained = await http.post("/v1/route/explain", {"model": f"odd/{model}", "models": ["good/ok"]})
    assert explained.json["kept"][0] == {"model": f"odd/{model}", "reason": "pinned"}
    assert fake.count(model) == 1


async def test_the_deadline_bounds_all_attempts(fake: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> None:
    """When it passes before anybody answers, that is the error, however patient each attempt would be."""
    config = {
        "server": {"deadline": 0.4},
        "local": {"models": []},
        "providers": {"odd": provider(fake.url)},
    }
    with serving(config, tmp_path_factory.mktemp("deadline"), "--no-local") as server:
        async with client_of(server) as client:
            answer = await client.chat("odd/silence+deadline=1", models=["odd/silence+deadline=2"])
    assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
    assert len(answer.error["attempts"]) == 2
