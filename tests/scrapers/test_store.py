"""The file of evidence: private, whole, shared between processes, and put aside when it is broken."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from scrapers.base import Evidence, Rank
from scrapers.store import EvidenceStore, Reading

CLAIM = Evidence(
    "groq", "m", "limit.requests_per_day", 1000, source="page", rank=Rank.DOCS, confidence=0.85, seen_at_s=10.0,
    note="free tier", dated="2026-06", until_s=99.0, shared=True, url="https://page.test", content_hash="ab",
)  # fmt: skip


def test_a_claim_comes_back_as_it_was(tmp_path: Path) -> None:
    """Everything that is known of a claim survives the file."""
    store = EvidenceStore(tmp_path / "evidence.sqlite3")
    store.accept(Reading("page", 10.0, "read", 1, 1), [CLAIM])
    store.close()
    again = EvidenceStore(tmp_path / "evidence.sqlite3")
    (sighting,) = again.sightings()
    assert sighting.evidence == CLAIM
    assert (sighting.first_seen_s, sighting.current, sighting.missed) == (10.0, True, 0)
    again.close()


def test_a_changed_value_keeps_the_old_one_as_history(tmp_path: Path) -> None:
    """The newest value of a source is its current one; the one before stays, with when it was first and last seen."""
    store = EvidenceStore(None)
    for at, value in ((10.0, 1000), (20.0, 1000), (30.0, 500), (40.0, 1000)):
        store.accept(Reading("page", at, "read", 1, 1), [replace(CLAIM, value=value, seen_at_s=at)])
    told = {one.evidence.value: (one.first_seen_s, one.evidence.seen_at_s, one.current) for one in store.sightings()}
    assert told == {1000: (10.0, 40.0, True), 500: (30.0, 30.0, False)}


def test_misses_are_counted_and_forgotten() -> None:
    """What a reading leaves out is missed since then; unchanged readings count as well; seen again, it starts anew."""
    store = EvidenceStore(None)
    other = replace(CLAIM, model="n")
    store.accept(Reading("page", 10.0, "read"), [CLAIM, other])
    store.accept(Reading("page", 20.0, "read"), [replace(other, seen_at_s=20.0)])
    store.unchanged(Reading("page", 30.0, "unchanged"))
    missed = {one.evidence.model: (one.missed, one.missed_since_s) for one in store.sightings()}
    assert missed == {"m": (2, 20.0), "n": (0, None)}
    store.accept(Reading("page", 40.0, "read"), [replace(CLAIM, seen_at_s=40.0), replace(other, seen_at_s=40.0)])
    assert {(one.missed, one.missed_since_s) for one in store.sightings()} == {(0, None)}


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The file may tell which providers somebody has keys for."""
    EvidenceStore(tmp_path / "evidence.sqlite3").close()
    assert (tmp_path / "evidence.sqlite3").stat().st_mode & 0o777 == 0o600


def test_a_broken_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is no database is kept under another name, and gathering begins anew with a warning."""
    path = tmp_path / "evidence.sqlite3"
    path.write_bytes(b"this is no database, but somebody's notes " * 50)
    with caplog.at_level(logging.WARNING):
        store = EvidenceStore(path)
    assert store.sightings() == []
    assert path.with_suffix(".sqlite3.broken").read_bytes().startswith(b"this is no database")
    assert "evidence.sqlite3.broken" in caplog.text
    store.close()


def test_a_run_is_begun_once(tmp_path: Path) -> None:
    """Of several processes that claim the same period exactly one gets it."""
    stores = [EvidenceStore(tmp_path / "evidence.sqlite3") for _ in range(4)]
    won: list[int] = []
    together = threading.Barrier(4)

    def claim(number: int) -> None:
        together.wait()
        if stores[number].claim("2026-11-21T04:17", 1.0):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert stores[0].claim("2026-11-22T04:17", 2.0)
    stores[won[0]].ended("2026-11-21T04:17", 3.0, {"version": 7})
    assert stores[1].last_run() == ("2026-11-21T04:17", 1.0, 3.0, {"version": 7})
    for store in stores:
        store.close()


def test_a_change_that_fails_leaves_nothing_half_done() -> None:
    """A reading is taken over as a whole or not at all."""
    store = EvidenceStore(None)
    store.accept(Reading("page", 10.0, "read"), [CLAIM])

    def claims() -> list[Evidence]:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        store.accept(Reading("page", 20.0, "read"), (claim for claim in [replace(CLAIM, value=5), *claims()]))
    (sighting,) = store.sightings()
    assert (sighting.evidence.value, sighting.missed) == (1000, 0)
    assert len(store.readings("page", since_s=0.0)) == 1


def test_old_history_is_forgotten() -> None:
    """What a source gave up long ago goes; what it says still stays, however old, with the latest reading."""
    store = EvidenceStore(None)
    store.accept(Reading("page", 10.0, "read"), [CLAIM])
    store.accept(Reading("page", 20.0, "read"), [replace(CLAIM, value=500, seen_at_s=20.0)])
    store.forget(15.0)
    assert [one.evidence.value for one in store.sightings()] == [500]
    assert [one.at_s for one in store.readings("page", since_s=0.0)] == [20.0]


def test_old_versions_are_forgotten() -> None:
    """Fifty versions are kept, the newest ones."""
    store = EvidenceStore(None)
    for number in range(60):
        store.publish({"models": {}, "limits": {}}, [], f"run {number}", float(number))
    assert [number for number, *_ in store.versions()] == list(range(60, 10, -1))
    assert store.version(10) is None
