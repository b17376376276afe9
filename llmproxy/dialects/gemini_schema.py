"""Schemas of the Gemini API (a subset of OpenAPI 3.0, https://ai.google.dev/api/caching#Schema) → JSON schema."""

from __future__ import annotations

from typing import Any

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.schema import defect
from llmproxy.core.types import JsonObject
from llmproxy.dialects.gemini_fields import Fields, snake

_COUNTS = ("maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties")
_NAMES = (*_COUNTS, "anyOf", "prefixItems", "propertyOrdering", "additionalProperties")
_CAMEL = {snake(name): name for name in _NAMES}
_MOST_LEVELS = 100


def checked(schema: Fields) -> JsonObject:
    """`schema` as a JSON schema; raises `InvalidRequest` when it is none."""
    found = json_schema(schema)
    if problem := defect(found):
        raise InvalidRequest(f"not a schema: {problem}", param=schema.path)
    return found


def json_schema(schema: Fields, level: int = 0) -> JsonObject:
    """The same schema in the words of JSON schema; a keyword that Gemini does not define stays as it is."""
    if level > _MOST_LEVELS:
        raise InvalidRequest(f"a schema of more than {_MOST_LEVELS} levels", param=schema.path)
    given: JsonObject = {_CAMEL.get(key) or key: value for key, value in schema.value.items() if value is not None}
    nullable, order = given.pop("nullable", False), given.pop("propertyOrdering", None)
    found = {key: _keyword(schema, key, value, level) for key, value in given.items()}
    if found.get("type") == "type_unspecified":
        del found["type"]
    if found.get("format") == "enum":  # says only that `enum` is there
        del found["format"]
    if "example" in found:
        found["examples"] = [found.pop("example")]
    if isinstance(order, list) and isinstance(found.get("properties"), dict):
        found["properties"] = _ordered(found["properties"], order)
    return _nullable(found) if nullable is True else found


def _keyword(schema: Fields, key: str, value: Any, level: int) -> Any:
    if key == "type":
        return [str(one).lower() for one in value] if isinstance(value, list) else str(value).lower()
    if key in _COUNTS:
        return schema.integer(key)
    if key in ("anyOf", "prefixItems"):
        return [json_schema(one, level + 1) for one in schema.objects(key)]
    if key in ("items", "additionalProperties") and isinstance(value, dict):
        return json_schema(Fields(value, schema.at(key)), level + 1)
    if key == "properties":
        properties = Fields(value, schema.at(key))
        return {
            name: json_schema(Fields(one, f"{properties.path}.{name}"), level + 1)
            for name, one in properties.value.items()
        }
    return value


def _ordered(properties: JsonObject, order: list[Any]) -> JsonObject:
    """The order of an object's members is the only order that JSON schema knows."""
    first = {name: properties[name] for name in order if isinstance(name, str) and name in properties}
    return {**first, **properties}


def _nullable(schema: JsonObject) -> JsonObject:
    if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
        schema["enum"] = [*schema["enum"], None]
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    elif "anyOf" in schema:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    return schema
