"""The upstream that enforces limits counts rightly, and says no in words that the product reads."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llmproxy.core.errors import Refused
from llmproxy.dialects.refusals import refusal
from tests.fakes.limited import DAY_S, HOUSES, MINUTE_S, Asked, Quota

NOW = 1_800_000_030.0  # half a minute past
ASKED = Asked(1, 1, 1)


@pytest.mark.parametrize(
    ("how", "used", "wait_s"),
    [
        ("rolling", {0: 4, 29: 4, 31: 4, 59: 4, 60: 2, 90: 0}, 60),
        ("clock", {0: 4, 29: 4, 31: 0, 59: 0, 60: 0, 90: 0}, 30),
        ("bucket", {0: 4, 15: 3, 30: 2, 45: 1, 60: 0, 90: 0}, 15),
        ("running", {0: 4, 60: 4, 90: 4}, 0),
    ],
)
def test_windows(how: Any, used: dict[float, float], wait_s: float) -> None:
    """Four of four were used, two of them at once and two (but in a bucket) a second later."""
    later = 0 if how in ("bucket", "clock") else 0.5
    quota = Quota("requests", 4, MINUTE_S, how, uses=[[NOW, 2], [NOW + later, 2]])
    assert {after: round(quota.used(NOW + after), 6) for after in used} == used
    if how != "running":
        assert quota.wait_s(1, NOW + later) == pytest.approx(wait_s - later)


def test_a_day_of_the_clock_ends_at_its_own_midnight() -> None:
    """07:59 UTC is still yesterday in California."""
    quota = Quota("requests", 4, DAY_S, "clock", "America/Los_Angeles", [[1_799_999_000.0, 4]])  # 07:43 UTC
    assert quota.used(1_799_999_940.0) == 4
    assert quota.used(1_800_000_060.0) == 0


@pytest.mark.parametrize("house", HOUSES)
def test_each_refusal_is_understood(house: str) -> None:
    """As one of a limit, whoever says it."""
    seconds = DAY_S if house == "cloudflare-workers" else MINUTE_S
    quota = Quota("requests", 1, seconds, uses=[[NOW, 1]])
    said = HOUSES[house].refuse(quota, [quota], ASKED, NOW)
    found = refusal(said.status, said.headers, orjson.dumps(said.body), now=NOW)
    assert isinstance(found, Refused)
    assert found.kind == "rate_limit"
