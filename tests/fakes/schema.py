"""Write the smallest JSON value that satisfies, or breaks, a JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

MAX_OPTIONAL_DEPTH = 4
FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def satisfy(schema: Schema) -> Any:
    """A value that is valid for the schema (types, enums, bounds, required, `$ref`, the first of `anyOf`/`oneOf`)."""
    return _value(schema, schema, 0)


def violate(schema: Schema) -> Any:
    """A value that is not valid: an object whose members have the wrong types, or a list where any object would do."""
    resolved = _resolve(schema, schema)
    properties = resolved.get("properties", {})
    if not properties and _type_of(resolved) == "object":
        return ["unexpected"]
    wrong = {name: _wrong_type(_resolve(part, schema)) for name, part in properties.items()}
    return wrong | {"unexpected": True}


def _value(schema: Schema, root: Schema, depth: int) -> Any:
    schema = _resolve(schema, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    return _MAKERS.get(_type_of(schema), _null)(schema, root, depth)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Follow `$ref`, take the first alternative, and merge `allOf`."""
    if "$ref" in schema:
        return _resolve(_pointed_at(schema["$ref"], root), root)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _resolve(schema[key][0], root)
    if "allOf" in schema:
        return _merged([_resolve(part, root) for part in schema["allOf"]], schema)
    return schema


def _pointed_at(reference: str, root: Schema) -> Schema:
    target: Any = root
    for part in reference.removeprefix("#").split("/"):
        target = target[part] if part else target
    found: Schema = target
    return found


def _merged(parts: list[Schema], own: Schema) -> Schema:
    merged: dict[str, Any] = {"properties": {}, "required": []}
    for part in [*parts, {key: value for key, value in own.items() if key != "allOf"}]:
        properties = {**merged["properties"], **part.get("properties", {})}
        required = [*merged["required"], *part.get("required", [])]
        merged |= {**part, "properties": properties, "required": required}
    return merged


def _type_of(schema: Schema) -> str:
    named = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else "string")
    return str(named[0] if isinstance(named, list) else named)


def _object(schema: Schema, root: Schema, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    names = properties if depth < MAX_OPTIONAL_DEPTH else schema.get("required", [])
    members = {name: _value(properties.get(name, {}), root, depth + 1) for name in names}
    return members | {name: "value" for name in schema.get("required", []) if name not in members}


def _array(schema: Schema, root: Schema, depth: int) -> list[Any]:
    fewest = 1 if depth < MAX_OPTIONAL_DEPTH else 0
    count = min(max(schema.get("minItems", fewest), fewest), schema.get("maxItems", 1_000))
    return [_value(schema.get("items", {}), root, depth + 1) for _ in range(count)]


def _string(schema: Schema, root: Schema, depth: int) -> str:
    text = FORMATS.get(schema.get("format", ""), "value")
    return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", 1_000)]


def _integer(schema: Schema, root: Schema, depth: int) -> int:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2) - 1)
    step = int(schema.get("multipleOf", 1))
    return -(-int(min(max(low, 1), high)) // step) * step


def _number(schema: Schema, root: Schema, depth: int) -> float:
    if "multipleOf" in schema:
        return _integer(schema, root, depth)
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0.0))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1))
    return float(low + high) / 2


def _boolean(schema: Schema, root: Schema, depth: int) -> bool:
    return True


def _null(schema: Schema, root: Schema, depth: int) -> None:
    return None


def _wrong_type(schema: Schema) -> Any:
    return 0.5 if _type_of(schema) == "object" else {"wrong": "type"}


_MAKERS: dict[str, Callable[[Schema, Schema, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "null": _null,
}
