"""Canonical messages → Gemini's `contents` and `systemInstruction` (https://ai.google.dev/api/caching#Content)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.core.types import JsonObject
from llmproxy.dialects.gemini_fields import own_words, signature_of, standard_base64
from llmproxy.dialects.gemini_reply import arguments_of, sign

_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
_MEDIA = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif",
    "heic": "image/heic", "heif": "image/heif", "pdf": "application/pdf", "mp4": "video/mp4", "mov": "video/mov",
    "webm": "video/webm", "txt": "text/plain", "md": "text/markdown", "csv": "text/csv", "html": "text/html",
    "json": "application/json", "xml": "text/xml",
}  # fmt: skip

# Gemini 3 refuses a function call of the model without a signature. Where another model made the call there is none,
# and this is what https://ai.google.dev/gemini-api/docs/thought-signatures asks for in its place.
_UNSIGNED = "skip_thought_signature_validator"


def prompt(messages: Iterable[JsonObject], *, signatures: bool) -> JsonObject:
    """`contents`, and `systemInstruction` where there is one.

    Instructions at the beginning become the system instruction; later ones keep their place, in a turn of the user.
    `signatures` for models that refuse unsigned calls. Raises `InvalidRequest` for what is malformed, and
    `UnsupportedParameter` for what another upstream may be asked.
    """
    contents = _Contents(signatures)
    for place, message in enumerate(messages):
        contents.add(message, f"messages.{place}")
    if not contents.turns and contents.system:  # there must be something to answer
        contents.turns = [{"role": "user", "parts": contents.system}]
        contents.system = []
    found: JsonObject = {"systemInstruction": {"parts": contents.system}} if contents.system else {}
    return {**found, "contents": contents.turns}


class _Contents:
    """The turns so far; neighbours of one role are one turn. `_names` knows calls by their ids."""

    def __init__(self, signatures: bool) -> None:
        self.system: list[JsonObject] = []
        self.turns: list[JsonObject] = []
        self._signatures = signatures
        self._names: dict[str, str] = {}

    def add(self, message: JsonObject, path: str) -> None:
        role, content = message.get("role"), message.get("content")
        if role == "assistant":
            self._turn("model", self._answer(message, path))
        elif role in ("tool", "function"):
            self._turn("user", self._result(message, path))
        elif role in ("system", "developer") and not self.turns:
            self.system += _parts(content, path)
        else:
            self._turn("user", _parts(content, path))

    def _turn(self, role: str, parts: list[JsonObject]) -> None:
        if not parts:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["parts"] += parts
        else:
            self.turns.append({"role": role, "parts": parts})

    def _answer(self, message: JsonObject, path: str) -> list[JsonObject]:
        found: list[JsonObject] = []
        if thought := message.get("reasoning_content"):
            found.append({"text": thought, "thought": True})
        content, calls = message.get("content"), message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise InvalidRequest("tool_calls must be a list", param=f"{path}.tool_calls")
        if content or not calls:
            found += _parts(content or "", path)
        sign(found, message)
        for number, call in enumerate(calls):
            found.append(self._call(call, f"{path}.tool_calls.{number}", first=number == 0))
        return found

    def _call(self, call: Any, path: str, *, first: bool) -> JsonObject:
        custom, function = (call.get("custom"), call.get("function") or {}) if isinstance(call, dict) else (None, None)
        if isinstance(custom, dict):
            function = {"name": custom.get("name"), "arguments": {"input": custom.get("input")}}
        if not isinstance(function, dict):
            raise InvalidRequest("a tool call must be an object with a function", param=path)
        name, call_id = str(function.get("name") or ""), call.get("id")
        given: JsonObject = {"name": name, "args": arguments_of(function)}
        if call_id and isinstance(call_id, str):
            self._names[call_id] = name
            given["id"] = call_id
        part: JsonObject = {"functionCall": given}
        if signature := signature_of(call) or (_UNSIGNED if first and self._signatures else None):
            part["thoughtSignature"] = signature
        return part

    def _result(self, message: JsonObject, path: str) -> list[JsonObject]:
        """The result of a call; pictures in it follow it as parts of their own, which every Gemini takes."""
        call_id, content = str(message.get("tool_call_id") or ""), message.get("content")
        parts = _parts(content, path)
        text = "".join(part["text"] for part in parts if "text" in part)
        name = self._names.get(call_id) or message.get("name") or call_id or "function"
        given: JsonObject = {"name": name, "response": {"error": text} if message.get("is_error") else _response(text)}
        if call_id:
            given["id"] = call_id
        return [{"functionResponse": given}, *(part for part in parts if "text" not in part)]


def _response(text: str) -> JsonObject:
    """A result as an object, which is the only thing that Gemini takes."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"output": text}


def _parts(content: Any, path: str) -> list[JsonObject]:
    if not isinstance(content, list):
        return [{"text": content or ""}]
    return [_part(part, f"{path}.content.{place}") for place, part in enumerate(content)]


def _part(part: JsonObject, path: str) -> JsonObject:
    found = _read(part, path)
    return found | own_words(part)


def _read(part: JsonObject, path: str) -> JsonObject:
    kind = part.get("type")
    holder = part.get(str(kind))
    if kind in ("text", "input_text", "output_text"):
        return {"text": part.get("text") or ""}
    if kind == "refusal":
        return {"text": part.get("refusal") or ""}
    if kind in ("image_url", "video_url"):
        url = holder.get("url") if isinstance(holder, dict) else holder
        return _from_url(url, f"{path}.{kind}.url", "image/jpeg" if kind == "image_url" else "video/mp4")
    if kind == "input_audio" and isinstance(holder, dict):
        return _inline(f"audio/{holder.get('format') or 'wav'}", holder.get("data"), f"{path}.input_audio.data")
    if kind == "file" and isinstance(holder, dict) and holder.get("file_data"):
        return _file(holder, f"{path}.file.file_data")
    raise UnsupportedParameter(f"Gemini takes no content of type {kind}", param=path)


def _from_url(url: Any, path: str, default: str) -> JsonObject:
    """A data URL becomes data; any other address is given on, with the media type that its name suggests."""
    if not isinstance(url, str) or not url:
        raise InvalidRequest("an address must be a string", param=path)
    if url[:5].lower() != "data:":
        linked: JsonObject = {"fileUri": url}
        if media := _MEDIA.get(_suffix(url)):
            linked["mimeType"] = media
        return {"fileData": linked}
    head = _DATA_URL.match(url)
    if head is None:
        raise InvalidRequest("not a data URL", param=path)
    data = url[head.end() :]
    if not head[2].lower().endswith(";base64"):
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    return _inline(head[1].lower() or default, data, path)


def _file(holder: JsonObject, path: str) -> JsonObject:
    data = holder["file_data"]
    media = _MEDIA.get(_suffix(str(holder.get("filename") or "")), "application/pdf")
    if isinstance(data, str) and (":" in data[:8]):
        return _from_url(data, path, media)
    return _inline(media, data, path)


def _inline(media: str, data: Any, path: str) -> JsonObject:
    standard = standard_base64(data) if isinstance(data, str) else None
    if standard is None:
        raise InvalidRequest("not base64", param=path)
    return {"inlineData": {"mimeType": media, "data": standard}}


def _suffix(name: str) -> str:
    return name.partition("?")[0].partition("#")[0].rpartition("/")[2].rpartition(".")[2].lower()
