"""Times to wait: whatever way a provider writes one, the same number of seconds is read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.ratelimits import read_headers
from llmproxy.dialects.waits import parse_wait_s, wait_in_prose_s
from tests.core.properties import quick

NOW = 1_795_000_000.0
waits_ms = st.integers(0, 40 * 86_400_000) | st.integers(0, 5_000)


def go(wait_ms: int) -> str:
    """As Go prints a duration: `1h30m0s`, `2m59.56s`, `370ms`, `0s`."""
    if 0 < wait_ms < 1000:
        return f"{wait_ms}ms"
    minutes, rest_ms = divmod(wait_ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def terse(wait_ms: int) -> str:
    """Only the parts that are not nothing: `1d2h`, `4h17m`, `5s250ms`."""
    parts = []
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, wait_ms = divmod(wait_ms, length_ms)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def moment(wait_ms: int) -> datetime:
    return datetime.fromtimestamp(NOW, UTC) + timedelta(milliseconds=wait_ms)


def whole(wait_ms: int) -> float:
    """The same in whole seconds, for forms that have no others."""
    return wait_ms // 1000 * 1000


FORMS: dict[str, tuple[Callable[[int], str], bool]] = {
    "a Go duration": (go, True),
    "parts of a duration": (terse, True),
    "seconds": (lambda ms: f"{ms / 1000:.3f}", True),
    "whole seconds": (lambda ms: str(ms // 1000), False),
    "a protobuf duration": (lambda ms: f"{ms / 1000:.9f}s", True),
    "epoch seconds": (lambda ms: str(int(NOW) + ms // 1000), False),
    "epoch milliseconds": (lambda ms: str(int(NOW) * 1000 + ms), True),
    "RFC 3339": (lambda ms: moment(ms).isoformat().replace("+00:00", "Z"), True),
    "RFC 3339 with an offset": (lambda ms: moment(ms).astimezone(timezone(timedelta(hours=-9.5))).isoformat(), True),
    "an HTTP date": (lambda ms: formatdate(NOW + ms // 1000, usegmt=True), False),
}


@pytest.mark.parametrize("form", FORMS)
@quick
@given(waits_ms, st.sampled_from(["", " "]))
def test_every_form_of_every_wait_is_read(form: str, wait_ms: int, space: str) -> None:
    """From nothing to 40 days, to the millisecond where the form has them."""
    write, exact = FORMS[form]
    expected_s = (wait_ms if exact else whole(wait_ms)) / 1000
    assert parse_wait_s(space + write(wait_ms) + space, now=NOW) == pytest.approx(expected_s, abs=2e-3)


SENTENCES = (
    "Rate limit reached: Limit 30, Used 30, Requested 1. Please try again in {}. Need more tokens?",
    "Quota exceeded for metric: requests, limit: 5\nPlease retry in {}.",
    "Rate limit exceeded. Retry after {}",
)


@pytest.mark.parametrize("sentence", SENTENCES)
@pytest.mark.parametrize("write", [go, terse, lambda ms: f"{ms / 1000:.3f} seconds", lambda ms: f"{ms / 1000:.9f}s"])
@quick
@given(waits_ms)
def test_a_wait_is_found_in_a_sentence(write: Callable[[int], str], sentence: str, wait_ms: int) -> None:
    """Other numbers of the sentence are not taken for it."""
    found = wait_in_prose_s(sentence.format(write(wait_ms)))
    assert found == pytest.approx(wait_ms / 1000, abs=2e-3)


@pytest.mark.parametrize("form", FORMS)
@quick
@given(waits_ms, st.integers(1, 10**8), st.integers(0, 10**8), st.sampled_from([str.lower, str.upper, str.title]))
def test_a_reset_is_read_in_every_form(
    form: str, wait_ms: int, limit: int, left: int, case: Callable[[str], str]
) -> None:
    """In headers of any case, with the limit and what is left as they are; two windows of a unit both survive."""
    write, exact = FORMS[form]
    headers = {
        "x-ratelimit-limit-requests-day": str(limit), "x-ratelimit-remaining-requests-day": str(left),
        "x-ratelimit-reset-requests-day": write(wait_ms), "x-ratelimit-limit-requests-minute": "7",
        "x-ratelimit-limit-bananas": "1",
    }  # fmt: skip
    found = read_headers({case(name): text for name, text in headers.items()}, now=NOW)
    assert [(one.seconds, one.limit, one.remaining) for one in found] == [(86_400.0, limit, left), (60.0, 7, None)]
    assert found[0].reset_s == pytest.approx((wait_ms if exact else whole(wait_ms)) / 1000, abs=2e-3)
