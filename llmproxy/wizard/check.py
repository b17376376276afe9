"""`llmproxy check`: what works, what does not, and how to mend it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llmproxy.app import Parts, read_parts
from llmproxy.core.config import Config
from llmproxy.core.types import JsonObject
from llmproxy.routing.catalog import Catalog
from llmproxy.wizard import audit, diagnose, machine, probe
from llmproxy.wizard.diagnose import Finding
from llmproxy.wizard.probe import Probe
from providers.http import new_session


async def check(config: Config, *, live: bool, path: Path | None = None) -> JsonObject:
    """Each provider: is its key there, does its list answer, and (live) does it answer one tiny call.

    `findings` tell all that is wrong, with what mends it; `ok` is whether everything that was configured works.
    """
    parts = read_parts(config, folder=path and path.parent)
    async with new_session(config.server.connect_timeout) as session:
        probes = await asyncio.gather(
            *(probe.of_settings(settings, config, session, call=live) for settings in parts.providers.values())
        )
    results = [_missing_entry(name, reason) for name, reason in parts.missing.items()]
    results += [
        {"source": f"local/{weights.name}", "ok": True, "models": 1, "folder": str(weights.folder)}
        for weights in parts.weights
    ]
    results += [_probe_entry(found, live=live) for found in probes]
    here = await machine.measure(config.local.device)
    findings = [*_of_sources(config, parts, probes, live=live), *_of_rest(config, parts, probes, path, here)]
    return {
        "ok": not any(finding.fatal for finding in findings),
        "warnings": list(config.warnings),
        "sources": results,
        "findings": [finding.body() for finding in findings],
    }


def _missing_entry(name: str, reason: str) -> JsonObject:
    return {"source": name, "ok": False, "problem": reason, "fix": diagnose.of_missing(name, reason).mend}


def _probe_entry(found: Probe, *, live: bool) -> JsonObject:
    entry: JsonObject = {"source": found.provider, "url": found.url, "keys": found.keys, "ok": found.ok}
    if found.listed:
        entry |= {"models": len(found.models), "list_ms": round(found.list_s * 1000)}
    if found.answered:
        entry |= {"live_model": found.answered, "live_ms": round(found.call_s * 1000)}
    finding = found.finding or (_uncalled(found) if live and not found.answered else None)
    if finding is not None:
        entry |= {"ok": False, "problem": finding.problem, "fix": finding.mend}
    return entry


def _uncalled(found: Probe) -> Finding:
    mend = "If there is one after all, let model_filter through it, or name it there."
    return Finding(f"providers.{found.provider}", found.uncalled, mend)


def _of_sources(config: Config, parts: Parts, probes: Sequence[Probe], *, live: bool) -> Iterator[Finding]:
    """What keeps sources from working. Those that only the environment or a default brought in may fail."""
    for name, reason in parts.missing.items():
        written = config.providers.get(name)
        if name == "local":
            asked = "models" in config.local.model_fields_set
            yield dataclasses.replace(diagnose.of_missing(name, reason), fatal=asked)
        elif "/" in name or (written is not None and written.enabled):
            yield diagnose.of_missing(name, reason)
    for found in probes:
        finding = found.finding or (_uncalled(found) if live and not found.answered else None)
        if finding is not None:
            yield dataclasses.replace(finding, fatal=found.provider in config.providers)


def _of_rest(
    config: Config, parts: Parts, probes: Sequence[Probe], path: Path | None, here: machine.Machine
) -> Iterator[Finding]:
    """What leads nowhere though every source works."""
    yield from audit.of_file(path)
    yield from audit.of_server(config)
    yield from audit.of_keys(config)
    lists = {found.provider: found for found in probes}
    for found in probes:
        settings = parts.providers[found.provider]
        if found.listed:
            yield from audit.of_filter(found.provider, settings.model_filter, found.listed)
    unknown = frozenset(name for name in parts.missing if "/" not in name)
    unknown |= frozenset(found.provider for found in probes if not found.listed)
    offers = [
        dataclasses.replace(offer, models=lists[offer.source].models) if offer.source in lists else offer
        for offer in parts.offers
    ]
    names = {alias: f"local/{one.name}" for one in parts.weights for alias in (one.name, *one.aliases)}
    yield from audit.of_names(
        config, Catalog(offers, config.model_copy(update={"aliases": names | config.aliases})), unknown
    )
    yield from audit.of_memory(parts.weights, parts.warm, here)


def show(body: dict[str, Any]) -> None:
    """What works and what does not, a line each; then how to mend it."""
    console = Console(highlight=False, markup=False, emoji=False)
    for warning in body["warnings"]:
        console.print(f"config: {warning}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "state", ""):
        table.add_column(heading, overflow="fold")
    for entry in body["sources"]:
        told = entry.get("problem") or f"{entry['models']} models"
        if "live_model" in entry:
            told += f"; {entry['live_model']} answered in {entry['live_ms']} ms"
        table.add_row(entry["source"], "ok" if entry["ok"] else "FAILED", told)
    console.print(table)
    for fatal, heading in ((True, "To mend"), (False, "To look at")):
        found = [one for one in body["findings"] if one["fatal"] == fatal]
        if found:
            console.print(f"\n{heading}", style="bold")
        for one in found:
            console.print(f"- {one['where']}: {one['problem']}")
            console.print(f"    {one['mend']}")
