"""What can be asked: one table."""

from __future__ import annotations

from aiohttp import web

from llmproxy.web import inference, models, system
from llmproxy.web.middleware import door, trace
from llmproxy.web.passthrough import passthrough
from llmproxy.web.state import SERVICES, Services

ROUTES = [
    web.post("/v1/chat/completions", inference.chat_completions),
    web.post("/v1/completions", inference.completions),
    web.post("/v1/embeddings", inference.embeddings),
    web.get("/v1/models", models.list_models),
    web.get("/v1/models/{id:.+}", models.show_model),
    web.post("/v1/route/explain", models.explain),
    web.get("/v1/route/candidates", models.candidates),
    web.get("/health", system.health),
    web.get("/ready", system.ready),
    web.get("/version", system.version),
    web.get("/metrics", system.metrics),
    web.route("*", "/v1/{tail:.+}", passthrough),
]


def build_web(services: Services) -> web.Application:
    """The aiohttp application over ready-made services."""
    limit_bytes = int(services.config().server.body_limit_mb * 1024 * 1024)
    app = web.Application(middlewares=[trace, door], client_max_size=limit_bytes)
    app[SERVICES] = services
    app.add_routes(ROUTES)
    return app
