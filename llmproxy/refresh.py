"""Keeps what is known of free tiers fresh: runs the scrapers when it is time, and hands what they find to the router.

The scrapers know neither providers nor the router; this is where they meet, for the server and for `llmproxy scrape`.
What they need for reading pages is imported when a run begins, not when the server starts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError
from llmproxy.core.tasks import Background
from llmproxy.core.text import scrub
from llmproxy.routing.findings import Findings
from providers import catalog as provider_catalog
from scrapers.store import EvidenceStore

if TYPE_CHECKING:
    from scrapers.base import Evidence
    from scrapers.board import Board
    from scrapers.fetch import Fetcher
    from scrapers.schedule import Schedule
    from scrapers.store import Reading
    from scrapers.update import Decision, Get, Got, Scope, SourceReport, Target

FILE = "evidence.sqlite3"

_log = logging.getLogger(__name__)
_LOOK_S = 2.0
_FIRST_START, _LAST_PERIOD = "first start", "last scheduled run"
# The replica that refreshed last has so long to begin before another one takes its place.
_AFTER_LEADER_S = 30.0
_SHOWN = 500
_REMEMBERED_S = 400 * 86_400.0
# The same thing that is seen again and again is written down so often.
_NOTED_AGAIN_S = 86_400.0


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
    covered = {target.source.provider for target in found if target.source.complete}
    for name, one in settings.items():
        headers = dict(one.headers)
        if one.keys:
            headers["Authorization"] = f"Bearer {one.keys[0].reveal()}"
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
    observed: Sequence[Evidence] = (),
    now: Callable[[], float] = time.time,
    by_hand: bool = False,
) -> tuple[Run, Decision]:
    """One run: read, keep, decide, publish. By hand it also ends the hold of a rollback."""
    from scrapers import update, versions
    from scrapers.registry import SOURCES

    run = Run(why, now())
    if by_hand:
        await asyncio.to_thread(versions.release, store)
    run.sources = await update.gather(store, targets, get, scope, now=now)
    await asyncio.to_thread(update.observe, store, observed, now())
    await asyncio.to_thread(store.forget, now() - _REMEMBERED_S)
    decision = await asyncio.to_thread(update.decide, store, scope, now(), SOURCES)
    version = await asyncio.to_thread(update.publish, store, decision, why, now())
    run.changes = [change.to_json() for change in decision.changes]
    run.held = await asyncio.to_thread(versions.held, store) is not None
    run.version = version.id if version is not None else await asyncio.to_thread(store.latest_number)
    return run, decision


class Refresher:
    """The server's part: runs on schedule, one replica at a time, and gives every new version to `adopt`."""

    def __init__(
        self,
        config: Callable[[], Config],
        settings: Callable[[], Mapping[str, provider_catalog.Settings]],
        lists: Callable[[], Mapping[str, Iterable[str]]],
        adopt: Callable[[Findings], None],
        store: EvidenceStore,
        *,
        board: Board | None = None,
        probes: Callable[[EvidenceStore, int], Awaitable[Sequence[Evidence]]] | None = None,
        observed: Callable[[], Sequence[Evidence]] = tuple,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._settings = settings
        self._lists = lists
        self._adopt = adopt
        self._store = store
        self._board = board
        self._probes = probes
        self._observed = observed
        self._noted: dict[tuple[str, str, str], float] = {}
        self._now = now
        self._background = Background()
        self._scheduled: asyncio.Task[None] | None = None
        self._running = asyncio.Lock()
        self._period = ""
        self.findings = Findings()

    async def start(self) -> None:
        """Take over what was found before, and begin to look for new versions and for the time of the next run."""
        await self._take_over()
        if await asyncio.to_thread(self._store.note, _FIRST_START) is None:
            await asyncio.to_thread(self._store.keep_note, _FIRST_START, self._now())
        self._background.start(self._watch(), "findings watcher")
        if self._config().scrape.on_startup:
            self._background.start(self._at_start(), "scrape on startup")
        self.reschedule()

    def reschedule(self) -> None:
        """Follow the schedule that the configuration has now."""
        if self._scheduled is not None:
            self._scheduled.cancel()
        if self._config().scrape.schedule is not None:
            self._scheduled = self._background.start(self._follow(), "scrape schedule")

    async def aclose(self) -> None:
        """End what runs; what was read so far is kept."""
        await self._background.aclose()
        if self._board is not None:
            await self._board.aclose()
        self._store.close()

    async def run(self, why: str) -> Run:
        """One refresh now; raises `ConfigError` when a source of the configuration does not exist."""
        from providers.http import new_session
        from scrapers.fetch import Fetcher

        config = self._config()
        async with self._running:
            targets = targets_of(config, self._settings())
            scope = scope_of(config, self._lists())
            probed = await self._probes(self._store, config.scrape.probes) if self._probes else ()
            observed = [*probed, *self._observed()]
            async with new_session(config.server.connect_timeout) as session:
                get = fetching(Fetcher(session, now=self._now))
                run, _ = await refresh(self._store, targets, get, scope, why=why, observed=observed, now=self._now)
            run.probed = len({(claim.provider, claim.model) for claim in probed})
        await self._take_over()
        return run

    def note(self, evidence: Evidence) -> None:
        """Something was seen that must count at once; returns at once."""
        key = (evidence.provider, evidence.model, evidence.field)
        if evidence.seen_at_s - self._noted.get(key, 0.0) > _NOTED_AGAIN_S:
            self._noted[key] = evidence.seen_at_s
            self._background.start(self._take_in(evidence), "scrape note")

    async def _take_in(self, evidence: Evidence) -> None:
        from scrapers import update
        from scrapers.registry import SOURCES

        async with self._running:
            await asyncio.to_thread(update.observe, self._store, [evidence], evidence.seen_at_s)
            scope = scope_of(self._config(), self._lists())
            decision = await asyncio.to_thread(update.decide, self._store, scope, self._now(), SOURCES)
            await asyncio.to_thread(update.publish, self._store, decision, "seen in an answer", self._now())
        await self._take_over()
        await self._show()

    def status(self) -> dict[str, Any]:
        """The version in use, the last run with its sources, errors and changes, and when the next one is."""
        last, schedule = self._store.last_run(), self._schedule()
        return {
            "version": self.findings.version,
            "made": iso(self.findings.made_at_s) if self.findings.version else None,
            "models": len(self.findings.models),
            "limits": len(self.findings.limits),
            "running": self._running.locked(),
            "next": schedule.after(self._moment()).isoformat(timespec="seconds") if schedule is not None else None,
            "last": last and {"period": last[0], "begun": iso(last[1]), "ended": iso(last[2]), "report": last[3]},
        }

    # -- the schedule ---------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        from scrapers.schedule import jitter, run_forever

        schedule = self._schedule()
        assert schedule is not None
        await run_forever(
            schedule,
            now=self._moment,
            sleep=asyncio.sleep,
            last_run=await asyncio.to_thread(self._last_run),
            claim=self._claim,
            refresh=lambda: self._report("on schedule"),
            jitter_s=jitter(secrets.token_hex(8), self._config().scrape.jitter),
        )

    def _schedule(self) -> Schedule | None:
        from scrapers.schedule import Schedule

        settings = self._config().scrape
        return Schedule(settings.schedule, ZoneInfo(settings.timezone)) if settings.schedule is not None else None

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    def _last_run(self) -> datetime:
        """The scheduled time that was done last, by whichever replica; before any, the first start."""
        done = self._store.note(_LAST_PERIOD) or self._store.note(_FIRST_START) or self._now()
        return datetime.fromtimestamp(float(done), UTC)

    async def _claim(self, period: datetime) -> bool:
        """Whether the run of `period` is this replica's: no other one has begun it."""
        self._period = period.isoformat(timespec="minutes")
        mine = await asyncio.to_thread(self._store.claim, self._period, self._now()) and await self._agreed()
        await asyncio.to_thread(self._store.keep_note, _LAST_PERIOD, period.timestamp())
        return mine

    async def _at_start(self) -> None:
        self._period = f"start {_minute(self._now())}"
        if await asyncio.to_thread(self._store.claim, self._period, self._now()) and await self._agreed():
            await self._report("on startup")

    async def _report(self, why: str) -> None:
        """Run, and keep what became of it; an error is told in the status, and the schedule goes on."""
        begun_s, period = self._now(), self._period
        try:
            run = await self.run(why)
        except Exception as error:
            failed = {"why": why, "begun": iso(begun_s), "error": f"{type(error).__name__}: {scrub(str(error))}"}
            await asyncio.to_thread(self._store.ended, period, self._now(), failed)
            raise
        _log.info("refreshed %s: %d changes, version %d", why, len(run.changes), run.version)
        told = run.to_json() | {"changes": run.changes[:_SHOWN]}
        await asyncio.to_thread(self._store.ended, period, self._now(), told)
        await self._show()

    # -- versions -------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Take over what another process publishes: a worker, another replica, or `llmproxy scrape`."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if await asyncio.to_thread(self._store.latest_number) != self.findings.version:
                    await self._take_over()
                await self._look_at_board()
            except sqlite3.Error as error:
                _log.warning("the evidence cannot be read: %s", error)

    async def _take_over(self) -> None:
        from scrapers.versions import published

        try:
            findings = await asyncio.to_thread(published, self._store)
        except ValueError as error:
            _log.error("the findings were not taken over: %s", error)
            return
        if findings.version != self.findings.version:
            self.findings = findings
            self._adopt(findings)

    async def _agreed(self) -> bool:
        """Whether this replica is the one of all machines that runs now. Without its Redis it runs for itself."""
        from scrapers.board import Away

        if self._board is None:
            return True
        try:
            if not await self._board.leads():
                await asyncio.sleep(_AFTER_LEADER_S)
            return await self._board.claim(self._period)
        except Away as error:
            _log.warning("refreshing without the other replicas: %s", error)
            return True

    async def _show(self) -> None:
        from scrapers.board import Away, Posted

        if self._board is not None and self.findings.version:
            try:
                await self._board.post(Posted(self.findings.made_at_s, self.findings.to_json()))
            except Away as error:
                _log.warning("the other replicas were not told what was found: %s", error)

    async def _look_at_board(self) -> None:
        from scrapers.board import Away

        if self._board is None or self._running.locked():
            return
        try:
            posted = await self._board.newer(self.findings.made_at_s)
        except Away:
            return  # told by whoever counts there; the next look is soon
        if posted is not None:
            why, made_at_s = "found by another replica", posted.made_at_s
            await asyncio.to_thread(self._store.publish, posted.findings, [], why, made_at_s)
            await self._take_over()


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


def _minute(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="minutes")


def iso(at_s: float | None) -> str | None:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s is not None else None
