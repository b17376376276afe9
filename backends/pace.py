"""How long it takes until those who wait have their turn. Pure but for its clock."""

from __future__ import annotations

from collections.abc import Callable

_WEIGHT = 0.1


class Pace:
    """How fast answers begin (or end) while others wait behind them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self._each_s = 1.0

    def count(self, begun: int, waiting: int) -> None:
        """So many answers began just now, and so many are left."""
        now = self._clock()
        if self._since is not None:
            self._each_s += _WEIGHT * ((now - self._since) / begun - self._each_s)
        self._since = now if waiting else None

    def seconds_for(self, answers: float) -> float:
        """How long it takes until so many have begun; at least a second."""
        return max(1.0, self._each_s * answers)
