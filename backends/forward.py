"""Forward passes over rows: with one cache for all of them where the model allows it, else one row after the other.

`begin → advance* → join` reads prompts in; `decode` is one step of all rows that joined, in their order; `leave` takes
one out. Methods that compute may raise what torch raises without memory, or `CacheFull`, and change nothing then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from backends.kvcache import SlotCache, common_tokens
from backends.prefill import Prefill
from backends.prefixes import Prefixes
from backends.rows import Found, Job, Row
from backends.sight import Sight
from backends.solo import has_three_dimensions
from backends.watch import watching

# What is kept of sequences that ended: so much, or a quarter of the memory for those that run.
_PREFIX_BYTES = 1 << 30
_NOTHING: Mapping[str, torch.Tensor] = {}


class Forward(Protocol):
    """The model as the engine sees it. `batched` says whether rows share a forward pass."""

    batched: bool

    def find(self, job: Job, live: Sequence[Row]) -> Found: ...

    def fits(self, lengths: Sequence[int]) -> bool: ...

    def begin(self, prefill: Prefill) -> None: ...

    def advance(self, prefill: Prefill, most_tokens: int) -> torch.Tensor | None: ...

    def join(self, prefill: Prefill, rows: Sequence[Row]) -> None: ...

    def decode(self, rows: Sequence[Row]) -> torch.Tensor: ...

    def leave(self, slot: int, rows: Sequence[Row], *, keep: bool) -> None: ...

    def forget(self) -> None: ...


class SlotForward:
    """All rows in one pass, over a `SlotCache`; what ended is kept for prompts that begin alike."""

    batched = True

    def __init__(self, model: Any, device: str, budget_tokens: int | None = None, token_bytes: int = 0) -> None:
        self.model, self.device = model, device
        self._three_dimensional = has_three_dimensions(model)
        self._budget_tokens, self.token_bytes = budget_tokens, token_bytes
        self.cache = SlotCache(budget_tokens)
        share = _PREFIX_BYTES if budget_tokens is None else budget_tokens * token_bytes // 4
        self._prefix_bytes = min(_PREFIX_BYTES, share)
        self.prefixes = Prefixes(self._prefix_bytes)

    def find(self, job: Job, live: Sequence[Row]) -> Found:
        """What is known of a prompt, from what ended and from the rows that are decoded now; never all of it.

        Of an image all is known or nothing.
        """
        ids = job.ids
        count, known = self.prefixes.find(ids)
        for slot, row in enumerate(live):
            alike = min(common_tokens(row.ids, ids), len(row.ids) - 1)
            if alike > count:
                count, known = alike, self.cache.view(slot, alike)
        # The last token is always read: its logits are wanted.
        count = min(count, len(ids) - 1)
        if job.sight is not None:
            count = job.sight.outside(count)
        return Found(count, known) if count else Found()

    def fits(self, lengths: Sequence[int]) -> bool:
        """Whether rows of so many tokens can be decoded together."""
        return self._budget_tokens is None or len(lengths) * max(lengths) <= self._budget_tokens

    def begin(self, prefill: Prefill) -> None:
        """Prepare to read prompts, with what is known of them."""
        prefill.cache = SlotCache(self._budget_tokens)
        prefill.cache.reserve(len(prefill.jobs), max(len(job.ids) for job in prefill.jobs))
        for slot, found in enumerate(prefill.found):
            if found.known:
                prefill.cache.load(slot, found.known, found.tokens)
        prefill.found.clear()

    def advance(self, prefill: Prefill, most_tokens: int) -> torch.Tensor | None:
        """Read one chunk; the logits (jobs, vocab) after the last one.

        Raises `Left` when the request of a prompt with images is cancelled meanwhile; nothing was read then.
        """
        ids, columns = prefill.chunk(most_tokens)
        if prefill.sight is None:
            logits = self._run(prefill.cache, ids, columns)
        else:
            with watching(self.model, prefill.cancel):
                logits = self.see(prefill.cache, prefill.sight, ids[0], columns[0])
        return logits if prefill.advance(len(ids[0])) else None

    def join(self, prefill: Prefill, rows: Sequence[Row]) -> None:
        """Have the rows of `prefill` decoded from now on, after `rows`."""
        together = [*rows, *prefill.rows]
        self.cache.reserve(len(together), max(len(row.ids) for row in together))
        slot = len(rows)
        for place, job in enumerate(prefill.jobs):
            known = prefill.cache.view(place, len(job.ids))
            for _ in job.rows:
                self.cache.load(slot, known, len(job.ids))
                slot += 1

    def decode(self, rows: Sequence[Row]) -> torch.Tensor:
        """The logits (rows, vocab) after the last token of each row."""
        columns = [len(row.ids) - 1 for row in rows]
        positions = columns
        if self._three_dimensional and any(row.offset for row in rows):
            positions = [column + row.offset for column, row in zip(columns, rows, strict=True)]
        return self.follow([row.ids[-1] for row in rows], columns, positions)

    def follow(self, tokens: list[int], columns: list[int], positions: list[int]) -> torch.Tensor:
        """Read one token in each of the first slots; the logits (rows, vocab) after them."""
        place = self.upright(columns)
        shifted = place if positions is columns else self.upright(positions)
        return self.compute(self.cache, max(columns) + 1, self.upright(tokens), place, shifted)

    def fill(self, prompts: Sequence[list[int]]) -> None:
        """Read prompts into the first slots."""
        longest = max(map(len, prompts))
        places = [[min(place, len(prompt) - 1) for place in range(longest)] for prompt in prompts]
        self._run(
            self.cache,
            [[prompt[place] for place in each] for prompt, each in zip(prompts, places, strict=True)],
            places,
        )

    def upright(self, values: list[int]) -> torch.Tensor:
        """(rows, 1) on the device."""
        return torch.tensor(values, device=self.device)[:, None]

    def leave(self, slot: int, rows: Sequence[Row], *, keep: bool) -> None:
        """Take out the row in `slot`; the last of `rows` comes into its place."""
        ids = rows[slot].ids[:-1]
        if keep and len(ids) * self.token_bytes <= self._prefix_bytes and self.prefixes.wants(ids):
            known = self.cache.view(slot, len(ids))
            self.prefixes.keep(ids, [(keys.clone(), values.clone()) for keys, values in known])
        last = len(rows) - 1
        if slot != last:
            self.cache.move(last, slot, len(rows[last].ids) - 1)
        if last == 0:
            self.empty()

    def empty(self) -> None:
        """The last row is gone: give its memory back."""
        self.cache.clear()

    def forget(self) -> None:
        """Give back the memory of what ended."""
        self.prefixes.clear()

    def see(self, cache: SlotCache, sight: Sight, ids: Sequence[int], columns: list[int]) -> torch.Tensor:
        """Read a part of a prompt with images into the first slot; the logits (1, vocab) after its end."""
        begin, end = columns[0], columns[-1] + 1
        images = {name: tensor.to(self.device) for name, tensor in sight.inputs_of(begin, end).items()}
        positions = sight.positions_of(begin, end)
        if positions is not None:
            positions = positions.to(self.device)
        return self._run(cache, [sight.read_as(ids)], [columns], positions, images)

    def _run(
        self,
        cache: SlotCache,
        ids: list[list[int]],
        columns: list[list[int]],
        positions: torch.Tensor | None = None,
        images: Mapping[str, torch.Tensor] = _NOTHING,
    ) -> torch.Tensor:
        """`positions` (rows, seq) or (3, rows, seq) are the columns by default; `images` are inputs of the model."""
        width = max(places[-1] for places in columns) + 1
        place = torch.tensor(columns, device=self.device)
        tokens = torch.tensor(ids, device=self.device)
        return self.compute(cache, width, tokens, place, place if positions is None else positions, images)

    def compute(
        self,
        cache: SlotCache,
        width: int,
        ids: torch.Tensor,
        place: torch.Tensor,
        positions: torch.Tensor,
        images: Mapping[str, torch.Tensor] = _NOTHING,
    ) -> torch.Tensor:
        """One pass over `ids` (rows, seq) in the columns `place` (rows, seq) of the first slots: the logits after the
        last of each row, (rows, vocab). Columns from `width` on are not looked at."""
        if self._three_dimensional:
            positions = positions.expand(3, -1, -1)
        cache.aim(place, width)
        hidden = torch.arange(width, device=self.device) > place[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=self.device)
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask.masked_fill_(hidden, -torch.inf),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **images,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits
