"""Which way a model is run: all rows in one pass where that gives the same logits as the model alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from backends.forward import Forward, SlotForward
from backends.graphs import CudaRecorder, RecordedForward
from backends.kvcache import SlotCache
from backends.sight import Sight
from backends.solo import SoloForward

_log = logging.getLogger(__name__)

# What is read at once of the example: so little that it is read in parts.
_EXAMPLE_TOKENS = 32
# Of a model that takes other arguments, or another cache: it is run in its own way.
_MISMATCHES = (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError)


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
    budget_tokens = _free_bytes(device) // token_bytes
    if device.startswith("cuda") and _records_alike(RecordedForward(model, device, CudaRecorder())):
        return RecordedForward(model, device, CudaRecorder(), budget_tokens, token_bytes)
    return SlotForward(model, device, budget_tokens, token_bytes)


def _probe(model: Any, device: str) -> int:
    """Compare two rows of unequal length with each one alone: the bytes of a token, 0 where they differ."""
    sequences = [[1, 2, 3, 4, 5, 6, 7], [3, 1, 2, 5]]
    forward = SlotForward(model, device)
    try:
        forward.fill([ids[:-1] for ids in sequences])
        columns = [len(ids) - 1 for ids in sequences]
        logits = forward.follow([ids[-1] for ids in sequences], columns, columns)
        alone = torch.cat([model(torch.tensor([ids], device=device)).logits[:, -1] for ids in sequences])
    except torch.OutOfMemoryError:
        raise
    except _MISMATCHES as error:
        _log.info("%s is run row by row: %s", type(model).__name__, error)
        return 0
    return forward.cache.token_bytes if _are_alike(logits, alone, model.dtype) else 0


def _records_alike(forward: RecordedForward) -> bool:
    """Compare steps that are recorded and replayed with the same ones as they come."""
    tokens, plain = [[1, 2, 3, 4], [3, 1, 2]], SlotForward(forward.model, forward.device)
    try:
        for each in (forward, plain):
            each.fill([ids[:-1] for ids in tokens])
        for step in range(2):
            columns = [len(ids) - 1 + step for ids in tokens]
            made, wanted = (each.follow([ids[-1] for ids in tokens], columns, columns) for each in (forward, plain))
            if not _are_alike(made, wanted, forward.model.dtype):
                return False
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        _log.warning("%s cannot be recorded: %s", type(forward.model).__name__, error)
        return False
    return True


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
