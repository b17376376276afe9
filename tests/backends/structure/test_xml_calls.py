"""Calls in Qwen3-Coder's format: what a model writes under the grammar fits, and is read as it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from backends.base import Rejected, Settings
from backends.chat import ChatModel, Prompt
from backends.structure.forced import read_structure
from backends.structure.raw import whole
from backends.structure.scalars import pattern_fits
from backends.toolcalls import ToolCall, parser
from llmproxy.core.schema import violation
from llmproxy.core.types import JsonObject
from tests.backends.build import build_chat_model
from tests.backends.structure.build import TOKENIZERS
from tests.backends.structure.schemas import CONSTANTS, FORMATS, PATTERNS, Schemas
from tests.backends.structure.test_masks import accepts, allowed_tools, check_calls, constraint, ended, model, tool

FAMILY = "qwen_xml"
TOOL_SETS = 100  # for each tokenizer
PLAIN_STARTS = [kind for kind in TOKENIZERS if kind != "byte fallback"]  # that one begins texts with a space


def forced(*tools: JsonObject, **more: Any) -> JsonObject:
    return {"tools": list(tools), "tool_choice": "required", **more}


def one(schema: Any, *, required: bool = True) -> JsonObject:
    """A request that forces a call of `f` with the one argument `x`."""
    parameters = {"type": "object", "properties": {"x": schema}, "required": ["x"] if required else []}
    return forced(tool("f", parameters), parallel_tool_calls=False)


def call(*values: tuple[str, str], name: str = "f") -> str:
    """A call with its parameters as text."""
    inside = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values)
    return f"<tool_call>\n<function={name}>\n{inside}</function>\n</tool_call>"


def read(text: str, body: JsonObject) -> list[JsonObject]:
    """The arguments of the calls in a text that is nothing but calls."""
    found = parser(FAMILY, body["tools"])
    said = found.feed(text) + found.end()
    assert all(isinstance(each, ToolCall) for each in said), text
    return [orjson.loads(each.arguments) for each in said if isinstance(each, ToolCall)]


# -- random tools -----------------------------------------------------------------------------------------------------

_PARAMETER = re.compile(r"<parameter=([^>]+)>\n")


def written(text: str) -> Iterator[dict[str, list[Any]]]:
    """What the parameters of each call may mean, read to the letter of the form: a text ends with the first tag, JSON
    where JSON ends."""
    place = 0
    while place < len(text):
        head = re.compile(r"\n?<tool_call>\n<function=[^>]+>\n").match(text, place)
        assert head is not None, text
        place, meant = head.end(), {}
        while (parameter := _PARAMETER.match(text, place)) is not None:
            end = text.index("\n</parameter>\n", parameter.end())
            meant[parameter[1]] = [text[parameter.end() : end]]
            try:
                value, json_end = json.JSONDecoder().raw_decode(text, parameter.end())
            except ValueError:
                json_end = -1
            if text.startswith("\n</parameter>\n", json_end):
                meant[parameter[1]].append(value)
                end = max(end, json_end)
            if text[parameter.end() : end].lower() in ("none", "null"):
                meant[parameter[1]].append(None)
            place = end + len("\n</parameter>\n")
        tail = "</function>\n</tool_call>"
        assert text.startswith(tail, place), text
        place += len(tail)
        yield meant


@pytest.mark.parametrize(("begin", "kind"), list(enumerate(TOKENIZERS)))
def test_any_call_is_read_as_it_was_written(begin: int, kind: str) -> None:
    """Random tools, random models: the calls parse, their arguments fit, and have the values that stand in the text."""
    used = model(kind)
    bodies = [
        forced(*Schemas(20_000 + seed).tools(), parallel_tool_calls=seed % 2 == 0)
        for seed in range(begin * TOOL_SETS, (begin + 1) * TOOL_SETS)
    ]
    texts = used.decode([constraint(used.grammars, body, FAMILY) for body in bodies], FAMILY, budget=400)
    for text, body in zip(texts, bodies, strict=True):
        if text.ended:
            check_calls(text.text, body, FAMILY, {each["function"]["name"] for each in body["tools"]})
            for arguments, meant in zip(read(text.text, body), written(text.text), strict=True):
                assert arguments.keys() == meant.keys(), text.text
                assert all(value in meant[key] for key, value in arguments.items()), text.text
    # A model without a token for the end of a value spells it by chance, or ends where a text may be no longer.
    assert ended(texts) > (0.8 if "tags" in kind else 0.5)


# -- what may be written ----------------------------------------------------------------------------------------------

STRING = {"type": "string"}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": STRING}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        (STRING, ["", "a", "\n a \n\n", "null", "</function>\n", "a\n</function>\n<tool_call>", '{"a": 1}', "</para"],
            ["</parameter>", "a</parameter>b", "<parameter=y>", "a\n<parameter=", "</tool_call>", "\x01", "a\x0bb"]),
        ({**STRING, "minLength": 2, "maxLength": 3}, ["ab", "\n\n", "🐦éß"], ["a", "abcd", ""]),
        ({**STRING, "pattern": "^a/b|c$"}, ["a/bcd", "\nc"], ["xa/b", "cd"]),
        ({**STRING, "pattern": "^[a-c]+$", "maxLength": 2}, ["ab"], ["abc", "d"]),
        ({**STRING, "format": "date"}, ["2024-02-29"], ["2023-02-29", '"2024-02-29"']),
        ({"enum": ["red", "", "a\nb", 'say "hi"\n']}, ["red", "", "a\nb", 'say "hi"\n'], ["blue", '"red"']),
        ({"const": "x"}, ["x"], ["y"]),
        ({"enum": ["red", 5, None, {"a": [1]}]}, ["red", "5", "null", '{"a":[1]}'], ["4", '"red"', "{}"]),
        ({"type": "integer", "minimum": 3}, ["3", "12"], ["2", '"3"', "3.5", "x", " 3"]),
        ({"type": "boolean"}, ["true", "false"], ["True", "1"]),
        ({"type": "null"}, ["null"], ["none", ""]),
        ({"type": ["integer", "null"]}, ["3", "null"], ["x"]),
        ({"type": ["string", "null"], "minLength": 6}, ["abcdef", "null"], ["abc"]),
        ({"anyOf": [{"const": "auto"}, {"type": "integer"}]}, ["auto", "7"], ["other", '"auto"']),
        ({"type": ["string", "integer"], "pattern": "^[a-z]+$"}, ["abc"], ["7"]),
        (POINT, ['{"x": 1}', '{"x":1,"y":"</parameter>\\n</function>\\n</tool_call>"}'], ['{"y": "a"}', "x"]),
        ({"type": "array", "items": STRING}, ["[]", '["</parameter>", "\\"</parameter>"]'], ["a", "[1]"]),
        ({}, ["", "a", "5", "[1]", '{"a": "b"}'], ["a</parameter>"]),
    ],
)  # fmt: skip
def test_values(schema: JsonObject, yes: list[str], no: list[str]) -> None:
    """A value that fits may be written and is read as one that fits; anything else may not."""
    used, body = model("byte-level"), one(schema)
    assert [text for text in yes if not accepts(used, body, call(("x", text)), FAMILY)] == []
    assert [text for text in no if accepts(used, body, call(("x", text)), FAMILY)] == []
    for text in yes:
        check_calls(call(("x", text)), body, FAMILY, {"f"})
        assert read(call(("x", text)), body)[0]["x"] in (text, *written_json(text)), text


def written_json(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []


@pytest.mark.parametrize("kind", PLAIN_STARTS)
@pytest.mark.parametrize("most", [20, 255, 4096, 65_535])
def test_long_texts_are_counted(kind: str, most: int) -> None:
    """However long a text may be, and whatever tokens there are, it is counted, and holds no tag."""
    used, body = model(kind), one({**STRING, "minLength": 2, "maxLength": most})
    text = ("a <b></b>\n <parameter=c> </parameter-" * 4)[: min(most, 100)]
    assert accepts(used, body, call(("x", text)), FAMILY)
    assert not accepts(used, body, call(("x", f"{text[:8]}</parameter>")), FAMILY)
    assert most > 300 or not accepts(used, body, call(("x", "a" * (most + 1))), FAMILY)


A, B, C, Z = ("a", "1"), ("b", "hi"), ("c", "true"), ("z", "1")
THREE = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": STRING, "c": {"type": "boolean"}},
    "required": ["b"],
}


@pytest.mark.parametrize(
    ("parameters", "yes", "no"),
    [
        (THREE, [[B], [A, B], [B, C], [A, B, C]], [[], [A], [B, A], [A, C], [A, B, B], [B, Z]]),
        ({**THREE, "additionalProperties": False}, [[B]], [[B, Z]]),
        ({**THREE, "additionalProperties": {"type": "integer"}}, [[B, Z], [B, Z, ("y k", "2")]],
            [[B, ("z", "x")], [B, B], [B, ("a", "x")], [B, C, A], [Z], [B, (" z", "1")]]),
        ({**THREE, "required": ["b", "z"]}, [[B, Z], [B, ("z", "any text")]], [[B], [Z]]),
        ({"type": "object"}, [[], [A], [Z, ("größe", "x")]], [[("a<b", "1")]]),
        ({}, [[], [A, B]], []),
        (None, [[], [A, B]], []),
        ({"type": "object", "properties": {}}, [[]], [[A]]),
        ({"type": "object", "properties": {"a": False, "b": STRING}}, [[], [B]], [[A]]),
        ({"$ref": "#/$defs/t", "$defs": {"t": THREE}}, [[A, B]], [[A]]),
        ({"allOf": [THREE, {"properties": {"a": {"minimum": 1}}, "required": ["a"]}]}, [[A, B]], [[B]]),
        ({"oneOf": [
            {"type": "object", "properties": {"k": {"const": "i"}, "v": {"type": "integer"}}, "required": ["k", "v"]},
            {"type": "object", "properties": {"k": {"const": "b"}, "v": {"type": "boolean"}}, "required": ["k", "v"]}]},
            [[("k", "i"), ("v", "1")], [("k", "b"), ("v", "true")]], [[("k", "i"), ("v", "true")], [("k", "c")]]),
    ],
)  # fmt: skip
def test_parameters(parameters: Any, yes: list[list[tuple[str, str]]], no: list[list[tuple[str, str]]]) -> None:
    """Required parameters are there, in the order of the schema, once, and no others unless the schema has them."""
    used, body = model("byte-level"), forced(tool("f", parameters))
    assert [values for values in yes if not accepts(used, body, call(*values), FAMILY)] == []
    assert [values for values in no if accepts(used, body, call(*values), FAMILY)] == []
    for values in yes:
        check_calls(call(*values), body, FAMILY, {"f"})
        assert list(read(call(*values), body)[0]) == [key for key, _ in values]


TWO = call(A, B) + "\n" + call(name="g")
STRICT = {"tools": [tool("f", THREE, strict=True), tool("g", POINT)]}


@pytest.mark.parametrize("kind", PLAIN_STARTS)
@pytest.mark.parametrize(
    ("body", "yes", "no"),
    [
        (STRICT, ["", "Hello <tool> <function", TWO, "Hello " + TWO],
            [call(A), TWO + " ok", "Hi <function=f>\n", "Hi <function=f>\n" + call(B)]),
        ({**STRICT, "parallel_tool_calls": False}, ["Hi", call(B)], [TWO]),
        (STRICT, [call(("any", "x"), name="g")], [call(("any", "x"))]),
        ({**STRICT, "tool_choice": "required"}, [call(B), call(("x", "1"), name="g")], ["", "Hi", "Hi " + call(B)]),
        ({**STRICT, "tool_choice": {"type": "function", "function": {"name": "f"}}}, [call(B)], [call(name="g")]),
        ({"tools": [tool("f", THREE), tool("g", POINT)], "tool_choice": allowed_tools("auto", ["f"])},
            ["Hi", call(B), "Hi " + call(Z)], [call(name="g"), "Hi " + TWO]),
        ({**STRICT, "response_format": {"type": "json_object"}}, ['{"a": 1}', call(B)], ["Hi", call(B) + "{}"]),
    ],
)  # fmt: skip
def test_text_and_calls(kind: str, body: JsonObject, yes: list[str], no: list[str]) -> None:
    """Calls stand where the request has them: alone, instead of JSON, or after text that opens none."""
    used = model(kind)
    assert [text for text in yes if not accepts(used, body, text, FAMILY)] == []
    assert [text for text in no if accepts(used, body, text, FAMILY)] == []


def test_a_model_is_held_to_the_format_of_its_template(tmp_path: Path) -> None:
    """A chat model whose template writes such calls is given the grammar of this format, and what reads it."""
    folder = build_chat_model(tmp_path)
    (folder / "chat_template.jinja").write_text("{% if tools %}<tool_call>\n<function=f>\n<parameter=x>{% endif %}")
    loaded, body = ChatModel(Settings("m", folder, device="cpu")), one(STRING)
    assert loaded.structure(body) == read_structure(body, FAMILY)
    found = loaded.reading(body, Prompt([], ""), loaded.structure(body))
    assert found.feed(call(("x", "5"))) == [ToolCall("f", '{"x":"5"}')]


def test_what_is_thought_to_open_a_call_is_not_written_in_text() -> None:
    """Text before strict tools holds nothing that the reader takes for a call: it would be one without a schema."""
    body = {"tools": [tool("f", THREE, strict=True)]}
    loose = "<function=f>\n<parameter=a>\nx\n</parameter>\n</function>"
    assert read(loose, body) == [{"a": "x"}]
    assert not accepts(model("byte-level"), body, loose, FAMILY)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a<b": STRING}},
        {"type": "object", "properties": {" a": STRING}},
        {"type": "object", "properties": {"": STRING}},
        {"type": "object", "properties": {"a": {"const": "</parameter>"}}},
        {"type": "object", "properties": {"a": {"enum": ["b", "<parameter=c>"]}}},
        {"type": "object", "properties": {"a": {"enum": ["{", {"b": 1}]}}},
        {"type": "object", "properties": {"a": {**STRING, "pattern": "(^a$|b)"}}},
        {"type": "object", "properties": {"a": {"not": {}}}},
        {"type": "object", "properties": {"a": {**STRING, "pattern": "^</parameter>"}}},
        {"type": "object", "properties": {"a": {**STRING, "pattern": "^abc", "maxLength": 2}}},
        {"type": "object", "patternProperties": {"^a": STRING}},
        {"type": "object", "properties": {"a": STRING, "b": STRING}, "minProperties": 1},
        {"type": "object", "properties": {"a": STRING, "b": STRING}, "maxProperties": 1},
        {"enum": [{"a": 1}]},
        {
            "anyOf": [
                {"type": "object", "properties": {"k": {"const": 1}, "v": STRING}, "required": ["k", "v"]},
                {"type": "object", "properties": {"k": {"const": 2}, "v": {"type": "integer"}}, "required": ["k", "v"]},
            ]
        },
        {
            "anyOf": [
                {"type": "object", "properties": {"k": {"const": 1}, "v": {"const": "5"}}, "required": ["k", "v"]},
                {"type": "object", "properties": {"k": {"const": 2}, "v": {"type": "integer"}}, "required": ["k", "v"]},
            ]
        },
    ],
)
def test_what_cannot_be_kept_is_refused(parameters: JsonObject) -> None:
    """Names, texts and types that the format cannot hold apart are refused before anything is generated."""
    with pytest.raises(Rejected) as caught:
        read_structure(forced(tool("f", parameters)), FAMILY)
    assert (caught.value.kind, caught.value.code, caught.value.param) == (
        "unsupported",
        "unsupported_json_schema",
        "tools",
    )


def test_what_nothing_fits_is_invalid() -> None:
    """A required argument that can have no value is the client's mistake."""
    with pytest.raises(Rejected, match="fit") as caught:
        read_structure(one(False), FAMILY)
    assert caught.value.code == "invalid_json_schema"


def test_a_loose_tool_is_not_looked_through() -> None:
    """Schemas of tools that are neither forced nor strict may hold anything."""
    odd: Any = {"properties": {"a": {"not": {}}, "b": {"enum": 5}}, "additionalProperties": {"type": "integer"}}
    body = {"tools": [tool("f", THREE, strict=True), tool("g", odd)]}
    assert accepts(model("byte-level"), body, call(("a", "x"), ("other", "any text"), name="g"), FAMILY)


# -- patterns ---------------------------------------------------------------------------------------------------------

TEXTS = [
    *(value for value in CONSTANTS if isinstance(value, str)),
    *("a", "b", "ab", "xb", "ax", "abc", "x", "a/b", "\\/\"", "123-4567", "1", "٣", "é", "äö", "a b", "é b", "\r"),
    *("\n", "a\nb", "a.b", "-", "z-", "[", "]", "/", "a\u2028b", "2024-01-01", "^", "$"),
]  # fmt: skip


@pytest.mark.parametrize(
    "pattern",
    [
        *PATTERNS, "a", "^a", "a$", "^$", "", "^a$|^b$", "^(a|b)$", "(a|b)|x$", r"\w", r"\W", r"\d", r"\D", ".", "^.$",
        r"^a.b$", r"[\w-]", r"^[\d/]+$", r"[^\w]", r"\$$", r"\^", r"[$^]", "/", r"\/", r"\\", "^[\\]]$", "^a{1,2}b?$",
        "\n",
    ],
)  # fmt: skip
def test_patterns_mean_the_same_in_plain_text(pattern: str) -> None:
    """A text that the grammar takes fits the pattern; and one that fits is taken, but for dots and line ends."""
    used, body = model("byte-level"), one({**STRING, "pattern": pattern})
    for text in TEXTS:
        taken, fits = accepts(used, body, call(("x", text)), FAMILY), pattern_fits(pattern, text)
        odd = "." in pattern and re.search("[\r\u2028]", text)
        assert taken == fits or (odd and fits), (pattern, text, whole(pattern))


@pytest.mark.parametrize("form", FORMATS)
def test_formats_in_plain_text(form: str) -> None:
    """Every format can be written without quotes."""
    used, body = model("byte-level"), one({**STRING, "format": form})
    texts = used.decode([constraint(used.grammars, body, FAMILY) for _ in range(10)], FAMILY)
    for text in texts:
        if text.ended:
            assert violation(body["tools"][0]["function"]["parameters"], read(text.text, body)[0]) is None
    assert any(text.ended for text in texts)
