"""Precision and recall of the scrapers over real pages: `make eval-scrapers DATA=…`.

What each page says was read off it by a person and stands in `benchmarks/scraped/*.json`; a parser's output is compared
with that after its names were resolved against the ids that the provider has (and some that it has not). A claim that
is not there or says something else is wrong; a fact that was not found is missed. Of a page that says nothing nothing
may come.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmproxy.core.page_table import page_with, rewrite
from providers import catalog as provider_catalog
from scrapers.base import Evidence, NotUnderstood, Source
from scrapers.ids import Known
from scrapers.pages import TooLarge
from scrapers.registry import SOURCES
from scrapers.sources.provider_lists import source_for
from scrapers.update import resolved

_EXPECTED = Path(__file__).parent / "scraped"
_PRECISION, _RECALL = 0.98, 0.95
_MARK = "scrapers"
_FACETS = {
    "exists": "model",
    "chat": "model",
    "free": "free",
    "limit": "limits",
    "capability": "capabilities",
    "context": "windows",
    "max_output": "windows",
    "price": "prices",
}
Fact = tuple[str, str, str, Any]


@dataclass
class Score:
    """Counts of one source: by facet, claims that are right, wrong, and facts that were missed."""

    files: int = 0
    right: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def precision(self, facet: str | None = None) -> float | None:
        """Right among what was claimed; None where nothing was."""
        right, wrong = _sum(self.right, facet), _sum(self.wrong, facet)
        return right / (right + wrong) if right + wrong else None

    def recall(self, facet: str | None = None) -> float | None:
        """Found among what the pages say; None where they say nothing."""
        right, missed = _sum(self.right, facet), _sum(self.missed, facet)
        return right / (right + missed) if right + missed else None


def score(source: Source, files: Iterable[Mapping[str, Any]], data: Path) -> Score:
    """Read each file of an expectation and compare."""
    total = Score()
    for entry in files:
        total.files += 1
        expected = {tuple(fact[:3]): fact[3] for fact in entry["facts"]}
        claimed = {key: value for key, value in _claims(source, entry, data).items() if _judged(key, entry)}
        for key, value in claimed.items():
            facet = _FACETS[key[2].partition(".")[0]]
            if key in expected and _same(expected[key], value):
                total.right[facet] += 1
            else:
                total.wrong[facet] += 1
                total.details.append(
                    f"{entry['file']}: claims {key} = {value!r}, is {expected.get(key, 'not there')!r}"
                )
        for key, value in expected.items():
            if key not in claimed or not _same(value, claimed[key]):
                total.missed[_FACETS[key[2].partition(".")[0]]] += 1
                total.details.append(f"{entry['file']}: misses {key} = {value!r}")
    return total


def _claims(source: Source, entry: Mapping[str, Any], data: Path) -> dict[tuple[str, str, str], Any]:
    raw = _body((data / "scrape" / entry["file"]).read_bytes(), entry.get("take"))
    try:
        evidence: list[Evidence] = source.read(raw, seen_at_s=0.0)
    except (NotUnderstood, TooLarge):
        return {}
    known = {provider: Known(ids) for provider, ids in entry.get("known", {}).items()}
    claims, _ = resolved(evidence, known, own=source.complete or not known)
    return {(one.provider, one.model, one.field): one.value for one in claims}


def _body(raw: bytes, take: Sequence[str | int] | None) -> bytes:
    """The bytes of a page; `take` is the path to it in a recorded exchange (YAML or JSON)."""
    if take is None:
        return raw
    found = yaml.safe_load(raw)
    for step in take:
        found = found[step]
    if isinstance(found, bytes):
        return gzip.decompress(found) if found[:2] == b"\x1f\x8b" else found
    return found.encode() if isinstance(found, str) else json.dumps(found).encode()


def source_named(name: str) -> Source:
    """A source by its name; those of providers' own lists are made for the provider in their name."""
    for source in SOURCES:
        if source.name == name:
            return source
    provider = name.removesuffix("_api")
    # Google's list is recorded in its own form.
    entry = provider_catalog.catalog().get(provider)
    id_field = "name" if provider == "google" else entry.models_id_field if entry else "id"
    return source_for(
        provider,
        "",
        id_field=id_field,
        keep_task=entry.models_keep_task if entry else None,
        free_suffix=entry.facts.free_suffix if entry else None,
    )


def _judged(key: tuple[str, str, str], entry: Mapping[str, Any]) -> bool:
    models, fields = entry.get("models"), entry.get("fields") or [""]
    return (models is None or key[1] in models) and any(key[2].startswith(prefix) for prefix in fields)


def _same(expected: Any, value: Any) -> bool:
    if isinstance(expected, bool) or isinstance(value, bool) or not isinstance(expected, int | float):
        return bool(expected == value and type(expected) is type(value))
    return isinstance(value, int | float) and abs(expected - value) <= 1e-6 * max(1.0, abs(expected))


def _sum(counts: Counter[str], facet: str | None) -> int:
    return counts.total() if facet is None else counts[facet]


def scores(data: Path) -> dict[str, Score]:
    """By name, the score of every source of which something is expected."""
    files: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for path in sorted(_EXPECTED.glob("*.json")):
        expected = json.loads(path.read_text("utf-8"))
        for one in expected if isinstance(expected, list) else [expected]:
            files[one["source"]] += one["files"]
    return {name: score(source_named(name), files[name], data) for name in sorted(files)}


def table(found: Mapping[str, Score]) -> str:
    """The scores in Markdown: over all, then by facet as precision / recall."""
    facets = list(dict.fromkeys(_FACETS.values()))
    head = ["source", "files", "claims", "precision", "recall", *facets]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, one in found.items():
        cells = [name, str(one.files), str(one.right.total() + one.wrong.total())]
        cells += [_share(one.precision()), _share(one.recall())]
        for facet in facets:
            precision, recall = one.precision(facet), one.recall(facet)
            both = precision is None and recall is None
            cells.append("" if both else f"{_share(precision)} / {_share(recall)}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    """Print the table and what was wrong; exit with 1 where a source is below what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds scrape/")
    parser.add_argument("--source", help="only this one")
    parser.add_argument("--write", type=page_with(_MARK), metavar="FILE", help="Markdown file with the two marks")
    options = parser.parse_args()
    found = scores(options.data)
    if options.source:
        found = {options.source: found[options.source]}
    text = table(found)
    print(text)
    poor = []
    for name, one in found.items():
        precision, recall = one.precision(), one.recall()
        if (precision is not None and precision < _PRECISION) or (recall is not None and recall < _RECALL):
            poor.append(name)
        for line in one.details[:20]:
            print(f"{name}: {line}")
    if options.write is not None:
        rewrite(options.write, text, _MARK)
    if poor:
        sys.exit(f"below {_PRECISION} precision or {_RECALL} recall: {', '.join(poor)}")


if __name__ == "__main__":
    main()
