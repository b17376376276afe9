"""LiteLLM's map of prices: https://github.com/BerriAI/litellm, MIT (what is outside its `enterprise` folder).

A second opinion on what models can do. It says nothing of free tiers: its `rpm` and `tpm` are those of paid ones, a
cost of zero may be a price that nobody filled in, a flag that is absent is unknown, and models come and go with the
people who keep it, so that it is no evidence of who is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmproxy.core.errors import BadReply
from llmproxy.dialects.model_lists import chats, loaded, tokens, usd_per_mtok
from scrapers.base import Evidence, NotUnderstood, Rank, Source, Value, capabilities

# Their names of providers; ids stand behind that name and a slash, or alone.
_PROVIDERS = {
    "anthropic": "anthropic", "cerebras": "cerebras", "cloudflare": "cloudflare-workers", "cohere": "cohere",
    "cohere_chat": "cohere", "deepinfra": "deepinfra", "deepseek": "deepseek", "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks", "gemini": "google", "github": "github", "groq": "groq",
    "huggingface": "huggingface", "hyperbolic": "hyperbolic", "minimax": "minimax", "mistral": "mistral",
    "moonshot": "moonshot", "nebius": "nebius", "novita": "novita", "nvidia_nim": "nvidia", "openai": "openai",
    "openrouter": "openrouter", "ovhcloud": "ovhcloud", "sambanova": "sambanova", "text-completion-openai": "openai",
    "together_ai": "together", "vercel_ai_gateway": "vercel", "xai": "xai", "zai": "z-ai",
}  # fmt: skip
_FLAGS = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "reasoning": "supports_reasoning",
    "json": "supports_response_schema",
    "audio": "supports_audio_input",
}
_NO_CHAT_MODES = frozenset(
    {
        "audio_speech", "audio_transcription", "completion", "embedding", "image_edit", "image_generation",
        "moderation", "moderations", "ocr", "realtime", "rerank", "search", "vector_store", "video_generation",
    }
)  # fmt: skip
# Names of prices rather than of models: by the size of a model, or of a picture; and what was fine-tuned.
_NO_ID = re.compile(r"^(fireworks-ai-|together-ai-|ft:)|(^|/)\d+-x-\d+/|/$")


def parse(raw: bytes) -> list[Evidence]:
    """Evidence from `{name: {"litellm_provider": …, "mode": …, …}}`; raises `NotUnderstood`."""
    try:
        body = loaded(raw)
    except BadReply as error:
        raise NotUnderstood("LiteLLM's map is not JSON") from error
    if not isinstance(body, dict):
        raise NotUnderstood("LiteLLM's map is no object of models")
    found: list[Evidence] = []
    for name, entry in body.items():
        theirs = str(entry.get("litellm_provider")) if isinstance(entry, dict) else ""
        if theirs in _PROVIDERS and name and not _NO_ID.search(name):
            found += _of(_PROVIDERS[theirs], _without_provider(name, theirs), entry)
    if not found:
        raise NotUnderstood("LiteLLM's map has no models of a provider that is known here")
    return found


def _without_provider(name: str, theirs: str) -> str:
    """The id of a model: `fireworks_ai/x`, and under `fireworks_ai-embedding-models` as well, is `x`."""
    return name.removeprefix(f"{theirs.removesuffix('-embedding-models')}/")


def _of(provider: str, model_id: str, entry: Mapping[str, Any]) -> list[Evidence]:
    mode = entry.get("mode")
    chat = chats(model_id, _said(mode))
    prompt = usd_per_mtok(entry.get("input_cost_per_token"))
    completion = usd_per_mtok(entry.get("output_cost_per_token"))
    costs = bool(prompt or completion)
    values: dict[str, Value] = {
        "chat": chat,
        "context": _number(entry.get("max_input_tokens")),
        "max_output": _number(entry.get("max_output_tokens")) if chat is not False else None,
        "price.prompt": prompt if costs else None,
        "price.completion": completion if costs else None,
    }
    found = [Evidence(provider, model_id, field, value) for field, value in values.items() if value is not None]
    tags: dict[str, bool | None] = {
        tag: entry[flag] for tag, flag in _FLAGS.items() if isinstance(entry.get(flag), bool)
    }
    tags |= {tag: True for tag, wanted in (("embeddings", "embedding"), ("rerank", "rerank")) if mode == wanted}
    return found + capabilities(provider, model_id, tags)


def _said(mode: Any) -> bool | None:
    """Whether a mode is chat; `responses` and what is new are left open."""
    if mode == "chat":
        return True
    return False if isinstance(mode, str) and mode in _NO_CHAT_MODES else None


def _number(value: Any) -> int | None:
    """A number of tokens, which may be text there."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        return tokens(int(value))
    return tokens(int(value)) if isinstance(value, float) and value.is_integer() and value < 1e12 else tokens(value)


SOURCE = Source(
    name="litellm",
    url="https://raw.githubusercontent.com/BerriAI/litellm/main/model_prices_and_context_window.json",
    rank=Rank.MAP,
    confidence=0.3,
    parse=parse,
    accept="application/json",
)
