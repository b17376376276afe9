"""One answer in the making: its tokens so far, how the next one is drawn, and the text that came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from backends.base import Cancel
from backends.kvcache import KeyValues
from backends.sampling import Constraint, Drawn, Sampler
from backends.sight import Sight
from backends.text import Detokenizer, StopStrings

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that became certain, how many tokens were drawn since the last piece, and their log probabilities."""

    text: str
    count: int = 0
    tokens: tuple[tuple[str, Drawn], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended (`stop`, `length`, `cancelled`), and how many tokens were drawn for it."""

    reason: str
    completion_tokens: int


class Row:
    """One answer. `ids` are its tokens with those of the prompt; keys and values are known of all but the last one.

    Where the prompt has images (`sight`), `ids` tell which: there they are negative. Text after the prompt has the
    position of its column and `offset`. `owner` and `index` tell whose row it is; the engine does not look at them.
    `cached_tokens` of the prompt were known when it was first read.
    """

    def __init__(
        self,
        owner: object,
        index: int,
        prompt: Sequence[int],
        sampler: Sampler,
        decode: Decode,
        *,
        limit_tokens: int,
        ends: frozenset[int],
        stop: Sequence[str],
        logprobs: bool,
        cancel: Cancel,
        constraint: Constraint | None = None,
        sight: Sight | None = None,
    ) -> None:
        self.owner, self.index = owner, index
        self.ids = list(prompt)
        self.sight, self.offset = sight, sight.offset if sight is not None else 0
        self.cancel = cancel
        self.completion_tokens = 0
        self.cached_tokens: int | None = None
        self._sampler, self._constraint = sampler, constraint
        self._decode = decode
        self.limit_tokens = limit_tokens
        self._ends, self._logprobs = ends, logprobs
        self._text, self._stops = Detokenizer(decode), StopStrings(stop)
        self._told, self._untold = 0, list[tuple[str, Drawn]]()

    @property
    def plain(self) -> bool:
        """Whether its next token is the likeliest one, whatever came before."""
        return self._sampler.plain and self._constraint is None

    def draw(self, logits: torch.Tensor) -> Drawn:
        """The next token from `logits` (vocab,)."""
        return self._sampler.draw(logits, self._constraint)

    def take(self, drawn: Drawn) -> Iterator[Piece | End]:
        """Go on with a token: the text that it makes certain, and the end where it is the last one."""
        token = drawn.token
        self.ids.append(token)
        self.completion_tokens += 1
        if self._constraint is not None:
            self._constraint.accept(token)
        if token in self._ends:
            yield from self._end("stop")
            return
        text = self._stops.feed(self._text.feed(token))
        if self._logprobs:
            self._untold.append((self._decode([token]), drawn))
        if text:
            yield self._piece(text)
        if self._stops.stopped or (self._constraint is not None and self._constraint.finished):
            yield from self._end("stop")
        elif self.completion_tokens >= self.limit_tokens:
            yield from self._end("length")

    def _end(self, reason: str) -> Iterator[Piece | End]:
        if not self._stops.stopped and (rest := self._stops.feed(self._text.end()) + self._stops.end()):
            yield self._piece(rest)
        yield End("stop" if self._stops.stopped else reason, self.completion_tokens)

    def _piece(self, text: str) -> Piece:
        piece = Piece(text, self.completion_tokens - self._told, tuple(self._untold))
        self._told, self._untold = self.completion_tokens, []
        return piece


class Found(NamedTuple):
    """How many tokens of a prompt are known, and the keys and values that begin with them."""

    tokens: int = 0
    known: KeyValues | None = None


@dataclass(slots=True, eq=False)
class Job:
    """Answers to one prompt, which is read once for all of them. They belong to one call."""

    rows: list[Row]

    @property
    def ids(self) -> list[int]:
        """The tokens to read."""
        return self.rows[0].ids

    @property
    def sight(self) -> Sight | None:
        """What the prompt shows besides its text."""
        return self.rows[0].sight

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for the answers any more."""
        return self.rows[0].cancel.is_set()
