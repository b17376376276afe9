"""Prints the table of providers for docs/providers.md from catalog.json; run as `python -m providers.table`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).with_name("catalog.json")
BEGIN, END = "<!-- providers:begin -->", "<!-- providers:end -->"
FREE = {
    "quota": "a renewing quota",
    "budget": "a renewing budget",
    "trial": "a one-time trial",
    "price": "free of charge",
    "promo": "a promotion",
    "none": "nothing",
    "retired": "ended",
    "unknown": "not known",
}


def key_cell(entry: Mapping[str, Any]) -> str:
    """The variables that hold the key, the usual one first, and whether one is needed."""
    names = " or ".join(f"`{name}`" for name in entry.get("api_key_env", ()))
    if entry.get("key_required", True):
        return names
    return f"none ({names} if you have one)" if names else "none"


def table(catalog: Mapping[str, Mapping[str, Any]]) -> str:
    """The Markdown table, one row a provider, ordered by id."""
    lines = ["| id | name | key variable | free use | as of |", "|---|---|---|---|---|"]
    for provider, entry in sorted(catalog.items()):
        free = entry["free"]
        use = f"**{FREE[free['kind']]}**: {free['note']}"
        cells = (f"`{provider}`", entry["name"], key_cell(entry), use, free["as_of"])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def replaced(page: str, rows: str) -> str:
    """`page` with `rows` between the markers; raises `ValueError` where a marker is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{rows}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it into a page, or tell by the exit code whether a page has drifted."""
    parser = argparse.ArgumentParser(prog="python -m providers.table", description=__doc__)
    parser.add_argument("--write", metavar="FILE", type=Path, help="replace the table in FILE")
    parser.add_argument("--check", metavar="FILE", type=Path, help="exit 1 if the table in FILE is out of date")
    options = parser.parse_args(argv)
    rows = table(json.loads(CATALOG.read_text(encoding="utf-8")))
    target: Path | None = options.write or options.check
    if target is None:
        print(rows)
        return 0
    page = target.read_text(encoding="utf-8")
    new = replaced(page, rows)
    if options.write is not None:
        target.write_text(new, encoding="utf-8")
    elif new != page:
        print(f"{target} is out of date: run python -m providers.table --write {target}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
