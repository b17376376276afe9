"""Keys and values of many sequences in one tensor a layer, in the place of transformers' own cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

# For each layer the keys and the values of one sequence, (heads, seq, head_dim) each.
KeyValues = list[tuple[torch.Tensor, torch.Tensor]]

_LENGTH_STEP = 256


class CacheFull(Exception):
    """The cache would need more memory than it may take."""


class SlotCache:
    """For each layer keys and values (slots, heads, length, head_dim), written in place; grows with use.

    A model gets it as `past_key_values`, with explicit `position_ids` and a 4D mask. A token is in the column of its
    place in the sequence, whatever its position is, and a forward pass is over the first slots: whoever takes a
    sequence out moves another one there.
    """

    def __init__(self, budget_tokens: int | None = None) -> None:
        """`budget_tokens` is the most that slots times length may be."""
        self._budget_tokens = budget_tokens
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._slots = self._length = self._width = 0
        self.moves = 0  # how often keys and values have come to another place in memory
        self._rows = self._columns = torch.empty(0, dtype=torch.long)

    @property
    def token_bytes(self) -> int:
        """What one token takes; 0 before the first forward pass."""
        held = (*self._keys, *self._values)
        return sum(tensor.shape[1] * tensor.shape[3] * tensor.element_size() for tensor in held)

    @property
    def allocated_tokens(self) -> int:
        """For how many tokens there is memory: slots times length."""
        return self._slots * self._length

    def reserve(self, slots: int, length: int) -> None:
        """Have room for `slots` sequences of up to `length` tokens; what is beyond may go where memory is short.

        Raises `CacheFull`, and changes nothing, when that is over the budget.
        """
        if slots <= self._slots and length <= self._length:
            return
        most = slots * length if self._budget_tokens is None else self._budget_tokens
        if slots * length > most:
            raise CacheFull(f"{slots} sequences of {length} tokens are more than {most} tokens")
        ample = max(self._slots, 1 << (slots - 1).bit_length())
        longer = max(self._length, -(-length // _LENGTH_STEP) * _LENGTH_STEP)
        if self._budget_tokens is not None and ample * longer > most:
            ample, longer = slots, min(longer, most // slots)
        for tensors in (self._keys, self._values):
            for layer, tensor in enumerate(tensors):
                tensors[layer] = _resized(tensor, ample, longer)
        self.moves += 1
        self._slots, self._length = ample, longer

    def aim(self, columns: torch.Tensor, width: int) -> None:
        """The next forward pass writes at `columns` (rows, seq) of the first slots and reads `width` columns."""
        self.reserve(columns.shape[0], width)
        self._rows = torch.arange(columns.shape[0], device=columns.device)[:, None]
        self._columns, self._width = columns, width

    def move(self, source: int, target: int, length: int) -> None:
        """Put the first `length` tokens of a slot into another one."""
        for tensor in (*self._keys, *self._values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def view(self, slot: int, length: int) -> KeyValues:
        """The first `length` tokens of a slot, where they are."""
        pairs = zip(self._keys, self._values, strict=True)
        return [(keys[slot, :, :length], values[slot, :, :length]) for keys, values in pairs]

    def load(self, slot: int, known: KeyValues, length: int) -> None:
        """Put the first `length` tokens of `known` at the beginning of a slot."""
        self.reserve(slot + 1, length)
        for layer, (keys, values) in enumerate(known):
            if layer == len(self._keys):
                self._add_layer(keys[None], values[None])
            self._keys[layer][slot, :, :length] = keys[:, :length]
            self._values[layer][slot, :, :length] = values[:, :length]

    def clear(self) -> None:
        """Give all memory back."""
        self._keys, self._values = [], []
        self._slots = self._length = self._width = 0
        self.moves += 1

    # -- what a model asks of its past_key_values ---------------------------------------------------------------------

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write (rows, heads, seq, head_dim) and give all columns (rows, heads, width, head_dim)."""
        if layer_idx == len(self._keys):
            self._add_layer(keys, values)
        held_keys, held_values = self._keys[layer_idx], self._values[layer_idx]
        held_keys[self._rows, :, self._columns] = keys.transpose(1, 2)
        held_values[self._rows, :, self._columns] = values.transpose(1, 2)
        rows = keys.shape[0]
        return held_keys[:rows, :, : self._width], held_values[:rows, :, : self._width]

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        """Columns before those that are written now."""
        return self._width - (self._columns.shape[-1] if self._columns.numel() else 0)

    def get_mask_sizes(self, _query_length: int, _layer_idx: int = 0) -> tuple[int, int]:
        """Columns that are read, and the first of them."""
        return self._width, 0

    def _add_layer(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        for tensors, like in ((self._keys, keys), (self._values, values)):
            tensors.append(like.new_zeros(self._slots, like.shape[1], self._length, like.shape[3]))
        self.moves += 1


def bytes_of(known: KeyValues) -> int:
    """What `known` takes."""
    return sum(tensor.numel() * tensor.element_size() for pair in known for tensor in pair)


def common_tokens(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    size = min(len(left), len(right))
    if left[:size] == right[:size]:
        return size
    low, high = 0, size  # the first `low` are alike, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _resized(tensor: torch.Tensor, slots: int, length: int) -> torch.Tensor:
    # Columns that were never written are read under the mask: they must be finite, hence zero.
    resized = tensor.new_zeros(slots, tensor.shape[1], length, tensor.shape[3])
    slots, length = min(slots, tensor.shape[0]), min(length, tensor.shape[2])
    resized[:slots, :, :length] = tensor[:slots, :, :length]
    return resized
