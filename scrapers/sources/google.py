"""Google's Gemini API: the limits of its free tier, and what its models can do.

The page of limits had several forms: one table with a column for each tier and cells like `10 / 250,000 / 500`, whose
order a row `RPM / TPM / RPD` tells; a table for each tier with a column for each limit; and since 2026 no numbers at
all, only tables of tokens waiting in batches, which are no limits of chat.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from scrapers import amounts, pages, tables
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, capabilities, limits
from scrapers.prose import end_of, prose

PROVIDER = "google"
_NAMES = {
    "gemini 2.0 flash experimental": ("gemini-2.0-flash-exp",),
    "gemini embedding": ("gemini-embedding-001",),
    "gemini embedding experimental 03-07": ("gemini-embedding-exp-03-07",),
    "gemini 2.5 flash live": ("gemini-live-2.5-flash-preview",),
    "gemini 2.0 flash live": ("gemini-2.0-flash-live-001",),
    "gemma 3": ("gemma-3-*",),
    "gemma 3n": ("gemma-3n-*",),
    "gemma 3 & 3n": ("gemma-3-*", "gemma-3n-*"),
    "gemma 4": ("gemma-4-*",),
    "imagen 3": ("imagen-3.0-generate-002",),
    "imagen 4 standard/fast": ("imagen-4.0-generate-001", "imagen-4.0-fast-generate-001"),
    "imagen 4 ultra": ("imagen-4.0-ultra-generate-001",),
    "veo 2": ("veo-2.0-generate-001",),
}
_LONGEST = 120  # characters of a name or a number; anything longer is not one
_NOT_CHAT = re.compile(
    r"\b(?:tts|text-to-speech|embeddings?|imagen|image|veo|lyria|live|native audio)\b", re.IGNORECASE
)
_DASH = re.compile(r"[-–—]{1,5}")
_PUT_AWAY = re.compile(r"\s*\(deprecated\)$|\s*[^\x00-\x7f]+$", re.IGNORECASE)
# Their Markdown puts the name of a group of models between the heads of the columns and the line below those.
_GROUP = re.compile(r"^(\|[^\n]+\|)[ \t]*\n\|[^|\n]+\|{2,}[ \t]*\n(?=\|[ \t]*:?-)", re.MULTILINE)
_MIDNIGHT = re.compile(r"\bresets? at midnight Pacific\b", re.IGNORECASE)
_INPUT_ONLY = re.compile(r"\btokens per minute \(input\)", re.IGNORECASE)
_ELSEWHERE = re.compile(r"\blimits depend on [^.]{0,200}can be viewed in (?:Google )?AI Studio\b", re.IGNORECASE)
_NAMED = {
    "requests_per_minute": re.compile(r"\brequests per minute \(RPM\)", re.IGNORECASE),
    "tokens_per_minute": re.compile(r"\btokens per minute (?:\(input\) ?)?\(TPM\)", re.IGNORECASE),
    "requests_per_day": re.compile(r"\brequests per day \(RPD\)", re.IGNORECASE),
}


class _Said(NamedTuple):
    """What the sentences of the page say of all its tables."""

    tokens: str  # the field that TPM is: of prompts only, or of both
    reset: dict[str, Value]


def parse_limits(raw: bytes) -> list[Evidence]:
    """The free tier's limits for each model; where no numbers are given, which limits there are for all of them."""
    text = prose(raw)
    said = _Said(
        "prompt_tokens_per_minute" if _INPUT_ONLY.search(text) else "tokens_per_minute",
        {"reset": "America/Los_Angeles"} if _MIDNIGHT.search(text) else {},
    )
    page = _GROUP.sub(r"\1\n", pages.decoded(raw)).encode("utf-8", "replace")
    claims = [claim for table in tables.tables(page) for claim in _tiers(table, said)]
    if not claims and _ELSEWHERE.search(text):
        named: dict[str, Value] = {_field(name, said): None for name, words in _NAMED.items() if words.search(text)}
        claims = limits(PROVIDER, "*", named | said.reset, note="told only in AI Studio") if named else []
    if not claims:
        raise NotUnderstood(
            "no table with a column Model and a free tier, nor the sentence that AI Studio tells limits"
        )
    return claims


def _tiers(table: tables.Table, said: _Said) -> list[Evidence]:
    """What one table says of the free tier, if it is about that."""
    if table.under("batch"):
        return []
    head = table.rows[: max(1, table.head)]
    titles = [" ".join(dict.fromkeys(row[place] for row in head)) for place in range(len(head[0]))]
    model = next((place for place, title in enumerate(titles) if title.casefold().split()[:1] == ["model"]), None)
    if model is None:
        return []
    free = next((place for place, title in enumerate(titles) if "free" in title.casefold().split()), None)
    claims: list[Evidence] = []
    if free is not None:
        order = _order(table, free)
        for row in table.rows if order else []:
            claims += _model(row[model], _triple(row[free], order), said)
    elif "free" in " ".join((*table.headings[-1:], *table.tabs)).casefold().split():
        fields = {place: name for place, title in enumerate(titles) if (name := amounts.column(title)) is not None}
        for row in table.body if fields else []:
            claims += _model(row[model], {name: row[place] for place, name in fields.items()}, said)
    return claims


def _order(table: tables.Table, place: int) -> list[str]:
    """Which limits the numbers of a cell are, as a row (or a head) like `RPM / TPM / RPD` tells; empty: none does."""
    for row in table.rows:
        names = [amounts.column(part.strip()) for part in row[place][:_LONGEST].split("/")]
        if len(names) > 1 and None not in names:
            return [name for name in names if name is not None]
    return []


def _triple(cell: str, order: list[str]) -> dict[str, str]:
    """The parts of `10 / 250,000 / 500` by the names of their limits; a lone dash stands for all of them."""
    parts = [part.strip() for part in cell.split("/")]
    if len(parts) == 1 and _DASH.fullmatch(parts[0]):
        return dict.fromkeys(order, parts[0])
    return dict(zip(order, parts, strict=True)) if len(parts) == len(order) else {}


def _model(name: str, cells: dict[str, str], said: _Said) -> list[Evidence]:
    """The claims of one row. A dash for one limit says nothing of it; dashes alone say that the model is not free."""
    if not name.strip() or any(len(cell) > _LONGEST for cell in (name, *cells.values())):
        return []
    found = {limit: number for limit, cell in cells.items() if (number := amounts.number(cell)) is not None}
    absent = bool(cells) and all(_DASH.fullmatch(cell) for cell in cells.values())
    claims: list[Evidence] = []
    for model in _models(name) if found or absent else ():
        if any(found.values()):
            per: dict[str, Value] = {_field(limit, said): number for limit, number in found.items()}
            claims += [Evidence(PROVIDER, model, "free", "quota"), *limits(PROVIDER, model, per | said.reset)]
        else:
            claims.append(Evidence(PROVIDER, model, "free", "none", note="not on the free tier"))
        if _NOT_CHAT.search(name):
            claims.append(Evidence(PROVIDER, model, "chat", False))
    return claims


def _models(name: str) -> tuple[str, ...]:
    """What a name in the table stands for: itself, or ids that it does not resemble."""
    before = ""
    while name != before:
        before, name = name, _PUT_AWAY.sub("", name).strip()
    return _NAMES.get(" ".join(name.casefold().split()), (name,) if name else ())


def _field(name: str, said: _Said) -> str:
    return said.tokens if name == "tokens_per_minute" else name


_PROPERTIES = ("model code", "supported data types", "token limits", "capabilities", "versions", "deprecation date")
_MAX_CELL = 4000
_CODE = re.compile(r"(?<![\w./-])(?:models/)?([a-z][a-z0-9]*(?:[.-][a-z0-9]+)+)(?![\w-])")
_SHUT = re.compile(r"\bshut[ -]?down: ?([a-z][a-z0-9.-]*[a-z0-9])", re.IGNORECASE)
_DATA = re.compile(r"\binputs?\b:? (?P<inputs>.{1,300}?) \boutputs?\b:? (?P<outputs>.{1,300})", re.IGNORECASE)
_TOKENS = {
    "context": re.compile(r"\binput token limit ([\d,]+)", re.IGNORECASE),
    "max_output": re.compile(r"\boutput token limit ([\d,]+)", re.IGNORECASE),
}
_FLAGS = {
    "tools": re.compile(r"\bfunction calling (not supported|supported)", re.IGNORECASE),
    "json": re.compile(r"\b(?:structured outputs?|json mode|json schema) (not supported|supported)", re.IGNORECASE),
    "reasoning": re.compile(r"\bthinking (not supported|supported)", re.IGNORECASE),
}


def parse_models(raw: bytes) -> list[Evidence]:
    """Token limits and capabilities of each model that the page describes in a table of properties."""
    claims = [claim for table in tables.tables(raw) for claim in _details(table)]
    if not claims:
        raise NotUnderstood("no table with a row Model code and one of Token limits or Supported data types")
    return claims


def _details(table: tables.Table) -> list[Evidence]:
    told: dict[str, str] = {}
    for row in table.rows:
        for name in _PROPERTIES if len(row) > 1 else ():
            if name in row[0].casefold():
                told.setdefault(name, " ".join(row[1][:_MAX_CELL].split()))
    codes = _CODE.findall(told.get("model code", ""))
    if not codes or not {"token limits", "supported data types"} & told.keys():
        return []
    shut = set(_SHUT.findall(told.get("versions", "")))
    claims = [Evidence(PROVIDER, code, "exists", False) for code in sorted(shut - set(codes))]
    for code in codes:
        if code in shut:
            claims.append(Evidence(PROVIDER, code, "exists", False))
            continue
        claims += _described(code, told)
        flags = _flags(told.get("capabilities", ""))
        # Two models in one table are one with and one without thinking.
        claims += capabilities(PROVIDER, code, flags | ({"reasoning": None} if len(codes) > 1 else {}))
    return claims


def _described(code: str, told: dict[str, str]) -> list[Evidence]:
    """What holds for each model of a table: that it exists, how much it takes, what goes in and comes out."""
    claims = [Evidence(PROVIDER, code, "exists", True, until_s=end_of(told.get("deprecation date", "")))]
    for name, words in _TOKENS.items():
        match = words.search(told.get("token limits", ""))
        number = amounts.number(match[1]) if match else None
        if number:
            claims.append(Evidence(PROVIDER, code, name, number))
    match = _DATA.search(told.get("supported data types", ""))
    if match is None:
        return claims
    into, out = match["inputs"].casefold(), set(re.findall(r"[a-z]+", match["outputs"].casefold())) - {"and", "or"}
    if out and out != {"text"}:
        claims.append(Evidence(PROVIDER, code, "chat", False, note=f"answers with {match['outputs'][:60]}"))
    # One that takes films but, by its list, no pictures is left open.
    sees = True if "image" in into else None if "video" in into else False
    return claims + capabilities(
        PROVIDER,
        code,
        {
            "vision": sees,
            "audio": "audio" in into,
            "speech": True if out == {"audio"} and "tts" in code else None,
            "embeddings": True if {"embedding", "embeddings"} & out else None,
        },
    )


def _flags(text: str) -> dict[str, bool | None]:
    """Experimental is neither there nor missing; JSON by any of its names is JSON."""
    found = {tag: [answer.casefold() == "supported" for answer in words.findall(text)] for tag, words in _FLAGS.items()}
    return {tag: any(answers) if answers else None for tag, answers in found.items()}


LIMITS = Source(
    name="google_rate_limits",
    url="https://ai.google.dev/gemini-api/docs/rate-limits.md.txt",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse_limits,
    provider=PROVIDER,
)
MODELS = Source(
    name="google_models",
    url="https://ai.google.dev/gemini-api/docs/models.md.txt",
    rank=Rank.DOCS,
    confidence=0.85,
    parse=parse_models,
    provider=PROVIDER,
)
SOURCES = (LIMITS, MODELS)
