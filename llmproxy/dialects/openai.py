"""OpenAI requests → calls (https://platform.openai.com/docs/api-reference). The canonical dialect: replies need none.

What is checked here is what the proxy itself relies on, and what would be refused everywhere; a field that it does not
know goes to the candidate as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmproxy.core.errors import AttemptError, InvalidRequest, LlmproxyError
from llmproxy.core.names import AUTO
from llmproxy.core.schema import defect
from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import Call, Forced, JsonObject

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_OWN = ("model", "models", "stream", "stream_options")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_text_or_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


_Check = tuple[Callable[[Any], bool], str]
_NUMBER: _Check = (_is_number, "a number")
_POSITIVE: _Check = (_is_positive, "a positive integer")
_BOOLEAN: _Check = (lambda value: isinstance(value, bool), "true or false")
_OBJECT: _Check = (lambda value: isinstance(value, dict), "an object")
_FIELDS: Mapping[str, _Check] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "max_tokens": _POSITIVE,
    "max_completion_tokens": _POSITIVE,
    "n": _POSITIVE,
    "seed": (lambda value: isinstance(value, int), "an integer"),
    "stop": (_is_text_or_texts, "a string or a list of strings"),
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "parallel_tool_calls": _BOOLEAN,
    "logit_bias": _OBJECT,
    "response_format": _OBJECT,
    "tools": (lambda value: isinstance(value, list), "a list"),
    "tool_choice": (lambda value: isinstance(value, str | dict), "a string or an object"),
    "model": (lambda value: isinstance(value, str) and bool(value), "a model name"),
    "models": (
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
        "a list of names",
    ),
}


def parse_chat(body: JsonObject, call_id: str) -> Call:
    """A `POST /v1/chat/completions` body; raises `InvalidRequest` with the path of the wrong field in `param`."""
    _check_fields(body)
    _check_messages(body.get("messages"))
    if body.get("tools"):
        _check_tools(body["tools"])
    call = _call(body, call_id, "chat")
    call.needs = _needs(body)
    call.forced = _forced(body)
    call.prompt_tokens = sum(map(_message_tokens, body["messages"]))
    return call


def parse_completion(body: JsonObject, call_id: str) -> Call:
    """A `POST /v1/completions` body."""
    _check_fields(body)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and prompt):
        raise InvalidRequest("prompt must be a string or a list that is not empty", param="prompt")
    call = _call(body, call_id, "completions")
    call.prompt_tokens = len(str(prompt)) // CHARACTERS_PER_TOKEN
    return call


def parse_embeddings(body: JsonObject, call_id: str) -> Call:
    """A `POST /v1/embeddings` body; `model` must be given: vectors of two models do not go together."""
    _check_fields(body)
    if "model" not in body:
        raise InvalidRequest("model is required for embeddings", param="model")
    given = body.get("input")
    if not isinstance(given, str | list) or not given:
        raise InvalidRequest("input must be a string or a list that is not empty", param="input")
    if body.get("stream"):
        raise InvalidRequest("embeddings cannot be streamed", param="stream")
    call = _call(body, call_id, "embeddings")
    call.prompt_tokens = len(str(given)) // CHARACTERS_PER_TOKEN
    return call


def _call(body: JsonObject, call_id: str, endpoint: Any) -> Call:
    options = body.get("stream_options") or {}
    stream = bool(body.get("stream"))
    return Call(
        id=call_id,
        endpoint=endpoint,
        model=body.get("model") or AUTO,
        fallbacks=tuple(name for name in body.get("models") or () if name != body.get("model")),
        body={key: value for key, value in body.items() if key not in _OWN},
        stream=stream,
        include_usage=stream and bool(options.get("include_usage")),
        count_usage=options.get("include_usage") is not False,
    )


def _check_fields(body: JsonObject) -> None:
    for name, value in body.items():
        check = _FIELDS.get(name)
        if check is not None and value is not None and not check[0](value):
            raise InvalidRequest(f"{name} must be {check[1]}", param=name)


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages must be a list with at least one message", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest("a message must be an object", param=f"messages.{index}")
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            raise InvalidRequest(f"role must be one of {', '.join(sorted(_ROLES))}", param=f"messages.{index}.role")
        content = message.get("content")
        if isinstance(content, str):
            continue
        if isinstance(content, list):
            for place, part in enumerate(content):
                if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                    raise InvalidRequest(
                        "a content part must be an object with a type", param=f"messages.{index}.content.{place}"
                    )
        elif content is not None or message["role"] in ("user", "system", "developer", "tool"):
            raise InvalidRequest("content must be a string or a list of parts", param=f"messages.{index}.content")


def _check_tools(tools: list[Any]) -> None:
    for index, tool in enumerate(tools):
        path = f"tools.{index}"
        if not isinstance(tool, dict):
            raise InvalidRequest("a tool must be an object", param=path)
        function = tool.get("function")
        if tool.get("type", "function") == "function":
            if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
                raise InvalidRequest("a function tool needs function.name", param=f"{path}.function.name")
            parameters = function.get("parameters")
            if parameters is not None and not isinstance(parameters, dict):
                raise InvalidRequest("parameters must be a JSON schema", param=f"{path}.function.parameters")


def _forced(body: JsonObject) -> Forced | None:
    tools = _forced_tools(body)
    parallel = body.get("parallel_tool_calls") is not False
    form = body.get("response_format") or {}
    kind = form.get("type")
    if tools is not None:
        return Forced(tools=tools, parallel=parallel)
    if kind == "json_object":
        return Forced(json=True)
    if kind == "json_schema":
        holder = form.get("json_schema")
        schema = holder.get("schema") if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or not (schema is None or isinstance(schema, dict)):
            raise InvalidRequest(
                "json_schema must be an object with a schema", param="response_format.json_schema.schema"
            )
        if schema is not None and (problem := defect(schema)):
            raise InvalidRequest(f"not a JSON schema: {problem}", param="response_format.json_schema.schema")
        return Forced(json=True, json_schema=schema or {})
    return None


def _forced_tools(body: JsonObject) -> dict[str, Any] | None:
    choice = body.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    offered = {
        tool["function"]["name"]: tool["function"].get("parameters")
        for tool in body.get("tools") or ()
        if tool.get("type", "function") == "function"
    }
    wanted: list[Any]
    if choice in ("required", "any"):  # "any" is Mistral's word
        wanted = list(offered)
    elif isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        wanted = [choice["function"].get("name")]
    elif isinstance(choice, dict) and isinstance(allowed := choice.get("allowed_tools"), dict):
        if allowed.get("mode") != "required":
            return None
        listed = allowed.get("tools")
        wanted = [name_in(tool) for tool in listed] if isinstance(listed, list) else []
    else:
        raise InvalidRequest("tool_choice must be none, auto, required, or name a function", param="tool_choice")
    if not wanted or any(not isinstance(name, str) or name not in offered for name in wanted):
        raise InvalidRequest("tool_choice asks for a tool that is not in tools", param="tool_choice")
    for name in wanted:
        if offered[name] and (problem := defect(offered[name])):
            raise InvalidRequest(f"the parameters of {name} are not a JSON schema: {problem}", param="tools")
    return {name: offered[name] for name in wanted}


def name_in(tool: Any) -> Any:
    """The name of the function that a tool, or the choice of one, is about; None where there is none."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _needs(body: Mapping[str, object]) -> frozenset[str]:
    """The capabilities that a chat request makes use of."""
    needs: set[str] = set()
    if body.get("tools") and body.get("tool_choice") != "none":
        needs.add("tools")
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        needs.add("json")
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                kind = part.get("type")
                if kind == "image_url":
                    needs.add("vision")
                elif kind == "input_audio":
                    needs.add("audio")
    return frozenset(needs)


def _message_tokens(message: JsonObject) -> int:
    content = message.get("content")
    if isinstance(content, list):
        length = sum(len(part.get("text") or "") for part in content if isinstance(part.get("text"), str))
    else:
        length = len(content or "")
    return 4 + length // CHARACTERS_PER_TOKEN


def error_body(error: LlmproxyError) -> JsonObject:
    """The OpenAI error object: message, type, param, code, and the attempts when candidates were tried."""
    fields: JsonObject = {
        "message": error.message,
        "type": error.type,
        "param": error.param,
        "code": error.outcome if isinstance(error, AttemptError) else error.code,
    }
    if error.attempts:
        fields["attempts"] = [
            {
                "model": attempt.model,
                "outcome": attempt.outcome,
                "status": attempt.status,
                "ms": round(attempt.elapsed_s * 1000),
                "reason": attempt.reason,
            }
            for attempt in error.attempts
        ]
    return {"error": fields}
