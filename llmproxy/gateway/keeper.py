"""Keeps what the book and the health know over a restart: reads it at the start, writes what has changed behind."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time

from llmproxy.core.tasks import Background
from llmproxy.gateway.state import SqliteState
from llmproxy.routing.book import Book
from llmproxy.routing.health import Health

_log = logging.getLogger(__name__)

_EVERY_S = 0.5
_HEALTH = "health"


class Keeper:
    """`start` within a running loop. The times on disk are Unix seconds; those of `health` are of the loop's clock."""

    def __init__(self, state: SqliteState, book: Book, health: Health) -> None:
        self._state = state
        self._book = book
        self._health = health
        self._unwritten: dict[str, object] = {}
        self._written = 0  # how much news of the health there was when it was written
        self._background = Background()

    async def start(self) -> None:
        """Take over what the last process knew, and begin to write."""
        known, clean = self._state.load()
        now = time.time()
        health = known.pop(_HEALTH, None)
        if isinstance(health, dict):
            self._health.restore(health, asyncio.get_running_loop().time() - now, now)
        self._book.restore(known, now, clean=clean)
        self._background.start(self._write_behind(), "state keeper")

    async def aclose(self) -> None:
        """Write what is left, and close the file."""
        await self._background.aclose()
        await self._write()
        await asyncio.to_thread(self._state.close)

    async def _write_behind(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            await self._write()

    async def _write(self) -> None:
        values = self._unwritten
        values.update(self._book.changed())
        news = self._health.news
        if news != self._written:
            values[_HEALTH] = self._health.dump(time.time() - asyncio.get_running_loop().time(), time.time())
        if not values:
            return
        try:
            await asyncio.to_thread(self._state.save, values)
        except sqlite3.Error as error:
            _log.error("%s cannot be written, and is tried again: %s", self._state.path, error)
            return
        self._written, self._unwritten = news, {}
