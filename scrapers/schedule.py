"""When to refresh: five fields of cron in a time zone, each period once, a missed one made up for once.

Where the clocks change, as in Debian's cron (the moments are from `cronsim`):

- A fixed time (neither minute nor hour begins with `*`) that is skipped in spring comes at the first minute after the
  gap: `30 2 * * *` at 03:00. One that is repeated in autumn comes once, the first time.
- Any other schedule (`*/15 * * * *`, `5 * * * *`) follows real time: nothing in the hour that is skipped, and both of
  the hours that are repeated.

All results are in UTC: two moments of one time zone are compared and subtracted by the face of the clock, which is
wrong on the days on which it changes.
"""

from __future__ import annotations

import hashlib
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from cronsim import CronSim, CronSimError

from llmproxy.core.text import scrub

_log = logging.getLogger(__name__)

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_EXAMPLE = '"17 4 * * *" is 04:17 each day'
_LONGEST_GAP = timedelta(days=120 * 366)
# A timer does not run while a computer sleeps, and the clock may be set: look at it again this often.
_LONGEST_SLEEP_S = 300.0
_CLAIM_AGAIN_S = 60.0

Now = Callable[[], datetime]
Sleep = Callable[[float], Awaitable[None]]
Claim = Callable[[datetime], Awaitable[bool]]


class Schedule:
    """A cron expression in a time zone; raises `ValueError`, with a message for a person, when it is not one.

    A period begins with a scheduled time and ends before the next one. Moments must have a time zone, any one.
    """

    def __init__(self, expression: str, zone: tzinfo) -> None:
        self.expression = " ".join(expression.split())
        self.zone = zone
        if len(expression.split()) != len(_FIELDS):
            raise ValueError(f"schedule {expression!r}: must have five fields ({', '.join(_FIELDS)}): {_EXAMPLE}")
        try:
            next(CronSim(self.expression, datetime(2000, 1, 1, tzinfo=zone)))
        except CronSimError as error:
            raise ValueError(f"schedule {expression!r}: {_problem(error)}: {_EXAMPLE}") from error
        except StopIteration:
            raise ValueError(f"schedule {expression!r}: there is no such day in any year") from None

    def after(self, moment: datetime) -> datetime:
        """The first scheduled time later than `moment`."""
        found = next(self._later(moment), None)
        if found is None:
            raise ValueError(f"schedule {self.expression!r}: has no time after {moment:%Y-%m-%d}")
        return found

    def before(self, moment: datetime) -> datetime:
        """The latest scheduled time that is not later than `moment`."""
        moment = _utc(moment)
        # Looked for forward: there is one truth about the days on which the clocks change.
        back = timedelta(hours=1)
        while back < _LONGEST_GAP:
            found: datetime | None = None
            for scheduled in self._later(moment - back):
                if scheduled > moment:
                    break
                found = scheduled
            if found is not None:
                return found
            back *= 4
        raise ValueError(f"schedule {self.expression!r}: has no time before {moment:%Y-%m-%d}")

    def period_of(self, moment: datetime) -> tuple[datetime, datetime]:
        """The period that `moment` is in: (its scheduled time, the next one)."""
        return self.before(moment), self.after(moment)

    def due(self, last_run: datetime | None, now: datetime) -> datetime | None:
        """The scheduled time that should have run and has not, or None; of several the latest, for all of them.

        last_run: when it ran last, or the scheduled time for which it did; None where it never ran, and then the
        latest is due. A little later than `now`, it was before the clock was set back, and nothing is due; more than
        the next two periods later, it was dated by a clock that was wrong, and counts as None.
        """
        began, ends = self.period_of(now)
        known = last_run is not None and began <= _utc(last_run) <= ends + (ends - began)
        return None if known else began

    def _later(self, moment: datetime) -> Iterator[datetime]:
        """The scheduled times after `moment`, each once and in order."""
        last = _utc(moment)
        for found in CronSim(self.expression, last.astimezone(self.zone)):
            # On the day of a change cronsim may name a time again, or one of the hour before its repetition.
            scheduled = found.astimezone(UTC)
            if scheduled > last:
                last = scheduled
                yield scheduled


def jitter(key: str, bound_s: float) -> float:
    """A delay in [0, bound_s) that is always the same for `key`, such as the name of a replica."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48 * bound_s


async def run_forever(
    schedule: Schedule,
    *,
    now: Now,
    sleep: Sleep,
    last_run: datetime | None,
    claim: Claim,
    refresh: Callable[[], Awaitable[object]],
    jitter_s: float = 0.0,
) -> None:
    """Refresh once a period, by whichever replica wins the claim to it; ends by cancellation only.

    now: the time, with a time zone. last_run: as `Schedule.due` takes it, at the start. claim: whether the period
    that begins then is this replica's; to be won once. jitter_s: how long after a scheduled time to claim it.
    """
    done = last_run
    while True:
        period = schedule.due(done, now())
        if period is None:
            moment = now()
            await sleep(min((schedule.after(moment) - moment).total_seconds(), _LONGEST_SLEEP_S))
            continue
        await sleep(jitter_s)
        try:
            mine = await claim(period)
        except Exception:
            _log.exception("the refresh of %s could not be claimed", _told(period))
            await sleep(_CLAIM_AGAIN_S)
            continue
        done = period
        if mine:
            await _refreshed(refresh, period)


async def _refreshed(refresh: Callable[[], Awaitable[object]], period: datetime) -> None:
    try:
        await refresh()
    except Exception as error:
        # No traceback: its last line is the error's text with all that may be in it.
        for one in _leaves(error):
            kind, text = type(one).__name__, scrub(str(one))
            _log.error("the refresh of %s failed (%s): %s: %s", _told(period), _source(one), kind, text)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _source(error: BaseException) -> str:
    """Which source an error is of, as it says itself; else the line that raised it."""
    source = getattr(error, "source", None)
    if isinstance(source, str) and source:
        return source
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment.astimezone(UTC)


def _problem(error: CronSimError) -> str:
    """What is wrong, in the words of this project."""
    field = str(error).removeprefix("Bad ")
    names = {"day-of-month": "day of the month", "day-of-week": "day of the week"}
    return f"the {names.get(field, field)} is not valid"
