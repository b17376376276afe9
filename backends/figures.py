"""What the process of a model counts, told to the server about once a second. Pure but for its clock."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Literal

import orjson

from backends.frames import Frame, Kind
from llmproxy.core.types import JsonObject

# Observed one by one, for histograms.
Observed = Literal["queue_seconds", "first_token_seconds", "tokens_per_second", "batch_rows", "cached_share"]
# Added up.
Counted = Literal["prompt_tokens", "cached_tokens", "completion_tokens"]
_EVERY_S = 1.0


class Figures:
    """Gathered between two messages, by any thread; `due` gives them and begins anew."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = clock
        self._told_s = clock()
        self._lock = threading.Lock()
        self._told_waiting = 0
        self._observed: defaultdict[str, list[float]] = defaultdict(list)
        self._counted: defaultdict[str, int] = defaultdict(int)

    def observe(self, name: Observed, value: float) -> None:
        with self._lock:
            self._observed[name].append(round(value, 6))

    def count(self, name: Counted, amount: int) -> None:
        with self._lock:
            self._counted[name] += amount

    def due(self, *, last: bool) -> JsonObject | None:
        """What is to be told now: at most once a second, but for the `last` of what there is to do."""
        with self._lock:
            now = self.now()
            if not self._observed or (now - self._told_s < _EVERY_S and not last):
                return None
            told: JsonObject = {"observed": dict(self._observed), "counted": dict(self._counted)}
            self._told_s = now
            self._observed.clear()
            self._counted.clear()
            return told

    def frames(self, *, last: bool = True, waiting: int = 0) -> list[Frame]:
        """What is to be sent now, as `due`, and how many answers have not begun."""
        told = self.due(last=last)
        if told is None and last and waiting != self._told_waiting:
            told = {"observed": {}, "counted": {}}
        if told is not None:
            self._told_waiting = waiting
        return [] if told is None else [Frame(Kind.FIGURES, 0, orjson.dumps({**told, "waiting": waiting}))]
