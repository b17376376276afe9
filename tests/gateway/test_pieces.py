"""Reasoning is told from the answer in any chunking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.gateway.pieces import Thinking
from tests.core.properties import cuts, quick


def separated(pieces: list[str]) -> tuple[str, str]:
    """(reasoning, answer) of a text that comes in pieces."""
    thinking = Thinking()
    told = [*map(thinking.feed, pieces), thinking.end()]
    return "".join(reasoning for reasoning, _ in told), "".join(answer for _, answer in told)


@quick
@given(
    st.data(), st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "a", " ", "\n", "</", "<"]), max_size=8)
)
def test_chunking_changes_nothing(data: st.DataObject, parts: list[str]) -> None:
    """Whatever the pieces, the same text is reasoning and the same is the answer."""
    text = "".join(parts)
    reasoning, answer = separated(data.draw(cuts(text)))
    assert (reasoning.lstrip("\n"), answer) == separated([text])


def test_the_line_end_after_the_tag() -> None:
    """The line end after `<think>` belongs to the tag, also when it is a token of its own."""
    assert separated(["<think>", "\n", "hm", "</think>", "hello"]) == ("hm", "hello")


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("hello", "", "hello"),
        ("<think>hm</think>hello", "hm", "hello"),
        ("\n<think>\nhm\n</think>\n\nhello ", "hm\n", "hello "),
        ("<think></think>hello", "", "hello"),
        ("<think>cut off", "cut off", ""),
        ("hello <think>not at the beginning</think>", "", "hello <think>not at the beginning</think>"),
        ("<thinking>", "", "<thinking>"),
        (" leading", "", " leading"),
        ("  ", "", "  "),
        ("", "", ""),
        ("<think>a</thi b</think>c", "a</thi b", "c"),
    ],
)
def test_separation(text: str, reasoning: str, answer: str) -> None:
    """Only a `<think>` block at the very beginning is reasoning; nothing else is lost."""
    assert separated([text]) == (reasoning, answer)
