"""What a refusal says of the provider's limits: which one, for how long, or that it is no limit at all. Pure.

Each provider says no in its own way (Groq in prose, Google in `QuotaFailure`, Cohere in a sentence, Z.ai in codes). The
forms here were recorded or documented; `now` is a Unix time in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmproxy.core.errors import RefusalKind
from llmproxy.core.types import Reading, Unit
from llmproxy.dialects.ratelimits import read_headers
from llmproxy.dialects.waits import PERIODS_S, parse_wait_s, until_midnight_s, until_next_month_s

_DAY_S, _MINUTE_S = 86_400.0, 60.0


@dataclass(frozen=True, slots=True)
class News:
    """What a refusal teaches: its kind where the status alone misleads, a wait, and readings of limits."""

    kind: RefusalKind | None = None
    wait_s: float | None = None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """The parts of a refusal that tell something; `words` is code and type, `text` the message."""

    status: int
    headers: Mapping[str, str]
    text: str
    code: str
    type: str
    param: str
    details: Mapping[str, Any]
    now: float


def read(refusal: Refusal) -> News:
    """The news of the first form that fits; headers add their readings to every one."""
    found = next((news for form in _FORMS if (news := form(refusal)) is not None), News())
    told = read_headers(refusal.headers, now=refusal.now) if refusal.headers else ()
    if any(reading.limit == 0 for reading in told) and refusal.status == 429:
        return News("forbidden", None, ())  # a limit of nothing is not used up: there never was one
    return News(found.kind, found.wait_s, found.readings + told)


# -- the forms ----------------------------------------------------------------------------------------------------

_GROQ = re.compile(
    r"on (?P<unit>requests|tokens|input tokens|output tokens|seconds of audio)? ?per (?P<period>minute|hour|day)"
    r"[^:]*: Limit (?P<limit>\d+)(?:, Used (?P<used>\d+))?(?:, Requested ~?(?P<asked>\d+))?",
    re.IGNORECASE,
)
_GROQ_UNITS: dict[str, Unit] = {
    "requests": "requests", "tokens": "tokens", "input tokens": "prompt_tokens", "output tokens": "completion_tokens",
    "seconds of audio": "audio_seconds",
}  # fmt: skip


def _groq(refusal: Refusal) -> News | None:
    match = _GROQ.search(refusal.text)
    if match is None:
        return None
    unit = _GROQ_UNITS[(match["unit"] or "requests").lower()]
    limit, asked = float(match["limit"]), float(match["asked"] or 0)
    if refusal.status == 413 or asked > limit:
        return News("too_large", None, (Reading(unit, None, limit, kind="request"),))
    used = float(match["used"]) if match["used"] else limit
    seconds = PERIODS_S[match["period"].lower()]
    return News("rate_limit", None, (Reading(unit, seconds, limit, max(0.0, limit - used)),))


def _google(refusal: Refusal) -> News | None:
    details = refusal.details.get("details")
    entries = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
    delay = next((entry["retryDelay"] for entry in entries if isinstance(entry.get("retryDelay"), str)), None)
    violations = [one for entry in entries for one in entry.get("violations") or () if isinstance(one, dict)]
    if refusal.status != 429 or not (violations or "Quota exceeded for metric" in refusal.text):
        return None
    readings: list[Reading] = []
    wait_s = parse_wait_s(delay, now=0.0) if delay else None
    for one in violations or [{}]:
        quota = str(one.get("quotaId", ""))
        stated = str(one.get("quotaValue", "")) or (re.findall(r"limit: (\d+)", refusal.text) or [""])[0]
        limit = float(stated) if stated.isdecimal() else None
        if limit == 0:
            return News("forbidden")
        words = f"{quota} {one.get('quotaMetric', '')} {refusal.text}"
        unit: Unit = "prompt_tokens" if "token" in words.lower() else "requests"
        if "PerDay" in quota:
            # Its retryDelay is that of another window (seconds); the day ends at midnight Pacific.
            until_s = until_midnight_s("America/Los_Angeles", refusal.now)
            wait_s = max(wait_s or 0.0, until_s)
            readings.append(Reading(unit, _DAY_S, limit, 0.0, until_s))
        elif "PerMinute" in quota:
            readings.append(Reading(unit, _MINUTE_S, limit, 0.0, wait_s))
    return News("rate_limit", wait_s, tuple(readings))


def _cerebras(refusal: Refusal) -> News | None:
    if refusal.code == "queue_exceeded" or refusal.param == "queue":
        return News("server")
    if refusal.code not in ("request_quota_exceeded", "token_quota_exceeded"):
        return None
    period = re.search(r"per (second|minute|hour|day)", refusal.text.lower())
    unit: Unit = "requests" if refusal.code.startswith("request") else "tokens"
    if period is None:
        return News("rate_limit")
    return News("rate_limit", None, (Reading(unit, PERIODS_S[period[1]], None, 0.0, _stated(refusal)),))


def _openrouter(refusal: Refusal) -> News | None:
    match = re.search(r"free-models-per-(day|min)", refusal.text)
    if match is None:
        return None
    metadata = refusal.details.get("metadata")
    inner = metadata.get("headers") if isinstance(metadata, dict) else None
    told = {key.lower(): str(value) for key, value in inner.items()} if isinstance(inner, dict) else {}
    limit = told.get("x-ratelimit-limit", "")
    reset_s = parse_wait_s(told["x-ratelimit-reset"], now=refusal.now) if "x-ratelimit-reset" in told else None
    if reset_s is None or reset_s <= 0:
        reset_s = until_midnight_s("UTC", refusal.now) if match[1] == "day" else _MINUTE_S
    seconds = _DAY_S if match[1] == "day" else _MINUTE_S
    amount = float(limit) if limit.isdecimal() else None
    return News("rate_limit", reset_s, (Reading("requests", seconds, amount, 0.0, reset_s),))


def _github(refusal: Refusal) -> News | None:
    sort = refusal.headers.get("x-ratelimit-type", "")
    match = re.search(r"Rate limit of (\d+) per (\d+)s exceeded(?: for (\w+))?", refusal.text)
    sort = sort or (match[3] if match and match[3] else "")
    if "Concurrent" in sort:
        amount = float(match[1]) if match else None
        return News("rate_limit", 1.0, (Reading("requests", None, amount, kind="concurrent"),) if amount else ())
    if match is None:
        return None
    unit: Unit = "tokens" if "Token" in sort else "requests"
    return News("rate_limit", None, (Reading(unit, float(match[2]), float(match[1]), 0.0, _stated(refusal)),))


def _mistral(refusal: Refusal) -> News | None:
    if refusal.status != 429 or not (refusal.type == "rate_limited" or refusal.text == "Requests rate limit exceeded"):
        return None
    return News("rate_limit", _MINUTE_S - refusal.now % _MINUTE_S)


def _cohere(refusal: Refusal) -> News | None:
    match = re.search(r"limited to (\d+) API calls / (minute|month)", refusal.text)
    if match is None:
        return None
    seconds, limit = PERIODS_S[match[2]], float(match[1])
    if match[2] == "minute":
        # The minute rolls: when the first call may be made is known only to who knows when the others were.
        return News("rate_limit", None, (Reading("requests", seconds, limit, 0.0),))
    wait_s = until_next_month_s(refusal.now)
    return News("rate_limit", wait_s, (Reading("requests", seconds, limit, 0.0, wait_s),))


def _cloudflare(refusal: Refusal) -> News | None:
    if refusal.code == "3040":
        return News("server")
    if refusal.code not in ("3036", "4006"):
        return None
    wait_s = until_midnight_s("UTC", refusal.now)
    return News("rate_limit", wait_s, (Reading("neurons", _DAY_S, None, 0.0, wait_s),))


def _hugging_face(refusal: Refusal) -> News | None:
    if refusal.status != 402 or "monthly included credits" not in refusal.text:
        return None
    return News("credit", until_next_month_s(refusal.now))


_ZAI: dict[str, News] = {
    "1302": News("rate_limit", 1.0),  # too many at the same time
    "1303": News("rate_limit", 5.0),
    "1305": News("server"),  # overloaded
    "1308": News("rate_limit", 3_600.0),  # the allocation is used up
    "1310": News("rate_limit", _DAY_S),
    "1309": News("credit"),  # the plan has expired
    "1314": News("credit"),
    "1113": News("credit"),
    "1311": News("forbidden"),  # not in the plan
    "1313": News("rate_limit", 3_600.0),  # fair use
    "1214": News("not_found"),
}


def _zai(refusal: Refusal) -> News | None:
    return _ZAI.get(refusal.code)


def _nvidia(refusal: Refusal) -> News | None:
    """It says nothing but that it is too much; its one limit is of a minute."""
    if refusal.status != 429 or refusal.text != "Too Many Requests" or refusal.details.get("status") != 429:
        return None
    return News("rate_limit", _MINUTE_S, (Reading("requests", _MINUTE_S, None, 0.0),))


def _overloaded(refusal: Refusal) -> News | None:
    """A 429 that says that the servers are busy is nobody's quota."""
    if refusal.status == 429 and re.search(
        r"overloaded|capacity|dynamic_request_limited", f"{refusal.text} {refusal.type}"
    ):
        return News("server")
    return None


def _in_words(refusal: Refusal) -> News | None:
    """Any other sentence that names a unit and a window."""
    match = re.search(r"(requests?|tokens?)[ -]per[ -](second|minute|hour|day|month)", refusal.text, re.IGNORECASE)
    if refusal.status != 429 or match is None:
        return None
    unit: Unit = "tokens" if match[1].lower().startswith("token") else "requests"
    return News("rate_limit", None, (Reading(unit, PERIODS_S[match[2].lower()], None, 0.0, _stated(refusal)),))


def _stated(refusal: Refusal) -> float | None:
    text = refusal.headers.get("retry-after") or refusal.headers.get("x-ratelimit-timeremaining")
    return parse_wait_s(text, now=refusal.now) if text else None


_FORMS: tuple[Callable[[Refusal], News | None], ...] = (
    _groq, _google, _cerebras, _openrouter, _github, _cohere, _cloudflare, _hugging_face, _zai, _mistral, _nvidia,
    _overloaded, _in_words,
)  # fmt: skip
