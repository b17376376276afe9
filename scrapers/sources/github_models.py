"""GitHub Models: the free limits of its classes of models and of single models, until the service ended.

Which models are of the classes Low and High is told elsewhere, so that their numbers hold for no model by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

from scrapers import amounts, tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, limits
from scrapers.prose import day_in, end_of, prose

PROVIDER = "github"
_CLASSES = frozenset({"low", "high", "embedding"})
_VENDOR = re.compile(r"^(?:Azure OpenAI|OpenAI|xAI|Microsoft|Mistral AI|Meta|Cohere) +", re.IGNORECASE)
_LIST = re.compile(r", (?:and )?| and ")
_NOT_FREE = re.compile(r"not applicable|not available|n/a|[-–—]{1,3}", re.IGNORECASE)
_IN_AND_OUT = re.compile(r"(\d[\d,]{0,9}) (in|out)\b", re.IGNORECASE)
_NAME = r"(?:GitHub Models|\{% data variables\.product\.prodname_github_models %\})"
_END = r"(?:(?:now|fully|officially|permanently) )*(?:retired|shut down|discontinued)"
_GONE = re.compile(
    rf"(?<!when )(?<!once )(?<!until )(?<!before )(?<!if ){_NAME} (?:is|was|has been) {_END}(?P<when>[^.]{{0,40}})",
    re.IGNORECASE,
)
_GOING = re.compile(rf"{_NAME} (?:will be|is being) {_END} on (?P<when>[^.]{{1,40}})", re.IGNORECASE)
_LONGEST = 200


def parse(raw: bytes) -> list[Evidence]:
    """Limits of the first free plan; where the page says that the service has ended, only that."""
    text = prose(raw)
    gone = _GONE.search(text)
    if gone is not None:
        return [Evidence(PROVIDER, "*", "free", "retired", dated=day_in(gone["when"]))]
    claims = [claim for table in tables.tables(raw) for claim in _tiers(table)]
    if not claims:
        raise NotUnderstood("no table with Rate limit tier, Rate limits and a free plan, nor a word of retirement")
    going = _GOING.search(text)
    until_s = end_of(going["when"]) if going is not None else None
    return [replace(claim, until_s=until_s) for claim in claims]


def _tiers(table: tables.Table) -> list[Evidence]:
    titles = table.titles
    tier = next((place for place, title in enumerate(titles) if title.endswith("tier")), None)
    what = next((place for place, title in enumerate(titles) if title in ("rate limits", "rate limit", "limits")), None)
    free = next((place for place, title in enumerate(titles) if "free" in title.split()), None)
    if tier is None or what is None or free is None:
        return []
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in table.body:
        if all(len(row[place]) <= _LONGEST for place in (tier, what, free)):
            cells[row[tier]][row[what]] = " ".join(row[free].split())
    claims = _classes({name.casefold(): told for name, told in cells.items() if name.casefold() in _CLASSES})
    for name, told in cells.items():
        if name.casefold() not in _CLASSES:
            claims += [claim for model in _models(name) for claim in _single(model, told)]
    return claims


def _classes(told: dict[str, dict[str, str]]) -> list[Evidence]:
    """The service is free; which number holds for a model depends on its class, which this page does not tell."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for name, cells in told.items():
        for limit, amount in _amounts(cells).items():
            numbers[limit].append(f"{name} {amount:g}")
    if not numbers:
        return []
    return [
        Evidence(PROVIDER, "*", "free", "quota"),
        *(Evidence(PROVIDER, "*", f"limit.{name}", None, note=", ".join(each)) for name, each in numbers.items()),
    ]


def _single(model: str, cells: dict[str, str]) -> list[Evidence]:
    found: dict[str, Value] = dict(_amounts(cells))
    if found:
        return [Evidence(PROVIDER, model, "free", "quota"), *limits(PROVIDER, model, found)]
    if all(_NOT_FREE.fullmatch(cell) for cell in cells.values()):
        return [Evidence(PROVIDER, model, "free", "none", note="not on the free plan")]
    return []


def _amounts(cells: dict[str, str]) -> dict[str, float]:
    """The numbers of one tier: `{"Requests per minute": "15", "Tokens per request": "8000 in, 4000 out"}`."""
    found: dict[str, float] = {}
    for what, cell in cells.items():
        number = amounts.number(cell)
        if (name := amounts.column(what)) is not None:
            found |= {name: number} if number else {}
        elif "concurrent" in what.casefold():
            found |= {"concurrency": number} if number else {}
        elif "tokens per request" in what.casefold():
            fields = {"in": "max_prompt_tokens", "out": "max_completion_tokens"}
            each = {fields[way.lower()]: amounts.number(digits) for digits, way in _IN_AND_OUT.findall(cell)}
            each = each or {"max_request_tokens": number}
            found |= {name: amount for name, amount in each.items() if amount}
    return found


def _models(name: str) -> list[str]:
    """`Azure OpenAI o1, o3, and gpt-5` is three models, named without who made them."""
    parts = _LIST.split(_VENDOR.sub("", " ".join(name.split())))
    return [model for part in parts if (model := _VENDOR.sub("", part.strip()))]


SOURCE = Source(
    name="github_models",
    url="https://docs.github.com/api/article/body?pathname=/en/github-models/use-github-models/prototyping-with-ai-models",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse,
    provider=PROVIDER,
)
