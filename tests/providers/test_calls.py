"""What is the same for every wire format: how a whole reply is read, and what is sent with it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llmproxy.core.config import Provider
from llmproxy.core.errors import AttemptError, BadReply, InvalidRequest, Refused
from llmproxy.core.types import Call, Candidate, Model, Reply
from providers.catalog import resolve
from providers.http import new_session
from providers.sources import source_of

PROTOCOLS = ("openai", "anthropic", "gemini")
ERROR = {"error": {"code": 429, "message": "too many requests", "type": "rate_limit_error"}}


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A server that says `text` to whatever is posted, and a session to ask it over."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with new_session(5.0) as session:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", session
    finally:
        await runner.cleanup()


async def asked(protocol: str, text: str, **body: Any) -> Reply:
    """What a provider of `protocol` makes of `text`."""
    call = Call("c", "chat", "m", {"messages": [{"role": "user", "content": "hello"}], **body})
    async with answering(text) as (url, session):
        written = Provider.model_validate({"base_url": url, "api_key": "k", "protocol": protocol})
        return await source_of(resolve("p", written), session).send(call, Candidate(Model("p", "m")))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("text", "error", "outcome"),
    [
        (json.dumps(ERROR), Refused, "error_in_200"),
        (json.dumps([ERROR]), Refused, "error_in_200"),
        ("<html>hello</html>", BadReply, "not_json"),
        ("", BadReply, "not_json"),
    ],
    ids=["error", "error in a list", "html", "nothing"],
)
async def test_a_200_that_is_no_answer(protocol: str, text: str, error: type[AttemptError], outcome: str) -> None:
    """An error under 200, also alone in a list, is the provider's refusal; what is not JSON is no answer."""
    with pytest.raises(AttemptError) as caught:
        await asked(protocol, text)
    assert (type(caught.value), caught.value.outcome) == (error, outcome)
    assert not isinstance(caught.value, Refused) or caught.value.kind == "rate_limit"


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
async def test_a_translation_needs_an_object(protocol: str) -> None:
    """JSON that is no object cannot be translated."""
    with pytest.raises(BadReply) as caught:
        await asked(protocol, "[1]")
    assert caught.value.outcome == "not_json"


async def test_what_cannot_be_written_is_the_clients_fault() -> None:
    """A body that JSON cannot hold is refused before anything is sent."""
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        await asked("openai", "{}", user=object())
