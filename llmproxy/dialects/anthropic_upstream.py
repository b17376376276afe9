"""Canonical requests → requests of the Messages API (https://platform.claude.com/docs/en/api/messages).

What each generation of Claude accepts is in `anthropic_models`. JSON is asked for in one of three ways:

1. A JSON schema and a model with structured outputs: `output_config.format`, unless the schema has open objects or
   recursion (`anthropic_schema`).
2. Any other schema: a tool whose arguments are the answer, which the model is made to call. With tools of the client
   beside it, it may call one of those instead; what it calls the answer with is content again in the reply.
3. JSON without a schema, and models that cannot be made to call a tool: an instruction. `response_format` is then among
   the names of what is not honoured; whether the answer is right is checked in any case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.core.types import JsonObject
from llmproxy.dialects.anthropic_models import traits
from llmproxy.dialects.anthropic_prompt import read_messages
from llmproxy.dialects.anthropic_replies import answer_tool, read_reply
from llmproxy.dialects.anthropic_schema import narrowed
from llmproxy.dialects.anthropic_translator import AnthropicTranslator
from llmproxy.dialects.base import Translator
from llmproxy.dialects.extras import ANTHROPIC, cache_of
from llmproxy.dialects.gemini_fields import GEMINI, own_words

VERSION = "2023-06-01"
# Tokens of thought that an effort is worth where thinking has a budget; 1,024 is the least that is accepted.
_LEAST_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768}
_HANDLED = frozenset(
    {
        "messages", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "max_tokens",
        "max_completion_tokens", "stop", "temperature", "top_p", "top_k", "user", "safety_identifier",
        "continue_final_message", ANTHROPIC,
    }
)  # fmt: skip
# Of the fields that only this API knows: what is read here, or not for the body.
_READ_HERE = ("betas", "thinking", "output_config", "stream")
_BETA = re.compile(r"[\w.-]+")
# Values that ask for what happens anyway.
_NO_OPS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "presence_penalty": (0,), "frequency_penalty": (0,),
    "repetition_penalty": (1,), "min_p": (0,), "logit_bias": ({},), "store": (False,), "metadata": ({},),
    "modalities": (["text"],), "functions": ([],), "service_tier": ("auto", "default"), "verbosity": ("medium",),
}  # fmt: skip
# Without these the answer would not be one to the request.
_ESSENTIAL = ("n", "modalities", "audio", "functions", "function_call")


class AnthropicUpstream:
    """Implements `base.Outbound`."""

    def request(self, body: JsonObject, model: str, *, stream: bool) -> tuple[JsonObject, tuple[str, ...]]:
        """(the body for `POST /v1/messages`, the canonical fields that it cannot honour).

        Raises `InvalidRequest` for what is wrong, `UnsupportedParameter` for what another kind of upstream may do.
        """
        draft = _Draft(body, model)
        if stream:
            draft.made["stream"] = True
        return draft.made, tuple(sorted(draft.unheard))

    def reply(self, body: JsonObject, model: str) -> JsonObject:
        """A whole `message` as a canonical reply; `created` is 0, as the upstream does not tell it."""
        return read_reply(body, model)

    def translator(self, model: str) -> Translator:
        """For one stream of `model`."""
        return AnthropicTranslator(model)


def headers(key: str, body: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The headers of a request with the API key `key`; the betas are those that the client of `body` asked for."""
    made = {"x-api-key": key, "anthropic-version": VERSION}
    betas = _object((body or {}).get(ANTHROPIC)).get("betas")
    names = (
        [name for name in betas if isinstance(name, str) and _BETA.fullmatch(name)] if isinstance(betas, list) else []
    )
    return {**made, "anthropic-beta": ",".join(names)} if names else made


class _Draft:
    """A request in the making: `made` is what there is of it, `unheard` what it cannot honour."""

    def __init__(self, body: JsonObject, model: str) -> None:
        self.body, self.traits = body, traits(model)
        self.extras = _object(body.get(ANTHROPIC))
        self.prompt = read_messages(body["messages"])
        if not self.prompt.turns:
            raise InvalidRequest("there must be a message with content", param="messages")
        self.unheard = self.prompt.unheard | _ignored(body)
        self.made: JsonObject = {"model": model, "messages": self.prompt.turns}
        self.output_config: JsonObject = {}
        self.choice: JsonObject = {}
        self._limits()
        self._tools()
        self._form()
        self._thinking()
        self._sampling()
        self._rest()

    def _limits(self) -> None:
        given = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        self.made["max_tokens"] = given or self.traits.max_tokens
        stop = self.body.get("stop") or []
        stops = [stop] if isinstance(stop, str) else stop
        if kept := [text for text in stops if text.strip()]:
            self.made["stop_sequences"] = kept
        if len(kept) < len(stops):
            self.unheard.add("stop")  # white space alone is refused
        if user := self.body.get("user") or self.body.get("safety_identifier"):
            self.made["metadata"] = {"user_id": user}

    # -- tools ----------------------------------------------------------------------------------------------------

    def _tools(self) -> None:
        choice, tools = self.body.get("tool_choice"), self.body.get("tools") or []
        allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
        if isinstance(allowed, dict):
            listed = allowed.get("tools")
            names = {_name(tool) for tool in listed} if isinstance(listed, list) else set()
            tools, choice = [tool for tool in tools if _name(tool) in names], allowed.get("mode")
        if not tools:
            return
        self.made["tools"] = [self._tool(tool, f"tools.{place}") for place, tool in enumerate(tools)]
        self.choice = self._choice(choice)
        if self.body.get("parallel_tool_calls") is False and self.choice.get("type") != "none":
            self.choice = {"type": "auto", **self.choice, "disable_parallel_tool_use": True}

    def _tool(self, tool: JsonObject, path: str) -> JsonObject:
        kind = tool.get("type", "function")
        if kind == "custom":
            raise UnsupportedParameter("tools of the type custom are not supported", param=path)
        if kind != "function":
            return tool  # one of Anthropic's own; anybody else's is refused there
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        made = {"name": function["name"], "input_schema": {"type": "object", **schema}}
        if function.get("description") is not None:
            made["description"] = function["description"]
        if function.get("strict"):
            if self.traits.formats and narrowed(schema) == schema:
                made["strict"] = True
            else:
                self.unheard.add("tools.function.strict")
        return _object(tool.get(ANTHROPIC)) | made | cache_of(tool)

    def _choice(self, choice: Any) -> JsonObject:
        if choice in (None, "auto"):
            return {}
        if choice == "none":
            return {"type": "none"}
        name = _name(choice)
        wanted: JsonObject = {"type": "tool", "name": name} if name else {"type": "any"}
        if self.traits.forces_tools:
            return wanted
        self.unheard.add("tool_choice")
        self._instruct(f"Answer by calling the tool {name}." if name else "Answer by calling one of the tools.")
        return {}

    # -- JSON -----------------------------------------------------------------------------------------------------

    def _form(self) -> None:
        """Ask for JSON, unless a tool must be called: then that call is the answer."""
        form = self.body.get("response_format") or {}
        kind = form.get("type")
        if kind in (None, "text") or self.choice.get("type") in ("any", "tool"):
            return
        holder = form.get("json_schema") or {}
        schema = holder.get("schema") if kind == "json_schema" else None
        narrow = narrowed(schema) if schema and self.traits.formats else None
        if narrow is not None:
            self.output_config["format"] = {"type": "json_schema", "schema": narrow}
        elif schema and self.traits.forces_tools:
            self._answer_tool(schema, holder.get("description"))
        else:
            self.unheard.add("response_format")
            told = f"that fits this JSON schema: {orjson.dumps(schema).decode()}" if schema else "that is an object."
            self._instruct(f"Answer with nothing but JSON, without a code fence, {told}")

    def _answer_tool(self, schema: JsonObject, description: str | None) -> None:
        tools = self.made.get("tools", []) if self.choice.get("type") != "none" else []
        self.made["tools"] = [*self.made.get("tools", []), answer_tool(schema, description)]
        name = self.made["tools"][-1]["name"]
        parallel = (
            {"disable_parallel_tool_use": True} if not tools or "disable_parallel_tool_use" in self.choice else {}
        )
        self.choice = {"type": "any", **parallel} if tools else {"type": "tool", "name": name, **parallel}

    def _instruct(self, text: str) -> None:
        self.prompt.system.append({"type": "text", "text": text})

    # -- thinking -------------------------------------------------------------------------------------------------

    def _thinking(self) -> None:
        effort, given = self.body.get("reasoning_effort"), self.extras.get("thinking")
        exact = _object(self.extras.get("output_config")).get("effort")
        if effort is not None and not isinstance(effort, str):
            raise InvalidRequest("reasoning_effort must be a string", param="reasoning_effort")
        if isinstance(given, dict) and self._accepts(given):
            self.made["thinking"] = given
            self._effort(exact)
        elif exact and given is None and self.traits.adaptive:
            self._effort(exact)
        elif effort == "none":
            self._think_not()
        elif effort and self.traits.adaptive:
            self.made["thinking"] = {"type": "adaptive", "display": "summarized"}
            self._effort(effort)
        elif effort:
            self._think_within(_BUDGETS.get(effort, _BUDGETS["medium"]))

    def _accepts(self, thinking: JsonObject) -> bool:
        """Whether the model can think as a client of this very API asks it to."""
        kind = thinking.get("type")
        if kind == "enabled":
            budget = thinking.get("budget_tokens")
            fits = isinstance(budget, int) and budget < self.made["max_tokens"]
            return fits and self.traits.budgets and self._may_think_within
        if kind == "adaptive":
            return self.traits.adaptive
        return bool(kind == self.traits.off)

    def _effort(self, word: Any) -> None:
        if isinstance(word, str) and self.traits.adaptive:
            known = {"minimal": "low", "xhigh": "xhigh" if self.traits.extra_high else "high"}
            self.output_config["effort"] = known.get(word, word)

    def _think_not(self) -> None:
        if self.traits.off in ("disabled", "between_tools"):
            self.made["thinking"] = {"type": self.traits.off}
        elif self.traits.off == "never":
            self.output_config["effort"] = "low"
            self.unheard.add("reasoning_effort")

    def _think_within(self, budget: int) -> None:
        """Think with a budget, which takes at most half of what may be answered where that is enough to think."""
        limit = self.made["max_tokens"]
        budget = min(budget, max(limit // 2, _LEAST_BUDGET))
        if budget < limit and self._may_think_within:
            self.made["thinking"] = {"type": "enabled", "budget_tokens": budget}
        else:
            self.unheard.add("reasoning_effort")

    @property
    def _may_think_within(self) -> bool:
        """Budgets go neither with a tool that must be called nor with a round of tools that began without thoughts."""
        return self.choice.get("type") not in ("any", "tool") and not self.prompt.lacks_thoughts

    # -- the rest -------------------------------------------------------------------------------------------------

    def _sampling(self) -> None:
        """Temperature and the like, as far as the model takes them; 1 is what it does anyway."""
        thinks = self.made.get("thinking", {}).get("type") in ("enabled", "adaptive")
        for name in ("temperature", "top_p", "top_k"):
            value = self.body.get(name)
            if value is None:
                continue
            is_default = name != "top_k" and value == 1
            taken = self.traits.sampling and (not thinks or (name == "top_p" and value >= 0.95))
            if name == "top_p" and "temperature" in self.made and not self.traits.both:
                taken = False
            if taken:
                self.made[name] = min(value, 1) if name == "temperature" else value
            if (not taken and not is_default) or (name == "temperature" and value > 1):
                self.unheard.add(name)

    def _rest(self) -> None:
        given = _object(self.extras.get("output_config"))
        kept = {key: value for key, value in given.items() if key not in ("effort", "format")}
        self.output_config = kept | self.output_config
        if self.output_config:
            self.made["output_config"] = self.output_config
        if self.choice:
            self.made["tool_choice"] = self.choice
        if self.prompt.system:
            self.made["system"] = self.prompt.system
        self.made = {key: value for key, value in self.extras.items() if key not in _READ_HERE} | self.made


def _ignored(body: JsonObject) -> set[str]:
    """The fields that nothing here honours; raises `UnsupportedParameter` where that would spoil the answer."""
    asked = {
        name
        for name, value in body.items()
        if value is not None and name not in _HANDLED and value not in _NO_OPS.get(name, ())
    }
    for name in _ESSENTIAL:
        if name in asked:
            raise UnsupportedParameter(f"{name} is not supported", param=name)
    if GEMINI in asked:
        asked = (asked - {GEMINI}) | {f"{GEMINI}.{name}" for name in own_words(body)}
    return asked


def _object(value: Any) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _name(tool: Any) -> str | None:
    """The name of a tool, or in a choice of one."""
    if not isinstance(tool, dict):
        return None
    holder = tool.get("function")
    name = holder.get("name") if isinstance(holder, dict) else tool.get("name")
    return name if isinstance(name, str) else None
