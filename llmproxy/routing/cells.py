"""When what one request uses comes back, as replicas that share a meter write it down. Pure; takes `now`."""

from __future__ import annotations

import math
from typing import Literal

from llmproxy.routing.limits import Limit, window_of

CellKind = Literal["w", "b", "c"]

# A sliding window is counted in so many steps; what was used in one comes back together, at the end of it.
_STEPS = 256
NEVER = 4_000_000_000.0


def cell_kind(limit: Limit) -> CellKind:
    """How a meter of this limit is stored: by windows, as a bucket, or by the requests that are in flight."""
    return "b" if limit.kind == "bucket" else "c" if limit.kind == "concurrent" else "w"


def comes_back(limit: Limit, now: float) -> float:
    """The Unix time at which what is used at `now` is counted no more; of a bucket and a credit never."""
    if limit.kind == "sliding":
        step = limit.seconds / _STEPS
        return (math.floor(now / step) + 1) * step + limit.seconds
    if limit.kind == "fixed":
        return window_of(limit, now)[1]
    return NEVER


def refill(limit: Limit) -> float:
    """Units a second that come back to a bucket; 0 for all others."""
    return limit.amount / limit.seconds if limit.kind == "bucket" else 0.0
