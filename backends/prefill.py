"""Prompts on their way into the batch: which of their tokens are read next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backends.base import Cancel
from backends.rows import Found, Job, Row
from backends.sight import Sight


class Prefill:
    """Prompts that are read in: several short ones at once, or in chunks one that is long or has images."""

    def __init__(self, group: Sequence[tuple[Job, Found]]) -> None:
        self.jobs, self.found = [job for job, _ in group], [found for _, found in group]
        self.cache: Any = None
        self._read = [found.tokens for found in self.found]
        for job, found in group:
            for row in job.rows:
                row.cached_tokens = found.tokens if row.cached_tokens is None else row.cached_tokens

    @property
    def rows(self) -> list[Row]:
        """The rows that wait for it."""
        return [row for job in self.jobs for row in job.rows]

    @property
    def unread_tokens(self) -> int:
        """How many tokens of the longest prompt are still to be read."""
        return max(len(job.ids) - read for job, read in zip(self.jobs, self._read, strict=True))

    @property
    def read_tokens(self) -> int:
        """How many tokens of the first prompt are read or were known."""
        return self._read[0]

    @property
    def sight(self) -> Sight | None:
        """The images of the prompt, which is alone then."""
        return self.jobs[0].sight

    @property
    def cancel(self) -> Cancel:
        """That of the prompt with images."""
        return self.jobs[0].rows[0].cancel

    def chunk(self, most_tokens: int) -> tuple[list[list[int]], list[list[int]]]:
        """The next tokens of each prompt and their columns; what is shorter repeats its last token in its place.

        Images are never cut: where one is next, it is all of it.
        """
        size = min(most_tokens, self.unread_tokens)
        if self.sight is not None:
            size = self.sight.stop(self._read[0], self._read[0] + size) - self._read[0]
        columns = [
            [min(read + step, len(job.ids) - 1) for step in range(size)]
            for job, read in zip(self.jobs, self._read, strict=True)
        ]
        ids = [[job.ids[place] for place in places] for job, places in zip(self.jobs, columns, strict=True)]
        return ids, columns

    def advance(self, size: int) -> bool:
        """`size` more tokens were read; whether that was all."""
        self._read = [min(read + size, len(job.ids)) for job, read in zip(self.jobs, self._read, strict=True)]
        return self.unread_tokens == 0
