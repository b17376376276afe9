"""Runs a handler of `backends.base` in a worker process: calls come from a mailbox, replies go to an outbox.

A call is JSON `{"id", "endpoint", "body"}`, for the endpoint `chat` with `stream` and `sampling` too; what an endpoint
asks of its handler stands in `backends.endpoints`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import orjson

from backends.base import Rejected
from backends.endpoints import ENDPOINTS
from backends.figures import Figures
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.shortage import TooLarge, is_out_of_memory

_log = logging.getLogger(__name__)


class Letters(Protocol):
    """Where calls come from (`backends.mailbox.Mailbox`)."""

    def take(self, *, wait: bool) -> list[Letter]: ...

    def ended(self, call: int) -> None: ...


class Replies(Protocol):
    """Where replies go (`backends.mailbox.Outbox`)."""

    def put(self, frames: Iterable[Frame]) -> None: ...


class Runner(Protocol):
    """One loaded model at work."""

    def run(self, mailbox: Letters, outbox: Replies) -> None:
        """Answer calls for ever, in the thread that loaded the model."""
        ...


class HandlerRunner:
    """Calls a handler: in threads where it says that it may be, one call after the other otherwise."""

    def __init__(self, handler: Any, name: str) -> None:
        self._handler, self._name = handler, name
        self._figures = Figures()

    def run(self, mailbox: Letters, outbox: Replies) -> None:
        """Answer calls for ever."""
        threads = self._handler.max_parallelism if self._handler.thread_safe else 1
        if threads > 1:
            with ThreadPoolExecutor(threads, thread_name_prefix="handler") as pool:
                while True:
                    for letter in mailbox.take(wait=True):
                        pool.submit(self._one, letter, mailbox, outbox)
        while True:
            for letter in mailbox.take(wait=True):
                self._one(letter, mailbox, outbox)

    def _one(self, letter: Letter, mailbox: Letters, outbox: Replies) -> None:
        """Answer one call."""
        last = Frame(Kind.DONE, letter.call)
        begun_s, is_heard = self._figures.now(), False
        try:
            if not letter.cancel.is_set():
                self._figures.observe("queue_seconds", begun_s - letter.came_s)
                for data in self._answer(letter):
                    if letter.cancel.is_set():
                        break
                    if not is_heard:
                        is_heard = True
                        self._figures.observe("first_token_seconds", self._figures.now() - letter.came_s)
                    outbox.put([Frame(Kind.DATA, letter.call, data)])
        except Exception as error:  # one bad call must not end the model for all others
            if not isinstance(error, Rejected):
                _log.error("a call of %s failed", self._name, exc_info=error)
            last = refusal(letter.call, error)
        outbox.put([last, *self._figures.frames()])
        mailbox.ended(letter.call)

    def _answer(self, letter: Letter) -> Iterator[bytes]:
        endpoint = ENDPOINTS.get(letter.request["endpoint"])
        if endpoint is None or not hasattr(self._handler, endpoint.method):
            raise Rejected(
                f"this model does not serve {letter.request['endpoint']}",
                kind="unsupported",
                code="unsupported_endpoint",
                param="model",
            )
        yield from endpoint.answer(self._handler, letter.request, letter.cancel, self._name)


def refusal(call: int, error: Exception) -> Frame:
    """The frame that tells an error: a `Rejected` in its own words, no memory as such, any other as an internal one.

    `retry_after_s` is told where the error has one.
    """
    if is_out_of_memory(error):
        error = TooLarge()
    if not isinstance(error, Rejected):
        told = f"{type(error).__name__}: {error}"
        error = Rejected(told, kind="server", status=500, code="internal_error")
    fields = {
        "kind": error.kind,
        "status": error.status,
        "code": error.code,
        "param": error.param,
        "message": str(error),
        "retry_after_s": getattr(error, "retry_after_s", None),
    }
    return Frame(Kind.ERROR, call, orjson.dumps(fields))
