"""Steps that are recorded once and replayed, with a recorder for CPUs in the place of CUDA's."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from backends.chat import ChatModel
from backends.engine import Limits
from backends.graphs import RecordedForward, Recordings, Replay, padded_columns, padded_rows
from backends.prefill import Prefill
from backends.ways import _records_alike
from tests.backends.engines import GREEDY, Driver, build, prompt_of, reference


class Tape:
    """Keeps the operations on tensors, and none of the Python between them, as a CUDA graph does."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Replay) -> Replay:
        self.recorded += 1
        operations = make_fx(work, tracing_mode="real", _allow_non_fake_inputs=True)()
        out = work().clone()

        def replay() -> torch.Tensor:
            self.replayed += 1
            return out.copy_(operations())

        return replay


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model with full attention."""
    return build("qwen3", tmp_path_factory.mktemp("qwen"))


def recorded(model: ChatModel, tape: Tape, budget_tokens: int | None = None) -> RecordedForward:
    """A forward over the model that records onto `tape`."""
    return RecordedForward(model.model, "cpu", tape, budget_tokens, model.forward.token_bytes)


@torch.inference_mode()
def test_work_is_done_again() -> None:
    """On new inputs, with what it read elsewhere as it is by then; one shape is recorded once, and again when told."""
    tape, table = Tape(), torch.zeros(4)
    recordings = Recordings(tape)

    def work(places: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        table[places] = values
        return table * 2

    for places, values, wanted in (
        ([0, 1], [1.0, 2.0], [2, 4, 0, 0]),
        ([2, 1], [5.0, 7.0], [2, 14, 10, 0]),
        ([3, 3], [1.0, 1.0], [2, 14, 10, 2]),
    ):
        out = recordings.run("pairs", [torch.tensor(places), torch.tensor(values)], work)
        assert out.tolist() == wanted
    assert (tape.recorded, tape.replayed) == (1, 3)
    recordings.run("one", [torch.tensor([0]), torch.tensor([9.0])], work)
    recordings.forget()
    out = recordings.run("one", [torch.tensor([1]), torch.tensor([9.0])], work)
    assert out.tolist() == [18, 18, 10, 2]
    assert tape.recorded == 3


def test_old_shapes_are_dropped() -> None:
    """Sixty-four are kept; the one that was not used for longest is recorded again."""
    tape = Tape()
    recordings = Recordings(tape)
    for key in range(65):
        recordings.run(key, [torch.ones(1)], lambda ones: ones * 2)
        recordings.run(0 if key == 63 else key, [torch.ones(1)], lambda ones: ones * 2)
    assert tape.recorded == 65
    recordings.run(0, [torch.ones(1)], lambda ones: ones * 2)
    assert tape.recorded == 65
    recordings.run(1, [torch.ones(1)], lambda ones: ones * 2)
    assert tape.recorded == 66


def test_shapes() -> None:
    """Rows go up to powers of two; of columns there are few sizes, and a quarter more than needed at most."""
    assert [padded_rows(rows) for rows in (1, 2, 3, 8, 9, 32)] == [1, 2, 4, 8, 16, 32]
    widths = range(1, 40_000)
    padded = [padded_columns(width) for width in widths]
    assert padded == sorted(padded)
    assert all(size >= width for width, size in zip(widths, padded, strict=True))
    assert all(
        size <= max(256 * -(-width // 256), width * 1.25 + 1) for width, size in zip(widths, padded, strict=True)
    )
    assert len(set(padded)) < 35


@pytest.mark.parametrize("seed", range(2))
def test_rows_that_join_and_leave(model: ChatModel, seed: int) -> None:
    """Rows that come and go, some of them given up, say what transformers says; few shapes are recorded for it."""
    rng, tape = random.Random(seed), Tape()
    driver = Driver(model, Limits(rows=6, chunk_tokens=64), forward=recorded(model, tape))
    waiting = [(prompt_of(rng.randint(1, 60), place), rng.randint(1, 24)) for place in range(20)]
    heard = []
    while waiting or not driver.engine.idle:
        for _ in range(rng.randint(0, 3)):
            if waiting:
                prompt, count = waiting.pop(0)
                heard += [(prompt, count, one) for one in driver.submit(prompt, replace(GREEDY, max_tokens=count))]
        driver.step()
        if heard and rng.random() < 0.1:
            rng.choice(heard)[2].row.cancel.set()
    for prompt, count, one in heard:
        if one.reason != "cancelled":
            assert one.drawn == reference(model, prompt, count)
    assert tape.recorded < 12
    assert tape.replayed > 4 * tape.recorded


def test_a_cache_that_moves(model: ChatModel) -> None:
    """When longer prompts make the cache grow, what was recorded is thrown away; while nothing is to do it stays."""
    tape = Tape()
    driver = Driver(model, forward=recorded(model, tape))
    for size in (10, 200, 12):
        prompt = prompt_of(size, size)
        [one] = driver.submit(prompt, replace(GREEDY, max_tokens=90))
        driver.run()
        assert one.drawn == reference(model, prompt, 90)
    assert driver.forward.cache.allocated_tokens > 0
    before = tape.recorded
    [one] = driver.submit(prompt_of(12, 5))
    driver.run()
    assert one.drawn == reference(model, prompt_of(12, 5), 12)
    assert tape.recorded == before


def test_without_room_for_more_rows(model: ChatModel) -> None:
    """Where the padding does not fit, the rows themselves are decoded as they are."""
    tape = Tape()
    driver = Driver(model, forward=recorded(model, tape, budget_tokens=100))
    prompts = [prompt_of(size, size) for size in (8, 12, 15)]
    heard = [driver.submit(prompt)[0] for prompt in prompts]
    driver.run()
    assert [one.drawn for one in heard] == [reference(model, prompt, 12) for prompt in prompts]
    assert tape.recorded == 0


class Cramped(RecordedForward):
    """A device that has no memory for a prompt while more than so many tokens are kept for the batch."""

    def begin(self, prefill: Prefill) -> None:
        if self.cache.allocated_tokens > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().begin(prefill)


def test_memory_for_a_batch_that_is_gone(model: ChatModel) -> None:
    """Where memory is short, that of rows which have all ended is given back, and not kept from the next prompt."""
    driver = Driver(model, forward=Cramped(model.model, "cpu", Tape(), None, model.forward.token_bytes))
    prompts = [prompt_of(10, place) for place in range(2)]
    heard = [driver.submit(prompt)[0] for prompt in prompts]
    driver.run()
    assert driver.forward.cache.allocated_tokens > 256
    heard += driver.submit(prompt_of(12, 5))
    driver.run()
    for prompt, one in zip([*prompts, prompt_of(12, 5)], heard, strict=True):
        assert one.drawn == reference(model, prompt, 12)


def test_a_model_that_cannot_be_recorded(model: ChatModel, tmp_path: Path) -> None:
    """It is found out when the model is loaded: by an error, or by other logits."""

    class Broken:
        def record(self, work: Replay) -> Replay:
            raise RuntimeError("operation not permitted when stream is capturing")

    class Stale:
        def record(self, work: Replay) -> Replay:
            out = work().clone()
            return lambda: out

    with torch.inference_mode():
        assert _records_alike(recorded(model, Tape()))
        assert not _records_alike(recorded(model, Broken()))  # type: ignore[arg-type]
        assert not _records_alike(recorded(model, Stale()))  # type: ignore[arg-type]
