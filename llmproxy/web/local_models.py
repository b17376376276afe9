"""Local models as people see and steer them: where each one is, and loading and unloading by hand."""

from __future__ import annotations

import hmac
import ipaddress

from aiohttp import web

from llmproxy.core.env import MissingVariable
from llmproxy.core.errors import InvalidApiKey, InvalidRequest, ModelNotFound, Refused
from llmproxy.core.types import JsonObject
from llmproxy.gateway.verdict import same_refusal
from llmproxy.web.envelope import json_response
from llmproxy.web.state import SERVICES, LocalModels

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_MOST_WAIT_S = 600.0


def states(models: LocalModels | None) -> dict[str, JsonObject]:
    """What `/v1/models` and `/health` tell of each local model, by its name after `local/`."""
    found: dict[str, JsonObject] = {}
    for status in models.status() if models is not None else ():
        told: JsonObject = {"state": status.state, "since": round(status.since), "memory_mb": status.memory_mb}
        if status.place:
            told["devices"] = list(status.place)
        if status.used_bytes:
            told["used_mb"] = {device: used >> 20 for device, used in status.used_bytes.items()}
        if status.calls:
            told["in_flight"] = status.calls
        if status.waiting:
            told["waiting"] = status.waiting
        if status.reason:
            told["reason"] = status.reason
        found[status.name] = told
    return found


async def load(request: web.Request) -> web.Response:
    """POST /admin/api/models/{id}/load: load a local model now; answers when it is loaded."""
    models, name = _chosen(request)
    try:
        await models.load(name)
    except Refused as error:
        raise same_refusal(error) from error
    return json_response(states(models)[name])


async def unload(request: web.Request) -> web.Response:
    """POST /admin/api/models/{id}/unload: send it away after its calls in flight; `wait` in the query, in seconds."""
    models, name = _chosen(request)
    try:
        wait_s = float(request.query.get("wait", "0"))
    except ValueError as error:
        raise InvalidRequest("wait must be a number of seconds", param="wait") from error
    if not 0 <= wait_s <= _MOST_WAIT_S:
        raise InvalidRequest(f"wait must be from 0 to {_MOST_WAIT_S:g} seconds", param="wait")
    try:
        await models.unload(name, wait_s)
    except Refused as error:
        raise same_refusal(error) from error
    return json_response(states(models)[name])


def _chosen(request: web.Request) -> tuple[LocalModels, str]:
    _check_admin(request)
    services = request.app[SERVICES]
    asked = request.match_info["id"]
    model = services.inventory.catalog.find(services.inventory.catalog.aliases.get(asked, asked))
    models = services.local()
    if model is None or model.source != "local" or models is None:
        raise ModelNotFound(f"there is no local model {asked!r}", param="model")
    return models, model.id


def _check_admin(request: web.Request) -> None:
    """The admin API is for whoever has the token, or sits at this machine with no proxy in between."""
    admin = request.app[SERVICES].config().admin
    if not admin.enabled:
        raise web.HTTPNotFound
    given = request.headers.get("x-admin-token") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if admin.token is not None:
        try:
            token = admin.token.reveal()
        except MissingVariable:
            token = ""
        if token and hmac.compare_digest(given.strip().encode(), token.encode()):
            return
    peer = request.remote or ""
    if not any(name in request.headers for name in _FORWARDED) and _is_loopback(peer):
        return
    raise InvalidApiKey("the admin API needs admin.token, or a call from this machine itself")


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
