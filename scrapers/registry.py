"""Every source that is read for everybody; a provider's own list is added for those whose key is there."""

from __future__ import annotations

from scrapers.base import Source
from scrapers.sources import (
    cerebras,
    cheahjs,
    cloudflare,
    cohere,
    fireworks,
    free_llm_api_hub,
    free_llm_api_watch,
    freellmapi,
    freeway,
    gatherd,
    github_models,
    google,
    groq,
    huggingface,
    litellm,
    mistral,
    mnfst,
    models_dev,
    openrouter,
    openrouter_limits,
    relayfreellm,
    sambanova,
)

SOURCES: tuple[Source, ...] = (
    # catalogues
    openrouter.SOURCE,
    models_dev.SOURCE,
    litellm.SOURCE,
    # pages of providers
    *cerebras.SOURCES,
    cloudflare.SOURCE,
    *cohere.SOURCES,
    fireworks.SOURCE,
    github_models.SOURCE,
    *google.SOURCES,
    *groq.SOURCES,
    huggingface.SOURCE,
    mistral.SOURCE,
    openrouter_limits.SOURCE,
    sambanova.SOURCE,
    # lists that people keep
    cheahjs.SOURCE,
    free_llm_api_hub.SOURCE,
    free_llm_api_watch.SOURCE,
    freellmapi.SOURCE,
    *freeway.SOURCES,
    gatherd.SOURCE,
    mnfst.SOURCE,
    relayfreellm.SOURCE,
)
