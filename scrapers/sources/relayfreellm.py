"""msmarkgu/RelayFreeLLM: the limits by which a proxy paces its calls, by provider and model.

Only those by the minute and the day are claimed: the ones by the second (always 1) and by the hour are its own pacing,
as is `Max_Context_Length` (8,000 for models of 131,072). -1 stands for no limit or for not known.
"""

from __future__ import annotations

from typing import Any

from scrapers.base import Evidence, NotUnderstood, Rank, Source
from scrapers.sources.community import Amounts, amount, document, model_claims, model_of, provider_of, records, words

_LIMITS = ("requests_per_minute", "requests_per_day", "tokens_per_minute", "tokens_per_day")


def parse(raw: bytes) -> list[Evidence]:
    """The claims about each model of a provider of the catalog; raises `NotUnderstood` when there are none."""
    claims: list[Evidence] = []
    for record in records(document(raw), "providers"):
        provider = provider_of(words(record, "name"), words(record, "url"))
        for model in records(record, "models") if provider is not None else ():
            claims += _model(provider or "", model)
    if not claims:
        raise NotUnderstood("no array `providers` with models and their limits")
    return claims


def _model(provider: str, record: dict[str, Any]) -> list[Evidence]:
    model = model_of(provider, words(record, "name"))
    stated = record.get("limits")
    if not model or not isinstance(stated, dict):
        return []
    amounts: Amounts = {name: value for name in _LIMITS if (value := amount(stated.get(name))) is not None}
    for unit in ("requests", "tokens"):
        minute, day = amount(stated.get(f"{unit}_per_minute")), amount(stated.get(f"{unit}_per_day"))
        if minute is not None and day is not None and day < minute:
            amounts.pop(f"{unit}_per_day")  # a slip: less in a day than in a minute of it
    claims = model_claims(provider, model, "quota", amounts)
    if words(record, "modality") == "vision":
        claims.append(Evidence(provider, model, "capability.vision", True))
    return claims


SOURCE = Source(
    name="relayfreellm",
    url="https://raw.githubusercontent.com/msmarkgu/RelayFreeLLM/HEAD/src/provider_model_limits.json",
    rank=Rank.COMMUNITY,
    confidence=0.25,
    parse=parse,
    accept="application/json",
)
