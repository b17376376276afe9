"""Two candidates asked for one answer: the first to deliver wins, the other is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, TypeVar

from llmproxy.core.errors import AttemptError
from llmproxy.gateway.attempt import Try

T = TypeVar("T")
Failed = tuple[Try, AttemptError]


class Race(Generic[T]):
    """`run` is a candidate's whole turn; it raises an `AttemptError` when that was no answer. `stop` is told of one
    that is cancelled because another has output.

    A stream is won at its first byte to the client (`claim`), a whole answer when it is there. `failed` holds those
    that failed, `beaten` those that had to stop. Leaving the context waits until everybody has stopped.
    """

    def __init__(self, run: Callable[[Try], Awaitable[T]], stop: Callable[[Try], None]) -> None:
        self.failed: list[Failed] = []
        self.beaten: list[Try] = []
        self._run = run
        self._stop = stop
        self._running: dict[asyncio.Task[T], Try] = {}
        self._won = False

    async def __aenter__(self) -> Race[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        for ended in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(ended, AttemptError):
                ended.forget_frames()
        for attempt in (*self._running.values(), *self.beaten, *(attempt for attempt, _ in self.failed)):
            attempt.claim = None  # it holds the race, as the race holds it
        self._running.clear()

    def enter(self, attempt: Try) -> None:
        """Let a candidate begin."""
        task = asyncio.ensure_future(self._run(attempt))
        self._running[task] = attempt

    def claim(self) -> None:
        """The candidate whose task this is has output: the others stop, before another byte of theirs goes out."""
        if not self._won:
            self._won = True
            for task, attempt in self._running.items():
                if task is not asyncio.current_task():
                    self._stop(attempt)
                    task.cancel()

    async def decided(self, within_s: float) -> bool:
        """Wait so many seconds at most; whether the first candidate has delivered something, or failed, by then."""
        done, _ = await asyncio.wait(self._running, timeout=within_s)
        return bool(done) or self._won

    async def result(self) -> T | None:
        """The winner's answer; None when everybody failed (`failed`). Other errors are raised as they are."""
        while self._running:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                attempt = self._running.pop(task)
                if task.cancelled():
                    self.beaten.append(attempt)
                    continue
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, AttemptError):
                    raise error
                error.forget_frames()
                self.failed.append((attempt, error))
        return None
