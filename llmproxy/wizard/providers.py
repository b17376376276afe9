"""The step about providers: keys that are in the environment, keys that are typed, servers of one's own."""

from __future__ import annotations

import os

from llmproxy.core.config import RESERVED_NAMES
from llmproxy.core.env import references
from llmproxy.wizard import entry as entries
from llmproxy.wizard import keys, offers
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk, in_catalogue
from providers import catalog as provider_catalog
from providers.catalog import Entry

_GO_ON, _OWN = object(), object()


def step(desk: Desk) -> None:
    """Ask for providers until there are enough."""
    desk.head("Providers")
    found = from_environment(desk)
    while (chosen := _chosen(desk)) is not _GO_ON:
        if chosen is _OWN:
            _own(desk)
        elif _is_whole(desk, str(chosen)):
            entries.change(desk, str(chosen))
        else:
            _add(desk, str(chosen))
    if not desk.draft.names("providers"):
        # A file that names no provider uses whatever the environment has.
        for entry in filter(_is_complete, found):
            desk.draft.put({"enabled": False}, "providers", entry.id)


def found_in_environment(desk: Desk) -> list[Entry]:
    """The providers of the catalogue whose variable is set, and that the draft does not name."""
    named = set(desk.draft.names("providers"))
    return [entry for entry in offers.usable() if entry.key_variable and entry.id not in named]


def from_environment(desk: Desk) -> list[Entry]:
    """Offer the keys that are in the environment, and tell what was found; only references are written down."""
    found = found_in_environment(desk)
    if not found:
        return []
    likely = likely_wanted(found)
    desk.ask.say("There are keys in your environment. The file will only refer to them.")
    chosen = desk.ask.tick(
        "Use these?",
        [Choice(entry.id, f"{entry.key_variable} - {offers.title(entry)}", entry in likely) for entry in found],
    )
    use_variables(desk, chosen)
    for name, one in desk.probe(chosen).items() if chosen else ():
        desk.tell(one)
        if not one.key_works and not desk.ask.agree(f"Keep {name} all the same?", usual=False):
            desk.draft.remove("providers", name)
    return found


def use_variables(desk: Desk, names: list[str]) -> None:
    """Write references to the usual variables of providers."""
    for name in names:
        variable = provider_catalog.catalog()[name].key_variable
        if variable is not None:
            desk.draft.put("${" + variable + "}", "providers", name, "api_key")


def likely_wanted(found: list[Entry]) -> list[Entry]:
    """Those that lack nothing, and of two that spend one budget the one whose budget it is."""
    names = {entry.id for entry in found}
    return [
        entry for entry in found if _is_complete(entry) and (entry.quirks or {}).get("shares_limits_with") not in names
    ]


def _is_complete(entry: Entry) -> bool:
    """Whether nothing else is missing, such as an account id."""
    return all(os.environ.get(name) for name in offers.address_variables(entry))


def _chosen(desk: Desk) -> object:
    ask, draft = desk.ask, desk.draft
    used = draft.names("providers")
    choices = [Choice(_GO_ON, "go on, these are enough" if used else "go on without a provider")]
    choices += [Choice(name, f"{name}: change ({keys.told(draft, name)})") for name in used]
    choices += [Choice(entry.id, offers.title(entry)) for entry in offers.usable() if entry.id not in used]
    choices.append(Choice(_OWN, "another server with an OpenAI-compatible address"))
    return ask.pick("Add or change a provider", choices, usual=_GO_ON, search=True)


def _is_whole(desk: Desk, name: str) -> bool:
    """Whether a provider is in the draft with all that it needs."""
    if desk.draft.get("providers", name) is None:
        return False
    entry = provider_catalog.catalog().get(name)
    return bool(keys.listed(desk.draft, name)) or entry is None or not entry.key_required or bool(entry.key_variable)


def _add(desk: Desk, name: str) -> None:
    """A provider of the catalogue: what is free, where a key is made, the key, a call."""
    entry = provider_catalog.catalog().get(name)
    before = desk.draft.get("providers", name)
    if entry is not None:
        desk.head(entry.name)
        desk.rows(list(offers.page(entry, desk.today)))
        _ask_address(desk, entry)
    if not keys.ask_for(desk, name):
        keys.put_back(desk.draft, name, before)
        return
    keys.try_out(desk, name, before)


def _ask_address(desk: Desk, entry: Entry) -> None:
    """What the address needs, such as an account id: from the environment, else written into the address."""
    draft = desk.draft
    if draft.get("providers", entry.id, "base_url"):
        return
    missing = [name for name in offers.address_variables(entry) if not os.environ.get(name)]
    for name in offers.address_variables(entry):
        if name not in missing:
            desk.ask.say(f"{name} is taken from the environment.")
    values = {name: value for name in missing if (value := desk.ask.text(f"{name} (empty: set that variable later)"))}
    if values:
        draft.put(offers.filled(entry.base_url, values), "providers", entry.id, "base_url")
        if entry.models_url and references(entry.models_url):
            draft.put(offers.filled(entry.models_url, values), "providers", entry.id, "models_url")


def _own(desk: Desk) -> None:
    """A server that the catalogue does not know."""
    ask = desk.ask
    name = ask.text("Name for it, as models will be called (name/model)", check=lambda text: name_problem(desk, text))
    url = ask.text("Its address, as in http://gpu-box:8000/v1", check=url_problem)
    desk.draft.put(url.rstrip("/"), "providers", name, "base_url")
    keys.ask_for(desk, name)
    keys.try_out(desk, name, None)


def name_problem(desk: Desk, name: str) -> str:
    """Why a provider cannot be called that; nothing where it can."""
    if not name or "/" in name or "__" in name or name.startswith("_") or name.split() != [name]:
        return "A name has no blanks, no / and no __, and does not begin with _."
    if name in RESERVED_NAMES or in_catalogue(name):
        return f"{name} is taken."
    return f"{name} is there already." if desk.draft.get("providers", name) is not None else ""


def url_problem(url: str) -> str:
    """Why an address cannot be used; nothing where it can."""
    scheme, found, rest = url.partition("://")
    if scheme not in ("http", "https") or not found or not rest or rest.startswith("/"):
        return "An address begins with http:// or https://."
    return ""
