"""The running text of a page, and dates in it, for what a page says in sentences instead of tables. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from scrapers.pages import tree

_UNREAD = ["script", "style", "template", "noscript", "svg"]
_BEFORE_STOP = re.compile(r" +([.,;!?)\]])")
_AFTER_OPENING = re.compile(r"([(\[]) +")
_MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]  # fmt: skip
_MONTH = "|".join(_MONTHS)
_DAY = re.compile(
    rf"(?P<year>20\d\d)-(?P<number>\d\d)-(?P<day>\d\d)"
    rf"|(?P<month>{_MONTH})\s+(?:(?P<day_after>\d{{1,2}})(?:st|nd|rd|th)?,?\s+)?(?P<year_after>20\d\d)"
    rf"|(?P<day_before>\d{{1,2}})\s+(?P<month_between>{_MONTH})\s+(?P<year_last>20\d\d)",
    re.IGNORECASE,
)


def prose(raw: bytes) -> str:
    """The text of an HTML or Markdown page on one line, without its scripts and styles; raises `TooLarge`."""
    page = tree(raw)
    page.strip_tags(_UNREAD, recursive=True)
    if page.body is None:
        return ""
    text = " ".join(page.body.text(separator=" ").split())
    return _AFTER_OPENING.sub(r"\1", _BEFORE_STOP.sub(r"\1", text))


def day_in(text: str) -> str:
    """The first date in `text` as ISO 8601 (`July 30, 2026` is `2026-07-30`); empty where there is none."""
    for match in _DAY.finditer(text):
        if match["year"]:
            year, month, day = int(match["year"]), int(match["number"]), int(match["day"])
        else:
            year = int(match["year_after"] or match["year_last"])
            month = 1 + _MONTHS.index((match["month"] or match["month_between"]).lower())
            day = int(match["day_after"] or match["day_before"] or 0)
        if day and (found := _moment(year, month, day)) is not None:
            return found.date().isoformat()
    return ""


def end_of(text: str) -> float | None:
    """Unix time at which the first day or month that `text` names has passed in UTC (`September 2025`: 1 October)."""
    match = _DAY.search(text)
    if match is None:
        return None
    day = day_in(match[0])
    if day:
        return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() + 86400
    if not match["month"]:
        return None
    year, month = int(match["year_after"]), 1 + _MONTHS.index(match["month"].lower())
    following = _moment(year + month // 12, month % 12 + 1, 1)
    return following.timestamp() if following is not None else None


def _moment(year: int, month: int, day: int) -> datetime | None:
    try:
        return datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
