"""Questions as plain lines: numbers, parts of names, empty lines, and the end of the input."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llmproxy.wizard.ask import Choice, Lines, Stopped, shortened

FRUIT = [Choice(1, "apple"), Choice(2, "pear"), Choice(3, "pineapple", refused="too large"), Choice(4, "peach")]


class Script:
    """Lines as somebody types them, then the end of the input."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    def __call__(self, question: str) -> str:
        if not self._answers:
            raise EOFError
        return self._answers.pop(0)


def lines(*answers: str) -> Lines:
    """Questions that are answered with these lines."""
    script = Script(*answers)
    return Lines(Console(file=io.StringIO(), emoji=False, width=100), script, script)


def shown(ask: Lines) -> str:
    assert isinstance(ask.console.file, io.StringIO)
    return ask.console.file.getvalue()


@pytest.mark.parametrize(
    ("answers", "value"),
    [(("2",), 2), (("",), 4), (("pear",), 2), (("pe", "2"), 4), (("kiwi", "2"), 2), (("p", "1"), 1), (("9", "1"), 1)],
)
def test_pick(answers: tuple[str, ...], value: int) -> None:
    """A number, nothing for the usual one, or part of a title; what is refused cannot be taken."""
    assert lines(*answers).pick("Which?", FRUIT, usual=4) == value


@pytest.mark.parametrize(
    ("answers", "values"), [(("",), [2]), (("0",), []), (("1, 3",), [1, 4]), (("7", "3 1"), [1, 4])]
)
def test_tick(answers: tuple[str, ...], values: list[int]) -> None:
    """Several numbers, nothing for what is ticked, 0 for none; what is refused is told with its reason."""
    choices = [one._replace(ticked=one.value == 2) for one in FRUIT]
    ask = lines(*answers)
    assert ask.tick("Which?", choices) == values
    assert "pineapple (too large)" in shown(ask)


def test_text() -> None:
    """The usual answer is checked like any other, and asked again until it is right."""
    ask = lines("x", " 7 ")
    assert ask.text("A number", check=lambda text: "" if text.isdecimal() else "A number, please.") == "7"
    assert "A number, please." in shown(ask)
    assert lines("").text("Port", usual="8080") == "8080"


@pytest.mark.parametrize(("answers", "value"), [(("",), True), (("n",), False), (("maybe", "YES"), True)])
def test_agree(answers: tuple[str, ...], value: bool) -> None:
    """Yes or no, and nothing else."""
    assert lines(*answers).agree("Sure?") is value


def test_the_end_of_the_input() -> None:
    """Every question ends with the same exception."""
    ask = lines()
    for question in (
        lambda: ask.pick("?", FRUIT),
        lambda: ask.tick("?", FRUIT),
        lambda: ask.text("?"),
        lambda: ask.secret("?"),
        lambda: ask.agree("?"),
    ):
        with pytest.raises(Stopped):
            question()


def test_what_is_said_is_taken_as_it_is() -> None:
    """Brackets and colons in names of models are no markup."""
    ask = lines()
    ask.say("x [bold]:free: [/] y", "red")
    ask.code("z [dim]")
    assert shown(ask) == "x [bold]:free: [/] y\nz [dim]\n"


def test_shortened() -> None:
    """A title never wraps."""
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abc efgh", 5) == "abc…"
