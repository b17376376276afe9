"""The real server as a process, and a plain HTTP client of it: what the tests of the outside contract talk through."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

Json = dict[str, Any]

ROOT = Path(__file__).parents[1]
START_S = 30.0
STOP_S = 20.0
POLL_S = 0.02


def environment(home: Path, **extra: str) -> dict[str, str]:
    """This process's environment with a home of its own, no proxies, and without any provider's key."""
    catalog = json.loads((ROOT / "providers" / "catalog.json").read_text("utf-8"))
    keys = {variable for entry in catalog.values() for variable in entry.get("api_key_env", ())}
    unwanted = keys | {"LLMPROXY_CONFIG", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in unwanted and not name.lower().endswith("_proxy") and not name.startswith("COV_CORE")
    }
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return kept | own | extra


def wait_until(holds: Callable[[], Any], timeout_s: float = 5.0, what: str = "it") -> Any:
    """The first true result of `holds`; fails when there is none within `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while not (result := holds()):
        assert time.monotonic() < deadline_s, f"{what} did not happen within {timeout_s:g} s"
        time.sleep(POLL_S)
    return result


@dataclass(slots=True)
class Server:
    """A running `llmproxy serve`; `home` holds its configuration, its caches and what it printed."""

    process: subprocess.Popen[bytes]
    home: Path
    url: str = ""
    told_to_stop: bool = False

    @property
    def config_path(self) -> Path:
        return self.home / "config.json"

    @property
    def printed(self) -> str:
        """Standard output so far."""
        return (self.home / "stdout.txt").read_text("utf-8")

    @property
    def log(self) -> str:
        """Standard error so far."""
        return (self.home / "stderr.txt").read_text("utf-8")

    def log_lines(self, **fields: Any) -> list[Json]:
        """The finished log lines that have all of `fields`."""
        lines = self.log.rpartition("\n")[0].splitlines()
        entries: list[Json] = [json.loads(line) for line in lines]
        return [entry for entry in entries if fields.items() <= entry.items()]

    def write_config(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration file at once."""
        text = config if isinstance(config, str) else json.dumps(config)
        fresh = self.home / "config.new"
        fresh.write_text(text, "utf-8")
        fresh.replace(self.config_path)

    def terminate(self) -> None:
        """Send SIGTERM, once."""
        if not self.told_to_stop:
            self.told_to_stop = True
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """SIGTERM, unless it was sent before, and the exit code."""
        self.terminate()
        return self.process.wait(STOP_S)


@contextlib.contextmanager
def serving(
    config: Mapping[str, Any], home: Path, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server with this configuration on a free port; SIGTERM must end it with exit code 0."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(config), "utf-8")
    command = [sys.executable, "-m", "llmproxy", "serve", "--config", str(home / "config.json"), "--port", "0"]
    with (home / "stdout.txt").open("wb") as out, (home / "stderr.txt").open("wb") as err:
        process = subprocess.Popen(
            [*command, *options], cwd=home, env=environment(home, **(env or {})), stdout=out, stderr=err
        )
    server = Server(process, home)
    try:
        server.url = _address(server)
        yield server
        code = server.stop()
        assert code == 0, f"exit code {code}; {server.log}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _address(server: Server) -> str:
    def first_line() -> str:
        assert server.process.poll() is None, f"the server ended at its start: {server.log}"
        line, finished, _ = server.printed.partition("\n")
        return line if finished else ""

    line: str = wait_until(first_line, START_S, "the server's first line")
    assert line.startswith("llmproxy ")
    return line.split(" listens on ")[1].split()[0]


def command(
    *arguments: str, home: Path, env: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run `llmproxy` with these arguments to its end."""
    return subprocess.run(
        [sys.executable, "-m", "llmproxy", *arguments],
        cwd=home,
        env=environment(home, **(env or {})),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def provider(url: str, **fields: Any) -> Json:
    """The entry of a provider at `url` in a configuration."""
    return {"base_url": url, "api_key": "sk-upstream-0123456789", **fields}


@contextlib.contextmanager
def unreachable() -> Iterator[str]:
    """The base URL of a port that is taken, but where nobody listens: every connection is refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    pieces: Sequence[bytes] = field(default=(), repr=False)

    @cached_property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Json:
        """The error object, with its four keys."""
        error: Json = self.json["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        return error

    @cached_property
    def events(self) -> list[Any]:
        """The data of each event, parsed but for `[DONE]`."""
        blocks = [block for block in self.body.decode().split("\n\n") if block.startswith("data: ")]
        return [_json_or_text(block.removeprefix("data: ")) for block in blocks]

    @property
    def chunks(self) -> list[Json]:
        """The chunks of a stream."""
        return [event for event in self.events if isinstance(event, dict)]

    @property
    def text(self) -> str:
        """The first choice's content, of a whole answer or of a stream."""
        if not self.streamed:
            return str(self.json["choices"][0]["message"]["content"])
        return "".join(delta.get("content") or "" for delta in self._deltas())

    @property
    def tool_calls(self) -> list[tuple[str, str]]:
        """The first choice's tool calls as (name, arguments)."""
        if not self.streamed:
            calls = self.json["choices"][0]["message"].get("tool_calls") or []
            return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        found: dict[int, list[str]] = {}
        for delta in self._deltas():
            for fragment in delta.get("tool_calls") or []:
                call = found.setdefault(fragment["index"], ["", ""])
                call[0] += fragment["function"].get("name") or ""
                call[1] += fragment["function"].get("arguments") or ""
        return [(name, arguments) for name, arguments in found.values()]

    @property
    def finish_reason(self) -> str | None:
        """The first choice's finish reason."""
        if not self.streamed:
            reason: str = self.json["choices"][0]["finish_reason"]
            return reason
        return next((c["finish_reason"] for c in self._choices() if c["finish_reason"]), None)

    @property
    def streamed(self) -> bool:
        return self.headers.get("Content-Type", "").startswith("text/event-stream")

    @property
    def trail(self) -> list[tuple[str, str]]:
        """`x-llmproxy-trail` as (model, outcome)."""
        entries = self.headers.get("x-llmproxy-trail", "").split(", ")
        pairs = [entry.rsplit(" ", 1)[0].rpartition(":") for entry in entries if entry]
        return [(model, outcome) for model, _, outcome in pairs]

    def _choices(self) -> list[Json]:
        return [choice for chunk in self.chunks for choice in chunk.get("choices", []) if choice["index"] == 0]

    def _deltas(self) -> list[Json]:
        return [choice["delta"] for choice in self._choices()]


def _json_or_text(text: str) -> Any:
    return text if text == "[DONE]" else json.loads(text)


class Client:
    """An HTTP client of one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def request(self, method: str, path: str | URL, **options: Any) -> Answer:
        """Send a request, to a path or a whole URL, and read its whole answer."""
        url = self.url + path if isinstance(path, str) else path
        async with self.session.request(method, url, **options) as response:
            pieces = [piece async for piece in response.content.iter_any()]
            return Answer(response.status, response.headers, b"".join(pieces), pieces)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, body: Any, **options: Any) -> Answer:
        """POST JSON, or bytes as they are."""
        what = {"data": body} if isinstance(body, bytes) else {"json": body}
        return await self.request("POST", path, **what, **options)

    async def chat(self, model: str | None = None, prompt: str = "hello there", **body: Any) -> Answer:
        """A chat request; `model` may also be left out."""
        named = {} if model is None else {"model": model}
        return await self.post(
            "/v1/chat/completions", {**named, "messages": [{"role": "user", "content": prompt}], **body}
        )

    @contextlib.asynccontextmanager
    async def streaming(self, model: str, **body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """A chat stream that the test reads by itself."""
        messages = [{"role": "user", "content": "hello there"}]
        request = {"model": model, "messages": messages, "stream": True, **body}
        async with self.session.post(self.url + "/v1/chat/completions", json=request) as response:
            yield response


@contextlib.asynccontextmanager
async def client_of(server: Server, **headers: str) -> AsyncIterator[Client]:
    """A client of `server` that sends these headers."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        yield Client(session, server.url)
