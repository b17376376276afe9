"""`llmproxy scrape` and the running server: what was found counts at once, and can be taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import Client, Json, Server, client_of, command, provider, serving


def listed(model_id: str, *parameters: str, price: str = "0", context: int = 4096) -> Json:
    """An entry of OpenRouter's list."""
    return {
        "id": model_id,
        "context_length": context,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "pricing": {"prompt": price, "completion": price},
        "supported_parameters": ["temperature", *parameters],
    }


def save(folder: Path, models: Sequence[Json], *, days_ago: float = 0.0) -> str:
    """A saved reply of OpenRouter's list, as old as that."""
    place = folder / "openrouter"
    place.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC) - timedelta(days=days_ago)
    reply = place / f"{moment:%Y-%m-%dT%H%M%SZ}.json"
    reply.write_text(json.dumps({"data": list(models)}))
    reply.with_name(reply.name + ".meta.json").write_text(json.dumps({"fetched_at": moment.isoformat()}))
    return str(folder)


FREE = [listed("ok:free", "tools", context=32768), listed("ok", "tools", price="0.000001"), listed("acme/ok-large")]


@pytest.fixture
def server(upstream: UpstreamThread, tmp_path: Path) -> Iterator[Server]:
    config = {
        "providers": {"openrouter": provider(upstream.url)},
        "local": {"models": []},
        "model_context": {"openrouter/acme/ok-large": 1234},
        "free_limits": {"openrouter/*": {"requests_per_minute": 100_000}},
        "scrape": {"schedule": None},
    }
    with serving(config, tmp_path / "home", "--no-local") as server:
        yield server


def scrape(server: Server, *options: str) -> tuple[int, Any]:
    ended = command("scrape", "--config", str(server.config_path), "--json", *options, home=server.home)
    assert ended.stdout or ended.returncode, ended.stderr
    return ended.returncode, json.loads(ended.stdout) if ended.stdout else ended.stderr


async def candidates(http: Client) -> dict[str, Json]:
    body = (await http.get("/v1/route/candidates")).json
    return {entry["name"]: entry for entry in body["candidates"]}


async def test_what_is_found_counts_at_once(server: Server, tmp_path: Path) -> None:
    """A refresh in another process reaches the server within seconds; hand-written values stand; the status tells."""
    async with client_of(server) as http:
        before = await candidates(http)
        assert "tools" not in before["openrouter/ok:free"]["capabilities"]
        code, body = scrape(server, "--from", save(tmp_path, FREE), "--source", "openrouter")
        assert (code, body["version"], [one["status"] for one in body["sources"]]) == (0, 1, ["read"])

        async with asyncio.timeout(10):
            while "tools" not in (after := await candidates(http))["openrouter/ok:free"]["capabilities"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert after["openrouter/ok:free"]["context_tokens"] == 32768
        assert after["openrouter/acme/ok-large"]["context_tokens"] == 1234
        status = (await http.get("/v1/scrape/status")).json
        assert (status["version"], status["next"]) == (1, None)
        assert [one["source"] for one in status["last"]["report"]["sources"]] == ["openrouter"]
        assert "llmproxy_scrape_version 1.0" in (await http.get("/metrics")).body.decode()


async def test_calls_during_a_refresh_are_answered(server: Server, tmp_path: Path) -> None:
    """Requests that are under way while the findings change are routed as before, each on one snapshot."""
    async with client_of(server) as http:
        statuses: list[int] = []
        done = asyncio.Event()

        async def ask() -> None:
            while not done.is_set():
                statuses.append((await http.chat("llmproxy/free")).status)

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for number in range(3):
            models = [*FREE, listed(f"new-{number}:free", "tools")]
            folder = save(tmp_path / str(number), models)
            code, body = await asyncio.to_thread(scrape, server, "--from", folder, "--source", "openrouter")
            assert (code, body["version"]) == (0, number + 1)
        done.set()
        await asyncio.gather(*asking)
        assert len(statuses) > 20
        assert set(statuses) == {200}


async def test_going_back(server: Server, tmp_path: Path) -> None:
    """`--rollback` brings the version before back, holds it through dry runs, and the next run by hand ends that."""
    scrape(server, "--from", save(tmp_path / "a", FREE, days_ago=1), "--source", "openrouter")
    more = save(tmp_path / "b", [*FREE, listed("extra:free", "tools")])
    scrape(server, "--from", more, "--source", "openrouter")
    code, body = scrape(server, "--rollback")
    assert (code, body["version"], body["why"]) == (0, 3, "rolled back to version 1")
    assert {change["name"] for change in body["changes"]} == {"openrouter/extra:free"}
    code, status = scrape(server, "--status")
    assert (status["held"], [one["version"] for one in status["versions"]]) == (True, [3, 2, 1])
    code, body = scrape(server, "--from", more, "--source", "openrouter")
    assert (code, body["version"], body["held"]) == (0, 4, False)
    code, text = scrape(server, "--rollback", "--to", "77")
    assert (code, "no version 77" in text) == (1, True)


def test_a_dry_run_shows_and_keeps_nothing(server: Server, tmp_path: Path) -> None:
    """`--dry-run` prints each change with its source, and the next real run finds everything new."""
    folder = save(tmp_path, FREE)
    arguments = ("--config", str(server.config_path), "--from", folder, "--source", "openrouter")
    ended = command("scrape", *arguments, "--dry-run", home=server.home)
    assert ended.returncode == 0, ended.stderr
    assert "+ openrouter/ok:free  free: quota  (openrouter, " in ended.stdout
    assert "Nothing was kept" in ended.stdout
    _, status = scrape(server, "--status")
    assert (status["version"], status["last"]) == (0, None)
    _, body = scrape(server, "--from", folder, "--source", "openrouter")
    assert body["version"] == 1


def test_probes_are_evidence(server: Server, upstream: UpstreamThread, tmp_path: Path) -> None:
    """Free models are asked for real, through the server that runs or without one; not again within the week."""
    models = save(tmp_path, [listed("ok:free"), listed("ok")])
    port = server.url.rpartition(":")[2]
    for home, place in ((server.home, {"port": int(port)}), (tmp_path / "alone", {"port": 1})):
        home.mkdir(exist_ok=True)
        config = {
            "server": place,
            "providers": {"openrouter": provider(upstream.url, model_filter=["ok:free", "ok"])},
            "local": {"models": []},
        }
        (home / "probing.json").write_text(json.dumps(config))
        arguments = ("--config", str(home / "probing.json"), "--from", models, "--source", "openrouter", "--json")
        before = len(upstream.requests)
        probed = [
            json.loads(command("scrape", *arguments, "--probe", "5", home=home).stdout)["probed"] for _ in range(2)
        ]
        assert probed == [1, 0], home
        asked = [request for request in upstream.requests[before:] if request.path.endswith("/chat/completions")]
        assert {request.model for request in asked} == {"ok:free"}


def test_nothing_readable_is_an_error(server: Server, tmp_path: Path) -> None:
    """A run in which no source could be read ends with 1; a source that does not exist ends with 2."""
    folder = tmp_path / "openrouter"
    folder.mkdir()
    (folder / "2026-11-21.json").write_text("<html>moved</html>")
    code, body = scrape(server, "--from", str(tmp_path), "--source", "openrouter")
    assert (code, body["sources"][0]["status"]) == (1, "failed")
    assert "not understood" in body["sources"][0]["error"]
    code, text = scrape(server, "--from", str(tmp_path), "--source", "nonsense")
    assert (code, "no such source: nonsense" in text) == (2, True)


def test_a_wrong_schedule_is_refused(tmp_path: Path) -> None:
    """A schedule that is no cron expression and a zone that is none are errors with their path."""
    for wrong, path in ({"schedule": "every day"}, "scrape.schedule"), ({"timezone": "Mars"}, "scrape.timezone"):
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"scrape": wrong}))
        ended = command("scrape", "--config", str(config), "--status", home=tmp_path)
        assert ended.returncode == 2
        assert path in ended.stderr
