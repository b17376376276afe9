"""Embeddings as llama.cpp's server has them, and reranking as clients of Cohere, Jina and llama.cpp ask for it."""

from __future__ import annotations

from aiohttp import web

from llmproxy.core.errors import InvalidRequest, NoCandidates
from llmproxy.core.types import Call
from llmproxy.dialects import llamacpp, rerank
from llmproxy.dialects.openai import parse_embeddings
from llmproxy.web.inference import answer, read_json
from llmproxy.web.passthrough import around_model
from llmproxy.web.state import SERVICES, TRACE, Services


async def embedding(request: web.Request) -> web.StreamResponse:
    """POST /embedding, /embeddings."""
    body = await read_json(request)
    made = llamacpp.embedding_request(body)
    made["model"] = made.get("model") or _first(request.app[SERVICES], "embeddings")
    call = parse_embeddings(made, request[TRACE].id)
    call.unheard = llamacpp.unheard(body)
    return await answer(request, call, llamacpp.embedding_reply)


async def reranking(request: web.Request) -> web.StreamResponse:
    """POST /v1/rerank and its other spellings."""
    body, call_id = await read_json(request), request[TRACE].id
    asked = rerank.read(body)
    model = body.get("model") or _first(request.app[SERVICES], "rerank")
    if not isinstance(model, str):
        raise InvalidRequest("model must be a model name", param="model")
    call = Call(
        id=call_id,
        endpoint="passthrough",
        model=model,
        body={},
        path="/rerank",
        raw=around_model(asked.body),
        raw_headers={"content-type": "application/json"},
        needs=frozenset({"rerank"}),
        prompt_tokens=asked.prompt_tokens,
    )
    return await answer(request, call, renderer=rerank.RerankRenderer(asked, call_id, model))


def _first(services: Services, capability: str) -> str:
    """The model that serves requests which name none: one of this machine, else a free one, else any."""
    fitting = [model for model in services.inventory.catalog.models if capability in model.capabilities]
    if not fitting:
        raise NoCandidates(f"no model is known for {capability}: name one", param="model")
    return min(fitting, key=lambda model: (not model.local, not model.free)).name
