"""What is known, on disk: one SQLite file of keys and JSON values, written behind the calls.

A crash loses what was not written yet, at most a second; `load` tells whether the last process ended in order, so that
whoever counts can be on the safe side.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path

import orjson

_log = logging.getLogger(__name__)

_CLEAN = "closed in order"


class SqliteState:
    """One file; its methods may be called from any thread, one at a time. A file that is none is put aside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection = self._open()

    def load(self) -> tuple[dict[str, object], bool]:
        """Everything, and whether it was closed in order; from now on it is not, until `close`."""
        with self._lock:
            rows = dict(self._connection.execute("SELECT key, value FROM state"))
            clean = rows.pop(_CLEAN, None) is not None
            self._connection.execute("DELETE FROM state WHERE key = ?", (_CLEAN,))
            self._connection.commit()
        known: dict[str, object] = {}
        for key, value in rows.items():
            try:
                known[key] = orjson.loads(value)
            except orjson.JSONDecodeError:
                _log.warning("%s: the entry %r cannot be read and is left out", self.path, key)
        return known, clean or not rows

    def save(self, values: Mapping[str, object]) -> None:
        """Write these; a value of None takes its key out."""
        kept = [(key, orjson.dumps(value).decode()) for key, value in values.items() if value is not None]
        gone = [(key,) for key, value in values.items() if value is None]
        with self._lock:
            self._connection.executemany("INSERT OR REPLACE INTO state (key, value) VALUES (?, ?)", kept)
            self._connection.executemany("DELETE FROM state WHERE key = ?", gone)
            self._connection.commit()

    def close(self) -> None:
        """Say that all was written, and let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self.save({_CLEAN: True})
        with self._lock:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            broken = self.path.with_suffix(f"{self.path.suffix}.broken")
            _log.warning("%s cannot be read (%s); it is kept as %s, and counting begins anew", self.path, error, broken)
            self.path.replace(broken)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=5.0, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.commit()
        except sqlite3.Error:
            connection.close()
            raise
        return connection
