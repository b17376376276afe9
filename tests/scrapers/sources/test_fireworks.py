"""Fireworks: the request limit of an account without a payment method, which nobody calls free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.fireworks import SOURCE

RAW = (Path(__file__).parents[2] / "data/scrape/fireworks/quotas.md").read_bytes()


def told(raw: bytes) -> dict[tuple[str, str, bool], Any]:
    return {(claim.model, claim.field, claim.shared): claim.value for claim in SOURCE.read(raw, seen_at_s=0)}


WHOLE = {("*", "limit.requests_per_minute", True): 12}


def test_the_page() -> None:
    """All models share the limit of an unpaid account; the page says nothing of a free tier."""
    assert told(RAW) == WHOLE


def test_another_order_and_html() -> None:
    """The row is found by its state, the column by its head."""
    assert (
        told(
            b"<!doctype html><html><body><table><thead><tr><th>Account state</th><th>Support</th><th>Request-rate limit"
            b"</th></tr></thead><tbody><tr><td>No payment method</td><td>99 RPM</td><td>12 RPM</td></tr></tbody>"
        )
        == WHOLE
    )


def test_cells_that_are_glued_together() -> None:
    """A page saved as text is read where it is clear."""
    assert told(b"Account stateRequest-rate limit\nNo payment method12 RPM\nPayment method on file6,100 RPM\n") == WHOLE


@pytest.mark.parametrize(
    "raw",
    [
        RAW.replace(b"No payment method", b"Trial"),
        b"All accounts start with limits of 3.6 million Total Prompt TPM and 36,000 Generated TPM.\n",
        b"| Account state | Request-rate limit |\n|---|---|\n| Payment method on file | 6,000 RPM |\n",
        b"Since there is no payment method 12 RPM is all you get\n",
    ],
)
def test_limits_of_paying_accounts(raw: bytes) -> None:
    """What holds for every account, or for those that pay, is not read."""
    with pytest.raises(NotUnderstood):
        told(raw)


def test_a_truncated_page() -> None:
    """Cut between two lines, the page tells the same or nothing."""
    lines = RAW.splitlines(keepends=True)
    for end in range(len(lines)):
        with pytest.raises(NotUnderstood):
            told(b"".join(lines[:end]))
