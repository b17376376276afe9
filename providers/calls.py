"""What providers of every wire format have in common: passing a call through, and reading the list of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import aiohttp
import orjson
from yarl import URL

from llmproxy.core.errors import BadReply
from llmproxy.core.retry import backoff
from llmproxy.core.types import Call, Candidate, Model
from providers.catalog import Settings
from providers.http import Request
from providers.listing import filtered, parse_models


def passed_through(
    session: aiohttp.ClientSession, settings: Settings, call: Call, candidate: Candidate, headers: Mapping[str, str]
) -> Request:
    """The call as its client wrote it, with the provider's own id of the model and its key."""
    url = URL(settings.base_url + call.path, encoded=True)
    # Where an endpoint is not under the base URL, the catalogue (and nobody else) says where it is from there.
    if elsewhere := settings.quirks.get("paths", {}).get(call.path):
        url = URL(settings.base_url + "/").join(URL(elsewhere))
    is_json = call.raw_headers.get("content-type", "").startswith("application/json")
    model_id = orjson.dumps(candidate.model.id)[1:-1] if is_json else candidate.model.id.encode()
    body = model_id.join(call.raw) if call.raw else None
    return Request(session, call.method, url, {**headers, **call.raw_headers}, body, settings.proxy)


async def fetch_models(
    session: aiohttp.ClientSession, settings: Settings, headers: Mapping[str, str]
) -> Sequence[Model]:
    """GET the model list, with the provider's own quirks; raises `AttemptError` when it cannot be had."""
    async for attempt in backoff(BadReply, attempts=2):
        with attempt:
            async with Request(session, "GET", URL(settings.models_url), headers, None, settings.proxy) as request:
                raw = await request.read()
    found = parse_models(raw, settings.name, id_field=settings.models_id_field, keep_task=settings.models_keep_task)
    return filtered(found, settings.name, settings.model_filter, settings.known_models)
