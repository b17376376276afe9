"""A small request for each thing that a model is for, made before it counts as loaded. In worker processes only.

What does not work is noticed when the model is loaded and not by a client, and what is made with a first call (the
tables of the grammar, kernels of the device) is there.
"""

from __future__ import annotations

import tempfile
import threading
import wave
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson

from backends.base import SpeechRequest
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.parameters import read_sampling
from backends.runner import Runner
from llmproxy.core.types import JsonObject

_SIDE_PX = 64
_SECONDS = 1.0
_SAMPLES_PER_S = 16_000
_TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


class RehearsalFailed(RuntimeError):
    """A model cannot do what it is for."""


def rehearse(runner: Runner, capabilities: Collection[str]) -> None:
    """Have `runner` answer a request for each of `capabilities` (of `backends.weights`); `chat` is one of them.

    Raises `RehearsalFailed` with the first that it does not answer.
    """
    for capability in sorted(_REQUESTS.keys() & set(capabilities)):
        with _request(capability) as request:
            stage = _Stage(Letter(1, request, threading.Event()))
            with suppress(_Over):
                runner.run(stage, stage)
        if stage.error is not None:
            raise RehearsalFailed(f"it was loaded, and cannot do {capability}: {stage.error}")


class _Over(Exception):
    """Nothing more is asked."""


class _Stage:
    """A mailbox with one letter, and an outbox that keeps nothing but an error."""

    def __init__(self, letter: Letter) -> None:
        self._letters = [letter]
        self.error: str | None = None

    def take(self, *, wait: bool) -> list[Letter]:
        """The letter, once; raises `_Over` where there is nothing left to wait for."""
        letters, self._letters = self._letters, []
        if wait and not letters:
            raise _Over
        return letters

    def ended(self, call: int) -> None:
        """Nothing is kept of a call."""

    def put(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            if frame.kind is Kind.ERROR:
                self.error = orjson.loads(frame.payload)["message"]


# -- requests ---------------------------------------------------------------------------------------------------------


@contextmanager
def _request(capability: str) -> Iterator[JsonObject]:
    """A request as the server sends one; what it needs of the disk is there while the context is open."""
    head: JsonObject = {"id": "rehearsal", "stream": False}
    if capability == "speech":
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "silence.wav"
            path.write_bytes(_silence())
            request = {**asdict(SpeechRequest(temperature=0.0)), "timestamps": []}
            body = {"file": str(path), "response_format": "json", "stream": False, "request": request}
            yield {**head, "endpoint": "speech", "body": body}
        return
    yield {**head, **_REQUESTS[capability]()}


def _chat(content: Any, **more: Any) -> JsonObject:
    body: JsonObject = {"messages": [{"role": "user", "content": content}], "max_tokens": 2, **more}
    sampling = asdict(read_sampling(body, chat=True))
    return {"endpoint": "chat", "sampling": sampling, "body": {key: body[key] for key in body if key != "max_tokens"}}


def _vision() -> JsonObject:
    import base64

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (_SIDE_PX, _SIDE_PX), "white").save(file, "PNG")
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": ""}}]
    return {**_chat(parts), "images": [base64.b64encode(file.getvalue()).decode()]}


def _silence() -> bytes:
    file = BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(_SAMPLES_PER_S)
        out.writeframes(bytes(int(_SECONDS * _SAMPLES_PER_S) * 2))
    return file.getvalue()


_REQUESTS = {
    "chat": lambda: _chat("Hello"),
    "completions": lambda: {
        "endpoint": "completions",
        "sampling": asdict(read_sampling({"max_tokens": 2}, chat=False)),
        "body": {"prompt": "Hello"},
    },
    "tools": lambda: _chat("Hello", tools=[_TOOL], tool_choice="required"),
    "vision": _vision,
    "embeddings": lambda: {"endpoint": "embeddings", "body": {"input": "Hello"}},
    "rerank": lambda: {"endpoint": "rerank", "body": {"query": "Hello", "documents": ["Hello"]}},
    "speech": dict,
}
