"""Which models are loaded: on first use, one load for all, as memory allows; shown with small engines and real ones."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backends.memory import Room
from backends.placement import Need
from backends.process import Worker
from backends.residency import Residency
from backends.residents import Limits, Status
from backends.tiny import PATH as TINY
from llmproxy.core.errors import Refused


@dataclass
class FakeEngine:
    """An engine that is ready when it is told so; it takes memory of its devices from its start to its end."""

    machine: Machine
    name: str
    place: tuple[str, ...]
    state: str = "loading"
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0

    def start(self) -> None:
        self.machine.started.append(self.name)
        self.machine.running.append(self)
        if self.machine.instant:
            self.state = self.machine.states.get(self.name, "ready")

    async def run(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        yield self.name.encode()

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        if self in self.machine.running:
            self.machine.running.remove(self)
            self.machine.ended.append(self.name)


@dataclass
class Machine:
    """Devices with memory, and the engines on them; `states` says what becomes of a model that is not `ready`."""

    needs: Mapping[str, Need]
    total_mb: Mapping[str, int]
    instant: bool = True
    states: dict[str, str] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    running: list[FakeEngine] = field(default_factory=list)
    now: float = 1000.0

    async def measure(self, device: str) -> Room:
        await asyncio.sleep(0)
        taken = sum(self.needs[engine.name].share_mb for engine in self.running if device in engine.place)
        return Room(self.total_mb[device], self.total_mb[device] - taken)

    def make(self, name: str, place: tuple[str, ...]) -> FakeEngine:
        return FakeEngine(self, name, place)

    def loaded(self) -> set[str]:
        return {engine.name for engine in self.running if engine.state == "ready"}

    def settle(self, state: str = "ready") -> None:
        """Let every load end."""
        for engine in self.running:
            engine.state = state


@asynccontextmanager
async def residency_of(
    *needs: Need, total_mb: int | Mapping[str, int] = 1000, limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[Residency, Machine]]:
    totals = {"cpu": total_mb} if isinstance(total_mb, int) else total_mb
    machine = Machine({need.name: need for need in needs}, totals, **options)
    residency = Residency(
        needs, machine.make, tuple(totals), machine.measure, limits, clock=lambda: machine.now, wall=lambda: machine.now
    )
    try:
        yield residency, machine
    finally:
        await residency.aclose()


async def use(residency: Residency, name: str) -> str:
    async with residency.using(name) as engine, aclosing(engine.run({})) as pieces:
        return b"".join([piece async for piece in pieces]).decode()


def status_of(residency: Residency, name: str) -> Status:
    return next(one for one in residency.status() if one.name == name)


async def turns(count: int = 20) -> None:
    """Let everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


# -- loading ------------------------------------------------------------------------------------------------------


async def test_a_model_loads_with_its_first_call() -> None:
    """Nothing is loaded before it is asked for; then it stays, and tells where and since when."""
    async with residency_of(Need("a", 100), Need("b", 100)) as (residency, machine):
        assert machine.started == []
        assert status_of(residency, "a") == Status("a", "unloaded", (), 1000.0, 0, 100)
        assert [await use(residency, "a"), await use(residency, "a")] == ["a", "a"]
        assert machine.started == ["a"]
        assert status_of(residency, "a") == Status("a", "loaded", ("cpu",), 1000.0, 0, 100)
        assert status_of(residency, "b").state == "unloaded"


async def test_one_load_for_all_callers() -> None:
    """However many ask for a model at once, it is loaded once, and all get it; one who leaves takes it from nobody."""
    async with residency_of(Need("a", 100), instant=False) as (residency, machine):
        calls = [asyncio.create_task(use(residency, "a")) for _ in range(50)]
        await turns()
        assert status_of(residency, "a").state == "loading"
        calls.pop().cancel()
        calls.pop(0).cancel()
        machine.settle()
        assert await asyncio.gather(*calls) == ["a"] * 48
        assert machine.started == ["a"]


async def test_one_load_at_a_time_on_a_device() -> None:
    """Two models of one device load one after the other; those of two devices side by side."""
    totals = {"cuda:0": 1000, "cuda:1": 1000}
    needs = [Need(name, 400) for name in "abcd"]
    async with residency_of(*needs, total_mb=totals, instant=False) as (residency, machine):
        calls = [asyncio.create_task(use(residency, name)) for name in "abcd"]
        await turns()
        assert sorted(engine.place for engine in machine.running) == [("cuda:0",), ("cuda:1",)]
        machine.settle()
        while len(machine.started) < 4:
            await asyncio.sleep(0.01)
            assert len([engine for engine in machine.running if engine.state == "loading"]) <= 2
        machine.settle()
        assert await asyncio.gather(*calls) == list("abcd")
        assert sorted(engine.place for engine in machine.running) == [("cuda:0",)] * 2 + [("cuda:1",)] * 2


async def test_models_at_the_start() -> None:
    """At the start models are loaded as far as they fit beside each other, pinned and important ones first."""
    needs = [Need("a", 500), Need("b", 500, priority=1), Need("c", 300, pinned=True)]
    async with residency_of(*needs) as (residency, machine):
        problems = await residency.warm(["a", "b", "c"])
        assert machine.started == ["c", "b"]
        assert machine.ended == []
        assert list(problems) == ["a"]
        assert "a needs 500 MiB of cpu, where 200 of 1000 are free" in problems["a"]


async def test_a_model_that_cannot_be_placed_at_the_start() -> None:
    """Whatever goes wrong with one model at the start, it is told, and the others are loaded."""
    odd, even = Need("odd", 500, priority=1), Need("even", 500)

    async def measure(device: str) -> Room:
        if residency.loading == {"odd"}:
            raise ValueError("no such device")
        return Room(1000, 1000)

    machine = Machine({"odd": odd, "even": even}, {"cpu": 1000})
    residency = Residency([odd, even], machine.make, ("cpu",), measure)
    try:
        assert await residency.warm(["odd", "even"]) == {"odd": "ValueError: no such device"}
        assert machine.loaded() == {"even"}
    finally:
        await residency.aclose()


async def test_a_call_does_more_than_the_start_would() -> None:
    """A call that waits for a load of the start which finds no room makes room itself."""
    async with residency_of(Need("a", 800), Need("b", 800)) as (residency, machine):
        await use(residency, "a")
        warming = asyncio.create_task(residency.warm(["b"]))
        await asyncio.sleep(0)
        assert await use(residency, "b") == "b"
        assert (await warming).keys() <= {"b"}
        assert machine.loaded() == {"b"}


# -- room ---------------------------------------------------------------------------------------------------------


async def test_the_least_recently_used_leaves() -> None:
    """When memory is short, the model that was not used for the longest time makes room, and no more than needed."""
    async with residency_of(*(Need(name, 300) for name in "abcd")) as (residency, machine):
        for name in "abcab":
            machine.now += 1
            await use(residency, name)
        assert await use(residency, "d") == "d"
        assert machine.ended == ["c"]
        assert machine.loaded() == {"a", "b", "d"}


async def test_a_model_counts_with_what_it_takes() -> None:
    """One that takes more than was thought gives back as much when it leaves, and is told of; less changes nothing."""
    first, second = Need("first", 300), Need("second", 800)
    async with residency_of(first, second, limits=Limits(memory_mb=900)) as (residency, machine):
        await residency.load("first")
        [engine] = machine.running
        for used_mb, counted_mb in ((200, 300), (700, 700)):
            engine.memory_bytes = {"cpu": used_mb << 20}
            engine.waiting = 3
            told = status_of(residency, "first")
            assert (told.memory_mb, told.used_bytes, told.waiting) == (counted_mb, {"cpu": used_mb << 20}, 3)
        await residency.load("second")
        assert machine.ended == ["first"]
        assert status_of(residency, "first").memory_mb == 300


async def test_lower_priority_leaves_first() -> None:
    """A model of a lower priority leaves first, even if it was used last."""
    async with residency_of(Need("a", 400, priority=1), Need("b", 400), Need("c", 400)) as (residency, machine):
        for name in "ab":
            machine.now += 1
            await use(residency, name)
        await use(residency, "c")
        assert machine.loaded() == {"a", "c"}


async def test_pinned_models_stay() -> None:
    """A pinned model never leaves for another; who does not fit beside it is refused, and told what fits."""
    needs = [Need("a", 700, pinned=True), Need("b", 400), Need("c", 200), Need("d", 300)]
    async with residency_of(*needs) as (residency, machine):
        await use(residency, "a")
        with pytest.raises(Refused) as caught:
            await use(residency, "b")
        assert (caught.value.http_status, caught.value.upstream_code) == (503, "insufficient_memory")
        assert caught.value.message == ("b needs 400 MiB of cpu, where 300 of 1000 are free; these fit: a, c, d")
        assert status_of(residency, "b").state == "unloaded"
        assert status_of(residency, "b").reason == caught.value.message
        assert machine.ended == []


async def test_nobody_leaves_in_vain() -> None:
    """A model that would not fit even if all others left is refused, and they stay."""
    async with residency_of(Need("a", 300), Need("b", 1200)) as (residency, machine):
        await use(residency, "a")
        with pytest.raises(Refused, match=r"700 of 1000 are free \(1000 if all leave that may\); these fit: a"):
            await use(residency, "b")
        assert machine.loaded() == {"a"}


async def test_memory_is_measured_again() -> None:
    """When the departure of one did not give what it was said to give, the next one leaves as well."""

    @dataclass
    class Leaky(Machine):
        async def measure(self, device: str) -> Room:
            room = await super().measure(device)
            return Room(room.total_mb, (room.free_mb or 0) - 250 * len(self.ended[:1]))

    needs = [Need(name, 400) for name in "abc"]
    machine = Leaky({need.name: need for need in needs}, {"cpu": 1000})
    residency = Residency(needs, machine.make, ("cpu",), machine.measure)
    for name in "abc":
        assert await use(residency, name) == name
    assert machine.ended == ["a", "b"]
    await residency.aclose()


async def test_a_model_in_use_is_waited_for() -> None:
    """A model with calls in flight leaves only after them; a new call for it waits, and loads it again."""
    async with residency_of(Need("a", 600), Need("b", 600)) as (residency, machine):
        async with residency.using("a"):
            second = asyncio.create_task(use(residency, "b"))
            await turns()
            third = asyncio.create_task(use(residency, "a"))
            await turns()
            assert (machine.ended, third.done()) == ([], False)
        assert await second == "b"
        assert await third == "a"
        assert machine.started == ["a", "b", "a"]


async def test_a_model_in_use_is_waited_for_so_long() -> None:
    """When the calls in flight last too long, the newcomer is refused, and the model stays and takes calls again."""
    async with residency_of(Need("a", 600), Need("b", 600), limits=Limits(drain_s=0.05)) as (residency, machine):
        async with residency.using("a"):
            with pytest.raises(Refused, match="b needs the memory of a on cpu, which is in use") as caught:
                await use(residency, "b")
            assert caught.value.upstream_code == "insufficient_memory"
            assert await use(residency, "a") == "a"
            assert status_of(residency, "a").calls == 1
        assert machine.started == ["a"]


async def test_idle_models_leave_before_busy_ones() -> None:
    """A model in use is not waited for where an idle one can leave, whatever their priorities."""
    async with residency_of(Need("a", 400), Need("b", 400, priority=5), Need("c", 400)) as (residency, machine):
        await use(residency, "b")
        async with residency.using("a"):
            await use(residency, "c")
        assert machine.loaded() == {"a", "c"}


async def test_a_configured_limit() -> None:
    """What all models take together stays within the limit, however much the device has."""
    needs = [Need("a", 300), Need("b", 300), Need("c", 600)]
    async with residency_of(*needs, total_mb=10_000, limits=Limits(memory_mb=500)) as (residency, machine):
        await use(residency, "a")
        await use(residency, "b")
        assert machine.loaded() == {"b"}
        with pytest.raises(Refused, match="of 500 are free"):
            await use(residency, "c")


async def test_devices_of_a_model() -> None:
    """A model is put on the emptiest devices that are large enough; with too few of them it is refused."""
    totals = {"cuda:0": 900, "cuda:1": 600, "cuda:2": 1000}
    needs = [Need("a", 1000, devices=2, device_memory_mb=800), Need("b", 100, devices=3, device_memory_mb=700)]
    async with residency_of(*needs, total_mb=totals) as (residency, _):
        await use(residency, "a")
        assert status_of(residency, "a").place == ("cuda:2", "cuda:0")
        with pytest.raises(Refused, match="b needs 3 devices with 700 MiB, of 3 there are 2"):
            await use(residency, "b")


async def test_models_that_run_elsewhere() -> None:
    """A model that takes no memory here needs no device and waits for no load."""
    async with residency_of(Need("a", 900), Need("remote", 0), instant=False) as (residency, machine):
        first = asyncio.create_task(use(residency, "a"))
        await turns()
        second = asyncio.create_task(use(residency, "remote"))
        await turns()
        assert [engine.place for engine in machine.running] == [("cpu",), ()]
        machine.settle()
        assert await asyncio.gather(first, second) == ["a", "remote"]


# -- failures -----------------------------------------------------------------------------------------------------


async def test_a_load_that_fails_is_told_and_backed_off() -> None:
    """All callers get the cause; until the wait is over nobody tries again, and each failure makes it longer."""
    async with residency_of(Need("a", 100), states={"a": "OSError: broken file"}) as (residency, machine):
        results = await asyncio.gather(*(use(residency, "a") for _ in range(5)), return_exceptions=True)
        assert {str(error) for error in results} == {"a cannot be loaded: OSError: broken file"}
        assert len({id(error) for error in results}) == 5
        assert status_of(residency, "a").state == "failed"
        waits = []
        for _ in range(5):
            with pytest.raises(Refused) as caught:
                await use(residency, "a")
            assert (caught.value.http_status, caught.value.upstream_code) == (503, "model_load_failed")
            waits.append(caught.value.retry_after_s)
            machine.now += waits[-1] or 0
            with pytest.raises(Refused):
                await use(residency, "a")
        assert waits == [5.0, 30.0, 120.0, 600.0, 600.0]
        assert len(machine.started) == 6
        assert machine.running == []
        machine.now += 600
        machine.states.clear()
        assert await use(residency, "a") == "a"
        assert status_of(residency, "a") == Status("a", "loaded", ("cpu",), machine.now, 0, 100)


async def test_a_load_that_does_not_end() -> None:
    """A load that takes too long is ended and has failed."""
    async with residency_of(Need("a", 100), instant=False, limits=Limits(load_s=60)) as (residency, machine):
        call = asyncio.create_task(use(residency, "a"))
        await turns()
        machine.now += 61
        with pytest.raises(Refused, match="not within 60 s"):
            await call
        assert machine.running == []


async def test_an_engine_that_cannot_be_made() -> None:
    """An error of whoever makes engines is the cause that callers get."""

    def make(name: str, place: tuple[str, ...]) -> FakeEngine:
        raise ValueError("no such command")

    async def measure(device: str) -> None:
        return None

    residency = Residency([Need("a", 100)], make, ("cpu",), measure)
    with pytest.raises(Refused, match="a cannot be loaded: ValueError: no such command"):
        await use(residency, "a")
    await residency.aclose()


async def test_an_engine_that_died_for_good() -> None:
    """A loaded engine that reports a failure has failed: it is ended, and loaded again after the wait."""
    async with residency_of(Need("a", 100)) as (residency, machine):
        await use(residency, "a")
        machine.running[0].state = "killed by signal 9"
        with pytest.raises(Refused, match="a cannot be loaded: killed by signal 9"):
            await use(residency, "a")
        await turns()
        assert machine.running == []
        machine.now += 5
        assert await use(residency, "a") == "a"


async def test_an_engine_that_starts_again_by_itself() -> None:
    """An engine that is loading again after its death is given to callers: it holds them until it is ready."""
    async with residency_of(Need("a", 100)) as (residency, machine):
        await use(residency, "a")
        machine.running[0].state = "loading"
        assert await use(residency, "a") == "a"
        assert machine.started == ["a"]


# -- leaving ------------------------------------------------------------------------------------------------------


async def test_unload() -> None:
    """A model leaves when it is asked to, pinned or not; one that is not loaded is left as it is."""
    async with residency_of(Need("a", 100, pinned=True), Need("b", 100)) as (residency, machine):
        await residency.load("a")
        await residency.unload("a")
        await residency.unload("b")
        assert machine.ended == ["a"]
        assert status_of(residency, "a").state == "unloaded"


async def test_unload_of_a_model_in_use() -> None:
    """It is refused at once, or after the time that was given for the calls in flight."""
    async with residency_of(Need("a", 100)) as (residency, machine):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(residency.using("a"))
            for wait_s in (0.0, 0.05):
                with pytest.raises(Refused, match="a is in use") as caught:
                    await residency.unload("a", wait_s)
                assert (caught.value.http_status, caught.value.upstream_code) == (409, "model_busy")
            leaving = asyncio.create_task(residency.unload("a", 30.0))
            await turns()
            assert not leaving.done()
        await leaving
        assert machine.ended == ["a"]


async def test_unload_of_a_model_that_loads() -> None:
    """A load under way is refused to be undone, or waited for and then undone."""
    async with residency_of(Need("a", 100), instant=False) as (residency, machine):
        loading = asyncio.create_task(residency.load("a"))
        await turns()
        with pytest.raises(Refused, match="a is in use"):
            await residency.unload("a")
        leaving = asyncio.create_task(residency.unload("a", 30.0))
        await turns()
        machine.settle()
        await asyncio.gather(leaving, loading)
        assert machine.started in (["a"], ["a", "a"])
        assert "a" in machine.ended


async def test_idle_models_leave() -> None:
    """What nobody used for so long leaves, but for pinned models and those in use."""
    needs = [Need("a", 100), Need("b", 100, pinned=True), Need("c", 100), Need("d", 100)]
    async with residency_of(*needs) as (residency, machine):
        for name in "abd":
            await use(residency, name)
        async with residency.using("c"):
            machine.now += 50
            await use(residency, "d")
            machine.now += 50
            assert await residency.unload_idle(60) == ("a",)
        assert machine.loaded() == {"b", "c", "d"}


async def test_the_end() -> None:
    """Closing ends loaded engines and loads under way; who waits for one is told, and nothing is loaded after it."""
    async with residency_of(Need("a", 100), Need("b", 100)) as (residency, machine):
        await use(residency, "a")
        machine.instant = False
        waiting = asyncio.create_task(use(residency, "b"))
        await turns()
        await residency.aclose()
        assert machine.running == []
        with pytest.raises(Refused, match="the server stops"):
            await waiting
        with pytest.raises(Refused, match="the server stops"):
            await use(residency, "a")
        assert machine.started == ["a", "b"]


# -- anything at all ----------------------------------------------------------------------------------------------


class StrictEngine(FakeEngine):
    """An engine that takes a while for everything, and notes when what must never happen does."""

    machine: StrictMachine
    calls: int = 0

    def start(self) -> None:
        super().start()
        for device, total_mb in self.machine.total_mb.items():
            there = [engine for engine in self.machine.running if device in engine.place]
            self.machine.expect(sum(self.machine.needs[one.name].share_mb for one in there) <= total_mb, "too much")
            self.machine.expect(sum(one.state == "loading" for one in there) <= 1, "two loads on one device")
        names = [engine.name for engine in self.machine.running]
        self.machine.expect(len(names) == len(set(names)), "loaded twice")
        asyncio.get_running_loop().call_later(0.001, self.settle)

    def settle(self) -> None:
        self.state = "ready" if self.machine.random.random() < 0.9 else "broken"

    async def run(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        self.calls += 1
        try:
            self.machine.expect(self in self.machine.running and self.state == "ready", "a call of an ended model")
            await asyncio.sleep(0.002 * self.machine.random.random())
            yield self.name.encode()
        finally:
            self.calls -= 1

    async def aclose(self) -> None:
        pinned = self.machine.needs[self.name].pinned and self.state == "ready"
        self.machine.expect(self.machine.closing or not (self.calls or pinned), "ended in use, or although pinned")
        await super().aclose()


@dataclass
class StrictMachine(Machine):
    random: random.Random = field(default_factory=random.Random)
    closing: bool = False
    broken: list[str] = field(default_factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.broken.append(otherwise)

    def make(self, name: str, place: tuple[str, ...]) -> FakeEngine:
        return StrictEngine(self, name, place)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens(seed: int) -> None:
    """Under random calls, cancellations, failures and unloads no device is overfull, no call loses its model, no
    pinned model leaves for another, and whoever waits gets an answer or a refusal."""
    chance = random.Random(seed)
    devices = {f"cuda:{place}": 1000 for place in range(chance.choice((1, 1, 2, 3)))}
    needs = [
        Need(f"m{place}", chance.choice((200, 350, 500, 900)), pinned=place == 0, priority=chance.choice((0, 0, 1)))
        for place in range(8)
    ]
    machine = StrictMachine({need.name: need for need in needs}, devices, instant=False, random=chance)
    residency = Residency(needs, machine.make, tuple(devices), machine.measure, Limits(drain_s=0.02))
    outcomes: dict[str, int] = {}

    async def client() -> None:
        for _ in range(25):
            name = chance.choice(needs[1:] if chance.random() < 0.9 else needs).name
            try:
                async with asyncio.timeout(0.003 if chance.random() < 0.1 else 5):
                    if chance.random() < 0.05 and name != "m0":
                        await residency.unload(name)
                    else:
                        assert await use(residency, name) == name
                outcome = "answered"
            except Refused as error:
                outcome = error.upstream_code or "none"
            except TimeoutError:
                outcome = "cancelled"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            machine.now += 1

    await asyncio.gather(*(client() for _ in range(12)))
    machine.closing = True
    await residency.aclose()
    assert machine.broken == []
    assert machine.running == []
    assert outcomes.keys() <= {
        "answered", "cancelled", "insufficient_memory", "model_load_failed", "model_busy"
    }  # fmt: skip
    assert outcomes["answered"] > 20


# -- real workers -------------------------------------------------------------------------------------------------


@pytest.mark.limit(180)
async def test_real_workers_share_a_small_memory(tmp_path: Path) -> None:
    """Two real models and room for one: each answers in its turn, and the other's process is gone by then."""
    workers: dict[str, Worker] = {}

    def make(name: str, place: tuple[str, ...]) -> Worker:
        workers[name] = Worker(name, TINY, place[0])
        return workers[name]

    async def measure(device: str) -> Room:
        return Room(1000, None)

    async def ask(name: str) -> Any:
        body = {"messages": [{"role": "user", "content": "Hello!"}]}
        sampling = {"temperature": 0.0, "max_tokens": 4, "stop": [], "logit_bias": {}}
        request = {"id": "call", "endpoint": "chat", "stream": False, "sampling": sampling, "body": body}
        async with residency.using(name) as engine, aclosing(engine.run(request)) as pieces:
            return json.loads(b"".join([piece async for piece in pieces]))

    residency = Residency([Need("one", 800), Need("two", 800)], make, ("cpu",), measure)
    try:
        for name, other in (("one", "two"), ("two", "one")):
            answer = await ask(name)
            assert answer["model"] == f"local/{name}"
            assert answer["choices"][0]["message"]["content"]
            assert workers[name].pid is not None
            assert other not in workers or workers[other].pid is None
        with pytest.raises(Refused, match="cannot be loaded"):
            await Residency([Need("x", 1)], lambda *_: Worker("x", tmp_path, "cpu"), ("cpu",), measure).load("x")
    finally:
        await residency.aclose()
