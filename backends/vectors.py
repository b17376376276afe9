"""Embeddings and reranking as their APIs have them: requests read, replies written, vectors kept. Pure; knows no torch.

Sources: https://platform.openai.com/docs/api-reference/embeddings, https://docs.cohere.com/reference/rerank and
https://jina.ai/reranker (one shape, with `usage` from the second and `meta` from the first).
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

from backends.base import Embeddings, JsonObject, Rejected, Scores

MAX_INPUTS = 2048
_MAX_TOKEN_ID = 2**31 - 1
_NEUTRAL = frozenset({"model", "user", "metadata"})
_EMBEDDING_FIELDS = frozenset({"input", "encoding_format", "dimensions"}) | _NEUTRAL
# A model that cuts documents at the end of its window makes no chunks of them, and nobody waits in line here.
_RERANK_HINTS = frozenset({"max_chunks_per_doc", "truncation", "priority"})
_RERANK_FIELDS = frozenset({"query", "documents", "top_n", "return_documents"}) | _RERANK_HINTS | _NEUTRAL
# What Python and numpy hold for a kept vector beside its numbers: the key, the array's head, the tuple, the table.
_ENTRY_BYTES = 400

Text = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts (strings or token ids) to be made into vectors, and how the vectors are written."""

    texts: tuple[Text, ...]
    encoding: Literal["float", "base64"] = "float"
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A query and documents to be ordered by it; of a document that is an object, its `text` is read."""

    query: str
    documents: tuple[str, ...]
    top_n: int | None = None
    return_documents: bool = False


def read_embedding(body: Mapping[str, Any]) -> EmbeddingRequest:
    """The request of a `POST /v1/embeddings`; raises `Rejected` with the path of the wrong field in `param`."""
    _refuse_unknown(body, _EMBEDDING_FIELDS)
    encoding: Any = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _invalid("encoding_format must be float or base64", "encoding_format")
    return EmbeddingRequest(_texts(body.get("input")), encoding, _positive(body, "dimensions"))


def embedding_reply(request: EmbeddingRequest, embeddings: Embeddings, model: str) -> bytes:
    """The JSON of the answer; raises `Rejected` when more dimensions were asked for than the vectors have."""
    import numpy as np

    rows = np.ascontiguousarray(_shortened(embeddings.vectors, request.dimensions), dtype=np.float32)
    if request.encoding == "base64":
        written: Sequence[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    else:
        written = list(rows)
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(written)],
        "model": model,
        "usage": _usage(sum(embeddings.tokens)),
    }
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def read_rerank(body: Mapping[str, Any]) -> RerankRequest:
    """The request of a `POST /v1/rerank`; raises `Rejected` with the path of the wrong field in `param`."""
    _refuse_unknown(body, _RERANK_FIELDS)
    query, documents, told = body.get("query"), body.get("documents"), body.get("return_documents")
    if not isinstance(query, str) or not query:
        raise _invalid("query must be a string that is not empty", "query")
    if not isinstance(documents, list) or not documents:
        raise _invalid("documents must be a list that is not empty", "documents")
    if len(documents) > MAX_INPUTS:
        raise _invalid(
            f"at most {MAX_INPUTS:,} documents are ranked at once: {len(documents):,} were sent", "documents"
        )
    if told is not None and not isinstance(told, bool):
        raise _invalid("return_documents must be true or false", "return_documents")
    texts = tuple(_document(document, place) for place, document in enumerate(documents))
    return RerankRequest(query, texts, _positive(body, "top_n"), bool(told))


def rerank_reply(request: RerankRequest, scores: Scores, model: str, call_id: str) -> bytes:
    """The JSON of the answer: the best `top_n` documents, best first; equal ones in the order they were sent in."""
    best = sorted(range(len(scores.scores)), key=scores.scores.__getitem__, reverse=True)
    results: list[JsonObject] = [
        {"index": place, "relevance_score": scores.scores[place]} for place in best[: request.top_n]
    ]
    if request.return_documents:
        for result in results:
            result["document"] = {"text": request.documents[result["index"]]}
    meta = {"tokens": {"input_tokens": scores.tokens, "output_tokens": 0}}
    body = {"id": call_id, "model": model, "results": results, "usage": _usage(scores.tokens), "meta": meta}
    return orjson.dumps(body)


class Vector(NamedTuple):
    """The float32 row (dimensions,) of one text, and its tokens."""

    row: Any
    tokens: int


class VectorCache:
    """Vectors of the texts that were asked for last, in at most `limit_bytes` of memory. For one thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Vector] = OrderedDict()
        self.size_bytes = 0

    def get(self, text: Text) -> Vector | None:
        """The vector of `text`, which then counts as asked for just now."""
        key = _key(text)
        vector = self._kept.get(key)
        if vector is not None:
            self._kept.move_to_end(key)
        return vector

    def put(self, text: Text, vector: Vector) -> None:
        """Keep the vector of `text`, and drop those that nobody asked for the longest."""
        key = _key(text)
        if key in self._kept:
            self.size_bytes -= _size_bytes(self._kept.pop(key))
        self._kept[key] = vector
        self.size_bytes += _size_bytes(vector)
        while self.size_bytes > self._limit_bytes:
            self.size_bytes -= _size_bytes(self._kept.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._kept)


def _size_bytes(vector: Vector) -> int:
    return _ENTRY_BYTES + int(vector.row.nbytes)


def _key(text: Text) -> bytes:
    """16 bytes that stand for a text, however long it is; token ids are never the same as a string."""
    if isinstance(text, str):
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, person=b"text").digest()
    return hashlib.blake2b(",".join(map(str, text)).encode(), digest_size=16, person=b"tokens").digest()


def _texts(given: Any) -> tuple[Text, ...]:
    """The inputs of a request: one string, one list of token ids, or a list of either."""
    if isinstance(given, str) or (isinstance(given, list) and given and _is_token(given[0])):
        return (_text(given, "input"),)
    if not isinstance(given, list):
        raise _invalid("input must be a string, a list of strings, token ids or a list of lists of them", "input")
    if not given:
        raise _invalid("input must not be an empty list", "input")
    if len(given) > MAX_INPUTS:
        raise _invalid(f"at most {MAX_INPUTS:,} inputs are taken at once: {len(given):,} were sent", "input")
    return tuple(_text(one, f"input[{place}]") for place, one in enumerate(given))


def _text(given: Any, path: str) -> Text:
    if isinstance(given, str):
        if not given:
            raise _invalid(f"{path} must not be an empty string", path)
        return given
    if isinstance(given, list) and given and all(map(_is_token, given)):
        return tuple(given)
    raise _invalid(f"{path} must be a string or a list of token ids that is not empty", path)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKEN_ID


def _document(given: Any, place: int) -> str:
    text = given.get("text") if isinstance(given, dict) else given
    if not isinstance(text, str):
        raise _invalid(f"documents[{place}] must be a string or an object with a text", f"documents[{place}]")
    return text


def _positive(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise _invalid(f"{name} must be a positive integer", name)
    return value


def _refuse_unknown(body: Mapping[str, Any], known: frozenset[str]) -> None:
    for name, value in body.items():
        if value is not None and name not in known:
            raise Rejected(
                f"{name} is not supported by a local model",
                kind="unsupported",
                code="unsupported_parameter",
                param=name,
            )


def _shortened(vectors: Any, dimensions: int | None) -> Any:
    """The first `dimensions` of each row, at length 1 again; as models trained for it (Matryoshka) are cut."""
    import numpy as np

    width = vectors.shape[1]
    if dimensions is None or dimensions == width:
        return vectors
    if dimensions > width:
        raise _invalid(f"dimensions must be at most {width}, which is what this model has", "dimensions")
    cut = vectors[:, :dimensions]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _usage(tokens: int) -> JsonObject:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _invalid(message: str, param: str) -> Rejected:
    return Rejected(message, kind="invalid", code="invalid_request", param=param)
