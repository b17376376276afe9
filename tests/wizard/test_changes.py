"""Changing what is there, in a real terminal: keys, names, account ids, models from a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.backends.build import build_chat_model
from tests.cli.hub import Hub
from tests.fakes.upstream import UpstreamThread
from tests.servers import unreachable
from tests.wizard.conftest import RIGHT, WRONG
from tests.wizard.terminal import CTRL_U, DOWN, ENTER, SPACE, Terminal

pytestmark = pytest.mark.limit(180)
SECOND = "sk-second-0123456789abcdef"
REPO = "someone/small-model"


def start(home: Path, config: dict[str, Any]) -> Path:
    """A file to change."""
    path = home / "config.json"
    path.write_text(json.dumps({"local": {"models": []}, **config}))
    return path


def finish(terminal: Terminal) -> int:
    """Write the file, look at the call, and want nothing more."""
    terminal.answer("What next?")
    terminal.expect("is written")
    terminal.answer("How to use it from elsewhere?")
    return terminal.end()


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_a_second_key(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """The new key is tried alone, and typed again when it is refused; the first one stays."""
    path = start(tmp_path, {"providers": {"a": {"base_url": gate.url, "api_key": RIGHT}}})
    with Terminal(tmp_path, *no_servers, "--config", str(path)) as terminal:
        terminal.choose("What next?", "change providers")
        terminal.choose("Add or change a provider", "a: change")
        terminal.expect("a (sk-…ef)")
        terminal.send(DOWN * 3 + ENTER)
        terminal.answer("One more key for a", WRONG)
        terminal.expect("is not accepted (401")
        terminal.answer("What now?")
        terminal.answer("Key for a", SECOND)
        terminal.expect("a/ok answered")
        terminal.answer("Add or change a provider")
        assert finish(terminal) == 0
        assert not {RIGHT, WRONG, SECOND} & set(terminal.raw.split())
    assert read(path)["providers"]["a"] == {"base_url": gate.url, "api_key": RIGHT, "api_keys": [SECOND]}


def test_a_provider_is_put_back(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """A new key that does not work can be given up; the file keeps the old one."""
    config = {"providers": {"a": {"base_url": gate.url, "api_key": RIGHT, "_note": "mine"}}}
    path = start(tmp_path, config)
    with Terminal(tmp_path, *no_servers, "--config", str(path)) as terminal:
        terminal.choose("What next?", "change providers")
        terminal.choose("Add or change a provider", "a: change")
        terminal.expect("a (sk-…ef)")
        terminal.send(DOWN * 2 + ENTER)
        terminal.answer("New key for a", WRONG)
        terminal.expect("What now?")
        terminal.send(DOWN * 4 + ENTER)
        terminal.answer("Add or change a provider")
        assert finish(terminal) == 0
    assert read(path) == {"local": {"models": []}, **config}


def test_an_address_without_v1_is_completed(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """What people copy from a browser works."""
    with Terminal(tmp_path, *no_servers, "--no-local", "--config", str(tmp_path / "c.json")) as terminal:
        terminal.choose("Add or change a provider", "another server")
        terminal.answer("Name for it", "mine")
        terminal.answer("Its address", gate.url.removesuffix("/v1"))
        terminal.answer("Key for mine")
        terminal.expect(f"The API is at {gate.url}")
        terminal.expect("mine/ok answered")
        terminal.expect("Add or change a provider")
        terminal.kill()
    edits = read(tmp_path / "c.json.draft")["edits"]
    assert {"path": ["providers", "mine", "base_url"], "value": gate.url} in edits


def test_an_account_id(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """It is asked for where the address needs it, and written into both addresses."""
    with unreachable() as nowhere:
        env = {"HTTPS_PROXY": nowhere.removesuffix("/v1"), "CLOUDFLARE_API_TOKEN": RIGHT}
        with Terminal(tmp_path, *no_servers, "--no-local", "--config", str(tmp_path / "c.json"), env=env) as terminal:
            terminal.answer("Use these?")
            terminal.choose("Add or change a provider", "cloudflare-workers")
            terminal.answer("CLOUDFLARE_ACCOUNT_ID", "0a1b2c")
            terminal.answer("Use the key in CLOUDFLARE_API_TOKEN?")
            told = terminal.expect("What now?")
            assert "the proxy does not let it through" in told
            terminal.send(DOWN * 3 + ENTER)
            terminal.expect("Add or change a provider")
            terminal.kill()
    edits = {tuple(one["path"]): one.get("value") for one in read(tmp_path / "c.json.draft")["edits"]}
    account = "https://api.cloudflare.com/client/v4/accounts/0a1b2c/ai"
    assert edits["providers", "cloudflare-workers", "base_url"] == f"{account}/v1"
    assert edits["providers", "cloudflare-workers", "models_url"] == f"{account}/models/search"
    assert edits["providers", "cloudflare-workers", "api_key"] == "${CLOUDFLARE_API_TOKEN}"


def test_a_pool_and_an_alias(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """Models are picked from the lists of the providers, in the order in which they are to be asked."""
    path = start(tmp_path, {"providers": {"a": {"base_url": gate.url, "api_key": RIGHT}}})
    with Terminal(tmp_path, *no_servers, "--config", str(path)) as terminal:
        terminal.choose("What next?", "pools and aliases")
        terminal.expect("Names of your own")
        terminal.send(DOWN * 2 + ENTER)
        terminal.answer("Its name", "free")
        terminal.expect("free is taken")
        terminal.send(CTRL_U + "pair" + ENTER)
        terminal.answer("What is in it?")
        terminal.choose("Model 1", "acme")
        terminal.choose("Model 2", "a/ok")
        terminal.answer("Model 3")
        terminal.answer("Who is asked first?")
        terminal.expect("Names of your own")
        terminal.send(DOWN + ENTER)
        terminal.answer("The alias")
        terminal.choose("What is gpt-4o-mini?", "pair")
        terminal.answer("Names of your own")
        assert finish(terminal) == 0
    assert read(path)["pools"] == {"pair": {"where": {"models": ["a/acme/ok-large", "a/ok"]}, "order": "as_listed"}}
    assert read(path)["aliases"] == {"gpt-4o-mini": "llmproxy/pair"}


def test_a_filter(tmp_path: Path, gate: UpstreamThread, no_servers: tuple[str, ...]) -> None:
    """Models are ticked; a pattern that was there can be kept."""
    entry = {"base_url": gate.url, "api_key": RIGHT, "model_filter": ["emb*"]}
    path = start(tmp_path, {"providers": {"a": entry}})
    with Terminal(tmp_path, *no_servers, "--config", str(path)) as terminal:
        terminal.choose("What next?", "change providers")
        terminal.choose("Add or change a provider", "a: change")
        terminal.expect("a (sk-…ef)")
        terminal.send(DOWN * 4 + ENTER)
        terminal.expect("Which models?")
        terminal.send(DOWN + SPACE + ENTER)
        terminal.answer("Add or change a provider")
        assert finish(terminal) == 0
    assert read(path)["providers"]["a"]["model_filter"] == ["emb*", "ok"]


def test_a_model_from_a_hub(tmp_path: Path, no_servers: tuple[str, ...]) -> None:
    """It is downloaded where it is chosen, and answers at once."""
    built, home = tmp_path / "built", tmp_path / "home"
    built.mkdir()
    home.mkdir()
    folder = build_chat_model(built)
    path = start(home, {"server": {"port": 9000}})
    with Hub({REPO: folder}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hub")}
        with Terminal(home, *no_servers, "--config", str(path), env=env) as terminal:
            terminal.choose("What next?", "models in this machine")
            terminal.answer("Which ones?")
            terminal.answer("Another one", "./nowhere")
            terminal.expect("There is no folder ./nowhere")
            terminal.send(CTRL_U + REPO + ENTER)
            terminal.answer("Another one")
            terminal.answer(f"Download {REPO} now?")
            terminal.expect(f"ok: {REPO} is here")
            terminal.answer("Ask one of them something now?")
            terminal.answer("Say something to it")
            terminal.expect(f"ok: local/{REPO} in")
            terminal.answer("What next?")
            terminal.expect("is written")
            terminal.expect("How to use it from elsewhere?")
            terminal.send(ENTER)
            terminal.end()
    assert read(path)["local"]["models"] == [REPO]
