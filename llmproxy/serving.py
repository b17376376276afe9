"""`llmproxy serve`: listen, tell where and with what, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from pathlib import Path

from aiohttp import web
from rich.console import Console
from rich.table import Table

from llmproxy import __version__
from llmproxy.access import check_access
from llmproxy.app import RUNTIME, Runtime, build_app
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError
from llmproxy.core.tasks import Background
from llmproxy.web.state import SERVICES, Services

_COLLECT_S = 30.0
_LATENESS_S = 0.1


def run(config: Config, *, path: Path | None, local: bool, workers: int = 1, first: bool = True) -> None:
    """Serve until SIGTERM or SIGINT. Raises `ConfigError` when the address needs keys or cannot be bound.

    One of several `workers` shares the port with the others; the `first` one says where they listen.
    """
    check_access(config)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(config, path, local, workers, first))
    else:
        uvloop.run(_serve(config, path, local, workers, first))


async def _serve(config: Config, path: Path | None, local: bool, workers: int, first: bool) -> None:
    app = build_app(config, path=path, local=local, workers=workers)
    services, server = app[SERVICES], config.server
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    stop, broken = asyncio.Event(), list[str]()

    def give_up(reason: str) -> None:
        broken.append(reason)
        stop.set()

    app[RUNTIME].on_broken = give_up
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await runner.setup()
    # What was imported stays for ever: keep the collector from walking it again and again under load.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
    background = Background()
    background.start(_collect(), "collector")
    background.start(_watch_lateness(services), "lateness")
    try:
        try:
            shared = True if workers > 1 else None
            await web.TCPSite(runner, server.host, server.port, backlog=1024, reuse_port=shared).start()
        except OSError as error:
            raise ConfigError(f"server.port: cannot listen on {server.host}:{server.port}: {error.strerror}") from error
        host, port = runner.addresses[0][:2]
        if first:
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            announce(app[RUNTIME], f"{url} with {workers} workers" if workers > 1 else url)
        await stop.wait()
        await _drain(services, server.grace)
        if broken:
            raise ConfigError(f"local.models, with a strict start: {broken[0]}")
    finally:
        await background.aclose()
        await runner.cleanup()


async def _collect() -> None:
    """Collect now and then: libraries leave cycles behind (a body that cannot be decoded keeps its buffers), and with
    the thresholds above the oldest generation would hardly ever be looked at. Some milliseconds each time.
    """
    while True:
        await asyncio.sleep(_COLLECT_S)
        gc.collect()


async def _watch_lateness(services: Services) -> None:
    """How long the event loop was busy with something else when a timer was due, ten times a second."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + _LATENESS_S
        await asyncio.sleep(_LATENESS_S)
        services.metrics.lateness.add(max(0.0, loop.time() - due_s))


async def _drain(services: Services, grace_s: float) -> None:
    """Take nothing new, and wait until what is in flight has ended, at most `grace_s` seconds."""
    services.draining = True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            while services.metrics.in_flight:  # noqa: ASYNC110  # once in a life: not worth an event on every request
                await asyncio.sleep(0.05)


def announce(runtime: Runtime, url: str) -> None:
    """Say where it listens, what can be asked, and what is missing for more."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(f"llmproxy {__version__} listens on {url}  (OpenAI base URL: {url}/v1)")
    for warning in runtime.config.warnings:
        console.print(f"config: {warning}")
    catalog = runtime.inventory.catalog
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "keys", "models"):
        table.add_column(heading, overflow="fold")
    usable = [offer for offer in catalog.offers.values() if not offer.missing]
    for offer in usable:
        models = [model.id for model in catalog.models if model.source == offer.source]
        shown = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
        table.add_row(offer.source, str(offer.credentials or "-"), shown or "being fetched")
    if usable:
        console.print(table)
    for name, what in runtime.parts.missing.items():
        console.print(f"not used: {name} ({what})")
    if all(offer.source == "local" for offer in usable):
        console.print(
            "For more models set the key of a provider, such as GROQ_API_KEY or OPENROUTER_API_KEY, and start again."
        )
    sys.stdout.flush()
