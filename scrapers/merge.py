"""What counts, of all that sources say: a pure function of the evidence and the time.

- What a provider really answered beats its interface, that beats its pages, those beat lists of people, those beat
  price maps, while they are fresh; the weight of every claim fades with its age. Within a class newer beats older.
- Several sources of one class that agree add up, but never to more than the next class.
- What is missing from a source that names everything is gone after `MISSES` readings without it over `MISSED_FOR_S`,
  and back as soon as it is seen again. A source that could not be read says nothing.
- A number that a source has stopped telling stays the last known one, with its age.
- A capability that one source sees is there, unless a source of a higher class denies it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from scrapers.base import Evidence, Rank, Value

MISSES = 2
MISSED_FOR_S = 20 * 3600.0

_DAY_S = 86_400.0
# Days in which a claim loses half of its weight, from the last time that it was seen.
_HALF_LIFE_DAYS = {Rank.OBSERVED: 14.0, Rank.API: 45.0, Rank.DOCS: 60.0, Rank.COMMUNITY: 45.0, Rank.MAP: 45.0}
# What sources of a class that agree come to, at most: less than one fresh source of the next class.
_CEILING = {Rank.OBSERVED: 1.0, Rank.API: 0.97, Rank.DOCS: 0.92, Rank.COMMUNITY: 0.8, Rank.MAP: 0.45}
# Below this nothing is said of whether a model is free or there; numbers stay, with their age.
_WEAKEST = 0.1
_FREE = frozenset({"quota", "budget", "price", "promo"})


class Key(NamedTuple):
    """What a claim is about."""

    provider: str
    model: str
    field: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """A claim and its history. `evidence.seen_at_s` is the last time that the source said so.

    current: the newest thing that this source says of this field. missed: readings of the source since, in which it
    was missing; missed_since_s: Unix time of the first of them.
    """

    evidence: Evidence
    first_seen_s: float
    current: bool = True
    missed: int = 0
    missed_since_s: float | None = None

    @property
    def key(self) -> Key:
        return Key(self.evidence.provider, self.evidence.model, self.evidence.field)

    def gone(self, now: float) -> bool:
        """Whether it has been missing often and long enough."""
        return self.missed >= MISSES and self.missed_since_s is not None and now - self.missed_since_s >= MISSED_FOR_S


@dataclass(frozen=True, slots=True)
class Verdict:
    """What counts for one field of one model, the evidence that decided it, and who says otherwise.

    strength: from 0 to 1. age_s: since the deciding source said so. with_it: other sources that say the same.
    """

    key: Key
    value: Value
    strength: float
    by: Evidence
    age_s: float
    with_it: tuple[str, ...] = ()
    against: tuple[tuple[str, Value], ...] = ()


class _Claim(NamedTuple):
    evidence: Evidence
    strength: float
    at_s: float


def verdicts(
    sightings: Iterable[Sighting], now: float, *, derived: Mapping[str, frozenset[str]] | None = None
) -> dict[Key, Verdict]:
    """A verdict for each field of each model that anything is known of, in a stable order.

    `derived`: by source, the providers for which it only repeats another source.
    """
    grouped: dict[Key, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        grouped[sighting.key].append(sighting)
    found: dict[Key, Verdict] = {}
    for key in sorted(grouped):
        claims = [claim for claim in _claims(grouped[key], now) if not _repeats(claim, derived or {}, grouped[key])]
        if claims and (verdict := _verdict(key, claims, now)) is not None:
            found[key] = verdict
    return found


def strength(evidence: Evidence, at_s: float, now: float) -> float:
    """The weight of a claim that was last seen at `at_s`, from 0 to 1."""
    age_days = max(0.0, now - min(at_s, _dated_s(evidence) or at_s)) / _DAY_S
    return float(evidence.confidence * math.pow(0.5, age_days / _HALF_LIFE_DAYS[evidence.rank]))


def _claims(sightings: list[Sighting], now: float) -> list[_Claim]:
    """What each source says now: one claim a source; of a number that is no longer told, the last known one."""
    by_source: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        by_source[sighting.evidence.source].append(sighting)
    claims = []
    for source in sorted(by_source):
        latest = max(by_source[source], key=lambda one: (one.current, one.evidence.seen_at_s))
        if latest.evidence.value is None:
            told = [one for one in by_source[source] if one.evidence.value is not None]
            latest = max(told, key=lambda one: one.evidence.seen_at_s, default=latest)
        claim = _claim(latest, now)
        if claim is not None:
            claims.append(claim)
    return claims


def _claim(sighting: Sighting, now: float) -> _Claim | None:
    evidence, at_s = sighting.evidence, sighting.evidence.seen_at_s
    # A model that is still listed after its announced end has not left.
    over = evidence.until_s is not None and evidence.seen_at_s < evidence.until_s <= now
    if evidence.field == "exists" and evidence.value is True and (over or sighting.gone(now)):
        at_s = evidence.until_s or at_s if over else sighting.missed_since_s or at_s
        return _Claim(replace(evidence, value=False), strength(evidence, at_s, now), at_s)
    if over or (sighting.gone(now) and not _stays(evidence.field)):
        return None
    return _Claim(evidence, strength(evidence, at_s, now), at_s)


def _stays(field: str) -> bool:
    """Whether the last known value is kept when a source no longer tells it."""
    return field.startswith(("limit.", "price.")) or field in ("context", "max_output")


def _repeats(claim: _Claim, derived: Mapping[str, frozenset[str]], beside: list[Sighting]) -> bool:
    """Whether the claim only repeats what another source beside it says first-hand."""
    source, provider = claim.evidence.source, claim.evidence.provider
    return provider in derived.get(source, frozenset()) and any(one.evidence.source != source for one in beside)


def _verdict(key: Key, claims: list[_Claim], now: float) -> Verdict | None:
    known = [claim for claim in claims if claim.evidence.value is not None] or claims
    groups: dict[object, list[_Claim]] = defaultdict(list)
    for claim in known:
        groups[_group(key.field, claim.evidence.value)].append(claim)
    winner = max(groups, key=lambda group: _order(key.field, group, groups))
    agreeing = sorted(groups[winner], key=lambda claim: (-claim.strength, -claim.at_s, claim.evidence.source))
    best = agreeing[0]
    together = _together(agreeing)
    if together < _WEAKEST and not _stays(key.field):
        return None
    others = [claim for group, members in groups.items() if group != winner for claim in members]
    return Verdict(
        key,
        best.evidence.value,
        round(together, 4),
        best.evidence,
        max(0.0, now - best.at_s),
        tuple(claim.evidence.source for claim in agreeing[1:]),
        tuple(
            (claim.evidence.source, claim.evidence.value)
            for claim in sorted(others, key=lambda claim: (-claim.strength, claim.evidence.source))
        ),
    )


def _group(field: str, value: Value) -> object:
    """Values that say the same: kinds of free that cost nothing agree that they do."""
    if field == "free" and value in _FREE:
        return "free"
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _order(field: str, group: object, groups: Mapping[object, list[_Claim]]) -> tuple[float, float, float, str]:
    members = groups[group]
    newest = max(claim.at_s for claim in members)
    first = 0.0
    if field.startswith("capability.") and group is True:
        denied = max((claim.evidence.rank for claim in groups.get(False, [])), default=0)
        first = 1.0 if max(claim.evidence.rank for claim in members) >= denied else 0.0
    return (first, round(_together(members), 6), newest, str(group))


def _together(claims: list[_Claim]) -> float:
    """The weight of claims that agree: the strongest class, with its members added up below its ceiling."""
    best = 0.0
    for rank in Rank:
        members = [claim.strength for claim in claims if claim.evidence.rank is rank]
        if members:
            added = 1.0 - math.prod(1.0 - one for one in members)
            best = max(best, max(members), min(added, _CEILING[rank]))
    return best


def _dated_s(evidence: Evidence) -> float | None:
    if not evidence.dated:
        return None
    try:
        moment = datetime.fromisoformat(evidence.dated if len(evidence.dated) > 7 else f"{evidence.dated}-01")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
