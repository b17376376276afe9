"""A scripted server of one wire format in its own thread and loop; requests are kept as they arrived."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any, Self

from aiohttp import web

from tests.fakes.exchange import Request, arrived

BODY_LIMIT_BYTES = 64 * 2**20
SHUTDOWN_S = 0.2


class ThreadedServer:
    """A server under `root` on a free port of 127.0.0.1: `with AnthropicThread() as up: ... up.url`."""

    root = "/v1"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._runner: web.AppRunner | None = None

    def routes(self) -> Iterable[web.RouteDef]:
        """What it answers; each handler begins with `await self.arrived(request)`."""
        raise NotImplementedError

    async def arrived(self, request: web.Request) -> Request:
        """Read a request and keep it."""
        record = arrived(request)
        self.requests.append(record)
        await record.read(request)
        return record

    def last(self, model: str) -> Request:
        """The newest request for a model."""
        return next(request for request in reversed(self.requests) if request.model == model)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._runner is not None
        self._run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{self.root}"

    def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def streamed(
    request: web.Request, events: Iterable[bytes], headers: Mapping[str, str], *, breaks: bool
) -> web.StreamResponse:
    """Server-sent events, each in a write of its own; `breaks` closes the connection where the end would be."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8", **headers})
    await response.prepare(request)
    for event in events:
        await response.write(event)
        await asyncio.sleep(0)
    return await ended(request, response, breaks=breaks)


async def half(request: web.Request, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Half of a body whose whole length was announced, and then nothing more."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    return await ended(request, response, breaks=True)


async def ended(request: web.Request, response: web.StreamResponse, *, breaks: bool) -> web.StreamResponse:
    """The response's end, or that of the connection."""
    if not breaks:
        await response.write_eof()
    elif request.transport is not None:
        request.transport.close()
    return response
