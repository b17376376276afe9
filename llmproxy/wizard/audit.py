"""What in a configuration leads nowhere, though it can be read: names without a model, open doors, missing memory."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.weights import Weights
from llmproxy.access import check_access
from llmproxy.core.config import Config, Pool
from llmproxy.core.env import MissingVariable, Secret
from llmproxy.core.errors import ConfigError, ModelNotFound
from llmproxy.core.names import matches, matches_id
from llmproxy.core.types import Model
from llmproxy.routing.catalog import Catalog
from llmproxy.wizard.diagnose import Finding
from llmproxy.wizard.machine import Machine

_OTHERS = 0o077


def of_file(path: Path | None) -> Iterator[Finding]:
    """Who can read the file."""
    try:
        mode = path.stat().st_mode if path is not None else 0
    except OSError:
        return
    if mode & _OTHERS:
        problem = f"others on this machine may read the file, and the keys in it (mode {stat.S_IMODE(mode):04o})"
        yield Finding(str(path), problem, f"Run: chmod 600 {path}", fatal=False)


def of_keys(config: Config) -> Iterator[Finding]:
    """Keys of a provider that are left out because their variable is not set, though another key is there."""
    for name, provider in config.providers.items():
        missing = [error for secret in provider.keys if (error := _missing(secret)) is not None]
        if provider.enabled and len(missing) < len(provider.keys):
            for error in missing:
                mend = f"Run: export {error.name}=…, or remove that key."
                yield Finding(f"providers.{name}", f"{error}, so one of its keys is left out", mend, fatal=False)


def _missing(secret: Secret) -> MissingVariable | None:
    try:
        secret.reveal()
    except MissingVariable as error:
        return error
    return None


def of_server(config: Config) -> Iterator[Finding]:
    """Whether it would start, and whether all keys are there."""
    try:
        check_access(config)
    except ConfigError as error:
        where, _, problem = error.message.partition(": ")
        yield Finding(where, problem, _door_mend(problem))
    try:
        config.state.address()
    except ConfigError as error:
        where, _, problem = error.message.partition(": ")
        yield Finding(where, problem, _door_mend(problem))
    if config.admin.token is not None and (missing := _missing(config.admin.token)) is not None:
        mend = f"Run: export {missing.name}=…, or remove admin.token."
        yield Finding("admin.token", str(missing), mend, fatal=False)


def _door_mend(problem: str) -> str:
    found = re.search(r"variable (\w+) is not set", problem)
    if found:
        return f"Run: export {found[1]}=…"
    return "Run `llmproxy setup`: it makes a key, or listens on this machine alone."


def of_names(config: Config, catalog: Catalog, unknown: frozenset[str]) -> Iterator[Finding]:
    """Aliases and pools that stand for nothing. What would be at providers of `unknown`, which failed, is not told."""
    for name, target in config.aliases.items():
        if not any(target.startswith((f"{source}/", f"{source}__")) for source in unknown):
            yield from _of_alias(name, target, catalog)
    for name, pool in config.pools.items():
        yield from _of_pool(name, pool, catalog, unknown)


def _of_alias(name: str, target: str, catalog: Catalog) -> Iterator[Finding]:
    where = f"aliases.{name}"
    try:
        selection = catalog.select(target)
    except ModelNotFound as error:
        yield Finding(where, f"stands for {target!r}, which does not exist", f"Change or remove it ({error.message}).")
        return
    if not selection.candidates:
        hint = f": {selection.hint}" if selection.hint else ""
        yield Finding(where, f"stands for {target!r}, which has no model", f"Fill it{hint}; or change the alias.")
    elif not selection.pool:
        yield from _of_unlisted(where, selection.candidates[0].model, catalog)


def _of_unlisted(where: str, model: Model, catalog: Catalog) -> Iterator[Finding]:
    listed = {one.name for one in catalog.models}
    if model.name not in listed and any(one.source == model.source for one in catalog.models):
        likely = " or ".join(catalog.suggestions(model.name))
        mend = f"It may have been retired: try it, or take {likely}." if likely else "It may have been retired: try it."
        yield Finding(where, f"{model.name} is not in the list of {model.source}", mend, fatal=False)


def _of_pool(name: str, pool: Pool, catalog: Catalog, unknown: frozenset[str]) -> Iterator[Finding]:
    where = f"pools.{name}"
    for source in pool.where.providers:
        if source not in catalog.offers:
            mend = f"Add it with `llmproxy setup`, or take it out of {where}.where.providers."
            yield Finding(where, f"there is no provider {source}", mend, fatal=False)
    for glob in pool.where.models:
        source = glob.partition("/")[0]
        if source not in unknown and not any(matches((glob,), one.source, one.id) for one in catalog.models):
            likely = " or ".join(catalog.suggestions(glob))
            mend = f"Take {likely} in its place." if likely else "Correct or remove it; `llmproxy models` lists them."
            yield Finding(where, f"no model is called {glob}", mend, fatal=False)
    if not unknown and not catalog.select(f"llmproxy/{name}").candidates:
        yield Finding(
            where, "no model meets it", f"Ask for less in {where}.where, or add a provider that has such models."
        )


def of_filter(provider: str, patterns: Sequence[str] | None, listed: Sequence[Model]) -> Iterator[Finding]:
    """Entries of a `model_filter` that let nothing through."""
    where = f"providers.{provider}.model_filter"

    def lets_through(pattern: str) -> bool:
        return any(matches_id((pattern,), one.id) or matches((pattern,), provider, one.id) for one in listed)

    idle = [pattern for pattern in patterns or () if not lets_through(pattern)]
    if idle:
        told = ", ".join(idle)
        mend = "Correct it, or remove it to use all models; a model may have been retired."
        yield Finding(where, f"no model of its list is called {told}", mend, fatal=len(idle) == len(patterns or ()))


def of_memory(weights: Sequence[Weights], warm: frozenset[str], machine: Machine) -> Iterator[Finding]:
    """Models of `local.models` that this machine is too small for."""
    for one in weights:
        if one.name in warm and machine.devices and (reason := machine.refuses(one.entry)):
            mend = "Take a smaller one: `llmproxy setup` shows what fits."
            yield Finding("local.models", f"{one.name} does not fit: it {reason}", mend, fatal=False)
