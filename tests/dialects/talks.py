"""Conversations in the canonical format, generated: what a round trip through a dialect has to keep."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from llmproxy.core.types import JsonObject

# Text that is not blank: some dialects refuse that, or leave it out.
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30).map(lambda text: f"<{text}>")
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, values, max_size=3)
images = st.sampled_from(
    ["data:image/png;base64,iVBORw0KGgo=", "data:image/jpeg;base64,/9j/4AA=", "https://x.test/a.gif"]
)


def _text(text: str) -> JsonObject:
    return {"type": "text", "text": text}


def _image(url: str) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": url}}


said = st.one_of(
    texts,
    st.lists(st.one_of(texts.map(_text), images.map(_image)), min_size=2, max_size=4),
    images.map(lambda url: [_image(url)]),
)


@st.composite
def answers(draw: st.DrawFn, number: int, *, thoughts: bool = True) -> list[JsonObject]:
    """A message of the assistant and the results of the tools that it calls, in the order of the calls."""
    count = draw(st.integers(0, 3))
    message: JsonObject = {"role": "assistant", "content": draw(texts)}
    if count and draw(st.booleans()):
        message["content"] = None
    if thoughts and draw(st.booleans()):
        thought = draw(texts)
        message["reasoning_content"] = thought
        message["thinking_blocks"] = [{"type": "thinking", "thinking": thought, "signature": f"sig{number}"}]
    results: list[JsonObject] = []
    for place in range(count):
        function = {"name": draw(st.sampled_from(["weather", "time"])), "arguments": _json(draw(arguments))}
        call = {"id": f"toolu_{number}_{place}", "type": "function", "function": function}
        message.setdefault("tool_calls", []).append(call)
        results.append({"role": "tool", "tool_call_id": call["id"], "content": draw(texts | st.just(""))})
    return [message, *results]


@st.composite
def talks(draw: st.DrawFn, *, thoughts: bool = True) -> list[JsonObject]:
    """Messages that begin with a system prompt or not, and end with what is to be answered."""
    messages: list[JsonObject] = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for number in range(draw(st.integers(0, 3))):
        if not messages or messages[-1]["role"] != "tool" or draw(st.booleans()):
            messages.append({"role": "user", "content": draw(said)})
        messages += draw(answers(number, thoughts=thoughts))
    if not messages or messages[-1]["role"] != "tool":
        messages.append({"role": "user", "content": draw(said)})
    return messages


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def stream(*chunks: JsonObject | str, done: bool = True) -> bytes:
    """A canonical stream: a delta each, with `choices` or `usage` or `error` a whole chunk, a string for a comment."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "acme/large"}
    out = b""
    for chunk in chunks:
        if isinstance(chunk, str):
            out += f": {chunk}\n\n".encode()
            continue
        if not chunk.keys() & {"choices", "error"}:
            chunk = {"choices": [{"index": 0, "delta": chunk, "finish_reason": None}]}
        whole = chunk if "error" in chunk else {**head, **chunk}
        out += b"data: " + orjson.dumps(whole) + b"\n\n"
    return out + b"data: [DONE]\n\n" if done else out


def end(finish_reason: str, **more: Any) -> JsonObject:
    """The chunk that ends a choice."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason, **more}]}


def usage(prompt: int, completion: int, *, cached: int = 0, reasoning: int = 0) -> JsonObject:
    """The chunk with the usage."""
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
    return {"choices": [], "usage": counts}


def call(index: int, call_id: str, name: str, arguments: str) -> JsonObject:
    """The delta of a whole tool call."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}
