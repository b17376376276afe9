"""The memory of refusals: who is out, until when and why, and what was learned not to work. No clock, no I/O.

Cooldowns only put a candidate behind the healthy ones; those that the provider itself stated take it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmproxy.core.errors import (
    AttemptError,
    ConnectFailed,
    ConnectionLost,
    NoRoom,
    Refused,
    TimedOut,
    Truncated,
    Unmet,
)
from llmproxy.core.types import Call, Candidate

Provenance = Literal["heuristic", "silence", "stated", "quota", "dead key", "retired", "probe"]

TooLarge = Literal["context_length", "too_large"]

# Not honouring one of these says something about this one request, not about all that have such a field.
_EVERY_CALL_HAS = frozenset({"messages", "prompt", "input", "model"})

_MOST_RECORDS = 10_000
_DAY_S = 86_400.0
_LOCAL_LIMIT_S = 5.0
_RETIRED_S = _DAY_S
_DEAD_KEY_S = 600.0
_LEARNED_S = 3_600.0
_HEURISTIC_LIMIT_S = 30.0
# Who has answered nothing so many times in a row is silent; so is a source of which several candidates have not.
_SILENT = 3
_UNHEARD = frozenset({"headers_timeout", "first_token_timeout", "request_timeout"})
# Who has been out for long is tried again after this share of that time, at most after so long.
_PATIENCE = 0.25
_PATIENCE_LIMIT_S = 1_800.0
# A guess that is over is kept so long, so that one call alone finds out; that one has so long to do it.
_HALF_OPEN_S = 60.0
_PROBE_S = 15.0
# So many answers in a row without what was forced, and the model is taken not to be capable of it.
_UNMET_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Until when (seconds of the caller's clock) something is not asked first, or at all, and why."""

    until_s: float
    provenance: Provenance
    reason: str
    since_s: float = -math.inf

    @property
    def binding(self) -> bool:
        """Whether asking anyway would surely be refused: the provider itself said how long it will say no."""
        return self.provenance in ("stated", "quota")

    @property
    def silent(self) -> bool:
        """Whether nothing at all was heard, several times, or one call is finding out whether that is still so."""
        return self.provenance in ("silence", "probe")


@dataclass(slots=True)
class _Record:
    failures: int = 0
    success: float = 1.0
    first_token_s: float | None = None
    since_s: float = 0.0  # when the first of the failures in a row was


@dataclass(slots=True)
class _Silence:
    """What a source has not answered since it last said anything."""

    since_s: float
    candidates: set[str] = field(default_factory=set)
    times: int = 0


class Health:
    """The one owner of cooldowns, learned incapabilities and speed. Keys are a source, a credential, or a candidate.

    `jitter` (0 to 1) makes guesses differ by up to a fifth, so that those who failed together are not tried together.
    """

    def __init__(self, jitter: Callable[[], float] | None = None) -> None:
        self._jitter = jitter
        self.news = 0  # grows with everything that `dump` would tell
        self._cooldowns: dict[tuple[str, bool], Cooldown] = {}  # (scope, binding): a guess never hides a stated wait
        self._records: dict[str, _Record] = {}
        self._silences: dict[str, _Silence] = {}
        self._lacks: dict[tuple[str, str], tuple[float, str]] = {}
        self._unmet: dict[tuple[str, str], int] = {}
        self._refused_sizes: dict[str, tuple[float, int, TooLarge]] = {}
        self.gained: frozenset[tuple[str, str]] = frozenset()  # (model name, capability) that was delivered

    # -- questions ------------------------------------------------------------------------------------------------

    @property
    def spotless(self) -> bool:
        """Whether nothing is cooling down and nothing was learned: the common case, decided in one look."""
        return not self._cooldowns and not self._lacks and not self._refused_sizes

    def cooldown(self, candidate: Candidate, now: float, *, named: bool = False) -> Cooldown | None:
        """The longest binding cooldown of this candidate, its key or its source, else the longest that is a guess.

        Of one that the client `named`, the silence of others of its source says nothing.
        """
        for binding in (True, False):
            longest: Cooldown | None = None
            for scope in _scopes(candidate):
                found = self._cooldowns.get((scope, binding))
                if found is None or (named and found.silent and self._is_of_others(scope, candidate)):
                    continue
                if found.until_s <= now:
                    kept_s = _PATIENCE_LIMIT_S if found.silent else _HALF_OPEN_S
                    if binding or found.until_s + kept_s <= now:
                        del self._cooldowns[scope, binding]
                elif longest is None or found.until_s > longest.until_s:
                    longest = found
            if longest is not None:
                return longest
        return None

    def _is_of_others(self, scope: str, candidate: Candidate) -> bool:
        record = self._records.get(candidate.key)
        return scope == candidate.model.source and (record is None or not record.failures)

    def learned_lack(self, candidate: Candidate, features: frozenset[str], now: float) -> str | None:
        """Why this model is known not to honour one of `features` (capabilities and parameter names), if it is."""
        if not self._lacks:
            return None
        for feature in features:
            key = (candidate.model.name, feature)
            found = self._lacks.get(key)
            if found is None:
                continue
            if found[0] <= now:
                del self._lacks[key]
            else:
                return found[1]
        return None

    def refused_size(self, candidate: Candidate, now: float) -> int | None:
        """The smallest size in tokens that this model refused as too large, lately."""
        found = self._refused_sizes.get(candidate.model.name)
        if found is not None and found[0] <= now:
            del self._refused_sizes[candidate.model.name]
            return None
        return None if found is None else found[1]

    def refused_how(self, candidate: Candidate) -> TooLarge:
        """How it refused that size: as too long for its window, or as too large a request."""
        found = self._refused_sizes.get(candidate.model.name)
        return "context_length" if found is None else found[2]

    def learned(self, candidate: Candidate, now: float) -> dict[str, str]:
        """What was learned of the model, for a person: feature → in words."""
        name = candidate.model.name
        told = {capability: "delivered" for model, capability in sorted(self.gained) if model == name}
        told |= {
            feature: f"not for {until_s - now:.0f} s: {reason}"
            for (model, feature), (until_s, reason) in self._lacks.items()
            if model == name and until_s > now
        }
        if (size := self.refused_size(candidate, now)) is not None:
            told["size"] = f"refused {size} tokens"
        return told

    def speed(self, candidate: Candidate) -> float | None:
        """Smoothed seconds to the first output; None before the first answer."""
        record = self._records.get(candidate.key)
        return record.first_token_s if record else None

    def success_rate(self, candidate: Candidate) -> float:
        """Smoothed share of attempts that succeeded, from 0 to 1; 1 before the first attempt."""
        record = self._records.get(candidate.key)
        return record.success if record else 1.0

    # -- news -----------------------------------------------------------------------------------------------------

    def asked(self, candidate: Candidate, now: float) -> None:
        """It is asked: while it stands on probation, the calls after this one go to others first."""
        if not self._cooldowns:
            return
        for scope in _scopes(candidate):
            found = self._cooldowns.get((scope, False))
            if found is not None and found.until_s <= now:
                trial = Cooldown(now + _PROBE_S, "probe", f"being tried again after {found.reason}", now)
                self._cooldowns[scope, False] = trial

    def succeeded(
        self, candidate: Candidate, elapsed_s: float, call: Call | None = None, started_s: float = math.inf
    ) -> None:
        """Its first output came after `elapsed_s` seconds: heuristic cooldowns end, but for those that began since.

        A request that was already on its way says nothing of what was refused after it.
        """
        self.news += 1
        record = self._record(candidate)
        record.failures = 0
        self._silences.pop(candidate.model.source, None)
        record.success += 0.2 * (1.0 - record.success)
        previous = record.first_token_s
        record.first_token_s = elapsed_s if previous is None else previous + 0.2 * (elapsed_s - previous)
        if self._cooldowns:
            for scope in _scopes(candidate):
                found = self._cooldowns.get((scope, False))
                if found is not None and found.since_s <= started_s:
                    del self._cooldowns[scope, False]
        if call is not None and call.forced is not None:
            self._delivered(candidate, call.forced.capability)

    def failed(self, candidate: Candidate, error: AttemptError, now: float, call: Call | None = None) -> None:
        """A candidate failed: it, its key or its whole source cools down as the error says."""
        self.news += 1
        for scope in _scopes(candidate) if self._cooldowns else ():
            trial = self._cooldowns.get((scope, False))
            if trial is not None and trial.provenance == "probe":
                del self._cooldowns[scope, False]
        if isinstance(error, Unmet):
            self._not_delivered(candidate, error, now)
            return
        if error.outcome == "diverged" or isinstance(error, NoRoom):
            return
        if isinstance(error, Refused) and error.kind in ("context_length", "too_large"):
            if call is not None and call.size_tokens > 0:
                known = self.refused_size(candidate, now)
                size = call.size_tokens if known is None else min(known, call.size_tokens)
                self._refused_sizes[candidate.model.name] = (now + _DAY_S, size, error.kind)
            return
        if isinstance(error, Refused) and error.kind in ("invalid", "content_filter"):
            return
        if isinstance(error, Refused) and error.kind == "unsupported":
            if error.param and error.param not in _EVERY_CALL_HAS:
                self.learn_lack(candidate, error.param, error.message, now)
            return
        record = self._record(candidate)
        if not record.failures:
            record.since_s = now
        record.failures += 1
        record.success += 0.2 * (0.0 - record.success)
        key, seconds, provenance = _sentence(candidate, error, record.failures)
        if _unheard(error) and not candidate.model.local:
            key, seconds, provenance = self._unheard(candidate, record, now) or (key, seconds, provenance)
        else:
            self._silences.pop(candidate.model.source, None)
        if provenance in ("heuristic", "silence") and self._jitter is not None:
            seconds *= 0.8 + 0.4 * self._jitter()
        if candidate.model.local:
            seconds = min(seconds, _LOCAL_LIMIT_S)
        self._cool(key, Cooldown(now + min(seconds, _DAY_S), provenance, f"{error.outcome}: {error.message}", now))

    def _unheard(self, candidate: Candidate, record: _Record, now: float) -> tuple[str, float, Provenance] | None:
        """The sentence for the last of several times without an answer: of the source, where it is not one candidate.

        A quarter of the silence has to pass before the next try, half a minute at first.
        """
        source = candidate.model.source
        silence = self._silences.setdefault(source, _Silence(now))
        silence.times += 1
        if len(silence.candidates) < _SILENT:
            silence.candidates.add(candidate.key)
        if silence.times >= _SILENT and len(silence.candidates) > 1:
            key, times, since_s = source, silence.times, silence.since_s
        elif record.failures >= _SILENT:
            key, times, since_s = candidate.key, record.failures, record.since_s
        else:
            return None
        limit_s = max(_HEURISTIC_LIMIT_S, min(_PATIENCE * (now - since_s), _PATIENCE_LIMIT_S))
        return key, min(2.0 ** min(times, 12), limit_s), "silence"

    def learn_lack(self, candidate: Candidate, feature: str, reason: str, now: float) -> None:
        """The model does not honour `feature` (a capability or a parameter), for the next hour at least."""
        self.news += 1
        key = (candidate.model.name, feature)
        self._lacks[key] = (now + _LEARNED_S, reason)
        self.gained -= {key}

    def _delivered(self, candidate: Candidate, capability: str) -> None:
        key = (candidate.model.name, capability)
        self._unmet.pop(key, None)
        self._lacks.pop(key, None)
        if capability not in candidate.model.capabilities and key not in self.gained:
            self.gained |= {key}

    def _not_delivered(self, candidate: Candidate, error: Unmet, now: float) -> None:
        key = (candidate.model.name, error.capability)
        self._unmet[key] = self._unmet.get(key, 0) + 1
        if self._unmet[key] >= _UNMET_IN_A_ROW:
            reason = f"{_UNMET_IN_A_ROW} times in a row it did not deliver {error.capability}: {error.message}"
            self.learn_lack(candidate, error.capability, reason, now)

    # -- over a restart -------------------------------------------------------------------------------------------

    def dump(self, offset_s: float, wall: float) -> dict[str, Any]:
        """All that is known, as JSON. `offset_s` added to a time of the caller's clock is Unix time; `wall` is now."""
        return {
            "cooldowns": [
                [scope, binding, round(one.until_s + offset_s, 1), one.provenance, one.reason]
                for (scope, binding), one in self._cooldowns.items()
                if one.until_s + offset_s > wall and one.provenance != "probe"
            ],
            "lacks": [
                [name, feature, round(until_s + offset_s, 1), why]
                for (name, feature), (until_s, why) in self._lacks.items()
            ],
            "sizes": [
                [name, round(until_s + offset_s, 1), size, how]
                for name, (until_s, size, how) in self._refused_sizes.items()
            ],
            "gained": sorted(self.gained),
            "records": {
                key: [one.failures, round(one.success, 4), one.first_token_s and round(one.first_token_s, 4)]
                for key, one in self._records.items()
            },
        }

    def stated(self, offset_s: float, wall: float) -> dict[str, Any]:
        """What replicas tell each other, as `dump` does: what providers stated, and no guesses of one's own."""
        known = self.dump(offset_s, wall)
        del known["records"]
        known["cooldowns"] = [entry for entry in known["cooldowns"] if entry[1]]
        return known

    def restore(self, known: Mapping[str, Any], offset_s: float, wall: float) -> None:
        """Take over what `dump` gave, maybe long ago. `offset_s` added to Unix time is the caller's clock."""
        self.merge(known, offset_s, wall)
        for key, (failures, success, first_token_s) in known["records"].items():
            self._records[key] = _Record(failures, success, first_token_s)

    def merge(self, known: Mapping[str, Any], offset_s: float, wall: float) -> None:
        """Add what another replica has `stated`."""
        for scope, _, until, provenance, reason in known["cooldowns"]:
            if wall < until <= wall + _DAY_S:
                self._cool(scope, Cooldown(until + offset_s, provenance, reason))
        for name, feature, until, why in known["lacks"]:
            if until > wall:
                self._lacks[name, feature] = (until + offset_s, why)
        for name, until, size, how in known["sizes"]:
            if until > wall:
                self._refused_sizes[name] = (until + offset_s, size, how)
        self.gained |= {(name, capability) for name, capability in known["gained"]}

    def _record(self, candidate: Candidate) -> _Record:
        """The record of a candidate; the oldest ones make room, since clients may ask for any name."""
        record = self._records.get(candidate.key)
        if record is None:
            if len(self._records) >= _MOST_RECORDS:
                del self._records[next(iter(self._records))]
            record = self._records[candidate.key] = _Record()
        return record

    def _cool(self, scope: str, cooldown: Cooldown) -> None:
        present = self._cooldowns.get((scope, cooldown.binding))
        if present is None or cooldown.until_s > present.until_s:
            self._cooldowns[scope, cooldown.binding] = cooldown


def _scopes(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.key, _key_scope(candidate), candidate.model.source


def _key_scope(candidate: Candidate) -> str:
    return f"{candidate.model.source}#key{candidate.credential}"


def _unheard(error: AttemptError) -> bool:
    """Whether the source said nothing at all."""
    return isinstance(error, ConnectFailed) or (isinstance(error, TimedOut) and error.outcome in _UNHEARD)


def _sentence(candidate: Candidate, error: AttemptError, failures: int) -> tuple[str, float, Provenance]:
    """(scope key, seconds, provenance) for one failure; heuristic times double with each failure in a row."""
    backoff = float(2 ** min(failures - 1, 6))
    if isinstance(error, Refused):
        if error.kind == "auth":
            return _key_scope(candidate), _DEAD_KEY_S, "dead key"
        if error.kind == "credit":
            if error.retry_after_s is not None:
                return _key_scope(candidate), error.retry_after_s, "quota"
            return _key_scope(candidate), _DEAD_KEY_S, "dead key"
        if error.kind in ("not_found", "forbidden"):
            return candidate.key, _RETIRED_S, "retired"
        if error.kind == "rate_limit":
            if error.retry_after_s is not None:
                return candidate.key, error.retry_after_s, "stated"
            return candidate.key, min(2.0 * backoff, _HEURISTIC_LIMIT_S), "heuristic"
        if error.kind == "server" and error.retry_after_s is not None:
            return candidate.key, min(error.retry_after_s, _HEURISTIC_LIMIT_S), "heuristic"
    if isinstance(error, ConnectFailed):
        return candidate.model.source, min(1.0 * backoff, _HEURISTIC_LIMIT_S), "heuristic"
    if isinstance(error, TimedOut | ConnectionLost | Truncated):
        return candidate.key, min(2.0 * backoff, _HEURISTIC_LIMIT_S), "heuristic"
    return candidate.key, min(1.0 * backoff, _HEURISTIC_LIMIT_S), "heuristic"
