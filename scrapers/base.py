"""What a source says: one dated claim about one model, with where it stands. A source that failed says nothing.

A source is a value of `Source` with a pure `parse(bytes) -> list[Evidence]`. It raises `NotUnderstood` when the bytes
are not what it knows how to read; whoever fetched them then has no evidence, which is not the same as evidence that
nothing is there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, NoReturn, get_args

from llmproxy.core.config import FreeLimit
from llmproxy.core.types import CAPABILITIES

# How much is believed of what providers' own answers show.
_SEEN_CONFIDENCE = 0.98
# The note of claims from a list of which not all could be read: what is missing from it has not left.
PARTIAL = "the list has more pages"

Value = str | float | bool | None
FreeKind = Literal["quota", "budget", "price", "trial", "promo", "none", "retired"]
FREE_KINDS: tuple[FreeKind, ...] = get_args(FreeKind)
LIMIT_FIELDS = frozenset(FreeLimit.model_fields) - {"shared", "windows"}
_PLAIN_FIELDS = frozenset({"exists", "free", "chat", "context", "max_output", "price.prompt", "price.completion"})


class Rank(IntEnum):
    """How near a source is to the truth; a higher one beats a lower one while both are fresh."""

    MAP = 1  # computed by somebody from a price map
    COMMUNITY = 2  # a list that people keep
    DOCS = 3  # the provider's own pages
    API = 4  # the provider's own interface
    OBSERVED = 5  # what the provider really answered: headers, refusals, costs, probes


class NotUnderstood(Exception):
    """The bytes are not what this source knows how to read; the message says what was missing, for a person."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One claim. `parse` fills the first part; `stamped` adds the second.

    model: an upstream id as the source writes it, a display name (resolved against known ids later), or a glob over
        ids such as `*:free` for a claim about all that match.
    field, value:
        exists            bool; False: retired
        free              one of `FREE_KINDS`
        limit.<name>      a field of `FreeLimit` (`limit.requests_per_day`, `limit.reset`); None: it exists but the
                          source does not tell the number
        capability.<tag>  bool
        context           tokens of the whole window; max_output: tokens of an answer, at most
        price.prompt, price.completion   USD per million tokens
        chat              bool; False: an embedding, speech, image, moderation … model
    shared: of a limit: all models that match `model` use it up together.
    note: a few words of context for a person (`trial key`, `tier 1`).
    dated: the day (ISO 8601) that the page gives itself, where it does.
    until_s: Unix time after which the claim no longer holds (a promotion's end, an announced retirement).
    seen_at_s: Unix time of the reading; content_hash: SHA-256 of the bytes it was read from, in hex.
    """

    provider: str
    model: str
    field: str
    value: Value
    shared: bool = False
    note: str = ""
    dated: str = ""
    until_s: float | None = None
    source: str = ""
    url: str = ""
    rank: Rank = Rank.COMMUNITY
    confidence: float = 0.5
    seen_at_s: float = 0.0
    content_hash: str = ""

    def __post_init__(self) -> None:
        head, _, tail = self.field.partition(".")
        known = (
            self.field in _PLAIN_FIELDS
            or (head == "limit" and tail in LIMIT_FIELDS)
            or (head == "capability" and tail in CAPABILITIES)
        )
        if not known:
            raise ValueError(f"no such field of evidence: {self.field!r}")
        if not self.provider or not self.model:
            raise ValueError("evidence needs a provider and a model")
        if self.value is not None and not _fits(self.field, self.value):
            raise ValueError(f"{self.field} cannot be {self.value!r}")


def _fits(field: str, value: Value) -> bool:
    """Whether a field can have that value."""
    if field == "free":
        return value in FREE_KINDS
    if field == "limit.reset":
        return isinstance(value, str)
    if field in ("exists", "chat") or field.startswith("capability."):
        return isinstance(value, bool)
    least = 1.0 if field in ("context", "max_output") else 0.0
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < math.inf


@dataclass(frozen=True, slots=True)
class Source:
    """Something to read. `name` is what `--source` and the folder of saved replies call it.

    complete: it names every model that it covers, so that one which is missing from it may have left; `provider` (or
        what it lists) says of whom. confidence: of its claims, 0 to 1, when fresh.
    catalogue: its ids are those of the providers, and count as they are, also where it does not name all of them.
    derived: its claims repeat those of another source for these providers, and add no weight there.
    """

    name: str
    url: str
    rank: Rank
    confidence: float
    parse: Callable[[bytes], list[Evidence]]
    provider: str = ""
    complete: bool = False
    derived: frozenset[str] = frozenset()
    catalogue: bool = False
    accept: str = "*/*"

    @property
    def names_ids(self) -> bool:
        """Whether its ids count as they are; names on pages are matched against known ids."""
        return self.catalogue or (self.complete and self.rank >= Rank.API)

    def read(self, raw: bytes, *, seen_at_s: float) -> list[Evidence]:
        """The claims in `raw` with their provenance, each once; raises `NotUnderstood`."""
        return stamped(self, self.parse(raw), raw, seen_at_s)


def stamped(source: Source, claims: Iterable[Evidence], raw: bytes, seen_at_s: float) -> list[Evidence]:
    """`claims` with where and when they were read; of two that say different things of one field, the first counts."""
    digest = hashlib.sha256(raw).hexdigest()
    found: dict[tuple[str, str, str], Evidence] = {}
    for claim in claims:
        found.setdefault(
            (claim.provider, claim.model, claim.field),
            replace(
                claim,
                source=source.name,
                url=claim.url or source.url,
                rank=source.rank,
                confidence=source.confidence,
                seen_at_s=seen_at_s,
                content_hash=digest,
            ),
        )
    return list(found.values())


def seen_in_answers(name: str) -> Source:
    """Where claims come from that nobody reads anywhere: they are seen in what providers answer."""

    def parse(_raw: bytes) -> NoReturn:
        raise NotUnderstood(f"{name}: this is seen in answers, not read")

    return Source(name, "", Rank.OBSERVED, _SEEN_CONFIDENCE, parse)


def observed(source: Source, claims: Iterable[Evidence], seen_at_s: float) -> list[Evidence]:
    """Claims of a source that is seen, with their provenance; the bytes they stand for are they themselves."""
    claims = list(claims)
    said = json.dumps([[claim.provider, claim.model, claim.field, claim.value] for claim in claims])
    return stamped(source, claims, said.encode(), seen_at_s)


def limits(
    provider: str, model: str, amounts: dict[str, Value], *, shared: bool = False, note: str = ""
) -> list[Evidence]:
    """A claim for each limit: `{"requests_per_minute": 30, "reset": "UTC"}`."""
    return [Evidence(provider, model, f"limit.{name}", value, shared, note) for name, value in amounts.items()]


def capabilities(provider: str, model: str, tags: dict[str, bool | None]) -> list[Evidence]:
    """A claim for each capability that is known to be there or not; None is unknown and claims nothing."""
    return [Evidence(provider, model, f"capability.{tag}", has) for tag, has in tags.items() if has is not None]
