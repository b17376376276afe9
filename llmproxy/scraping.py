"""What `llmproxy scrape` does and shows; the server's own refreshes are in `refresh`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from yarl import URL

from llmproxy.app import Runtime, read_parts
from llmproxy.core.config import Config
from llmproxy.core.errors import LlmproxyError
from llmproxy.core.types import JsonObject
from llmproxy.inspection import running_server
from llmproxy.probing import AskingServer, probe_free
from llmproxy.refresh import Wanted, fetching, iso, open_store, refresh, scope_of, status_of, targets_of
from llmproxy.routing.findings import Findings
from providers.http import new_session
from scrapers import saved, versions
from scrapers.base import Evidence, Source
from scrapers.catalog_file import write
from scrapers.fetch import Fetched, Fetcher
from scrapers.store import EvidenceStore, Reading
from scrapers.update import Get, Got, Target

_SHOWN_CHANGES = 60


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for on the command line.

    sources: names with commas between them. from_folder: read replies that were saved there; save_folder: save those
    that are fetched. write_catalog: the file; `-` is the one that this installation reads.
    """

    sources: str = ""
    provider: str = ""
    dry_run: bool = False
    from_folder: Path | None = None
    save_folder: Path | None = None
    probes: int = 0
    write_catalog: Path | None = None
    mode: Literal["status", "rollback"] | None = None
    to_version: int | None = None

    @property
    def wanted(self) -> Wanted:
        """The part of a run that is wanted."""
        names = tuple(name.strip() for name in self.sources.split(",") if name.strip())
        return Wanted(names, self.provider)


Show = Callable[[dict[str, Any]], None]


def run(config: Config, path: Path | None, wishes: Wishes) -> tuple[JsonObject, Show, bool]:
    """Do it: (what became of it, how to show it, whether at least one source was read).

    Raises `LlmproxyError` for what cannot be done.
    """
    if wishes.mode == "status":
        return status(path), show_status, True
    if wishes.mode == "rollback":
        return roll_back(path, wishes.to_version), show_rolled_back, True
    body = asyncio.run(scrape(config, path, wishes))
    return body, show_run, any(one["status"] in ("read", "unchanged") for one in body["sources"])


async def scrape(config: Config, path: Path | None, options: Wishes) -> JsonObject:
    """One refresh by hand; a dry run leaves nothing behind. Raises `ConfigError` for a source that is none."""
    store = open_store(path, memory=config.state.url == "memory")
    try:
        place = store.copy() if options.dry_run else store
        try:
            return await _scrape(config, path, options, place)
        finally:
            if place is not store:
                place.close()
    finally:
        store.close()


def roll_back(path: Path | None, to: int | None) -> JsonObject:
    """Go back to an older version and hold it; raises `LlmproxyError` when there is none."""
    store = open_store(path)
    try:
        made = versions.roll_back(store, time.time(), to)
    except ValueError as error:
        raise LlmproxyError(str(error)) from error
    finally:
        store.close()
    return {"version": made.id, "why": made.why, "held": True, "changes": made.changes}


def status(path: Path | None) -> JsonObject:
    """The version that counts, the last refresh, and the versions that one can go back to."""
    store = open_store(path)
    try:
        return status_of(store, versions.published(store)) | {
            "held": versions.held(store) is not None,
            "versions": [
                {"version": number, "made": iso(made_s), "why": why, "changes": count}
                for number, made_s, why, count in store.versions()
            ],
        }
    finally:
        store.close()


async def _scrape(config: Config, path: Path | None, options: Wishes, store: EvidenceStore) -> JsonObject:
    parts = read_parts(config, local=False)
    targets = targets_of(config, parts.providers, options.wanted)
    scope = scope_of(config, {})
    why = "by hand" if options.from_folder is None else f"by hand, from {options.from_folder.name}"
    begun_s = time.time()
    period = f"{why} {iso(begun_s)}"
    store.claim(period, begun_s)
    probed = await _probed(config, path, store, options.probes)
    async with new_session(config.server.connect_timeout) as session:
        get = from_folder(options.from_folder) if options.from_folder else fetching(Fetcher(session, now=time.time))
        if options.save_folder is not None:
            get = saving(get, options.save_folder)
        run, decision = await refresh(store, targets, get, scope, why=why, probed=probed, by_hand=not options.dry_run)
    store.ended(period, time.time(), run.to_json())
    body = {**run.to_json(), "dry_run": options.dry_run}
    if options.write_catalog is not None and not options.dry_run:
        body["catalog_changed"] = _write_catalog(options.write_catalog, decision.findings)
    return body


def _write_catalog(path: Path, findings: Findings) -> list[str]:
    """The providers whose entries changed; raises `LlmproxyError` for a file that is no catalogue."""
    if str(path) == "-":
        path = Path(str(resources.files("providers").joinpath("catalog.json")))
    try:
        return write(path, findings)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise LlmproxyError(f"{path} was not written: {error}") from error


async def _probed(config: Config, path: Path | None, store: EvidenceStore, most: int) -> Sequence[Evidence]:
    """What tiny real requests to free models show, through the same loop and limits as any call."""
    if not most:
        return ()
    runtime = Runtime(config, path=path, local=False)
    async with runtime.listed(), running_server(config) as server:
        if server is not None:
            # Its counts are the ones that hold, and the file of them has one writer.
            session, url = server
            return await probe_free(AskingServer(session, url), runtime.inventory.catalog.models, store, most)
        async with runtime.counting():
            return await runtime.probe(store, most)


def from_folder(folder: Path) -> Get:
    """Sources as they were saved; one that was not saved says nothing. Raises `SavedError` for what cannot be read."""

    async def get(target: Target, last: Reading | None) -> Got | None:
        found = saved.read(folder, target.source.name)
        return found and Fetched(found.url, found.raw, "", "", found.seen_at_s)

    return get


def saving(get: Get, folder: Path) -> Get:
    """The same, with a copy of every reply in a folder."""

    async def get_and_save(target: Target, last: Reading | None) -> Got | None:
        got = await get(target, None)  # whole, also where nothing has changed
        if got is not None and got.raw is not None:
            saved.write(folder, target.source.name, cast(Fetched, got), _suffix(target.source))
        return got

    return get_and_save


def _suffix(source: Source) -> str:
    """What a saved reply's name ends in: what its address ends in, else what it is asked for as."""
    ending = PurePosixPath(URL(source.url).path).suffix
    return ending or (".json" if "json" in source.accept else ".html")


# -- for people ---------------------------------------------------------------------------------------------------


def show_run(body: dict[str, Any]) -> None:
    """A refresh: each source, then what changed and why."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("source", "status", "models", "claims", ""):
        table.add_column(heading, overflow="fold")
    for one in body["sources"]:
        unmatched = f"{len(one['unmatched'])} names match no known model" if one["unmatched"] else ""
        note = escape(one["error"] or unmatched)
        table.add_row(one["source"], one["status"], str(one["models"] or "-"), str(one["claims"] or "-"), note)
    console.print(table)
    show_changes(console, body["changes"])
    if "catalog_changed" in body:
        console.print(f"Catalogue: {', '.join(body['catalog_changed']) or 'nothing changed'}.")
    if body["dry_run"]:
        console.print("Nothing was kept: this was a dry run.")
    elif body["held"]:
        console.print(f"Version {body['version']} is held; run `llmproxy scrape` to let new ones through.")
    else:
        console.print(f"Version {body['version']} counts now.")


def show_changes(console: Console, changes: Sequence[dict[str, Any]]) -> None:
    """What is different, a line each, with the source that decided it."""
    if not changes:
        console.print("Nothing changed.")
        return
    counts = Counter(change["kind"] for change in changes)
    console.print(", ".join(f"{counts[kind]} {kind}" for kind in ("added", "removed", "changed") if counts[kind]))
    marks = {"added": "+", "removed": "-", "changed": "~"}
    for change in changes[:_SHOWN_CHANGES]:
        line = f"{marks[change['kind']]} {change['name']}  {change['field']}: {_difference(change)}"
        if change["source"]:
            line += f"  ({change['source']}, {change['seen']})"
        if change["against"]:
            line += f"  but {'; '.join(change['against'])}"
        console.print(escape(line))
    if len(changes) > _SHOWN_CHANGES:
        console.print(f"… and {len(changes) - _SHOWN_CHANGES} more (--json shows all)")


def show_status(body: dict[str, Any]) -> None:
    """The version that counts, the last refresh and its sources."""
    console = Console(highlight=False, soft_wrap=True)
    if not body["version"]:
        console.print("Nothing was found yet; `llmproxy scrape` looks now.")
    else:
        hold = ", held" if body["held"] else ""
        console.print(
            f"version {body['version']} of {body['made']}{hold}: {body['models']} models, {body['limits']} limits"
        )
    last = body["last"]
    if last and last["report"]:
        console.print(f"last refresh: {last['report']['why']}, {last['begun']}")
        if "error" in last["report"]:
            console.print(escape(f"it failed: {last['report']['error']}"))
        for one in last["report"].get("sources", ()):
            note = f"  {one['error']}" if one["error"] else ""
            console.print(escape(f"  {one['source']}: {one['status']}, {one['claims']} claims{note}"))
    for one in body["versions"]:
        console.print(escape(f"  version {one['version']}  {one['made']}  {one['changes']} changes  {one['why']}"))


def show_rolled_back(body: dict[str, Any]) -> None:
    """What a rollback did."""
    console = Console(highlight=False, soft_wrap=True)
    show_changes(console, body["changes"])
    console.print(f"{body['why']}; it is held as version {body['version']} until the next `llmproxy scrape`.")


def _difference(change: dict[str, Any]) -> str:
    if change["before"] is None:
        return _text(change["after"])
    return f"{_text(change['before'])} → {'gone' if change['after'] is None else _text(change['after'])}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,.12g}" if isinstance(value, float) else str(value)
