"""Canonical messages → the system prompt and the turns of a Messages request.

All system messages are gathered at the beginning. Turns of one role are one turn; results of tools come first in
theirs. Text that is empty is left out: the API refuses it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.core.types import JsonObject
from llmproxy.dialects.extras import ANTHROPIC, cache_of

_THOUGHTS = ("thinking", "redacted_thinking")
# Ids of tool calls come from any provider (`functions.weather:0`); these are the characters that Anthropic takes.
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


@dataclass(slots=True)
class Prompt:
    """`system` and `turns` as they are sent; `unheard` names what of the messages cannot be told."""

    system: list[JsonObject] = field(default_factory=list)
    turns: list[JsonObject] = field(default_factory=list)
    unheard: set[str] = field(default_factory=set)

    @property
    def lacks_thoughts(self) -> bool:
        """Whether the last answer called tools without signed thoughts: manual thinking cannot go on from there."""
        answers = [turn["content"] for turn in self.turns if turn["role"] == "assistant"]
        last = answers[-1] if answers and self.turns[-1]["role"] == "user" else []
        return any(block["type"] == "tool_use" for block in last) and last[0]["type"] not in _THOUGHTS

    def add(self, role: str, blocks: Sequence[JsonObject]) -> None:
        """More of a turn, or a new one."""
        if not blocks:
            return
        if not self.turns or self.turns[-1]["role"] != role:
            self.turns.append({"role": role, "content": []})
        self.turns[-1]["content"] += blocks

    def close(self) -> None:
        """Put the turns in the order that the API asks for."""
        for turn in self.turns:
            if turn["role"] == "user":
                turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        last = self.turns[-1] if self.turns else None
        if last is not None and last["role"] == "assistant" and last["content"][-1]["type"] == "text":
            # An answer that is to be continued must not end in white space.
            block = last["content"][-1]
            last["content"][-1] = {**block, "text": block["text"].rstrip()}


def read_messages(messages: Sequence[JsonObject]) -> Prompt:
    """The whole conversation; raises `InvalidRequest` and `UnsupportedParameter` with the path of what is wrong."""
    prompt = Prompt()
    for place, message in enumerate(messages):
        _read(message, f"messages.{place}", prompt)
    prompt.close()
    return prompt


def _source(url: Any, path: str) -> JsonObject:
    """The source of an image or a document: `url` is one of the web or holds the data itself."""
    if not isinstance(url, str) or not url:
        raise InvalidRequest("url must be given", param=path)
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise InvalidRequest("a data URL must be encoded in base64", param=path)
    return {"type": "base64", "media_type": head[5:].partition(";")[0], "data": data}


def tool_input(arguments: Any) -> JsonObject:
    """The arguments of a call as the object that Anthropic wants; what is none is wrapped, so that nothing is lost."""
    if isinstance(arguments, dict):
        return arguments
    if not arguments:
        return {}
    try:
        value = orjson.loads(arguments)
    except (orjson.JSONDecodeError, TypeError):
        value = None
    return value if isinstance(value, dict) else {"arguments": arguments}


def _read(message: JsonObject, path: str, prompt: Prompt) -> None:
    role = message["role"]
    if message.get("name"):
        prompt.unheard.add("messages.name")
    if role in ("system", "developer"):
        prompt.system += _content(message, path, prompt)
    elif role == "user":
        prompt.add("user", _content(message, path, prompt))
    elif role == "assistant":
        prompt.add("assistant", _answer(message, path, prompt))
    elif role == "tool":
        prompt.add("user", [_result(message, path, prompt)])
    else:
        raise UnsupportedParameter(f"messages of the role {role} are not supported", param=f"{path}.role")


def _content(message: JsonObject, path: str, prompt: Prompt) -> list[JsonObject]:
    given = message.get("content")
    parts = [{"type": "text", "text": given}] if isinstance(given, str) else given or []
    if parts and (cache := cache_of(message)):
        parts = [*parts[:-1], {**parts[-1], **cache}]
    return [block for place, part in enumerate(parts) for block in _blocks(part, f"{path}.content.{place}", prompt)]


def _blocks(part: JsonObject, path: str, prompt: Prompt) -> Iterator[JsonObject]:
    """A content part as a block; none for empty text."""
    cache = cache_of(part)
    kind = part.get("type")
    if part.get(ANTHROPIC) == {}:
        return
    if _is_block(part.get(ANTHROPIC)):
        yield part[ANTHROPIC]
    elif kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise InvalidRequest(f"{kind} must be a string", param=f"{path}.{kind}")
        if text.strip():
            yield {"type": "text", "text": text, **cache}
    elif kind == "image_url":
        holder = part.get("image_url")
        url = holder.get("url") if isinstance(holder, dict) else holder
        if isinstance(holder, dict) and holder.get("detail") not in (None, "auto"):
            prompt.unheard.add("messages.content.image_url.detail")
        yield {"type": "image", "source": _source(url, f"{path}.image_url.url"), **cache}
    elif kind == "file" and isinstance(part.get("file"), dict):
        yield {**_document(part["file"], path), **cache}
    else:
        raise UnsupportedParameter(f"content parts of the type {kind} are not supported", param=path)


def _document(file: JsonObject, path: str) -> JsonObject:
    title = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    if file.get("file_data"):
        source = _source(file["file_data"], f"{path}.file.file_data")
        if source.get("media_type", "").startswith("text/"):
            source = {"type": "text", "media_type": "text/plain", "data": _decoded(source["data"], path)}
        return {"type": "document", "source": source, **title}
    if not isinstance(file.get("file_id"), str):
        raise InvalidRequest("a file needs file_data or file_id", param=f"{path}.file")
    return {"type": "document", "source": {"type": "file", "file_id": file["file_id"]}, **title}


def _decoded(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError as error:
        raise InvalidRequest(f"the file is no text in base64: {error}", param=f"{path}.file.file_data") from error


def _answer(message: JsonObject, path: str, prompt: Prompt) -> list[JsonObject]:
    if isinstance(given := message.get(ANTHROPIC), list) and all(map(_is_block, given)):
        return list(given)
    if message.get("function_call") or message.get("audio"):
        name = "function_call" if message.get("function_call") else "audio"
        raise UnsupportedParameter(f"{name} is not supported", param=f"{path}.{name}")
    given = message.get("thinking_blocks")
    thoughts = [block for block in given if _is_signed(block)] if isinstance(given, list) else []
    if message.get("reasoning_content") and not thoughts:
        prompt.unheard.add("messages.reasoning_content")  # without a signature it is refused
    blocks = [*thoughts, *_content(message, path, prompt)]
    if isinstance(message.get("refusal"), str) and message["refusal"].strip():
        blocks.append({"type": "text", "text": message["refusal"]})
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise InvalidRequest("tool_calls must be a list", param=f"{path}.tool_calls")
    for place, call in enumerate(calls):
        blocks.append(_call(call, f"{path}.tool_calls.{place}"))
    return blocks


def _is_block(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


def _is_signed(block: Any) -> bool:
    if not _is_block(block) or block["type"] not in _THOUGHTS:
        return False
    return bool(block.get("signature" if block["type"] == "thinking" else "data"))


def _call(call: Any, path: str) -> JsonObject:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise UnsupportedParameter("only calls of functions are supported", param=path)
    return {
        "type": "tool_use",
        "id": _id(call.get("id"), f"{path}.id"),
        "name": function["name"],
        "input": tool_input(function.get("arguments")),
        **cache_of(call),
    }


def _result(message: JsonObject, path: str, prompt: Prompt) -> JsonObject:
    if _is_block(message.get(ANTHROPIC)):
        return dict(message[ANTHROPIC])
    call_id = _id(message.get("tool_call_id"), f"{path}.tool_call_id")
    block: JsonObject = {"type": "tool_result", "tool_use_id": call_id, **cache_of(message)}
    content = {key: value for key, value in message.items() if key != "cache_control"}
    if blocks := _content(content, path, prompt):
        is_text = len(blocks) == 1 and blocks[0].keys() == {"type", "text"}
        block["content"] = blocks[0]["text"] if is_text else blocks
    if message.get("is_error"):
        block["is_error"] = True
    return block


def _id(value: Any, path: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidRequest("an id must be given", param=path)
    return _NOT_IN_IDS.sub("_", value)
