"""cheahjs's README, in the form of sections and in that of two tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.cheahjs import SOURCE

PAGES = Path(__file__).parents[2] / "data/scrape/cheahjs"
SECTIONS = (PAGES / "sections.md").read_bytes()
TABLES = (PAGES / "tables.md").read_bytes()


def told(claims: list[Evidence], provider: str) -> dict[tuple[str, str], Any]:
    return {(claim.model, claim.field): claim.value for claim in claims if claim.provider == provider}


def read(raw: bytes, provider: str) -> dict[tuple[str, str], Any]:
    return told(SOURCE.read(raw, seen_at_s=0), provider)


def test_an_account_wide_quota_of_linked_models() -> None:
    """Models are the ids that they link to; their common quota, without what costs money, is one of all free ids."""
    assert read(SECTIONS, "openrouter") == {
        ("*:free", "limit.requests_per_minute"): 21,
        ("*:free", "limit.requests_per_day"): 51,
        ("google/gemma-3-12b-it:free", "exists"): True,
        ("google/gemma-3-12b-it:free", "free"): "quota",
        ("z-ai/glm-4.5-air:free", "exists"): True,
        ("z-ai/glm-4.5-air:free", "free"): "quota",
    }
    shared = {
        claim.model: claim.shared for claim in SOURCE.read(SECTIONS, seen_at_s=0) if claim.provider == "openrouter"
    }
    assert shared == {"*:free": True, "google/gemma-3-12b-it:free": False, "z-ai/glm-4.5-air:free": False}


def test_a_table_of_models() -> None:
    """Each row has its own limits, also one whose cell spans two rows; embeddings do not converse."""
    assert read(SECTIONS, "google") == {
        ("gemini-3-flash-preview", "exists"): True,
        ("gemini-3-flash-preview", "free"): "quota",
        ("gemini-3-flash-preview", "limit.tokens_per_minute"): 251_000,
        ("gemini-3-flash-preview", "limit.requests_per_day"): 22,
        ("gemini-3-flash-preview", "limit.requests_per_minute"): 6,
        ("Gemma 3 27B it", "exists"): True,
        ("Gemma 3 27B it", "free"): "quota",
        ("Gemma 3 27B it", "limit.tokens_per_minute"): 15_100,
        ("Gemma 3 27B it", "limit.requests_per_day"): 14_500,
        ("Gemma 3 27B it", "limit.requests_per_minute"): 31,
        ("text-embedding-004", "exists"): True,
        ("text-embedding-004", "free"): "quota",
        ("text-embedding-004", "limit.requests_per_minute"): 1510,
        ("text-embedding-004", "chat"): False,
        ("embedding-001", "exists"): True,
        ("embedding-001", "free"): "quota",
        ("embedding-001", "limit.requests_per_minute"): 1510,
        ("embedding-001", "chat"): False,
    }


def test_units_without_a_field_and_rows_without_limits() -> None:
    """Seconds of audio by the minute are left out, an empty cell limits nothing, guards do not converse."""
    assert read(SECTIONS, "groq") == {
        ("llama-3.3-70b-versatile", "exists"): True,
        ("llama-3.3-70b-versatile", "free"): "quota",
        ("llama-3.3-70b-versatile", "limit.requests_per_day"): 1100,
        ("llama-3.3-70b-versatile", "limit.tokens_per_minute"): 12_100,
        ("Whisper Large v3", "exists"): True,
        ("Whisper Large v3", "free"): "quota",
        ("Whisper Large v3", "limit.requests_per_day"): 2100,
        ("Whisper Large v3", "chat"): False,
        ("meta-llama/llama-prompt-guard-2-22m", "exists"): True,
        ("meta-llama/llama-prompt-guard-2-22m", "free"): "quota",
        ("meta-llama/llama-prompt-guard-2-22m", "chat"): False,
        ("openai/gpt-oss-safeguard-20b", "exists"): True,
        ("openai/gpt-oss-safeguard-20b", "free"): "quota",
        ("openai/gpt-oss-safeguard-20b", "limit.requests_per_day"): 1200,
        ("openai/gpt-oss-safeguard-20b", "limit.tokens_per_minute"): 8100,
    }


def test_sections_about_all_models() -> None:
    """`Various open models` are all of them, together, unless the limits are called those of each model."""
    claims = SOURCE.read(SECTIONS, seen_at_s=0)
    assert told(claims, "nvidia") == {("*", "free"): "quota", ("*", "limit.requests_per_minute"): 41}
    assert told(claims, "mistral") == {
        ("*", "free"): "quota",
        ("*", "limit.requests_per_second"): 2,
        ("*", "limit.tokens_per_minute"): 510_000,
        ("*", "limit.tokens_per_month"): 1.1e9,
    }
    assert told(claims, "huggingface") == {("*", "free"): "budget", ("*", "limit.usd_per_month"): 0.2}
    assert told(claims, "vercel") == {("*", "free"): "budget", ("*", "limit.usd_per_month"): 6}
    shared = {
        claim.provider: claim.shared for claim in claims if claim.model == "*" and claim.field.startswith("limit.")
    }
    assert shared["nvidia"] is shared["huggingface"] is shared["vercel"] is True
    assert shared["mistral"] is False


def test_lists_of_models_under_limits() -> None:
    """Limits that are not called common are those of each model; a budget is always one of the account."""
    claims = SOURCE.read(SECTIONS, seen_at_s=0)
    assert told(claims, "cohere") == {
        ("*", "limit.requests_per_minute"): 22,
        ("*", "limit.requests_per_month"): 1100,
        ("command-a-03-2025", "exists"): True,
        ("command-a-03-2025", "free"): "quota",
        ("c4ai-aya-expanse-8b", "exists"): True,
        ("c4ai-aya-expanse-8b", "free"): "quota",
    }
    assert told(claims, "cloudflare-workers") == {
        ("*", "limit.neurons_per_day"): 11_000,
        ("@cf/openai/gpt-oss-120b", "exists"): True,
        ("@cf/openai/gpt-oss-120b", "free"): "budget",
        ("Llama 3.1 8B Instruct FP8", "exists"): True,
        ("Llama 3.1 8B Instruct FP8", "free"): "budget",
        ("@cf/qwen/qwq-32b", "exists"): True,
        ("@cf/qwen/qwq-32b", "free"): "budget",
    }
    assert told(claims, "chutes") == {("DeepSeek V3 0324", "exists"): True, ("DeepSeek V3 0324", "free"): "price"}
    github = told(claims, "github")
    assert {model for model, _ in github} == {
        "GPT-4o mini",
        "Cohere Command R plus 08-2024",
        "Codestral 2501",
        "Text Embedding 3 large",
    }
    assert {value for (_, field), value in github.items() if field == "free"} == {"quota"}
    assert github["Text Embedding 3 large", "chat"] is False


def test_free_models_and_a_trial_of_one_provider() -> None:
    """Of one provider the free models are free, and the trial is one for all the others."""
    assert read(SECTIONS, "together") == {
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo-Free", "exists"): True,
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo-Free", "free"): "quota",
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo-Free", "limit.requests_per_minute"): 61,
        ("*", "free"): "trial",
        ("*", "limit.usd_once"): 2,
    }


def test_trials() -> None:
    """A one-time credit is a trial of all models, in its unit; the models under it exist; placeholders are none."""
    claims = SOURCE.read(SECTIONS, seen_at_s=0)
    assert told(claims, "sambanova") == {
        ("*", "free"): "trial",
        ("*", "limit.usd_once"): 7,
        ("E5-Mistral-7B-Instruct", "exists"): True,
        ("E5-Mistral-7B-Instruct", "chat"): False,
        ("Meta-Llama-3.3-70B-Instruct", "exists"): True,
        ("DeepSeek-V3.1", "exists"): True,
    }
    assert told(claims, "scaleway") == {
        ("*", "free"): "trial",
        ("*", "limit.tokens_once"): 1.1e6,
        ("Gemma 3 27B it", "exists"): True,
        ("Pixtral 12B 2409", "exists"): True,
    }


def test_nothing_of_other_services() -> None:
    """Services outside the catalog, with Codestral's own endpoint among them, are no providers here."""
    providers = {claim.provider for claim in SOURCE.read(SECTIONS, seen_at_s=0)}
    assert providers == {
        "openrouter", "google", "nvidia", "mistral", "huggingface", "vercel", "groq", "together", "cohere", "github",
        "cloudflare-workers", "chutes", "sambanova", "scaleway",
    }  # fmt: skip


def test_the_form_of_tables() -> None:
    """A provider's cells span the rows of its models."""
    claims = SOURCE.read(TABLES, seen_at_s=0)
    assert told(claims, "openrouter") == {
        ("*:free", "limit.requests_per_minute"): 23,
        ("*:free", "limit.requests_per_day"): 53,
        ("deepseek/deepseek-chat:free", "exists"): True,
        ("deepseek/deepseek-chat:free", "free"): "quota",
        ("qwen/qwq-32b:free", "exists"): True,
        ("qwen/qwq-32b:free", "free"): "quota",
    }
    assert told(claims, "nvidia") == {("*", "free"): "quota", ("*", "limit.requests_per_minute"): 43}
    assert told(claims, "huggingface") == {("*", "free"): "budget", ("*", "limit.usd_per_month"): 0.3}
    assert told(claims, "cerebras") == {
        ("llama-4-scout-17b-16e-instruct", "exists"): True,
        ("llama-4-scout-17b-16e-instruct", "free"): "quota",
        ("llama-4-scout-17b-16e-instruct", "limit.requests_per_minute"): 33,
        ("llama-4-scout-17b-16e-instruct", "limit.tokens_per_minute"): 63_000,
        ("llama-4-scout-17b-16e-instruct", "limit.requests_per_hour"): 903,
        ("llama-4-scout-17b-16e-instruct", "limit.tokens_per_hour"): 1_000_003,
        ("llama-4-scout-17b-16e-instruct", "limit.requests_per_day"): 14_403,
        ("llama-4-scout-17b-16e-instruct", "limit.tokens_per_day"): 1_000_003,
        ("llama3.1-8b", "exists"): True,
        ("llama3.1-8b", "free"): "quota",
        ("llama3.1-8b", "limit.requests_per_minute"): 34,
    }
    assert told(claims, "cloudflare-workers") == {
        ("*", "limit.neurons_per_day"): 13_000,
        ("Phi-2", "exists"): True,
        ("Phi-2", "free"): "budget",
        ("Phi-2", "limit.requests_per_minute"): 303,
        ("LlamaGuard 7B AWQ", "exists"): True,
        ("LlamaGuard 7B AWQ", "free"): "budget",
        ("LlamaGuard 7B AWQ", "limit.requests_per_minute"): 303,
        ("LlamaGuard 7B AWQ", "chat"): False,
    }
    assert told(claims, "cohere") == {
        ("*", "limit.requests_per_minute"): 23,
        ("*", "limit.requests_per_month"): 1003,
        ("Command-R plus", "exists"): True,
        ("Command-R plus", "free"): "quota",
    }
    assert told(claims, "sambanova") == {
        ("Meta-Llama-3.1-405B-Instruct", "exists"): True,
        ("Meta-Llama-3.1-405B-Instruct", "free"): "price",
    }
    assert told(claims, "fireworks") == {("*", "free"): "trial", ("*", "limit.usd_once"): 3}
    assert told(claims, "hyperbolic") == {
        ("*", "free"): "trial",
        ("*", "limit.usd_once"): 13,
        ("Qwen/QwQ-32B", "exists"): True,
        ("meta-llama/Meta-Llama-3.1-405B-FP8", "exists"): True,
    }
    assert not told(claims, "mistral")


def test_another_order_of_columns() -> None:
    """Columns are found by their heads."""
    swapped = SECTIONS.replace(b"<th>Model Name</th><th>Model Limits</th>", b"<th>Model Limits</th><th>Model Name</th>")
    swapped = swapped.replace(
        b"<td>Llama 3.3 70B</td><td>1,100 requests/day<br>12,100 tokens/minute</td>",
        b"<td>1,100 requests/day<br>12,100 tokens/minute</td><td>Llama 3.3 70B</td>",
    )
    assert read(swapped, "groq")["llama-3.3-70b-versatile", "limit.requests_per_day"] == 1100


@pytest.mark.parametrize(
    "raw",
    [
        SECTIONS[: SECTIONS.index(b"### [Scaleway")],
        SECTIONS[: SECTIONS.index(b"## Providers with trial")],
        SECTIONS.replace(b"## Free Providers", b"## Services"),
        TABLES[: TABLES.index(b"## Providers with trial")],
        TABLES[: TABLES.index(b"Hyperbolic")],
        TABLES.replace(b"<th>Provider</th>", b"<th>Who</th>"),
    ],
    ids=["a section short", "half", "other headings", "one table", "in a table", "other columns"],
)
def test_pages_that_are_cut_off_or_redesigned(raw: bytes) -> None:
    """A page without one of its parts makes no claim at all."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
