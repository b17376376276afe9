"""A forward pass that ends between two layers when nobody waits for it any more. For those that take seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from backends.base import Cancel


class Left(Exception):
    """The pass was broken off, since its request was cancelled."""


@contextmanager
def watching(model: Any, cancel: Cancel) -> Iterator[None]:
    """Raise `Left` out of the passes inside, at the latest one layer after `cancel` was set."""

    def look(_module: Any, _inputs: Any) -> None:
        if cancel.is_set():
            raise Left

    # All layers of text and of vision towers are of this class.
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
