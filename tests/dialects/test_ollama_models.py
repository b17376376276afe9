"""Models as Ollama's clients look at them."""

from __future__ import annotations

from typing import Any

import ollama
import pytest

from llmproxy.dialects.ollama_models import running, show, tags, version

LOCAL = {
    "id": "local__tiny",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "local",
    "context_length": 2048,
    "llmproxy": {
        "capabilities": ["json", "reasoning", "tools", "vision"],
        "state": "loaded",
        "memory_mb": 2,
        "devices": ["cuda:0"],
    },
}
COLD = {**LOCAL, "id": "local__cold", "llmproxy": {"capabilities": [], "state": "unloaded"}}
POOL = {"id": "llmproxy/free", "object": "model", "created": 0, "owned_by": "llmproxy", "llmproxy": {"is": "pool"}}


def test_tags() -> None:
    """Every model is listed, each with a digest of its own that does not change."""
    found = tags([LOCAL, POOL])
    first, second = ollama.ListResponse.model_validate(found).models
    assert (first.model, second.model) == ("local__tiny", "llmproxy/free")
    assert first.digest != second.digest
    assert tags([LOCAL])["models"][0] == found["models"][0]
    assert found["models"][0]["modified_at"] == "2023-11-14T22:13:20Z"


def test_show() -> None:
    """A model tells what it can do, and its window where clients look for it."""
    found = show(LOCAL)
    read = ollama.ShowResponse.model_validate(found)
    assert read.capabilities == ["completion", "tools", "vision", "thinking"]
    assert read.modelinfo is not None
    assert read.modelinfo[read.modelinfo["general.architecture"] + ".context_length"] == 2048


@pytest.mark.parametrize(
    ("entry", "capabilities"),
    [
        (POOL, ["completion", "tools", "vision", "thinking"]),
        (COLD, ["completion"]),
        ({**LOCAL, "llmproxy": {"capabilities": ["embeddings"]}}, ["embedding"]),
    ],
)
def test_capabilities(entry: dict[str, Any], capabilities: list[str]) -> None:
    """A pool can do what any of its candidates can; a model that embeds does nothing else."""
    assert show(entry)["capabilities"] == capabilities


@pytest.mark.parametrize(("device", "on_gpu"), [("cuda:0", True), ("cpu", False)])
def test_ps(device: str, on_gpu: bool) -> None:
    """Only local models that are loaded run, with the memory that they take."""
    entry = {**LOCAL, "llmproxy": {**LOCAL["llmproxy"], "devices": [device]}}  # type: ignore[dict-item]
    (found,) = ollama.ProcessResponse.model_validate(running([entry, COLD, POOL])).models
    assert found.model == "local__tiny"
    assert found.size == 2 * 1024 * 1024
    assert found.size_vram == (found.size if on_gpu else 0)
    assert found.context_length == 2048


def test_version() -> None:
    """The version is one field."""
    assert version("1.2.3") == {"version": "1.2.3"}
