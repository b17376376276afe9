"""How providers write times to wait, in all forms that were seen. Pure; `now` is a Unix time in seconds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from zoneinfo import ZoneInfo

PERIODS_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0, "month": 2_678_400.0}
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])(?![a-z])")
_PROSE_WAIT = re.compile(
    r"(?:try again in|retry (?:in|after)|please wait)\s+((?:\d+(?:\.\d+)?\s*(?:m(?:illi)?s|[dhms])(?:[a-z]*)?\s*)+)",
    re.IGNORECASE,
)


def parse_wait_s(text: str, *, now: float) -> float | None:
    """A wait in any of the forms in use: seconds, `7.66s`, `2m59.56s`, epoch seconds or ms, RFC 3339, HTTP date."""
    text = text.strip()
    seconds = number(text)
    if seconds is not None:
        if seconds > 1e12:
            return seconds / 1000.0 - now
        return seconds - now if seconds > 1e9 else seconds
    parts = _DURATION.findall(text)
    if parts and not _DURATION.sub("", text).strip():
        return sum(float(value) * _SECONDS[unit] for value, unit in parts)
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = read(text)
        except (ValueError, TypeError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now
    return None


def wait_in_prose_s(text: str) -> float | None:
    """The wait that a sentence states: "try again in 7m12s", "Please wait 5631 seconds"."""
    match = _PROSE_WAIT.search(text)
    if match is None:
        return None
    units = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|millis|[dhms])", match[1].lower())
    return sum(float(value) * _SECONDS["ms" if unit == "millis" else unit] for value, unit in units)


def until_midnight_s(zone: str, now: float) -> float:
    """Seconds until the next midnight in `zone`."""
    here = datetime.fromtimestamp(now, ZoneInfo(zone)).replace(tzinfo=None)
    there = datetime.combine(here.date() + timedelta(days=1), datetime.min.time(), ZoneInfo(zone))
    return there.timestamp() - now


def until_next_month_s(now: float) -> float:
    """Seconds until the first of the next month, UTC."""
    here = datetime.fromtimestamp(now, UTC)
    year, month = (here.year + 1, 1) if here.month == 12 else (here.year, here.month + 1)
    return datetime(year, month, 1, tzinfo=UTC).timestamp() - now


def number(text: str) -> float | None:
    """A number, or None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return None if math.isnan(found) else found
