"""Weights that come quantised, and how they are loaded. In worker processes only.

Nothing is quantised here: what `quantization` of the catalogue says must be what the files are. FP8 weights in blocks
(`quant_method` `fp8`) stay FP8 where the device multiplies them and the package `kernels` is there to do it; everywhere
else they are written out in the type of the model when they are loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import FineGrainedFP8Config
from transformers.utils.import_utils import is_kernels_available

from backends.base import JsonObject, Settings
from backends.checkpoints import FP8, config_of, method_of, tensors
from backends.devices import device_of

_log = logging.getLogger(__name__)

_FP8_CAPABILITY = (8, 9)  # CUDA devices from Ada Lovelace on
_BLOCK = (128, 128)
_SCALE = "_scale_inv"
_WRITTEN_OUT = "quantization_config"
# The modules that transformers needs for each method, with what to install, and the devices that they run on.
_ANY = ("cpu", "cuda", "mps")
_METHODS: Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    "compressed-tensors": ({"compressed_tensors": "compressed-tensors"}, _ANY),
    "gptq": ({"optimum": "optimum", "gptqmodel": "gptqmodel"}, ("cpu", "cuda")),
    "awq": ({"gptqmodel": "gptqmodel"}, ("cpu", "cuda")),
    "bitsandbytes": ({"bitsandbytes": "bitsandbytes"}, ("cpu", "cuda")),
}


def load_model(auto_class: Any, settings: Settings, dtype: torch.dtype, **options: Any) -> Any:
    """The model in the folder of `settings`, by the `from_pretrained` of one of transformers' classes.

    Raises `ValueError` as `loading` does, and whatever transformers raises.
    """
    how = loading(settings)
    model = auto_class.from_pretrained(settings.folder, dtype=dtype, **options, **how)
    if _WRITTEN_OUT in how:
        _cast(model, dtype)
    return model


def loading(settings: Settings, device: torch.device | None = None) -> dict[str, Any]:
    """What `from_pretrained` is told of the weights of `settings` on `device` (that of the settings by default).

    Raises `ValueError` for files that are not what `settings.quantization` says, and for what cannot be loaded there.
    """
    config = config_of(settings.folder)
    method = method_of(config)
    told = (settings.quantization or method).lower().replace("_", "-")
    if told != method.replace("_", "-"):
        found = f"quantised as {method}" if method else "not quantised, and llmproxy does not quantise them"
        raise ValueError(
            f"{settings.name}: its quantization is {settings.quantization} by the catalogue, but the weights in "
            f"{settings.folder} are {found}"
        )
    if not method:
        return {}
    device = device or device_of(settings)
    if method == FP8:
        return _fp8(settings, config, device)
    if method not in _METHODS:
        return {}  # transformers knows, or says that it does not
    packages, devices = _METHODS[method]
    if device.type not in devices:
        raise ValueError(f"{settings.name}: weights quantised as {method} run on {' and '.join(devices)}, not {device}")
    _refuse_missing(settings, method, packages)
    return {"device_map": {"": str(device)}}


# -- FP8 --------------------------------------------------------------------------------------------------------------


def _fp8(settings: Settings, config: JsonObject, device: torch.device) -> dict[str, Any]:
    _refuse_missing(settings, FP8, {})
    if _stays_fp8(device):
        return {"device_map": {"": str(device)}}
    _refuse_uneven_blocks(settings, config)
    _log.info("%s: FP8 weights are written out in 16 bits or more on %s", settings.name, device)
    # All of the configuration: what is left out here would replace what the files say.
    return {_WRITTEN_OUT: FineGrainedFP8Config.from_dict({**config, "dequantize": True})}


def _cast(model: Any, dtype: torch.dtype) -> None:
    """Give weights the type that was asked for: transformers leaves those that are not FP8 in the type of the files."""
    kept = [*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())]
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and (dtype.itemsize > 2 or not any(part in name for part in kept)):
            parameter.data = parameter.data.to(dtype)


def _stays_fp8(device: torch.device) -> bool:
    if device.type != "cuda" or not is_kernels_available():
        return False
    return torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def _refuse_uneven_blocks(settings: Settings, config: JsonObject) -> None:
    """transformers takes the size of blocks from the number of scales: where the last block is a smaller one, weights
    would get the scales of their neighbours."""
    blocks = config.get("weight_block_size", _BLOCK)
    shapes = {name: shape for name, _, shape in tensors(settings.folder)}
    for name, scales in shapes.items():
        weights = shapes.get(name.removesuffix(_SCALE), ()) if name.endswith(_SCALE) else ()
        for size, count, block in zip(weights[-2:], scales[-2:], blocks or (), strict=False):
            if count > 1 and size % block:
                raise ValueError(
                    f"{settings.name}: {name.removesuffix(_SCALE)} has {size} rows or columns, which blocks of {block} "
                    "do not divide: these FP8 weights cannot be written out"
                )


def _refuse_missing(settings: Settings, method: str, packages: Mapping[str, str]) -> None:
    missing = [name for module, name in {**packages, "accelerate": "accelerate"}.items() if find_spec(module) is None]
    if missing:
        needs = f"weights quantised as {method} need {' and '.join(missing)}"
        raise ValueError(f"{settings.name}: {needs}: pip install {' '.join(missing)}")
