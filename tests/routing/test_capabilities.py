"""What is known about a model: lists, the provider catalog, its name, and above all what a person wrote."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.config import Config
from llmproxy.core.types import Model
from llmproxy.routing.capabilities import Facts, describe, endpoint_fits, rank
from tests.routing.worlds import call_of

CHATS = [
    "llama-3.3-70b-versatile", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-V3.2", "moonshotai/kimi-k2-instruct",
    "google/gemma-3n-e4b-it", "gemini-2.5-flash-lite", "qwen/qwen3-coder:free", "mistralai/devstral-small",
    "z-ai/glm-4.5-air:free", "x-ai/grok-4-fast", "command-a-03-2025", "@cf/meta/llama-3.2-11b-vision-instruct",
    "tngtech/deepseek-r1t2-chimera:free", "microsoft/phi-4-multimodal-instruct", "ministral-8b-latest", "gpt-4o-mini",
    "meta-llama/llama-4-scout-17b-16e-instruct", "nvidia/nemotron-nano-9b-v2:free", "MiniMax-M2", "magistral-medium",
]  # fmt: skip
DO_NOT_CHAT = [
    "text-embedding-3-small", "mistral-embed", "embed-v4.0", "BAAI/bge-m3", "intfloat/e5-large-v2", "rerank-v3.5",
    "whisper-large-v3-turbo", "gpt-4o-transcribe", "tts-1", "playai-tts", "gpt-4o-mini-tts", "meta-llama/llama-guard-4",
    "omni-moderation-latest", "dall-e-3", "gpt-image-1", "black-forest-labs/FLUX.1-schnell", "imagen-4.0-generate",
    "veo-3.0", "sora-2", "mistral-ocr-latest", "@cf/openai/whisper", "stabilityai/stable-diffusion-xl-base-1.0",
    "canopylabs/orpheus-v1-english", "nvidia/parakeet-tdt-0.6b-v2", "text-moderation-latest",
]  # fmt: skip


@pytest.mark.parametrize("model_id", CHATS)
def test_chat_models_by_name(model_id: str) -> None:
    """A chat model is one unless its name says otherwise."""
    assert describe(Model("p", model_id), Config(), Facts()).chat


@pytest.mark.parametrize("model_id", DO_NOT_CHAT)
def test_other_models_by_name(model_id: str) -> None:
    """Embedding, speech, image and moderation models are known by their names."""
    assert not describe(Model("p", model_id), Config(), Facts()).chat


@pytest.mark.parametrize(("model_id", "embeds"), [("mistral-embed", True), ("bge-m3", True), ("llama-3.3-70b", False)])
def test_embedding_models_by_name(model_id: str, embeds: bool) -> None:
    """An embedding model is known to embed, and offered to that endpoint alone."""
    model = describe(Model("p", model_id), Config(), Facts())
    assert ("embeddings" in model.capabilities) is embeds
    assert endpoint_fits(model, call_of("x", endpoint="embeddings")) is embeds
    assert endpoint_fits(model, call_of("x", endpoint="chat")) is not embeds
    assert endpoint_fits(model, call_of("x", endpoint="passthrough"))


@pytest.mark.parametrize(
    ("model_id", "ranks"), [("rerank-v3.5", True), ("BAAI/bge-Reranker-v2-m3", True), ("mistral-embed", False)]
)
def test_rerankers_by_name(model_id: str, ranks: bool) -> None:
    """A reranker is known by its name, and a pool ranks with nothing else."""
    model = describe(Model("p", model_id), Config(), Facts())
    assert ("rerank" in model.capabilities) is ranks
    assert endpoint_fits(model, call_of("x", endpoint="passthrough", needs=["rerank"])) is ranks


@pytest.mark.parametrize(
    ("model", "settings", "facts", "free"),
    [
        (Model("p", "m"), {}, Facts(), False),
        (Model("p", "m", free=True), {}, Facts(), True),
        (Model("p", "m"), {}, Facts(all_free=True), True),
        (Model("p", "m:free"), {}, Facts(free_suffix=":free"), True),
        (Model("p", "m"), {}, Facts(free_models=("m",)), True),
        (Model("p", "m"), {"believed_free": ["p/m"]}, Facts(), True),
        (Model("p", "m"), {"believed_free": ["p/*"]}, Facts(), True),
        (Model("q", "m"), {"believed_free": ["p/*"]}, Facts(), False),
        (Model("p", "m"), {"free_limits": {"p/m": {}}}, Facts(), True),
        (Model("p", "m:free"), {"cost_observed_free_tier": ["p/m:free"]}, Facts(free_suffix=":free"), False),
        (Model("p", "m"), {"believed_free": ["p/m"], "cost_observed_free_tier": ["p/m"]}, Facts(), False),
    ],
)
def test_what_is_free(model: Model, settings: dict[str, Any], facts: Facts, free: bool) -> None:
    """A model is free when anyone says so, unless it was seen to cost something."""
    assert describe(model, Config.model_validate(settings), facts).free is free


def test_the_provider_catalog_is_used() -> None:
    """Globs of the provider catalog are over upstream ids: they tell capabilities, windows, and what is free."""
    facts = Facts(
        free_models=("@cf/*",),
        capabilities=(("@cf/*-vision-*", frozenset({"vision"})),),
        context_tokens=(("@cf/meta/*", 24_000),),
        not_chat=("@cf/*-chat-not*",),
    )
    model = describe(Model("cloudflare", "@cf/meta/llama-vision-instruct"), Config(), facts)
    assert (model.free, set(model.capabilities), model.context_tokens) == (True, {"vision"}, 24_000)
    assert not describe(Model("cloudflare", "@cf/x-chat-not-this"), Config(), facts).chat


def test_what_a_person_wrote_wins() -> None:
    """Capabilities, window and tier of the configuration replace what lists say; a lack that it denies is gone."""
    listed = Model(
        "p", "m", capabilities=frozenset({"vision"}), lacks=frozenset({"tools", "audio"}), context_tokens=4096
    )
    settings = Config.model_validate(
        {
            "model_capabilities": {"p/m": ["tools", "json"]},
            "model_context": {"p/*": 8192},
            "model_reasoning": {"m": "deep"},
        }
    )
    model = describe(listed, settings, Facts(context_tokens=(("m", 100),)))
    assert model.capabilities == {"tools", "json"}
    assert model.lacks == {"audio"}
    assert model.context_tokens == 8192
    assert model.tier == "deep"


def test_a_full_name_wins_over_a_glob() -> None:
    """The entry of `provider/id` is used before that of a glob, wherever they stand."""
    settings = Config.model_validate({"model_reasoning": {"p/*": "deep", "p/m": "standard"}})
    assert describe(Model("p", "m"), settings, Facts()).tier == "standard"
    assert describe(Model("p", "other"), settings, Facts()).tier == "deep"


def test_a_local_model_knows_itself() -> None:
    """What a local model's files promise is only added to; it is local, not free of charge by a list."""
    settings = Config.model_validate(
        {"model_capabilities": {"local/x": ["json"]}, "model_reasoning": {"local/x": "deep"}}
    )
    model = describe(Model("local", "x", local=True, capabilities=frozenset({"prefill"})), settings, Facts())
    assert model.capabilities == {"prefill", "json"}
    assert model.tier == "deep"


@pytest.mark.parametrize(
    ("needs", "place"), [((), 0), (("tools",), 0), (("vision",), 1), (("audio",), 2), (("tools", "audio"), 2)]
)
def test_rank(needs: tuple[str, ...], place: int) -> None:
    """Known before unknown before known to be missing."""
    model = Model("p", "m", capabilities=frozenset({"tools"}), lacks=frozenset({"audio"}))
    assert rank(model, frozenset(needs)) == place
