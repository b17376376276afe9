"""The one grammar for model ids, pools and globs.

name   = alias | local | provider "/" id | provider "__" id | id "__" provider | id " (" provider ")" | pool
pool   = "llmproxy" sep [provider sep] word [sep word] | "llmproxy" sep provider | "llmproxy" sep user-pool
sep    = "/" | "__"
word   = auto | free | local | exploratory | standard | deep | tools | vision | json | reasoning
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llmproxy.core.types import TIERS, Tier

AUTO = "llmproxy/auto"
CAPABILITY_POOLS = ("tools", "vision", "json", "reasoning")
POOL_WORDS = ("auto", "free", "local", *TIERS, *CAPABILITY_POOLS)

_SEPARATOR = re.compile(r"/|__")
_IN_BRACKETS = re.compile(r"^(?P<id>.+) \((?P<provider>[^()]+)\)$")


# Ids of models that do not chat, as providers name them; they stay out of chat pools but can be asked by name.
_OTHER_JOB = re.compile(
    r"embed|rerank|whisper|transcri|(^|[-_/])tts|text-to-speech|speech|moderation|guard|safety|reward|ocr|lyria|sora|"
    r"dall-e|imagen|stable-diffusion|sdxl|(^|[-_/.])(flux|veo|live|realtime|clip|parse)(?![a-z])|nvclip|native-audio|"
    r"(^|/)(bge|e5|gte)-|parakeet|orpheus|gliner|detector",
    re.IGNORECASE,
)
_DRAWS = re.compile(r"(^|[-_/.])image([-_/.:]|$)|nano-banana", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PoolName:
    """A pool as named: of one provider or of all, a tier or capabilities, and the two promises free and local."""

    provider: str | None = None
    user_pool: str | None = None
    tier: Tier | None = None
    capabilities: frozenset[str] = frozenset()
    free: bool = False
    local: bool = False

    def __str__(self) -> str:
        words = [self.provider, self.user_pool, self.tier, *sorted(self.capabilities)]
        words += ["free" if self.free else None, "local" if self.local else None]
        said = [word for word in words if word]
        return "/".join(["llmproxy", *(said or ["auto"])])


def is_pool(name: str) -> bool:
    """Whether `name` stands for a pool (`llmproxy`, `llmproxy/…`, `llmproxy__…`), known or not."""
    return name == "llmproxy" or name.startswith(("llmproxy/", "llmproxy__"))


def parse_pool(name: str, providers: Collection[str], user_pools: Collection[str] = ()) -> PoolName | None:
    """Read a pool name; None when one of its words is neither a provider, a pool of the user, nor a pool word."""
    rest = name.removeprefix("llmproxy").removeprefix("/").removeprefix("__")
    if rest in user_pools:
        return PoolName(user_pool=rest)
    words = [word for word in _SEPARATOR.split(rest) if word]
    provider = words.pop(0) if words and words[0] in providers else None
    if provider is None and words and words[0] == "local" and len(words) == 1:
        return PoolName(local=True)
    if any(word not in POOL_WORDS for word in words) or len(words) > 3:
        return None
    tiers = [tier for tier in TIERS if tier in words]
    if len(tiers) > 1:
        return None
    return PoolName(
        provider=provider,
        tier=tiers[0] if tiers else None,
        capabilities=frozenset(word for word in words if word in CAPABILITY_POOLS),
        free="free" in words,
        local="local" in words,
    )


def listed(source: str, model_id: str) -> str:
    """The name in `GET /v1/models`: `provider__model`, every `/` of the id but the last written as `_`."""
    head, slash, tail = model_id.rpartition("/")
    return f"{source}__{head.replace('/', '_')}{slash}{tail}"


def spellings(source: str, model_id: str) -> tuple[str, ...]:
    """Every way a client may write one model of one source."""
    short = listed(source, model_id)
    return (
        f"{source}/{model_id}",
        f"{source}__{model_id}",
        short,
        f"{model_id}__{source}",
        f"{model_id} ({source})",
        short.removeprefix(f"{source}__") + f"__{source}",
    )


def split_model(name: str, providers: Collection[str]) -> tuple[str, str] | None:
    """(provider, upstream id) of a concrete name in any of its spellings; None when no known provider is in it."""
    if (match := _IN_BRACKETS.match(name)) and match["provider"] in providers:
        return match["provider"], match["id"]
    for separator in ("/", "__"):
        provider, found, model_id = name.partition(separator)
        if found and model_id and provider in providers:
            return provider, model_id
    model_id, found, provider = name.rpartition("__")
    if found and model_id and provider in providers:
        return provider, model_id
    return None


def matches(patterns: Collection[str], source: str, model_id: str) -> bool:
    """Whether a glob (or plain id) in `patterns` names the model, as `provider/id` or (without a slash) by its bare id.

    `*`, `?` and `[…]` are as in `fnmatch`, case-sensitive, and `*` crosses `/`. A pattern with a slash begins with a
    provider: `google/gemini` is not the model that OpenRouter calls by that id.
    """
    full = f"{source}/{model_id}"
    return any(
        pattern == full or fnmatchcase(full, pattern) or ("/" not in pattern and pattern == model_id)
        for pattern in patterns
    )


def matches_id(patterns: Collection[str], model_id: str) -> bool:
    """Whether a glob (or plain id) in `patterns`, which are all about one provider, names its model."""
    return any(pattern == model_id or fnmatchcase(model_id, pattern) for pattern in patterns)


def does_other_job(model_id: str) -> bool:
    """Whether an id says that its model embeds, ranks, listens, speaks, moderates …: anything but chat."""
    return _OTHER_JOB.search(model_id) is not None


def draws(model_id: str) -> bool:
    """Whether an id says that its model makes images; some of those also write."""
    return _DRAWS.search(model_id) is not None
