"""JSON schemas in the form that a grammar enforces to the letter, or refused. Pure.

What is written here accepts a part of what the schema accepts, and nothing else: whatever is generated fits the
original. It has types, `enum`, `anyOf` and references only; `allOf`, `oneOf`, and keywords beside `$ref` are resolved
before, because grammar compilers differ from validators there. Where it is narrower on purpose:

- an object that lists its properties has no others, unless it says so; one without a type has the one it implies
- numbers lie within ±(2^53 - 1) (RFC 8259, section 6) and have no exponent, so that every parser reads them
- `format` stands for `backends.structure.formats`, whose patterns are narrower than the formats
- arrays have at most 1,024 items
- white space in patterns is what every dialect takes for it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any
from urllib.parse import unquote

from backends.structure.formats import PATTERNS
from backends.structure.merge import ANY, NEVER, Merger, Node, any_of
from backends.structure.merge import SchemaRefused as SchemaRefused
from backends.structure.scalars import LARGEST, check_pattern, integer, number, pattern_fits, string, writable
from llmproxy.core.schema import defect
from llmproxy.core.types import JsonObject

_MOST_ITEMS = 1024
_DEEPEST = 64
_TYPES = ("object", "array", "string", "number", "boolean", "null")
_KEYWORDS = {
    "object": {
        "properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties",
    },
    "array": {"items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}  # fmt: skip
_UNENFORCED = frozenset(
    {
        "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "contains", "minContains",
        "maxContains", "propertyNames", "unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef",
    }
)  # fmt: skip
_ANY_NAME = "any"
_ANY_VALUE: Node = {
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        {"type": "number", "minimum": -LARGEST, "maximum": LARGEST},
        {"type": "string"},
        {"type": "array", "items": ANY},
        {"type": "object", "additionalProperties": ANY},
    ]
}


def implied_types(schema: JsonObject) -> list[str]:
    """The types that a schema is about by its keywords."""
    said = {word for word in schema if word != "format" or str(schema[word]) in PATTERNS}
    return [kind for kind, keywords in _KEYWORDS.items() if said & keywords]


class Definitions:
    """Schemas that share one set of definitions, so that they can stand in one document."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node | None] = {}

    def read(self, schema: Any, *, arguments: bool = False) -> Node:
        """`schema` as a node; `arguments` of a tool are an object whatever else the schema allows.

        Raises `SchemaRefused`.
        """
        if not isinstance(schema, dict):
            raise SchemaRefused("a JSON schema must be an object", invalid=True)
        if problem := defect(schema):
            raise SchemaRefused(problem, invalid=True)
        reader = _Reader(schema, self.nodes)
        node = reader.read(schema)
        if arguments:
            node = reader.merger.both({"type": "object"}, node)
        reader.finish()
        if node is NEVER:
            raise SchemaRefused("no value fits it", invalid=True)
        return node

    def document(self, root: Node) -> JsonObject:
        """A JSON schema (draft 2020-12) with `root` and all definitions."""
        definitions = {name: _written(node) for name, node in self.nodes.items() if node is not None}
        return {**_written(root), "$defs": {_ANY_NAME: _ANY_VALUE, **definitions}}


class _Reader:
    """One schema on its way to nodes; `nodes` are the definitions by name, None while one is being read."""

    def __init__(self, root: JsonObject, nodes: dict[str, Node | None]) -> None:
        self.merger = Merger(nodes)
        self._root, self._nodes = root, nodes
        self._names: dict[str, str] = {}
        self._depth = 0

    def finish(self) -> None:
        """Refuse references that go in a circle."""
        for reference, name in self._names.items():
            if self.merger.resolved({"$ref": f"#/$defs/{name}"}) is None:
                raise SchemaRefused(f"{reference} refers to itself and to nothing else", invalid=True)

    def read(self, schema: Any) -> Node:
        if schema is True or schema is False:
            return ANY if schema else NEVER
        self._refuse_unenforced(schema)
        self._depth += 1
        if self._depth > _DEEPEST:
            raise SchemaRefused(f"it is nested more than {_DEEPEST} deep")
        parts: list[Node] = [self.read(part) for part in schema.get("allOf", ())]
        if "$ref" in schema:
            parts.insert(0, self._reference(schema["$ref"]))
        parts += self._typed(schema)
        if "enum" in schema or "const" in schema:
            parts.append({"enum": [writable(value) for value in schema.get("enum", [schema.get("const")])]})
        if "enum" in schema and "const" in schema:
            parts.append({"enum": [writable(schema["const"])]})
        if "anyOf" in schema:
            parts.append(any_of([self.read(part) for part in schema["anyOf"]]))
        if "oneOf" in schema:
            parts.append(self._one_of([self.read(part) for part in schema["oneOf"]]))
        self._depth -= 1
        return reduce(self.merger.both, parts, ANY)

    def _refuse_unenforced(self, schema: JsonObject) -> None:
        found = sorted(_UNENFORCED & schema.keys())
        if schema.get("uniqueItems") is True and schema.get("maxItems", 2) > 1:
            found.append("uniqueItems")
        if "$id" in schema and schema is not self._root:
            found.append("$id")
        if found:
            raise SchemaRefused(f"{', '.join(found)} cannot be enforced")

    def _one_of(self, nodes: list[Node]) -> Node:
        for place, node in enumerate(nodes):
            if not all(self.merger.disjoint(node, other) for other in nodes[place + 1 :]):
                raise SchemaRefused("oneOf cannot be enforced where a value might match two of its schemas")
        return any_of(nodes)

    # -- references -----------------------------------------------------------------------------------------------

    def _reference(self, reference: str) -> Node:
        """The node of a `$ref`, read at its first use."""
        name = self._names.get(reference)
        if name is None:
            self._names[reference] = name = f"d{len(self._nodes)}"
            self._nodes[name] = None
            self._nodes[name] = self.read(self._target(reference))
        return {"$ref": f"#/$defs/{name}"}

    def _target(self, reference: str) -> Any:
        """What a JSON pointer (RFC 6901) in a fragment points at."""
        if reference != "#" and not reference.startswith("#/"):
            raise SchemaRefused(f"the reference {reference} cannot be followed: only JSON pointers can")
        target: Any = self._root
        for part in unquote(reference[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(key)] if isinstance(target, list) else target[key]
            except (KeyError, IndexError, ValueError, TypeError) as error:
                raise SchemaRefused(f"{reference} refers to nothing", invalid=True) from error
        if not isinstance(target, dict | bool):
            raise SchemaRefused(f"{reference} refers to no schema", invalid=True)
        return target

    # -- types ----------------------------------------------------------------------------------------------------

    def _typed(self, schema: JsonObject) -> list[Node]:
        """What the schema says by `type` and by the keywords that belong to one: no node, or one."""
        given = schema.get("type")
        implied = implied_types(schema)
        if given is None and not implied:
            return []
        kinds = _TYPES if given is None else [given] if isinstance(given, str) else given
        makers: Mapping[str, Callable[[JsonObject], Node]] = {
            "object": self._object,
            "array": self._array,
            "string": string,
            "number": number,
            "integer": integer,
        }
        node = any_of([makers[kind](schema) if kind in makers else {"type": kind} for kind in kinds])
        return [{**node, "implied": implied} if given is None else node]

    def _object(self, schema: JsonObject) -> Node:
        node: Node = {"type": "object"}
        required = list(dict.fromkeys(schema.get("required", ())))
        if "properties" in schema:
            node["properties"] = {name: self.read(part) for name, part in schema["properties"].items()}
        if required:
            node["required"] = required
        if "additionalProperties" in schema:
            node["additionalProperties"] = self.read(schema["additionalProperties"])
        if "patternProperties" in schema:
            patterns = schema["patternProperties"]
            if any(check_pattern(pattern) for pattern in patterns):
                raise SchemaRefused("patternProperties with white space classes cannot be enforced")
            if any(pattern_fits(pattern, name) for pattern in patterns for name in node.get("properties", ())):
                raise SchemaRefused("patternProperties cannot be enforced for a name that is in properties")
            node["patternProperties"] = {pattern: self.read(part) for pattern, part in patterns.items()}
        for word in ("minProperties", "maxProperties"):
            if word in schema:
                node[word] = int(schema[word])
        return node

    def _array(self, schema: JsonObject) -> Node:
        node: Node = {"type": "array"}
        items, legacy = schema.get("items", True), isinstance(schema.get("items"), list)
        prefix = items if legacy else schema.get("prefixItems", ())
        if "additionalItems" in schema and not legacy:
            raise SchemaRefused("additionalItems cannot be enforced without a list of items")
        if prefix:
            node["prefixItems"] = [self.read(part) for part in prefix]
        node["items"] = self.read(schema.get("additionalItems", True) if legacy else items)
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        if least > _MOST_ITEMS:
            raise SchemaRefused(f"more than {_MOST_ITEMS} items cannot be enforced")
        if least:
            node["minItems"] = least
        if most is not None:
            node["maxItems"] = min(int(most), _MOST_ITEMS)
        return node if most is None or most >= least else NEVER


# -- nodes → JSON schema ----------------------------------------------------------------------------------------------


def _written(node: Node) -> Any:
    """A node as JSON schema; objects that list their properties are closed unless they say otherwise."""
    if node is NEVER:
        return False
    if "implied" in node:
        return _written(any_of([part for part in node["anyOf"] if part["type"] in node["implied"]]))
    out = {key: value for key, value in node.items() if key != "patterns"}
    for word in ("anyOf", "prefixItems"):
        if word in out:
            out[word] = [_written(part) for part in out[word]]
    if "items" in out:
        out["items"] = _written(out["items"])
    if "patterns" in node:
        first, *others = node["patterns"]
        out["pattern"] = first
        if others:
            out["allOf"] = [{"type": "string", "pattern": pattern} for pattern in others]
    return _written_object(out) if node.get("type") == "object" else out


def _written_object(node: Node) -> Node:
    listed = "properties" in node or "patternProperties" in node
    properties = {name: _written(part) for name, part in node.get("properties", {}).items()}
    patterns = {pattern: _written(part) for pattern, part in node.get("patternProperties", {}).items()}
    others = node.get("additionalProperties", NEVER if listed else ANY)
    required = node.get("required", [])
    if listed and "additionalProperties" not in node:
        for name in required:
            if not any(pattern_fits(pattern, name) for pattern in patterns):
                properties.setdefault(name, ANY)
    least = node.get("minProperties", 0)
    if least > max(1, len(required)) and (others is not NEVER or patterns):
        raise SchemaRefused("minProperties cannot be enforced, because a name might be written twice")
    return {**node, "properties": properties, "patternProperties": patterns, "additionalProperties": _written(others)}
