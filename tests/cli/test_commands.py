"""The command line as a person runs it: what each command prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from llmproxy import __version__
from tests.fakes.upstream import UpstreamThread
from tests.servers import Json, Server, command, provider, unreachable

COMMANDS = ("serve", "setup", "models", "explain", "check", "scrape", "pull", "config")
SECRET = "sk-never-to-be-shown-0123456789"


def config_of(upstream: UpstreamThread, **parts: Any) -> Json:
    """One provider on a port where no server runs that the commands could ask instead."""
    return {
        "server": {"port": 1},
        "providers": {"a": provider(upstream.url)},
        "local": {"models": []},
        **parts,
    }


def write(folder: Path, config: Mapping[str, Any] | str) -> str:
    """The path of a configuration file."""
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config), "utf-8")
    return str(path)


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=["llmproxy", *COMMANDS])
def test_help(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Every command explains itself; the first page names them all."""
    ended = command(*arguments, "--help", home=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("Usage:")
    if not arguments:
        assert all(f"\n  {name} " in ended.stdout for name in COMMANDS)


def test_version(tmp_path: Path) -> None:
    """`--version` tells the version."""
    assert __version__ in command("--version", home=tmp_path).stdout


def test_models_works_them_out_without_a_server(upstream: UpstreamThread, tmp_path: Path) -> None:
    """`models --json` asks the providers itself when no server runs."""
    ended = command("models", "--json", "--config", write(tmp_path, config_of(upstream)), home=tmp_path)
    body = json.loads(ended.stdout)
    assert (ended.returncode, body["from"]) == (0, "the configuration")
    candidates = {entry["name"]: entry for entry in body["candidates"]}
    assert {"a/ok", "a/acme/ok-large", "a/embed"} <= candidates.keys()
    assert candidates["a/ok"]["out"] is None
    assert candidates["a/embed"]["capabilities"] == ["embeddings"]


def test_models_asks_the_running_server(server: Server, tmp_path: Path) -> None:
    """With a server at the configured address its own view is shown, as a table too."""
    port = int(server.url.rpartition(":")[2])
    config = write(tmp_path, json.loads(server.config_path.read_text()) | {"server": {"port": port}})
    body = json.loads(command("models", "--json", "--config", config, home=tmp_path).stdout)
    assert body["from"] == "the running server"
    assert {"a/ok", "b/ok"} <= {entry["name"] for entry in body["candidates"]}
    assert "a/acme/ok-large" in command("models", "--config", config, home=tmp_path).stdout


def test_models_tells_what_is_missing(tmp_path: Path) -> None:
    """A provider without its key is named, with the variable that would make it usable."""
    config = {"server": {"port": 1}, "providers": {"groq": {}}, "local": {"models": ["./nowhere"]}}
    ended = command("models", "--json", "--config", write(tmp_path, config), home=tmp_path)
    missing = json.loads(ended.stdout)["missing"]
    assert "GROQ_API_KEY" in missing["groq"]
    assert "./nowhere" in missing["local/./nowhere"]


def test_explain(upstream: UpstreamThread, tmp_path: Path) -> None:
    """The plan as JSON: who is asked in which order, who is not, and why."""
    config = write(tmp_path, config_of(upstream, model_capabilities={"a/acme/ok-large": ["tools"]}))
    ended = command("explain", "llmproxy/free", "--tools", "--json", "--config", config, home=tmp_path)
    plan = json.loads(ended.stdout)
    assert (ended.returncode, plan["needs"]) == (0, ["tools"])
    assert plan["kept"][0]["model"] == "a/acme/ok-large"
    assert {"model": "a/embed", "reason": "not a model for chat", "retry_after_s": None} in plan["dropped"]


@pytest.mark.parametrize(
    ("model", "said"),
    [("llmproxy/deep", "model_reasoning"), ("nobody/knows", "does not exist")],
    ids=["an empty pool", "an unknown name"],
)
def test_explain_fails_when_nobody_would_answer(
    upstream: UpstreamThread, tmp_path: Path, model: str, said: str
) -> None:
    """Exit code 1, and what to do about it."""
    ended = command("explain", model, "--config", write(tmp_path, config_of(upstream)), home=tmp_path)
    assert ended.returncode == 1
    assert said in ended.stdout + ended.stderr


class TestCheck:
    """`check` ends with 0 only when everything that was configured works."""

    def check(self, folder: Path, config: Json, *options: str) -> tuple[int, dict[str, Json]]:
        """The exit code, and what is told of each source."""
        ended = command("check", "--json", *options, "--config", write(folder, config), home=folder)
        body = json.loads(ended.stdout)
        assert body["ok"] == (ended.returncode == 0)
        return ended.returncode, {entry["source"]: entry for entry in body["sources"]}

    def test_a_working_provider(self, upstream: UpstreamThread, tmp_path: Path) -> None:
        """0, with the number of its models."""
        code, sources = self.check(tmp_path, config_of(upstream))
        assert (code, sources["a"]["ok"]) == (0, True)
        assert sources["a"]["models"] >= 5

    def test_a_real_call(self, tmp_path: Path) -> None:
        """`--live` also asks a model."""
        with UpstreamThread(models=["ok"]) as upstream:
            code, sources = self.check(tmp_path, config_of(upstream), "--live")
            assert (code, sources["a"]["live_model"]) == (0, "a/ok")
            assert upstream.count("ok") == 1

    def test_a_real_call_that_fails(self, tmp_path: Path) -> None:
        """A list without a model that answers is not enough for `--live`."""
        with UpstreamThread(models=["status-500"]) as upstream:
            code, sources = self.check(tmp_path, config_of(upstream), "--live")
        assert (code, sources["a"]["ok"]) == (1, False)
        assert "error while processing" in sources["a"]["problem"]

    @pytest.mark.parametrize("status", [401, 500])
    def test_a_refused_list(self, tmp_path: Path, status: int) -> None:
        """A wrong key and a broken provider: 1, with what the provider said."""
        with UpstreamThread(models_fault=str(status)) as upstream:
            code, sources = self.check(tmp_path, config_of(upstream))
        assert (code, sources["a"]["ok"]) == (1, False)
        assert sources["a"]["problem"]

    def test_a_provider_that_is_down(self, tmp_path: Path) -> None:
        """Connection refused: 1."""
        with unreachable() as nowhere:
            config = {"providers": {"a": provider(nowhere)}, "local": {"models": []}}
            code, sources = self.check(tmp_path, config)
        assert (code, sources["a"]["ok"]) == (1, False)

    def test_a_key_that_is_not_set(self, upstream: UpstreamThread, tmp_path: Path) -> None:
        """A reference to an unset variable: 1, with its name."""
        config = config_of(upstream)
        config["providers"]["a"]["api_key"] = "${LLMPROXY_TEST_UNSET}"
        code, sources = self.check(tmp_path, config)
        assert code == 1
        assert "LLMPROXY_TEST_UNSET" in sources["a"]["problem"]


def test_the_schema_describes_the_configuration(upstream: UpstreamThread, tmp_path: Path) -> None:
    """`config schema` prints a JSON schema that a good file meets and a bad one does not."""
    schema = json.loads(command("config", "schema", home=tmp_path).stdout)
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(config_of(upstream))
    assert not validator.is_valid({"server": {"port": "many"}})
    assert not validator.is_valid({"srever": {}})


def test_the_effective_configuration_is_masked(upstream: UpstreamThread, tmp_path: Path) -> None:
    """`config show` prints defaults and values, and no key; a reference is shown as it is written."""
    config = config_of(upstream, server={"api_keys": [SECRET]}, admin={"token": "${TOKEN_VARIABLE}"})
    config["providers"]["a"]["api_key"] = SECRET
    ended = command("config", "show", "--config", write(tmp_path, config), home=tmp_path)
    shown = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert SECRET not in ended.stdout + ended.stderr
    assert shown["admin"]["token"] == "${TOKEN_VARIABLE}"
    assert (shown["server"]["deadline"], shown["routing"]["max_attempts"]) == (90, 12)


def test_keys_in_headers_and_urls_are_masked_too(upstream: UpstreamThread, tmp_path: Path) -> None:
    """A key may also stand in a provider's headers or in its proxy's address."""
    config = config_of(upstream)
    config["providers"]["a"] |= {"headers": {"x-api-key": SECRET}, "proxy": f"http://me:{SECRET}@127.0.0.1:9"}
    assert SECRET not in command("config", "show", "--config", write(tmp_path, config), home=tmp_path).stdout


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_serve_refuses_the_world_without_keys(upstream: UpstreamThread, tmp_path: Path, host: str) -> None:
    """Listening beyond loopback needs `server.api_keys`: exit code 2, and why."""
    config = write(tmp_path, config_of(upstream))
    ended = command("serve", "--config", config, "--port", "0", "--host", host, home=tmp_path)
    assert ended.returncode == 2
    assert "server.host" in ended.stderr
    assert "server.api_keys" in ended.stderr


def test_serve_tells_that_its_port_is_taken(upstream: UpstreamThread, tmp_path: Path) -> None:
    """Exit code 2 and the field, not a traceback."""
    config = write(tmp_path, config_of(upstream))
    port = upstream.url.split(":")[2].split("/")[0]
    ended = command("serve", "--config", config, "--port", port, home=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("Error: server.port: cannot listen")


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object"),
        ({"server": {"port": "many"}}, "server.port: "),
        ({"server": {"prot": 1}}, "server.prot: unknown key"),
        ({"providers": {"groq": {"base_url": 5}}}, "providers.groq.base_url: "),
        ({"providers": {"local": {}}}, "providers.local: "),
        ({"pools": {"p": {"where": {"capabilities": ["flying"]}}}}, "pools.p.where.capabilities.0: "),
        ({"local": {"models": [], "device": 5}}, "local.device: "),
        ('{"aliases": {}, "aliases": {}}', "the key 'aliases' is there twice"),
    ],
)
def test_a_broken_configuration_is_told_by_its_path(tmp_path: Path, config: Json | str, path: str) -> None:
    """Exit code 2, and the path of the wrong field."""
    ended = command("config", "show", "--config", write(tmp_path, config), home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert path in ended.stderr


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"server": {"port": "many"}}, "server.port: "),
        ({"aliases": {"x": "y", "y": "x"}}, "aliases.x: goes in a circle"),
    ],
)
def test_a_broken_configuration_ends_the_start(tmp_path: Path, config: Json | str, path: str) -> None:
    """The same for `serve`, also for what only shows when the parts are put together; nothing is served."""
    ended = command("serve", "--config", write(tmp_path, config), "--port", "0", home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert path in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("serve",), ("check",), ("config", "show")])
def test_a_missing_file_is_an_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A file that was named must be there."""
    ended = command(*arguments, "--config", str(tmp_path / "nowhere.json"), home=tmp_path)
    assert ended.returncode == 2
    assert "no such file" in ended.stderr
