"""Numbers and units are read as pages write them, and nothing is read that is not there."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrapers import amounts
from scrapers.base import LIMIT_FIELDS

UNITS = {
    "requests": ["requests", "req", "API calls", "queries"],
    "tokens": ["tokens", "total tokens"],
    "neurons": ["neurons"],
}
PERIODS = {"minute": ["minute", "min"], "day": ["day", "d"], "month": ["month", "mo"]}
SEPARATORS = [" per ", " a ", " / ", "/", " every "]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("30", 30),
        ("1,000", 1000),
        ("14.4K", 14400),
        ("1.2k", 1200),
        ("1M", 1_000_000),
        ("1.5 M", 1_500_000),
        ("2B", 2_000_000_000),
        ("10 000", 10_000),
        ("10\u00a0000", 10_000),
        ("10\u202f000", 10_000),
        ("1_000_000", 1_000_000),
        ("1'000", 1000),
        (".5", 0.5),
        ("$0.10", 0.1),
        ("~30", 30),
        ("≈ 30", 30),
        ("100+", 100),
        ("**30**", 30),
        ("`30`", 30),
        ("30*", 30),
        ("30¹", 30),
        ("30 [1]", 30),
        ("30 [^a]", 30),
        ("30 (2)", 30),
        ("  30  ", 30),
        ("0", 0),
    ],
)
def test_a_cell_that_is_a_number(cell: str, value: float) -> None:
    """K, M and B scale it; separators, currencies, marks of footnotes and signs around it are no part of it."""
    assert amounts.number(cell) == value


@pytest.mark.parametrize(
    "cell",
    [
        "",
        " ",
        "-",
        "\\-",
        "—",
        "---",
        "N/A",
        "Not applicable",
        "unlimited",
        "30 RPM",
        "20 req / min",
        "10 / 250,000 / 500",
        "1,5",
        "1,0000",
        "10,00,000",
        "1.2.3",
        "2*3",
        "2m59.56s",
        "30%",
        "K",
        "1KM",
        "1e5",
        "-5",
        "9" * 400,
        "30\n600",
    ],
)
def test_a_cell_that_is_none(cell: str) -> None:
    """A dash, a phrase, a rate, two numbers or something that could be read in two ways is no number."""
    assert amounts.number(cell) is None


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("RPM", "requests_per_minute"),
        ("rpm", "requests_per_minute"),
        ("**RPD**", "requests_per_day"),
        ("TPM", "tokens_per_minute"),
        ("TPM (input)", "prompt_tokens_per_minute"),
        ("Input TPD", "prompt_tokens_per_day"),
        ("Output TPM", "completion_tokens_per_minute"),
        ("TPM (input + output)", "tokens_per_minute"),
        ("Uncached TPM", "tokens_per_minute"),
        ("ITPM", "prompt_tokens_per_minute"),
        ("ASH", "audio_seconds_per_hour"),
        ("ASD¹", "audio_seconds_per_day"),
        ("Requests per day (RPD)", "requests_per_day"),
        ("Requests/Min (RPM)", "requests_per_minute"),
        ("Requests per minute", "requests_per_minute"),
        ("Max. input tokens per minute", "prompt_tokens_per_minute"),
        ("Neurons per day", "neurons_per_day"),
    ],
)
def test_a_header_that_names_a_limit(header: str, name: str) -> None:
    """By its abbreviation or in words, with its side where it has one."""
    assert amounts.column(header) == name


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Model",
        "Model ID",
        "RPM / RPD",
        "Speed (tokens/s)",
        "RATE LIMITS (DEVELOPER PLAN)",
        "Parameters",
        "Price per 1M tokens",
        "Arpm",
    ],
)
def test_a_header_that_names_none(header: str) -> None:
    """No limit, several of them, or a rate that is none of the limits here."""
    assert amounts.column(header) is None


def test_a_limit_with_two_columns_is_in_neither() -> None:
    """Which of two columns for one limit holds it cannot be known."""
    assert amounts.columns(["Model", "TPM", "RPM", "TPM (total)"]) == {2: "requests_per_minute"}
    assert amounts.told({1: "requests_per_minute", 2: "tokens_per_day"}, ["anvil", "30", "-"]) == {
        "requests_per_minute": 30
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20 req / min", {"requests_per_minute": 20}),
        ("20 requests/minute and 10K tokens a day", {"requests_per_minute": 20, "tokens_per_day": 10_000}),
        ("limited to 1,000 API calls a month.", {"requests_per_month": 1000}),
        ("10,000 neurons per day", {"neurons_per_day": 10_000}),
        ("10\u00a0000 neurons per day", {"neurons_per_day": 10_000}),
        ("10,000 daily neurons", {"neurons_per_day": 10_000}),
        ("$0.10 / month", {"usd_per_month": 0.1}),
        ("30 RPM, 14,400 RPD", {"requests_per_minute": 30, "requests_per_day": 14_400}),
        ("6K TPM", {"tokens_per_minute": 6000}),
        ("20 requests per 1 minute", {"requests_per_minute": 20}),
        ("250,000 input tokens/min", {"prompt_tokens_per_minute": 250_000}),
        ("5 requests per minute, later 9 requests per minute", {"requests_per_minute": 5}),
    ],
)
def test_rates_in_prose(text: str, found: dict[str, float]) -> None:
    """Each amount with its unit and its period, the first one for each limit."""
    assert amounts.rates(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "20 per minute",
        "2,000 inputs / min",
        "20 requests as of today",
        "in 2024, requests per minute were fewer",
        "Llama 3 100 requests per day",
        "10 000 requests per day",
        "20-30 requests per minute",
        "20–30 requests per minute",
        "1,5000 requests per day",
        "v2.5 requests per minute",
        "250KTPM1K RPM",
        "1 request every 2 seconds",
        "450 tokens/s",
        "per day",
    ],
)
def test_no_rate_is_made_up(text: str) -> None:
    """What has no unit, no period, or a number that could be another is left out."""
    assert amounts.rates(text) == {}


def test_a_rate_without_unit_counts_what_the_caller_says() -> None:
    """`20/min` in a column of requests is a number of requests; a unit of its own comes first."""
    assert amounts.rates("20/min", unit="requests") == {"requests_per_minute": 20}
    assert amounts.rates("20 tokens/min", unit="requests") == {"tokens_per_minute": 20}
    assert amounts.rates("2,000 inputs / min", unit="requests") == {}


def test_footnotes_are_taken_off_words_not_out_of_them() -> None:
    """A mark at the end of a word is none of its letters; one inside is."""
    assert amounts.without_footnotes("anvil-3¹ ") == "anvil-3"
    assert amounts.without_footnotes("`anvil*`") == "anvil"
    assert amounts.without_footnotes("anvil [2]") == "anvil"
    assert amounts.without_footnotes("a*b") == "a*b"


@given(st.integers(0, 10**12))
def test_any_number_with_separators_is_itself(value: int) -> None:
    """However a whole number is grouped, and whatever marks follow it."""
    for text in (f"{value}", f"{value:,}", f"{value:_}", f" {value:,}* ", f"**{value:,}**"):
        assert amounts.number(text) == value


@given(st.integers(1, 9999), st.sampled_from(["K", "k", "M", "B"]))
def test_any_scaled_number_is_its_product(tenths: int, scale: str) -> None:
    """`14.4K` is 14,400, for any number of tenths and any scale."""
    factor = {"k": 1e3, "m": 1e6, "b": 1e9}[scale.lower()]
    assert amounts.number(f"{tenths / 10}{scale}") == pytest.approx(tenths / 10 * factor)


@given(
    st.integers(1, 10**7),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(sorted(PERIODS)),
    st.sampled_from(SEPARATORS),
    st.data(),
)
def test_any_rate_that_is_written_is_read(
    value: int, unit: str, period: str, separator: str, data: st.DataObject
) -> None:
    """A number, a unit and a period are found in a sentence, whichever words stand for them."""
    words = (
        f"{value:,} {data.draw(st.sampled_from(UNITS[unit]))}{separator}{data.draw(st.sampled_from(PERIODS[period]))}"
    )
    name = f"{unit}_per_{period}"
    assert amounts.rates(f"You may make up to {words}, at most.") == ({name: value} if name in LIMIT_FIELDS else {})


@given(st.text(max_size=200))
def test_no_text_is_an_error(text: str) -> None:
    """Whatever stands in a cell, a number is finite and not negative, and a limit has a name that exists."""
    value = amounts.number(text)
    assert value is None or (math.isfinite(value) and value >= 0)
    assert amounts.column(text) is None or amounts.column(text) in LIMIT_FIELDS
    assert set(amounts.rates(text)) <= LIMIT_FIELDS


@settings(max_examples=20, deadline=None)
@given(st.text(alphabet="1 ,.$/k\tm*[(¹perquests", min_size=1, max_size=12))
def test_long_texts_take_no_longer_than_their_length(part: str) -> None:
    """Text made to be read again and again is read once: 100,000 characters in less than two seconds."""
    text = (part * 100_000)[:100_000]
    began = time.perf_counter()
    amounts.number(text)
    amounts.column(text)
    amounts.rates(text)
    assert time.perf_counter() - began < 2
