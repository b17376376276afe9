"""What a provider's quota endpoint tells is what the ledger counts by, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from llmproxy.app import RUNTIME, Runtime, build_app
from llmproxy.core.config import Config
from llmproxy.core.types import Candidate, Model, Reading
from llmproxy.dialects.ratelimits import read_quota
from tests.fakes.upstream import eventually

KEY = {
    "data": {
        "label": "sk-or-v1-abc...123",
        "limit": None,
        "limit_remaining": None,
        "usage": 0.0,
        "is_free_tier": False,
        "rate_limit": {"requests": -1, "interval": "10s"},
        "free_model_daily_requests": {"used": 988, "limit": 1000, "remaining": 12},
    }
}


@asynccontextmanager
async def provider(answers: dict[str, Any]) -> AsyncIterator[tuple[str, list[str]]]:
    """A provider's `/v1/key` and list of models; its address, and the keys it was asked with."""
    asked: list[str] = []

    async def key(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response(answers["body"], status=answers.get("status", 200))

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "acme/small:free"}, {"id": "acme/large"}]})

    app = web.Application()
    app.add_routes([web.get("/v1/key", key), web.get("/v1/models", models)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(base_url: str, monkeypatch: pytest.MonkeyPatch, cache: str) -> AsyncIterator[Runtime]:
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setattr("llmproxy.gateway.quota_watch._SOON_S", 0.05)
    config = {
        "providers": {"openrouter": {"base_url": base_url, "api_keys": ["one", "two"]}},
        "local": {"models": []},
        "state": {"url": "memory"},
    }
    runner = web.AppRunner(build_app(Config.model_validate(config), local=False))
    await runner.setup()
    try:
        yield runner.app[RUNTIME]
    finally:
        await runner.cleanup()


def of_the_day(runtime: Runtime, credential: int) -> dict[str, Any]:
    ledger = runtime.ledger
    told = ledger.book.told(Candidate(Model("openrouter", "acme/small:free"), credential), ledger.now())
    return next(line for line in told if "per day" in line["limit"])


async def test_it_is_asked_at_the_start_for_each_key(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """The account is allowed 1,000 a day, not the 50 of the catalogue, and has used up nearly all."""
    async with (
        provider({"body": KEY}) as (url, asked),
        running(url, monkeypatch, str(tmp_path)) as runtime,
    ):
        assert await eventually(lambda: of_the_day(runtime, 1)["from"] == "quota endpoint", 3.0)
        for credential in (0, 1):
            line = of_the_day(runtime, credential)
            assert (line["amount"], line["left"], line["declared"]) == (1000, 12, 50)
        assert asked == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    "answers", [{"body": {"error": "no"}, "status": 401}, {"body": {"data": {"limit": None}}}, {"body": []}]
)
async def test_without_an_answer_the_declared_limit_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object, answers: dict[str, Any]
) -> None:
    """An older account, a key that is refused, an answer of another shape."""
    async with provider(answers) as (url, asked), running(url, monkeypatch, str(tmp_path)) as runtime:
        assert await eventually(lambda: len(asked) == 2, 3.0)
        assert of_the_day(runtime, 0)["amount"] == 50


@pytest.mark.parametrize(
    ("daily", "readings"),
    [
        ({"used": 3, "limit": 50, "remaining": 47}, (Reading("requests", 86_400.0, 50, 47),)),
        ({"used": 51, "limit": 50, "remaining": -1}, (Reading("requests", 86_400.0, 50, 0),)),
        ({"used": 3, "limit": -1, "remaining": -1}, ()),
        ({"used": 3}, ()),
        (None, ()),
    ],
)
def test_the_answer_is_read(daily: Any, readings: tuple[Reading, ...]) -> None:
    assert read_quota({"data": {"free_model_daily_requests": daily}}) == readings
