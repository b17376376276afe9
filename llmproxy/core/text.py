"""Text that comes in pieces."""

from __future__ import annotations


def overlap(text: str, tag: str) -> int:
    """The length of the longest end of `text` that begins `tag` and is not all of it: what to hold back for now."""
    return next((size for size in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-size:])), 0)
