"""Start the servers of a benchmark as processes of their own, and read what they cost."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
SCHEDULER_CLOCK = 2  # CPUCLOCK_SCHED in the kernel's include/linux/posix-timers_types.h
KEPT_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `url` ends in /v1."""

    name: str
    url: str
    process: psutil.Process

    def cpu_s(self) -> float:
        """The CPU time that the process and its children have used, user and system, in seconds."""
        return sum(_cpu_s(process) for process in self._family())

    def rss_bytes(self) -> int:
        """The resident memory of the process and its children."""
        return sum(int(process.memory_info().rss) for process in self._family())

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    """Linux counts a process's CPU clock in nanoseconds but publishes ticks of 10 ms, so the clock is read itself."""
    if sys.platform == "linux":
        return time.clock_gettime((~process.pid << 3) | SCHEDULER_CLOCK)
    times = process.cpu_times()
    return float(times.user + times.system)


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def fast_upstream() -> Iterator[Server]:
    """The canned upstream."""
    port = free_port()
    with _server("direct", ["benchmarks.fast_upstream", "--port", str(port)], port) as server:
        yield server


@contextmanager
def bare_proxy(upstream: Server, name: str = "bare") -> Iterator[Server]:
    """The pass-through in front of the upstream."""
    port, origin = free_port(), upstream.url.removesuffix("/v1")
    with _server(name, ["benchmarks.bare_proxy", "--upstream", origin, "--port", str(port)], port) as server:
        yield server


@contextmanager
def llmproxy(upstream: Server) -> Iterator[Server]:
    """llmproxy with the upstream as its only provider, named `fast`, and no local models."""
    port = free_port()
    config = {
        "server": {"host": "127.0.0.1", "port": port, "log_level": "WARNING"},
        "providers": {"fast": {"base_url": upstream.url, "api_key": "bench"}},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        command = ["llmproxy", "serve", "--config", str(path), "--no-local"]
        with _server("llmproxy", command, port) as server:
            yield server


@contextmanager
def _server(name: str, command: list[str], port: int) -> Iterator[Server]:
    """Run `python -m` with the command until the block ends; its home is an empty folder and it sees no API keys."""
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as log:
        environment = {key: os.environ[key] for key in KEPT_VARIABLES if key in os.environ} | {"HOME": home}
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            if not _is_healthy(port, process):
                log.seek(0)
                raise SystemExit(f"{name} did not start:\n{log.read().decode(errors='replace')}")
            yield Server(name, f"http://127.0.0.1:{port}/v1", psutil.Process(process.pid))
        finally:
            _stop(process)


def _is_healthy(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until `GET /health` answers; False when the process ends or takes too long."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
