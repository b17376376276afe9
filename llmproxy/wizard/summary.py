"""The end of the setup: what is in the file, a call through it, and how to use it from elsewhere."""

from __future__ import annotations

from llmproxy.access import check_access
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError, LlmproxyError
from llmproxy.wizard import keys, listen, snippets, trial
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk
from llmproxy.wizard.snippets import Snippet

_EVERYTHING = "llmproxy/auto"


def rows(desk: Desk) -> list[tuple[str, str]]:
    """What the draft holds: (part, text), keys masked."""
    draft = desk.draft
    told = [(f"provider {name}", _provider(desk, name)) for name in draft.names("providers")]
    told = told or [("providers", "those whose key is in the environment")]
    told.append(("in this machine", ", ".join(desk.local_models()) or "none"))
    told += [(f"pool {name}", f"llmproxy/{name}") for name in draft.names("pools")]
    told += [(f"alias {name}", str(draft.get("aliases", name))) for name in draft.names("aliases")]
    number = len(draft.get("server", "api_keys", default=()))
    secured = f"{number} key{'s' if number > 1 else ''}" if number else "no key needed"
    return [*told, ("listens on", f"{listen.host(draft)}:{listen.port(draft)}, {secured}")]


def _provider(desk: Desk, name: str) -> str:
    url = desk.draft.get("providers", name, "base_url")
    known = f"{len(desk.lists[name])} models" if name in desk.lists else ""
    return ", ".join(part for part in (keys.told(desk.draft, name), known, url or "") if part)


def show(desk: Desk) -> None:
    """Print what the draft holds."""
    desk.head("What is in it")
    desk.rows([(part, text) for part, text in rows(desk)])


def call(desk: Desk, config: Config) -> bool:
    """One call through the finished configuration; False when nobody answered."""
    if (
        not desk.local_models()
        and desk.lists
        and not any(model.free for models in desk.lists.values() for model in models)
    ):
        desk.ask.say(
            "None of these models is known to be free, so none was called. Ask for them by name, or in a pool."
        )
        return True
    try:
        check_access(config)
        with desk.busy("Starting it once, for a call …"):
            told = trial.answer(config, desk.draft.path, _EVERYTHING)
    except (LlmproxyError, ConfigError) as error:
        desk.bad(f"A call of {_EVERYTHING} fails: {error.message}")
        desk.ask.say("    `llmproxy check --live` tells what is wrong, and how to mend it.")
        return False
    desk.good(f"{_EVERYTHING} answers: {told.model} in {told.seconds:.1f} s: {told.text}")
    return True


def how_to_start(desk: Desk) -> None:
    """The command that serves this file."""
    from llmproxy.core.config import default_path

    usual = desk.draft.path == default_path().expanduser().resolve()
    desk.ask.say("Start it:")
    desk.ask.code("    llmproxy serve" if usual else f"    llmproxy serve --config {desk.draft.path}")


def offer_snippets(desk: Desk, config: Config) -> None:
    """Print what is asked for, until nothing is."""
    known = snippets.available()
    while True:
        choices = [Choice("", "nothing more"), Choice("all", "all of them")]
        choices += [Choice(snippet.name, snippet.title) for snippet in known]
        chosen = desk.ask.pick("How to use it from elsewhere?", choices)
        if not chosen:
            return
        print_snippets(desk, config, known if chosen == "all" else [one for one in known if one.name == chosen])


def print_snippets(desk: Desk, config: Config, chosen: list[Snippet] | None = None) -> None:
    """Print how to use the server; all of it by default."""
    at = snippets.place(config)
    if line := snippets.key_line(config, desk.draft.path):
        desk.head("The key, for all that follows")
        desk.ask.code(line)
    for snippet in snippets.available() if chosen is None else chosen:
        desk.head(snippet.title)
        desk.ask.code(snippet.make(at))
    if listen.is_open(desk.draft):
        desk.ask.say()
        desk.ask.say("From another machine, put the address of this one in the place of 127.0.0.1.")
