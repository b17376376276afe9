"""Requests of OpenAI's Responses API → canonical ones (https://platform.openai.com/docs/api-reference/responses/create).

What only OpenAI's own service can do is refused by name: hosted tools, conversations and prompts that are kept there,
work in the background. Hints that say nothing about the answer (who asks, how it is billed, cached or kept) are not
sent on; a field that is not known here goes to the candidate as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.core.schema import defect
from llmproxy.core.types import JsonObject
from llmproxy.dialects.openai import error_body
from llmproxy.dialects.responses_history import unknown_response
from llmproxy.dialects.responses_items import as_items, messages
from llmproxy.dialects.responses_output import whole
from llmproxy.dialects.responses_stream import ResponsesRenderer
from llmproxy.dialects.responses_tools import read_tools

_READ = frozenset(
    {
        "input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "include", "stream",
        "previous_response_id", "top_logprobs", "parallel_tool_calls",
    }
)  # fmt: skip
# Besides who asks and what is kept: limits on hosted tools, of which there are none, and cutting long inputs, of which
# the response says that it is disabled.
_HINTS = frozenset(
    {
        "store", "metadata", "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_cache_options", "max_tool_calls", "truncation", "stream_options", "client_metadata",
        "access_programs",
    }
)  # fmt: skip
_ELSEWHERE = {
    "background": "work in the background is not offered here",
    "conversation": "conversations are not kept here; send previous_response_id, or all items",
    "prompt": "prompts are not kept here; send the text itself",
}
_MOST_LOGPROBS = 20


class Responses:
    """The dialect for one request; the ids of the response and its items are made of `call_id`.

    Without one they are made of the id of the canonical reply, which is only as unique as its source makes it.
    """

    def __init__(self, call_id: str = "") -> None:
        self._call_id = call_id

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The canonical body, for a body that `continued` has made, or that refers to nothing."""
        for name, reason in _ELSEWHERE.items():
            if body.get(name):
                raise InvalidRequest(reason, param=name)
        if body.get("previous_response_id") is not None:
            raise unknown_response(body["previous_response_id"])
        found: JsonObject = {
            name: value
            for name, value in body.items()
            if value is not None and name not in _READ and name not in _HINTS and name not in _ELSEWHERE
        }
        found["messages"] = _instructions(body.get("instructions")) + messages(as_items(body.get("input")))
        found |= read_tools(body) | _format(body) | _limits(body) | _logprobs(body)
        if body.get("stream"):
            found |= {"stream": body["stream"], "stream_options": {"include_usage": True}}
        return found

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole response; `request` is the client's own body, of which a response repeats much."""
        return whole(body, request or {}, self._call_id)

    def renderer(self, request: JsonObject) -> ResponsesRenderer:
        """For the stream that answers the client's own body."""
        return ResponsesRenderer(request, self._call_id)

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """The OpenAI error object."""
        return error_body(error)


def _instructions(given: Any) -> list[JsonObject]:
    if given is None or given == "":
        return []
    if not isinstance(given, str):
        raise InvalidRequest("instructions must be a string", param="instructions")
    return [{"role": "system", "content": given}]


def _object(body: JsonObject, name: str) -> JsonObject:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", param=name)
    return value or {}


def _limits(body: JsonObject) -> JsonObject:
    found: JsonObject = {}
    most = body.get("max_output_tokens")
    if most is not None:
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InvalidRequest("max_output_tokens must be a positive integer", param="max_output_tokens")
        found["max_tokens"] = most
    effort = _object(body, "reasoning").get("effort")
    if effort is not None:
        if not isinstance(effort, str):
            raise InvalidRequest("effort must be a string", param="reasoning.effort")
        found["reasoning_effort"] = effort
    return found


def _logprobs(body: JsonObject) -> JsonObject:
    top, include = body.get("top_logprobs"), body.get("include") or ()
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or not 0 <= top <= _MOST_LOGPROBS):
        raise InvalidRequest(f"top_logprobs must be an integer from 0 to {_MOST_LOGPROBS}", param="top_logprobs")
    if not isinstance(include, list | tuple):
        raise InvalidRequest("include must be a list", param="include")
    if "message.output_text.logprobs" not in include and not top:
        return {}
    return {"logprobs": True, "top_logprobs": top} if top else {"logprobs": True}


def _format(body: JsonObject) -> JsonObject:
    text = _object(body, "text")
    found: JsonObject = {}
    if text.get("verbosity") not in (None, "medium"):
        found["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is None:
        return found
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "text":
        return found
    if kind == "json_object":
        return {**found, "response_format": {"type": "json_object"}}
    if kind != "json_schema":
        raise InvalidRequest("format must be text, json_object or json_schema", param="text.format.type")
    schema = form.get("schema")
    problem = defect(schema) if isinstance(schema, dict) else "an object is wanted"
    if problem:
        raise InvalidRequest(f"not a JSON schema: {problem}", param="text.format.schema")
    holder = {key: form[key] for key in ("name", "schema", "strict", "description") if form.get(key) is not None}
    return {
        **found,
        "response_format": {"type": "json_schema", "json_schema": {"name": "response", **holder}},
    }
