"""mnfst/awesome-free-llm-apis: the `data.json` that its README is made from; before that, the README by hand.

Known to be careless: in April 2026 it gave OpenRouter 200 free requests a day (50), Groq 14,400 for every model
(1,000 for most), Cerebras 30 a minute (5).
"""

from __future__ import annotations

import re
from typing import Any

from scrapers.amounts import number
from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.pages import decoded, text_of, tree
from scrapers.sources.community import (
    Amounts,
    account_claims,
    all_free,
    amounts_in,
    clauses,
    day,
    document,
    is_budget,
    kind_of,
    mapped,
    model_claims,
    model_of,
    provider_of,
    records,
    words,
)

_SHARED = re.compile(r"\bshared\b|\btotal\b|\bacross\b", re.IGNORECASE)
_ON_FREE = re.compile(r"\((\d[\d.]*[KM]?) on free\)", re.IGNORECASE)
_ENTRY = re.compile(r"[^\n]{1,120}?\s-\s(?P<models>[^\n]{1,400}?)\.\s(?P<limits>[^\n]{1,400})")
_MORE = re.compile(r"\s*\+\s?[\w\s]*more$")


def parse(raw: bytes) -> list[Evidence]:
    """The claims of the data, or of the lines of the older README."""
    if decoded(raw).lstrip()[:1] == "{":
        return _data(document(raw))
    try:
        return _readme(raw)
    except RecursionError as error:
        raise NotUnderstood("the page nests too deep") from error


def _data(data: Any) -> list[Evidence]:
    dated = day(data, "lastUpdated") if isinstance(data, dict) else ""
    claims: list[Evidence] = []
    for record in records(data, "providers"):
        provider = provider_of(words(record, "name"), words(record, "baseUrl"), words(record, "url"))
        if provider is not None:
            claims += _provider(provider, record, dated)
    if not claims:
        raise NotUnderstood("no array `providers` with models of a provider of the catalog")
    return claims


def _provider(provider: str, record: dict[str, Any], dated: str) -> list[Evidence]:
    claims: list[Evidence] = []
    common: Amounts = {}
    told: set[str] = set()
    for row in records(record, "models"):
        limits = words(row, "rateLimit")
        account, own = _divided(limits)
        common |= account
        told |= set(own)
        # Rows without an id stand for `+ 42 more models`.
        claims += _model(provider, words(row, "id"), row, _kind(limits, account | own), own, dated)
    described = {name: value for name, value in amounts_in(words(record, "description")).items() if name not in told}
    common = described | common
    # Money is good for every model; what else is free is in the rows.
    kind: FreeKind | None = "budget" if any(name.startswith("usd_") for name in common) else None
    return claims + account_claims(provider, kind, common, dated=dated) if claims or kind else []


def _divided(limits: str) -> tuple[Amounts, Amounts]:
    """(limits that all models use up together, limits of one model) in `2,000 RPD total; 500 RPD/model`."""
    account: Amounts = {}
    own: Amounts = {}
    for clause in clauses(limits):
        for name, value in amounts_in(clause).items():
            (account if is_budget(name) or _SHARED.search(clause) else own)[name] = value
    return account, own


def _kind(limits: str, amounts: Amounts) -> FreeKind:
    return "budget" if limits.casefold() == "credit-metered" else kind_of(amounts)


def _model(provider: str, model: str, row: dict[str, Any], kind: FreeKind, own: Amounts, dated: str) -> list[Evidence]:
    if not (model := model_of(provider, model)):
        return []
    claims = model_claims(provider, model, kind, own, dated=dated)
    for field, name in (("context", "context"), ("max_output", "maxOutput")):
        if (size := _size(words(row, name))) is not None:
            claims.append(Evidence(provider, model, field, size, dated=dated))
    tags, chat = _modality(words(row, "modality").casefold())
    claims += [Evidence(provider, model, f"capability.{tag}", True, dated=dated) for tag in tags]
    if not chat and all(claim.field != "chat" for claim in claims):
        claims.append(Evidence(provider, model, "chat", False, dated=dated))
    return claims


def _size(text: str) -> float | None:
    """Tokens in `256K`, `~8K`, `128K (8K on free)`; None for `Varies`, `Up to 10M`, `Shared w/ context`."""
    found = _ON_FREE.search(text)
    size = number(found[1] if found else text[:40])
    return size if size is not None and 0 < size < 1e9 else None


def _modality(text: str) -> tuple[list[str], bool]:
    """(what the modality says that a model can do, whether it converses)."""
    if text.startswith("embedding"):
        return ["embeddings"], False
    if text.startswith("rerank"):
        return ["rerank"], False
    if text.startswith("audio") and "text" in text.partition("→")[2]:
        return ["speech"], False
    said = {"vision": "vision" in text or "image" in text, "audio": "audio" in text, "reasoning": "(reasoning)" in text}
    return [tag for tag, has in said.items() if has], "ocr" not in text


def _readme(raw: bytes) -> list[Evidence]:
    """Lines like `Groq - Llama 3.3 70B, Kimi K2 +17 more. 30 RPM, 1K RPD.`; only names that mean one model count."""
    claims: list[Evidence] = []
    for item in tree(raw).css("li"):
        link = None if item.css_first("ul, ol") is not None else item.css_first("a[href]")
        entry = _ENTRY.match(text_of(item)) if link is not None else None
        if entry is None or link is None:
            continue
        provider = provider_of(text_of(link), str(link.attributes.get("href") or ""))
        if provider is not None:
            claims += _entry(provider, entry["models"], entry["limits"])
    if not claims:
        raise NotUnderstood("no lines of a provider, its models and their limits")
    return claims


def _entry(provider: str, models: str, limits: str) -> list[Evidence]:
    amounts = amounts_in(limits)
    said = limits.casefold()
    kind: FreeKind = "price" if "undocumented" in said else "quota" if "usage" in said else kind_of(amounts)
    # A concurrency stands for the account here, and OpenRouter's limits for all of its free models.
    whole = all_free(provider) != "*"
    common = {name: value for name, value in amounts.items() if whole or is_budget(name) or name == "concurrency"}
    own = {name: value for name, value in amounts.items() if name not in common}
    claims = account_claims(provider, "budget" if "usd_per_month" in common else None, common)
    for name in _MORE.sub("", models).split(", "):
        # A part of a name (`Flash-Lite`) means no model; those with a number in them are whole.
        if mapped(provider, name) is not None or any(letter.isdigit() for letter in name):
            claims += model_claims(provider, model_of(provider, name), kind, own)
    return claims


SOURCE = Source(
    name="mnfst",
    url="https://raw.githubusercontent.com/mnfst/awesome-free-llm-apis/HEAD/data.json",
    rank=Rank.COMMUNITY,
    confidence=0.3,
    parse=parse,
    accept="application/json",
)
