"""Replies of the Messages API → canonical ones (https://platform.claude.com/docs/en/api/messages).

Beyond the OpenAI format a choice has
`native_finish_reason` and `stop_sequence`, a message or a delta `thinking_blocks` (signed, as they must be sent back)
and, for blocks that have no counterpart, `anthropic`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from llmproxy.core.errors import BadReply
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_prompt import tool_input
from llmproxy.dialects.extras import ANTHROPIC

# Tools that are not the client's: calling one is answering, with the arguments or with their field `value`.
ANSWER, VALUE = "llmproxy_answer", "llmproxy_answer_value"
FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_RANKS: Mapping[str, int] = {"thinking": 0, "redacted_thinking": 0, "text": 1, "tool_use": 2}


def read_reply(body: Any, model: str) -> JsonObject:
    """A whole `message` of `model` as a canonical reply; raises `BadReply` where it is none."""
    if not isinstance(body, dict) or not isinstance(body.get("content"), list):
        raise BadReply("the reply is no message: it has no content")
    blocks = body["content"]
    if not all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in blocks):
        raise BadReply("the reply has a content block without a type")
    reason = body.get("stop_reason")
    message = _message(blocks)
    if isinstance(refused := explanation_of(body.get("stop_details")), str):
        message["refusal"] = refused
    choice: JsonObject = {"index": 0, "message": message, **finish_of(reason, body.get("stop_sequence"))}
    if choice["finish_reason"] == "tool_calls" and "tool_calls" not in message:
        choice["finish_reason"] = "stop"
    return {
        "id": str(body.get("id") or ""),
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": usage_of(body.get("usage")),
    }


def usage_of(given: Any) -> JsonObject:
    """Their usage as OpenAI counts: the prompt holds what was read from the cache and what was written to it."""
    usage = given if isinstance(given, dict) else {}
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    prompt, completion = _count(usage, "input_tokens") + read + written, _count(usage, "output_tokens")
    thoughts = _count(usage.get("output_tokens_details"), "thinking_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else 0
    return value if isinstance(value, int) and value > 0 else 0


def explanation_of(details: Any) -> Any:
    return details.get("explanation") if isinstance(details, dict) else None


def finish_of(reason: Any, stop_sequence: Any) -> JsonObject:
    ended: JsonObject = {"finish_reason": FINISH_REASONS.get(str(reason), "stop"), "native_finish_reason": reason}
    return {**ended, "stop_sequence": stop_sequence} if stop_sequence is not None else ended


def _message(blocks: Sequence[JsonObject]) -> JsonObject:
    texts, thoughts, signed, calls = [], [], [], []
    for block in blocks:
        kind = block["type"]
        if kind == "text":
            texts.append(str(block.get("text") or ""))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind == "tool_use" and block.get("name") in (ANSWER, VALUE):
            texts.append(answer_of(block["name"], orjson.dumps(block.get("input") or {}).decode()))
        elif kind == "tool_use":
            calls.append(call_of(block, orjson.dumps(block.get("input") or {}).decode()))
        if is_signed(block):
            signed.append(block)
    message: JsonObject = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if signed:
        message["thinking_blocks"] = signed
    if calls:
        message["tool_calls"] = calls
    if not _is_plain(blocks):
        message[ANTHROPIC] = list(blocks)
    return message


def is_signed(block: Mapping[str, Any]) -> bool:
    return block["type"] == "redacted_thinking" or (block["type"] == "thinking" and bool(block.get("signature")))


def _is_plain(blocks: Sequence[JsonObject]) -> bool:
    """Whether a canonical message tells all of the blocks and their order."""
    ranks = [_RANKS.get(block["type"], 9) for block in blocks]
    cited = any(block.get("citations") for block in blocks)
    answered = any(block.get("name") in (ANSWER, VALUE) for block in blocks)
    return answered or (not cited and 9 not in ranks and ranks == sorted(ranks))


def call_of(block: Mapping[str, Any], arguments: str) -> JsonObject:
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}


def answer_tool(schema: JsonObject, description: str | None) -> JsonObject:
    """The tool whose arguments are the answer; a schema of anything but an object is the field `value` of one."""
    said = description or "Call this with the answer, when nothing else has to be done first."
    if schema.get("type") == "object":
        return {"name": ANSWER, "description": said, "input_schema": schema}
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    inner = {key: value for key, value in schema.items() if key not in definitions}
    whole: JsonObject = {"type": "object", "properties": {"value": inner}, "required": ["value"]}
    return {"name": VALUE, "description": said, "input_schema": whole | definitions}


def answer_of(tool: str, arguments: str) -> str:
    """The content that is meant by a call of `ANSWER` or `VALUE`."""
    value = tool_input(arguments)
    return orjson.dumps(value["value"]).decode() if tool == VALUE and "value" in value else arguments
