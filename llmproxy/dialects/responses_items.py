"""Input items of the Responses API → canonical messages (https://platform.openai.com/docs/api-reference/responses/create).

Reasoning, what was said and the calls of one turn are items there and one message of the assistant here. Reasoning
comes back as text; `encrypted_content` of our own making holds what its maker wants back unchanged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject

_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}
_SEALED = "llmproxy."
_TEXT_MEDIA = ("text/", "application/json", "application/xml", "application/yaml")

# The argument that stands for the free text of a custom tool.
FREE_TEXT = "input"
# The longest name of a function that OpenAI takes.
_LONGEST_NAME = 64
_DIGEST = 8


def flat_name(namespace: str | None, name: str) -> str:
    """The name of a function for that of a tool in a namespace; a long one is cut, and told apart by a digest."""
    flat = f"{namespace}__{name}" if namespace else name
    if not namespace or len(flat) <= _LONGEST_NAME:
        return flat
    return f"{flat[: _LONGEST_NAME - _DIGEST - 1]}_{hashlib.sha256(flat.encode()).hexdigest()[:_DIGEST]}"


def as_items(given: Any) -> list[JsonObject]:
    """`input` as a list of items; a string is one message of the user."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("input must be a string or a list that is not empty", param="input")
    for place, item in enumerate(given):
        if not isinstance(item, dict):
            raise InvalidRequest("an item must be an object", param=f"input.{place}")
    return given


def messages(items: Sequence[JsonObject], first: int = 0) -> list[JsonObject]:
    """The conversation. `first` is the number of the first item, for the paths in errors: below 0 for earlier ones."""
    conversation = _Conversation()
    for place, item in enumerate(items, first):
        conversation.add(item, f"input.{place}")
    return conversation.ended()


def seal(kept: JsonObject) -> str:
    """What a maker of reasoning wants back unchanged, as `encrypted_content`."""
    return _SEALED + base64.urlsafe_b64encode(orjson.dumps(kept)).decode()


def unseal(text: Any) -> JsonObject:
    """What `seal` was given; empty for what somebody else has encrypted, which nobody here can read."""
    if not isinstance(text, str) or not text.startswith(_SEALED):
        return {}
    try:
        kept = orjson.loads(base64.urlsafe_b64decode(text[len(_SEALED) :]))
    except (binascii.Error, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


class _Conversation:
    """The messages so far; `_turn` is the assistant's message that still grows."""

    def __init__(self) -> None:
        self._messages: list[JsonObject] = []
        self._turn: JsonObject | None = None
        self._called: set[str] = set()

    def add(self, item: JsonObject, path: str) -> None:
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            self._message(item, path)
        elif kind == "reasoning":
            self._reasoning(item)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, kind, path)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._output(item, path)
        elif kind == "image_generation_call":
            self._picture(item)
        elif kind == "item_reference":
            raise InvalidRequest("the item is not kept here; send it whole", param=f"{path}.id")
        else:
            raise InvalidRequest(f"items of type {kind} cannot be used here", param=f"{path}.type")

    def ended(self) -> list[JsonObject]:
        """All messages."""
        self._end_turn()
        return self._messages

    def _message(self, item: JsonObject, path: str) -> None:
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            raise InvalidRequest(f"role must be one of {', '.join(_ROLES)}", param=f"{path}.role")
        if role != "assistant":
            self._end_turn()
            self._messages.append({"role": role, "content": content_of(item.get("content"), f"{path}.content")})
            return
        turn = self._next_or_grown()
        # What is said after a call still belongs before its output: there is one message for both.
        turn["content"] = (turn["content"] or "") + _said(item.get("content"), f"{path}.content")
        if isinstance(item.get("extra_content"), dict):
            turn["extra_content"] = item["extra_content"]

    def _reasoning(self, item: JsonObject) -> None:
        parts = item.get("content") or item.get("summary")
        listed = parts if isinstance(parts, list) else ()
        text = "\n\n".join(str(part.get("text") or "") for part in listed if isinstance(part, dict))
        signed = unseal(item.get("encrypted_content")).get("thinking_blocks") or []
        if not text and not signed:
            return  # encrypted by somebody else
        turn = self._next_or_grown()
        if text:
            known = turn.get("reasoning_content")
            turn["reasoning_content"] = f"{known}\n\n{text}" if known else text
        if signed:
            turn["thinking_blocks"] = [*turn.get("thinking_blocks", ()), *signed]

    def _call(self, item: JsonObject, kind: str, path: str) -> None:
        call_id, name = _text(item, "call_id", path), _text(item, "name", path)
        if kind == "custom_tool_call":
            arguments = orjson.dumps({FREE_TEXT: str(item.get("input") or "")}).decode()
        else:
            arguments = str(item.get("arguments") or "{}")
        namespace = item.get("namespace")
        name = flat_name(namespace if isinstance(namespace, str) else None, name)
        call: JsonObject = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        if isinstance(item.get("extra_content"), dict):
            call["extra_content"] = item["extra_content"]
        turn = self._grown()
        turn["tool_calls"] = [*turn.get("tool_calls", ()), call]
        self._called.add(call_id)

    def _output(self, item: JsonObject, path: str) -> None:
        self._end_turn()
        call_id = _text(item, "call_id", path)
        if call_id not in self._called:
            raise InvalidRequest(f"no call {call_id} comes before its output", param=f"{path}.call_id")
        content = content_of(item.get("output"), f"{path}.output")
        self._messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _picture(self, item: JsonObject) -> None:
        """A picture that a model made earlier: no message of the assistant can hold one, so it is shown to it."""
        self._end_turn()
        if isinstance(item.get("result"), str):
            url = f"data:image/png;base64,{item['result']}"
            self._messages.append({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})

    def _next_or_grown(self) -> JsonObject:
        """The turn that still grows; a new one where something was said in it and nothing called."""
        if self._turn is not None and self._turn["content"] is not None and not self._turn.get("tool_calls"):
            self._end_turn()
        return self._grown()

    def _grown(self) -> JsonObject:
        if self._turn is None:
            self._turn = {"role": "assistant", "content": None}
        return self._turn

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        if turn["content"] is None and not turn.get("tool_calls"):
            turn["content"] = ""
        self._messages.append(turn)


def _text(item: JsonObject, name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{name} must be a string that is not empty", param=f"{path}.{name}")
    return value


def content_of(content: Any, path: str) -> Any:
    """Content as canonical: one text alone as a string, everything else as parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("content must be a string or a list of parts", param=path)
    parts = [_part(part, f"{path}.{place}") for place, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts) and len(parts) < 2:
        return parts[0]["text"] if parts else ""
    return parts


def _said(content: Any, path: str) -> str:
    """What the assistant said; a refusal is what it said, too."""
    found = content_of(content, path)
    if isinstance(found, str):
        return found
    if other := next((part["type"] for part in found if part["type"] != "text"), None):
        raise InvalidRequest(f"the assistant says text, not {other}", param=path)
    return "".join(part["text"] for part in found)


def _part(part: Any, path: str) -> JsonObject:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": str(part.get("text") or "")}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal") or "")}
    if kind == "input_image":
        return _image(part, path)
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind == "input_file":
        return _file(part, path)
    raise InvalidRequest(f"content of type {kind} cannot be used here", param=f"{path}.type")


def _image(part: JsonObject, path: str) -> JsonObject:
    url = part.get("image_url")
    if not isinstance(url, str) or not url:
        missing = "file_id" if part.get("file_id") else "image_url"
        raise InvalidRequest("no files are kept here; send the image as image_url", param=f"{path}.{missing}")
    image: JsonObject = {"url": url}
    if part.get("detail"):
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: JsonObject, path: str) -> JsonObject:
    """A file in the request itself; one that is text goes as text, which every model reads."""
    data = part.get("file_data")
    if not isinstance(data, str) or not data:
        missing = next((name for name in ("file_id", "file_url") if part.get(name)), "file_data")
        raise InvalidRequest("no files are kept or fetched here; send the file as file_data", param=f"{path}.{missing}")
    name = part.get("filename") if isinstance(part.get("filename"), str) else None
    head, comma, encoded = data.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64") and head[5:].startswith(_TEXT_MEDIA):
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except ValueError as error:
            raise InvalidRequest("not a text in base64", param=f"{path}.file_data") from error
        return {"type": "text", "text": f"{name}:\n{text}" if name else text}
    return {"type": "file", "file": {"filename": name or "document.pdf", "file_data": data}}
