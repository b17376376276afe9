"""Calls of local models, from requests to the bytes of their answers."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from backends.answers import ChatRunner
from backends.base import Cancel, ChatRequest, Embeddings, Rejected, Settings
from backends.chat import ChatModel
from backends.engine import Limits
from backends.frames import Frame, Kind, encode, receive_blocking
from backends.mailbox import Letter, Mailbox, Outbox
from backends.parameters import Sampling
from backends.process import Worker
from backends.runner import HandlerRunner
from llmproxy.core.errors import Refused
from llmproxy.core.types import JsonObject
from tests.backends.build import build_chat_model
from tests.backends.calls import answered, body_of, error_of, letter
from tests.backends.engines import build

HELLO = [{"role": "user", "content": "hello there, how are you?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A small float32 Qwen3."""
    return build("qwen3", tmp_path_factory.mktemp("qwen3"))


def test_calls_beside_each_other(model: ChatModel) -> None:
    """Whole and streamed answers in one batch say the same, each for its own call, and count their tokens."""
    runner = ChatRunner(model, "local/x")
    frames = answered(
        runner,
        [
            letter(1, {"messages": HELLO}),
            letter(2, {"messages": HELLO}, stream=True),
            letter(3, {"prompt": ["one two", "three"], "n": 2}, endpoint="completions"),
        ],
    )
    whole = body_of(frames[1])
    chunks = [orjson.loads(frame.payload[6:].split(b"\n")[0]) for frame in frames[2] if frame.kind is Kind.DATA]
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])
    assert said == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 8
    assert frames[2][-1] == Frame(Kind.DONE, 2)
    texts = body_of(frames[3])
    assert [choice["index"] for choice in texts["choices"]] == [0, 1, 2, 3]
    assert texts["choices"][0]["text"] == texts["choices"][1]["text"]
    assert texts["usage"]["completion_tokens"] == 32
    count = sum(len(model.tokenizer(text).input_ids) for text in ("one two", "three"))
    assert texts["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, "context_length_exceeded"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "unsupported_messages"),
        ({"prompt": []}, "invalid_request"),
        ({"prompt": [1, 999999]}, "invalid_request"),
    ],
)
def test_what_cannot_be_answered(model: ChatModel, body: JsonObject, code: str) -> None:
    """A bad call gets its error, and those beside it their answers."""
    endpoint = "chat" if "messages" in body else "completions"
    asked = [letter(1, body, endpoint=endpoint), letter(2, {"messages": HELLO})]
    frames = answered(ChatRunner(model, "local/x"), asked)
    error = error_of(frames[1])
    assert (error["code"], error["status"]) == (code, 400)
    assert body_of(frames[2])["choices"][0]["finish_reason"] == "length"


class Leaving:
    """Calls that come at once and are given up after the first step, and what is said of them until nothing is left."""

    def __init__(self, letters: Sequence[Letter]) -> None:
        self._turns = [lambda: list(letters), self._give_up]
        self._letters = letters
        self.frames: list[Frame] = []

    def _give_up(self) -> list[Letter]:
        for one in self._letters:
            one.cancel.set()
        return []

    def take(self, *, wait: bool) -> list[Letter]:
        if wait and not self._turns:
            raise EOFError
        return self._turns.pop(0)() if self._turns else []

    def ended(self, call: int) -> None:
        """Nothing is kept of a call."""

    def put(self, frames: Iterable[Frame]) -> None:
        self.frames += frames


def test_a_call_that_is_given_up_before_its_turn(model: ChatModel) -> None:
    """How long it waited is told when it ends, and not with the next call, which may come hours later."""
    calls = Leaving([letter(call, {"messages": HELLO, "max_tokens": 40}) for call in (1, 2)])
    with pytest.raises(EOFError):
        ChatRunner(model, "local/x", Limits(rows=1)).run(calls, calls)
    assert [frame.call for frame in calls.frames if frame.kind is Kind.DONE] == [1, 2]
    told = [orjson.loads(frame.payload) for frame in calls.frames if frame.kind is Kind.FIGURES]
    assert sum(len(one["observed"].get("queue_seconds", ())) for one in told) == 2
    assert told[-1]["waiting"] == 0


def test_a_full_queue(model: ChatModel) -> None:
    """Beyond the limit a call is told when to come again."""
    runner = ChatRunner(model, "local/x", Limits(rows=1, waiting=2))
    frames = answered(runner, [letter(call, {"messages": HELLO}) for call in (1, 2, 3)])
    error = error_of(frames[3])
    assert (error["kind"], error["status"], error["code"]) == ("rate_limit", 429, "queue_full")
    assert error["retry_after_s"] >= 1.0
    assert body_of(frames[1])
    assert body_of(frames[2])


def test_a_cancelled_call(model: ChatModel) -> None:
    """A call that nobody waits for is over without an answer."""
    runner = ChatRunner(model, "local/x")
    one = letter(1, {"messages": HELLO, "max_tokens": 200, "n": 2}, stream=True)
    frames = runner.begin(one) + runner.step()
    assert all(frame.kind is Kind.DATA for frame in frames)
    one.cancel.set()
    assert runner.step() == [Frame(Kind.DONE, 1)]
    assert runner._engine.idle


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "degrees": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


def test_forced_forms(model: ChatModel) -> None:
    """JSON of a schema and forced calls come out as asked, of a model that knows nothing, beside a free answer."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA, "strict": True}}
    asked = [letter(call, {"messages": HELLO, "max_tokens": 120, "temperature": 1, "seed": 1}) for call in (1, 2, 3)]
    asked[0].request["body"]["response_format"] = form
    asked[1].request["body"] |= {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
    frames = answered(ChatRunner(model, "local/x"), asked)
    found = orjson.loads(body_of(frames[1])["choices"][0]["message"]["content"])
    [choice] = body_of(frames[2])["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (call["function"]["name"], choice["finish_reason"]) == ("weather", "tool_calls")
    for value in (found, orjson.loads(call["function"]["arguments"])):
        assert value["city"] in ("Rome", "Oslo")
        assert value["degrees"] in range(10)
    assert body_of(frames[3])["choices"][0]["message"]["content"]


def test_a_form_that_is_cut(model: ChatModel) -> None:
    """A form that does not fit into max_tokens ends for its length."""
    one = letter(1, {"messages": HELLO, "max_tokens": 3})
    one.request["body"]["response_format"] = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}
    [choice] = body_of(answered(ChatRunner(model, "local/x"), [one])[1])["choices"]
    assert choice["finish_reason"] == "length"


def test_settings(tmp_path: Path) -> None:
    """The settings shorten the window and have sampling of their own; a dtype that torch lacks is an error."""
    folder = build_chat_model(tmp_path / "m")
    model = ChatModel(Settings("m", folder, dtype="float32", context_tokens=50, defaults={"max_tokens": 3}))
    assert model.context_tokens == 50
    job = model.job([5, 6, 7], Sampling(), threading.Event())
    assert job.rows[0].limit_tokens == 3
    with pytest.raises(Rejected):
        model.job([5] * 50, Sampling(), threading.Event())
    with pytest.raises(ValueError, match="float33"):
        ChatModel(Settings("m", folder, dtype="float33"))


class Server:
    """The server's end of a worker's socket, with the worker's threads on the other."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        self.gone = threading.Event()
        self.mailbox, self.outbox = Mailbox(theirs, self.gone.set), Outbox(theirs, self.gone.set)

    def call(self, call: int, request: JsonObject) -> None:
        """Send one request."""
        self.sock.sendall(encode(Frame(Kind.CALL, call, orjson.dumps(request))))

    def cancel(self, call: int) -> None:
        """Give a request up."""
        self.sock.sendall(encode(Frame(Kind.CANCEL, call)))

    def close(self) -> None:
        """End the connection, as a server does that is gone."""
        self.sock.close()
        assert self.gone.wait(10)

    def frames(self, calls: int) -> dict[int, list[Frame]]:
        """What comes until so many calls are over."""
        found: dict[int, list[Frame]] = {}
        while calls:
            frame = receive_blocking(self.sock)
            if frame.call:  # what is told of the model itself comes whenever it likes
                found.setdefault(frame.call, []).append(frame)
                calls -= frame.kind is not Kind.DATA
        return found


class Echo:
    """A chat handler that says the last message word by word, or waits to be cancelled."""

    thread_safe = True
    max_parallelism = 4
    generation_defaults: Mapping[str, Any] = {"temperature": 0.5}

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name

    def count_tokens(self, request: ChatRequest) -> int:
        return len(request.messages[-1]["content"].split())

    def generate(self, request: ChatRequest, cancel: Cancel) -> Iterator[str]:
        text = request.messages[-1]["content"]
        if text == "wait":
            assert isinstance(cancel, threading.Event)
            cancel.wait()
        if text == "fail":
            raise RuntimeError("no idea")
        yield f"[{request.sampling['temperature']}]"
        for word in text.split():
            yield " " + word


def chat_request(text: str, *, stream: bool = False, **fields: Any) -> JsonObject:
    """A request for a handler."""
    return letter(0, {"messages": [{"role": "user", "content": text}], **fields}, stream=stream).request


@pytest.fixture
def server() -> Iterator[Server]:
    """The server of a handler."""
    made = Server()
    runner = HandlerRunner(Echo(Settings("echo", Path("."))), "local/echo")
    threading.Thread(target=runner.run, args=(made.mailbox, made.outbox), daemon=True).start()
    yield made
    made.close()


def test_a_handler_of_ones_own(server: Server) -> None:
    """A chat handler's pieces become an answer, whole or streamed, with its own defaults and up to a stop string."""
    server.call(1, chat_request("one two three", temperature=None))
    server.call(2, chat_request("one two three", stream=True, stop="three"))
    frames = server.frames(2)
    whole = body_of(frames[1])
    assert whole["choices"][0]["message"]["content"] == "[0.5] one two three"
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["completion_tokens"]) == (3, 4)
    chunks = [orjson.loads(frame.payload[6:].split(b"\n")[0]) for frame in frames[2] if frame.kind is Kind.DATA]
    said = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
    assert "".join(said) == "[0.0] one two "
    assert len(said) > 3


def test_handlers_run_in_threads(server: Server) -> None:
    """While a call waits another one is answered; a call that is given up, or fails, is over by itself."""
    server.call(1, chat_request("wait", stream=True))
    server.call(2, chat_request("fail"))
    server.call(3, chat_request("hi"))
    frames = server.frames(2)
    assert set(frames) == {2, 3}
    assert (error_of(frames[2])["code"], error_of(frames[2])["message"]) == ("internal_error", "RuntimeError: no idea")
    server.cancel(1)
    assert server.frames(1) == {1: [Frame(Kind.DONE, 1)]}


class Vectors:
    """An embedding handler that counts letters."""

    thread_safe = False
    max_parallelism = 1

    def embed(self, texts: Sequence[str], cancel: Cancel) -> Embeddings:
        if "bad" in texts:
            raise Rejected("a bad text", kind="invalid", code="invalid_request", param="input")
        return Embeddings(np.array([[float(len(text))] for text in texts]), [len(text) for text in texts])


def test_other_endpoints() -> None:
    """What a handler gives is written as its endpoint's reply; an endpoint that it does not serve is refused."""
    made = Server()
    for call, text in enumerate(("ab", "bad", "abc"), start=1):
        made.call(call, {"id": "x", "endpoint": "embeddings", "body": {"input": [text]}})
    made.call(4, {"id": "x", "endpoint": "speech", "body": {"input": ["x"]}})
    runner = HandlerRunner(Vectors(), "local/v")
    threading.Thread(target=runner.run, args=(made.mailbox, made.outbox), daemon=True).start()
    frames = made.frames(4)
    assert body_of(frames[1])["data"][0]["embedding"] == [2.0]
    assert body_of(frames[1])["usage"]["prompt_tokens"] == 2
    assert body_of(frames[3])["data"][0]["embedding"] == [3.0]
    assert error_of(frames[2])["param"] == "input"
    assert error_of(frames[4])["code"] == "unsupported_endpoint"
    made.close()


def test_a_server_that_does_not_read() -> None:
    """Frames are taken however slowly the server reads, and arrive in their order."""
    made = Server()
    payload = b"x" * 100_000
    for call in range(1, 101):
        made.outbox.put([Frame(Kind.DATA, call, payload), Frame(Kind.DONE, call)])
    frames = made.frames(100)
    assert list(frames) == list(range(1, 101))
    assert all(found == [Frame(Kind.DATA, call, payload), Frame(Kind.DONE, call)] for call, found in frames.items())
    made.close()


@pytest.mark.limit(120)
async def test_a_worker_process(tmp_path: Path) -> None:
    """A process serves calls beside each other, drops the one that is given up, and tells why a model cannot load."""
    worker = Worker("small", build_chat_model(tmp_path / "small"), "cpu")
    worker.start()

    async def whole(call: int) -> Any:
        pieces = [piece async for piece in worker.run(letter(call, {"messages": HELLO}).request)]
        return orjson.loads(b"".join(pieces))["choices"][0]

    try:
        long = worker.run(letter(9, {"messages": HELLO, "max_tokens": 400}, stream=True).request)
        assert b"assistant" in await anext(long)
        answers = await asyncio.gather(*map(whole, range(4)))
        await long.aclose()
        assert [answer["finish_reason"] for answer in answers] == ["length"] * 4
        assert len({answer["message"]["content"] for answer in answers}) == 1
    finally:
        await worker.aclose()
    broken = Worker("broken", tmp_path, "cpu")
    broken.start()
    with pytest.raises(Refused):
        await anext(broken.run(letter(1, {"messages": HELLO}).request))
    while broken.pid is not None:  # noqa: ASYNC110 - a worker has no event for its end
        await asyncio.sleep(0.01)
    await broken.aclose()
