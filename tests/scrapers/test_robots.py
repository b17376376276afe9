"""What a robots.txt allows, by RFC 9309."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapers.robots import MAX_BYTES, MAX_DELAY_S, Robots, read


def robots(text: str) -> Robots:
    return read(text.encode(), "llmproxy")


@pytest.mark.parametrize(
    ("pattern", "target", "allowed"),
    [
        ("/docs", "/docs/limits", False),
        ("/docs", "/documents", True),
        ("/docs/", "/docs", True),
        ("/*.json", "/v1/models.json?full=1", False),
        ("/*.json$", "/v1/models.json?full=1", True),
        ("/*.json$", "/v1/models.json", False),
        ("/a*b*c$", "/a-b-b-c", False),
        ("/a*b*c$", "/a-c-b", True),
        ("/exact$", "/exact", False),
        ("/exact$", "/exactly", True),
        ("*", "/anything", False),
        ("/?", "/?page=2", False),
        ("/%7Euser", "/~user", False),
        ("/caf%c3%a9", "/caf%C3%A9", False),
        ("/café", "/caf%C3%A9", False),
        ("/a%2Fb", "/a/b", True),
    ],
)
def test_a_pattern_is_a_beginning_with_wildcards(pattern: str, target: str, allowed: bool) -> None:
    """`*` stands for anything, a last `$` for the end, and a percent-encoded character for itself."""
    assert robots(f"User-agent: *\nDisallow: {pattern}").allows(target) is allowed


@pytest.mark.parametrize("order", [("Allow: /\nDisallow: /private"), ("Disallow: /private\nAllow: /")])
def test_the_longest_rule_counts_wherever_it_stands(order: str) -> None:
    """A more exact rule beats a shorter one, before it or after it."""
    rules = robots(f"User-agent: *\n{order}")
    assert not rules.allows("/private/x")
    assert rules.allows("/public")


def test_of_two_equally_long_rules_the_kind_one_counts() -> None:
    """The same path both allowed and not is allowed."""
    assert robots("User-agent: *\nDisallow: /page\nAllow: /page").allows("/page")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("User-agent: *\nDisallow: /\n\nUser-agent: llmproxy\nDisallow:", True),
        ("User-agent: *\nAllow: /\n\nUser-agent: LLMProxy\nDisallow: /", False),
        ("User-agent: llmproxy/2.0 (any)\nDisallow: /", False),
        ("User-agent: proxy\nDisallow: /", True),
        ("User-agent: llmproxy-images\nDisallow: /", True),
        ("User-agent: other\nUser-agent: llmproxy\nDisallow: /", False),
        ("User-agent: llmproxy\nUser-agent: other\nDisallow: /", False),
        ("User-agent: other\n\nUser-agent: llmproxy\nDisallow: /", False),
        ("User-agent: llmproxy\nSitemap: https://a.example/map\nDisallow: /", False),
        ("User-agent: llmproxy\nDisallow: /a\n\nUser-agent: *\nAllow: /\n\nUser-agent: llmproxy\nDisallow: /p", False),
        ("Disallow: /", True),
        ("User-agent: *\nDisallow", True),
        ("user-agent : *\r\ndisallow : / # all of it", False),
        ("\ufeffUser-agent: *\nDisallow: /", False),
        ("<!doctype html><title>Not found: /</title>", True),
        ("", True),
    ],
)
def test_the_own_groups_count_before_those_for_all(text: str, allowed: bool) -> None:
    """Groups are found by the product's whole name in any case and taken together; blank lines and others end none."""
    assert robots(text).allows("/page") is allowed


@pytest.mark.parametrize(
    ("text", "delay_s"),
    [
        ("User-agent: *\nCrawl-delay: 5\nDisallow: /x", 5.0),
        ("User-agent: *\nCrawl-delay: 0.5", 0.5),
        ("User-agent: *\nCrawl-delay: 86400", MAX_DELAY_S),
        ("User-agent: *\nCrawl-delay: -3", 0.0),
        ("User-agent: *\nCrawl-delay: soon", 0.0),
        ("User-agent: *\nCrawl-delay: nan", 0.0),
        ("User-agent: *\nCrawl-delay: 5\n\nUser-agent: llmproxy\nDisallow: /x", 0.0),
    ],
)
def test_a_delay_is_a_number_within_bounds(text: str, delay_s: float) -> None:
    """The delay is that of the groups which count, and never longer than `MAX_DELAY_S`."""
    assert robots(text).delay_s == delay_s


def test_more_than_half_a_mebibyte_is_not_looked_at() -> None:
    """A rule beyond the limit is not there, and one that the limit cuts in two is not taken for a shorter one."""
    head = b"User-agent: *\n"
    padding = b"#" * (MAX_BYTES - len(head) - 20) + b"\n"
    cut = head + padding + b"Disallow: /private-and-long\nDisallow: /later"
    assert len(head + padding + b"Disallow: /priva") > MAX_BYTES - 20
    rules = read(cut, "llmproxy")
    assert rules.allows("/private-and-long")
    assert rules.allows("/later")
    assert not read(head + b"Disallow: /later", "llmproxy").allows("/later")


@given(st.binary(max_size=300), st.text(max_size=40))
def test_any_bytes_are_read(raw: bytes, target: str) -> None:
    """No file makes the reader fail, whatever is in it."""
    assert read(raw, "llmproxy").allows("/" + target) in (True, False)
