"""A local model behind a real server: time until it serves, tokens a second of clients, and how late the server is.

Run `python -m benchmarks.served` from the root of the repository, with the `dev` extra installed; `--write FILE` puts
the table between its two marks in that file. The model is that of `benchmarks.local`; each client streams completions
of 64 tokens one after the other. How late the server is, is how long `GET /version` takes meanwhile (with this busy
client), and what the server says of its own timers (`llmproxy_event_loop_lateness_seconds`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.local import COMPLETION_TOKENS, CONCURRENCIES, PROMPT_TOKENS, VOCAB_SIZE, build
from llmproxy.core.page_table import page_with, rewrite
from tests.servers import serving

MARK = "served"
CALLS = 4
_PROBE_S = 0.01


class Served(NamedTuple):
    """So many clients: tokens a second of all, their median first token, the probes' times, and how late timers came.

    `in_time` is the share of the server's own timers that were less than 5 ms late.
    """

    clients: int
    tokens_per_s: float
    first_token_s: float
    probes_s: Sequence[float]
    in_time: float


async def stream(session: aiohttp.ClientSession, prompt: Sequence[int]) -> float:
    """One completion; returns when its first text came."""
    body = {"model": "local/bench", "prompt": list(prompt), "max_tokens": COMPLETION_TOKENS, "stream": True}
    begun, first_s = time.perf_counter(), 0.0
    async with session.post("/v1/completions", json={**body, "temperature": 0}) as response:
        if response.status != 200:
            raise SystemExit(await response.text())
        async for line in response.content:
            if line.startswith(b"data: {") and not first_s:
                first_s = time.perf_counter() - begun
    return first_s


async def lateness(session: aiohttp.ClientSession) -> tuple[float, float]:
    """(timers of the server that were less than 5 ms late, all of them) since its start."""
    async with session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    head = "llmproxy_event_loop_lateness_seconds_"
    told = dict(line.rsplit(" ", 1) for line in lines if line.startswith(head))
    return float(told[f'{head}bucket{{le="0.005"}}']), float(told[f"{head}count"])


async def probe(session: aiohttp.ClientSession, times_s: list[float]) -> None:
    """Ask the server for its version again and again, and note how long that takes."""
    while True:
        begun = time.perf_counter()
        async with session.get("/version") as response:
            await response.read()
        times_s.append(time.perf_counter() - begun)
        await asyncio.sleep(_PROBE_S)


async def measure(session: aiohttp.ClientSession, clients: int, chance: random.Random) -> Served:
    """So many clients at once."""

    async def client() -> list[float]:
        prompts = [[chance.randrange(1, VOCAB_SIZE) for _ in range(PROMPT_TOKENS)] for _ in range(CALLS)]
        return [await stream(session, prompt) for prompt in prompts]

    probes_s: list[float] = []
    good, total = await lateness(session)
    probing = asyncio.ensure_future(probe(session, probes_s))
    begun = time.perf_counter()
    firsts = await asyncio.gather(*(client() for _ in range(clients)))
    elapsed_s = time.perf_counter() - begun
    probing.cancel()
    await asyncio.gather(probing, return_exceptions=True)
    tokens = clients * CALLS * COMPLETION_TOKENS
    good_now, total_now = await lateness(session)
    in_time = (good_now - good) / max(1.0, total_now - total)
    median_s = statistics.median(first for each in firsts for first in each)
    return Served(clients, tokens / elapsed_s, median_s, probes_s, in_time)


async def run(url: str) -> list[Served]:
    """The idle server, then more and more clients."""
    chance = random.Random(0)
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=300)) as session:
        await stream(session, [1] * PROMPT_TOKENS)
        return [await measure(session, clients, chance) for clients in CONCURRENCIES]


async def until_answered(url: str) -> float:
    """Seconds until the model has answered for the first time."""
    begun = time.perf_counter()
    async with aiohttp.ClientSession(url) as session:
        await stream(session, [1] * PROMPT_TOKENS)
    return time.perf_counter() - begun


def table(rows: Sequence[Served]) -> str:
    """The Markdown table."""
    lines = [
        "| clients | tokens/s | first text, median | `GET /version` meanwhile, p50 / p99 | timers < 5 ms late |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ordered = sorted(row.probes_s)
        p50, p99 = (ordered[len(ordered) * percent // 100] * 1000 for percent in (50, 99))
        first_ms = row.first_token_s * 1000
        speed, late = f"{row.tokens_per_s:.0f} | {first_ms:.0f} ms", f"{row.in_time:.1%}"
        lines.append(f"| {row.clients} | {speed} | {p50:.1f} / {p99:.1f} ms | {late} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=page_with(MARK), metavar="FILE", help="Markdown file with the two marks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place), Path(place) / "bench"
        build(folder)
        entry = {"name": "bench", "hf_repo_id": str(folder)}
        (home / "models.local.yaml").write_text(json.dumps({"models": [entry]}), "utf-8")
        config = {"local": {"models": ["bench"]}, "state": {"url": "memory"}}
        begun = time.perf_counter()
        with serving(config, home, env={"OMP_NUM_THREADS": "2"}) as server:
            listening_s = time.perf_counter() - begun
            ready_s = listening_s + asyncio.run(until_answered(server.url))
            rows = asyncio.run(run(server.url))
    told = f"{table(rows)}\n\nListening after {listening_s:.1f} s, first answer of the model after {ready_s:.1f} s."
    print(told)
    if options.write:
        rewrite(options.write, told, MARK)


if __name__ == "__main__":
    main()
