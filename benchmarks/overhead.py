"""What llmproxy adds to a request: its CPU, latency and memory, side by side with a proxy that only forwards bytes.

Repeat with `python -m benchmarks.overhead` (a few minutes) or `--quick` (half a minute) from the root of the
repository, with the `dev` extra installed; `--json FILE` keeps every sample. Nothing outside this machine is called.

A canned upstream, a bare aiohttp pass-through, llmproxy and a load client each run in a process of their own on the
loopback interface. Rounds alternate between the two proxies, so that whatever else the machine does hits both; each
number is the median of the rounds, and each ratio the median of the rounds' own ratios. CPU is user plus system time of
the proxy's processes only. `--subject bare` puts a second bare proxy in llmproxy's place, which shows the noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.fast_upstream import MODEL, PACED_MODEL, STREAM_CHUNKS
from benchmarks.load_client import Result
from benchmarks.processes import ROOT, Server, bare_proxy, fast_upstream, llmproxy

RATIO_TARGET = 1.5
IDLE_TARGET_BYTES = 80_000_000
GROWTH_TARGET_BYTES = 4_000_000
SETTLE_S = 1.0
MODEL_TIMEOUT_S = 15.0
NUMBER_COLUMNS = range(2, 6)


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of load; `direct` phases also run against the upstream itself."""

    name: str
    model: str
    concurrency: int
    stream: bool
    requests: int
    direct: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to run."""

    rounds: int
    soak_requests: int
    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One phase of one round against one server."""

    round: int
    server: str
    phase: str
    cpu_s: float
    result: Result

    @property
    def cpu_us(self) -> float:
        """CPU per request, in microseconds."""
        return self.cpu_s * 1e6 / self.result.requests

    @property
    def cpu_us_per_chunk(self) -> float:
        """CPU per streamed chunk, in microseconds."""
        return self.cpu_s * 1e6 / self.result.events

    @property
    def requests_per_s(self) -> float:
        """Answers a second."""
        return self.result.requests / self.result.elapsed_s

    @property
    def chunks_per_s(self) -> float:
        """Streamed chunks a second."""
        return self.result.events / self.result.elapsed_s


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a proxy: idle, after a tenth of the soak, and after all of it."""

    idle_bytes: int
    warm_bytes: int
    end_bytes: int

    @property
    def growth_bytes(self) -> int:
        """What the last nine tenths of the soak added."""
        return self.end_bytes - self.warm_bytes


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report; the ratio is the subject's over the bare proxy's."""

    label: str
    unit: str
    direct: float | None
    bare: float
    subject: float
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


def make_plan(quick: bool) -> Plan:
    """The phases, with fewer requests and rounds when quick."""
    few = quick
    phases = (
        Phase("json c=1", MODEL, 1, False, 400 if few else 1_500, True),
        Phase("json c=64", MODEL, 64, False, 2_000 if few else 6_000, True),
        Phase("paced c=16", PACED_MODEL, 16, True, 96 if few else 256, True),
        Phase("flood c=16", MODEL, 16, True, 200 if few else 600, False),
    )
    return Plan(3 if few else 7, 2_000 if few else 20_000, phases)


def drive(server: Server, phase: Phase) -> Result:
    """Run the load client against the server, in its own process."""
    model = f"fast/{phase.model}" if server.name == "llmproxy" else phase.model
    options = ["--url", server.url, "--model", model]
    options += ["--requests", str(phase.requests), "--concurrency", str(phase.concurrency)]
    options += ["--stream"] if phase.stream else []
    command = [sys.executable, "-m", "benchmarks.load_client", *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{server.name}, {phase.name}: {ran.stderr[-2_000:]}")
    result = Result(**json.loads(ran.stdout))
    if phase.stream and result.events != result.requests * STREAM_CHUNKS:
        raise SystemExit(f"{server.name}, {phase.name}: {result.events} chunks in {result.requests} streams")
    return result


def measure(server: Server, phase: Phase, round_: int) -> Sample:
    """Run one phase and read the CPU time it took the server."""
    before_s = server.cpu_s()
    result = drive(server, phase)
    return Sample(round_, server.name, phase.name, server.cpu_s() - before_s, result)


def soak(server: Server, requests: int, idle_bytes: int) -> Memory:
    """Read the resident memory after a tenth of the requests and after all of them."""

    def send(count: int) -> int:
        drive(server, Phase("soak", MODEL, 64, False, count, False))
        return server.rss_bytes()

    return Memory(idle_bytes, send(requests // 10), send(requests - requests // 10))


def run(plan: Plan, subject: str) -> tuple[list[Sample], dict[str, Memory]]:
    """Start everything, soak both proxies, and measure in alternating rounds."""
    with ExitStack() as stack:
        upstream = stack.enter_context(fast_upstream())
        starters: dict[str, Callable[[], AbstractContextManager[Server]]] = {
            "llmproxy": lambda: llmproxy(upstream),
            "bare": lambda: bare_proxy(upstream, "bare too"),
        }
        proxies = [stack.enter_context(bare_proxy(upstream)), stack.enter_context(starters[subject]())]
        for proxy in proxies:
            _wait_for_model(proxy)
        time.sleep(SETTLE_S)
        idle = [proxy.rss_bytes() for proxy in proxies]
        memory = {proxy.name: soak(proxy, plan.soak_requests, rss) for proxy, rss in zip(proxies, idle, strict=True)}
        samples: list[Sample] = []
        for round_ in range(plan.rounds):
            print(f"round {round_ + 1} of {plan.rounds}", file=sys.stderr)
            samples += _round(upstream, proxies[:: 1 if round_ % 2 else -1], plan, round_)
    return samples, memory


def _round(upstream: Server, proxies: Sequence[Server], plan: Plan, round_: int) -> list[Sample]:
    samples = []
    for phase in plan.phases:
        servers = [upstream, *proxies] if phase.direct else proxies
        samples += [measure(server, phase, round_) for server in servers]
    return samples


def _wait_for_model(server: Server) -> None:
    """Wait until the proxy answers a chat request, since it may learn its models after it is healthy."""
    model = f"fast/{MODEL}" if server.name == "llmproxy" else MODEL
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{server.url}/chat/completions", body, {"Content-Type": "application/json"})
    deadline_s = time.monotonic() + MODEL_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except urllib.error.HTTPError as error:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"{server.name} answers {error.code}: {error.read()[:500]!r}") from error
            time.sleep(0.1)


class Report:
    """The rows of the table, from the samples of the upstream, the bare proxy and the subject."""

    def __init__(self, samples: Sequence[Sample], memory: dict[str, Memory]) -> None:
        self._samples = samples
        self._memory = memory
        self.bare, self.subject = memory

    def rows(self) -> list[Row]:
        """Every line, in the order of the report."""
        return [*self._json_rows(), *self._stream_rows(), *self._memory_rows()]

    def _json_rows(self) -> list[Row]:
        rows = [
            self._cost("json c=64: CPU a request", "µs", "json c=64", lambda s: s.cpu_us, RATIO_TARGET),
            self._cost("json c=1: CPU a request", "µs", "json c=1", lambda s: s.cpu_us, RATIO_TARGET),
            self._cost("json c=64: requests a second", "1/s", "json c=64", lambda s: s.requests_per_s),
        ]
        for phase in ("json c=1", "json c=64"):
            rows.append(self._added(f"{phase}: added p50", phase, lambda s: s.result.p50_us))
            rows.append(self._added(f"{phase}: added p99", phase, lambda s: s.result.p99_us))
        return rows

    def _stream_rows(self) -> list[Row]:
        paced, flood = "paced c=16", "flood c=16"
        return [
            self._cost("paced stream: CPU a stream", "µs", paced, lambda s: s.cpu_us, RATIO_TARGET),
            self._cost("paced stream: CPU a chunk", "µs", paced, lambda s: s.cpu_us_per_chunk, RATIO_TARGET),
            self._cost("paced stream: reads a stream", "", paced, lambda s: s.result.reads / s.result.requests),
            self._added("paced stream: added to first chunk", paced, lambda s: s.result.first_event_p50_us),
            self._cost("flood stream: reads a stream", "", flood, lambda s: s.result.reads / s.result.requests),
            self._cost("flood stream: CPU a stream", "µs", flood, lambda s: s.cpu_us),
            self._cost("flood stream: CPU a chunk", "µs", flood, lambda s: s.cpu_us_per_chunk),
            self._cost("flood stream: chunks a second", "1/s", flood, lambda s: s.chunks_per_s),
        ]

    def _memory_rows(self) -> list[Row]:
        bare, subject = self._memory[self.bare], self._memory[self.subject]
        rows = [
            Row(label, "MB", None, a / 1e6, b / 1e6, b / a)
            for label, a, b in (
                ("RSS idle", bare.idle_bytes, subject.idle_bytes),
                ("RSS after a tenth of the soak", bare.warm_bytes, subject.warm_bytes),
                ("RSS after the soak", bare.end_bytes, subject.end_bytes),
            )
        ]
        idle = rows[0]
        limit = f"< {IDLE_TARGET_BYTES / 1e6:.0f} MB"
        rows[0] = Row(idle.label, "MB", None, idle.bare, idle.subject, idle.ratio, limit, _is_small(subject))
        bare_mb, subject_mb = bare.growth_bytes / 1e6, subject.growth_bytes / 1e6
        limit = f"<= {GROWTH_TARGET_BYTES / 1e6:.0f} MB"
        return [*rows, Row("RSS growth (flat)", "MB", None, bare_mb, subject_mb, None, limit, _is_flat(subject))]

    def _cost(
        self, label: str, unit: str, phase: str, value: Callable[[Sample], float], target: float | None = None
    ) -> Row:
        bare, subject = self._values(self.bare, phase, value), self._values(self.subject, phase, value)
        ratio = statistics.median(theirs / ours for ours, theirs in zip(bare, subject, strict=True))
        limit, met = (f"<= {target} x", ratio <= target) if target else ("", None)
        return Row(label, unit, None, statistics.median(bare), statistics.median(subject), ratio, limit, met)

    def _added(self, label: str, phase: str, value: Callable[[Sample], float]) -> Row:
        """Latency over that of the upstream itself, whose own is in the first column."""
        direct = self._values("direct", phase, value)
        added = {}
        for name in (self.bare, self.subject):
            pairs = zip(direct, self._values(name, phase, value), strict=True)
            added[name] = statistics.median(through - base for base, through in pairs)
        bare, subject = added[self.bare], added[self.subject]
        return Row(label, "µs", statistics.median(direct), bare, subject, subject / bare if bare > 0 else None)

    def _values(self, server: str, phase: str, value: Callable[[Sample], float]) -> list[float]:
        return [value(sample) for sample in self._samples if (sample.server, sample.phase) == (server, phase)]


def _is_small(memory: Memory) -> bool:
    return memory.idle_bytes < IDLE_TARGET_BYTES


def _is_flat(memory: Memory) -> bool:
    return memory.growth_bytes <= GROWTH_TARGET_BYTES


def table(rows: Sequence[Row], bare: str, subject: str) -> str:
    """The rows as aligned text."""
    head = ("", "unit", "direct", bare, subject, "ratio", "target", "met")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    numbers = (_number(row.direct), _number(row.bare), _number(row.subject))
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    met = "" if row.met is None else "yes" if row.met else "NO"
    return (row.label, row.unit, *numbers, ratio, row.target, met)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    """Numbers to the right, words to the left."""
    cells = [
        cell.rjust(width) if column in NUMBER_COLUMNS else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def as_json(rows: Sequence[Row], samples: Sequence[Sample], memory: dict[str, Memory]) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "rows": [asdict(row) for row in rows],
        "samples": [asdict(sample) for sample in samples],
        "memory": {name: asdict(each) for name, each in memory.items()},
    }


def main() -> None:
    """Measure, print the table, and write the samples when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--subject", choices=("llmproxy", "bare"), default="llmproxy")
    options = parser.parse_args()
    samples, memory = run(make_plan(options.quick), options.subject)
    report = Report(samples, memory)
    rows = report.rows()
    print(table(rows, report.bare, report.subject))
    if options.json:
        options.json.write_text(json.dumps(as_json(rows, samples, memory), indent=1))


if __name__ == "__main__":
    main()
