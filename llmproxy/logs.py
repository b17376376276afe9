"""Structured logs on stderr: a JSON object a line (what is no request: short text on a terminal).

Never a body, a key, or a query.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import TextIO

import orjson

_FLUSH_S = 0.2


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "ts": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def set_up(level: str, stream: TextIO = sys.stderr) -> None:
    """Send all logs to `stream`."""
    handler = logging.StreamHandler(stream)
    if stream.isatty():
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class RequestLog:
    """One line a request, gathered and written a few times a second: a write each would cost more than a relay."""

    def __init__(self, *, enabled: bool, stream: TextIO = sys.stderr) -> None:
        self.enabled = enabled
        self._stream = stream
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, line: dict[str, object]) -> None:
        if not self.enabled:
            return
        self._lines.append(orjson.dumps({"ts": round(time.time(), 3), "level": "INFO", **line}))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_S, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines, self._timer = self._lines, [], None
        if lines:
            self._stream.write(b"\n".join(lines).decode() + "\n")
            self._stream.flush()
