"""When a refresh is due, on a clock that the tests move: also where clocks change, stand still, and go backwards."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapers.schedule import Schedule, jitter, run_forever

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
DAILY = Schedule("17 4 * * *", UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(schedule: Schedule, start: datetime, count: int) -> list[datetime]:
    """The next `count` scheduled times after `start`."""
    found = [schedule.after(start)]
    while len(found) < count:
        found.append(schedule.after(found[-1]))
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        # Skipped: 02:30 is no time on that day, so it is 03:00, the first minute after the gap.
        ("30 2 * * *", BERLIN, "2026-03-28", ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07", ["2026-03-07 07:30", "2026-03-08 07:00", "2026-03-09 06:30"]),
        # Repeated: the first of the two.
        ("30 2 * * *", BERLIN, "2026-10-24", ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31", ["2026-10-31 05:30", "2026-11-01 05:30", "2026-11-02 06:30"]),
        # Two times that the gap makes one are one.
        ("0,30 2 * * *", BERLIN, "2026-03-29", ["2026-03-29 01:00", "2026-03-30 00:00", "2026-03-30 00:30"]),
        ("0 2,3 * * *", BERLIN, "2026-03-29", ["2026-03-29 01:00", "2026-03-30 00:00", "2026-03-30 01:00"]),
        # Beside the change.
        ("17 4 * * *", BERLIN, "2026-03-28", ["2026-03-28 03:17", "2026-03-29 02:17", "2026-03-30 02:17"]),
        ("17 4 * * *", NEW_YORK, "2026-10-31", ["2026-10-31 08:17", "2026-11-01 09:17", "2026-11-02 09:17"]),
        # A minute of each hour follows real time.
        ("30 * * * *", BERLIN, "2026-03-29 00:00", ["2026-03-29 00:30", "2026-03-29 01:30", "2026-03-29 02:30"]),
        ("30 * * * *", BERLIN, "2026-10-25 00:00", ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"]),
        # Sunday midnight, written in three ways.
        ("0 0 * * 0", BERLIN, "2026-06-17", ["2026-06-20 22:00", "2026-06-27 22:00"]),
        ("0 0 * * 7", UTC, "2026-06-17", ["2026-06-21 00:00", "2026-06-28 00:00"]),
        ("0 0 * * sun", NEW_YORK, "2026-06-17", ["2026-06-21 04:00", "2026-06-28 04:00"]),
        # A leap day, over a century without one.
        ("0 12 29 2 *", UTC, "2092-02-28", ["2092-02-29 12:00", "2096-02-29 12:00", "2104-02-29 12:00"]),
        ("17 4 * * *", timezone(timedelta(hours=5, minutes=30)), "2026-06-17", ["2026-06-17 22:47"]),
    ],
)  # fmt: skip
def test_the_scheduled_times(expression: str, zone: Any, start: str, expected: list[str]) -> None:
    """A schedule has these times and no other between them, counted forward and looked back at."""
    schedule = Schedule(expression, zone)
    found = times(schedule, utc(start) - timedelta(seconds=1), len(expected))
    assert found == [utc(text) for text in expected]
    for earlier, later in pairwise(found):
        assert schedule.before(later - timedelta(seconds=1)) == earlier
    assert [schedule.before(moment) for moment in found] == found


@pytest.mark.parametrize("start", ["2026-03-28 23:00", "2026-10-24 23:00", "2026-03-08 05:00", "2026-11-01 04:00"])
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
def test_a_quarter_of_an_hour_is_always_that_long(zone: ZoneInfo, start: str) -> None:
    """`*/15` comes every 900 s of real time, on all days."""
    found = times(Schedule("*/15 * * * *", zone), utc(start), 40)
    assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(minutes=15)}


def test_the_repeated_hour_is_over_after_its_first_time() -> None:
    """In the second pass of 02:00 to 03:00 the time of this day has been, though the clock says not yet."""
    schedule = Schedule("30 2 * * *", BERLIN)
    second_pass = utc("2026-10-25 01:15")
    assert second_pass.astimezone(BERLIN).strftime("%H:%M") == "02:15"
    assert schedule.period_of(second_pass) == (utc("2026-10-25 00:30"), utc("2026-10-26 01:30"))


def test_any_zone_of_a_moment_will_do() -> None:
    """The same moment in different zones has the same period, and a moment without a zone is refused."""
    schedule, moment = Schedule("30 2 * * *", BERLIN), utc("2026-10-25 01:15")
    periods = {schedule.period_of(moment.astimezone(zone)) for zone in (UTC, BERLIN, NEW_YORK)}
    assert len(periods) == 1
    with pytest.raises(ValueError, match="without a time zone"):
        schedule.after(datetime(2026, 6, 17))


def test_a_scheduled_time_belongs_to_its_own_period() -> None:
    """`after` is later than its moment, `before` may be the moment itself, to the microsecond."""
    scheduled, tick = utc("2026-06-17 04:17"), timedelta(microseconds=1)
    assert DAILY.period_of(scheduled) == (scheduled, scheduled + timedelta(days=1))
    assert DAILY.period_of(scheduled - tick) == (scheduled - timedelta(days=1), scheduled)
    assert DAILY.period_of(scheduled + tick) == (scheduled, scheduled + timedelta(days=1))


@given(
    st.sampled_from(
        ["17 4 * * *", "30 2 * * *", "30 1 * * *", "*/15 * * * *", "5 */6 * * *", "0 0 * * 0", "0 0 29 2 *"]
    ),
    st.sampled_from([UTC, BERLIN, NEW_YORK, ZoneInfo("America/Santiago")]),
    st.datetimes(datetime(2020, 1, 1), datetime(2034, 1, 1), timezones=st.just(UTC)),
)
def test_periods_have_no_gaps(expression: str, zone: Any, moment: datetime) -> None:
    """Every moment is in one period, whose ends are found from each other in both directions."""
    schedule = Schedule(expression, zone)
    began, ends = schedule.period_of(moment)
    assert began <= moment < ends
    assert schedule.after(began) == ends
    assert schedule.before(ends) == ends
    assert schedule.before(ends - timedelta(microseconds=1)) == began


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "must have five fields"),
        ("17 4 * *", "must have five fields"),
        ("0 17 4 * * *", "must have five fields"),
        ("@daily", "must have five fields"),
        ("60 4 * * *", "the minute is not valid"),
        ("17 24 * * *", "the hour is not valid"),
        ("17 4 32 * *", "the day of the month is not valid"),
        ("17 4 * 13 *", "the month is not valid"),
        ("17 4 * * fun", "the day of the week is not valid"),
        ("17 5-4 * * *", "the hour is not valid"),
        ("*/0 4 * * *", "the minute is not valid"),
        ("-1 4 * * *", "the minute is not valid"),
        ("0 0 31 2 *", "the day of the month is not valid"),
    ],
)
def test_a_wrong_expression_is_told(expression: str, says: str) -> None:
    """The message has the expression, the part that is wrong, and an example."""
    with pytest.raises(ValueError, match=says) as caught:
        Schedule(expression, UTC)
    assert repr(expression) in str(caught.value)
    assert "17 4 * * *" in str(caught.value)


def test_a_missed_run_is_due_once() -> None:
    """After days of downtime the latest scheduled time is due, and with it all before it."""
    now = utc("2026-06-20 12:00")
    assert DAILY.due(utc("2026-06-15 04:17"), now) == utc("2026-06-20 04:17")
    assert DAILY.due(utc("2026-06-20 04:17"), now) is None
    assert DAILY.due(utc("2026-06-20 12:00"), now) is None
    assert DAILY.due(utc("2026-06-20 04:16:59"), now) == utc("2026-06-20 04:17")


def test_what_never_ran_is_due() -> None:
    """Without a run the latest scheduled time is due, so that a computer which sleeps at that hour refreshes too."""
    assert DAILY.due(None, utc("2026-06-20 04:16")) == utc("2026-06-19 04:17")


def test_a_run_in_the_future_is_one_of_a_wrong_clock() -> None:
    """A clock that was set back a little repeats nothing; a run dated years ahead does not stop the schedule."""
    now = utc("2026-06-20 03:30")
    assert DAILY.due(utc("2026-06-20 04:17:05"), now) is None
    assert DAILY.due(utc("2030-01-01 04:17"), now) == utc("2026-06-19 04:17")


def test_a_delay_is_spread_and_always_the_same() -> None:
    """The jitter of a replica is within its bound and does not change; those of many replicas differ."""
    delays_s = [jitter(f"replica-{number}", 300.0) for number in range(100)]
    assert delays_s == [jitter(f"replica-{number}", 300.0) for number in range(100)]
    assert all(0 <= delay_s < 300 for delay_s in delays_s)
    assert len(set(delays_s)) == 100
    assert min(delays_s) < 60 < 240 < max(delays_s)
    assert jitter("replica", 0.0) == 0.0


class World:
    """Tasks that sleep on a clock which `run` moves. `error` is how far the clock on the wall is off."""

    def __init__(self, start: str) -> None:
        self.time = utc(start)
        self.error = timedelta(0)
        self.refreshed: list[datetime] = []
        self.claimed: dict[datetime, int] = {}
        self.asked: list[tuple[datetime, datetime]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sleeping: list[tuple[datetime, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> datetime:
        return self.time + self.error

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self._order += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleeping, (self.time + timedelta(seconds=seconds), self._order, woken))
        await woken

    async def claim(self, period: datetime) -> bool:
        """A store that all replicas share: a period is given away once."""
        self.asked.append((period, self.now()))
        self.claimed[period] = self.claimed.get(period, 0) + 1
        return self.claimed[period] == 1

    async def refresh(self) -> None:
        self.refreshed.append(self.now())

    def start(self, task: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(task))

    async def run(self, until: str) -> None:
        """Let the time go by. All tasks sleep when this returns."""
        while True:
            while len(self._sleeping) < len(self._tasks):
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0)
            if self._sleeping[0][0] > utc(until):
                self.time = utc(until)
                return
            self.time, _, woken = heapq.heappop(self._sleeping)
            woken.set_result(None)

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)


@asynccontextmanager
async def world(
    start: str,
    *,
    schedule: Schedule = DAILY,
    last_run: str | None = None,
    jitters_s: tuple[float, ...] = (0.0,),
    refresh: Callable[[World], Awaitable[object]] | None = None,
    claim: Callable[[World, datetime], Awaitable[bool]] | None = None,
) -> AsyncIterator[World]:
    """A world with a replica for each of `jitters_s`."""
    here = World(start)

    async def refreshing() -> None:
        await here.refresh()
        if refresh is not None:
            await refresh(here)

    async def claiming(period: datetime) -> bool:
        return await (here.claim(period) if claim is None else claim(here, period))

    for jitter_s in jitters_s:
        here.start(
            run_forever(
                schedule,
                now=here.now,
                sleep=here.sleep,
                last_run=utc(last_run) if last_run else None,
                claim=claiming,
                refresh=refreshing,
                jitter_s=jitter_s,
            )
        )
    try:
        yield here
    finally:
        await here.end()


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        ("2026-03-28 12:00", "2026-03-31 00:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
        ("2026-10-24 12:00", "2026-10-27 00:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
    ],
)
async def test_each_period_is_refreshed_once(start: str, until: str, expected: list[str]) -> None:
    """A replica alone refreshes at each scheduled time, also on the days on which the clocks change."""
    async with world(start, schedule=Schedule("30 2 * * *", BERLIN), last_run=start) as here:
        await here.run(until)
    assert here.refreshed == [utc(text) for text in expected]


async def test_of_many_replicas_one_refreshes() -> None:
    """Replicas that share a store of claims refresh once a period together, and all go on to the next period."""
    async with world("2026-06-17 00:00", last_run="2026-06-16 12:00", jitters_s=(0.0, 40.0, 7.5)) as here:
        await here.run("2026-06-20 00:00")
    assert here.refreshed == [utc(f"2026-06-{day} 04:17") for day in (17, 18, 19)]
    assert set(here.claimed.values()) == {3}


async def test_a_refresh_waits_for_its_jitter() -> None:
    """The claim to a period is made `jitter_s` after its scheduled time."""
    async with world("2026-06-17 00:00", last_run="2026-06-16 12:00", jitters_s=(90.0,)) as here:
        await here.run("2026-06-18 00:00")
    assert here.asked == [(utc("2026-06-17 04:17"), utc("2026-06-17 04:18:30"))]


async def test_days_of_downtime_are_made_up_for_once() -> None:
    """At the start one refresh stands for all that were missed; the next comes at its usual time."""
    async with world("2026-06-17 12:00", last_run="2026-06-10 04:17", jitters_s=(0.0, 5.0)) as here:
        await here.run("2026-06-18 12:00")
    assert here.refreshed == [utc("2026-06-17 12:00"), utc("2026-06-18 04:17")]


async def test_a_computer_that_slept_refreshes_soon() -> None:
    """When the clock jumps days ahead, as after a suspension, one refresh follows within minutes."""
    async with world("2026-06-17 12:00", last_run="2026-06-17 04:17") as here:
        await here.run("2026-06-17 12:01")
        here.error += timedelta(days=3)
        await here.run("2026-06-17 12:30")
        assert len(here.refreshed) == 1
        assert utc("2026-06-20 12:01") < here.refreshed[0] <= utc("2026-06-20 12:06")


@pytest.mark.parametrize("back", [timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(days=4)])
async def test_a_clock_that_goes_back_repeats_nothing(back: timedelta) -> None:
    """A period that was refreshed is not refreshed again when the clock comes by a second time."""
    async with world("2026-06-10 00:00", last_run="2026-06-09 12:00", jitters_s=(0.0, 5.0)) as here:
        await here.run("2026-06-17 04:20")
        assert len(here.refreshed) == 8
        here.error -= back
        await here.run("2026-06-23 12:00")
    periods = [moment.date() for moment in here.refreshed]
    assert len(set(periods)) == len(periods)
    assert max(periods) == (utc("2026-06-23 12:00") - back).date()


async def test_a_clock_that_was_years_ahead_stops_nothing() -> None:
    """After a moment far in the future the schedule goes on where it was."""
    async with world("2026-06-17 12:00", last_run="2026-06-17 04:17") as here:
        here.error = timedelta(days=1500)
        await here.run("2026-06-17 12:30")
        here.error = timedelta(0)
        await here.run("2026-06-19 12:00")
    assert here.refreshed[0].year == 2030
    assert here.refreshed[-2:] == [utc("2026-06-18 04:17"), utc("2026-06-19 04:17")]


class PageFailed(Exception):
    """An error that knows its source."""

    def __init__(self, source: str) -> None:
        super().__init__(f"no answer for sk-very-secret-0123456789 of {source}")
        self.source = source


async def test_a_refresh_that_fails_is_told_and_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Each error of a run is logged with its source and without keys; the next period is refreshed as usual."""

    async def fails(here: World) -> None:
        if len(here.refreshed) == 1:
            raise ExceptionGroup("two", [PageFailed("groq-docs"), ExceptionGroup("one", [PageFailed("arena")])])
        raise KeyError("bug")

    with caplog.at_level(logging.ERROR, logger="scrapers.schedule"):
        async with world("2026-06-17 00:00", last_run="2026-06-16 12:00", refresh=fails) as here:
            await here.run("2026-06-19 00:00")
    assert len(here.refreshed) == 2
    first, second, third = (record.getMessage() for record in caplog.records)
    assert "2026-06-17 04:17 UTC failed (groq-docs): PageFailed: no answer" in first
    assert "(arena)" in second
    assert "2026-06-18 04:17 UTC failed (test_schedule.py:" in third
    assert "KeyError" in third
    assert "very-secret" not in caplog.text


async def test_a_claim_that_fails_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """While the store of claims is away nothing is refreshed; when it is back the period is, once."""

    async def away(here: World, period: datetime) -> bool:
        if here.now() < utc("2026-06-17 04:30"):
            raise ConnectionRefusedError("no store")
        return await here.claim(period)

    with caplog.at_level(logging.ERROR, logger="scrapers.schedule"):
        async with world("2026-06-17 00:00", last_run="2026-06-16 12:00", claim=away) as here:
            await here.run("2026-06-17 23:00")
    assert [moment.strftime("%H:%M") for moment in here.refreshed] == ["04:30"]
    assert "could not be claimed" in caplog.text


async def test_a_refresh_may_take_longer_than_a_period() -> None:
    """What came due meanwhile is refreshed once, after the one that runs."""

    async def slow(here: World) -> None:
        await here.sleep(3 * 86_400 if len(here.refreshed) == 1 else 0)

    async with world("2026-06-17 00:00", last_run="2026-06-16 12:00", refresh=slow) as here:
        await here.run("2026-06-21 00:00")
    assert here.refreshed == [utc("2026-06-17 04:17"), utc("2026-06-20 04:17")]
