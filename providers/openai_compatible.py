"""A provider that speaks the OpenAI wire format: nearly all of them.

Sources: https://platform.openai.com/docs/api-reference/chat and the quirks of `catalog.json`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson
from yarl import URL

from llmproxy.core.errors import BadReply, InvalidRequest
from llmproxy.core.retry import backoff
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Reading, Reply
from llmproxy.dialects.ratelimits import read_quota
from llmproxy.dialects.refusals import error_in_body
from providers.catalog import Settings
from providers.http import Request
from providers.listing import filtered, parse_models

_PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}


class OpenAiCompatible:
    """One provider; implements `core.contract.Source`. The session belongs to the application."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._urls = {endpoint: URL(settings.base_url + path) for endpoint, path in _PATHS.items()}
        quirks = settings.quirks
        self._max_tokens_field: str | None = quirks.get("max_tokens_field")
        self._asks_usage = not quirks.get("no_stream_options")

    @property
    def name(self) -> str:
        return self.settings.name

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """POST and wait for the whole answer; raises `Refused` for an error status or an error under 200."""
        async with self._request(call, candidate) as request:
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

    def stream(self, call: Call, candidate: Candidate) -> Request:
        """POST and give the answer as it comes."""
        return self._request(call, candidate)

    async def models(self) -> Sequence[Model]:
        """GET the model list, with the provider's own quirks; raises `AttemptError` when it cannot be had."""
        settings = self.settings
        headers = self._headers(0)
        async for attempt in backoff(BadReply, attempts=2):
            with attempt:
                async with Request(
                    self._session, "GET", URL(settings.models_url), headers, None, settings.proxy
                ) as request:
                    raw = await request.read()
        found = parse_models(raw, settings.name, id_field=settings.models_id_field, keep_task=settings.models_keep_task)
        return filtered(found, settings.name, settings.model_filter, settings.known_models)

    @property
    def tells_quota(self) -> bool:
        """Whether there is an endpoint that tells what is left."""
        return bool(self.settings.quirks.get("quota_path"))

    async def quota(self, credential: int) -> Sequence[Reading]:
        """GET what is left of a key's limits; raises `AttemptError` when it cannot be had."""
        url = URL(self.settings.base_url + self.settings.quirks["quota_path"])
        headers = self._headers(credential)
        async with Request(self._session, "GET", url, headers, None, self.settings.proxy) as request:
            raw = await request.read()
        try:
            return read_quota(orjson.loads(raw))
        except orjson.JSONDecodeError as error:
            raise BadReply(f"the quota is not JSON: {error}", outcome="not_json") from error

    async def aclose(self) -> None:
        """Nothing to give back: the connections belong to the session."""

    def _request(self, call: Call, candidate: Candidate) -> Request:
        headers = self._headers(candidate.credential)
        if call.endpoint == "passthrough":
            url = URL(self.settings.base_url + call.path, encoded=True)
            headers.update(call.raw_headers)
            is_json = call.raw_headers.get("content-type", "").startswith("application/json")
            model_id = orjson.dumps(candidate.model.id)[1:-1] if is_json else candidate.model.id.encode()
            body = model_id.join(call.raw) if call.raw else None
            return Request(self._session, call.method, url, headers, body, self.settings.proxy)
        headers["Content-Type"] = "application/json"
        try:
            data = orjson.dumps(self._body(call, candidate))
        except TypeError as error:
            raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
        return Request(self._session, "POST", self._urls[call.endpoint], headers, data, self.settings.proxy)

    def _body(self, call: Call, candidate: Candidate) -> JsonObject:
        body: dict[str, Any] = {"model": candidate.model.id, **call.body}
        if call.stream:
            body["stream"] = True
            if self._asks_usage and call.count_usage:
                body["stream_options"] = {"include_usage": True}
        if self._max_tokens_field == "max_completion_tokens" and "max_tokens" in body:
            body.setdefault("max_completion_tokens", body.pop("max_tokens"))
        elif self._max_tokens_field == "max_tokens" and "max_completion_tokens" in body:
            body.setdefault("max_tokens", body.pop("max_completion_tokens"))
        return body

    def _headers(self, credential: int) -> dict[str, str]:
        headers = dict(self.settings.headers)
        if self.settings.keys:
            headers["Authorization"] = f"Bearer {self.settings.keys[credential].reveal()}"
        return headers
