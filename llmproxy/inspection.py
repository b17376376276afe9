"""What `llmproxy models` and `explain` tell: from the running server if there is one, else worked out here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from llmproxy.app import Runtime
from llmproxy.core.config import Config
from llmproxy.core.env import MissingVariable
from llmproxy.core.errors import InvalidRequest, ModelNotFound
from llmproxy.core.types import JsonObject
from llmproxy.dialects.openai import parse_chat
from llmproxy.web.models import candidate_body, plan_body
from providers.http import new_session
from providers.sources import source_of

_ASK_S = 3.0


async def candidates(config: Config, path: Path | None = None, *, local: bool = True) -> JsonObject:
    """Every candidate with its capabilities and health, and what is missing for more."""
    served = await _ask(config, "GET", "/v1/route/candidates", None)
    if served is not None:
        return {"from": "the running server", **served}
    async with _runtime(config, path, local=local) as runtime:
        catalog, health, ledger = runtime.inventory.catalog, runtime.dispatcher.health, runtime.ledger
        now = asyncio.get_running_loop().time()
        entries = [
            candidate_body(one, health, now, ledger)
            for model in catalog.models
            for one in catalog.credentials_of(model)
        ]
        missing = {**runtime.parts.missing, **runtime.inventory.errors}
        return {"from": "the configuration", "candidates": entries, "missing": missing}


async def explain(config: Config, path: Path | None, model: str, needs: list[str], tokens: int) -> JsonObject:
    """The plan for a call of `model`."""
    text = "x" * (4 * tokens)
    request: JsonObject = {"model": model, "needs": needs, "messages": [{"role": "user", "content": text}]}
    served = await _ask(config, "POST", "/v1/route/explain", request)
    if served is not None:
        return {"from": "the running server", **served}
    async with _runtime(config, path) as runtime:
        del request["needs"]
        call = parse_chat(request, "explain")
        call.needs = frozenset(needs)
        return {"from": "the configuration", **plan_body(runtime.dispatcher.plan(call, whole=True), call)}


@asynccontextmanager
async def _runtime(config: Config, path: Path | None, *, local: bool = True) -> AsyncIterator[Runtime]:
    """A runtime that knows its lists and serves nothing."""
    runtime = Runtime(config, path=path, local=local)
    async with new_session(config.server.connect_timeout) as session:
        sources = [source_of(settings, session) for settings in runtime.parts.providers.values()]
        await asyncio.gather(*map(runtime.inventory.refresh, sources))
        yield runtime


@asynccontextmanager
async def running_server(config: Config) -> AsyncIterator[tuple[aiohttp.ClientSession, str] | None]:
    """A session with the key of the server that runs at the configured address, and its URL; None when none does."""
    server = config.server
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::", "localhost") else server.host
    url = f"http://{host}:{server.port}"
    try:
        headers = {"Authorization": f"Bearer {server.api_keys[0].reveal()}"} if server.api_keys else {}
    except MissingVariable:
        yield None
        return
    async with aiohttp.ClientSession(headers=headers) as session:
        yield (session, url) if await _is_ours(session, url) else None


async def _is_ours(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/version", timeout=aiohttp.ClientTimeout(total=_ASK_S)) as response:
            said = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return False
    return isinstance(said, dict) and said.get("name") == "llmproxy"


async def _ask(config: Config, method: str, path: str, body: JsonObject | None) -> JsonObject | None:
    """What the running server says; None when there is none, or it is not ours."""
    async with running_server(config) as server:
        if server is None:
            return None
        session, url = server
        try:
            timeout = aiohttp.ClientTimeout(total=_ASK_S)
            async with session.request(method, url + path, json=body, timeout=timeout) as response:
                said = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError):
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


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
