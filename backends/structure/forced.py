"""What a chat request forces its answer to be: JSON, JSON of a schema, or tool calls, as a grammar. Pure.

Grammars are written in llguidance's variant of Lark (https://github.com/guidance-ai/llguidance, docs/syntax.md). The
text that belongs to a family's format alone is compact JSON; a JSON answer may be indented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from backends.base import JsonObject, Rejected
from backends.structure.calls import ANY_OBJECT, AVOIDED, COMPACT, INDENTED, Calls, json_of, quoted, rejected
from backends.structure.calls import MARKERS as MARKERS
from backends.structure.raw import without
from backends.structure.schema import Definitions, SchemaRefused

# Forced text is left to the model to spell in tokens: to force tokens, llguidance would have to tokenize it.
_OPTIONS = '%llguidance {"no_forcing": true}'


@dataclass(frozen=True, slots=True)
class Structure:
    """A grammar whose rules `m0`, `m1`, … are the markers, and `head`, where `free`, is text up to the first of them.

    That text holds none of `avoided`.
    `param` is the field of the request that asked for it; `digest` is alike for alike structures only.
    """

    grammar: str
    param: str
    markers: tuple[str, ...] = ()
    free: bool = False
    avoided: tuple[str, ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        text = "\0".join((self.grammar, *self.markers, str(self.free), *self.avoided))
        object.__setattr__(self, "digest", hashlib.sha256(text.encode()).hexdigest())

    def lark(self, special: Mapping[str, int]) -> str:
        """The whole grammar, for a tokenizer with these special tokens."""
        lines = [_OPTIONS, self.grammar]
        for place, marker in enumerate(self.markers):
            lines.append(f"m{place}: " + (f"<[{special[marker]}]>" if marker in special else quoted(marker)))
        if self.free:
            first = self.markers[0]
            lines.append(f"TEXT: {without(self.avoided) if self.avoided else '/(?s:.*)/'}")
            lines.append(f"TAIL: {without((first, *self.avoided))}")
            lines.append("head: TAIL m0" if first in special else f"head[lazy]: TEXT {quoted(first)}")
        return "\n".join(lines) + "\n"


def read_structure(body: JsonObject, family: str) -> Structure | None:
    """The structure of a chat request for a model whose tool calls look as in `family`; None where nothing is forced.

    Tools that are not `strict` are held to their schema only where a call is forced. Raises `Rejected`: kind `invalid`,
    code `invalid_json_schema` for what is no schema, kind `unsupported`, code `unsupported_json_schema` for one that
    cannot be enforced.
    """
    tools, forced = _tools(body)
    form = body.get("response_format") or {}
    wants_json = form.get("type") in ("json_object", "json_schema")
    many = body.get("parallel_tool_calls") is not False
    strict = any(function.get("strict") is True for function in tools.values())
    limited = isinstance(body.get("tool_choice"), dict)  # not all that are offered may be called
    if not (forced or wants_json or strict or limited):
        return None
    if not tools:
        structure = Structure(f"start: value\nvalue: {_answer(form, INDENTED)}", "response_format")
    else:
        calls = Calls(family, tools, many, forced)
        answer = _answer(form, COMPACT) if wants_json and not forced else None
        structure = Structure(
            calls.grammar(answer),
            "tools",
            MARKERS[family],
            free=bool(MARKERS[family]) and not forced and answer is None,
            avoided=AVOIDED.get(family, ()),
        )
    _check(structure)
    return structure


# -- requests -------------------------------------------------------------------------------------------------------


def _tools(body: JsonObject) -> tuple[dict[str, JsonObject], bool]:
    """The functions that may be called, by name, and whether one must be."""
    offered = {
        tool["function"]["name"]: tool["function"]
        for tool in body.get("tools") or ()
        if tool.get("type", "function") == "function"
    }
    choice = body.get("tool_choice")
    if choice == "none":
        return {}, False
    if choice in (None, "auto"):
        return offered, False
    names, forced = list(offered), True
    if isinstance(choice, dict):
        allowed = choice.get("allowed_tools") or {}
        forced = not allowed or allowed.get("mode") == "required"
        names = [(tool.get("function") or {}).get("name") for tool in allowed.get("tools") or (choice,)]
    if not names or any(name not in offered for name in names):
        raise Rejected(
            "tool_choice asks for a tool that is not in tools",
            kind="invalid",
            code="invalid_request",
            param="tool_choice",
        )
    return {name: offered[name] for name in names}, forced


def _answer(form: JsonObject, layout: JsonObject) -> str:
    """The answer that a response format asks for, as a rule's body."""
    schema = (form.get("json_schema") or {}).get("schema") if form["type"] == "json_schema" else None
    definitions = Definitions()
    try:
        node = ANY_OBJECT if schema in (None, {}) else definitions.read(schema)
        return json_of(definitions, node, layout)
    except SchemaRefused as error:
        raise rejected(error, "the schema", "response_format") from error


@lru_cache(maxsize=256)
def _check(structure: Structure) -> None:
    """Raise `Rejected` unless the compiler takes the grammar without reserve."""
    from llguidance import LLMatcher

    failed, messages = LLMatcher.validate_grammar_with_warnings(structure.lark({}))
    if failed or messages:
        raise Rejected(
            f"the schema cannot be enforced: {'; '.join(messages).partition(chr(10))[0][:300]}",
            kind="unsupported",
            code="unsupported_json_schema",
            param=structure.param,
        )
