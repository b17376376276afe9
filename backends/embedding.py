"""Embedding models: a transformers model, pooling, and what sentence-transformers puts after it. Worker process only.

Batches are padded on the right whatever the tokenizer prefers: the positions of a text, and so its vector, do not
depend on what it was batched with, and behind a causal mask nothing sees the padding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoTokenizer

from backends.base import Cancel, Embeddings, Pooling, Rejected, Settings
from backends.devices import device_of, dtype_of
from backends.microbatch import by_length
from backends.shortage import in_halves

# Tokens of one pass: on a GPU as many as keep it busy, on a CPU as many as stay in its caches (measured with MiniLM).
PASS_TOKENS = {"cuda": 16_384}
PASS_TOKENS_CPU = 512

_POOLINGS: Mapping[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last_token",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last_token",
}
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What the files of sentence-transformers say: where the transformer is, its pooling, and the layers after that."""

    folder: Path
    pooling: Pooling | None = None
    layers: tuple[nn.Module, ...] = ()
    lowercase: bool = False
    max_tokens: int | None = None


class EmbeddingModel:
    """Implements `base.EmbeddingHandler`.

    Raises whatever transformers raises when the folder cannot be loaded, and `ValueError` for what is not supported.
    """

    thread_safe = False
    max_parallelism = 1

    def __init__(self, settings: Settings) -> None:
        if settings.quantization is not None:
            raise ValueError(f"{settings.name}: embedding models are not quantized here")
        pipeline = read_pipeline(settings.folder)
        self.device = device_of(settings)
        kind = dtype_of(settings, usual_dtype(self.device))
        remote = {"trust_remote_code": settings.trust_remote_code}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(pipeline.folder, **remote)
        self.model: Any = AutoModel.from_pretrained(pipeline.folder, dtype=kind, **remote)
        self.model.to(self.device).eval()
        self.model.config.use_cache = False
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise ValueError(f"{settings.name}: an encoder with a decoder is not supported for embeddings")
        self.pooling = settings.pooling or pipeline.pooling or _default_pooling(self.model)
        self._layers = nn.Sequential(*pipeline.layers).to(self.device).eval()
        self._lowercase = pipeline.lowercase
        self._end = _appended_end(pipeline.folder, self.tokenizer)
        self._pad: int = self.tokenizer.pad_token_id or 0
        self._vocab_size: int = self.model.get_input_embeddings().num_embeddings
        limits = (window_tokens(self.model, self.tokenizer), settings.context_tokens, pipeline.max_tokens)
        self.context_tokens: int = min(limit for limit in limits if limit)
        self._pass_tokens = PASS_TOKENS.get(self.device.type, PASS_TOKENS_CPU)
        self.dimensions: int = self._vectors([[self._pad]]).shape[1]

    def count_tokens(self, texts: Sequence[str | Sequence[int]]) -> list[int]:
        """Tokens of each text, special ones included; token ids count as they are."""
        return [len(ids) for ids in self._ids(texts)]

    def embed(self, texts: Sequence[str | Sequence[int]], cancel: Cancel) -> Embeddings:
        """A vector of length 1 for each text, (texts, dimensions); no row at all once `cancel` is set.

        Token ids are read as they are: special tokens are added to strings only. Raises `Rejected` for a text that is
        empty, longer than the window (`context_length_exceeded`) or holds unknown tokens.
        """
        rows = self._ids(texts)
        for ids in rows:
            self._check(ids)
        lengths = [len(ids) for ids in rows]
        vectors = np.empty((len(rows), self.dimensions), np.float32)
        for places in by_length(lengths, self._pass_tokens):
            if cancel.is_set():
                return Embeddings(vectors[:0], [])
            in_halves(places, partial(self._fill, vectors, rows))
        return Embeddings(vectors, lengths)

    def _fill(self, vectors: np.ndarray[Any, Any], rows: Sequence[Sequence[int]], places: list[int]) -> None:
        """Compute the vectors of some places in one pass."""
        vectors[places] = self._vectors([rows[place] for place in places]).cpu().numpy()

    @torch.inference_mode()
    def _vectors(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """One pass: token ids to (texts, dimensions), float32, each of length 1."""
        ids, mask = padded(rows, self._pad, self.device), padded([[1] * len(row) for row in rows], 0, self.device)
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return nn.functional.normalize(self._layers(pooled(hidden, mask, self.pooling)), dim=-1)

    def _ids(self, texts: Sequence[str | Sequence[int]]) -> list[list[int]]:
        strings = [text.lower() if self._lowercase else text for text in texts if isinstance(text, str)]
        # Truncation and padding are named because a tokenizer's file may ask for them (that of MiniLM does).
        read = self.tokenizer(strings, truncation=False, padding=False, verbose=False).input_ids if strings else ()
        ids = iter(read)
        return [self._ended(next(ids)) if isinstance(text, str) else list(text) for text in texts]

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if self._end is None or ids[-1:] == [self._end] else [*ids, self._end]

    def _check(self, ids: Sequence[int]) -> None:
        if len(ids) > self.context_tokens:
            raise Rejected(
                f"an input has {len(ids):,} tokens and the window of this model {self.context_tokens:,}",
                kind="context_length",
                code="context_length_exceeded",
                param="input",
            )
        if not ids or min(ids) < 0 or max(ids) >= self._vocab_size:
            raise Rejected(
                "an input is empty or holds unknown tokens", kind="invalid", code="invalid_request", param="input"
            )


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Hidden states (batch, seq, width) to one vector each (batch, width), in float32.

    `mask` (batch, seq) is 1 at the tokens of the text, on whichever side the padding is.
    """
    if pooling == "mean":
        weights = mask.unsqueeze(-1).float()
        return (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    place = (mask * (steps if pooling == "last_token" else steps.flip(0))).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place].float()


def padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> torch.Tensor:
    """Rows of different lengths as (batch, longest), filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], device=device)


def usual_dtype(device: torch.device) -> torch.dtype:
    """Encoders are small: bfloat16 on CUDA, and float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def window_tokens(model: Any, tokenizer: Any) -> int:
    """The most tokens that a model can read: what its tokenizer, its config and its table of positions all allow."""
    limits = [int(tokenizer.model_max_length)]
    config_limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if config_limit:
        limits.append(config_limit)
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding):
        # RoBERTa and its kin count positions from behind the padding index.
        limits.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(limits)


def read_pipeline(folder: Path) -> Pipeline:
    """What the sentence-transformers files in `folder` say; without them the folder is the transformer.

    Raises `ValueError` for modules and poolings that are not supported.
    """
    modules = _json(folder / "modules.json") or [{"type": "Transformer", "path": ""}, {"type": "Pooling"}]
    transformer, pooling, layers = folder, None, list[nn.Module]()
    for module in modules:
        kind, path = str(module["type"]).rpartition(".")[2], folder / module.get("path", "1_Pooling")
        if kind == "Transformer":
            transformer = path
        elif kind == "Pooling":
            pooling = _read_pooling(path)
        elif kind == "Dense":
            layers.append(_read_dense(path))
        elif kind == "Normalize":
            layers.append(_Normalize())
        else:
            raise ValueError(f"{folder}: the sentence-transformers module {kind} is not supported")
    told = _json(transformer / "sentence_bert_config.json") or {}
    return Pipeline(
        transformer, pooling, tuple(layers), bool(told.get("do_lower_case")), told.get("max_seq_length") or None
    )


class _Normalize(nn.Module):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(vectors, dim=-1)


def _read_pooling(folder: Path) -> Pooling | None:
    config = _json(folder / "config.json")
    if config is None:
        return None
    flags = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    named = config.get("pooling_mode", flags)
    modes = [named] if isinstance(named, str) else named
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ValueError(f"{folder}: pooling by {' and '.join(modes) or 'nothing'} is not supported")
    return _POOLINGS[modes[0]]


def _read_dense(folder: Path) -> nn.Module:
    """A linear layer and its activation, in float32."""
    config = _json(folder / "config.json") or {}
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    source = config.get("module_input_name", "sentence_embedding")
    if activation not in _ACTIVATIONS or config.get("use_residual") or source != "sentence_embedding":
        raise ValueError(f"{folder}: a Dense module with {activation} of {source} is not supported")
    linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    weights = load_file(folder / "model.safetensors")
    linear.load_state_dict({name.removeprefix("linear."): weight.float() for name, weight in weights.items()})
    return nn.Sequential(linear, _ACTIVATIONS[activation]())


def _default_pooling(model: nn.Module) -> Pooling:
    """The last token sees the whole text where attention is causal, and no other does."""
    causal = any(getattr(module, "is_causal", False) for module in model.modules())
    return "last_token" if causal else "mean"


def _appended_end(folder: Path, tokenizer: Any) -> int | None:
    """The end token where the tokenizer's config asks for one: from version 5 on, transformers leaves it to the
    tokenizer's file, which in some models knows nothing of it."""
    config = _json(folder / "tokenizer_config.json") or {}
    return tokenizer.eos_token_id if config.get("add_eos_token") else None


def _json(path: Path) -> Any:
    """The content of a file, or None where there is none; raises `ValueError` when it is not JSON."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
