"""JSON schemas as Claude's structured outputs compile them.

https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations. Every object is
closed, nothing is recursive, and lengths, ranges and patterns are not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmproxy.core.types import JsonObject

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)  # fmt: skip
_SCALARS = frozenset({"string", "integer", "number", "boolean", "null"})
# Keywords that constrain nothing, and those that are read where they stand.
_SILENT = frozenset({"$schema", "$id", "$comment", "default", "examples", "deprecated", "readOnly", "writeOnly"})
_READ = frozenset(
    {
        "type", "title", "description", "enum", "const", "anyOf", "oneOf", "properties", "required", "items", "format",
        "additionalProperties", "minItems", "$defs", "definitions",
    }
)  # fmt: skip
# What cannot be left out without changing what an answer looks like.
_STRUCTURAL = frozenset({"allOf", "not", "if", "prefixItems", "patternProperties", "$dynamicRef", "dependentSchemas"})


class _Unfit(Exception):
    """The schema asks for something that structured outputs cannot make."""


def narrowed(schema: Any) -> JsonObject | None:
    """`schema` in the subset: what the subset cannot say stands in the descriptions. None where it asks for open
    objects, recursion or the like, so that following the subset could not give the answer that is wanted."""
    try:
        if not isinstance(schema, dict):
            return None
        definitions = {
            key: {name: _node(node) for name, node in schema[key].items()}
            for key in ("$defs", "definitions")
            if isinstance(schema.get(key), dict)
        }
        _refuse_recursion(
            {f"#/{key}/{name}": node for key, nodes in definitions.items() for name, node in nodes.items()}
        )
        return {**_node(schema), **definitions}
    except _Unfit:
        return None


def _node(schema: Any) -> JsonObject:
    if not isinstance(schema, dict) or not schema or _STRUCTURAL & schema.keys():
        raise _Unfit
    if "$ref" in schema:
        if not str(schema["$ref"]).startswith(("#/$defs/", "#/definitions/")):
            raise _Unfit
        return {"$ref": schema["$ref"]}
    if isinstance(schema.get("type"), list):
        return {"anyOf": [_node({**schema, "type": kind}) for kind in schema["type"]]}
    made = {key: schema[key] for key in ("title", "description") if isinstance(schema.get(key), str)}
    told = {key: value for key, value in schema.items() if key not in _READ and key not in _SILENT}
    made |= _shape(schema, told)
    if told:
        words = ", ".join(f"{key}: {value}" for key, value in told.items())
        made["description"] = f"{made['description']} ({words})" if "description" in made else words
    return made


def _shape(schema: JsonObject, told: JsonObject) -> JsonObject:
    """What a node constrains; constraints that cannot be kept are added to `told`."""
    kind = schema.get("type")
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        if "properties" in schema or "items" in schema or not isinstance(variants, list):
            raise _Unfit
        return {"anyOf": [_node(variant) for variant in variants]}
    if "const" in schema or isinstance(schema.get("enum"), list):
        values = schema["enum"] if "enum" in schema else [schema["const"]]
        if any(isinstance(value, dict | list) for value in values):
            raise _Unfit
        return {"enum": values, **({"type": kind} if kind in _SCALARS else {})}
    if kind == "object":
        return _object(schema)
    if kind == "array":
        return _array(schema, told)
    if kind not in _SCALARS:
        raise _Unfit
    made: JsonObject = {"type": kind}
    if "format" in schema:
        (made if kind == "string" and schema["format"] in _FORMATS else told)["format"] = schema["format"]
    return made


def _object(schema: JsonObject) -> JsonObject:
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties", True)
    required = schema.get("required") or []
    if isinstance(more, dict) or (more and not properties) or not set(required) <= set(properties):
        raise _Unfit
    return {
        "type": "object",
        "properties": {name: _node(node) for name, node in properties.items()},
        "required": required,
        "additionalProperties": False,
    }


def _array(schema: JsonObject, told: JsonObject) -> JsonObject:
    made: JsonObject = {"type": "array", "items": _node(schema.get("items"))}
    if "minItems" in schema:
        (made if schema["minItems"] in (0, 1) else told)["minItems"] = schema["minItems"]
    return made


def _refuse_recursion(nodes: dict[str, JsonObject]) -> None:
    """Raise `_Unfit` where a definition comes back to itself, or a reference leads nowhere."""
    edges = {name: set(_references(node)) for name, node in nodes.items()}
    done: set[str] = set()

    def visit(name: str, above: frozenset[str]) -> None:
        if name in above or name not in edges:
            raise _Unfit
        if name not in done:
            for other in edges[name]:
                visit(other, above | {name})
            done.add(name)

    for name in edges:
        visit(name, frozenset())


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
