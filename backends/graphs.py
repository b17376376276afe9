"""Forward passes that are recorded once for each shape and then replayed: on CUDA, starting a thousand kernels one by
one takes longer than running them. In worker processes only.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol

import torch

from backends.forward import SlotForward
from backends.kvcache import CacheFull
from backends.prefill import Prefill
from backends.rows import Row

# More shapes than this are not in use at the same time.
_KEPT = 64
_WARM_UPS = 2
_STEP_COLUMNS = 256

Replay = Callable[[], torch.Tensor]


class Recorder(Protocol):
    """Makes of some work on tensors something that does it again: on the same tensors, into the same one."""

    def record(self, work: Replay) -> Replay: ...


class CudaRecorder:
    """CUDA graphs, all in one pool of memory: no two of them run at the same time."""

    def __init__(self) -> None:
        self._pool: object | None = None

    def record(self, work: Replay) -> Replay:
        """Run `work` some times, so that libraries choose their kernels, and record one more."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            out = work()
        self._pool = graph.pool()

        def replay() -> torch.Tensor:
            graph.replay()
            return out

        return replay


class Recordings:
    """The passes that were recorded, by what their shapes depend on; those that were not used for long are dropped."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._kept: OrderedDict[Hashable, tuple[Sequence[torch.Tensor], Replay]] = OrderedDict()

    def run(self, key: Hashable, inputs: Sequence[torch.Tensor], work: Callable[..., torch.Tensor]) -> torch.Tensor:
        """`work(*inputs)`, which is overwritten by the next run. Whatever else `work` reads must stay where it is for
        as long as `key` is the same."""
        kept = self._kept.pop(key, None)
        if kept is None:
            own = [tensor.clone() for tensor in inputs]
            kept = own, self._recorder.record(lambda: work(*own))
            if len(self._kept) >= _KEPT:
                self._kept.popitem(last=False)
        else:
            for held, tensor in zip(kept[0], inputs, strict=True):
                held.copy_(tensor)
        self._kept[key] = kept
        return kept[1]()

    def forget(self) -> None:
        """Drop all: something that they read has moved."""
        self._kept.clear()


class RecordedForward(SlotForward):
    """The same, with steps of decoding that are replayed: over a few more rows and columns than there are, so that few
    shapes are enough. Its cache stays where it is while there is nothing to do."""

    def __init__(
        self, model: Any, device: str, recorder: Recorder, budget_tokens: int | None = None, token_bytes: int = 0
    ) -> None:
        super().__init__(model, device, budget_tokens, token_bytes)
        self._recordings, self._moves = Recordings(recorder), 0
        self._is_empty = True

    def follow(self, tokens: list[int], columns: list[int], positions: list[int]) -> torch.Tensor:
        """As of `SlotForward`; the logits are overwritten by the next step."""
        rows, width = padded_rows(len(tokens)), padded_columns(max(columns) + 1)
        try:
            self.cache.reserve(rows, width)
        except CacheFull:  # there is room for the rows themselves
            return super().follow(tokens, columns, positions)
        if self.cache.moves != self._moves:
            self._recordings.forget()
        # What is more than there are rows is written into slots that nobody looks at.
        more = [0] * (rows - len(tokens))
        inputs = [self.upright([*values, *more]) for values in (tokens, columns, positions)]
        logits = self._recordings.run((rows, width), inputs, partial(self.compute, self.cache, width))
        self._moves = self.cache.moves
        return logits[: len(tokens)]

    def join(self, prefill: Prefill, rows: Sequence[Row]) -> None:
        """Have the rows of `prefill` decoded from now on, after `rows`."""
        super().join(prefill, rows)
        self._is_empty = False

    def empty(self) -> None:
        """Keep the memory: what was recorded reads and writes just there."""
        self._is_empty = True

    def forget(self) -> None:
        """Give back the memory of what ended, and of what was recorded."""
        super().forget()
        self._recordings.forget()
        if self._is_empty:
            self.cache.clear()


def padded_rows(rows: int) -> int:
    """So many rows as are decoded in place of `rows`: the next power of two."""
    return 1 << (rows - 1).bit_length()


def padded_columns(width: int) -> int:
    """So many columns as are read in place of `width`: a quarter more at most, beyond the first thousand."""
    step = max(_STEP_COLUMNS, 1 << max(0, width.bit_length() - 3))
    return -(-width // step) * step
