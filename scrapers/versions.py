"""Which version of the findings counts, and going back to an older one."""

from __future__ import annotations

from llmproxy.routing.findings import Findings
from scrapers.findings import changes
from scrapers.store import EvidenceStore, Version

_HELD = "held at version"


def published(store: EvidenceStore, number: int | None = None) -> Findings:
    """The findings of a version, the newest without a number; nothing is known before the first."""
    version = store.version(number)
    if version is None:
        return Findings()
    return Findings.from_json(version.findings, version=version.id, made_at_s=version.made_at_s)


def roll_back(store: EvidenceStore, now: float, to: int | None = None) -> Version:
    """Publish an older version again (the one before the newest, or `to`) and hold it until `release`.

    Raises `ValueError` when there is none.
    """
    latest = store.latest_number()
    number = latest - 1 if to is None else to
    old = store.version(number)
    if old is None or number == latest:
        raise ValueError(f"there is no version {number} to go back to" if number > 0 else "there is no older version")
    before, after = published(store), Findings.from_json(old.findings)
    told = [change.to_json() for change in changes(before, after, {})]
    made = store.publish(old.findings, told, f"rolled back to version {number}", now)
    store.keep_note(_HELD, made.id)
    return made


def held(store: EvidenceStore) -> int | None:
    """The version that somebody rolled back to, while nothing newer is to be published."""
    note = store.note(_HELD)
    return int(note) if note is not None else None


def release(store: EvidenceStore) -> None:
    """New versions may be published again."""
    store.keep_note(_HELD, None)
