"""geneticglitch1/freeway: one JSON file a provider, with the limits of its free tier and a few models.

`limits` holds null where nothing is known. What it gives is for chat (its notes: "limits shown are for Flash",
"observed on /chat/completions"), so it is claimed of the chat models that the file lists, and of no others.
"""

from __future__ import annotations

from typing import Any

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.sources.community import (
    Amounts,
    account_claims,
    amount,
    day,
    document,
    model_claims,
    not_chat,
    provider_of,
    records,
    words,
)

_LIMITS = {
    "rps": "requests_per_second",
    "rpm": "requests_per_minute",
    "rpd": "requests_per_day",
    "tpm": "tokens_per_minute",
    "tpd": "tokens_per_day",
    "tpmo": "tokens_per_month",
}
_CAPABILITIES = {"tools": "tools", "json": "json", "vision": "vision", "reasoning": "reasoning", "embed": "embeddings"}
_FILES = ("cerebras", "cloudflare", "google-ai", "groq", "mistral", "nvidia-nim", "openrouter")


def parse(raw: bytes) -> list[Evidence]:
    """The claims of one file; raises `NotUnderstood` for the schema, and for a file that claims nothing."""
    data = document(raw)
    record = data if isinstance(data, dict) and isinstance(data.get("baseUrl"), str) else {}
    provider = provider_of("", words(record, "baseUrl"))
    if provider is None or record.get("enabled") is False:
        raise NotUnderstood("no `baseUrl` of a provider of the catalog that is enabled")
    dated = day(record, "verifiedOn")
    stated = record.get("limits")
    limits: dict[str, Any] = stated if isinstance(stated, dict) else {}
    budget = _budget(provider, limits)
    kind: FreeKind = "budget" if budget else "quota"
    claims = account_claims(provider, None, budget, dated=dated)
    # "Free developer credits rather than a perpetual free tier — it runs out."
    if "runs out" in words(record, "notes").casefold():
        claims += account_claims(provider, "trial", {}, dated=dated)
    amounts: Amounts = {name: value for key, name in _LIMITS.items() if (value := amount(limits.get(key))) is not None}
    for model in records(record, "models"):
        if model.get("enabled") is not False:
            claims += _model(provider, model, kind, amounts, dated)
    if not claims:
        raise NotUnderstood("neither models nor a budget")
    return claims


def _budget(provider: str, limits: dict[str, Any]) -> Amounts:
    value = amount(limits.get("creditsPerDay"))
    unit = "neurons_per_day" if provider == "cloudflare-workers" else "credits_per_day"
    return {} if value is None else {unit: value}


def _model(provider: str, record: dict[str, Any], kind: FreeKind, amounts: Amounts, dated: str) -> list[Evidence]:
    model = words(record, "id")
    listed = record.get("caps")
    caps = [cap for cap in listed if isinstance(cap, str)] if isinstance(listed, list) else []
    chat = "chat" in caps and not not_chat(model)
    claims = model_claims(provider, model, kind, amounts if chat else {}, dated=dated)
    fields: dict[str, bool | float | None] = {
        "chat": chat if caps else None,
        "context": amount(record.get("context")),
        "max_output": amount(record.get("maxOutput")),
    }
    fields |= {f"capability.{_CAPABILITIES[cap]}": True for cap in caps if cap in _CAPABILITIES}
    known = {claim.field for claim in claims} if claims else set(fields)
    return claims + [
        Evidence(provider, model, field, value, dated=dated)
        for field, value in fields.items()
        if value is not None and field not in known
    ]


SOURCES = tuple(
    Source(
        name=f"freeway_{name.replace('-', '_')}",
        url=f"https://raw.githubusercontent.com/geneticglitch1/freeway/HEAD/providers/{name}.json",
        rank=Rank.COMMUNITY,
        confidence=0.35,
        parse=parse,
        accept="application/json",
    )
    for name in _FILES
)
