"""What a model can do: facts from its source, from the user's configuration, and from its name, merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from llmproxy.core.config import Config, RateUnit
from llmproxy.core.names import does_other_job, draws, matches, matches_id
from llmproxy.core.types import Call, Model, Rate
from llmproxy.routing.findings import Findings

V = TypeVar("V")
_NONE = Findings()

# Values of fields that ask for what happens without them anyway.
_NOTHING: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,), "logprobs": (False,),
    "top_logprobs": (0,), "store": (False,), "service_tier": ("auto", "default"), "modalities": (["text"],),
    "parallel_tool_calls": (True,), "tool_choice": ("auto", "none"),
}  # fmt: skip
_EMBEDS = re.compile(r"embed|(^|[-_/])(bge|e5|gte)-(?!rerank)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the provider catalog declares about models, as globs over upstream ids, most specific first."""

    free_models: tuple[str, ...] = ()
    free_suffix: str | None = None
    all_free: bool = False
    capabilities: tuple[tuple[str, frozenset[str]], ...] = ()
    context_tokens: tuple[tuple[str, int], ...] = ()
    not_chat: tuple[str, ...] = ()
    rates: tuple[tuple[str, tuple[Rate, ...]], ...] = ()
    refuses: frozenset[str] = frozenset()
    streams: bool = True


def describe(model: Model, config: Config, facts: Facts, findings: Findings = _NONE) -> Model:
    """`model` with everything known about it; what a person wrote in the configuration wins, then what was found."""
    if model.local:
        return replace(
            model,
            favourite=matches(config.routing.favourites, model.source, model.id),
            tier=_lookup(config.model_reasoning, model) or model.tier,
            capabilities=model.capabilities | frozenset(_lookup(config.model_capabilities, model) or ()),
        )
    declared = next((tags for glob, tags in facts.capabilities if matches_id((glob,), model.id)), None)
    window = next((size for glob, size in facts.context_tokens if matches_id((glob,), model.id)), None)
    rates = next((known for glob, known in facts.rates if matches_id((glob,), model.id)), ())
    found = findings.of(model)
    said = _lookup(config.model_capabilities, model)
    capabilities = (model.capabilities | (declared or frozenset())) - found.lacks | found.have
    if said is not None:
        capabilities = frozenset(said)
    if _EMBEDS.search(model.id):
        capabilities |= {"embeddings"}
    if "rerank" in model.id.lower():
        capabilities |= {"rerank"}
    return replace(
        model,
        free=_is_free(model, config, facts, found.is_free),
        exposed=model.exposed and not found.gone,
        favourite=matches(config.routing.favourites, model.source, model.id),
        chat=model.chat
        and found.chat is not False
        and not (does_other_job(model.id) or draws(model.id))
        and not matches_id(facts.not_chat, model.id),
        capabilities=capabilities,
        lacks=(model.lacks | found.lacks) - capabilities,
        context_tokens=_lookup(config.model_context, model) or model.context_tokens or found.context_tokens or window,
        tier=_lookup(config.model_reasoning, model) or model.tier or found.tier,
        rates=_rates(_lookup(config.model_rates, model) or {}) or rates,
        refuses=facts.refuses,
        streams=facts.streams,
    )


def rank(model: Model, needs: frozenset[str], gained: frozenset[tuple[str, str]] = frozenset()) -> int:
    """0 when every needed capability is known, 1 when some are unknown, 2 when one is known to be missing.

    `gained` are pairs of a model's name and a capability that it has shown to have.
    """
    needs = needs - model.capabilities
    if needs and gained:
        needs = frozenset(need for need in needs if (model.name, need) not in gained)
    if not needs:
        return 0
    return 2 if needs & model.lacks else 1


def says_nothing(name: str, value: Any) -> bool:
    """Whether a field of a request asks for what would happen without it."""
    return value in (None, [], {}) or value in _NOTHING.get(name, ())


def unheeded(model: Model, call: Call) -> list[str]:
    """The fields of the call that ask for something and that the model's source is known not to honour, sorted."""
    refuses, body = model.refuses, call.body
    if not refuses or call.endpoint not in ("chat", "completions") or refuses.isdisjoint(body):
        return []
    return sorted(name for name in refuses if name in body and not says_nothing(name, body[name]))


def endpoint_fits(model: Model, call: Call) -> bool:
    """Whether a pool may offer `model` to this endpoint at all: chat models chat, embedding models embed."""
    if call.endpoint == "embeddings":
        return "embeddings" in model.capabilities
    if "rerank" in call.needs:
        return "rerank" in model.capabilities
    return model.chat or call.endpoint == "passthrough"


def _is_free(model: Model, config: Config, facts: Facts, found: bool | None) -> bool:
    if matches(config.cost_observed_free_tier, model.source, model.id):
        return False
    if model.free or facts.all_free or matches(config.believed_free, model.source, model.id):
        return True
    if matches(config.free_limits, model.source, model.id):
        return True
    if found is not None:
        return found
    if facts.free_suffix and model.id.endswith(facts.free_suffix):
        return True
    return matches_id(facts.free_models, model.id)


def _rates(written: Mapping[RateUnit, tuple[float, float]]) -> tuple[Rate, ...]:
    return tuple(Rate(unit, *amounts) for unit, amounts in written.items())


def _lookup(table: Mapping[str, V], model: Model) -> V | None:
    """The entry of `provider/id`, else of the bare id, else of the first glob that matches."""
    for key in (model.name, model.id):
        if key in table:
            return table[key]
    return next(
        (value for glob, value in table.items() if "*" in glob and matches((glob,), model.source, model.id)), None
    )
