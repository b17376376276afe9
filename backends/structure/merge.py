"""What two JSON schemas accept together, and whether they have a value in common. Pure.

A node is a schema that was read (`structure.schema`): `NEVER`, or an object with one of `$ref`, `enum`, `anyOf` and
`type` (a single one) and the keywords of that type. Strings have `patterns` in place of `pattern`; an object without
`additionalProperties` is open. A schema without a type is `anyOf` all of them, with those that it implies in `implied`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llmproxy.core.schema import violation

Node = Any
NEVER: Node = False
ANY: Node = {"$ref": "#/$defs/any"}
_BARE_ARRAY: Node = {"type": "array", "items": ANY}
_MOST_WORK = 5_000
_DEEPEST = 16
_TIGHTER = {
    "minLength": max,
    "maxLength": min,
    "minimum": max,
    "maximum": min,
    "minProperties": max,
    "maxProperties": min,
}


class SchemaRefused(ValueError):
    """A schema that cannot be enforced; `invalid` when it is not a usable JSON schema at all."""

    def __init__(self, message: str, *, invalid: bool = False) -> None:
        super().__init__(message)
        self.invalid = invalid


def any_of(nodes: list[Node]) -> Node:
    """A node for what any of `nodes` accepts."""
    if any(node == ANY for node in nodes):
        return ANY
    flat: list[Node] = []
    for node in nodes:
        for part in node["anyOf"] if node is not NEVER and "anyOf" in node and "implied" not in node else [node]:
            if part is not NEVER and part not in flat:
                flat.append(part)
    if not flat:
        return NEVER
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


class Merger:
    """Puts nodes together; `nodes` are the definitions by name, None while one is being read."""

    def __init__(self, nodes: Mapping[str, Node | None]) -> None:
        self._nodes = nodes
        self._work = 0

    def resolved(self, node: Node) -> Node | None:
        """The node behind references; None while that is being read, or where they go in a circle."""
        seen: set[str] = set()
        while node is not NEVER and node is not None and "$ref" in node and node != ANY:
            name = node["$ref"].rpartition("/")[2]
            if name in seen:
                return None
            seen.add(name)
            node = self._nodes[name]
        return node

    def both(self, one: Node, other: Node) -> Node:
        """A node for what both accept. Raises `SchemaRefused` where that is not supported."""
        self._work += 1
        if self._work > _MOST_WORK:
            raise SchemaRefused("it combines too many schemas")
        if one is NEVER or other is NEVER:
            return NEVER
        if one in (ANY, other):
            return other
        if other == ANY:
            return one
        one, other = self._content(one), self._content(other)
        if one is NEVER or other is NEVER:
            return NEVER
        if ANY in (one, other):
            return other if one == ANY else one
        if "anyOf" in one or "anyOf" in other:
            return self._unions(one, other)
        if "enum" in one or "enum" in other:
            return _common(one, other) if "enum" in one else _common(other, one)
        return self._typed(one, other)

    def _unions(self, one: Node, other: Node) -> Node:
        if "anyOf" not in one:
            return any_of([self.both(one, part) for part in other["anyOf"]])
        node = any_of([self.both(part, other) for part in one["anyOf"]])
        if "implied" in one and "implied" in other and node is not NEVER and "anyOf" in node:
            return {**node, "implied": [*one["implied"], *other["implied"]]}
        return node

    def _content(self, node: Node) -> Node:
        content = self.resolved(node)
        if content is None:
            raise SchemaRefused("a schema that refers to itself cannot be combined with others")
        return content

    def _typed(self, one: Node, other: Node) -> Node:
        kinds = {one["type"], other["type"]}
        if kinds == {"number", "integer"}:
            one, other = {**one, "type": "integer"}, {**other, "type": "integer"}
        elif len(kinds) > 1:
            return NEVER
        elif one == _BARE_ARRAY or other == _BARE_ARRAY:
            return other if one == _BARE_ARRAY else one
        merged = {**one, **other}
        for word in merged.keys() & one.keys() & other.keys() - {"type"}:
            if word in _TIGHTER:
                merged[word] = _TIGHTER[word](one[word], other[word])
            elif word == "patterns":
                merged[word] = one[word] + [pattern for pattern in other[word] if pattern not in one[word]]
            elif word not in ("properties", "required", "additionalProperties") and one[word] != other[word]:
                raise SchemaRefused(f"two {word} at once cannot be enforced")
        if merged["type"] == "object":
            return self._objects(one, other, merged)
        return NEVER if _empty(merged) else merged

    def _objects(self, one: Node, other: Node, merged: Node) -> Node:
        if "patternProperties" in merged and ("properties" in merged or "additionalProperties" in merged):
            raise SchemaRefused("patternProperties beside another schema of the object cannot be enforced")
        names = dict.fromkeys([*one.get("properties", ()), *other.get("properties", ())])
        if "properties" in merged:
            merged["properties"] = {name: self.both(_property(one, name), _property(other, name)) for name in names}
        if "required" in merged:
            merged["required"] = list(dict.fromkeys([*one.get("required", ()), *other.get("required", ())]))
        if "additionalProperties" in one and "additionalProperties" in other:
            merged["additionalProperties"] = self.both(one["additionalProperties"], other["additionalProperties"])
        return merged

    def disjoint(self, one: Node, other: Node, depth: int = 0) -> bool:
        """Whether it is certain that no value fits both."""
        one, other = self.resolved(one), self.resolved(other)
        if one is NEVER or other is NEVER:
            return True
        if one is None or other is None or ANY in (one, other) or depth > _DEEPEST:
            return False
        if "anyOf" in one or "anyOf" in other:
            parted, rest = (one, other) if "anyOf" in one else (other, one)
            return all(self.disjoint(part, rest, depth + 1) for part in parted["anyOf"])
        if "enum" in one or "enum" in other:
            listed, rest = (one, other) if "enum" in one else (other, one)
            if "enum" in rest:
                return not {_identity(value) for value in listed["enum"]} & {_identity(value) for value in rest["enum"]}
            return not any(violation({"type": rest["type"]}, value) is None for value in listed["enum"])
        kinds = {_kind(one), _kind(other)}
        if len(kinds) > 1:
            return True
        return kinds == {"object"} and any(
            name in one.get("properties", ())
            and name in other.get("properties", ())
            and self.disjoint(one["properties"][name], other["properties"][name], depth + 1)
            for name in (*one.get("required", ()), *other.get("required", ()))
        )


def _kind(node: Node) -> str:
    """Its type; integers are numbers."""
    return "number" if node["type"] == "integer" else str(node["type"])


def _property(node: Node, name: str) -> Node:
    """What an object accepts under a name."""
    return node.get("properties", {}).get(name, node.get("additionalProperties", ANY))


def _common(listed: Node, other: Node) -> Node:
    """The constants of `listed` that fit `other` too."""
    if "enum" in other:
        allowed = {_identity(value) for value in other["enum"]}
        values = [value for value in listed["enum"] if _identity(value) in allowed]
    else:
        values = [value for value in listed["enum"] if _fits(value, other)]
    return {"enum": values} if values else NEVER


def _fits(value: Any, node: Node) -> bool:
    if violation({"type": node["type"]}, value) is not None:
        return False
    if node["type"] in ("object", "array"):
        if any(key != "type" and part != ANY for key, part in node.items()):
            raise SchemaRefused(f"a constant {node['type']} beside other keywords cannot be enforced")
        return True
    scalar = {key: part for key, part in node.items() if key != "patterns"}
    patterns = [{"pattern": pattern} for pattern in node.get("patterns", ())]
    return violation({**scalar, "allOf": patterns} if patterns else scalar, value) is None


def _identity(value: Any) -> Any:
    """Equal for values that are equal in JSON Schema: numbers by value, and never like a boolean."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, list):
        return ("list", *map(_identity, value))
    if isinstance(value, dict):
        return ("dict", *sorted((name, _identity(part)) for name, part in value.items()))
    return orjson.dumps(value)


def _empty(node: Node) -> bool:
    pairs = (("minLength", "maxLength"), ("minimum", "maximum"))
    return any(low in node and high in node and node[low] > node[high] for low, high in pairs)
