"""What can be asked: one table."""

from __future__ import annotations

from aiohttp import web

from llmproxy.web import inference, llamacpp, local_models, models, system, translated, vision
from llmproxy.web.middleware import trace
from llmproxy.web.passthrough import passthrough
from llmproxy.web.state import SERVICES, Services

ROUTES = [
    web.post("/v1/chat/completions", inference.chat_completions),
    web.post("/v1/completions", inference.completions),
    web.post("/v1/embeddings", inference.embeddings),
    web.post("/v1/responses", translated.responses),
    web.get("/v1/responses/{id}", translated.show_response),
    web.delete("/v1/responses/{id}", translated.delete_response),
    web.post("/v1/messages", translated.messages),
    web.post("/v1/messages/count_tokens", translated.count_message_tokens),
    web.post("/v1beta/models/{model:.+}:{method:[a-zA-Z]+}", translated.gemini),
    web.post("/v1/models/{model:.+}:{method:[a-zA-Z]+}", translated.gemini),
    web.get("/v1beta/models", models.list_models),
    web.get("/v1beta/models/{id:.+}", models.show_model),
    web.post("/api/chat", translated.ollama_chat),
    web.post("/api/generate", translated.ollama_generate),
    web.post("/api/embed", translated.ollama_embed),
    web.post("/api/embeddings", translated.ollama_embeddings),
    web.get("/api/tags", translated.ollama_tags),
    web.post("/api/show", translated.ollama_show),
    web.get("/api/ps", translated.ollama_ps),
    web.get("/api/version", translated.ollama_version),
    web.post("/embedding", llamacpp.embedding),
    web.post("/embeddings", llamacpp.embedding),
    web.post("/v1/rerank", llamacpp.reranking),
    web.post("/v2/rerank", llamacpp.reranking),
    web.post("/v1/reranking", llamacpp.reranking),
    web.post("/rerank", llamacpp.reranking),
    web.post("/reranking", llamacpp.reranking),
    web.post("/api/inference/describe", vision.describe),
    web.post("/api/inference/crop-describe", vision.crop_describe),
    web.get("/v1/models", models.list_models),
    web.get("/v1/models/{id:.+}", models.show_model),
    web.post("/v1/route/explain", models.explain),
    web.get("/v1/route/candidates", models.candidates),
    web.get("/v1/failures", system.failures),
    web.get("/v1/scrape/status", system.scrape_status),
    web.post("/admin/api/models/{id:.+}/load", local_models.load),
    web.post("/admin/api/models/{id:.+}/unload", local_models.unload),
    web.get("/health", system.health),
    web.get("/ready", system.ready),
    web.get("/version", system.version),
    web.get("/metrics", system.metrics),
]


def build_web(services: Services) -> web.Application:
    """The aiohttp application over ready-made services."""
    limit_bytes = int(services.config().server.body_limit_mb * 1024 * 1024)
    app = web.Application(middlewares=[trace], client_max_size=limit_bytes)
    app[SERVICES] = services
    app.add_routes(ROUTES)
    for path in {route.path for route in ROUTES if "{" not in route.path}:
        app.router.add_route("*", path, wrong_method)
    app.router.add_route("*", "/v1/{tail:.+}", passthrough)
    return app


async def wrong_method(request: web.Request) -> web.StreamResponse:
    """A path of ours with a method that it does not know: never passed through to a provider."""
    allowed = {route.method for route in ROUTES if route.path == request.path}
    raise web.HTTPMethodNotAllowed(request.method, allowed)
