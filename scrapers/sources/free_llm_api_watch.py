"""Leestars21/free-llm-api-watch: records made from OpenRouter's list of models, and a wish list of other providers.

Of the other providers it only says that nothing was verified, which claims nothing. A price of zero alone is not free
either: beside the `:free` ids stand routers and models that make music. Modalities are guessed there from words of a
model's name, so they are left out.
"""

from __future__ import annotations

from typing import Any

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.sources.community import amount, day, document, model_claims, model_of, provider_of, records, words

_FLAGS = {"tool_calling": "tools", "structured_output": "json", "reasoning": "reasoning"}
_ANSWERS = {"yes": True, "no": False}


def parse(raw: bytes) -> list[Evidence]:
    """The claims about single models; raises `NotUnderstood` when there are none."""
    claims: list[Evidence] = []
    for record in records({"records": document(raw)}, "records"):
        provider = provider_of(words(record, "provider"), words(record, "api_base"))
        if words(record, "record_level") == "model" and words(record, "fetch_status") == "ok" and provider is not None:
            claims += _model(provider, record)
    if not claims:
        raise NotUnderstood("no array with records of single models of a provider of the catalog")
    return claims


def _model(provider: str, record: dict[str, Any]) -> list[Evidence]:
    model, dated = model_of(provider, words(record, "model_id")), day(record, "last_checked")
    free = words(record, "free_type") == "free_model" and model.endswith(":free")
    # Its limits are told nowhere in the record, only the price.
    kind: FreeKind | None = "price" if free else None
    claims = model_claims(provider, model, kind, dated=dated)
    fields: dict[str, bool | float | None] = {"context": amount(record.get("context_window"))}
    fields |= {f"capability.{tag}": _ANSWERS.get(words(record, flag)) for flag, tag in _FLAGS.items()}
    return claims + [
        Evidence(provider, model, field, value, dated=dated)
        for field, value in fields.items()
        if value is not None and model
    ]


SOURCE = Source(
    name="free_llm_api_watch",
    url="https://raw.githubusercontent.com/Leestars21/free-llm-api-watch/HEAD/data/free_api_catalog.json",
    rank=Rank.COMMUNITY,
    confidence=0.5,
    parse=parse,
    derived=frozenset({"openrouter"}),
    accept="application/json",
)
