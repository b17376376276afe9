"""Gemini's replies and streams → canonical ones (https://ai.google.dev/api/generate-content#v1beta.Candidate).

Thoughts become `reasoning_content`; their signatures stand in `extra_content.google.thought_signature` of what they
sign, where Google's own OpenAI endpoint has them. A word of Gemini's for an end that the canonical format cannot tell
apart is kept in `native_finish_reason`.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from llmproxy.core import sse
from llmproxy.core.errors import BadReply
from llmproxy.core.types import JsonObject
from llmproxy.dialects.gemini_fields import signed

# What reading values of other types than the API defines comes to.
_ODD = (AttributeError, KeyError, TypeError, ValueError)
_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_FILTERED = frozenset(
    {
        "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR",
        "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    }
)  # fmt: skip


def whole_reply(body: Any, model: str) -> JsonObject:
    """A whole reply as a canonical one; raises `BadReply` where it is none."""
    if not isinstance(body, dict):
        raise BadReply(f"the body is a JSON {type(body).__name__}, not an object")
    try:
        return _whole(body, model)
    except _ODD as error:
        raise BadReply(f"a reply of an odd shape: {error!r}"[:200]) from error


def _whole(body: JsonObject, model: str) -> JsonObject:
    answer_id = _answer_id(body)
    choices = [_choice(candidate, answer_id) for candidate in body.get("candidates") or ()]
    for choice in choices:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    if not choices:
        if (blocked := _blocked(body)) is None:
            raise BadReply("the reply has no candidates", outcome="no_choices")
        choices = [{"index": 0, "message": {"role": "assistant", "content": ""}, **blocked}]
    found: JsonObject = {
        "id": answer_id,
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": choices,
    }
    if (usage := canonical_usage(body.get("usageMetadata"))) is not None:
        found["usage"] = usage
    return found


def canonical_usage(metadata: Any) -> JsonObject | None:
    """`usageMetadata` as a canonical usage: thoughts count among the completion's tokens."""
    if not isinstance(metadata, dict):
        return None

    def count(name: str) -> int:
        value = metadata.get(name)
        return value if isinstance(value, int) and value > 0 else 0

    prompt = count("promptTokenCount") + count("toolUsePromptTokenCount")
    completion = count("candidatesTokenCount") + count("thoughtsTokenCount")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": count("cachedContentTokenCount")},
        "completion_tokens_details": {"reasoning_tokens": count("thoughtsTokenCount")},
    }


class GeminiTranslator:
    """A stream of `alt=sse` → the canonical stream. Each chunk is whole; calls of functions come whole in one delta.

    Raises `BadReply` for events of an odd shape.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._splitter = sse.Splitter()
        self._id = ""
        self._calls: dict[int, int] = {}
        self._open: set[int] = set()
        self._finished = False
        self._failed = False
        self._usage: JsonObject | None = None
        self._told: JsonObject | None = None

    def feed(self, data: bytes) -> bytes:
        return b"".join(map(self._event, sse.split(self._splitter.feed(data))))

    def finish(self) -> bytes:
        """The rest; a body that is no stream of events (an error, or a list) is read too."""
        rest = self._splitter.rest.strip()
        whole = rest[:1] in (b"{", b"[")
        out = self._json(rest) if whole else b"".join(map(self._event, sse.split(rest)))
        if self._failed or not self._finished or self._open:
            return out
        if self._usage != self._told:
            out += self._chunk([], self._usage)
        return out + sse.DONE

    def _event(self, event: sse.Event) -> bytes:
        return b"" if event.data is None or event.done else self._json(event.data)

    def _json(self, data: bytes) -> bytes:
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return b""
        try:
            return b"".join(map(self._response, value if isinstance(value, list) else [value]))
        except _ODD as error:
            raise BadReply(f"an event of an odd shape: {error!r}"[:200], outcome="odd_chunk") from error

    def _response(self, body: Any) -> bytes:
        if self._failed or not isinstance(body, dict):
            return b""
        if body.get("error"):
            return self._error(body["error"])
        self._id = self._id or _answer_id(body)
        self._usage = canonical_usage(body.get("usageMetadata")) or self._usage
        try:
            choices = [self._choice(candidate) for candidate in body.get("candidates") or ()]
        except BadReply as failure:
            return self._error({"message": failure.message, "type": failure.outcome, "param": None, "code": "502"})
        if not choices and not self._finished and (blocked := _blocked(body)) is not None:
            choices = [{"index": 0, "delta": {"role": "assistant"}, **blocked}]
            self._finished = True
        said = [choice for choice in choices if choice["delta"] or choice["finish_reason"]]
        if not said:
            return b""
        ends = any(choice["finish_reason"] for choice in said)
        self._told = self._usage if ends else self._told
        return self._chunk(said, self._usage if ends else None)

    def _choice(self, candidate: JsonObject) -> JsonObject:
        index = candidate.get("index") or 0
        begun = self._calls.get(index, 0)
        choice = _choice(candidate, self._id, begun)
        delta = {key: value for key, value in choice.pop("message").items() if value and key != "role"}
        for place, call in enumerate(delta.get("tool_calls") or (), begun):
            call["index"] = place
        self._calls[index] = begun + len(delta.get("tool_calls") or ())
        if choice["finish_reason"] is None:
            self._open.add(index)
        else:
            self._finished = True
            self._open.discard(index)
        return {**choice, "delta": delta}

    def _chunk(self, choices: list[JsonObject], usage: JsonObject | None) -> bytes:
        chunk: JsonObject = {"id": self._id, "object": "chat.completion.chunk", "model": self._model}
        chunk["choices"] = choices
        if usage is not None:
            chunk["usage"] = usage
        return sse.event(orjson.dumps(chunk))

    def _error(self, error: Any) -> bytes:
        self._failed = True
        return sse.event(orjson.dumps({"error": error}))


def _answer_id(body: JsonObject) -> str:
    given = body.get("responseId")
    return given if isinstance(given, str) and given else f"chatcmpl-{_digest(body)}"


def _blocked(body: JsonObject) -> JsonObject | None:
    """How a choice ends whose prompt was refused; None when it was not."""
    feedback = body.get("promptFeedback")
    reason = feedback.get("blockReason") if isinstance(feedback, dict) else None
    return {"finish_reason": "content_filter", "native_finish_reason": str(reason)} if reason else None


def _choice(candidate: JsonObject, answer_id: str, begun: int = 0) -> JsonObject:
    """A candidate as a choice; `begun` counts the calls before these. Raises `BadReply` for a failure."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    message = _message(parts if isinstance(parts, list) else [], answer_id, begun)
    native = str(candidate.get("finishReason") or "")
    choice: JsonObject = {"index": candidate.get("index") or 0, "message": message, "finish_reason": None}
    if native in _FILTERED:
        choice |= {"finish_reason": "content_filter", "native_finish_reason": native}
    elif native and native != "FINISH_REASON_UNSPECIFIED":
        called = native == "STOP" and (begun or message.get("tool_calls"))
        choice["finish_reason"] = "tool_calls" if called else _ended(native, candidate)
    if logprobs := _logprobs(candidate.get("logprobsResult")):
        choice["logprobs"] = logprobs
    return choice


def _ended(native: str, candidate: JsonObject) -> str:
    """The canonical word for an end; raises `BadReply` where the model made nothing of use.

    So it is with MALFORMED_FUNCTION_CALL and its like: another try, or another model, may answer.
    """
    if native not in _FINISH:
        told = candidate.get("finishMessage") or "the model gave no answer"
        raise BadReply(f"{native}: {told}", outcome=native.lower())
    return _FINISH[native]


def _message(parts: list[Any], answer_id: str, begun: int) -> JsonObject:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[JsonObject] = []
    images: list[JsonObject] = []
    signature: Any = None
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(called := part.get("functionCall"), dict):
            calls.append(_call(called, part.get("thoughtSignature"), answer_id, begun + len(calls)))
            continue
        signature = part.get("thoughtSignature") or signature
        if isinstance(data := part.get("inlineData"), dict):
            url = f"data:{data.get('mimeType')};base64,{data.get('data')}"
            images.append({"type": "image_url", "image_url": {"url": url}})
        else:
            (thoughts if part.get("thought") else texts).append(_text(part))
    message: JsonObject = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    if images:
        message["images"] = images
    return signed(message, signature)


def _text(part: JsonObject) -> str:
    if isinstance(code := part.get("executableCode"), dict):
        return f"```{str(code.get('language') or '').lower()}\n{code.get('code') or ''}\n```\n"
    if isinstance(result := part.get("codeExecutionResult"), dict):
        return f"```\n{result.get('output') or ''}\n```\n"
    return str(part.get("text") or "")


def _call(called: JsonObject, signature: Any, answer_id: str, place: int) -> JsonObject:
    """A call with an id: Gemini's own, or one that is the same whenever this answer is read."""
    arguments = orjson.dumps(called.get("args") or {}).decode()
    call_id = called.get("id") or f"call_{_digest([answer_id, place, called.get('name'), arguments])}"
    function = {"name": called.get("name") or "", "arguments": arguments}
    return signed({"id": call_id, "type": "function", "function": function}, signature)


def _digest(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value)).hexdigest()[:24]


def _logprobs(result: Any) -> JsonObject | None:
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    if not isinstance(chosen, list) or not chosen:
        return None
    tops = result.get("topCandidates") or []
    content = []
    for place, entry in enumerate(chosen):
        others = tops[place].get("candidates") or () if place < len(tops) else ()
        content.append({**_token(entry), "top_logprobs": [_token(one) for one in others]})
    return {"content": content, "refusal": None}


def _token(entry: JsonObject) -> JsonObject:
    token = str(entry.get("token") or "")
    logprob = entry.get("logProbability")
    told = logprob if isinstance(logprob, int | float) else 0.0
    return {"token": token, "logprob": told, "bytes": list(token.encode())}
