"""What an OpenAI-compatible provider wants otherwise, as the data of the catalogue tell it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.core.errors import UnsupportedParameter
from llmproxy.core.types import Call, JsonObject
from llmproxy.dialects import extras
from llmproxy.routing.capabilities import says_nothing

# Without these the answer would not be what was asked for: whoever cannot honour them is passed over.
_REQUIRED = frozenset({"tools", "tool_choice", "response_format"})
_TOKENS = ("max_tokens", "max_completion_tokens")


def adapted(call: Call, quirks: Mapping[str, Any]) -> tuple[JsonObject, tuple[str, ...]]:
    """(the body as this provider takes it, the fields that it cannot honour and that were left out).

    The call's own body is not changed. Raises `UnsupportedParameter` for a field that must be honoured.
    """
    body: JsonObject = call.body
    lost: tuple[str, ...] = ()
    if call.dialect != "openai":
        # What another dialect brought along; an OpenAI client's own fields are its own affair.
        body, lost = extras.plain(body, keeps=quirks.get("message_extras", ()))
    if not quirks or call.endpoint == "embeddings":
        return body, lost
    made, left_out = dict(body), set(lost)
    for name in quirks.get("unsupported_parameters", ()):
        if name in made and not says_nothing(name, made[name]):
            if name in _REQUIRED and made.get("tool_choice") != "none":
                raise UnsupportedParameter(f"{name} is not supported here", param=name)
            left_out.add(name)
        made.pop(name, None)
    _tokens(made, quirks)
    for old, new in quirks.get("rename_parameters", {}).items():
        if old in made:
            made.setdefault(new, made.pop(old))
    most = quirks.get("max_n")
    if most is not None and isinstance(made.get("n"), int):
        if made["n"] > most:
            raise UnsupportedParameter(f"n is at most {most} here", param="n")
        if most == 1:
            del made["n"]
    if quirks.get("single_tool_call") and made.get("tools"):
        if made.get("parallel_tool_calls"):
            left_out.add("parallel_tool_calls")
        made["parallel_tool_calls"] = False
    if quirks.get("stop_as_list") and isinstance(made.get("stop"), str):
        made["stop"] = [made["stop"]]
    efforts = quirks.get("reasoning_effort_values")
    if efforts and made.get("reasoning_effort") is not None and made["reasoning_effort"] not in efforts:
        left_out.add("reasoning_effort")
        made["reasoning_effort"] = efforts[0] if made["reasoning_effort"] in ("none", "minimal") else efforts[-1]
    if unknown := quirks.get("unsupported_message_fields"):
        made["messages"] = [_without(message, unknown, left_out) for message in made.get("messages", ())]
    return made, tuple(sorted(left_out))


def _tokens(made: dict[str, Any], quirks: Mapping[str, Any]) -> None:
    """The limit of an answer under the name that the provider knows, and not below what it takes."""
    wanted = quirks.get("max_tokens_field")
    if wanted in _TOKENS:
        (other,) = set(_TOKENS) - {wanted}
        if other in made:
            made.setdefault(wanted, made.pop(other))
            made.pop(other, None)
    least = quirks.get("min_max_tokens")
    for name in _TOKENS:
        if least is not None and isinstance(made.get(name), int):
            made[name] = max(made[name], least)


def _without(message: Any, fields: list[str], left_out: set[str]) -> Any:
    if not isinstance(message, dict) or not any(field in message for field in fields):
        return message
    left_out |= {f"messages.{field}" for field in fields if field in message}
    return {key: value for key, value in message.items() if key not in fields}
