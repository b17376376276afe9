"""models.dev: what models can do and cost, kept by its readers: https://github.com/sst/models.dev, MIT.

A cost of 0 and 0 stands for "not billed by the token" there, and says nothing. For OpenRouter it is made from the API
itself, and adds nothing to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmproxy.core.errors import BadReply
from llmproxy.dialects.model_lists import chats, loaded, tokens, usd_per_mtok
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, capabilities

# Their ids of providers, where the catalogue has the same provider under the same ids of models.
_PROVIDERS = {
    "anthropic": "anthropic", "cerebras": "cerebras", "chutes": "chutes", "cloudflare-workers-ai": "cloudflare-workers",
    "cohere": "cohere", "deepinfra": "deepinfra", "deepseek": "deepseek", "fireworks-ai": "fireworks",
    "github-models": "github", "google": "google", "groq": "groq", "huggingface": "huggingface", "kilo": "kilo",
    "minimax": "minimax", "mistral": "mistral", "modelscope": "modelscope", "moonshotai": "moonshot",
    "nebius": "nebius", "novita-ai": "novita", "nvidia": "nvidia", "ollama-cloud": "ollama-cloud", "openai": "openai",
    "opencode": "opencode-zen", "openrouter": "openrouter", "ovhcloud": "ovhcloud", "requesty": "requesty",
    "scaleway": "scaleway", "togetherai": "together", "venice": "venice", "vercel": "vercel", "xai": "xai",
    "zai": "z-ai", "zhipuai": "zhipu",
}  # fmt: skip


def parse(raw: bytes) -> list[Evidence]:
    """Evidence from `{provider: {"models": {id: {…}}}}`; raises `NotUnderstood`."""
    try:
        body = loaded(raw)
    except BadReply as error:
        raise NotUnderstood("models.dev's reply is not JSON") from error
    if not isinstance(body, dict):
        raise NotUnderstood("models.dev's reply is no object of providers")
    found: list[Evidence] = []
    for theirs, ours in _PROVIDERS.items():
        listed = body.get(theirs)
        models = listed.get("models") if isinstance(listed, dict) else None
        for model_id, entry in models.items() if isinstance(models, dict) else ():
            if model_id and isinstance(entry, dict):
                found += _of(ours, model_id, entry)
    if not found:
        raise NotUnderstood("models.dev's reply has no models of a provider that is known here")
    return found


def _of(provider: str, model_id: str, entry: Mapping[str, Any]) -> list[Evidence]:
    inputs, outputs = _modalities(entry, "input"), _modalities(entry, "output")
    chat = chats(model_id, "text" in outputs if outputs else None)
    limit = _inner(entry, "limit")
    values: dict[str, Value] = {
        "exists": entry.get("status") != "deprecated",
        "chat": chat,
        "context": tokens(limit.get("context")),
        "max_output": tokens(limit.get("output")) if chat is not False else None,
        **_prices(_inner(entry, "cost")),
    }
    found = [Evidence(provider, model_id, field, value) for field, value in values.items() if value is not None]
    tags: dict[str, bool | None] = {
        "tools": _flag(entry, "tool_call"),
        "reasoning": _flag(entry, "reasoning"),
        "json": _flag(entry, "structured_output"),
        "vision": "image" in inputs if inputs else None,
        "audio": "audio" in inputs if inputs else None,
    }
    return found + capabilities(provider, model_id, tags)


def _prices(cost: Mapping[str, Any]) -> dict[str, float | None]:
    """USD per million tokens, as they stand there."""
    prompt, completion = usd_per_mtok(cost.get("input"), 1), usd_per_mtok(cost.get("output"), 1)
    if not prompt and not completion:
        return {}
    return {"price.prompt": prompt, "price.completion": completion}


def _flag(entry: Mapping[str, Any], name: str) -> bool | None:
    value = entry.get(name)
    return value if isinstance(value, bool) else None


def _inner(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = entry.get(name)
    return value if isinstance(value, dict) else {}


def _modalities(entry: Mapping[str, Any], side: str) -> list[Any]:
    value = _inner(entry, "modalities").get(side)
    return value if isinstance(value, list) else []


SOURCE = Source(
    name="models_dev",
    url="https://models.dev/api.json",
    rank=Rank.COMMUNITY,
    confidence=0.5,
    parse=parse,
    derived=frozenset({"openrouter"}),
    catalogue=True,
    accept="application/json",
)
