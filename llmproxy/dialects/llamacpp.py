"""llama.cpp's own embedding endpoints: `POST /embedding` and `/embeddings`, which are not those of OpenAI.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from typing import Any

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.core.types import JsonObject

# What vectors are scaled by: 2 is the Euclidean length, which is what everybody gives.
_EUCLIDEAN = 2
_KNOWN = frozenset({"content", "input", "model", "encoding_format", "embd_normalize", "dimensions", "user"})
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def embedding_request(body: JsonObject) -> JsonObject:
    """The canonical request; `model` is in it only where the client names one."""
    name = "input" if body.get("input") is not None else "content"
    given = body.get(name)
    if given is None:
        raise InvalidRequest('"input" or "content" must be provided', param="content")
    if not _is_text(given):
        raise InvalidRequest(f"{name} must be a text, token ids, or a list of these that is not empty", param=name)
    if body.get("encoding_format") not in (None, "float"):
        raise InvalidRequest("encoding_format must be float: vectors come as lists here", param="encoding_format")
    made: JsonObject = {"input": given}
    return made | {key: body[key] for key in ("model", "dimensions", "user") if body.get(key) is not None}


def unheard(body: JsonObject) -> tuple[str, ...]:
    """The fields that nobody here has a word for."""
    others = [name for name, value in body.items() if name not in _KNOWN and value is not None]
    if body.get("embd_normalize") not in (None, _EUCLIDEAN):
        others.append("embd_normalize")
    return tuple(others)


def embedding_reply(body: JsonObject) -> list[JsonObject]:
    """A canonical reply as `[{"index": 0, "embedding": [[…]]}, …]`: of pooled models one vector for each text."""
    return [
        {"index": one.get("index", place), "embedding": [one.get("embedding")]}
        for place, one in enumerate(body.get("data") or ())
    ]


def error_body(error: LlmproxyError, status: int) -> JsonObject:
    """The error as llama.cpp's server writes it: its code is the status."""
    kind = _TYPES.get(status, error.type if status < 500 else "server_error")
    return {"error": {"code": status, "message": error.message, "type": kind}}


def _is_text(given: Any) -> bool:
    """One text, one list of token ids, or a list of either that is not mixed."""
    if isinstance(given, str):
        return True
    if not isinstance(given, list) or not given:
        return False
    kinds = {type(one) for one in given}
    return kinds in ({str}, {int}) or (
        kinds == {list} and all(row and {type(token) for token in row} == {int} for row in given)
    )
