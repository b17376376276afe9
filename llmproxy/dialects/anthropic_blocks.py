"""The messages of a Messages request → canonical messages (https://platform.claude.com/docs/en/api/messages).

A turn of the user becomes the results of tools, a message each, and then what the user says, with the images that came
with results: only there can everybody see them. A block that says more than its canonical part is kept in the part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_replies import is_signed
from llmproxy.dialects.extras import ANTHROPIC, cache_of

# Made by tools that Anthropic runs: for anybody else they are text of the conversation.
_SERVER_BLOCKS = frozenset(
    {
        "server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
        "bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result",
        "mcp_tool_use", "mcp_tool_result", "advisor_tool_result", "container_upload", "tool_reference", "compaction",
    }
)  # fmt: skip
_RANKS: Mapping[str, int] = {"thinking": 0, "redacted_thinking": 0, "tool_use": 2}


def read_message(message: Any, path: str) -> list[JsonObject]:
    """One of `messages` as the canonical messages that it makes; raises `InvalidRequest` with the path of a field."""
    if not isinstance(message, dict):
        raise InvalidRequest("a message must be an object", param=path)
    role = message.get("role")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest("role must be user, assistant or system", param=f"{path}.role")
    blocks = read_blocks(message.get("content"), f"{path}.content")
    if role == "assistant":
        return [_answer(blocks, f"{path}.content")]
    if role == "system":
        return [{"role": "system", "content": content_of(_parts(blocks, f"{path}.content"))}]
    return _turn(blocks, f"{path}.content")


def read_blocks(content: Any, path: str) -> list[JsonObject]:
    """Content as blocks, which it may be already."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise InvalidRequest("content must be a string or a list of blocks", param=path)
    for place, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise InvalidRequest("a content block must be an object with a type", param=f"{path}.{place}")
    return content


def content_of(parts: list[JsonObject]) -> Any:
    """Parts as they are told in a message: one text of which nothing else is said is a string."""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _turn(blocks: list[JsonObject], path: str) -> list[JsonObject]:
    results: list[JsonObject] = []
    said: list[JsonObject] = []
    for place, block in enumerate(blocks):
        where = f"{path}.{place}"
        if block["type"] == "tool_result":
            result, images = _result(block, where)
            results.append(result)
            said += images
        else:
            said += _part(block, where)
    return [*results, {"role": "user", "content": content_of(said)}] if said or not results else results


def _result(block: JsonObject, path: str) -> tuple[JsonObject, list[JsonObject]]:
    """(the message of a tool, the images of its result as the user's)."""
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str) or not call_id:
        raise InvalidRequest("tool_use_id must be given", param=f"{path}.tool_use_id")
    inner = read_blocks(block.get("content") or "", f"{path}.content")
    parts = _parts(inner, f"{path}.content")
    seen = [part for part in parts if part["type"] != "text"]
    message: JsonObject = {
        "role": "tool",
        "tool_call_id": call_id,
        "content": content_of([part for part in parts if part["type"] == "text"]) or "",
        **cache_of(block),
    }
    if block.get("is_error"):
        message["is_error"] = True
    if not seen:
        return message, []
    shown = [{"type": "text", "text": f"What {call_id} gave:"}, *seen]
    return {**message, ANTHROPIC: block}, [{**part, ANTHROPIC: {}} for part in shown]


def _parts(blocks: list[JsonObject], path: str) -> list[JsonObject]:
    return [part for place, block in enumerate(blocks) for part in _part(block, f"{path}.{place}")]


def _part(block: JsonObject, path: str) -> list[JsonObject]:
    """A block of a user, of a system prompt or of a result as content parts."""
    kind = block["type"]
    if kind == "text":
        part = {"type": "text", "text": _text(block, "text", path), **cache_of(block)}
        return [{**part, ANTHROPIC: block} if block.get("citations") else part]
    if kind == "image":
        return [{**_image(block, path), **cache_of(block)}]
    if kind == "document":
        return _document(block, path)
    if kind == "search_result":
        inner = _parts(read_blocks(block.get("content"), f"{path}.content"), f"{path}.content")
        lines = [str(block.get("title") or ""), str(block.get("source") or ""), *(part["text"] for part in inner)]
        return [{"type": "text", "text": "\n".join(line for line in lines if line), ANTHROPIC: block}]
    if kind in _SERVER_BLOCKS:
        return [{"type": "text", "text": orjson.dumps(block).decode(), ANTHROPIC: block}]
    raise InvalidRequest(f"blocks of the type {kind} are not supported here", param=f"{path}.type")


def _text(block: JsonObject, name: str, path: str) -> str:
    text = block.get(name)
    if not isinstance(text, str):
        raise InvalidRequest(f"{name} must be a string", param=f"{path}.{name}")
    return text


def _image(block: JsonObject, path: str) -> JsonObject:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "file":
        return {"type": "file", "file": {"file_id": source.get("file_id")}, ANTHROPIC: block}
    return {"type": "image_url", "image_url": {"url": _url(source, f"{path}.source")}}


def _url(source: Any, path: str) -> str:
    """A source as a URL, which may hold the data itself."""
    kind = source.get("type") if isinstance(source, dict) else None
    if kind == "url":
        return _text(source, "url", path)
    if kind == "base64":
        return f"data:{_text(source, 'media_type', path)};base64,{_text(source, 'data', path)}"
    raise InvalidRequest("source must be of the type base64, url or file", param=f"{path}.type")


def _document(block: JsonObject, path: str) -> list[JsonObject]:
    source, where = block.get("source"), f"{path}.source"
    kind = source.get("type") if isinstance(source, dict) else None
    title = block.get("title")
    if not isinstance(source, dict) or kind in (None, "base64", "url"):
        file: JsonObject = {"filename": title or "document.pdf", "file_data": _url(source, where)}
        part: JsonObject = {"type": "file", "file": file, **cache_of(block)}
        return [{**part, ANTHROPIC: block} if block.get("context") or block.get("citations") or not title else part]
    if kind == "file":
        return [{"type": "file", "file": {"file_id": source.get("file_id")}, ANTHROPIC: block}]
    head = "\n".join(str(block[name]) for name in ("title", "context") if block.get(name))
    if kind == "text":
        body = _text(source, "data", where)
        return [{"type": "text", "text": f"{head}\n{body}" if head else body, ANTHROPIC: block}]
    if kind != "content":
        raise InvalidRequest("source must be of the type base64, url, file, text or content", param=f"{where}.type")
    parts = _parts(read_blocks(source.get("content"), f"{where}.content"), f"{where}.content")
    if all(part["type"] == "text" for part in parts):
        texts = [head, *(part["text"] for part in parts)]
        return [{"type": "text", "text": "\n".join(text for text in texts if text), ANTHROPIC: block}]
    return [{"type": "text", "text": head}, *parts] if head else parts


def _answer(blocks: list[JsonObject], path: str) -> JsonObject:
    parts: list[JsonObject] = []
    calls: list[JsonObject] = []
    thoughts: list[str] = []
    signed: list[JsonObject] = []
    for place, block in enumerate(blocks):
        where, kind = f"{path}.{place}", block["type"]
        if kind == "thinking":
            thoughts.append(_text(block, "thinking", where))
        elif kind == "tool_use":
            calls.append(_call(block, where))
        elif kind != "redacted_thinking":
            parts += _part(block, where)
        if is_signed(block):
            signed.append(block)
    message: JsonObject = {"role": "assistant", "content": content_of(parts) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if signed:
        message["thinking_blocks"] = signed
    if calls:
        message["tool_calls"] = calls
    ranks = [_RANKS.get(block["type"], 1) for block in blocks]
    if signed and ranks != sorted(ranks):  # signed thoughts must come back where they were
        message[ANTHROPIC] = blocks
    return message


def _call(block: JsonObject, path: str) -> JsonObject:
    for name in ("id", "name"):
        if not isinstance(block.get(name), str) or not block[name]:
            raise InvalidRequest(f"{name} must be given", param=f"{path}.{name}")
    if not isinstance(block.get("input"), dict):
        raise InvalidRequest("input must be an object", param=f"{path}.input")
    function = {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}
    return {"id": block["id"], "type": "function", "function": function, **cache_of(block)}
