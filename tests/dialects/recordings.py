"""Exchanges with Anthropic's API, recorded by others (tests/data/anthropic/README.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "data" / "anthropic"


@dataclass(frozen=True, slots=True)
class Recording:
    """One request and its reply; `body` is decoded, a stream as the bytes of its events."""

    name: str
    request: dict[str, Any]
    status: int
    body: bytes

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.request.get("stream"))

    @property
    def asks(self) -> bool:
        """Whether it is a request for an answer, not one for a count of tokens."""
        return "max_tokens" in self.request


def _read(path: Path) -> Recording:
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Recording(path.stem, stored["request"], stored["status"], stored["body"].encode())


RECORDED = [_read(path) for path in sorted(_FOLDER.glob("*.json"))]
