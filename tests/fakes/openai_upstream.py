"""A strict OpenAI upstream over real HTTP that plays `scenarios.py`: what the API does not define is refused.

`upstream.py` is its lenient sister, with many more faults.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes import scenarios
from tests.fakes.threaded import ThreadedServer, half, streamed

Json = dict[str, Any]

KEY = "sk-upstream-0123456789"
CALL_IDS = tuple(f"call_{city.lower()}" for city in scenarios.CITIES)
WITHHELD = "I cannot help with that."
CREATED = 1_700_000_000

_FIELDS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {
            "model", "messages", "stream", "stream_options", "temperature", "top_p", "max_tokens", "stop", "tools",
            "max_completion_tokens", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
            "user", "n", "seed", "metadata", "store", "logprobs", "top_logprobs", "presence_penalty",
            "frequency_penalty", "service_tier", "verbosity", "prompt_cache_key", "safety_identifier",
        }
    ),
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "tool_calls", "refusal"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
    "file": frozenset({"type", "file"}),
    "call": frozenset({"id", "type", "function"}),
    "function": frozenset({"type", "function"}),
}  # fmt: skip


class Refused(Exception):
    """An error status with its body in OpenAI's shape."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"message": message, "type": kind, "param": None, "code": code}}


@dataclass(frozen=True, slots=True)
class Answer:
    """The message's fields, how it ended, and how many tokens were thoughts and how many came from the cache."""

    message: Json = field(default_factory=dict)
    finish: str = "stop"
    thought_tokens: int = 0
    cached_tokens: int = 0
    breaks: bool = False

    def usage(self) -> Json:
        prompt, completion = scenarios.PROMPT_TOKENS, scenarios.COMPLETION_TOKENS
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.thought_tokens},
        }


class OpenAiThread(ThreadedServer):
    """`POST /v1/chat/completions` and `GET /v1/models`."""

    models = scenarios.SCENARIOS

    def routes(self) -> Iterable[web.RouteDef]:
        return [web.post("/v1/chat/completions", self._chat), web.get("/v1/models", self._models)]

    async def _models(self, request: web.Request) -> web.StreamResponse:
        await self.arrived(request)
        data = [{"id": name, "object": "model", "created": CREATED, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        record = await self.arrived(request)
        headers = {"x-request-id": f"req_fake_{len(self.requests)}"}
        try:
            if record.key != KEY:
                raise Refused(401, "Incorrect API key provided", code="invalid_api_key")
            found = answer(record.json)
        except Refused as error:
            if error.status == 429:
                headers["retry-after"] = str(scenarios.RETRY_AFTER_S)
            return web.json_response(error.body, status=error.status, headers=headers)
        if record.json.get("stream"):
            return await streamed(request, events(found, record.json), headers, breaks=found.breaks)
        body = whole(found, record.json["model"])
        if found.breaks:
            return await half(request, json.dumps(body).encode(), headers)
        return web.json_response(body, headers=headers)


def answer(body: Json) -> Answer:
    """The answer to a request; raises `Refused`."""
    check(body)
    greeting = scenarios.greeting("OpenAI")
    match scenarios.scenario_of(body["model"]):
        case "tools":
            return _weather(body)
        case "image":
            return _said(scenarios.COLOUR if _shows(body["messages"]) else scenarios.NO_IMAGE)
        case "schema":
            return _said(json.dumps(scenarios.PERSON) if _follows(body) else scenarios.NO_SCHEMA)
        case "refused":
            raise Refused(429, scenarios.REFUSAL, "requests", "rate_limit_exceeded")
        case "cut":
            return Answer(_said(scenarios.BEFORE_THE_CUT).message, breaks=True)
        case "thinks":
            message = {"reasoning_content": scenarios.THOUGHT, "content": scenarios.DONE}
            return Answer(message, thought_tokens=scenarios.REASONING_TOKENS, cached_tokens=scenarios.CACHED_TOKENS)
        case "declined":
            return Answer({"refusal": WITHHELD})
        case "long":
            return Answer(_said(greeting).message, "length")
    return _said(greeting)


def whole(found: Answer, model: str) -> Json:
    """A `chat.completion`."""
    message = {"role": "assistant", "content": None, "refusal": None, **found.message}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": found.finish}
    return {**_head(model, "chat.completion"), "choices": [choice], "usage": found.usage()}


def events(found: Answer, body: Json) -> Iterator[bytes]:
    """The events of a stream, everything in two pieces; without the end where the answer breaks."""
    head = _head(body["model"], "chat.completion.chunk")

    def event(delta: Json, finish: str | None = None) -> bytes:
        return _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield event({"role": "assistant", "content": ""})
    for name in ("reasoning_content", "content", "refusal"):
        if text := found.message.get(name):
            yield event({name: text[: len(text) // 2]})
            yield event({name: text[len(text) // 2 :]})
    for index, call in enumerate(found.message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        yield event({"tool_calls": [{**call, "index": index, "function": {**call["function"], "arguments": ""}}]})
        for piece in (arguments[:5], arguments[5:]):
            yield event({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if found.breaks:
        return
    yield event({}, found.finish)
    if (body.get("stream_options") or {}).get("include_usage"):
        yield _event({**head, "choices": [], "usage": found.usage()})
    yield b"data: [DONE]\n\n"


def _head(model: str, kind: str) -> Json:
    return {"id": "chatcmpl-fake", "object": kind, "created": CREATED, "model": model}


def _event(body: Json) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()


# -- scenarios ----------------------------------------------------------------------------------------------------


def _said(text: str) -> Answer:
    return Answer({"content": text})


def _weather(body: Json) -> Answer:
    """Both calls, or what their results add up to."""
    tools = [tool["function"] for tool in body.get("tools") or ()]
    tool = next((tool for tool in tools if tool["name"] == scenarios.TOOL), None)
    if tool is None or "city" not in tool["parameters"].get("properties", {}):
        raise Refused(400, f"the fake wants the function {scenarios.TOOL} with a city")
    asked = [message for message in body["messages"] if message.get("tool_calls")]
    if not asked or body["messages"][-1]["role"] != "tool":
        calls = [
            {
                "id": one,
                "type": "function",
                "function": {"name": scenarios.TOOL, "arguments": json.dumps({"city": city})},
            }
            for one, city in zip(CALL_IDS, scenarios.CITIES, strict=True)
        ]
        return Answer({"tool_calls": calls}, "tool_calls")
    results = {
        message["tool_call_id"]: json.dumps(message["content"])
        for message in body["messages"]
        if message["role"] == "tool"
    }
    for call, degrees in zip(asked[-1]["tool_calls"], scenarios.TEMPERATURES, strict=True):
        if degrees not in results[call["id"]]:
            raise Refused(400, f"the result of {call['id']} is not {degrees}: {results}")
    return _said(scenarios.WEATHER)


def _shows(messages: Sequence[Json]) -> bool:
    """Whether a message of the user holds the image's bytes under their media type."""
    wanted = f"data:{scenarios.IMAGE_TYPE};base64,{base64.b64encode(scenarios.IMAGE).decode()}"
    parts = [part for message in messages if message["role"] == "user" for part in _parts(message)]
    return any(part["type"] == "image_url" and part["image_url"]["url"] == wanted for part in parts)


def _follows(body: Json) -> bool:
    """Whether the request asks for `SCHEMA`."""
    form = body.get("response_format") or {}
    return form.get("type") == "json_schema" and scenarios.is_schema(form["json_schema"].get("schema"))


# -- what is refused ----------------------------------------------------------------------------------------------


def check(body: Json) -> None:
    """Raise `Refused` for what the API does not define, and for calls without results or results without calls."""
    _known(body, "", "")
    if not body.get("messages"):
        raise Refused(400, "messages must not be empty")
    waiting: list[str] = []
    for place, message in enumerate(body["messages"]):
        path = f"messages[{place}]"
        if message["role"] not in _FIELDS:
            raise Refused(400, f"Invalid value: {message['role']!r} at {path}.role")
        _known(message, message["role"], path)
        for part in _parts(message):
            _known(part, part["type"], f"{path}.content")
            if part["type"] != "text" and message["role"] != "user":
                raise Refused(400, f"{path}: only text is supported in messages of the role {message['role']}")
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                raise Refused(400, f"{path}: no call has the id {message['tool_call_id']}")
            waiting.remove(message["tool_call_id"])
        elif waiting:
            raise Refused(400, f"{path}: tool_call_ids did not have response messages: {', '.join(waiting)}")
        for call in message.get("tool_calls") or ():
            _known(call, "call", f"{path}.tool_calls")
            json.loads(call["function"]["arguments"])
            waiting.append(call["id"])
    if waiting:
        raise Refused(400, f"tool_call_ids did not have response messages: {', '.join(waiting)}")
    for place, tool in enumerate(body.get("tools") or ()):
        _known(tool, tool["type"], f"tools[{place}]")


def _parts(message: Json) -> list[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _known(value: Json, name: str, path: str) -> None:
    if name not in _FIELDS or (unknown := sorted(value.keys() - _FIELDS[name])):
        found = f"{path}.{unknown[0]}" if name in _FIELDS else f"{path}: {name}"
        raise Refused(400, f"Unrecognized request argument supplied: {found}", code="unknown_parameter")
