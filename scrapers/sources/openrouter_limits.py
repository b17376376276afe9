"""OpenRouter: how many requests an account may send to all of its free models together.

The page of limits writes its numbers as constants. The Markdown form of it, and the file that its sources import, give
their values; the rendered page gives the numbers themselves, in a table or, formerly, in sentences.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from scrapers import amounts, pages, tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, limits
from scrapers.prose import prose

PROVIDER = "openrouter"
_FREE = "*:free"
_CONSTANT = re.compile(r"^export const (FREE_MODEL_[A-Z_]{1,40}) = (\d{1,9}) ?;?[ \t]*$", re.MULTILINE)
_MINUTE = re.compile(r":free\b[^.]{0,80}up to ([\d,]{1,9}) requests per minute\b", re.IGNORECASE)
_FEW = re.compile(
    r"\bless than \$?(\d{1,6})(?: in)? credits[^.]{0,60}limited to ([\d,]{1,9})[^.]{0,40}requests per day\b",
    re.IGNORECASE,
)
_MANY = re.compile(
    r"\bat least \$?\d{1,6}(?: in)? credits[^.]{0,80}increased to ([\d,]{1,9})[^.]{0,40}requests per day\b",
    re.IGNORECASE,
)
_LONGEST = 100


class _Told(NamedTuple):
    """Requests a minute; requests a day before and (0: not told) after so many credits were bought."""

    minute: float
    day: float
    credits: float = 0
    day_after: float = 0


def parse(raw: bytes) -> list[Evidence]:
    """The limits before any credits were bought; what comes after is in the note."""
    told = _constants(pages.decoded(raw)) or _table(raw) or _sentences(prose(raw))
    if told is None:
        raise NotUnderstood(
            "neither the constants FREE_MODEL_RATE_LIMIT_RPM and FREE_MODEL_NO_CREDITS_RPD, nor a table or sentences "
            "with requests per minute and per day by credits bought"
        )
    note = f"{told.day_after:,.0f} a day after {told.credits:,.0f} credits were bought" if told.day_after else ""
    # The day of the free requests is the one in UTC, as everything that the service counts by day.
    per: dict[str, Value] = {"requests_per_minute": told.minute, "requests_per_day": told.day, "reset": "UTC"}
    return [Evidence(PROVIDER, _FREE, "free", "quota"), *limits(PROVIDER, _FREE, per, shared=True, note=note)]


def _constants(text: str) -> _Told | None:
    found = {name: float(digits) for name, digits in _CONSTANT.findall(text)}
    minute, day = found.get("FREE_MODEL_RATE_LIMIT_RPM", 0), found.get("FREE_MODEL_NO_CREDITS_RPD", 0)
    if not minute or not day:
        return None
    threshold, after = found.get("FREE_MODEL_CREDITS_THRESHOLD", 0), found.get("FREE_MODEL_HAS_CREDITS_RPD", 0)
    return _Told(minute, day, threshold, after if threshold else 0)


def _table(raw: bytes) -> _Told | None:
    """A table with a row for less and one for more credits: `Less than 10`, `At least 10`."""
    for table in tables.tables(raw):
        fields = {amounts.column(title[:_LONGEST]): place for place, title in enumerate(table.header)}
        if "credits" not in table.header[0].casefold() or not {"requests_per_minute", "requests_per_day"} <= set(
            fields
        ):
            continue
        rows = {
            row[0][:_LONGEST].casefold(): [amounts.number(cell[:_LONGEST]) or 0 for cell in row] for row in table.body
        }
        few = next((row for name, row in rows.items() if name.startswith(("less than", "<"))), None)
        many = next((row for name, row in rows.items() if name.startswith(("at least", "≥", ">="))), None)
        minute, day = fields["requests_per_minute"], fields["requests_per_day"]
        if few is not None and few[minute] and few[day]:
            name = next(name for name, row in rows.items() if row is few)
            threshold = amounts.number(name.removeprefix("less than").removeprefix("<").replace("$", "")) or 0
            return _Told(few[minute], few[day], threshold, many[day] if many is not None and threshold else 0)
    return None


def _sentences(text: str) -> _Told | None:
    minute, few, many = _MINUTE.search(text), _FEW.search(text), _MANY.search(text)
    if minute is None or few is None:
        return None
    per_minute, per_day = amounts.number(minute[1]), amounts.number(few[2])
    if not per_minute or not per_day:
        return None
    return _Told(per_minute, per_day, float(few[1]), (amounts.number(many[1]) or 0) if many is not None else 0)


SOURCE = Source(
    name="openrouter_limits",
    url="https://openrouter.ai/docs/api-reference/limits.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
