"""Gemini requests → canonical ones (https://ai.google.dev/api/generate-content), and replies and errors back.

What changes the answer and cannot be had here is refused by name (hosted tools, cached contents, files at Google).
What has no counterpart goes along in the field `gemini` of the body, a tool or a part.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproxy.core.errors import AttemptError, InvalidRequest, LlmproxyError
from llmproxy.core.types import JsonObject, trail
from llmproxy.dialects.base import Renderer
from llmproxy.dialects.gemini_contents import messages, system_messages
from llmproxy.dialects.gemini_fields import GEMINI, Fields
from llmproxy.dialects.gemini_reply import error_object, whole
from llmproxy.dialects.gemini_schema import checked
from llmproxy.dialects.gemini_stream import ArrayRenderer, EventsRenderer

_TOP = (
    "contents", "systemInstruction", "tools", "toolConfig", "generationConfig", "model", "cachedContent",
)  # fmt: skip
_CONFIG = (
    "temperature", "topP", "topK", "maxOutputTokens", "stopSequences", "candidateCount", "seed", "presencePenalty",
    "frequencyPenalty", "responseLogprobs", "logprobs", "responseMimeType", "responseSchema", "responseJsonSchema",
    "_responseJsonSchema", "responseModalities", "thinkingConfig",
)  # fmt: skip
_NUMBERS = {
    "temperature": "temperature",
    "topP": "top_p",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_INTEGERS = {
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "candidateCount": "n",
    "seed": "seed",
    "logprobs": "top_logprobs",
}
_LEVELS = {"MINIMAL": "minimal", "LOW": "low", "MEDIUM": "medium", "HIGH": "high"}

# The most tokens of thought that an effort stands for; Google's own OpenAI endpoint draws the same lines.
_LOW_TOKENS = 1_024
_MEDIUM_TOKENS = 8_192


class Gemini:
    """The dialect for one method of one model, as the path of the URL names them.

    `stream` for `streamGenerateContent`, whose answer is server-sent events with `alt=sse` (`sse`), else a JSON array.
    """

    def __init__(self, model: str = "", *, stream: bool = False, sse: bool = True) -> None:
        self._model = model.removeprefix("models/")
        self._stream = stream
        self._sse = sse

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The canonical body."""
        fields = Fields(body)
        if fields.get("cachedContent") is not None:
            raise InvalidRequest("contents cached at Google are not in reach", param=fields.at("cachedContent"))
        contents = fields.objects("contents")
        if not contents:
            raise fields.wrong("contents", "a list with at least one content")
        found: JsonObject = {"model": self._model} if self._model else {}
        found["messages"] = system_messages(fields.object("systemInstruction")) + messages(contents)
        config = fields.object("generationConfig")
        if config is not None:
            found |= _settings(config)
        found |= _tools(fields)
        if extras := _extras(fields, config):
            found[GEMINI] = extras
        if self._stream:
            found |= {"stream": True, "stream_options": {"include_usage": True}}
        return found

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole reply; thoughts are in it when `request` asked for them, or is not given."""
        return whole(body, thoughts=request is None or _wants_thoughts(request))

    def renderer(self, request: JsonObject) -> Renderer:
        thoughts = _wants_thoughts(request)
        return EventsRenderer(thoughts=thoughts) if self._sse else ArrayRenderer(thoughts=thoughts)

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """A `google.rpc.Status` (https://google.aip.dev/193); the details name the field, the wait and the attempts."""
        code = error.outcome if isinstance(error, AttemptError) else error.code
        details: list[JsonObject] = [_detail("ErrorInfo", reason=code.upper(), domain="llmproxy")]
        if error.param is not None:
            details.append(
                _detail("BadRequest", fieldViolations=[{"field": error.param, "description": error.message}])
            )
        if error.retry_after_s is not None:
            details.append(_detail("RetryInfo", retryDelay=f"{error.retry_after_s:.3f}".rstrip("0").rstrip(".") + "s"))
        if error.attempts:
            details.append(_detail("DebugInfo", stackEntries=[], detail=trail(list(error.attempts))))
        details.append(_detail("RequestInfo", requestId=request_id, servingData=""))
        found = error_object(status, error.message)
        found["error"]["details"] = details
        return found


def _detail(kind: str, **fields: object) -> JsonObject:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def _extras(fields: Fields, config: Fields | None) -> JsonObject:
    """What only Gemini has a word for; how to think is among it, as an effort does not say all of that."""
    found = fields.rest(_TOP)
    tuned = config.rest(_CONFIG) if config is not None else {}
    thinking = config.object("thinkingConfig") if config is not None else None
    if thinking is not None and (thinking.flag("includeThoughts") or (thinking.integer("thinkingBudget") or 0) != 0):
        tuned["thinkingConfig"] = thinking.value
    return {**found, "generationConfig": tuned} if tuned else found


def _wants_thoughts(request: JsonObject) -> bool:
    config = Fields(request).object("generationConfig")
    thinking = config.object("thinkingConfig") if config else None
    return thinking is not None and thinking.flag("includeThoughts")


# -- generationConfig ---------------------------------------------------------------------------------------------


def _settings(config: Fields) -> JsonObject:
    found: JsonObject = {}
    for name, canonical in _NUMBERS.items():
        if (number := config.number(name)) is not None:
            found[canonical] = number
    for name, canonical in _INTEGERS.items():
        if (integer := config.integer(name)) is not None:
            found[canonical] = integer
    for name in ("maxOutputTokens", "candidateCount"):
        count = config.integer(name)
        if count is not None and count < 1:
            raise config.wrong(name, "a positive integer")
    if stops := config.texts("stopSequences"):
        found["stop"] = stops
    if config.flag("responseLogprobs"):
        found["logprobs"] = True
    if {modality.upper() for modality in config.texts("responseModalities")} - {"TEXT"}:
        raise InvalidRequest("answers are text", param=config.at("responseModalities"))
    if thinking := config.object("thinkingConfig"):
        found |= _effort(thinking)
    return found | _response_format(config)


def _effort(thinking: Fields) -> JsonObject:
    """How much to think, as an effort; a budget that is left to the model says nothing."""
    level = thinking.word("thinkingLevel")
    if level and level != "THINKING_LEVEL_UNSPECIFIED":
        if level not in _LEVELS:
            raise thinking.wrong("thinkingLevel", f"one of {', '.join(_LEVELS)}")
        return {"reasoning_effort": _LEVELS[level]}
    budget = thinking.integer("thinkingBudget")
    if budget is None or budget < 0:
        return {}
    if budget == 0:
        return {"reasoning_effort": "none"}
    return {"reasoning_effort": "low" if budget <= _LOW_TOKENS else "medium" if budget <= _MEDIUM_TOKENS else "high"}


def _response_format(config: Fields) -> JsonObject:
    media = (config.text("responseMimeType") or "").lower()
    written = [
        name for name in ("responseSchema", "responseJsonSchema", "_responseJsonSchema") if config.get(name) is not None
    ]
    if len(written) > 1:
        raise InvalidRequest("only one schema can be followed", param=config.at(written[1]))
    if media not in ("", "text/plain", "application/json"):
        raise config.wrong("responseMimeType", "text/plain or application/json")
    if not written:
        return {"response_format": {"type": "json_object"}} if media == "application/json" else {}
    if media == "text/plain":
        raise config.wrong("responseMimeType", "application/json where there is a schema")
    schema = checked(Fields(config.get(written[0]), config.at(written[0])))
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}}


# -- tools --------------------------------------------------------------------------------------------------------


def _tools(fields: Fields) -> JsonObject:
    tools: list[JsonObject] = []
    for tool in fields.objects("tools"):
        if hosted := next(iter(tool.rest(("functionDeclarations",))), None):
            raise InvalidRequest(f"{hosted} runs at Google and cannot be used here", param=tool.at(hosted))
        tools += [_function(function) for function in tool.objects("functionDeclarations")]
    config = fields.object("toolConfig")
    calling = config.object("functionCallingConfig") if config else None
    if calling is None or not tools:
        return {"tools": tools} if tools else {}
    return _choice(calling, tools)


def _function(given: Fields) -> JsonObject:
    function: JsonObject = {"name": given.name("name")}
    if description := given.text("description"):
        function["description"] = description
    name = "parametersJsonSchema" if given.get("parametersJsonSchema") is not None else "parameters"
    schema = given.object(name)
    function["parameters"] = checked(schema) if schema is not None else {"type": "object", "properties": {}}
    found: JsonObject = {"type": "function", "function": function}
    extras = given.rest(("name", "description", "parameters", "parametersJsonSchema"))
    return {**found, GEMINI: extras} if extras else found


def _choice(calling: Fields, tools: list[JsonObject]) -> JsonObject:
    """`tools` and `tool_choice`. Where only some functions may be called, only those are offered."""
    allowed, mode = calling.texts("allowedFunctionNames"), calling.word("mode")
    offered = [tool for tool in tools if tool["function"]["name"] in allowed] if allowed else tools
    if len({tool["function"]["name"] for tool in offered}) < len(set(allowed)):
        raise calling.wrong("allowedFunctionNames", "names of functions that are declared")
    if mode == "NONE":
        return {"tools": tools, "tool_choice": "none"}
    if mode == "ANY":
        only = {"type": "function", "function": {"name": allowed[0]}} if len(set(allowed)) == 1 else "required"
        return {"tools": offered, "tool_choice": only}
    if mode == "VALIDATED":
        return {"tools": offered}
    if mode not in ("", "MODE_UNSPECIFIED", "AUTO"):
        raise calling.wrong("mode", "AUTO, ANY, NONE or VALIDATED")
    return {"tools": tools}
