"""Which fields of a request a local chat model honours; everything else is refused, never ignored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from backends.base import Rejected
from backends.reasoning import tags_of
from backends.templates import variables_of
from llmproxy.core.errors import ConfigError, InvalidRequest, UnsupportedParameter
from llmproxy.core.types import JsonObject

# Fields that change nothing about the text, so that there is nothing to honour.
_NEUTRAL = frozenset(
    {"user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"}
)
_HONOURED = frozenset(
    {
        "messages", "prompt", "tools", "tool_choice", "parallel_tool_calls", "temperature", "top_p", "top_k", "min_p",
        "max_tokens", "max_completion_tokens", "stop", "seed", "n", "logprobs", "top_logprobs", "presence_penalty",
        "frequency_penalty", "repetition_penalty", "logit_bias", "continue_final_message", "response_format", "echo",
        "suffix", "best_of", "reasoning_effort", "chat_template_kwargs", "modalities", "audio", "functions",
        "function_call",
    }
)  # fmt: skip
_FORMATS = ("text", "json_object", "json_schema")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_NO_EFFORTS = ("none", "minimal")
# Variables by which templates let thinking be switched; Qwen3 and most others have the first, DeepSeek the second.
_SWITCHES = ("enable_thinking", "thinking")
# What templates are given anyway, and what would mean something else on the way to them.
_NOT_OPTIONS = frozenset(
    {
        "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
        "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    }
)  # fmt: skip
_DEFAULTS = ("temperature", "top_p", "top_k", "repetition_penalty", "max_tokens")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `None` means: as the model's own generation config says."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None


def read_sampling(body: JsonObject, *, chat: bool, reasons: bool = False) -> Sampling:
    """The sampling of a request to a model that `reasons` or not.

    Raises `UnsupportedParameter` for a field that this engine does not honour, `InvalidRequest` for a wrong value.
    """
    for name, value in body.items():
        if value is not None and name not in _HONOURED and name not in _NEUTRAL:
            raise UnsupportedParameter(f"{name} is not supported by a local model", param=name)
    _check_words(body)
    _refuse_unsupported_values(body, chat=chat, reasons=reasons)
    limits = [_whole(body, name, least=1) for name in ("max_completion_tokens", "max_tokens")]
    return Sampling(
        temperature=_ranged(body, "temperature", 0.0, 2.0),
        top_p=_ranged(body, "top_p", 0.0, 1.0),
        top_k=_whole(body, "top_k", least=-1),
        min_p=_ranged(body, "min_p", 0.0, 1.0) or 0.0,
        presence_penalty=_ranged(body, "presence_penalty", -2.0, 2.0) or 0.0,
        frequency_penalty=_ranged(body, "frequency_penalty", -2.0, 2.0) or 0.0,
        repetition_penalty=_ranged(body, "repetition_penalty", 0.01, 10.0),
        logit_bias=_bias(body.get("logit_bias")),
        seed=_whole(body, "seed", least=-(2**63), most=2**63 - 1),
        max_tokens=limits[0] or limits[1] or (None if chat else 16),
        stop=_stops(body.get("stop")),
        n=_whole(body, "n", least=1, most=128) or 1,
        logprobs=_logprobs(body, chat=chat),
    )


def with_defaults(sampling: Sampling, defaults: Mapping[str, Any]) -> Sampling:
    """`sampling` with the defaults of a catalogue where the request says nothing; what neither says is the model's.

    Completions that name no `max_tokens` have 16 already. Raises `ConfigError` for a default that is no field of
    sampling or has a wrong value.
    """
    if unknown := [name for name in defaults if name not in _DEFAULTS]:
        raise ConfigError(f"defaults.{unknown[0]}: not one of {', '.join(_DEFAULTS)}")
    try:
        behind = read_sampling(dict(defaults), chat=True)
    except InvalidRequest as error:
        raise ConfigError(f"defaults.{error.param}: {error.message}") from error
    missing = {name: getattr(behind, name) for name in defaults if getattr(sampling, name) is None}
    return replace(sampling, **missing)


def template_options(body: JsonObject, template: str) -> JsonObject:
    """The variables that a request sets in a chat template: `chat_template_kwargs`, over those of `reasoning_effort`.

    Raises `Rejected` for what the template has no use for, and for an effort that it cannot switch to.
    """
    given = body.get("chat_template_kwargs") or {}
    known = variables_of(template)
    for name in given:
        if name in _NOT_OPTIONS or name not in known:
            raise _rejected(f"the chat template of this model has no option {name}", "chat_template_kwargs")
    effort = body.get("reasoning_effort")
    return {**(_thinking(effort, template) if effort is not None else {}), **given}


def _thinking(effort: str, template: str) -> JsonObject:
    wanted, known = effort not in _NO_EFFORTS, variables_of(template)
    if switch := next((name for name in _SWITCHES if name in known), None):
        return {switch: wanted}
    if "reasoning_effort" in known:
        return {"reasoning_effort": effort}
    tags = tags_of(template)
    # A model whose prompt ends with the opening tag always thinks; one that knows no tags never does.
    always = tags is not None and tags[0] in template.rpartition("add_generation_prompt")[2]
    if (wanted and tags is None) or (not wanted and always):
        raise _rejected(f"reasoning_effort {effort} is not supported by this model", "reasoning_effort")
    return {}


def _rejected(message: str, param: str) -> Rejected:
    return Rejected(message, kind="unsupported", code="unsupported_parameter", param=param)


def _check_words(body: JsonObject) -> None:
    """Values that are no numbers mean something or are the client's mistake."""
    form, effort, options = (body.get(name) for name in ("response_format", "reasoning_effort", "chat_template_kwargs"))
    if form is not None and (not isinstance(form, dict) or form.get("type") not in _FORMATS):
        raise InvalidRequest(f"response_format.type must be one of {', '.join(_FORMATS)}", param="response_format")
    if effort is not None and effort not in _EFFORTS:
        raise InvalidRequest(f"reasoning_effort must be one of {', '.join(_EFFORTS)}", param="reasoning_effort")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("chat_template_kwargs must be an object", param="chat_template_kwargs")


def _refuse_unsupported_values(body: JsonObject, *, chat: bool, reasons: bool) -> None:
    refused = {
        "suffix": body.get("suffix"),
        "echo": body.get("echo"),
        "audio": body.get("audio"),
        "functions": body.get("functions"),
        "function_call": body.get("function_call"),
        "best_of": body.get("best_of") not in (None, 1, body.get("n")),
        "modalities": body.get("modalities") not in (None, ["text"]),
        "reasoning_effort": body.get("reasoning_effort") not in (None, *_NO_EFFORTS) and not (chat and reasons),
        "chat_template_kwargs": body.get("chat_template_kwargs") and not chat,
        "response_format": (body.get("response_format") or {}).get("type") not in (None, "text") and not chat,
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise UnsupportedParameter(f"{name} is not supported by a local model", param=name)
    for place, tool in enumerate(body.get("tools") or ()):
        if (kind := tool.get("type", "function")) != "function":
            raise UnsupportedParameter(
                f"tools of the type {kind} are not supported by a local model", param=f"tools.{place}"
            )


def _ranged(body: JsonObject, name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not _is_number(value) or not low <= value <= high:  # which NaN never is
        raise InvalidRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)


def _whole(body: JsonObject, name: str, *, least: int, most: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{name} must be an integer", param=name)
    if value < least or (most is not None and value > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidRequest(f"{name} must be {bounds}", param=name)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise InvalidRequest("stop must be a string or a list of strings", param="stop")
    return tuple(stop for stop in stops if stop)


def _bias(value: Any) -> dict[int, float]:
    problem = InvalidRequest("logit_bias must map token ids to numbers from -100 to 100", param="logit_bias")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise problem
    bias: dict[int, float] = {}
    for token, number in value.items():
        if not str(token).isdecimal() or not _is_number(number) or not -100 <= number <= 100:
            raise problem
        bias[int(token)] = float(number)
    return bias


def _logprobs(body: JsonObject, *, chat: bool) -> int | None:
    """How many alternatives are told beside each token; None for no log probabilities at all."""
    wanted = body.get("logprobs")
    if not chat:
        return _whole(body, "logprobs", least=0, most=20)
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest("logprobs must be true or false", param="logprobs")
    count = _whole(body, "top_logprobs", least=0, most=20)
    if count and not wanted:
        raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs")
    return (count or 0) if wanted else None
