"""A scripted upstream that speaks Gemini's own API over real HTTP; what it answers, `scenarios.py` says.

`…/models/{model}:generateContent`, `:streamGenerateContent` (events with `alt=sse`, else one JSON array), and the list
of models: `with GeminiThread() as up: ... up.url`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from tests.fakes import gemini_replies, scenarios
from tests.fakes.exchange import Request
from tests.fakes.gemini_replies import Answer, Refused
from tests.fakes.threaded import ThreadedServer, ended, half, streamed

# What a provider's key is in tests (`tests.servers.provider`).
KEY = "sk-upstream-0123456789"


class GeminiThread(ThreadedServer):
    """The upstream in its own thread; `models` are listed, and any other name is answered too."""

    root = "/v1beta"

    def __init__(self, models: Sequence[str] = scenarios.SCENARIOS) -> None:
        super().__init__()
        self.models = models

    def routes(self) -> Iterable[web.RouteDef]:
        return [
            web.get("/v1beta/models", self._list_models),
            web.post("/v1beta/models/{model}:generateContent", self._generate),
            web.post("/v1beta/models/{model}:streamGenerateContent", self._stream),
        ]

    def last(self, model: str) -> Request:
        """The newest request for a model."""
        return next(request for request in reversed(self.requests) if asked_of(request) == model)

    async def _list_models(self, request: web.Request) -> web.StreamResponse:
        if not _is_let_in(await self.arrived(request)):
            return _refusal(gemini_replies.wrong_key())
        size, token = int(request.query.get("pageSize", 50)), request.query.get("pageToken", "")
        return web.json_response(gemini_replies.model_list(self.models, size, token))

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        record, model = await self.arrived(request), request.match_info["model"]
        try:
            found = _answer(record, model)
        except Refused as error:
            return _refusal(error)
        body = gemini_replies.whole(found, model)
        return await half(request, _json(body), {}) if found.breaks else web.json_response(body)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        record, model = await self.arrived(request), request.match_info["model"]
        sse = request.query.get("alt") == "sse"
        try:
            found = _answer(record, model)
        except Refused as error:
            return _refusal(error, in_list=not sse)
        frames = [_json(frame) for frame in gemini_replies.frames(found, model)]
        if sse:
            events = [b"data: " + frame + b"\r\n\r\n" for frame in frames]
            return await streamed(request, events, {}, breaks=found.breaks)
        return await _array(request, frames, breaks=found.breaks)


def asked_of(request: Request) -> str:
    """The model that a request's path names; empty for the list of models."""
    return request.path.rpartition("/")[2].partition(":")[0] if ":" in request.path else ""


def _is_let_in(record: Request) -> bool:
    return record.headers.get("x-goog-api-key") == KEY


def _answer(record: Request, model: str) -> Answer:
    if not _is_let_in(record):
        raise gemini_replies.wrong_key()
    return gemini_replies.answer(model, record.json)


def _refusal(error: Refused, *, in_list: bool = False) -> web.Response:
    return web.json_response([error.body] if in_list else error.body, status=error.status)


async def _array(request: web.Request, frames: Sequence[bytes], *, breaks: bool) -> web.StreamResponse:
    """A stream without `alt=sse`: the elements of one JSON array."""
    response = web.StreamResponse(headers={"Content-Type": "application/json; charset=UTF-8"})
    await response.prepare(request)
    for place, frame in enumerate(frames):
        await response.write((b",\r\n" if place else b"[") + frame)
    if not breaks:
        await response.write(b"]")
    return await ended(request, response, breaks=breaks)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
