"""The step about names of one's own: pools of models, and aliases."""

from __future__ import annotations

from llmproxy.core.config import RESERVED_NAMES
from llmproxy.core.names import POOL_WORDS
from llmproxy.core.types import JsonObject
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk

BUILT_IN = (
    ("llmproxy/auto", "everything free and everything local, best first"),
    ("llmproxy/free", "free tiers only"),
    ("llmproxy/local", "only what runs in this machine"),
    ("llmproxy/tools, /vision, /json, /reasoning", "those known to be capable first; also paid ones"),
    ("llmproxy/tools/free", "any of these, free only"),
)
_CAPABILITIES = (
    ("tools", "calls tools"),
    ("vision", "reads images"),
    ("json", "keeps to JSON"),
    ("reasoning", "thinks before it answers"),
)
_ORDERS = (
    ("best", "the best first"),
    ("as_listed", "in the order in which they are listed"),
    ("fastest", "the fastest first"),
    ("cheapest", "the cheapest first"),
    ("round_robin", "in turn"),
)


def step(desk: Desk) -> None:
    """Offer pools and aliases; the built-in names are enough for most."""
    desk.head("Pools and aliases")
    desk.ask.say("These names work already:")
    desk.rows(list(BUILT_IN))
    while True:
        choice = desk.ask.pick("Names of your own", _menu(desk), usual="on")
        if choice == "on":
            return
        if choice == "pool":
            _pool(desk)
        elif choice == "alias":
            _alias(desk)
        else:
            section, name = choice
            if desk.ask.agree(f"Remove {section}.{name}?", usual=False):
                desk.draft.remove(section, name)


def _menu(desk: Desk) -> list[Choice]:
    choices = [
        Choice("on", "go on"),
        Choice("alias", "an alias: another name for a model or a pool, such as gpt-4o-mini"),
        Choice("pool", "a pool: several models under one name"),
    ]
    draft = desk.draft
    choices += [Choice(("aliases", name), f"remove the alias {name}") for name in draft.names("aliases")]
    choices += [Choice(("pools", name), f"remove the pool {name}") for name in draft.names("pools")]
    return choices


def pool_problem(name: str) -> str:
    """Why a pool cannot be called that; nothing where it can."""
    if not name or name.startswith("_") or name.split() != [name] or "/" in name or "__" in name:
        return "A name has no blanks, no / and no __, and does not begin with _."
    return f"{name} is taken." if name in RESERVED_NAMES or name in POOL_WORDS else ""


def alias_problem(name: str) -> str:
    """Why an alias cannot be called that; nothing where it can."""
    return "" if name and not name.startswith("_") and name == name.strip() else "A name does not begin with _."


def pool_of(globs: list[str], order: str = "as_listed") -> JsonObject:
    """A pool of these models, as it is written."""
    return {"where": {"models": globs}, "order": order}


def _pool(desk: Desk) -> None:
    ask = desk.ask
    name = ask.text("Its name; clients will ask for llmproxy/<name>", check=pool_problem)
    how = ask.pick(
        "What is in it?",
        [Choice("models", "models that I choose"), Choice("all", "all models that can do something")],
    )
    where = _by_models(desk) if how == "models" else _by_conditions(desk)
    if not where:
        ask.say("Nothing was chosen: no pool.")
        return
    orders = _ORDERS if how == "all" else (_ORDERS[1], _ORDERS[0], *_ORDERS[2:])
    order = ask.pick("Who is asked first?", [Choice(value, title) for value, title in orders])
    desk.draft.put({"where": where, "order": order}, "pools", name)
    desk.good(f"llmproxy/{name}")


def _by_models(desk: Desk) -> JsonObject:
    """Models one after the other, so that their order is the one that was meant."""
    chosen: list[str] = []
    names = desk.model_names()
    while True:
        choices = [Choice("", "that is all" if chosen else "none: no pool")]
        choices += [Choice("*", "type a pattern, such as groq/* or */gpt-oss-*")]
        choices += [Choice(name, name) for name in names if name not in chosen]
        picked = desk.ask.pick(f"Model {len(chosen) + 1}", choices, search=True)
        if picked == "*":
            picked = desk.ask.text("Pattern over provider/model")
        if not picked:
            return {"models": chosen} if chosen else {}
        chosen.append(picked)


def _by_conditions(desk: Desk) -> JsonObject:
    where: JsonObject = {}
    wanted = desk.ask.tick("What must they be able to do?", [Choice(*pair) for pair in _CAPABILITIES])
    if wanted:
        where["capabilities"] = wanted
    if desk.ask.agree("Free ones only?"):
        where["free"] = True
    window = desk.ask.text("Smallest context window in tokens (empty: any)", check=_number_or_nothing)
    if window:
        where["min_context"] = int(window)
    return where


def _number_or_nothing(text: str) -> str:
    return "" if not text or text.isdecimal() else "A whole number."


def _alias(desk: Desk) -> None:
    name = desk.ask.text("The alias", usual="" if desk.draft.names("aliases") else "gpt-4o-mini", check=alias_problem)
    pools = [f"llmproxy/{word}" for word in ("free", "auto", "local", "tools/free", "reasoning/free")]
    pools += [f"llmproxy/{pool}" for pool in desk.draft.names("pools")]
    targets = [*pools, *desk.model_names()]
    choices = [Choice(target, target) for target in targets if target != name]
    desk.draft.put(desk.ask.pick(f"What is {name}?", choices, search=True), "aliases", name)
    desk.good(name)
