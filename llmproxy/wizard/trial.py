"""A real call through a configuration: the whole application on a free port of loopback, asked over HTTP."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from backends.catalogue import Catalogue
from backends.weights import WeightsMissing, resolve
from llmproxy.app import RUNTIME, build_app
from llmproxy.core.config import Config, Scrape
from llmproxy.core.errors import LlmproxyError, ProxyError
from llmproxy.core.types import JsonObject

PROMPT = "Say ok."
_TOKENS = 64
_LISTS_S = 10.0


class Answer(NamedTuple):
    """What was said, by whom, and after how long, loading included."""

    text: str
    model: str
    seconds: float


def answer(config: Config, path: Path, model: str, prompt: str = PROMPT) -> Answer:
    """Ask `model` once; counts nothing and keeps nothing. Raises `LlmproxyError` with what the server said."""
    return asyncio.run(_answer(config, path, model, prompt))


def local_name(entry: str, known: Catalogue) -> str:
    """What a model of `local.models` is called by clients; raises `LlmproxyError` where it is not here."""
    try:
        return f"local/{resolve(entry, known).name}"
    except WeightsMissing as error:
        raise LlmproxyError(str(error)) from error


async def _answer(config: Config, path: Path, model: str, prompt: str) -> Answer:
    app = build_app(_alone(config), path=path)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    started = time.perf_counter()
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        if not model.startswith("local/"):
            await _wait_for_lists(app)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/chat/completions"
        return _read(*await _post(url, model, prompt), time.perf_counter() - started)
    finally:
        await runner.cleanup()


def _alone(config: Config) -> Config:
    """The configuration on loopback, where no key is needed, with time to load a model, and nothing on the side."""
    server, load_s = config.server, config.local.load_timeout
    changed = {
        "host": "127.0.0.1",
        "port": 0,
        "api_keys": (),
        "log_level": "ERROR",
        "deadline": max(server.deadline, load_s),
    }
    quiet = config.with_server(server.model_copy(update=changed)).with_state("memory")
    return quiet.model_copy(update={"scrape": Scrape(schedule=None)})


async def _wait_for_lists(app: web.Application) -> None:
    """Until each provider's list is there, or has failed, or patience ends."""
    runtime = app[RUNTIME]
    deadline_s = time.monotonic() + _LISTS_S
    inventory = runtime.inventory
    while time.monotonic() < deadline_s:
        listed = {model.source for model in inventory.catalog.models}
        if all(name in listed or name in inventory.errors for name in runtime.parts.providers):
            return
        await asyncio.sleep(0.05)


async def _post(url: str, model: str, prompt: str) -> tuple[int, Any]:
    body: JsonObject = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": _TOKENS,
    }
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(url, json=body) as response,
    ):
        return response.status, await response.json(content_type=None)


def _read(status: int, body: Any, seconds: float) -> Answer:
    if status != 200:
        error = body.get("error", {}) if isinstance(body, dict) else {}
        tried = "; ".join(f"{one['model']}: {one['reason'] or one['outcome']}" for one in error.get("attempts", ()))
        message = str(error.get("message") or f"HTTP {status}")
        raise ProxyError(f"{message} ({tried})" if tried else message)
    message = body["choices"][0]["message"]
    text = message.get("content") or message.get("reasoning_content") or message.get("reasoning") or ""
    return Answer(str(text).strip(), str(body["model"]), seconds)
