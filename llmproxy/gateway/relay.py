"""From an upstream's stream to the client's, without I/O: bytes in, bytes out.

`begin` → `feed`* → `end`, once for each candidate. Nothing is let out before there is output (so that an error before
it is never seen), and nothing at all before the end when the call forces a capability. One id, one `created`, one
model name for the whole stream; the role comes first; usage comes in a chunk of its own, on request only.

Two lanes. Every event is parsed until a plain text delta has been seen. From then on an event that differs from that
one in its text alone is recognised by its bytes and passed on without being parsed: that is nearly all of them, and
costs a tenth. Everything else (finish reasons, tool calls, usage, errors) takes the parsed lane.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply, Truncated
from llmproxy.core.types import Call, Forced, JsonObject, Usage
from llmproxy.dialects.refusals import error_in_body
from llmproxy.gateway.judge import HONEST_ENDS, check_forced, speaks

_FINISH_REASONS = {
    "end_turn": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
}
_KNOWN_FINISH = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class Relay:
    """One client stream over one or more candidates."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._text = call.endpoint == "completions"
        self._object = "text_completion" if self._text else "chat.completion.chunk"
        self._forced: Forced | None = call.forced
        self._wanted = call.body.get("n") or 1
        self.id = ""
        self.created = 0
        self.usage: Usage | None = None
        self.begin("")

    def begin(self, model: str) -> None:
        """Start (again) with a candidate whose public name is `model`."""
        self._model = model
        self._splitter = sse.Splitter()
        self._held: list[bytes] = []
        self._lane: _Lane | None = None
        self._indices: dict[int, _ToolIndices] = {}
        self._roles: set[int] = set()
        self._finished: dict[int, str] = {}
        self._usage_body: JsonObject | None = None
        self._assembled: dict[int, _Message] = {}
        self._texts: list[bytes] = []
        self._spoke = False
        self.skipped = 0
        self.done = False

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason: what comes after cannot spoil the answer."""
        return len(self._finished) >= self._wanted

    @property
    def spoke(self) -> bool:
        """Whether output has been seen."""
        return self._spoke

    def feed(self, data: bytes) -> bytes:
        """What goes to the client now; raises an `AttemptError` when the upstream reports one in its stream."""
        block = self._splitter.feed(data)
        if not block:
            return b""
        out = self._events(block)
        if not out:
            return b""
        if self._forced is not None or not self._spoke:
            self._held.append(out)
            return b""
        if self._held:
            self._held.append(out)
            out = b"".join(self._held)
            self._held.clear()
        return out

    def end(self) -> bytes:
        """The last bytes for the client; raises when the stream was no whole answer, or not the forced one."""
        rest = self._splitter.rest
        if rest and not self.done:
            self._held.append(self._events(rest))
        if not self.finished:
            raise Truncated(f"the stream ended without a finish reason ({len(self._finished)} of {self._wanted})")
        if not self._spoke and not any(reason in HONEST_ENDS for reason in self._finished.values()):
            raise BadReply("the stream has no output", outcome="empty")
        if self._forced is not None:
            for index, reason in self._finished.items():
                check_forced(self._forced, self._assembled.setdefault(index, _Message()).value(), reason)
        self._account()
        if self._call.include_usage:
            self._held.append(self._render({"choices": [], "usage": self._usage_body}))
        self._held.append(sse.DONE)
        out = b"".join(self._held)
        self._held.clear()
        return out

    # -- the fast lane --------------------------------------------------------------------------------------------

    def _events(self, block: bytes) -> bytes:
        """A block of whole events, each in the fastest lane that it fits."""
        if b"\r" in block:
            return b"".join([self._parse_event(event) for event in sse.split(block)])
        out: list[bytes] = []
        for raw in block.split(b"\n\n"):
            lane = self._lane
            text = lane.text(raw) if lane is not None else None
            if lane is not None and text is not None:
                self._texts.append(text)
                out += (lane.out_head, text, lane.out_tail)
            elif raw:
                out.append(self._parse_event(sse.parse_event(raw)))
        return b"".join(out)

    # -- the parsed lane ------------------------------------------------------------------------------------------

    def _parse_event(self, event: sse.Event) -> bytes:
        if event.data is None:
            return b""
        if event.done:
            self.done = True
            return b""
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            self.skipped += 1
            return b""
        if isinstance(chunk, list) and chunk:
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            self.skipped += 1
            return b""
        if chunk.get("error") or event.event == b"error":
            raise error_in_body(chunk, now=time.time())
        return self._chunk(chunk, event.data)

    def _chunk(self, chunk: JsonObject, raw: bytes) -> bytes:
        if not self.id:
            self.id = str(chunk.get("id") or f"chatcmpl-{self._call.id}")
            created = chunk.get("created")
            self.created = created if isinstance(created, int) and created > 0 else int(time.time())
        if isinstance(chunk.get("usage"), dict):
            self._usage_body = chunk["usage"]
        elif isinstance((chunk.get("x_groq") or {}).get("usage"), dict):
            self._usage_body = chunk["x_groq"]["usage"]
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return b""
        choices = [self._choice(choice) for choice in choices if isinstance(choice, dict)]
        rest = {key: value for key, value in chunk.items() if key not in _ENVELOPE and value is not None}
        out = self._render({**rest, "choices": choices})
        if self._lane is None and self._spoke and self._forced is None and self._wanted == 1:
            self._lane = _Lane.learn(raw, chunk, rest, self._render, "text" if self._text else "content")
        return out

    def _choice(self, choice: JsonObject) -> JsonObject:
        index = choice.get("index") or 0
        choice = {"finish_reason": None, **choice, "index": index}
        reason = choice["finish_reason"]
        if self._text:
            said = bool(choice.get("text"))
            self._texts.append(str(choice.get("text") or "").encode())
        else:
            delta = dict(choice.get("delta") or {})
            said = speaks(delta)
            if index not in self._roles:
                self._roles.add(index)
                delta = {"role": "assistant", **delta}
            else:
                delta.pop("role", None)
            if delta.get("tool_calls"):
                delta["tool_calls"] = self._indices.setdefault(index, _ToolIndices()).repair(delta["tool_calls"])
            if isinstance(text := delta.get("content"), str):
                self._texts.append(text.encode())
            if self._forced is not None:
                self._assembled.setdefault(index, _Message()).add(delta)
            choice["delta"] = delta
        self._spoke = self._spoke or said
        if reason:
            reason = reason if reason in _KNOWN_FINISH else _FINISH_REASONS.get(str(reason).lower(), "stop")
            choice["finish_reason"] = self._finished[index] = reason
            self._spoke = self._spoke or reason in HONEST_ENDS
        else:
            choice["finish_reason"] = None
        return choice

    def _render(self, chunk: JsonObject) -> bytes:
        usage = {"usage": None} if self._call.include_usage else {}
        head = {"id": self.id, "object": self._object, "created": self.created, "model": self._model}
        return b"data: " + orjson.dumps({**head, **usage, **chunk}) + b"\n\n"

    # -- usage ----------------------------------------------------------------------------------------------------

    def _account(self) -> None:
        body = self._usage_body
        if body is None:
            completion = max(1, sum(map(len, self._texts)) // 4)
            prompt = self._call.prompt_tokens
            body = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            self._usage_body = {**body, "estimated": True}
            self.usage = Usage(prompt, completion, estimated=True)
        else:
            self.usage = read_usage(body)


_ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage"})


def read_usage(body: Any) -> Usage:
    """The OpenAI usage object as a value; missing or odd numbers count as 0."""
    if not isinstance(body, dict):
        return Usage(estimated=True)
    details = body.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(body.get("prompt_tokens")), _count(body.get("completion_tokens")), _count(cached))


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0


class _Lane:
    """The bytes around the text of a plain delta, as they come in and as they go out."""

    __slots__ = ("_head", "_tail", "out_head", "out_tail")

    def __init__(self, head: bytes, tail: bytes, out_head: bytes, out_tail: bytes) -> None:
        self._head, self._tail, self.out_head, self.out_tail = head, tail, out_head, out_tail

    def text(self, event: bytes) -> bytes | None:
        """The text of `event` as the inside of a JSON string, or None when the event is not a plain delta."""
        if not (event.startswith(self._head) and event.endswith(self._tail)):
            return None
        text = event[len(self._head) : -len(self._tail)]
        if len(text) + len(self._head) + len(self._tail) != len(event):
            return None
        if b'"' not in text and b"\\" not in text and b"\n" not in text and text.isascii():
            return text
        try:
            orjson.loads(b'"' + text + b'"')
        except orjson.JSONDecodeError:
            return None
        return text

    @staticmethod
    def learn(
        raw: bytes, chunk: JsonObject, rest: JsonObject, render: Callable[[JsonObject], bytes], field: str
    ) -> _Lane | None:
        """The lane of events like `raw`, when that is a delta of text and nothing else; None when it is not."""
        choices = chunk["choices"]
        if len(choices) != 1 or choices[0].get("finish_reason") or (choices[0].get("index") or 0) != 0:
            return None
        holder = choices[0] if field == "text" else choices[0].get("delta")
        if not isinstance(holder, dict) or not isinstance(holder.get(field), str) or not holder[field]:
            return None
        if field == "content" and (holder.keys() - {"content", "role"}) and speaks({**holder, "content": None}):
            return None
        for written in (b'"%s":"' % field.encode(), b'"%s": "' % field.encode()):
            if raw.count(written) == 1:
                begin = raw.index(written) + len(written)
                break
        else:
            return None
        end = begin
        while raw[end : end + 1] != b'"':
            end += 2 if raw[end : end + 1] == b"\\" else 1
        head, tail = raw[:begin], raw[end:]
        probe = orjson.loads(head + b"llmproxy" + tail)
        seen = probe["choices"][0] if field == "text" else probe["choices"][0]["delta"]
        if seen.get(field) != "llmproxy":
            return None
        choice: JsonObject = {"finish_reason": None, **choices[0], "index": 0}
        if field == "text":
            choice["text"] = "llmproxy"
        else:
            choice["delta"] = {key: value for key, value in holder.items() if key not in ("role", "content")}
            choice["delta"]["content"] = "llmproxy"
        out_head, marker, out_tail = render({**rest, "choices": [choice]}).partition(b'"llmproxy"')
        if not marker:
            return None
        return _Lane(b"data: " + head, tail, out_head + b'"', b'"' + out_tail)


class _ToolIndices:
    """Repairs the indices of tool-call fragments: each new call gets its own, counted from 0 without gaps."""

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_given: dict[int, int] = {}
        self._last = -1

    def repair(self, fragments: Any) -> list[JsonObject]:
        return [self._one(fragment) for fragment in fragments if isinstance(fragment, dict)]

    def _one(self, fragment: JsonObject) -> JsonObject:
        given, call_id = fragment.get("index"), fragment.get("id")
        if call_id and call_id not in self._by_id:
            self._last += 1
            self._by_id[call_id] = self._last
            if isinstance(given, int):
                self._by_given[given] = self._last
            index = self._last
        elif call_id:
            index = self._by_id[call_id]
        elif isinstance(given, int) and given in self._by_given:
            index = self._by_given[given]
        else:
            index = max(self._last, 0)
        fragment = {**fragment, "index": index}
        function = fragment.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), dict):
            fragment["function"] = {**function, "arguments": orjson.dumps(function["arguments"]).decode()}
        return fragment


class _Message:
    """Deltas of one choice put together again."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, JsonObject] = {}

    def add(self, delta: JsonObject) -> None:
        if isinstance(delta.get("content"), str):
            self._content.append(delta["content"])
        if isinstance(delta.get("refusal"), str):
            self._refusal.append(delta["refusal"])
        for fragment in delta.get("tool_calls") or ():
            call = self._calls.setdefault(fragment["index"], {"function": {"name": "", "arguments": ""}})
            function = fragment.get("function") or {}
            call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
            call["function"]["arguments"] += function.get("arguments") or ""

    def value(self) -> JsonObject:
        """The message as a reply without streaming would hold it."""
        return {
            "content": "".join(self._content),
            "refusal": "".join(self._refusal) or None,
            "tool_calls": [self._calls[index] for index in sorted(self._calls)],
        }


class RawRelay:
    """A pass-through call: the bytes go on as they come; HTTP itself tells whether they were all."""

    done = False
    finished = False
    spoke = True
    usage: Usage | None = None

    def begin(self, model: str) -> None:
        pass

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""
