"""What residency knows of each model, what it is told, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from backends.placement import Need, Resident
from llmproxy.core.errors import Refused
from llmproxy.core.types import JsonObject

State = Literal["unloaded", "loading", "loaded", "failed"]


class Engine(Protocol):
    """One model that runs somewhere (`backends.process.Worker`): `state` is `loading`, `ready`, or why it failed.

    `memory_bytes` is what it takes of each device, where that is known, and `waiting` how many answers have not begun.
    """

    memory_bytes: Mapping[str, int]
    waiting: int

    def start(self) -> None: ...

    @property
    def state(self) -> str: ...

    def run(self, request: JsonObject) -> AsyncGenerator[bytes, None]: ...

    async def aclose(self) -> None: ...


class Status(NamedTuple):
    """What is told of one model; `since` is a Unix time, `place` are torch's devices, `calls` are in flight.

    It is counted with `memory_mb` in all; `used_bytes` is what it takes of each device by its own account. Of its calls
    so many answers are `waiting` for their turn.
    """

    name: str
    state: State
    place: tuple[str, ...]
    since: float
    calls: int
    memory_mb: int
    reason: str = ""
    used_bytes: Mapping[str, int] = {}
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_mb` is what all models together may take of each device, None leaves that to the device. Seconds:
    `idle_s` without a call before a model leaves (None: never), `load_s` for one load, `drain_s` for the calls in
    flight of a model that is to make room."""

    memory_mb: int | None = None
    idle_s: float | None = None
    load_s: float = 600.0
    drain_s: float = 30.0


class Problem(NamedTuple):
    """Why a model is not there. Each caller gets an error of its own: one for all would gather their tracebacks."""

    message: str
    code: str
    retry_after_s: float | None = None

    def error(self) -> Refused:
        return Refused(self.message, kind="server", http_status=503, code=self.code, retry_after_s=self.retry_after_s)


@dataclass(slots=True)
class Tenant:
    """One model, loaded or not, and what is happening to it: a load, or a departure, or neither."""

    need: Need
    since: float
    state: State = "unloaded"
    place: tuple[str, ...] = ()
    engine: Engine | None = None
    calls: int = 0
    used: float = 0.0
    reason: str = ""
    failures: int = 0
    retry_at: float = 0.0
    evicts: bool = True
    loading: asyncio.Task[Problem | None] | None = None
    leaving: asyncio.Task[bool] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    @property
    def status(self) -> Status:
        """What others are told of it."""
        used_bytes, waiting = (self.engine.memory_bytes, self.engine.waiting) if self.engine is not None else ({}, 0)
        need = self.resident.need if self.resident is not None else self.need
        return Status(
            need.name,
            self.state,
            self.place,
            self.since,
            self.calls,
            need.memory_mb,
            self.reason,
            used_bytes,
            waiting,
        )

    @property
    def resident(self) -> Resident | None:
        """What placement needs to know of it, while it is loaded."""
        if self.engine is None:
            return None
        used_mb = sum(self.engine.memory_bytes.get(device, 0) for device in self.place) >> 20
        need = replace(self.need, memory_mb=used_mb) if used_mb > self.need.memory_mb else self.need
        return Resident(need, self.place, self.calls, self.used)
