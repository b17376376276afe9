"""JSON schemas of clients are checked without reaching into the network."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.schema import defect, violation

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        (CITY, {"city": "Rome"}, True),
        (CITY, {"city": 1}, False),
        (CITY, {}, False),
        ({}, 7, True),
        (None, [], True),
        ({"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}}, [1, "2"], False),
    ],
)
def test_violation(schema: Any, value: Any, fits: bool) -> None:
    """A value fits, or the first violation is told in words; no schema fits everything."""
    assert (violation(schema, value) is None) is fits


@pytest.mark.parametrize(
    ("schema", "sound"),
    [
        (CITY, True),
        ({"type": "strin"}, False),
        ({"properties": []}, False),
        ({"$ref": "http://127.0.0.1:1/schema.json"}, False),
        ({"$ref": "file:///etc/passwd"}, False),
    ],
)
def test_defect(schema: Any, sound: bool) -> None:
    """A broken schema, or one that refers to something outside, is told in words."""
    assert (defect(schema) is None) is sound
