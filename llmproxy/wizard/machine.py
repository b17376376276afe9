"""What this machine has, and which local models fit into it. Imports no torch."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends import memory
from backends.catalogue import Catalogue, Entry
from backends.weights import WeightsMissing, resolve

# As in `backends/models.yaml`: what of `memory_mb` is the process and no weights.
_PROCESS_MB = 600


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices that models would be put on, with their memory in MiB; `doubles` where weights must be float32."""

    devices: tuple[tuple[str, memory.Room], ...]
    doubles: bool = False

    @property
    def largest(self) -> memory.Room:
        """The device with most memory."""
        return max((room for _, room in self.devices), key=lambda room: room.total_mb, default=memory.Room(0, 0))

    def needs_mb(self, entry: Entry) -> int | None:
        """What a model of the catalogue takes here; None where that is not known."""
        if entry.memory_mb is None or not self.doubles:
            return entry.memory_mb
        return 2 * max(0, entry.memory_mb - _PROCESS_MB) + _PROCESS_MB

    def refuses(self, entry: Entry) -> str:
        """Why a model cannot run here; nothing where it can."""
        needs_mb, room = self.needs_mb(entry), self.largest
        if needs_mb is not None and -(-needs_mb // entry.min_devices) > room.total_mb:
            return f"needs {gib(needs_mb)}, and {gib(room.total_mb)} are here"
        large = [room for _, room in self.devices if room.total_mb >= entry.min_device_memory_mb]
        return "" if len(large) >= entry.min_devices else f"needs {entry.min_devices} devices"

    def fits_now(self, entry: Entry) -> bool:
        """Whether there is room for it at this moment."""
        needs_mb, free_mb = self.needs_mb(entry), self.largest.free_mb
        return needs_mb is None or free_mb is None or needs_mb <= free_mb

    def __str__(self) -> str:
        told = []
        for name, room in self.devices:
            free = "" if room.free_mb is None else f", {gib(room.free_mb)} of it free"
            told.append(f"{name} with {gib(room.total_mb)}{free}")
        return "; ".join(told) or "no device whose memory can be told"


def look(wanted: str = "auto") -> Machine:
    """The devices of this machine, as `local.device` says it."""
    return asyncio.run(measure(wanted))


async def measure(wanted: str) -> Machine:
    """The same in an event loop."""
    found = []
    for device in await memory.devices(wanted):
        room = await memory.measure(device)
        if room is not None:
            found.append((device, room))
    on_cpu = any(device == "cpu" for device, _ in found)
    return Machine(tuple(found), doubles=on_cpu and not has_bfloat16())


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for bfloat16, as the chat engine asks of it; elsewhere than Linux: no."""
    try:
        return "avx512_bf16" in cpuinfo.read_text("utf-8", errors="replace")
    except OSError:
        return False


def can_run_models() -> bool:
    """Whether torch and transformers are installed; looks, and imports neither."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def is_here(entry: str, catalogue: Catalogue) -> bool:
    """Whether the files of a model are in this machine."""
    try:
        resolve(entry, catalogue)
    except WeightsMissing:
        return False
    return True


def gib(mb: float) -> str:
    """MiB as a person reads them."""
    return f"{mb / 1024:.1f} GB"


def purpose(entry: Entry) -> str:
    """What a model of the catalogue is for."""
    words: Sequence[str] = entry.capabilities or (entry.kind,)
    return ", ".join(words)
