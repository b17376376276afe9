"""Which requests force a structure, and which schemas can be forced."""

from __future__ import annotations

from typing import Any

import pytest

from backends.base import Rejected
from backends.structure.forced import MARKERS, Structure, read_structure
from llmproxy.core.types import JsonObject

ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"function": {"name": "f"}}]}}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def tool(name: str = "f", **function: Any) -> JsonObject:
    return {"type": "function", "function": {"name": name, **function}}


def answer(schema: Any) -> JsonObject:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"tools": [tool(parameters=POINT)]},
        {"tools": [tool(parameters=POINT)], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [tool(parameters=POINT, strict=False)]},
        {"tools": [tool(parameters=POINT, strict=True)], "tool_choice": "none"},
        {"tools": [tool(parameters={"not": {}})]},
    ],
)
def test_nothing_is_forced(body: JsonObject) -> None:
    """Text is free, and so are tools that the model may leave alone, whatever their schema is."""
    assert read_structure(body, "hermes") is None


@pytest.mark.parametrize("family", MARKERS)
@pytest.mark.parametrize(
    ("body", "param", "free"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format", False),
        (answer(POINT), "response_format", False),
        (answer(None), "response_format", False),
        ({"tools": [tool(parameters=POINT)], "tool_choice": "required"}, "tools", False),
        ({"tools": [tool()], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tools", False),
        ({"tools": [tool(parameters=POINT, strict=True)]}, "tools", True),
        ({"tools": [tool(), tool("g")], "tool_choice": ALLOWED}, "tools", True),
        ({"tools": [tool(parameters=POINT)], **answer(POINT)}, "tools", False),
        ({"tools": [tool(strict=True)], "tool_choice": "none", **answer(POINT)}, "response_format", False),
    ],
)
def test_a_structure_is_forced(body: JsonObject, param: str, free: bool, family: str) -> None:
    """JSON, forced calls and strict tools have a grammar; text before a call is free only where nothing forces one."""
    structure = read_structure(body, family)
    assert structure is not None
    assert structure.param == param
    assert structure.free is (free and bool(MARKERS[family]))


def test_alike_requests_have_one_structure() -> None:
    """Structures are values: equal for equal requests, and different when anything that matters is."""
    tools = {"tools": [tool(parameters=POINT)], "tool_choice": "required"}
    structures = [
        read_structure(tools, "hermes"),
        read_structure({**tools, "parallel_tool_calls": False}, "hermes"),
        read_structure(tools, "mistral"),
        read_structure({**tools, "tools": [tool("g", parameters=POINT)]}, "hermes"),
        read_structure(answer(POINT), "hermes"),
        read_structure(answer({**POINT, "required": []}), "hermes"),
    ]
    assert structures[0] == read_structure({**tools, "temperature": 0.5}, "hermes")
    assert len(set(structures)) == len({each.digest for each in structures if each}) == len(structures)


def test_a_tag_that_is_a_special_token_is_that_token() -> None:
    """The tags are told from plain text when the tokenizer is known."""
    structure = read_structure({"tools": [tool(strict=True)]}, "hermes")
    assert isinstance(structure, Structure)
    assert 'm0: "<tool_call>"' in structure.lark({})
    assert "m0: <[7]>" in structure.lark({"<tool_call>": 7})
    assert "[lazy]" not in structure.lark({"<tool_call>": 7})


# -- schemas that are refused -----------------------------------------------------------------------------------------

INVALID: list[Any] = [
    5,
    [],
    "object",
    {"type": "objekt"},
    {"properties": {"a": {"$ref": "#/$defs/missing"}}},
    {"$ref": "https://example.com/schema.json"},
    {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    {"type": "string", "pattern": "("},
    {"type": "object", "required": "x"},
    {"type": "string", "minLength": 3, "maxLength": 2},
    {"enum": [1, 2], "type": "string"},
]
UNSUPPORTED: list[Any] = [
    {"not": {"type": "string"}},
    {"if": {"required": ["a"]}, "then": {"required": ["b"]}},
    {"type": "array", "items": {"type": "integer"}, "uniqueItems": True},
    {"type": "array", "contains": {"type": "integer"}},
    {"type": "object", "dependentRequired": {"a": ["b"]}},
    {"type": "object", "propertyNames": {"pattern": "^a"}},
    {"type": "object", "unevaluatedProperties": False},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]},
    {"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"b": {}}}]},
    {"type": "string", "pattern": "^(?=a)"},
    {"type": "string", "pattern": "^[a-z&&[^b]]$"},
    {"type": "string", "pattern": "^a++b$"},
    {"type": "string", "pattern": r"\bword\b"},
    {"type": "object", "patternProperties": {r"^a\s": {}}},
    {"type": "object", "properties": {"xa": {}}, "patternProperties": {"^x": {}}},
    {"type": "string", "format": "regex"},
    {"type": "number", "multipleOf": 0.1},
    {"type": "integer", "minimum": 1e20},
    {"type": "array", "minItems": 5000},
    {"const": "\u0001"},
    {"enum": [2**60]},
    {"type": "object", "properties": {"a": {"$id": "https://example.com/a", "type": "string"}}},
    {"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}},
]


@pytest.mark.parametrize("schema", INVALID)
def test_what_is_no_schema_is_invalid(schema: Any) -> None:
    """A schema that no value fits, or that is none, is the client's mistake."""
    with pytest.raises(Rejected) as caught:
        read_structure(answer(schema), "hermes")
    assert (caught.value.kind, caught.value.status) == ("invalid", 400)
    assert (caught.value.code, caught.value.param) == ("invalid_json_schema", "response_format")


@pytest.mark.parametrize("schema", UNSUPPORTED)
def test_what_cannot_be_enforced_is_refused(schema: JsonObject) -> None:
    """No keyword is left out in silence: what the grammar cannot keep is refused before anything is generated."""
    with pytest.raises(Rejected) as caught:
        read_structure(answer(schema), "hermes")
    assert (caught.value.kind, caught.value.status) == ("unsupported", 400)
    assert (caught.value.code, caught.value.param) == ("unsupported_json_schema", "response_format")


@pytest.mark.parametrize("deep", [{"a": {"not": {}}}, {"a": {"items": {"anyOf": [{"$ref": "#/$defs/d"}]}}}])
def test_the_parameters_of_a_tool_are_looked_through(deep: JsonObject) -> None:
    """The message names the tool, however deep the keyword lies."""
    schema = {"type": "object", "properties": deep, "$defs": {"d": {"propertyNames": {}}}}
    with pytest.raises(Rejected, match=r"the parameters of f: .* cannot be enforced") as caught:
        read_structure({"tools": [tool(parameters=schema)], "tool_choice": "required"}, "hermes")
    assert caught.value.param == "tools"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "g"}}])
def test_only_offered_tools_can_be_forced(choice: Any) -> None:
    """A choice of a tool that is not there is refused."""
    tools = [] if choice == "required" else [tool("f")]
    with pytest.raises(Rejected) as caught:
        read_structure({"tools": tools, "tool_choice": choice}, "hermes")
    assert caught.value.param == "tool_choice"


def test_the_arguments_of_a_tool_are_an_object() -> None:
    """Parameters that can be no object are refused."""
    with pytest.raises(Rejected, match="no value fits"):
        read_structure({"tools": [tool(parameters={"type": "string"})], "tool_choice": "required"}, "hermes")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "x-guidance": {"lenient": True}, "not": {}},
        {"type": "string", "x-guidance": {"lenient": True}, "pattern": "(?=a)"},
    ],
)
def test_a_client_cannot_loosen_the_compiler(schema: JsonObject) -> None:
    """Options of the compiler in a schema count for nothing."""
    with pytest.raises(Rejected):
        read_structure(answer(schema), "hermes")


@pytest.mark.parametrize(
    "schema",
    [
        {"oneOf": [{"type": "integer"}, {"type": "string"}]},
        {"oneOf": [{"const": 1}, {"const": True}, {"const": "1"}]},
        {"anyOf": [{"$ref": "#/definitions/p"}, {"type": "null"}], "definitions": {"p": POINT}},
        {"allOf": [{"$ref": "#/definitions/p"}], "description": "as pydantic writes it", "definitions": {"p": POINT}},
        {"type": "array", "items": [{"type": "string"}], "$schema": "http://json-schema.org/draft-07/schema#"},
        {
            "type": "number",
            "minimum": 1,
            "exclusiveMinimum": True,
            "$schema": "http://json-schema.org/draft-04/schema#",
        },
        {"type": "object", "properties": {"not": POINT, "$ref": {"type": "string"}, "if": True}},
        {"type": "string", "format": "password", "nullable": True, "x-order": 1, "default": {"not": 1}},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": False},
    ],
)
def test_common_schemas_are_taken(schema: JsonObject) -> None:
    """What libraries write is enforced, in any draft; names that look like keywords are names."""
    assert read_structure(answer(schema), "hermes") is not None


@pytest.mark.parametrize("family", MARKERS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"$ref": "#/$defs/any", "$defs": {"any": {}}},
        {"properties": {"a": {"allOf": [{"$ref": "#/$defs/any"}, {"type": "string"}]}}, "$defs": {"any": True}},
    ],
)
def test_a_reference_to_anything_narrows_nothing(parameters: JsonObject, family: str) -> None:
    """A definition that allows anything may stand beside other schemas."""
    body = {"tools": [tool(parameters=parameters)], "tool_choice": "required"}
    assert read_structure(body, family) is not None
