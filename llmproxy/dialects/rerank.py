"""Reranking as clients of Cohere, Jina and llama.cpp ask for it: one request for all, one reply that each can read.

Sources: https://docs.cohere.com/reference/rerank, https://jina.ai/reranker,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.core.text import CHARACTERS_PER_TOKEN
from llmproxy.core.types import JsonObject
from llmproxy.dialects.openai import error_body as openai_error

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it goes on (`body`, without `model`), and what its client gets of the documents."""

    body: JsonObject
    documents: tuple[Any, ...]
    top_n: int | None
    return_documents: bool | None

    @property
    def prompt_tokens(self) -> int:
        """About how many there are: the query goes with each document."""
        texts = [document for document in self.body["documents"] if isinstance(document, str)]
        query = self.body["query"] if isinstance(self.body["query"], str) else ""
        return (sum(map(len, texts)) + len(texts) * len(query)) // CHARACTERS_PER_TOKEN


def read(body: JsonObject) -> Asked:
    """The request; documents that are objects become the text that they are ranked by.

    Raises `InvalidRequest` with the path of the wrong field in `param`.
    """
    query, documents, top_n = body.get("query"), body.get("documents"), body.get("top_n")
    if not query or not isinstance(query, str | dict):
        raise InvalidRequest("query must be a text that is not empty", param="query")
    if not isinstance(documents, list) or not 1 <= len(documents) <= _MOST:
        raise InvalidRequest(f"documents must be a list of 1 to {_MOST:,}", param="documents")
    if top_n is not None and (not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1):
        raise InvalidRequest("top_n must be a positive integer", param="top_n")
    told = body.get("return_documents")
    if told is not None and not isinstance(told, bool):
        raise InvalidRequest("return_documents must be true or false", param="return_documents")
    fields = _rank_fields(body.get("rank_fields"))
    texts = [_text(document, fields, place) for place, document in enumerate(documents)]
    # Documents are given back from here, and fields chosen here: not every upstream does that.
    gone = ("model", "documents", "return_documents", "rank_fields")
    rest = {name: value for name, value in body.items() if name not in gone and value is not None}
    return Asked({**rest, "documents": texts}, tuple(documents), top_n, told)


class RerankRenderer:
    """The reply of any upstream → one that clients of Cohere and of Jina read. Implements `base.Renderer`."""

    content_type = "application/json"

    def __init__(self, asked: Asked, call_id: str, model: str) -> None:
        self._asked = asked
        self._head = {"id": call_id, "model": model}
        self._heard: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Nothing yet: a reply is whole or none."""
        self._heard.append(data)
        return b""

    def finish(self) -> bytes:
        """The reply; what cannot be read as one goes out as it came."""
        raw = b"".join(self._heard)
        try:
            return orjson.dumps(self._reply(orjson.loads(raw)))
        except (ValueError, TypeError, LookupError, AttributeError):
            return raw

    def _reply(self, said: Any) -> JsonObject:
        body: JsonObject = said if isinstance(said, dict) else {"results": said}
        found = [self._result(one) for one in body.get("results") or body["data"]]
        found.sort(key=lambda one: -one["relevance_score"])
        rest = {name: value for name, value in body.items() if name not in ("results", "data")}
        tokens = _tokens(body, self._asked.prompt_tokens)
        return {**self._head, **rest, "results": found[: self._asked.top_n], **tokens}

    def _result(self, said: JsonObject) -> JsonObject:
        score = said.get("relevance_score", said.get("score"))
        made: JsonObject = {"index": said["index"], "relevance_score": float(score)}  # type: ignore[arg-type]
        document = said.get("document")
        if self._asked.return_documents:
            document = self._asked.documents[said["index"]]
        if document is not None and self._asked.return_documents is not False:
            made["document"] = {"text": document} if isinstance(document, str) else document
        return made


def error_body(error: LlmproxyError) -> JsonObject:
    """The error where each kind of client looks for it: `message` is Cohere's, `detail` Jina's, `error` the others'."""
    return {**openai_error(error), "message": error.message, "detail": error.message}


def _tokens(body: JsonObject, estimated: int) -> JsonObject:
    """Tokens as Jina (`usage`) and Cohere (`meta`) tell them; estimated where the upstream does not count."""
    usage, meta = body.get("usage"), body.get("meta")
    usage, meta = usage if isinstance(usage, dict) else {}, meta if isinstance(meta, dict) else {}
    counted = usage.get("total_tokens") or (meta.get("tokens") or {}).get("input_tokens")
    total = int(counted) if counted else estimated
    guessed = {} if counted else {"estimated": True}
    return {
        "usage": {"prompt_tokens": total, "total_tokens": total, **guessed, **usage},
        "meta": {"tokens": {"input_tokens": total, "output_tokens": 0}, **meta},
    }


def _rank_fields(given: Any) -> tuple[str, ...]:
    if given is None:
        return ("text",)
    if not isinstance(given, list) or not given or not all(isinstance(name, str) for name in given):
        raise InvalidRequest("rank_fields must be a list of names", param="rank_fields")
    return tuple(given)


def _text(document: Any, fields: tuple[str, ...], place: int) -> Any:
    """What a document is ranked by; an object without any of `fields` (an image) goes on as it is."""
    if isinstance(document, str):
        return document
    if not isinstance(document, dict) or not document:
        raise InvalidRequest("a document must be a text or an object", param=f"documents.{place}")
    found = [str(document[name]) for name in fields if document.get(name) is not None]
    return "\n".join(found) if found else document
