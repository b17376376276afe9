"""The two threads of a worker process that move messages, so that the one which runs the model never waits for them."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import orjson

from backends.frames import Frame, Kind, encode, receive_blocking
from llmproxy.core.types import JsonObject

_UNSENT_LIMIT_BYTES = 64 * 1024 * 1024


def leave() -> None:
    """End the process: there is nobody to work for, and the other thread may be deep in a matrix product."""
    os._exit(0)


class Letter(NamedTuple):
    """One request; `cancel` is set when nobody waits for the answer any more. It came at `came_s` (monotonic)."""

    call: int
    request: JsonObject
    cancel: threading.Event
    came_s: float = 0.0


class Mailbox:
    """Requests that came; filled by a listening thread, which calls `gone` when the server is gone."""

    def __init__(self, sock: socket.socket, gone: Callable[[], None] = leave) -> None:
        self._sock, self._gone = sock, gone
        self._letters: queue.SimpleQueue[Letter] = queue.SimpleQueue()
        self._cancels: dict[int, threading.Event] = {}
        threading.Thread(target=self._listen, name="listener", daemon=True).start()

    def take(self, *, wait: bool) -> list[Letter]:
        """All that came since the last time; at least one when it may `wait`."""
        letters = [self._letters.get()] if wait else []
        while not self._letters.empty():
            letters.append(self._letters.get())
        return letters

    def ended(self, call: int) -> None:
        """Nothing more will be asked about `call`."""
        self._cancels.pop(call, None)

    def _listen(self) -> None:
        try:
            while True:
                frame = receive_blocking(self._sock)
                if frame.kind is Kind.CALL:
                    cancel = self._cancels[frame.call] = threading.Event()
                    self._letters.put(Letter(frame.call, orjson.loads(frame.payload), cancel, time.monotonic()))
                elif frame.kind is Kind.CANCEL and (known := self._cancels.get(frame.call)) is not None:
                    known.set()
        except (EOFError, OSError):
            self._gone()


class Outbox:
    """Frames to be sent; a thread does it, however slowly the server reads, and calls `gone` when it is gone."""

    def __init__(self, sock: socket.socket, gone: Callable[[], None] = leave) -> None:
        self._sock, self._gone = sock, gone
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._send, name="sender", daemon=True).start()

    def put(self, frames: Iterable[Frame]) -> None:
        """Send `frames` soon, in this order. Waits only while 64 MiB lie unread: then the server is stuck."""
        encoded = b"".join(map(encode, frames))
        if not encoded:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._unsent_bytes < _UNSENT_LIMIT_BYTES)
            self._unsent.append(encoded)
            self._unsent_bytes += len(encoded)
            self._changed.notify_all()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent)
                data, self._unsent = b"".join(self._unsent), []
            try:
                self._sock.sendall(data)
            except OSError:
                self._gone()
                return
            with self._changed:
                self._unsent_bytes -= len(data)
                self._changed.notify_all()
