"""Tool calls in the formats of the families, as the rules of a grammar. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends.base import JsonObject, Rejected
from backends.structure.merge import NEVER, Node, any_of
from backends.structure.schema import Definitions, SchemaRefused
from backends.structure.xml_calls import functions

# The tags of a family's tool calls, the one that opens them first. One that is a special token is that token.
MARKERS: Mapping[str, tuple[str, ...]] = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "qwen_xml": ("<tool_call>", "</tool_call>"),
    "llama3": (),
    "mistral": ("[TOOL_CALLS]",),
    "deepseek": (
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
    ),
    "json": (),
}
# What opens a call as well where models leave the first tag out: it may not stand in the text before a call.
AVOIDED: Mapping[str, tuple[str, ...]] = {"qwen_xml": ("<function=",)}
_ESCAPES = 'nrbtf\\"'  # without \u, which has several spellings of a name, and halves of surrogate pairs
INDENTED = {"json_allowed_escapes": _ESCAPES, "whitespace_pattern": r" |\n[ \t]{0,32}"}
COMPACT = {
    "json_allowed_escapes": _ESCAPES,
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
}
ANY_OBJECT: Node = {"type": "object"}


def quoted(text: str) -> str:
    """A text as it stands in a grammar."""
    return json.dumps(text, ensure_ascii=False)


def json_of(definitions: Definitions, node: Node, layout: JsonObject) -> str:
    """JSON of a schema, as a rule's body."""
    return "%json " + json.dumps({"x-guidance": layout, **definitions.document(node)}, ensure_ascii=False)


def rejected(error: SchemaRefused, what: str, param: str) -> Rejected:
    """What a client is told of a schema that cannot be kept."""
    kind = "invalid" if error.invalid else "unsupported"
    return Rejected(f"{what}: {error}", kind=kind, code=f"{kind}_json_schema", param=param)


def _object(**properties: Node) -> Node:
    """An object with just these properties, in this order."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": NEVER,
    }


class Calls:
    """The tool calls of one request in the format of a family. Raises `Rejected` for parameters that it cannot keep."""

    def __init__(self, family: str, tools: Mapping[str, JsonObject], many: bool, forced: bool) -> None:
        self._family, self._tools, self._many, self._forced = family, tools, many, forced
        self._definitions = Definitions()
        self._arguments = {name: self._read(name, function) for name, function in tools.items()}

    def _read(self, name: str, function: JsonObject) -> Node:
        schema = function.get("parameters")
        if schema in (None, {}) or not (self._forced or function.get("strict") is True):
            return ANY_OBJECT
        try:
            return self._definitions.read(schema, arguments=True)
        except SchemaRefused as error:
            raise rejected(error, f"the parameters of {name}", "tools") from error

    def grammar(self, answer: str | None) -> str:
        """The rules: calls alone where they are forced, else calls or `answer`, else calls after free text."""
        rules: Mapping[str, Any] = {
            "hermes": self._hermes,
            "qwen_xml": self._qwen_xml,
            "llama3": self._llama3,
            "mistral": self._mistral,
            "deepseek": self._deepseek,
            "json": self._plain,
        }
        try:
            begin, rest, *others = rules[self._family]()
        except SchemaRefused as error:
            raise rejected(error, "the parameters of the tools", "tools") from error
        if self._forced:
            start = f"start: {begin} {rest}"
        elif answer is not None:
            start = f"start: {begin} {rest} | answer\nanswer: {answer}"
        elif begin:
            start = f"start: head {rest} | TAIL"
        else:
            # Without an opening tag an answer is a call when it begins like one.
            start = f"start: {rest} | TAIL\nTAIL: /\\s*([^{{\\s](?s:.*))?/"
        return "\n".join((start, *others))

    def _value(self, arguments: str, *, listed: bool = False) -> str:
        """Calls as JSON: one object with `name` and `arguments`, or a list of them."""
        call = any_of(
            [_object(**{"name": {"enum": [name]}, arguments: node}) for name, node in self._arguments.items()]
        )
        if listed:
            call = {"type": "array", "items": call, "minItems": 1, **({} if self._many else {"maxItems": 1})}
        return json_of(self._definitions, call, COMPACT)

    def _hermes(self) -> Sequence[str]:
        more = ' ("\\n" m0 call)*' if self._many else ""
        return "m0", f"call{more}", 'call: "\\n" value "\\n" m1', f"value: {self._value('arguments')}"

    def _qwen_xml(self) -> Sequence[str]:
        more = ' ("\\n" m0 call)*' if self._many else ""
        written = [
            (name, node, None if node is ANY_OBJECT else self._tools[name]["parameters"])
            for name, node in self._arguments.items()
        ]
        rules = functions(written, self._definitions.nodes, lambda node: json_of(self._definitions, node, COMPACT))
        return "m0", f"call{more}", 'call: "\\n" function m1', *rules

    def _llama3(self) -> Sequence[str]:
        more = ' ("; " value)*' if self._many else ""
        return "", f"value{more}", f"value: {self._value('parameters')}"

    def _plain(self) -> Sequence[str]:
        more = ' ("\\n" value)*' if self._many else ""
        return "", f"value{more}", f"value: {self._value('arguments')}"

    def _mistral(self) -> Sequence[str]:
        return "m0", '" "? value', f"value: {self._value('arguments', listed=True)}"

    def _deepseek(self) -> Sequence[str]:
        more = ' ("\\n" call)*' if self._many else ""
        rules = [f'call: m1 "function" m2 ({" | ".join(f"call{place}" for place in range(len(self._arguments)))}) m3']
        for place, (name, node) in enumerate(self._arguments.items()):
            head = quoted(f"{name}\n```json\n")
            rules.append(f'call{place}: {head} value{place} "\\n```"')
            rules.append(f"value{place}: {json_of(self._definitions, node, COMPACT)}")
        return "m0", f"call{more} m4", *rules
