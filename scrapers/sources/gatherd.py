"""tanakarin/gemini-ratelimit-gatherd: the tables of Google's page of limits as JSON, by tier; only the free one counts.

-1 stands for a model that the tier does not have. Whether such a model is not free at all is for Google's own page to
say, which this repeats.
"""

from __future__ import annotations

from typing import Any

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.sources.community import Amounts, amount, document, model_claims, model_of

_LIMITS = {"rpm": "requests_per_minute", "rpd": "requests_per_day", "tpm": "tokens_per_minute"}
_SIZES = {"input_token_limit": "context", "output_token_limit": "max_output"}
_PROVIDER = "google"


def parse(raw: bytes) -> list[Evidence]:
    """The claims of the tier `tier-free`; raises `NotUnderstood` without it."""
    data = document(raw)
    tier = data.get("tier-free") if isinstance(data, dict) else None
    claims: list[Evidence] = []
    for name, record in tier.items() if isinstance(tier, dict) else ():
        if isinstance(record, dict):
            claims += _model(model_of(_PROVIDER, name), record)
    if not claims:
        raise NotUnderstood("no models under `tier-free`")
    return claims


def _model(model: str, record: dict[str, Any]) -> list[Evidence]:
    amounts: Amounts = {name: value for key, name in _LIMITS.items() if (value := amount(record.get(key))) is not None}
    kind: FreeKind | None = "quota" if amounts else None
    sizes = {field: amount(record.get(key)) for key, field in _SIZES.items()} if model else {}
    claims = model_claims(_PROVIDER, model, kind, amounts)
    return claims + [Evidence(_PROVIDER, model, field, size) for field, size in sizes.items() if size is not None]


SOURCE = Source(
    name="gatherd",
    url="https://raw.githubusercontent.com/tanakarin/gemini-ratelimit-gatherd/HEAD/gemini_models.json",
    rank=Rank.COMMUNITY,
    confidence=0.3,
    parse=parse,
    derived=frozenset({_PROVIDER}),
    accept="application/json",
)
