"""What the files of quantised weights say of themselves, and what such weights take in memory; never imports torch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from backends.base import JsonObject

FP8 = "fp8"
_LARGEST_HEADER_BYTES = 100_000_000  # of a safetensors file


def config_of(folder: Path) -> JsonObject:
    """How the weights in a folder are quantised, by its `config.json`; empty where they are not."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    for part in (config, config.get("text_config")) if isinstance(config, dict) else ():
        for key in ("quantization_config", "compression_config"):
            if isinstance(part, dict) and isinstance(part.get(key), dict):
                found: JsonObject = part[key]
                return found
    return {}


def method_of(config: JsonObject) -> str:
    """The method that a quantisation's configuration names, empty for none."""
    if config.get("load_in_8bit") or config.get("load_in_4bit"):
        return "bitsandbytes"
    return str(config.get("quant_method") or "")


def tensors(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each tensor (https://github.com/huggingface/safetensors); none of a broken file."""
    for path in folder.glob("*.safetensors"):
        try:
            yield from _header(path)
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            continue  # whatever loads it says what is wrong with it


def _header(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(min(size, _LARGEST_HEADER_BYTES)))
    return [
        (name, str(tensor["dtype"]), tuple(tensor["shape"]))
        for name, tensor in header.items()
        if name != "__metadata__"
    ]


def added_bytes(folder: Path) -> int:
    """What FP8 weights take beyond the size of their files where they are written out in 16 bits; 0 for all others."""
    if method_of(config_of(folder)) != FP8 or _may_stay_fp8():
        return 0
    return sum(math.prod(shape) for _, dtype, shape in tensors(folder) if dtype.startswith("F8_E4M3"))


def _may_stay_fp8() -> bool:
    """As far as that is known without torch."""
    return find_spec("kernels") is not None and shutil.which("nvidia-smi") is not None
