"""The evidence on disk: one SQLite file beside the state. What was read and when, what it said, and what was published.

Rows are never decided upon here: `merge` does that. A reading that failed, was empty or had shrunk leaves the sightings
of its source as they are. Times are Unix times in seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import orjson

from scrapers.base import Evidence, Rank
from scrapers.merge import Sighting

Status = Literal["read", "unchanged", "failed", "empty", "shrunken"]

_log = logging.getLogger(__name__)
_KEPT_VERSIONS = 50
_KEPT_RUNS = 200
_COLUMNS = tuple(field.name for field in fields(Evidence))
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS sightings (
  {", ".join(f"{name} BLOB" for name in _COLUMNS)},
  first_seen_s REAL, current INTEGER, missed INTEGER, missed_since_s REAL,
  PRIMARY KEY (source, provider, model, field, value)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS readings (
  source TEXT, at_s REAL, status TEXT, claims INTEGER, models INTEGER, content_hash TEXT, etag TEXT,
  last_modified TEXT, note TEXT
);
CREATE INDEX IF NOT EXISTS readings_of ON readings (source, at_s);
CREATE TABLE IF NOT EXISTS versions (id INTEGER PRIMARY KEY, made_at_s REAL, findings TEXT, changes TEXT, why TEXT);
CREATE TABLE IF NOT EXISTS runs (period TEXT PRIMARY KEY, begun_s REAL, ended_s REAL, report TEXT);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a source. models: how many it named; etag and last_modified: for the next conditional request."""

    source: str
    at_s: float
    status: Status
    claims: int = 0
    models: int = 0
    content_hash: str = ""
    etag: str = ""
    last_modified: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """What was published once: findings and changes as JSON."""

    id: int
    made_at_s: float
    findings: dict[str, Any]
    changes: list[dict[str, Any]]
    why: str


class EvidenceStore:
    """One file; its methods may be called from any thread, one at a time. A file that is none is put aside."""

    def __init__(self, path: Path | None) -> None:
        """`path` None keeps everything in memory, for trying out."""
        self.path = path
        self._lock = threading.RLock()
        self._connection = self._open()

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def copy(self) -> EvidenceStore:
        """The same in memory: what happens to it is forgotten."""
        twin = EvidenceStore(None)
        with self._lock:
            self._connection.backup(twin._connection)
        return twin

    # -- readings -------------------------------------------------------------------------------------------------

    def accept(self, reading: Reading, evidence: Iterable[Evidence], *, whole: bool = True) -> None:
        """Take over what a source says now; what it said before and says no longer has been missed once more.

        Not `whole`: it is an addition to what the source said before, and nothing is missing.
        """
        with self._changing() as connection:
            for claim in evidence:
                row = _row(claim)
                mine = (claim.source, claim.provider, claim.model, claim.field)
                connection.execute(
                    "UPDATE sightings SET current = 0 WHERE source = ? AND provider = ? AND model = ? AND field = ?",
                    mine,
                )
                known = connection.execute(
                    "SELECT first_seen_s FROM sightings WHERE source = ? AND provider = ? AND model = ? AND field = ? "
                    "AND value = ?",
                    (*mine, row["value"]),
                ).fetchone()
                row |= {"first_seen_s": known[0] if known else claim.seen_at_s, "current": 1, "missed": 0}
                names = ", ".join(row)
                places = ", ".join(f":{name}" for name in row)
                connection.execute(f"INSERT OR REPLACE INTO sightings ({names}) VALUES ({places})", row)
            if whole:
                connection.execute(
                    "UPDATE sightings SET missed = missed + 1, missed_since_s = coalesce(missed_since_s, :at) "
                    "WHERE source = :source AND current = 1 AND seen_at_s < :at",
                    {"source": reading.source, "at": reading.at_s},
                )
            self._note(connection, reading)

    def unchanged(self, reading: Reading) -> None:
        """The source says what it said when it was read last."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE sightings SET seen_at_s = :at WHERE source = :source AND current = 1 AND missed = 0",
                {"source": reading.source, "at": reading.at_s},
            )
            connection.execute(
                "UPDATE sightings SET missed = missed + 1 WHERE source = :source AND current = 1 AND missed > 0",
                {"source": reading.source},
            )
            self._note(connection, reading)

    def not_heard(self, reading: Reading) -> None:
        """The source could not be read, or what came was no evidence."""
        with self._changing() as connection:
            self._note(connection, reading)

    def last_reading(self, source: str, *, statuses: tuple[Status, ...] = ("read", "unchanged")) -> Reading | None:
        """The latest look at a source that ended so."""
        marks = ", ".join("?" for _ in statuses)
        with self._lock:
            row = self._connection.execute(
                f"SELECT * FROM readings WHERE source = ? AND status IN ({marks}) ORDER BY at_s DESC LIMIT 1",
                (source, *statuses),
            ).fetchone()
        return Reading(*row) if row else None

    def readings(self, source: str, *, since_s: float) -> list[Reading]:
        """All looks at a source since a time, the oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT * FROM readings WHERE source = ? AND at_s >= ? ORDER BY at_s", (source, since_s)
            ).fetchall()
        return [Reading(*row) for row in rows]

    def sightings(self) -> list[Sighting]:
        """All evidence with its history."""
        wanted = (*_COLUMNS, "first_seen_s", "current", "missed", "missed_since_s")
        with self._lock:
            rows = self._connection.execute(f"SELECT {', '.join(wanted)} FROM sightings").fetchall()
        return [_sighting(dict(zip(wanted, row, strict=True))) for row in rows]

    def known_ids(self) -> dict[str, set[str]]:
        """By provider, every id that some source has said to exist."""
        found: dict[str, set[str]] = {}
        with self._lock:
            rows = self._connection.execute("SELECT DISTINCT provider, model FROM sightings WHERE field = 'exists'")
            for provider, model in rows:
                found.setdefault(provider, set()).add(model)
        return found

    # -- versions -------------------------------------------------------------------------------------------------

    def publish(self, findings: dict[str, Any], changes: list[dict[str, Any]], why: str, at_s: float) -> Version:
        """Keep findings as the newest version."""
        with self._changing() as connection:
            cursor = connection.execute(
                "INSERT INTO versions (made_at_s, findings, changes, why) VALUES (?, ?, ?, ?)",
                (at_s, orjson.dumps(findings).decode(), orjson.dumps(changes).decode(), why),
            )
            made = int(cursor.lastrowid or 0)
            connection.execute("DELETE FROM versions WHERE id <= ?", (made - _KEPT_VERSIONS,))
        return Version(made, at_s, findings, changes, why)

    def version(self, number: int | None = None) -> Version | None:
        """A version by its number; the newest without."""
        query = "SELECT id, made_at_s, findings, changes, why FROM versions "
        query += "ORDER BY id DESC LIMIT 1" if number is None else "WHERE id = ?"
        with self._lock:
            row = self._connection.execute(query, () if number is None else (number,)).fetchone()
        return Version(row[0], row[1], orjson.loads(row[2]), orjson.loads(row[3]), row[4]) if row else None

    def versions(self) -> list[tuple[int, float, str, int]]:
        """(number, when, why, changes) of all that are kept, the newest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, made_at_s, why, json_array_length(changes) FROM versions ORDER BY id DESC"
            ).fetchall()
        return [(int(row[0]), float(row[1]), str(row[2]), int(row[3])) for row in rows]

    def latest_number(self) -> int:
        """The number of the newest version; 0 when there is none."""
        with self._lock:
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM versions").fetchone()[0])

    def forget(self, before_s: float) -> None:
        """Take out readings and values that sources gave up, from before a time."""
        with self._changing() as connection:
            connection.execute("DELETE FROM readings WHERE at_s < ?", (before_s,))
            connection.execute("DELETE FROM sightings WHERE current = 0 AND seen_at_s < ?", (before_s,))

    # -- runs and notes -------------------------------------------------------------------------------------------

    def claim(self, period: str, at_s: float) -> bool:
        """Whether nobody else has begun the run of `period`; from now on somebody has."""
        with self._changing() as connection:
            cursor = connection.execute("INSERT OR IGNORE INTO runs (period, begun_s) VALUES (?, ?)", (period, at_s))
            connection.execute(
                "DELETE FROM runs WHERE period NOT IN (SELECT period FROM runs ORDER BY begun_s DESC LIMIT ?)",
                (_KEPT_RUNS,),
            )
            return cursor.rowcount == 1

    def ended(self, period: str, at_s: float, report: dict[str, Any]) -> None:
        """Keep what became of a run."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE runs SET ended_s = ?, report = ? WHERE period = ?",
                (at_s, orjson.dumps(report).decode(), period),
            )

    def last_run(self) -> tuple[str, float, float | None, dict[str, Any] | None] | None:
        """(period, begun, ended, report) of the latest run that has ended; else of the latest that has begun."""
        with self._lock:
            row = self._connection.execute(
                "SELECT period, begun_s, ended_s, report FROM runs ORDER BY ended_s IS NULL, begun_s DESC LIMIT 1"
            ).fetchone()
        return (row[0], row[1], row[2], orjson.loads(row[3]) if row[3] else None) if row else None

    def note(self, key: str) -> Any:
        """What was kept under a name; None when nothing was."""
        with self._lock:
            row = self._connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return orjson.loads(row[0]) if row else None

    def keep_note(self, key: str, value: Any) -> None:
        """Keep a JSON value under a name; None takes it out."""
        with self._changing() as connection:
            if value is None:
                connection.execute("DELETE FROM notes WHERE key = ?", (key,))
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", (key, orjson.dumps(value).decode())
                )

    # -- the file -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; other processes wait."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()

    def _note(self, connection: sqlite3.Connection, reading: Reading) -> None:
        values = tuple(asdict(reading).values())
        connection.execute(f"INSERT INTO readings VALUES ({', '.join('?' for _ in values)})", values)

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            return self._connect(":memory:")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self._connect(str(self.path))
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            broken = self.path.with_suffix(f"{self.path.suffix}.broken")
            _log.warning(
                "%s cannot be read (%s); it is kept as %s, and evidence is gathered anew", self.path, error, broken
            )
            self.path.replace(broken)
            return self._connect(str(self.path))

    def _connect(self, place: str) -> sqlite3.Connection:
        if place != ":memory:":
            os.close(os.open(place, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(place, timeout=10.0, check_same_thread=False, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _row(claim: Evidence) -> dict[str, Any]:
    row = {name: getattr(claim, name) for name in _COLUMNS}
    row["value"] = orjson.dumps(claim.value).decode()
    row["rank"] = int(claim.rank)
    row["shared"] = int(claim.shared)
    return row


def _sighting(row: dict[str, Any]) -> Sighting:
    first_s, current, missed, missed_since_s = (
        row.pop(name) for name in ("first_seen_s", "current", "missed", "missed_since_s")
    )
    row["value"] = orjson.loads(row["value"])
    row["rank"] = Rank(row["rank"])
    row["shared"] = bool(row["shared"])
    return Sighting(Evidence(**row), first_s, bool(current), missed, missed_since_s)
