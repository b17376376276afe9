"""What every step of the setup works with: the questions, the draft, and what was learned on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.table import Table

from backends import catalogue as catalogues
from backends.catalogue import Catalogue
from backends.weights import WeightsMissing, resolve
from llmproxy.core.config import Provider
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import JsonObject, Model
from llmproxy.wizard import probe
from llmproxy.wizard.ask import Ask
from llmproxy.wizard.draft import Draft
from llmproxy.wizard.offers import FreeToday, free_today
from llmproxy.wizard.probe import Probe
from providers import catalog as provider_catalog


@dataclass(slots=True)
class Desk:
    """`lists` are the models of the providers that were asked in this run; `ports` where to look for servers."""

    ask: Ask
    draft: Draft
    ports: Mapping[str, int]
    today: FreeToday = free_today
    lists: dict[str, tuple[Model, ...]] = field(default_factory=dict)

    def busy(self, what: str) -> AbstractContextManager[Any]:
        """A sign that something is going on; on a terminal only."""
        return self.ask.console.status(escape(what))

    def head(self, title: str) -> None:
        """The heading of a step."""
        self.ask.say()
        self.ask.say(title, "bold")

    def rows(self, rows: list[tuple[str, ...]]) -> None:
        """A table without lines."""
        table = Table(box=None, pad_edge=False, show_header=False)
        for _ in rows[0] if rows else ():
            table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))
        self.ask.console.print(table)

    def good(self, text: str) -> None:
        self.ask.say(f"ok: {text}", "green")

    def bad(self, text: str) -> None:
        self.ask.say(text, "red")

    def probe(self, names: Sequence[str], *, call: bool = True, paid: bool = False) -> dict[str, Probe]:
        """Ask providers of the draft now, and remember their lists."""
        providers = self.draft.config().providers
        return self._probe({name: providers.get(name, Provider()) for name in names}, call=call, paid=paid)

    def probe_one(self, name: str, entry: JsonObject | None = None, *, call: bool = True, paid: bool = False) -> Probe:
        """Ask one provider, as if `entry` were what the draft says of it."""
        written = self.draft.config().providers.get(name, Provider())
        if entry is not None:
            written = Provider.model_validate(entry)
        return self._probe({name: written}, call=call, paid=paid)[name]

    def _probe(self, asked: Mapping[str, Provider], *, call: bool, paid: bool) -> dict[str, Probe]:
        with self.busy(f"Asking {', '.join(asked)} …"):
            found = probe.ask(asked, self.draft.config(), call=call, paid=paid)
        for one in found:
            if one.models:
                self.lists[one.provider] = one.models
            if one.base_url:
                self.ask.say(f"The API is at {one.base_url}: that is written down.")
                self.draft.put(one.base_url, "providers", one.provider, "base_url")
        return {one.provider: one for one in found}

    def tell(self, found: Probe) -> None:
        """What a provider did, with the names of its models or with what is wrong."""
        if found.finding is None:
            self.good(f"{found.provider}: {probe.summary(found)}")
            names = probe.names(found.models)
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            self.ask.say(f"    {', '.join(names[:_SHOWN])}{more}", "dim")
            return
        self.bad(f"{found.provider}: {found.finding.problem}")
        self.ask.say(f"    {found.finding.mend}")

    def providers(self) -> list[str]:
        """The providers of the draft that are in use."""
        return [
            name for name in self.draft.names("providers") if self.draft.get("providers", name, "enabled") is not False
        ]

    def model_names(self) -> list[str]:
        """Every concrete name that is known by now, `provider/id`; lists that are missing are fetched."""
        missing = [name for name in self.providers() if name not in self.lists]
        if missing:
            self.probe(missing, call=False)
        names = [model.name for models in self.lists.values() for model in sorted(models, key=lambda one: not one.free)]
        return [*names, *self._local_names()]

    def _local_names(self) -> list[str]:
        known, names = self.known_models(), []
        for entry in self.local_models():
            with contextlib.suppress(WeightsMissing):
                names.append(f"local/{resolve(entry, known).name}")
        return names

    def known_models(self) -> Catalogue:
        """The catalogue of local models, as seen from the folder of the configuration."""
        try:
            return catalogues.load(self.draft.path.parent, self.draft.config().local.catalog)
        except ConfigError as error:
            self.bad(error.message)
            return catalogues.built_in()

    def local_models(self) -> list[str]:
        """The entries of `local.models`, or its default."""
        return list(self.draft.get("local", "models", default=["tiny"]))


_SHOWN = 12


def in_catalogue(name: str) -> bool:
    """Whether the address of a provider is known without a word about it."""
    return name in provider_catalog.catalog()
