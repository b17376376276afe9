"""Which local models fit into a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.catalogue import Entry, built_in
from backends.memory import Room
from llmproxy.wizard.machine import Machine, has_bfloat16

SMALL = Machine((("cpu", Room(4000, 2500)),))
TWO_GPUS = Machine((("cuda:0", Room(24000, 20000)), ("cuda:1", Room(24000, 24000))))


def entry(name: str) -> Entry:
    found = built_in().find(name)
    assert found is not None
    return found


def test_what_fits() -> None:
    """A model that needs more than the largest device has is refused with both figures."""
    assert SMALL.refuses(entry("Qwen3-0.6B")) == ""
    assert SMALL.refuses(entry("Qwen3-8B")) == "needs 18.9 GB, and 3.9 GB are here"
    assert TWO_GPUS.refuses(entry("Qwen3-8B")) == ""


def test_what_fits_now() -> None:
    """Room may be taken by others at the moment."""
    assert SMALL.fits_now(entry("Qwen3-0.6B"))
    assert not SMALL.fits_now(entry("Llama-3.2-1B-Instruct"))


def test_float32_takes_twice() -> None:
    """On a CPU without bfloat16 the weights double, the process does not."""
    slow = Machine(SMALL.devices, doubles=True)
    assert (SMALL.needs_mb(entry("Qwen3-0.6B")), slow.needs_mb(entry("Qwen3-0.6B"))) == (2000, 3400)
    assert slow.refuses(entry("Llama-3.2-1B-Instruct"))


def test_several_devices() -> None:
    """A model that is spread needs that many devices, each large enough."""
    spread = Entry(name="big", memory_mb=40000, min_devices=2)
    assert TWO_GPUS.refuses(spread) == ""
    assert TWO_GPUS.refuses(Entry(name="big", memory_mb=100, min_devices=3))
    assert TWO_GPUS.refuses(Entry(name="big", memory_mb=100, min_device_memory_mb=30000))
    assert SMALL.refuses(spread)


def test_without_figures() -> None:
    """What nobody knows is not refused."""
    assert SMALL.refuses(Entry(name="mine")) == ""
    assert SMALL.fits_now(Entry(name="mine"))


@pytest.mark.parametrize(("flags", "has"), [("flags: sse avx512_bf16 amx", True), ("flags: sse avx2", False)])
def test_bfloat16(tmp_path: Path, flags: str, has: bool) -> None:
    """The flags of the CPU tell."""
    (tmp_path / "cpuinfo").write_text(flags)
    assert has_bfloat16(tmp_path / "cpuinfo") is has
    assert not has_bfloat16(tmp_path / "nothing")
