"""What the catalogue tells a person about a provider: what is free, where a key is made, which terms to know. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from typing import Any

from llmproxy.core.env import references
from llmproxy.core.types import JsonObject
from llmproxy.routing.findings import Findings
from providers import catalog as provider_catalog
from providers.catalog import Entry
from providers.table import FREE

# The likeliest to be wanted first: what renews, what is free of charge, what is free for now, what ends, what costs.
_KINDS = ("quota", "price", "budget", "promo", "trial", "unknown", "none", "retired")
_AMOUNT = re.compile(r"([a-z_]+)_(per|once)(?:_([a-z]+))?")
_CEILING = re.compile(r"max_(\w+)_tokens")
_FEW = 4

FreeToday = Callable[[str], str]


@lru_cache(maxsize=1)
def _facts() -> Mapping[str, JsonObject]:
    """The catalogue as it is written: pages and notes are for people, and routing does not keep them."""
    data: JsonObject = json.loads(resources.files("providers").joinpath("catalog.json").read_text("utf-8"))
    return data


def usable() -> list[Entry]:
    """The providers that can be used, those with the most to give away first; what runs on this machine is not one."""
    entries = [entry for entry in provider_catalog.catalog().values() if not entry.local and not entry.retired]
    return sorted(entries, key=lambda entry: (_KINDS.index(kind(entry.id)), entry.name.lower()))


def kind(provider: str) -> str:
    """What sort of free use there is: a key of `providers.table.FREE`."""
    found = _facts().get(provider, {}).get("free", {}).get("kind", "unknown")
    return str(found) if found in FREE else "unknown"


def title(entry: Entry) -> str:
    """A line of a list."""
    sort = kind(entry.id)
    free = {"none": "nothing is free", "unknown": "free use is not known"}.get(sort, FREE[sort])
    key = "" if entry.key_required else ", no key needed"
    return f"{entry.id}: {entry.name} ({free}{key}) {entry.free_note}"


def free_today(provider: str) -> str:
    """What is free at a provider, as far as the catalogue knows: a sentence, then a line for each known limit."""
    fields = _facts().get(provider, {})
    free = fields.get("free", {})
    if not free:
        return "nothing is known about free use"
    first = f"{FREE[kind(provider)]}: {free.get('note', '')}"
    if free.get("as_of"):
        first += f" (as of {free['as_of']})"
    return "\n".join([first, *limit_lines(fields.get("free_limits", ()))])


def today_of(findings: Findings) -> FreeToday:
    """`free_today` with what the scrapers found since."""

    def today(provider: str) -> str:
        head = f"{provider}/"
        exact = {name.removeprefix(head): one for name, one in findings.models.items() if name.startswith(head)}
        free = sorted(
            name for name, one in exact.items() if one.is_free and not one.gone and not set(name) & set("*?[")
        )
        lines = [free_today(provider)]
        if free:
            more = f" and {len(free) - _FEW} more" if len(free) > _FEW else ""
            made = datetime.fromtimestamp(findings.made_at_s, UTC).date()
            lines.append(f"found on {made}: {', '.join(free[:_FEW])}{more}")
        found = {name.removeprefix(head): one for name, one in findings.limits.items() if name.startswith(head)}
        rules = [{"models": [name], **one.entry.model_dump(exclude_defaults=True)} for name, one in found.items()]
        return "\n".join([*lines, *limit_lines(rules)])

    return today


def limit_lines(limits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The limits of a few rules of the catalogue, in words."""
    lines = []
    for rule in limits[:_FEW]:
        told = [words for key, value in rule.items() if (words := _amount(key, value))]
        if told:
            names = ", ".join(rule.get("models", ["*"])[:2])
            which = "" if names == "*" else f"{names}: "
            together = " in all" if rule.get("shared") else ""
            lines.append(f"{which}{', '.join(told)}{together}")
    if len(limits) > _FEW:
        lines.append(f"and {len(limits) - _FEW} more limits")
    return lines


def _amount(key: str, value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    amount = f"{value:,.0f}" if value == int(value) else f"{value:g}"
    if found := _CEILING.fullmatch(key):
        return f"{amount} tokens a {found[1]}"
    if found := _AMOUNT.fullmatch(key):
        what = found[1].replace("_", " ")
        return f"{amount} {what} {'once' if found[2] == 'once' else f'a {found[3]}'}"
    return f"{amount} at a time" if key == "concurrency" else ""


def page(entry: Entry, today: FreeToday = free_today) -> list[tuple[str, str]]:
    """What to know before a key is made: (label, text), a row each."""
    rows = [("Free", today(entry.id))]
    if entry.key_url:
        rows.append(("Key", entry.key_url))
    if entry.api_key_env:
        rows.append(("Variable", " or ".join(entry.api_key_env) + ("" if entry.key_required else " (not needed)")))
    if terms := _terms(entry):
        rows.append(("Mind", terms))
    if docs := _facts().get(entry.id, {}).get("docs_url"):
        rows.append(("Terms", str(docs)))
    return rows


def _terms(entry: Entry) -> str:
    """What the kind of free use means for a bill."""
    told = {
        "trial": "A trial ends, and the calls after it are billed: its models are in no free pool.",
        "none": "Calls are billed: its models are in no free pool, and are asked only by name or in pools of yours.",
        "unknown": "Look at its prices first: calls may be billed.",
        "budget": "With a payment method on file, what exceeds the budget may be billed.",
        "quota": "With a payment method on file, what exceeds the quota may be billed.",
    }
    return told.get(kind(entry.id), "")


def address_variables(entry: Entry) -> list[str]:
    """The variables that its addresses hold, such as an account id, each once."""
    texts = (entry.base_url, entry.models_url or "", *(entry.headers or {}).values())
    return list(dict.fromkeys(name for text in texts for name in references(text)))


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` with the references that `values` knows replaced; the others stay."""
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text
