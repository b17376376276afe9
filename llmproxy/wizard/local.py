"""The step about models in this machine: what fits, download with progress, a first answer."""

from __future__ import annotations

from backends.catalogue import Catalogue, Entry
from backends.weights import WeightsMissing, pull, resolve
from llmproxy.core.errors import LlmproxyError
from llmproxy.wizard import machine, trial
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk
from llmproxy.wizard.machine import Machine

_TINY = "tiny: a toy in the package, nothing to download"
_EXTRA = "Models in this machine need the local extra: pip install 'llmproxy[local]'"


def step(desk: Desk) -> None:
    """Ask which models run here."""
    desk.head("Models in this machine")
    if not machine.can_run_models():
        desk.ask.say(_EXTRA)
        return
    with desk.busy("Looking at this machine …"):
        here = machine.look(str(desk.draft.get("local", "device", default="auto")))
    desk.ask.say(f"Here: {here}.")
    known = desk.known_models()
    before = desk.local_models()
    chosen = desk.ask.tick("Which ones?", _choices(before, known, here))
    question = "Another one: a folder, or an id of the Hugging Face hub (empty: no)"
    while extra := desk.ask.text(question, check=lambda text: _no_model(text, known)):
        chosen.append(extra)
    set_models(desk, chosen)
    wanted = fetch(desk, [name for name in chosen if not machine.is_here(name, known)], known)
    set_models(desk, [name for name in chosen if name in wanted or machine.is_here(name, known)])
    _first_answer(desk, known)


def set_models(desk: Desk, names: list[str]) -> None:
    """Write the models down, each once; nothing where that is the default already."""
    names = list(dict.fromkeys(names))
    if names != desk.local_models() or desk.draft.get("local", "models") is not None:
        desk.draft.put(names, "local", "models")


def _choices(before: list[str], known: Catalogue, here: Machine) -> list[Choice]:
    """`tiny`, then those of the file, then the catalogue: those that are here, those that fit, those that do not."""
    choices = [Choice("tiny", _TINY, "tiny" in before)]
    named = {entry.name for name in before if (entry := known.find(name)) is not None}
    for name in before:
        if name != "tiny":
            entry = known.find(name)
            choices.append(Choice(name, _title(name, entry, known, here) if entry else name, True))
    fresh = [entry for entry in known.entries if entry.name not in named]
    ordered = sorted(fresh, key=lambda entry: (bool(here.refuses(entry)), not machine.is_here(entry.name, known)))
    choices += [
        Choice(entry.name, _title(entry.name, entry, known, here), False, here.refuses(entry)) for entry in ordered
    ]
    return choices


def _title(name: str, entry: Entry, known: Catalogue, here: Machine) -> str:
    needs_mb = here.needs_mb(entry)
    told = [machine.purpose(entry)]
    if needs_mb:
        told.append(machine.gib(needs_mb) + ("" if here.fits_now(entry) else ", more than is free now"))
    told.append("is here" if machine.is_here(name, known) else "to download")
    return f"{name}: {', '.join(told)}"


def fetch(desk: Desk, missing: list[str], known: Catalogue) -> list[str]:
    """Download what is not here; the names that are wanted in the file, here or not."""
    return [name for name in missing if _fetch_one(desk, name, known)]


def _fetch_one(desk: Desk, name: str, known: Catalogue) -> bool:
    if not desk.ask.agree(f"Download {name} now?"):
        desk.ask.say(f"Later: llmproxy pull {name}")
        return True
    while problem := download(name, known):
        desk.bad(problem)
        desk.ask.say(download_mend(name, problem, known))
        choice = desk.ask.pick(
            "What now?",
            [Choice("again", "try again"), Choice("keep", "keep it, download later"), Choice("drop", "leave it out")],
        )
        if choice != "again":
            return bool(choice == "keep")
    desk.good(f"{name} is here.")
    return True


def download(name: str, known: Catalogue) -> str:
    """Fetch the files of a model, with a progress bar; what went wrong, or nothing."""
    try:
        pull(name, known)
    except WeightsMissing as error:
        return str(error)
    except ImportError:
        return _EXTRA
    return ""


def download_mend(name: str, problem: str, known: Catalogue) -> str:
    """What to do about a download that failed."""
    entry = known.find(name)
    repo = entry.hf_repo_id if entry is not None else name
    if any(word in problem for word in ("401", "403", "gated", "Access to model")):
        return f"Accept its terms at https://huggingface.co/{repo}, make a token there, and set HF_TOKEN to it."
    if "404" in problem:
        return f"There is no {repo} on the hub: look for its exact name."
    return f"What was fetched is kept; go on with `llmproxy pull {name}`."


def _first_answer(desk: Desk, known: Catalogue) -> None:
    """Ask one model that chats, so that what does not work shows now."""
    chats = [name for name in desk.local_models() if _chats(name, known)]
    if not chats or not desk.ask.agree("Ask one of them something now?"):
        return
    name = chats[0] if len(chats) == 1 else desk.ask.pick("Which one?", [Choice(one, one) for one in chats])
    prompt = desk.ask.text("Say something to it", usual="What is 12 + 34?")
    answer(desk, name, prompt)


def _chats(name: str, known: Catalogue) -> bool:
    try:
        return resolve(name, known).kind in ("chat", "vision")
    except WeightsMissing:
        return False


def _no_model(text: str, known: Catalogue) -> str:
    """Why something cannot be a model; nothing where it is one, or can be downloaded."""
    if not text:
        return ""
    try:
        resolve(text, known)
    except WeightsMissing as error:
        return "" if str(error).startswith("run: ") else f"{str(error)[0].upper()}{str(error)[1:]}."
    return ""


def answer(desk: Desk, name: str, prompt: str) -> bool:
    """Load one local model, ask it, and show what it says; False when that does not work."""
    config = desk.draft.config()
    alone = config.model_copy(update={"local": config.local.model_copy(update={"models": (name,)})})
    try:
        with desk.busy(f"Loading {name} …"):
            told = trial.answer(alone, desk.draft.path, trial.local_name(name, desk.known_models()), prompt)
    except LlmproxyError as error:
        desk.bad(f"{name}: {error.message}")
        return False
    desk.good(f"{told.model} in {told.seconds:.1f} s: {told.text}")
    return True
