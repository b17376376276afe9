"""Cohere's own pages: what a trial key may do, by the names of models and of endpoints; and the models by id.

A trial key is free; besides the limits by model, all its calls count into one number a month.
"""

from __future__ import annotations

import re

from scrapers import amounts
from scrapers.base import Evidence, NotUnderstood, Rank, Source, capabilities, limits
from scrapers.pages import cut_short, text_of, tree
from scrapers.tables import Table, tables

_PROVIDER = "cohere"
_ID = re.compile(r"[a-z0-9][\w.:/-]{1,120}")
_NOTE = "trial key"
# The page of limits calls models by names that their ids do not spell; the newest id of each on the page of models.
_NAMES = {
    "command a+": "command-a-plus-05-2026",
    "command a": "command-a-03-2025",
    "command a reasoning": "command-a-reasoning-08-2025",
    "command a translate": "command-a-translate-08-2025",
    "command a vision": "command-a-vision-07-2025",
    "command r+": "command-r-plus-08-2024",
    "command r": "command-r-08-2024",
    "command r7b": "command-r7b-12-2024",
}
# Which models an endpoint serves. Those for texts or images alone (`Embed (Images)`) are parts of another one.
_SERVED = {
    "chat": ("command-*", "c4ai-aya-*"),
    "embed": ("embed-*",),
    "rerank": ("rerank-*",),
    "audio transcriptions": ("cohere-transcribe-*",),
}
_TAGS = {"embed": "embeddings", "rerank": "rerank", "audio transcriptions": "speech"}


def parse_limits(raw: bytes) -> list[Evidence]:
    """The limits of a trial key, by model and by endpoint, and the calls of a month; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table")
    found: list[Evidence] = []
    for table in tables(raw):
        trial = next((index for index, head in enumerate(table.header) if _is_trial(head)), None)
        model, endpoint = table.column("model"), table.column("endpoint")
        for row in table.body if trial is not None else []:
            if model is not None:
                found += _of_model(row[model], row[trial or 0], chats=table.under("chat"))
            elif endpoint is not None:
                found += _of_endpoint(row[endpoint], row[trial or 0])
    if not found:
        raise NotUnderstood("no table of models or endpoints with a column for the rate limit of a trial key")
    return _of_month(raw) + found


def parse_models(raw: bytes) -> list[Evidence]:
    """The models that Cohere serves itself, with their windows and endpoints; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table")
    found: list[Evidence] = []
    for table in tables(raw):
        name, endpoints = table.column("model name", "model"), table.column("endpoints", "endpoint")
        if name is None or endpoints is None:
            continue
        for row in table.body:
            model = amounts.without_footnotes(row[name])
            if row[endpoints] and _ID.fullmatch(model):
                found += _described(table, row, model, _listed(row[endpoints]))
    if not found:
        raise NotUnderstood("no table with the columns Model Name and Endpoints")
    return found


def _is_trial(header: str) -> bool:
    return "trial" in header.casefold() and "production" not in header.casefold()


def _of_model(name: str, cell: str, *, chats: bool) -> list[Evidence]:
    told = amounts.rates(cell, unit="requests")
    model = amounts.without_footnotes(name)
    if not told or not model:
        return []
    model = _NAMES.get(model.casefold(), model)
    claims = [Evidence(_PROVIDER, model, "free", "quota", note=_NOTE)]
    claims += limits(_PROVIDER, model, {**told}, note=_NOTE)
    return [*claims, Evidence(_PROVIDER, model, "chat", True)] if chats else claims


def _of_endpoint(name: str, cell: str) -> list[Evidence]:
    endpoint = amounts.without_footnotes(name).casefold()
    claims: list[Evidence] = []
    # What is counted in inputs has no field of its own, but it is open to a trial key all the same.
    for model in _SERVED.get(endpoint, ()) if re.search(r"\d", cell) else ():
        claims.append(Evidence(_PROVIDER, model, "free", "quota", note=_NOTE))
        claims += limits(_PROVIDER, model, {**amounts.rates(cell, unit="requests")}, shared=True, note=_NOTE)
        if endpoint in _TAGS:
            claims.append(Evidence(_PROVIDER, model, "chat", False))
            claims += capabilities(_PROVIDER, model, {_TAGS[endpoint]: True})
    return claims


def _of_month(raw: bytes) -> list[Evidence]:
    """The calls of a month that the prose allows a trial key, over all endpoints."""
    root = tree(raw).root
    prose = " ".join(text_of(root).split()) if root is not None else ""
    for sentence in prose.split(". "):
        calls = amounts.rates(sentence).get("requests_per_month") if "trial key" in sentence.casefold() else None
        if calls is not None:
            return [
                Evidence(_PROVIDER, "*", "free", "quota", note=_NOTE),
                *limits(_PROVIDER, "*", {"requests_per_month": calls}, shared=True, note=_NOTE),
            ]
    return []


def _described(table: Table, row: list[str], model: str, endpoints: frozenset[str]) -> list[Evidence]:
    status = _cell(table, row, "status").casefold()
    if status.startswith(("retired", "shutdown")):
        return [Evidence(_PROVIDER, model, "exists", False)]
    # A deprecated one is closed to new customers only, for which there is no word here.
    claims = [Evidence(_PROVIDER, model, "exists", True)] if status in ("", "live", "active") else []
    for field, header in (("context", "context length"), ("max_output", "maximum output tokens")):
        tokens = amounts.number(_cell(table, row, header))
        if tokens and tokens >= 1:
            claims.append(Evidence(_PROVIDER, model, field, tokens))
    chats = "chat" in endpoints
    claims.append(Evidence(_PROVIDER, model, "chat", chats))
    sees = chats and bool(_listed(_cell(table, row, "modality", "modalities")) & {"images", "image"})
    tags: dict[str, bool | None] = {tag: True for endpoint, tag in _TAGS.items() if endpoint in endpoints}
    return claims + capabilities(_PROVIDER, model, {**tags, "vision": sees or None})


def _cell(table: Table, row: list[str], *names: str) -> str:
    index = table.column(*names)
    return row[index] if index is not None else ""


def _listed(cell: str) -> frozenset[str]:
    """The members of a list in a cell, folded."""
    return frozenset(part.strip().casefold() for part in re.split(r"[,\n]", cell) if part.strip())


SOURCES = (
    Source(
        name="cohere_limits",
        url="https://docs.cohere.com/docs/rate-limits.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_limits,
        provider=_PROVIDER,
        complete=True,
    ),
    Source(
        name="cohere_models",
        url="https://docs.cohere.com/docs/models.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_models,
        provider=_PROVIDER,
        complete=True,
    ),
)
