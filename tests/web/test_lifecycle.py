"""The life of a server: its start, its logs, a new configuration under way, and its end."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import Json, client_of, provider, serving, wait_until

KEY = "sk-proxy-never-to-be-logged"
PROMPT = "a prompt that nobody else may read"
SLOW = "trickle+tokens=40+delay=0.02"


def config_of(upstream: UpstreamThread, **parts: Any) -> Json:
    """A configuration with one provider."""
    return {"providers": {"a": provider(upstream.url)}, "local": {"models": []}, **parts}


async def test_a_stream_in_flight_ends_whole_and_nothing_new_is_taken(upstream: UpstreamThread, tmp_path: Path) -> None:
    """After SIGTERM the stream is finished to its `[DONE]`, a new request gets 503, and the exit code is 0."""
    with serving(config_of(upstream), tmp_path, "--no-local") as server:
        async with client_of(server) as client, client.streaming(f"a/{SLOW}") as response:
            read = await response.content.readany()
            server.terminate()
            await asyncio.sleep(0.1)
            refused = await client.chat("a/ok")
            health = await client.get("/health")
            read += await response.read()
        assert server.stop() == 0
    assert (refused.status, refused.error["code"]) == (503, "shutting_down")
    assert int(refused.headers["Retry-After"]) > 0
    assert (health.status, health.json["status"]) == (200, "draining")
    assert read.endswith(b"data: [DONE]\n\n")
    assert read.count(b"word") == 40


async def test_a_stream_that_outlasts_the_grace_is_cut(upstream: UpstreamThread, tmp_path: Path) -> None:
    """The server ends in bounded time, and the client sees that its answer is not whole."""
    config = config_of(upstream, server={"grace": 0.2})
    with serving(config, tmp_path, "--no-local") as server:
        async with client_of(server) as client, client.streaming("a/trickle+tokens=2000") as response:
            await response.content.readany()
            began_s = time.monotonic()
            server.terminate()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert server.stop() == 0
        assert time.monotonic() - began_s < 5


async def test_logs_are_json_and_hold_no_secret(upstream: UpstreamThread, tmp_path: Path) -> None:
    """One line a request, with its id, route, candidate and trail; never a key, a prompt, an answer or a query."""
    config = config_of(upstream, server={"api_keys": [KEY], "log_level": "DEBUG"})
    with serving(config, tmp_path, "--no-local") as server:
        async with client_of(server, Authorization=f"Bearer {KEY}") as client:
            await client.chat("a/status-500", PROMPT, models=["a/ok"], stream=True)
            await client.chat("a/ok", PROMPT, tools="wrong")
            await client.get(f"/v1/files?model=a/ok&key={KEY}", headers={"x-request-id": "mine"})
            await client.get("/v1/models", headers={"Authorization": "Bearer wrong-key-of-somebody"})
        server.stop()
        log, printed = server.log, server.printed
        lines = server.log_lines(event="request")
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/chat/completions", 200),
        ("/v1/chat/completions", 400),
        ("/v1/{tail}", 200),
        ("/v1/models", 401),
    ]
    assert lines[0].items() >= {"model": "a/status-500", "selected": "a/ok", "stream": True}.items()
    assert lines[0]["trail"].startswith("a/status-500:500 ")
    assert lines[2]["id"] == "mine"
    for secret in (KEY, "sk-upstream-0123456789", PROMPT, "wrong-key", "word0"):
        assert secret not in log + printed


async def test_a_changed_configuration_is_taken_over(upstream: UpstreamThread, tmp_path: Path) -> None:
    """A new alias appears; a broken file changes nothing but the log; the next good one counts."""
    config = config_of(upstream)
    with serving(config, tmp_path, "--no-local") as server:
        async with client_of(server) as client:

            async def answers(name: str) -> bool:
                return (await client.chat(name)).status == 200

            async def becomes(name: str) -> None:
                async with asyncio.timeout(5):
                    while not await answers(name):  # noqa: ASYNC110 - the state is in another process
                        await asyncio.sleep(0.05)

            assert not await answers("fresh")
            async with client.streaming(f"a/{SLOW}") as response:
                server.write_config(config | {"aliases": {"fresh": "a/ok"}})
                await becomes("fresh")
                assert (await response.read()).endswith(b"data: [DONE]\n\n")

            server.write_config(config | {"server": {"port": "many"}, "aliases": {"worse": "a/ok"}})
            await asyncio.to_thread(wait_until, lambda: server.log_lines(level="ERROR"))
            [line] = server.log_lines(level="ERROR")
            assert "server.port" in line["message"]
            assert (await answers("fresh"), await answers("worse")) == (True, False)

            server.write_config(config | {"aliases": {"better": "a/ok"}})
            await becomes("better")
            assert not await answers("fresh")


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("{", "not JSON"),
        ('{"aliases": {"x": "y", "y": "x"}}', "aliases.x"),
        ('{"providers": {"a": {"base_ulr": "http://x"}}}', "providers.a.base_ulr: unknown key"),
    ],
)
async def test_a_broken_configuration_is_told(
    upstream: UpstreamThread, tmp_path: Path, broken: str, named: str
) -> None:
    """Whatever is wrong with the file, the server keeps on with the old one and the log says what is wrong."""
    with serving(config_of(upstream), tmp_path, "--no-local") as server:
        server.write_config(broken)
        await asyncio.to_thread(wait_until, lambda: server.log_lines(level="ERROR"))
        assert named in server.log_lines(level="ERROR")[0]["message"]
        async with client_of(server) as client:
            assert (await client.chat("a/ok")).status == 200


def test_an_alias_of_a_local_model_that_is_not_there(tmp_path: Path) -> None:
    """It is told at the start; any spelling of one that is there, pools and models of providers are not."""
    aliases = {
        "lost": "local/none",
        "lost_too": "local__nix",
        "a": "local/tiny",
        "b": "tiny__local",
        "c": "tiny",
        "d": "llmproxy/local",
        "e": "groq/anything",
    }
    config = {"aliases": aliases, "local": {"models": ["tiny"]}, "state": {"url": "memory"}}
    with serving(config, tmp_path) as server:
        wait_until(lambda: "For more models" in server.printed)
        told = [line for line in server.printed.splitlines() if line.startswith("not used: alias")]
    assert [line.split()[3] for line in told] == ["lost", "lost_too"]


async def test_an_upstream_that_hangs_delays_nothing(tmp_path: Path) -> None:
    """The server listens and answers at once, though the only model list never comes."""
    with (
        UpstreamThread(models_fault="hang") as upstream,
        serving(config_of(upstream), tmp_path, "--no-local") as server,
    ):
        began_s = time.monotonic()
        async with client_of(server) as client:
            health, ready, listed = [await client.get(path) for path in ("/health", "/ready", "/v1/models")]
            named = await client.chat("a/ok")
            pool = await client.chat("llmproxy/auto")
        assert time.monotonic() - began_s < 1
    assert (health.status, ready.status) == (200, 503)
    assert listed.json["data"] == []
    assert named.status == 200
    assert (pool.status, pool.error["code"]) == (503, "no_candidates")


async def test_the_last_model_lists_survive_a_restart(tmp_path: Path) -> None:
    """A server whose provider is down at its start offers the models that it knew."""
    with UpstreamThread(models=["kept"]) as upstream:
        config = config_of(upstream)
        with serving(config, tmp_path, "--no-local") as server:
            async with client_of(server) as client:
                await asyncio.to_thread(wait_until, lambda: (tmp_path / ".cache" / "llmproxy" / "models.json").exists())
                before = (await client.get("/v1/models")).json["data"]
    with serving(config, tmp_path, "--no-local") as server:
        async with client_of(server) as client:
            after = (await client.get("/v1/models")).json["data"]
    assert [entry["id"] for entry in after] == [entry["id"] for entry in before]
    assert "a__kept" in json.dumps(after)


async def test_two_keys_of_one_provider_take_turns(tmp_path: Path) -> None:
    """Each key is a candidate of its own: a dead one is passed over, and left alone from then on."""
    with UpstreamThread(models=["ok"]) as upstream:
        upstream.upstream.keys["dead"] = "status-401"
        fields = {"base_url": upstream.url, "api_keys": ["dead", "alive"]}
        config = {"providers": {"a": fields}, "local": {"models": []}}
        with serving(config, tmp_path, "--no-local") as server:
            async with client_of(server) as client:
                answers = [await client.chat("a/ok") for _ in range(6)]
        keys = [request.key for request in upstream.requests if request.model]
    assert [answer.status for answer in answers] == [200] * 6
    assert (keys.count("dead"), keys.count("alive")) == (1, 6)
