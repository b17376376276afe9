"""Plan an answer, pure: the bytes, waits and breaks that the upstream performs, in order."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.fakes import replies
from tests.fakes.answers import prompt_words
from tests.fakes.refusals import RATE_HEADERS, error_body, refusal
from tests.fakes.script import Script

SSE = "text/event-stream; charset=utf-8"
COMMENT = b": PROCESSING\n\n"
HTML_PAGE = "<!doctype html><html><body><h1>Please sign in</h1></body></html>"
GZIP_WINDOW_BITS = 31
TRICKLE_DELAY_S = 0.05
SLOW_DELAY_S = 1.0
BODY_PIECE_BYTES = 64
WAIT_SLICES = 5

ChunkBytes = int | Literal["event"]


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this long, in seconds."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Keep the connection open for ever, sending the comment now and then when there is one."""

    comment: bytes = b""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection here; with `reset` by RST instead of FIN."""

    reset: bool = False


Step = bytes | Pause | Hang | Close


@dataclass(frozen=True, slots=True)
class Wire:
    """How answers are written: the split of streams, line ends, JSON spaces and the pause between chunks in seconds."""

    chunk_bytes: ChunkBytes = "event"
    crlf: bool = False
    json_spaces: bool = False
    delay_s: float = 0.0

    def under(self, script: Script) -> Wire:
        """The same with what the script changes."""
        return Wire(
            script.number("split", 0) or self.chunk_bytes,
            self.crlf or script.has("crlf"),
            self.json_spaces or script.has("spaces"),
            script.seconds("delay", TRICKLE_DELAY_S) if script.has("trickle") else self.delay_s,
        )

    def json(self, value: Any) -> bytes:
        """The value as JSON text."""
        separators = (", ", ": ") if self.json_spaces else (",", ":")
        return json.dumps(value, separators=separators, ensure_ascii=False).encode()

    def event(self, data: bytes) -> bytes:
        """The data as one server-sent event."""
        end = b"\r\n" if self.crlf else b"\n"
        return b"data: " + data + end + end


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: raw steps before the status line, then the head, then the body's steps; no length means chunked."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    length_bytes: int | None = None
    before: tuple[Step, ...] = ()


def plan(endpoint: str, body: Mapping[str, Any], script: Script, wire: Wire, whole: Any = None) -> Reply:
    """The reply to a request at `endpoint` (`chat`, `text`, `embeddings`, or any other, which answers `whole`)."""
    wire = wire.under(script)
    reply = _broken_connection(script) or _not_a_completion(body, script, wire)
    reply = reply or _completion(endpoint, body, script, wire, whole)
    if script.has("slow-headers"):
        reply = replace(reply, before=(Pause(script.seconds("delay", SLOW_DELAY_S)), *reply.before))
    rates = RATE_HEADERS.get(script.text("rates"), {})
    return replace(reply, headers={**rates, **reply.headers})


def json_reply(value: Any, wire: Wire, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A whole JSON answer."""
    return _whole(wire.json(value), "application/json", status, headers)


def html_reply(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A whole HTML page."""
    return _whole(text.encode(), "text/html; charset=utf-8", status, headers)


def _whole(body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, {"content-type": content_type, **(headers or {})}, (body,), len(body))


def _broken_connection(script: Script) -> Reply | None:
    if script.has("reset"):
        return Reply(before=(Close(reset=True),))
    if script.has("reset-headers"):
        return Reply(before=(b"HTTP/1.1 200 OK\r\nContent-Ty", Pause(0.01), Close(reset=True)))
    if script.has("silence"):
        return Reply(before=(Hang(),))
    return None


def _not_a_completion(body: Mapping[str, Any], script: Script, wire: Wire) -> Reply | None:
    refused = refusal(script, body, prompt_words(body))
    if refused and isinstance(refused.body, str):
        return html_reply(refused.body, refused.status, refused.headers)
    if refused:
        return json_reply(refused.body, wire, refused.status, refused.headers)
    if script.has("html-200"):
        return html_reply(HTML_PAGE)
    if script.has("not-json"):
        return _whole(b"this is not JSON", "application/json")
    if script.has("error-200"):
        return json_reply(_server_error(script), wire)
    if script.has("error-array-200"):
        return json_reply([_server_error(script)], wire)
    return None


def _server_error(script: Script) -> dict[str, Any]:
    return error_body("The model failed while it answered.", "server_error", script.text("code") or None)


def _completion(endpoint: str, body: Mapping[str, Any], script: Script, wire: Wire, whole: Any) -> Reply:
    if body.get("stream") and endpoint in ("chat", "text"):
        stream = replies.chat_stream(body, script) if endpoint == "chat" else replies.text_stream(body, script)
        steps = _split(_waits(_stream_steps(stream, script, wire), script), wire.chunk_bytes)
        headers = {"content-type": SSE, "cache-control": "no-cache"}
        return _encoded(Reply(200, headers, steps), script)
    makers = {"chat": replies.chat, "text": replies.text, "embeddings": replies.embeddings}
    value = makers[endpoint](body, script) if endpoint in makers else whole
    if script.has("in-band-error"):
        value = _server_error(script)
    return _damaged(_encoded(json_reply(value, wire), script), script, wire)


def _stream_steps(stream: replies.Stream, script: Script, wire: Wire) -> list[Step]:
    head, content, tail = (_events(chunks, wire) for chunks in (stream.head, stream.content, stream.tail))
    so_far = head + content[: script.number("after", 3)]
    done = wire.event(b"[DONE]")
    if script.has("cut"):
        return [*_paced(so_far, wire), Close(reset=script.has("rst"))]
    if script.has("cut-clean"):
        return _paced(so_far, wire)
    if script.has("stall"):
        return [*_paced(so_far, wire), Hang()]
    if script.has("in-band-error"):
        return _paced([*so_far, wire.event(wire.json(_server_error(script)))], wire)
    if script.has("malformed"):
        content.insert(len(content) // 2, wire.event(b'{"id":"chatcmpl-fake","choices":[{"ind'))
    events = head + content + tail
    if script.has("no-done"):
        return _paced(events, wire)
    return _paced([*events, done], wire) + ([Hang()] if script.has("open-after-done") else [])


def _events(chunks: Iterable[Mapping[str, Any]], wire: Wire) -> list[bytes]:
    return [wire.event(wire.json(chunk)) for chunk in chunks]


def _paced(pieces: list[bytes], wire: Wire) -> list[Step]:
    if not wire.delay_s:
        return list(pieces)
    paced: list[Step] = []
    for piece in pieces:
        paced += [piece, Pause(wire.delay_s)]
    return paced[:-1]


def _waits(steps: list[Step], script: Script) -> list[Step]:
    """Add the wait before the first token, and comments to every wait."""
    if script.has("slow-first"):
        steps = [Pause(script.seconds("delay", SLOW_DELAY_S)), *steps]
    if not script.has("comments"):
        return steps
    commented: list[Step] = [COMMENT]
    for step in steps:
        if isinstance(step, Pause):
            commented += [Pause(step.delay_s / WAIT_SLICES), COMMENT] * WAIT_SLICES
        else:
            commented.append(Hang(COMMENT) if isinstance(step, Hang) else step)
    return commented


def _split(steps: list[Step], chunk_bytes: ChunkBytes) -> tuple[Step, ...]:
    """Cut each run of bytes anew, every `chunk_bytes` bytes, whatever the events are."""
    if chunk_bytes == "event":
        return tuple(steps)
    split: list[Step] = []
    run = b""
    for step in [*steps, None]:
        if isinstance(step, bytes):
            run += step
            continue
        split += _pieces(run, chunk_bytes)
        run = b""
        split += [] if step is None else [step]
    return tuple(split)


def _pieces(data: bytes, size_bytes: int) -> list[bytes]:
    return [data[start : start + size_bytes] for start in range(0, len(data), size_bytes)]


def _encoded(reply: Reply, script: Script) -> Reply:
    if not script.has("gzip", "gzip-garbage"):
        return reply
    steps = (b"this is not gzip",) if script.has("gzip-garbage") else _gzipped(reply.steps)
    length_bytes = None if reply.length_bytes is None else sum(len(step) for step in steps if isinstance(step, bytes))
    headers = {**reply.headers, "content-encoding": "gzip"}
    return replace(reply, headers=headers, steps=steps, length_bytes=length_bytes)


def _gzipped(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Compress, flushed at each step so that nothing waits in the compressor."""
    compressor = zlib.compressobj(wbits=GZIP_WINDOW_BITS)
    done: list[Step] = []
    for step in steps:
        if isinstance(step, bytes):
            step = compressor.compress(step) + compressor.flush(zlib.Z_SYNC_FLUSH)
        done.append(step)
    if done and isinstance(done[-1], bytes):
        done.append(compressor.flush(zlib.Z_FINISH))
    return tuple(done)


def _damaged(reply: Reply, script: Script, wire: Wire) -> Reply:
    """Break a whole body as the script asks; the announced length stays that of the whole unless it ends cleanly."""
    body = b"".join(step for step in reply.steps if isinstance(step, bytes))
    half = body[: len(body) // 2]
    if script.has("malformed", "cut-clean"):
        return replace(reply, steps=(half,), length_bytes=len(half))
    steps: list[Step] = [body]
    if script.has("cut"):
        steps = [half, Close(reset=script.has("rst"))]
    elif script.has("stall"):
        steps = [half, Hang()]
    elif script.has("trickle"):
        steps = _paced(_pieces(body, BODY_PIECE_BYTES), wire)
    if script.has("slow-first"):
        steps = [Pause(script.seconds("delay", SLOW_DELAY_S)), *steps]
    return replace(reply, steps=tuple(steps))
