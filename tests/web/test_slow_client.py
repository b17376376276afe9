"""A client that reads slowly holds back the upstream, not the server's memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from aiohttp import web

from tests.fakes.upstream import eventually
from tests.servers import client_of, provider, serving

PIECE = "x" * 2000
MOST_BYTES = 24 * 2**20  # what the socket buffers of two connections may hold, with room to spare
FLOOD_BYTES = 400 * 2**20


class Flood:
    """An upstream that writes as fast as it is read, up to a size that nobody should hold."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.left = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chunk = {"id": "f", "created": 1, "choices": [{"index": 0, "delta": {"content": PIECE}, "finish_reason": None}]}
        event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        try:
            while self.sent_bytes < FLOOD_BYTES:
                await response.write(event)
                self.sent_bytes += len(event)
        except (ConnectionError, asyncio.CancelledError):
            self.left = True
            raise
        return response


@asynccontextmanager
async def flooding() -> AsyncIterator[tuple[Flood, str]]:
    flood, app = Flood(), web.Application()
    app.router.add_post("/v1/chat/completions", flood.answer)
    app.router.add_get("/v1/models", _no_models)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield flood, f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def _no_models(_: web.Request) -> web.Response:
    return web.json_response({"data": []})


async def test_a_slow_client_holds_back_the_upstream(tmp_path: Path) -> None:
    """While the client does not read, the upstream can write no more than sockets hold; when it leaves, so do we."""
    async with flooding() as (flood, url):
        config = {"providers": {"a": provider(url)}, "local": {"models": []}, "server": {"stall_timeout": 0.3}}
        with serving(config, tmp_path, "--no-local") as server:
            process = psutil.Process(server.process.pid)
            async with client_of(server) as client, client.streaming("a/flood") as response:
                assert await response.content.readany()
                before_bytes = process.memory_info().rss
                sent_bytes = -1
                while sent_bytes != flood.sent_bytes:  # until it stands still
                    sent_bytes = flood.sent_bytes
                    await asyncio.sleep(0.5)
                assert 0 < flood.sent_bytes < MOST_BYTES
                assert process.memory_info().rss - before_bytes < MOST_BYTES
                # It is the client that is slow: no stall timeout, and it goes on when the client does.
                read_bytes = 0
                while read_bytes < MOST_BYTES * 2:
                    read_bytes += len(await response.content.readany())
                assert flood.sent_bytes > MOST_BYTES
                response.close()
            assert await eventually(lambda: flood.left, 5.0)
