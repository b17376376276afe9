"""Tool calls are found in a model's text, in the form of each family and in any chunking."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.toolcalls import FAMILIES, Said, ToolCall, ToolCallDelta, ToolCallParser, family_of, markers, parser
from backends.toolcalls.kinds import Kinds, Parameters
from backends.toolcalls.xml_calls import typed
from tests.core.properties import cuts, quick

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": [1, "<tool_call"]}}\n</tool_call>'
WANTED = ToolCall("f", '{"x":[1,"<tool_call"]}')
F, G = ToolCall("f", '{"x":1}'), ToolCall("g", "{}")
PARTS = [
    CALL,
    "text",
    "<",
    "<tool",
    "<tool_call",
    "</tool_call>",
    "a b",
    "\n",
    " ",
    "<tool_call>oops</tool_call>",
    "é🐦",
]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """A function tool."""
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("f", x={"type": "integer"}), tool("g")]


def joined(found: list[Said]) -> list[Said]:
    """Neighbouring texts joined, and the pieces of each call."""
    out: list[Said] = []
    for said in found:
        last = out[-1] if out else None
        if isinstance(said, str) and isinstance(last, str):
            out[-1] = last + said
        elif isinstance(said, ToolCallDelta) and said.name is None:
            assert isinstance(last, ToolCall), "a call begins with its name"
            out[-1] = ToolCall(last.name, last.arguments + said.arguments)
        elif isinstance(said, ToolCallDelta):
            out.append(ToolCall(said.name or "", said.arguments))
        else:
            out.append(said)
    return out


def read(made: ToolCallParser, pieces: list[str]) -> list[Said]:
    """What the pieces say."""
    return joined([said for piece in pieces for said in made.feed(piece)] + made.end())


def parsed(pieces: list[str]) -> list[Said]:
    return read(ToolCallParser(), pieces)


# -- Hermes -----------------------------------------------------------------------------------------------------------


@quick
@given(st.data(), st.lists(st.sampled_from(PARTS), max_size=5), st.lists(st.just(CALL), max_size=3))
def test_chunking_changes_nothing(data: st.DataObject, before: list[str], calls: list[str]) -> None:
    """Text that is followed by calls reads the same in any chunking."""
    text = "".join([part for part in before if part != CALL] + calls)
    assert parsed(data.draw(cuts(text))) == parsed([text])


@quick
@given(st.data(), st.text(st.sampled_from("<>/tool_cal \n"), max_size=30))
def test_text_stays_text(data: st.DataObject, text: str) -> None:
    """Text without an opening tag comes out as it was, whatever it looks like."""
    if "<tool_call>" in text or not text.strip():
        return
    assert parsed(data.draw(cuts(text))) == [text]


names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
arguments = st.dictionaries(
    st.text(max_size=5), st.integers() | st.text(max_size=8) | st.none() | st.booleans(), max_size=3
)


@quick
@given(st.data(), st.lists(st.tuples(names, arguments), min_size=1, max_size=3), st.booleans())
def test_calls_are_found(data: st.DataObject, calls: list[tuple[str, dict[str, object]]], ascii_only: bool) -> None:
    """Each call comes out with its name and its arguments, nothing around them."""
    text = "".join(
        f"<tool_call>{json.dumps({'name': name, 'arguments': given}, ensure_ascii=ascii_only)}</tool_call>\n"
        for name, given in calls
    )
    found = parsed(data.draw(cuts(text)))
    assert [(call.name, json.loads(call.arguments)) for call in found if isinstance(call, ToolCall)] == calls
    assert all(isinstance(call, ToolCall) for call in found)


def test_a_call_comes_as_soon_as_it_is_closed() -> None:
    """Text before a call goes out at once, a call with its closing tag, and nothing twice."""
    made = ToolCallParser()
    assert made.feed("hi <tool_c") == ["hi "]
    assert made.feed("all>") == []
    assert made.feed('{"name": "f", "arguments": {}}</tool_call') == []
    assert made.feed(">") == [ToolCall("f", "{}")]
    assert made.end() == []
    assert made.found == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", []),
        ("hello", ["hello"]),
        (CALL, [WANTED]),
        (CALL + "\n" + CALL, [WANTED, WANTED]),
        ("Let me see.\n" + CALL, ["Let me see.\n", WANTED]),
        (CALL + "\n", [WANTED]),
        ('<tool_call>{"name": "f"}</tool_call>', [ToolCall("f", "{}")]),
        ('<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>', [ToolCall("f", '{"a":1}')]),
        ('<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', [ToolCall("f", '{"a": 1}')]),
        ('<tool_call>{"name": "f", "arguments": {}}', [ToolCall("f", "{}")]),
        ('<tool_call>{"name": "f", "arguments": {}}</tool_c', [ToolCall("f", "{}")]),
        ("<tool_call>{oops</tool_call>", ["<tool_call>{oops</tool_call>"]),
        ('<tool_call>{"arguments": {}}</tool_call>', ['<tool_call>{"arguments": {}}</tool_call>']),
        ("<tool_call>[1]</tool_call>", ["<tool_call>[1]</tool_call>"]),
        ("ends in <tool", ["ends in <tool"]),
        ("<tool_call>{cut off", ["<tool_call>{cut off"]),
        ("<tool_call>{oops</tool_call>" + CALL, ["<tool_call>{oops</tool_call>", WANTED]),
        ("write <tool_call> first: " + CALL, ["write <tool_call> first: ", WANTED]),
        (
            '<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}</tool_call>',
            [ToolCall("f", '{"x":"</tool_call>"}')],
        ),
        ('<tool_call>{"name": "f"} x</tool_call>', ['<tool_call>{"name": "f"} x</tool_call>']),
    ],
)  # fmt: skip
def test_what_texts_say(text: str, said: list[Said]) -> None:
    """Calls are read in the usual spellings; what cannot be read stays text."""
    assert parsed([text]) == said


def test_text_after_a_call() -> None:
    """Text after a call keeps the spaces between its words, however it comes."""
    pieces = [CALL, "\n", "It", " is", " sunny", "."]
    assert parsed(pieces) == [WANTED, "It is sunny."]


# -- all families -----------------------------------------------------------------------------------------------------

BEGIN, END, ONE, ONE_END, SEP = (
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
)  # fmt: skip
XML_F = "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>"
XML_G = "<tool_call>\n<function=g>\n</function>\n</tool_call>"


@pytest.mark.parametrize(
    ("family", "text", "said"),
    [
        ("qwen_xml", XML_F, [F]),
        ("qwen_xml", f"Let me see.\n{XML_F}\n{XML_G}\n", ["Let me see.\n", F, G]),
        ("qwen_xml", "<function=f><parameter=x>1</parameter></function>", [F]),
        ("qwen_xml", "<function=f><parameter=x>1</parameter></function>\n</tool_call> ok", [F, "ok"]),
        ("qwen_xml", "<tool_call><function=f><parameter=x>1</parameter></tool_call>", [F]),
        ("qwen_xml", "<tool_call><function=f><parameter=x>1</parameter></function></tool_c", [F]),
        ("qwen_xml", "<tool_call><function=f><parameter=x>1\n<parameter=y>a</parameter></function></tool_call>",
            [ToolCall("f", '{"x":1,"y":"a"}')]),
        ("qwen_xml", "<tool_call><function=f><parameter=y>\n</tool_call> \n</parameter></function></tool_call>",
            [ToolCall("f", '{"y":"</tool_call> "}')]),
        ("qwen_xml", "<function=f><parameter=y>\na</parameter>b\n</parameter></function>",
            [ToolCall("f", '{"y":"a</parameter>b"}')]),
        ("qwen_xml", "<tool_call><function=f><parameter=x>1", ["<tool_call><function=f><parameter=x>1"]),
        ("qwen_xml", "<tool_call>{}</tool_call>", ["<tool_call>{}</tool_call>"]),
        ("qwen_xml", "<tool_call><function=f>oops</function></tool_call>",
            ["<tool_call><function=f>oops</function></tool_call>"]),
        ("llama3", '{"name": "f", "parameters": {"x": 1}}', [F]),
        ("llama3", '<|python_tag|>{"name": "f", "parameters": {"x": 1}}; {"name": "g", "parameters": {}}', [F, G]),
        ("llama3", '\n{"name": "f", "parameters": {"x": 1}}\n', [F]),
        ("llama3", '{"type": "function", "name": "f", "parameters": {"x": 1}}; It runs.', [F, "It runs."]),
        ("llama3", 'Sure. <|python_tag|>{"name": "f", "arguments": {"x": 1}}', ["Sure. ", F]),
        ("llama3", '{"name": "Paris", "parameters": {"x": 1}}', ['{"name": "Paris", "parameters": {"x": 1}}']),
        ("llama3", '{"parameters": {}, "name": "Paris"}', ['{"parameters": {}, "name": "Paris"}']),
        ("llama3", '{"name": "f"}', ['{"name": "f"}']),
        ("llama3", '{"answer": {"name": "f"}} ok', ['{"answer": {"name": "f"}} ok']),
        ("llama3", "{ x in A } is a set", ["{ x in A } is a set"]),
        ("llama3", '{"name": "f", "parameters": {"x": 1}', ['{"name": "f", "parameters": {"x": 1}']),
        ("llama3", 'As JSON: {"name": "f", "parameters": {}}', ['As JSON: {"name": "f", "parameters": {}}']),
        ("llama3", "<|python_tag|>print(1)", ["<|python_tag|>print(1)"]),
        ("llama3", "  ", ["  "]),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]', [F, G]),
        ("mistral", '[TOOL_CALLS][{"name": "f", "arguments": {"x": 1}, "id": "abcdefghi"}]', [F]),
        ("mistral", 'Wait.[TOOL_CALLS]f[ARGS]{"x": 1}[TOOL_CALLS]g[ARGS]{}', ["Wait.", F, G]),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"x": 1}', [F]),
        ("mistral", '[TOOL_CALLS]f{"x": 1}', [F]),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"x": 1} Done {"x": 1}', [F, 'Done {"x": 1}']),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"x": 1} g {"name": 1}', [F, 'g {"name": 1}']),
        ("mistral", "[TOOL_CALLS] no call", ["[TOOL_CALLS] no call"]),
        ("mistral", '[{"name": "f", "arguments": {}}]', ['[{"name": "f", "arguments": {}}]']),
        ("deepseek", f"{BEGIN}{ONE}function{SEP}f\n```json\n{{\"x\": 1}}\n```{ONE_END}\n"
            f"{ONE}function{SEP}g\n```json\n{{}}\n```{ONE_END}{END}", [F, G]),
        ("deepseek", f"{BEGIN}{ONE}function{SEP}f\n```json\n{{\"x\": 1}}\n```{END}", [F]),
        ("deepseek", f"I look.{BEGIN}{ONE}f{SEP}{{\"x\": 1}}{ONE_END}{ONE}g{SEP}{{}}{ONE_END}{END}", ["I look.", F, G]),
        ("deepseek", f"{BEGIN}{ONE}f{SEP}{{\"x\": 1}}", [F]),
        ("deepseek", f"{ONE}oops{ONE_END}", [f"{ONE}oops"]),
        ("json", '{"name": "f", "arguments": {"x": 1}}', [F]),
        ("json", '[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "parameters": {}}]', [F, G]),
        ("json", '```json\n{"name": "f", "arguments": {"x": 1}}\n```', [F]),
        ("json", '{"type": "function", "function": {"name": "f", "arguments": "{\\"x\\":1}"}}', [F]),
        ("json", "[1, 2, 3]", ["[1, 2, 3]"]),
        ("json", "```python\nprint({})\n```", ["```python\nprint({})\n```"]),
        ("json", '{"type": "object"}', ['{"type": "object"}']),
    ],
)  # fmt: skip
def test_families(family: str, text: str, said: list[Said]) -> None:
    """Each family's own form is read, at once and character by character; all else stays text."""
    assert read(parser(family, TOOLS), [text]) == said
    assert read(parser(family, TOOLS), list(text)) == said


def hermes(calls: list[tuple[str, Any]]) -> str:
    return "\n".join(f"<tool_call>\n{json.dumps({'name': n, 'arguments': a})}\n</tool_call>" for n, a in calls)


def llama3(calls: list[tuple[str, Any]]) -> str:
    return "; ".join(json.dumps({"name": name, "parameters": given}) for name, given in calls)


def mistral(calls: list[tuple[str, Any]]) -> str:
    return "[TOOL_CALLS] " + json.dumps([{"name": name, "arguments": given} for name, given in calls])


def mistral_new(calls: list[tuple[str, Any]]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(given)}" for name, given in calls)


def deepseek(calls: list[tuple[str, Any]]) -> str:
    each = (f"{ONE}function{SEP}{name}\n```json\n{json.dumps(given)}\n```{ONE_END}" for name, given in calls)
    return BEGIN + "\n".join(each) + END


def deepseek_new(calls: list[tuple[str, Any]]) -> str:
    return BEGIN + "".join(f"{ONE}{name}{SEP}{json.dumps(given)}{ONE_END}" for name, given in calls) + END


def plain(calls: list[tuple[str, Any]]) -> str:
    return json.dumps([{"name": name, "arguments": given} for name, given in calls], indent=1)


WRITERS: list[tuple[str, Callable[[list[tuple[str, Any]]], str]]] = [
    ("hermes", hermes), ("llama3", llama3), ("mistral", mistral), ("mistral", mistral_new), ("deepseek", deepseek),
    ("deepseek", deepseek_new), ("json", plain),
]  # fmt: skip
nested = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(st.sampled_from('{}[]"\\</tool_call>;,é\n`'), max_size=12),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab{\"'", max_size=3), inner, max_size=2),
    max_leaves=5,
)
given_calls = st.lists(
    st.tuples(st.sampled_from(["f", "g", "get_weather-2"]), st.dictionaries(st.text(max_size=4), nested, max_size=3)),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize(("family", "writer"), WRITERS)
@pytest.mark.parametrize("deltas", [False, True])
@quick
@given(data=st.data(), calls=given_calls)
def test_calls_of_all_families(
    family: str, writer: Callable[..., str], deltas: bool, data: st.DataObject, calls: list[tuple[str, Any]]
) -> None:
    """Any arguments come back from any form in any chunking, whole or in deltas, with nothing around them."""
    found = read(parser(family, deltas=deltas), data.draw(cuts(writer(calls))))
    assert [(call.name, json.loads(call.arguments)) for call in found if isinstance(call, ToolCall)] == calls
    assert all(isinstance(call, ToolCall) for call in found)


@quick
@given(data=st.data(), values=st.lists(st.text(st.sampled_from("ab <>/=1{}\n"), max_size=12), max_size=3))
def test_xml_values(data: st.DataObject, values: list[str]) -> None:
    """The text of a parameter comes back as it was written between its line ends, in any chunking."""
    inside = "".join(f"<parameter=p{place}>\n{value}\n</parameter>\n" for place, value in enumerate(values))
    text = f"<tool_call>\n<function=f>\n{inside}</function>\n</tool_call>"
    tools = [tool("f", **{f"p{place}": {"type": "string"} for place in range(len(values))})]
    (call,) = read(parser("qwen_xml", tools), data.draw(cuts(text)))
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {f"p{place}": value for place, value in enumerate(values)}


tagged = st.lists(st.sampled_from(["</parameter>", "\n", "</function>", "</tool_call>", '"', "{"]), max_size=4)
xml_nested = st.recursive(
    st.none() | st.booleans() | tagged.map("".join),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "</parameter>"]), inner),
    max_leaves=6,
)


@quick
@given(data=st.data(), values=st.lists(st.lists(xml_nested, max_size=3) | st.dictionaries(st.text("ab"), xml_nested)))
def test_xml_values_that_are_json(data: st.DataObject, values: list[Any]) -> None:
    """Objects and lists come back whatever tags their strings hold, in any chunking, call after call."""
    inside = [f"<parameter=p>\n{json.dumps(value, ensure_ascii=False)}\n</parameter>\n" for value in values]
    text = "\n".join(f"<tool_call>\n<function=f>\n{each}</function>\n</tool_call>" for each in inside)
    found = read(parser("qwen_xml", [tool("f", p={"type": ["object", "array"]})]), data.draw(cuts(text)))
    assert [json.loads(call.arguments)["p"] for call in found if isinstance(call, ToolCall)] == values
    assert len(found) == len(values)


def test_json_that_never_ends_does_not_swallow_calls() -> None:
    """A value that was to be JSON and is not stays text, and the calls after it are calls."""
    tools = [tool("f", x={"type": "object"})]
    broken = XML_F.replace("1", '{"a": "b')
    said = read(parser("qwen_xml", tools), list(f"{broken}\n{broken}\n{XML_F}"))
    assert said == [ToolCall("f", '{"x":"{\\"a\\": \\"b"}')] * 2 + [ToolCall("f", '{"x":1}')]


@pytest.mark.parametrize("value", ["{a", '["', "[1]"])
def test_a_listed_text_is_no_json(value: str) -> None:
    """A constant that looks like JSON ends where it ends, as soon as its call is closed."""
    made = parser("qwen_xml", [tool("f", x={"enum": [value, "b"]})])
    (call,) = made.feed(XML_F.replace("1", value))
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"x": value}


ARGUMENTS: Any = {
    "$defs": {"n": {"type": ["integer", "null"]}, "loop": {"anyOf": [{"$ref": "#/$defs/loop"}, {"type": "string"}]}},
    "allOf": [{"properties": {"all": {"minimum": 1}}}],
    "anyOf": [{"properties": {"any": {"const": "a"}}}, {"properties": {"any": {"type": "boolean"}}}],
    "properties": {
        "ref": {"$ref": "#/$defs/n"},
        "enum": {"enum": ["auto", 5, [1]]},
        "both": {"type": ["string", "null"], "allOf": [{"enum": ["a", "b", None, 1]}]},
        "free": {},
        "union": {"oneOf": [{"type": "string"}, {"type": "object"}]},
        "format": {"format": "date"},
        "loop": {"$ref": "#/$defs/loop"},
        "far": {"$ref": "https://example.com/a"},
        "odd": {"type": 5, "enum": 7, "anyOf": "x", "format": ["date"]},
    },
    "additionalProperties": {"type": "number"},
}


@pytest.mark.parametrize(
    ("name", "types", "texts"),
    [
        ("ref", {"number", "null"}, set()),
        ("enum", {"number", "array"}, {"auto"}),
        ("both", {"null"}, {"a", "b"}),
        ("union", {"object"}, None),
        ("format", set(), None),
        ("all", {"number"}, set()),
        ("other", {"number"}, set()),
    ],
)
def test_kinds_of_arguments(name: str, types: set[str], texts: set[str] | None) -> None:
    """The types of an argument are found behind references, in combined schemas, and for names that are not listed."""
    expected = Kinds(frozenset(types), None if texts is None else frozenset(texts))
    assert Parameters(ARGUMENTS).kinds(name) == expected


@pytest.mark.parametrize("name", ["free", "loop", "far"])
def test_kinds_that_are_not_said(name: str) -> None:
    """Where anything may stand, and where a reference leads nowhere, nothing is known."""
    assert Parameters(ARGUMENTS).kinds(name) is None
    assert Parameters("no schema").kinds(name) is None


def test_kinds_of_what_is_no_schema() -> None:
    """A client's tools may hold anything: what cannot be read as a schema says nothing, and harms nothing."""
    assert Parameters(ARGUMENTS).kinds("odd") == Kinds(frozenset())


PIECES = [
    "<tool_call>", "</tool_call>", "<function=f>", "<parameter=x>", "</parameter>", "</function>", "<|python_tag|>",
    "[TOOL_CALLS]", "[ARGS]", BEGIN, END, ONE, ONE_END, SEP, "```json\n", "```", "{", "}", '{"name": "f", ', '"x"', ":",
    '"parameters": {"x": 1}}', '{"name": "f", "arguments": {}}', "[", "]", ", ", "; ", "text", " ", "\n", "f", "\\",
    '"',
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("deltas", [False, True])
@quick
@given(data=st.data(), pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_any_text_in_any_chunking(family: str, deltas: bool, data: st.DataObject, pieces: list[str]) -> None:
    """Whatever a model writes reads the same in any chunking, and is all content as long as no call is found in it."""
    text = "".join(pieces)
    found = read(parser(family, TOOLS, deltas=deltas), [text])
    assert read(parser(family, TOOLS, deltas=deltas), data.draw(cuts(text))) == found
    if not any(isinstance(said, ToolCall) for said in found):
        silent = FAMILIES[family].silent
        for tag in silent:
            text = text.replace(tag, "")
        assert "".join(map(str, found)) == text


@pytest.mark.parametrize(
    ("family", "head", "tail"),
    [
        ("hermes", '<tool_call>\n{"name": "f", "arguments": ', "}\n</tool_call>"),
        ("llama3", '{"name": "f", "parameters": ', "}"),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": ', "}]"),
        ("mistral", "[TOOL_CALLS]f[ARGS]", ""),
        ("deepseek", f"{ONE}function{SEP}f\n```json\n", f"\n```{ONE_END}"),
        ("json", '{"name": "f", "arguments": ', "}"),
    ],
)
def test_deltas(family: str, head: str, tail: str) -> None:
    """With deltas the name comes once the arguments begin, and they come as they are written."""
    made = parser(family, TOOLS, deltas=True)
    assert made.feed(head) == []
    assert made.feed('{"x') == [ToolCallDelta("f"), ToolCallDelta(None, '{"x')]
    assert made.feed('": "\\') == [ToolCallDelta(None, '": "\\')]
    assert made.feed('"}"}') == [ToolCallDelta(None, '"}"}')]
    assert made.feed(tail) + made.end() == []
    assert made.found == 1


def test_what_went_out_stays_out() -> None:
    """A call that is cut off after its arguments began is not said again as content."""
    made = parser("hermes", deltas=True)
    assert joined(made.feed('<tool_call>{"name": "f", "arguments": {"x": 1') + made.end()) == [ToolCall("f", '{"x": 1')]


def test_an_answer_in_json_is_not_held_back() -> None:
    """An object whose first key is none of a call's, or that names no offered tool, goes out as soon as that shows."""
    made = parser("llama3", TOOLS)
    assert made.feed('{"ans') == []
    assert joined(made.feed('wer": ')) == ['{"answer": ']
    assert made.feed("4") == ["4"]
    made = parser("json", TOOLS)
    assert joined(made.feed('[{"name": "Paris", ')) == ['[{"name": "Paris", ']


def test_a_broken_call_is_not_held_back() -> None:
    """What stands where JSON has no place for it ends a call, and what was held goes out."""
    made = ToolCallParser()
    assert joined(made.feed("<tool_call>{'name': ")) == ["<tool_call>{'name': "]
    assert joined(made.feed("'f'}" + CALL)) == ["'f'}", WANTED]


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("1", {"type": "integer"}, 1),
        ("1.5", {"type": "number"}, 1.5),
        ("1", {"type": "string"}, "1"),
        ("one", {"type": "integer"}, "one"),
        ("True", {"type": "boolean"}, True),
        ("false", {"type": "boolean"}, False),
        ("null", {"type": ["string", "null"]}, None),
        ("5", {"type": ["string", "null"]}, "5"),
        ("None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
        ('{"a": [1]}', {"type": "object"}, {"a": [1]}),
        ('{"a": [1]}', {"type": "string"}, '{"a": [1]}'),
        ('{"a": [1]}', {"$ref": "#/$defs/A"}, {"a": [1]}),
        ("5", None, "5"),
        ("[5]", None, [5]),
        ("{'a': 1}", {"type": "object"}, "{'a': 1}"),
    ],
)
def test_types_of_values(text: str, schema: Any, value: object) -> None:
    """A value has the type that its schema asks for where its text can be read so; without a type it is text."""
    kinds = Parameters(schema).of(schema)
    assert typed(text, kinds) == value
    assert type(typed(text, kinds)) is type(value)


@pytest.mark.parametrize(
    ("template", "family"),
    [
        ('{% if tools %}<tool_call>\n{"name": …}</tool_call>{% endif %}', "hermes"),
        ("{% if tools %}<tool_call>\n<function=f>\n<parameter=x>{% endif %}", "qwen_xml"),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS] [", "mistral"),
        ("{% if tools %}{{ tools }}{% endif %}<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek"),
        ("<|start_header_id|>{% if tools is not none %}<|python_tag|>", "llama3"),
        ("<|start_header_id|>{% if tools is not none %}", "llama3"),
        ("{% for tool in tools %}{{ tool | tojson }}{% endfor %}", "json"),
        ("{% for message in messages %}{{ message.tool_calls }}{% endfor %}", ""),
        ("", ""),
    ],
)
def test_families_of_templates(template: str, family: str) -> None:
    """What a template mentions tells the family; one that is given no tools has none."""
    assert family_of(template) == family
    assert not family or isinstance(parser(family), ToolCallParser)


def test_markers() -> None:
    """The tags that a family's parser looks for are among those that decoding must leave in the text."""
    for name, family in FAMILIES.items():
        assert {tag for tag in (*family.opens, *family.silent) if tag != "<function="} <= set(markers(name))
    assert markers("") == ()
