"""Whatever a model of random weights writes under a grammar parses, and fits."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
import pytest
import torch

from backends.base import Rejected
from backends.structure.forced import MARKERS
from backends.structure.masks import Constraint, GrammarFailed, Grammars, read_structure, token_bytes
from backends.toolcalls import ToolCall, parser
from llmproxy.core.schema import violation
from llmproxy.core.types import JsonObject
from tests.backends.structure.build import END, PADDING, TOKENIZERS, RandomModel, Text, byte_level
from tests.backends.structure.schemas import Schemas

SCHEMAS = TOOL_SETS = 1000
BATCH = 125


@cache
def model(kind: str) -> RandomModel:
    """The random model over a tokenizer; the ones that are no byte-level BPE are a Llama."""
    torch.set_num_threads(1)
    return RandomModel(TOKENIZERS[kind](), llama=kind == "byte fallback")


def answer(schema: JsonObject | None) -> JsonObject:
    """A request for JSON of a schema, or any JSON object."""
    if schema is None:
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def constraint(grammars: Grammars, body: JsonObject, family: str = "hermes") -> Constraint:
    """The constraint of a request."""
    structure = read_structure(body, family)
    assert structure is not None
    return grammars.constraint(structure)


def tool(name: str, parameters: Any = None, **more: Any) -> JsonObject:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


# -- what a text must be --------------------------------------------------------------------------------------------


def check_json(text: str, schema: JsonObject | None) -> None:
    """As the proxy judges an answer."""
    value = orjson.loads(text)
    if schema is None:
        assert isinstance(value, dict)
    else:
        assert violation(schema, value) is None, (schema, text)


def check_calls(text: str, body: JsonObject, family: str, names: set[str]) -> None:
    """As the proxy judges tool calls: at least one, of the tools that may be called, with arguments that fit."""
    schemas = {each["function"]["name"]: each["function"].get("parameters") for each in body["tools"]}
    found = parser(family, body["tools"])
    said = found.feed(text) + found.end()
    calls = [(call.name, call.arguments) for call in said if isinstance(call, ToolCall)]
    assert calls, text
    assert len(calls) == len(said), text
    if body.get("parallel_tool_calls") is False:
        assert len(calls) == 1, text
    for name, arguments in calls:
        assert name in names, text
        value = orjson.loads(arguments)
        assert isinstance(value, dict), text
        assert violation(schemas[name], value) is None, (schemas[name], text)


def ended(texts: list[Text]) -> float:
    return sum(text.ended for text in texts) / len(texts)


# -- random schemas and tools ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", range(0, SCHEMAS, BATCH))
def test_any_schema_is_kept(begin: int) -> None:
    """The JSON that ends by itself fits its schema, and nearly all of it ends, with each kind of tokenizer."""
    kinds = list(TOKENIZERS)
    used = model(kinds[begin // BATCH % len(kinds)])
    schemas = [Schemas(seed).root() for seed in range(begin, begin + BATCH)]
    texts = used.decode([constraint(used.grammars, answer(schema)) for schema in schemas], "hermes")
    for schema, text in zip(schemas, texts, strict=True):
        if text.ended:
            check_json(text.text, schema)
    assert ended(texts) > 0.9


@pytest.mark.parametrize("begin", range(0, TOOL_SETS, BATCH))
def test_any_tool_call_is_kept(begin: int) -> None:
    """Forced calls parse in the family's format, are of the tools asked for, and their arguments fit."""
    kinds, families = list(TOKENIZERS), list(MARKERS)
    used, family = model(kinds[begin // BATCH % len(kinds)]), families[begin // BATCH % len(families)]
    bodies, names = [], []
    for seed in range(begin, begin + BATCH):
        tools = Schemas(10_000 + seed).tools()
        offered = [each["function"]["name"] for each in tools]
        choices: list[tuple[Any, list[str]]] = [
            ("required", offered),
            ({"type": "function", "function": {"name": offered[-1]}}, offered[-1:]),
            (allowed_tools("required", offered[:2]), offered[:2]),
        ]
        choice, wanted = choices[seed % 3]
        bodies.append({"tools": tools, "tool_choice": choice, "parallel_tool_calls": seed % 2 == 0})
        names.append(set(wanted))
    texts = used.decode([constraint(used.grammars, body, family) for body in bodies], family)
    for text, body, wanted_names in zip(texts, bodies, names, strict=True):
        if text.ended:
            check_calls(text.text, body, family, wanted_names)
    assert ended(texts) > 0.8


def allowed_tools(mode: str, names: list[str]) -> JsonObject:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_greedy_texts_fit_too(kind: str) -> None:
    """What a random model likes best fits as well, where it comes to an end."""
    schemas = [Schemas(50_000 + seed).root() for seed in range(20)]
    used = model(kind)
    texts = used.decode([constraint(used.grammars, answer(schema)) for schema in schemas], "hermes", greedy=True)
    for schema, text in zip(schemas, texts, strict=True):
        if text.ended:
            check_json(text.text, schema)
    assert any(text.ended for text in texts)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_json_object_is_any_object(kind: str) -> None:
    """`json_object` gives an object, nested or not, that every parser reads."""
    used = model(kind)
    texts = used.decode([constraint(used.grammars, answer(None)) for _ in range(40)], "hermes")
    for text in texts:
        if text.ended:
            check_json(text.text, None)
    assert ended(texts) > 0.8


@pytest.mark.parametrize("family", MARKERS)
@pytest.mark.parametrize("kind", ["byte-level", "byte-level, special tags", "byte fallback"])
def test_every_family_is_kept_by_every_tokenizer(family: str, kind: str) -> None:
    """Tags of a format may be special tokens or plain text: the calls parse either way."""
    body = {
        "tools": [tool("f", {"type": "object", "properties": {"x": {"type": "boolean"}}})],
        "tool_choice": "required",
    }
    used = model(kind)
    texts = used.decode([constraint(used.grammars, body, family) for _ in range(20)], family)
    for text in texts:
        if text.ended:
            check_calls(text.text, body, family, {"f"})
    assert ended(texts) > 0.8


@pytest.mark.parametrize("family", ["hermes", "qwen_xml", "mistral", "deepseek"])
@pytest.mark.parametrize("kind", ["byte-level", "byte-level, added tags", "byte-level, special tags"])
def test_a_call_that_a_model_opens_is_kept(family: str, kind: str) -> None:
    """After free text and an opening tag, a strict tool's call parses and fits, and nothing but calls follows."""
    used, opening = model(kind), MARKERS[family][0]
    bodies = [{"tools": strict_tools(seed)} for seed in range(10)]
    constraints = [constraint(used.grammars, body, family) for body in bodies]
    for place in constraints:
        for token in used.tokenizer("Well: " + opening, add_special_tokens=False).input_ids:
            place.accept(token)
    texts = used.decode(constraints, family)
    for text, body in zip(texts, bodies, strict=True):
        if text.ended:
            check_calls(opening + text.text, body, family, {each["function"]["name"] for each in body["tools"]})
    assert ended(texts) > 0.6


def strict_tools(seed: int) -> list[JsonObject]:
    """Random tools that all hold to their schema."""
    return [{**each, "function": {**each["function"], "strict": True}} for each in Schemas(70_000 + seed).tools()]


# -- what may be written, and what not ------------------------------------------------------------------------------


def accepts(used: RandomModel, body: JsonObject, text: str, family: str = "hermes") -> bool:
    """Whether a text, in the tokens that its tokenizer makes of it, may be written and end there."""
    place = constraint(used.grammars, body, family)
    row = torch.zeros(used.vocab_size)
    for token in [*used.tokenizer(text, add_special_tokens=False).input_ids, used.tokenizer.eos_token_id]:
        row.zero_()
        place.mask(row)
        if row[token] != 0:
            return False
        place.accept(token)
    return place.finished


STRING = {"type": "string"}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        (POINT, ['{"x": 1}', '{"x":1,"y":-2}', '{\n  "x": 1,\n  "y": 2\n}'], ['{"y": 1}', "{}", '{"x": 1, "z": 2}']),
        ({**POINT, "additionalProperties": STRING}, ['{"x": 1, "z": "a"}'], ['{"x": 1, "z": 2}', '{"x": 1, "y": "a"}']),
        ({**POINT, "required": ["x", "q"]}, ['{"x": 1, "q": [1e3, null]}'.replace("e3", "000")], ['{"x": 1}']),
        ({"properties": {"a": STRING}}, ['{"a": "b"}', "{}"], ['"a"', "[]"]),
        ({"enum": ["a", 1, None, {"k": [2]}]}, ['"a"', "1", "null", '{"k": [2]}'], ['"b"', "2", "{}"]),
        ({"const": 'é"\n'}, ['"é\\"\\n"'], ['"\\u00e9\\"\\n"', '"é"']),
        ({"type": ["integer", "null"], "minimum": 3}, ["3", "null", "12"], ["2", "3.5", "-3", "03"]),
        ({"type": "number", "exclusiveMaximum": 1}, ["0.5", "-3", "0.9990"], ["1", "1.0", "0.99999999999999999"]),
        ({"type": "number", "minimum": -2.5, "maximum": 2}, ["-2.5", "2", "0.25"], ["-2.6", "2.1"]),
        ({"type": "integer"}, ["0", "-12", "9007199254740991"], ["9007199254740992", "1e999", "00"]),
        ({"type": "integer", "multipleOf": 5, "exclusiveMinimum": 5}, ["10", "15"], ["5", "12"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"éß🐦"'], ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"'], ['"xa"', '""']),
        ({"type": "string", "pattern": r"^\S\s[^\s]$"}, ['"a b"', '"é\u00a0b"'], ['"a\ufeffb"', '"\ufeff a"']),
        ({"type": "string", "format": "date"}, ['"2024-02-29"', '"1999-12-31"'], ['"2023-02-29"', '"2024-13-01"']),
        ({"type": "string", "format": "date", "pattern": "^2024"}, ['"2024-02-29"'], ['"2023-01-01"']),
        ({"type": "string", "format": "int32"}, ['"anything"'], ["1"]),
        ({"type": "array", "items": STRING, "minItems": 1, "maxItems": 2}, ['["a"]', '["a", "b"]'], ['["a","b","c"]']),
        ({"type": "array", "prefixItems": [STRING, {"type": "null"}], "items": False}, ['["a", null]'], ["[null]"]),
        ({"anyOf": [STRING, {"type": "array", "items": {"$ref": "#"}}]}, ['[["a"], []]', '"a"'], ["{}", "[1]"]),
        ({"allOf": [POINT, {"properties": {"x": {"minimum": 5}}, "required": ["y"]}]}, ['{"x":5,"y":1}'], ['{"x":5}']),
        ({"$ref": "#/$defs/p", "required": ["y"], "$defs": {"p": POINT}}, ['{"x":5,"y":1}'], ['{"x":5}', '{"y":5}']),
        ({"type": "object", "patternProperties": {"^x": STRING}}, ['{"xa": "b"}', "{}"], ['{"a": "b"}', '{"xa": 1}']),
        ({"type": "object", "additionalProperties": {"type": "null"}, "minProperties": 1}, ['{"a": null}'], ["{}"]),
        ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
        ({"type": "object"}, ["{}", '{"a": {"b": [1, "c", null, true]}}'], ["[]"]),
    ],
)  # fmt: skip
def test_a_grammar_takes_what_fits_and_nothing_else(schema: JsonObject, yes: list[str], no: list[str]) -> None:
    """Values that fit may be written, in the spellings that models use; values that do not may not."""
    used = model("byte-level")
    assert [text for text in yes if not accepts(used, answer(schema), text)] == []
    assert [text for text in no if accepts(used, answer(schema), text)] == []


def test_white_space_ends() -> None:
    """A model that loves white space cannot write it without end."""
    text = "{" + " " * 2
    assert not accepts(model("byte-level"), answer(POINT), text + '"x": 1}')
    assert not accepts(model("byte-level"), answer(POINT), "{\n\n" + '"x": 1}')
    assert not accepts(model("byte-level"), answer(POINT), "{\n" + " " * 40 + '"x": 1}')


@pytest.mark.parametrize("spelling", ['"\\u0078": "a"', '"x": 2', '"\\u0079": 1'])
def test_a_name_is_written_once(spelling: str) -> None:
    """A listed name cannot come again, not even in another spelling, with a value of another kind."""
    schema = {**POINT, "additionalProperties": STRING}
    assert not accepts(model("byte-level"), answer(schema), '{"x": 1, ' + spelling + "}")


CALL = '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'
STRICT = {"tools": [tool("f", POINT, strict=True), tool("g", POINT)]}


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, added tags", "byte-level, special tags", "tiny"])
@pytest.mark.parametrize(
    ("body", "yes", "no"),
    [
        (STRICT, ["", "Hello <tool> {", CALL, "Hello " + CALL + "\n" + CALL], [CALL.replace("1", "null")]),
        ({**STRICT, "parallel_tool_calls": False}, [CALL], [CALL + "\n" + CALL, CALL + " ok"]),
        (STRICT, [CALL.replace('"f"', '"g"').replace('"x"', '"any"')], [CALL.replace('"x"', '"any"')]),
        ({**STRICT, "tool_choice": allowed_tools("auto", ["f"])}, ["Hi", CALL], [CALL.replace('"f"', '"g"')]),
        ({**STRICT, "tool_choice": "required"}, [CALL, CALL + "\n" + CALL], ["Hello", "", "Hello " + CALL]),
        ({**STRICT, **answer(POINT)}, ['{"x": 1}', CALL], ["Hello", CALL + '{"x": 1}']),
    ],
)  # fmt: skip
def test_strict_tools_leave_other_text_free(kind: str, body: JsonObject, yes: list[str], no: list[str]) -> None:
    """Until a model opens a call it writes what it likes; then the call must fit."""
    used = model(kind)
    assert [text for text in yes if not accepts(used, body, text)] == []
    assert [text for text in no if accepts(used, body, text)] == []


@pytest.mark.parametrize("family", ["llama3", "json"])
def test_without_a_tag_an_answer_that_begins_like_a_call_is_one(family: str) -> None:
    """Free text may not begin with a brace unless it is a call."""
    used, key = model("byte-level"), "parameters" if family == "llama3" else "arguments"
    assert accepts(used, STRICT, 'Hello {"name"', family)
    assert accepts(used, STRICT, f'{{"name": "f", "{key}": {{"x": 1}}}}', family)
    assert not accepts(used, STRICT, '{"name": "h"}', family)
    assert not accepts(used, STRICT, "\n{ hello", family)


# -- constraints ----------------------------------------------------------------------------------------------------


def test_only_the_end_follows_a_whole_answer() -> None:
    """After the last brace a constraint is finished, and allows the tokens that end a text and no other."""
    used = model("byte-level")
    place = constraint(used.grammars, answer({"type": "object", "properties": {}}))
    for token in used.tokenizer("{}").input_ids:
        assert not place.finished
        place.accept(token)
    row = torch.zeros(used.vocab_size)
    place.mask(row)
    assert row.isfinite().nonzero().flatten().tolist() == [used.tokenizer.eos_token_id]
    assert place.finished


def test_special_tokens_and_padding_are_never_written() -> None:
    """In a string any character may come, but no special token, and no logit without a token."""
    tokenizer = byte_level("special")
    used = RandomModel(tokenizer)
    place = constraint(used.grammars, answer({"type": "string"}))
    place.accept(tokenizer.convert_tokens_to_ids('"'))
    row = torch.zeros(used.vocab_size)
    place.mask(row)
    for token in (*tokenizer.all_special_ids, *range(len(tokenizer), len(tokenizer) + PADDING)):
        assert row[token] == -torch.inf
    assert row[tokenizer.convert_tokens_to_ids("a")] == 0


def test_several_tokens_may_end_a_text() -> None:
    """Every end token is allowed where the text may end, and nowhere else."""
    tokenizer = byte_level()
    ends = frozenset(tokenizer.convert_tokens_to_ids([END, "<|im_start|>"]))
    place = constraint(Grammars(tokenizer, len(tokenizer), ends), answer({"type": "integer"}))
    allowed = []
    for text in ("4", "2"):
        row = torch.zeros(len(tokenizer))
        place.mask(row)
        allowed.append([bool(row[token].isfinite()) for token in sorted(ends)])
        place.accept(tokenizer.convert_tokens_to_ids(text))
    assert allowed == [[False, False], [True, True]]
    place.accept(max(ends))
    assert place.finished


def test_a_forbidden_token_fails() -> None:
    """Accepting what the mask forbids is an error, not a silent departure from the grammar."""
    used = model("byte-level")
    place = constraint(used.grammars, answer(POINT))
    with pytest.raises(GrammarFailed):
        place.accept(used.tokenizer.convert_tokens_to_ids("x"))
    assert not place.finished
    with pytest.raises(GrammarFailed):
        place.mask(torch.zeros(used.vocab_size))


def test_constraints_of_one_grammar_do_not_meet() -> None:
    """Two answers under the same structure each stand where they stand."""
    used = model("byte-level")
    one, other = constraint(used.grammars, answer(POINT)), constraint(used.grammars, answer(POINT))
    one.accept(used.tokenizer.convert_tokens_to_ids("{"))
    row = torch.zeros(used.vocab_size)
    other.mask(row)
    assert row[used.tokenizer.convert_tokens_to_ids("{")] == 0
    assert row[used.tokenizer.convert_tokens_to_ids("x")] == -torch.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_any_type_are_masked_in_place(dtype: torch.dtype) -> None:
    """A row of a batch is changed where it lies, and allowed logits keep their value."""
    used = model("byte-level")
    batch = torch.full((2, used.vocab_size), 1.5, dtype=dtype)
    constraint(used.grammars, answer(POINT)).mask(batch[1])
    brace = used.tokenizer.convert_tokens_to_ids("{")
    assert batch[1, brace] == 1.5
    assert batch[1].isfinite().sum() < 10
    assert bool((batch[0] == 1.5).all())


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_bytes_of_tokens_make_the_text(kind: str) -> None:
    """The bytes of a text's tokens, one after the other, are the text (after the space that some put before it)."""
    tokenizer = TOKENIZERS[kind]()
    pieces = token_bytes(tokenizer, len(tokenizer) + PADDING)
    text = '{"größe": [1.5, "🐦\\n"]}  <tool_call>\n'
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert b"".join(pieces[token] for token in tokens).decode().lstrip(" ") == text


def test_a_grammar_too_large_for_the_compiler_is_refused() -> None:
    """A schema that the compiler gives up on is the client's to know, before anything is generated."""
    wide = {"type": "string", "pattern": "^(a|b)*a(a|b){60}$", "minLength": 1000, "maxLength": 60_000}
    many = {name: {"type": "array", "items": wide, "maxItems": 1000} for name in map(str, range(400))}
    with pytest.raises(Rejected, match="cannot be enforced"):
        constraint(model("byte-level").grammars, answer({"type": "object", "properties": many}))
