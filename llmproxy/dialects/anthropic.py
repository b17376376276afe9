"""Anthropic Messages as clients speak it (https://platform.claude.com/docs/en/api/messages).

What has no counterpart in the canonical format goes along in the field `anthropic` of the body, so that an upstream
that speaks this dialect too gets it as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.core.schema import defect
from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_blocks import content_of, read_blocks, read_message
from llmproxy.dialects.anthropic_prompt import tool_input
from llmproxy.dialects.anthropic_stream import (
    AnthropicRenderer,
    error_type,
    message_id,
    refused,
    stop_of,
    usage_body,
)
from llmproxy.dialects.base import Renderer
from llmproxy.dialects.extras import ANTHROPIC, cache_of
from llmproxy.dialects.openai import error_body

# OpenAI refuses a longer `user`; some clients put whole JSON objects there.
_LONGEST_USER = 64
# What an image costs at most (https://platform.claude.com/docs/en/build-with-claude/vision).
_IMAGE_TOKENS = 1600
_SAME = ("model", "models", "temperature", "top_p", "top_k", "stream")
_READ = frozenset(
    {*_SAME, "max_tokens", "messages", "system", "stop_sequences", "tools", "tool_choice", "output_format"}
)
_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
# `max` is Anthropic's word for what others know as xhigh at most.
_EFFORTS: Mapping[str, str] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "xhigh"}


class AnthropicMessages:
    """Implements `base.Inbound`."""

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """A `POST /v1/messages` body as the canonical one; raises `InvalidRequest` with the path of the wrong field."""
        made: JsonObject = {name: body[name] for name in _SAME if body.get(name) is not None}
        made["messages"] = [*_system(body.get("system")), *_messages(body.get("messages"))]
        if body.get("max_tokens") is not None:
            made["max_tokens"] = _positive(body["max_tokens"])
        if body.get("stop_sequences") is not None:
            made["stop"] = _texts(body["stop_sequences"], "stop_sequences")
        if body.get("tools"):
            made["tools"] = _tools(body["tools"])
            made |= _choice(body.get("tool_choice"))
        made |= _form(body) | _effort(body) | _user(body)
        if body.get("stream"):
            made["stream_options"] = {"include_usage": True}
        extras = {name: value for name, value in body.items() if name not in _READ and value is not None}
        if betas := _betas(headers):
            extras["betas"] = betas
        return {**made, ANTHROPIC: extras} if extras else made

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole canonical reply as a `message`."""
        choice = (body.get("choices") or [{}])[0]
        message = choice.get("message") or {}
        verbatim = message.get(ANTHROPIC)
        reason, sequence = stop_of(choice)
        refusal = message.get("refusal")
        made: JsonObject = {
            "id": message_id(body.get("id")),
            "type": "message",
            "role": "assistant",
            "model": str(body.get("model") or ""),
            "content": verbatim if isinstance(verbatim, list) else _content(message),
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage_body(body.get("usage")),
        }
        return made | refused(refusal) if refusal else made

    def renderer(self, request: JsonObject) -> Renderer:
        """For the stream that answers `request`, whose size is told until the real one is known."""
        return AnthropicRenderer(count_tokens(request))

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """The body of an error response, with the attempts where candidates were tried."""
        told = error_body(error)["error"]
        message = error.message
        if error.param and error.param not in message:
            message = f"{error.param}: {message}"
        inner: JsonObject = {"type": error_type(status), "message": message}
        if "attempts" in told:
            inner["attempts"] = told["attempts"]
        return {"type": "error", "error": inner, "request_id": request_id}


def count_tokens(body: JsonObject) -> int:
    """About how many tokens the prompt of a body of `/v1/messages` or `/v1/messages/count_tokens` has."""
    size = _size(body.get("system")) + len(orjson.dumps(body["tools"]) if body.get("tools") else b"")
    messages = body.get("messages")
    listed = messages if isinstance(messages, list) else []
    size += sum(_size(message.get("content")) for message in listed if isinstance(message, dict))
    return 4 * len(listed) + size // CHARACTERS_PER_TOKEN


def models(entries: Iterable[JsonObject]) -> JsonObject:
    """The entries of OpenAI's model list as `GET /v1/models` of Anthropic has them."""
    data = [model_entry(entry) for entry in entries]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}


def model_entry(entry: JsonObject) -> JsonObject:
    """An entry of OpenAI's model list (`created` in seconds) as Anthropic's."""
    created = datetime.fromtimestamp(entry.get("created") or 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {"type": "model", "id": entry["id"], "display_name": entry["id"], "created_at": created}
    return {**made, "max_input_tokens": entry["context_length"]} if entry.get("context_length") else made


# -- the request --------------------------------------------------------------------------------------------------


def _system(system: Any) -> list[JsonObject]:
    if not system:
        return []
    parts = []
    for place, block in enumerate(read_blocks(system, "system")):
        if block["type"] != "text" or not isinstance(block.get("text"), str):
            raise InvalidRequest("system must be text", param=f"system.{place}")
        parts.append({"type": "text", "text": block["text"], **cache_of(block)})
    return [{"role": "system", "content": content_of(parts)}]


def _messages(messages: Any) -> list[JsonObject]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message", param="messages")
    return [made for place, message in enumerate(messages) for made in read_message(message, f"messages.{place}")]


def _tools(tools: Any) -> list[JsonObject]:
    if not isinstance(tools, list):
        raise InvalidRequest("tools must be a list", param="tools")
    return [_tool(tool, f"tools.{place}") for place, tool in enumerate(tools)]


def _tool(tool: Any, path: str) -> JsonObject:
    """A function, or one of Anthropic's own tools as it is: those who do not know it will say so."""
    if not isinstance(tool, dict):
        raise InvalidRequest("a tool must be an object", param=path)
    if tool.get("type") not in (None, "custom"):
        return tool
    if not isinstance(tool.get("name"), str) or not tool["name"]:
        raise InvalidRequest("name must be given", param=f"{path}.name")
    if not isinstance(tool.get("input_schema"), dict):
        raise InvalidRequest("input_schema must be a JSON schema", param=f"{path}.input_schema")
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    function |= {name: tool[name] for name in ("description", "strict") if tool.get(name) is not None}
    made: JsonObject = {"type": "function", "function": function, **cache_of(tool)}
    known = ("type", "name", "input_schema", "description", "strict", "cache_control")
    rest = {name: value for name, value in tool.items() if name not in known}
    return {**made, ANTHROPIC: rest} if rest else made


def _choice(choice: Any) -> JsonObject:
    if choice is None:
        return {}
    kind = str(choice.get("type")) if isinstance(choice, dict) else ""
    if kind == "tool" and isinstance(choice.get("name"), str):
        made: JsonObject = {"tool_choice": {"type": "function", "function": {"name": choice["name"]}}}
    elif kind in _CHOICES:
        made = {"tool_choice": _CHOICES[kind]}
    else:
        raise InvalidRequest("tool_choice must be of the type auto, any, none, or name a tool", param="tool_choice")
    return {**made, "parallel_tool_calls": False} if choice.get("disable_parallel_tool_use") else made


def _form(body: JsonObject) -> JsonObject:
    config = body.get("output_config")
    form, path = (config.get("format"), "output_config.format") if isinstance(config, dict) else (None, "")
    if form is None:
        form, path = body.get("output_format"), "output_format"
    if form is None:
        return {}
    if not isinstance(form, dict) or form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise InvalidRequest("only the type json_schema, with a schema, is known", param=path)
    if problem := defect(form["schema"]):
        raise InvalidRequest(f"not a JSON schema: {problem}", param=f"{path}.schema")
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": form["schema"], "strict": True},
        }
    }


def _effort(body: JsonObject) -> JsonObject:
    """How hard to think, in the canonical word; what was asked for stays in `anthropic` as it is."""
    thinking, config = body.get("thinking"), body.get("output_config")
    if thinking is not None and not isinstance(thinking, dict):
        raise InvalidRequest("thinking must be an object", param="thinking")
    kind = (thinking or {}).get("type")
    if kind in ("disabled", "between_tools"):
        return {"reasoning_effort": "none"}
    if config is not None and not isinstance(config, dict):
        raise InvalidRequest("output_config must be an object", param="output_config")
    word = (config or {}).get("effort")
    if word is not None and (not isinstance(word, str) or word not in _EFFORTS):
        raise InvalidRequest(f"effort must be one of {', '.join(_EFFORTS)}", param="output_config.effort")
    if word is not None:
        return {"reasoning_effort": _EFFORTS[word]}
    if kind != "enabled":
        return {"reasoning_effort": "medium"} if kind == "adaptive" else {}
    budget = (thinking or {}).get("budget_tokens")
    if not isinstance(budget, int):
        raise InvalidRequest("budget_tokens must be an integer", param="thinking.budget_tokens")
    return {"reasoning_effort": "low" if budget < 4096 else "medium" if budget < 16_384 else "high"}


def _user(body: JsonObject) -> JsonObject:
    metadata = body.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return {"user": user} if isinstance(user, str) and user and len(user) <= _LONGEST_USER else {}


def _betas(headers: Mapping[str, str]) -> list[str]:
    given = next((value for name, value in headers.items() if name.lower() == "anthropic-beta"), "")
    return [beta.strip() for beta in given.split(",") if beta.strip()]


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidRequest("max_tokens must be a positive integer", param="max_tokens")
    return value


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidRequest(f"{name} must be a list of strings", param=name)
    return value


def _size(content: Any) -> int:
    """The characters of a system prompt or of a message's content; images count for what they cost at most."""
    if isinstance(content, str):
        return len(content)
    size = 0
    for block in content if isinstance(content, list) else ():
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "image":
            size += _IMAGE_TOKENS * CHARACTERS_PER_TOKEN
        elif kind == "tool_result":
            size += _size(block.get("content"))
        elif kind == "tool_use":
            size += len(str(block.get("name"))) + len(orjson.dumps(block.get("input")))
        elif kind == "document" and isinstance(block.get("source"), dict):
            size += _document_size(block["source"])
        elif kind is not None:
            size += sum(len(value) for key in ("text", "thinking") if isinstance(value := block.get(key), str))
            size += _size(block.get("content"))
    return size


def _document_size(source: JsonObject) -> int:
    if source.get("type") in ("text", "content"):
        return len(str(source.get("data") or "")) + _size(source.get("content"))
    return _IMAGE_TOKENS * CHARACTERS_PER_TOKEN  # pages are read as images; how many there are is not known


# -- the reply ----------------------------------------------------------------------------------------------------


def _content(message: JsonObject) -> list[JsonObject]:
    thought, signed = message.get("reasoning_content"), message.get("thinking_blocks") or []
    blocks: list[JsonObject] = list(signed)
    if thought and not any(block.get("type") == "thinking" for block in signed):
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    text = message.get("content")
    if isinstance(text, str) and text:
        blocks.append({"type": "text", "text": text})
    if message.get("refusal") and not text:
        blocks.append({"type": "text", "text": message["refusal"]})
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        arguments = tool_input(function.get("arguments"))
        blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": arguments})
    return blocks
