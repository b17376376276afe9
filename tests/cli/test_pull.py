"""`llmproxy pull` from a hub, and a server with the model that it downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.build import build_chat_model
from tests.cli.hub import Hub
from tests.servers import client_of, command, serving

REPO = "someone/small-model"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with one small model, and a file that no model needs."""
    folder = build_chat_model(tmp_path_factory.mktemp("built"))
    (folder / "pytorch_model.bin").write_bytes(b"\x00" * 1000)
    with Hub({REPO: folder}) as hub:
        yield hub


async def test_a_pulled_model_is_served(hub: Hub, tmp_path: Path) -> None:
    """Before the pull the model is missing; after it the hub is not asked again, and the model answers by its id."""
    env = {"HF_ENDPOINT": hub.url}
    pulled = command("pull", REPO, home=tmp_path, env=env)
    assert pulled.returncode == 0, pulled.stderr
    assert f"{REPO} is in " in pulled.stdout
    assert not [path for path in hub.requests if path.endswith("pytorch_model.bin")]

    hub.requests.clear()
    with serving({"local": {"models": [REPO]}}, tmp_path, env=env) as server:
        async with client_of(server) as client:
            whole = await client.chat(f"local/{REPO}", max_tokens=8)
            streamed = await client.chat(f"local/{REPO}", max_tokens=8, stream=True)
    assert (whole.status, whole.json["model"]) == (200, f"local/{REPO}")
    assert whole.text == streamed.text != ""
    assert hub.requests == []


async def test_a_model_that_was_never_pulled_is_told(hub: Hub, tmp_path: Path) -> None:
    """The server starts, says which command is missing, and downloads nothing by itself."""
    hub.requests.clear()
    with serving({"local": {"models": [REPO]}}, tmp_path, env={"HF_ENDPOINT": hub.url}) as server:
        async with client_of(server) as client:
            answer = await client.chat(f"local/{REPO}")
        assert f"llmproxy pull {REPO}" in server.printed
    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert hub.requests == []


def test_a_model_that_the_hub_does_not_have(hub: Hub, tmp_path: Path) -> None:
    """Exit code 1 and a sentence, not a traceback."""
    ended = command("pull", "someone/else", home=tmp_path, env={"HF_ENDPOINT": hub.url})
    assert ended.returncode == 1
    assert "someone/else cannot be downloaded" in ended.stderr
    assert "Traceback" not in ended.stderr
