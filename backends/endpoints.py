"""What each endpoint asks of its handler (`backends.base`), and how the result is written. In worker processes only."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from backends.base import (
    Cancel,
    ChatHandler,
    ChatRequest,
    EmbeddingHandler,
    Rejected,
    RerankHandler,
    SpeechHandler,
    SpeechRequest,
)
from backends.parameters import Sampling
from backends.render import renderer
from backends.speech import transcripts
from backends.text import StopStrings
from backends.vectors import embedding_reply, read_embedding, read_rerank, rerank_reply
from llmproxy.core.types import JsonObject


class Endpoint(NamedTuple):
    """The `method` that a handler must have, and the bytes of an answer: of a handler, a request, a cancel, a name."""

    method: str
    answer: Callable[[Any, JsonObject, Cancel, str], Iterator[bytes]]


def chat(handler: ChatHandler, request: JsonObject, cancel: Cancel, name: str) -> Iterator[bytes]:
    """A chat, piece by piece. `usage` counts pieces as tokens: a handler tells no others."""
    body = request["body"]
    _refuse_forced(body)
    unsaid = {**asdict(Sampling()), "stop": []}  # as JSON has it
    told = {key: value for key, value in request["sampling"].items() if value != unsaid.get(key)}
    sampling: Mapping[str, Any] = {**handler.generation_defaults, **told}
    images = [base64.b64decode(image) for image in request.get("images", ())]
    asked = ChatRequest(body["messages"], body.get("tools") or (), sampling, images)
    out = renderer("chat", stream=request["stream"], call_id=request["id"], model=name)
    stops, pieces = StopStrings(tuple(request["sampling"]["stop"])), 0
    prompt_tokens = handler.count_tokens(asked)
    for text in handler.generate(asked, cancel):
        if cancel.is_set():
            return
        pieces += 1
        if data := out.say(0, stops.feed(text), ()):
            yield data
        if stops.stopped:
            break
    last = (out.say(0, stops.end(), ()), out.finish(0, "stop"), out.end(prompt_tokens, pieces))
    yield from filter(None, last)


def embeddings(handler: EmbeddingHandler, request: JsonObject, cancel: Cancel, name: str) -> Iterator[bytes]:
    """Vectors."""
    asked = read_embedding(request["body"])
    made = handler.embed(asked.texts, cancel)
    if not cancel.is_set():
        yield embedding_reply(asked, made, name)


def rerank(handler: RerankHandler, request: JsonObject, cancel: Cancel, name: str) -> Iterator[bytes]:
    """Documents in the order of their scores."""
    asked = read_rerank(request["body"])
    made = handler.rerank(asked.query, asked.documents, cancel)
    if not cancel.is_set():
        yield rerank_reply(asked, made, name, request["id"])


def speech(handler: SpeechHandler, request: JsonObject, cancel: Cancel, name: str) -> Iterator[bytes]:
    """A transcript, in the format that was asked for."""
    from backends.speech.audio import read_audio

    body = request["body"]
    asked = SpeechRequest(**{**body["request"], "timestamps": frozenset(body["request"]["timestamps"])})
    made = handler.transcribe(read_audio(Path(body["file"])), asked, cancel)
    if cancel.is_set():
        return
    if body["stream"]:
        yield from transcripts.events(made)
        return
    lists = asked.timestamps or frozenset({"segment"})
    yield transcripts.render(made, body["response_format"], task=asked.task, timestamps=lists).body


ENDPOINTS: dict[str, Endpoint] = {
    "chat": Endpoint("generate", chat),
    "embeddings": Endpoint("embed", embeddings),
    "rerank": Endpoint("rerank", rerank),
    "speech": Endpoint("transcribe", speech),
}


def _refuse_forced(body: JsonObject) -> None:
    """A handler writes free text: what must have a form is for a model of the chat engine."""
    choice, form = body.get("tool_choice"), (body.get("response_format") or {}).get("type", "text")
    for param, forced in (("tool_choice", choice not in (None, "auto", "none")), ("response_format", form != "text")):
        if forced:
            raise Rejected(
                f"{param} cannot be enforced on this model",
                kind="unsupported",
                code="unsupported_parameter",
                param=param,
            )
