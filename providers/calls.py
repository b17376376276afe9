"""What providers of every wire format have in common: posting, passing through, and reading what comes back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType

import aiohttp
import orjson
from yarl import URL

from llmproxy.core.errors import BadReply, InvalidRequest
from llmproxy.core.retry import backoff
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Reply
from llmproxy.dialects.refusals import error_in_body
from providers.catalog import Settings
from providers.http import Request
from providers.listing import filtered, parse_models


def post(
    session: aiohttp.ClientSession,
    settings: Settings,
    url: URL,
    headers: Mapping[str, str],
    body: JsonObject,
    lost: tuple[str, ...],
) -> Request:
    """A call with its body as this provider takes it, and the fields that were left out of it.

    Raises `InvalidRequest` for what cannot be written as JSON.
    """
    try:
        data = orjson.dumps(body)
    except TypeError as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
    headers = {**headers, "Content-Type": "application/json"}
    request = Request(session, "POST", url, headers, data, settings.proxy)
    request.lost = lost
    return request


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


async def read_reply(request: Request) -> Reply:
    """The whole answer of a request that was entered.

    Raises `BadReply` for what is not JSON, `Refused` for an error under 200.
    """
    raw = await request.read()
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadReply(f"a {request.status} that is not JSON: {error}", outcome="not_json") from error
    if isinstance(body, list) and body and isinstance(body[0], dict) and "error" in body[0]:
        body = body[0]
    if isinstance(body, dict) and body.get("error"):
        raise error_in_body(body, now=time.time(), status=request.status)
    return Reply(body, raw, request.status, request.headers)


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


class Reshaped:
    """A request whose answer goes on in another shape; implements `core.contract.Stream`. Entering sends the request.

    `reshape` reads the request that was entered, and gives the bytes of the canonical stream.
    """

    def __init__(self, request: Request, reshape: Callable[[Request], AsyncIterator[bytes]]) -> None:
        self._request = request
        self._reshape = reshape

    @property
    def status(self) -> int:
        return self._request.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    async def __aenter__(self) -> Reshaped:
        await self._request.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._request.__aexit__(kind, error, trace)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._reshape(self._request)
