"""Builds everything; the only place that knows concrete classes. Read `build_app` from top to bottom."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import random
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from backends import catalogue, environment
from backends.images import ImagePolicy
from backends.local import LocalSource, Setting, describe
from backends.netguard import Reach
from backends.residents import Limits
from backends.weights import Weights, WeightsMissing, resolve
from llmproxy.access import check_access
from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.contract import Source
from llmproxy.core.env import cache_folder
from llmproxy.core.errors import ConfigError
from llmproxy.core.names import spellings, split_model
from llmproxy.core.tasks import Background
from llmproxy.core.types import Model
from llmproxy.gateway.attempt import Waits
from llmproxy.gateway.dispatch import Dispatcher, Settings
from llmproxy.gateway.inventory import Inventory, ListCache
from llmproxy.gateway.keeper import Keeper
from llmproxy.gateway.ledger import Ledger
from llmproxy.gateway.metrics import Metrics
from llmproxy.gateway.quota_watch import QuotaWatch
from llmproxy.gateway.state import SqliteState
from llmproxy.logs import RequestLog
from llmproxy.observing import cost_seen, observed_limits
from llmproxy.refresh import known_findings, open_store
from llmproxy.refresher import Refresher
from llmproxy.routing.book import Book
from llmproxy.routing.catalog import Offer
from llmproxy.routing.declared import Rule
from llmproxy.routing.findings import Findings
from llmproxy.routing.limits import SECONDS
from llmproxy.web.routes import build_web
from llmproxy.web.state import Services
from providers import catalog as provider_catalog
from providers.http import new_session
from providers.listing import filtered
from providers.sources import source_of

if TYPE_CHECKING:
    from llmproxy.gateway.shared import Shared
    from scrapers.base import Evidence
    from scrapers.board import Board
    from scrapers.store import EvidenceStore

_log = logging.getLogger(__name__)

_WATCH_S = 1.0


@dataclass(slots=True)
class Parts:
    """What a configuration asks for: sources that can be called, what routing knows of them, and what is missing."""

    offers: list[Offer] = field(default_factory=list)
    providers: dict[str, provider_catalog.Settings] = field(default_factory=dict)
    weights: list[Weights] = field(default_factory=list)
    warm: frozenset[str] = frozenset()  # of them, those that are loaded at the start
    cache_keys: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def read_parts(config: Config, *, folder: Path | None = None, local: bool = True) -> Parts:
    """Look up every source of `config`, without calling any."""
    parts = Parts()
    written = config.providers
    from_environment = {
        name: None
        for name, entry in provider_catalog.catalog().items()
        if not written and entry.key_variable and not entry.retired and not entry.is_twin
    }
    for name in (*written, *from_environment):
        try:
            settings = provider_catalog.resolve(name, written.get(name))
        except provider_catalog.NotUsable as reason:
            parts.missing[name] = str(reason)
            parts.offers.append(Offer(name, missing=str(reason)))
            continue
        parts.providers[name] = settings
        parts.cache_keys[name] = " ".join((name, settings.models_url, *(settings.model_filter or ())))
        parts.offers.append(
            Offer(
                name,
                filtered((), name, settings.model_filter, settings.known_models),
                credentials=len(settings.keys),
                open=settings.model_filter is None,
                exposed=settings.exposed,
                facts=settings.facts,
            )
        )
    if config.local.engine != "process":
        raise ConfigError(f"local.engine: {config.local.engine!r} is not available in this version; use 'process'")
    if config.state.shared and importlib.util.find_spec("redis") is None:
        raise ConfigError("state.url: Redis needs the redis extra: pip install 'llmproxy[redis]'")
    if local and config.local.models and not _can_run_models():
        parts.missing["local"] = "install the local extra: pip install 'llmproxy[local]'"
        local = False
    if local:
        _read_local(config, folder or configuration.default_path().parent, parts)
    _check_aliases(config, parts)
    return parts


def _read_local(config: Config, folder: Path, parts: Parts) -> None:
    """The models that are to be loaded at the start, and those of the catalogue whose files are here, to be loaded when
    somebody names them."""
    known = catalogue.load(folder, config.local.catalog)
    for entry in config.local.models:
        try:
            parts.weights.append(resolve(entry, known))
        except WeightsMissing as reason:
            parts.missing[f"local/{entry}"] = str(reason)
    names = [weights.name for weights in parts.weights]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"local.models: two models are called {', '.join(sorted(repeated))}")
    parts.warm = frozenset(names)
    ids = {weights.entry.name for weights in parts.weights}
    for listed in known.entries if _can_run_models() else ():
        if listed.name not in ids:
            with contextlib.suppress(WeightsMissing):
                parts.weights.append(resolve(listed.name, known))
    if parts.weights:
        models = tuple(describe(weights, exposed=weights.name in parts.warm) for weights in parts.weights)
        parts.offers.append(Offer("local", models))


def _check_aliases(config: Config, parts: Parts) -> None:
    """An alias of a local model that is not there would be noticed by its first client only."""
    names = [name for weights in parts.weights for name in (weights.name, *weights.aliases)]
    known = {spelling for name in names for spelling in spellings("local", name)}
    for alias, target in config.aliases.items():
        if split_model(target, {"local"}) is not None and target not in known:
            parts.missing[f"alias {alias}"] = f"there is no {target}; run: llmproxy models"


def _can_run_models() -> bool:
    """Whether torch and transformers are installed; looks, and imports neither."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers"))


def read_settings(config: Config) -> Settings:
    """What the loop needs of `config`."""
    server, routing = config.server, config.routing
    waits = Waits(
        request_s=server.request_timeout,
        first_token_s=server.first_token_timeout,
        stall_s=server.stall_timeout,
        deadline_s=server.deadline,
        slowest_tokens_s=server.min_tokens_per_second,
        life_sign_s=server.keep_alive,
        hedge_s=routing.hedge_after,
    )
    return Settings(waits, routing.max_attempts, routing.fallbacks, routing.content_filter_fallback, routing.sticky)


class Runtime:
    """The parts that live as long as the server, and the configuration that can be replaced under them."""

    def __init__(self, config: Config, *, path: Path | None = None, local: bool = True, workers: int = 1) -> None:
        older = environment.read(os.environ)
        for warning in older.warnings:
            _log.warning(warning)
        config = config.filled(older.values)
        self.config = config
        self._settings = read_settings(config)
        self.path = path
        self._with_local = local
        self._workers = workers
        self.parts = read_parts(config, folder=path and path.parent, local=local)
        self.metrics = Metrics()
        self.inventory = Inventory(ListCache(cache_folder() / "models.json"))
        if config.state.url != "memory":
            self.inventory.findings = known_findings(path)
        self.inventory.configure(_with_aliases(config, self.parts), self.parts.offers, self.parts.cache_keys)
        self.sources: dict[str, Source] = {}
        self.ledger = Ledger(Book(self._rule, provider_catalog.reserves_output, self._unmeasured))
        self.dispatcher = Dispatcher(
            self.sources, lambda: self.inventory.catalog, lambda: self._settings, self.metrics, self.ledger, random
        )
        self.log = RequestLog(enabled=config.server.log_level in ("DEBUG", "INFO"))
        self.services = Services(
            config=lambda: self.config,
            dispatcher=self.dispatcher,
            inventory=self.inventory,
            metrics=self.metrics,
            log_request=self.log,
            missing=lambda: self.parts.missing,
            local=lambda: self._local,
            scraped=lambda: self.refresher.status() if self.refresher is not None else {},
        )
        self.refresher: Refresher | None = None
        # Told with the reason when a local model that must be there cannot be loaded.
        self.on_broken: Callable[[str], None] = lambda reason: None
        self._quotas = QuotaWatch(self.ledger, lambda: self.inventory.catalog)
        self._background = Background()
        self._keeper: Keeper | Shared | None = None
        self._session: aiohttp.ClientSession | None = None
        self._local: LocalSource | None = None
        self.dispatcher.loading = lambda: self._local.loading if self._local is not None else ()
        self.dispatcher.on_cost = self._cost
        self.metrics.scraped = self.services.scraped
        self.metrics.local.status = lambda: self._local.status() if self._local is not None else ()

    async def start(self) -> None:
        """Open the session, begin to load local models and to fetch lists; waits for neither."""
        self._session = new_session(self.config.server.connect_timeout)
        self._keeper = self._new_keeper()
        if self._keeper is not None:
            await self._keeper.start()
        await self._adopt(self.parts)
        if self.config.local.warm_up == "strict":
            self._background.start(self._watch_start(), "strict start")
        self.refresher = self._new_refresher()
        await self.refresher.start()
        if self.path is not None:
            self._background.start(self._watch(self.path), "config watcher")

    async def aclose(self) -> None:
        """End background work, worker processes and connections."""
        await self._background.aclose()
        if self.refresher is not None:
            await self.refresher.aclose()
        await self._quotas.aclose()
        if self._keeper is not None:
            await self._keeper.aclose()
        await self.inventory.aclose()
        for source in list(self.sources.values()):
            await source.aclose()
        if self._session is not None:
            await self._session.close()
        self.log.flush()

    async def reload(self, config: Config) -> None:
        """Replace the configuration; calls in flight end on the sources they began with. Raises `ConfigError`."""
        config = config.filled(environment.read(os.environ).values)
        if self.config.local.warm_up == "strict":  # as the server was started, whatever the file says by now
            config = config.with_strict_start()
        parts = read_parts(config, folder=self.path and self.path.parent, local=self._with_local)
        config = config.with_server(config.server.model_copy(update={"host": self.config.server.host}))
        self.inventory.configure(_with_aliases(config, parts), parts.offers, parts.cache_keys)
        before = self.config
        self.config, self._settings = config, read_settings(config)
        rescheduled = config.scrape != before.scrape
        await self._adopt(parts)
        self.ledger.book.reconfigure(self._rule)
        if self.refresher is not None and rescheduled:
            self.refresher.reschedule()

    def take_over(self, findings: Findings) -> None:
        """What scrapers found, from the next call on; calls in flight end on the snapshot that they began with."""
        self.inventory.adopt(findings)
        self.ledger.book.reconfigure(self._rule)

    def _new_refresher(self) -> Refresher:
        """Who keeps the findings fresh, with the other replicas where there are some."""
        state = self.config.state
        board: Board | None = None
        if state.shared:
            from scrapers.board import Board as SharedBoard

            board = SharedBoard(state.address())
        store = open_store(self.path, memory=state.url == "memory")
        return Refresher(
            lambda: self.config,
            lambda: self.parts.providers,
            self._listed_ids,
            self.take_over,
            store,
            known=self.inventory.findings,
            board=board,
            probes=self.probe,
            observed=lambda: observed_limits(self.ledger.book, self.ledger.now()),
        )

    def _cost(self, model: Model, cost_usd: float) -> None:
        if self.refresher is not None:
            self.refresher.note(cost_seen(model, cost_usd, time.time()))

    @contextlib.asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """What was counted before, and what is counted meanwhile; only where no server does that."""
        self._keeper = self._new_keeper()
        if self._keeper is not None:
            await self._keeper.start()
        try:
            yield
        finally:
            if self._keeper is not None:
                await self._keeper.aclose()

    async def probe(self, store: EvidenceStore, most: int) -> Sequence[Evidence]:
        """What tiny real requests to so many free models show."""
        if not most:
            return ()
        from llmproxy.probing import Asking, probe_free

        return await probe_free(Asking(self.dispatcher), self.inventory.catalog.models, store, most)

    @contextlib.asynccontextmanager
    async def listed(self) -> AsyncIterator[None]:
        """Providers that can be called, with their lists, for a command that serves nobody."""
        async with new_session(self.config.server.connect_timeout) as session:
            for name, settings in self.parts.providers.items():
                self.sources[name] = source_of(settings, session)
            try:
                await asyncio.gather(*(self.inventory.refresh(source) for source in self.sources.values()))
                yield
            finally:
                self.sources.clear()

    def _listed_ids(self) -> Mapping[str, list[str]]:
        """By provider, the ids that its own list has now."""
        offers = self.inventory.catalog.offers.values()
        return {offer.source: [model.id for model in offer.models] for offer in offers}

    def _new_keeper(self) -> Keeper | Shared | None:
        """Who keeps what is counted: a file beside the configuration, a Redis of several processes, or nobody."""
        state, health = self.config.state, self.dispatcher.health
        if state.shared:
            from llmproxy.gateway.shared import Shared

            return Shared(state.address(), self.ledger, health, replicas=self._workers)
        if state.url == "memory":
            return None
        folder = (self.path or configuration.default_path()).parent
        return Keeper(SqliteState(folder / "state.sqlite3"), self.ledger.book, health)

    def _rule(self, model: Model) -> Rule | None:
        """The free limits that are written down for a model."""
        return provider_catalog.rule_of(model, self.config.free_limits, self.inventory.findings)

    def _unmeasured(self, model: Model) -> bool:
        return provider_catalog.is_unmeasured(model, self.config.free_limits, self.inventory.findings)

    async def _adopt(self, parts: Parts) -> None:
        assert self._session is not None
        before, self.parts = self.parts, parts
        providers = {name: source_of(settings, self._session) for name, settings in parts.providers.items()}
        after: dict[str, Source] = dict(providers)
        if parts.weights:
            setting = _setting(self.config, parts.warm, self.metrics)
            if self._local is None or parts.weights != before.weights or setting != self._local.setting:
                await self._replace_local(LocalSource(parts.weights, setting))
            assert self._local is not None
            after["local"] = self._local
        elif self._local is not None:
            await self._replace_local(None)
        self.sources.clear()
        self.sources.update(after)
        self.ledger.windows = {name: _header_windows(settings) for name, settings in parts.providers.items()}
        await self.inventory.start(providers)
        await self._quotas.start(providers.values())

    async def _watch_start(self) -> None:
        """With a strict start, what keeps one model from loading keeps the server from serving."""
        while True:
            local = self._local
            problems: Mapping[str, str] = {
                name: why for name, why in self.parts.missing.items() if name.partition("/")[0] == "local"
            }
            if not problems and local is not None:
                problems = await local.warmed()
            if local is self._local:  # else the configuration was replaced meanwhile
                break
        if problems:
            self.on_broken("; ".join(f"{name}: {why}" for name, why in problems.items()))

    async def _replace_local(self, new: LocalSource | None) -> None:
        old, self._local = self._local, new
        if old is not None:
            await old.aclose()  # first: the new ones want its memory
        if new is not None:
            new.start()

    async def _watch(self, path: Path) -> None:
        """Reload when the file changes; a broken file changes nothing but the log."""
        seen = _stamp(path)
        while True:
            await asyncio.sleep(_WATCH_S)
            stamp = _stamp(path)
            if stamp is None or stamp == seen:
                continue
            seen = stamp
            try:
                changed = configuration.load(path)
                # The address stays that of the start, whatever the file says by now; its keys do not.
                check_access(changed.with_server(changed.server.model_copy(update={"host": self.config.server.host})))
                await self.reload(changed)
                _log.info("the configuration %s was loaded again", path)
            except ConfigError as error:
                _log.error("the configuration was not changed: %s", error.message)


def build_app(config: Config, *, path: Path | None = None, local: bool = True, workers: int = 1) -> web.Application:
    """The application for `config`, one of so many `workers`; `path` is watched for changes. Raises `ConfigError`."""
    runtime = Runtime(config, path=path, local=local, workers=workers)
    app = build_web(runtime.services)
    app[RUNTIME] = runtime

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        await runtime.start()
        yield
        await runtime.aclose()

    app.cleanup_ctx.append(lifetime)
    return app


RUNTIME = web.AppKey("runtime", Runtime)


def _header_windows(settings: provider_catalog.Settings) -> Mapping[str, float] | None:
    """The windows of a provider's rate-limit headers that do not name them; None when its headers are noise."""
    named = settings.quirks.get("rate_headers", {})
    return None if named == "noise" else {unit: SECONDS[period] for unit, period in named.items()}


def _setting(config: Config, warm: frozenset[str], metrics: Metrics) -> Setting:
    """What the local models have in common."""
    local = config.local
    reach = Reach(hosts=local.image_hosts, timeout_s=local.image_timeout)
    return Setting(
        device=local.device,
        limits=Limits(local.memory_limit_mb, local.idle_unload, local.load_timeout),
        warm=warm if local.warm_up != "off" else frozenset(),
        images=ImagePolicy(reach, max_bytes=int(local.image_limit_mb * (1 << 20))),
        audio_limit_bytes=int(local.audio_limit_mb * (1 << 20)),
        engine={"rows": local.max_concurrent, "waiting": local.max_waiting, "window_s": local.batch_window_ms / 1000},
        most_calls=local.max_concurrent + local.max_waiting,
        trusted=frozenset(local.trust_remote_code),
        on_figures=metrics.local.told,
        on_image_rejected=metrics.local.image_rejected,
        strict=local.warm_up == "strict",
    )


def _with_aliases(config: Config, parts: Parts) -> Config:
    """The names that the catalogue gives local models are aliases; those of the configuration count for more."""
    names = {
        alias: f"local/{weights.name}" for weights in parts.weights for alias in (weights.name, *weights.entry.aliases)
    }
    return config.model_copy(update={"aliases": {**names, **config.aliases}})


def _stamp(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size
    return None
