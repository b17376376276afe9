"""A generated table inside a page of the documentation: print it, write it, or tell whether the page has drifted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def replaced(page: str, rows: str, mark: str) -> str:
    """`page` with `rows` between the comments `mark:begin` and `mark:end`; raises `ValueError` without them."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no {begin} … {end}")
    return f"{before}{begin}\n{rows}\n{end}{after}"


def run(module: str, mark: str, rows: str, argv: Sequence[str] | None, text: str | None) -> int:
    """The command line of a table's module (`text` describes it); returns the exit code, 1 when a page has drifted."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    parser.add_argument("--write", metavar="FILE", type=Path, help="replace the table in FILE")
    parser.add_argument("--check", metavar="FILE", type=Path, help="exit 1 if the table in FILE is out of date")
    chosen = parser.parse_args(argv)
    target: Path | None = chosen.write or chosen.check
    if target is None:
        print(rows)
        return 0
    page = target.read_text(encoding="utf-8")
    new = replaced(page, rows, mark)
    if chosen.write is not None:
        target.write_text(new, encoding="utf-8")
    elif new != page:
        print(f"{target} is out of date: run python -m {module} --write {target}", file=sys.stderr)
        return 1
    return 0
