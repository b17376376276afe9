"""What a client is told when a local model cannot answer: each cause has its status and its code."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.backends.build import build_chat_model
from tests.servers import ROOT, Json, Server, command, serving, wait_until

pytestmark = pytest.mark.limit(180)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model that cannot be loaded, one that is too large, and one that does not listen."""
    home = tmp_path_factory.mktemp("causes")
    broken = build_chat_model(home / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    good = str(build_chat_model(home / "good"))
    entries: list[Json] = [
        {"name": "broken", "hf_repo_id": str(broken)},
        {"name": "large", "hf_repo_id": good, "memory_mb": 1 << 30},
        {"name": "sleeper", "hf_repo_id": good, "handler": "tests.backends.handlers.Sleeper"},
    ]
    (home / "models.local.yaml").write_text(json.dumps({"models": entries}), "utf-8")
    config = {
        "local": {"models": ["broken", "tiny"], "max_concurrent": 1, "max_waiting": 1},
        "server": {"deadline": 20, "request_timeout": 20, "keep_alive": None},
        "pools": {"mixed": {"where": {"models": ["local/broken", "local/tiny"]}, "order": "as_listed"}},
        "state": {"url": "memory"},
    }
    with serving(config, home, env={"PYTHONPATH": str(ROOT)}) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as made:
        yield made


def ask(client: openai.OpenAI, model: str, text: str = "0", **options: Any) -> Any:
    """The answer to one message."""
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **options)


@pytest.mark.parametrize(("model", "code"), [("broken", "model_load_failed"), ("large", "insufficient_memory")])
def test_a_model_that_cannot_be_loaded(client: openai.OpenAI, model: str, code: str) -> None:
    """It is there and cannot be used now: 503 with the cause and when to try again, and never 404."""
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, f"local/{model}")
    assert (caught.value.status_code, caught.value.code) == (503, code)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert model in caught.value.message


def test_the_next_candidate_answers(client: openai.OpenAI) -> None:
    """In a pool, a model that cannot be loaded is passed over."""
    reply = client.chat.completions.with_raw_response.create(
        model="llmproxy/mixed", messages=[{"role": "user", "content": "hello"}], max_tokens=8
    )
    assert reply.headers["x-llmproxy-selected-model"] == "local/tiny"


def test_a_call_that_takes_too_long(client: openai.OpenAI, tmp_path: Path) -> None:
    """A model that does not answer until the deadline: 504."""
    entry = {
        "name": "sleeper",
        "hf_repo_id": str(build_chat_model(tmp_path / "good")),
        "handler": "tests.backends.handlers.Sleeper",
    }
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": [entry]}), "utf-8")
    config = {
        "local": {"models": ["sleeper"]},
        "server": {"deadline": 3, "request_timeout": 3},
        "state": {"url": "memory"},
    }
    with (
        serving(config, tmp_path, env={"PYTHONPATH": str(ROOT)}) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60) as asking,
    ):
        wait_until(lambda: client_ready(asking, "sleeper"), 30)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(asking, "local/sleeper", "30")
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


def client_ready(client: openai.OpenAI, name: str) -> bool:
    """Whether a model is loaded."""
    states = client.with_options(base_url=str(client.base_url).replace("/v1/", "")).get("/health", cast_to=object)
    return bool(dict(states)["local"][name]["state"] == "loaded")  # type: ignore[call-overload]


def test_a_queue_that_is_full(client: openai.OpenAI, server: Server) -> None:
    """One call that is worked on, one that waits, and one too many: 429, with when to come again."""
    assert ask(client, "local/sleeper").choices[0].message.content == "awake"
    begun = threading.Barrier(3)

    def call(seconds: str) -> str:
        begun.wait()
        return str(ask(client, "local/sleeper", seconds).choices[0].message.content)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(call, "2") for _ in range(2)]
        begun.wait()
        wait_until(lambda: server_calls(server, client) == 2)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client, "local/sleeper")
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert "waiting already" in caught.value.message
        assert [one.result() for one in waiting] == ["awake", "awake"]


def server_calls(server: Server, client: openai.OpenAI) -> int:
    """How many calls of the sleeper are in flight."""
    told: Any = client.with_options(base_url=server.url).get("/health", cast_to=object)
    return int(told["local"]["sleeper"].get("in_flight", 0))


def strictly(home: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """The end of a strict start with the configuration in `home`; Python imports from `paths`."""
    options = ("--strict", "--config", str(home / "config.json"), "--port", "0")
    return command("serve", *options, home=home, env={"PYTHONPATH": ":".join(map(str, paths))}, timeout_s=60.0)


def test_a_strict_start(tmp_path: Path) -> None:
    """With `--strict` the server ends when a model cannot be loaded, shows itself wrong, or is not there."""
    good = str(build_chat_model(tmp_path / "good"))
    broken = build_chat_model(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    mute = {"name": "mute", "hf_repo_id": good, "handler": "tests.backends.handlers.Mute"}
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": [mute]}), "utf-8")
    for model, cause in (
        (str(broken), "cannot be loaded"),
        ("mute", "cannot do chat: RuntimeError: no voice"),
        ("Qwen3-0.6B", "llmproxy pull"),
    ):
        config = {"local": {"models": [model]}, "state": {"url": "memory"}}
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        ended = strictly(tmp_path, ROOT)
        assert ended.returncode == 2, ended.stderr
        assert cause in ended.stderr.splitlines()[-1]
    config = {"local": {"models": [good]}, "state": {"url": "memory"}}
    with serving(config, tmp_path / "home", "--strict") as server:
        with openai.OpenAI(base_url=server.url, api_key="unused", max_retries=20, timeout=30) as asking:
            assert dict(asking.get("/ready", cast_to=object))  # type: ignore[call-overload]
            assert client_ready(asking, "good")
            asking.post("/admin/api/models/good/unload?wait=10", cast_to=object)
            assert not client_ready(asking, "good")
            assert dict(asking.get("/ready", cast_to=object))  # type: ignore[call-overload]
            asking.post("/admin/api/models/good/load", cast_to=object)
            server.write_config({**config, "aliases": {"other": "local/good"}})
            wait_until(lambda: "was loaded again" in server.log)
            assert client_ready(asking, "good"), "a change of something else must not load models again"
        assert server.process.poll() is None


def test_a_strict_start_whose_configuration_changes(tmp_path: Path) -> None:
    """When the configuration is replaced while models are being loaded, what cannot be loaded of the new one counts."""
    good = str(build_chat_model(tmp_path / "good"))
    entries = [
        {"name": name.lower(), "hf_repo_id": good, "handler": f"tests.backends.handlers.{name}"}
        for name in ("Stuck", "Mute")
    ]
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": entries}), "utf-8")
    before, after = ({"local": {"models": [name]}, "state": {"url": "memory"}} for name in ("stuck", "mute"))
    with pytest.raises(AssertionError, match=r"(?s)exit code 2;.*cannot do chat: RuntimeError: no voice"):
        serve_until_it_ends(before, after, tmp_path)


def serve_until_it_ends(before: Json, after: Json, home: Path) -> None:
    """A strict start with a configuration that is replaced by another one at once."""
    with serving(before, home, "--strict", env={"PYTHONPATH": str(ROOT)}) as server:
        server.write_config(after)
        server.told_to_stop = True
        server.process.wait(60.0)


def test_a_strict_start_without_the_local_extra(tmp_path: Path) -> None:
    """Where nothing is installed that runs models, none of them can be loaded, and the server ends as well."""
    (tmp_path / "config.json").write_text(json.dumps({"state": {"url": "memory"}}), "utf-8")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n", "utf-8")
    ended = strictly(tmp_path, tmp_path, ROOT)
    assert ended.returncode == 2, ended.stderr
    assert "install the local extra" in ended.stderr.splitlines()[-1]
