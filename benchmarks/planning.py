"""What routing costs a request: its plan, its lease and the settlement, in pools of a hundred and of a thousand.

Repeat with `python -m benchmarks.planning` (some seconds). Each candidate has four limits of its own. CPU time of this
process, medians over rounds in which the pools take turns; exits with 1 when a target is missed.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from random import Random

from llmproxy.core.config import Config
from llmproxy.core.errors import Refused
from llmproxy.core.types import Call, Candidate, Model, Usage
from llmproxy.routing.book import Book, Lease
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.declared import Rule
from llmproxy.routing.health import Health
from llmproxy.routing.limits import Limit
from llmproxy.routing.planner import Draw, Moment

SIZES = (100, 1_000)
ROUNDS = 7
CALLS = 1_000
TARGET_US = 200.0
TARGET_RATIO = 3.0
BEGIN_S = 1_790_000_000.0
ROOMY = Rule(
    ("*",),
    (
        Limit("requests", 3_000, "sliding", 60.0),
        Limit("requests", 1e6, "fixed", 86_400.0, "day", "America/Los_Angeles"),
        Limit("tokens", 1e7, "bucket", 60.0),
        Limit("tokens", 1e9, "sliding", 86_400.0),
    ),
    False,
    "benchmark",
)
USED_UP = Rule(("*",), (Limit("requests", 1, "sliding", 86_400.0),), False, "benchmark")


class World:
    """A pool of so many candidates; of `used_up` in ten the only request of the day is spent."""

    def __init__(self, size: int, used_up: int) -> None:
        models = tuple(
            Model(f"p{n % 20}", f"m{n}", free=True, capabilities=frozenset({"tools"}), context_tokens=32_000 + n)
            for n in range(size)
        )
        offers = [
            Offer(name, tuple(m for m in models if m.source == name)) for name in sorted({m.source for m in models})
        ]
        spent = {model.name for number, model in enumerate(models) if number % 10 < used_up}
        self.catalog = Catalog(offers, Config.model_validate({"believed_free": ["*"]}))
        self.book = Book(lambda model: USED_UP if model.name in spent else ROOMY)
        self.health = Health()
        self.random = Random(7).random
        self.now = BEGIN_S
        for model in models:
            if model.name in spent:
                candidate = Candidate(model)
                self.book.force(candidate, self.book.cost(_call(), candidate, self.now), self.now)
        self.health.failed(
            Candidate(models[0]), Refused("busy", kind="server", http_status=500), 0.0
        )  # in use, health is never spotless

    def ask(self) -> None:
        """One request: the first of its plan, a lease, and the answer's usage."""
        self.now += 0.01
        call, now = _call(), self.now
        draw = Draw(self.catalog, call, Moment(self.health, now - BEGIN_S, 0, self.book, now, self.random))
        assert draw.has(1)
        candidate = draw.kept[0].candidate
        lease: Lease | None = self.book.reserve(candidate, self.book.cost(call, candidate, now), now)
        assert lease is not None
        self.book.settle(lease, Usage(180, 90), now)


def _call() -> Call:
    return Call("c", "chat", "llmproxy/free", {}, needs=frozenset({"tools"}), prompt_tokens=200)


def cpu_us(ask: Callable[[], None]) -> float:
    """CPU time of one call, in microseconds."""
    begun_s = time.process_time()
    for _ in range(CALLS):
        ask()
    return (time.process_time() - begun_s) / CALLS * 1e6


def main() -> None:
    """Measure, print, and judge."""
    missed = False
    print("| candidates | used up | plan, lease and settlement | target |\n| --: | --: | --: | --- |")
    for used_up in (0, 8):
        worlds = {size: World(size, used_up) for size in SIZES}
        for world in worlds.values():
            for _ in range(CALLS):
                world.ask()
        samples: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(ROUNDS):
            for size, world in worlds.items():
                samples[size].append(cpu_us(world.ask))
        medians = {size: statistics.median(samples[size]) for size in SIZES}
        for size, median in medians.items():
            print(f"| {size:,} | {used_up * 10}% | {median:.1f} µs | < {TARGET_US:.0f} µs |")
        ratio = medians[SIZES[1]] / medians[SIZES[0]]
        print(f"| {SIZES[1]:,} to {SIZES[0]:,} | {used_up * 10}% | {ratio:.2f} × | ≤ {TARGET_RATIO:g} × |")
        missed = missed or medians[SIZES[1]] >= TARGET_US or ratio > TARGET_RATIO
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
