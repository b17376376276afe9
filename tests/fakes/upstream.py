"""A scripted OpenAI-compatible upstream over real HTTP, with faults chosen by the model name (see `script.py`).

In an event loop: `async with Upstream() as up: ... up.url`. In a sync test: `with UpstreamThread() as up: ... up.url`.
As a process: `python -m tests.fakes.upstream --port 0`, which prints its URL first and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal, Self

from aiohttp import web

from tests.fakes import plan, replies
from tests.fakes.exchange import Exchange, Request, arrived
from tests.fakes.plan import ChunkBytes, Reply, Wire
from tests.fakes.script import Script, parse

DEFAULT_MODELS = ("ok", "acme/ok-large", "ok+tokens=200", "embed")
ENDPOINTS = {"/v1/chat/completions": "chat", "/v1/completions": "text", "/v1/embeddings": "embeddings"}
UPLOADS = ("/v1/audio/transcriptions", "/v1/audio/translations")
BODY_LIMIT_BYTES = 64 * 2**20
SHUTDOWN_S = 0.2

Shape = Literal["data", "array", "models"]
Headers = Mapping[str, str] | Callable[[Request], Mapping[str, str]]


class Upstream:
    """The upstream on the running loop.

    `models` are listed by `GET /v1/models` in `models_shape`, unless `models_fault` ("hang", "html", a status or any
    other name of `script.py`) is set. `headers` are added to each answer. Streams are split at events or every
    `chunk_bytes` bytes, with `delay_s` seconds between chunks. `scripts` and `keys` may be changed at any time: they
    say what a model, or any request with a bearer token, gets instead of what the model's name says.
    """

    def __init__(
        self,
        models: Iterable[str | dict[str, Any]] = DEFAULT_MODELS,
        *,
        models_shape: Shape = "data",
        models_fault: str | None = None,
        chunk_bytes: ChunkBytes = "event",
        headers: Headers | None = None,
        delay_s: float = 0.0,
        crlf: bool = False,
        json_spaces: bool = False,
        port: int = 0,
    ) -> None:
        self.models = list(models)
        self.models_shape = models_shape
        self.models_fault = models_fault
        self.headers = headers or {}
        self.wire = Wire(chunk_bytes, crlf, json_spaces, delay_s)
        self.scripts: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.requests: list[Request] = []
        self.url = ""
        self._port = port
        self._attempts: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_route("*", "/v1/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()

    def count(self, model: str | None = None) -> int:
        """How many requests asked for the model, or for any model."""
        return sum(request.model == model if model else request.model is not None for request in self.requests)

    def reset(self) -> None:
        """Forget the requests and the attempts that `once-` and `flap` count."""
        self.requests.clear()
        self._attempts.clear()

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        record = await self._record(request)
        return await self._send(request, record, self._models_reply())

    def _models_reply(self) -> Reply:
        faults = {"": "ok", "hang": "silence", "html": "html-200"}
        fault = self.models_fault or ""
        name = f"status-{fault}" if fault.isdigit() else faults.get(fault, fault)
        listing = replies.model_list(self.models, self.models_shape)
        return plan.plan("models", {}, parse(name), self.wire, listing)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        record = await self._record(request)
        endpoint = ENDPOINTS.get(record.path, "") if record.method == "POST" else ""
        whole = replies.transcription(record.fields, record.file) if record.path in UPLOADS else _echo(record)
        body = record.json if isinstance(record.json, dict) else {}
        script = self._script_of(record)
        if record.path.endswith("/rerank"):
            whole = replies.rerank(body, script)
        reply = plan.plan(endpoint, body, script, self.wire, whole)
        return await self._send(request, record, reply)

    def _script_of(self, record: Request) -> Script:
        model = record.model or "ok"
        self._attempts[model] += 1
        text = self.keys.get(record.key) or self.scripts.get(model, model)
        return parse(text).on_attempt(self._attempts[model])

    async def _record(self, request: web.Request) -> Request:
        record = arrived(request)
        self.requests.append(record)
        await record.read(request)
        return record

    async def _send(self, request: web.Request, record: Request, reply: Reply) -> web.StreamResponse:
        extra = self.headers(record) if callable(self.headers) else self.headers
        headers = {"x-request-id": f"req-{len(self.requests)}", **reply.headers, **extra}
        return await Exchange(request, record, self._stopping).perform(reply, headers)


class UpstreamThread:
    """The upstream in its own thread and loop, for tests without one; takes the arguments of `Upstream`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.upstream = Upstream(*args, **kwargs)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self.upstream.__aenter__())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self.upstream.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The base URL, ending in /v1."""
        return self.upstream.url

    @property
    def requests(self) -> list[Request]:
        """Every request so far."""
        return self.upstream.requests

    def count(self, model: str | None = None) -> int:
        """How many requests asked for the model, or for any model."""
        return self.upstream.count(model)

    def reset(self) -> None:
        """Forget the requests and the attempts."""
        self.upstream.reset()

    def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


async def eventually(holds: Callable[[], bool], timeout_s: float = 1.0) -> bool:
    """Wait until the predicate holds; False when it does not within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - any predicate, so no event to wait for
        await asyncio.sleep(0.005)
    return holds()


def _echo(record: Request) -> dict[str, Any]:
    return {
        "method": record.method,
        "path": record.path,
        "query": record.query,
        "content_type": record.headers.get("content-type"),
        "body_bytes": len(record.body),
        "fields": record.fields,
        "file": record.file,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.upstream", description=Upstream.__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--models", default=",".join(DEFAULT_MODELS), help="comma-separated names for GET /v1/models")
    parser.add_argument("--chunk-bytes", type=int, default=0, help="split streams every so many bytes; 0: at events")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds between chunks")
    parser.add_argument("--crlf", action="store_true")
    parser.add_argument("--json-spaces", action="store_true")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    upstream = Upstream(
        options.models.split(","),
        chunk_bytes=options.chunk_bytes or "event",
        delay_s=options.delay,
        crlf=options.crlf,
        json_spaces=options.json_spaces,
        port=options.port,
    )
    async with upstream:
        print(upstream.url, flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(_options()))
