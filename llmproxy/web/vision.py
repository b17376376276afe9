"""Describing images: `POST /api/inference/describe` and `/api/inference/crop-describe`.

One image in base64, a prompt, and any model that can see: a candidate, an alias or a pool, else the one of
`inference.vision_model`. Each request is exactly one model call.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence

from aiohttp import web

from llmproxy.core.errors import InvalidRequest, LlmproxyError, Refused
from llmproxy.core.types import Attempt, Call, JsonObject
from llmproxy.dialects.openai import parse_chat
from llmproxy.web.envelope import json_response, response_of
from llmproxy.web.inference import read_json
from llmproxy.web.pictures import part, question, read_crops, read_image, zoomed
from llmproxy.web.state import SERVICES, TRACE
from llmproxy.web.streams import StreamClient, answer_headers

_MOST_SHOWN = 20
_KEPT_STATUSES = (429, 503)
_TOLD = ("x-llmproxy-attempts", "x-llmproxy-trail")
_SCENE = "Describe the image."
_DECODER = json.JSONDecoder()


async def describe(request: web.Request) -> web.StreamResponse:
    """POST /api/inference/describe: {image_b64, prompt, …} → {description, model, usage, elapsed_ms}."""
    begun_s, body = time.perf_counter(), await read_json(request)
    image = await read_image(body.get("image_b64"))
    parts = [{"type": "text", "text": _text(body, "prompt")}, part(image)]
    reply = await _asked(request, body, parts)
    if isinstance(reply, web.StreamResponse):
        return reply
    return _answer(reply, {"description": _content(reply)}, begun_s)


async def crop_describe(request: web.Request) -> web.StreamResponse:
    """POST /api/inference/crop-describe: the scene and each crop, shown large on a sheet of numbered panels."""
    begun_s, body = time.perf_counter(), await read_json(request)
    crops, shown = read_crops(body.get("crops")), _whole(body, "max_crops", _MOST_SHOWN)
    image = await read_image(body.get("image_b64"))
    sheet, labels = await zoomed(image, crops, shown)
    own_form = bool(body.get("response_format"))
    asked = question(_text(body, "scene_prompt"), labels, own_form=own_form)
    parts = [{"type": "text", "text": asked}, part(image)]
    if sheet is not None:
        parts.append(part(sheet))
    reply = await _asked(request, body, parts)
    if isinstance(reply, web.StreamResponse):
        return reply
    text = _content(reply)
    # The client's own format: its answer is its affair, and goes back as it is.
    found = None if own_form else _found(text, labels)
    return _answer(reply, found or {"description": text, "entities": None, "crop_descriptions": []}, begun_s)


class _Reply:
    """Who answered what, with the headers that tell why."""

    def __init__(self, body: JsonObject, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = headers


async def _asked(request: web.Request, body: JsonObject, parts: list[JsonObject]) -> _Reply | web.StreamResponse:
    """The one call; a response where it failed in a way that has a meaning of its own here."""
    services, current = request.app[SERVICES], request[TRACE]
    call = _call(current.id, body, parts, services.config().inference.vision_model)
    current.call = call
    try:
        found = await services.dispatcher.answer(call, StreamClient(request, current.id))
    except LlmproxyError as error:
        current.attempts = tuple(error.attempts)
        return _failed(error)
    current.answer = found
    assert found.reply is not None
    headers = answer_headers(found.candidate, found.reason, found.attempts, call.unheard, found.reply.headers)
    reply = _Reply(found.reply.body, headers)
    if reply.body["choices"][0].get("finish_reason") == "content_filter":
        return _moderated("the answer was withheld by a content filter", reply.headers)
    return reply


def _call(call_id: str, body: JsonObject, parts: list[JsonObject], default: str) -> Call:
    model, extra = body.get("model") or default, body.get("extra_body")
    extra = {} if extra is None else extra
    if not isinstance(extra, dict):
        raise InvalidRequest("extra_body must be an object", param="extra_body")
    made = {**extra, "model": model, "messages": [{"role": "user", "content": parts}], "stream": False}
    made |= {name: body[name] for name in ("response_format", "max_tokens") if body.get(name) is not None}
    return parse_chat(made, call_id)


def _failed(error: LlmproxyError) -> web.StreamResponse:
    """Moderation is 422; what every candidate refused with 429 or 503 keeps that status; the rest is as anywhere."""
    response = response_of(error)
    refused = error if isinstance(error, Refused) else error.__cause__
    if isinstance(refused, Refused) and refused.kind == "content_filter":
        return _moderated(refused.message, {name: response.headers[name] for name in _TOLD if name in response.headers})
    statuses = {attempt.status for attempt in error.attempts}
    if len(statuses) == 1 and (status := statuses.pop()) in _KEPT_STATUSES:
        response.set_status(status)
        waits = _waits_s(error.attempts)
        if waits and "Retry-After" not in response.headers:
            response.headers["Retry-After"] = str(math.ceil(min(waits)))
    return response


def _moderated(message: str, headers: Mapping[str, str]) -> web.Response:
    told = {"message": message, "type": "invalid_request_error", "param": None, "code": "moderated"}
    return json_response({"error": told, "moderated": True}, 422, headers)


def _waits_s(attempts: Sequence[Attempt]) -> list[float]:
    return [attempt.retry_after_s for attempt in attempts if attempt.retry_after_s is not None]


def _answer(reply: _Reply, found: JsonObject, begun_s: float) -> web.Response:
    elapsed_ms = round((time.perf_counter() - begun_s) * 1000)
    told = {"model": reply.body["model"], "usage": reply.body.get("usage"), "elapsed_ms": elapsed_ms}
    return json_response({**found, **told}, headers=reply.headers)


def _content(reply: _Reply) -> str:
    message = reply.body["choices"][0]["message"]
    return str(message.get("content") or message.get("refusal") or "")


def _found(text: str, labels: list[JsonObject]) -> JsonObject | None:
    """What the answer tells apart: its first JSON object; None for prose, and for JSON that broke off."""
    try:
        said, _ = _DECODER.raw_decode(text, text.index("{"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(said.get("description"), str):
        return None
    told = said.get("crop_descriptions")
    pairs = zip(labels, told if isinstance(told, list) else (), strict=False)
    return {
        "description": said["description"],
        "entities": said.get("entities"),
        "crop_descriptions": [{**label, "description": one} for label, one in pairs],
    }


def _text(body: JsonObject, name: str) -> str:
    value = body.get(name)
    if value is None:
        return _SCENE
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{name} must be a text", param=name)
    return value


def _whole(body: JsonObject, name: str, most: int) -> int:
    value = body.get(name)
    if value is None:
        return most
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise InvalidRequest(f"{name} must be a whole number from 0 to {most}", param=name)
    return value
