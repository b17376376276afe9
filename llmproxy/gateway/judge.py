"""Decides whether a reply is an answer, and whether it delivers what the call forced. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.errors import BadReply, Unmet
from llmproxy.core.schema import violation
from llmproxy.core.types import Call, Forced, JsonObject
from llmproxy.gateway.pieces import Thinking, as_text

# Finish reasons under which an answer without the forced thing is an honest answer, not a failure.
HONEST_ENDS = frozenset({"length", "content_filter"})


def check_reply(call: Call, body: Any) -> JsonObject:
    """The decoded 2xx body, if it is an answer to `call`; raises `BadReply` or `Unmet`."""
    if not isinstance(body, dict):
        raise BadReply(f"the body is a JSON {type(body).__name__}, not an object")
    if call.endpoint == "embeddings":
        if not body.get("data"):
            raise BadReply("the reply has no embeddings", outcome="empty")
        return body
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise BadReply("the reply has no choices", outcome="no_choices")
    if not any(isinstance(choice, dict) and has_output(choice, call.endpoint) for choice in choices):
        raise BadReply("the reply has no output", outcome="empty")
    for choice in choices:
        if isinstance(choice, dict) and isinstance(choice.get("message"), dict):
            _separate_reasoning(choice["message"])
    if call.forced is not None:
        for choice in choices:
            choice = choice if isinstance(choice, dict) else {}
            message = choice.get("message")
            check_forced(call.forced, message if isinstance(message, dict) else {}, choice.get("finish_reason"))
    return body


def _separate_reasoning(message: JsonObject) -> None:
    """Make `content` the answer alone and `reasoning_content` the way to it, however the provider mixes them."""
    content = message.get("content")
    if isinstance(content, dict | list):
        reasoning, content = as_text(content)
    elif isinstance(content, str) and content.lstrip().startswith("<think>"):
        thinking = Thinking()
        first, last = thinking.feed(content), thinking.end()
        reasoning, content = (first[0] + last[0]).rstrip("\n"), first[1] + last[1]
    elif not message.get("reasoning_content") and isinstance(message.get("reasoning"), str):
        reasoning = message["reasoning"]
    else:
        return
    message["content"] = content
    if reasoning:
        message.setdefault("reasoning_content", reasoning)


def has_output(choice: Mapping[str, Any], endpoint: str = "chat") -> bool:
    """Whether a choice says anything: text, a tool call, a refusal, reasoning, audio, or an honest early end."""
    if str(choice.get("finish_reason")) in HONEST_ENDS:
        return True
    if endpoint == "completions":
        return bool(choice.get("text"))
    message = choice.get("message")
    return isinstance(message, dict) and speaks(message)


def speaks(message: Mapping[str, Any]) -> bool:
    """Whether a message or a delta carries output."""
    return bool(
        message.get("content")
        or message.get("tool_calls")
        or message.get("function_call")
        or message.get("refusal")
        or message.get("audio")
        or message.get("reasoning_content")
        or message.get("reasoning")
    )


def check_forced(forced: Forced, message: Mapping[str, Any], finish_reason: Any) -> None:
    """Raise `Unmet` unless `message` delivers the forced capability, refuses, or ends honestly early."""
    if message.get("refusal") or str(finish_reason) in HONEST_ENDS:
        return
    if forced.tools is not None:
        _check_tools(forced, message)
    if forced.json and not message.get("tool_calls"):
        _check_json(forced, message.get("content"))


def _check_tools(forced: Forced, message: Mapping[str, Any]) -> None:
    assert forced.tools is not None
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        raise Unmet("the answer has no tool call", capability="tools")
    if not forced.parallel and len(calls) > 1:
        raise Unmet(f"{len(calls)} tool calls where one was allowed", capability="tools")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in forced.tools:
            raise Unmet(f"a call of {name!r}, which is not among the tools", capability="tools")
        assert isinstance(function, dict)
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except (orjson.JSONDecodeError, TypeError) as error:
            raise Unmet(f"the arguments of {name} are not JSON: {error}", capability="tools") from error
        if problem := violation(forced.tools[name], arguments):
            raise Unmet(f"the arguments of {name} do not fit its schema: {problem}", capability="tools")


def _check_json(forced: Forced, content: Any) -> None:
    if not isinstance(content, str) or not content.strip():
        raise Unmet("the answer has no content", capability="json")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise Unmet(f"the content is not JSON: {error}", capability="json") from error
    if forced.json_schema is None:
        if not isinstance(value, dict):
            raise Unmet(f"the content is a JSON {type(value).__name__}, not an object", capability="json")
    elif problem := violation(forced.json_schema, value):
        raise Unmet(f"the content does not fit the schema: {problem}", capability="json")
