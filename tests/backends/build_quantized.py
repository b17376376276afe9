"""Small models whose linear weights are FP8 in blocks, as checkpoints on the hub have them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LARGEST = 448.0  # of torch.float8_e4m3fn
BLOCK = 16
KEPT = ("lm_head", "embed_tokens", "norm")


def quantize(folder: Path, into: Path, *, block: int = BLOCK, kept: tuple[str, ...] = ()) -> Path:
    """The model of `folder` in `into`, with FP8 weights, a scale for each block of `block` rows and columns, and a
    configuration that says so; what has a name of `kept` in its own stays as it is."""
    into.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (into / path.name).write_bytes(path.read_bytes())
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if tensor.ndim == 2 and not any(part in name for part in (*KEPT, *kept)):
            tensors[name], tensors[f"{name}_scale_inv"] = quantized(tensor, block)
        else:
            tensors[name] = tensor
    save_file(tensors, into / "model.safetensors", {"format": "pt"})
    config = json.loads((into / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [block, block],
        "modules_to_not_convert": ["lm_head", *kept],
    }
    (into / "config.json").write_text(json.dumps(config))
    return into


def quantized(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) as FP8, and the float32 scales of its blocks; those at the edges may be smaller."""
    rows, columns = (-(-size // block) for size in weight.shape)
    padded = torch.zeros(rows * block, columns * block)
    padded[: weight.shape[0], : weight.shape[1]] = weight.float()
    blocks = padded.view(rows, block, columns, block)
    scales = blocks.abs().amax((1, 3)).clamp(min=1e-12) / LARGEST
    small = (blocks / scales[:, None, :, None]).view_as(padded)[: weight.shape[0], : weight.shape[1]]
    return small.to(torch.float8_e4m3fn).contiguous(), scales
