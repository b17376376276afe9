"""Small sources of our own, and folders of what they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarl import URL

from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits
from scrapers.fetch import Fetched, FetchFailed
from scrapers.store import Reading
from scrapers.update import Get, Got, Scope, Target

DAY = 86_400.0
SCOPE = Scope(frozenset({"groq", "openrouter"}))


def models_list(provider: str, *ids: str, free: Sequence[str] = ()) -> bytes:
    """What a list of models of a provider looks like here."""
    return json.dumps({"provider": provider, "ids": ids, "free": list(free)}).encode()


def limits_page(provider: str, **amounts: Mapping[str, Any]) -> bytes:
    """What a page with limits looks like here: by model (`_` for `-`), limits."""
    return json.dumps({"provider": provider, "limits": {m.replace("_", "-"): v for m, v in amounts.items()}}).encode()


def _read_list(raw: bytes) -> list[Evidence]:
    page = _json(raw)
    found = [Evidence(page["provider"], one, "exists", True) for one in page["ids"]]
    return found + [Evidence(page["provider"], one, "free", "quota") for one in page["free"]]


def _read_limits(raw: bytes) -> list[Evidence]:
    page = _json(raw)
    found: list[Evidence] = []
    for model, amounts in page["limits"].items():
        found += [Evidence(page["provider"], model, "free", "quota"), *limits(page["provider"], model, dict(amounts))]
    return found


def _json(raw: bytes) -> dict[str, Any]:
    try:
        page: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        raise NotUnderstood("no JSON") from error
    return page


LIST = Source("list", "https://list.test/models", Rank.API, 0.95, _read_list, complete=True)
PAGE = Source("page", "https://page.test/limits", Rank.DOCS, 0.85, _read_limits)
TARGETS = [Target(LIST), Target(PAGE)]


@dataclass
class Web:
    """What the sources answer now, by name; None: unchanged, missing: it fails."""

    pages: dict[str, bytes | None]
    now: float = 1_000 * DAY

    def get(self) -> Get:
        async def get(target: Target, last: Reading | None) -> Got | None:
            name = target.source.name
            if name not in self.pages:
                raise FetchFailed("connection refused", url=URL(target.source.url))
            return Fetched(target.source.url, self.pages[name], "", "", self.now)

        return get

    def clock(self) -> float:
        return self.now
