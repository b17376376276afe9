"""What a page says in sentences, and the days that it names."""

from __future__ import annotations

import pytest

from scrapers.prose import day_in, end_of, prose


def test_markdown_on_one_line() -> None:
    """Emphasis, links and lines make no difference to what is said; front matter is left out."""
    raw = b"---\ntitle: x\n---\n# Limits\n\n- Requests per minute (**RPM**)\n- a *free\n  tier*, see [here](https://a.b).\n"
    assert prose(raw) == "Limits Requests per minute (RPM) a free tier, see here."


def test_html_without_its_scripts() -> None:
    """Scripts, styles and templates are not read."""
    raw = (
        b"<!doctype html><html><head><title>t</title><style>a{}</style></head><body><script>GitHub Models was retired"
        b"</script><template>x</template><noscript>y</noscript><p>One<b>two</b></p><svg><text>z</text></svg></body></html>"
    )
    assert prose(raw) == "One two"


@pytest.mark.parametrize("raw", [b"", b"\0\0", b"<html></html>", "ä".encode("utf-16")])
def test_little_or_nothing(raw: bytes) -> None:
    """A page with no words has none."""
    assert len(prose(raw)) <= 2


def test_a_deep_page() -> None:
    """Nesting deeper than Python's own calls is no trouble."""
    assert prose(b"<html><body>" + b"<div>" * 4_000 + b"word") == "word"


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("retired on July 30, 2026.", "2026-07-30"),
        ("on 30 July 2026", "2026-07-30"),
        ("since 2026-07-30T10:00", "2026-07-30"),
        ("May 1st, 2027 or later", "2027-05-01"),
        ("September 2025", ""),
        ("February 31, 2026, then March 1, 2026", "2026-03-01"),
        ("2026-13-45", ""),
        ("no day at all 2026", ""),
    ],
)
def test_days(text: str, day: str) -> None:
    """The first whole date counts, however it is written."""
    assert day_in(text) == day


@pytest.mark.parametrize(
    ("text", "unix_s"),
    [
        ("July 30, 2026", 1_785_456_000),
        ("2026-07-30", 1_785_456_000),
        ("September 2025", 1_759_276_800),
        ("December 2025", 1_767_225_600),
        ("soon", None),
        ("", None),
    ],
)
def test_ends(text: str, unix_s: float | None) -> None:
    """A day is over at midnight in UTC, a month with its last day."""
    assert end_of(text) == unix_s
