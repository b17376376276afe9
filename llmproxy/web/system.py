"""Is it up, is it ready, which version, what was counted."""

from __future__ import annotations

import time

from aiohttp import web

from llmproxy import __version__
from llmproxy.core.errors import InvalidRequest
from llmproxy.web.envelope import json_response
from llmproxy.web.local_models import states
from llmproxy.web.state import SERVICES


async def health(request: web.Request) -> web.Response:
    """GET /health: 200 while the process answers."""
    services = request.app[SERVICES]
    return json_response(
        {
            "status": "draining" if services.draining else "ok",
            "version": __version__,
            "uptime_s": round(time.time() - services.started_s, 1),
            "models": len(services.inventory.catalog.models),
            "in_flight": services.metrics.in_flight,
            "local": states(services.local()),
        }
    )


async def ready(request: web.Request) -> web.Response:
    """GET /ready: 200 when there is a model to route to, those that must be loaded are, and requests are taken."""
    services = request.app[SERVICES]
    local = services.local()
    is_ready = bool(services.inventory.catalog.models) and not services.draining and (local is None or local.is_ready)
    return json_response({"ready": is_ready}, 200 if is_ready else 503)


async def version(request: web.Request) -> web.Response:
    """GET /version."""
    return json_response({"name": "llmproxy", "version": __version__})


async def failures(request: web.Request) -> web.Response:
    """GET /v1/failures: the failed attempts of late, newest first; `limit`, `model` and `outcome` in the query."""
    query = request.query
    limit = query.get("limit", "100")
    if not limit.isdecimal():
        raise InvalidRequest("limit must be a whole number", param="limit")
    found = request.app[SERVICES].dispatcher.failures
    return json_response(found.latest(int(limit), query.get("model"), query.get("outcome")))


async def scrape_status(request: web.Request) -> web.Response:
    """GET /v1/scrape/status: the findings in use, the last refresh with its sources and errors, and the next one."""
    return json_response(request.app[SERVICES].scraped())


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics: Prometheus text format."""
    return web.Response(
        body=request.app[SERVICES].metrics.render(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )
