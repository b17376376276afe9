"""Hugging Face: the monthly credit of free users, and nothing of its other pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapers.base import NotUnderstood
from scrapers.sources.huggingface import SOURCE

RAW = (Path(__file__).parents[2] / "data/scrape/huggingface/pricing.md").read_bytes()


def told(raw: bytes) -> set[tuple[str, str, str, object, bool]]:
    return {(c.provider, c.model, c.field, c.value, c.shared) for c in SOURCE.read(raw, seen_at_s=0)}


WHOLE = {
    ("huggingface", "*", "free", "budget", False),
    ("huggingface", "*", "limit.usd_per_month", 0.35, True),
}


def test_free_users() -> None:
    """Free users have their credit for all models together, and the page's reservation is noted."""
    assert told(RAW) == WHOLE
    assert {c.note for c in SOURCE.read(RAW, seen_at_s=0)} == {"", "subject to change"}


def test_another_order_of_columns() -> None:
    """The column of monthly credits is found by its head, in HTML as well."""
    raw = (
        b"<!doctype html><html><body><table><thead><tr><th>Account Type</th><th>Extra usage</th><th>Monthly<br>Credits"
        b"</th></tr></thead><tbody><tr><td>Free Users</td><td>$9.00</td><td><b>$0.35</b></td></tr></tbody></table>"
    )
    assert told(raw) == WHOLE


def test_a_truncated_page() -> None:
    """Cut before the amount the page is not understood, and cut after the row it tells the same."""
    row_end = RAW.index(b"|\n", RAW.index(b"$0.35")) + 1
    for end in range(0, RAW.index(b"$0.35"), 7):
        with pytest.raises(NotUnderstood):
            told(RAW[:end])
    for end in range(row_end, len(RAW), 7):
        assert told(RAW[:end]) == WHOLE


@pytest.mark.parametrize(
    "raw",
    [
        b"| Plan | API | Resolvers |\n|---|---|---|\n| Free user | 1,000 \\* | 5,000 \\* |\n",
        b"| Account Type | Monthly Credits |\n|---|---|\n| PRO Users | $2.00 |\n",
        b"| Account Type | Monthly Credits |\n|---|---|\n| Free Users | none |\n",
        b"| Account Type | Monthly Credits |\n|---|---|\n| Free Users | $0.00 |\n",
    ],
)
def test_other_tables(raw: bytes) -> None:
    """Rates of the Hub, credits of paying users, and rows without an amount say nothing."""
    with pytest.raises(NotUnderstood):
        told(raw)
