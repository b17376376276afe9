"""One refresh of what is known of free tiers: which sources, what they are about, and what became of it.

The scrapers know neither providers nor the router; this is where they meet, for the server and for `llmproxy scrape`.
What they need for reading pages is imported when a run begins, not when the server starts.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError
from llmproxy.routing.findings import Findings
from providers import catalog as provider_catalog
from providers.sources import headers_of
from scrapers.store import EvidenceStore

if TYPE_CHECKING:
    from scrapers.base import Evidence
    from scrapers.fetch import Fetcher
    from scrapers.store import Reading
    from scrapers.update import Decision, Get, Got, Scope, SourceReport, Target

FILE = "evidence.sqlite3"

_log = logging.getLogger(__name__)
_REMEMBERED_S = 400 * 86_400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a run is wanted: sources by name, and one provider; empty means all."""

    sources: tuple[str, ...] = ()
    provider: str = ""


@dataclass(slots=True)
class Run:
    """One refresh, as it is told in the status. Times are Unix times in seconds."""

    why: str
    begun_s: float
    sources: list[SourceReport] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    version: int = 0
    held: bool = False
    probed: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the status, the store and `--json`."""
        return {
            "why": self.why,
            "begun": iso(self.begun_s),
            "version": self.version,
            "held": self.held,
            "sources": [report.to_json() for report in self.sources],
            "changes": self.changes,
            "probed": self.probed,
        }


def open_store(path: Path | None, *, memory: bool = False) -> EvidenceStore:
    """The evidence beside the configuration file at `path`; one that cannot be opened is replaced by memory."""
    if memory:
        return EvidenceStore(None)
    try:
        return EvidenceStore(_file(path))
    except (sqlite3.OperationalError, OSError) as error:
        _log.error("%s cannot be used (%s): what is found now is forgotten at the end", _file(path), error)
        return EvidenceStore(None)


def known_findings(path: Path | None) -> Findings:
    """What was found before; nothing where no scraper ever ran."""
    from scrapers.versions import published

    if not _file(path).exists():
        return Findings()
    store = open_store(path)
    try:
        return published(store)
    except ValueError as error:
        _log.error("%s: %s", _file(path), error)
        return Findings()
    finally:
        store.close()


def _file(path: Path | None) -> Path:
    return (path or configuration.default_path()).parent / FILE


def scope_of(config: Config, lists: Mapping[str, Iterable[str]]) -> Scope:
    """The providers that findings are wanted for, with the ids that are known without any source."""
    from scrapers.update import Scope

    entries = provider_catalog.catalog()
    ids = {name: set(entry.exact_ids) for name, entry in entries.items() if entry.exact_ids}
    for name, more in lists.items():
        ids.setdefault(name, set()).update(more)
    twins = {
        name: str(entry.quirks["shares_limits_with"])
        for name, entry in entries.items()
        if entry.quirks and entry.quirks.get("shares_limits_with")
    }
    return Scope(frozenset(entries) | frozenset(config.providers), twins, ids)


def targets_of(
    config: Config, settings: Mapping[str, provider_catalog.Settings], wanted: Wanted | None = None
) -> list[Target]:
    """Every source that is to be read; raises `ConfigError` for a name that is none."""
    from scrapers.registry import SOURCES
    from scrapers.sources import openrouter_key, provider_lists
    from scrapers.update import Target

    found = [Target(source) for source in SOURCES]
    covered = {target.source.provider for target in found if target.source.names_ids}
    for name, one in settings.items():
        headers = headers_of(one)
        if name not in covered:
            source = provider_lists.source_for(
                name,
                one.models_url,
                id_field=one.models_id_field,
                keep_task=one.models_keep_task,
                free_suffix=one.facts.free_suffix,
            )
            found.append(Target(source, headers, robots=False))
        if name == "openrouter" and one.keys:
            found.append(Target(openrouter_key.SOURCE, headers, robots=False))
    chosen = (wanted.sources if wanted else ()) or config.scrape.sources
    if chosen:
        known = {target.source.name for target in found}
        if unknown := sorted(set(chosen) - known):
            raise ConfigError(f"no such source: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        found = [target for target in found if target.source.name in chosen]
    if wanted and wanted.provider:
        found = [target for target in found if target.source.provider in ("", wanted.provider)]
    return found


async def refresh(
    store: EvidenceStore,
    targets: Sequence[Target],
    get: Get,
    scope: Scope,
    *,
    why: str,
    probed: Sequence[Evidence] = (),
    observed: Sequence[Evidence] = (),
    now: Callable[[], float] = time.time,
    by_hand: bool = False,
) -> tuple[Run, Decision]:
    """One run: read, keep, decide, publish. By hand it also ends the hold of a rollback.

    probed, observed: what tiny requests have shown, and what was seen in other answers.
    """
    from scrapers import update, versions
    from scrapers.registry import SOURCES

    run = Run(why, now(), probed=len({(claim.provider, claim.model) for claim in probed}))
    if by_hand:
        await asyncio.to_thread(versions.release, store)
    run.sources = await update.gather(store, targets, get, scope, now=now)
    await asyncio.to_thread(update.observe, store, [*probed, *observed], now())
    await asyncio.to_thread(store.forget, now() - _REMEMBERED_S)
    decision = await asyncio.to_thread(update.decide, store, scope, now(), SOURCES)
    version = await asyncio.to_thread(update.publish, store, decision, why, now())
    run.changes = [change.to_json() for change in decision.changes]
    run.held = await asyncio.to_thread(versions.held, store) is not None
    run.version = version.id if version is not None else await asyncio.to_thread(store.latest_number)
    return run, decision


def fetching(fetcher: Fetcher) -> Get:
    """Sources over the network, asked only for what has changed."""

    async def get(target: Target, last: Reading | None) -> Got:
        return await fetcher.get(
            target.source.url,
            etag=last.etag if last else "",
            last_modified=last.last_modified if last else "",
            headers=target.headers,
            accept=target.source.accept,
            robots=target.robots,
        )

    return get


def status_of(store: EvidenceStore, findings: Findings) -> dict[str, Any]:
    """What is told of a version that counts, and the last run with its sources, errors and changes."""
    last = store.last_run()
    return {
        "version": findings.version,
        "made": iso(findings.made_at_s) if findings.version else None,
        "models": len(findings.models),
        "limits": len(findings.limits),
        "last": last and {"period": last[0], "begun": iso(last[1]), "ended": iso(last[2]), "report": last[3]},
    }


def iso(at_s: float | None) -> str | None:
    """A Unix time as people read it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s is not None else None
