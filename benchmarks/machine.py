"""What a device can do at most: bytes that it reads and floating point operations that it does in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

_BYTES = 1 << 29
_SIDE = {"cpu": 2048, "cuda": 8192, "mps": 4096}
_TRIES = 5


class Machine(NamedTuple):
    """The best of some tries: `bytes_per_s` of one large read or copy, `flops` of one large product of matrices."""

    bytes_per_s: float
    flops: float

    def least_s(self, read_bytes: float, operations: float) -> float:
        """The time that nothing can be below which reads so much and computes so much."""
        return max(read_bytes / self.bytes_per_s, operations / self.flops)

    def __str__(self) -> str:
        return f"{self.bytes_per_s / 1e9:.1f} GB/s, {self.flops / 1e12:.2f} TFLOP/s"


class Work(NamedTuple):
    """What a model has to do: `weight_bytes` are read in each step, with `parameters` that each token is multiplied by,
    and `token_bytes` of keys and values for each token that it looks back at."""

    weight_bytes: int
    parameters: int
    token_bytes: int

    def least_s(self, machine: Machine, calls: int, prompt: int, completion: int) -> float:
        """The least time in which so many calls can be answered together: their prompts at once, then token by token.

        A product of matrices is two operations a parameter and token; what attention computes is left out.
        """
        operations = 2 * self.parameters * calls
        reading = machine.least_s(self.weight_bytes, operations * prompt)
        looked_back = calls * (prompt + completion / 2) * self.token_bytes
        return reading + (completion - 1) * machine.least_s(self.weight_bytes + looked_back, operations)


def work_of(model: Any, token_bytes: int) -> Work:
    """Of a causal language model: all its weights but for the table of its tokens, unless that makes the logits too."""
    table = model.get_input_embeddings().weight
    tied = model.get_output_embeddings().weight is table
    used = [weight for weight in model.parameters() if tied or weight is not table]
    size = sum(weight.numel() for weight in used)
    return Work(sum(weight.numel() * weight.element_size() for weight in used), size, token_bytes)


def machine(device: str, dtype: Any) -> Machine:
    """Measure a device of torch with numbers of `dtype`; takes about a second."""
    import torch

    kind = torch.device(device).type
    buffer = torch.zeros(_BYTES // 4, dtype=torch.float32, device=device)
    other = torch.empty_like(buffer)
    read_s = _least_s(lambda: float(buffer.sum()), kind)
    copied_s = _least_s(lambda: other.copy_(buffer), kind)
    side = _SIDE.get(kind, 2048)
    left = torch.randn(side, side, device=device).to(dtype)
    product_s = _least_s(lambda: left @ left, kind)
    return Machine(max(_BYTES / read_s, 2 * _BYTES / copied_s), 2 * side**3 / product_s)


def _least_s(work: Callable[[], Any], kind: str) -> float:
    """The shortest time of some tries, after one that warms up."""
    import torch

    def once() -> float:
        begun = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        elif kind == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - begun

    once()
    return min(once() for _ in range(_TRIES))
