"""Forward passes over one row after the other, each with transformers' own cache (`backends.forward.Forward`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from backends.prefill import Prefill
from backends.rows import Found, Job, Row
from backends.watch import watching


class SoloForward:
    """One row after the other: for attention that a `SlotCache` cannot serve."""

    batched = False

    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device
        self._three_dimensional = has_three_dimensions(model)
        self._caches: list[Any] = []

    def find(self, job: Job, live: Sequence[Row]) -> Found:
        """Nothing is known of any prompt."""
        return Found()

    def fits(self, lengths: Sequence[int]) -> bool:
        """Nobody knows before it is tried."""
        return True

    def begin(self, prefill: Prefill) -> None:
        """Prepare to read one prompt for one row."""
        prefill.cache = DynamicCache(config=self._model.config)

    def advance(self, prefill: Prefill, most_tokens: int) -> torch.Tensor | None:
        """Read one chunk, a prompt with images as one; the logits (1, vocab) after the last one."""
        sight = prefill.sight
        if sight is not None and prefill.read_tokens == 0:
            with watching(self._model, prefill.cancel):
                return self._after(prefill, sight.whole(), sight.tokens)
        [ids], [columns] = prefill.chunk(most_tokens)
        return self._after(prefill, self._text(ids, columns[0], prefill.rows[0]), len(ids))

    def join(self, prefill: Prefill, rows: Sequence[Row]) -> None:
        """Have the row decoded from now on, after `rows`."""
        self._caches[len(rows) :] = [prefill.cache]

    def decode(self, rows: Sequence[Row]) -> torch.Tensor:
        """The logits (rows, vocab) after the last token of each row."""
        steps = [self._text(row.ids[-1:], len(row.ids) - 1, row) for row in rows]
        return torch.cat([self._run(cache, step) for cache, step in zip(self._caches, steps, strict=True)])

    def leave(self, slot: int, rows: Sequence[Row], *, keep: bool) -> None:
        """Take out the row in `slot`; the last one comes into its place."""
        self._caches[slot] = self._caches[-1]
        self._caches.pop()

    def forget(self) -> None:
        """There is nothing to forget."""

    def _after(self, prefill: Prefill, inputs: dict[str, torch.Tensor], size: int) -> torch.Tensor | None:
        logits = self._run(prefill.cache, inputs)
        return logits if prefill.advance(size) else None

    def _text(self, ids: list[int], column: int, row: Row) -> dict[str, torch.Tensor]:
        """What the model takes for text from `column` on."""
        inputs = {"input_ids": torch.tensor([ids])}
        if self._three_dimensional:
            # Such a model would else go on from where the prompt of another row ended.
            inputs["position_ids"] = (torch.arange(column, column + len(ids)) + row.offset).expand(3, 1, -1)
        return inputs

    def _run(self, cache: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        given = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits: torch.Tensor = self._model(**given, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1]


def has_three_dimensions(model: Any) -> bool:
    """Whether a model has rotary positions in three dimensions: of time, height and width."""
    return hasattr(getattr(model, "base_model", None), "get_rope_index")
