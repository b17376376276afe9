"""Where local models are found, and what is said when they are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.weights import Weights, WeightsMissing, resolve


def model_in(
    folder: Path, *, config: Any = None, weights: bool = True, template: str | None = None, **tokenizer: Any
) -> Path:
    """A folder that looks like a transformers model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config or {}))
    if weights:
        (folder / "model.safetensors").touch()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if tokenizer:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize(
    ("config", "template", "tokenizer", "window", "capabilities"),
    [
        ({}, None, {}, None, {"prefill"}),
        ({"max_position_embeddings": 4096}, "{{ messages }}", {}, 4096, {"prefill"}),
        ({"text_config": {"max_position_embeddings": 8192}}, "{% if tools %}", {}, 8192, {"prefill", "tools"}),
        ({}, "<think>{% if tools %}", {}, None, {"prefill", "tools", "reasoning"}),
        ({}, "{% if enable_thinking %}", {}, None, {"prefill", "reasoning"}),
        ({}, None, {"chat_template": "{{ tools }}"}, None, {"prefill", "tools"}),
        ({}, None, {"chat_template": None}, None, {"prefill"}),
    ],
)
def test_what_files_promise(
    tmp_path: Path, config: Any, template: str | None, tokenizer: Any, window: int | None, capabilities: set[str]
) -> None:
    """The window comes from the configuration, capabilities from the chat template, wherever that is."""
    folder = model_in(tmp_path / "my-model", config=config, template=template, **tokenizer)
    assert resolve(str(folder)) == Weights("my-model", folder, window, frozenset(capabilities))


def test_relative_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder may be given relative to where the server was started, or to the home folder."""
    model_in(tmp_path / "models" / "small")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for entry in ("models/small", "./models/small", "~/models/small"):
        assert resolve(entry).name == "small"


def test_a_pulled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id means what was pulled into the hub's cache."""
    repository = tmp_path / "hub" / "models--Maker--Small-1B"
    model_in(repository / "snapshots" / "abc", config={"max_position_embeddings": 10})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert resolve("Maker/Small-1B").name == "Maker/Small-1B"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert resolve("Maker/Small-1B").context_tokens == 10


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("./none", "there is no folder ./none"),
        ("/none/at/all", "there is no folder"),
        ("~/none", "there is no folder"),
        ("small", "there is no folder small"),
        ("a/b/c", "there is no folder"),
        ("Maker/Small-1B", "run: llmproxy pull Maker/Small-1B"),
    ],
)
def test_what_is_not_there(entry: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is missing is refused with how to get it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match=says):
        resolve(entry)


@pytest.mark.parametrize(
    ("config", "weights", "says"),
    [
        ({}, False, "no .*safetensors"),
        ("{", True, "cannot be read"),
        ("[]", True, "not a JSON object"),
        ("\udcff", True, "x"),
    ],
    ids=["no weights", "broken", "a list", "no text"],
)
def test_a_folder_that_is_no_model(tmp_path: Path, config: Any, weights: bool, says: str) -> None:
    """A folder without weights, or with a configuration that cannot be read, is refused in words."""
    if config == "\udcff":
        folder = model_in(tmp_path, weights=weights)
        (folder / "config.json").write_bytes(b"\xff\xfe")
        says = "cannot be read"
    else:
        folder = model_in(tmp_path, config=config, weights=weights)
    with pytest.raises(WeightsMissing, match=says):
        resolve(str(folder))


def test_a_pull_that_broke_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference to a snapshot that is not there is refused."""
    (tmp_path / "models--a--b" / "refs").mkdir(parents=True)
    (tmp_path / "models--a--b" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing):
        resolve("a/b")


@pytest.mark.parametrize("broken", ["template", "config"])
def test_odd_files(tmp_path: Path, broken: str) -> None:
    """Odd files of a model make it unusable, not the server."""
    folder = model_in(tmp_path / "m", config={"text_config": "none"} if broken == "config" else {})
    if broken == "template":
        (folder / "chat_template.jinja").write_bytes(b"\xff")
    try:
        resolve(str(folder))
    except WeightsMissing:
        return
    except (AttributeError, UnicodeDecodeError) as error:
        pytest.fail(repr(error))
