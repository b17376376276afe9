"""One request as the upstream saw it, and the performance of its planned reply on the real connection."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web

from tests.fakes.plan import Close, Hang, Pause, Reply, Step

COMMENT_EVERY_S = 0.02


@dataclass(slots=True)
class Request:
    """One request as it arrived; `disconnected` turns true when the client leaves before the answer's end."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes = b""
    json: Any = None
    fields: dict[str, str] = field(default_factory=dict)
    file: dict[str, Any] = field(default_factory=dict)
    time_s: float = field(default_factory=time.monotonic)
    disconnected: bool = False
    finished: bool = False

    @property
    def model(self) -> str | None:
        """The model asked for, in the JSON body or in a form field."""
        source = self.json if isinstance(self.json, dict) else self.fields
        return source.get("model")

    @property
    def key(self) -> str:
        """The bearer token, or an empty string."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    async def read(self, request: web.Request) -> None:
        """Read the body: form fields and one file, else bytes and JSON when they are JSON."""
        if request.content_type.startswith("multipart/"):
            await self._read_form(request)
            return
        self.body = await request.read()
        try:
            self.json = json.loads(self.body)
        except ValueError:
            self.json = None

    async def _read_form(self, request: web.Request) -> None:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            data = bytes(await part.read())
            name, content_type = part.name or "", part.headers.get("Content-Type")
            if part.filename:
                self.file = {
                    "name": part.filename,
                    "size_bytes": len(data),
                    "content_type": content_type,
                    "field": name,
                }
            else:
                self.fields[name] = data.decode()


def arrived(request: web.Request) -> Request:
    """The record of a request whose body is still unread."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, request.path, request.query_string, headers)


class Exchange:
    """Performs one reply; `stopping` ends every wait without an end."""

    def __init__(self, request: web.Request, record: Request, stopping: asyncio.Event) -> None:
        self._request = request
        self._record = record
        self._stopping = stopping
        self._response: web.StreamResponse | None = None

    async def perform(self, reply: Reply, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send the reply, and note when the client leaves before its end."""
        response = web.StreamResponse(status=reply.status, headers=headers)
        if reply.length_bytes is None:
            response.enable_chunked_encoding()
        else:
            response.content_length = reply.length_bytes
        try:
            await self._send(reply, response)
        except (ConnectionError, asyncio.CancelledError) as error:
            self._record.disconnected = not self._record.finished and not self._stopping.is_set()
            if isinstance(error, asyncio.CancelledError):
                raise
        return response

    async def _send(self, reply: Reply, response: web.StreamResponse) -> None:
        for step in reply.before:
            await self._take(step)
        if self._record.finished:
            return
        await response.prepare(self._request)
        self._response = response
        for step in reply.steps:
            await self._take(step)
        if not self._record.finished:
            await response.write_eof()
            self._record.finished = True

    async def _take(self, step: Step) -> None:
        match step:
            case bytes():
                await self._write(step)
            case Pause(delay_s):
                await asyncio.sleep(delay_s)
            case Hang(comment):
                await self._hang(comment)
                self._close(reset=True)
            case Close(reset):
                self._close(reset)

    async def _write(self, data: bytes) -> None:
        if self._response is None:
            self._transport().write(data)
            return
        await self._response.write(data)
        await asyncio.sleep(0)  # so that each write can be a read of its own

    async def _hang(self, comment: bytes) -> None:
        while comment and not self._stopping.is_set():
            await self._write(comment)
            await asyncio.sleep(COMMENT_EVERY_S)
        await self._stopping.wait()

    def _close(self, reset: bool) -> None:
        self._record.finished = True
        transport = self._transport()
        if reset:
            linger_on, linger_s = 1, 0
            option = struct.pack("ii", linger_on, linger_s)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            transport.abort()
        else:
            transport.close()

    def _transport(self) -> asyncio.Transport:
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        return transport
