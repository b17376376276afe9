"""A provider that speaks a wire format of its own: Anthropic Messages, Gemini. The translation is `dialects`' part."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import aiohttp
from yarl import URL

from llmproxy.core.errors import BadReply, UnsupportedParameter
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Reading, Reply
from llmproxy.dialects import anthropic_upstream, gemini_upstream
from llmproxy.dialects.base import Outbound, Translator
from providers.calls import Reshaped, fetch_models, passed_through, post, read_reply
from providers.catalog import Settings
from providers.http import Request

_NO_BODY: JsonObject = {}


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire format: the translation, where a call goes under the base URL, and how a key is shown."""

    outbound: Outbound
    path: Callable[[str, bool], str]
    headers: Callable[[str | None, JsonObject], dict[str, str]]


def _anthropic_headers(key: str | None, body: JsonObject) -> dict[str, str]:
    return anthropic_upstream.headers(key or "", body)


def _gemini_headers(key: str | None, body: JsonObject) -> dict[str, str]:
    return {"x-goog-api-key": key} if key else {}


WIRES: Mapping[str, Wire] = {
    "anthropic": Wire(anthropic_upstream.AnthropicUpstream(), lambda model, stream: "/messages", _anthropic_headers),
    "gemini": Wire(
        gemini_upstream.GeminiUpstream(),
        lambda model, stream: gemini_upstream.path(model, stream=stream),
        _gemini_headers,
    ),
}


class Translated:
    """One provider; implements `core.contract.Source`. The session belongs to the application."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self._session = session
        self._wire = WIRES[settings.protocol]

    @property
    def name(self) -> str:
        return self.settings.name

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """POST and wait for the whole answer; raises `Refused` for an error status or an error under 200."""
        async with self._request(call, candidate) as request:
            reply = await read_reply(request)
        if not isinstance(reply.body, dict):
            raise BadReply("the answer is no JSON object", outcome="not_json")
        body = self._wire.outbound.reply(reply.body, candidate.model.id)
        body["created"] = body.get("created") or int(time.time())
        return reply._replace(body=body)

    def stream(self, call: Call, candidate: Candidate) -> Request | Reshaped:
        """POST and give the answer as it comes, as events of the canonical stream."""
        if call.endpoint == "passthrough":
            headers = headers_of(self.settings, candidate.credential)
            return passed_through(self._session, self.settings, call, candidate, headers)
        translator = self._wire.outbound.translator(candidate.model.id)
        return Reshaped(self._request(call, candidate), partial(_translated, translator))

    async def models(self) -> Sequence[Model]:
        """GET the model list; raises `AttemptError` when it cannot be had."""
        return await fetch_models(self._session, self.settings, headers_of(self.settings, 0))

    tells_quota = False

    async def quota(self, credential: int) -> Sequence[Reading]:
        """None of these providers has an endpoint that tells what is left."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to give back: the connections belong to the session."""

    def _request(self, call: Call, candidate: Candidate) -> Request:
        if call.endpoint != "chat":
            raise UnsupportedParameter(f"{self.name} answers chat requests only", param="endpoint")
        body, lost = self._wire.outbound.request(call.body, candidate.model.id, stream=call.stream)
        url = URL(self.settings.base_url + self._wire.path(candidate.model.id, call.stream), encoded=True)
        headers = headers_of(self.settings, candidate.credential, call.body)
        return post(self._session, self.settings, url, headers, body, lost)


def headers_of(settings: Settings, credential: int, body: JsonObject = _NO_BODY) -> dict[str, str]:
    """What a request to the provider carries, the key among it; `body` may ask for more."""
    key = settings.keys[credential].reveal() if settings.keys else None
    return {**WIRES[settings.protocol].headers(key, body), **settings.headers}


async def _translated(translator: Translator, request: Request) -> AsyncIterator[bytes]:
    """The canonical stream of a request that was entered, piece by piece."""
    async for data in request:
        if out := translator.feed(data):
            yield out
    if out := translator.finish():
        yield out
