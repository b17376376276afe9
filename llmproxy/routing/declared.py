"""The free limits that somebody wrote down, in the configuration or in the catalogue, and which models they concern."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from llmproxy.core.config import FreeLimit
from llmproxy.core.names import matches, matches_id
from llmproxy.core.types import Model, Unit
from llmproxy.routing.limits import SECONDS, Kind, Limit, Period

_AMOUNT = re.compile(rf"({'|'.join(get_args(Unit))})_per_({'|'.join(SECONDS)})")
_CEILINGS: dict[str, Unit] = {
    "max_request_tokens": "tokens",
    "max_prompt_tokens": "prompt_tokens",
    "max_completion_tokens": "completion_tokens",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Limits of the models that `globs` match (over upstream ids of one provider); `shared` by all of them, or each.

    `owner` is the provider whose budget a shared one is, where that is another one. `as_of` is the day (ISO 8601, as
    far as known) of what is said; `beside` is another rule that holds for the same model as well.
    """

    globs: tuple[str, ...]
    limits: tuple[Limit, ...]
    shared: bool = False
    origin: str = ""
    owner: str = ""
    as_of: str = ""
    beside: Rule | None = None

    @property
    def pool(self) -> str:
        """The name of what its models share."""
        return ",".join(self.globs)


def limits_of(entry: FreeLimit) -> tuple[Limit, ...]:
    """All limits of an entry.

    `reset` says when a window begins anew: a time zone for days and longer ones; `minute` for minutes of the clock;
    `bucket` for a continuous refill. Where it says nothing or `rolling`, each amount comes back one window after it was
    used: whatever the provider really does, that never exceeds it.
    """
    found: list[Limit] = []
    for name, value in entry.model_dump(exclude_none=True).items():
        if match := _AMOUNT.fullmatch(name):
            found.append(_window(match[1], float(value), match[2], entry.reset))  # type: ignore[arg-type]
        elif name in _CEILINGS:
            found.append(Limit(_CEILINGS[name], float(value), "request"))
        elif name.endswith("_once"):
            found.append(Limit(name.removesuffix("_once"), float(value), "once"))  # type: ignore[arg-type]
        elif name == "concurrency":
            found.append(Limit("requests", float(value), "concurrent"))
    kind: Kind = "bucket" if entry.reset == "bucket" else "sliding"
    found += [Limit(window.unit, window.amount, kind, window.seconds) for window in entry.windows]
    return tuple(found)


def rules_of_catalog(entries: Iterable[Mapping[str, Any]], owner: str = "") -> tuple[Rule, ...]:
    """The rules of one provider of the catalogue, most specific first."""
    rules = []
    for entry in entries:
        written = {key: value for key, value in entry.items() if key not in ("models", "as_of", "source")}
        origin = f"catalogue, {entry['as_of']}" if "as_of" in entry else "catalogue"
        limit = FreeLimit.model_validate(written)
        globs = tuple(entry.get("models", ("*",)))
        rules.append(Rule(globs, limits_of(limit), limit.shared, origin, owner, entry.get("as_of", "")))
    return tuple(rules)


def rule_for(model: Model, written: Mapping[str, FreeLimit], catalog: Sequence[Rule]) -> Rule | None:
    """What counts for `model`: what a person wrote for its exact name, else for a glob, else the catalogue's rule."""
    if model.name in written:
        entry = written[model.name]
        return Rule((model.name,), limits_of(entry), entry.shared, "configuration")
    for glob, entry in written.items():
        if matches((glob,), model.source, model.id):
            return Rule((glob,), limits_of(entry), entry.shared, "configuration")
    return next((rule for rule in catalog if matches_id(rule.globs, model.id)), None)


def _window(unit: Unit, amount: float, period: Period, reset: str | None) -> Limit:
    seconds = SECONDS[period]
    if reset == "bucket":
        return Limit(unit, amount, "bucket", seconds)
    if reset == "minute" and period in ("second", "minute"):
        return Limit(unit, amount, "fixed", seconds, period)
    if reset not in (None, "rolling", "minute") and period in ("day", "week", "month"):
        return Limit(unit, amount, "fixed", seconds, period, reset)
    return Limit(unit, amount, "sliding", seconds)
