"""Functions as Qwen3-Coder calls them, as the rules of a grammar: `<function=f>`, its parameters, `</function>`. Pure.

A parameter is its text as it is, or JSON; what reads the calls (`backends.toolcalls.xml_calls`) tells them apart by the
types that the schema allows, and what it could take for something else is not written:

- text holds no tag that ends a parameter or a call, and no control characters but tabs and line ends
- where any text may stand, everything but null is text
- names have no `<`, `>` and line ends
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from backends.structure.merge import ANY, NEVER, Merger, Node, any_of
from backends.structure.raw import lines, narrowed, written
from backends.structure.schema import SchemaRefused
from backends.toolcalls.kinds import Kinds, Parameters, kind_of

_END = "\n</parameter>\n"
_TAGS, _HEAD = ("</parameter>", "</tool_call>"), "<parameter="
_BARRED = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f"
_RAW = f"RAW: {written(lines(_BARRED, _TAGS, (_HEAD,)))}"
_CONTROL = re.compile(f"[{_BARRED}]")
_NAME = re.compile(r"[^<>\s\x00-\x1f\x7f]+(?: [^<>\s\x00-\x1f\x7f]+)*")


def functions(
    tools: Sequence[tuple[str, Node, Any]], nodes: Mapping[str, Node | None], to_json: Callable[[Node], str]
) -> list[str]:
    """The rules of `function`, any of `tools`: the name of each, its parameters as a node, and as they were given.

    `nodes` are the definitions that they share, `to_json` writes a node as a rule's body. Raises `SchemaRefused`.
    """
    rules = _Rules(nodes, to_json)
    choices = []
    for name, node, given in tools:
        head, tail = _quoted(f"<function={_name(name)}>\n"), _quoted("</function>\n")
        reads = Parameters(given)
        bodies = [_Arguments(rules, part, reads).body() for part in rules.parts(node)]
        if not (possible := [body for body in bodies if body is not None]):
            raise SchemaRefused(f"no arguments fit {name}", invalid=True)
        choices.append(rules.add("f", f"{head} ({' | '.join(possible)}) {tail}"))
    return [f"function: {' | '.join(choices)}", f"end: {_quoted(_END)}", _RAW, *rules.lines]


class _Rules:
    """The rules so far; a body that is there already is not written twice."""

    def __init__(self, nodes: Mapping[str, Node | None], to_json: Callable[[Node], str]) -> None:
        self.resolved = Merger(nodes).resolved
        self._to_json = to_json
        self._names: dict[str, str] = {}
        self.lines: list[str] = []

    def add(self, prefix: str, body: str, *, lazy: bool = False) -> str:
        """The name of a rule, or with a prefix in capitals of a terminal, with this body."""
        if body not in self._names:
            self._names[body] = name = f"{prefix}{len(self._names)}"
            self.lines.append(f"{name}{'[lazy]' if lazy else ''}: {body}")
        return self._names[body]

    def text(self, node: Node) -> str:
        """Text of a node of type string, with what ends it."""
        body = narrowed("RAW", node)
        if not _fits_any(body):
            raise SchemaRefused(
                "a text that nothing fits, or that is too long, cannot be enforced in this model's tool calls"
            )
        terminal = "RAW" if body == "RAW" else self.add("T", body)
        return self.add("t", f"{terminal} {_quoted(_END)}", lazy=True)

    def json(self, node: Node) -> str:
        """JSON of a node, with what ends it."""
        return f"{self.add('j', self._to_json(node))} end"

    def parts(self, node: Node) -> list[Node]:
        """Its alternatives, each with `enum` or `type`, or `ANY`; none for `NEVER`."""
        found: list[Node] = []
        seen: set[str] = set()
        rest = [node]
        while rest:
            one = rest.pop(0)
            if one is NEVER or one is None:
                continue
            if one == ANY:
                found.append(one)
            elif "$ref" in one:
                if one["$ref"] not in seen:
                    seen.add(one["$ref"])
                    rest.append(self.resolved(one))
            elif "anyOf" in one:
                implied = one.get("implied")
                rest += [part for part in one["anyOf"] if implied is None or part.get("type") in implied]
            else:
                found.append(one)
        return found


class _Arguments:
    """The parameters of one function, or of one alternative for them, as the reader with `reads` takes them."""

    def __init__(self, rules: _Rules, node: Node, reads: Parameters) -> None:
        if node.get("type") != "object":
            raise SchemaRefused("constants as all arguments of a call cannot be enforced in this model's tool calls")
        self._rules, self._node, self._reads = rules, node, reads
        if "patternProperties" in node:
            raise SchemaRefused("patternProperties cannot be enforced for the arguments of this model's tool calls")
        self._others: Node = node.get("additionalProperties", NEVER if "properties" in node else ANY)
        given = node.get("additionalProperties", ANY)
        unlisted = {name: given for name in node.get("required", ()) if name not in node.get("properties", {})}
        self._properties: Mapping[str, Node] = {**node.get("properties", {}), **unlisted}

    def body(self) -> str | None:
        """Its parameters in a row, in the order of the schema; None where nothing fits."""
        self._refuse_counts()
        required = self._node.get("required", ())
        row = []
        for name, node in self._properties.items():
            if not self._rules.parts(node):
                if name in required:
                    return None
                continue
            value = self._value(node, self._reads.kinds(name))
            head = _quoted(f"<parameter={_name(name)}>\n")
            row.append(f"{head} {value}" if name in required else f"({head} {value})?")
        if self._others is not NEVER and self._rules.parts(self._others):
            row.append(self._other())
        return self._rules.add("b", " ".join(row)) if row else '""'

    def _refuse_counts(self) -> None:
        least, most = self._node.get("minProperties", 0), self._node.get("maxProperties")
        if least > len(self._node.get("required", ())):
            raise SchemaRefused("minProperties cannot be enforced for the arguments of this model's tool calls")
        if most is not None and (most < len(self._properties) or self._others is not NEVER):
            raise SchemaRefused("maxProperties cannot be enforced for the arguments of this model's tool calls")

    def _other(self) -> str:
        """Any number of parameters that are not listed."""
        listed = "|".join(map(re.escape, self._properties))
        name = written(_NAME.pattern) + (f" & ~{written(f'(?:{listed})')}" if listed else "")
        tag = self._rules.add("H", f'"<parameter=" {self._rules.add("N", name)} ">\\n"')
        value = self._value(self._others, self._reads.kinds("\0"))
        return f"({tag} {value})*"

    def _value(self, node: Node, kinds: Kinds | None) -> str:
        """A value, with what ends it, that is read as one of the node."""
        parts = self._rules.parts(node)
        if ANY in parts and kinds is None:
            return self._rules.text({})
        constants = [value for part in parts if "enum" in part for value in part["enum"]]
        texts = [value for value in constants if isinstance(value, str)]
        strings = [part for part in parts if part.get("type") == "string"]
        others = [part for part in parts if part.get("type", "string") != "string"]
        if rest := [value for value in constants if not isinstance(value, str)]:
            others.append({"enum": rest})
        nullable = any(part == {"type": "null"} or None in part.get("enum", ()) for part in others)
        _check_reading(texts, strings, others, kinds, nullable=nullable)
        assert kinds is not None
        if kinds.texts is None:
            # Not as JSON: where text may go on, the compiler does not look back at a word that ended before.
            texts, others = [*texts, *(["null"] if nullable else [])], []
        forms = [_quoted(_text(value) + _END) for value in texts]
        forms += [self._rules.text(part) for part in strings]
        forms += [self._rules.json(any_of(others))] if others else []
        if not forms:
            raise SchemaRefused("a value that would be taken for text cannot be enforced in this model's tool calls")
        return self._rules.add("v", " | ".join(forms))


def _check_reading(
    texts: Sequence[str], strings: Sequence[Node], others: Sequence[Node], kinds: Kinds | None, *, nullable: bool
) -> None:
    """Raise `SchemaRefused` where the reader could take what is written for something that does not fit."""
    refused = SchemaRefused("a value of types that cannot be told apart cannot be enforced in this model's tool calls")
    if kinds is None:
        raise refused
    written_texts = bool(texts or strings)
    if kinds.texts is None:
        # Whatever is written is text, but for null.
        if written_texts and "null" in kinds.types and not nullable:
            raise refused
        return
    if strings or not kinds.texts >= set(texts):
        raise refused
    foreign = kinds.texts - set(texts)
    if others and (any(map(_looks_like_json, foreign)) or any(text.lstrip()[:1] in "[{" for text in texts if text)):
        raise refused
    if not {_type(part) for part in others} - {""} <= kinds.types:
        raise refused


def _type(node: Node) -> str:
    """The JSON type of a node; none for several constants."""
    if "enum" in node:
        found = {kind_of(value) for value in node["enum"]}
        return found.pop() if len(found) == 1 else ""
    return "number" if node["type"] == "integer" else str(node["type"])


def _looks_like_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.strip().lower() in ("none", "null", "true", "false")
    return True


@lru_cache(maxsize=256)
def _fits_any(body: str) -> bool:
    """Whether any text fits a terminal, as far as the compiler looks: a model that began one could not go on else."""
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), f"start: T\nT: {body}\n{_RAW}\n", log_level=0)
    matcher.compute_bitmask()
    return not matcher.is_error()


def _text(value: str) -> str:
    if _CONTROL.search(value) or any(tag in f"\n{value}" for tag in (*_TAGS, f"\n{_HEAD}")):
        raise SchemaRefused("a constant with tags or control characters cannot be enforced in this model's tool calls")
    return value


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise SchemaRefused(f"the name {name!r} cannot be enforced in this model's tool calls")
    return name


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
