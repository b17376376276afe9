"""The failed attempts of late, for whoever wants to know why an answer was slow or came from somebody else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from llmproxy.core.errors import AttemptError, Refused
from llmproxy.core.types import Attempt, Call, Candidate, JsonObject

_KEPT = 1000


class Failures:
    """A ring of the last failures, newest first when read. Messages are scrubbed where they come in."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._ring: deque[JsonObject] = deque(maxlen=_KEPT)
        self._clock = clock

    def add(self, call: Call, candidate: Candidate, attempt: Attempt, error: AttemptError) -> None:
        """Remember one; times are Unix seconds."""
        self._ring.append(
            {
                "time": round(self._clock(), 3),
                "request": call.id,
                "asked": call.model,
                "endpoint": call.endpoint,
                "stream": call.stream,
                "model": attempt.model,
                "credential": candidate.credential,
                "outcome": attempt.outcome,
                "kind": error.kind if isinstance(error, Refused) else type(error).__name__,
                "status": attempt.status,
                "ms": round(attempt.elapsed_s * 1000),
                "retry_after_s": attempt.retry_after_s,
                "detail": attempt.reason,
            }
        )

    def latest(self, limit: int, model: str | None = None, outcome: str | None = None) -> JsonObject:
        """The last `limit` failures (of one model, of one outcome), and how many of each outcome are remembered."""
        found = [
            entry
            for entry in reversed(self._ring)
            if (model is None or entry["model"] == model) and (outcome is None or entry["outcome"] == outcome)
        ]
        counts = Counter(entry["outcome"] for entry in found)
        return {"object": "list", "data": found[:limit], "outcomes": dict(counts.most_common())}
