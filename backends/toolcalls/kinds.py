"""Which JSON types the arguments of a function may have, as far as its schema says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any
from urllib.parse import unquote

from backends.structure.schema import implied_types


@dataclass(frozen=True, slots=True)
class Kinds:
    """The types but for strings (`number` for integers too), and the texts that may stand there: None for any text."""

    types: frozenset[str]
    texts: frozenset[str] | None = frozenset()

    def __or__(self, other: Kinds) -> Kinds:
        texts = None if self.texts is None or other.texts is None else self.texts | other.texts
        return Kinds(self.types | other.types, texts)

    def __and__(self, other: Kinds) -> Kinds:
        texts = self.texts if other.texts is None else other.texts if self.texts is None else self.texts & other.texts
        return Kinds(self.types & other.types, texts)


class Parameters:
    """The parameters of one function; whatever is no schema in there says nothing."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._by_reference: dict[str, Kinds | None] = {}
        self._under_reference: dict[tuple[str, str], Any] = {}

    def kinds(self, name: str) -> Kinds | None:
        """What the argument `name` may be; None where that is not said."""
        return self.of(self._under(self._root, name))

    def of(self, schema: Any) -> Kinds | None:
        """What a schema inside of the parameters allows; None for anything, and where that is not said."""
        if not isinstance(schema, dict):
            return None
        said = [self.of(part) for part in _list(schema, "allOf")]
        if "$ref" in schema:
            said.append(self._referred(schema["$ref"]))
        if "type" in schema:
            said.append(_named([schema["type"], *_list(schema, "type")]))
        if "enum" in schema:
            said.append(_constants(_list(schema, "enum")))
        if "const" in schema:
            said.append(_constants([schema["const"]]))
        said += [_any([self.of(part) for part in _list(schema, word)]) for word in ("anyOf", "oneOf") if word in schema]
        known = [kinds for kinds in said if kinds is not None]
        if known:
            return reduce(Kinds.__and__, known)
        implied = implied_types(schema)
        return _named(implied) if implied else None

    def _referred(self, reference: Any) -> Kinds | None:
        if not isinstance(reference, str):
            return None
        if reference not in self._by_reference:
            self._by_reference[reference] = None  # while it is read
            self._by_reference[reference] = self.of(self._target(reference))
        return self._by_reference[reference]

    def _target(self, reference: str) -> Any:
        """What a JSON pointer in a fragment points at; None for nothing."""
        if reference != "#" and not reference.startswith("#/"):
            return None
        found = self._root
        for part in unquote(reference[1:]).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict):
                found = found.get(key)
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                return None
        return found

    def _under(self, schema: Any, name: str) -> Any:
        """A schema for the property `name` of an object; None where none is said."""
        if not isinstance(schema, dict):
            return None
        parts = [self._under(part, name) for part in _list(schema, "allOf")]
        if isinstance(reference := schema.get("$ref"), str):
            if (reference, name) not in self._under_reference:
                self._under_reference[reference, name] = None
                self._under_reference[reference, name] = self._under(self._target(reference), name)
            parts.append(self._under_reference[reference, name])
        properties = schema.get("properties")
        if isinstance(properties, dict) and name in properties:
            parts.append(properties[name])
        elif "additionalProperties" in schema:
            parts.append(schema["additionalProperties"])
        for word in ("anyOf", "oneOf"):
            choices = [self._under(part, name) for part in _list(schema, word)]
            if choices := [choice for choice in choices if choice is not None]:
                parts.append({"anyOf": choices})
        parts = [part for part in parts if part is not None]
        return {"allOf": parts} if parts else None


def kind_of(value: Any) -> str:
    """The JSON type of a value."""
    if isinstance(value, bool):
        return "boolean"
    names: tuple[tuple[Any, str], ...] = ((str, "string"), (int | float, "number"), (list, "array"), (dict, "object"))
    return next((name for type_, name in names if isinstance(value, type_)), "null")


def _list(schema: dict[str, Any], word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


def _any(choices: list[Kinds | None]) -> Kinds | None:
    known = [kinds for kinds in choices if kinds is not None]
    return reduce(Kinds.__or__, known) if known and len(known) == len(choices) else None


def _named(names: Iterable[Any]) -> Kinds:
    kinds = {"number" if name == "integer" else name for name in names if isinstance(name, str)}
    return Kinds(frozenset(kinds - {"string"}), None if "string" in kinds else frozenset())


def _constants(values: list[Any]) -> Kinds:
    texts = frozenset(value for value in values if isinstance(value, str))
    return Kinds(frozenset(kind_of(value) for value in values if not isinstance(value, str)), texts)
