"""Canonical replies, streams and conversations for the tests of dialects."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from hypothesis import strategies as st

from llmproxy.core import sse

Json = dict[str, Any]
USAGE: Json = {
    "prompt_tokens": 20,
    "completion_tokens": 9,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 12},
    "completion_tokens_details": {"reasoning_tokens": 4},
}
WEATHER: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = base64.b64encode(b"\x89PNG\xff\xfe\xfb").decode()


class Renders(Protocol):
    """A renderer, or a translator."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


def call(call_id: str, name: str, arguments: Json, **more: Any) -> Json:
    """One tool call of a message."""
    function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
    return {"id": call_id, "type": "function", "function": function, **more}


def reply(message: Json, finish: str = "stop", **more: Any) -> Json:
    """A whole reply with usage."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}
    head = {"id": "chatcmpl-abc", "object": "chat.completion", "created": 1_700_000_000, "model": "a/model"}
    return {**head, "choices": [choice], "usage": USAGE}


def chunk(delta: Json, finish: str | None = None, index: int = 0, **more: Any) -> Json:
    """One chunk of a stream."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    head = {"id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "a/model"}
    return {**head, "usage": None, "choices": [choice]}


def usage_chunk() -> Json:
    """The chunk that only has the usage."""
    return {**chunk({}), "choices": [], "usage": USAGE}


def stream(*chunks: Json, done: bool = True) -> bytes:
    """The canonical stream of these chunks."""
    return b"".join(sse.event(orjson.dumps(one)) for one in chunks) + (sse.DONE if done else b"")


def words(*texts: str, finish: str = "stop") -> bytes:
    """A stream of text."""
    deltas = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return stream(*deltas, chunk({}, finish), usage_chunk())


def deltas_of(message: Json, finish: str) -> bytes:
    """A message as the gateway streams it: thoughts, text in pieces, whole calls."""
    chunks = [chunk({"role": "assistant"})]
    chunks += [chunk({"reasoning_content": piece}) for piece in _pieces(message.get("reasoning_content"))]
    chunks += [chunk({"content": piece}) for piece in _pieces(message.get("content"))]
    for place, one in enumerate(message.get("tool_calls") or ()):
        chunks.append(chunk({"tool_calls": [{"index": place, **one}]}))
    return stream(*chunks, chunk({}, finish), usage_chunk())


def _pieces(text: str | None) -> list[str]:
    return [(text or "")[place : place + 3] for place in range(0, len(text or ""), 3)]


def rendered(renderer: Renders, pieces: Sequence[bytes]) -> bytes:
    """All that comes of a stream in these pieces."""
    return b"".join([*map(renderer.feed, pieces), renderer.finish()])


# -- generated conversations ----------------------------------------------------------------------------------------

# A letter in front, so that no text happens to be JSON.
texts = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: f"t{text}")
names = st.from_regex(r"[a-z_][a-z0-9_]{0,10}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(names, values, max_size=3)
images = (
    st.binary(min_size=1, max_size=12)
    .map(lambda data: base64.b64encode(data).decode())
    .map(lambda data: {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}})
)


@st.composite
def answers(draw: st.DrawFn, prefix: str = "call") -> Json:
    """What a model may answer: text, thoughts, calls, at least one of text and calls."""
    calls = [call(f"{prefix}_{place}", draw(names), draw(arguments)) for place in range(draw(st.integers(0, 3)))]
    content = draw(texts) if not calls or draw(st.booleans()) else None
    message: Json = {"role": "assistant", "content": content}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(texts)
    return {**message, "tool_calls": calls} if calls else message


@st.composite
def conversations(draw: st.DrawFn) -> list[Json]:
    """Messages from a system message (or none) to an answer or the results of its calls, roles in turn."""
    found: list[Json] = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for turn in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "content": draw(_said())})
        answer = draw(answers(f"call_{turn}"))
        found.append(answer)
        calls = answer.get("tool_calls") or ()
        found += [{"role": "tool", "tool_call_id": one["id"], "content": draw(texts)} for one in calls]
    return found


@st.composite
def _said(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return draw(texts)
    parts = [draw(images), *({"type": "text", "text": text} for text in draw(st.lists(texts, max_size=2)))]
    return draw(st.permutations(parts))
