"""Streams of chunks as an upstream writes them, and what a client reads out of the bytes it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmproxy.core.types import Call, Forced
from llmproxy.gateway.relay import Relay

Json = dict[str, Any]
MODEL = "a/model"


@dataclass(frozen=True)
class Wire:
    """How an upstream writes: line ends, white space in JSON, escapes outside ASCII, comments before events."""

    end: str = "\n"
    spaces: bool = False
    ascii_only: bool = False
    comments: bool = False
    space_after_colon: bool = True

    def event(self, chunk: Any) -> bytes:
        """One event; text is written as it is."""
        separators = (", ", ": ") if self.spaces else (",", ":")
        text: str = chunk
        if not isinstance(chunk, str):
            text = json.dumps(chunk, separators=separators, ensure_ascii=self.ascii_only)
        head = ": keep-alive" + self.end * 2 if self.comments else ""
        return (head + ("data: " if self.space_after_colon else "data:") + text + self.end * 2).encode()

    def stream(self, chunks: Iterable[Any], *, done: bool = True) -> bytes:
        """All events, and the end of the stream."""
        return b"".join(map(self.event, [*chunks, *(["[DONE]"] if done else [])]))


PLAIN = Wire()


def chunk(delta: Json | None = None, finish: str | None = None, *, index: int = 0, **more: Any) -> Json:
    """A chat chunk with one choice."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    frame = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1700000000, "model": "up"}
    return {**frame, "choices": [choice], **more}


def text_chunk(text: str, finish: str | None = None, *, index: int = 0, **more: Any) -> Json:
    """A chunk of a legacy completion."""
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
    frame = {"id": "cmpl-up", "object": "text_completion", "created": 1700000000, "model": "up"}
    return {**frame, "choices": [choice], **more}


def words(*texts: str) -> list[Json]:
    """The chunks of a whole answer."""
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": text}) for text in texts),
        chunk({}, "stop"),
    ]


def usage_chunk(prompt: int = 7, completion: int = 3) -> Json:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**chunk(), "choices": [], "usage": usage}


def tool_delta(index: int | None = None, call_id: str | None = None, name: str | None = None, args: Any = None) -> Json:
    """A delta with one fragment of a tool call."""
    fragment: Json = {} if index is None else {"index": index}
    if call_id is not None:
        fragment |= {"id": call_id, "type": "function"}
    function = {key: value for key, value in (("name", name), ("arguments", args)) if value is not None}
    return {"tool_calls": [{**fragment, "function": function}]}


def call_of(
    endpoint: Any = "chat", *, forced: Forced | None = None, usage: bool = False, prompt_tokens: int = 11, **body: Any
) -> Call:
    """A streaming call."""
    return Call("c1", endpoint, "m", body, stream=True, include_usage=usage, forced=forced, prompt_tokens=prompt_tokens)


def relayed(pieces: Iterable[bytes], call: Call | None = None) -> bytes:
    """All that the client gets of a stream that came in these pieces."""
    relay = begun(call)
    return b"".join([*map(relay.feed, pieces), relay.end()])


def begun(call: Call | None = None) -> Relay:
    """A relay that has begun with a candidate."""
    relay = Relay(call or call_of())
    relay.begin(MODEL)
    return relay


def events(raw: bytes) -> list[Json]:
    """The chunks that a client reads, strictly: every event is one line of JSON, and only the last is [DONE]."""
    parts = raw.decode().split("\n\n")
    assert parts[-1] == "", raw[-200:]
    assert parts[-2] == "data: [DONE]"
    for part in parts[:-1]:
        assert re.fullmatch(r"data: [^\r\n]+", part), part
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


@dataclass
class Answer:
    """One choice, put together."""

    text: str = ""
    calls: dict[int, Json] = field(default_factory=dict)
    finish: str | None = None
    roles: list[str] = field(default_factory=list)


def answers(chunks: Iterable[Json]) -> dict[int, Answer]:
    """The choices of a stream, put together as a client does it."""
    found: dict[int, Answer] = {}
    for entry in chunks:
        for choice in entry["choices"]:
            answer = found.setdefault(choice["index"], Answer())
            delta = choice.get("delta", {"content": choice.get("text")})
            answer.text += delta.get("content") or ""
            if delta.get("role"):
                answer.roles.append(delta["role"])
            for fragment in delta.get("tool_calls") or ():
                call = answer.calls.setdefault(
                    fragment["index"], {"id": fragment.get("id"), "name": "", "arguments": ""}
                )
                function = fragment.get("function", {})
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
            answer.finish = choice.get("finish_reason") or answer.finish
    return found
