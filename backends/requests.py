"""A call as the process of a local model gets it, and the type of its answer. Runs in the server; knows no torch."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import orjson

from backends.base import Rejected
from backends.images import ImageReader
from backends.parameters import read_sampling
from backends.speech.transcripts import CONTENT_TYPES, Task
from backends.speech.uploads import Upload, read_upload
from backends.vectors import read_embedding, read_rerank
from backends.weights import Weights
from llmproxy.core.errors import InvalidRequest, Refused, UnsupportedParameter
from llmproxy.core.types import Call, JsonObject

_JSON = "application/json"
_EVENTS = "text/event-stream"
# Fields of a chat or completion that are not about how tokens are drawn.
_KEPT = (
    "messages", "prompt", "tools", "tool_choice", "parallel_tool_calls", "continue_final_message", "response_format",
    "reasoning_effort", "chat_template_kwargs",
)  # fmt: skip
_TASKS: dict[str, Task] = {"/audio/transcriptions": "transcribe", "/audio/translations": "translate"}


class Request(NamedTuple):
    """What goes to the process, and the content type of what comes back."""

    message: JsonObject
    content_type: str = _JSON


class Requests:
    """Makes requests of calls: fetches images, keeps uploads while they are read."""

    def __init__(self, images: ImageReader, audio_limit_bytes: int) -> None:
        self._images = images
        self._audio_limit_bytes = audio_limit_bytes

    @asynccontextmanager
    async def of(self, call: Call, weights: Weights) -> AsyncIterator[Request]:
        """The request of a call; it may be read as long as the context is open.

        Raises a `ClientError` for what is wrong with every model, `UnsupportedParameter` and `Refused` for what is
        wrong with this one.
        """
        head: JsonObject = {"id": call.id, "stream": call.stream}
        if call.endpoint == "passthrough":
            path = call.path.partition("?")[0]
            if path in _TASKS and weights.kind == "speech" and call.method == "POST":
                async with self._upload(call, weights, _TASKS[path]) as request:
                    yield request._replace(message={**head, **request.message})
                return
            if path == "/rerank" and weights.kind == "rerank" and call.method == "POST":
                body = _json(call, weights)
                _check(lambda: read_rerank(body))
                yield Request({**head, "endpoint": "rerank", "body": body})
                return
            raise _not_served(weights, path)
        if weights.entry.command or weights.entry.upstream_base_url:
            yield Request({**head, "endpoint": call.endpoint, "body": call.body}, _stream_type(call))
        elif call.endpoint == "embeddings":
            if weights.kind != "embeddings":
                raise _not_served(weights, "/embeddings")
            _check(lambda: read_embedding(call.body))
            yield Request({**head, "endpoint": "embeddings", "body": call.body})
        else:
            yield Request({**head, **await self._written(call, weights)}, _stream_type(call))

    async def _written(self, call: Call, weights: Weights) -> JsonObject:
        """A chat or a completion."""
        is_chat = call.endpoint == "chat"
        if weights.kind not in ("chat", "vision"):
            raise _not_served(weights, "/chat/completions" if is_chat else "/completions")
        for capability in call.needs & {"vision", "audio"} - weights.capabilities:
            raise UnsupportedParameter(f"local/{weights.name} reads no {capability}", param=capability)
        sampling = read_sampling(call.body, chat=is_chat, reasons="reasoning" in weights.capabilities)
        body = {name: call.body[name] for name in _KEPT if name in call.body}
        request: JsonObject = {"endpoint": call.endpoint, "sampling": asdict(sampling), "body": body}
        if is_chat and weights.kind == "vision":
            images = await self._images.read(body["messages"], weights.name)
            request["images"] = [base64.b64encode(image).decode() for image in images]
            body["messages"] = [_without_urls(message) for message in body["messages"]]
        return request

    @asynccontextmanager
    async def _upload(self, call: Call, weights: Weights, task: Task) -> AsyncIterator[Request]:
        """Audio to be transcribed, in a file that both processes can read."""
        name = weights.name.encode()
        upload = read_upload([name.join(call.raw)], call.raw_headers.get("content-type", ""), task)
        if len(upload.audio) > self._audio_limit_bytes:
            limit_mb = self._audio_limit_bytes / (1 << 20)
            raise InvalidRequest(f"the audio has more than {limit_mb:g} MiB (local.audio_limit_mb)", param="file")
        path = await asyncio.to_thread(_spooled, upload.audio)
        try:
            yield Request(_speech(upload, path), _EVENTS if upload.stream else CONTENT_TYPES[upload.response_format])
        finally:
            path.unlink(missing_ok=True)


def _speech(upload: Upload, path: Path) -> JsonObject:
    asked = asdict(upload.request)
    asked["timestamps"] = sorted(asked["timestamps"])
    body = {"file": str(path), "response_format": upload.response_format, "stream": upload.stream, "request": asked}
    return {"endpoint": "speech", "body": body}


def _spooled(audio: bytes) -> Path:
    with tempfile.NamedTemporaryFile(prefix="llmproxy-", suffix=".audio", delete=False) as file:
        file.write(audio)
    return Path(file.name)


def _json(call: Call, weights: Weights) -> JsonObject:
    """The body of a pass-through call, with the model's own name in it."""
    try:
        body = orjson.loads(orjson.dumps(weights.name)[1:-1].join(call.raw))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body


def _check(read: Callable[[], object]) -> None:
    """What is wrong with a request is told before a model is loaded for it."""
    try:
        read()
    except Rejected as error:
        raise InvalidRequest(str(error), param=error.param) from error


def _without_urls(message: JsonObject) -> JsonObject:
    """The message with an empty URL in each of its images: they travel beside it."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [
        {**part, "image_url": {"url": ""}} if isinstance(part, dict) and part.get("type") == "image_url" else part
        for part in content
    ]
    return {**message, "content": parts}


def _stream_type(call: Call) -> str:
    return _EVENTS if call.stream else _JSON


def _not_served(weights: Weights, path: str) -> Refused:
    return Refused(
        f"local/{weights.name} does not serve {path}", kind="unsupported", http_status=400, code="unsupported_endpoint"
    )
