"""The messages between the server and a worker process: length-prefixed frames over a socket pair."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

_HEAD = struct.Struct("!IIB")
_LIMIT_BYTES = 256 * 1024 * 1024


class Kind(IntEnum):
    """Downwards: CALL, CANCEL. Upwards: READY, FAILED, FIGURES and MEMORY (of the model), DATA, DONE and ERROR (of
    a call)."""

    CALL = 1
    CANCEL = 2
    READY = 3
    FAILED = 4
    DATA = 5
    DONE = 6
    ERROR = 7
    FIGURES = 8
    MEMORY = 9


class Frame(NamedTuple):
    """One message; `call` counts from 1, 0 for messages about the model itself."""

    kind: Kind
    call: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    return _HEAD.pack(len(frame.payload), frame.call, frame.kind) + frame.payload


async def receive(reader: asyncio.StreamReader) -> Frame:
    """The next frame; raises `EOFError` when the other side is gone."""
    try:
        size, call, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        return Frame(Kind(kind), call, await reader.readexactly(size) if size else b"")
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        raise EOFError("the worker closed its end") from error


def receive_blocking(sock: socket.socket) -> Frame:
    """The next frame, for the thread of a worker that does nothing but wait for it."""
    size, call, kind = _HEAD.unpack(_exactly(sock, _HEAD.size))
    return Frame(Kind(kind), call, _exactly(sock, size) if size else b"")


def _exactly(sock: socket.socket, size: int) -> bytes:
    if size > _LIMIT_BYTES:
        raise EOFError(f"a frame of {size} bytes")
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            raise EOFError("the server closed its end")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
