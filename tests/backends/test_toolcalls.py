"""Tool calls are found in a model's text in any chunking."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.toolcalls import ToolCall, ToolCallParser
from tests.core.properties import cuts, quick

CALL = '<tool_call>\n{"name": "f", "arguments": {"x": [1, "<tool_call"]}}\n</tool_call>'
WANTED = ToolCall("f", '{"x":[1,"<tool_call"]}')
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


def parsed(pieces: list[str]) -> list[str | ToolCall]:
    """What the pieces say, neighbouring texts joined."""
    parser = ToolCallParser()
    found = [said for piece in pieces for said in parser.feed(piece)] + parser.end()
    joined: list[str | ToolCall] = []
    for said in found:
        if isinstance(said, str) and joined and isinstance(joined[-1], str):
            joined[-1] += said
        else:
            joined.append(said)
    return joined


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
        if "</tool_call>" not in str(given)
    )
    found = parsed(data.draw(cuts(text)))
    assert [(call.name, json.loads(call.arguments)) for call in found if isinstance(call, ToolCall)] == calls
    assert all(isinstance(call, ToolCall) for call in found)


def test_a_call_comes_as_soon_as_it_is_closed() -> None:
    """Text before a call goes out at once, a call with its closing tag, and nothing twice."""
    parser = ToolCallParser()
    assert parser.feed("hi <tool_c") == ["hi "]
    assert parser.feed("all>") == []
    assert parser.feed('{"name": "f", "arguments": {}}</tool_call') == []
    assert parser.feed(">") == [ToolCall("f", "{}")]
    assert parser.end() == []
    assert parser.found == 1


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
        ("<tool_call>{oops</tool_call>", ["<tool_call>{oops</tool_call>"]),
        ('<tool_call>{"arguments": {}}</tool_call>', ['<tool_call>{"arguments": {}}</tool_call>']),
        ("<tool_call>[1]</tool_call>", ["<tool_call>[1]</tool_call>"]),
        ("ends in <tool", ["ends in <tool"]),
        pytest.param(
            "<tool_call>{cut off", ["<tool_call>{cut off"],
            ),
    ],
)  # fmt: skip
def test_what_texts_say(text: str, said: list[str | ToolCall]) -> None:
    """Calls are read in the usual spellings; what cannot be read stays text."""
    assert parsed([text]) == said


def test_text_after_a_call() -> None:
    """Text after a call keeps the spaces between its words, however it comes."""
    pieces = [CALL, "\n", "It", " is", " sunny", "."]
    assert parsed(pieces) == [WANTED, "It is sunny."]
