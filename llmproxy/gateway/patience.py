"""Bounds the waiting inside one attempt with one timer, whatever the number of pieces that come."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType

from llmproxy.core.errors import TimedOut


class Patience:
    """`async with Patience(15, "first_token") as patience:` raises `TimedOut` after 15 s without `progress`.

    `progress` costs two assignments: the timer looks at the clock when it fires, and sleeps on if something came.
    """

    def __init__(self, limit_s: float, phase: str) -> None:
        self._limit_s = limit_s
        self._phase = phase
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Patience:
        await self._scope.__aenter__()
        self._timer = self._loop.call_later(self._limit_s, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            message = f"nothing came for {self._limit_s:g} s ({self._phase.replace('_', ' ')})"
            raise TimedOut(message, outcome=f"{self._phase}_timeout") from timeout

    def phase(self, limit_s: float, phase: str) -> None:
        """From now on wait at most `limit_s` between two pieces, and call it `phase` when that runs out."""
        self._since = self._loop.time()
        if phase != self._phase:
            self._limit_s, self._phase = limit_s, phase
            if self._timer is not None:
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
            self._scope.reschedule(self._loop.time())
        else:
            self._timer = self._loop.call_later(self._limit_s - max(idle_s, 0.0), self._look)
