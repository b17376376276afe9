"""The smaller methods of the Gemini API: countTokens, embedContent, batchEmbedContents, the list of models."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import vectors
from llmproxy.dialects.gemini_fields import Fields

_GENERATES = ["generateContent", "streamGenerateContent", "countTokens"]
_EMBEDS = ["embedContent", "batchEmbedContents", "countTokens"]
_MOST_PER_PAGE = 1000


def counted_request(body: JsonObject) -> JsonObject:
    """The generateContent body whose tokens a countTokens body asks for; `contents` may stand in it directly."""
    inner = Fields(body).object("generateContentRequest")
    return inner.value if inner is not None else body


def token_count(prompt_tokens: int) -> JsonObject:
    """The reply of countTokens."""
    return {
        "totalTokens": prompt_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt_tokens}],
    }


def embed_request(body: JsonObject, model: str) -> JsonObject:
    """The canonical embeddings body for an embedContent body."""
    return _embeddings([Fields(body)], model)


def batch_embed_request(body: JsonObject, model: str) -> JsonObject:
    """The canonical embeddings body for a batchEmbedContents body."""
    fields = Fields(body)
    requests = fields.objects("requests")
    if not requests:
        raise fields.wrong("requests", "a list with at least one request")
    return _embeddings(requests, model)


def embed_reply(body: JsonObject) -> JsonObject:
    """The reply of embedContent, from a canonical one with one vector."""
    return {"embedding": _vectors(body)[0], **_embed_usage(body)}


def batch_embed_reply(body: JsonObject) -> JsonObject:
    """The reply of batchEmbedContents."""
    return {"embeddings": _vectors(body), **_embed_usage(body)}


def model_entry(entry: JsonObject) -> JsonObject:
    """A model of `GET /v1/models` as Gemini shows one."""
    about = entry.get("llmproxy") or {}
    capabilities = about.get("capabilities") or ()
    found: JsonObject = {
        "name": f"models/{entry['id']}",
        "version": str(entry.get("created") or ""),
        "displayName": about.get("name") or entry["id"],
        "description": about.get("is") or f"of {entry.get('owned_by')}",
    }
    if entry.get("context_length"):
        found["inputTokenLimit"] = entry["context_length"]
    found["supportedGenerationMethods"] = _EMBEDS if "embeddings" in capabilities else _GENERATES
    if "reasoning" in capabilities:
        found["thinking"] = True
    return found


def model_list(
    entries: Sequence[JsonObject], page_size: str | None = None, page_token: str | None = None
) -> JsonObject:
    """A page of `GET /v1beta/models`; without a size all of them. A token is the place where its page begins."""
    begin, size = _query_number("pageToken", page_token, 0), _query_number("pageSize", page_size, 0)
    end = begin + min(size, _MOST_PER_PAGE) if size else len(entries)
    found: JsonObject = {"models": [model_entry(entry) for entry in entries[begin:end]]}
    if end < len(entries):
        found["nextPageToken"] = str(end)
    return found


def _query_number(name: str, text: str | None, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidRequest(f"{name} must be a number", param=name)
    return int(text)


def _embeddings(requests: list[Fields], model: str) -> JsonObject:
    sizes = {request.integer("outputDimensionality") for request in requests}
    if len(sizes) > 1:
        raise requests[0].wrong("outputDimensionality", "the same in all requests")
    texts = [_content_text(request) for request in requests]
    found: JsonObject = {"model": model.removeprefix("models/"), "input": texts}
    size = sizes.pop()
    return found if size is None else {**found, "dimensions": size}


def _content_text(request: Fields) -> str:
    content = request.object("content")
    if content is None:
        raise request.wrong("content", "a content")
    texts: list[str] = []
    for part in content.objects("parts"):
        text = part.text("text")
        if text is None:
            raise InvalidRequest("only text can be embedded", param=part.path)
        texts.append(text)
    if not texts:
        raise content.wrong("parts", "a list with at least one part")
    return "\n".join(texts)


def _vectors(body: JsonObject) -> list[JsonObject]:
    return [{"values": vector} for vector in vectors(body)]


def _embed_usage(body: JsonObject) -> JsonObject:
    usage = body.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return {"usageMetadata": {"promptTokenCount": tokens}} if tokens else {}
