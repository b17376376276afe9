"""The catalogue's file: byte for byte the same when nothing changed, and only what differs touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmproxy.core.config import FreeLimit
from llmproxy.routing.findings import Finding, Findings, Found
from scrapers.catalog_file import text_of, updated, write

CATALOG = Path(__file__).parents[2] / "providers" / "catalog.json"


def entry(**fields: Any) -> dict[str, Any]:
    return {"p": {"name": "P", "base_url": "https://p.test", **fields}}


def limit(as_of: str = "2026-11-20", **amounts: Any) -> Found:
    return Found(FreeLimit(**amounts), as_of, "https://p.test/limits")


def test_the_real_file_has_its_own_layout(tmp_path: Path) -> None:
    """Written again without news, the catalogue is byte for byte what it was."""
    raw = CATALOG.read_bytes()
    assert text_of(json.loads(raw)).encode() == raw
    copy = tmp_path / "catalog.json"
    copy.write_bytes(raw)
    assert write(copy, Findings()) == []
    assert copy.read_bytes() == raw


def test_writing_twice_changes_once(tmp_path: Path) -> None:
    """The same findings a second time change nothing, and keep the file's mode."""
    copy = tmp_path / "catalog.json"
    copy.write_bytes(CATALOG.read_bytes())
    copy.chmod(0o644)
    findings = Findings(
        1,
        models={"groq/new-model": Finding(free="quota", have=frozenset({"tools"}), context_tokens=8192)},
        limits={"groq/new-model": limit(requests_per_day=77)},
    )
    assert write(copy, findings) == ["groq"]
    once = copy.read_bytes()
    assert write(copy, findings) == []
    assert copy.read_bytes() == once
    assert copy.stat().st_mode & 0o777 == 0o644
    groq = json.loads(once)["groq"]
    assert groq["capabilities"]["new-model"] == ["tools"]
    assert groq["context"]["new-model"] == 8192
    assert groq["free_limits"][0]["models"] == ["new-model"]
    assert groq["free_limits"][0]["requests_per_day"] == 77


def test_a_new_number_splits_a_rule() -> None:
    """A model whose limit changed leaves its rule and gets one of its own, with what nobody found again kept."""
    before = entry(
        free_models=["*"],
        free_limits=[{"models": ["a", "b"], "requests_per_day": 1000, "reset": "bucket", "as_of": "2026-06"}],
    )
    after = updated(before, Findings(1, limits={"p/a": limit(requests_per_day=500)}))
    assert after["p"]["free_limits"] == [
        {
            "models": ["a"],
            "requests_per_day": 500,
            "reset": "bucket",
            "as_of": "2026-11",
            "source": "https://p.test/limits",
        },
        {"models": ["b"], "requests_per_day": 1000, "reset": "bucket", "as_of": "2026-06"},
    ]


def test_what_is_newer_in_the_file_stays() -> None:
    """A limit that somebody wrote down later than the evidence is left alone."""
    before = entry(free_limits=[{"models": ["a"], "requests_per_day": 1000, "as_of": "2026-12"}])
    assert updated(before, Findings(1, limits={"p/a": limit(requests_per_day=500)})) == before


def test_what_is_gone_leaves_and_globs_stay() -> None:
    """A retired model leaves every list in which it is named itself; a glob that would match it stays."""
    before = entry(
        free_models=["a", "a*", "b"],
        free_limits=[{"models": ["a"], "requests_per_day": 1}, {"models": ["*"], "requests_per_day": 2}],
        capabilities={"a": ["tools"], "a*": ["json"]},
        context={"a": 5, "b": 6},
    )
    after = updated(before, Findings(1, models={"p/a": Finding(gone=True)}))["p"]
    assert after["free_models"] == ["a*", "b"]
    assert after["free_limits"] == [{"models": ["*"], "requests_per_day": 2}]
    assert (after["capabilities"], after["context"]) == ({"a*": ["json"]}, {"b": 6})


def test_what_a_glob_says_already_is_not_repeated() -> None:
    """A model that a glob describes rightly gets no line of its own."""
    before = entry(free_models=["*:free"], capabilities={"*": ["tools"]}, context={"*": 4096})
    finding = Finding(free="quota", have=frozenset({"tools"}), context_tokens=4096)
    assert updated(before, Findings(1, models={"p/x:free": finding})) == before


def test_equal_limits_share_a_rule() -> None:
    """Models with the same new limits stand in one rule, in the order of their names."""
    found = {f"p/{name}": limit(requests_per_day=5) for name in ("c", "a", "b")}
    (rule,) = updated(entry(), Findings(1, limits=found))["p"]["free_limits"]
    assert rule["models"] == ["a", "b", "c"]
