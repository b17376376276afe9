"""Rerankers: models that read a query together with each document. Runs in the worker process only.

Documents that do not fit into the window are cut at its end, as others do; the query must fit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from backends.base import Cancel, Rejected, RerankHandler, Scores, Settings
from backends.devices import device_of, dtype_of
from backends.embedding import PASS_TOKENS, PASS_TOKENS_CPU, padded, usual_dtype, window_tokens
from backends.microbatch import by_length
from backends.shortage import in_halves

# The prompt that Qwen3-Reranker was trained with, token by token (https://huggingface.co/Qwen/Qwen3-Reranker-0.6B).
_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_TASK = "Given a web search query, retrieve relevant passages that answer the query"

Row = Mapping[str, Sequence[int]]


def reranker(settings: Settings) -> RerankHandler:
    """The handler for the architecture that the folder's config names; raises `ValueError` when there is none."""
    config = AutoConfig.from_pretrained(settings.folder, trust_remote_code=settings.trust_remote_code)
    names = config.architectures or []
    if any(name.endswith("ForSequenceClassification") for name in names):
        return CrossEncoder(settings)
    if "Qwen3ForCausalLM" in names:
        return CausalReranker(settings)
    raise ValueError(f"{settings.name}: {', '.join(names) or 'a model without architectures'} is not a reranker here")


class _Reranker(ABC):
    """Pairs of query and document in batches of like length, one logit for each; the score is its sigmoid."""

    thread_safe = False
    max_parallelism = 1

    def __init__(self, settings: Settings, auto_class: Any) -> None:
        if settings.quantization is not None:
            raise ValueError(f"{settings.name}: rerankers are not quantized here")
        self.device = device_of(settings)
        kind = dtype_of(settings, usual_dtype(self.device))
        remote = {"trust_remote_code": settings.trust_remote_code}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(settings.folder, **remote)
        self.model: Any = auto_class.from_pretrained(settings.folder, dtype=kind, **remote)
        self.model.to(self.device).eval()
        self.model.config.use_cache = False
        window = window_tokens(self.model, self.tokenizer)
        self.context_tokens = min(window, settings.context_tokens or window)
        self._pass_tokens = PASS_TOKENS.get(self.device.type, PASS_TOKENS_CPU)
        self._pad: int = self.tokenizer.pad_token_id or 0

    def rerank(self, query: str, documents: Sequence[str], cancel: Cancel) -> Scores:
        """The score of each document, from 0 to 1; none at all once `cancel` is set.

        Raises `Rejected` (`context_length_exceeded`) when the query leaves no room for a document.
        """
        rows = self._rows(query, documents) if documents else []
        lengths = [len(row["input_ids"]) for row in rows]
        scores = [0.0] * len(rows)
        for places in by_length(lengths, self._pass_tokens):
            if cancel.is_set():
                return Scores([], 0)
            in_halves(places, partial(self._fill, scores, rows))
        return Scores(scores, sum(lengths))

    def _fill(self, scores: list[float], rows: Sequence[Row], places: list[int]) -> None:
        """Compute the scores of some places in one pass."""
        for place, score in zip(places, self._scores([rows[place] for place in places]), strict=True):
            scores[place] = score

    @torch.inference_mode()
    def _scores(self, rows: Sequence[Row]) -> list[float]:
        inputs = {
            name: padded([row[name] for row in rows], self._pad if name == "input_ids" else 0, self.device)
            for name in rows[0]
        }
        scores: list[float] = self._logits(inputs).float().sigmoid().tolist()
        return scores

    def _room(self, query_tokens: int, other_tokens: int) -> int:
        """Tokens that are left for a document."""
        room = self.context_tokens - query_tokens - other_tokens
        if room < 1:
            raise Rejected(
                f"the query has {query_tokens:,} tokens, which leave no room for a document in the window of this model"
                f" ({self.context_tokens:,})",
                kind="context_length",
                code="context_length_exceeded",
                param="query",
            )
        return room

    def _prompts(self, query: str, documents: Sequence[str]) -> list[Row]:
        """The prompt of Qwen3-Reranker for each document."""
        head = f"<Instruct>: {_TASK}\n<Query>: {query}\n<Document>: "
        prefix, suffix = self._plain_ids([_PREFIX, _SUFFIX])
        # What looks like a control token in a query or a document is text: it must not end its turn.
        bare, *bodies = self._plain_ids([head, *(head + text for text in documents)], split_special_tokens=True)
        room = len(bare) + self._room(len(bare), len(prefix) + len(suffix))
        rows = [[*prefix, *body[:room], *suffix] for body in bodies]
        return [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]

    def _plain_ids(self, texts: list[str], **how: Any) -> list[list[int]]:
        """Token ids of each text, with nothing added and nothing cut."""
        # Truncation and padding are named because a tokenizer's file may ask for them.
        read = self.tokenizer(texts, add_special_tokens=False, truncation=False, padding=False, verbose=False, **how)
        ids: list[list[int]] = read.input_ids
        return ids

    @abstractmethod
    def _rows(self, query: str, documents: Sequence[str]) -> list[Row]:
        """The inputs of the model for each document, not padded, `attention_mask` among them."""

    @abstractmethod
    def _logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """One number (batch,) for each padded row (batch, seq)."""


class CrossEncoder(_Reranker):
    """A sequence classifier with one label (bge-reranker, MS MARCO MiniLM, and Qwen3-Reranker converted to one).

    Raises `ValueError` for a classifier with more labels.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, AutoModelForSequenceClassification)
        if self.model.config.num_labels != 1:
            raise ValueError(f"{settings.name}: a classifier with {self.model.config.num_labels} labels ranks nothing")
        self._prompted = self.model.config.model_type == "qwen3"

    def _rows(self, query: str, documents: Sequence[str]) -> list[Row]:
        if self._prompted:
            return self._prompts(query, documents)
        query_tokens = len(self._plain_ids([query])[0])
        self._room(query_tokens, self.tokenizer.num_special_tokens_to_add(pair=True))
        read = self.tokenizer(
            [query] * len(documents),
            list(documents),
            truncation="only_second",
            max_length=self.context_tokens,
            padding=False,
            return_attention_mask=True,
        )
        return [{name: read[name][place] for name in read} for place in range(len(documents))]

    def _logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.model(**inputs).logits
        return logits[:, 0]


class CausalReranker(_Reranker):
    """Qwen3-Reranker: a causal model that is asked whether the document answers the query.

    The logit is that of `yes` over `no` at the last token, so that its sigmoid is the probability of `yes` between the
    two. Only these two rows of the output layer are computed. Raises `ValueError` when they are not single tokens.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, AutoModelForCausalLM)
        yes, no = (self._token(word) for word in ("yes", "no"))
        weight = self.model.get_output_embeddings().weight.detach()
        self._direction = weight[yes].float() - weight[no].float()

    def _token(self, word: str) -> int:
        token: int | None = self.tokenizer.convert_tokens_to_ids(word)
        if token is None or token == self.tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no token {word}, which a reranker of this kind answers with")
        return token

    def _rows(self, query: str, documents: Sequence[str]) -> list[Row]:
        return self._prompts(query, documents)

    def _logits(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        hidden = self.model.base_model(**inputs).last_hidden_state
        last = inputs["attention_mask"].sum(dim=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float() @ self._direction
