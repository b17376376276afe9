"""Which local models are loaded: on first use or at the start, as memory allows. Runs in the server, imports no torch.

    unloaded ──load──► loading ──► loaded ──no room, idle, or asked──► unloaded
                          └──────► failed ──after a wait, with the next call──► loading

One load per model whatever the number of callers, one at a time per device. All of it runs in one event loop: what
stands between two `await` needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from backends import placement
from backends.memory import Room
from backends.placement import Need, Resident, Space, TooLarge
from backends.residents import Engine, Limits, Problem, State, Status, Tenant
from llmproxy.core.errors import Refused
from llmproxy.core.tasks import Background

_log = logging.getLogger(__name__)

_RETRY_WAITS_S = (5.0, 30.0, 120.0, 600.0)
_POLL_S = 0.02
_CAUSE_CHARACTERS = 500


class Residency:
    """All local models of a server.

    `factory` makes the engine of a name for a place (torch's devices; none for a model that runs elsewhere) without
    starting it. `measure` tells the memory of a device now, None if it cannot. `clock` is monotonic, `wall` Unix time.
    """

    def __init__(
        self,
        needs: Iterable[Need],
        factory: Callable[[str, tuple[str, ...]], Engine],
        devices: Sequence[str],
        measure: Callable[[str], Awaitable[Room | None]],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall = clock, wall
        self._limits = limits or Limits()
        self._models = {need.name: Tenant(need, wall()) for need in needs}
        self._factory = factory
        self._measure = measure
        self._locks = {device: asyncio.Lock() for device in devices}
        self._awaited_mb = dict.fromkeys(devices, 0)
        self.loading: set[str] = set()
        self._background = Background()
        self._closed = False

    # -- what others ask ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send away models that nobody uses, where the limits say so."""
        if self._limits.idle_s is not None:
            self._background.start(self._watch(self._limits.idle_s), "idle local models")

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[Engine]:
        """The engine of a model, loaded if need be; while the context is open the model stays.

        Raises `Refused` 503: `insufficient_memory`, or `model_load_failed` with its cause and when to try again.
        """
        model = self._models[name]
        engine = await self._loaded(model, evict=True)
        model.calls += 1
        model.idle.clear()
        try:
            yield engine
        finally:
            model.calls -= 1
            model.used = self._clock()
            if not model.calls:
                model.idle.set()

    async def load(self, name: str, *, evict: bool = True) -> None:
        """Load a model now; without `evict` no other leaves for it. Raises as `using`."""
        await self._loaded(self._models[name], evict=evict)

    async def unload(self, name: str, wait_s: float = 0.0) -> None:
        """Send a model away, pinned or not, once a load under way and calls in flight have ended, for at most so long.

        Raises `Refused` 409 `model_busy` when it is in use even then. Calls that come meanwhile load it again.
        """
        model = self._models[name]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        if model.loading is not None:
            await asyncio.wait({model.loading}, timeout=wait_s)
        left_s = max(0.0, deadline - loop.time())
        if model.loading is not None or (model.engine is not None and not await self._leave(model, left_s)):
            raise Refused(f"{name} is in use", kind="conflict", http_status=409, code="model_busy")

    async def warm(self, names: Iterable[str]) -> Mapping[str, str]:
        """Load models one after the other, pinned and important ones first, as far as they fit beside each other.

        Returns why those that were not loaded were not; they load with their first call, if they can.
        """
        needs = [self._models[name].need for name in names]
        problems = {}
        for need in sorted(needs, key=lambda need: (not need.pinned, -need.priority)):
            try:
                await self.load(need.name, evict=False)
            except Exception as error:  # one of them must not keep the others from being loaded
                reason = error.message if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
                problems[need.name] = reason
                _log.warning("%s is not loaded at the start: %s", need.name, reason)
        return problems

    async def unload_idle(self, idle_s: float) -> tuple[str, ...]:
        """Send away what nobody has used for so long, but for pinned models; returns their names."""
        now = self._clock()
        old = [one for one in self._residents() if now - one.used >= idle_s and not (one.calls or one.need.pinned)]
        gone = tuple([one.name for one in old if await self._leave(self._models[one.name], 0.0)])
        if gone:
            _log.info("unloaded after %g s without a call: %s", idle_s, ", ".join(gone))
        return gone

    def status(self) -> tuple[Status, ...]:
        """All models, where they are and since when."""
        return tuple(one.status for one in self._models.values())

    async def aclose(self) -> None:
        """End every engine and every load; calls in flight fail."""
        self._closed = True
        await self._background.aclose()
        engines = [model.engine for model in self._models.values() if model.engine is not None]
        await asyncio.gather(*(engine.aclose() for engine in engines))
        for model in self._models.values():
            model.engine = None
            self._set(model, "unloaded")

    # -- coming ---------------------------------------------------------------------------------------------------

    async def _loaded(self, model: Tenant, *, evict: bool) -> Engine:
        """The engine, once it is loaded. Nothing is awaited between the last look at it and the return."""
        while not self._closed:
            if model.leaving is not None:
                await asyncio.wait({model.leaving})
                continue
            if model.loading is None:
                self._notice_death(model)
                if model.engine is not None:
                    return model.engine
                left_s = model.retry_at - self._clock()
                if model.state == "failed" and left_s > 0:
                    raise Problem(model.reason, "model_load_failed", left_s).error()
                model.evicts = evict
                model.loading = self._background.start(self._load(model, evict), f"load {model.need.name}")
            work, evicts = model.loading, model.evicts
            await asyncio.wait({work})
            problem = None if work.cancelled() else work.result()
            if problem is not None and (evicts or not evict or problem.code != "insufficient_memory"):
                raise problem.error()
        raise Problem(f"{model.need.name} is not loaded: the server stops", "shutting_down").error()

    async def _load(self, model: Tenant, evict: bool) -> Problem | None:
        need = model.need
        self._set(model, "loading")
        try:
            rooms = {device: await self._measure(device) for device in self._locks}
            # Nothing is awaited from here until the load is counted: the next one to be placed knows of it.
            place = placement.choose(need, {device: self._space(device, room) for device, room in rooms.items()})
            async with self._alone_on(place, need.share_mb):
                for device in place:
                    await self._make_room(need, device, evict)
                return await self._run_load(model, place)
        except TooLarge as error:
            self._set(model, "unloaded", str(error))
            return Problem(str(error), "insufficient_memory", self._limits.drain_s)
        finally:
            model.loading = None
            if model.state == "loading":
                self._set(model, "unloaded")

    @asynccontextmanager
    async def _alone_on(self, place: Sequence[str], share_mb: int) -> AsyncIterator[None]:
        """No other load on these devices; locks are taken in one order, so that two loads never wait for each other."""
        for device in place:
            self._awaited_mb[device] += share_mb
        try:
            async with AsyncExitStack() as stack:
                for device in sorted(place):
                    await stack.enter_async_context(self._locks[device])
                yield
        finally:
            for device in place:
                self._awaited_mb[device] -= share_mb

    async def _run_load(self, model: Tenant, place: tuple[str, ...]) -> Problem | None:
        """Start the engine and wait until it is ready; it is ended again if that fails or is cancelled."""
        began, load_s = self._clock(), self._limits.load_s
        try:
            engine = self._factory(model.need.name, place)
            engine.start()
        except Exception as error:  # an engine of anybody's, made from what a person configured
            return self._failed(model, f"{type(error).__name__}: {error}")
        try:
            # An engine tells its state and not its changes: a load takes seconds, and a look every few hundredths.
            while engine.state == "loading" and self._clock() - began < load_s:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
            state = engine.state  # by now: an engine that is ended says why
            if state == "ready":
                model.engine, model.place, model.used, model.failures = engine, place, self._clock(), 0
        finally:
            if model.engine is None:
                await engine.aclose()
        if model.engine is None:
            return self._failed(model, f"not within {load_s:g} s" if state == "loading" else state)
        self._set(model, "loaded")
        _log.info("loaded %s on %s in %.1f s", model.need.name, ", ".join(place) or "-", self._clock() - began)
        return None

    def _failed(self, model: Tenant, cause: str) -> Problem:
        wait_s = _RETRY_WAITS_S[min(model.failures, len(_RETRY_WAITS_S) - 1)]
        model.failures += 1
        model.retry_at = self._clock() + wait_s
        brief = (cause.strip().splitlines() or ["no reason was given"])[0][:_CAUSE_CHARACTERS]
        self._set(model, "failed", f"{model.need.name} cannot be loaded: {brief}")
        _log.error("%s; tried again after %g s", model.reason, wait_s)
        return Problem(model.reason, "model_load_failed", wait_s)

    def _notice_death(self, model: Tenant) -> None:
        """An engine that was loaded, died, and could not be started again has failed."""
        engine = model.engine
        if engine is not None and (state := engine.state) not in ("ready", "loading"):
            model.engine, model.place = None, ()
            self._background.start(engine.aclose(), f"end {model.need.name}")
            self._failed(model, state)

    def _set(self, model: Tenant, state: State, reason: str = "") -> None:
        model.state, model.since, model.reason = state, self._wall(), reason
        if state == "loading":
            self.loading.add(model.need.name)
        else:
            self.loading.discard(model.need.name)
        if model.engine is None:
            model.place = ()

    # -- making room, and leaving ---------------------------------------------------------------------------------

    async def _make_room(self, need: Need, device: str, evict: bool) -> None:
        """Send models away until the new one fits; memory is measured again after each. Raises `TooLarge`."""
        while (space := self._space(device, await self._measure(device))).free_mb < need.share_mb:
            leaving = placement.victims(device, self._residents()) if evict else []
            if not leaving or space.possible_mb < need.share_mb:
                needs = [model.need for model in self._models.values()]
                loaded = {one.name for one in self._residents()}
                raise placement.too_large(need, device, space, needs, loaded)
            _log.info("%s leaves %s to make room for %s", leaving[0].name, device, need.name)
            if not await self._leave(self._models[leaving[0].name], self._limits.drain_s):
                raise TooLarge(f"{need.name} needs the memory of {leaving[0].name} on {device}, which is in use")

    def _space(self, device: str, room: Room | None) -> Space:
        return placement.space(device, room, self._residents(), self._limits.memory_mb, self._awaited_mb[device])

    def _residents(self) -> list[Resident]:
        """Models that are loaded, those that are about to leave among them."""
        return [one for model in self._models.values() if (one := model.resident) is not None]

    async def _leave(self, model: Tenant, wait_s: float) -> bool:
        """End an engine after its calls in flight, if they end in time; calls that come meanwhile wait for that."""
        if model.leaving is None:
            model.leaving = self._background.start(self._depart(model, wait_s), f"unload {model.need.name}")
        work = model.leaving
        await asyncio.wait({work})
        return not work.cancelled() and work.result()

    async def _depart(self, model: Tenant, wait_s: float) -> bool:
        try:
            if model.calls:
                async with asyncio.timeout(wait_s):
                    await model.idle.wait()
            if model.engine is not None:
                await model.engine.aclose()
                model.engine = None
                self._set(model, "unloaded")
            return True
        except TimeoutError:
            return False
        finally:
            model.leaving = None

    async def _watch(self, idle_s: float) -> None:
        while True:
            await asyncio.sleep(max(1.0, idle_s / 10))
            await self.unload_idle(idle_s)
