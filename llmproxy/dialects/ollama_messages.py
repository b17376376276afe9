"""The messages of an Ollama chat → canonical messages (https://docs.ollama.com/api/chat)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject

# How images of each kind begin, in base64.
_MAGIC: Mapping[str, str] = {"/9j/": "jpeg", "iVBOR": "png", "R0lGOD": "gif", "UklGR": "webp"}


class Messages:
    """Messages as they are read: calls that wait for their results, images of results that wait for their turn."""

    def __init__(self) -> None:
        self._made: list[JsonObject] = []
        self._waiting: list[tuple[str, str]] = []  # (name, id) of calls
        self._seen: list[JsonObject] = []

    def read(self, messages: list[Any]) -> list[JsonObject]:
        """All of them."""
        for place, message in enumerate(messages):
            path = f"messages.{place}"
            if not isinstance(message, dict):
                raise InvalidRequest("a message must be an object", param=path)
            role, text = message.get("role"), message.get("content") or ""
            if not isinstance(text, str):
                raise InvalidRequest("content must be a string", param=f"{path}.content")
            images = images_of(message.get("images"), f"{path}.images")
            if role == "tool":
                self._made.append({"role": "tool", "tool_call_id": self._answers(message, path), "content": text})
                self._seen += images
                continue
            self._show()
            if role == "assistant":
                self._made.append(self._answer(message, text, place, path))
            elif role in ("system", "user"):
                self._made.append({"role": role, "content": content_of(text, images)})
            else:
                raise InvalidRequest("role must be system, user, assistant or tool", param=f"{path}.role")
        self._show()
        return self._made

    def _show(self) -> None:
        """Images that came with results are the user's: only there can everybody see them."""
        if self._seen:
            self._made.append({"role": "user", "content": self._seen})
            self._seen = []

    def _answer(self, message: JsonObject, text: str, place: int, path: str) -> JsonObject:
        made: JsonObject = {"role": "assistant", "content": text}
        if message.get("thinking"):
            made["reasoning_content"] = message["thinking"]
        self._waiting = []
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise InvalidRequest("tool_calls must be a list", param=f"{path}.tool_calls")
        for number, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            name = function.get("name") if isinstance(function, dict) else None
            if not isinstance(function, dict) or not isinstance(name, str) or not name:
                raise InvalidRequest("a tool call needs function.name", param=f"{path}.tool_calls.{number}")
            arguments = function.get("arguments")
            written = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
            call_id = call.get("id") or f"call_{place}_{number}"
            self._waiting.append((name, call_id))
            told = {"id": call_id, "type": "function", "function": {"name": name, "arguments": written}}
            made.setdefault("tool_calls", []).append(told)
        return made

    def _answers(self, message: JsonObject, path: str) -> str:
        """The id of the call whose result this is."""
        if isinstance(message.get("tool_call_id"), str) and message["tool_call_id"]:
            call_id = str(message["tool_call_id"])
            self._waiting = [call for call in self._waiting if call[1] != call_id]
            return call_id
        name = message.get("tool_name") or message.get("name")
        places = [place for place, call in enumerate(self._waiting) if name in (None, call[0])]
        if not places:
            raise InvalidRequest("no tool call waits for this result", param=path)
        return self._waiting.pop(places[0])[1]


def images_of(images: Any, path: str) -> list[JsonObject]:
    """Images in base64 as content parts."""
    if images is None:
        return []
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise InvalidRequest("images must be a list of images in base64", param=path)
    return [{"type": "image_url", "image_url": {"url": _url(image)}} for image in images]


def _url(image: str) -> str:
    if image.startswith(("data:", "http://", "https://")):
        return image
    kind = next((kind for magic, kind in _MAGIC.items() if image.startswith(magic)), "png")
    return f"data:image/{kind};base64,{image}"


def content_of(text: str, images: list[JsonObject]) -> Any:
    return [*([{"type": "text", "text": text}] if text else []), *images] if images else text
