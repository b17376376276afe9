"""Asking one provider now: its list of models, and one tiny call to a model that is free where one is known to be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import aiohttp

from llmproxy.core.config import Config, Provider
from llmproxy.core.errors import LlmproxyError, Refused
from llmproxy.core.types import Call, Candidate, JsonObject, Model
from llmproxy.gateway.attempt import Waits, whole
from llmproxy.routing.capabilities import describe
from llmproxy.wizard import diagnose
from llmproxy.wizard.diagnose import Finding
from providers import catalog as provider_catalog
from providers.catalog import Settings
from providers.http import new_session
from providers.listing import filtered
from providers.sources import Provider as Source
from providers.sources import source_of

_LIST_S = 15.0
_CALL_S = 30.0
_TRIES = 3
_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What a provider did. Times in seconds; `listed` are all models of its list, `models` those that may be used.

    `answered` is the model that answered the call; `uncalled` says why there was none. `base_url` is the address
    under which the list was found where the written one had none.
    """

    provider: str
    url: str = ""
    keys: int = 0
    models: tuple[Model, ...] = ()
    listed: tuple[Model, ...] = ()
    list_s: float = 0.0
    answered: str = ""
    call_s: float = 0.0
    uncalled: str = ""
    finding: Finding | None = None
    refusal: str = ""  # the kind of a `Refused`, where there was one
    base_url: str = ""

    @property
    def ok(self) -> bool:
        return self.finding is None

    @property
    def key_works(self) -> bool:
        """Whether nothing speaks against the key: a limit that is used up for now does not."""
        return self.ok or self.refusal == "rate_limit"


def ask(providers: Mapping[str, Provider], config: Config, *, call: bool = True, paid: bool = False) -> list[Probe]:
    """Ask several providers at the same time, outside of any event loop."""
    return asyncio.run(ask_all(providers, config, call=call, paid=paid))


async def ask_all(
    providers: Mapping[str, Provider], config: Config, *, call: bool = True, paid: bool = False
) -> list[Probe]:
    """Ask several providers at the same time; with `paid`, where no model is known to be free another one is called."""
    async with new_session(config.server.connect_timeout) as session:
        return await asyncio.gather(
            *(_probe(name, written, config, session, call=call, paid=paid) for name, written in providers.items())
        )


async def of_settings(settings: Settings, config: Config, session: aiohttp.ClientSession, *, call: bool) -> Probe:
    """Ask one provider that is resolved already, paid models too."""
    return await _look(settings, config, session, call=call, paid=True)


async def _probe(
    name: str, written: Provider, config: Config, session: aiohttp.ClientSession, *, call: bool, paid: bool
) -> Probe:
    try:
        settings = provider_catalog.resolve(name, written)
    except provider_catalog.NotUsable as reason:
        return Probe(name, finding=diagnose.of_missing(name, str(reason)))
    found = await _look(settings, config, session, call=call, paid=paid)
    if found.listed or not _may_lack_v1(found, settings):
        return found
    better = await _look(_under_v1(settings), config, session, call=call, paid=paid)
    return replace(better, base_url=better.url) if better.listed else found


async def _look(settings: Settings, config: Config, session: aiohttp.ClientSession, *, call: bool, paid: bool) -> Probe:
    """The list, then the call."""
    seen = Probe(settings.name, settings.base_url, len(settings.keys))
    source = source_of(replace(settings, model_filter=None), session)
    started = time.perf_counter()
    try:
        async with asyncio.timeout(_LIST_S):
            listed = tuple(await source.models())
    except (LlmproxyError, TimeoutError) as error:
        return _failed(seen, error, settings)
    kept = filtered(listed, settings.name, settings.model_filter, settings.known_models)
    models = tuple(describe(model, config, settings.facts) for model in kept)
    seen = replace(seen, models=models, listed=listed, list_s=time.perf_counter() - started)
    if not listed:
        return replace(seen, finding=diagnose.of_empty_list(settings))
    if not call:
        return replace(seen, uncalled="it was not called")
    return await _call(seen, source, settings, paid=paid)


async def _call(seen: Probe, source: Source, settings: Settings, *, paid: bool) -> Probe:
    """One call of a few tokens; a model that fails proves little, so a few are tried, unless the key is refused."""
    chat = [model for model in seen.models if model.chat]
    if not chat:
        return replace(seen, uncalled="its list has no chat model")
    free = [model for model in chat if model.free]
    if not free and not paid:
        return replace(seen, uncalled="none of its models is known to be free, so no call was made")
    failure: LlmproxyError | None = None
    for model in (free or chat)[:_TRIES]:
        started = time.perf_counter()
        try:
            await whole(source, Candidate(model), _tiny_call(model), Waits(), _CALL_S)
        except LlmproxyError as error:
            failure = error
            if diagnose.stops_all(error):
                break
        else:
            seen = replace(seen, answered=model.name, call_s=time.perf_counter() - started)
            return await _other_keys(seen, source, model, settings)
    assert failure is not None
    return _failed(seen, failure, settings)


async def _other_keys(seen: Probe, source: Source, model: Model, settings: Settings) -> Probe:
    """The same call with each further key; the first one that is refused is told."""
    for credential in range(1, len(settings.keys)):
        try:
            await whole(source, Candidate(model, credential), _tiny_call(model), Waits(), _CALL_S)
        except LlmproxyError as error:
            return _failed(seen, error, settings, credential)
    return seen


def _tiny_call(model: Model) -> Call:
    body: JsonObject = {"messages": [{"role": "user", "content": "Say ok."}], "max_tokens": _TOKENS}
    return Call("setup", "chat", model.name, body)


def _failed(seen: Probe, error: Exception, settings: Settings, credential: int = 0) -> Probe:
    kind = error.kind if isinstance(error, Refused) else ""
    return replace(seen, finding=diagnose.of_error(error, settings, credential=credential), refusal=kind)


def _may_lack_v1(found: Probe, settings: Settings) -> bool:
    """Whether the address may be that of the server, and not that of its API."""
    if found.finding is None or settings.name in provider_catalog.catalog() or settings.base_url.endswith("/v1"):
        return False
    wrong_place = found.refusal in ("not_found", "conflict") or "no JSON" in found.finding.problem
    return wrong_place and settings.models_url == f"{settings.base_url}/models"


def _under_v1(settings: Settings) -> Settings:
    base_url = f"{settings.base_url}/v1"
    return replace(settings, base_url=base_url, models_url=f"{base_url}/models")


def summary(probe: Probe) -> str:
    """What worked, in a line."""
    free = sum(model.free for model in probe.models)
    told = f"{len(probe.models)} models in {probe.list_s:.1f} s"
    told += f", {free} of them free" if free and free != len(probe.models) else ", all free" if free else ""
    if probe.answered:
        return f"{told}; {probe.answered} answered in {probe.call_s:.1f} s"
    return f"{told}; {probe.uncalled}" if probe.uncalled else told


def names(models: Iterable[Model]) -> Sequence[str]:
    """The ids, free ones first, each group in the order of the list."""
    ordered = sorted(models, key=lambda model: not model.free)
    return [model.id for model in ordered]
