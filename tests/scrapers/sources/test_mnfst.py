"""mnfst's data, and the README that there was before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.mnfst import SOURCE

PAGES = Path(__file__).parents[2] / "data/scrape/mnfst"
DATA = (PAGES / "data.json").read_bytes()
LIST = (PAGES / "list.md").read_bytes()


def told(claims: list[Evidence], provider: str) -> dict[tuple[str, str], Any]:
    return {(claim.model, claim.field): claim.value for claim in claims if claim.provider == provider}


def test_models_and_what_stands_of_the_whole_account() -> None:
    """Rows tell limits, sizes and what a model does; the description tells what the account may do in a month."""
    claims = SOURCE.read(DATA, seen_at_s=0)
    assert {claim.dated for claim in claims} == {"2026-04-17"}
    assert told(claims, "cohere") == {
        ("command-a-03-2025", "exists"): True,
        ("command-a-03-2025", "free"): "quota",
        ("command-a-03-2025", "limit.requests_per_minute"): 20,
        ("command-a-03-2025", "context"): 256_000,
        ("command-a-03-2025", "max_output"): 4000,
        ("embed-v4.0", "exists"): True,
        ("embed-v4.0", "free"): "quota",
        ("embed-v4.0", "chat"): False,
        ("embed-v4.0", "capability.embeddings"): True,
        ("rerank-v3.5", "exists"): True,
        ("rerank-v3.5", "free"): "quota",
        ("rerank-v3.5", "limit.requests_per_minute"): 10,
        ("rerank-v3.5", "chat"): False,
        ("rerank-v3.5", "capability.rerank"): True,
        ("*", "limit.requests_per_month"): 1000,
    }


def test_sizes_and_limits_that_are_said_twice() -> None:
    """The window of the free tier counts; what the rows say already is not said of the account as well."""
    assert told(SOURCE.read(DATA, seen_at_s=0), "cerebras") == {
        ("zai-glm-4.7", "exists"): True,
        ("zai-glm-4.7", "free"): "quota",
        ("zai-glm-4.7", "limit.requests_per_minute"): 10,
        ("zai-glm-4.7", "limit.requests_per_day"): 100,
        ("zai-glm-4.7", "limit.tokens_per_day"): 1e6,
        ("zai-glm-4.7", "context"): 8000,
        ("zai-glm-4.7", "max_output"): 8000,
    }


def test_budgets_and_shared_limits() -> None:
    """Neurons, dollars and totals are of the account, also those of a row for more models; `Up to 10M` is no size."""
    claims = SOURCE.read(DATA, seen_at_s=0)
    assert told(claims, "cloudflare-workers") == {
        ("@cf/meta/llama-4-scout-17b-16e-instruct", "exists"): True,
        ("@cf/meta/llama-4-scout-17b-16e-instruct", "free"): "budget",
        ("*", "limit.neurons_per_day"): 10_000,
    }
    assert told(claims, "huggingface") == {
        ("Qwen/Qwen2.5-7B-Instruct", "exists"): True,
        ("Qwen/Qwen2.5-7B-Instruct", "free"): "budget",
        ("Qwen/Qwen2.5-7B-Instruct", "context"): 131_000,
        ("Qwen/Qwen2.5-7B-Instruct", "max_output"): 4000,
        ("*", "free"): "budget",
        ("*", "limit.usd_per_month"): 0.1,
    }
    assert told(claims, "modelscope") == {
        ("Qwen/Qwen3.5-27B", "exists"): True,
        ("Qwen/Qwen3.5-27B", "free"): "quota",
        ("Qwen/Qwen3.5-27B", "limit.requests_per_day"): 500,
        ("Qwen/Qwen3.5-27B", "context"): 256_000,
        ("*", "limit.requests_per_day"): 2000,
    }
    shared = {(claim.provider, claim.shared) for claim in claims if claim.model == "*" and claim.field != "free"}
    assert shared == {
        ("cohere", True), ("mistral", True), ("cloudflare-workers", True), ("github", False), ("huggingface", True),
        ("modelscope", True),
    }  # fmt: skip


def test_concurrency_requests_and_limits_without_numbers() -> None:
    """One request at a time leaves only the price; limits that are not published are those of a quota."""
    claims = SOURCE.read(DATA, seen_at_s=0)
    assert told(claims, "zhipu")["glm-4.5-flash", "free"] == "price"
    assert told(claims, "zhipu")["glm-4.5-flash", "limit.concurrency"] == 1
    assert told(claims, "zhipu")["glm-4.5-flash", "capability.reasoning"] is True
    assert told(claims, "ollama-cloud")["deepseek-r1:cloud", "free"] == "quota"
    assert told(claims, "github") == {
        ("gpt-4.1", "exists"): True,
        ("gpt-4.1", "free"): "quota",
        ("gpt-4.1", "limit.requests_per_minute"): 10,
        ("gpt-4.1", "limit.requests_per_day"): 50,
        ("gpt-4.1", "context"): 1e6,
        ("gpt-4.1", "max_output"): 32_000,
        ("*", "limit.max_prompt_tokens"): 8000,
        ("*", "limit.max_completion_tokens"): 4000,
    }
    assert told(claims, "llm7")["gpt-4o-mini", "limit.requests_per_minute"] == 30
    assert told(claims, "kilo")["arcee-ai/trinity-large-thinking:free", "limit.requests_per_hour"] == 200
    assert told(claims, "mistral")["*", "limit.tokens_per_month"] == 1e9
    assert told(claims, "mistral")["mistral-medium-2505", "capability.vision"] is True


def test_speech() -> None:
    """What turns audio into text does not converse."""
    groq = told(SOURCE.read(DATA, seen_at_s=0), "groq")
    assert groq["whisper-large-v3", "chat"] is False
    assert groq["whisper-large-v3", "capability.speech"] is True
    assert groq["llama-4-scout-17b-16e-instruct", "capability.vision"] is True
    assert ("llama-4-scout-17b-16e-instruct", "chat") not in groq


def test_the_older_readme() -> None:
    """Names that mean one model count; a range is no number; a limit without a unit is none."""
    claims = SOURCE.read(LIST, seen_at_s=0)
    assert told(claims, "cohere") == {
        ("command-a-03-2025", "exists"): True,
        ("command-a-03-2025", "free"): "quota",
        ("command-a-03-2025", "limit.requests_per_minute"): 20,
        ("c4ai-aya-expanse-32b", "exists"): True,
        ("c4ai-aya-expanse-32b", "free"): "quota",
        ("c4ai-aya-expanse-32b", "limit.requests_per_minute"): 20,
    }
    assert told(claims, "google") == {("Gemini 2.5 Pro", "exists"): True, ("Gemini 2.5 Pro", "free"): "quota"}
    assert {value for (_, field), value in told(claims, "zhipu").items() if field == "free"} == {"price"}
    assert told(claims, "cloudflare-workers")["*", "limit.neurons_per_day"] == 10_000
    assert told(claims, "cloudflare-workers")["@cf/qwen/qwq-32b", "free"] == "budget"
    assert told(claims, "groq")["llama-3.3-70b-versatile", "limit.requests_per_day"] == 1000
    assert told(claims, "ollama-cloud")["*", "limit.concurrency"] == 1
    assert told(claims, "huggingface")["*", "limit.usd_per_month"] == 0.1
    assert told(claims, "openrouter")["*:free", "limit.requests_per_day"] == 50
    assert told(claims, "openrouter")["deepseek/deepseek-r1:free", "free"] == "quota"
    assert told(claims, "mistral")["mistral-large-2512", "limit.requests_per_second"] == 1


def test_another_order_of_fields_and_rows() -> None:
    """Fields are found by their names."""
    data = json.loads(DATA)
    data["providers"] = [dict(reversed(provider.items())) for provider in reversed(data["providers"])]
    shuffled = SOURCE.read(json.dumps(data).encode("utf-16"), seen_at_s=0)
    found = {(claim.provider, claim.model, claim.field, claim.value) for claim in SOURCE.read(DATA, seen_at_s=0)}
    assert {(claim.provider, claim.model, claim.field, claim.value) for claim in shuffled} == found


@pytest.mark.parametrize(
    "raw", [DATA[:2000], b'{"models": []}', b'{"providers": []}', LIST[: LIST.index(b"- [Cohere")]]
)
def test_pages_that_are_cut_off_or_redesigned(raw: bytes) -> None:
    """Without providers there are no claims."""
    with pytest.raises(NotUnderstood):
        SOURCE.read(raw, seen_at_s=0)
