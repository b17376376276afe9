"""Messages between the server and a worker arrive as they were sent, in any chunking."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.frames import Frame, Kind, encode, receive, receive_blocking
from tests.core.properties import cuts, quick

frames = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=40))


@quick
@given(st.data(), st.lists(frames, max_size=5))
def test_frames_arrive(data: st.DataObject, sent: list[Frame]) -> None:
    """Frames come back one by one, however the stream is cut; then the other side is gone."""
    pieces = data.draw(cuts(b"".join(map(encode, sent))))

    async def read() -> list[Frame]:
        reader = asyncio.StreamReader()
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        found = [await receive(reader) for _ in sent]
        with pytest.raises(EOFError):
            await receive(reader)
        return found

    assert asyncio.run(read()) == sent


def test_a_thread_receives_the_same() -> None:
    """The worker's side reads the same frames, large ones too, and sees the end."""
    sent = [Frame(Kind.CALL, 1, b"{}"), Frame(Kind.CANCEL, 2**32 - 1), Frame(Kind.DATA, 7, b"x" * 3_000_000)]
    ours, theirs = socket.socketpair()

    def write() -> None:
        for frame in sent:
            theirs.sendall(encode(frame))
        theirs.close()

    writer = threading.Thread(target=write)
    writer.start()
    with ours:
        assert [receive_blocking(ours) for _ in sent] == sent
        with pytest.raises(EOFError):
            receive_blocking(ours)
    writer.join()


@pytest.mark.parametrize("cut", [1, 8, 9, 12])
async def test_half_a_frame(cut: int) -> None:
    """A frame that breaks off is the end of the other side."""
    reader = asyncio.StreamReader()
    reader.feed_data(encode(Frame(Kind.DATA, 1, b"12345"))[:cut])
    reader.feed_eof()
    with pytest.raises(EOFError):
        await receive(reader)


def test_an_enormous_frame_is_refused() -> None:
    """A length that no message has is not waited for."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("!IIB", 2**32 - 1, 1, Kind.DATA))
        with pytest.raises(EOFError, match="4294967295"):
            receive_blocking(ours)


async def test_an_unknown_kind() -> None:
    """A frame of a kind that does not exist means that the other side is not to be talked to any more."""
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack("!IIB", 0, 1, 99))
    with pytest.raises(EOFError):
        await receive(reader)
