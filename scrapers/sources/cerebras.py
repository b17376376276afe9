"""Cerebras' own pages: the limits of its free tier (since 2026 a trial) by model id, and its models.

A limit of tokens that counts cached ones too (`Total TPM`) stands beside the one that binds (`Uncached TPM`); the
second is read. Quotas refill as token buckets, where the page says so.
"""

from __future__ import annotations

import re

from scrapers import amounts
from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits
from scrapers.pages import cut_short, decoded, text_of, tree
from scrapers.tables import Table, tables

_PROVIDER = "cerebras"
_ID = re.compile(r"[A-Za-z0-9][\w.:/-]{1,120}")
_CREDIT = re.compile(r"\$(\d{1,4}(?:\.\d+)?) (?:in|of) (?:free |trial )?credits?\b", re.IGNORECASE)
_PAID = ("developer", "pay", "enterprise")


def parse_limits(raw: bytes) -> list[Evidence]:
    """The limits of each model in the tab of the free tier, or of the free trial; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table or its tabs")
    reset = {"reset": "bucket"} if "token bucket" in decoded(raw).casefold() else {}
    found: list[Evidence] = []
    trial = False
    for table in tables(raw):
        tier = table.place
        if "free" not in tier or any(word in tier for word in _PAID):
            continue
        trial = trial or "trial" in tier
        for model, told in _rows(table):
            kind = "none" if 0 in told.values() else "trial" if "trial" in tier else "quota"
            found.append(Evidence(_PROVIDER, model, "free", kind))
            found += limits(_PROVIDER, model, {**told, **reset}) if kind != "none" else []
    if not found:
        raise NotUnderstood("no tab named Free or Free Trial with a table of models and columns such as RPM and TPM")
    return found + (_credit(raw) if trial else [])


def parse_models(raw: bytes) -> list[Evidence]:
    """The models of the public endpoints, with the windows that a free account gets; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table or its tabs")
    found: list[Evidence] = []
    for table in tables(raw):
        name = table.column("model id")
        if name is None or table.under("dedicated"):
            continue
        for row in table.body:
            model = amounts.without_footnotes(row[name])
            if _ID.fullmatch(model):
                found.append(Evidence(_PROVIDER, model, "exists", True))
                found += _windows(table, row, model)
    if not found:
        raise NotUnderstood("no table of models with a column Model ID")
    return found


def _rows(table: Table) -> list[tuple[str, dict[str, float]]]:
    name = table.column("model id", "model")
    names = amounts.columns(_binding(table.header))
    found = []
    for row in table.body if name is not None else []:
        told = amounts.told(names, row)
        model = amounts.without_footnotes(row[name or 0])
        if told and _ID.fullmatch(model):
            found.append((model, told))
    return found


def _binding(header: list[str]) -> list[str]:
    """`header` without the columns of a total where the part of it that binds has one of its own."""
    split = any("uncached" in text.casefold() for text in header)
    return ["" if split and "total" in text.casefold() else text for text in header]


def _windows(table: Table, row: list[str], model: str) -> list[Evidence]:
    claims = []
    for index, header in enumerate(table.header):
        head = header.casefold()
        field = "context" if head.startswith("context") else "max_output" if head.startswith("max output") else None
        tokens = _for_free(head, row[index]) if field else None
        if field and tokens and tokens >= 1:
            claims.append(Evidence(_PROVIDER, model, field, tokens))
    return claims


def _for_free(header: str, cell: str) -> float | None:
    """The number of tokens in a cell; of `65k / 131k` under `Context (free / paid)` the one for free accounts."""
    kinds = [kind.strip() for kind in header.partition("(")[2].partition(")")[0].split("/")]
    parts = cell.split("/")
    if len(parts) > 1:
        if len(kinds) != len(parts) or "free" not in kinds:
            return None
        cell = parts[kinds.index("free")]
    return amounts.number(re.sub(r"\s?tokens?$", "", cell.strip(), flags=re.IGNORECASE))


def _credit(raw: bytes) -> list[Evidence]:
    """The credit of a trial that the page's prose names."""
    root = tree(raw).root
    match = _CREDIT.search(text_of(root)) if root is not None else None
    return limits(_PROVIDER, "*", {"usd_once": float(match[1])}, shared=True, note="trial credit") if match else []


SOURCES = (
    Source(
        name="cerebras_limits",
        url="https://inference-docs.cerebras.ai/support/rate-limits.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_limits,
        provider=_PROVIDER,
        complete=True,
    ),
    Source(
        name="cerebras_models",
        url="https://inference-docs.cerebras.ai/models/overview.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_models,
        provider=_PROVIDER,
        complete=True,
    ),
)
