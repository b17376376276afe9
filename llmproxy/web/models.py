"""What can be asked for, and why a call would go where it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from llmproxy.core import names
from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Plan
from llmproxy.dialects import anthropic, gemini_other
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.openai import parse_chat
from llmproxy.gateway.ledger import Ledger
from llmproxy.routing.health import Health
from llmproxy.web.envelope import json_response
from llmproxy.web.inference import read_json
from llmproxy.web.local_models import states
from llmproxy.web.spoken import dialect_of
from llmproxy.web.state import SERVICES, TRACE, Services


async def list_models(request: web.Request) -> web.Response:
    """GET /v1/models, /v1beta/models: concrete models, aliases, and each pool that has a candidate."""
    data = entries(request.app[SERVICES])
    match dialect_of(request):
        case AnthropicMessages():
            return json_response(anthropic.models(data))
        case Gemini():
            query = request.query
            return json_response(gemini_other.model_list(data, query.get("pageSize"), query.get("pageToken")))
    return json_response({"object": "list", "data": data})


async def show_model(request: web.Request) -> web.Response:
    """GET /v1/models/{id}, /v1beta/models/{id}; ids hold `/` and `:`."""
    entry = entry_of(request.app[SERVICES], request.match_info["id"])
    match dialect_of(request):
        case AnthropicMessages():
            return json_response(anthropic.model_entry(entry))
        case Gemini():
            return json_response(gemini_other.model_entry(entry))
    return json_response(entry)


def entries(services: Services) -> list[JsonObject]:
    """Everything that can be asked for, as OpenAI's list has it."""
    catalog, created = services.inventory.catalog, int(services.started_s)
    loaded = states(services.local())
    data = [_model_entry(model, created, loaded) for model in catalog.models]
    data += [_virtual_entry(name, created, f"alias of {target}") for name, target in catalog.aliases.items()]
    return data + [_virtual_entry(name, created, "pool") for name in catalog.pool_names()]


def entry_of(services: Services, name: str) -> JsonObject:
    """One entry of the list by any of its names; raises `ModelNotFound`."""
    catalog, created = services.inventory.catalog, int(services.started_s)
    if name not in catalog.aliases and (model := catalog.find(name)) is not None:
        return _model_entry(model, created, states(services.local()))
    return _virtual_entry(name, created, catalog.select(name).reason)


async def explain(request: web.Request) -> web.Response:
    """POST /v1/route/explain: a chat request (messages may be left out) → its plan, with everything dropped and why."""
    services = request.app[SERVICES]
    body = await read_json(request)
    wanted = body.pop("needs", [])
    if not isinstance(wanted, list) or not all(isinstance(need, str) for need in wanted):
        raise InvalidRequest("needs must be a list of capabilities", param="needs")
    body.setdefault("messages", [{"role": "user", "content": ""}])
    call = parse_chat(body, request[TRACE].id)
    call.needs = call.needs | frozenset(wanted)
    return json_response(plan_body(services.dispatcher.plan(call, whole=True), call))


async def candidates(request: web.Request) -> web.Response:
    """GET /v1/route/candidates: every candidate with its capabilities and health, and what is missing for more."""
    services = request.app[SERVICES]
    catalog = services.inventory.catalog
    now = asyncio.get_running_loop().time()
    entries = [
        candidate_body(candidate, services.dispatcher.health, now, services.dispatcher.ledger)
        for model in catalog.models
        for candidate in catalog.credentials_of(model)
    ]
    return json_response({"candidates": entries, "missing": _missing(services)})


def candidate_body(candidate: Candidate, health: Health, now: float, ledger: Ledger) -> JsonObject:
    """One candidate as `llmproxy models` shows it."""
    model = candidate.model
    cooldown = health.cooldown(candidate, now)
    return {
        "name": model.name,
        "candidate": candidate.key,
        "local": model.local,
        "free": model.free or model.local,
        "tier": model.tier,
        "capabilities": sorted(model.capabilities),
        "lacks": sorted(model.lacks),
        "refuses": sorted(model.refuses),
        "learned": health.learned(candidate, now),
        "limits": ledger.book.told(candidate, ledger.now()),
        "context_tokens": model.context_tokens,
        "success_rate": round(health.success_rate(candidate), 3),
        "first_answer_s": health.speed(candidate),
        "out": None
        if cooldown is None
        else {"for_s": round(cooldown.until_s - now, 1), "provenance": cooldown.provenance, "reason": cooldown.reason},
    }


def plan_body(plan: Plan, call: Call) -> JsonObject:
    """A plan as JSON."""
    return {
        "asked": plan.asked,
        "reason": plan.reason,
        "needs": sorted(call.needs),
        "forced": call.forced.capability if call.forced is not None else None,
        "prompt_tokens": call.prompt_tokens,
        "kept": [{"model": entry.candidate.key, "reason": entry.reason} for entry in plan.kept],
        "dropped": [
            {"model": entry.candidate.key, "reason": entry.reason, "retry_after_s": entry.retry_after_s}
            for entry in plan.dropped
        ],
        "hint": plan.hint if not plan.kept else "",
    }


def _missing(services: Services) -> dict[str, str]:
    return {**services.missing(), **services.inventory.errors}


def _model_entry(model: Model, created: int, loaded: Mapping[str, JsonObject]) -> JsonObject:
    entry: JsonObject = {
        "id": names.listed(model.source, model.id),
        "object": "model",
        "created": model.created_s or created,
        "owned_by": model.source,
        "llmproxy": {
            "name": model.name,
            "capabilities": sorted(model.capabilities),
            "free": model.free or model.local,
            "local": model.local,
            "tier": model.tier,
        },
    }
    if model.source == "local":
        entry["llmproxy"] |= loaded.get(model.id, {})
    if model.context_tokens:
        entry["context_length"] = model.context_tokens
    return entry


def _virtual_entry(name: str, created: int, what: str) -> JsonObject:
    return {"id": name, "object": "model", "created": created, "owned_by": "llmproxy", "llmproxy": {"is": what}}
