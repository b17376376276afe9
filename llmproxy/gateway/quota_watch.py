"""Asks the providers that have an endpoint for it what is left of their limits, now and then, in the background."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from llmproxy.core.errors import LlmproxyError
from llmproxy.core.tasks import Background
from llmproxy.core.types import Candidate, Reading
from llmproxy.gateway.ledger import Ledger
from llmproxy.routing.catalog import Catalog

_log = logging.getLogger(__name__)

_EVERY_S = 600.0
# Before the list of models is there, nobody knows whose limit it is.
_SOON_S = 5.0
_PATIENCE_S = 20.0


class TellsQuota(Protocol):
    """A source with such an endpoint."""

    @property
    def name(self) -> str: ...

    @property
    def tells_quota(self) -> bool: ...

    async def quota(self, credential: int) -> Sequence[Reading]: ...


class QuotaWatch:
    """What it hears is taken over by the ledger, on the rung `quota endpoint`."""

    def __init__(self, ledger: Ledger, catalog: Callable[[], Catalog]) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._background = Background()

    async def start(self, sources: Iterable[TellsQuota]) -> None:
        """Watch these, and no others any more; returns at once."""
        await self._background.aclose()
        for source in sources:
            if source.tells_quota:
                self._background.start(self._watch(source), f"quota of {source.name}")

    async def aclose(self) -> None:
        await self._background.aclose()

    async def look(self, source: TellsQuota) -> bool:
        """Ask once for each key; False when there is no free model yet whose limits these would be."""
        catalog = self._catalog()
        model = next((one for one in catalog.models if one.source == source.name and one.free), None)
        if model is None:
            return False
        for candidate in catalog.credentials_of(model):
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    readings = await source.quota(candidate.credential)
            except (LlmproxyError, TimeoutError) as error:
                _log.info("the quota of %s is not known: %s", source.name, error)
                continue
            self._take_over(candidate, readings)
        return True

    def _take_over(self, candidate: Candidate, readings: Iterable[Reading]) -> None:
        now = self._ledger.now()
        for reading in readings:
            self._ledger.book.learn(candidate, reading, "quota endpoint", now)

    async def _watch(self, source: TellsQuota) -> None:
        while True:
            known = await self.look(source)
            await asyncio.sleep((_EVERY_S if known else _SOON_S) * random.uniform(0.8, 1.2))
