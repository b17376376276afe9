"""Cloudflare: the daily neurons of an account, and the models with their prices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scrapers.base import Evidence, NotUnderstood
from scrapers.sources.cloudflare import SOURCE
from tests.scrapers.sources.damage import of_cut_pages

RAW = (Path(__file__).parents[2] / "data/scrape/cloudflare/pricing.md").read_bytes()
WHOLE: dict[tuple[str, str], Any] = {
    ("*", "free"): "budget",
    ("*", "limit.neurons_per_day"): 11_000,
    ("*", "limit.reset"): "UTC",
    ("@cf/meta/llama-9.2-1b", "exists"): True,
    ("@cf/meta/llama-9.2-1b", "price.prompt"): 0.027,
    ("@cf/meta/llama-9.2-1b", "price.completion"): 0.201,
    ("@cf/moonshotai/kimi-k9", "exists"): True,
    ("@cf/moonshotai/kimi-k9", "price.prompt"): 0.95,
    ("@cf/moonshotai/kimi-k9", "price.completion"): 4.0,
    ("@cf/meta/llama-guard-9-8b", "exists"): True,
    ("@cf/meta/llama-guard-9-8b", "chat"): False,
    ("@cf/meta/llama-guard-9-8b", "price.prompt"): 0.484,
    ("@cf/meta/llama-guard-9-8b", "price.completion"): 0.03,
    ("@cf/baai/bge-m9", "exists"): True,
    ("@cf/baai/bge-m9", "chat"): False,
    ("@cf/baai/bge-m9", "capability.embeddings"): True,
    ("@cf/baai/bge-m9", "price.prompt"): 0.012,
    ("@cf/black-forest/flux-9", "exists"): True,
    ("@cf/black-forest/flux-9", "chat"): False,
    ("@cf/openai/whisper", "exists"): True,
    ("@cf/openai/whisper", "chat"): False,
}


def told(raw: bytes) -> dict[tuple[str, str], Any]:
    claims: list[Evidence] = SOURCE.read(raw, seen_at_s=0)
    assert {claim.provider for claim in claims} == {"cloudflare-workers"}
    assert all(claim.shared == (claim.model == "*" and claim.field != "free") for claim in claims)
    return {(claim.model, claim.field): claim.value for claim in claims}


def test_the_page() -> None:
    """The free plan's neurons are shared by all models; what is not a language model does not chat."""
    assert told(RAW) == WHOLE


def test_another_order_of_columns() -> None:
    """Columns are found by their heads, in HTML too."""
    raw = (
        b"<!doctype html><html><body><table><tr><th></th><th>Pricing</th><th>Free<br>allocation</th></tr>"
        b"<tr><td>Workers Free</td><td>9 Neurons per day</td><td>11,000 Neurons per day</td></tr></table>"
        b"<h2>LLM model pricing</h2>"
        b"<table><thead><tr><th>Model</th><th>Price in Neurons</th><th>Price in Tokens</th></tr></thead><tbody><tr>"
        b"<td><code>@cf/a/b-1</code></td><td>$7 per M input tokens</td><td>$0.027 per M input tokens</td></tr></tbody>"
        b"</table></body></html>"
    )
    assert told(raw) == {
        ("*", "free"): "budget",
        ("*", "limit.neurons_per_day"): 11_000,
        ("@cf/a/b-1", "exists"): True,
        ("@cf/a/b-1", "price.prompt"): 0.027,
    }


def test_a_truncated_page() -> None:
    """Cut anywhere, the page gives a part of its facts; a last id or number may be cut as well."""
    for part in of_cut_pages(told, RAW, 61):
        new = {model for model, _ in part} - {model for model, _ in WHOLE}
        assert len(new) <= 1
        assert sum(WHOLE.get(key, value) != value for key, value in part.items()) <= 1


def test_what_is_no_id_is_no_model() -> None:
    """A row of a table of prices without an id of Cloudflare's form is left out."""
    with pytest.raises(NotUnderstood):
        told(
            b"## LLM model pricing\n\n| Model | Price in Tokens | Price in Neurons |\n|---|---|---|\n"
            b"| Llama | $1 per M input tokens | 1 |\n| @cf/../../etc | $1 per M input tokens | 1 |\n"
        )
