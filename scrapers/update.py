"""One refresh: read the sources, keep what they say, decide, publish.

A source that fails, is not understood, is empty or has shrunk by half leaves everything as it was; its report says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from llmproxy.routing.findings import Findings
from scrapers.base import PARTIAL, Evidence, NotUnderstood, Source
from scrapers.fetch import FetchFailed
from scrapers.findings import Change, build, changes
from scrapers.ids import Known, is_glob
from scrapers.merge import MISSED_FOR_S, MISSES, Key, Verdict, verdicts
from scrapers.pages import TooLarge
from scrapers.store import EvidenceStore, Reading, Status, Version
from scrapers.versions import held, published

_log = logging.getLogger(__name__)

# A list that names less than this share of what it named before is not believed at once.
_SHRUNKEN = 0.5


@dataclass(frozen=True, slots=True)
class Target:
    """A source and how it is asked. headers: with the user's key, where it needs one; never logged.

    robots: whether the host's robots.txt is asked first; not for a provider's interface that the user has a key for.
    """

    source: Source
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    robots: bool = True


class Got(Protocol):
    """What was fetched, or read from a folder; `raw` None: unchanged since the last time."""

    @property
    def raw(self) -> bytes | None: ...
    @property
    def etag(self) -> str: ...
    @property
    def last_modified(self) -> str: ...
    @property
    def fetched_at_s(self) -> float: ...


Get = Callable[[Target, Reading | None], Awaitable[Got | None]]


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one source in a run. unmatched: names that are no model which its provider is known to have."""

    source: str
    url: str
    status: Status
    claims: int = 0
    models: int = 0
    unmatched: tuple[str, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Scope:
    """What the findings are about: providers, those that are another one under a second name, and ids known of them."""

    providers: frozenset[str]
    twins: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the evidence comes to now, and what would change."""

    findings: Findings
    verdicts: Mapping[Key, Verdict]
    changes: Sequence[Change]


async def gather(
    store: EvidenceStore, targets: Iterable[Target], get: Get, scope: Scope, *, now: Callable[[], float]
) -> list[SourceReport]:
    """Read every target; those that name a provider's ids first, so that the names of the others can be matched."""
    reports: list[SourceReport] = []
    waiting = list(targets)
    for wave in (
        [one for one in waiting if one.source.names_ids],
        [one for one in waiting if not one.source.names_ids],
    ):
        # By provider, the ids of this run and of all before; a wave sees what the wave before it found.
        known = await asyncio.to_thread(_known, store, scope)
        reports += await asyncio.gather(*(_read(store, target, get, known, now) for target in wave))
    return reports


def observe(store: EvidenceStore, evidence: Sequence[Evidence], at_s: float) -> None:
    """Keep what was seen in the provider's own answers, beside what was seen before."""
    for source in sorted({claim.source for claim in evidence}):
        mine = [claim for claim in evidence if claim.source == source]
        store.accept(Reading(source, at_s, "read", len(mine)), mine, whole=False)


def decide(store: EvidenceStore, scope: Scope, now: float, sources: Iterable[Source]) -> Decision:
    """What all evidence comes to, against what is published."""
    derived = {source.name: source.derived for source in sources if source.derived}
    found = verdicts(store.sightings(), now, derived=derived)
    findings = build(found, providers=scope.providers, twins=scope.twins)
    return Decision(findings, found, changes(published(store), findings, found, scope.twins))


def publish(store: EvidenceStore, decision: Decision, why: str, now: float) -> Version | None:
    """A new version when anything changed; None otherwise, and while somebody holds an older one."""
    if not decision.changes or held(store) is not None:
        return None
    told = [change.to_json() for change in decision.changes]
    return store.publish(decision.findings.to_json(), told, why, now)


def resolved(evidence: Iterable[Evidence], known: Mapping[str, Known], *, own: bool) -> tuple[list[Evidence], set[str]]:
    """(claims with the ids that their provider is known to have, names that mean none of them).

    `own`: the source itself says which ids there are.
    """
    found: dict[tuple[str, str, str], Evidence] = {}
    unmatched: set[str] = set()
    for claim in evidence:
        model_id: str | None = claim.model
        if not own:
            model_id = known[claim.provider].find(claim.model) if claim.provider in known else None
            if model_id is None and is_glob(claim.model):
                model_id = claim.model
        if model_id is None:
            unmatched.add(f"{claim.provider}/{claim.model}")
        else:
            found.setdefault((claim.provider, model_id, claim.field), replace(claim, model=model_id))
    return list(found.values()), unmatched


def _known(store: EvidenceStore, scope: Scope) -> dict[str, Known]:
    ids = store.known_ids()
    for provider, more in scope.ids.items():
        ids.setdefault(provider, set()).update(more)
    return {provider: Known(mine) for provider, mine in ids.items()}


async def _read(
    store: EvidenceStore, target: Target, get: Get, known: Mapping[str, Known], now: Callable[[], float]
) -> SourceReport:
    source = target.source
    last = await asyncio.to_thread(store.last_reading, source.name)
    try:
        got = await get(target, last)
    except FetchFailed as error:
        return await _unheard(store, source, "failed", str(error), now())
    if got is None:
        return await _unheard(store, source, "failed", "nothing was saved of it", now())
    if got.raw is None:
        reading = replace(last or Reading(source.name, 0.0, "read"), at_s=got.fetched_at_s, status="unchanged")
        await asyncio.to_thread(store.unchanged, reading)
        return SourceReport(source.name, source.url, "unchanged", reading.claims, reading.models)
    if last is not None and got.fetched_at_s < last.at_s:
        return await _unheard(store, source, "failed", "it is older than what was read last", now())
    try:
        evidence = await asyncio.to_thread(source.read, got.raw, seen_at_s=got.fetched_at_s)
    except (NotUnderstood, TooLarge) as error:
        return await _unheard(store, source, "failed", f"not understood: {error}", got.fetched_at_s)
    except Exception as error:  # a page that nobody foresaw must not cost the other sources their run
        _log.exception("the source %s could not be read", source.name)
        return await _unheard(store, source, "failed", f"{type(error).__name__}: {error}", got.fetched_at_s)
    return await _take(store, source, got, evidence, known)


async def _take(
    store: EvidenceStore, source: Source, got: Got, evidence: list[Evidence], known: Mapping[str, Known]
) -> SourceReport:
    claims, unmatched = resolved(evidence, known, own=source.names_ids)
    told = tuple(sorted(unmatched))
    if not claims:
        reason = f"none of its {len(told)} names is a model that is known" if told else "nothing was found in it"
        return await _unheard(store, source, "empty", reason, got.fetched_at_s, told)
    models = len({(claim.provider, claim.model) for claim in claims})
    reading = Reading(
        source.name,
        got.fetched_at_s,
        "read",
        len(claims),
        models,
        claims[0].content_hash,
        got.etag,
        got.last_modified,
    )
    last = await asyncio.to_thread(store.last_reading, source.name)
    whole = not any(claim.note == PARTIAL for claim in claims)
    small = last is not None and models < _SHRUNKEN * last.models
    if whole and last is not None and small and not _lasting(store, reading, last):
        note = f"it names {models} models where it named {last.models}"
        await asyncio.to_thread(store.not_heard, replace(reading, status="shrunken", note=note))
        _log.warning("the source %s is not believed yet: %s", source.name, note)
        return SourceReport(source.name, source.url, "shrunken", len(claims), models, told, note)
    await asyncio.to_thread(partial(store.accept, reading, claims, whole=whole))
    return SourceReport(source.name, source.url, "read", len(claims), models, told)


def _lasting(store: EvidenceStore, reading: Reading, last: Reading) -> bool:
    """Whether the source has been so small for as long, and as often, as a single model must be missing."""
    small = [one for one in store.readings(source=reading.source, since_s=last.at_s) if one.status == "shrunken"]
    return len(small) >= MISSES and reading.at_s - small[0].at_s >= MISSED_FOR_S


async def _unheard(
    store: EvidenceStore, source: Source, status: Status, reason: str, at_s: float, unmatched: tuple[str, ...] = ()
) -> SourceReport:
    _log.warning("the source %s says nothing: %s", source.name, reason)
    await asyncio.to_thread(store.not_heard, Reading(source.name, at_s, status, note=reason))
    return SourceReport(source.name, source.url, status, unmatched=unmatched, error=reason)
