"""The source `local`: models of this machine, each in a process of its own. Implements `core.contract.Source`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

import orjson

from backends import memory
from backends.images import ImagePolicy, ImageReader
from backends.process import Worker
from backends.relay import Relay
from backends.requests import Requests
from backends.residency import Residency
from backends.residents import Engine, Limits, Problem, Status
from backends.server_engine import ServerEngine
from backends.weights import NO_FOLDER, Weights
from llmproxy.core.errors import BadReply
from llmproxy.core.tasks import Background
from llmproxy.core.types import DEGRADED, Call, Candidate, JsonObject, Model, Reply
from llmproxy.dialects import extras

# Chat templates of models that reason are given earlier thoughts, and have a use for them.
_TAKEN = ("reasoning_content",)


_LOAD_FAILED = "model_load_failed"


@dataclass(frozen=True, slots=True)
class LocalStream:
    """An answer of a model as it is made: server-sent events of OpenAI chunks, or whatever its endpoint gives."""

    pieces: AsyncIterator[bytes]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces


class Setting(NamedTuple):
    """What all local models have in common.

    `warm` ones are loaded at the start, and with `strict` nothing is ready before they are. `engine` is as for
    `backends.worker.load`, and `most_calls` may be in flight of a model without the chat engine; the own code of
    `trusted` models may run. What processes count (`backends.figures`), by the name of the model, and why images were
    refused is told to the two callbacks.
    """

    device: str = "auto"
    limits: Limits = Limits()
    warm: frozenset[str] = frozenset()
    images: ImagePolicy = ImagePolicy()
    audio_limit_bytes: int = 200 << 20
    engine: Mapping[str, float] = {}
    most_calls: int = 160
    trusted: frozenset[str] = frozenset()
    on_figures: Callable[[str, JsonObject], None] = lambda name, told: None
    on_image_rejected: Callable[[str, str], None] = lambda model, reason: None
    strict: bool = False


class LocalSource:
    """All local models. `start` begins to load those that are to be warm; calls load the one they need."""

    name = "local"

    def __init__(self, weights: Sequence[Weights], setting: Setting) -> None:
        self._weights = {entry.name: entry for entry in weights}
        self.setting = setting
        self._requests = Requests(ImageReader(setting.images, setting.on_image_rejected), setting.audio_limit_bytes)
        self._residency: Residency | None = None
        self._opened, self._warmed = asyncio.Event(), asyncio.Event()
        self._problems: Mapping[str, str] = {}
        # Why there is no residency once it was opened.
        self._failure = Problem("local models are not loaded: the server stops", "shutting_down")
        self._background = Background()

    def start(self) -> None:
        """Begin to load models, each in a process of its own; returns at once."""
        self._background.start(self._open(), "local models")

    def status(self) -> Sequence[Status]:
        """Which models are loaded, where and since when."""
        return self._residency.status() if self._residency is not None else ()

    @property
    def loading(self) -> Collection[str]:
        """The names of models that are being loaded."""
        return self._residency.loading if self._residency is not None else ()

    @property
    def is_ready(self) -> bool:
        """Whether all that must be loaded at the start was; it may have left since, and comes back when it is asked."""
        if not self.setting.strict or (self._warmed.is_set() and not self._problems):
            return True
        return self.setting.warm <= {status.name for status in self.status() if status.state == "loaded"}

    async def warmed(self) -> Mapping[str, str]:
        """Wait until all that is loaded at the start is; why those are not that could not be, by name.

        Nothing is waited for, and nothing told, of a source that is closed.
        """
        await self._warmed.wait()
        return self._problems

    async def load(self, name: str) -> None:
        """Load a model now; raises `KeyError` for one that is none, and `Refused`."""
        await (await self._residents()).load(self._weights[name].name)

    async def unload(self, name: str, wait_s: float) -> None:
        """Send a model away once its calls have ended, for at most so long; raises as `load`."""
        await (await self._residents()).unload(self._weights[name].name, wait_s)

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """The whole answer."""
        async with self.stream(call, candidate) as stream:
            raw = b"".join([piece async for piece in stream])
        if not raw:
            raise BadReply("the model gave no answer")
        return Reply(orjson.loads(raw), raw, headers=stream.headers)

    @asynccontextmanager
    async def stream(self, call: Call, candidate: Candidate) -> AsyncIterator[LocalStream]:
        """The answer as it is made; leaving the context stops the work behind it."""
        weights = self._weights[candidate.model.id]
        said, lost = _plain(call, weights)
        async with AsyncExitStack() as stack:
            request = await stack.enter_async_context(self._requests.of(said, weights))
            residency = await self._residents()
            engine = await stack.enter_async_context(residency.using(weights.name))
            pieces = await stack.enter_async_context(aclosing(engine.run(request.message)))
            told = {DEGRADED: ", ".join(lost)} if lost else {}
            yield LocalStream(pieces, headers={"content-type": request.content_type, **told})

    async def models(self) -> Sequence[Model]:
        """What the files of each model promise."""
        return [describe(entry) for entry in self._weights.values()]

    async def aclose(self) -> None:
        await self._background.aclose()
        self._opened.set()
        self._warmed.set()
        if self._residency is not None:
            await self._residency.aclose()

    async def _residents(self) -> Residency:
        await self._opened.wait()
        if self._residency is None:
            raise self._failure.error()
        return self._residency

    async def _open(self) -> None:
        wanted = [name for name in self._weights if name in self.setting.warm]
        try:
            devices = await memory.devices(self.setting.device)
            needs = [entry.need() for entry in self._weights.values()]
            self._residency = Residency(needs, self._engine, devices, memory.measure, self.setting.limits)
        except Exception as error:  # files and programs of this machine; whoever waits is told
            self._failure = Problem(f"local models cannot be loaded: {type(error).__name__}: {error}", _LOAD_FAILED)
            self._problems = dict.fromkeys(wanted, self._failure.message)
            raise
        else:
            self._residency.start()
            self._opened.set()
            self._problems = await self._residency.warm(wanted)
        finally:
            self._opened.set()
            self._warmed.set()

    def _engine(self, name: str, place: tuple[str, ...]) -> Engine:
        weights = self._weights[name]
        entry = weights.entry
        if entry.upstream_base_url:
            return Relay(name, entry.upstream_base_url, entry.upstream_model or name, entry.upstream_api_key)
        if entry.command:
            return ServerEngine(
                name,
                entry.command,
                folder=None if weights.folder == NO_FOLDER else weights.folder,
                model=entry.upstream_model,
                health_path=entry.health_path,
                environment=memory.environment(place),
            )
        device = place[0] if place else "cpu"
        trusted = entry.trust_remote_code or bool(self.setting.trusted & {name, *entry.spellings})
        settings = replace(weights.settings(device), trust_remote_code=trusted)
        told = {**asdict(settings), "handler": weights.handler, "engine": dict(self.setting.engine)}
        if entry.warm_up and name in self.setting.warm:
            told["rehearsals"] = sorted(weights.rehearsals)
        for given in ("name", "folder", "device"):
            del told[given]
        # The chat engine has a queue of its own, which counts answers.
        own_queue = weights.entry.handler is None and weights.kind in ("chat", "vision")
        most_calls = None if own_queue else self.setting.most_calls
        return Worker(name, weights.folder, device, told, self.setting.on_figures, most_calls=most_calls)


def _plain(call: Call, weights: Weights) -> tuple[Call, tuple[str, ...]]:
    """(the call without what another dialect brought along for its own kind, the names of what that was).

    Some clients of those always ask for thoughts: a model that has none answers without them.
    """
    if call.dialect == "openai":
        return call, ()
    body, lost = extras.plain(call.body, keeps=_TAKEN)
    if body.get("reasoning_effort") is not None and "reasoning" not in weights.capabilities:
        body = {name: value for name, value in body.items() if name != "reasoning_effort"}
        lost = (*lost, "reasoning_effort")
    return replace(call, body=body), lost


def describe(weights: Weights, *, exposed: bool = True) -> Model:
    """A local model as routing sees it."""
    return Model(
        "local",
        weights.name,
        local=weights.on_this_machine,
        chat=weights.kind in ("chat", "vision"),
        exposed=exposed,
        capabilities=weights.capabilities,
        context_tokens=weights.context_tokens,
        tier="exploratory" if weights.toy else None,
        toy=weights.toy,
    )
