"""What lists of people have in common: which provider, model and limit their words mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scrapers.base import Evidence, NotUnderstood, Source
from scrapers.pages import TooLarge
from scrapers.sources import (
    cheahjs,
    free_llm_api_hub,
    free_llm_api_watch,
    freellmapi,
    freeway,
    gatherd,
    mnfst,
    relayfreellm,
)
from scrapers.sources.community import (
    HOSTS,
    MODELS,
    NAMES,
    account_claims,
    amount,
    amounts_in,
    document,
    kind_of,
    model_claims,
    model_of,
    not_chat,
    once_in,
    provider_of,
)

LISTS = [
    cheahjs.SOURCE,
    mnfst.SOURCE,
    free_llm_api_hub.SOURCE,
    freellmapi.SOURCE,
    *freeway.SOURCES,
    free_llm_api_watch.SOURCE,
    relayfreellm.SOURCE,
    gatherd.SOURCE,
]


def test_every_provider_is_one_of_the_catalog() -> None:
    """Names and hosts lead to ids of the catalog, or, on purpose, to none."""
    catalog = json.loads((Path(__file__).parents[3] / "providers/catalog.json").read_text("utf-8"))
    assert (set(HOSTS.values()) | set(NAMES.values()) | set(MODELS)) - {""} <= set(catalog)


@pytest.mark.parametrize(
    ("name", "link", "provider"),
    [
        ("Google Gemini", "", "google"),
        ("Mistral (La Plateforme)", "https://console.mistral.ai/", "mistral"),
        ("Mistral (Codestral)", "https://codestral.mistral.ai/", None),
        ("Z AI (Zhipu AI)", "https://open.bigmodel.cn/api/paas/v4", "zhipu"),
        ("Z.ai (Zhipu AI / GLM)", "https://api.z.ai/api/paas/v4/", "z-ai"),
        ("Kilo Code", "https://api.kilo.ai/api/gateway", "kilo"),
        ("", "https://api.cloudflare.com/client/v4/accounts/{account_id}/ai/run", "cloudflare-workers"),
        ("", "https://github.com/marketplace/models", "github"),
        ("", "https://github.com/pollinations/pollinations", None),
        ("", "https://notgroq.com/", None),
        ("", "https://groq.com.example/", None),
        ("", "http://[", None),
        ("Somebody", "", None),
    ],
)
def test_which_provider_is_meant(name: str, link: str, provider: str | None) -> None:
    """A known name counts, then the host of its address; what only looks like a known host is none."""
    assert provider_of(name, link) == provider


@pytest.mark.parametrize(
    ("provider", "text", "model"),
    [
        ("groq", "Llama 3.3 70B", "llama-3.3-70b-versatile"),
        ("groq", "Whisper Large v3", "Whisper Large v3"),
        ("google", "Gemma 3 27B Instruct", "Gemma 3 27B it"),
        ("cloudflare-workers", "Llama 3.1 8B Instruct (FP8)", "Llama 3.1 8B Instruct FP8"),
        ("cloudflare-workers", "@cf/openai/gpt-oss-120b", "@cf/openai/gpt-oss-120b"),
        ("github", "OpenAI GPT-4o mini", "GPT-4o mini"),
        ("github", "Cohere Command R+ 08-2024", "Cohere Command R plus 08-2024"),
        ("github", "Codestral 25.01", "Codestral 2501"),
        ("sambanova", "deepseek-ai/DeepSeek-V3.1", "DeepSeek-V3.1"),
        ("openrouter", "google/gemma-3-27b-it:free", "google/gemma-3-27b-it:free"),
        ("groq", "x" * 201, ""),
    ],
)
def test_which_model_is_meant(provider: str, text: str, model: str) -> None:
    """Display names become what the provider would write; ids stay as they are; no name is that long."""
    assert model_of(provider, text) == model


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("30 RPM, 14,400 RPD, 1M TPD", {"requests_per_minute": 30, "requests_per_day": 14_400, "tokens_per_day": 1e6}),
        ("~1 RPS, 500K TPM", {"requests_per_second": 1, "tokens_per_minute": 500_000}),
        ("~200 req/hr", {"requests_per_hour": 200}),
        ("30 RPM (120 with token)", {"requests_per_minute": 30}),
        ("50 RPD (1K with $10+ in purchased credits)", {"requests_per_day": 50}),
        ("51 requests/day\nUp to 1001 requests/day with $10 lifetime topup", {"requests_per_day": 51}),
        ("1001 requests/day with $10 credit balance", {}),
        ("Developer Tier (card required): 60 RPM", {}),
        ("Pro ($20/mo) raises limits", {}),
        ("5-15 RPM, 100-1K RPD", {}),
        ("roughly 5-30 req/min and 20-500 req/day", {}),
        ("1K/mo", {}),
        ("7,200 audio-seconds/minute", {}),
        ("2,000 inputs/min", {}),
        ("0 RPM", {}),
        ("1 concurrent request", {"concurrency": 1}),
        ("Per-request limits (8K in / 4K out)", {"max_prompt_tokens": 8000, "max_completion_tokens": 4000}),
        ("10K neurons/day (shared)", {"neurons_per_day": 10_000}),
        ("$0.10/mo in free credits", {"usd_per_month": 0.1}),
        ("Variable credits per month, currently $0.30", {"usd_per_month": 0.3}),
        ("Ultra-fast inference (~2,600 tok/s)", {}),
    ],
)
def test_limits_in_prose(text: str, found: dict[str, float]) -> None:
    """Only free limits with a number, a unit and a period that there is a field for; units are kept."""
    assert amounts_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("$5 for 3 months", {"usd_once": 5}),
        ("$0.5 for 1 year\n$20 for 3 months for DeepSeek models", {"usd_once": 0.5}),
        ("1,000,000 free tokens", {"tokens_once": 1e6}),
        ("1,000,000 tokens free + 60 min Whisper transcription", {"tokens_once": 1e6}),
        ("1000 API calls", {"requests_once": 1000}),
        ("Trial credit, phone verification required", {}),
    ],
)
def test_one_time_credits(text: str, found: dict[str, float]) -> None:
    """A credit is in dollars, tokens or calls; of several the first counts."""
    assert once_in(text) == found


def test_kinds_of_free() -> None:
    """Money and neurons are budgets, a limit of concurrency alone leaves only the price, other limits are quotas."""
    assert kind_of({"neurons_per_day": 1.0, "requests_per_minute": 1.0}) == "budget"
    assert kind_of({"concurrency": 1.0}) == "price"
    assert kind_of({"requests_per_day": 1.0}) == kind_of({}) == "quota"


@pytest.mark.parametrize(
    "name",
    [
        "Whisper Large v3",
        "Llama Guard 3 8B",
        "LlamaGuard 7B (AWQ)",
        "OpenAI Text Embedding 3 (large)",
        "rerank-v3.5",
        "canopylabs/orpheus-v1-english",
        "@cf/baai/bge-large-en-v1.5",
        "baai/bge-m3",
        "E5-Mistral-7B-Instruct",
        "google/lyria-3-clip-preview",
        "nvidia/nemotron-3.5-content-safety:free",
        "deepseek-ai/DeepSeek-OCR",
    ],
)
def test_names_of_what_does_not_converse(name: str) -> None:
    """Speech, moderation, embeddings, ranking, images and music say so in their names."""
    assert not_chat(name)


@pytest.mark.parametrize("name", ["openai/gpt-oss-safeguard-20b", "Gemini 2.5 Flash", "Phi-3.5-vision instruct (128k)"])
def test_names_of_what_converses(name: str) -> None:
    """A model that judges by talking, or that sees, is no moderation or image model."""
    assert not not_chat(name)


def test_claims_of_a_row_and_of_an_account() -> None:
    """A row claims its own limits; an account's are shared, but not those of a single request."""
    assert model_claims("groq", "whisper-large-v3", "quota", {"requests_per_day": 9.0}, dated="2026-01-02") == [
        Evidence("groq", "whisper-large-v3", "exists", True, dated="2026-01-02"),
        Evidence("groq", "whisper-large-v3", "free", "quota", dated="2026-01-02"),
        Evidence("groq", "whisper-large-v3", "limit.requests_per_day", 9.0, dated="2026-01-02"),
        Evidence("groq", "whisper-large-v3", "chat", False, dated="2026-01-02"),
    ]
    assert model_claims("groq", "", "quota") == []
    assert account_claims("kilo", None, {"requests_per_hour": 9.0, "max_prompt_tokens": 8.0}) == [
        Evidence("kilo", "*:free", "limit.requests_per_hour", 9.0, shared=True),
        Evidence("kilo", "*:free", "limit.max_prompt_tokens", 8.0),
    ]


@pytest.mark.parametrize(("value", "found"), [(5, 5.0), (0.5, 0.5), (-1, None), (0, None), (True, None), ("5", None)])
def test_numbers_of_json(value: object, found: float | None) -> None:
    """-1, nothing and what is no number are no amounts."""
    assert amount(value) == found


@pytest.mark.parametrize("value", [2147483647, float("inf"), float("nan"), 10**400, None])
def test_numbers_that_stand_for_no_limit(value: object) -> None:
    """Neither are infinity, what is larger than any limit, and the largest number of 32 bits."""
    assert amount(value) is None


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe{\x00", b"[" * 200_000, b"<html>", b"1" * 10_000])
def test_what_is_no_json(raw: bytes) -> None:
    """Text that is no JSON, is cut off or nests without end is not understood."""
    with pytest.raises(NotUnderstood):
        document(raw)


HOSTILE = {
    "nothing": b"",
    "another page": b"<!doctype html><title>404</title><p>Page not found</p>",
    "a script": b"<script>document.write('<table><tr><th>Model Name</th></tr></table>')</script>",
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaa">]>\n## Free Providers\n&a;&a;&a;',
    "binary": bytes(range(256)) * 40,
    "UTF-16": "## Free Providers\n\n### [Groq](https://console.groq.com)\n".encode("utf-16"),
    "deep HTML": b"## Free Providers\n\n### [Groq](https://groq.com)\n\n<ul><li>" + b"<b>" * 20_000,
    "deep lists": b"<ul><li>" * 2_000,
    "huge spans": b'<table><tr><th>Provider</th><td colspan="999999999" rowspan="999999999">x</td></tr></table>' * 600,
    "digits": b"<table><tr><td>Groq<br>" + b"9" * 100_000 + b" RPM</td></tr></table>",
    "deep JSON": b'{"providers":' * 50_000,
    "wrong types": b'{"providers": [1, null, {"name": 1, "models": {"id": []}}, {"name": "Groq", "models": [1, {}]}]}',
    "other types": b'{"baseUrl": "https://api.groq.com", "limits": [], "models": [{"id": 1, "caps": {}}, 2]}',
    "a list": b'[{"provider": "OpenRouter", "record_level": "model", "fetch_status": "ok", "model_id": ["x"]}]',
    "tiers": b'{"tier-free": {"Gemini-2.0-Flash": [], "": {"rpm": 5}}}',
    "infinite": b'{"tier-free": [{"rpm": 1e999}]}',
    "another list": b"| **Service** | **# of Users** | **Models** |\n|---|---|---|\n"
    b"| [FreeAPI](https://discord.gg/x) | 6,830 | [Models](https://api.example.com/v1/models) |\n",
}


@pytest.mark.parametrize("source", LISTS, ids=lambda source: source.name)
@pytest.mark.parametrize("name", HOSTILE)
def test_pages_that_no_list_is(source: Source, name: str) -> None:
    """What is no such list, is empty, damaged or hostile makes no claim and raises nothing else."""
    with pytest.raises((NotUnderstood, TooLarge)):
        source.read(HOSTILE[name], seen_at_s=0)
