"""Numbers and units as pages write them: `14.4K`, `30 RPM`, `20 req / min`, `10,000 neurons`. Pure.

Every pattern here reads text whose runs of blanks are single blanks (`_tidy`), so that none of them goes over the same
blanks twice.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from scrapers.base import LIMIT_FIELDS

_SCALE = {"k": 1e3, "m": 1e6, "b": 1e9}
_LARGEST = 1e15
# A comma separates thousands, or nothing: `1,5` is not 15.
_DIGITS = r"(?P<digits>(?:\d{{1,3}}(?:[{separators}]\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)\s?(?P<scale>[kmb](?![a-z]))?"
# A blank separates thousands in a cell of its own, never in prose (`Llama 3 100 requests`).
_CELL = r"\$?" + _DIGITS.format(separators=",_ '’")
_WHOLE = re.compile(rf"[~≈≤<>]?\s?{_CELL}\s?\+?", re.IGNORECASE)
# In prose: not the tail of a longer number, of a version, of a range.
_NUMBER = r"(?<![\w.,$–-])(?<!\d\s)(?!0\d)(?P<sign>\$)?" + _DIGITS.format(separators=",_")
_HARD_BLANK = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_FOOTNOTES = re.compile(r"(?<!\w)\*+|[*†‡§¹²³⁰⁴-⁹]+(?!\w)|\[\^?\w{1,3}\]|\\$|\s?\((?:\d|[a-z])\)$")
_UNIT = {
    "requests": r"(?:api\s)?(?:requests?|reqs?|calls?|queries|prompts|messages)",
    "prompt_tokens": r"(?:input|prompt)[\s-]tokens?",
    "completion_tokens": r"(?:output|completion|generated)[\s-]tokens?",
    "tokens": r"(?:total\s)?(?:tokens?|toks?)",
    "neurons": r"neurons?",
    "credits": r"credits?",
    "audio_seconds": r"audio[\s-]seconds?|seconds?\sof\saudio",
    "images": r"images?",
}
_PERIOD = {
    "second": r"s|secs?|seconds?",
    "minute": r"m|mins?|minutes?",
    "hour": r"h|hrs?|hours?",
    "day": r"d|days?",
    "week": r"w|wks?|weeks?",
    "month": r"mo|mths?|months?",
}
_ADVERBS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month"}
_SHORT = {
    "RPS": "requests_per_second", "RPM": "requests_per_minute", "RPH": "requests_per_hour", "RPD": "requests_per_day",
    "RPW": "requests_per_week", "TPM": "tokens_per_minute", "TPH": "tokens_per_hour", "TPD": "tokens_per_day",
    "ITPM": "prompt_tokens_per_minute", "OTPM": "completion_tokens_per_minute", "IPM": "images_per_minute",
    "IPD": "images_per_day", "ASH": "audio_seconds_per_hour", "ASD": "audio_seconds_per_day",
}  # fmt: skip
# Blanks around a word: `20 requests as of today` is no rate for a second.
_SEPARATOR = r"(?:\s?/\s?|\s(?:per|an?|each|every)[\s-])(?:1\s)?"
_UNITS = "|".join(f"(?P<u_{name}>{words})" for name, words in _UNIT.items())
_PERIODS = "|".join(f"(?P<p_{name}>{words})" for name, words in _PERIOD.items())
_RATE = re.compile(rf"{_NUMBER}\s?(?:(?:{_UNITS})\b)?{_SEPARATOR}(?:{_PERIODS})\b", re.IGNORECASE)
_ADVERB = re.compile(rf"{_NUMBER}\s(?P<adverb>{'|'.join(_ADVERBS)})\s(?:{_UNITS})\b", re.IGNORECASE)
_ABBREVIATED = re.compile(rf"{_NUMBER}\s?(?P<short>{'|'.join(_SHORT)})\b", re.IGNORECASE)
_HEADER = re.compile(rf"\b(?:{_UNITS}){_SEPARATOR}(?:{_PERIODS})\b", re.IGNORECASE)


def without_footnotes(text: str) -> str:
    """`text` without the marks of footnotes that are no part of a word (`*`, `†`, `¹`, `[1]`)."""
    return _FOOTNOTES.sub("", _tidy(text).strip("`")).strip()


def number(text: str) -> float | None:
    """The number that a cell consists of (`14.4K` is 14400); None when it holds anything else, or nothing.

    A dash, `N/A`, `---` or `unlimited` is no number.
    """
    # A line end between two numbers is no separator of thousands.
    match = _WHOLE.fullmatch(without_footnotes(text)) if "\n" not in text.strip() else None
    return _amount(match) if match else None


def column(header: str) -> str | None:
    """The limit that the head of a column names: `RPM`, `Requests per day (RPD)`, `TPM (input)`; None for others.

    None also where it names several (`RPM / RPD`), or a rate that is no limit here (`Speed (tokens/s)`).
    """
    text = without_footnotes(header)
    words = [word.upper() for word in re.findall(r"[A-Za-z]+", text) if word.isupper() or len(text) <= 5]
    names = {_sided(_SHORT[word], text) for word in words if word in _SHORT}
    if not names:
        names = {name for match in _HEADER.finditer(text) if (name := _name(match)) is not None}
    return _limit(names.pop()) if len(names) == 1 else None


def columns(header: Sequence[str]) -> dict[int, str]:
    """The limits that a table holds, by the index of their column; what two columns claim to be is in neither."""
    named = {index: name for index, text in enumerate(header) if (name := column(text)) is not None}
    often = Counter(named.values())
    return {index: name for index, name in named.items() if often[name] == 1}


def told(names: Mapping[int, str], row: Sequence[str]) -> dict[str, float]:
    """What the cells of a row say, under the `columns` of its table; a dash says nothing."""
    return {name: value for index, name in names.items() if (value := number(row[index])) is not None}


def rates(text: str, *, unit: str | None = None) -> dict[str, float]:
    """Every limit in a piece of prose, by the name of its field: `20 requests/minute, 10K tokens a day`.

    A dollar amount for a period is `usd_per_…`. What has no unit (`5 per minute`) counts `unit`, or is left out. Of
    two amounts for one limit the first counts.
    """
    tidy = _tidy(_HARD_BLANK.sub(",", text))
    found: dict[str, float] = {}
    for pattern in (_RATE, _ADVERB, _ABBREVIATED):
        for match in pattern.finditer(tidy):
            name, amount = _limit(_name(match, unit)), _amount(match)
            if name is not None and amount is not None:
                found.setdefault(name, amount)
    return found


def _tidy(text: str) -> str:
    return " ".join(text.split())


def _amount(match: re.Match[str]) -> float | None:
    value = float(re.sub(r"[^\d.]", "", match["digits"])) * _SCALE.get((match["scale"] or "").lower(), 1)
    return round(value, 6) if math.isfinite(value) and value <= _LARGEST else None


def _limit(name: str | None) -> str | None:
    return name if name in LIMIT_FIELDS else None


def _sided(name: str, header: str) -> str:
    """`name` for the side, input or output, that a header restricts it to."""
    sides = [side for word, side in (("input", "prompt_"), ("output", "completion_")) if word in header.lower()]
    return sides[0] + name if name.startswith("tokens_") and len(sides) == 1 else name


def _name(match: re.Match[str], unit: str | None = None) -> str | None:
    groups = match.groupdict()
    if groups.get("short"):
        return _SHORT[groups["short"].upper()]
    named = next((name for name in _UNIT if groups.get(f"u_{name}")), unit)
    if groups.get("sign"):
        named = "usd"
    period = next((name for name in _PERIOD if groups.get(f"p_{name}")), None)
    return f"{named}_per_{period or _ADVERBS[groups['adverb'].lower()]}" if named else None
