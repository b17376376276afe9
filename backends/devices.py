"""Where weights go, and as what. In worker processes only."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

from backends.base import Settings


def device_of(settings: Settings) -> torch.device:
    """The device of the settings; `auto` takes CUDA, else MPS, else the CPU."""
    if settings.device != "auto":
        return torch.device(settings.device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def dtype_of(settings: Settings, usual: torch.dtype) -> torch.dtype:
    """The dtype that the settings name, `usual` for `auto`; raises `ValueError` for one that torch does not have."""
    if settings.dtype == "auto":
        return usual
    found = getattr(torch, settings.dtype, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{settings.name}: torch has no dtype {settings.dtype}")
    return found


def half_where_fast(device: torch.device) -> torch.dtype:
    """bfloat16, but float32 on a CPU without instructions for it."""
    return torch.float32 if device.type == "cpu" and not torch.cpu._is_avx512_bf16_supported() else torch.bfloat16


def memory_bytes(device: str) -> dict[str, int]:
    """What this process takes of the machine (`cpu`) and of its device, in bytes, as far as that can be told."""
    taken = {}
    with suppress(OSError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        taken["cpu"] = pages * os.sysconf("SC_PAGE_SIZE")
    if device.startswith("cuda") and torch.cuda.is_initialized():
        taken[device] = torch.cuda.memory_reserved(device)
    elif device.startswith("mps"):
        taken[device] = torch.mps.driver_allocated_memory()
    return taken
