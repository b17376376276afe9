"""OpenAI-shaped providers whose replies fail now and then, for `benchmarks.soak`: each on a port of its own.

Run by `python -m benchmarks.flaky_upstream --providers 4 --models 3 --failing 0.2 --seed 7`. It prints the base URL of
each provider, one a line, and serves until SIGTERM. Every request draws anew whether its reply fails, and how; the
replies themselves are those of `tests.fakes`, where the names of the faults are explained.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from random import Random

from tests.fakes.exchange import Request
from tests.fakes.upstream import Upstream

PACE_S = 0.004
MOST_CHUNKS = 12
SPLIT_BYTES = (7, 61, 200)
FAULTS = (
    "status-429+retry-after=1",
    "status-500",
    "status-503",
    "reset",
    "reset-headers",
    "cut+after={chunks}",
    "cut+rst+after={chunks}",
    "cut-clean+after={chunks}",
    "stall+after={chunks}",
    "in-band-error+after={chunks}",
    "empty",
    "gzip-garbage",
    "html-200",
    "malformed",
    "error-200",
    "not-json",
)


def model_names(count: int) -> list[str]:
    """The models of a provider; none of their names is a script."""
    return [f"model-{number}" for number in range(count)]


def draw(random: Random, failing: float) -> str:
    """The script of one reply: a fault with probability `failing`, and for one in four an odd split of its stream."""
    script = random.choice(FAULTS) if random.random() < failing else "ok"
    script = script.format(chunks=random.randint(0, MOST_CHUNKS))
    return f"{script}+split={random.choice(SPLIT_BYTES)}" if random.random() < 0.25 else script


class Provider:
    """One provider, with a share `failing` of failing replies. `upstream` serves it."""

    def __init__(self, models: list[str], failing: float, seed: str) -> None:
        self._random = Random(seed)
        self._failing = failing
        self.upstream = Upstream(models, headers=self._answered, delay_s=PACE_S)
        self.upstream.scripts |= {model: self._draw() for model in models}

    def _answered(self, request: Request) -> Mapping[str, str]:
        """A reply is about to begin: draw the next one of that model, and forget the request."""
        self.upstream.requests.clear()
        if request.model is not None:
            self.upstream.scripts[request.model] = self._draw()
        return {}

    def _draw(self) -> str:
        return draw(self._random, self._failing)


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    models = model_names(options.models)
    async with AsyncExitStack() as stack:
        for place in range(options.providers):
            provider = Provider(models, options.failing, f"{options.seed}-{place}")
            upstream = await stack.enter_async_context(provider.upstream)
            print(upstream.url, flush=True)
        await stop.wait()


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--providers", type=int, default=1)
    parser.add_argument("--models", type=int, default=1, help="of each provider")
    parser.add_argument("--failing", type=float, default=0.0, help="share of the replies that fail")
    parser.add_argument("--seed", type=int, default=0)
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
