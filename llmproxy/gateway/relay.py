"""From an upstream's stream to the client's, without I/O: bytes in, bytes out.

`begin` → `feed`* → `end`, once for each candidate. Nothing is let out before there is output (so that an error before
it is never seen); what the call forces is let out when it is whole and right. One id, one `created` for the whole
stream; the role comes first; reasoning is separated the same way for all; tool calls come whole; usage comes in a
chunk of its own, on request only.

When a candidate dies after the client has had text, the next one goes on: in mode `append` it was given the text and
continues it; in mode `align` it was asked afresh, and only what goes beyond the text that was sent is let out.

Two lanes. Every event is parsed until a plain text delta has been seen. From then on an event that differs from that
one in its text alone is recognised by its bytes and passed on without being parsed: that is nearly all of them, and
costs less than half. Everything else (finish reasons, tool calls, usage, errors) takes the parsed lane.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply, Truncated, Unmet
from llmproxy.core.types import Call, JsonObject, Usage
from llmproxy.dialects.canonical import reported_usage
from llmproxy.dialects.refusals import error_in_body
from llmproxy.gateway import repair
from llmproxy.gateway.judge import HONEST_ENDS, check_forced, speaks
from llmproxy.gateway.lane import Lane
from llmproxy.gateway.pieces import Message, Thinking, ToolCalls, as_text

Mode = Literal["fresh", "append", "align"]

_FINISH_REASONS = {
    "end_turn": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
}
_KNOWN_FINISH = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage"})

# An upstream that was asked to continue and begins again is recognised by this much of what was sent.
_RESTART_CHARS = 24


class _Choice:
    """One choice of one candidate, as far as it has come."""

    __slots__ = ("calls_out", "message", "thinking", "tools")

    def __init__(self, calls_sent: int = 0) -> None:
        self.calls_out = calls_sent
        self.tools = ToolCalls()
        self.thinking = Thinking()
        self.message = Message()


class Relay:
    """One client stream over one or more candidates."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._field: Literal["text", "content"] = "text" if call.endpoint == "completions" else "content"
        self._object = "text_completion" if self._field == "text" else "chat.completion.chunk"
        self._forced = call.forced
        prompts = call.body.get("prompt")
        each: int = call.body.get("n") or 1
        self._wanted = (
            each * sum(not isinstance(prompt, int) for prompt in prompts) if isinstance(prompts, list) else each
        )
        self._wanted = self._wanted or each
        self._hold = call.hold or (
            call.forced is not None
            and (call.forced.tools is None or not call.forced.parallel or self._wanted > 1)
            and not call.early
        )
        self.id = ""
        self.created = 0
        self.usage: Usage | None = None
        self._texts: list[bytes] = []
        self._calls_out: list[JsonObject] = []
        self._sent = (0, 0)
        self._roles: set[int] = set()
        self._let_out = False
        self._sent_text = ""
        self._sent_calls: list[JsonObject] = []
        self._spent_tokens = 0
        self._reset("", "fresh")

    # -- what the loop asks ---------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason: what comes after cannot spoil the answer."""
        return len(self._finished) >= self._wanted

    @property
    def can_take_over(self) -> bool:
        """Whether another candidate may go on from what the client has."""
        return self._wanted == 1

    @property
    def sent_text(self) -> str:
        """The text that the client has (of the first choice)."""
        return self._sent_text

    @property
    def sent_calls(self) -> bool:
        """Whether the client has a tool call."""
        return bool(self._sent_calls)

    # -- what the loop does ---------------------------------------------------------------------------------------

    def begin(self, model: str, mode: Mode = "fresh") -> None:
        """Start with a candidate whose public name is `model`; what the client has so far stays."""
        self.settle()
        self._reset(model, mode)

    def feed(self, data: bytes) -> bytes:
        """What goes to the client now; raises an `AttemptError` when the upstream reports one in its stream."""
        block = self._splitter.feed(data)
        if not block:
            return b""
        out = self._events(block)
        if not out:
            return b""
        if self._hold or not self._ready:
            self._held.append(out)
            return b""
        return self._release(out)

    def end(self) -> bytes:
        """The last bytes for the client; raises when the stream was no whole answer, or not the forced one."""
        rest = self._splitter.rest
        if rest and not self.done:
            self._held.append(self._events(rest))
        if not self._choices:
            self._refuse_whole_body(rest)
        if not self.finished:
            raise Truncated(f"the stream ended without a finish reason ({len(self._finished)} of {self._wanted})")
        if self._mode == "align" and not self._aligned:
            outcome = "diverged" if self.heard else "empty"
            raise BadReply("the answer ends before what the client already has", outcome=outcome)
        if not self.spoke and not self._sent_text and not self._sent_calls:
            raise BadReply("the stream has no output", outcome="empty")
        if self._forced is not None:
            self._judge()
        self._account()
        if self._call.include_usage:
            self._held.append(self._render({**self._aside, "choices": [], "usage": self._usage_body}))
        self._held.append(sse.DONE)
        return self._release(b"")

    @staticmethod
    def _refuse_whole_body(rest: bytes) -> None:
        """A stream was asked for, and one JSON body came: when it is an error, raise that instead of a truncation."""
        try:
            body = orjson.loads(rest)
        except orjson.JSONDecodeError:
            return
        if isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, dict) and body.get("error"):
            raise error_in_body(body, now=time.time())

    # -- state of one candidate -----------------------------------------------------------------------------------

    def _reset(self, model: str, mode: Mode) -> None:
        self._model = model
        self._mode = mode
        self._aligned = mode == "fresh" or not (self._sent_text or self._sent_calls)
        self._trim = self._sent_text[len(self._sent_text.rstrip()) :] if mode == "append" else ""
        self._fresh_text = ""
        self._repeated_calls = 0
        self._splitter = sse.Splitter()
        self._held: list[bytes] = []
        self._lane: Lane | None = None
        self._choices: dict[int, _Choice] = {}
        self._finished: dict[int, str] = {}
        self._usage_body: JsonObject | None = None
        self._texts = []
        self._aside: JsonObject = {}
        self._sent = (0, 0)
        self._calls_out = []
        self.heard = 0  # characters of output that the candidate has made, whether they went out or not
        self.spoke = False
        self._ready = False
        self.skipped = 0
        self.done = False

    def settle(self) -> None:
        """The candidate has broken off: what it let out is what the client has, and the next one goes on from there."""
        texts, calls = self._sent
        if texts:
            self._sent_text += orjson.loads(b'"' + b"".join(self._texts[:texts]) + b'"')
            self._spent_tokens += sum(map(len, self._texts)) // 4
        self._sent_calls += self._calls_out[:calls]
        self._texts, self._calls_out, self._sent = [], [], (0, 0)
        if not self._let_out:
            self._roles.clear()

    def _release(self, out: bytes) -> bytes:
        if self._held:
            self._held.append(out)
            out = b"".join(self._held)
            self._held.clear()
        self._let_out = self._let_out or bool(out)
        if out:
            # An error later in a block keeps back what the same block said before it.
            self._sent = (len(self._texts), len(self._calls_out))
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
                self.heard += len(text)
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
        try:
            return self._chunk(chunk, event.data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadReply(f"a chunk of an odd shape: {error!r}"[:200], outcome="odd_chunk") from error

    def _chunk(self, chunk: JsonObject, raw: bytes) -> bytes:
        if not self.id:
            self.id = str(chunk.get("id") or f"chatcmpl-{self._call.id}")
            created = chunk.get("created")
            self.created = created if isinstance(created, int) and created > 0 else int(time.time())
        if isinstance(chunk.get("usage"), dict):
            self._usage_body = chunk["usage"]
        elif isinstance((chunk.get("x_groq") or {}).get("usage"), dict):
            self._usage_body = chunk["x_groq"]["usage"]
        given = chunk.get("choices")
        if not isinstance(given, list) or not given:
            self._aside |= {key: value for key, value in chunk.items() if key not in _ENVELOPE and value is not None}
            return b""
        made = [self._choice(choice) for choice in given if isinstance(choice, dict)]
        choices = [choice for choice in made if choice is not None]
        if not choices:
            return b""
        rest = {key: value for key, value in chunk.items() if key not in _ENVELOPE and value is not None}
        out = self._render({**rest, "choices": choices}) if not _calls_late(choices) else self._apart(rest, choices)
        if self._lane is None and self._is_plain(given):
            self._lane = Lane.learn(raw, chunk, rest, self._render, self._field)
        return out

    def _apart(self, rest: JsonObject, choices: list[JsonObject]) -> bytes:
        """Tool calls, then finish reasons: SDK helpers tell that a call is done when the next chunk comes."""
        calls = [{**choice, "finish_reason": None} for choice in choices]
        ends = [
            {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
            for choice in choices
            if choice["finish_reason"]
        ]
        return self._render({**rest, "choices": calls}) + self._render({**rest, "choices": ends})

    def _choice(self, given: JsonObject) -> JsonObject | None:
        """A choice of a chunk as the client gets it; None when there is nothing to tell yet."""
        index = given.get("index") or 0
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = _Choice(len(self._sent_calls) if index == 0 else 0)
        reason = given.get("finish_reason") or None
        if reason:
            reason = reason if reason in _KNOWN_FINISH else _FINISH_REASONS.get(str(reason).lower(), "stop")
            self._finished[index] = reason
        choice: JsonObject = {"finish_reason": None, **given, "index": index}
        choice["finish_reason"] = reason
        if self._field == "text":
            return self._text_choice(choice)
        delta = self._delta(state, dict(given.get("delta") or {}), ends=reason is not None)
        if index not in self._roles:
            self._roles.add(index)
            delta = {"role": "assistant", **delta}
        elif not delta and not reason and not given.get("logprobs"):
            return None
        choice["delta"] = delta
        if reason == "stop" and state.tools.found:
            choice["finish_reason"] = reason = self._finished[index] = "tool_calls"
        self._see(state, delta, reason)
        self.spoke = self.spoke or bool(self._fresh_text)
        return choice

    def _text_choice(self, choice: JsonObject) -> JsonObject:
        said = str(choice.get("text") or "")
        self.heard += len(said)
        text = self._aligned_text(said, ends=choice["finish_reason"] is not None)
        self._texts.append(_inside(text))
        choice["text"] = text
        if text or choice["finish_reason"] in HONEST_ENDS:
            self.spoke = self._ready = True
        return choice

    def _delta(self, state: _Choice, delta: JsonObject, *, ends: bool) -> JsonObject:
        """A delta with its reasoning separated, its tool calls whole, and without what the client has already."""
        delta.pop("role", None)
        inline, text = as_text(delta.pop("content", None))
        if inline and not delta.get("reasoning_content"):
            delta["reasoning_content"] = inline
        self.heard += _size(text) + _size(delta)
        if isinstance(text, str):
            reasoning, answer = state.thinking.feed(text)
            if ends:
                more_reasoning, more_answer = state.thinking.end()
                reasoning, answer = reasoning + more_reasoning, answer + more_answer
            if reasoning:
                delta["reasoning_content"] = (delta.get("reasoning_content") or "") + reasoning
        elif ends:
            reasoning, answer = state.thinking.end()
            if reasoning:
                delta["reasoning_content"] = reasoning
        else:
            answer = ""
        if isinstance(thought := delta.get("reasoning"), str) and not delta.get("reasoning_content"):
            delta["reasoning_content"] = thought
        fragments = delta.pop("tool_calls", None)
        if not self._aligned and fragments and not self._sent_calls:
            raise BadReply("the answer goes on with a tool call where the client has text", outcome="diverged")
        answer = self._aligned_text(answer, ends=ends)
        if answer or (text == "" and not delta):
            delta["content"] = answer
        calls = state.tools.add(fragments) if fragments else []
        if ends:
            calls = calls + state.tools.end()
        if calls and (new := self._new_calls(state, calls)):
            delta["tool_calls"] = new
        return delta

    def _see(self, state: _Choice, delta: JsonObject, reason: str | None) -> None:
        """Note what goes out: for the judge, for the next candidate, and whether there is output now."""
        text, calls = delta.get("content"), delta.get("tool_calls") or ()
        if text:
            self._texts.append(_inside(text))
        self._calls_out += calls
        if speaks(delta) or reason in HONEST_ENDS:
            self.spoke = True
        if self._forced is None:
            self._ready = self.spoke
            return
        if text:
            state.message.text.append(text)
        if delta.get("refusal"):
            state.message.refusal.append(delta["refusal"])
        state.message.calls += calls
        if calls and self._forced.tools is not None:
            check_forced(self._forced, {"tool_calls": list(calls)}, None)
            self._ready = True
        elif self._call.early and self._forced.tools is None:
            self._ready = self.spoke

    # -- takeover -------------------------------------------------------------------------------------------------

    def _aligned_text(self, text: str, *, ends: bool) -> str:
        """What of `text` the client does not have; raises `BadReply` when it is not the answer that was begun."""
        if self._aligned or not (text or (ends and self._fresh_text)):
            return text
        self._fresh_text += text
        fresh, sent = self._fresh_text, self._sent_text
        if self._mode == "append":
            known = min(len(sent), _RESTART_CHARS)
            may_begin_again = known == _RESTART_CHARS and sent.startswith(fresh[:known])
            if may_begin_again and len(fresh) < known and not ends:
                return ""
            if not (may_begin_again and len(fresh) >= known):
                self._aligned = True
                return fresh[len(self._trim) :] if self._trim and fresh.startswith(self._trim) else fresh
            self._mode = "align"  # it was asked to go on, and begins again
        if not sent.startswith(fresh[: len(sent)]) or len(fresh) < len(sent):
            if sent.startswith(fresh):
                return ""
            raise BadReply("the answer is not the one that was begun", outcome="diverged")
        self._aligned = True
        return fresh[len(sent) :]

    def _new_calls(self, state: _Choice, calls: list[JsonObject]) -> list[JsonObject]:
        """The calls that the client does not have, with an id each and indices without gaps."""
        new: list[JsonObject] = []
        for call in calls:
            place = self._repeated_calls
            if place < len(self._sent_calls):
                if not _same_call(call, self._sent_calls[place]):
                    raise BadReply("the tool calls are not those that were begun", outcome="diverged")
                self._repeated_calls += 1
                self._aligned = True
                continue
            place = len(self._sent_calls) + len(self._calls_out) + len(new)
            new.append({"index": state.calls_out, "id": f"call_{self._call.id[-12:]}{place:02x}", **call})
            state.calls_out += 1
        return new

    # -- the end --------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Raise `Unmet` unless every choice delivers what is forced; repairs one that was not let out yet."""
        assert self._forced is not None
        for index, reason in self._finished.items():
            state = self._choices[index]
            message = state.message.value()
            if self._wanted == 1:  # what an earlier candidate has said belongs to the answer
                message["content"] = self._sent_text + message["content"]
                message["tool_calls"] = self._sent_calls + message["tool_calls"]
            try:
                check_forced(self._forced, message, reason)
            except Unmet:
                if self._let_out or self._wanted > 1 or not self._repair(state, index):
                    raise

    def _repair(self, state: _Choice, index: int) -> bool:
        """Replace what is held by the forced thing, when the text holds it in the wrong wrapping."""
        assert self._forced is not None
        text = "".join(state.message.text)
        if self._forced.tools is not None:
            calls = repair.tool_calls(text, self._forced, self._call.id)
            message: JsonObject = {"tool_calls": calls}
            delta: JsonObject = {"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}
            reason = "tool_calls"
        else:
            value = repair.as_json(text)
            message = delta = {"content": value}
            reason = "stop"
        try:
            check_forced(self._forced, message, None)
        except Unmet:
            return False
        begin = {"index": index, "delta": {"role": "assistant", **delta}, "finish_reason": None}
        end = {"index": index, "delta": {}, "finish_reason": reason}
        self._held = [self._render({"choices": [begin]}), self._render({"choices": [end]})]
        return True

    def _account(self) -> None:
        body = self._usage_body
        if body is None:
            completion = max(1, sum(map(len, self._texts)) // 4)
            prompt = self._call.prompt_tokens
            body = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
            body["estimated"] = True
        usage = read_usage(body)
        if self._spent_tokens:
            # The candidates that died made tokens too; nobody told how many.
            usage = usage._replace(completion_tokens=usage.completion_tokens + self._spent_tokens, estimated=True)
            total = usage.prompt_tokens + usage.completion_tokens
            body = {**body, "completion_tokens": usage.completion_tokens, "total_tokens": total, "estimated": True}
        self._usage_body, self.usage = body, usage._replace(estimated=bool(body.get("estimated")))

    def _is_plain(self, given: list[Any]) -> bool:
        """Whether what follows may take the fast lane: one choice of text that nobody has to look at."""
        if self._wanted > 1 or self._forced is not None or not self._aligned or len(given) != 1:
            return False
        state = self._choices.get(given[0].get("index") or 0)
        return self._ready and (self._field == "text" or (state is not None and state.thinking.over))

    def _render(self, chunk: JsonObject) -> bytes:
        usage = {"usage": None} if self._call.include_usage else {}
        head = {"id": self.id, "object": self._object, "created": self.created, "model": self._model}
        return b"data: " + orjson.dumps({**head, **usage, **chunk}) + b"\n\n"


def _size(value: Any) -> int:
    """How many characters of text are in a delta or a part of it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0


def _calls_late(choices: list[JsonObject]) -> bool:
    """Whether a choice calls a tool and ends in the same chunk."""
    return any(choice["finish_reason"] and (choice.get("delta") or {}).get("tool_calls") for choice in choices)


class RawRelay:
    """A pass-through call: the bytes go on as they come; HTTP itself tells whether they were all."""

    done = False
    finished = False
    heard = 0
    can_take_over = False
    usage: Usage | None = None

    def begin(self, model: str, mode: Mode = "fresh") -> None:
        """Nothing to prepare."""

    def feed(self, data: bytes) -> bytes:
        """The same bytes."""
        self.heard += len(data)
        return data

    def end(self) -> bytes:
        return b""


def read_usage(body: Any) -> Usage:
    """The OpenAI usage object as a value; missing or odd numbers count as 0."""
    if not isinstance(body, dict):
        return Usage(estimated=True)
    prompt, cached, completion, _ = reported_usage(body)
    cost = body.get("cost")
    return Usage(
        prompt,
        completion,
        cached,
        # OpenRouter's (https://openrouter.ai/docs/use-cases/usage-accounting): USD, of what the account is charged.
        cost_usd=float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
    )


def _inside(text: str) -> bytes:
    """`text` as the inside of a JSON string."""
    return orjson.dumps(text)[1:-1]


def _same_call(one: JsonObject, other: JsonObject) -> bool:
    def read(call: JsonObject) -> Any:
        try:
            return orjson.loads(call["function"]["arguments"] or "{}")
        except orjson.JSONDecodeError:
            return call["function"]["arguments"]

    return bool(one["function"]["name"] == other["function"]["name"] and read(one) == read(other))
