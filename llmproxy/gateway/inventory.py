"""Which models there are: lists fetched in the background, kept through failures and restarts, one snapshot at once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.contract import Source
from llmproxy.core.errors import LlmproxyError
from llmproxy.core.tasks import Background
from llmproxy.core.types import Model
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.findings import Findings

_log = logging.getLogger(__name__)

_REFRESH_S = 6 * 3600.0
_RETRY_S = (5.0, 30.0, 120.0, 600.0)
_PATIENCE_S = 20.0


class ListCache:
    """The last model lists on disk, so that a restart knows them at once; a file that cannot be used is left out."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lists: dict[str, list[dict[str, Any]]] = {}
        if path is not None and path.exists():
            try:
                read = orjson.loads(path.read_bytes())
                self._lists = {key: models for key, models in read.items() if isinstance(models, list)}
            except (OSError, ValueError, AttributeError) as error:
                _log.warning("the cache of model lists %s is not used: %s", path, error)

    def get(self, key: str) -> tuple[Model, ...]:
        try:
            return tuple(_model(fields) for fields in self._lists.get(key, ()))
        except (TypeError, KeyError, AttributeError) as error:
            _log.warning("the cached model list of %s is not used: %s", key, error)
            return ()

    def put(self, key: str, models: Sequence[Model]) -> None:
        self._lists[key] = [_fields(model) for model in models]
        if self._path is not None:
            try:
                configuration.save(self._path, self._lists)
            except OSError as error:
                _log.warning("the model lists cannot be kept in %s: %s", self._path, error)


class Inventory:
    """Holds the snapshot that routing uses. `start` asks every source for its list and keeps asking now and then."""

    def __init__(self, cache: ListCache | None = None) -> None:
        self._cache = cache or ListCache(None)
        self._config = Config()
        self._offers: dict[str, Offer] = {}
        self._keys: dict[str, str] = {}
        self._background = Background()
        self.findings = Findings()
        self.errors: dict[str, str] = {}
        self.catalog = Catalog((), self._config)

    def configure(self, config: Config, offers: Sequence[Offer], cache_keys: Mapping[str, str]) -> None:
        """Take over a configuration; lists that are known already (by cache key) stay. Raises `ConfigError`."""
        filled = []
        for offer in offers:
            known = self._offers.get(offer.source)
            key = cache_keys.get(offer.source, "")
            same = known is not None and key and self._keys.get(offer.source) == key
            models = (known.models if known is not None and same else ()) or (self._cache.get(key) if key else ())
            models = models or offer.models
            filled.append(dataclasses.replace(offer, models=models))
        catalog = Catalog(filled, config, self.findings)
        self._config, self._keys, self.catalog = config, dict(cache_keys), catalog
        self._offers = {offer.source: offer for offer in filled}

    def adopt(self, findings: Findings) -> None:
        """Take over what scrapers found: a new snapshot for the calls that begin from now on."""
        self.findings = findings
        self.catalog = Catalog(tuple(self._offers.values()), self._config, findings)

    async def start(self, sources: Mapping[str, Source]) -> None:
        """Begin to fetch the lists of `sources` (and stop fetching those of before); returns at once."""
        await self._background.aclose()
        self.errors = {name: text for name, text in self.errors.items() if name in sources}
        for name, source in sources.items():
            self._background.start(self._keep_fresh(source), f"models of {name}")

    async def aclose(self) -> None:
        await self._background.aclose()

    async def refresh(self, source: Source) -> bool:
        """Fetch one list now; a failed or empty one changes nothing."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                models = tuple(await source.models())
        except (LlmproxyError, TimeoutError) as error:
            self.errors[source.name] = str(error) or f"no answer within {_PATIENCE_S:g} s"
            _log.warning("the models of %s are not known: %s", source.name, self.errors[source.name])
            return False
        offer = self._offers.get(source.name)
        if not models or offer is None:
            self.errors[source.name] = "the list is empty"
            return False
        self.errors.pop(source.name, None)
        if offer.models != models:
            self._offers[source.name] = dataclasses.replace(offer, models=models)
            self.catalog = Catalog(tuple(self._offers.values()), self._config, self.findings)
            if key := self._keys.get(source.name):
                self._cache.put(key, models)
        return True

    async def _keep_fresh(self, source: Source) -> None:
        failures = 0
        while True:
            if await self.refresh(source):
                failures, wait_s = 0, _REFRESH_S
            else:
                wait_s = _RETRY_S[min(failures, len(_RETRY_S) - 1)]
                failures += 1
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))


def _fields(model: Model) -> dict[str, Any]:
    # Rates are known of the catalogue and the configuration, never of a list.
    told = [field.name for field in dataclasses.fields(model) if field.init and field.name != "rates"]
    fields = {name: getattr(model, name) for name in told}
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in fields.items()}


def _model(fields: dict[str, Any]) -> Model:
    values: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Model(**values)
