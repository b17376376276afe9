"""OpenAI's wire formats, pure: whole bodies and streams of chunks."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.answers import Answer, Body, Call, chat_answer, prompt_words, prompts, slices, text_answer
from tests.fakes.script import Script

Json = dict[str, Any]

CREATED = 1_700_000_000
CHAT_ID = "chatcmpl-fake"
TEXT_ID = "cmpl-fake"
VECTOR_SIZE = 8


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream's chunks: the role deltas, one chunk per piece of content, then finish reasons and usage."""

    head: tuple[Json, ...]
    content: tuple[Json, ...]
    tail: tuple[Json, ...]


def chat(body: Body, script: Script) -> Json:
    """A whole `chat.completion`."""
    answer = chat_answer(body, script)
    message = _message(answer)
    choices = [
        {
            "index": index,
            "message": message,
            "logprobs": _logprobs(answer.pieces, body),
            "finish_reason": answer.finish_reason,
        }
        for index in _indices(body)
    ]
    reply = _frame(body, CHAT_ID, "chat.completion", [] if script.has("no-choices") else choices)
    return reply | _usage_of(body, script, answer.completion_tokens * len(choices))


def chat_stream(body: Body, script: Script) -> Stream:
    """The chunks of a chat completion; `n` choices are interleaved."""
    answer = chat_answer(body, script)
    kind = "chat.completion.chunk"
    if script.has("no-choices"):
        return Stream((), (), (_frame(body, CHAT_ID, kind, []),))

    def chunk(index: int, delta: Json, finish_reason: str | None = None, piece: str | None = None) -> Json:
        logprobs = _logprobs((piece,), body) if piece is not None else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return _frame(body, CHAT_ID, kind, [choice]) | _null_usage(body, script)

    indices = _indices(body)
    head = () if script.has("no-role") else tuple(chunk(i, {"role": "assistant", "content": ""}) for i in indices)
    content = tuple(chunk(i, delta, piece=delta.get("content")) for delta in _deltas(answer, script) for i in indices)
    tail = tuple(chunk(i, {}, answer.finish_reason) for i in indices)
    return Stream(
        head, content, tail + _usage_chunk(body, script, CHAT_ID, kind, answer.completion_tokens * len(indices))
    )


def text(body: Body, script: Script) -> Json:
    """A whole `text_completion` with `n` choices for each prompt."""
    answers = _text_answers(body, script)
    choices = [
        {"text": answer.text, "index": index, "logprobs": None, "finish_reason": answer.finish_reason}
        for index, answer in enumerate(answers)
    ]
    reply = _frame(body, TEXT_ID, "text_completion", [] if script.has("no-choices") else choices)
    return reply | _usage_of(body, script, sum(answer.completion_tokens for answer in answers))


def text_stream(body: Body, script: Script) -> Stream:
    """The chunks of a legacy completion, one choice after the other."""
    answers = _text_answers(body, script)
    kind = "text_completion"

    def chunk(index: int, piece: str, finish_reason: str | None) -> Json:
        choice = {"text": piece, "index": index, "logprobs": None, "finish_reason": finish_reason}
        return _frame(body, TEXT_ID, kind, [choice]) | _null_usage(body, script)

    content = tuple(chunk(index, piece, None) for index, answer in enumerate(answers) for piece in answer.pieces)
    tail = tuple(chunk(index, "", answer.finish_reason) for index, answer in enumerate(answers))
    completion_tokens = sum(answer.completion_tokens for answer in answers)
    return Stream((), content, tail + _usage_chunk(body, script, TEXT_ID, kind, completion_tokens))


def embeddings(body: Body, script: Script) -> Json:
    """Unit vectors that depend on the input only, as floats or as base64 of little-endian float32."""
    inputs = _embedding_inputs(body.get("input", ""))
    size = body.get("dimensions") or VECTOR_SIZE
    as_base64 = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_base64 else vector}
        for index, vector in enumerate(unit_vector(item, size) for item in inputs)
    ]
    prompt_tokens = sum(len(item.split()) for item in inputs)
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    reply = {"object": "list", "data": data, "model": body.get("model")}
    return reply if script.has("usage-none") else reply | {"usage": usage}


def unit_vector(item: str, size: int) -> list[float]:
    """A deterministic float32 vector of length 1 (size,)."""
    raw = [hashlib.sha256(f"{index}:{item}".encode()).digest()[0] - 127.5 for index in range(size)]
    norm = math.sqrt(sum(value * value for value in raw))
    return [float(struct.unpack("<f", struct.pack("<f", value / norm))[0]) for value in raw]


def model_list(models: list[str | Json], shape: str) -> Any:
    """The models in the shape `data` (OpenAI's), `array` (bare) or `models`."""
    entries = [_model_entry(model) if isinstance(model, str) else model for model in models]
    if shape == "array":
        return entries
    if shape == "models":
        return {"models": entries}
    return {"object": "list", "data": entries}


def _model_entry(model: str) -> Json:
    return {"id": model, "object": "model", "created": CREATED, "owned_by": "fake"}


def _frame(body: Body, reply_id: str, kind: str, choices: list[Json]) -> Json:
    model = body.get("model")
    return {
        "id": reply_id,
        "object": kind,
        "created": CREATED,
        "model": model,
        "system_fingerprint": "fp_fake",
        "choices": choices,
    }


def _indices(body: Body) -> range:
    return range(body.get("n") or 1)


def _text_answers(body: Body, script: Script) -> list[Answer]:
    return [text_answer(prompt, body, script) for prompt in prompts(body) for _ in _indices(body)]


def _message(answer: Answer) -> Json:
    refusal = "".join(answer.refusal) or None
    content = None if answer.calls or refusal else answer.text
    message: Json = {"role": "assistant", "content": content, "refusal": refusal}
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.calls:
        message["tool_calls"] = [_tool_call(call) for call in answer.calls]
    return message


def _tool_call(call: Call) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _deltas(answer: Answer, script: Script) -> Iterator[Json]:
    yield from ({"reasoning_content": piece} for piece in answer.reasoning)
    yield from ({"refusal": piece} for piece in answer.refusal)
    yield from ({"content": piece} for piece in answer.pieces)
    for position, call in enumerate(answer.calls):
        index = _call_index(position, script)
        opened = {**index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
        yield {"tool_calls": [opened]}
        for piece in slices(call.arguments):
            yield {"tool_calls": [{**index, "function": {"arguments": piece}}]}


def _call_index(position: int, script: Script) -> Json:
    if not script.has("dup-tool-index"):
        return {"index": position}
    return {} if script.text("index") == "missing" else {"index": 0}


def _logprobs(pieces: tuple[str, ...], body: Body) -> Json | None:
    if not body.get("logprobs"):
        return None
    tokens = [{"token": piece, "logprob": -0.5, "bytes": list(piece.encode()), "top_logprobs": []} for piece in pieces]
    return {"content": tokens, "refusal": None}


def _usage_of(body: Body, script: Script, completion_tokens: int) -> Json:
    if script.has("usage-none"):
        return {}
    prompt_tokens = prompt_words(body)
    total_tokens = prompt_tokens + completion_tokens
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total_tokens}
    return {"usage": usage}


def _wants_usage(body: Body, script: Script) -> bool:
    options = body.get("stream_options") or {}
    return bool(options.get("include_usage")) and not script.has("usage-none")


def _null_usage(body: Body, script: Script) -> Json:
    return {"usage": None} if _wants_usage(body, script) else {}


def _usage_chunk(body: Body, script: Script, reply_id: str, kind: str, completion_tokens: int) -> tuple[Json, ...]:
    if not _wants_usage(body, script):
        return ()
    return (_frame(body, reply_id, kind, []) | _usage_of(body, script, completion_tokens),)


def _embedding_inputs(given: Any) -> list[str]:
    many = isinstance(given, list) and bool(given) and not isinstance(given[0], int)
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in (given if many else [given])]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def rerank(body: Body, script: Script) -> Json:
    """The documents by the share of the query's words that they have, as Cohere tells it, or Jina (`jina`)."""
    query = set(str(body.get("query")).split())
    scores = [len(query & set(str(text).split())) / len(query) for text in body.get("documents", [])]
    best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[: body.get("top_n")]
    results: list[Json] = [{"index": place, "relevance_score": scores[place]} for place in best]
    if not script.has("jina"):
        return {"id": "rerank-fake", "results": results, "meta": {"billed_units": {"search_units": 1}}}
    for result in results:
        result["document"] = {"text": body["documents"][result["index"]]}
    return {"model": body.get("model"), "object": "list", "usage": {"total_tokens": 15}, "results": results}


def transcription(fields: Mapping[str, str], file: Json) -> Json:
    """The echo of a multipart upload: its file's name and size in bytes, and its other fields."""
    return {"text": f"{file.get('name')} {file.get('size_bytes')}", "file": file, "fields": dict(fields)}
