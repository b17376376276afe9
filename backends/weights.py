"""Where a local model's files are, and what they and the catalogue say about it; reads files, never imports torch."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backends import tiny
from backends.base import Settings
from backends.catalogue import HANDLERS, Catalogue, Entry, Kind, built_in
from backends.checkpoints import added_bytes
from backends.placement import Need
from llmproxy.core.env import MissingVariable, expand

# Where a model has no files here: another server has them, or the one that is started for it fetches its own.
NO_FOLDER = Path("/nowhere")

_PROMISES = {"tools": ("tools",), "reasoning": ("<think>", "enable_thinking")}
_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "tokenizer*")
_PICKLED = ("*.json", "*.jinja", "*.txt", "*.model", "tokenizer*", "pytorch_model*.bin", "model.bin")
# Copies of the same weights in other forms.
_COPIES = ("*fp32*", "original/*", "onnx/*", "openvino/*")
_SENTENCE_TRANSFORMERS = ("modules.json", "config_sentence_transformers.json")
# As for the catalogue (`models.yaml`): what a model takes beyond its weights, and its process, in MiB.
_OVERHEAD = 1.2
_PROCESS_MB = 600
_PLAIN = Entry()


class WeightsMissing(Exception):
    """A model is not in this machine; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A local model: its name after `local/`, its folder, and what its files promise.

    `folder` is `NO_FOLDER` for one that another server runs. `aliases` are its other names.
    """

    name: str
    folder: Path
    context_tokens: int | None
    capabilities: frozenset[str]
    toy: bool = False
    kind: Kind = "chat"
    entry: Entry = _PLAIN

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names for it."""
        return tuple(name for name in self.entry.spellings if name != self.name)

    @property
    def handler(self) -> str | None:
        """The dotted path of what runs it; None where the worker finds it by the files of a chat model."""
        return self.entry.handler or HANDLERS.get(self.kind)

    @property
    def rehearsals(self) -> frozenset[str]:
        """What it is to show of itself when it is loaded (`backends.rehearsal`)."""
        if self.kind not in ("chat", "vision"):
            return frozenset({self.kind})
        if self.entry.handler is not None:  # of tools nobody knows what it makes
            return frozenset({"chat"}) | self.capabilities & {"vision"}
        if not _template(self.folder):
            return frozenset({"completions"})
        return frozenset({"chat"}) | self.capabilities & {"tools", "vision"}

    @property
    def on_this_machine(self) -> bool:
        """Whether calls of it stay in this machine: not those of a server elsewhere."""
        url = self.entry.upstream_base_url
        return url is None or _is_loopback(url)

    def settings(self, device: str) -> Settings:
        """What a handler is told."""
        entry = self.entry
        return Settings(
            name=self.name,
            folder=self.folder,
            device=device,
            dtype=entry.dtype,
            pooling=entry.pooling,
            quantization=entry.quantization,
            defaults=entry.defaults.model_dump(exclude_none=True),
            context_tokens=entry.context,
            trust_remote_code=entry.trust_remote_code,
        )

    def need(self) -> Need:
        """What it asks of the machine; without a figure in the catalogue, guessed from the size of its files.

        FP8 weights that are written out when they are loaded take more than either says.
        """
        entry = self.entry
        memory_mb = entry.memory_mb
        if memory_mb is None:
            size_mb = sum(path.stat().st_size for path in _weight_files(self.folder)) / (1 << 20)
            memory_mb = 0 if entry.upstream_base_url else int(size_mb * _OVERHEAD) + _PROCESS_MB
        if not entry.command and not entry.upstream_base_url:
            memory_mb += int(added_bytes(self.folder) / (1 << 20) * _OVERHEAD)
        return Need(self.name, memory_mb, entry.min_devices, entry.min_device_memory_mb, entry.pinned, entry.priority)


def resolve(entry: str, catalogue: Catalogue | None = None) -> Weights:
    """The weights of an entry of `local.models`.

    That is `tiny`, a name or alias of the catalogue (None: that of the package), a folder, or a hub id; what is named
    by its hub id keeps that as its name. A relative folder that is called like a model needs `./` in front.
    Raises `WeightsMissing` when there is no such folder, when it was not pulled, or when it is no model.
    """
    if entry == "tiny":
        return _read("tiny", tiny.PATH, toy=True)
    known = (catalogue or built_in()).find(entry)
    if known is not None:
        return _known(known, entry if entry == known.hf_repo_id and "/" in entry else known.name)
    folder = Path(entry).expanduser()
    if folder.is_dir():
        return _read(folder.resolve().name, folder)
    return _read(entry, _folder(entry, None))


def pull(entry: str, catalogue: Catalogue | None = None) -> Path:
    """Download a model of the hub, or of the catalogue, with a progress bar, or go on with a download that broke off.

    Raises `WeightsMissing` when the hub has no such model, cannot be reached, or has nothing to download for it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    known = (catalogue or built_in()).find(entry) or Entry(name=entry, hf_repo_id=entry)
    if known.skip_download or known.upstream_base_url or _is_folder(known.hf_repo_id):
        raise WeightsMissing(f"there is nothing to download for {entry}")
    try:
        folder = Path(
            snapshot_download(
                known.hf_repo_id,
                revision=known.revision,
                allow_patterns=list(known.files or _FILES),
                ignore_patterns=list(_COPIES),
            )
        )
        if not known.files and not _weight_files(folder):
            snapshot_download(known.hf_repo_id, revision=known.revision, allow_patterns=list(_PICKLED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsMissing(f"{entry} cannot be downloaded: {error}") from error
    return folder


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(expand(url)).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (MissingVariable, ValueError):
        return False


def _known(entry: Entry, name: str) -> Weights:
    """The weights of an entry of the catalogue."""
    has_files = not entry.upstream_base_url and (not entry.command or "{folder}" in " ".join(entry.command))
    if not has_files:
        capabilities = frozenset(entry.capabilities) - {"chat"}
        return Weights(name, NO_FOLDER, entry.context, capabilities, kind=entry.kind, entry=entry)
    return _read(name, _folder(entry.hf_repo_id or entry.name, entry.revision), entry)


def _is_folder(repo_id: str) -> bool:
    return repo_id.startswith((".", "/", "~")) or repo_id.count("/") != 1 or Path(repo_id).is_dir()


def _folder(repo_id: str, revision: str | None) -> Path:
    """The folder of a hub id, or the folder that is written in its place."""
    folder = Path(repo_id).expanduser()
    if folder.is_dir():
        return folder
    if _is_folder(repo_id):
        raise WeightsMissing(f"there is no folder {repo_id}")
    return _pulled(repo_id, revision or "main")


def _pulled(repo_id: str, revision: str) -> Path:
    """The folder that `huggingface_hub` keeps a pulled model in (its cache layout, HF_HUB_CACHE)."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = cache / f"models--{repo_id.replace('/', '--')}"
    try:
        commit = (repository / "refs" / revision).read_text().strip()
    except OSError as error:
        if not (repository / "snapshots" / revision).is_dir():  # a revision may be a commit itself
            raise WeightsMissing(f"run: llmproxy pull {repo_id}") from error
        commit = revision
    return repository / "snapshots" / commit


def _read(name: str, folder: Path, entry: Entry = _PLAIN, *, toy: bool = False) -> Weights:
    """What the files in a folder promise; what the catalogue says counts for more."""
    if entry.command and not (folder / "config.json").exists():  # such as a folder of GGUF files
        return Weights(name, folder, entry.context, frozenset(entry.capabilities) - {"chat"}, toy, entry.kind, entry)
    config = _json(folder / "config.json")
    if not _weight_files(folder):
        raise WeightsMissing(f"{folder} has no *.safetensors")
    kind = entry.kind if entry.capabilities else kind_of(folder, config)
    context_tokens = entry.context or _window(config)
    return Weights(name, folder, context_tokens, _capabilities(folder, entry, kind), toy, kind, entry)


def kind_of(folder: Path, config: Mapping[str, Any]) -> Kind:
    """What a model is for, as its files tell; raises `WeightsMissing` for a classifier of several classes, and for a
    model of CTranslate2 that is no Whisper.

    A reranker that is a causal language model (Qwen3-Reranker) looks like a chat model: only the catalogue knows.
    """
    if is_ctranslate(folder):
        if "suppress_ids" not in config:  # which is all that tells
            raise WeightsMissing(f"{folder} is a model of CTranslate2 that is no Whisper, which cannot be served")
        return "speech"
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    if architecture.endswith("ForSequenceClassification"):
        if _labels(config) != 1:
            raise WeightsMissing(f"{folder} is a classifier of {_labels(config)} classes, which cannot be served")
        return "rerank"
    if config.get("model_type") == "whisper" or architecture.startswith("Whisper"):
        return "speech"
    if any((folder / name).exists() for name in _SENTENCE_TRANSFORMERS):
        return "embeddings"
    if architecture.endswith("ForConditionalGeneration") and "vision_config" in config:
        return "vision"
    without_head = architecture.endswith("Model") and not architecture.endswith(("LMHeadModel", "DoubleHeadsModel"))
    return "embeddings" if without_head or architecture.endswith("ForMaskedLM") else "chat"


def is_ctranslate(folder: Path) -> bool:
    """Whether a folder holds a model in the form of CTranslate2, and not in that of transformers."""
    if not (folder / "model.bin").is_file() or any(folder.glob("*.safetensors")):
        return False
    return any(folder.glob("vocabulary.*")) or (folder / "tokenizer.json").is_file()


def _labels(config: Mapping[str, Any]) -> int:
    """Classes of a classifier; two without a word of it, as in transformers."""
    names = config.get("id2label")
    return len(names) if isinstance(names, dict) else int(config.get("num_labels") or 2)


def _capabilities(folder: Path, entry: Entry, kind: Kind) -> frozenset[str]:
    """Those of the catalogue; else the template's for a model that chats, and its kind for any other."""
    prefill = {"prefill"} if kind in ("chat", "vision") else set()
    if entry.capabilities:
        return frozenset(entry.capabilities) - {"chat"} | prefill
    if kind not in ("chat", "vision"):
        return frozenset({kind})
    template = _template(folder)
    promised = {tag for tag, words in _PROMISES.items() if any(word in template for word in words)}
    return frozenset(promised | prefill | ({kind} - {"chat"}))


def _window(config: Mapping[str, Any]) -> int | None:
    inner = config.get("text_config")
    window = config.get("max_position_embeddings")
    if window is None and isinstance(inner, dict):
        window = inner.get("max_position_embeddings")
    return window


def _weight_files(folder: Path) -> list[Path]:
    """Those that are there: in the cache of the hub, a link may outlive its file."""
    for kind in ("*.safetensors", "pytorch_model*.bin"):
        if found := [path for path in folder.glob(kind) if path.is_file()]:
            return found
    return [folder / "model.bin"] if is_ctranslate(folder) else []


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
