"""OpenRouter's list tells who is free, for how long, and what the models can do and cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import NotUnderstood, Rank
from scrapers.sources.openrouter import SOURCE, parse

RAW = (Path(__file__).parents[2] / "data/scrape/openrouter/models.json").read_bytes()
FREE = {
    "maker/thinker:free": "quota",
    "maker/thinker": "none",
    "maker/searcher": "none",
    "openrouter/free": "quota",
    "maker/talker": "none",
    "maker/content-safety:free": "quota",
}


def facts(raw: bytes, model: str) -> dict[str, Any]:
    return {claim.field: claim.value for claim in parse(raw) if claim.model == model}


def test_everything_of_one_model() -> None:
    """A model gets every claim that its entry makes; parameters and modalities that it does not list are lacks."""
    assert facts(RAW, "maker/thinker:free") == {
        "exists": True,
        "free": "quota",
        "chat": True,
        "context": 131072,
        "max_output": 8192,
        "price.prompt": 0.0,
        "price.completion": 0.0,
        "capability.tools": True,
        "capability.reasoning": True,
        "capability.json": False,
        "capability.vision": True,
        "capability.audio": False,
    }


def test_who_is_free() -> None:
    """The suffix and the free router are free, priced models are not; a price of zero, a dynamic one, and a suffix that
    contradicts its price say nothing."""
    assert {claim.model: claim.value for claim in parse(RAW) if claim.field == "free"} == FREE


def test_prices() -> None:
    """Prices come as text for one token, and go as exact numbers for a million; -1 is no price."""
    assert facts(RAW, "maker/thinker")["price.prompt"] == 0.44
    assert facts(RAW, "maker/thinker")["price.completion"] == 1.74
    assert not {"price.prompt", "price.completion", "free"} & set(facts(RAW, "openrouter/auto"))


def test_who_chats() -> None:
    """Music and moderation are no chat, whatever comes out of them; a model that hears and speaks is."""
    chats = {claim.model: claim.value for claim in parse(RAW) if claim.field == "chat"}
    assert [model for model, value in chats.items() if not value] == [
        "maker/composer-preview",
        "maker/content-safety:free",
    ]
    assert chats["maker/talker"] is True


def test_no_parameters_say_nothing() -> None:
    """An empty list of parameters is unknown, not a lack of everything."""
    assert {name for name in facts(RAW, "openrouter/auto") if name.startswith("capability.")} == {
        "capability.vision",
        "capability.audio",
    }


def test_ends() -> None:
    """A model holds until the end of its last day; a placeholder far away is no end."""
    ends = {(claim.model, claim.field): claim.until_s for claim in parse(RAW) if claim.until_s is not None}
    assert ends == {("maker/thinker:free", "exists"): 1771372800.0, ("maker/thinker:free", "free"): 1771372800.0}


def array(body: dict[str, Any]) -> Any:
    return body["data"]


def collection(body: dict[str, Any]) -> Any:
    return {"taken": "2026-06-01", "models": body["data"], "endpoints": [{"model": "maker/thinker", "status": 0}]}


@pytest.mark.parametrize("wrapped", [array, collection])
def test_wrappers(wrapped: Any) -> None:
    """The bare list, and a collection under another key, tell the same."""
    assert parse(json.dumps(wrapped(json.loads(RAW))).encode()) == parse(RAW)


@pytest.mark.parametrize(
    ("raw", "missing"),
    [
        (b"", "not JSON"),
        (RAW[: len(RAW) // 2], "not JSON"),
        (b"<!doctype html><title>Just a moment</title><script>x</script>", "not JSON"),
        (b'{"error": {"code": 500, "message": "Internal Server Error"}}', "no list of models"),
        (b'{"data": {}}', "no list of models"),
        (b'{"data": []}', "names no model"),
        (b'{"data": [{"slogan": "a"}, {"slogan": "b"}, {"id": "maker/thinker"}]}', "2 entries without an id"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_list(raw: bytes, missing: str) -> None:
    """A reply that is cut, a page for people, an error and a new form are refused, with the reason."""
    with pytest.raises(NotUnderstood, match=missing):
        parse(raw)


def test_source() -> None:
    """The list is OpenRouter's own, and whole: who is missing from it may have left."""
    assert (SOURCE.rank, SOURCE.provider, SOURCE.complete) == (Rank.API, "openrouter", True)
    assert {claim.source for claim in SOURCE.read(RAW, seen_at_s=1.0)} == {"openrouter"}
