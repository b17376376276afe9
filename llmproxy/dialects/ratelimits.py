"""Rate-limit headers → readings: the spellings of all providers that send any.

Sources: the documentation of each provider, and headers that were recorded. A header without a window (Groq's
`x-ratelimit-limit-requests` counts days, its `-tokens` minutes, OpenAI's both minutes) has the one that `windows`
gives; without it the reading says none, and whoever knows the provider's limits finds the one that is meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from llmproxy.core.types import Reading, Unit
from llmproxy.dialects.waits import PERIODS_S, number, parse_wait_s

_UNITS: dict[str, Unit] = {
    "requests": "requests",
    "req": "requests",
    "tokens": "tokens",
    "tokens-prompt": "prompt_tokens",
    "tokens-generated": "completion_tokens",
    "input-tokens": "prompt_tokens",
    "output-tokens": "completion_tokens",
    "neurons": "neurons",
    "audio-seconds": "audio_seconds",
}
_NAMES = "|".join(sorted(_UNITS, key=len, reverse=True))
_PLAIN = re.compile(
    rf"x-ratelimit-(?P<what>limit|remaining|reset)(?:-(?P<unit>{_NAMES}))?(?:-(?P<period>{'|'.join(PERIODS_S)}))?"
)
_ANTHROPIC = re.compile(rf"anthropic-ratelimit-(?P<unit>{_NAMES})-(?P<what>limit|remaining|reset)")
_OTHERS: dict[str, tuple[str, Unit, float]] = {
    "x-trial-endpoint-call-limit": ("limit", "requests", 60.0),
    "x-trial-endpoint-call-remaining": ("remaining", "requests", 60.0),
    "x-endpoint-monthly-call-limit": ("limit", "requests", PERIODS_S["month"]),
}
_POLICY = re.compile(r"q=(\d+).*?w=(\d+)")
_STATE = re.compile(r"r=(\d+).*?t=(\d+)")

# A limit of a thousand million means that there is none.
_NO_LIMIT = 1e9


def read_headers(
    headers: Mapping[str, str], *, now: float, windows: Mapping[str, float] | None = None
) -> tuple[Reading, ...]:
    """The readings of a reply's headers (any case); `windows` is unit → seconds where the names do not tell."""
    named = [(name, text) for raw, text in headers.items() if "ratelimit" in (name := raw.lower()) or "-call-" in name]
    if not named:
        return ()
    found: dict[tuple[Unit, float | None], dict[str, float]] = {}
    for name, text in named:
        if name in _OTHERS:
            what, unit, seconds = _OTHERS[name]
            if (value := number(text)) is not None:
                found.setdefault((unit, seconds), {})[what] = value
            continue
        match = _PLAIN.fullmatch(name) or _ANTHROPIC.fullmatch(name)
        if match is None:
            continue
        unit = _UNITS[match["unit"] or "requests"]
        period = match.groupdict().get("period")
        key = unit, PERIODS_S[period] if period else (windows or {}).get(unit)
        value = parse_wait_s(text, now=now) if match["what"] == "reset" else number(text)
        if value is not None:
            found.setdefault(key, {})[match["what"]] = value
    readings = [
        Reading(unit, seconds, values.get("limit"), values.get("remaining"), values.get("reset"))
        for (unit, seconds), values in found.items()
        if values.get("limit", 0.0) < _NO_LIMIT and ("limit" in values or "remaining" in values)
    ]
    return (*readings, *_ietf(dict(named)))


def _ietf(values: Mapping[str, str]) -> tuple[Reading, ...]:
    """`RateLimit` and `RateLimit-Policy` of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers."""
    policy, state = _POLICY.search(values.get("ratelimit-policy", "")), _STATE.search(values.get("ratelimit", ""))
    if policy is None:
        return ()
    remaining, reset_s = (float(state[1]), float(state[2])) if state else (None, None)
    return (Reading("requests", float(policy[2]), float(policy[1]), remaining, reset_s),)


def read_quota(body: object) -> tuple[Reading, ...]:
    """The free calls of a day, by OpenRouter's `GET /key` (https://openrouter.ai/docs/api-reference/limits)."""
    data = body.get("data") if isinstance(body, dict) else None
    daily = data.get("free_model_daily_requests") if isinstance(data, dict) else None
    if not isinstance(daily, dict):
        return ()
    limit, remaining = (number(str(daily.get(name, ""))) for name in ("limit", "remaining"))
    if limit is None or remaining is None or limit < 0:
        return ()
    return (Reading("requests", PERIODS_S["day"], limit, max(0.0, remaining)),)
