"""Groq's own pages: the limits of its free plan, and its models with their windows.

The page of limits calls them those of the Developer plan, but they are what an account without billing gets; the
columns of the Developer plan on the page of models are not read.
"""

from __future__ import annotations

import re

from scrapers import amounts
from scrapers.base import Evidence, NotUnderstood, Rank, Source, capabilities, limits
from scrapers.pages import cut_short
from scrapers.tables import Table, continued, tables

_PROVIDER = "groq"
_ID = re.compile(r"[a-z0-9][a-z0-9._:/-]{1,120}")
_PAGE = re.compile(r"/docs/model/(?P<model>[\w.:/-]+)$|/docs/compound/systems/(?P<system>[\w.-]+)$")
# Of these the name says what they are: transcription, speech, and classifiers of prompts. A safeguard model chats.
_NOT_CHAT = re.compile(r"whisper|orpheus|\btts\b|(?<!safe)guard")
_OTHER_PLANS = ("developer", "enterprise", "batch", "flex", "paid")


def parse_limits(raw: bytes) -> list[Evidence]:
    """The limits of each model id in the tables of the free plan; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table")
    told = [table for table in continued(tables(raw)) if _columns(table)]
    ours = [table for table in told if table.under("free")] or [table for table in told if not _of_other_plan(table)]
    rows: dict[str, dict[str, float]] = {}
    for table in ours:
        for model, found in _rows(table):
            if rows.setdefault(model, found) != found:
                raise NotUnderstood(
                    f"two tables give different limits of {model}, and none says that it is the free one"
                )
    if not rows:
        raise NotUnderstood("no table with a column MODEL ID and columns such as RPM and TPM")
    return [claim for model, found in rows.items() for claim in _claims(model, found)]


def parse_models(raw: bytes) -> list[Evidence]:
    """The models with their windows; `free` is `none` for those that only a contract gives; raises `NotUnderstood`."""
    if cut_short(raw):
        raise NotUnderstood("the page ends inside a table")
    found: list[Evidence] = []
    for table in tables(raw):
        name, window = table.column("model id"), table.column("context window (tokens)", "context window")
        if name is None or window is None:
            continue
        for row, links in zip(table.body, table.links[-len(table.body) or len(table.rows) :], strict=True):
            model = _linked(row[name], links)
            if model is not None:
                found += _described(table, row, model, enterprise=row[name].removesuffix(model).endswith("Enterprise"))
    if not found:
        raise NotUnderstood("no table with the columns MODEL ID and CONTEXT WINDOW")
    return found


def _columns(table: Table) -> dict[int, str]:
    return amounts.columns(table.header) if table.column("model id") is not None else {}


def _of_other_plan(table: Table) -> bool:
    return any(table.under(plan) for plan in _OTHER_PLANS)


def _rows(table: Table) -> list[tuple[str, dict[str, float]]]:
    name, names = table.column("model id"), _columns(table)
    found = []
    for row in table.body:
        told = amounts.told(names, row)
        model = amounts.without_footnotes(row[name]) if name is not None else ""
        if told and _ID.fullmatch(model):
            found.append((model, told))
    return found


def _claims(model: str, told: dict[str, float]) -> list[Evidence]:
    if 0 in told.values():
        return [Evidence(_PROVIDER, model, "free", "none")]
    heard = any(name.startswith("audio_seconds") for name in told)
    claims = [Evidence(_PROVIDER, model, "free", "quota"), *limits(_PROVIDER, model, {**told})]
    if heard or _NOT_CHAT.search(model):
        claims.append(Evidence(_PROVIDER, model, "chat", False))
    return claims + capabilities(_PROVIDER, model, {"speech": True if heard else None})


def _linked(cell: str, links: list[str]) -> str | None:
    """The id that a cell ends with, after the name and perhaps a badge; the link of its page tells where it begins."""
    for link in links:
        page = _PAGE.search(link.partition("#")[0].partition("?")[0])
        if page is not None:
            model = page["model"] or f"groq/{page['system']}"
            if cell.endswith(model):
                return model
    return cell if not links and _ID.fullmatch(cell) else None


def _described(table: Table, row: list[str], model: str, *, enterprise: bool) -> list[Evidence]:
    claims = [Evidence(_PROVIDER, model, "exists", True)]
    for field, names in (
        ("context", ("context window (tokens)", "context window")),
        ("max_output", ("max completion tokens",)),
    ):
        index = table.column(*names)
        tokens = amounts.number(row[index]) if index is not None else None
        if tokens and tokens >= 1:
            claims.append(Evidence(_PROVIDER, model, field, tokens))
    price = table.column("price per 1m tokens", "price")
    asked = row[price].casefold() if price is not None else ""
    heard = "per hour" in asked
    if heard or "characters" in asked or _NOT_CHAT.search(model):
        claims.append(Evidence(_PROVIDER, model, "chat", False))
    if enterprise and "contact" in asked:
        claims.append(Evidence(_PROVIDER, model, "free", "none", note="enterprise only"))
    return claims + capabilities(_PROVIDER, model, {"speech": True if heard else None})


SOURCES = (
    Source(
        name="groq_limits",
        url="https://console.groq.com/docs/rate-limits.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_limits,
        provider=_PROVIDER,
        complete=True,
    ),
    Source(
        name="groq_models",
        url="https://console.groq.com/docs/models.md",
        rank=Rank.DOCS,
        confidence=0.85,
        parse=parse_models,
        provider=_PROVIDER,
        complete=True,
    ),
)
