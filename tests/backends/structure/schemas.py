"""Random JSON schemas and tool sets, the same for the same seed; every value of them is short, or can be."""

from __future__ import annotations

from random import Random
from typing import Any

from llmproxy.core.types import JsonObject

DRAFTS = ("http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema")
NAMES = ("name", "city", "größe", 'a "quoted" one', "x/y~z", "count", "tags", "$ref", "kind", "x")
PATTERNS = (
    "^[a-z]{2,5}$",
    "^a|b$",
    r"^\d{3}-\d{4}$",
    "[0-9]+",
    r"^(ab)*c?$",
    r"^\w+\s\w+$",
    "^[äöü]{1,3}$",
    r"^\\/\"$",
)
FORMATS = (
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference",
    "json-pointer",
)  # fmt: skip
CONSTANTS: tuple[Any, ...] = (
    "red", "blue", "", 'say "hi"\n', "naïve 🐦", 0, -1, 12.5, 1e-7, True, False, None, [1, "a"], {"k": [None], "j": {}},
)  # fmt: skip


class Schemas:
    """Schemas drawn with one generator; `definitions` of the one being drawn are kept until it is whole."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._definitions: dict[str, JsonObject] = {}
        self._begun: set[str] = set()

    def root(self) -> JsonObject:
        """A schema of an object with its definitions."""
        self._definitions = {}
        schema = self._object(0)
        if self._definitions:
            schema["$defs"] = self._definitions
        if self._random.random() < 0.5:
            schema["$schema"] = self._random.choice(DRAFTS)
        return schema

    def tools(self) -> list[JsonObject]:
        """One to five tools."""
        names = self._random.sample(["get_weather", "get", "search-web", "f", "send_mail2"], self._random.randint(1, 5))
        return [{"type": "function", "function": self._function(name)} for name in names]

    def _function(self, name: str) -> JsonObject:
        if self._random.random() < 0.1:
            return {"name": name}
        if self._random.random() < 0.1:
            return {"name": name, "parameters": {"type": "object", "properties": {}}}
        return {"name": name, "parameters": self.root()}

    def _any(self, depth: int) -> JsonObject:
        leaves = [self._integer, self._number, self._string, self._text, self._constant, self._simple]
        nested = [self._object, self._array, self._union, self._nullable, self._reference, self._choice, self._both]
        kinds = leaves if depth > 2 else leaves + nested
        return self._random.choice(kinds)(depth + 1)

    def _object(self, depth: int) -> JsonObject:
        names = self._random.sample(NAMES, self._random.randint(0 if depth else 1, 4))
        schema: JsonObject = {"type": "object", "properties": {name: self._any(depth) for name in names}}
        if required := [name for name in names if self._random.random() < 0.6]:
            schema["required"] = required
        others = self._random.random()
        if others < 0.6:
            schema["additionalProperties"] = False
        elif others < 0.75:
            schema["additionalProperties"] = self._integer(depth)
        return schema

    def _array(self, depth: int) -> JsonObject:
        least = self._random.randint(0, 2)
        schema: JsonObject = {"type": "array", "items": self._any(depth), "minItems": least}
        if self._random.random() < 0.8:
            schema["maxItems"] = least + self._random.randint(0, 3)
        return schema

    def _integer(self, depth: int) -> JsonObject:
        low = self._random.randint(-1000, 1000)
        schema: JsonObject = {"type": "integer", "minimum": low, "maximum": low + self._random.randint(10, 5000)}
        if self._random.random() < 0.3:
            schema["multipleOf"] = self._random.choice([2, 3, 10])
        if self._random.random() < 0.3:
            schema["exclusiveMinimum"] = schema.pop("minimum") - 0.5
        return schema if self._random.random() < 0.9 else {"type": "integer"}

    def _number(self, depth: int) -> JsonObject:
        low = round(self._random.uniform(-100, 100), self._random.randint(0, 4))
        edge = self._random.choice(["minimum", "exclusiveMinimum"])
        schema: JsonObject = {"type": "number", edge: low}
        if self._random.random() < 0.7:
            schema[self._random.choice(["maximum", "exclusiveMaximum"])] = low + self._random.choice([0.001, 1, 30])
        return schema if self._random.random() < 0.9 else {"type": "number"}

    def _string(self, depth: int) -> JsonObject:
        least = self._random.randint(0, 3)
        schema: JsonObject = {"type": "string", "minLength": least, "maxLength": least + self._random.randint(0, 8)}
        return schema if self._random.random() < 0.9 else {"type": "string"}

    def _text(self, depth: int) -> JsonObject:
        if self._random.random() < 0.5:
            return {"type": "string", "pattern": self._random.choice(PATTERNS)}
        return {"type": "string", "format": self._random.choice(FORMATS)}

    def _constant(self, depth: int) -> JsonObject:
        if self._random.random() < 0.4:
            return {"const": self._random.choice(CONSTANTS)}
        return {"enum": self._random.sample(CONSTANTS, self._random.randint(1, 4))}

    def _simple(self, depth: int) -> JsonObject:
        return self._random.choice([{"type": "boolean"}, {"type": "null"}, {"title": "any", "type": "boolean"}, {}])

    def _union(self, depth: int) -> JsonObject:
        return {"anyOf": [self._any(depth) for _ in range(self._random.randint(1, 3))], "description": "one of several"}

    def _nullable(self, depth: int) -> JsonObject:
        schema = self._random.choice([self._integer, self._string, self._array])(depth)
        return {**schema, "type": [schema["type"], "null"]}

    def _reference(self, depth: int) -> JsonObject:
        name = self._random.choice(["A", "B/b", "C d"])
        if name in self._begun:  # a definition that needs itself has no value that ends
            return self._integer(depth)
        if name not in self._definitions:
            self._begun.add(name)
            self._definitions[name] = self._tree(name) if self._random.random() < 0.2 else self._any(depth)
            self._begun.discard(name)
        return {"$ref": f"#/$defs/{name.replace('/', '~1').replace(' ', '%20')}"}

    def _tree(self, name: str) -> JsonObject:
        """A definition that refers to itself."""
        again = {"$ref": f"#/$defs/{name.replace('/', '~1').replace(' ', '%20')}"}
        value = {"type": "integer", "minimum": 0, "maximum": 9}
        children = {"type": "array", "items": again, "maxItems": 1}
        return {"type": "object", "properties": {"value": value, "children": children}, "required": ["value"]}

    def _choice(self, depth: int) -> JsonObject:
        """Objects that are told apart by a constant."""
        branches = []
        for kind in self._random.sample(["a", "b", "c"], 2):
            properties = {"kind": {"const": kind}, "value": self._integer(depth)}
            branches.append({"type": "object", "properties": properties, "required": ["kind"]})
        return {"oneOf": branches}

    def _both(self, depth: int) -> JsonObject:
        """An object whose properties are said in two places."""
        first = {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3}, "y": self._string(depth)}}
        second = {"properties": {"x": {"maximum": 30}, "z": self._simple(depth)}, "required": ["x"]}
        return {"allOf": [first, {**second, "type": "object"}]}
