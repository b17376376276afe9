"""What providers' own answers have shown, as evidence: limits from headers and refusals, and costs of free models."""

from __future__ import annotations

from collections.abc import Iterator

from llmproxy.core.types import Model
from llmproxy.routing.book import Book, Known
from llmproxy.routing.limits import SECONDS
from scrapers.base import LIMIT_FIELDS, Evidence, observed, seen_in_answers

_SOURCE = seen_in_answers("answers")
# A model that has cost something is not taken for free for so long.
_PAID_FOR_S = 30 * 86_400.0
_TOLD = frozenset({"header", "error body", "quota endpoint"})


def observed_limits(book: Book, now: float) -> list[Evidence]:
    """The limits of single models that providers have told, each as old as the last answer that told it."""
    return [claim for known in book.meters() if known.rung in _TOLD for claim in _claims(known, now)]


def cost_seen(model: Model, cost_usd: float, now: float) -> Evidence:
    """An answer of a model that was believed to be free was charged for."""
    note = f"an answer cost {cost_usd:.2g} USD"
    claim = Evidence(model.source, model.id, "free", "none", note=note, until_s=now + _PAID_FOR_S)
    return observed(_SOURCE, [claim], now)[0]


def _claims(known: Known, now: float) -> Iterator[Evidence]:
    scope = known.key.rpartition(" | ")[0]
    provider, _, model_id = scope.partition("/")
    if "#" in provider or not model_id:
        return  # what several models share is told by its pages, with the name of what shares it
    limit = known.limit
    period = next((name for name, seconds in SECONDS.items() if seconds == limit.seconds), None)
    field = f"{limit.unit}_per_{period}" if limit.kind != "concurrent" else "concurrency"
    if field in LIMIT_FIELDS:
        # A second key of a provider stands behind a `#` in the name of the candidate.
        claim = Evidence(provider, model_id.partition("#")[0], f"limit.{field}", limit.amount)
        yield from observed(_SOURCE, [claim], min(known.at, now))
