"""`llmproxy setup`: for a new file all steps in their order, for an old one those that are wanted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llmproxy.core.errors import ConfigError
from llmproxy.refresh import known_findings
from llmproxy.wizard import flags, listen, local, pools, providers, servers, summary
from llmproxy.wizard.ask import Ask, Choice, Stopped, prompts
from llmproxy.wizard.desk import Desk
from llmproxy.wizard.draft import Draft, Edit, kept_edits, sketch_of
from llmproxy.wizard.flags import Wishes
from llmproxy.wizard.offers import today_of


class Step(NamedTuple):
    """A part of the setup; `state` tells in a few words how things are."""

    name: str
    title: str
    run: Callable[[Desk], None]
    state: Callable[[Desk], str]


def _counted(desk: Desk) -> str:
    return f"{len(desk.draft.names('pools'))} pools, {len(desk.draft.names('aliases'))} aliases"


STEPS = (
    Step("providers", "providers and their keys", providers.step, lambda desk: ", ".join(desk.providers()) or "none"),
    Step("servers", "servers on this machine (Ollama, LM Studio, …)", servers.step, lambda desk: "look for them"),
    Step("local", "models in this machine", local.step, lambda desk: ", ".join(desk.local_models()) or "none"),
    Step("names", "pools and aliases", pools.step, _counted),
    Step("listen", "where to listen", listen.step, lambda desk: f"{listen.host(desk.draft)}:{listen.port(desk.draft)}"),
)
_FINISH, _ALL, _LEAVE = "finish", "all", "leave"


def setup(path: Path, wishes: Wishes) -> int:
    """The exit code: 0, or 1 where something asked for does not work. Raises `ConfigError`."""
    logging.getLogger().addHandler(logging.NullHandler())  # what goes wrong is told between the questions
    if wishes.non_interactive:
        return _from_flags(path, wishes)
    ask, ports = prompts(plain=wishes.plain), wishes.ports()
    try:
        return _with_questions(Desk(ask, _open(path, ask), ports, today_of(known_findings(path))), wishes)
    except (Stopped, KeyboardInterrupt):
        ask.say()
        _left(ask, path)
        return 1


def _left(ask: Ask, path: Path) -> int:
    if sketch_of(path.expanduser().resolve()).exists():
        ask.say("Nothing is lost: run `llmproxy setup` again to go on with your answers. The file is as it was.")
    else:
        ask.say("Stopped. There are no answers that are not in the file.")
    return 0


def _open(path: Path, ask: Ask) -> Draft:
    """The file, with the answers of a run that was broken off if they are wanted."""
    kept = kept_edits(path)
    if kept and ask.agree(f"Go on with the answers of last time ({_named(kept)})?"):
        try:
            return Draft(path, kept)
        except ConfigError as error:
            ask.say(f"They do not fit the file any more: {error.message}")
    draft = Draft(path)
    draft.forget()
    return draft


def _named(edits: tuple[Edit, ...]) -> str:
    return ", ".join(dict.fromkeys(".".join(edit.path[:2]) for edit in edits))


def _with_questions(desk: Desk, wishes: Wishes) -> int:
    draft = desk.draft
    desk.ask.say("llmproxy setup", "bold")
    desk.ask.say(f"{'The file will be' if draft.is_new else 'You are changing'} {draft.path}.")
    desk.ask.say(
        "You can stop with Ctrl-C at any time: what you entered is kept, and the file is only written at the end."
    )
    fresh = draft.is_new and not draft.changed
    flags.apply(desk, wishes)
    if fresh:
        _go_through(desk)
    while True:
        summary.show(desk)
        chosen = desk.ask.pick("What next?", _menu(desk), usual=_usual(desk), search=True)
        if chosen == _FINISH:
            return _finish(desk, wishes)
        if chosen == _LEAVE:
            return _left(desk.ask, draft.path)
        if chosen == _ALL:
            _go_through(desk)
        else:
            next(step for step in STEPS if step.name == chosen).run(desk)


def _go_through(desk: Desk) -> None:
    for step in STEPS:
        step.run(desk)


def _usual(desk: Desk) -> str:
    return _FINISH if desk.draft.changed else STEPS[0].name


def _menu(desk: Desk) -> list[Choice]:
    unwritten = desk.draft.changed or desk.draft.is_new
    last = (
        "write the file, and make a call through it" if unwritten else "make a call through it, and see how to use it"
    )
    choices = [Choice(_FINISH, last)]
    choices += [Choice(step.name, f"change {step.title} ({step.state(desk)})") for step in STEPS]
    choices.append(Choice(_ALL, "go through everything"))
    choices.append(Choice(_LEAVE, "leave; the answers are kept for later" if unwritten else "leave"))
    return choices


def _finish(desk: Desk, wishes: Wishes) -> int:
    draft = desk.draft
    config = draft.config()
    if draft.changed or draft.is_new:
        config = draft.save()
        desk.good(f"{draft.path} is written.")
        desk.ask.say("A server that runs with it takes it over; a new address needs a restart.")
    answered = summary.call(desk, config)
    summary.how_to_start(desk)
    if wishes.snippets:
        summary.print_snippets(desk, config)
    else:
        summary.offer_snippets(desk, config)
    return 0 if answered else 1


def _from_flags(path: Path, wishes: Wishes) -> int:
    desk = Desk(prompts(plain=True), Draft(path, keep=False), wishes.ports(), today_of(known_findings(path)))
    flags.apply(desk, wishes)
    if not flags.works(desk, wishes):
        desk.ask.say("Nothing was written.")
        return 1
    config = desk.draft.config()
    if desk.draft.changed or desk.draft.is_new:
        config = desk.draft.save()
        desk.good(f"{desk.draft.path} is written.")
    answered = summary.call(desk, config) if wishes.test else True
    if wishes.snippets:
        summary.print_snippets(desk, config)
    return 0 if answered else 1
