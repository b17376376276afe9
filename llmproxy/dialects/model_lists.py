"""Reads a provider's list of models, whatever its shape. Pure.

Wrappers seen: `{"data": […]}` (OpenAI), a bare array (Together, GitHub), `{"models": […]}` (Cohere, Gemini, Ollama),
`{"result": […]}` (Cloudflare); entries are objects, or plain ids. What an entry does not say stays unknown: a flag that
is absent is no lack, but one that is false is, and so is what a list of all parameters or modalities leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from llmproxy.core.errors import BadReply
from llmproxy.core.names import does_other_job, draws

Entry = Mapping[str, Any]

_WRAPPERS = ("data", "models", "result")
_IDS = ("id", "model_id", "slug", "name")
_NESTED = ("top_provider", "limits", "meta", "metadata")
_WINDOWS = (
    "context_length", "context_window", "max_context_length", "max_model_len", "inputTokenLimit", "max_input_tokens",
    "context_size", "n_ctx",
)  # fmt: skip
_ANSWERS = ("max_completion_tokens", "max_output_tokens", "outputTokenLimit")
_ENDS = ("expiration_date", "deprecation", "deprecation_date", "shutdown_date")
_PARAMETERS = {
    "tools": {"tools"},
    "json": {"response_format", "structured_outputs"},
    "reasoning": {"reasoning", "include_reasoning"},
}
_FLAGS = {
    "tools": ("function_calling", "supports_tools", "supports_tool_calling", "supports_function_calling"),
    "json": ("structured_outputs", "supports_structured_output", "supports_response_schema"),
    "reasoning": ("reasoning", "thinking", "supports_reasoning"),
    "vision": ("vision", "image_input", "supports_vision", "supports_image_input"),
    "audio": ("audio", "supports_audio_input"),
}
_WORDS = {
    "tools": {"tools", "tool-calling", "tool_calling", "function-calling", "function_calling"},
    "json": {"json_mode", "json_schema", "structured_outputs", "structured-outputs"},
    "reasoning": {"reasoning", "thinking"},
    "vision": {"vision"},
    "audio": {"audio"},
}
# Uses of a model that are no chat: as endpoints, methods, kinds and outputs are called.
_USES = {
    "embeddings": {"embed", "embedContent", "embedText", "embedding", "embeddings"},
    "rerank": {"rerank"},
    "speech": {"transcriptions", "transcribe"},
}
_NO_CHAT_KINDS = frozenset(
    {"embedding", "rerank", "image", "audio", "video", "moderation", "transcribe", "speech", "transcription"}
)

# Ids of models that only continue a text, which some providers put behind a chat.
_COMPLETES = re.compile(r"(davinci|babbage)-\d|turbo-instruct", re.IGNORECASE)

_PER_MILLION = 1_000_000
_DEAREST_USD = 100_000  # for a million tokens; whatever is above is no price
_MOST_TOKENS = 1 << 40
_NEVER_S = 2_524_608_000  # 2050: later days stand for "not planned"
_NOISE_LINES = 3
_LONGEST_ID = 500
_MOST_ENTRIES = 50_000


@dataclass(frozen=True, slots=True)
class Listed:
    """What a list says of one model; None, and a tag in neither set, is what it does not say.

    active: whether it can be asked now. prompt and completion prices are in USD per million tokens; `priced` tells
    whether any of its prices is above zero. ends_s: Unix time of its announced end; created_s: 0 when unknown.
    """

    id: str
    chat: bool | None = None
    active: bool | None = None
    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    prompt_usd_per_mtok: float | None = None
    completion_usd_per_mtok: float | None = None
    priced: bool | None = None
    created_s: int = 0
    ends_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelList:
    """A list as it was received, in its order, each model once.

    more: further pages follow. unread: entries without an id.
    """

    models: tuple[Listed, ...]
    more: bool = False
    unread: int = 0


def read_models(raw: bytes, *, id_field: str = "id", keep_task: str | None = None) -> ModelList:
    """The models in a list; raises `BadReply` when it is no list. keep_task: only those of this task (Cloudflare)."""
    body = loaded(raw)
    entries = body
    if isinstance(body, dict):
        entries = next((body[key] for key in _WRAPPERS if isinstance(body.get(key), list)), None)
    if not isinstance(entries, list):
        raise BadReply("the model list holds no list of models")
    if len(entries) > _MOST_ENTRIES:
        raise BadReply(f"the model list has {len(entries):,} entries")
    found: dict[str, Listed] = {}
    unread = 0
    for item in entries:
        model_id, entry = _named(item, id_field)
        if not model_id:
            unread += 1
        elif (keep_task is None or _task(entry) == keep_task) and model_id not in found:
            found[model_id] = _listed(model_id, entry)
    return ModelList(tuple(found.values()), _more(body), unread)


def loaded(raw: bytes) -> Any:
    """JSON in UTF-8 or, with a mark, UTF-16; lines of a log before it are passed over. Raises `BadReply`."""
    marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = raw.decode("utf-16", "replace").encode() if marked else raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        refused = error
    for _ in range(_NOISE_LINES):
        text = text.partition(b"\n")[2].lstrip()
        if text[:1] in (b"{", b"["):
            try:
                return orjson.loads(text)
            except orjson.JSONDecodeError:
                continue
    raise BadReply(f"the model list is not JSON: {refused}", outcome="not_json") from refused


def chats(model_id: str, said: bool | None) -> bool | None:
    """Whether a model chats, of what is `said` and its name; a name of another job counts more than what is said.

    A model that draws is left open where it is said to chat: it does, but that is not what it is for.
    """
    if said is False or does_other_job(model_id):
        return False
    if draws(model_id):
        return False if said is None else None
    return False if said is None and _COMPLETES.search(model_id) else said


def usd_per_mtok(value: Any, scale: int = _PER_MILLION) -> float | None:
    """A price in USD, number or text, times `scale`: by default that of one token, for a million of them.

    None for what is no price: text, less than nothing (a price that is not fixed), more than anything costs.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or len(str(value)) > 40:
        return None
    try:
        amount = Decimal(str(value)) * scale
        if not amount.is_finite() or not 0 <= amount <= _DEAREST_USD:
            return None
        return abs(float(round(amount, 6)))
    except ArithmeticError:
        return None


def tokens(value: Any) -> int | None:
    """A number of tokens; None for what is none."""
    return value if type(value) is int and 0 < value < _MOST_TOKENS else None


def _named(item: Any, id_field: str) -> tuple[str, Entry]:
    """The id of an entry, empty when it has none that is one, and the entry."""
    entry = item if isinstance(item, dict) else {}
    written = item if isinstance(item, str) else next((item[key] for key in (id_field, *_IDS) if entry.get(key)), None)
    if not isinstance(written, str) or len(written) > _LONGEST_ID:
        return "", entry
    return written.removeprefix("models/"), entry


def _task(entry: Entry) -> Any:
    task = entry.get("task")
    return task.get("name") if isinstance(task, dict) else task


def _more(body: Any) -> bool:
    if not isinstance(body, dict):
        return False
    return bool(body.get("nextPageToken") or body.get("next_page_token")) or body.get("has_more") is True


def _listed(model_id: str, entry: Entry) -> Listed:
    told = _properties(entry)
    entry = {**entry, **told} if told else entry
    backends = _backends(entry)
    have, lack = _capabilities(entry, backends)
    prompt, completion, priced = _prices(entry, backends)
    created = entry.get("created")
    return Listed(
        model_id,
        chat=_chat(entry),
        active=_active(entry, backends),
        capabilities=have,
        lacks=lack,
        context_tokens=_first(entry, _WINDOWS) or _narrowest(backends),
        max_output_tokens=_first(entry, _ANSWERS),
        prompt_usd_per_mtok=prompt,
        completion_usd_per_mtok=completion,
        priced=priced,
        created_s=created if type(created) is int and 0 < created < 1 << 33 else 0,
        ends_s=next((end for end in (_moment(entry.get(key)) for key in _ENDS) if end is not None), None),
    )


def _properties(entry: Entry) -> dict[str, Any]:
    """Cloudflare's properties, whose values are text, as fields."""
    listed = entry.get("properties")
    if not isinstance(listed, list):
        return {}
    told = {str(one.get("property_id")): one.get("value") for one in listed if isinstance(one, dict)}
    found: dict[str, Any] = {}
    window = told.get("context_window")
    if isinstance(window, str) and window.isascii() and window.isdigit() and len(window) < 12:
        found["context_window"] = int(window)
    if told.get("function_calling") in ("true", "false"):
        found["function_calling"] = told["function_calling"] == "true"
    return found


def _backends(entry: Entry) -> list[Entry]:
    """Who answers for a router's model (Hugging Face); those that are not live yet are left out."""
    return [one for one in _dicts(entry.get("providers")) if one.get("status") in (None, "live")]


def _active(entry: Entry, backends: list[Entry]) -> bool | None:
    if isinstance(entry.get("active"), bool):
        return bool(entry["active"])
    return bool(backends) if _dicts(entry.get("providers")) else None


def _first(entry: Entry, names: tuple[str, ...]) -> int | None:
    """The first number of tokens under one of `names`, in the entry or in what is nested in it."""
    places = [entry, *(entry[key] for key in _NESTED if isinstance(entry.get(key), dict))]
    return next((size for place in places for name in names if (size := tokens(place.get(name))) is not None), None)


def _narrowest(backends: list[Entry]) -> int | None:
    """The window that every backend has, whichever of them answers."""
    return min((size for one in backends if (size := tokens(one.get("context_length"))) is not None), default=None)


def _capabilities(entry: Entry, backends: list[Entry]) -> tuple[frozenset[str], frozenset[str]]:
    """(known to have, known to lack)."""
    have: set[str] = set()
    lack: set[str] = set()
    for tag, has in (*_by_lists(entry), *_by_flags(entry), *_by_backends(backends)):
        (have if has else lack).add(tag)
    return frozenset(have), frozenset(lack - have)


def _by_lists(entry: Entry) -> Iterator[tuple[str, bool]]:
    parameters = _words(entry.get("supported_parameters"))
    if parameters:
        yield from ((tag, bool(names & parameters)) for tag, names in _PARAMETERS.items())
    inputs = _modalities(entry, "input")
    if inputs:
        yield from (("vision", "image" in inputs), ("audio", "audio" in inputs))
    features = {word for key in ("features", "supported_features", "capabilities") for word in _words(entry.get(key))}
    yield from ((tag, True) for tag, words in _WORDS.items() if words & features)
    uses = _uses(entry)
    yield from ((tag, True) for tag, words in _USES.items() if words & uses)


def _by_flags(entry: Entry) -> Iterator[tuple[str, bool]]:
    inner = entry.get("capabilities")
    for place in (entry, inner if isinstance(inner, dict) else {}):
        for tag, names in _FLAGS.items():
            for name in names:
                flag = place.get(name)
                flag = flag.get("supported") if isinstance(flag, dict) else flag
                if isinstance(flag, bool):
                    yield tag, flag


def _by_backends(backends: list[Entry]) -> Iterator[tuple[str, bool]]:
    """What all backends that tell agree on: the router picks one of them by speed, not by what a call needs."""
    for tag, name in (("tools", "supports_tools"), ("json", "supports_structured_output")):
        told = {one[name] for one in backends if isinstance(one.get(name), bool)}
        if len(told) == 1:
            yield tag, told.pop()


def _chat(entry: Entry) -> bool | None:
    flags = entry.get("capabilities")
    if isinstance(flags, dict) and isinstance(flags.get("completion_chat"), bool):
        return bool(flags["completion_chat"])
    endpoints = entry.get("endpoints")
    if isinstance(endpoints, list) and endpoints and all(isinstance(name, str) for name in endpoints):
        return any(name == "chat" or "chat/" in name for name in endpoints)
    methods = entry.get("supportedGenerationMethods")
    if isinstance(methods, list):
        return "generateContent" in methods
    if entry.get("type") in ("chat", *_NO_CHAT_KINDS):
        return bool(entry["type"] == "chat")
    outputs, inputs = _modalities(entry, "output"), _modalities(entry, "input")
    if not outputs:
        return None
    # Sound for text alone is music or a voice that reads; a model that converses in sound hears it too.
    return "text" in outputs and not ("audio" in outputs and inputs and "audio" not in inputs)


def _uses(entry: Entry) -> set[str]:
    named = {word for key in ("endpoints", "supportedGenerationMethods") for word in _words(entry.get(key))}
    kind = entry.get("type")
    return named | _modalities(entry, "output") | ({kind} if isinstance(kind, str) else set())


def _modalities(entry: Entry, side: str) -> set[str]:
    """What goes in or comes out, as OpenRouter (nested) and GitHub (`supported_…`) write it."""
    places = [one for one in (entry.get("architecture"), entry) if isinstance(one, dict)]
    names = (f"{side}_modalities", f"supported_{side}_modalities")
    return next((found for place in places for name in names if (found := _words(place.get(name)))), set())


def _prices(entry: Entry, backends: list[Entry]) -> tuple[float | None, float | None, bool | None]:
    """(prompt, completion, whether anything costs); of several backends, where all that tell agree."""
    pricing = entry.get("pricing")
    told = [_price(pricing)] if isinstance(pricing, dict) else []
    told = told or [_price(one["pricing"]) for one in backends if isinstance(one.get("pricing"), dict)]
    return told[0] if len(set(told)) == 1 else (None, None, None)


def _price(pricing: Entry) -> tuple[float | None, float | None, bool | None]:
    prompt, completion = _per_token(pricing, "prompt", "input"), _per_token(pricing, "completion", "output")
    request = usd_per_mtok(pricing.get("request"))
    if any(amount for amount in (prompt, completion, request)):
        return prompt, completion, True
    return prompt, completion, (None if prompt is None or completion is None else False)


def _per_token(pricing: Entry, name: str, other: str) -> float | None:
    """`prompt` and text are for one token (OpenRouter, Vercel), numbers under `input` for a million (Hugging Face)."""
    if pricing.get(name) is not None:
        return usd_per_mtok(pricing[name])
    value = pricing.get(other)
    return usd_per_mtok(value, _PER_MILLION if isinstance(value, str) else 1)


def _moment(value: Any) -> float | None:
    """The Unix time of a date or time in ISO 8601; a date lasts until its end, in UTC."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment + timedelta(days=1 if len(value.strip()) == 10 else 0)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < _NEVER_S else None


def _words(value: Any) -> set[str]:
    return {word for word in value if isinstance(word, str)} if isinstance(value, list) else set()


def _dicts(value: Any) -> list[Entry]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
