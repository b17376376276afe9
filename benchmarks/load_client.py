"""A cheap closed-loop load client: each of C connections sends its next request when its last answer is whole.

Run by `python -m benchmarks.load_client --url URL --model M --requests N --concurrency C [--stream]`, the URL ending
in /v1; it prints one JSON object: requests, seconds, latencies in microseconds, and for streams events and reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import uvloop

UNTIMED_PER_CONNECTION = 2
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Result:
    """What one run saw; the first requests of each connection are counted but not timed."""

    requests: int = 0
    elapsed_s: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    first_event_p50_us: float = 0.0
    events: int = 0
    reads: int = 0


@dataclass(slots=True)
class Load:
    """The work that the connections share."""

    request: bytes
    total: int
    left: int
    done: asyncio.Future[None]
    finished: int = 0
    latencies_ns: list[int] = field(default_factory=list)
    firsts_ns: list[int] = field(default_factory=list)
    events: int = 0
    reads: int = 0

    def take(self) -> bool:
        """Whether one more request is to be sent."""
        self.left -= 1
        return self.left >= 0

    def fail(self, reason: str) -> None:
        """End the run; the measurement is void."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(reason))

    def finish(self) -> None:
        """Note a whole answer."""
        self.finished += 1
        if self.finished == self.total and not self.done.done():
            self.done.set_result(None)


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent = 0
        self._received = bytearray()
        self._end_bytes: int | None = None
        self._began_ns = self._first_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self._transport: Any = transport

    def send(self) -> None:
        """Send the next request, if there is one left."""
        if not self._load.take():
            return
        self._received.clear()
        self._end_bytes = None
        self._first_ns = 0
        self._sent += 1
        self._began_ns = time.perf_counter_ns()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """Collect the answer, and go on when it is whole."""
        self._load.reads += 1
        self._received += data
        if not self._first_ns and b"data: " in data:
            self._first_ns = time.perf_counter_ns()
        if self._end_bytes is None:
            self._read_head()
        if self._is_whole():
            self._note()
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection that closes within the run voids it."""
        self._load.fail(f"the connection was closed: {exc}")

    def _read_head(self) -> None:
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end]).lower()
        if not head.startswith(b"http/1.1 200"):
            self._load.fail(bytes(self._received[:500]).decode(errors="replace"))
        at = head.find(b"\r\ncontent-length:")
        self._end_bytes = head_end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else -1

    def _is_whole(self) -> bool:
        if self._end_bytes is None:
            return False
        return self._received.endswith(LAST_CHUNK) if self._end_bytes < 0 else len(self._received) >= self._end_bytes

    def _note(self) -> None:
        now_ns = time.perf_counter_ns()
        if self._sent > UNTIMED_PER_CONNECTION:
            self._load.latencies_ns.append(now_ns - self._began_ns)
            if self._first_ns:
                self._load.firsts_ns.append(self._first_ns - self._began_ns)
        if self._end_bytes == -1:
            self._load.events += _dechunked(bytes(self._received)).count(b"data: {")
        self._load.finish()


def _dechunked(answer: bytes) -> bytes:
    """The body of a chunked answer."""
    at = answer.index(b"\r\n\r\n") + 4
    parts: list[bytes] = []
    while True:
        line_end = answer.index(b"\r\n", at)
        size_bytes = int(answer[at:line_end].split(b";")[0], 16)
        if not size_bytes:
            return b"".join(parts)
        parts.append(answer[line_end + 2 : line_end + 2 + size_bytes])
        at = line_end + size_bytes + 4


def percentile_us(values_ns: Sequence[int], share: float) -> float:
    """The value in microseconds that `share` of the values do not exceed; 0 when there are none."""
    ordered = sorted(values_ns)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1_000 if ordered else 0.0


def request_bytes(host: str, path: str, model: str, stream: bool) -> bytes:
    """A chat request as it goes over the wire."""
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Tell me about the quick brown fox, in a few sentences."},
    ]
    body = json.dumps({"model": model, "messages": messages, "temperature": 0.5} | ({"stream": True} if stream else {}))
    head = (
        f"POST {path}/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer bench\r\n"
        f"Accept: */*\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body.encode()


async def run(url: str, model: str, requests: int, concurrency: int, stream: bool) -> Result:
    """Send the requests and wait for the last answer; raises RuntimeError when any fails."""
    target = urlsplit(url)
    host, port = target.hostname or "127.0.0.1", target.port or 80
    loop = asyncio.get_running_loop()
    request = request_bytes(target.netloc, target.path, model, stream)
    load = Load(request, requests, requests, loop.create_future())
    pairs = [await loop.create_connection(lambda: Connection(load), host, port) for _ in range(concurrency)]
    began_s = time.perf_counter()
    for _, connection in pairs:
        connection.send()
    await load.done
    return Result(
        load.finished,
        time.perf_counter() - began_s,
        percentile_us(load.latencies_ns, 0.5),
        percentile_us(load.latencies_ns, 0.99),
        percentile_us(load.firsts_ns, 0.5),
        load.events,
        load.reads,
    )


def main() -> None:
    """Run once and print the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    result = uvloop.run(run(options.url, options.model, options.requests, options.concurrency, options.stream))
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    main()
