"""The setup as a person drives it: in a real terminal, with arrow keys, searches, and Ctrl-C."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import command, environment
from tests.wizard.conftest import RIGHT, WRONG
from tests.wizard.terminal import CTRL_C, CTRL_U, DOWN, ENTER, SPACE, Terminal

pytestmark = pytest.mark.limit(180)
OLD: dict[str, Any] = {
    "_note": "mine",
    "routing": {"_why": "patience", "max_attempts": 3},
    "providers": {
        "_note": "two of them",
        "a": {"_note": "kept", "base_url": "http://127.0.0.1:1/v1", "api_key": "${A_KEY}", "headers": {"x-team": "me"}},
    },
    "local": {"models": [], "idle_unload": 60},
    "free_limits": {"a/*": {"requests_per_day": 5, "reset": "UTC"}},
    "server": {"port": 9000, "host": "127.0.0.1", "deadline": 91.5},
}


def config_at(home: Path) -> Path:
    """Where a configuration is without a word about it."""
    return home / ".config" / "llmproxy" / "config.json"


def sketch_at(home: Path) -> Path:
    """Where answers are kept."""
    return home / ".config" / "llmproxy" / "config.json.draft"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def to_the_end(terminal: Terminal) -> int:
    """Write the file, look at the call, and want nothing more."""
    terminal.answer("What next?")
    terminal.expect("is written")
    terminal.answer("How to use it from elsewhere?")
    return terminal.end()


def test_a_fresh_setup_to_a_first_answer(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """Enter, all the way: the toy in the package answers, the file is private, and the call through it works."""
    with Terminal(tmp_path, *no_servers) as terminal:
        terminal.answer("Add or change a provider")
        terminal.expect("None that is not in use already")
        terminal.answer("Which ones?")
        terminal.answer("Another one")
        terminal.answer("Ask one of them something now?")
        terminal.answer("Say something to it")
        assert "46" in terminal.expect("Pools and aliases").partition("ok: local/tiny in")[2]
        terminal.answer("Names of your own")
        terminal.answer("Who may ask llmproxy?")
        terminal.answer("Port")
        terminal.answer("What next?")
        terminal.expect("is written")
        terminal.expect("llmproxy/auto answers: local/tiny")
        terminal.answer("How to use it from elsewhere?")
        assert terminal.end() == 0
    written = read(config_at(tmp_path))
    assert written["server"]["host"] == "127.0.0.1"
    assert written.keys() == {"server"}  # the toy is there without a word about it
    assert "api_keys" not in written["server"]
    assert mode(config_at(tmp_path)) == 0o600
    assert not sketch_at(tmp_path).exists()


def test_a_wrong_key_then_the_right_one(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """The refusal is told with what to do, the right key is tried at once, and neither is ever shown."""
    with Terminal(tmp_path, *no_servers, "--no-local") as terminal:
        terminal.choose("Add or change a provider", "another server")
        terminal.answer("Name for it", "local")
        terminal.expect("is taken")
        terminal.send(CTRL_U + "mine" + ENTER)
        terminal.answer("Its address", gate.url)
        terminal.answer("Key for mine", WRONG)
        terminal.expect("is not accepted (401")
        terminal.answer("What now?")
        terminal.answer("Key for mine", RIGHT)
        told = terminal.expect("acme/ok-large")
        assert "ok: mine: 3 models" in told
        assert "mine/ok answered" in told
        terminal.expect("Add or change a provider")
        assert RIGHT not in terminal.raw
        assert WRONG not in terminal.raw
        terminal.send(CTRL_C)
        assert terminal.end() == 1
    assert read(sketch_at(tmp_path))["edits"]


def test_a_provider_of_the_catalogue(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """Its page tells what is free and where a key is made; a key that the environment has is only referred to."""
    url = ("--provider-url", f"groq={gate.url}")
    with Terminal(tmp_path, *no_servers, "--no-local", *url, env={"MY_OWN_KEY": RIGHT}) as terminal:
        terminal.choose("Add or change a provider", "groq")
        page = terminal.expect("Key for groq")
        assert "a renewing quota" in page
        assert "https://console.groq.com/keys" in page
        assert "30 requests a minute" in page
        terminal.send("MY_OWN_KEY" + ENTER)
        terminal.expect("groq/ok answered")
        terminal.answer("Add or change a provider")
        terminal.expect("None that is not in use already")
        terminal.answer("Which ones?")
        terminal.answer("Another one")
        terminal.answer("Names of your own")
        terminal.answer("Who may ask llmproxy?")
        terminal.answer("Port")
        assert to_the_end(terminal) == 0
        assert RIGHT not in terminal.raw
    assert read(config_at(tmp_path))["providers"] == {"groq": {"base_url": gate.url, "api_key": "${MY_OWN_KEY}"}}


def test_keys_of_the_environment_are_offered(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """A key that is found is ticked; what is unticked is not used behind one's back."""
    config_at(tmp_path).parent.mkdir(parents=True)
    config_at(tmp_path).write_text('{"server": {"port": 9000}, "local": {"models": []}}')
    with Terminal(tmp_path, *no_servers, env={"GROQ_API_KEY": RIGHT}) as terminal:
        terminal.choose("What next?", "change providers")
        terminal.expect("Use these?")
        terminal.send(SPACE + ENTER)
        terminal.answer("Add or change a provider")
        terminal.expect("What next?")
        terminal.send(CTRL_C)
        assert terminal.end() == 1
    assert {"path": ["providers", "groq"], "value": {"enabled": False}} in read(sketch_at(tmp_path))["edits"]
    assert gate.requests == []


def test_a_second_run_changes_one_thing(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """Only the port is another one: notes, order, references and fields without a question stay as they were."""
    old = json.loads(json.dumps(OLD).replace("http://127.0.0.1:1/v1", gate.url))
    config_at(tmp_path).parent.mkdir(parents=True)
    config_at(tmp_path).write_text(json.dumps(old))
    with Terminal(tmp_path, *no_servers, env={"A_KEY": RIGHT}) as terminal:
        terminal.choose("What next?", "where to listen")
        terminal.answer("Who may ask llmproxy?")
        terminal.answer("Port", CTRL_U + "9001")
        terminal.expect("127.0.0.1:9001")
        terminal.answer("What next?")
        terminal.expect("llmproxy/auto answers: a/")
        terminal.answer("How to use it from elsewhere?")
        assert terminal.end() == 0
    expected = {**old, "server": {**old["server"], "port": 9001}}
    assert config_at(tmp_path).read_text() == json.dumps(expected, indent=2) + "\n"
    assert mode(config_at(tmp_path)) == 0o600


def test_a_second_run_that_changes_nothing(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """A file that nobody wanted changed is not even written."""
    text = json.dumps(OLD).replace("http://127.0.0.1:1/v1", gate.url)
    config_at(tmp_path).parent.mkdir(parents=True)
    config_at(tmp_path).write_text(text)
    with Terminal(tmp_path, *no_servers, env={"A_KEY": RIGHT}) as terminal:
        terminal.choose("What next?", "make a call through it")
        terminal.expect("llmproxy/auto answers: a/")
        terminal.answer("How to use it from elsewhere?")
        assert terminal.end() == 0
    assert config_at(tmp_path).read_text() == text


def test_ctrl_c_keeps_what_was_entered(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """The answers are beside the file, private; there is no half a file; the next run goes on with them."""
    with Terminal(tmp_path, *no_servers, "--no-local") as terminal:
        terminal.choose("Add or change a provider", "another server")
        terminal.answer("Name for it", "mine")
        terminal.answer("Its address", gate.url)
        terminal.answer("Key for mine", RIGHT)
        terminal.expect("mine/ok answered")
        terminal.expect("Add or change a provider")
        terminal.send(CTRL_C)
        terminal.expect("Nothing is lost")
        assert terminal.end() == 1
    assert mode(sketch_at(tmp_path)) == 0o600
    assert not config_at(tmp_path).exists()
    with Terminal(tmp_path, *no_servers) as terminal:
        terminal.answer("Go on with the answers of last time (local.models, providers.mine)?")
        assert to_the_end(terminal) == 0
    assert read(config_at(tmp_path))["providers"]["mine"] == {"base_url": gate.url, "api_key": RIGHT}
    assert not sketch_at(tmp_path).exists()


def test_ctrl_c_while_a_key_is_tried(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """A provider that never answers can be left at once, and its key was kept before it was tried."""
    with UpstreamThread(models_fault="hang") as upstream, Terminal(tmp_path, *no_servers, "--no-local") as terminal:
        terminal.choose("Add or change a provider", "another server")
        terminal.answer("Name for it", "slow")
        terminal.answer("Its address", upstream.url)
        terminal.answer("Key for slow", RIGHT)
        terminal.expect("Asking slow")
        terminal.send(CTRL_C)
        terminal.expect("Nothing is lost")
        assert terminal.end() == 1
        assert "Traceback" not in terminal.text
    edits = read(sketch_at(tmp_path))["edits"]
    assert {"path": ["providers", "slow", "api_key"], "value": RIGHT} in edits


def test_a_killed_setup_keeps_its_answers(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """A lost connection leaves the same draft as Ctrl-C."""
    with Terminal(tmp_path, *no_servers, "--no-local") as terminal:
        terminal.choose("Add or change a provider", "another server")
        terminal.answer("Name for it", "mine")
        terminal.answer("Its address", gate.url)
        terminal.expect("Key for mine")
        terminal.kill()
    assert {"path": ["providers", "mine", "base_url"], "value": gate.url} in read(sketch_at(tmp_path))["edits"]


def test_beyond_this_machine_a_key_is_made(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """The key is in the file and nowhere else; what is to be copied reads it from there."""
    config_at(tmp_path).parent.mkdir(parents=True)
    config_at(tmp_path).write_text(json.dumps({"providers": {"a": {"base_url": gate.url}}, "local": {"models": []}}))
    with Terminal(tmp_path, *no_servers) as terminal:
        terminal.choose("What next?", "where to listen")
        terminal.expect("Who may ask llmproxy?")
        terminal.send(DOWN + ENTER)
        terminal.expect("A new one is in server.api_keys")
        terminal.answer("Port")
        terminal.answer("What next?")
        terminal.expect("llmproxy/auto answers")
        terminal.expect("How to use it from elsewhere?")
        terminal.send(DOWN + ENTER)
        terminal.expect("export LLMPROXY_API_KEY=")
        terminal.answer("How to use it from elsewhere?")
        assert terminal.end() == 0
    written = read(config_at(tmp_path))
    (key,) = written["server"]["api_keys"]
    assert written["server"]["host"] == "0.0.0.0"
    assert len(key) > 40
    assert key not in terminal.raw


def test_plain_lines(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """On a terminal that cannot move its cursor the same questions come as lines, and a key is not echoed."""
    with Terminal(tmp_path, *no_servers, "--no-local", term="dumb") as terminal:
        terminal.answer("Add or change a provider", "another server")
        terminal.answer("Name for it", "mine")
        terminal.answer("Its address", "gpu-box")
        terminal.expect("An address begins with http")
        terminal.answer("Its address", gate.url)
        terminal.answer("Key for mine", RIGHT)
        terminal.expect("mine/ok answered")
        terminal.expect("Add or change a provider")
        assert RIGHT not in terminal.raw
        terminal.send(CTRL_C)
        terminal.expect("Nothing is lost")
        assert terminal.end() == 1


def piped(home: Path, *options: str, answers: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The setup without a terminal, its answers through a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "llmproxy", "setup", *options],
        cwd=home,
        env=environment(home, TERM="xterm", **env),
        input=answers,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_terminal(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """Lines through a pipe do the whole of it."""
    steps = ["another server", "mine", gate.url, RIGHT, "", "", "", "", "", "9000", "", ""]
    ended = piped(tmp_path, *no_servers, "--no-local", answers="\n".join(steps) + "\n")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert read(config_at(tmp_path)) == {
        "local": {"models": []},
        "providers": {"mine": {"base_url": gate.url, "api_key": RIGHT}},
        "server": {"host": "127.0.0.1", "port": 9000},
    }
    assert RIGHT not in ended.stdout + ended.stderr


def test_the_input_ends(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """It stops with exit code 1, and nothing is written."""
    ended = piped(tmp_path, *no_servers, answers="")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert not config_at(tmp_path).exists()


def test_a_file_that_is_wrong(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """Exit code 2 with the path of the wrong field; the file is left alone."""
    path = tmp_path / "config.json"
    path.write_text('{"server": {"prot": 1}}')
    ended = command("setup", *no_servers, "--config", str(path), home=tmp_path)
    assert ended.returncode == 2
    assert "server.prot: unknown key" in ended.stderr
    assert path.read_text() == '{"server": {"prot": 1}}'


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """Exit code 2 before any answer is lost."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    ended = command("setup", *no_servers, "--no-local", "--config", str(folder / "c.json"), home=tmp_path)
    assert ended.returncode == 2
    assert "cannot be written" in ended.stderr
