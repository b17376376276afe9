"""pacocartones/free-llm-api-hub: a JSON list of providers with the day on which each was checked against its pages.

The limits are prose. Statements about several models name them (`llama-3.1-8b-instant: 30 RPM/14.4K RPD`) or what they
do (`10 req/min rerank`); others are about the account. `models_free` is a sample of ids, not all of them. The probe
report beside the list holds nothing: no probe was made with a key.
"""

from __future__ import annotations

import re
from typing import Any

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.sources.community import (
    Amounts,
    account_claims,
    amounts_in,
    clauses,
    day,
    document,
    is_budget,
    model_claims,
    model_of,
    not_chat,
    once_in,
    provider_of,
    records,
    words,
)

_KINDS: dict[str, FreeKind] = {
    "perpetual": "price",
    "renewing-quota": "quota",
    "recurring-credit": "budget",
    "trial-credit": "trial",
}
# Words of a statement that is about part of the models, which it does not name.
_SOME = re.compile(r"\b(?:several|some|subset|tier models|free models|ranges?|varies|depending)\b", re.IGNORECASE)
_PER_MODEL = re.compile(r"\bper[- ]model\b", re.IGNORECASE)
_UTC = re.compile(r"\bresets? (?:daily )?at (?:00:00|midnight) UTC\b", re.IGNORECASE)
_ACTIVITIES = ("rerank", "embed", "chat")
_NAMED = re.compile(r"\s*([A-Za-z][\w./@-]*[\d-][\w./@-]*):\s")
_MOST_MODELS = 500


def parse(raw: bytes) -> list[Evidence]:
    """The claims about each provider of the catalog; raises `NotUnderstood` for the schema and the probe report."""
    data = document(raw)
    claims: list[Evidence] = []
    for record in records(data, "providers"):
        provider = provider_of(words(record, "name"), words(record, "openai_base_url"), words(record, "docs_url"))
        kind = _KINDS.get(words(record, "free_type"))
        # A key was accepted, and then payment was asked for.
        ended = record.get("probe_status") == "tier-ended"
        if provider is not None and kind is not None and not ended:
            claims += _provider(provider, kind, record, day(record, "last_verified") or day(data, "generated"))
    if not claims:
        raise NotUnderstood("no array `providers` with a `free_type` for a provider of the catalog")
    return claims


def _provider(provider: str, kind: FreeKind, record: dict[str, Any], dated: str) -> list[Evidence]:
    tier = words(record, "free_tier")
    listed = record.get("models_free")
    models = [model for model in listed if isinstance(model, str)][:_MOST_MODELS] if isinstance(listed, list) else []
    common, own = _limits(models, f"{tier}; {words(record, 'rate_limits')}")
    if any(is_budget(name) for name in common):
        kind = "budget"
    elif kind == "budget":
        common["usd_per_month"] = None  # there is a credit, and its amount is not told
    if _UTC.search(words(record, "notes")[:2000]) and common:
        common["reset"] = "UTC"
    if kind == "trial":
        common = once_in(tier)
    whole = kind == "trial" or not (models or _SOME.search(tier))
    shared = _PER_MODEL.search(words(record, "rate_limits")) is None
    claims = account_claims(provider, kind if whole else None, common, shared=shared, dated=dated)
    for model in dict.fromkeys([*models, *own]):
        found = own.get(model)
        claims += model_claims(
            provider, model_of(provider, model), None if kind == "trial" else kind, found, dated=dated
        )
    return claims


def _limits(models: list[str], text: str) -> tuple[Amounts, dict[str, Amounts]]:
    """(limits of the account, limits by model) that a text tells; the first of each counts."""
    common: Amounts = {}
    own: dict[str, Amounts] = {}
    for clause in clauses(text):
        stated = amounts_in(clause)
        named = _named(clause, models) if stated else []
        if not named and not _SOME.search(clause):
            common = stated | common
        for model in named:
            own[model] = stated | own.get(model, {})
    return common, own


def _named(clause: str, models: list[str]) -> list[str]:
    """Which models a statement is about: by their ids, by what they do, or one that it starts with (`qwen3-32b: …`)."""
    if named := [model for model in models if _names(clause, model)]:
        return named
    if match := _NAMED.match(clause):
        return [match[1]]
    activity = next((word for word in _ACTIVITIES if re.search(rf"\b{word}\b", clause, re.IGNORECASE)), "")
    if activity == "chat":
        return [model for model in models if not not_chat(model)]
    return [model for model in models if activity and activity in model.casefold()]


def _names(clause: str, model: str) -> bool:
    last = re.escape(model.rpartition("/")[2])
    return re.search(rf"(?<![\w.-]){last}(?![\w-]|\.\d)", clause, re.IGNORECASE) is not None


SOURCE = Source(
    name="free_llm_api_hub",
    url="https://raw.githubusercontent.com/pacocartones/free-llm-api-hub/HEAD/data/providers.json",
    rank=Rank.COMMUNITY,
    confidence=0.5,
    parse=parse,
    accept="application/json",
)
