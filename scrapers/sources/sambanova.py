"""SambaNova's own page of limits: the free tier of each model id, for production and for preview models."""

from __future__ import annotations

import re

from scrapers import amounts
from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits
from scrapers.pages import cut_short
from scrapers.tables import Table, tables

_PROVIDER = "sambanova"
_ID = re.compile(r"[A-Za-z0-9][\w.:/-]{1,120}")
# Transcription and embedding; the page names no kinds, but these names leave no doubt.
_NOT_CHAT = re.compile(r"whisper|^e5-|\bembed", re.IGNORECASE)


def parse(raw: bytes) -> list[Evidence]:
    """The limits of each model in the tabs of the free tier; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table or its tabs")
    found = [claim for table in tables(raw) if _is_free(table) for claim in _claims(table)]
    if not found:
        raise NotUnderstood("no tab named Free Tier with a table of Model ID and columns such as RPM and RPD")
    return found


def _is_free(table: Table) -> bool:
    """Whether the tab, else the heading, is that of the free tier alone; `Developer` also heads a column of vendors."""
    return "free" in table.place and "developer" not in table.place and "enterprise" not in table.place


def _claims(table: Table) -> list[Evidence]:
    name, names = table.column("model id", "model"), amounts.columns(table.header)
    claims = []
    for row in table.body if name is not None else []:
        told = amounts.told(names, row)
        model = amounts.without_footnotes(row[name or 0])
        if not told or not _ID.fullmatch(model):
            continue
        closed = 0 in told.values()
        claims.append(Evidence(_PROVIDER, model, "free", "none" if closed else "quota"))
        claims += limits(_PROVIDER, model, {**told}) if not closed else []
        if _NOT_CHAT.search(model):
            claims.append(Evidence(_PROVIDER, model, "chat", False))
    return claims


SOURCE = Source(
    name="sambanova",
    url="https://docs.sambanova.ai/docs/en/models/rate-limits.md",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=_PROVIDER,
    complete=True,
)
