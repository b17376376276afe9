"""A simulation as the command line runs it: from a configuration and files to numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llmproxy.core.config import Config, parse
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import Model
from llmproxy.gateway.dispatch import Settings
from llmproxy.gateway.ledger import Ledger
from llmproxy.routing.book import Book
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.declared import Rule
from llmproxy.simulation.demand import Request, read
from llmproxy.simulation.engine import Simulation
from llmproxy.simulation.upstreams import Upstreams
from providers import catalog as provider_catalog

_GLOB = frozenset("*?[")


def simulate(
    config: Config, demand: Path, *, hours: float, fail: Sequence[str] = (), hidden: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Replay the first `hours` of a demand file; raises `ConfigError` for files and names that cannot be used.

    `fail` names providers that never answer; `hidden` is a file like `free_limits` with the limits that hold in truth
    where they are not the declared ones.
    """
    requests = [request for request in read(demand) if request.at_s < hours * 3600]
    offers = [
        offer for name, entry in config.providers.items() if entry.enabled and (offer := _offer(config, name)).models
    ]
    if not offers:
        raise ConfigError("providers: name models in free_limits or model_filter, so that there is somebody to ask")
    if unknown := set(fail) - config.providers.keys():
        raise ConfigError(f"--fail: {', '.join(sorted(unknown))}: not among providers")
    true = parse({"free_limits": _read_json(hidden)}, origin=str(hidden)).free_limits if hidden is not None else {}

    def declared(model: Model) -> Rule | None:
        return provider_catalog.rule_of(model, config.free_limits)

    upstreams = Upstreams(
        lambda model: provider_catalog.rule_of(model, {**config.free_limits, **true}),
        provider_catalog.reserves_output,
        frozenset(fail),
    )
    run = Simulation(
        Catalog(offers, config),
        lambda clock: Ledger(Book(declared, provider_catalog.reserves_output), clock=clock),
        upstreams,
        Settings(max_attempts=config.routing.max_attempts),
        seed,
    )
    return run.run(_known(requests, config, offers)).body()


def show(body: Mapping[str, Any]) -> None:
    """The numbers for a person."""
    console = Console(highlight=False)
    for name in ("demand", "served", "refused", "calls", "wasted", "over_limit"):
        console.print(f"{name.replace('_', ' '):>10}  {body[name]}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("candidate")
    table.add_column("served", justify="right")
    for entry in body["candidates"]:
        table.add_row(entry["model"], str(entry["served"]))
    console.print(table)


def _offer(config: Config, name: str) -> Offer:
    """The models of a provider that the configuration or the catalogue names, whether its key is there or not."""
    entry, written = provider_catalog.catalog().get(name), config.providers[name]
    limited = (key.partition("/") for key in config.free_limits)
    ids = [model for source, _, model in limited if source == name]
    ids = [one for one in [*ids, *(written.model_filter or ())] if not set(one) & _GLOB]
    ids = ids or list(entry.known_models if entry is not None else ())
    models = tuple(Model(name, one, free=True) for one in dict.fromkeys(ids))
    return Offer(name, models, credentials=max(1, len(written.keys)), exposed=written.expose_to_virtual_models)


def _known(requests: Sequence[Request], config: Config, offers: Sequence[Offer]) -> Sequence[Request]:
    """The requests, after a look whether every name in them stands for something."""
    catalog = Catalog(offers, config)
    for name in {request.pool for request in requests}:
        catalog.select(name)
    return requests


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
