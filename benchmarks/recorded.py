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
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import openai
from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat import ChatCompletion

from benchmarks.recordings import STREAM_VARIANTS, Exchange, JsonObject, Upstream, load, store

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
POLL_S = 0.05
CONCURRENCY = 4
KEPT_VARIABLES = ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")
MESSAGE_KEYS = ("message", "detail", "title", "error", "raw")
ENVELOPE = frozenset({"id", "object", "created", "model", "choices", "usage"})
# Random characters that hide the length of a piece: they belong to the piece, and mean nothing.
PADDING = frozenset({"p", "obfuscation"})
# What a tool call may gain on its way, where the provider left it out.
REPAIRED = ("id", "type")
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
    retry_after: str | None = None


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
    def messages(self) -> dict[int, JsonObject]:
        """The choices put together again: texts joined, tool calls by number, lists lengthened."""
        whole: dict[int, JsonObject] = {}
        for delta in self.deltas:
            _grow(whole.setdefault(delta["index"], {}), {key: delta[key] for key in delta.keys() - {"index"}})
        return {index: _thought_apart(message) for index, message in whole.items()}

    def texts(self, key: str) -> list[str]:
        """The pieces in which a text came. White space before the first word goes with it: `<think>` may follow."""
        pieces: list[str] = []
        for piece in (delta[key] for delta in self.deltas if isinstance(delta.get(key), str)):
            if pieces and not pieces[-1].strip() and len(pieces) == 1:
                pieces[-1] += piece
            else:
                pieces.append(piece)
        return pieces

    def extras(self, *, usage: bool) -> list[str]:
        """Fields beside the choices, each value once; a chunk for usage alone counts only where usage is wanted."""
        told = (chunk for chunk in self.chunks if usage or chunk.get("choices") or not chunk.get("usage"))
        found = ({key: chunk[key]} for chunk in told for key in sorted(chunk.keys() - ENVELOPE - PADDING))
        return list(dict.fromkeys(json.dumps(extra, default=str) for extra in found if None not in extra.values()))


class _CallNumbers:
    """Numbers tool calls by their first appearance: providers leave indices out, or give them twice."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._given: dict[Any, int] = {}
        self._last = -1

    def of(self, fragment: JsonObject) -> int:
        """The number of the call that `fragment` belongs to."""
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
    flat = {key: value for key, value in choice.items() if key != "delta"} | _plain(choice.get("delta") or {})
    flat.pop("role", None)
    if flat.get("tool_calls"):
        flat["tool_calls"] = [{**call, "index": numbers.of(call)} for call in flat["tool_calls"]]
    said = {key: value for key, value in flat.items() if value not in (None, "", [], {}) and key != "index"}
    return {"index": choice.get("index") or 0, **said}


def _plain(message: JsonObject) -> JsonObject:
    """A message or delta in OpenAI's terms: text as a string, and reasoning also where most clients look for it."""
    content, plain = message.get("content"), dict(message)
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, dict):  # Cloudflare decodes the JSON that was asked for
        plain["content"] = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    elif isinstance(content, list):  # Mistral's thinking comes as parts
        plain["content"] = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
        inner = (part["thinking"] for part in content if part.get("type") == "thinking")
        thought = thought or "".join(one.get("text") or "" for parts in inner for one in parts)
    if isinstance(thought, str) and thought:
        plain["reasoning_content"] = thought
    return plain


def _thought_apart(message: JsonObject) -> JsonObject:
    """A whole message whose `<think>` part, if its text begins with one, is told as reasoning."""
    content = message.get("content")
    if not isinstance(content, str) or not content.lstrip().startswith("<think>"):
        return message
    thought, _, answer = content.lstrip().removeprefix("<think>").partition("</think>")
    told = {**message, "reasoning_content": thought.strip(), "content": answer.lstrip()}
    return {key: value for key, value in told.items() if value or key in message}


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
    except openai.APIStatusError as error:
        headers = error.response.headers
        seen.failure = Failure(
            type(error).__name__, error.status_code, error.body, str(error), headers.get("retry-after")
        )
    except openai.APIError as error:
        text = f"{error} {error.__cause__ or ''}".strip()
        seen.failure = Failure(type(error).__name__, None, error.body, text)
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
        found += _failures(direct, proxied)
    elif exchange.streamed:
        found += _streams(direct, proxied, usage=usage)
    elif direct.answer is not None and proxied.answer is not None:
        found += _unlike(_whole(direct.answer), _whole(proxied.answer), "")
    return ("different", found) if found else ("equal", [])


def _judged(failure: Failure, exchange: Exchange) -> tuple[Verdict, list[str]]:
    """An answer that reached nobody: the judge's verdict, where an attempt was made and its reason is told."""
    attempts = failure.body.get("attempts") if isinstance(failure.body, dict) else None
    if not attempts:
        return "different", [f"refused without an attempt: {failure.text[:300]}"]
    return "judged", [f"{attempts[-1]['outcome']}: {attempts[-1]['reason']}"]


def _failures(seen_directly: Seen, seen_proxied: Seen) -> Iterator[str]:
    direct, proxied = seen_directly.failure, seen_proxied.failure
    assert direct is not None
    assert proxied is not None
    if direct.status is None:
        # The stream broke in the middle. The proxy may keep back what came before, but may not invent anything.
        for key in ("content", "reasoning_content"):
            said, told = "".join(seen_directly.texts(key)), "".join(seen_proxied.texts(key))
            if not said.startswith(told):
                yield f"{key}: {_short(said)} became {_short(told)}"
        return
    body = proxied.body if isinstance(proxied.body, dict) else {}
    expected = _expected(direct, str(body.get("code")))
    if (proxied.kind, proxied.status) != expected:
        yield f"{direct.kind} {direct.status} became {proxied.kind} {proxied.status}: {proxied.text[:200]}"
    if not body.get("attempts"):
        yield "the error tells no attempts"
    if proxied.status == 429 and direct.retry_after and float(proxied.retry_after or 0) < float(direct.retry_after):
        yield f"Retry-After: {direct.retry_after} became {proxied.retry_after}"
    texts, message = list(_texts(direct.body)), " ".join(str(body.get("message")).split())
    if texts and not (message in texts if direct.status in RELAYED else any(text in message for text in texts)):
        yield f"the message {texts[0]!r} became {message!r}"


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
    ours, theirs = direct.messages, proxied.messages
    unlike = list(_unlike(ours, _unrepaired(ours, theirs), ""))
    yield from unlike
    if not unlike:
        for key in ("content", "reasoning_content"):
            if not any("<think>" in text for text in direct.texts("content")):
                yield from (f"{key}: {note}" for note in _first_unlike(direct.texts(key), proxied.texts(key)))
    told = proxied.extras(usage=usage)
    yield from (f"lost: {extra[:160]}" for extra in direct.extras(usage=usage) if extra not in told)
    if usage and direct.usage is not None:
        yield from _unlike(direct.usage, proxied.usage, "usage")
    elif not usage and proxied.usage is not None:
        yield "usage came though nobody asked for it"


def _unrepaired(ours: dict[int, JsonObject], theirs: dict[int, JsonObject]) -> dict[int, JsonObject]:
    """Messages without what their tool calls gained: an id, a type."""
    plain: dict[int, JsonObject] = {}
    for index, message in theirs.items():
        given = ours.get(index, {}).get("tool_calls") or {}
        calls = {
            number: {key: call[key] for key in call if key not in REPAIRED or key in given.get(number, {})}
            for number, call in (message.get("tool_calls") or {}).items()
        }
        plain[index] = {**message, "tool_calls": calls} if calls else message
    return plain


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


def _whole(answer: JsonObject) -> JsonObject:
    """A reply without the name of who answered, its messages in OpenAI's terms."""
    told = {key: value for key, value in answer.items() if key != "model"}
    if isinstance(told.get("choices"), list):
        told["choices"] = [
            {**choice, "message": _thought_apart(_plain(choice["message"]))} if choice.get("message") else choice
            for choice in told["choices"]
        ]
    return told


def _requests(direct: JsonObject | None, proxied: JsonObject | None) -> list[str]:
    """Whether the upstream was asked the same thing; the proxy asks for usage on its own account."""
    if direct is None or proxied is None:
        return []
    ours, theirs = _asked(direct), _asked(proxied)
    return [f"request: {text}" for text in _unlike(ours, theirs, "")]


def _asked(request: JsonObject) -> JsonObject:
    """A request without what may change: `stream: false` says nothing, and `any` is Mistral's word for `required`."""
    asked = {key: value for key, value in request.items() if key not in ("model", "stream_options")}
    if not asked.get("stream"):
        asked.pop("stream", None)
    if asked.get("tool_choice") == "any":
        asked["tool_choice"] = "required"
    return asked


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
        if direct.failure is not None and direct.failure.kind == "APIConnectionError":
            raise SystemExit(f"{exchange.origin}: the recording could not be played: {direct.failure.text}")
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
    """Replay all exchanges, a few at a time. Each has a provider of its own: no refusal is held against others."""
    keyed = {f"{exchange.provider}-{number}": exchange for number, exchange in enumerate(exchanges)}
    results: dict[str, Result] = {}
    waiting = iter(keyed.items())
    upstream = Upstream(keyed)
    async with upstream.running():
        with serving(upstream.url, list(keyed)) as (url, log):
            async with openai.AsyncOpenAI(api_key="recorded", base_url=url, max_retries=0, timeout=60) as client:
                one = Replay(upstream, url, client)

                async def work() -> None:
                    for key, exchange in waiting:
                        results[key] = await one.examine(key, exchange)
                        told(results[key])

                await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
            return Report([results[key] for key in keyed], log())


@contextmanager
def serving(upstream_url: str, keys: Sequence[str]) -> Iterator[tuple[str, Callable[[], str]]]:
    """A real server with one provider a key: its URL, and a function that reads what it has logged so far."""
    providers = {key: {"base_url": f"{upstream_url}/{key}/v1", "api_key": "recorded"} for key in keys}
    with tempfile.TemporaryDirectory() as home:
        config, out, log = Path(home, "config.json"), Path(home, "out"), Path(home, "log")
        config.write_text(json.dumps({"server": {"log_level": "WARNING"}, "providers": providers}))
        config.chmod(0o600)
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        environment = {**kept, "HOME": home, "XDG_CACHE_HOME": home}
        command = [sys.executable, "-m", "llmproxy", "serve", "--config", str(config), "--no-local", "--port", "0"]
        with out.open("wb") as stdout, log.open("wb") as stderr:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stdout, stderr=stderr)
        try:
            yield _announced(process, out, log), log.read_text
        finally:
            process.terminate()
            process.wait()


def _announced(process: subprocess.Popen[bytes], out: Path, log: Path) -> str:
    """The URL in the server's first line; raises `SystemExit` with its log when it ends or says nothing."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        first, newline, _ = out.read_text().partition("\n")
        if newline:
            return first.partition("listens on ")[2].split()[0]
        time.sleep(POLL_S)
    raise SystemExit(f"llmproxy did not start:\n{log.read_text()}")


# -- telling ------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result], skipped: Mapping[str, Counter[str]]) -> str:
    """The counts by provider, as a Markdown table."""
    lines = ["| provider | exchanges | equal | judged | different | not replayed |", "|---|--:|--:|--:|--:|---|"]
    total: Counter[str] = Counter()
    for provider in sorted({result.provider for result in results} | skipped.keys()):
        count: Counter[str] = Counter(result.verdict for result in results if result.provider == provider)
        total += count
        left_out = ", ".join(f"{number} {reason}" for reason, number in skipped.get(provider, Counter()).most_common())
        lines.append(_row(provider, count, left_out))
    lines.append(_row("all", total, str(sum(count.total() for count in skipped.values()))))
    return "\n".join(lines)


def _row(name: str, count: Mapping[str, int], left_out: str) -> str:
    cells = (name, sum(count.values()), count["equal"], count["judged"], count["different"], left_out)
    return "| " + " | ".join(map(str, cells)) + " |"


def _tell(result: Result) -> None:
    print(f"{result.verdict:9} {result.origin}", flush=True)


def main() -> None:
    """Replay, print the table and each difference, and exit 1 when there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", action="append", metavar="GLOB", help="of provider/file#number; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="write the chosen exchanges there, and end")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    found = load(options.data)
    globs = options.only or ["*"]
    chosen = [one for one in found.exchanges if any(fnmatchcase(one.origin, glob) for glob in globs)]
    if not chosen:
        raise SystemExit(f"no recording below {options.data} fits {' or '.join(globs)}")
    if options.store:
        store(chosen, options.store, options.data.parent / "MANIFEST.md")
        return
    report = asyncio.run(replay(chosen, _tell if options.verbose else lambda _: None))
    print(table(report.results, {} if options.only else found.skipped))
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
