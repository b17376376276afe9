"""Changing one provider that is in the file already."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmproxy.core.env import Secret
from llmproxy.wizard import keys
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk


def change(desk: Desk, provider: str) -> None:
    """What can be done with a provider that is there."""
    off = desk.draft.get("providers", provider, "enabled") is False
    choice = desk.ask.pick(
        f"{provider} ({keys.told(desk.draft, provider)})",
        [
            Choice("nothing", "nothing, go back"),
            Choice("call", "call it now"),
            Choice("replace", "replace a key"),
            Choice("add", "add a key, which has limits of its own"),
            Choice("models", "choose which of its models are used"),
            Choice("switch", "switch it on" if off else "switch it off"),
            Choice("remove", "remove it"),
        ],
    )
    _ACTIONS[choice](desk, provider)


def _call(desk: Desk, provider: str) -> None:
    keys.try_out(desk, provider, desk.draft.get("providers", provider))


def _replace(desk: Desk, provider: str) -> None:
    written = keys.listed(desk.draft, provider)
    shown = [Choice(place, Secret(key).masked) for place, key in enumerate(written)]
    place = desk.ask.pick("Which one?", shown) if len(shown) > 1 else 0
    before = desk.draft.get("providers", provider)
    typed = desk.ask.secret(f"New key for {provider} (empty: leave it)")
    if typed:
        keys.replace(desk.draft, provider, place, keys.as_written(typed, provider))
        keys.try_out(desk, provider, before, place)


def _add(desk: Desk, provider: str) -> None:
    before = desk.draft.get("providers", provider)
    typed = desk.ask.secret(f"One more key for {provider} (empty: leave it)")
    key = keys.as_written(typed, provider)
    if key in keys.listed(desk.draft, provider):
        desk.bad("That key is there already.")
    elif typed:
        keys.try_out(desk, provider, before, keys.add(desk.draft, provider, key))


def _models(desk: Desk, provider: str) -> None:
    """A filter of ids and globs; without one all models are used, also those that are new tomorrow."""
    entry = dict(desk.draft.get("providers", provider))
    before = list(entry.pop("model_filter", None) or ())
    found = desk.probe_one(provider, entry, call=False)
    if not found.ok:
        desk.tell(found)
        return
    ids = {model.id for model in found.models}
    choices = [Choice(pattern, pattern, True) for pattern in before if pattern not in ids]
    choices += [
        Choice(model.id, f"{model.id} (free)" if model.free else model.id, model.id in before) for model in found.models
    ]
    chosen = desk.ask.tick("Which models? With none ticked all are used", choices, search=True)
    if chosen:
        desk.draft.put(chosen, "providers", provider, "model_filter")
    else:
        desk.draft.remove("providers", provider, "model_filter")


def _switch(desk: Desk, provider: str) -> None:
    if desk.draft.get("providers", provider, "enabled") is False:
        desk.draft.remove("providers", provider, "enabled")
    else:
        desk.draft.put(False, "providers", provider, "enabled")


def _remove(desk: Desk, provider: str) -> None:
    if desk.ask.agree(f"Remove {provider} and its keys from the file?", usual=False):
        desk.draft.remove("providers", provider)


_ACTIONS: Mapping[str, Callable[[Desk, str], None]] = {
    "nothing": lambda desk, provider: None,
    "call": _call,
    "replace": _replace,
    "add": _add,
    "models": _models,
    "switch": _switch,
    "remove": _remove,
}
