"""OpenRouter's list of models: https://openrouter.ai/docs/guides/overview/models, public.

Free is what the id says (`:free`), and the router over those models. Other models at a price of zero are routers,
trials without a name, or make music: that price alone says nothing. A price of -1 depends on the model that is chosen.
"""

from __future__ import annotations

from scrapers.base import Evidence, Rank, Source
from scrapers.sources.provider_lists import claims, free_by_suffix, understood

_ROUTERS = frozenset({"openrouter/free"})


def parse(raw: bytes) -> list[Evidence]:
    """Evidence from the reply, with `{"data": […]}` or `{"models": […]}` around the list, or without."""
    return claims("openrouter", understood(raw), lambda listed: free_by_suffix(listed, ":free", _ROUTERS))


SOURCE = Source(
    name="openrouter",
    url="https://openrouter.ai/api/v1/models",
    rank=Rank.API,
    confidence=0.95,
    parse=parse,
    provider="openrouter",
    complete=True,
    accept="application/json",
)
