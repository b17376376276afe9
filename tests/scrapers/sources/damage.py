"""Pages that end too soon, and the same pages in other encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from scrapers.base import NotUnderstood

T = TypeVar("T")


def of_cut_pages(read: Callable[[bytes], T], page: bytes, step_bytes: int = 7) -> Iterator[T]:
    """What is read of `page` when it ends early, at every so many bytes; where it is not understood, nothing."""
    for end in range(0, len(page), step_bytes):
        try:
            found = read(page[:end])
        except NotUnderstood:
            continue
        yield found


def encoded_otherwise(page: bytes) -> tuple[bytes, ...]:
    """The text of `page` in UTF-16 with a mark, behind a mark of UTF-8, and with Windows' line ends."""
    text = page.decode()
    return text.encode("utf-16"), b"\xef\xbb\xbf" + page, text.replace("\n", "\r\n").encode()
