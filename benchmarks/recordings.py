"""Recorded exchanges with providers, and an upstream that plays them again.

Forms that are read: vcrpy cassettes (bodies as text, as gzip bytes, or decoded under `parsed_body`), Ruby VCR cassettes
(`http_interactions`), bare bodies (`vercel_ai_bodies`: one reply, or one chunk a line), quoted refusals
(`errors_headers/observed_errors.jsonl`), and the compact form of `tests/data/recorded`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from aiohttp import web

JsonObject = dict[str, Any]

ENDPOINTS = ("chat/completions", "completions", "embeddings")
STREAM_VARIANTS = ("events", "whole", "split", "crlf")
# What HTTP itself decides anew for each connection, and what is nobody's business.
_DROPPED_HEADERS = re.compile(
    r"connection|content-length|transfer-encoding|set-cookie.*|date|server|alt-svc|keep-alive|vary|via|cf-.*|report-to|nel"
)
_KEPT_WHEN_STORED = re.compile(r"content-type|retry-after(-ms)?|x-should-retry|x-ratelimit-.*|ratelimit.*")
_ASK: JsonObject = {"messages": [{"role": "user", "content": "(the request was not recorded)"}]}
PERMISSIVE = ("MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause")
_README = """# Recorded exchanges with providers

Each file is one exchange of a public test suite, taken from a recording there: the request, the status, the headers
that matter (`content-type`, `retry-after`, rate limits) and the body as text. `origin` names the recording in the data
folder of `benchmarks.recorded` and the place of the exchange in it. Bodies that came compressed are stored decoded;
keys, accounts and cookies were taken out. `asked: false` marks a request that was not recorded and is a stand-in.
Written by `python -m benchmarks.recorded --store`; played by `tests/recorded`.

The contents belong to the projects below, under the licence of each.

{table}
"""
_SECRETS = (
    (re.compile(r"\b(sk|gsk|xai|hf|csk|key)[-_][A-Za-z0-9_-]{16,}"), r"\1-scrubbed"),
    (re.compile(r"\borg_[a-z0-9]{16,}"), "org_scrubbed"),
    (re.compile(r"\b(user|acct)_[A-Za-z0-9]{16,}"), r"\1_scrubbed"),
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded request and its reply; `body` is as it went over the wire (`content-encoding` tells how).

    `origin` is the file below the data folder, `#` and the place of the exchange in it. `asked` is False where only
    the reply was recorded and the request is a stand-in.
    """

    provider: str
    origin: str
    endpoint: str
    request: JsonObject
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked: bool = True

    @property
    def streamed(self) -> bool:
        """Whether the client asked for a stream."""
        return bool(self.request.get("stream"))

    @property
    def text(self) -> bytes:
        """The body without its content encoding."""
        return gzip.decompress(self.body) if "content-encoding" in self.headers else self.body


@dataclass(slots=True)
class Recordings:
    """What a data folder holds: the exchanges of the OpenAI wire format, and what was left out and why, by provider."""

    exchanges: list[Exchange] = field(default_factory=list)
    skipped: dict[str, Counter[str]] = field(default_factory=dict)

    def skip(self, provider: str, reason: str) -> None:
        """Count an exchange that is not replayed."""
        self.skipped.setdefault(provider, Counter())[reason] += 1


# -- reading ------------------------------------------------------------------------------------------------------


def load(folder: Path) -> Recordings:
    """Everything below `folder`, in the order of the file names."""
    found = Recordings()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".yaml", ".yml"):
            _read_cassette(path, name, found)
        elif path.parent.name == "vercel_ai_bodies":
            _read_bodies(path, name, found)
        elif path.suffix == ".jsonl":
            _read_quotations(path, name, found)
    return found


class _Loader(yaml.CSafeLoader):
    """YAML as Ruby writes it too: `!binary` is its spelling of `!!binary`."""

    def binary(self, node: yaml.ScalarNode) -> bytes:
        """The bytes of a base64 scalar."""
        return base64.b64decode(str(self.construct_scalar(node)))


_Loader.add_constructor("!binary", _Loader.binary)


def _read_cassette(path: Path, name: str, found: Recordings) -> None:
    provider = name.partition("/")[0]
    with path.open(encoding="utf-8") as file:
        cassette = yaml.load(file, _Loader)
    for number, one in enumerate(cassette.get("interactions") or cassette.get("http_interactions") or ()):
        request, response = one["request"], one["response"]
        url = urlsplit(request["uri"])
        endpoint = next((known for known in ENDPOINTS if url.path.endswith("/" + known)), None)
        if request["method"].upper() != "POST" or endpoint is None:
            found.skip(provider, _kind(request["method"].upper(), url.path))
            continue
        body = request["parsed_body"] if "parsed_body" in request else _text(request.get("body"))
        asked = body if isinstance(body, dict) else json.loads(body)
        headers = {key.lower(): ", ".join(_list(value)) for key, value in (response.get("headers") or {}).items()}
        raw = _raw(response)
        if headers.get("content-encoding") != "gzip" or raw[:2] != b"\x1f\x8b":
            headers.pop("content-encoding", None)
        headers = {key: value for key, value in headers.items() if not _DROPPED_HEADERS.fullmatch(key)}
        found.exchanges.append(
            Exchange(provider, f"{name}#{number}", endpoint, asked, response["status"]["code"], headers, raw)
        )


def _kind(method: str, path: str) -> str:
    """Why an exchange is of another wire format, in words that can be counted."""
    if method != "POST":
        return f"{method}"
    for ending, what in (
        ("/responses", "OpenAI Responses"),
        ("/messages", "Anthropic Messages"),
        ("/v2/chat", "Cohere's own chat"),
        ("/v1/chat", "Cohere's own chat"),
    ):
        if path.endswith(ending):
            return what
    return "Gemini's own API" if "/v1beta/" in path else "another API"


def _list(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _text(body: Any) -> Any:
    return body["string"] if isinstance(body, dict) and "string" in body else body


def _raw(response: JsonObject) -> bytes:
    if "parsed_body" in response:
        return json.dumps(response["parsed_body"], ensure_ascii=False).encode()
    text = _text(response.get("body")) or ""
    return text if isinstance(text, bytes) else text.encode()


def _read_bodies(path: Path, name: str, found: Recordings) -> None:
    """A reply as one JSON object, or the chunks of a stream, a line each: only the framing of events is added."""
    text = path.read_text(encoding="utf-8").strip()
    lines = text.splitlines() if path.suffix == ".txt" else [text]
    first = json.loads(lines[0])
    if not {"choices", "error"} & first.keys():
        found.skip("vercel_ai_bodies", "another API")
        return
    stream = path.suffix == ".txt"
    status = first["error"]["code"] if "error" in first else 200
    body = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]) if stream else text
    headers = {"content-type": "text/event-stream" if stream else "application/json"}
    asked = {**_ASK, "stream": True} if stream else _ASK
    found.exchanges.append(
        Exchange("vercel_ai_bodies", f"{name}#0", ENDPOINTS[0], asked, status, headers, body.encode(), asked=False)
    )


def _read_quotations(path: Path, name: str, found: Recordings) -> None:
    """Refusals that were quoted word by word somewhere: a status, a body, and sometimes headers."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        one = json.loads(line)
        if not one.get("verbatim") or "body" not in one or one.get("http_status", 0) < 400:
            found.skip("errors_headers", "no body, or not verbatim")
            continue
        headers = {"content-type": "application/json", **{k.lower(): v for k, v in one.get("headers", {}).items()}}
        body = json.dumps(one["body"], ensure_ascii=False).encode()
        found.exchanges.append(
            Exchange("errors_headers", f"{name}#{number}", ENDPOINTS[0], _ASK, one["http_status"], headers, body, False)
        )


# -- the compact form ---------------------------------------------------------------------------------------------


def read_stored(path: Path) -> Exchange:
    """An exchange that `to_stored` wrote."""
    one = json.loads(path.read_text(encoding="utf-8"))
    return Exchange(**{**one, "body": one["body"].encode()})


def origins(manifest: Path) -> dict[str, tuple[str, str]]:
    """Where each file of a data folder is from, and its licence, as the table of its MANIFEST says."""
    found: dict[str, tuple[str, str]] = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) > 2 and cells[1].startswith("github:"):
            found[cells[0].removeprefix("cassettes/")] = (cells[1].removeprefix("github:"), cells[-1])
    return found


def store(exchanges: Sequence[Exchange], folder: Path, manifest: Path) -> None:
    """Write exchanges into `folder` with a README; raises `ValueError` for one whose licence does not allow it."""
    known, rows = origins(manifest), []
    folder.mkdir(parents=True, exist_ok=True)
    for exchange in exchanges:
        source, _, number = exchange.origin.rpartition("#")
        origin, licence = known.get(source, ("", ""))
        if licence not in PERMISSIVE:
            raise ValueError(f"{source}: the licence {licence or '(none)'!r} does not allow to store it")
        name = f"{source.replace('/', '__').rpartition('.')[0]}__{number}.json"
        (folder / name).write_text(to_stored(exchange), encoding="utf-8")
        rows.append(f"| `{name}` | {origin} | {licence} |")
    table = "\n".join(["| file | repository@commit:path | licence |", "|---|---|---|", *rows])
    (folder / "README.md").write_text(_README.format(table=table), encoding="utf-8")


def to_stored(exchange: Exchange) -> str:
    """The exchange as JSON: decoded body, the headers that matter, and nothing that looks like a key or an account."""
    headers = {key: value for key, value in exchange.headers.items() if _KEPT_WHEN_STORED.fullmatch(key)}
    fields = {
        "provider": exchange.provider,
        "origin": exchange.origin,
        "endpoint": exchange.endpoint,
        "request": exchange.request,
        "status": exchange.status,
        "headers": headers,
        "body": exchange.text.decode(),
        "asked": exchange.asked,
    }
    text = json.dumps(fields, ensure_ascii=False, indent=1)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text + "\n"


# -- playing ------------------------------------------------------------------------------------------------------


def pieces(exchange: Exchange, variant: str) -> list[bytes]:
    """The body as it is written to the socket: as recorded, event by event, cut at random, or with CRLF line ends."""
    if variant == "whole" or exchange.status != 200 or not exchange.streamed:
        return [exchange.body]
    if variant == "events":
        return re.findall(rb".+?(?:\r?\n\r?\n)+|.+\Z", exchange.text, re.DOTALL)
    body = exchange.text
    if variant == "crlf":
        return [body if b"\r\n" in body else body.replace(b"\n", b"\r\n")]
    draw, cut = random.Random(exchange.origin), [0]
    while cut[-1] < len(body):
        cut.append(cut[-1] + draw.randint(1, 97))
    return [body[begin:end] for begin, end in itertools.pairwise(cut)]


class Upstream:
    """Plays each exchange under `/<key>/v1`; the model asked for names the variant. Remembers what it was sent."""

    def __init__(self, exchanges: Mapping[str, Exchange]) -> None:
        self.exchanges = exchanges
        self.received: dict[tuple[str, str], JsonObject] = {}
        self.url = ""

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": STREAM_VARIANTS[0]}]})

    async def _play(self, request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        exchange = self.exchanges[key]
        asked = await request.json()
        self.received[key, asked["model"]] = asked
        headers = dict(exchange.headers)
        parts = pieces(exchange, asked["model"])
        if parts != [exchange.body]:
            headers.pop("content-encoding", None)
        headers.setdefault("content-type", "text/event-stream" if exchange.streamed else "application/json")
        response = web.StreamResponse(status=exchange.status, headers=headers)
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):  # a client may leave after the last event
            for part in parts:
                await response.write(part)
                await asyncio.sleep(0)
            await response.write_eof()
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        """Listen on a free port of the loopback interface; `url` says where."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/{key}/v1/models", self._models)
        for endpoint in ENDPOINTS:
            app.router.add_post(f"/{{key}}/v1/{endpoint}", self._play)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = "http://{}:{}".format(*runner.addresses[0][:2])
            yield self
        finally:
            await runner.cleanup()
