"""Quantised weights: what is loaded as what, and what is refused."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backends.base import Settings
from backends.chat import ChatModel
from backends.checkpoints import added_bytes, config_of, method_of
from backends.quantization import loading
from tests.backends.build import build_chat_model
from tests.backends.build_quantized import BLOCK, quantize
from tests.backends.build_vision import build_vision_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as it was trained, in bfloat16."""
    return build_chat_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def fp8(plain: Path) -> Path:
    """The same in FP8."""
    return quantize(plain, plain.parent / "fp8")


def configured(folder: Path, quantization: dict[str, Any]) -> Path:
    """A folder whose configuration says how its weights are quantised."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return folder


@torch.inference_mode()
def logits(settings: Settings) -> torch.Tensor:
    """(tokens, vocab) of a text, in float32."""
    model = ChatModel(settings)
    out: torch.Tensor = model.model(torch.arange(5, 60)[None]).logits[0].float()
    return out


# -- FP8 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("told", ["fp8", "FP8", None])
def test_fp8_weights_are_written_out_on_a_cpu(fp8: Path, dtype: str, told: str | None) -> None:
    """Where nothing multiplies FP8, all weights have the type that was asked for, FP8 or not."""
    model = ChatModel(Settings("m", fp8, device="cpu", dtype=dtype, quantization=told))
    assert {parameter.dtype for parameter in model.model.parameters()} == {getattr(torch, dtype)}
    assert not any(
        "Quant" in type(module).__name__ or "FP8" in type(module).__name__ for module in model.model.modules()
    )


def test_fp8_weights_mean_what_they_say(plain: Path, fp8: Path, tmp_path: Path) -> None:
    """The logits are those of each weight times the scale of its block, which are close to the original's."""
    tensors = load_file(fp8 / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        scale = tensors.pop(name).repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        tensors[name.removesuffix("_scale_inv")] = tensors[name.removesuffix("_scale_inv")].float() * scale
    for path in plain.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    by_hand, given = (logits(Settings("m", folder, device="cpu", dtype="float32")) for folder in (tmp_path, fp8))
    original = logits(Settings("m", plain, device="cpu", dtype="float32"))
    assert torch.allclose(given, by_hand, atol=1e-5)
    assert 0 < (given - original).std() < 0.1 * original.std()


def test_fp8_weights_of_a_model_that_sees(tmp_path: Path) -> None:
    """A vision model may come in FP8 as well."""
    from backends.vision import VisionModel

    folder = quantize(build_vision_model(tmp_path / "plain"), tmp_path / "fp8", kept=("visual",))
    model = VisionModel(Settings("m", folder, device="cpu", dtype="float32", quantization="fp8"))
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_the_rest_of_a_configuration_counts(fp8: Path, device: str) -> None:
    """What the files say of their blocks and of the layers that are not quantised is what transformers gets."""
    told = loading(Settings("m", fp8), torch.device(device))["quantization_config"]
    assert (told.dequantize, told.weight_block_size) == (True, [BLOCK, BLOCK])
    assert told.modules_to_not_convert == ["lm_head"]


def test_uneven_blocks_are_refused(plain: Path, tmp_path: Path) -> None:
    """Weights whose last blocks are smaller would be scaled wrongly without a word."""
    uneven = quantize(plain, tmp_path / "uneven", block=48)
    with pytest.raises(ValueError, match=r"proj\.weight has 64 rows or columns, which blocks of 48"):
        ChatModel(Settings("m", uneven, device="cpu"))


def test_one_block_may_be_larger_than_the_weights(plain: Path, tmp_path: Path) -> None:
    """A weight that is smaller than a block has one scale."""
    one = quantize(plain, tmp_path / "one", block=128)
    original = logits(Settings("m", plain, device="cpu", dtype="float32"))
    assert (logits(Settings("m", one, device="cpu", dtype="float32")) - original).std() < 0.1 * original.std()


def test_what_writing_out_adds(plain: Path, fp8: Path) -> None:
    """FP8 weights take a second byte each; others take what they take."""
    tensors = load_file(fp8 / "model.safetensors")
    assert added_bytes(fp8) == sum(each.numel() for each in tensors.values() if each.dtype == torch.float8_e4m3fn) > 0
    assert added_bytes(plain) == 0
    assert added_bytes(plain / "nowhere") == 0


@pytest.mark.parametrize("header", [b"[]", b'{"a": 5}', b'{"a": {"dtype": "F8_E4M3"}}', b"{", b"\xff", None])
def test_broken_files_add_nothing(fp8: Path, tmp_path: Path, header: bytes | None) -> None:
    """What a file adds is found in its header; one without says nothing, and keeps no other file from being read."""
    folder = shutil.copytree(fp8, tmp_path / "broken")
    broken = folder / "broken.safetensors"
    if header is None:
        broken.symlink_to(tmp_path / "gone")
    else:
        broken.write_bytes(len(header).to_bytes(8, "little") + header)
    assert added_bytes(folder) == added_bytes(fp8)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "given", "says"),
    [
        ("fp8", {}, "quantization is fp8 by the catalogue, but the weights in .* are not quantised"),
        ("int8", {}, "llmproxy does not quantise them"),
        ("awq", {"quant_method": "fp8"}, "quantization is awq .* are quantised as fp8"),
        ("fp8", {"quant_method": "gptq"}, "quantization is fp8 .* are quantised as gptq"),
    ],
)
def test_a_setting_that_the_files_contradict(tmp_path: Path, told: str, given: dict[str, Any], says: str) -> None:
    """Both are named: what the catalogue says, and what the files are."""
    folder = configured(tmp_path / "m", given)
    with pytest.raises(ValueError, match=says):
        loading(Settings("m", folder, quantization=told), CPU)


def test_plain_weights_with_a_setting_do_not_load(plain: Path) -> None:
    """A model is not loaded in another form than its catalogue entry promises."""
    with pytest.raises(ValueError, match="not quantised"):
        ChatModel(Settings("m", plain, device="cpu", quantization="int8"))


METHODS = [
    ("gptq", {"quant_method": "gptq", "bits": 4}, "gptqmodel"),
    ("awq", {"quant_method": "awq", "bits": 4}, "gptqmodel"),
    ("bitsandbytes", {"load_in_4bit": True}, "bitsandbytes"),
    ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
    ("compressed_tensors", {"quant_method": "compressed-tensors"}, "compressed-tensors"),
]


@pytest.mark.parametrize(("method", "config", "package"), METHODS)
def test_other_methods_need_their_packages(tmp_path: Path, method: str, config: dict[str, Any], package: str) -> None:
    """What transformers loads with a package goes to the device; without it, the message says what to install."""
    settings = Settings("m", configured(tmp_path / "m", config), quantization=method)
    needed = [package.replace("-", "_"), *(["optimum"] if method == "gptq" else [])]
    if all(map(find_spec, needed)):
        assert loading(settings, CPU) == {"device_map": {"": "cpu"}}
    else:
        with pytest.raises(ValueError, match=f"need .*{package}: pip install"):
            loading(settings, CPU)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_methods_that_a_device_cannot_run(tmp_path: Path, method: str) -> None:
    """Kernels that are there for CPU and CUDA alone are not tried on MPS."""
    folder = configured(tmp_path / "m", {"quant_method": method})
    with pytest.raises(ValueError, match=f"{method} run on cpu and cuda, not mps"):
        loading(Settings("m", folder), torch.device("mps"))


def test_methods_that_are_not_known_here(tmp_path: Path) -> None:
    """What has no rule here is left to transformers, which knows, or says what is missing."""
    folder = configured(tmp_path / "m", {"quant_method": "torchao"})
    assert loading(Settings("m", folder, quantization="torchao"), CPU) == {}


# -- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({}, ""),
        ({"quantization_config": None}, ""),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes"),
        ([], ""),
    ],
)
def test_where_a_configuration_says_it(tmp_path: Path, config: Any, method: str) -> None:
    """The method is found where checkpoints have it, for the whole model or for its text part."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert method_of(config_of(tmp_path)) == method


def test_without_a_configuration(tmp_path: Path) -> None:
    """A folder without one, or with a broken one, is not quantised as far as is known here."""
    assert config_of(tmp_path) == {}
    (tmp_path / "config.json").write_text("{")
    assert loading(Settings("m", tmp_path), CPU) == {}
