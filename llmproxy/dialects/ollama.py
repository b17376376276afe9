"""Ollama's own API as clients speak it (https://docs.ollama.com/api): chat, generate and embed.

Tool calls have no ids there, or not always: a result belongs to the first call of its name that has none yet. Options
of the loading and the sampling of a local Ollama that nobody else has are told by `unheard`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.core.schema import defect
from llmproxy.core.types import JsonObject
from llmproxy.dialects.base import Renderer
from llmproxy.dialects.canonical import reported_usage, vectors
from llmproxy.dialects.ollama_messages import Messages, content_of, images_of
from llmproxy.dialects.ollama_stream import (
    OllamaRenderer,
    answered,
    chat_message,
    created_at,
    durations,
    response_of,
)

# Options under their canonical names, and the values of them that mean nothing.
_NUMBERS: Mapping[str, tuple[str, Any]] = {
    "temperature": ("temperature", None),
    "top_p": ("top_p", None),
    "min_p": ("min_p", 0),
    "presence_penalty": ("presence_penalty", 0),
    "frequency_penalty": ("frequency_penalty", 0),
    "repeat_penalty": ("repetition_penalty", 1),
}
_WHOLE: Mapping[str, str] = {"top_k": "top_k", "seed": "seed", "num_predict": "max_tokens"}
_EFFORTS: Mapping[Any, str] = {
    True: "medium", False: "none", "low": "low", "medium": "medium", "high": "high", "max": "xhigh",
}  # fmt: skip
_SAME = ("logprobs", "top_logprobs")
_CHAT = frozenset({"model", "messages", "tools", "format", "options", "stream", "think", *_SAME})
_GENERATE = frozenset(
    {
        "model", "prompt", "system", "images", "format", "options", "stream", "think", "suffix", "template", "raw",
        "context", *_SAME,
    }
)  # fmt: skip
_EMBED = frozenset({"model", "input", "dimensions", "options"})
Elapsed = Callable[[], int]


class OllamaChat:
    """`POST /api/chat`; implements `base.Inbound`. `elapsed_ns` tells the nanoseconds since the request came."""

    def __init__(self, elapsed_ns: Elapsed = lambda: 0) -> None:
        self._elapsed_ns = elapsed_ns

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The canonical body; a stream is what is meant where nothing is said of it."""
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("messages must be a list with at least one message", param="messages")
        made = _common(body)
        made["messages"] = Messages().read(messages)
        if body.get("tools"):
            made["tools"] = body["tools"]
        return made

    def unheard(self, body: JsonObject) -> tuple[str, ...]:
        """The paths of what a valid `body` says and no canonical request can say."""
        return _others(body, _CHAT)

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole canonical reply as a chat response."""
        choice = (body.get("choices") or [{}])[0]
        return answered(body, choice, {"message": chat_message(choice.get("message") or {})}, self._elapsed_ns())

    def renderer(self, request: JsonObject) -> Renderer:
        """Lines of JSON, each with a message."""
        return OllamaRenderer(str(request.get("model") or ""), self._elapsed_ns, generates=False)

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """Their error body, which is a sentence."""
        return error_body(error)

    def preloaded(self, body: JsonObject, now_s: int) -> JsonObject | None:
        """The reply to a request that only loads or unloads a model (it says nothing); None for any other."""
        return None if body.get("messages") else _loaded(body, now_s, {"message": {"role": "assistant", "content": ""}})


class OllamaGenerate:
    """`POST /api/generate`; implements `base.Inbound`. `elapsed_ns` tells the nanoseconds since the request came."""

    def __init__(self, elapsed_ns: Elapsed = lambda: 0) -> None:
        self._elapsed_ns = elapsed_ns

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The canonical body: a chat of one message, after the system prompt."""
        for name in ("suffix", "template", "raw", "context"):
            if body.get(name):
                raise InvalidRequest(f"{name} is not supported: prompts are written for the model here", param=name)
        prompt, system = body.get("prompt") or "", body.get("system") or ""
        for name, text in (("prompt", prompt), ("system", system)):
            if not isinstance(text, str):
                raise InvalidRequest(f"{name} must be a string", param=name)
        made = _common(body)
        made["messages"] = [{"role": "system", "content": system}] if system else []
        content = content_of(prompt, images_of(body.get("images"), "images"))
        made["messages"].append({"role": "user", "content": content})
        return made

    def unheard(self, body: JsonObject) -> tuple[str, ...]:
        """The paths of what a valid `body` says and no canonical request can say."""
        return _others(body, _GENERATE)

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole canonical reply as a generate response."""
        choice = (body.get("choices") or [{}])[0]
        said = chat_message(choice.get("message") or {})
        return answered(body, choice, response_of(said), self._elapsed_ns())

    def renderer(self, request: JsonObject) -> Renderer:
        """Lines of JSON, each with a piece of the response."""
        return OllamaRenderer(str(request.get("model") or ""), self._elapsed_ns, generates=True)

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """Their error body, which is a sentence."""
        return error_body(error)

    def preloaded(self, body: JsonObject, now_s: int) -> JsonObject | None:
        """The reply to a request that only loads or unloads a model (it says nothing); None for any other."""
        return None if body.get("prompt") or body.get("images") else _loaded(body, now_s, {"response": ""})


def embed_request(body: JsonObject) -> JsonObject:
    """A `POST /api/embed` body, or one of the older `/api/embeddings`, as the canonical embeddings body."""
    given = body.get("input", body.get("prompt"))
    name = "input" if "input" in body else "prompt"
    texts = given if isinstance(given, list) else [given]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest(f"{name} must be text or a list of texts", param=name)
    made: JsonObject = {"model": body.get("model"), "input": given}
    return {**made, "dimensions": body["dimensions"]} if body.get("dimensions") else made


def embed_unheard(body: JsonObject) -> tuple[str, ...]:
    """The paths of what a valid body of `/api/embed` says and no canonical request can say."""
    said = {key: value for key, value in body.items() if key not in (*_EMBED, "prompt") and value is not None}
    return (*said, *(f"options.{name}" for name in body.get("options") or ()))


def embed_reply(body: JsonObject, elapsed_ns: int = 0) -> JsonObject:
    """A canonical embeddings reply as that of `/api/embed`."""
    return {
        "model": str(body.get("model") or ""),
        "embeddings": vectors(body),
        "total_duration": elapsed_ns,
        "load_duration": 0,
        "prompt_eval_count": reported_usage(body.get("usage"))[0],
    }


def embeddings_reply(body: JsonObject) -> JsonObject:
    """A canonical embeddings reply as that of the older `/api/embeddings`, which has one vector."""
    return {"embedding": next(iter(vectors(body)), [])}


def error_body(error: LlmproxyError) -> JsonObject:
    """`{"error": sentence}`, which names the field that is wrong."""
    told = error.message
    return {"error": f"{error.param}: {told}" if error.param and error.param not in told else told}


def _loaded(body: JsonObject, now_s: int, told: JsonObject) -> JsonObject:
    reason = "unload" if body.get("keep_alive") in (0, "0", "0s") else "load"
    head = {"model": str(body.get("model") or ""), "created_at": created_at(now_s)}
    return {**head, **told, "done_reason": reason, "done": True, **durations(0, 0)}


def _others(body: JsonObject, known: frozenset[str]) -> tuple[str, ...]:
    options = body.get("options")
    taken = {*_NUMBERS, *_WHOLE, "stop"}
    return (
        *(name for name, value in body.items() if name not in known and value is not None),
        *(f"options.{name}" for name in (options if isinstance(options, dict) else ()) if name not in taken),
    )


# -- requests -----------------------------------------------------------------------------------------------------


def _common(body: JsonObject) -> JsonObject:
    """What chat and generate have in common."""
    made: JsonObject = {name: body[name] for name in ("model", *_SAME) if body.get(name) is not None}
    if body.get("stream") is not False:
        made |= {"stream": True, "stream_options": {"include_usage": True}}
    if (form := body.get("format")) not in (None, ""):
        made["response_format"] = _form(form)
    if (think := body.get("think")) not in (None, ""):
        if not isinstance(think, bool | str) or think not in _EFFORTS:
            raise InvalidRequest("think must be true, false, low, medium, high or max", param="think")
        made["reasoning_effort"] = _EFFORTS[think]
    options = body.get("options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("options must be an object", param="options")
    return made | _options(options or {})


def _form(form: Any) -> JsonObject:
    if form == "json":
        return {"type": "json_object"}
    if not isinstance(form, dict):
        raise InvalidRequest("format must be json or a JSON schema", param="format")
    if problem := defect(form):
        raise InvalidRequest(f"format is not a JSON schema: {problem}", param="format")
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}


def _options(options: JsonObject) -> JsonObject:
    made: JsonObject = {}
    for name, (canonical, nothing) in _NUMBERS.items():
        value = options.get(name)
        if value is None or value == nothing:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidRequest(f"{name} must be a number", param=f"options.{name}")
        made[canonical] = value
    for name, canonical in _WHOLE.items():
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise InvalidRequest(f"{name} must be an integer", param=f"options.{name}")
        # 0 and less: as many tokens as there is room for, and all of the most likely ones.
        if name == "seed" or value > 0:
            made[canonical] = int(value)
    if stop := options.get("stop"):
        made["stop"] = stop
        if not isinstance(stop, str) and not (isinstance(stop, list) and all(isinstance(text, str) for text in stop)):
            raise InvalidRequest("stop must be a string or a list of strings", param="options.stop")
    return made
