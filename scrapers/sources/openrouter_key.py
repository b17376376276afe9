"""How many requests to free models an OpenRouter account may make a day: https://openrouter.ai/docs/api-reference/limits.

The reply also says whether credits were ever bought (`is_free_tier`), but the daily number depends on how many, so that
a reply without the number (an older form) tells nothing. The day ends at midnight UTC.
"""

from __future__ import annotations

from llmproxy.core.errors import BadReply
from llmproxy.dialects.model_lists import loaded
from llmproxy.dialects.ratelimits import read_quota
from scrapers.base import Evidence, NotUnderstood, Rank, Source, limits

_MOST = 1e9


def parse(raw: bytes) -> list[Evidence]:
    """The daily limit that all free models share, for the key that asked; raises `NotUnderstood`."""
    try:
        readings = read_quota(loaded(raw))
    except BadReply as error:
        raise NotUnderstood("the reply on the key is not JSON") from error
    amount = next((reading.limit for reading in readings if reading.limit is not None), None)
    if amount is None or not 0 < amount < _MOST:
        raise NotUnderstood("the reply on the key has no free_model_daily_requests with a limit")
    return limits("openrouter", "*:free", {"requests_per_day": amount, "reset": "UTC"}, shared=True)


SOURCE = Source(
    name="openrouter_key",
    url="https://openrouter.ai/api/v1/key",
    rank=Rank.OBSERVED,
    confidence=0.98,
    parse=parse,
    provider="openrouter",
    accept="application/json",
)
