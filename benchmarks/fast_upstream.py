"""A fast OpenAI-shaped upstream with canned answers: hand-written HTTP/1.1 on asyncio's protocols, for load tests only.

Run by `python -m benchmarks.fast_upstream --port 0`; it prints its base URL first and serves until it is killed.
`bench-model` streams its chunks as fast as the loop turns, one write a turn; `bench-model-paced` one every `PACE_S`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from typing import Any

import uvloop

MODEL = "bench-model"
PACED_MODEL = "bench-model-paced"
STREAM_CHUNKS = 50
PACE_S = 0.005
CREATED = 1_700_000_000

USAGE = {"prompt_tokens": 20, "completion_tokens": 48, "total_tokens": 68}
SENTENCE = "The quick brown fox jumps over the lazy dog, and then it does so again. " * 3


def _bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _whole(value: Any, status: bytes = b"200 OK") -> bytes:
    body = _bytes(value)
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    return head + body


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    frame = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}
    return frame | {"choices": [choice]}


def _framed(data: bytes) -> bytes:
    """The data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(value: Any) -> bytes:
    return b"data: " + _bytes(value) + b"\n\n"


def _chunks() -> list[dict[str, Any]]:
    words = [_chunk({"content": f" word{index}"}) for index in range(STREAM_CHUNKS - 2)]
    return [_chunk({"role": "assistant", "content": ""}), *words, _chunk({}, "stop")]


CHAT = _whole(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": CREATED,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": SENTENCE}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
)
MODELS = _whole(
    {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": CREATED, "owned_by": "bench"} for name in (MODEL, PACED_MODEL)
        ],
    }
)
NOT_FOUND = _whole({"error": {"message": "no such path", "type": "x", "param": None, "code": None}}, b"404 Not Found")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM_EVENTS = [_framed(_event(chunk)) for chunk in _chunks()]
STREAM_USAGE = _framed(_event(_chunk({}) | {"choices": [], "usage": USAGE}))
STREAM_END = _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class FastUpstream(asyncio.Protocol):
    """One keep-alive connection; requests are answered in order, and bodies need a Content-Length."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (head_end := self._buffer.find(b"\r\n\r\n")) >= 0:
            end = head_end + 4 + _content_length(self._buffer[:head_end])
            if len(self._buffer) < end:
                return
            request, self._buffer = self._buffer[:end], self._buffer[end:]
            self._answer(request, head_end)

    def _answer(self, request: bytes, head_end: int) -> None:
        body = request[head_end:]
        if request.startswith(b"GET /v1/models "):
            self._transport.write(MODELS)
        elif request.startswith(b"GET /health "):
            self._transport.write(_whole({"status": "ok"}))
        elif not request.startswith(b"POST "):
            self._transport.write(NOT_FOUND)
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._stream(body)
        else:
            self._transport.write(CHAT)

    def _stream(self, body: bytes) -> None:
        end = STREAM_USAGE + STREAM_END if b"include_usage" in body else STREAM_END
        pace_s = PACE_S if PACED_MODEL.encode() in body else 0.0
        self._transport.write(STREAM_HEAD)
        self._write_next(iter([*STREAM_EVENTS[:-1], STREAM_EVENTS[-1] + end]), pace_s)

    def _write_next(self, events: Iterator[bytes], pace_s: float) -> None:
        event = next(events, None)
        if event is None or self._transport.is_closing():
            return
        self._transport.write(event)
        if pace_s:
            self._loop.call_later(pace_s, self._write_next, events, pace_s)
        else:
            self._loop.call_soon(self._write_next, events, pace_s)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(FastUpstream, "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
