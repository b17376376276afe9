"""tashfeenahmed/freellmapi: the README of a proxy over free tiers: a table of providers, a review of their terms.

Its cells name families (`Llama 4, Qwen, Kimi`, `GLM-4.5`), not models, and say nothing of them that could be believed
of an id. What remains are the few limits that it gives for a provider as a whole; until May 2026 it gave none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.sources.community import Amounts, account_claims, amounts_in, is_budget, provider_of
from scrapers.tables import Table, tables

_PER_MODEL = re.compile(r"\bper[- ]model\b", re.IGNORECASE)


def parse(raw: bytes) -> list[Evidence]:
    """The limits of whole providers; raises `NotUnderstood` where the README gives none."""
    claims: list[Evidence] = []
    try:
        found = tables(raw)
    except RecursionError as error:
        raise NotUnderstood("the page nests too deep") from error
    for name, text in (statement for table in found for statement in _statements(table)):
        provider = provider_of(name)
        amounts: Amounts = amounts_in(text) if provider is not None else {}
        if provider is not None and amounts:
            kind: FreeKind = "budget" if any(is_budget(limit) for limit in amounts) else "quota"
            claims += account_claims(provider, kind, amounts, shared=_PER_MODEL.search(text) is None)
    if not claims:
        raise NotUnderstood("no limits under `Supported providers` or in the review of terms")
    return claims


def _statements(table: Table) -> Iterator[tuple[str, str]]:
    """(name of a provider, what is said of it), from the table of providers and from that of their terms."""
    titles = table.titles
    if "provider" in titles and "notes" in titles and table.under("terms of service"):
        for row in table.body:
            yield row[titles.index("provider")], row[titles.index("notes")]
    elif table.under("supported providers"):
        for cell in (cell for row in table.rows for cell in row):
            name, _, text = cell.partition("\n")
            yield name, text


SOURCE = Source(
    name="freellmapi",
    url="https://raw.githubusercontent.com/tashfeenahmed/freellmapi/HEAD/README.md",
    rank=Rank.COMMUNITY,
    confidence=0.4,
    parse=parse,
)
