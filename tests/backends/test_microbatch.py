"""Calls that wait together are computed together, and none of them feels the others."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Cancel, Embeddings, Rejected
from backends.frames import Frame, Kind, encode, receive_blocking
from backends.mailbox import Mailbox, Outbox
from backends.microbatch import Call, EmbeddingRunner, MicroBatch, by_length
from backends.vectors import VectorCache
from tests.core.properties import quick


class Letters:
    """A handler of texts: the vector counts their letters; texts with `!` are refused. It notes what it was given."""

    thread_safe = False
    max_parallelism = 1

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.before: Any = lambda: None

    def count_tokens(self, texts: Sequence[str | Sequence[int]]) -> list[int]:
        return [len(text) for text in texts]

    def embed(self, texts: Sequence[str | Sequence[int]], cancel: Cancel) -> Embeddings:
        self.seen.append(list(texts))
        self.before()
        if any("!" in str(text) for text in texts):
            raise Rejected("no shouting", kind="invalid", code="invalid_request", param="input")
        if cancel.is_set():
            return Embeddings(np.empty((0, 2), np.float32), [])
        return Embeddings(np.array([row(text) for text in texts], np.float32), self.count_tokens(texts))


def row(text: str | Sequence[int]) -> list[float]:
    """The vector that `Letters` makes of a text."""
    return [float(len(text)), float(str(text).count("a"))]


class Caller:
    """One call, and what came of it."""

    def __init__(self, *texts: Any) -> None:
        self.texts, self.cancel, self.outcomes = texts, threading.Event(), list[Any]()

    def join(self, waiting: MicroBatch) -> Caller:
        waiting.add(Call(self.texts, self.cancel, self.outcomes.append))
        return self

    def served(self) -> bool:
        """Whether it got its own vectors and tokens, once."""
        [outcome] = self.outcomes
        return isinstance(outcome, Embeddings) and outcome.vectors.tolist() == [row(text) for text in self.texts]


def finish(waiting: MicroBatch) -> None:
    """Serve all that waits."""
    while waiting.is_busy:
        waiting.step()


def test_together() -> None:
    """What waits is computed at once, and each call gets its own slice in its own order."""
    model = Letters()
    waiting = MicroBatch(model)
    callers = [Caller("bbb", "a", "cc").join(waiting), Caller("dada").join(waiting), Caller((7, 8, 9)).join(waiting)]
    waiting.step()
    assert not waiting.is_busy
    assert len(model.seen) == 1
    assert all(caller.served() for caller in callers)
    assert list(callers[0].outcomes[0].tokens) == [3, 1, 2]


def test_what_waits_while_a_batch_runs_is_the_next_batch() -> None:
    """Calls that come during a step go together in the step after it."""
    model = Letters()
    waiting = MicroBatch(model)
    first, late = Caller("a").join(waiting), [Caller("b"), Caller("c")]
    model.before = lambda: [caller.join(waiting) for caller in late if not caller.outcomes and len(model.seen) == 1]
    waiting.step()
    assert first.served()
    assert not late[0].outcomes
    waiting.step()
    assert model.seen == [["a"], ["b", "c"]]
    assert all(caller.served() for caller in late)


def test_a_bad_call() -> None:
    """A call that is refused gets the error, and those beside it their vectors."""
    waiting = MicroBatch(Letters())
    good, bad, other = Caller("a", "b").join(waiting), Caller("c", "d!").join(waiting), Caller("e").join(waiting)
    waiting.step()
    assert good.served()
    assert other.served()
    assert [type(outcome) for outcome in bad.outcomes] == [Rejected]


def test_a_cancelled_call() -> None:
    """A call that was given up before its step is left out; one given up during it gets nothing."""
    model = Letters()
    waiting = MicroBatch(model)
    gone, going, staying = Caller("a").join(waiting), Caller("b").join(waiting), Caller("c").join(waiting)
    gone.cancel.set()
    model.before = going.cancel.set
    waiting.step()
    assert model.seen == [["b", "c"]]
    assert (gone.outcomes, going.outcomes) == ([None], [None])
    assert staying.served()


def test_a_step_that_everybody_gave_up() -> None:
    """When all calls of a step are given up, the handler is told, and may return nothing."""
    model = Letters()
    waiting = MicroBatch(model)
    callers = [Caller("a").join(waiting), Caller("b").join(waiting)]
    model.before = lambda: [caller.cancel.set() for caller in callers]
    waiting.step()
    assert [caller.outcomes for caller in callers] == [[None], [None]]


def test_a_short_call_beside_a_long_one() -> None:
    """A call of one line is answered in the first step, though a large one came before it."""
    model = Letters()
    waiting = MicroBatch(model, max_tokens=100)
    library, line = Caller(*("a" * 80 + str(number) for number in range(40))).join(waiting), Caller("b").join(waiting)
    waiting.step()
    assert line.served()
    assert not library.outcomes
    finish(waiting)
    assert library.served()
    assert all(sum(len(text) // 4 + 1 for text in texts) <= 100 for texts in model.seen)


def test_no_call_starves() -> None:
    """Calls whose texts fill a step each take turns."""
    model = Letters()
    waiting = MicroBatch(model, max_tokens=20)
    callers = [Caller(*(letter * size for size in (70, 71, 72))).join(waiting) for letter in "abc"]
    for _ in range(3):
        waiting.step()
    assert sorted(texts[0][0] for texts in model.seen) == ["a", "b", "c"]
    finish(waiting)
    assert all(caller.served() for caller in callers)


@quick
@given(
    st.lists(st.lists(st.text("ab!", min_size=1, max_size=60), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 40),
    st.booleans(),
)
def test_each_gets_its_own(calls: list[list[str]], max_tokens: int, cached: bool) -> None:
    """Whatever the calls and the size of a step, each good call gets its vectors, each bad one its error, once."""
    waiting = MicroBatch(Letters(), max_tokens=max_tokens, cache=VectorCache(2000) if cached else None)
    callers = [Caller(*texts).join(waiting) for texts in calls]
    finish(waiting)
    for caller in callers:
        if any("!" in text for text in caller.texts):
            assert [type(outcome) for outcome in caller.outcomes] == [Rejected]
        else:
            assert caller.served()


def test_the_same_text() -> None:
    """A text that several calls bring is computed once, and once it is cached not at all."""
    model = Letters()
    waiting = MicroBatch(model, cache=VectorCache(10_000))
    callers = [Caller("a", "a").join(waiting), Caller("b", "a").join(waiting)]
    waiting.step()
    assert [sorted(texts) for texts in model.seen] == [["a", "b"]]
    callers += [Caller("b").join(waiting), Caller("a", "c").join(waiting)]
    waiting.step()
    assert model.seen[1:] == [["c"]]
    assert all(caller.served() for caller in callers)


def test_cached_rows_do_not_hold_their_batch() -> None:
    """What the cache keeps is a row, not the batch that it was computed in."""
    cache = VectorCache(10_000)
    waiting = MicroBatch(Letters(), cache=cache)
    Caller("a", "b").join(waiting)
    waiting.step()
    kept = cache.get("a")
    assert kept is not None
    assert kept.row.base is None


def test_an_empty_call() -> None:
    """A call without texts is a mistake of the caller."""
    with pytest.raises(ValueError, match="at least one text"):
        Call([], threading.Event(), print)


@quick
@given(st.lists(st.integers(1, 300), max_size=40), st.integers(1, 1000))
def test_batches_by_length(lengths: list[int], max_tokens: int) -> None:
    """Batches hold each place once, longest first, within the tokens of a pass, and little padding."""
    batches = list(by_length(lengths, max_tokens))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert [lengths[place] for batch in batches for place in batch] == sorted(lengths, reverse=True)
    for batch in batches:
        cells = lengths[batch[0]] * len(batch)
        assert len(batch) == 1 or cells <= max_tokens
        assert cells - sum(lengths[place] for place in batch) <= max(64, cells / 8)


def test_texts_of_like_length_go_together() -> None:
    """Texts that fit into one pass are not split."""
    assert list(by_length([9, 10, 10, 9], 100)) == [[1, 2, 0, 3]]
    assert list(by_length([200, 1, 1, 200], 10_000)) == [[0, 3], [1, 2]]


# -- in a worker --------------------------------------------------------------------------------------------------


class Line:
    """The server's end of the line to a worker that embeds with `Letters`; `turn` lets the worker do one batch."""

    def __init__(self, **how: Any) -> None:
        self._ours, theirs = socket.socketpair()
        self.model = Letters()
        self._runner = EmbeddingRunner(self.model, "local/letters", **how)
        self.told: list[dict[str, list[float]]] = []
        self._mailbox, self._outbox = Mailbox(theirs, gone=theirs.close), Outbox(theirs, gone=theirs.close)

    def call(self, number: int, body: Any, endpoint: str = "embeddings") -> None:
        request = {"id": f"c{number}", "endpoint": endpoint, "stream": False, "body": body}
        self._ours.sendall(encode(Frame(Kind.CALL, number, json.dumps(request).encode())))

    def cancel(self, number: int) -> None:
        self._ours.sendall(encode(Frame(Kind.CANCEL, number)))

    def turn(self) -> None:
        self._runner.turn(self._mailbox, self._outbox)

    def answer(self, number: int) -> Any:
        """The body of the answer, or the error, that comes next; it must be that of `number`."""
        frame = self.frame()
        if frame.kind is Kind.DATA:
            assert self.frame() == Frame(Kind.DONE, number)
        assert frame.call == number
        return json.loads(frame.payload) if frame.payload else None

    def frame(self) -> Frame:
        """The next frame of a call; the figures before it are kept in `told`."""
        while (frame := receive_blocking(self._ours)).kind is Kind.FIGURES:
            self.told.append(json.loads(frame.payload)["observed"])
        return frame

    def close(self) -> None:
        self._ours.shutdown(socket.SHUT_RDWR)
        self._ours.close()


@pytest.fixture
def line() -> Iterator[Line]:
    """A worker without a window, which has time to hear all calls before its first batch."""
    with closing(Line(window_s=0.2)) as line:
        yield line


def test_answers(line: Line) -> None:
    """Calls that wait together are one batch, and each is answered in the shape of the API under the model's name."""
    line.call(1, {"input": "abca"})
    line.call(2, {"input": ["a", [7, 8, 9]], "user": "u"})
    line.turn()
    assert [sorted(map(str, texts)) for texts in line.model.seen] == [["(7, 8, 9)", "a", "abca"]]
    first, second = line.answer(1), line.answer(2)
    assert first == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [4.0, 2.0]}],
        "model": "local/letters",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
    }
    assert [item["embedding"] for item in second["data"]] == [[1.0, 1.0], [3.0, 0.0]]
    assert second["usage"]["prompt_tokens"] == 4


def test_what_is_counted(line: Line) -> None:
    """How long calls waited, how many texts were computed together, and the share of each call that was known."""
    line.call(1, {"input": ["a", "b"]})
    line.turn()
    line.answer(1)
    line.call(2, {"input": ["a", "b", "c", "d"]})
    line.turn()
    line.answer(2)
    line.call(3, {})
    line.turn()
    line.answer(3)
    assert [told["batch_rows"] for told in line.told] == [[2], [2]]
    assert [told["cached_share"] for told in line.told] == [[0.0], [0.5]]
    assert all(0 <= told["queue_seconds"][0] < 60 for told in line.told)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": []}, "invalid_request", "input"),
        ({"input": "a!"}, "invalid_request", "input"),
        ({"input": "a", "dimensions": 3}, "invalid_request", "dimensions"),
        ({"input": "a", "truncate": True}, "unsupported_parameter", "truncate"),
    ],
)
def test_refusals(line: Line, body: Any, code: str, param: str) -> None:
    """A bad call is answered with its own error, before or after the model saw it, and the one beside it is served."""
    line.call(1, body)
    line.call(2, {"input": "a"})
    line.turn()
    answers = {}
    for _ in range(2):
        frame = line.frame()
        answers[frame.call] = json.loads(frame.payload)
        if frame.kind is Kind.DATA:
            assert line.frame() == Frame(Kind.DONE, frame.call)
    assert (answers[1]["status"], answers[1]["code"], answers[1]["param"]) == (400, code, param)
    assert answers[2]["data"][0]["embedding"] == [1.0, 1.0]


def test_another_endpoint(line: Line) -> None:
    """A model of embeddings has no other endpoint."""
    line.call(1, {"messages": []}, endpoint="chat")
    line.turn()
    assert line.answer(1)["code"] == "unsupported_endpoint"


def test_a_handler_that_breaks(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the handler is an internal one, it is logged, and the worker goes on."""

    def broken() -> None:
        raise ArithmeticError("no memory left")

    line.model.before = broken
    line.call(1, {"input": "a"})
    with caplog.at_level(logging.ERROR):
        line.turn()
    error = line.answer(1)
    assert (error["status"], error["code"]) == (500, "internal_error")
    assert "no memory left" in caplog.text
    line.model.before = lambda: None
    line.call(2, {"input": "a"})
    line.turn()
    assert line.answer(2)["data"]


def test_a_call_that_the_server_gave_up(line: Line) -> None:
    """It is told done without an answer, and the model never sees it."""
    line.call(1, {"input": "a"})
    line.call(2, {"input": "b"})
    line.cancel(1)
    line.turn()
    assert line.answer(1) is None
    assert line.answer(2)["data"]
    assert line.model.seen == [["b"]]


def test_texts_that_come_again(line: Line) -> None:
    """A text is computed once, and its usage told each time."""
    for number in (1, 2):
        line.call(number, {"input": "a text"})
        line.turn()
        assert line.answer(number)["usage"]["total_tokens"] == 6
    assert line.model.seen == [["a text"]]


def test_no_window_and_no_cache() -> None:
    """Without a window a call is computed at once, and without a cache each time."""
    with closing(Line(cache_bytes=0)) as line:
        for number in (1, 2):
            line.call(number, {"input": "a"})
            line.turn()
            assert line.answer(number)["data"]
        assert line.model.seen == [["a"], ["a"]]
