"""Continuous batching: rows join and leave the batch between two steps. Needs a `Forward`; knows no sockets.

`submit → (admit → read a chunk of a prompt → decode all rows → draw)* → events`. One thread does all of it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from backends.base import Rejected
from backends.forward import Forward
from backends.kvcache import CacheFull
from backends.pace import Pace
from backends.prefill import Prefill
from backends.rows import End, Found, Job, Piece, Row
from backends.sampling import Drawn
from backends.shortage import TooLarge, is_out_of_memory
from backends.watch import Left

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows that are decoded together, answers that may wait, and tokens of prompts that are read in a step."""

    rows: int = 32
    waiting: int = 128
    chunk_tokens: int = 512


class QueueFull(Rejected):
    """Too many answers wait already; after `retry_after_s` half of them have begun, as far as the pace so far tells."""

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} answers are waiting already", kind="rate_limit", status=429, code="queue_full")
        self.retry_after_s = retry_after_s


class Event(NamedTuple):
    """What became of a row: a piece of its text, its end, or the error that ended it."""

    row: Row
    what: Piece | End | Exception


class Engine:
    """Answers that wait, prompts that are read in, and rows that are decoded. `step` until it is `idle`."""

    def __init__(
        self, forward: Forward, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._forward, self._limits = forward, limits or Limits()
        self._waiting: deque[Job] = deque()
        self._prefills: deque[Prefill] = deque()
        self._rows: list[Row] = []
        self._room = self._limits.rows
        self._last_try: Row | None = None  # one for which there was no memory, though it was alone
        self._pace = Pace(clock)
        self._events: list[Event] = []

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (self._waiting or self._prefills or self._rows)

    @property
    def waiting(self) -> int:
        """How many answers have not begun."""
        return sum(len(job.rows) for job in self._waiting)

    @property
    def decoding(self) -> int:
        """How many rows are in the batch."""
        return len(self._rows)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the jobs of one call; raises `QueueFull`, and queues none of them, when too many others wait."""
        self.check(sum(len(job.rows) for job in jobs))
        self._waiting.extend(jobs)

    def check(self, more: int, *, before: int = 0) -> None:
        """Raise `QueueFull` when too many wait for so many `more`; `before` of them are still to be submitted."""
        waiting = self.waiting + before
        if waiting and waiting + more > self._limits.waiting:
            raise QueueFull(waiting, self._pace.seconds_for(waiting / 2))

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One round: a chunk of one prompt, then a token of every row. Raises what the model raises: then `fail`."""
        self._events = self._drop_cancelled()
        try:
            self._admit()
            if self._prefills:
                self._read()
            if self._rows:
                self._draw(0, self._forward.decode(self._rows))
        except (CacheFull, RuntimeError) as error:
            if not isinstance(error, CacheFull) and not is_out_of_memory(error):
                raise
            _log.warning("no memory for %d rows: %s", len(self._rows) + len(self._reading()), error)
            self._make_room()
        return self._events

    def fail(self, error: Exception) -> list[Event]:
        """Give up all that was begun, and tell what happened before `step` raised; what waits goes on."""
        rows = [*self._rows, *self._reading()]
        self._prefills.clear()
        while self._rows:
            self._leave(len(self._rows) - 1, keep=False)
        return [*self._events, *(Event(row, error) for row in rows)]

    # -- in and out ---------------------------------------------------------------------------------------------------

    def _reading(self) -> list[Row]:
        return [row for prefill in self._prefills for row in prefill.rows]

    def _admit(self) -> None:
        """Begin to read what waits, in its order: short prompts together, and one long one at a time beside them."""
        while group := self._next_group():
            for job, _ in group:
                self._waiting.remove(job)
            # It counts as begun from here on, so that nothing is lost if there is no memory for it.
            self._prefills.append(Prefill(group))
            self._forward.begin(self._prefills[-1])

    def _next_group(self) -> list[tuple[Job, Found]]:
        """What can be read in together, a prompt with images alone; its jobs are still in the queue."""
        begun = [*self._rows, *self._reading()]
        lengths = [len(row.ids) + 1 for row in begun]
        chunk, together = self._limits.chunk_tokens, self._forward.batched
        reads_long = any(prefill.unread_tokens > chunk for prefill in self._prefills)
        group: list[tuple[Job, Found]] = []
        longest = 0
        for job in list(self._waiting):
            room = self._room - len(lengths)
            if room <= 0 or (group and not together):
                break
            if group and job.sight is not None:
                continue
            found = self._forward.find(job, self._rows)
            unread = len(job.ids) - found.tokens
            if unread > chunk and (reads_long or group):
                continue  # short prompts may overtake a long one while another long one is read
            longest = max(longest, unread)
            if group and (len(group) + 1) * longest > chunk:
                break
            self._split(job, room if together else 1)
            more = [len(job.ids) + 1] * len(job.rows)
            if lengths and not self._forward.fits(lengths + more):
                break
            group.append((job, found))
            lengths += more
            if unread > chunk or job.sight is not None:
                break
        return group

    def _split(self, job: Job, room: int) -> None:
        """Leave the rows of `job` beyond `room` for later, next in the queue."""
        if len(job.rows) > room:
            self._waiting.insert(self._waiting.index(job) + 1, Job(job.rows[room:]))
            del job.rows[room:]

    def _drop_cancelled(self) -> list[Event]:
        slots = [slot for slot, row in enumerate(self._rows) if row.cancel.is_set()]
        gone = [self._leave(slot, keep=True) for slot in reversed(slots)]
        for job in [job for job in self._waiting if job.is_cancelled]:
            self._waiting.remove(job)
            gone += job.rows
        # Prompts that are read together are through after one step: only one that is read alone is worth a break.
        for prefill in [prefill for prefill in self._prefills if [job.is_cancelled for job in prefill.jobs] == [True]]:
            self._prefills.remove(prefill)
            gone += prefill.rows
        return [Event(row, End("cancelled", row.completion_tokens)) for row in gone]

    def _leave(self, slot: int, *, keep: bool) -> Row:
        row = self._rows[slot]
        self._forward.leave(slot, self._rows, keep=keep)
        self._rows[slot] = self._rows[-1]
        self._rows.pop()
        return row

    # -- steps --------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """A chunk of the prefill whose turn it is; when it is through, its rows join the others."""
        prefill = self._prefills[0]
        try:
            logits = self._forward.advance(prefill, self._limits.chunk_tokens)
        except Left:  # the next step drops it
            return
        if logits is None:
            self._prefills.rotate(-1)
            return
        begin = len(self._rows)
        self._forward.join(prefill, self._rows)
        self._prefills.popleft()
        self._rows += prefill.rows
        self._pace.count(len(prefill.rows), self.waiting)
        self._draw(begin, logits[[place for place, job in enumerate(prefill.jobs) for _ in job.rows]])

    def _draw(self, begin: int, logits: torch.Tensor) -> None:
        """A token for each row from `begin` on, by its `logits` (rows, vocab)."""
        rows = self._rows[begin:]
        likeliest = _likeliest(logits) if any(row.plain for row in rows) else []
        ended = []
        for place, row in enumerate(rows):
            try:
                drawn = Drawn(likeliest[place]) if row.plain else row.draw(logits[place])
                said: list[Piece | End | Exception] = list(row.take(drawn))
            except Exception as error:  # what is wrong with one row must not end the others
                said = [error]
            self._events += [Event(row, what) for what in said]
            if said and not isinstance(said[-1], Piece):
                ended.append(begin + place)
        for slot in reversed(ended):
            self._leave(slot, keep=True)
        self._room = min(self._limits.rows, self._room + len(ended))

    def _make_room(self) -> None:
        """Send half of the rows back to the queue, those that began last, and give back the memory of what ended.

        One that does not even fit alone is tried once more, now that nothing else is there; then it fails.
        """
        reading = self._reading()
        count = len(self._rows) + len(reading)
        self._prefills.clear()
        if count <= 1:
            [row] = reading or [self._leave(0, keep=False)]
            if row is self._last_try:
                self._events.append(Event(row, TooLarge()))
            else:
                self._waiting.appendleft(Job([row]))
                self._room = 1
            self._last_try = None if row is self._last_try else row
            self._forward.forget()
            return
        self._room = count // 2
        back = [Job([row]) for row in reading]
        # Rows that do not share a pass may have been decoded in part: only reading them again is sure.
        while len(self._rows) > (self._room if self._forward.batched else 0):
            slot = min(range(len(self._rows)), key=lambda place: self._rows[place].completion_tokens)
            back.append(Job([self._leave(slot, keep=False)]))
        self._waiting.extendleft(back)
        self._forward.forget()


def _likeliest(logits: torch.Tensor) -> list[int]:
    """The token of the greatest logit in each row of `logits` (rows, vocab)."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1).tolist()
    # numpy takes a tenth of the time that torch takes on a CPU.
    return logits.float().numpy().argmax(axis=-1).tolist()
