"""Server-sent events come out the same whatever the chunks they came in."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.core import sse
from llmproxy.core.errors import BadReply
from tests.core.properties import SMALLEST_BYTES, cuts, quick

LINES = [
    b"data: a",
    b"data:b",
    b"data: \xf0\x9f\x90\xa6 \xc3\xa9",
    b"data",
    b'data: {"x": 1}',
    b": note",
    b"event: error",
]
ENDS = [b"\n", b"\r\n", b"\r"]
streams = st.lists(st.sampled_from([*LINES, *ENDS, *ENDS, *ENDS]), max_size=30).map(b"".join)


def by_the_book(raw: bytes) -> list[tuple[bytes, bytes]]:
    """(event name, data) of each event, line by line as the HTML standard has it; the unfinished last one counts."""
    events: list[tuple[bytes, bytes]] = []
    data: list[bytes] = []
    name = b""
    for line in [*re.split(rb"\r\n|\n|\r", raw), b""]:
        if line:
            key, _, value = line.partition(b":")
            if key == b"data":
                data.append(value.removeprefix(b" "))
            elif key == b"event":
                name = value.removeprefix(b" ")
            continue
        if data:
            events.append((name, b"\n".join(data)))
        data, name = [], b""
    return events


def read(pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    """What the splitter and `split` make of the pieces."""
    splitter = sse.Splitter()
    found = [event for piece in pieces for event in sse.split(splitter.feed(piece))]
    found += sse.split(splitter.rest)
    return [(event.event, event.data) for event in found if event.data is not None]


@quick
@given(st.data(), streams)
@example(None, b"data: a\r\n\r\ndata: b\r\n\r\n")
@example(None, b"data: a\r\r\ndata: b\n\r\n")
def test_chunking_changes_nothing(data: st.DataObject | None, raw: bytes) -> None:
    """Any chunking of any mix of line ends gives the events that a reader of the whole finds, line by line."""
    pieces = data.draw(cuts(raw, SMALLEST_BYTES)) if data else [raw[: len(raw) // 2 + 1], raw[len(raw) // 2 + 1 :]]
    assert read(pieces) == by_the_book(raw)


@pytest.mark.parametrize("end", ENDS)
def test_single_bytes_are_put_together(end: bytes) -> None:
    """A stream that comes byte by byte reads like the whole."""
    raw = b"data: one" + end + end + b"data: two" + end + end
    assert read([raw[place : place + 1] for place in range(len(raw))]) == [(b"", b"one"), (b"", b"two")]


@pytest.mark.parametrize("place", range(1, 12))
def test_a_crlf_may_be_cut(place: int) -> None:
    """A chunk border between \\r and \\n neither ends an event early nor makes an empty one."""
    raw = b"data: a\r\n\r\ndata: b\r\n\r\n"
    assert read([raw[: 1 + place], raw[1 + place :]]) == [(b"", b"a"), (b"", b"b")]


def test_a_character_may_be_cut() -> None:
    """A UTF-8 character that is spread over two chunks arrives whole."""
    raw = "data: 🐦\n\n".encode()
    assert read([raw[:8], raw[8:]]) == [(b"", "🐦".encode())]


@quick
@given(st.data(), st.lists(st.sampled_from([b"data: a\n\n", b": c\n\n", b"data: b\r\n\r\n"]), max_size=8))
def test_feed_loses_and_adds_nothing(data: st.DataObject, events: list[bytes]) -> None:
    """What `feed` returned and what it still holds is what came in, byte for byte."""
    raw = b"".join(events)
    splitter = sse.Splitter()
    out = b"".join(map(splitter.feed, data.draw(cuts(raw, SMALLEST_BYTES))))
    assert out + splitter.rest == raw


@pytest.mark.parametrize("size", [101, 1000])
def test_an_endless_event_is_refused(size: int) -> None:
    """An event that grows over the limit raises; whole events of any size do not."""
    splitter = sse.Splitter(limit_bytes=100)
    assert splitter.feed(b"data: " + b"x" * 2 * size + b"\n\n")
    with pytest.raises(BadReply, match="100 bytes") as caught:
        splitter.feed(b"data: " + b"x" * size)
    assert caught.value.outcome == "event_too_large"


@pytest.mark.parametrize(
    ("block", "data", "name"),
    [
        (b"data: {}", b"{}", b""),
        (b"data:{}", b"{}", b""),
        (b"data:  two spaces", b" two spaces", b""),
        (b"data: one\ndata: two", b"one\ntwo", b""),
        (b"event: error\ndata: x", b"x", b"error"),
        (b"data: x\r\nevent:ping", b"x", b"ping"),
        (b"id: 7\nretry: 10\ndata: x", b"x", b""),
        (b": a comment", None, b""),
        (b"event: ping", None, b"ping"),
        (b"data", b"", b""),
    ],
)
def test_fields_of_an_event(block: bytes, data: bytes | None, name: bytes) -> None:
    """`data` lines are joined, one leading space is dropped, and all but `data` and `event` is passed over."""
    assert sse.parse_event(block) == sse.Event(data, name)


@pytest.mark.parametrize(("data", "name"), [(b"{}", ""), (b'{"a":1}', "message_start"), ("é".encode(), "x")])
def test_what_is_written_is_read_back(data: bytes, name: str) -> None:
    """An event survives being written and read; a comment is read as nothing."""
    written = sse.event(data, name) + sse.comment("alive") + sse.DONE
    first, last = sse.split(written)
    assert (first.data, first.event, first.done) == (data, name.encode(), False)
    assert last.done
