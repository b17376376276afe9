"""Every fault of a first candidate × stream or not × raw HTTP or OpenAI's SDK × who is next, against the real server.

Next is a healthy upstream, the embedded model, or nobody. Whoever is next, the client has the whole right answer; with
nobody it has exactly one error. Both next candidates repeat a sentence on request, so that the right answer is known.
Forced JSON is only tried with an upstream next: the embedded model refuses `response_format`. A forced tool call of the
embedded model is checked against the schema, not for the words in it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import openai
import pytest
from aiohttp import web

from llmproxy.app import RUNTIME, Runtime, build_app
from llmproxy.core import config as configuration
from llmproxy.gateway.attempt import Try
from llmproxy.gateway.exchange import Exchange
from llmproxy.gateway.failures import Failures
from llmproxy.gateway.patience import Patience
from llmproxy.gateway.relay import Relay
from llmproxy.routing.health import Health
from llmproxy.routing.planner import Draw
from tests.fakes.upstream import UpstreamThread, eventually
from tests.servers import Client, Json, Server, client_of, provider, serving, wait_until

SENTENCE = "the red fox jumps over the lazy dog"
TINY = "local/tiny"
LIMIT_S = 15.0
SERVER: Json = {
    "request_timeout": 1.2,
    "first_token_timeout": 0.8,
    "stall_timeout": 0.6,
    "min_tokens_per_second": 40,
    "deadline": 12,
}
TRICKLE = "trickle+delay=0.3"  # quicker than the stall timeout, but not done within two of them

CITY: Json = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
CITY["additionalProperties"] = False
TOOLS: list[Json] = [
    {"type": "function", "function": {"name": "get_weather", "description": "Get the weather.", "parameters": CITY}},
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}},
]
FORCED_TOOL: Json = {"tools": TOOLS, "tool_choice": "required"}
FORCED_JSON: Json = {"response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": CITY}}}

NEXTS = ("upstream", "local", "nobody")
CLIENTS = ("http", "sdk")


@dataclass(frozen=True)
class Fault:
    """One way to fail: its script upstream, its word in the attempts without and with streaming, what the call forces.

    The word is None where the answer is whole in spite of it. `begun`: a stream has said something before, so that
    another candidate has to take over. `then` is a candidate between it and the next one.
    """

    name: str
    script: str
    whole: str | None
    stream: str | None
    forces: Json = field(default_factory=dict)
    begun: bool | None = False  # None: that depends on who is quicker
    then: str = ""

    @property
    def nexts(self) -> tuple[str, ...]:
        """Who may come next: see the top of this file; with another candidate in between, somebody must."""
        left_out = {"local"} if self.forces is FORCED_JSON else {"nobody"} if self.then else set()
        return tuple(place for place in NEXTS if place not in left_out)


BOTH = ("whole", "stream")
FAULTS = (
    Fault("429 with Retry-After", "status-429+retry-after=30", "429", "429"),
    Fault("429 without Retry-After", "status-429+retry-after=none", "429", "429"),
    Fault("429 with a date", "status-429+retry-after=date+in=60", "429", "429"),
    Fault("429 for ten minutes", "status-429+retry-after=600", "429", "429"),
    Fault("500 once", "once-500", "500", "500"),
    Fault("503 for a while", "once-503+times=2", "503", "503"),
    Fault("HTML 502", "status-502", "502", "502"),
    Fault("reset before headers", "reset", "connection_lost", "connection_lost"),
    Fault("reset in headers", "reset-headers", "connection_lost", "connection_lost"),
    Fault("silence", "silence", "request_timeout", "first_token_timeout"),
    Fault("slow first token", "slow-first+delay=30", "request_timeout", "first_token_timeout"),
    Fault("cut by FIN", "cut+after=3+trickle", "connection_lost", "connection_lost", begun=True),
    Fault("cut by RST", "cut+rst+after=3+trickle", "connection_lost", "connection_lost", begun=True),
    Fault("cut by RST at once", "cut+rst+after=3", "connection_lost", "connection_lost", begun=None),
    Fault("clean end without finish reason", "cut-clean+after=3+trickle", "not_json", "truncated", begun=True),
    Fault("stall", "stall+after=3", "request_timeout", "stall_timeout", begun=True),
    Fault("trickle", TRICKLE, "request_timeout", "trickle", begun=True),
    Fault("malformed event", "malformed", "not_json", None),
    Fault("error under 200", "error-200", "error_in_200", "error_in_200"),
    Fault("array error under 200", "error-array-200", "error_in_200", "error_in_200"),
    Fault("array error", "error-array-400", "400", "400"),
    Fault("empty", "empty", "empty", "empty"),
    Fault("gzip garbage", "gzip-garbage", "bad_encoding", "bad_encoding"),
    Fault("open after DONE", "open-after-done", None, None),
    Fault("error event at once", "in-band-error+after=0", "error_in_200", "error_in_200"),
    Fault("error event later", "in-band-error+after=3+trickle", "error_in_200", "error_in_200", begun=True),
    Fault(
        "next rejects prefills",
        "cut+after=3+trickle",
        "connection_lost",
        "connection_lost",
        begun=True,
        then="rejects-prefill",
    ),
    Fault(
        "next rejects prefills and is cut",
        "cut+after=3+trickle",
        "connection_lost",
        "connection_lost",
        begun=True,
        then="rejects-prefill+cut+after=5+trickle",
    ),
    Fault("same tool index", "dup-tool-index", None, None, FORCED_TOOL),
    Fault("no tool index", "dup-tool-index+index=missing", None, None, FORCED_TOOL),
    Fault("wrong tool", "wrong-tool", "unmet", "unmet", FORCED_TOOL),
    Fault("invalid arguments", "bad-args", "unmet", "unmet", FORCED_TOOL),
    Fault("arguments against the schema", "schema-args", "unmet", "unmet", FORCED_TOOL),
    Fault("prose for a tool call", "prose", "unmet", "unmet", FORCED_TOOL),
    Fault("cut inside a tool call", "cut+after=2+trickle", "connection_lost", "connection_lost", FORCED_TOOL),
    Fault("prose for JSON", "prose", "unmet", "unmet", FORCED_JSON),
    Fault("truncated JSON", "truncated-json", "unmet", "unmet", FORCED_JSON),
    Fault("JSON against the schema", "wrong-json", "unmet", "unmet", FORCED_JSON),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
modes = pytest.mark.parametrize("mode", BOTH)


@dataclass(frozen=True)
class Case:
    """One call: a fault, whether it streams, who asks, and who is next."""

    fault: Fault
    mode: str
    client: str
    place: str

    def __str__(self) -> str:
        return f"{self.fault.name}, {self.mode}, {self.client}, {self.place} next"

    @property
    def first(self) -> str:
        """The model that fails: a name of its own for each case, since what failed before is asked last."""
        return self._own(f"odd/{self.fault.script}")

    @property
    def then(self) -> list[str]:
        """The candidates after it."""
        between = [self._own(f"odd/{self.fault.then}")] if self.fault.then else []
        return between + {"upstream": [self._own("good/ok")], "local": [TINY], "nobody": []}[self.place]

    @property
    def body(self) -> Json:
        """The request."""
        return request_of(self.first, self.then, self.mode, self.fault.forces)

    @property
    def outcome(self) -> str | None:
        """The fault's word in this mode."""
        return self.fault.stream if self.mode == "stream" else self.fault.whole

    @property
    def begun(self) -> bool | None:
        """Whether the client has words of the first candidate."""
        return self.fault.begun if self.mode == "stream" else False

    @property
    def answerer(self) -> str | None:
        """Who must have the last word; None when nobody can."""
        if self.outcome is None:
            return self.first
        if self.fault.then:
            return self.then[-1 if "+cut" in self.fault.then else 0]
        return self.then[-1] if self.then else None

    def _own(self, model: str) -> str:
        return f"{model}+{self.client}-{self.place}={self.fault.name.replace(' ', '-')}-{self.mode}"


def request_of(model: str, others: Sequence[str], mode: str, forces: Json | None = None) -> Json:
    """A request whose right answer is known."""
    prompt = "What's the weather in Paris?" if forces else f"Repeat: {SENTENCE}"
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "models": list(others), "messages": messages, "stream": mode == "stream", **(forces or {})}


@dataclass(frozen=True)
class Told:
    """What a client has in the end, whichever client it is: chunks or the one whole body, and errors."""

    parts: Sequence[Json]
    errors: Sequence[Json]

    @property
    def choices(self) -> list[Json]:
        return [choice for part in self.parts for choice in part.get("choices") or []]

    @property
    def text(self) -> str:
        return "".join(self._message(choice).get("content") or "" for choice in self.choices)

    @property
    def ends(self) -> list[str]:
        """The finish reasons."""
        return [choice["finish_reason"] for choice in self.choices if choice["finish_reason"]]

    @property
    def calls(self) -> list[tuple[str, Any]]:
        """The tool calls as (name, decoded arguments), in the order of their indices."""
        found: dict[int, list[str]] = {}
        for choice in self.choices:
            for place, fragment in enumerate(self._message(choice).get("tool_calls") or []):
                call = found.setdefault(fragment.get("index", place), ["", ""])
                call[0] += fragment["function"].get("name") or ""
                call[1] += fragment["function"].get("arguments") or ""
        assert sorted(found) == list(range(len(found)))
        return [(found[place][0], json.loads(found[place][1])) for place in sorted(found)]

    @staticmethod
    def _message(choice: Json) -> Json:
        message: Json = choice.get("delta") or choice.get("message") or {}
        return message


async def by_http(http: Client, body: Json) -> Told:
    """Ask without any library's help."""
    answer = await http.post("/v1/chat/completions", body)
    if answer.status != 200:
        assert not answer.streamed
        return Told([], [answer.error])
    assert answer.streamed is body["stream"]
    if not answer.streamed:
        return Told([answer.json], [])
    assert answer.events.count("[DONE]") == 1
    assert answer.events[-1] == "[DONE]"
    return Told(
        [chunk for chunk in answer.chunks if "error" not in chunk],
        [chunk["error"] for chunk in answer.chunks if "error" in chunk],
    )


async def by_sdk(sdk: Any, body: Json) -> Told:
    """Ask as most programs do."""
    parts: list[Json] = []
    own = {key: value for key, value in body.items() if key != "models"}
    try:
        reply = await sdk.chat.completions.create(**own, extra_body={"models": body["models"]})
        if not body["stream"]:
            parts.append(reply.model_dump())
        else:
            async for chunk in reply:
                parts.append(chunk.model_dump())  # noqa: PERF401 - what came before an error counts
    except openai.APIError as error:
        return Told(parts, [{**cast("Json", error.body), "code": error.code}])
    return Told(parts, [])


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[dict[str, Any]]:
    """Both clients, each as a function of a request's body."""
    plain = openai.DefaultAsyncHttpxClient(verify=False)  # certificates take long to read, and there are none here
    known: Json = {"base_url": f"{server.url}/v1", "api_key": "none", "max_retries": 0, "http_client": plain}
    async with client_of(server) as http, openai.AsyncOpenAI(**known) as sdk:
        yield {"http": lambda body: by_http(http, body), "sdk": lambda body: by_sdk(sdk, body)}


@pytest.fixture(scope="module")
def fake() -> Iterator[UpstreamThread]:
    """The upstream of both providers; what it lists does not matter, since every model is asked for by name."""
    with UpstreamThread(models=["ok"]) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(fake: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of little patience with a warm embedded model. In the end nothing may be left of any call."""
    config = {
        "server": SERVER,
        "providers": {"good": provider(fake.url), "odd": provider(fake.url)},
        "model_capabilities": {"odd/rejects-prefill*": ["prefill"]},
    }
    with serving(config, tmp_path_factory.mktemp("matrix")) as server:
        wait_until(lambda: is_warm(server), 30.0, "an answer of the embedded model")
        yield server
        wait_until(lambda: in_flight(server) == 0, 5.0, "the end of all calls")
        wait_until(lambda: not pending(fake), 5.0, "the end of all connections")
        assert not server.log_lines(level="ERROR")


def fetched(server: Server, path: str, body: Json | None = None) -> Json:
    """A JSON answer, without an event loop."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: Json = json.load(response)
    return answer


def is_warm(server: Server) -> bool:
    """Whether the embedded model answers: while it loads, a call of so little patience fails."""
    try:
        fetched(server, "/v1/chat/completions", {"model": TINY, "messages": [{"role": "user", "content": "hello"}]})
    except urllib.error.HTTPError as error:
        error.close()
        return False
    return True


def in_flight(server: Server) -> int:
    """How many requests the server is answering, but for the one that asks."""
    return int(fetched(server, "/health")["in_flight"]) - 1


def pending(fake: UpstreamThread) -> list[str | None]:
    """The models whose answers neither ended nor were left by the proxy."""
    return [request.model for request in fake.requests if not (request.finished or request.disconnected)]


def assert_right(case: Case, told: Told, answerer: str) -> None:
    """The whole right answer, once, under one id, and no word of an error."""
    assert not told.errors
    assert told.parts
    assert len({part["id"] for part in told.parts}) == 1
    assert len({part["created"] for part in told.parts}) == 1
    assert told.parts[-1]["model"] == answerer
    if answerer != case.first and case.begun is not None:
        assert (told.parts[0]["model"] == case.first) is case.begun
    if case.fault.forces is FORCED_TOOL:
        assert told.ends == ["tool_calls"]
        assert not told.text
        (name, arguments), *others = told.calls
        assert name == "get_weather"
        assert arguments.keys() == {"location"}
        assert isinstance(arguments["location"], str)
        assert others == ([("get_time", {})] if "dup-tool-index" in answerer else [])
        return
    assert told.ends == ["stop"]
    assert not told.calls
    if case.fault.forces is FORCED_JSON:
        value = json.loads(told.text)
        assert value.keys() == {"location"}
        assert isinstance(value["location"], str)
    else:
        assert told.text == SENTENCE


def assert_one_error(case: Case, told: Told) -> None:
    """One error that says what it is; what came before it is a beginning of the answer that claims no end."""
    [error] = told.errors
    assert {"message", "type", "code", "param", "attempts"} <= error.keys()
    assert error["message"]
    assert error["type"]
    assert error["code"]
    assert {(made["model"], made["outcome"]) for made in error["attempts"]} == {(case.first, case.outcome)}
    assert not told.ends
    assert SENTENCE.startswith(told.text)
    assert case.begun in (bool(told.text), None)


def assert_bounded(case: Case, fake: UpstreamThread) -> None:
    """No candidate was asked more than twice, and nobody who was not needed."""
    candidates = [case.first, *case.then]
    asked = {model: fake.count(upstream_id(model)) for model in candidates if model != TINY}
    assert 1 <= asked[case.first] <= 2
    assert max(asked.values()) <= 2
    if case.answerer is not None:
        unneeded = candidates[candidates.index(case.answerer) + 1 :]
        assert not [model for model in unneeded if asked.get(model)]


def upstream_id(model: str) -> str:
    """The model's name without its provider."""
    return model.partition("/")[2]


@modes
@pytest.mark.parametrize("name", BY_NAME)
async def test_the_answer_is_whole_or_there_is_one_error(
    server: Server, fake: UpstreamThread, subtests: pytest.Subtests, name: str, mode: str
) -> None:
    """Each client with each next candidate at the same time: right, bounded in time, and bounded in attempts."""
    fault = BY_NAME[name]
    cases = [Case(fault, mode, client, place) for client in CLIENTS for place in fault.nexts]
    async with asking(server) as ask, asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(*(ask[case.client](case.body) for case in cases), return_exceptions=True)
    for case, told in zip(cases, outcomes, strict=True):
        with subtests.test(str(case)):
            if not isinstance(told, Told):
                raise told
            if case.answerer is None:
                assert_one_error(case, told)
            else:
                assert_right(case, told, case.answerer)
            assert_bounded(case, fake)


@modes
@pytest.mark.parametrize(("script", "failures"), [("once-500", 1), ("once-503+times=2", 2)])
async def test_a_fault_that_passes_is_forgiven(server: Server, script: str, failures: int, mode: str) -> None:
    """After its last failure the model answers by itself again, at once when there is nobody else."""
    async with asking(server) as ask, asyncio.timeout(LIMIT_S):
        for client in CLIENTS:
            model = f"odd/{script}+again={mode}-{client}"
            first, *failed, last = [
                await ask[client](request_of(model, others, mode)) for others in (["good/ok"], *[[]] * failures)
            ]
            assert (first.parts[-1]["model"], first.text) == ("good/ok", SENTENCE)
            assert [(len(told.errors), told.parts) for told in failed] == [(1, [])] * (failures - 1)
            assert (last.parts[-1]["model"], last.text, last.errors) == (model, SENTENCE, [])


@modes
@pytest.mark.parametrize(
    ("told", "wait_s"), [("30", 30), ("600", 600), ("date+in=90", 90)], ids=["seconds", "ten minutes", "date"]
)
async def test_a_stated_wait_is_kept(server: Server, fake: UpstreamThread, told: str, wait_s: int, mode: str) -> None:
    """Nobody is asked before the time that it stated itself; with nobody else the client is told that time."""
    model = f"odd/status-429+retry-after={told}+kept={mode}"
    async with client_of(server) as http, asyncio.timeout(LIMIT_S):
        passed, spared, refused = [
            await http.post("/v1/chat/completions", request_of(model, others, mode))
            for others in (["good/ok"], ["good/ok"], [])
        ]
    assert [(answer.text, answer.headers["x-llmproxy-attempts"]) for answer in (passed, spared)] == [
        (SENTENCE, "2"),
        (SENTENCE, "1"),
    ]
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert wait_s - 15 <= int(refused.headers["Retry-After"]) <= wait_s
    assert fake.count(upstream_id(model)) == 1


# -- nothing stays behind -----------------------------------------------------------------------------------------

WARM_ROUNDS = 1
GROWTH_BYTES = 256 * 1024  # over about 300 calls
AT_ONCE = 12
MADE_FOR_ONE_CALL = (Relay, Exchange, Try, Patience, Draw)
FEW = 24  # of the hundreds of objects of some 75 calls that may wait for a collection
BRIEF: Json = {"request_timeout": 0.8, "first_token_timeout": 0.8, "stall_timeout": 0.6, "keep_alive": 0.1}
REPEATED = [fault for fault in FAULTS if fault.name not in ("trickle", "slow first token")]


@asynccontextmanager
async def in_this_process(config: Json) -> AsyncIterator[tuple[Runtime, str]]:
    """The application on a socket of its own, as `llmproxy serve` runs it, but in this loop."""
    app = build_app(configuration.parse(config), local=False)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield app[RUNTIME], f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def alive(*kinds: type) -> Counter[str]:
    """What is left of calls."""
    kinds = kinds or MADE_FOR_ONE_CALL
    return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in kinds)


def collected() -> Counter[str]:
    """What is left even after a collection, which aiohttp and a task that is cancelled twice need."""
    gc.collect()
    return alive(*MADE_FOR_ONE_CALL, aiohttp.ClientResponse)


async def one_round(url: str) -> int:
    """Every fault, streamed or not, and one client that leaves; returns how many calls were made."""
    turns = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:
        http = Client(session, url)

        async def ask(case: Case) -> None:
            async with turns:
                told = await by_http(http, case.body)
            assert not told.errors, str(case)
            assert len(told.ends) == 1, str(case)

        async def leave() -> None:
            async with http.streaming("odd/trickle+tokens=400+leaves=1", models=["good/ok"]) as response:
                assert await response.content.readany()
                response.close()

        cases = [Case(fault, mode, "http", "upstream") for fault in REPEATED for mode in BOTH]
        patient = {"silence", "stall"}
        cases.sort(key=lambda case: case.fault.name not in patient)
        await asyncio.gather(leave(), *map(ask, cases))
    return len(cases) + 1


@pytest.mark.parametrize(("hedge_after", "rounds"), [(None, 4), (0.05, 1)], ids=["one by one", "hedged"])
async def test_nothing_of_a_call_stays_behind(
    fake: UpstreamThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hedge_after: float | None, rounds: int
) -> None:
    """After many calls that failed on the way no object of theirs is alive, no task runs, no memory is lost.

    Next to nothing waits for the collector either: it comes late in a server, and what it finds has cost memory.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = {
        "server": {**BRIEF, "log_level": "ERROR"},
        "routing": {"hedge_after": hedge_after},
        "local": {"models": []},
        "providers": {"good": provider(fake.url), "odd": provider(fake.url)},
        "model_capabilities": {"odd/rejects-prefill*": ["prefill"]},
    }
    gc.collect()
    known = alive()
    tracemalloc.start()
    gc.disable()
    try:
        async with in_this_process(config) as (runtime, url), asyncio.timeout(40):
            before = asyncio.all_tasks()

            async def left_bytes(rounds: int) -> int:
                """The memory in use after so many rounds, when nothing of them is left."""
                for _ in range(rounds):
                    fake.reset()
                    # What is remembered of failures is meant to last, and would keep the models from being asked.
                    runtime.dispatcher.health, runtime.dispatcher.failures = Health(), Failures()
                    assert await one_round(url) > 70
                assert await eventually(lambda: asyncio.all_tasks() <= before, 5.0), asyncio.all_tasks() - before
                assert await eventually(lambda: (alive() - known).total() <= FEW, 5.0), alive() - known
                assert await eventually(lambda: not collected() - known, 5.0), collected() - known
                return tracemalloc.get_traced_memory()[0]

            warm_bytes = await left_bytes(WARM_ROUNDS)
            assert await left_bytes(rounds) - warm_bytes < GROWTH_BYTES
    finally:
        gc.enable()
        tracemalloc.stop()
