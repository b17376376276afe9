"""The Messages API, pure: what it refuses, and what the scenarios of `scenarios.py` answer in it.

A request is read as strictly as Anthropic reads it: unknown fields, empty texts, odd ids, and calls without results in
the next turn are refused in its words.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.fakes import scenarios

Json = dict[str, Any]

CALL_IDS = tuple(f"toolu_{city.lower()}" for city in scenarios.CITIES)
SIGNATURE = "signed-by-the-fake"
EXPLANATION = "This is withheld."
MESSAGE_ID = "msg_fake"

_FIELDS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        {
            "model", "messages", "max_tokens", "system", "stream", "temperature", "top_p", "top_k", "stop_sequences",
            "tools", "tool_choice", "thinking", "metadata", "output_config", "service_tier", "cache_control",
            "context_management", "container", "mcp_servers", "inference_geo",
        }
    ),
    "message": frozenset({"role", "content"}),
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control"}),
    "document": frozenset({"type", "source", "title", "context", "citations", "cache_control"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "redacted_thinking": frozenset({"type", "data"}),
    "tool": frozenset({"type", "name", "description", "input_schema", "cache_control", "strict"}),
}  # fmt: skip
_ID = re.compile(r"[a-zA-Z0-9_-]+")


class Refused(Exception):
    """An error status with its body in Anthropic's shape."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The content blocks, why it ended, and how many tokens of it were thoughts and of the prompt from the cache."""

    blocks: tuple[Json, ...]
    stop_reason: str = "end_turn"
    thought_tokens: int = 0
    cached_tokens: int = 0
    breaks: bool = False

    def usage(self) -> Json:
        """`usage`: what came from the cache is counted beside the other input."""
        found: Json = {
            "input_tokens": scenarios.PROMPT_TOKENS - self.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self.cached_tokens,
            "output_tokens": scenarios.COMPLETION_TOKENS,
            "service_tier": "standard",
        }
        return found | (
            {"output_tokens_details": {"thinking_tokens": self.thought_tokens}} if self.thought_tokens else {}
        )

    def ending(self) -> Json:
        """Why it ended, in the fields that tell it."""
        found: Json = {"stop_reason": self.stop_reason, "stop_sequence": None}
        if self.stop_reason == "refusal":
            found["stop_details"] = {"type": "refusal", "category": None, "explanation": EXPLANATION}
        return found


def bad(message: str) -> Refused:
    """400 for what the request says."""
    return Refused(400, "invalid_request_error", message)


def answer(body: Json) -> Answer:
    """The answer to a request; raises `Refused`."""
    check(body)
    check_results(body["messages"])
    greeting = scenarios.greeting("Anthropic")
    match scenarios.scenario_of(body["model"]):
        case "tools":
            return _weather(body)
        case "image":
            return _said(scenarios.COLOUR if _shows(body) else scenarios.NO_IMAGE)
        case "schema":
            return _person(body)
        case "refused":
            raise Refused(429, "rate_limit_error", scenarios.REFUSAL)
        case "cut":
            return Answer(_said(scenarios.BEFORE_THE_CUT).blocks, breaks=True)
        case "thinks":
            thought = {"type": "thinking", "thinking": scenarios.THOUGHT, "signature": SIGNATURE}
            blocks = (thought, *_said(scenarios.DONE).blocks)
            return Answer(blocks, thought_tokens=scenarios.REASONING_TOKENS, cached_tokens=scenarios.CACHED_TOKENS)
        case "declined":
            return Answer((), "refusal")
        case "long":
            return Answer(_said(greeting).blocks, "max_tokens")
    return _said(greeting)


def whole(found: Answer, model: str) -> Json:
    """A `message`."""
    return {**_head(model), "content": list(found.blocks), **found.ending(), "usage": found.usage()}


def events(found: Answer, model: str) -> Iterator[bytes]:
    """The events of a stream, each block in pieces; without the end where the answer breaks."""
    begun = {**found.usage(), "output_tokens": 1}
    message = {**_head(model), "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
    yield _event("message_start", message=message)
    yield _event("ping")
    for index, block in enumerate(found.blocks):
        empty, deltas = _pieces(block)
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in deltas:
            yield _event("content_block_delta", index=index, delta=delta)
        if found.breaks:
            return
        yield _event("content_block_stop", index=index)
    usage = {name: count for name, count in found.usage().items() if name.startswith("output_")}
    yield _event("message_delta", delta=found.ending(), usage=usage)
    yield _event("message_stop")


def model_list(models: Sequence[str]) -> Json:
    """`GET /v1/models`."""
    data = [
        {"type": "model", "id": name, "display_name": name.title(), "created_at": "2026-01-01T00:00:00Z"}
        for name in models
    ]
    return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}


def _head(model: str) -> Json:
    return {"id": MESSAGE_ID, "type": "message", "role": "assistant", "model": model}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _pieces(block: Json) -> tuple[Json, list[Json]]:
    """(the block as it begins, the deltas that fill it)."""
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": text} for text in _halves(block["text"])]
    if block["type"] == "thinking":
        deltas: list[Json] = [{"type": "thinking_delta", "thinking": text} for text in _halves(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    pieces = ["", *_halves(json.dumps(block["input"]))]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text} for text in pieces]


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


# -- scenarios ----------------------------------------------------------------------------------------------------


def _said(text: str) -> Answer:
    return Answer(({"type": "text", "text": text},))


def _weather(body: Json) -> Answer:
    """Both calls, or what their results add up to."""
    tool = next((tool for tool in body.get("tools") or () if tool["name"] == scenarios.TOOL), None)
    if tool is None or "city" not in tool["input_schema"].get("properties", {}):
        raise bad(f"the fake wants the tool {scenarios.TOOL} with a city")
    asked = body["messages"][-2] if len(body["messages"]) > 1 else {}
    given = [block["id"] for block in _blocks(asked) if block["type"] == "tool_use" and block["name"] == scenarios.TOOL]
    if not given:
        blocks = [
            {"type": "tool_use", "id": one, "name": scenarios.TOOL, "input": {"city": city}}
            for one, city in zip(CALL_IDS, scenarios.CITIES, strict=True)
        ]
        return Answer(tuple(blocks), "tool_use")
    results = {
        block["tool_use_id"]: json.dumps(block.get("content"))
        for block in _blocks(body["messages"][-1])
        if block["type"] == "tool_result"
    }
    for call_id, degrees in zip(given, scenarios.TEMPERATURES, strict=True):
        if degrees not in results[call_id]:
            raise bad(f"the result of {call_id} is not {degrees}: {results[call_id][:200]}")
    return _said(scenarios.WEATHER)


def _shows(body: Json) -> bool:
    """Whether the request holds the image's bytes under their media type."""
    data = base64.b64encode(scenarios.IMAGE).decode()
    wanted = {"type": "base64", "media_type": scenarios.IMAGE_TYPE, "data": data}
    return any(
        block["type"] == "image" and block["source"] == wanted
        for message in body["messages"]
        for block in _blocks(message)
    )


def _person(body: Json) -> Answer:
    """The person, in the form in which the request asks for it: `output_config.format`, or a tool that it forces."""
    form = (body.get("output_config") or {}).get("format")
    if form is not None:
        fits = form["type"] == "json_schema" and scenarios.is_schema(form["schema"])
        return _said(json.dumps(scenarios.PERSON) if fits else scenarios.NO_SCHEMA)
    choice = body.get("tool_choice") or {}
    for tool in body.get("tools") or ():
        if scenarios.is_schema(tool["input_schema"]) and choice.get("name") == tool["name"]:
            block = {"type": "tool_use", "id": "toolu_person", "name": tool["name"], "input": scenarios.PERSON}
            return Answer((block,), "tool_use")
    return _said(scenarios.NO_SCHEMA)


# -- what is refused ----------------------------------------------------------------------------------------------


def check(body: Any) -> None:
    """Raise `Refused` for what the API does not define or does not take."""
    if not isinstance(body, dict):
        raise bad("the body must be an object")
    _known(body, "", "")
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        raise bad("max_tokens: Field required")
    if not body.get("messages"):
        raise bad("messages: at least one message is required")
    for place, message in enumerate(body["messages"]):
        _known(message, "message", f"messages.{place}.")
        if message["role"] not in ("user", "assistant"):
            raise bad(f"messages.{place}.role: Input should be 'user' or 'assistant'")
        for number, block in enumerate(_blocks(message)):
            _check_block(block, f"messages.{place}.content.{number}")
    if body["messages"][0]["role"] != "user":
        raise bad('messages: first message must use the "user" role')
    for number, block in enumerate(body["system"] if isinstance(body.get("system"), list) else ()):
        _check_block(block, f"system.{number}")
    for number, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") in (None, "custom"):
            _known(tool, "tool", f"tools.{number}.")
            if tool.get("input_schema", {}).get("type") != "object":
                raise bad(f"tools.{number}.custom.input_schema.type: Field required")
    _check_thinking(body)


def _check_thinking(body: Json) -> None:
    thinking = body.get("thinking") or {}
    if thinking.get("type") != "enabled":
        return
    if not 1024 <= thinking.get("budget_tokens", 0) < body["max_tokens"]:
        raise bad("`max_tokens` must be greater than `thinking.budget_tokens`")
    if body.get("temperature", 1) != 1 or "top_k" in body:
        raise bad("`temperature` may only be set to 1 when thinking is enabled")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        raise bad("Thinking may not be enabled when tool_choice forces tool use.")


def check_results(messages: Sequence[Json]) -> None:
    """Raise `Refused` where calls and the results of the next turn do not pair up."""
    for place, (before, message) in enumerate(zip([None, *messages], messages, strict=False)):
        calls = [block["id"] for block in _blocks(before or {}) if block["type"] == "tool_use"]
        blocks = _blocks(message)
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if missing := sorted(set(calls) - set(results)):
            raise bad(
                f"messages.{place - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}."
            )
        if unexpected := sorted(set(results) - set(calls)):
            raise bad(f"messages.{place}: unexpected `tool_use_id` found in `tool_result` blocks: {unexpected[0]}.")
        kinds = [block["type"] == "tool_result" for block in blocks]
        if kinds != sorted(kinds, reverse=True):
            raise bad(f"messages.{place}: `tool_result` blocks must come first")


def _check_block(block: Json, path: str) -> None:
    kind = block.get("type")
    if kind not in _FIELDS or kind in ("", "message", "tool"):
        raise bad(f"{path}: Input tag {kind!r} found using 'type' does not match any of the expected tags")
    _known(block, str(kind), f"{path}.{kind}.")
    if kind == "text" and not block["text"].strip():
        raise bad("messages: text content blocks must be non-empty")
    if kind in ("tool_use", "tool_result"):
        name = "id" if kind == "tool_use" else "tool_use_id"
        if not _ID.fullmatch(block[name]):
            raise bad(f"{path}.{kind}.{name}: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if kind == "thinking" and block.get("signature") != SIGNATURE:
        raise bad(f"{path}: Invalid `signature` in `thinking` block")
    if kind == "tool_result" and isinstance(block.get("content"), list):
        for number, inner in enumerate(block["content"]):
            _check_block(inner, f"{path}.content.{number}")


def _known(value: Json, name: str, path: str) -> None:
    if unknown := sorted(value.keys() - _FIELDS[name]):
        raise bad(f"{path}{unknown[0]}: Extra inputs are not permitted")


def _blocks(message: Json) -> list[Json]:
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
