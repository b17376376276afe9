"""What `llmproxy models`, `explain` and `check` tell: from the running server if there is one, else worked out here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from llmproxy.app import Runtime, read_parts
from llmproxy.core.config import Config
from llmproxy.core.env import MissingVariable
from llmproxy.core.errors import InvalidRequest, LlmproxyError, ModelNotFound
from llmproxy.core.types import Call, JsonObject
from llmproxy.dialects.openai import parse_chat
from llmproxy.gateway.attempt import Waits, whole
from llmproxy.web.models import candidate_body, plan_body
from providers.http import new_session
from providers.openai_compatible import OpenAiCompatible

_ASK_S = 3.0
_LIST_S = 15.0


async def candidates(config: Config, *, local: bool = True) -> JsonObject:
    """Every candidate with its capabilities and health, and what is missing for more."""
    served = await _ask(config, "GET", "/v1/route/candidates", None)
    if served is not None:
        return {"from": "the running server", **served}
    async with _runtime(config, local=local) as runtime:
        catalog, health, ledger = runtime.inventory.catalog, runtime.dispatcher.health, runtime.ledger
        now = asyncio.get_running_loop().time()
        entries = [
            candidate_body(one, health, now, ledger)
            for model in catalog.models
            for one in catalog.credentials_of(model)
        ]
        missing = {**runtime.parts.missing, **runtime.inventory.errors}
        return {"from": "the configuration", "candidates": entries, "missing": missing}


async def explain(config: Config, model: str, needs: list[str], tokens: int) -> JsonObject:
    """The plan for a call of `model`."""
    text = "x" * (4 * tokens)
    request: JsonObject = {"model": model, "needs": needs, "messages": [{"role": "user", "content": text}]}
    served = await _ask(config, "POST", "/v1/route/explain", request)
    if served is not None:
        return {"from": "the running server", **served}
    async with _runtime(config) as runtime:
        del request["needs"]
        call = parse_chat(request, "explain")
        call.needs = frozenset(needs)
        return {"from": "the configuration", **plan_body(runtime.dispatcher.plan(call, whole=True), call)}


async def check(config: Config, *, live: bool) -> JsonObject:
    """Each provider: is its key there, does its list answer, and (live) does it answer one tiny call."""
    parts = read_parts(config)
    results: list[JsonObject] = [
        {"source": name, "ok": False, "problem": problem, "fix": problem} for name, problem in parts.missing.items()
    ]
    results += [
        {"source": f"local/{weights.name}", "ok": True, "models": 1, "folder": str(weights.folder)}
        for weights in parts.weights
    ]
    async with new_session(config.server.connect_timeout) as session:
        sources = [OpenAiCompatible(settings, session) for settings in parts.providers.values()]
        results += await asyncio.gather(*(_check_one(source, config, live=live) for source in sources))
    configured = {name for name, provider in config.providers.items() if provider.enabled} | parts.providers.keys()
    failed = [
        entry for entry in results if not entry["ok"] and (entry["source"] in configured or "/" in entry["source"])
    ]
    return {"ok": not failed, "warnings": list(config.warnings), "sources": results}


async def _check_one(source: OpenAiCompatible, config: Config, *, live: bool) -> JsonObject:
    started = time.perf_counter()
    entry: JsonObject = {"source": source.name, "url": source.settings.base_url, "keys": len(source.settings.keys)}
    try:
        async with asyncio.timeout(_LIST_S):
            found = await source.models()
        entry |= {"ok": True, "models": len(found), "list_ms": round((time.perf_counter() - started) * 1000)}
        if live:
            entry |= await _call_one(source, config)
    except TimeoutError:
        entry |= {"ok": False, "problem": f"no answer within {_LIST_S:g} s"}
    except LlmproxyError as error:
        entry |= {"ok": False, "problem": error.message}
    return entry


async def _call_one(source: OpenAiCompatible, config: Config) -> JsonObject:
    """One call of one token or so, to a chat model that is free where one is known to be."""
    runtime = Runtime(config, local=False)
    runtime.inventory.configure(config, runtime.parts.offers, {})
    await runtime.inventory.refresh(source)
    chat = [model for model in runtime.inventory.catalog.models if model.source == source.name and model.chat]
    if not chat:
        return {"ok": False, "problem": "its list has no chat model"}
    model = next((model for model in chat if model.free), chat[0])
    body: JsonObject = {"messages": [{"role": "user", "content": "Say ok."}], "max_tokens": 8}
    call = Call("check", "chat", model.name, body)
    started = time.perf_counter()
    await whole(source, runtime.inventory.catalog.credentials_of(model)[0], call, Waits(), 30.0)
    return {"ok": True, "live_model": model.name, "live_ms": round((time.perf_counter() - started) * 1000)}


@asynccontextmanager
async def _runtime(config: Config, *, local: bool = True) -> AsyncIterator[Runtime]:
    """A runtime that knows its lists and serves nothing."""
    runtime = Runtime(config, local=local)
    async with new_session(config.server.connect_timeout) as session:
        sources = [OpenAiCompatible(settings, session) for settings in runtime.parts.providers.values()]
        await asyncio.gather(*map(runtime.inventory.refresh, sources))
        yield runtime


async def _ask(config: Config, method: str, path: str, body: JsonObject | None) -> JsonObject | None:
    """What the running server says; None when there is none, or it is not ours."""
    server = config.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::", "localhost") else server.host
    try:
        headers = {"Authorization": f"Bearer {server.api_keys[0].reveal()}"} if server.api_keys else {}
        timeout = aiohttp.ClientTimeout(total=_ASK_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, f"http://{host}:{server.port}{path}", json=body, headers=headers) as response,
        ):
            said = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError, MissingVariable):
        return None
    if isinstance(said, dict) and response.status == 200:
        return said
    error = said.get("error", {}) if isinstance(said, dict) else {}
    if error.get("code") == "model_not_found":
        raise ModelNotFound(error["message"], param="model")
    if error.get("code") == "invalid_request":
        raise InvalidRequest(error["message"], param=error.get("param"))
    return None


# -- for people ---------------------------------------------------------------------------------------------------


def show_candidates(body: dict[str, Any]) -> None:
    """A table of candidates."""
    console = Console(highlight=False)
    table = _table("candidate", "free", "tier", "capabilities", "context", "left", "state")
    for entry in body["candidates"]:
        out = entry["out"]
        state = "ready" if out is None else f"out for {out['for_s']:.0f} s, {out['provenance']}: {out['reason']}"
        table.add_row(
            entry["candidate"],
            "yes" if entry["free"] else "",
            entry["tier"] or "",
            _capabilities(entry),
            str(entry["context_tokens"] or ""),
            "; ".join(map(_limit, entry["limits"])),
            state,
        )
    console.print(table)
    for name, what in body["missing"].items():
        console.print(f"not used: {name} ({what})")
    console.print(f"{len(body['candidates'])} candidates, as {body['from']} knows them")


def _limit(line: dict[str, Any]) -> str:
    """What is left of a limit, and whose word it is when that is not the declared one."""
    left = f"{line['left']:g} of " if "left" in line else ""
    more = f", more in {line['more_in_s']:.0f} s" if "more_in_s" in line else ""
    known = f" ({line['from']}{', declared ' + format(line['declared'], 'g') if 'declared' in line else ''})"
    return f"{left}{line['limit']}{more}{known if line['from'] != 'declared' else ''}"


def _capabilities(entry: dict[str, Any]) -> str:
    """The capabilities of a candidate; what was learned stands in brackets."""
    learned = [f"+{what}" if told == "delivered" else f"{what} {told}" for what, told in entry["learned"].items()]
    return ", ".join(entry["capabilities"]) + "".join(f" [{told}]" for told in learned)


def show_plan(body: dict[str, Any]) -> None:
    """A plan, first to last, then what was dropped."""
    console = Console(highlight=False)
    console.print(f"{body['asked']}: {body['reason']}")
    table = _table("", "candidate", "why")
    for place, entry in enumerate(body["kept"], 1):
        table.add_row(str(place), entry["model"], entry["reason"])
    for entry in body["dropped"]:
        table.add_row("-", entry["model"], entry["reason"])
    console.print(table)
    if body["hint"]:
        console.print(body["hint"])


def show_check(body: dict[str, Any]) -> None:
    """What works and what does not, a line each."""
    console = Console(highlight=False)
    for warning in body["warnings"]:
        console.print(f"config: {warning}")
    table = _table("source", "state", "")
    for entry in body["sources"]:
        told = entry.get("problem") or f"{entry['models']} models"
        if "live_model" in entry:
            told += f"; {entry['live_model']} answered in {entry['live_ms']} ms"
        table.add_row(entry["source"], "ok" if entry["ok"] else "FAILED", told)
    console.print(table)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
