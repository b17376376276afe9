"""What the handlers share: one object per application, found under one typed key."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from llmproxy.core.config import Config
from llmproxy.core.types import Attempt, Call, JsonObject
from llmproxy.gateway.dispatch import Answer, Dispatcher
from llmproxy.gateway.inventory import Inventory
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.responses import Responses
from llmproxy.logs import RequestLog


class LocalModels(Protocol):
    """Whoever loads local models (`backends.local.LocalSource`)."""

    def status(self) -> Sequence[Any]:
        """What `backends.residents.Status` holds, of every local model."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether all that must be loaded is."""
        ...

    async def load(self, name: str) -> None: ...

    async def unload(self, name: str, wait_s: float) -> None: ...


@dataclass(slots=True)
class Services:
    """The parts that handlers call, and the switches that middleware looks at."""

    config: Callable[[], Config]
    dispatcher: Dispatcher
    inventory: Inventory
    metrics: Metrics
    log_request: RequestLog
    missing: Callable[[], dict[str, str]]
    local: Callable[[], LocalModels | None] = lambda: None
    scraped: Callable[[], JsonObject] = dict
    responses: Responses = field(default_factory=Responses)
    draining: bool = False
    started_s: float = field(default_factory=time.time)


@dataclass(slots=True)
class Trace:
    """What is told of one request in its log line and its response headers."""

    id: str
    call: Call | None = None
    answer: Answer | None = None
    attempts: tuple[Attempt, ...] = ()


SERVICES = web.AppKey("services", Services)
TRACE: web.RequestKey[Trace] = web.RequestKey("trace", Trace)

_prefix = secrets.token_hex(6)
_counter = itertools.count(1)


def new_id() -> str:
    """An id that no other request of this or any other process has."""
    return f"req_{_prefix}{next(_counter):06x}"
