"""Keys of one provider: asking for one, and trying it. They are never shown, only what tells two of them apart."""

from __future__ import annotations

import os
import re
from typing import Any

from llmproxy.core.env import Secret, references
from llmproxy.core.types import JsonObject
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk
from llmproxy.wizard.draft import Draft
from llmproxy.wizard.probe import Probe
from providers import catalog as provider_catalog

_NAME = re.compile(r"\$?([A-Z][A-Z0-9_]{2,})")


def listed(draft: Draft, provider: str) -> list[str]:
    """The keys of a provider as they are written, `api_key` first."""
    first = draft.get("providers", provider, "api_key")
    return ([first] if first else []) + list(draft.get("providers", provider, "api_keys", default=()))


def told(draft: Draft, provider: str) -> str:
    """A few words about an entry, without its keys."""
    if draft.get("providers", provider, "enabled") is False:
        return "switched off"
    keys = listed(draft, provider)
    if keys:
        return ", ".join(Secret(key).masked for key in keys)
    entry = provider_catalog.catalog().get(provider)
    variable = entry.key_variable if entry is not None else None
    return "${" + variable + "}" if variable else "no key"


def as_written(text: str, provider: str) -> str:
    """What goes into the file for a key: a reference where the environment has it, else the key itself."""
    if references(text):
        return text
    named = _NAME.fullmatch(text)
    if named and os.environ.get(named[1]):
        return "${" + named[1] + "}"
    entry = provider_catalog.catalog().get(provider)
    for variable in entry.api_key_env if entry is not None else ():
        if os.environ.get(variable) == text:
            return "${" + variable + "}"
    return text


def ask_for(desk: Desk, provider: str) -> bool:
    """Ask for the first key and write it down; False when the provider is not wanted after all."""
    entry = provider_catalog.catalog().get(provider)
    needed = entry is not None and entry.key_required
    if entry is not None and (variable := entry.key_variable) and desk.ask.agree(f"Use the key in {variable}?"):
        desk.draft.put("${" + variable + "}", "providers", provider, "api_key")
        return True
    without = "empty: leave it" if needed else "empty: it needs none"
    typed = desk.ask.secret(f"Key for {provider} ({without}; the name of a variable is fine too)")
    if typed:
        desk.draft.put(as_written(typed, provider), "providers", provider, "api_key")
    elif not needed and desk.draft.get("providers", provider) is None:
        desk.draft.put({}, "providers", provider)
    return bool(typed) or not needed


def try_out(desk: Desk, provider: str, before: Any, place: int | None = None) -> None:
    """Call the provider, and ask what to do until it works, or is wanted as it is, or is left out.

    `before` is its entry as it was, None where there was none. `place` is that of the key to try among `listed`;
    without it the entry is tried as it is.
    """
    while True:
        found = _try(desk, provider, place)
        if found.key_works:
            return
        choice = desk.ask.pick("What now?", _ways_out(before))
        if choice == "again":
            _type_again(desk, provider, place or 0)
        elif choice == "address":
            usual = desk.draft.get("providers", provider, "base_url", default=found.url)
            desk.draft.put(desk.ask.text("Address", usual=usual), "providers", provider, "base_url")
        elif choice == "keep":
            return
        elif choice == "leave":
            put_back(desk.draft, provider, before)
            return


def _ways_out(before: Any) -> list[Choice]:
    return [
        Choice("again", "type the key again"),
        Choice("address", "change its address"),
        Choice("retry", "try once more"),
        Choice("keep", "keep it as it is"),
        Choice("leave", "leave it out" if before is None else "put it back as it was"),
    ]


def put_back(draft: Draft, provider: str, before: Any) -> None:
    """Give a provider the entry that it had."""
    if before is None:
        draft.remove("providers", provider)
    else:
        draft.put(before, "providers", provider)


def _try(desk: Desk, provider: str, place: int | None) -> Probe:
    entry = None if place is None else _with_one_key(desk.draft, provider, place)
    found = desk.probe_one(provider, entry)
    desk.tell(found)
    if found.ok and not found.answered and any(model.chat for model in found.models):
        question = "Make one call of a few tokens that may cost a fraction of a cent, to be sure of the key?"
        if desk.ask.agree(question, usual=False):
            found = desk.probe_one(provider, entry, paid=True)
            desk.tell(found)
    return found


def _with_one_key(draft: Draft, provider: str, place: int) -> JsonObject:
    """The entry as if that key were its only one."""
    entry = {**draft.get("providers", provider), "api_key": listed(draft, provider)[place]}
    entry.pop("api_keys", None)
    return entry


def _type_again(desk: Desk, provider: str, place: int) -> None:
    typed = desk.ask.secret(f"Key for {provider} (empty: the same)")
    if typed:
        replace(desk.draft, provider, place, as_written(typed, provider))


def replace(draft: Draft, provider: str, place: int, key: str) -> None:
    """Put a key in the place of another one of `listed`."""
    has_first = bool(draft.get("providers", provider, "api_key"))
    keys = list(draft.get("providers", provider, "api_keys", default=()))
    if not keys or (has_first and place == 0):
        draft.put(key, "providers", provider, "api_key")
        return
    keys[place - has_first] = key
    draft.put(keys, "providers", provider, "api_keys")


def add(draft: Draft, provider: str, key: str) -> int:
    """Write one more key down; its place among `listed`."""
    keys = list(draft.get("providers", provider, "api_keys", default=()))
    draft.put([*keys, key], "providers", provider, "api_keys")
    return len(listed(draft, provider)) - 1
