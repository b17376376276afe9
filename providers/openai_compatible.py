"""A provider that speaks the OpenAI wire format: nearly all of them.

Sources: https://platform.openai.com/docs/api-reference/chat and the quirks of `catalog.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
from yarl import URL

from llmproxy.core.errors import BadReply
from llmproxy.core.types import Call, Candidate, Model, Reading, Reply
from llmproxy.dialects.ratelimits import read_quota
from providers.calls import Reshaped, fetch_models, passed_through, post, read_reply
from providers.catalog import Settings
from providers.http import Request
from providers.quirks import adapted
from providers.whole import in_one_piece

_PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}


class OpenAiCompatible:
    """One provider; implements `core.contract.Source`. The session belongs to the application."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._urls = {endpoint: URL(settings.base_url + path) for endpoint, path in _PATHS.items()}
        self._asks_usage = not settings.quirks.get("no_stream_options")

    @property
    def name(self) -> str:
        return self.settings.name

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """POST and wait for the whole answer; raises `Refused` for an error status or an error under 200."""
        async with self._request(call, candidate) as request:
            return await read_reply(request)

    def stream(self, call: Call, candidate: Candidate) -> Request | Reshaped:
        """POST and give the answer as it comes, or where the provider cannot stream, when all of it is there."""
        if self.settings.quirks.get("no_stream") and call.stream:
            return Reshaped(self._request(replace(call, stream=False), candidate), in_one_piece)
        return self._request(call, candidate)

    async def models(self) -> Sequence[Model]:
        """GET the model list, with the provider's own quirks; raises `AttemptError` when it cannot be had."""
        return await fetch_models(self._session, self.settings, headers_of(self.settings, 0))

    @property
    def tells_quota(self) -> bool:
        """Whether there is an endpoint that tells what is left."""
        return bool(self.settings.quirks.get("quota_path"))

    async def quota(self, credential: int) -> Sequence[Reading]:
        """GET what is left of a key's limits; raises `AttemptError` when it cannot be had."""
        url = URL(self.settings.base_url + self.settings.quirks["quota_path"])
        headers = headers_of(self.settings, credential)
        async with Request(self._session, "GET", url, headers, None, self.settings.proxy) as request:
            raw = await request.read()
        try:
            return read_quota(orjson.loads(raw))
        except orjson.JSONDecodeError as error:
            raise BadReply(f"the quota is not JSON: {error}", outcome="not_json") from error

    async def aclose(self) -> None:
        """Nothing to give back: the connections belong to the session."""

    def _request(self, call: Call, candidate: Candidate) -> Request:
        headers = headers_of(self.settings, candidate.credential)
        if call.endpoint == "passthrough":
            return passed_through(self._session, self.settings, call, candidate, headers)
        said, lost = adapted(call, self.settings.quirks)
        body: dict[str, Any] = {"model": candidate.model.id, **said}
        if call.stream:
            body["stream"] = True
            if self._asks_usage and call.count_usage:
                body["stream_options"] = {"include_usage": True}
        return post(self._session, self.settings, self._urls[call.endpoint], headers, body, lost)


def headers_of(settings: Settings, credential: int) -> dict[str, str]:
    """What every request to the provider carries, the key among it."""
    headers = dict(settings.headers)
    if settings.keys:
        headers["Authorization"] = f"Bearer {settings.keys[credential].reveal()}"
    elif anonymous := settings.quirks.get("anonymous_key"):
        headers["Authorization"] = f"Bearer {anonymous}"
    return headers
