"""Canonical requests → Gemini's generateContent (https://ai.google.dev/api/generate-content), for an upstream.

What the API has no word for is named in the second value of `request`; hints that say nothing about the answer (who
asks, how it is billed or kept) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.core.types import JsonObject
from llmproxy.dialects.base import Translator
from llmproxy.dialects.extras import plain
from llmproxy.dialects.gemini_answers import GeminiTranslator, whole_reply
from llmproxy.dialects.gemini_fields import GEMINI, own_words
from llmproxy.dialects.gemini_prompt import prompt
from llmproxy.dialects.openai import name_in

_SETTINGS = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "logprobs": "responseLogprobs",
    "top_logprobs": "logprobs",
}
_READ = frozenset(
    {"messages", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", GEMINI}
)
# Of what goes beyond the OpenAI format, Gemini has words for these.
_KEPT = ("reasoning_content", "extra_content", "is_error", GEMINI)
_HINTS = frozenset(
    {
        "model", "models", "stream", "stream_options", "user", "metadata", "store", "service_tier",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    }
)  # fmt: skip

# Tokens of thought for models before Gemini 3, which know no levels; Google's own OpenAI endpoint takes the same.
_BUDGETS = {"none": 0, "minimal": 1_024, "low": 1_024, "medium": 8_192, "high": 24_576}
_LEAST_OF_PRO = 128
_VERSION = re.compile(r"gemini-(\d+)(?:\.(\d+))?")


class GeminiUpstream:
    """The dialect of `generativelanguage.googleapis.com`."""

    def request(self, body: JsonObject, model: str, *, stream: bool) -> tuple[JsonObject, tuple[str, ...]]:
        """(the body, what cannot be honoured). A stream differs in its path alone (see `path`)."""
        body, lost = plain(body, keeps=_KEPT)
        extras = dict(own_words(body))
        tuned = extras.pop("generationConfig", None)
        tools = _tools(body)
        config, unmet = _config(body, tuned if isinstance(tuned, dict) else {}, model, with_tools=bool(tools))
        found = extras | prompt(body.get("messages") or (), signatures=_version(model)[0] >= 3) | tools
        if config:
            found["generationConfig"] = config
        return found, (*lost, *_unknown(body), *unmet)

    def reply(self, body: JsonObject, model: str) -> JsonObject:
        """A canonical reply; raises `BadReply` for what is no answer."""
        return whole_reply(body, model)

    def translator(self, model: str) -> Translator:
        return GeminiTranslator(model)


def path(model: str, *, stream: bool) -> str:
    """Path and query under the version of the API (`…/v1beta`)."""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/models/{model.removeprefix('models/')}:{method}"


def _unknown(body: JsonObject) -> Iterator[str]:
    for name, value in body.items():
        if value is not None and name not in _SETTINGS and name not in _READ and name not in _HINTS:
            yield name
    contents = [message.get("content") for message in body.get("messages") or ()]
    images = [part.get("image_url") for content in contents if isinstance(content, list) for part in content]
    if any(isinstance(image, dict) and image.get("detail") not in (None, "auto") for image in images):
        yield "messages.content.image_url.detail"


def _config(body: JsonObject, tuned: JsonObject, model: str, *, with_tools: bool) -> tuple[JsonObject, list[str]]:
    """(`generationConfig`, what cannot be had in it); `tuned` is what the client said of it in Gemini's own words."""
    said = {ours: body[name] for name, ours in _SETTINGS.items() if body.get(name) is not None}
    if stop := body.get("stop"):
        said["stopSequences"] = [stop] if isinstance(stop, str) else stop
    given = tuned.get("thinkingConfig")
    alone = _version(model)[0] >= 3 or not with_tools
    form, fits = _response_format(body.get("response_format"), alone=alone)
    thinking, granted = _thinking(body.get("reasoning_effort"), model, given if isinstance(given, dict) else None)
    unmet = [name for name, heard in (("response_format", fits), ("reasoning_effort", granted)) if not heard]
    if body.get("parallel_tool_calls") is False and with_tools:
        unmet.append("parallel_tool_calls")
    rest = {name: value for name, value in tuned.items() if name != "thinkingConfig"}
    return {**rest, **said, **form, **thinking}, unmet


def _version(model: str) -> tuple[int, int]:
    """(major, minor) of a Gemini; one without a number is the latest, and what is no Gemini has none: (0, 0)."""
    name = model.lower()
    if found := _VERSION.search(name):
        return int(found[1]), int(found[2] or 0)
    return (3, 0) if "gemini" in name else (0, 0)


def _thinking(effort: Any, model: str, given: JsonObject | None) -> tuple[JsonObject, bool]:
    """(the part of the configuration, whether the model can do as it is told); `given` in Gemini's own words counts."""
    major, minor = _version(model)
    if given is not None and (major, minor) >= (2, 5):
        return {"thinkingConfig": given}, True
    if effort is None:
        return {}, True
    if not isinstance(effort, str):
        raise InvalidRequest("reasoning_effort must be a string", param="reasoning_effort")
    effort = "high" if effort in ("xhigh", "max") else effort
    if effort not in _BUDGETS:
        return {}, False
    if (major, minor) < (2, 5):  # these do not think
        return {}, effort == "none"
    told: JsonObject = {"includeThoughts": True} if effort != "none" else {}
    pro = "pro" in model.lower()
    if major < 3:
        budget = _BUDGETS[effort]
        told["thinkingBudget"] = max(budget, _LEAST_OF_PRO) if pro else budget
        return {"thinkingConfig": told}, effort != "none" or not pro
    # They cannot be told not to think at all, and a Pro thinks more than minimally.
    least = "low" if pro else "minimal"
    level = least if effort in ("none", "minimal") else effort
    if pro and (major, minor) == (3, 0) and level == "medium":
        level = "high"
    return {"thinkingConfig": {**told, "thinkingLevel": level}}, effort != "none" or not pro


def _response_format(form: Any, *, alone: bool) -> tuple[JsonObject, bool]:
    """(the part of the configuration, whether it can be had); `alone` unless tools stand in its way."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind in (None, "text"):
        return {}, True
    if kind not in ("json_object", "json_schema") or not alone:
        return {}, False
    found: JsonObject = {"responseMimeType": "application/json"}
    holder = form.get("json_schema")
    if kind == "json_schema" and isinstance(holder, dict) and holder.get("schema"):
        found["responseJsonSchema"] = holder["schema"]
    return found, True


def _tools(body: Mapping[str, Any]) -> JsonObject:
    """`tools` and `toolConfig`; raises `UnsupportedParameter` for a tool that is no function."""
    declared: list[JsonObject] = []
    for place, tool in enumerate(body.get("tools") or ()):
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise UnsupportedParameter(
                f"tools of the type {tool.get('type')} are not supported", param=f"tools.{place}"
            )
        declared.append(_declaration(function) | own_words(tool))
    if not declared:
        return {}
    calling, allowed = _calling(body.get("tool_choice"))
    if allowed is not None and not calling:  # it may call these or none: what is not offered cannot be called
        declared = [function for function in declared if function["name"] in allowed]
    found: JsonObject = {"tools": [{"functionDeclarations": declared}]}
    if calling:
        found["toolConfig"] = {"functionCallingConfig": calling}
    return found


def _declaration(function: JsonObject) -> JsonObject:
    found: JsonObject = {"name": function.get("name"), "description": function.get("description") or ""}
    if function.get("parameters"):
        found["parametersJsonSchema"] = function["parameters"]
    return found


def _calling(choice: Any) -> tuple[JsonObject, list[Any] | None]:
    """(`functionCallingConfig`, the names of the functions that may be called); None for all of them."""
    if choice in ("required", "any"):
        return {"mode": "ANY"}, None
    if choice == "none":
        return {"mode": "NONE"}, None
    if not isinstance(choice, dict):
        return {}, None
    if isinstance(function := choice.get("function"), dict):
        return {"mode": "ANY", "allowedFunctionNames": [function.get("name")]}, None
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict):
        return {}, None
    listed = allowed.get("tools")
    names = [name_in(tool) for tool in listed] if isinstance(listed, list) else []
    if allowed.get("mode") == "required":
        return {"mode": "ANY", "allowedFunctionNames": names}, names
    return {}, names
