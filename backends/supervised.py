"""What the engines have in common that are processes: one that is started again when it dies, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from llmproxy.core.tasks import Background


class Supervised:
    """A process of an engine. It is settled once it is ready or has failed, and until it has died."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._background = Background()
        self._settled = asyncio.Event()
        self._failure: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        # As the process tells it: what it takes by device, and how many answers have not begun.
        self.memory_bytes: Mapping[str, int] = {}
        self.waiting = 0

    @property
    def pid(self) -> int | None:
        """The id of the process, while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def state(self) -> str:
        """`loading`, `ready`, or why it failed."""
        if not self._settled.is_set():
            return "loading"
        return self._failure or "ready"
