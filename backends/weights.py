"""Where a local model's files are, and what they say about it; reads files, never imports torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends import tiny

_PROMISES = {"tools": ("tools",), "reasoning": ("<think>", "enable_thinking")}


class WeightsMissing(Exception):
    """A model is not in this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A local model: its name after `local/`, its folder, and what its files promise."""

    name: str
    folder: Path
    context_tokens: int | None
    capabilities: frozenset[str]
    toy: bool = False


def resolve(entry: str) -> Weights:
    """The weights of an entry of `local.models`: `tiny`, a folder, or a hub id that was pulled before.

    Raises `WeightsMissing` when there is no such folder, or when it is no transformers model.
    """
    if entry == "tiny":
        return _read("tiny", tiny.PATH, toy=True)
    folder = Path(entry).expanduser()
    if folder.is_dir():
        return _read(folder.resolve().name, folder)
    if entry.startswith((".", "/", "~")) or entry.count("/") != 1:
        raise WeightsMissing(f"there is no folder {entry}")
    return _read(entry, _pulled(entry))


def pull(repo_id: str) -> Path:
    """Download a model of the hub with a progress bar, or go on with a download that was broken off.

    Raises `WeightsMissing` when the hub has no such model or cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kept = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "tokenizer*"]
    try:
        return Path(snapshot_download(repo_id, allow_patterns=kept))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsMissing(f"{repo_id} cannot be downloaded: {error}") from error


def _pulled(repo_id: str) -> Path:
    """The folder that `huggingface_hub` keeps a pulled model in (its cache layout, HF_HUB_CACHE)."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except OSError as error:
        raise WeightsMissing(f"run: llmproxy pull {repo_id}") from error
    return repository / "snapshots" / revision


def _read(name: str, folder: Path, *, toy: bool = False) -> Weights:
    config = _json(folder / "config.json")
    if not list(folder.glob("*.safetensors")):
        raise WeightsMissing(f"{folder} has no *.safetensors")
    template = _template(folder)
    capabilities = {tag for tag, words in _PROMISES.items() if any(word in template for word in words)}
    inner = config.get("text_config")
    window = config.get("max_position_embeddings")
    if window is None and isinstance(inner, dict):
        window = inner.get("max_position_embeddings")
    return Weights(name, folder, window, frozenset(capabilities | {"prefill"}), toy)


def _template(folder: Path) -> str:
    try:
        return (folder / "chat_template.jinja").read_text("utf-8", errors="replace")
    except OSError:
        try:
            return str(_json(folder / "tokenizer_config.json").get("chat_template") or "")
        except WeightsMissing:
            return ""


def _json(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsMissing(f"{path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise WeightsMissing(f"{path} is not a JSON object")
    return data
