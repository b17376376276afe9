"""Is it up, is it ready, which version, what was counted."""

from __future__ import annotations

import time

import orjson
from aiohttp import web

from llmproxy import __version__
from llmproxy.web.state import SERVICES


async def health(request: web.Request) -> web.Response:
    """GET /health: 200 while the process answers."""
    services = request.app[SERVICES]
    return _json(
        {
            "status": "draining" if services.draining else "ok",
            "version": __version__,
            "uptime_s": round(time.time() - services.started_s, 1),
            "models": len(services.inventory.catalog.models),
            "in_flight": services.metrics.in_flight,
        }
    )


async def ready(request: web.Request) -> web.Response:
    """GET /ready: 200 when there is a model to route to and new requests are taken, else 503."""
    services = request.app[SERVICES]
    is_ready = bool(services.inventory.catalog.models) and not services.draining
    return _json({"ready": is_ready}, 200 if is_ready else 503)


async def version(request: web.Request) -> web.Response:
    """GET /version."""
    return _json({"name": "llmproxy", "version": __version__})


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus text format."""
    return web.Response(
        body=request.app[SERVICES].metrics.render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
