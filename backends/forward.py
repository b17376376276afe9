"""Forward passes over rows: with one cache for all of them where the model allows it, else one row after the other.

`begin → advance* → join` reads prompts in; `decode` is one step of all rows that joined, in their order; `leave` takes
one out. Methods that compute may raise what torch raises without memory, or `CacheFull`, and change nothing then.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from backends.kvcache import SlotCache, common_tokens
from backends.prefill import Prefill
from backends.prefixes import Prefixes
from backends.rows import Found, Job, Row
from backends.sight import Sight
from backends.solo import SoloForward, has_three_dimensions
from backends.watch import watching

_log = logging.getLogger(__name__)

# What is kept of sequences that ended: so much, or a quarter of the memory for those that run.
_PREFIX_BYTES = 1 << 30
_NOTHING: Mapping[str, torch.Tensor] = {}
# What is read at once of the example: so little that it is read in parts.
_EXAMPLE_TOKENS = 32
# Of a model that takes other arguments, or another cache: it is run in its own way.
_MISMATCHES = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError)


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
        self._model, self._device = model, device
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
            with watching(self._model, prefill.cancel):
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
        columns = [[len(row.ids) - 1] for row in rows]
        positions = None
        if self._three_dimensional and any(row.offset for row in rows):
            positions = torch.tensor([[len(row.ids) - 1 + row.offset] for row in rows], device=self._device)
        return self._run(self.cache, [row.ids[-1:] for row in rows], columns, positions)

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
            self.cache.clear()

    def forget(self) -> None:
        """Give back the memory of what ended."""
        self.prefixes.clear()

    def see(self, cache: SlotCache, sight: Sight, ids: Sequence[int], columns: list[int]) -> torch.Tensor:
        """Read a part of a prompt with images into the first slot; the logits (1, vocab) after its end."""
        begin, end = columns[0], columns[-1] + 1
        images = {name: tensor.to(self._device) for name, tensor in sight.inputs_of(begin, end).items()}
        positions = sight.positions_of(begin, end)
        if positions is not None:
            positions = positions.to(self._device)
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
        place = torch.tensor(columns, device=self._device)
        if positions is None:
            positions = place
        if self._three_dimensional:
            positions = positions.expand(3, -1, -1)
        cache.aim(place, width)
        hidden = torch.arange(width, device=self._device) > place[:, None, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype, device=self._device)
        out = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            position_ids=positions,
            attention_mask=mask.masked_fill_(hidden, -torch.inf),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **images,
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits


class Example(NamedTuple):
    """A short prompt with images."""

    ids: Sequence[int]
    sight: Sight


@torch.inference_mode()
def forward_of(model: Any, device: str, example: Example | None = None) -> Forward:
    """The way to run `model`: batched where that gives the same logits as the model alone, for the `example` too."""
    layers = DynamicCache(config=model.config).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return SoloForward(model, device)
    token_bytes = _probe(model, device)
    if not token_bytes or (example is not None and not _sees_alike(model, device, example)):
        return SoloForward(model, device)
    return SlotForward(model, device, _free_bytes(device) // token_bytes, token_bytes)


def _probe(model: Any, device: str) -> int:
    """Compare two rows of unequal length with each one alone: the bytes of a token, 0 where they differ."""
    sequences = [[1, 2, 3, 4, 5, 6, 7], [3, 1, 2, 5]]
    forward = SlotForward(model, device)
    try:
        cache = SlotCache()
        both = [sequence[:-1] + sequence[-2:-1] * (7 - len(sequence)) for sequence in sequences]
        places = [[min(place, len(sequence) - 2) for place in range(6)] for sequence in sequences]
        forward._run(cache, both, places)
        logits = forward._run(cache, [ids[-1:] for ids in sequences], [[len(ids) - 1] for ids in sequences])
        alone = torch.cat([model(torch.tensor([ids], device=device)).logits[:, -1] for ids in sequences])
    except torch.OutOfMemoryError:
        raise
    except _MISMATCHES as error:
        _log.info("%s is run row by row: %s", type(model).__name__, error)
        return 0
    return cache.token_bytes if _are_alike(logits, alone, model.dtype) else 0


def _sees_alike(model: Any, device: str, example: Example) -> bool:
    """Compare a prompt with images, read in parts, with the model alone.

    Some models let the tokens of an image see what comes after them, which the mask over slots does not.
    """
    ids, sight = example
    if not sight.seen:
        return False
    forward, cache, end = SlotForward(model, device), SlotCache(), 0
    logits = torch.empty(0)
    try:
        while end < len(ids):
            begin, end = end, sight.stop(end, min(end + _EXAMPLE_TOKENS, len(ids)))
            logits = forward.see(cache, sight, ids[begin:end], list(range(begin, end)))
        whole = {name: tensor.to(device) for name, tensor in sight.whole().items()}
        return _are_alike(logits, model(**whole).logits[:, -1], model.dtype)
    except torch.OutOfMemoryError:
        raise
    except _MISMATCHES as error:
        _log.info("%s is run row by row for its images: %s", type(model).__name__, error)
        return False


def _are_alike(logits: torch.Tensor, alone: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether logits differ from those of the model alone by no more than rounding in `dtype` explains."""
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    return float((logits.float() - alone.float()).norm()) <= tolerance * float(alone.float().norm())


def _free_bytes(device: str) -> int:
    """What the keys and values of all rows may take."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    if device.startswith("mps"):
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) // 2
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
