"""Strings, numbers and constants of a JSON schema, in the form that a grammar enforces to the letter. Pure."""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from backends.structure.formats import PATTERNS, REFUSED
from backends.structure.merge import NEVER, Node, SchemaRefused
from llmproxy.core.schema import violation
from llmproxy.core.types import JsonObject

LARGEST = 2**53 - 1
_DIGITS = 15
_LARGEST_STEP = 100_000  # its automaton has as many states
# Characters that JSON can only write as \u escapes, which the grammar does not have (half a surrogate is one of them).
_ESCAPED = frozenset(map(chr, range(32))) - frozenset("\b\t\n\f\r") | {"\x7f"}
# The parts of a pattern that regular expression dialects disagree on: classes, and a plus after a quantifier.
_PIECES = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])*\]|[*+?}]\+", re.DOTALL)
_SET_OPERATION = re.compile(r"&&|--|~~|\[")
# Some count these two as white space, and some do not.
_NO_ODD_SPACE = "^[^\\u0085\\ufeff]*$"


def string(schema: JsonObject) -> Node:
    """Strings: `minLength`, `maxLength`, `pattern`, `format`."""
    node: Node = {"type": "string"}
    for word in ("minLength", "maxLength"):
        if word in schema:
            node[word] = int(schema[word])
    patterns = [schema["pattern"]] if "pattern" in schema else []
    if any(map(check_pattern, patterns)):
        patterns.append(_NO_ODD_SPACE)
    form = schema.get("format")
    if form in REFUSED:
        raise SchemaRefused(f"the format {form} cannot be enforced")
    if form in PATTERNS:
        patterns.append(f"^(?:{PATTERNS[form]})$")
    if patterns:
        node["patterns"] = patterns
    return node if node.get("minLength", 0) <= node.get("maxLength", math.inf) else NEVER


def _bounds(schema: JsonObject, side: str) -> list[tuple[float, bool]]:
    """The bounds of a number on one side, each with whether it is exclusive (a flag beside the bound in draft 4)."""
    plain, exclusive = schema.get(side), schema.get(f"exclusive{side.capitalize()}")
    bounds = [] if plain is None else [(plain, exclusive is True)]
    if exclusive is not None and not isinstance(exclusive, bool):
        bounds.append((exclusive, True))
    return bounds


def integer(schema: JsonObject) -> Node:
    """Integers: bounds and `multipleOf`."""
    least = [
        math.floor(bound) + 1 if exclusive else math.ceil(bound) for bound, exclusive in _bounds(schema, "minimum")
    ]
    most = [math.ceil(bound) - 1 if exclusive else math.floor(bound) for bound, exclusive in _bounds(schema, "maximum")]
    return _numeric("integer", least, most, schema)


def number(schema: JsonObject) -> Node:
    """Numbers: bounds and `multipleOf`."""
    least = [_inside(bound, exclusive, ROUND_CEILING) for bound, exclusive in _bounds(schema, "minimum")]
    most = [_inside(bound, exclusive, ROUND_FLOOR) for bound, exclusive in _bounds(schema, "maximum")]
    return _numeric("number", least, most, schema)


def _inside(bound: float, exclusive: bool, rounding: str) -> float:
    """The nearest inclusive bound that every parser reads alike: 15 digits, and at most as many after the point.

    A decimal just below an exclusive bound would be read as the bound itself.
    """
    exact = Decimal(repr(bound))
    step = Decimal(1).scaleb(max(exact.adjusted() - _DIGITS + 1, -_DIGITS))
    inside = exact.quantize(step, rounding)
    if exclusive and inside == exact:
        inside += step if rounding == ROUND_CEILING else -step
    return float(inside)


def _numeric(kind: str, least: list[Any], most: list[Any], schema: JsonObject) -> Node:
    low, high = max(least, default=-LARGEST), min(most, default=LARGEST)
    if low > LARGEST or high < -LARGEST:
        raise SchemaRefused("numbers beyond ±(2^53 - 1) cannot be enforced")
    node: Node = {"type": kind, "minimum": max(low, -LARGEST), "maximum": min(high, LARGEST)}
    step = schema.get("multipleOf")
    if step is not None:
        if step != int(step) or step > _LARGEST_STEP:
            raise SchemaRefused(f"a multipleOf other than an integer up to {_LARGEST_STEP} cannot be enforced")
        node["multipleOf"] = int(step)
    return node if low <= high else NEVER


def pattern_fits(pattern: str, text: str) -> bool:
    """Whether a pattern of JSON Schema is found in a text."""
    return violation({"pattern": pattern}, text) is None


def check_pattern(pattern: str) -> bool:
    """Whether it uses classes of white space, which reach differently far. Raises `SchemaRefused` for a pattern that
    means one thing to the grammar's compiler and another to validators."""
    spaces = False
    for piece in _PIECES.findall(pattern):
        if piece[0] == "\\":
            spaces |= piece[1] in "sS"
            continue
        inner = piece[1:-1]
        spaces |= "\\s" in inner or "\\S" in inner
        if piece[0] != "[" or inner in ("", "^") or _SET_OPERATION.search(re.sub(r"\\.", "", inner)):
            raise SchemaRefused(f"{piece} in a pattern cannot be enforced: its meaning is not the same everywhere")
    return spaces


def writable(value: Any) -> Any:
    """A constant that the grammar can write."""
    if isinstance(value, str) and _ESCAPED & set(value):
        raise SchemaRefused("a constant with control characters cannot be enforced")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > LARGEST:
            raise SchemaRefused("numbers beyond ±(2^53 - 1) cannot be enforced")
        if isinstance(value, float) and _inside(value, False, ROUND_FLOOR) != value:
            raise SchemaRefused(f"a constant of more than {_DIGITS} digits cannot be enforced")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        writable(part)
    return value
