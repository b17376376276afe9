"""cheahjs/free-llm-api-resources: a generated README, a section for each provider, first free ones, then trial credits.

Until 2025 it was two tables with a row for each model, of which the cells of a provider span many; since then each
provider has a heading, its limits in prose, and a list or a table of models. The Codestral section is about a service
with keys of its own (codestral.mistral.ai), which is none of the catalog's providers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborNode

from scrapers.base import Evidence, FreeKind, NotUnderstood, Rank, Source
from scrapers.pages import decoded, text_of, tree
from scrapers.sources.community import (
    Amounts,
    account_claims,
    amounts_in,
    is_budget,
    kind_of,
    model_claims,
    model_of,
    once_in,
    provider_of,
)
from scrapers.tables import Table, tables

_SECTIONS = {"free providers": False, "providers with trial credits": True}
_COLUMNS = {
    "provider": {"provider"},
    "notes": {"provider limits/notes", "credits"},
    "model": {"model name", "models"},
    "limits": {"model limits"},
}
_SHARED = re.compile(r"\bshared? (?:a )?(?:common )?(?:\w+ )?(?:quota|limit)", re.IGNORECASE)
_PER_MODEL = re.compile(r"\bper[- ]model\b", re.IGNORECASE)
# Not a model but words for all of them: `Various open models`, `Open and Proprietary Mistral models`.
_ALL = re.compile(r"(?:various|any|all|open and|routes to)\b", re.IGNORECASE)
_PLACEHOLDERS = frozenset({"", "tbd"})


@dataclass(slots=True)
class _Row:
    """A model: its name or id, the address it links to, and its own limits as text."""

    model: str
    link: str = ""
    limits: str = ""


@dataclass(slots=True)
class _Group:
    """What the list says of one provider; `credits`: of a trial, what is given once."""

    name: str
    link: str
    trial: bool
    notes: list[str] = field(default_factory=list)
    rows: list[_Row] = field(default_factory=list)


def parse(raw: bytes) -> list[Evidence]:
    """The claims of both forms; raises `NotUnderstood` also for a page that was cut off."""
    try:
        found = tables(raw)
        groups = _flat(raw, found) or _sections(raw, found)
    except RecursionError as error:
        raise NotUnderstood("the page nests too deep") from error
    if {group.trial for group in groups} != {False, True}:
        raise NotUnderstood("no sections `Free Providers` and `Providers with trial credits` with providers in them")
    claims: list[Evidence] = []
    for group in groups:
        if (provider := provider_of(group.name, group.link)) is not None:
            claims += _trial(provider, group) if group.trial else _free(provider, group)
    if not claims:
        raise NotUnderstood("none of its sections is about a provider of the catalog")
    return claims


def _free(provider: str, group: _Group) -> list[Evidence]:
    notes = "\n".join(group.notes)
    stated = amounts_in(notes)
    own = [amounts_in(row.limits) for row in group.rows]
    every = stated | {name: value for amounts in own for name, value in amounts.items()}
    kind: FreeKind = kind_of(every) if every or "limit" in notes.casefold() else "price"
    if not group.rows:
        return account_claims(provider, kind, stated) if stated else []
    texts = [notes, *(row.limits for row in group.rows)]
    shared = any(_SHARED.search(text) for text in texts)
    together = not any(_PER_MODEL.search(text) for text in texts)
    common = {name: value for name, value in stated.items() if shared or is_budget(name)}
    rest = {name: value for name, value in stated.items() if name not in common}
    claims = account_claims(provider, None, common)
    for row, amounts in zip(group.rows, own, strict=True):
        if _ALL.match(row.model):
            claims += account_claims(provider, kind, rest | amounts, shared=together)
        else:
            claims += model_claims(provider, _id(provider, row), kind, rest | amounts)
    return claims


def _trial(provider: str, group: _Group) -> list[Evidence]:
    notes = "\n".join(group.notes)
    renewing: Amounts = amounts_in(notes)
    kind: FreeKind = kind_of(renewing) if renewing else "trial"
    claims = account_claims(provider, kind, renewing or once_in(notes), note=notes.replace("\n", "; ")[:80])
    for row in group.rows:
        if not _ALL.match(row.model):
            claims += model_claims(provider, _id(provider, row), None)
    return claims


def _id(provider: str, row: _Row) -> str:
    """A model's id: OpenRouter's links to the model hold it, whatever its name; "" for a placeholder."""
    if provider == "openrouter" and (path := _path(row.link)).endswith(":free"):
        return model_of(provider, path)
    return "" if row.model.casefold() in _PLACEHOLDERS else model_of(provider, row.model)


def _path(link: str) -> str:
    try:
        return unquote(urlsplit(link).path).strip("/")
    except ValueError:
        return ""


def _flat(raw: bytes, found: list[Table]) -> list[_Group]:
    """The form of tables with a column of providers; raises `NotUnderstood` when one has no end."""
    groups: list[_Group] = []
    for table in found:
        titles = table.titles
        places = {
            name: next((place for place, title in enumerate(titles) if title in spellings), None)
            for name, spellings in _COLUMNS.items()
        }
        if all(places[name] is not None for name in ("provider", "notes", "model")):
            groups += _grouped(table, places, trial="credits" in titles)
    text = decoded(raw)
    if groups and text.count("<table") != text.count("</table"):
        raise NotUnderstood("a table has no end")
    return groups


def _grouped(table: Table, places: dict[str, int | None], *, trial: bool) -> list[_Group]:
    groups: list[_Group] = []
    first = len(table.rows) - len(table.body)
    for place, cells in enumerate(table.body, first):
        named = {name: "" if at is None else cells[at] for name, at in places.items()}
        links = table.links[place]
        if not groups or groups[-1].name != named["provider"]:
            groups.append(_Group(named["provider"], links[0] if links else "", trial, [named["notes"]]))
        groups[-1].rows.append(_Row(named["model"], links[-1] if links else "", named["limits"]))
    return groups


def _sections(raw: bytes, found: list[Table]) -> list[_Group]:
    """The form of headings; raises `NotUnderstood` when a section that its contents name is missing."""
    page = tree(raw)
    groups: list[_Group] = []
    titles: set[str] = set()
    trial: bool | None = None
    for node in _blocks(page.root):
        if node.tag in ("h2", "h3"):
            titles.add(text_of(node))
        if node.tag == "h2":
            trial = _SECTIONS.get(text_of(node).casefold())
        elif trial is not None:
            _take(node, groups, trial)
    listed = {text_of(link) for link in page.css('li a[href^="#"]')}
    if missing := sorted(listed - titles):
        raise NotUnderstood(f"its contents name sections that are missing: {', '.join(missing)[:200]}")
    _add_tables(found, groups)
    return groups


def _blocks(root: LexborNode | None) -> Iterator[LexborNode]:
    """Headings, paragraphs and lists in the order of the page, none inside another."""
    stack = [] if root is None else [root]
    while stack:
        node = stack.pop()
        if node.tag in ("h2", "h3", "p", "ul"):
            yield node
        elif node.tag != "table":
            stack += reversed(list(node.iter()))


def _take(node: LexborNode, groups: list[_Group], trial: bool) -> None:
    """One element of a section: its heading, a paragraph, or a list; the last list is that of the models."""
    if node.tag == "h3":
        groups.append(_Group(text_of(node), _address(node), trial))
    elif groups and groups[-1].trial is trial and node.tag == "p":
        text = text_of(node)
        # A trial's other paragraphs are its requirements and `Models:`.
        if not trial or text.startswith("Credits:"):
            groups[-1].notes.append(text.removeprefix("Credits:").strip())
    elif groups and groups[-1].trial is trial:
        items = [item for item in node.iter() if item.tag == "li"]
        groups[-1].rows = [_Row(text_of(item), _address(item)) for item in items]


def _address(node: LexborNode) -> str:
    link = node.css_first("a[href]")
    return str(link.attributes.get("href") or "") if link is not None else ""


def _add_tables(found: list[Table], groups: list[_Group]) -> None:
    """The tables of models, to the sections that they stand in."""
    sections = {(group.trial, group.name): group for group in groups}
    for table in found:
        titles = table.titles
        if len(table.headings) < 2 or not {"model name", "model limits"} <= set(titles):
            continue
        group = sections.get((_SECTIONS.get(table.headings[-2].casefold(), False), table.headings[-1]))
        if group is not None:
            model, limits = titles.index("model name"), titles.index("model limits")
            group.rows = [_Row(row[model], "", row[limits]) for row in table.body]


SOURCE = Source(
    name="cheahjs",
    url="https://raw.githubusercontent.com/cheahjs/free-llm-api-resources/HEAD/README.md",
    rank=Rank.COMMUNITY,
    confidence=0.5,
    parse=parse,
)
