"""Sends the scrapers' tiny real requests through the same loop as any call, within the same limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import aiohttp

from llmproxy.core.errors import LlmproxyError, Refused
from llmproxy.core.types import JsonObject, Model
from llmproxy.dialects.openai import parse_chat
from llmproxy.gateway.dispatch import Dispatcher
from llmproxy.gateway.exchange import Head
from llmproxy.gateway.relay import read_usage
from scrapers.base import Evidence
from scrapers.probe import Answer, Ask, Probeable, due, probe, stamp
from scrapers.store import EvidenceStore

# A model is asked again after a week.
_EVERY_S = 7 * 86_400.0
_PROBED = "probed at"


async def probe_free(
    ask: Ask,
    models: Sequence[Model],
    store: EvidenceStore,
    most: int,
    *,
    now: Callable[[], float] = time.time,
) -> list[Evidence]:
    """Ask up to `most` of the free chat models among `models` that providers have, and tell what they show."""
    free = [Probeable(one.source, one.id) for one in models if one.free and one.chat and one.exposed and not one.local]
    probed_at: dict[str, float] = store.note(_PROBED) or {}
    evidence: list[Evidence] = []
    for model in due(free, probed_at, now(), per_run=most, every_s=_EVERY_S):
        claims = await probe(ask, model)
        at_s = now()
        evidence += stamp(claims, seen_at_s=at_s)
        probed_at[model.name] = at_s
        store.keep_note(_PROBED, probed_at)
    return evidence


class Asking:
    """Implements `scrapers.probe.Ask`: one candidate, without fallbacks, bounded by its limits."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, model: str, body: JsonObject) -> Answer:
        """What `model` answers; raises `LlmproxyError` where it was not asked or did not answer."""
        call = parse_chat({"model": model, **body}, "probe")
        try:
            answer = await self._dispatcher.answer(call, _Nobody())
        except LlmproxyError as error:
            if (refused := _refusal(error)) is None:
                raise
            return refused
        assert answer.reply is not None
        return Answer(200, answer.reply.body, answer.usage.cost_usd)


class AskingServer:
    """Implements `scrapers.probe.Ask` through a server that runs: it alone knows what is left of the limits."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def __call__(self, model: str, body: JsonObject) -> Answer:
        """What `model` answers; raises `LlmproxyError` where the server cannot be asked."""
        try:
            async with self._session.post(
                f"{self._url}/v1/chat/completions", json={"model": model, **body}
            ) as response:
                said = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise LlmproxyError(f"the server at {self._url} did not answer: {error}") from error
        usage = read_usage(said.get("usage") if isinstance(said, dict) else None)
        return Answer(response.status, said, usage.cost_usd)


class _Nobody:
    """Implements `gateway.exchange.Client` for a call that is not streamed."""

    async def open(self, head: Head) -> None:
        raise AssertionError("a probe is not streamed")

    async def write(self, data: bytes) -> None:
        raise AssertionError("a probe is not streamed")

    async def finish(self, data: bytes) -> None:
        raise AssertionError("a probe is not streamed")


def _refusal(error: LlmproxyError) -> Answer | None:
    """What the provider refused with; None where it was not the provider."""
    said = error if isinstance(error, Refused) else error.__cause__
    if not isinstance(said, Refused):
        return None
    body = {"error": {"message": said.message, "code": said.upstream_code, "param": said.param, "type": None}}
    return Answer(said.http_status or 0, body, retired=said.kind == "not_found" and said.http_status != 404)
