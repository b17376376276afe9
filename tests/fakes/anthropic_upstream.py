"""A scripted Anthropic upstream over real HTTP: the model's name says what it plays (see `scenarios.py`)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from aiohttp import web

from tests.fakes import anthropic_replies as replies
from tests.fakes import scenarios
from tests.fakes.threaded import ThreadedServer, half, streamed

KEY = "sk-upstream-0123456789"
VERSION = "2023-06-01"


class AnthropicThread(ThreadedServer):
    """`POST /v1/messages` and `GET /v1/models`."""

    models = scenarios.SCENARIOS

    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/v1/messages", self._messages), web.get("/v1/models", self._models)]

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self.arrived(request)
        return web.json_response(replies.model_list(self.models))

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        record = await self.arrived(request)
        headers = {"request-id": f"req_fake_{len(self.requests)}"}
        try:
            if record.headers.get("x-api-key") != KEY:
                raise replies.Refused(401, "authentication_error", "invalid x-api-key")
            if record.headers.get("anthropic-version") != VERSION:
                raise replies.bad("anthropic-version: header is required")
            found = replies.answer(record.json)
        except replies.Refused as error:
            if error.status == 429:
                headers["retry-after"] = str(scenarios.RETRY_AFTER_S)
            return web.json_response(error.body, status=error.status, headers=headers)
        model = record.json["model"]
        if record.json.get("stream"):
            return await streamed(request, replies.events(found, model), headers, breaks=found.breaks)
        body = replies.whole(found, model)
        if found.breaks:
            return await half(request, json.dumps(body).encode(), headers)
        return web.json_response(body, headers=headers)
