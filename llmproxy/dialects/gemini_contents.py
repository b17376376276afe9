"""The `contents` of a Gemini request → canonical messages (https://ai.google.dev/api/caching#Content).

A signature of a thought stays with what it signs in `extra_content.google.thought_signature`, which is where Google's
own OpenAI endpoint keeps it.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject
from llmproxy.dialects.gemini_fields import GEMINI, Fields, signed, standard_base64

_ROLES = {
    "": "user",
    "user": "user",
    "function": "user",
    "tool": "user",
    "model": "assistant",
    "assistant": "assistant",
}
_PARTS = (
    "functionCall",
    "functionResponse",
    "inlineData",
    "fileData",
    "executableCode",
    "codeExecutionResult",
    "text",
)
_AUDIO = {"mpeg": "mp3", "mp3": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "wav": "wav"}

# How closely Gemini looks at a picture or a film.
_TUNING = ("videoMetadata", "mediaResolution")

# A function's result that is nothing but text is wrapped in one of these.
_WRAPPERS = ("output", "result")
_ERROR = "error"


def system_messages(instruction: Fields | None) -> list[JsonObject]:
    """`systemInstruction` as messages; empty when it says nothing."""
    texts = [part.text("text") or "" for part in instruction.objects("parts")] if instruction is not None else []
    text = "\n\n".join(filter(None, texts))
    return [{"role": "system", "content": text}] if text else []


def messages(contents: list[Fields]) -> list[JsonObject]:
    """The conversation; raises `InvalidRequest` for what no message can hold, with its path."""
    conversation = _Conversation()
    for place, content in enumerate(contents):
        role = _ROLES.get((content.text("role") or "").lower())
        if role is None:
            raise content.wrong("role", "user or model")
        if role == "assistant":
            conversation.answered(content.objects("parts"), place)
        else:
            conversation.asked(content.objects("parts"))
    return conversation.ended()


class _Conversation:
    """The messages so far, and the function calls of the last turn that wait for their results: (id, name).

    Neighbouring contents of the model are one turn: the SDK of Google keeps each piece of a stream as one of its own.
    """

    def __init__(self) -> None:
        self._messages: list[JsonObject] = []
        self._waiting: list[tuple[str, str]] = []
        self._turn: _Turn | None = None

    def ended(self) -> list[JsonObject]:
        """All messages."""
        turn, self._turn = self._turn, None
        if turn is not None:
            self._messages.append(turn.message())
            if turn.calls:
                self._waiting = [(call["id"], call["function"]["name"]) for call in turn.calls]
        return self._messages

    def asked(self, parts: list[Fields]) -> None:
        """A turn of the user: results of functions, then what it says itself."""
        self.ended()
        said: list[JsonObject] = []
        for part in parts:
            if _kind(part) == "functionResponse":
                self._messages.append(self._result(Fields(part.get("functionResponse"), part.at("functionResponse"))))
            else:
                said.append(user_part(part))
        if said or not parts:
            self._messages.append({"role": "user", "content": _plain(said)})

    def answered(self, parts: list[Fields], place: int) -> None:
        """A turn of the model, or more of it."""
        if self._turn is None:
            self._turn = _Turn()
        for number, part in enumerate(parts):
            self._turn.add(part, f"call_{place}_{number}")

    def _result(self, given: Fields) -> JsonObject:
        response = given.object("response")
        value = response.value if response is not None else {}
        content: Any = _result_text(value)
        if shown := [user_part(part) for part in given.objects("parts")]:
            content = [{"type": "text", "text": content}, *shown]
        found: JsonObject = {"role": "tool", "tool_call_id": self._answered_call(given), "content": content}
        return {**found, "is_error": True} if set(value) == {_ERROR} else found

    def _answered_call(self, given: Fields) -> str:
        """The id of the call that is answered: the one that is named, else the first of its name that waits."""
        call_id, name = given.text("id"), given.name("name")
        fits = [call for call in self._waiting if call[0] == call_id] if call_id else []
        fits = fits or [call for call in self._waiting if call[1] == name]
        if not fits:
            raise InvalidRequest(f"{name} was not called in the turn before its result", param=given.path)
        self._waiting.remove(fits[0])
        return fits[0][0]


class _Turn:
    """One message of the model, part by part."""

    def __init__(self) -> None:
        self.calls: list[JsonObject] = []
        self._said: list[JsonObject] = []
        self._thoughts: list[str] = []
        self._signature: str | None = None

    def add(self, part: Fields, call_id: str) -> None:
        kind, signature = _kind(part), part.text("thoughtSignature")
        if kind == "functionCall":
            self.calls.append(signed(_call(Fields(part.get(kind), part.at(kind)), call_id), signature))
            return
        self._signature = signature or self._signature
        if kind == "functionResponse":
            raise InvalidRequest("a function's result belongs into a turn of the user", param=part.at(kind))
        if kind == "text" and part.flag("thought"):
            self._thoughts.append(part.text("text") or "")
        else:
            self._said.append(user_part(part))

    def message(self) -> JsonObject:
        content = _joined(self._said)
        message: JsonObject = {"role": "assistant", "content": content if content or not self.calls else None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        return signed(message, self._signature)


def user_part(part: Fields) -> JsonObject:
    """One part as part of a canonical message; raises `InvalidRequest` for what no message can hold."""
    extras = {name: part.get(name) for name in _TUNING if part.get(name) is not None}
    found = _read(part, _kind(part))
    return {**found, GEMINI: extras} if extras else found


def _read(part: Fields, kind: str) -> JsonObject:
    if kind == "text":
        return {"type": "text", "text": part.text("text") or ""}
    if kind == "executableCode":
        code = Fields(part.get(kind), part.at(kind))
        return _code(code.word("language").lower(), code.text("code") or "")
    if kind == "codeExecutionResult":
        return _code("", Fields(part.get(kind), part.at(kind)).text("output") or "")
    if kind == "inlineData":
        return _inline(Fields(part.get(kind), part.at(kind)))
    if kind == "fileData":
        return _linked(Fields(part.get(kind), part.at(kind)))
    raise InvalidRequest("a function is called by the model alone", param=part.at(kind))


def _kind(part: Fields) -> str:
    for name in _PARTS:
        if part.get(name) is not None:
            return name
    if part.text("thoughtSignature") is not None:  # a signature may come after all text, in a part of its own
        return "text"
    raise InvalidRequest(f"a part must hold one of {', '.join(_PARTS)}", param=part.path)


def _call(given: Fields, call_id: str) -> JsonObject:
    arguments = given.object("args")
    function = {"name": given.name("name"), "arguments": orjson.dumps(arguments.value if arguments else {}).decode()}
    return {"id": given.text("id") or call_id, "type": "function", "function": function}


def _result_text(response: JsonObject) -> str:
    if len(response) == 1:
        name, value = next(iter(response.items()))
        if name in (*_WRAPPERS, _ERROR) and isinstance(value, str):
            return value
    return orjson.dumps(response).decode()


def _inline(given: Fields) -> JsonObject:
    """Data in the request itself: an image, a sound, a film, a text, or any other document."""
    media = given.name("mimeType").lower().partition(";")[0].strip()
    data = standard_base64(given.text("data") or "")
    if data is None:
        raise given.wrong("data", "base64")
    family, _, kind = media.partition("/")
    url = f"data:{media};base64,{data}"
    if family == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    if family == "video":
        return {"type": "video_url", "video_url": {"url": url}}
    if family == "audio":
        return {"type": "input_audio", "input_audio": {"data": data, "format": _AUDIO.get(kind, kind)}}
    if family == "text":
        return {"type": "text", "text": base64.b64decode(data).decode("utf-8", "replace")}
    name = given.text("displayName") or f"document.{kind.rpartition('.')[2]}"
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def _linked(given: Fields) -> JsonObject:
    """What is to be fetched from its address; a file that was uploaded to Google is in reach of Google alone."""
    url, media = given.name("fileUri"), (given.text("mimeType") or "").lower()
    path = given.at("fileUri")
    if not url.lower().startswith(("http://", "https://")) or "://generativelanguage.googleapis.com/" in url:
        raise InvalidRequest("files of the Files API are not in reach; send the data itself (inlineData)", param=path)
    if media.startswith("video/") or any(host in url for host in ("://www.youtube.com/", "://youtu.be/")):
        return {"type": "video_url", "video_url": {"url": url}}
    if media and not media.startswith("image/"):
        raise InvalidRequest(f"{media} cannot be given by its address; send the data itself (inlineData)", param=path)
    return {"type": "image_url", "image_url": {"url": url}}


def _code(language: str, text: str) -> JsonObject:
    language = "" if language == "language_unspecified" else language
    return {"type": "text", "text": f"```{language}\n{text}\n```\n"}


def _plain(parts: list[JsonObject]) -> Any:
    """One text alone as a string, everything else as parts."""
    if len(parts) == 1 and set(parts[0]) == {"type", "text"}:
        return parts[0]["text"]
    return parts or ""


def _joined(parts: list[JsonObject]) -> Any:
    """What the model said as one string; as parts where it made pictures."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts
