"""Shared by the property tests: settings, and ways to cut what comes over a wire into pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Text = TypeVar("Text", bytes, str)

# The same examples in every run, and no time limit for each: the machine may be busy with other tests.
quick = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)

# The fewest bytes that a chunk of a byte stream holds (test_sse.py tells about single bytes).
SMALLEST_BYTES = 1


@st.composite
def cuts(draw: st.DrawFn, data: Text, least: int = 1) -> list[Text]:
    """`data` in pieces of at least `least` characters or bytes each, often very small ones."""
    if draw(st.booleans()):
        sizes = [draw(st.integers(least, least + 3))] * (len(data) // least + 1)
    else:
        sizes = draw(st.lists(st.integers(least, max(least, len(data))), max_size=12))
    return in_pieces(data, sizes, least)


def in_pieces(data: Text, sizes: Sequence[int], least: int = 1) -> list[Text]:
    """`data` cut after each of `sizes`; what is left is one more piece."""
    pieces: list[Text] = []
    rest = data
    for size in sizes:
        if len(rest) - size < least:
            break
        pieces.append(rest[:size])
        rest = rest[size:]
    if rest:
        pieces.append(rest)
    return pieces
