"""`llmproxy setup --non-interactive`: the same from flags, whole or not at all."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import client_of, command, serving, unreachable
from tests.wizard.conftest import BROKE, RIGHT, WRONG


def setup(home: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    path = str(home / "config.json")
    return command("setup", "--non-interactive", "--config", path, *options, home=home, env=env, timeout_s=60)


def written(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "config.json").read_text("utf-8"))
    return found


async def test_a_whole_set_up(gate: UpstreamThread, tmp_path: Path) -> None:
    """Provider, alias, pool, address and snippets at once; the result is served."""
    ended = setup(
        tmp_path,
        *("--provider-url", f"mine={gate.url}", "--provider", "mine=MY_KEY", "--no-local"),
        *("--alias", "gpt-4o-mini=llmproxy/free", "--pool", "pair=mine/ok,mine/acme/*"),
        *("--host", "127.0.0.1", "--port", "9009", "--snippets"),
        MY_KEY=RIGHT,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "mine/ok answered" in ended.stdout
    assert "curl http://127.0.0.1:9009/v1/chat/completions" in ended.stdout
    assert RIGHT not in ended.stdout + ended.stderr
    assert written(tmp_path) == {
        "providers": {"mine": {"base_url": gate.url, "api_key": "${MY_KEY}"}},
        "local": {"models": []},
        "aliases": {"gpt-4o-mini": "llmproxy/free"},
        "pools": {"pair": {"where": {"models": ["mine/ok", "mine/acme/*"]}, "order": "as_listed"}},
        "server": {"host": "127.0.0.1", "port": 9009},
    }
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600
    with serving(written(tmp_path), tmp_path / "served", env={"MY_KEY": RIGHT}) as server:
        async with client_of(server) as client:
            assert (await client.chat("gpt-4o-mini")).status == 200
            assert (await client.chat("llmproxy/pair")).status == 200


@pytest.mark.parametrize(
    ("key", "said"), [(WRONG, "is not accepted (401"), (BROKE, "no credit left (402")], ids=["wrong", "no credit"]
)
def test_nothing_is_written_when_something_fails(gate: UpstreamThread, tmp_path: Path, key: str, said: str) -> None:
    """Exit code 1, what is wrong, and the file as it was."""
    (tmp_path / "config.json").write_text('{"server": {"port": 9}}')
    ended = setup(tmp_path, "--provider-url", f"mine={gate.url}", "--provider", "mine=MY_KEY", "--no-local", MY_KEY=key)
    assert ended.returncode == 1
    assert said in ended.stdout
    assert "Nothing was written" in ended.stdout
    assert key not in ended.stdout + ended.stderr
    assert written(tmp_path) == {"server": {"port": 9}}


def test_without_a_test_it_is_only_written(tmp_path: Path) -> None:
    """`--no-test` asks nobody, for machines that are set up before they have a network."""
    with unreachable() as nowhere:
        ended = setup(tmp_path, "--provider-url", f"mine={nowhere}", "--no-test")
    assert ended.returncode == 0, ended.stdout
    assert written(tmp_path) == {"providers": {"mine": {"base_url": nowhere}}}


def test_keys_from_the_environment(gate: UpstreamThread, tmp_path: Path) -> None:
    """Every provider whose usual variable is set is referred to; what is known of it is not repeated."""
    ended = setup(
        tmp_path, "--keys-from-environment", "--no-test", GROQ_API_KEY=RIGHT, MISTRAL_API_KEY=RIGHT, GITHUB_TOKEN=RIGHT
    )
    assert ended.returncode == 0, ended.stdout
    assert written(tmp_path)["providers"] == {
        "groq": {"api_key": "${GROQ_API_KEY}"},
        "mistral": {"api_key": "${MISTRAL_API_KEY}"},
    }


def test_it_edits_what_is_there(tmp_path: Path) -> None:
    """Fields and notes that no flag is about stay; the same flags again change nothing."""
    old = {"_note": "mine", "providers": {"groq": {"_why": "fast", "api_key": "${G}"}}, "scrape": {"schedule": None}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert setup(tmp_path, "--port", "9001", "--no-test").returncode == 0
    assert written(tmp_path) == {**old, "server": {"port": 9001}}
    before = (tmp_path / "config.json").stat().st_mtime_ns
    assert setup(tmp_path, "--port", "9001", "--no-test").returncode == 0
    assert (tmp_path / "config.json").stat().st_mtime_ns == before
    assert setup(tmp_path, "--without", "groq", "--no-test").returncode == 0
    assert written(tmp_path)["providers"] == {}


def test_a_key_is_made_for_the_network(tmp_path: Path) -> None:
    """Beyond this machine there is a key, made once, and not printed."""
    ended = setup(tmp_path, "--host", "0.0.0.0", "--no-test", "--snippets")
    (key,) = written(tmp_path)["server"]["api_keys"]
    assert ended.returncode == 0
    assert key not in ended.stdout + ended.stderr
    assert "export LLMPROXY_API_KEY=" in ended.stdout
    assert setup(tmp_path, "--host", "0.0.0.0", "--no-test").returncode == 0
    assert written(tmp_path)["server"]["api_keys"] == [key]
    assert setup(tmp_path, "--new-key", "--no-test").returncode == 0
    assert len(set(written(tmp_path)["server"]["api_keys"])) == 2


def test_servers_on_this_machine(tmp_path: Path) -> None:
    """One that runs is written down with its address; a second run does not write it down again."""
    with UpstreamThread(models=["qwen3:8b"]) as ollama, unreachable() as nowhere:
        ports = {"ollama": ollama.url, "lmstudio": nowhere, "llamacpp": nowhere, "vllm": nowhere}
        options = [f"--server-port={name}={url.removesuffix('/v1').rpartition(':')[2]}" for name, url in ports.items()]
        ended = setup(tmp_path, "--find-servers", "--no-local", *options)
        assert ended.returncode == 0, ended.stdout
        assert "ollama/qwen3:8b answered" in ended.stdout
        assert written(tmp_path)["providers"] == {"ollama": {"base_url": ollama.url}}
        again = setup(tmp_path, "--find-servers", "--no-test", *options)
        assert again.returncode == 0
    assert written(tmp_path)["providers"] == {"ollama": {"base_url": ollama.url}}


def test_a_model_that_is_not_here(tmp_path: Path) -> None:
    """Without `--pull` a model whose files are missing is an error that names the flag."""
    ended = setup(tmp_path, "--local", "someone/nothing", "--no-test")
    assert ended.returncode == 1
    assert "--pull" in ended.stdout
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--provider", "nobody"), "--provider-url nobody="),
        (("--provider", f"groq={RIGHT}"), "never a key"),
        (("--provider-url", "mine"), "NAME=VALUE"),
        (("--provider-url", "mine=gpu-box"), "http://"),
        (("--provider-url", "local=http://x/v1"), "is taken"),
        (("--alias", "x"), "NAME=VALUE"),
        (("--pool", "free=a/*"), "is taken"),
        (("--host", "gpu-box"), "An address of this machine"),
        (("--server-port", "ollama=none"), "--server-port"),
        (("--alias", "x=y", "--alias", "y=x"), "goes in a circle"),
    ],
)
def test_flags_that_cannot_be(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    """Exit code 2 with the flag that is wrong; a key that was typed by mistake is not repeated."""
    ended = setup(tmp_path, *options, "--no-test")
    assert ended.returncode == 2
    assert said in ended.stderr
    assert RIGHT not in ended.stdout + ended.stderr
    assert not (tmp_path / "config.json").exists()
