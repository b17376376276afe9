"""Bounds the waiting inside one attempt with one timer, whatever the number of pieces that come."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from llmproxy.core.errors import TimedOut


class Patience:
    """`async with Patience(15, "first_token") as patience:` raises `TimedOut` after 15 s without `progress`.

    `progress` costs two assignments: the timer looks at the clock when it fires, and sleeps on if something came.
    The body is interrupted as `asyncio.timeout` does it: by cancelling the task, and taking that back on the way out.
    """

    __slots__ = ("_cancelling", "_expired", "_limit_s", "_loop", "_phase", "_since", "_task", "_timer")

    def __init__(self, limit_s: float, phase: str) -> None:
        self._limit_s = limit_s
        self._phase = phase
        self._expired = False

    async def __aenter__(self) -> Patience:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._limit_s, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        task = self._task
        del self._task  # its error keeps the frames that keep this
        if self._expired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            message = f"nothing came for {self._limit_s:g} s ({self._phase.replace('_', ' ')})"
            raise TimedOut(message, outcome=f"{self._phase}_timeout") from error

    def phase(self, limit_s: float, phase: str) -> None:
        """From now on wait at most `limit_s` between two pieces, and call it `phase` when that runs out."""
        self._since = self._loop.time()
        if phase != self._phase:
            self._limit_s, self._phase = limit_s, phase
            self._timer.cancel()
            self._timer = self._loop.call_later(limit_s, self._look)

    def progress(self) -> None:
        """Something came."""
        self._since = self._loop.time()

    def pause(self) -> None:
        """It is the client that is waited for: do not count that until the next `progress`."""
        self._since = math.inf

    def _look(self) -> None:
        idle_s = self._loop.time() - self._since
        if idle_s >= self._limit_s - 0.001:
            self._expired = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(self._limit_s - max(idle_s, 0.0), self._look)
