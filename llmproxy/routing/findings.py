"""What scrapers found out of models: an immutable snapshot beside the configuration, which always wins. Pure.

The JSON form (of `to_json`) is what is kept as a version:
`{"models": {"groq/m": {"free": "quota", "have": ["tools"], …}}, "limits": {"groq/m": {"requests_per_day": 1000,
"as_of": "2026-11-21", "source": "…"}}}`. Names are `provider/id`, or `provider/glob` for what concerns several models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmproxy.core.config import FreeLimit
from llmproxy.core.names import matches_id
from llmproxy.core.types import Model, Tier
from llmproxy.routing.declared import Rule, limits_of, rule_for
from llmproxy.routing.limits import Limit

# Kinds of free that cost nothing, again and again; a trial is spent once, and is no free tier.
FREE = frozenset({"quota", "budget", "price", "promo"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one model; empty and None are unknown. gone: its provider no longer has it."""

    free: str = ""
    gone: bool = False
    chat: bool | None = None
    have: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    tier: Tier | None = None

    @property
    def is_free(self) -> bool | None:
        """Whether it is free; None where nobody knows."""
        return None if not self.free else self.free in FREE


NOTHING = Finding()
_TAGS = ("have", "lacks")


@dataclass(frozen=True, slots=True)
class Found:
    """Free limits that were found for a model or a glob, with the day (ISO 8601) and the source."""

    entry: FreeLimit
    as_of: str = ""
    source: str = ""

    def rule(self, globs: tuple[str, ...]) -> Rule:
        """As a rule of the book of limits."""
        return Rule(globs, limits_of(self.entry), self.entry.shared, f"{self.source}, {self.as_of}", as_of=self.as_of)


@dataclass(frozen=True)
class Findings:
    """One version. Looked up by model; a glob of its provider fills in what is not said of the model itself."""

    version: int = 0
    made_at_s: float = 0.0
    models: Mapping[str, Finding] = field(default_factory=dict)
    limits: Mapping[str, Found] = field(default_factory=dict)
    _globs: Mapping[str, list[tuple[str, Finding]]] = field(init=False, repr=False, compare=False)
    _limit_globs: Mapping[str, list[tuple[str, Found]]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_globs", _by_provider(self.models))
        object.__setattr__(self, "_limit_globs", _by_provider(self.limits))

    def of(self, model: Model) -> Finding:
        """What is known of `model`."""
        exact = self.models.get(model.name)
        if exact is not None and exact.free:
            return exact
        for glob, finding in self._globs.get(model.source, ()):
            if matches_id((glob,), model.id):
                if exact is None:
                    return finding
                return Finding(
                    finding.free, exact.gone, exact.chat, exact.have, exact.lacks, exact.context_tokens, exact.tier
                )
        return exact or NOTHING

    def limits_of(self, model: Model) -> tuple[Found | None, tuple[str, Found] | None]:
        """(what was found for the model itself, (glob, what was found for all that match it))."""
        glob = next(
            (entry for entry in self._limit_globs.get(model.source, ()) if matches_id((entry[0],), model.id)), None
        )
        return self.limits.get(model.name), glob

    def to_json(self) -> dict[str, Any]:
        """The findings without their version, sorted."""
        return {
            "models": {name: _told(self.models[name]) for name in sorted(self.models)},
            "limits": {
                name: {
                    **self.limits[name].entry.model_dump(exclude_defaults=True),
                    "as_of": self.limits[name].as_of,
                    "source": self.limits[name].source,
                }
                for name in sorted(self.limits)
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, version: int = 0, made_at_s: float = 0.0) -> Findings:
        """The opposite of `to_json`; raises `ValueError` for what is none."""
        try:
            models = {
                name: replace(NOTHING, **{**fields, **{tags: frozenset(fields.get(tags, ())) for tags in _TAGS}})
                for name, fields in data["models"].items()
            }
            limits = {
                name: Found(
                    FreeLimit.model_validate({key: fields[key] for key in fields if key not in ("as_of", "source")}),
                    fields.get("as_of", ""),
                    fields.get("source", ""),
                )
                for name, fields in data["limits"].items()
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no findings: {error!r}") from error
        return cls(version, made_at_s, models, limits)


def rule_with(
    model: Model, written: Mapping[str, FreeLimit], findings: Findings, listed: Sequence[Rule]
) -> Rule | None:
    """The limits that count for `model`: what a person wrote alone; else what was found, over the catalogue's rules.

    The catalogue fills in what nobody found, and its number counts where it is of a later day. What holds for the model
    alone and what it shares with others stand beside each other.
    """
    said = rule_for(model, written, ())
    if said is not None:
        return said
    known = rule_for(model, {}, listed)
    exact, glob = findings.limits_of(model)
    own = _over(exact, (model.id,), None if known is None or known.shared else known)
    if glob is None:
        wide = known if known is not None and known.shared else None
    elif glob[1].entry.shared:
        wide = _over(glob[1], (glob[0],), known if known is not None and known.shared else None)
    else:
        own, wide = _over(glob[1], (model.id,), own), known if known is not None and known.shared else None
    if own is None or wide is None:
        return own or wide
    if glob is None:
        # What was found of the model itself is of a later day than what the catalogue says of all together.
        names = {limit.name for limit in own.limits}
        wide = replace(wide, limits=tuple(limit for limit in wide.limits if limit.name not in names))
    return replace(own, beside=wide) if wide.limits else own


def _over(found: Found | None, globs: tuple[str, ...], known: Rule | None) -> Rule | None:
    """What was found, with the rule that was known before for what it does not say."""
    if found is None:
        return known
    rule = found.rule(globs)
    if known is None:
        return rule
    if known.as_of > found.as_of[: len(known.as_of)]:
        rule, known = replace(rule, origin=known.origin, as_of=known.as_of, limits=known.limits), rule
    before = {limit.name: limit for limit in known.limits}
    limits = tuple(_as_known(limit, before.pop(limit.name, None), found) for limit in rule.limits)
    return replace(rule, limits=limits + tuple(before.values()), owner=known.owner or rule.owner)


def _as_known(limit: Limit, before: Limit | None, found: Found) -> Limit:
    """A number, with how its window renews as it was known before, where the source does not tell."""
    return limit if before is None or found.entry.reset is not None else replace(before, amount=limit.amount)


def _by_provider(named: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """The globs among the names, by provider, the longest first."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for name in sorted(named, key=lambda name: (-len(name), name)):
        provider, _, model_id = name.partition("/")
        if set(model_id) & set("*?["):
            found.setdefault(provider, []).append((model_id, named[name]))
    return found


def _told(finding: Finding) -> dict[str, Any]:
    told = {
        "free": finding.free,
        "gone": finding.gone,
        "chat": finding.chat,
        "have": sorted(finding.have),
        "lacks": sorted(finding.lacks),
        "context_tokens": finding.context_tokens,
        "tier": finding.tier,
    }
    return {
        key: value
        for key, value in told.items()
        if value not in ("", False, None, []) or (value is False and key == "chat")
    }
