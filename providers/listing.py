"""Read a provider's model list, whatever its shape. Pure.

Wrappers seen: `{"data": […]}` (OpenAI), a bare array (Together, GitHub), `{"models": […]}` (Cohere, Gemini),
`{"result": […]}` (Cloudflare); entries are objects, or plain ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from llmproxy.core.errors import BadReply
from llmproxy.core.names import matches, matches_id
from llmproxy.core.types import Model

_WRAPPERS = ("data", "models", "result")
_WINDOWS = (
    "context_length", "context_window", "max_context_length", "max_model_len", "inputTokenLimit", "max_input_tokens",
)  # fmt: skip


def parse_models(raw: bytes, source: str, *, id_field: str = "id", keep_task: str | None = None) -> tuple[Model, ...]:
    """The models in a list as it was received, in its order, each once; raises `BadReply` when it is no list."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadReply(f"the model list is not JSON: {error}", outcome="not_json") from error
    entries = body
    if isinstance(body, dict):
        entries = next((body[key] for key in _WRAPPERS if isinstance(body.get(key), list)), None)
    if not isinstance(entries, list):
        raise BadReply("the model list holds no list of models")
    found: dict[str, Model] = {}
    for model_id, entry in _entries(entries, id_field):
        if keep_task is None or _task(entry) == keep_task:
            found.setdefault(model_id, _model(source, model_id, entry))
    return tuple(found.values())


def filtered(
    models: tuple[Model, ...], source: str, keep: tuple[str, ...] | None, known: tuple[str, ...] = ()
) -> tuple[Model, ...]:
    """The models that `keep` (ids or globs) lets through, and those it or `known` names that the list leaves out."""
    kept = [model for model in models if keep is None or matches_id(keep, model.id) or matches(keep, source, model.id)]
    have = {name for model in kept for name in (model.id, model.name)}
    named = [name for name in (keep if keep is not None else known) if not set(name) & set("*?[") and name not in have]
    prefix = f"{source}/"
    return tuple(kept) + tuple(Model(source, name.removeprefix(prefix)) for name in named)


def _entries(entries: list[Any], id_field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in entries:
        if isinstance(entry, str) and entry:
            yield entry, {}
        elif isinstance(entry, dict):
            model_id = entry.get(id_field) or entry.get("id") or entry.get("name")
            if isinstance(model_id, str) and model_id:
                yield model_id.removeprefix("models/"), entry


def _task(entry: Mapping[str, Any]) -> str | None:
    task = entry.get("task")
    return task.get("name") if isinstance(task, dict) else task


def _model(source: str, model_id: str, entry: Mapping[str, Any]) -> Model:
    window = next((entry[key] for key in _WINDOWS if isinstance(entry.get(key), int) and entry[key] > 0), None)
    capabilities, lacks = _capabilities(entry)
    created = entry.get("created")
    return Model(
        source,
        model_id,
        chat=_chats(entry),
        capabilities=capabilities,
        lacks=lacks,
        context_tokens=window,
        price_usd_per_mtok=_price(entry.get("pricing")),
        created_s=created if isinstance(created, int) and 0 < created < 1 << 33 else 0,
    )


def _capabilities(entry: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
    """(known to have, known to lack): an absent flag is unknown, a false or unlisted one is a lack."""
    have: set[str] = set()
    lack: set[str] = set()
    parameters = entry.get("supported_parameters")
    if isinstance(parameters, list) and parameters:
        for tag, names in (
            ("tools", {"tools"}),
            ("json", {"response_format", "structured_outputs"}),
            ("reasoning", {"reasoning", "include_reasoning"}),
        ):
            (have if any(name in parameters for name in names) else lack).add(tag)
    architecture = entry.get("architecture")
    inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else entry.get("input_modalities")
    if isinstance(inputs, list) and inputs:
        (have if "image" in inputs else lack).add("vision")
        (have if "audio" in inputs else lack).add("audio")
    flags = entry.get("capabilities")
    if isinstance(flags, dict):
        for tag, flag in (("tools", "function_calling"), ("vision", "vision"), ("audio", "audio")):
            if isinstance(flags.get(flag), bool):
                (have if flags[flag] else lack).add(tag)
    features = entry.get("features")
    if isinstance(features, list):
        have |= {tag for tag in ("tools", "vision", "reasoning") if tag in features}
        if "json_mode" in features or "json_schema" in features:
            have.add("json")
    return frozenset(have), frozenset(lack - have)


def _chats(entry: Mapping[str, Any]) -> bool:
    flags = entry.get("capabilities")
    if isinstance(flags, dict) and flags.get("completion_chat") is False:
        return False
    endpoints = entry.get("endpoints")
    if isinstance(endpoints, list) and endpoints and all(isinstance(name, str) for name in endpoints):
        return "chat" in endpoints
    methods = entry.get("supportedGenerationMethods")
    if isinstance(methods, list):
        return "generateContent" in methods
    return entry.get("active") is not False


def _price(pricing: Any) -> float | None:
    """USD per million tokens, prompt and completion added; OpenRouter states USD per token, as text."""
    if not isinstance(pricing, dict):
        return None
    try:
        price = float(pricing["prompt"]) + float(pricing["completion"])
    except (KeyError, TypeError, ValueError):
        return None
    return price * 1e6 if price >= 0 else None
