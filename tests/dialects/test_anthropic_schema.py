"""JSON schemas become what structured outputs compile, and only where that is still the same question."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.schema import violation
from llmproxy.dialects.anthropic_schema import narrowed
from tests.core.properties import quick

CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (CLOSED, CLOSED),
        ({k: v for k, v in CLOSED.items() if k != "additionalProperties"}, CLOSED),
        ({**CLOSED, "additionalProperties": True, "$schema": "x", "title": "T"}, {**CLOSED, "title": "T"}),
        ({"type": "string", "minLength": 2}, {"type": "string", "description": "minLength: 2"}),
        (
            {"type": "integer", "description": "age", "minimum": 0, "maximum": 9},
            {"type": "integer", "description": "age (minimum: 0, maximum: 9)"},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "color"}, {"type": "string", "description": "format: color"}),
        ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ({"oneOf": [{"type": "string"}, CLOSED]}, {"anyOf": [{"type": "string"}, CLOSED]}),
        ({"enum": ["a", 1, None]}, {"enum": ["a", 1, None]}),
        ({"const": 3}, {"enum": [3]}),
        ({"type": "string", "enum": ["a"]}, {"enum": ["a"], "type": "string"}),
        (
            {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 3},
            {"type": "array", "items": {"type": "number"}, "minItems": 1, "description": "maxItems: 3"},
        ),
        (
            {"type": "array", "items": {"type": "number"}, "minItems": 2},
            {"type": "array", "items": {"type": "number"}, "description": "minItems: 2"},
        ),
        (
            {"$ref": "#/$defs/A", "$defs": {"A": CLOSED}},
            {"$ref": "#/$defs/A", "$defs": {"A": CLOSED}},
        ),
        (
            {"type": "object", "properties": {}, "additionalProperties": False},
            {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        ),
    ],
)
def test_what_the_subset_says(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    """Objects are closed, unions are anyOf, and constraints that cannot be kept are told in words."""
    assert narrowed(schema) == expected


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "object"}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"type": "object", "properties": {"a": {"type": "string"}}, "patternProperties": {"x": {}}},
        {"type": "array"},
        {"allOf": [CLOSED, CLOSED]},
        {"not": {"type": "string"}},
        {"enum": [{"a": 1}]},
        {"$ref": "#"},
        {"$ref": "https://x.test/schema"},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/B"}}}},
        {"properties": {"a": {"type": "string"}}},
    ],
)
def test_what_the_subset_cannot_ask_for(schema: Any) -> None:
    """Open objects, recursion, any value at all and foreign references are no schema of the subset."""
    assert narrowed(schema) is None


def test_the_original_is_not_touched() -> None:
    """A new schema is made; the judge still checks the whole one."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}, "required": ["a"]}
    before = str(schema)
    assert narrowed(schema) != schema
    assert str(schema) == before


leaves = st.sampled_from(
    [
        ({"type": "string"}, "x"),
        ({"type": "string", "maxLength": 3}, "abc"),
        ({"type": "integer", "minimum": 0}, 3),
        ({"type": ["boolean", "null"]}, None),
        ({"enum": ["a", "b"]}, "b"),
    ]
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda pair: ({"type": "array", "items": pair[0], "maxItems": 2}, [pair[1]])),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(
            lambda found: (
                {"type": "object", "properties": {key: pair[0] for key, pair in found.items()}, "required": [*found]},
                {key: pair[1] for key, pair in found.items()},
            )
        ),
    ),
    max_leaves=8,
)


@quick
@given(trees)
def test_a_right_answer_can_still_be_given(pair: tuple[dict[str, Any], Any]) -> None:
    """A value that fits a schema fits the subset of it, and narrowing twice changes nothing more but words."""
    schema, value = pair
    subset = narrowed(schema)
    assert subset is not None
    assert violation(schema, value) is None
    assert violation(subset, value) is None
    assert narrowed(subset) == subset
