"""What is printed to be copied works as it stands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.core import config as configuration
from llmproxy.wizard import snippets
from tests.fakes.upstream import UpstreamThread
from tests.servers import ROOT, Server, environment, serving

KEY = "sk-a-key-of-this-test-0123456789"
NODE = ROOT / "tests" / "node"


@pytest.fixture(scope="module", params=[False, True], ids=["open", "locked"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server without a key, then one with a key; and the file that describes it with its real port."""
    with UpstreamThread(models=["ok"]) as upstream:
        server_part = {"api_keys": [KEY]} if request.param else {}
        home = tmp_path_factory.mktemp("served")
        config = {
            "providers": {"a": {"base_url": upstream.url}},
            "local": {"models": []},
            "server": server_part,
        }
        with serving(config, home) as server:
            path = home / "written.json"
            port = int(server.url.rpartition(":")[2])
            path.write_text(json.dumps({**config, "server": {**server_part, "port": port}}))
            yield server, path


def shell(script: str, path: Path) -> str:
    """What a shell prints for `script`, after the line for the key."""
    config = configuration.load(path)
    line = snippets.key_line(config, path)
    ended = subprocess.run(
        ["bash", "-ec", f"{line}\n{script}"],
        cwd=path.parent,
        env=environment(path.parent),
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def made(name: str, path: Path) -> str:
    config = configuration.load(path)
    (snippet,) = (one for one in snippets.SNIPPETS if one.name == name)
    text = snippet.make(snippets.place(config))
    assert KEY not in text
    assert KEY not in snippets.key_line(config, path)
    return text


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(served: tuple[Server, Path]) -> None:
    """The command gets an answer."""
    _, path = served
    assert json.loads(shell(made("curl", path), path))["model"] == "a/ok"


def test_openai_python(served: tuple[Server, Path]) -> None:
    """The program prints an answer."""
    _, path = served
    program = path.with_name("use.py")
    program.write_text(made("python", path))
    assert shell(f"{sys.executable} {program}", path).strip()


def test_environment_variables(served: tuple[Server, Path]) -> None:
    """The SDK of OpenAI finds the server by its variables alone."""
    _, path = served
    program = path.with_name("plain.py")
    program.write_text("from openai import OpenAI\nprint(OpenAI().models.list().data[0].id)\n")
    assert shell(f"{made('env', path)}\n{sys.executable} {program}", path).strip() == "a__ok"


def test_anthropic_python(served: tuple[Server, Path]) -> None:
    """The program prints an answer."""
    pytest.importorskip("anthropic")
    _, path = served
    program = path.with_name("use_anthropic.py")
    program.write_text(made("anthropic", path))
    assert shell(f"{sys.executable} {program}", path).strip()


@pytest.mark.skipif(shutil.which("node") is None or not (NODE / "node_modules").is_dir(), reason="needs node")
def test_openai_node(served: tuple[Server, Path]) -> None:
    """The program prints an answer."""
    _, path = served
    program = path.with_name("use.mjs")
    program.write_text(made("node", path))
    modules = path.with_name("node_modules")
    if not modules.exists():
        modules.symlink_to(NODE / "node_modules")
    assert shell(f"node {program}", path).strip()


@pytest.mark.parametrize("name", ["open-webui", "continue"])
def test_the_rest_has_the_address(served: tuple[Server, Path], name: str) -> None:
    """Programs that are not here get the right address."""
    server, path = served
    assert f"{server.url}/v1" in made(name, path)


def test_only_what_is_served_is_shown() -> None:
    """Nobody is told to use an endpoint that is not there."""
    everything = {snippet.path for snippet in snippets.SNIPPETS}
    assert {one.name for one in snippets.available(everything)} == {one.name for one in snippets.SNIPPETS}
    assert "claude-code" not in {one.name for one in snippets.available({"/v1/chat/completions"})}


def test_a_key_in_a_variable_is_named() -> None:
    """What the file only refers to is referred to here as well."""
    config = configuration.parse({"server": {"api_keys": ["${HOUSE_KEY}"]}})
    assert snippets.key_line(config, Path("x")) == 'export LLMPROXY_API_KEY="${HOUSE_KEY}"'


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:8080"), ("::1", "http://[::1]:8080"), ("10.0.0.2", "http://10.0.0.2:8080")],
)
def test_addresses(host: str, url: str) -> None:
    """An address is written as a program on this machine would use it."""
    assert snippets.place(configuration.parse({"server": {"host": host}})).url == url
