"""Keeps what is known of free tiers fresh: runs the scrapers in time, and hands what they find to the router."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from llmproxy.core.config import Config
from llmproxy.core.tasks import Background
from llmproxy.core.text import scrub
from llmproxy.refresh import Run, fetching, iso, refresh, scope_of, status_of, targets_of
from llmproxy.routing.findings import Findings
from providers import catalog as provider_catalog
from scrapers.store import EvidenceStore

if TYPE_CHECKING:
    from scrapers.base import Evidence
    from scrapers.board import Board
    from scrapers.schedule import Schedule

_log = logging.getLogger(__name__)
_LOOK_S = 2.0
_FIRST_START, _LAST_PERIOD = "first start", "last scheduled run"
# The replica that refreshed last has so long to begin before another one takes its place.
_AFTER_LEADER_S = 30.0
_SHOWN = 500
# The same thing that is seen again and again is written down so often.
_NOTED_AGAIN_S = 86_400.0
_NOTHING = Findings()


class Refresher:
    """The server's part: runs on schedule, one replica at a time, and gives every new version to `adopt`.

    `known` is what was adopted before the start.
    """

    def __init__(
        self,
        config: Callable[[], Config],
        settings: Callable[[], Mapping[str, provider_catalog.Settings]],
        lists: Callable[[], Mapping[str, Iterable[str]]],
        adopt: Callable[[Findings], None],
        store: EvidenceStore,
        *,
        known: Findings = _NOTHING,
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
        self.findings = known

    async def start(self) -> None:
        """Take over what was found meanwhile, and begin to look for new versions and for the time of the next run."""
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
            seen = self._observed()
            async with new_session(config.server.connect_timeout) as session:
                get = fetching(Fetcher(session, now=self._now))
                run, _ = await refresh(
                    self._store, targets, get, scope, why=why, probed=probed, observed=seen, now=self._now
                )
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
        schedule = self._schedule()
        return status_of(self._store, self.findings) | {
            "running": self._running.locked(),
            "next": schedule.after(self._moment()).isoformat(timespec="seconds") if schedule is not None else None,
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
                await self._take_over()
                await self._look_at_board()
            except sqlite3.Error as error:
                _log.warning("the evidence cannot be read: %s", error)

    async def _take_over(self) -> None:
        """Adopt the newest version that there is, unless it is in use already."""
        if await asyncio.to_thread(self._store.latest_number) in (0, self.findings.version):
            return
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
        if self._board is None:
            return True
        from scrapers.board import Away

        try:
            if not await self._board.leads():
                await asyncio.sleep(_AFTER_LEADER_S)
            return await self._board.claim(self._period)
        except Away as error:
            _log.warning("refreshing without the other replicas: %s", error)
            return True

    async def _show(self) -> None:
        if self._board is None or not self.findings.version:
            return
        from scrapers.board import Away, Posted

        try:
            await self._board.post(Posted(self.findings.made_at_s, self.findings.to_json()))
        except Away as error:
            _log.warning("the other replicas were not told what was found: %s", error)

    async def _look_at_board(self) -> None:
        if self._board is None or self._running.locked():
            return
        from scrapers.board import Away

        try:
            posted = await self._board.newer(self.findings.made_at_s)
        except Away:
            return  # told by whoever counts there; the next look is soon
        if posted is not None:
            why, made_at_s = "found by another replica", posted.made_at_s
            await asyncio.to_thread(self._store.publish, posted.findings, [], why, made_at_s)
            await self._take_over()


def _minute(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="minutes")
