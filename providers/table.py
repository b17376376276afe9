"""Prints the table of providers for docs/providers.md from catalog.json; run as `python -m providers.table`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmproxy.core.page_table import run

CATALOG = Path(__file__).with_name("catalog.json")
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


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, write it into a page, or tell by the exit code whether a page has drifted."""
    return run("providers.table", "providers", table(json.loads(CATALOG.read_text(encoding="utf-8"))), argv, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
