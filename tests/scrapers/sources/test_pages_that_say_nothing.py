"""Pages without limits, of any provider or of nobody, make no claim in any source that reads documentation.

NVIDIA and Together publish no limits at all, so that there is no source for them; what is told of theirs elsewhere is
folklore, or rates per second in the heads of replies.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from scrapers.base import NotUnderstood, Source
from scrapers.pages import TooLarge
from scrapers.sources import (
    cloudflare,
    fireworks,
    github_models,
    google,
    huggingface,
    mistral,
    openrouter_limits,
)

SOURCES = [
    *google.SOURCES,
    cloudflare.SOURCE,
    fireworks.SOURCE,
    github_models.SOURCE,
    huggingface.SOURCE,
    mistral.SOURCE,
    openrouter_limits.SOURCE,
]
PAGES: dict[str, bytes] = {
    "folklore": b"# Limits\n\nThe provider has confirmed:\n\n- Rate Limit: 40 requests per minute (40 RPM).\n\n"
    b"| Model | Limit |\n|---|---|\n| all models | 40 RPM |\n",
    "dynamic": b"# Serverless rate limits\n\nLimits are set per organization and per model, and they adjust.\n\n"
    b"* **Requests above your dynamic rate** return `429 Too Many Requests`.\n",
    "heads of replies": b"| Field | Description |\n|---|---|\n| x-ratelimit-limit | The maximum of requests per sec |\n"
    b"| x-tokenlimit-limit | The maximum number of tokens per sec |\n",
    "empty": b"",
    "blank": b" \n\t\n",
    "no table": b"# Rate limits\n\nPlease sign in.\n",
    "zeros": b"\0" * 4096,
    "binary": bytes(range(256)) * 64,
    "sign in": b"<!doctype html><html><body><h1>Sign in</h1><form><input name=q></form></body></html>",
    "tables of heads only": b"| Model | Free Tier | Price in Tokens | Price in Neurons |\n|---|---|---|---|\n",
    "a script": b"<!doctype html><html><body><script>document.write('GitHub Models was retired on July 30, 2026. "
    b"Mistral rate limit tier: free tier, tokens per minute')</script></body></html>",
    "huge spans": b"<html><body><table><tr><th rowspan=999999999 colspan=999>Model</th><th colspan=999>Free Tier</th>"
    b"</tr><tr><td>a</td></tr></table></body></html>",
    "entities": b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><html><body><h3>Free Tier</h3><table><tr>'
    b"<th>Model</th><th>RPM</th></tr><tr><td>&b;</td><td>&b;</td></tr></table></body></html>",
    "utf-16": "# Rate limits\n\nNothing here.\n".encode("utf-16"),
    "half a character": b"\xff\xfe\x00",
    "deep": b"<html><body>" + b"<div>" * 4_000 + b"limits" + b"</div>" * 4_000 + b"</body></html>",
    "one long line": b"| " + b"a | " * 20_000 + b"\n|---|\n" + b"\xc3\xa9" * 200_000 + b"x",
}


@pytest.mark.parametrize("page", sorted(PAGES))
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_no_claim(source: Source, page: str) -> None:
    """The parser says that it does not understand, or that the page is too large, and raises nothing else."""
    with pytest.raises((NotUnderstood, TooLarge)):
        source.read(PAGES[page], seen_at_s=0)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_no_page_of_another(source: Source) -> None:
    """A parser reads its own pages alone, among those of all sources here."""
    folder = Path(__file__).parents[2] / "data/scrape"
    own = {"google_rate_limits": "google", "google_models": "google"}.get(source.name, source.name)
    for path in sorted(folder.glob("*/*.*")):
        if path.parent.name in {
            "cloudflare",
            "fireworks",
            "github_models",
            "google",
            "huggingface",
            "mistral",
            "openrouter_limits",
        } - {own}:
            with pytest.raises(NotUnderstood):
                source.read(path.read_bytes(), seen_at_s=0)


@pytest.mark.parametrize("name", ["nvidia", "together"])
def test_no_source(name: str) -> None:
    """A provider whose pages tell no limits has no source that could make some up."""
    assert importlib.util.find_spec(f"scrapers.sources.{name}") is None
