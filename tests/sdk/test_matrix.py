"""The matrix of the SDKs: every cell that the page says is shown has a test, and the page is not behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.sdk import matrix

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "dialects.md"


def covered() -> Iterator[tuple[str, str]]:
    """The (client, scenario) of each test with `@cells(client, scenario)` in this folder."""
    for file in sorted(HERE.glob("test_*.py")):
        module = ast.parse(file.read_text("utf-8"))
        names = dict(_constants(module))
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield from (pair for decorator in node.decorator_list if (pair := _pair(decorator, names)))


def _constants(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """What stands in the module as `NAME = value` or `NAME, NAME = value, value`."""
    for node in module.body:
        if not isinstance(node, ast.Assign):
            continue
        match node.targets[0], node.value:
            case ast.Name(id=name), ast.Constant() as value:
                yield name, value
            case ast.Tuple(elts=names), ast.Tuple(elts=values):
                yield from (
                    (one.id, value) for one, value in zip(names, values, strict=True) if isinstance(one, ast.Name)
                )


def _pair(decorator: ast.expr, names: Mapping[str, ast.expr]) -> tuple[str, str] | None:
    match decorator:
        case ast.Call(func=ast.Name(id="cells"), args=[client, scenario]):
            given = [names[one.id] if isinstance(one, ast.Name) else one for one in (client, scenario)]
            return ast.literal_eval(given[0]), ast.literal_eval(given[1])
    return None


def test_every_cell_that_is_shown_has_a_test() -> None:
    """Each client has one test for each scenario, which runs over each source and mode of its shown cells."""
    assert sorted(covered()) == sorted((client, scenario) for client in matrix.CLIENTS for scenario in matrix.SCENARIOS)


def test_every_cell_that_is_not_shown_has_a_reason() -> None:
    """No cell is left out without a word."""
    assert all(cell.shown or cell.reason for cell in matrix.EXPECTED.values())


def test_the_page_has_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """`docs/dialects.md` is what the matrix says."""
    assert matrix.main(["--check", str(PAGE)]) == 0, capsys.readouterr().err
