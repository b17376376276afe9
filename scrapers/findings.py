"""Verdicts → the findings that routing uses, and what has changed from one version to the next. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from llmproxy.core.config import FreeLimit
from llmproxy.routing.findings import Finding, Findings, Found
from scrapers.merge import Key, Verdict
from scrapers.tiers import tier_of


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two versions. source, url, seen: of the evidence that decided it; against: who objects."""

    kind: Literal["added", "removed", "changed"]
    name: str
    field: str
    before: Any
    after: Any
    source: str = ""
    url: str = ""
    seen: str = ""
    against: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As it is kept and printed with `--json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def build(
    verdicts: Mapping[Key, Verdict], *, providers: Collection[str], twins: Mapping[str, str] | None = None
) -> Findings:
    """What counts for the models of `providers`; `twins` have the models and limits of another provider."""
    fields: dict[tuple[str, str], dict[str, Verdict]] = defaultdict(dict)
    for key, verdict in verdicts.items():
        fields[key.provider, key.model][key.field] = verdict
    models: dict[str, Finding] = {}
    limits: dict[str, Found] = {}
    for provider in sorted(providers):
        origin = (twins or {}).get(provider, provider)
        for (owner, model), known in fields.items():
            if owner != origin:
                continue
            name = f"{provider}/{model}"
            finding = _finding(model, known)
            if finding != Finding():
                models[name] = finding
            if finding.free not in ("none", "retired") and (found := _limits(known)) is not None:
                limits[name] = found
    return Findings(models=models, limits=limits)


def changes(
    before: Findings, after: Findings, verdicts: Mapping[Key, Verdict], twins: Mapping[str, str] | None = None
) -> list[Change]:
    """What is different, in the order of the names; `twins` as in `build`."""
    old, new = before.to_json(), after.to_json()
    found: list[Change] = []
    for part, prefix in (("models", ""), ("limits", "limit.")):
        for name in sorted(old[part].keys() | new[part].keys()):
            found += _differences(name, old[part].get(name), new[part].get(name), prefix)
    return [_explained(change, verdicts, twins or {}) for change in found]


def _finding(model: str, known: Mapping[str, Verdict]) -> Finding:
    head = "capability."
    tags = {field.removeprefix(head): verdict for field, verdict in known.items() if field.startswith(head)}
    have = frozenset(tag for tag, verdict in tags.items() if verdict.value is True)
    chat = known["chat"].value if "chat" in known else None
    exists = known["exists"].value if "exists" in known else None
    context = known["context"].value if "context" in known else None
    free = known["free"].value if "free" in known else None
    is_glob = bool(set(model) & set("*?["))
    return Finding(
        free=str(free or ""),
        gone=exists is False,
        chat=chat if isinstance(chat, bool) else None,
        have=have,
        lacks=frozenset(tag for tag, verdict in tags.items() if verdict.value is False),
        context_tokens=int(context) if isinstance(context, int | float) else None,
        tier=tier_of(model, have) if exists is True and chat is not False and not is_glob else None,
    )


def _limits(known: Mapping[str, Verdict]) -> Found | None:
    """The free limits among the verdicts; None where no number is known."""
    told = {field.removeprefix("limit."): verdict for field, verdict in known.items() if field.startswith("limit.")}
    amounts = {name: verdict.value for name, verdict in told.items() if verdict.value is not None}
    if not amounts.keys() - {"reset"}:
        return None
    amounts["shared"] = any(verdict.by.shared for verdict in told.values())
    newest = max(told.values(), key=lambda verdict: verdict.by.seen_at_s).by
    try:
        entry = FreeLimit.model_validate(amounts)
    except ValidationError:
        # Only `reset` can be wrong still: a word that is no zone. The numbers are as good without it.
        amounts.pop("reset", None)
        entry = FreeLimit.model_validate(amounts)
    return Found(entry, _day(newest.seen_at_s), newest.source)


def _differences(
    name: str,
    old: Mapping[str, Any] | None,
    new: Mapping[str, Any] | None,
    prefix: str,
) -> Iterable[Change]:
    kind: Literal["added", "removed", "changed"] = "changed"
    if old is None or new is None:
        kind = "removed" if new is None else "added"
    old, new = old or {}, new or {}
    for field in sorted((old.keys() | new.keys()) - {"as_of", "source"}):
        if old.get(field) != new.get(field):
            yield Change(kind, name, prefix + field, old.get(field), new.get(field))


def _explained(change: Change, verdicts: Mapping[Key, Verdict], twins: Mapping[str, str]) -> Change:
    provider, _, model = change.name.partition("/")
    provider = twins.get(provider, provider)
    names = {"gone": "exists", "context_tokens": "context", "tier": "exists"}
    field = names.get(change.field, change.field)
    if change.field in ("have", "lacks"):
        moved = set(change.before or ()) ^ set(change.after or ())
        keys = [Key(provider, model, f"capability.{tag}") for tag in sorted(moved)]
    else:
        keys = [Key(provider, model, field)]
    verdict = next((verdicts[key] for key in keys if key in verdicts), None)
    if verdict is None:
        return change
    return replace(
        change,
        source=", ".join((verdict.by.source, *verdict.with_it)),
        url=verdict.by.url,
        seen=_day(verdict.by.seen_at_s),
        against=tuple(f"{source} says {_plain(value)}" for source, value in verdict.against),
    )


def _day(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
