"""Calls for vectors that wait together are computed together. Runs in the worker process; knows no torch.

Whatever waits while a batch runs is the next batch. A step takes texts from all calls in turn, so that one line of a
search does not wait until a whole library is embedded.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backends.base import Cancel, EmbeddingHandler, Embeddings, Rejected
from backends.figures import Figures
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.runner import Letters, Replies, refusal
from backends.vectors import EmbeddingRequest, Text, Vector, VectorCache, embedding_reply, read_embedding
from llmproxy.core.text import CHARACTERS_PER_TOKEN

_log = logging.getLogger(__name__)

STEP_TOKENS = 8192
CACHE_BYTES = 64 * 1024 * 1024

# Padding is worth less than one more pass: an eighth of a batch, or so many tokens, are not looked at.
_PADDING_SHARE = 1 / 8
_PADDING_TOKENS = 64


def by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """The places of `lengths` in batches, longest first: each of at most `max_tokens` with its padding, or one text."""
    batch: list[int] = []
    longest = real = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        cells, filled = longest * (len(batch) + 1), real + lengths[place]
        if batch and (cells > max_tokens or cells - filled > max(_PADDING_TOKENS, cells * _PADDING_SHARE)):
            yield batch
            batch, real = [], 0
        longest = longest if batch else lengths[place]
        batch.append(place)
        real += lengths[place]
    if batch:
        yield batch


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request for vectors; raises `ValueError` without texts.

    `done` is called once, in a step: with the vectors, with what went wrong (`Rejected` where the
    request is bad), or with None when the call was cancelled.
    """

    texts: Sequence[Text]
    cancel: Cancel
    done: Callable[[Embeddings | Exception | None], None]

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("a call needs at least one text")


class _Work:
    """What was found of a call, and which of its texts are left (the longest last, so that like goes with like)."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.found: dict[int, Vector] = {}
        self.left: list[int] = []

    def look_up(self, cache: VectorCache | None) -> None:
        """Take from `cache` what it has; the rest is left to do."""
        for place, text in enumerate(self.call.texts):
            vector = cache.get(text) if cache is not None else None
            if vector is not None:
                self.found[place] = vector
            else:
                self.left.append(place)
        self.left.sort(key=lambda place: _estimate(self.call.texts[place]))

    def result(self) -> Embeddings:
        vectors = [self.found[place] for place in range(len(self.call.texts))]
        return Embeddings(np.stack([vector.row for vector in vectors]), [vector.tokens for vector in vectors])


class _All:
    """Given up when everybody gave up."""

    def __init__(self, cancels: Sequence[Cancel]) -> None:
        self._cancels = cancels

    def is_set(self) -> bool:
        return all(cancel.is_set() for cancel in self._cancels)


class MicroBatch:
    """Waiting calls of one model, and the steps that serve them; a step computes texts of about `max_tokens`.

    For one thread: that which runs the model.
    """

    def __init__(
        self, model: EmbeddingHandler, *, max_tokens: int = STEP_TOKENS, cache: VectorCache | None = None
    ) -> None:
        self._model = model
        self._max_tokens = max_tokens
        self._cache = cache
        self._open: list[_Work] = []

    @property
    def is_busy(self) -> bool:
        """Whether a call waits."""
        return bool(self._open)

    def add(self, call: Call) -> float:
        """Let `call` take part in the next step; returns the share of its texts that were known."""
        work = _Work(call)
        work.look_up(self._cache)
        self._open.append(work)
        return len(work.found) / len(call.texts)

    def step(self) -> int:
        """Compute one batch of the texts that wait, and end the calls that are complete; returns how many texts."""
        self._end_complete()
        taken = self._take()
        self._run(taken)
        self._end_complete()
        # Calls that found no room go first in the next step.
        self._open.sort(key=lambda work: work in taken)
        return sum(map(len, taken.values()))

    def _take(self) -> dict[_Work, list[int]]:
        """One text of each call in turn, until a step is full; a text that does not fit is left for the next."""
        taken: dict[_Work, list[int]] = {}
        room, turn = self._max_tokens, deque(work for work in self._open if work.left)
        while turn and room > 0:
            work = turn.popleft()
            size = _estimate(work.call.texts[work.left[-1]])
            if taken and size > room:
                continue
            taken.setdefault(work, []).append(work.left.pop())
            room -= size
            if work.left:
                turn.append(work)
        return taken

    def _run(self, taken: dict[_Work, list[int]]) -> None:
        """Compute what was taken; where that fails, each call alone, so that only the bad one gets the error."""
        if not taken:
            return
        try:
            self._compute(taken)
        except Exception as error:  # a handler raises whatever it likes, and that is the answer to the call
            if len(taken) == 1:
                for work in taken:
                    self._end(work, error)
                return
            for work, places in taken.items():
                self._run({work: places})

    def _compute(self, taken: dict[_Work, list[int]]) -> None:
        keys = [[_hashable(work.call.texts[place]) for place in places] for work, places in taken.items()]
        texts = list(dict.fromkeys(key for some in keys for key in some))
        cancel = _All([work.call.cancel for work in taken])
        made = self._model.embed(texts, cancel)
        if cancel.is_set():
            return
        # A row of its own: a view would keep the whole batch in memory for as long as one text is cached.
        rows = [Vector(row.copy(), tokens) for row, tokens in zip(made.vectors, made.tokens, strict=True)]
        vectors = dict(zip(texts, rows, strict=True))
        if self._cache is not None:
            for text, vector in vectors.items():
                self._cache.put(text, vector)
        for (work, places), some in zip(taken.items(), keys, strict=True):
            work.found.update(zip(places, (vectors[key] for key in some), strict=True))

    def _end_complete(self) -> None:
        for work in list(self._open):
            if work.call.cancel.is_set():
                self._end(work, None)
            elif len(work.found) == len(work.call.texts):
                self._end(work, work.result())

    def _end(self, work: _Work, outcome: Embeddings | Exception | None) -> None:
        self._open.remove(work)
        work.call.done(outcome)


class EmbeddingRunner:
    """Calls of a mailbox through a `MicroBatch`, answers to an outbox. Implements `runner.Runner` for any handler.

    `window_s` is how long a call that comes alone waits for others; with 0, only what comes while a batch runs goes
    together. At most `cache_bytes` of vectors are kept.
    """

    def __init__(
        self, model: EmbeddingHandler, name: str, *, window_s: float = 0.0, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._name = name
        self._window_s = window_s
        self._figures = Figures()
        self._waiting = MicroBatch(model, cache=VectorCache(cache_bytes) if cache_bytes else None)

    def run(self, mailbox: Letters, outbox: Replies) -> None:
        """Answer calls for ever, in the thread that loaded the model."""
        while True:
            self.turn(mailbox, outbox)

    def turn(self, mailbox: Letters, outbox: Replies) -> None:
        """Take in what came (with nothing to do, wait for it), and compute one batch."""
        letters = mailbox.take(wait=not self._waiting.is_busy)
        if self._window_s and not self._waiting.is_busy:
            time.sleep(self._window_s)
            letters += mailbox.take(wait=False)
        for letter in letters:
            self._take_in(letter, mailbox, outbox)
        if texts := self._waiting.step():
            self._figures.observe("batch_rows", texts)
        outbox.put(self._figures.frames(last=not self._waiting.is_busy))

    def _take_in(self, letter: Letter, mailbox: Letters, outbox: Replies) -> None:
        def end(frames: list[Frame]) -> None:
            outbox.put(frames)
            mailbox.ended(letter.call)

        try:
            if letter.request["endpoint"] != "embeddings":
                raise Rejected(
                    f"{self._name} makes embeddings only",
                    kind="unsupported",
                    code="unsupported_endpoint",
                    param="model",
                )
            request = read_embedding(letter.request["body"])
        except Rejected as error:
            end([refusal(letter.call, error)])
            return
        self._figures.observe("queue_seconds", self._figures.now() - letter.came_s)
        known = self._waiting.add(
            Call(request.texts, letter.cancel, lambda outcome: end(self._frames(letter.call, request, outcome)))
        )
        self._figures.observe("cached_share", known)

    def _frames(self, call: int, request: EmbeddingRequest, outcome: Embeddings | Exception | None) -> list[Frame]:
        """What the server is told of a call."""
        if isinstance(outcome, Embeddings):
            try:
                return [Frame(Kind.DATA, call, embedding_reply(request, outcome, self._name)), Frame(Kind.DONE, call)]
            except Rejected as error:
                outcome = error
        if outcome is None:
            return [Frame(Kind.DONE, call)]
        if not isinstance(outcome, Rejected):
            _log.error("a call of %s failed", self._name, exc_info=outcome)
        return [refusal(call, outcome)]


def _hashable(text: Text) -> Any:
    return text if isinstance(text, str) else tuple(text)


def _estimate(text: Text) -> int:
    """About how many tokens a text has: exact where it is token ids, and at least 1."""
    return 1 + len(text) // CHARACTERS_PER_TOKEN if isinstance(text, str) else len(text)
