"""A simulation as the command line runs it: from a configuration and files to numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from llmproxy.core.config import Config, FreeLimit, parse
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import Model
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.declared import Rule
from llmproxy.simulation.bound import Side, bound, solver
from llmproxy.simulation.demand import Request, read
from llmproxy.simulation.engine import BEGIN, Policy, Simulation
from llmproxy.simulation.quota import STEPS, Quota
from llmproxy.simulation.routing import Routing
from llmproxy.simulation.upstreams import Upstreams
from providers import catalog as provider_catalog

_GLOB = frozenset("*?[")


class Setting(NamedTuple):
    """What a policy is made of; `rule` finds the declared limits of a model."""

    catalog: Catalog
    rule: Callable[[Model], Rule | None]
    max_attempts: int
    seed: int


def simulate(
    config: Config,
    demand: Path,
    *,
    hours: float,
    fail: Sequence[str] = (),
    hidden: Path | None = None,
    seed: int = 0,
    plot: Path | None = None,
) -> dict[str, Any]:
    """Replay the first `hours` of a demand file; raises `ConfigError` for files and names that cannot be used.

    `fail` names providers that never answer; `hidden` is a file like `free_limits` with the limits that hold in truth
    where they are not the declared ones; `plot` is where the picture goes.
    """
    if plot is not None and plot.suffix != ".svg":
        raise ConfigError(f"--plot: {plot}: the name must end in .svg")
    requests = [request for request in read(demand) if request.at_s < hours * 3600]
    if unknown := set(fail) - config.providers.keys():
        raise ConfigError(f"--fail: {', '.join(sorted(unknown))}: not among providers")
    true = parse({"free_limits": _read_json(hidden)}, origin=str(hidden)).free_limits if hidden is not None else {}
    quota = Quota() if plot is not None else None
    body = replay(config, requests, fail=fail, true=true, seed=seed, quota=quota)
    if plot is not None and quota is not None:
        try:
            plot.write_text(quota.svg(), "utf-8")
        except OSError as error:
            raise ConfigError(f"--plot: {plot}: cannot be written: {error}") from error
    return body


def routing_of(setting: Setting) -> Policy:
    """The routing of the server."""
    return Routing(
        setting.catalog, setting.rule, provider_catalog.reserves_output, setting.max_attempts, setting.seed
    )  # fmt: skip


def replay(
    config: Config,
    requests: Sequence[Request],
    *,
    fail: Sequence[str] = (),
    true: Mapping[str, FreeLimit] | None = None,
    seed: int = 0,
    policy: Callable[[Setting], Policy] = routing_of,
    quota: Quota | None = None,
) -> dict[str, Any]:
    """The numbers of one run. `true` are limits that are not the declared ones; `quota` is told what is left."""
    solver()  # told now when it is not there
    offers = [
        offer for name, entry in config.providers.items() if entry.enabled and (offer := _offer(config, name)).models
    ]
    if not offers:
        raise ConfigError("providers: name models in free_limits or model_filter, so that there is somebody to ask")
    upstreams = Upstreams(
        lambda model: provider_catalog.rule_of(model, {**config.free_limits, **(true or {})}),
        provider_catalog.reserves_output,
        frozenset(fail),
    )
    catalog = Catalog(offers, config)
    for name in {request.pool for request in requests}:
        catalog.select(name)  # told now when it stands for nothing
    setting = Setting(
        catalog, lambda model: provider_catalog.rule_of(model, config.free_limits), config.routing.max_attempts, seed
    )  # fmt: skip
    run = Simulation(policy(setting), upstreams)
    if quota is not None and requests:
        candidates = [candidate for model in catalog.models for candidate in catalog.credentials_of(model)]
        end_s = requests[-1].at_s + 1.0
        for step in range(STEPS + 1):
            at_s = end_s * step / STEPS
            run.at(at_s, partial(quota.look, upstreams, candidates, at_s))
    body = run.run(requests).body()
    most = bound(requests, _sides(requests, catalog, upstreams), BEGIN)
    return {**body, "bound": most, "bound_ratio": round(body["served"] / most, 5) if most else None}


def show(body: Mapping[str, Any]) -> None:
    """The numbers for a person."""
    console = Console(highlight=False)
    for name in ("demand", "served", "refused", "calls", "wasted", "over_limit", "bound", "bound_ratio"):
        console.print(f"{name.replace('_', ' '):>11}  {body[name]}")
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


def _sides(requests: Sequence[Request], catalog: Catalog, upstreams: Upstreams) -> dict[str, list[Side]]:
    """Who may take the requests for each name, of those that answer at all."""
    return {
        name: [
            Side(candidate.key, upstreams.limits(candidate), upstreams.ahead(candidate))
            for candidate in catalog.select(name).candidates
            if candidate.model.source not in upstreams.dead
        ]
        for name in sorted({request.pool for request in requests})
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
