"""The generated table of options: each one is told, with its type, and a page that has drifted is noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_origin

import pytest

from llmproxy.core.config import Config, Section
from llmproxy.core.config_table import MEANINGS, main, options, table, type_cell
from llmproxy.core.page_table import replaced

BEGIN, END = "<!-- options:begin -->", "<!-- options:end -->"

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def fields_of(section: type[Section]) -> int:
    """How many options a section has, counted in its classes and not in its schema."""
    count = 0
    for field in section.model_fields.values():
        parts = () if get_origin(field.annotation) is tuple else getattr(field.annotation, "__args__", ())
        inner = [kind for kind in (field.annotation, *parts) if is_section(kind)]
        count += fields_of(inner[0]) if inner else 1
    return count


def is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def small(**fields: Any) -> dict[str, Any]:
    return {"properties": {name: {"type": "string", "default": "", **more} for name, more in fields.items()}}


def test_every_option_is_told() -> None:
    """There is one row for each field of each section."""
    rows = table(Config.model_json_schema(), MEANINGS).splitlines()[2:]
    assert len(rows) == len({row.split(" | ")[0] for row in rows}) == fields_of(Config)
    assert all(len(row.split(" | ")) == 4 for row in rows)


def test_the_page_is_up_to_date() -> None:
    """docs/configuration.md holds the table of the present classes."""
    assert main(["--check", str(PAGE)]) == 0


def test_a_drifted_page_is_noticed_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--check` fails on another table, `--write` replaces it and leaves the rest of the page alone."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", "utf-8")
    assert main(["--check", str(page)]) == 1
    assert "--write" in capsys.readouterr().err
    assert main(["--write", str(page)]) == main(["--check", str(page)]) == 0
    assert page.read_text("utf-8") == f"before\n{BEGIN}\n{table(Config.model_json_schema(), MEANINGS)}\n{END}\nafter\n"


def test_without_a_file_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The table goes to standard output."""
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("| option | type | default | meaning |")


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}"])
def test_a_page_needs_both_markers(page: str) -> None:
    """Without them nothing is replaced."""
    with pytest.raises(ValueError, match="has no"):
        replaced(page, "rows", "options")


def test_an_option_needs_a_meaning() -> None:
    """Its own description comes first, then the line in `MEANINGS`; with neither the table is not made."""
    schema = small(host={"description": "from the field"}, port={})
    rows = table(schema, {"host": "from the table", "port": "from the table"})
    assert '| `host` | string | `""` | from the field |' in rows
    assert '| `port` | string | `""` | from the table |' in rows
    with pytest.raises(ValueError, match="port"):
        table(schema, {})


def test_a_meaning_needs_an_option() -> None:
    """What is told about an option that is gone does not stay behind unseen."""
    with pytest.raises(ValueError, match="gone"):
        table(small(host={}), {"host": "told", "gone": "told"})


def test_paths_lead_into_sections() -> None:
    """A section is named by its key, and one of the user's own names by `*`."""
    schema = {
        "$defs": {"Inner": small(url={})},
        "properties": {
            "one": {"$ref": "#/$defs/Inner"},
            "many": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Inner"}},
        },
    }
    assert [path for path, _ in options(schema)] == ["one.url", "many.*.url"]


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, "integer, ≥ 1, ≤ 9"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, > 0"),
        ({"enum": ["a", "b"], "type": "string"}, "`a` or `b`"),
        ({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, "list of string or null"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "object of integer"),
    ],
)
def test_types_in_words(field: dict[str, Any], words: str) -> None:
    """A type is told as a person would, with its bounds."""
    assert type_cell(field) == words
