"""The source `local`: models of this machine, each in a worker process. Implements `core.contract.Source`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field

import orjson

from backends.parameters import read_sampling
from backends.process import Worker
from backends.weights import Weights
from llmproxy.core.errors import BadReply, Refused, UnsupportedParameter
from llmproxy.core.types import Call, Candidate, JsonObject, Model, Reply


@dataclass(frozen=True, slots=True)
class LocalStream:
    """An answer of a worker: server-sent events of OpenAI chunks."""

    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces


class LocalSource:
    """All local models. `start` begins to load them; calls wait for the one they need."""

    name = "local"

    def __init__(self, weights: Sequence[Weights], device: str = "auto") -> None:
        self._weights = {entry.name: entry for entry in weights}
        self.workers = {entry.name: Worker(entry.name, entry.folder, device) for entry in weights}

    def start(self) -> None:
        """Begin to load every model, each in a process of its own; returns at once."""
        for worker in self.workers.values():
            worker.start()

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """The whole answer."""
        async with aclosing(self._pieces(call, candidate)) as pieces:
            raw = b"".join([piece async for piece in pieces])
        if not raw:
            raise BadReply("the worker gave no answer")
        return Reply(orjson.loads(raw), raw)

    @asynccontextmanager
    async def stream(self, call: Call, candidate: Candidate) -> AsyncIterator[LocalStream]:
        """The answer token by token; leaving the context stops the generation."""
        async with aclosing(self._pieces(call, candidate)) as pieces:
            yield LocalStream(pieces)

    async def models(self) -> Sequence[Model]:
        """What the files of each model promise."""
        return [describe(entry) for entry in self._weights.values()]

    async def aclose(self) -> None:
        for worker in self.workers.values():
            await worker.aclose()

    async def _pieces(self, call: Call, candidate: Candidate) -> AsyncGenerator[bytes, None]:
        if call.endpoint not in ("chat", "completions"):
            raise Refused(f"{candidate.model.name} does not serve this endpoint", kind="unsupported", http_status=400)
        for capability in call.needs & {"vision", "audio"}:
            raise UnsupportedParameter(f"{candidate.model.name} reads text only", param=capability)
        request: JsonObject = {
            "id": call.id,
            "endpoint": call.endpoint,
            "stream": call.stream,
            "sampling": asdict(read_sampling(call.body, chat=call.endpoint == "chat")),
            "body": {
                key: call.body[key]
                for key in (
                    "messages",
                    "prompt",
                    "tools",
                    "tool_choice",
                    "parallel_tool_calls",
                    "continue_final_message",
                )
                if key in call.body
            },
        }
        async with aclosing(self.workers[candidate.model.id].run(request)) as pieces:
            async for piece in pieces:
                yield piece


def describe(weights: Weights) -> Model:
    """A local model as routing sees it."""
    return Model(
        "local",
        weights.name,
        local=True,
        capabilities=weights.capabilities,
        context_tokens=weights.context_tokens,
        tier="exploratory" if weights.toy else None,
        toy=weights.toy,
    )
