"""Which fields of a request a local chat model honours; everything else is refused, never ignored. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
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
        "suffix", "best_of", "reasoning_effort", "modalities", "audio", "functions", "function_call",
    }
)  # fmt: skip


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


def read_sampling(body: JsonObject, *, chat: bool) -> Sampling:
    """The sampling of a request; raises `UnsupportedParameter` for a field that this engine does not honour."""
    for name, value in body.items():
        if value is not None and name not in _HONOURED and name not in _NEUTRAL:
            raise UnsupportedParameter(f"{name} is not supported by a local model", param=name)
    _refuse_unsupported_values(body)
    return Sampling(
        temperature=_ranged(body, "temperature", 0.0, 2.0),
        top_p=_ranged(body, "top_p", 0.0, 1.0),
        top_k=_whole(body, "top_k"),
        min_p=_ranged(body, "min_p", 0.0, 1.0) or 0.0,
        presence_penalty=_ranged(body, "presence_penalty", -2.0, 2.0) or 0.0,
        frequency_penalty=_ranged(body, "frequency_penalty", -2.0, 2.0) or 0.0,
        repetition_penalty=_ranged(body, "repetition_penalty", 0.01, 10.0),
        logit_bias=_bias(body.get("logit_bias")),
        seed=_whole(body, "seed"),
        max_tokens=_whole(body, "max_completion_tokens") or _whole(body, "max_tokens") or (None if chat else 16),
        stop=_stops(body.get("stop")),
        n=_choices(body),
        logprobs=_logprobs(body, chat=chat),
    )


def _refuse_unsupported_values(body: JsonObject) -> None:
    refused = {
        "suffix": body.get("suffix"),
        "echo": body.get("echo"),
        "audio": body.get("audio"),
        "functions": body.get("functions"),
        "function_call": body.get("function_call"),
        "best_of": body.get("best_of") not in (None, 1, body.get("n")),
        "modalities": body.get("modalities") not in (None, ["text"]),
        "reasoning_effort": body.get("reasoning_effort") not in (None, "none", "minimal"),
        "response_format": (body.get("response_format") or {}).get("type") not in (None, "text"),
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise UnsupportedParameter(f"{name} is not supported by a local model", param=name)


def _ranged(body: JsonObject, name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(f"{name} must be a number from {low:g} to {high:g}", param=name)
    return float(value)


def _whole(body: JsonObject, name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InvalidRequest(f"{name} must be an integer", param=name)
    return value


def _choices(body: JsonObject) -> int:
    count = _whole(body, "n") or 1
    if count > 128:
        raise InvalidRequest("n must be at most 128", param="n")
    return count


def _stops(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(stop for stop in ([value] if isinstance(value, str) else value) if stop)


def _bias(value: Any) -> dict[int, float]:
    try:
        return {int(token): float(bias) for token, bias in (value or {}).items()}
    except (TypeError, ValueError) as error:
        raise InvalidRequest("logit_bias must map token ids to numbers", param="logit_bias") from error


def _logprobs(body: JsonObject, *, chat: bool) -> int | None:
    """How many alternatives are told beside each token; None for no log probabilities at all."""
    if chat:
        if not body.get("logprobs"):
            return None
        count = _whole(body, "top_logprobs") or 0
    elif body.get("logprobs") is None:
        return None
    else:
        count = _whole(body, "logprobs") or 0
    if not 0 <= count <= 20:
        raise InvalidRequest(
            "at most 20 alternatives are told for each token", param="top_logprobs" if chat else "logprobs"
        )
    return count
