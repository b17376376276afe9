"""A provider that speaks a wire format of its own: Anthropic Messages, Gemini. The translation is `dialects`' part."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

import aiohttp
import orjson
from yarl import URL

from llmproxy.core.errors import BadReply, InvalidRequest, UnsupportedParameter
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Reading, Reply
from llmproxy.dialects import anthropic_upstream, gemini_upstream
from llmproxy.dialects.base import Outbound, Translator
from llmproxy.dialects.refusals import error_in_body
from providers.calls import fetch_models, passed_through
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
            raw = await request.read()
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BadReply(f"a {request.status} that is not JSON: {error}", outcome="not_json") from error
        if not isinstance(body, dict):
            raise BadReply("the answer is no JSON object", outcome="not_json")
        if body.get("error"):
            raise error_in_body(body, now=time.time(), status=request.status)
        reply = self._wire.outbound.reply(body, candidate.model.id)
        reply.setdefault("created", int(time.time()))
        reply["created"] = reply["created"] or int(time.time())
        return Reply(reply, raw, request.status, request.headers)

    def stream(self, call: Call, candidate: Candidate) -> Request | TranslatedStream:
        """POST and give the answer as it comes, as events of the canonical stream."""
        if call.endpoint == "passthrough":
            headers = headers_of(self.settings, candidate.credential)
            return passed_through(self._session, self.settings, call, candidate, headers)
        return TranslatedStream(self._request(call, candidate), self._wire.outbound.translator(candidate.model.id))

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
        headers = {**headers_of(self.settings, candidate.credential, call.body), "Content-Type": "application/json"}
        try:
            data = orjson.dumps(body)
        except TypeError as error:
            raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error
        request = Request(self._session, "POST", url, headers, data, self.settings.proxy)
        request.lost = lost
        return request


def headers_of(settings: Settings, credential: int, body: JsonObject = _NO_BODY) -> dict[str, str]:
    """What a request to the provider carries, the key among it; `body` may ask for more."""
    key = settings.keys[credential].reveal() if settings.keys else None
    return {**WIRES[settings.protocol].headers(key, body), **settings.headers}


class TranslatedStream:
    """An answer on its way, as the canonical stream; implements `core.contract.Stream`."""

    def __init__(self, request: Request, translator: Translator) -> None:
        self._request = request
        self._translator = translator

    @property
    def status(self) -> int:
        return self._request.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._request.headers

    async def __aenter__(self) -> TranslatedStream:
        await self._request.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._request.__aexit__(kind, error, trace)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._request:
            if out := self._translator.feed(data):
                yield out
        if out := self._translator.finish():
            yield out
