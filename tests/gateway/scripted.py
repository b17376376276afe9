"""Sources in this process that do as they are told, and a client that keeps what it gets: the loop without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from backends.local import LocalStream
from llmproxy.core.config import Config
from llmproxy.core.types import Call, Candidate, Model, Reply
from llmproxy.gateway.dispatch import Answer, Dispatcher, Settings
from llmproxy.gateway.exchange import Head
from llmproxy.gateway.ledger import Ledger
from llmproxy.gateway.metrics import Metrics
from llmproxy.routing.catalog import Catalog, Offer

Step = float | bytes | Exception


def event(text: str | None = None, finish: str | None = None, **delta: object) -> bytes:
    """One chat chunk."""
    content = {"content": text} if text is not None else {}
    choice = {"index": 0, "delta": {**content, **delta}, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "up", "created": 1, "model": "m", "choices": [choice]}) + b"\n\n"


def says(*pieces: str, after: float = 0.0) -> list[Step]:
    """Wait `after` seconds, say the pieces, end well."""
    return [after, *(event(piece) for piece in pieces), event(None, "stop") + b"data: [DONE]\n\n"]


def text_of(sent: bytes) -> str:
    """All content in what a client got."""
    chunks = [orjson.loads(block[6:]) for block in sent.split(b"\n\n") if block.startswith(b"data: {")]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()) if choice
    )


@dataclass
class Source:
    """Each model has its steps: seconds to wait, bytes to give, an error to raise. A whole reply joins the texts."""

    scripts: Mapping[str, Sequence[Step]]
    name: str = "s"
    asked: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    usage: dict[str, int] | None = None

    @asynccontextmanager
    async def stream(self, call: Call, candidate: Candidate) -> AsyncIterator[LocalStream]:
        self._note(call, candidate)
        try:
            yield LocalStream(self._pieces(candidate), headers=self.headers)
        except asyncio.CancelledError:
            self.stopped.append(candidate.model.id)
            raise

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        self._note(call, candidate)
        try:
            text = text_of(b"".join([piece async for piece in self._pieces(candidate)]))
        except asyncio.CancelledError:
            self.stopped.append(candidate.model.id)
            raise
        message = {"role": "assistant", "content": text}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": self.usage}
        return Reply(body, headers=self.headers)

    def _note(self, call: Call, candidate: Candidate) -> None:
        self.asked.append(candidate.model.id)
        self.calls.append(call)
        assert len(self.asked) < 20, "asked again and again"

    async def _pieces(self, candidate: Candidate) -> AsyncIterator[bytes]:
        for step in self.scripts[candidate.model.id]:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                yield step
            else:
                await asyncio.sleep(step)


@dataclass
class Sink:
    """A client that keeps what it gets; a `Dispatcher` writes to it as to a response."""

    heads: list[Head] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def got(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def text(self) -> str:
        return text_of(self.got)

    async def open(self, head: Head) -> None:
        assert not self.heads
        await asyncio.sleep(0)
        self.heads.append(head)

    async def write(self, data: bytes) -> None:
        assert self.heads, "written before it was opened"
        assert not self.ended
        self.pieces.append(data)

    async def finish(self, data: bytes) -> None:
        await self.write(data)
        self.ended = True


@dataclass
class World:
    """One dispatcher over one scripted source; `models` gives facts of some of its models, `ledger` free limits."""

    source: Source
    settings: Settings = field(default_factory=Settings)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ledger: Ledger | None = None

    def __post_init__(self) -> None:
        offered = tuple(Model("s", name, **self.models.get(name, {})) for name in self.source.scripts)
        catalog = Catalog([Offer("s", offered)], Config.model_validate({"believed_free": ["s/*"]}))
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            {"s": self.source}, lambda: catalog, lambda: self.settings, self.metrics, self.ledger
        )

    def call(self, *models: str, stream: bool = True, **fields: Any) -> Call:
        """A chat call of the models in this order, all of them when none is named."""
        first, *others = [f"s/{name}" for name in models or self.source.scripts]
        body = fields.pop("body", {"messages": [{"role": "user", "content": "hi"}]})
        return Call("call", "chat", first, body, tuple(others), stream, **fields)

    async def ask(self, *models: str, sink: Sink | None = None, **fields: Any) -> tuple[Answer, Sink]:
        """The answer to such a call, and its client."""
        sink = sink or Sink()
        return await self.dispatcher.answer(self.call(*models, **fields), sink), sink
