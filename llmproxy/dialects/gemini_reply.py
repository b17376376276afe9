"""Canonical replies and deltas → Gemini candidates (https://ai.google.dev/api/generate-content#v1beta.Candidate)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import reported_usage
from llmproxy.dialects.gemini_fields import signature_of

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "function_call": "STOP"}
_FILTERED = "SAFETY"
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}


def error_object(status: int, message: str) -> JsonObject:
    """The error body of Google's APIs without details; `status` is the one of HTTP."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNAVAILABLE")}}


def whole(body: JsonObject, *, thoughts: bool) -> JsonObject:
    """A `GenerateContentResponse` of a whole canonical reply."""
    found: JsonObject = {"candidates": [_candidate(choice, thoughts) for choice in body.get("choices") or ()]}
    if isinstance(body.get("usage"), dict):
        found["usageMetadata"] = usage_metadata(body["usage"])
    return found | origin(body)


def origin(body: Mapping[str, Any]) -> JsonObject:
    """Which model answered, and the id of the answer."""
    found: JsonObject = {}
    if body.get("model"):
        found["modelVersion"] = body["model"]
    if body.get("id"):
        found["responseId"] = body["id"]
    return found


def usage_metadata(usage: JsonObject) -> JsonObject:
    """Gemini counts thoughts beside the candidates' tokens, where the canonical usage counts them among these."""
    prompt, cached, completion, reasoning = reported_usage(usage)
    found: JsonObject = {"promptTokenCount": prompt}
    if cached:
        found["cachedContentTokenCount"] = cached
    found["candidatesTokenCount"] = max(0, completion - reasoning)
    if reasoning:
        found["thoughtsTokenCount"] = reasoning
    return {**found, "totalTokenCount": prompt + completion}


def parts(message: Mapping[str, Any], *, thoughts: bool) -> list[JsonObject]:
    """The parts of a message or a delta, in the order in which a model makes them."""
    found: list[JsonObject] = []
    if thoughts and (thought := message.get("reasoning_content")):
        found.append({"text": thought, "thought": True})
    if text := _text(message.get("content")):
        found.append({"text": text})
    if refusal := message.get("refusal"):
        found.append({"text": refusal})
    found += [part for image in message.get("images") or () if (part := _image(image)) is not None]
    sign(found, message)
    return found + [_call(call) for call in message.get("tool_calls") or ()]


def sign(found: list[JsonObject], message: Mapping[str, Any]) -> None:
    """Put the signature of a message on the last of its parts; a thought is signed by an empty text behind it."""
    if signature := signature_of(message):
        if not found or found[-1].get("thought"):
            found.append({"text": ""})
        found[-1]["thoughtSignature"] = signature


def finish_reason(choice: Mapping[str, Any], *, refused: bool = False) -> str:
    """The reason in Gemini's words; the source's own word where it spoke Gemini itself."""
    reason = str(choice.get("finish_reason"))
    if reason != "content_filter":
        return _FILTERED if refused else _FINISH.get(reason, "OTHER")
    native = str(choice.get("native_finish_reason") or "")
    return native if native.isupper() else _FILTERED


def logprobs_result(logprobs: Any) -> JsonObject | None:
    """`logprobs` of a choice; None when there are none."""
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(entries, list) or not entries:
        return None
    found: JsonObject = {"chosenCandidates": [_token(entry) for entry in entries]}
    if any(entry.get("top_logprobs") for entry in entries):
        found["topCandidates"] = [
            {"candidates": [_token(one) for one in entry.get("top_logprobs") or ()]} for entry in entries
        ]
    return found


def arguments_of(function: Mapping[str, Any]) -> JsonObject:
    """The arguments of a call as an object; text that is none stands in `arguments`, so that it can be seen."""
    text = function.get("arguments")
    if isinstance(text, dict):
        return text
    try:
        value = orjson.loads(text or "{}")
    except (orjson.JSONDecodeError, TypeError):
        value = text
    return value if isinstance(value, dict) else {"arguments": value}


def _candidate(choice: JsonObject, thoughts: bool) -> JsonObject:
    message = choice.get("message") or {}
    said = parts(message, thoughts=thoughts)
    content: JsonObject = {"parts": said, "role": "model"} if said else {"role": "model"}
    reason = finish_reason(choice, refused=bool(message.get("refusal")))
    found: JsonObject = {"content": content, "finishReason": reason, "index": choice.get("index") or 0}
    if result := logprobs_result(choice.get("logprobs")):
        chosen = [entry["logProbability"] for entry in result["chosenCandidates"]]
        found |= {"avgLogprobs": sum(chosen) / len(chosen), "logprobsResult": result}
    return found


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _call(call: JsonObject) -> JsonObject:
    function = call.get("function") or {}
    given: JsonObject = {"name": function.get("name") or "", "args": arguments_of(function)}
    if call.get("id"):
        given["id"] = call["id"]
    signature = signature_of(call)
    return {"functionCall": given, "thoughtSignature": signature} if signature else {"functionCall": given}


def _image(image: Any) -> JsonObject | None:
    """A picture that the model made, as OpenRouter's `images` hold it; one behind an address is linked."""
    holder = image.get("image_url") if isinstance(image, dict) else None
    url = holder.get("url") if isinstance(holder, dict) else holder
    if not isinstance(url, str):
        return None
    head, comma, data = url.partition(",")
    if head.startswith("data:") and head.endswith(";base64") and comma:
        return {"inlineData": {"mimeType": head[5:-7], "data": data}}
    return {"fileData": {"mimeType": "image/*", "fileUri": url}}


def _token(entry: Mapping[str, Any]) -> JsonObject:
    return {"token": entry.get("token") or "", "logProbability": entry.get("logprob") or 0.0}
