"""What providers' own answers show becomes evidence: told limits, and costs of what was believed to be free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llmproxy.app import RUNTIME, Runtime, build_app
from llmproxy.core import config as configuration
from llmproxy.core.types import Candidate, Model, Reading
from llmproxy.observing import cost_seen, observed_limits
from llmproxy.routing.book import Book
from scrapers.base import Rank
from tests.fakes.upstream import eventually

MODEL = Model("groq", "openai/gpt-oss-20b", free=True)


def told(book: Book) -> dict[tuple[str, str], Any]:
    return {(claim.model, claim.field): claim.value for claim in observed_limits(book, 100.0)}


def test_told_limits_are_evidence() -> None:
    """A limit from a header or a refusal is a claim of the highest class, as old as the answer that told it."""
    book = Book(lambda model: None)
    book.learn(Candidate(MODEL), Reading("requests", 86_400.0, 1000.0, 999.0, 5.0), "header", 50.0)
    book.learn(Candidate(MODEL, 1), Reading("tokens", 60.0, 8000.0), "error body", 60.0)
    assert told(book) == {
        ("openai/gpt-oss-20b", "limit.requests_per_day"): 1000.0,
        ("openai/gpt-oss-20b", "limit.tokens_per_minute"): 8000.0,
    }
    first = observed_limits(book, 100.0)[0]
    assert (first.rank, first.seen_at_s, first.source) == (Rank.OBSERVED, 50.0, "answers")


def test_windows_without_a_name_are_left_out() -> None:
    """A window of five hours has no field of its own, and is no evidence."""
    book = Book(lambda model: None)
    book.learn(Candidate(MODEL), Reading("requests", 18_000.0, 50.0), "header", 50.0)
    assert told(book) == {}


def test_a_cost_counts_for_a_month() -> None:
    """What was charged for is not free, until a month has passed."""
    claim = cost_seen(MODEL, 0.00012, 1000.0)
    assert (claim.field, claim.value, claim.until_s) == ("free", "none", 1000.0 + 30 * 86_400)
    assert claim.note == "an answer cost 0.00012 USD"


@asynccontextmanager
async def openrouter(cost: dict[str, float]) -> AsyncIterator[str]:
    """A provider that tells what an answer cost."""

    async def chat(request: web.Request) -> web.Response:
        asked = await request.json()
        message = {"role": "assistant", "content": "hello"}
        return web.json_response(
            {
                "id": "gen-1",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6, "cost": cost[asked["model"]]},
            }
        )

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in cost]})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", chat), web.get("/v1/models", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(url: str, home: Path) -> AsyncIterator[tuple[Runtime, str]]:
    config = configuration.parse(
        {
            "providers": {"openrouter": {"base_url": url, "api_key": "k"}},
            "local": {"models": []},
            "scrape": {"schedule": None},
        }
    )
    runner = web.AppRunner(build_app(config, path=home / "config.json", local=False))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.app[RUNTIME], f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_charged_model_leaves_the_free_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that cost something takes its model out of `llmproxy/free` at once; one that cost nothing does not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    async with (
        openrouter({"paid:free": 0.002, "really:free": 0.0}) as url,
        running(url, tmp_path) as (runtime, server),
        aiohttp.ClientSession() as session,
    ):
        assert await eventually(lambda: len(free(runtime)) == 2, 5.0)
        for name in ("openrouter/really:free", "openrouter/paid:free"):
            body = {"model": name, "messages": [{"role": "user", "content": "hello"}]}
            async with session.post(f"{server}/v1/chat/completions", json=body) as response:
                assert response.status == 200, await response.text()
        assert await eventually(lambda: free(runtime) == ["really:free"], 5.0)
        assert runtime.refresher is not None
        version = runtime.refresher.status()["version"]
        assert version == 1


def free(runtime: Runtime) -> list[str]:
    return sorted(one.model.id for one in runtime.inventory.catalog.select("llmproxy/free").candidates)
