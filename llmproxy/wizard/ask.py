"""Questions: with arrow keys and search on a terminal, as plain lines everywhere else."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.markup import escape

_MARGIN = 8


class Stopped(Exception):
    """Ctrl-C, or the end of the input: no more answers will come."""


class Choice(NamedTuple):
    """One of several answers; `refused` says why it cannot be taken."""

    value: Any
    title: str
    ticked: bool = False
    refused: str = ""


# What is wrong with a text, or nothing.
Check = Callable[[str], str]


class Ask(Protocol):
    """All ways to ask; each raises `Stopped`."""

    console: Console

    def say(self, text: str = "", style: str = "") -> None:
        """Tell something; `text` is taken as it is."""
        ...

    def code(self, text: str) -> None:
        """Print something to be copied: no line is broken."""
        ...

    def pick(self, question: str, choices: Sequence[Choice], *, usual: Any = None, search: bool = False) -> Any:
        """The value of one choice."""
        ...

    def tick(self, question: str, choices: Sequence[Choice], *, search: bool = False) -> list[Any]:
        """The values of any number of choices, in their order."""
        ...

    def text(self, question: str, *, usual: str = "", check: Check | None = None) -> str:
        """A line of text, stripped."""
        ...

    def secret(self, question: str) -> str:
        """A line of text that is not shown."""
        ...

    def agree(self, question: str, *, usual: bool = True) -> bool:
        """Yes or no."""
        ...


def prompts(*, plain: bool = False) -> Ask:
    """What suits the terminal; `plain` asks for lines, which a screen reader can follow too."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show a character ends nothing
    console = Console(highlight=False, emoji=False)  # `:free` is no emoji
    known = os.name == "nt" or os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    both = sys.stdin.isatty() and sys.stdout.isatty()
    return Arrows(console) if both and known and not plain else Lines(console)


class _Speaking:
    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str = "", style: str = "") -> None:
        self.console.print(f"[{style}]{escape(text)}[/]" if style else escape(text))

    def code(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)


class Arrows(_Speaking):
    """Questions of `questionary`: arrow keys, and typing narrows a list down."""

    def pick(self, question: str, choices: Sequence[Choice], *, usual: Any = None, search: bool = False) -> Any:
        import questionary

        shown = _pickable(choices, search=search)
        titles = _titles(shown)
        usually = (title for title, one in zip(titles, shown, strict=True) if one.value == usual and not one.refused)
        place = _answer(
            questionary.select(
                question, titles, default=next(usually, None), use_jk_keys=False, use_search_filter=search, pointer=">"
            )
        )
        return shown[place].value

    def tick(self, question: str, choices: Sequence[Choice], *, search: bool = False) -> list[Any]:
        import questionary

        shown = _pickable(choices, search=search)
        if not any(not one.refused for one in shown):
            return []
        places = _answer(
            questionary.checkbox(
                question,
                _titles(shown),
                use_jk_keys=False,
                use_search_filter=search,
                pointer=">",
                instruction=f"(space ticks, enter goes on{', typing searches' if search else ''})",
            )
        )
        return [shown[place].value for place in places]

    def text(self, question: str, *, usual: str = "", check: Check | None = None) -> str:
        import questionary

        def verdict(text: str) -> bool | str:
            return (check(text.strip()) if check is not None else "") or True

        return str(
            _answer(questionary.text(question, default=usual, validate=verdict, validate_while_typing=False))
        ).strip()

    def secret(self, question: str) -> str:
        import questionary

        return str(_answer(questionary.password(question))).strip()

    def agree(self, question: str, *, usual: bool = True) -> bool:
        import questionary

        return bool(_answer(questionary.confirm(question, default=usual, auto_enter=False)))


def _answer(question: Any) -> Any:
    try:
        return question.unsafe_ask()
    except (KeyboardInterrupt, EOFError) as end:
        raise Stopped from end


def _pickable(choices: Sequence[Choice], *, search: bool) -> list[Choice]:
    """A searched list has only what can be taken: the search of `questionary` does not look whether a hit can."""
    return [one for one in choices if not (search and one.refused)]


def _titles(choices: Sequence[Choice]) -> list[Any]:
    import questionary

    width = max(20, shutil.get_terminal_size().columns - _MARGIN)
    return [
        questionary.Choice(shortened(one.title, width), value=place, checked=one.ticked, disabled=one.refused or None)
        for place, one in enumerate(choices)
    ]


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters."""
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _matching(choices: Sequence[Choice], text: str) -> list[Choice]:
    """Those whose title has the text in it; only the one that begins with it where there is one."""
    found = [one for one in choices if text.lower() in one.title.lower()]
    begin = [one for one in found if one.title.lower().startswith(text.lower())]
    return begin if len(begin) == 1 else found


class Lines(_Speaking):
    """Questions as lines: numbers stand for choices, part of a title searches, an empty line takes the usual answer."""

    def __init__(
        self, console: Console, read: Callable[[str], str] = input, read_hidden: Callable[[str], str] | None = None
    ) -> None:
        super().__init__(console)
        self._read = read
        self._read_hidden = read_hidden or (getpass.getpass if sys.stdin.isatty() else read)

    def pick(self, question: str, choices: Sequence[Choice], *, usual: Any = None, search: bool = False) -> Any:
        free = [one for one in choices if not one.refused]
        first = next((one for one in free if one.value == usual), free[0])
        shown, fresh = free, True
        while True:
            if fresh:
                self._list(shown, ["*" if one is first else " " for one in shown])
            told = self._line(f"{question} (number{', or part of a name' if search else ''}; empty: {first.title})")
            if not told:
                return first.value
            if told.isdecimal() and 1 <= int(told) <= len(shown):
                return shown[int(told) - 1].value
            found = _matching(free, told)
            if len(found) == 1:
                return found[0].value
            if not found:
                self.say(f"There is no choice {told!r}.")
            shown, fresh = found or shown, bool(found)

    def tick(self, question: str, choices: Sequence[Choice], *, search: bool = False) -> list[Any]:
        free = [one for one in choices if not one.refused]
        for one in choices:
            if one.refused:
                self.say(f"     -   {one.title} ({one.refused})")
        if not free:
            return []
        self._list(free, ["x" if one.ticked else " " for one in free])
        while True:
            told = self._line(f"{question} (numbers with commas; empty: those with an x; none: 0)")
            if not told:
                return [one.value for one in free if one.ticked]
            words = told.replace(",", " ").split()
            if all(word.isdecimal() and int(word) <= len(free) for word in words):
                wanted = {int(word) for word in words}
                return [one.value for place, one in enumerate(free, 1) if place in wanted]
            self.say(f"Numbers go up to {len(free)}.")

    def text(self, question: str, *, usual: str = "", check: Check | None = None) -> str:
        while True:
            told = self._line(f"{question} [{usual}]" if usual else question) or usual
            wrong = check(told) if check is not None else ""
            if not wrong:
                return told
            self.say(wrong)

    def secret(self, question: str) -> str:
        return self._line(question, self._read_hidden)

    def agree(self, question: str, *, usual: bool = True) -> bool:
        while True:
            told = self._line(f"{question} [{'Y/n' if usual else 'y/N'}]").lower()
            if not told:
                return usual
            if told in ("y", "yes", "n", "no"):
                return told.startswith("y")
            self.say("Please answer y or n.")

    def _list(self, choices: Sequence[Choice], marks: Sequence[str]) -> None:
        for place, (one, mark) in enumerate(zip(choices, marks, strict=True), 1):
            title = shortened(one.title, max(20, self.console.width - _MARGIN - 2))
            self.say(f"{place:4} [{mark}] {title}" if mark.strip() else f"{place:4}     {title}")

    def _line(self, question: str, read: Callable[[str], str] | None = None) -> str:
        try:
            return (read or self._read)(f"{question}: ").strip()
        except (KeyboardInterrupt, EOFError) as end:
            raise Stopped from end
