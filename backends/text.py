"""Tokens → text as it is made: whole characters only, cut at stop strings. Needs a tokenizer's `decode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmproxy.core.text import overlap

_UNFINISHED = "�"


class Detokenizer:
    """Gives the text that each new token adds; holds back an incomplete Unicode character until it is whole."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._shown = 0
        self._before = 0

    def feed(self, token: int) -> str:
        """The text that became certain with `token`."""
        self._tokens.append(token)
        # Two windows that begin at the same token decode alike up to what is new, whatever the tokenizer does to
        # spaces at the beginning of a text.
        old = self._decode(self._tokens[self._before : self._shown])
        new = self._decode(self._tokens[self._before :])
        if new.endswith(_UNFINISHED):
            return ""
        self._before, self._shown = self._shown, len(self._tokens)
        return new[len(old) :]

    def end(self) -> str:
        """What was still held back."""
        old = self._decode(self._tokens[self._before : self._shown])
        new = self._decode(self._tokens[self._before :])
        self._before = self._shown = len(self._tokens)
        return new[len(old) :]


class StopStrings:
    """Cuts a text at the first of several strings, across pieces; what may yet become one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """The text up to a stop string, without what may be the beginning of one."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        self._held += text
        found = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            # The one that is whole first counts, however many of them came in one piece.
            self.stopped = True
            out, self._held = self._held[: min(found)[1]], ""
            return out
        keep = max(overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def end(self) -> str:
        """What was held back and became no stop string."""
        out, self._held = self._held, ""
        return out
