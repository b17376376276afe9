"""The server's refreshes: on schedule, once for all replicas, made up for, and taken over by every process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError
from llmproxy.refresh import Wanted, known_findings, targets_of
from llmproxy.refresher import Refresher
from llmproxy.routing.findings import Findings
from providers import catalog as provider_catalog
from scrapers.board import Board
from scrapers.sources.provider_lists import source_for
from scrapers.store import EvidenceStore
from tests.fakes.upstream import UpstreamThread
from tests.redis_server import RedisServer
from tests.servers import provider

LIST = source_for("a", "").name
NOTHING = Findings()
FOUR = datetime(2026, 11, 21, 4, 17, tzinfo=UTC).timestamp()


def config_of(upstream: UpstreamThread, **scrape: Any) -> Config:
    """One provider, whose own list is all that is read."""
    return configuration.parse(
        {"providers": {"a": provider(upstream.url)}, "scrape": {"sources": [LIST], "jitter": 0, **scrape}}
    )


class Replica:
    """A refresher over a file, and what it has taken over."""

    def __init__(
        self,
        config: Config,
        path: Path | None,
        now: Callable[[], float],
        board: Board | None = None,
        known: Findings = NOTHING,
    ) -> None:
        settings = {"a": provider_catalog.resolve("a", config.providers["a"])}
        self.adopted: list[Findings] = []
        self.store = EvidenceStore(path)
        self.refresher = Refresher(
            lambda: config, lambda: settings, dict, self.adopted.append, self.store, known=known, board=board, now=now
        )

    async def __aenter__(self) -> Replica:
        await self.refresher.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refresher.aclose()

    async def has(self, version: int, timeout_s: float = 10.0) -> None:
        """Wait until it has taken over a version."""
        async with asyncio.timeout(timeout_s):
            while self.refresher.findings.version < version:  # noqa: ASYNC110  of another process: there is no event
                await asyncio.sleep(0.02)

    @property
    def last(self) -> Any:
        return self.refresher.status()["last"]


def clock(starts_s: float) -> Callable[[], float]:
    """A clock that says so now, and goes on as time does."""
    offset_s = starts_s - time.monotonic()
    return lambda: time.monotonic() + offset_s


async def test_it_runs_at_its_time_once_for_two_replicas(upstream: UpstreamThread, tmp_path: Path) -> None:
    """Two processes over one file: at the scheduled time one of them refreshes, and both take the version over."""
    now, path = clock(FOUR - 1.0), tmp_path / "evidence.sqlite3"
    config = config_of(upstream)
    async with Replica(config, path, now) as one, Replica(config, path, now) as two:
        assert one.refresher.status()["next"] == "2026-11-21T04:17:00+00:00"
        await asyncio.gather(one.has(1), two.has(1))
        assert "a/ok" in one.adopted[-1].models
        assert one.adopted[-1] == two.adopted[-1]
        await asyncio.sleep(0.1)
        assert one.store.latest_number() == 1
        assert one.last["period"] == "2026-11-21T04:17+00:00"
        assert [report["status"] for report in one.last["report"]["sources"]] == ["read"]
        assert one.refresher.status()["next"] == "2026-11-22T04:17:00+00:00"
    assert known_findings(tmp_path / "config.json").version == 1


async def test_a_missed_run_is_made_up_for_once(upstream: UpstreamThread, tmp_path: Path) -> None:
    """After days of downtime the first start runs once, for all that was missed; a restart then runs nothing."""
    path, config = tmp_path / "evidence.sqlite3", config_of(upstream)
    async with Replica(config, path, clock(FOUR - 3600)) as first:
        await asyncio.sleep(0.1)
        assert first.last is None
    for _ in range(2):
        async with Replica(config, path, clock(FOUR + 5 * 86_400 + 600)) as later:
            await later.has(1)
            assert later.last["period"] == "2026-11-26T04:17+00:00"
    assert EvidenceStore(path).latest_number() == 1


async def test_what_is_known_is_not_taken_over_again(upstream: UpstreamThread, tmp_path: Path) -> None:
    """The version that was in use before the start stays; a newer one is taken over at the start, and later as well."""
    path, config = tmp_path / "evidence.sqlite3", config_of(upstream, schedule=None)
    found = {"models": {"a/ok": {"free": "quota"}}, "limits": {}}
    writer = EvidenceStore(path)
    writer.publish(found, [], "by hand", FOUR)
    known = known_findings(tmp_path / "config.json")
    async with Replica(config, path, clock(FOUR), known=known) as replica:
        status = replica.refresher.status()
        assert (status["version"], status["made"], status["models"]) == (1, "2026-11-21T04:17:00+00:00", 1)
        assert replica.adopted == []
        writer.publish(found, [], "by hand", FOUR)
        await replica.has(2)
    async with Replica(config, path, clock(FOUR), known=known) as replica:
        assert [findings.version for findings in replica.adopted] == [2]
    writer.close()


async def test_a_file_without_versions_takes_nothing_away(upstream: UpstreamThread) -> None:
    """Where what was known could not be opened again, it counts until something newer is found."""
    known = Findings(7, FOUR)
    async with Replica(config_of(upstream, schedule=None), None, clock(FOUR), known=known) as replica:
        assert (replica.refresher.findings, replica.adopted) == (known, [])
        await replica.refresher.run("by hand")
        assert [findings.version for findings in replica.adopted] == [1]


async def test_on_startup(upstream: UpstreamThread) -> None:
    """With `on_startup` the start begins a run in the background, also without a schedule."""
    async with Replica(config_of(upstream, on_startup=True, schedule=None), None, clock(FOUR)) as replica:
        assert replica.refresher.status()["next"] is None
        await replica.has(1)
        assert replica.last["report"]["why"] == "on startup"


async def test_an_error_is_told_and_the_schedule_goes_on(upstream: UpstreamThread, tmp_path: Path) -> None:
    """A run that cannot begin is in the status with its reason."""
    config = config_of(upstream, sources=["nonsense"])
    async with Replica(config, tmp_path / "e.sqlite3", clock(FOUR - 3600)):
        pass  # the run that it waits for is due when the next one starts
    async with Replica(config, tmp_path / "e.sqlite3", clock(FOUR + 60)) as replica:
        async with asyncio.timeout(10):
            while not (replica.last and replica.last["ended"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert "no such source: nonsense" in replica.last["report"]["error"]
        assert replica.refresher.status()["next"] == "2026-11-22T04:17:00+00:00"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def test_replicas_on_two_machines(upstream: UpstreamThread, tmp_path: Path, redis: RedisServer) -> None:
    """Over one Redis, each with a file of its own: one runs, the other takes over what it found."""
    now, config = clock(FOUR - 1.0), config_of(upstream)
    boards = [Board(redis.url), Board(redis.url)]
    async with (
        Replica(config, tmp_path / "one.sqlite3", now, boards[0]) as one,
        Replica(config, tmp_path / "two.sqlite3", now, boards[1]) as two,
    ):
        await asyncio.gather(one.has(1), two.has(1))
        whys = sorted(version.why for replica in (one, two) if (version := replica.store.version()) is not None)
        assert whys == ["found by another replica", "on schedule"]
        assert one.adopted[-1].models == two.adopted[-1].models


async def test_without_its_redis_a_replica_refreshes_for_itself(upstream: UpstreamThread) -> None:
    """A Redis that is away costs the agreement, not the refresh."""
    board = Board("redis://127.0.0.1:1/0")
    async with Replica(config_of(upstream), None, clock(FOUR - 1.0), board) as replica:
        await replica.has(1)


def test_which_sources_are_read(upstream: UpstreamThread) -> None:
    """A provider's own list is asked with its key and without its robots.txt; names that are none are refused."""
    config = config_of(upstream)
    settings = {"a": provider_catalog.resolve("a", config.providers["a"])}
    (target,) = targets_of(config, settings)
    assert (target.source.name, target.robots) == (LIST, False)
    assert target.headers["Authorization"].startswith("Bearer sk-upstream")
    assert "sk-upstream" not in repr(target)
    with pytest.raises(ConfigError, match="no such source: what"):
        targets_of(config, settings, Wanted(("what",)))
    everything = targets_of(Config(), {}, Wanted())
    assert len({target.source.name for target in everything}) == len(everything) > 20


def test_every_provider_is_asked_for_its_own_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pages of it are read, and with its key as its wire format shows it; OpenRouter's list is read once."""
    keys = ("GROQ", "CEREBRAS", "COHERE", "SAMBANOVA", "ANTHROPIC", "GEMINI", "OPENROUTER")
    for name in keys:
        monkeypatch.setenv(f"{name}_API_KEY", f"key-of-{name.lower()}")
    names = ("groq", "cerebras", "cohere", "sambanova", "anthropic", "gemini", "openrouter")
    settings = {name: provider_catalog.resolve(name, None) for name in names}
    lists = {target.source.name: target.headers for target in targets_of(Config(), settings)}
    for name in ("groq", "cerebras", "cohere", "sambanova"):
        assert lists[f"{name}_api"]["Authorization"] == f"Bearer key-of-{name}"
    assert lists["anthropic_api"]["x-api-key"] == "key-of-anthropic"
    assert lists["gemini_api"]["x-goog-api-key"] == "key-of-gemini"
    assert not {"Authorization"} & (lists["anthropic_api"].keys() | lists["gemini_api"].keys())
    assert "openrouter_api" not in lists
    assert lists["openrouter_key"]["Authorization"] == "Bearer key-of-openrouter"
