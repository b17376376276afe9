"""Replay recorded answers of real providers through llmproxy, and show that clients see what the provider said.

Run `python -m benchmarks.recorded --data FOLDER` from the root of the repository, with the `dev` extra installed;
`--only GLOB` chooses recordings by provider/file, `--json FILE` keeps every result, `--verbose` tells each one. Exits 1
when something differs. Nothing outside this machine is called.

An upstream on the loopback interface plays each recorded response again: status, headers and body as they were. The
OpenAI SDK sends the recorded request to it twice, directly and through a real `llmproxy serve`, and what it hands to
its caller is compared. Streams go through four times: event by event, in one piece, cut at random places (and with
usage asked for), and with CRLF line ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import openai
from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat import ChatCompletion

from benchmarks.recordings import STREAM_VARIANTS, Exchange, JsonObject, Upstream, load, to_stored

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
POLL_S = 0.05
CONCURRENCY = 4
KEPT_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")
MESSAGE_KEYS = ("message", "detail", "title", "error", "raw")
ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage"})
# Statuses that are the client's own fault: they reach it unchanged.
RELAYED = frozenset({400, 413, 422})
Verdict = Literal["equal", "different", "judged"]


# -- what a client sees -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Failure:
    """An exception of the SDK: its class, the HTTP status (None in the middle of a stream), and the decoded body."""

    kind: str
    status: int | None
    body: Any
    text: str


@dataclass(slots=True)
class Seen:
    """What the SDK gave its caller: a whole answer, or the chunks of a stream, or those before a failure."""

    answer: JsonObject | None = None
    chunks: list[JsonObject] = field(default_factory=list)
    failure: Failure | None = None

    @property
    def usage(self) -> JsonObject | None:
        """The last usage in the stream."""
        return next((chunk["usage"] for chunk in reversed(self.chunks) if chunk.get("usage")), None)

    @property
    def deltas(self) -> list[JsonObject]:
        """What the stream says, choice by choice in the order it came; chunks that say nothing are left out."""
        numbers: dict[int, _CallNumbers] = {}
        said = (
            _spoken(choice, numbers.setdefault(choice.get("index") or 0, _CallNumbers()))
            for chunk in self.chunks
            for choice in chunk.get("choices") or ()
        )
        return [delta for delta in said if delta.keys() - {"index"}]

    @property
    def extras(self) -> list[JsonObject]:
        """Fields beside the choices that OpenAI does not know, chunk by chunk."""
        found = ({key: chunk[key] for key in chunk.keys() - ENVELOPE if chunk[key] is not None} for chunk in self.chunks)
        return [extra for extra in found if extra]

    @property
    def messages(self) -> dict[int, JsonObject]:
        """The choices put together again: texts joined, tool calls by number, lists lengthened."""
        whole: dict[int, JsonObject] = {}
        for delta in self.deltas:
            _grow(whole.setdefault(delta["index"], {}), {key: delta[key] for key in delta.keys() - {"index"}})
        return whole


class _CallNumbers:
    """Numbers tool calls by their first appearance: providers leave indices out, or give them twice."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._given: dict[Any, int] = {}
        self._last = -1

    def of(self, fragment: JsonObject) -> int:
        given, call_id = fragment.get("index"), fragment.get("id")
        if call_id and call_id in self._ids:
            return self._ids[call_id]
        if call_id or self._last < 0:
            self._last += 1
            if call_id:
                self._ids[call_id] = self._last
            self._given[given] = self._last
        return self._given.get(given, self._last)


def _spoken(choice: JsonObject, numbers: _CallNumbers) -> JsonObject:
    """A choice of a chunk without its role and without what is empty; `delta` is spread out."""
    flat = {key: value for key, value in choice.items() if key != "delta"} | (choice.get("delta") or {})
    flat.pop("role", None)
    if flat.get("tool_calls"):
        flat["tool_calls"] = [{**call, "index": numbers.of(call)} for call in flat["tool_calls"]]
    said = {key: value for key, value in flat.items() if value not in (None, "", [], {}) and key != "index"}
    return {"index": choice.get("index") or 0, **said}


def _grow(whole: JsonObject, part: JsonObject) -> None:
    for key, value in part.items():
        if key == "tool_calls":
            calls = whole.setdefault(key, {})
            for call in value:
                fields = {name: call[name] for name in call.keys() - {"index", "function"} if call[name]}
                _grow(calls.setdefault(call["index"], {}), {**(call.get("function") or {}), **fields})
        elif key in ("finish_reason", "id", "type", "name") or key not in whole or value is None:
            whole.setdefault(key, value)
        elif isinstance(value, str) and isinstance(whole[key], str):
            whole[key] += value
        elif isinstance(value, list) and isinstance(whole[key], list):
            whole[key] = whole[key] + value
        else:
            whole[key] = [*(whole[key] if isinstance(whole[key], list) else [whole[key]]), value]


_NAMED = frozenset(signature(AsyncCompletions.create).parameters) - {"self", "model", "stream"}


async def ask(client: openai.AsyncOpenAI, exchange: Exchange, model: str, *, usage: bool = False) -> Seen:
    """Send the recorded request with the SDK; what it has no argument for goes along as `extra_body`."""
    request = {key: value for key, value in exchange.request.items() if key not in ("model", "stream")}
    if usage:
        request["stream_options"] = {**(request.get("stream_options") or {}), "include_usage": True}
    named = {key: value for key, value in request.items() if key in _NAMED}
    extra = {key: value for key, value in request.items() if key not in _NAMED}
    seen = Seen()
    try:
        if exchange.endpoint == "embeddings":
            made = await client.embeddings.create(model=model, input=extra.pop("input"), extra_body=extra)
            seen.answer = _dump(made)
            return seen
        create: Any = client.chat.completions.create
        if exchange.endpoint == "completions":
            create, named, extra = client.completions.create, {"prompt": extra.pop("prompt")}, {**named, **extra}
        answer = await create(**named, model=model, stream=exchange.streamed, extra_body=extra or None)
        if exchange.streamed:
            async for chunk in answer:
                seen.chunks.append(_dump(chunk))
        else:
            seen.answer = _dump(answer)
    except openai.APIError as error:
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        text = f"{error} {error.__cause__ or ''}".strip()
        seen.failure = Failure(type(error).__name__, status, error.body, text)
    return seen


def _dump(made: Any) -> JsonObject:
    if isinstance(made, str):  # the content type was not JSON, so the SDK gives the text
        made = ChatCompletion.construct(**json.loads(made))
    dumped: JsonObject = made.model_dump(exclude_unset=True, warnings=False)
    return dumped


# -- comparing ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Result:
    """What became of one exchange. `notes` are the differences, or why the judge did not take the answer."""

    provider: str
    origin: str
    verdict: Verdict
    notes: list[str]


def compare(exchange: Exchange, direct: Seen, proxied: Seen, *, usage: bool) -> tuple[Verdict, list[str]]:
    """Whether the client of the proxy saw what the provider's own client saw."""
    if direct.failure is None and proxied.failure is not None:
        return _judged(proxied.failure, exchange)
    if direct.failure is not None and proxied.failure is None:
        return "different", [f"{direct.failure.kind} became an answer"]
    found: list[str] = []
    if direct.failure is not None and proxied.failure is not None:
        found += _failures(direct.failure, proxied.failure)
    if exchange.streamed:
        found += _streams(direct, proxied, usage=usage)
    elif direct.answer is not None and proxied.answer is not None:
        found += _unlike(_without_model(direct.answer), _without_model(proxied.answer), "")
    return ("different", found) if found else ("equal", [])


def _judged(failure: Failure, exchange: Exchange) -> tuple[Verdict, list[str]]:
    """An answer that reached nobody: the judge's verdict, where an attempt was made and its reason is told."""
    attempts = failure.body.get("attempts") if isinstance(failure.body, dict) else None
    if not attempts:
        return "different", [f"refused without an attempt: {failure.text[:300]}"]
    return "judged", [f"{attempts[-1]['outcome']}: {attempts[-1]['reason']}"]


def _failures(direct: Failure, proxied: Failure) -> Iterator[str]:
    if direct.status is None:
        return  # both broke in the middle of a stream
    body = proxied.body if isinstance(proxied.body, dict) else {}
    expected = _expected(direct, str(body.get("code")))
    if (proxied.kind, proxied.status) != expected:
        yield f"{direct.kind} {direct.status} became {proxied.kind} {proxied.status}: {proxied.text[:200]}"
    if not body.get("attempts"):
        yield "the error tells no attempts"
    said, told = list(_texts(direct.body)), " ".join(str(body.get("message")).split())
    if said and not (told in said if direct.status in RELAYED else any(text in told for text in said)):
        yield f"the message {said[0]!r} became {told!r}"


def _expected(direct: Failure, code: str) -> tuple[str, int | None]:
    """The class and status that the contract promises; `code` tells whether a 429 was about money."""
    if direct.status in RELAYED or direct.status == 404:
        return direct.kind, direct.status
    if direct.status == 429 and code != "all_candidates_failed":
        return direct.kind, 429
    return "InternalServerError", 502


def _texts(body: Any) -> Iterator[str]:
    """The texts of an error body that could be its message."""
    if isinstance(body, list):
        for item in body:
            yield from _texts(item)
    elif isinstance(body, dict):
        for key in (*MESSAGE_KEYS, *(body.keys() - set(MESSAGE_KEYS))):
            value = body.get(key)
            if isinstance(value, str) and key in MESSAGE_KEYS and len(value) > 3:
                yield " ".join(value.split())
            else:
                yield from _texts(value)


def _streams(direct: Seen, proxied: Seen, *, usage: bool) -> Iterator[str]:
    if direct.chunks and proxied.chunks:
        yield from _heads(direct.chunks[0], proxied.chunks)
    if direct.deltas != proxied.deltas:
        unlike = list(_unlike(direct.messages, proxied.messages, ""))
        yield from unlike or _first_unlike(direct.deltas, proxied.deltas)
    if direct.extras != proxied.extras:
        yield from _first_unlike(direct.extras, proxied.extras)
    if usage and direct.usage is not None:
        yield from _unlike(direct.usage, proxied.usage, "usage")
    elif not usage and proxied.usage is not None:
        yield "usage came though nobody asked for it"


def _heads(first: JsonObject, chunks: Sequence[JsonObject]) -> Iterator[str]:
    if first.get("id") and {chunk.get("id") for chunk in chunks} != {first["id"]}:
        yield f"id: {first['id']!r} became {sorted({str(chunk.get('id')) for chunk in chunks})}"
    delta = next((choice.get("delta") for chunk in chunks for choice in chunk.get("choices") or ()), None)
    if delta is not None and delta.get("role") != "assistant":
        yield "the first delta has no role"


def _first_unlike(ours: Sequence[Any], theirs: Sequence[Any]) -> Iterator[str]:
    """The first place where two lists part."""
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            yield f"piece {place}: {_short(one)} became {_short(other)}"
            return
    if len(ours) != len(theirs):
        rest = (ours if len(ours) > len(theirs) else theirs)[min(len(ours), len(theirs))]
        yield f"{len(ours)} pieces became {len(theirs)}; the first to differ: {_short(rest)}"


def _unlike(one: Any, other: Any, path: str) -> Iterator[str]:
    """Where two values differ, a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys(), key=str):
            yield from _unlike(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from _unlike(left, right, f"{path}.{place}")
    elif one != other:
        yield f"{path}: {_short(one)} became {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 160 else f"{text[:120]}…{text[-30:]}"


def _without_model(answer: JsonObject) -> JsonObject:
    return {key: value for key, value in answer.items() if key != "model"}


def _requests(direct: JsonObject | None, proxied: JsonObject | None) -> list[str]:
    """Whether the upstream was asked the same thing; the proxy asks for usage on its own account."""
    if direct is None or proxied is None:
        return []
    ours, theirs = ({k: v for k, v in body.items() if k not in ("model", "stream_options")} for body in (direct, proxied))
    if not ours.get("stream"):
        ours.pop("stream", None)
    return [f"request: {text}" for text in _unlike(ours, theirs, "")]


# -- running ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Report:
    """All results, and what the server wrote to its log."""

    results: list[Result]
    log: str

    @property
    def crashed(self) -> bool:
        """Whether the server met an error that it did not expect."""
        return "Traceback" in self.log


class Replay:
    """One upstream, one llmproxy in front of it, and one SDK client that speaks to both."""

    def __init__(self, upstream: Upstream, proxy_url: str, client: openai.AsyncOpenAI) -> None:
        self._upstream = upstream
        self._client = client
        self._proxied = client.with_options(base_url=f"{proxy_url}/v1")

    async def examine(self, key: str, exchange: Exchange) -> Result:
        """Replay one exchange in all its variants."""
        direct_client = self._client.with_options(base_url=f"{self._upstream.url}/{key}/v1")
        options = exchange.request.get("stream_options") or {}
        variants = STREAM_VARIANTS if exchange.streamed and exchange.status == 200 else ("whole",)
        direct = await ask(direct_client, exchange, "whole")
        sent = self._upstream.received.get((key, "whole"))
        verdicts: set[Verdict] = set()
        notes: dict[str, list[str]] = {}
        for variant in variants:
            usage = bool(options.get("include_usage")) or (variant == "split" and "include_usage" not in options)
            self._upstream.received.pop((key, variant), None)
            proxied = await ask(self._proxied, exchange, f"{key}/{variant}", usage=usage and exchange.streamed)
            verdict, found = compare(exchange, direct, proxied, usage=usage)
            found += (unlike := _requests(sent, self._upstream.received.get((key, variant))))
            verdicts.add("different" if unlike else verdict)
            for note in found:
                notes.setdefault(note, []).append(variant)
        said = [note if len(where) == len(variants) else f"{'+'.join(where)}: {note}" for note, where in notes.items()]
        worst: Verdict = "different" if "different" in verdicts or len(verdicts) > 1 else verdicts.pop()
        return Result(exchange.provider, exchange.origin, worst, said)


async def replay(exchanges: Sequence[Exchange], told: Callable[[Result], None] = lambda _: None) -> Report:
    """Replay all exchanges, a few at a time. Each has a provider of its own, so that no refusal is held against others."""
    keyed = {f"{exchange.provider}-{number}": exchange for number, exchange in enumerate(exchanges)}
    results: dict[str, Result] = {}
    waiting = iter(keyed.items())
    upstream = Upstream(keyed)
    async with upstream.running(), serving(upstream.url, list(keyed)) as (url, log):
        async with openai.AsyncOpenAI(api_key="recorded", base_url=url, max_retries=0, timeout=60) as client:
            one = Replay(upstream, url, client)

            async def work() -> None:
                for key, exchange in waiting:
                    results[key] = await one.examine(key, exchange)
                    told(results[key])

            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        written = log()
    return Report([results[key] for key in keyed], written)


@asynccontextmanager
async def serving(upstream_url: str, keys: Sequence[str]) -> AsyncIterator[tuple[str, Callable[[], str]]]:
    """A real server with one provider a key: its URL, and a function that reads what it has logged so far."""
    providers = {key: {"base_url": f"{upstream_url}/{key}/v1", "api_key": "recorded"} for key in keys}
    with tempfile.TemporaryDirectory() as home:
        config, out, log = Path(home, "config.json"), Path(home, "out"), Path(home, "log")
        config.write_text(json.dumps({"server": {"log_level": "WARNING"}, "providers": providers}))
        config.chmod(0o600)
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        command = ("-m", "llmproxy", "serve", "--config", str(config), "--no-local", "--port", "0")
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, env={**environment, "HOME": home, "XDG_CACHE_HOME": home},
                stdout=stdout, stderr=stderr,
            )  # fmt: skip
        try:
            yield await _announced(process, out, log), log.read_text
        finally:
            if process.returncode is not None:
                print(f"llmproxy ended by itself with {process.returncode}", file=sys.stderr)
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _announced(process: asyncio.subprocess.Process, out: Path, log: Path) -> str:
    """The URL in the server's first line; raises `SystemExit` with its log when it ends or says nothing."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                first, newline, _ = out.read_text().partition("\n")
                if newline:
                    return first.partition("listens on ")[2].split()[0]
                await asyncio.sleep(POLL_S)
    raise SystemExit(f"llmproxy did not start:\n{log.read_text()}")


# -- telling ------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result], skipped: Mapping[str, Counter[str]]) -> str:
    """The counts by provider, as a Markdown table."""
    lines = ["| provider | exchanges | equal | judged | different | not replayed |", "|---|--:|--:|--:|--:|---|"]
    total: Counter[str] = Counter()
    for provider in sorted({result.provider for result in results} | skipped.keys()):
        count = Counter(result.verdict for result in results if result.provider == provider)
        total += count
        left_out = ", ".join(f"{number} {reason}" for reason, number in skipped.get(provider, Counter()).most_common())
        lines.append(_row(provider, count, left_out))
    lines.append(_row("all", total, str(sum(count.total() for count in skipped.values()))))
    return "\n".join(lines)


def _row(name: str, count: Counter[str], left_out: str) -> str:
    cells = (name, count.total(), count["equal"], count["judged"], count["different"], left_out)
    return "| " + " | ".join(map(str, cells)) + " |"


def _tell(result: Result) -> None:
    print(f"{result.verdict:9} {result.origin}", flush=True)


def main() -> None:
    """Replay, print the table and each difference, and exit 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="write the chosen exchanges as compact JSON, and end")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    found = load(options.data)
    chosen = [exchange for exchange in found.exchanges if fnmatch(exchange.origin, options.only)]
    if not chosen:
        raise SystemExit(f"no recording below {options.data} fits {options.only}")
    report = asyncio.run(replay(chosen, _tell if options.verbose else lambda _: None))
    print(table(report.results, found.skipped if options.only == "*" else {}))
    for verdict in ("judged", "different"):
        for result in report.results:
            if result.verdict == verdict:
                print(f"{verdict}: {result.origin}: {'; '.join(result.notes)}")
    if report.crashed:
        print(report.log)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in report.results], indent=1, ensure_ascii=False))
    sys.exit(report.crashed or any(result.verdict == "different" for result in report.results))


if __name__ == "__main__":
    main()
