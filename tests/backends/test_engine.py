"""The chat engine: whatever else is in the batch, a row says what it would say alone."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from backends.base import Rejected, Settings
from backends.chat import ChatModel
from backends.engine import Limits, QueueFull
from backends.forward import SlotForward
from backends.linear import PackedLinear, pack
from backends.parameters import Sampling
from backends.prefill import Prefill
from backends.shortage import TooLarge
from backends.solo import SoloForward
from tests.backends.build import CONTEXT_TOKENS, build_chat_model
from tests.backends.engines import GREEDY, Driver, build, prompt_of, reference


@pytest.fixture(scope="module", params=["qwen3", "llama", "mistral"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model of each kind; the last one has a sliding window."""
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model that a slot cache serves."""
    return build("qwen3", tmp_path_factory.mktemp("qwen"))


def test_which_models_share_a_pass(model: ChatModel) -> None:
    """Full attention is batched; a sliding window is run row by row."""
    assert type(model.forward) is (SoloForward if model.model.config.model_type == "mistral" else SlotForward)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_join_and_leave(model: ChatModel, seed: int) -> None:
    """Greedy rows that come and go at random say what transformers' own generation says."""
    rng = random.Random(seed)
    driver = Driver(model, Limits(rows=6, chunk_tokens=rng.choice([16, 64, 512])))
    asked = [(prompt_of(rng.randint(1, 60), place), rng.randint(1, 24)) for place in range(20)]
    waiting, heard = list(asked), []
    while waiting or not driver.engine.idle:
        for _ in range(rng.randint(0, 3)):
            if waiting:
                prompt, count = waiting.pop(0)
                heard += driver.submit(prompt, replace(GREEDY, max_tokens=count))
        driver.step()
        assert driver.engine.decoding <= 6
    for (prompt, count), one in zip(asked, heard, strict=True):
        assert one.drawn == reference(model, prompt, count)
        assert one.reason == ("stop" if one.drawn[-1] == model.tokenizer.eos_token_id else "length")


def test_one_leaves(model: ChatModel) -> None:
    """A row that is cancelled ends within a step, and the others say what they would have said."""
    driver = Driver(model)
    prompts = [prompt_of(size) for size in (5, 17, 9, 30)]
    heard = [driver.submit(prompt, replace(GREEDY, max_tokens=30))[0] for prompt in prompts]
    for _ in range(6):
        driver.step()
    heard[1].row.cancel.set()
    before = heard[1].row.completion_tokens
    driver.run()
    assert (heard[1].reason, heard[1].row.completion_tokens) == ("cancelled", before)
    for place in (0, 2, 3):
        assert heard[place].drawn == reference(model, prompts[place], 30)


def test_streams_that_are_dropped(model: ChatModel) -> None:
    """After 50 answers that were opened and dropped at random nothing is left of them, and the next one is right."""
    rng = random.Random(5)
    driver = Driver(model, Limits(rows=8, chunk_tokens=32))
    left = 50
    while left or not driver.engine.idle:
        for _ in range(min(left, rng.randint(0, 4))):
            driver.submit(prompt_of(rng.randint(1, 90), left), replace(GREEDY, max_tokens=200))
            left -= 1
        driver.step()
        for heard in driver.heard.values():
            if not heard.reason and rng.random() < 0.2:
                heard.row.cancel.set()
    assert {heard.reason for heard in driver.heard.values()} <= {"cancelled", "stop", "length"}
    assert (driver.engine.waiting, driver.engine.decoding) == (0, 0)
    if isinstance(driver.forward, SlotForward):
        assert driver.forward.cache.allocated_tokens == 0
    prompt = prompt_of(40, 99)
    assert driver.solo(prompt).drawn == reference(model, prompt, 12)


def test_long_prompts_are_read_in_chunks(model: ChatModel) -> None:
    """A long prompt says the same in chunks of 16 tokens, and another row is decoded between them."""
    driver = Driver(model, Limits(chunk_tokens=16))
    [short] = driver.submit(prompt_of(4), replace(GREEDY, max_tokens=40))
    driver.step()
    prompt = prompt_of(200)
    [long] = driver.submit(prompt)
    drawn = []
    while not long.drawn:
        driver.step()
        drawn.append(short.row.completion_tokens)
    assert len(drawn) == 200 // 16 + 1
    assert drawn == list(range(drawn[0], drawn[0] + len(drawn)))
    driver.run()
    assert long.drawn == reference(model, prompt, 12)
    assert short.drawn == reference(model, prompt_of(4), 40)


def test_a_short_prompt_overtakes_a_long_one(qwen: ChatModel) -> None:
    """While a long prompt is read, a short one that came later gets its first token."""
    driver = Driver(qwen, Limits(chunk_tokens=16))
    [long] = driver.submit(prompt_of(300))
    driver.step()
    [short] = driver.submit(prompt_of(8))
    for _ in range(3):
        driver.step()
    assert short.drawn
    assert not long.drawn
    driver.run()
    assert long.drawn == reference(qwen, prompt_of(300), 12)


def test_known_beginnings_are_not_read_again(qwen: ChatModel) -> None:
    """A conversation that goes on reads only what is new, and says what it says without that."""
    driver = Driver(qwen)
    prompt = prompt_of(50)
    first = driver.solo(prompt)
    assert first.row.cached_tokens == 0
    longer = [*first.row.ids, *prompt_of(20, 7)]
    second = driver.solo(longer)
    assert second.row.cached_tokens == len(first.row.ids) - 1
    assert second.drawn == Driver(qwen).solo(longer).drawn == reference(qwen, longer, 12)
    again = driver.solo(prompt)
    assert again.row.cached_tokens == len(prompt) - 1
    assert again.drawn == first.drawn


def test_a_beginning_is_taken_from_a_row_that_is_decoded(qwen: ChatModel) -> None:
    """A prompt with the system prompt of an answer that is still written does not read that part."""
    driver = Driver(qwen)
    system = prompt_of(80)
    [first] = driver.submit(system + prompt_of(5, 1), replace(GREEDY, max_tokens=30))
    driver.step()
    [second] = driver.submit(system + prompt_of(9, 2))
    driver.run()
    assert second.row.cached_tokens == 80
    assert second.drawn == reference(qwen, system + prompt_of(9, 2), 12)
    assert first.drawn == reference(qwen, system + prompt_of(5, 1), 30)


def test_choices_share_their_prompt(qwen: ChatModel) -> None:
    """Several answers read their prompt once, each with a seed of its own; more than there is room for come later."""
    sampling = Sampling(temperature=1.0, seed=3, n=5, max_tokens=10)
    driver = Driver(qwen, Limits(rows=3))
    heard = driver.submit(prompt_of(60), sampling)
    driver.run()
    assert len({one.text for one in heard}) > 1
    for copy, one in enumerate(heard):
        assert one.drawn == Driver(qwen).solo(prompt_of(60), replace(sampling, n=1, seed=3 + copy)).drawn
    assert [one.row.cached_tokens for one in heard[:3]] == [0, 0, 0]
    assert all(one.row.cached_tokens == 59 for one in heard[3:])


SAMPLINGS = [
    Sampling(temperature=0.9, seed=1, max_tokens=15),
    Sampling(temperature=1.2, top_p=0.8, seed=2, max_tokens=15),
    Sampling(temperature=1.0, top_k=20, seed=3, max_tokens=15),
    Sampling(temperature=1.0, min_p=0.05, seed=4, max_tokens=15),
    Sampling(temperature=0.0, frequency_penalty=1.5, max_tokens=15),
    Sampling(temperature=0.0, repetition_penalty=1.8, max_tokens=15),
    Sampling(temperature=0.0, logit_bias={70: 100.0}, max_tokens=15),
    Sampling(temperature=0.0, max_tokens=15, logprobs=3),
    GREEDY,
]


def test_rows_sample_in_their_own_way(model: ChatModel) -> None:
    """In one batch each row has its own parameters and random numbers: it says what it says alone."""
    driver = Driver(model)
    prompts = [prompt_of(10 + place) for place in range(len(SAMPLINGS))]
    heard = [driver.submit(prompt, sampling)[0] for prompt, sampling in zip(prompts, SAMPLINGS, strict=True)]
    driver.run()
    for one, prompt, sampling in zip(heard, prompts, SAMPLINGS, strict=True):
        assert one.drawn == Driver(model).solo(prompt, sampling).drawn
    assert set(heard[6].drawn) == {70}


def test_logprobs(model: ChatModel) -> None:
    """Log probabilities in a batch are those that the model gives alone, with the likeliest alternatives."""
    sampling = replace(GREEDY, logprobs=3)
    driver = Driver(model)
    heard = [driver.submit(prompt_of(size), sampling)[0] for size in (4, 25, 11)]
    driver.run()
    for size, one in zip((4, 25, 11), heard, strict=True):
        with torch.inference_mode():
            logits = model.model(torch.tensor([one.row.ids])).logits[0, size - 1 : -1]
        expected = torch.log_softmax(logits.float(), dim=-1)
        told = [drawn for piece in one.pieces for _, drawn in piece.tokens]
        assert told
        for place, drawn in enumerate(told):
            values, ids = expected[place].topk(3)
            assert [token for token, _ in drawn.top] == ids.tolist()
            assert [value for _, value in drawn.top] == pytest.approx(values.tolist(), abs=1e-4)
            assert drawn.logprob == pytest.approx(float(expected[place][drawn.token]), abs=1e-4)


def test_stop_strings(model: ChatModel) -> None:
    """A row ends before its stop string, while another one goes on past the same text."""
    prompt = prompt_of(6)
    whole = Driver(model).solo(prompt, replace(GREEDY, max_tokens=30, logit_bias={70: 3.0, 75: 3.0}))
    stop = whole.text[3:5]
    driver = Driver(model)
    [stopped] = driver.submit(prompt, replace(GREEDY, max_tokens=30, logit_bias={70: 3.0, 75: 3.0}, stop=(stop,)))
    [other] = driver.submit(prompt, replace(GREEDY, max_tokens=30, logit_bias={70: 3.0, 75: 3.0}))
    driver.run()
    assert (stopped.text, stopped.reason) == (whole.text[: whole.text.index(stop)], "stop")
    assert other.text == whole.text


class Only:
    """A constraint: three tokens of a set, then nothing more; or one that breaks."""

    def __init__(self, allowed: set[int], *, breaks: bool = False) -> None:
        self.allowed, self.seen, self.breaks = allowed, 0, breaks

    @property
    def finished(self) -> bool:
        return self.seen == 3

    def mask(self, logits_row: torch.Tensor) -> None:
        forbidden = torch.ones_like(logits_row, dtype=torch.bool)
        forbidden[list(self.allowed)] = False
        logits_row.masked_fill_(forbidden, -torch.inf)

    def accept(self, token: int) -> None:
        if self.breaks:
            raise RuntimeError("broken")
        self.seen += 1


def test_constraints(model: ChatModel) -> None:
    """A constrained row draws what is allowed and ends with its constraint; rows beside it are free."""
    driver = Driver(model)
    [free] = driver.submit(prompt_of(9))
    [greedy] = driver.submit(prompt_of(9), GREEDY, lambda: Only({70, 71}))
    [random_one] = driver.submit(prompt_of(9), replace(GREEDY, temperature=1.5, seed=1), lambda: Only({72}))
    [cut] = driver.submit(prompt_of(9), replace(GREEDY, max_tokens=2), lambda: Only({73}))
    driver.run()
    assert free.drawn == reference(model, prompt_of(9), 12)
    assert set(greedy.drawn) <= {70, 71}
    assert (len(greedy.drawn), greedy.reason) == (3, "stop")
    assert (random_one.drawn, random_one.reason) == ([72] * 3, "stop")
    assert (cut.drawn, cut.reason) == ([73] * 2, "length")


def test_a_broken_row_fails_alone(model: ChatModel) -> None:
    """An error in a row's constraint ends that row with it, and no other."""
    driver = Driver(model)
    [broken] = driver.submit(prompt_of(9), GREEDY, lambda: Only({70}, breaks=True))
    [other] = driver.submit(prompt_of(5))
    driver.run()
    assert isinstance(broken.error, RuntimeError)
    assert other.drawn == reference(model, prompt_of(5), 12)


def test_context(model: ChatModel) -> None:
    """A prompt that fills the window is refused; one that leaves a place gets one token."""
    with pytest.raises(Rejected) as caught:
        model.job(prompt_of(CONTEXT_TOKENS), GREEDY, threading.Event())
    assert (caught.value.kind, caught.value.status, caught.value.code) == (
        "context_length",
        400,
        "context_length_exceeded",
    )
    last = Driver(model).solo(prompt_of(CONTEXT_TOKENS - 1))
    assert (len(last.drawn), last.reason) == (1, "length")


def test_the_queue_is_bounded(qwen: ChatModel) -> None:
    """Beyond its limit an answer is refused with the seconds after which half of the others have begun."""
    now = [0.0]
    driver = Driver(qwen, Limits(rows=1, waiting=4), clock=lambda: now[0])
    heard = [driver.submit(prompt_of(4))[0] for _ in range(4)]
    with pytest.raises(QueueFull) as caught:
        driver.submit(prompt_of(4))
    assert (caught.value.kind, caught.value.status, caught.value.code) == ("rate_limit", 429, "queue_full")
    assert caught.value.retry_after_s == 2.0
    while driver.engine.waiting > 1:
        now[0] += 4.0
        driver.step()
    driver.submit(prompt_of(4), replace(GREEDY, n=3))
    with pytest.raises(QueueFull) as caught:
        driver.submit(prompt_of(4))
    assert caught.value.retry_after_s > 2.0
    driver.run()
    assert [one.reason for one in heard] == ["length"] * 4


def test_many_choices_are_no_queue(qwen: ChatModel) -> None:
    """One call is taken whatever its size when nobody waits."""
    driver = Driver(qwen, Limits(rows=2, waiting=4))
    heard = driver.submit(prompt_of(4), replace(GREEDY, n=9, max_tokens=2))
    driver.run()
    assert [one.reason for one in heard] == ["length"] * 9


def test_rows_make_room(qwen: ChatModel) -> None:
    """When memory does not suffice for all rows, some are put back and say the same in the end."""
    driver = Driver(qwen, budget_tokens=600)
    asked = [prompt_of(20, place) for place in range(16)]
    heard = [driver.submit(prompt, replace(GREEDY, max_tokens=60))[0] for prompt in asked]
    most = 0
    while not driver.engine.idle:
        driver.step()
        most = max(most, driver.engine.decoding)
    assert 1 < most <= 600 // 21
    for prompt, one in zip(asked, heard, strict=True):
        assert one.drawn == reference(qwen, prompt, 60)


def test_one_that_does_not_fit_alone(qwen: ChatModel) -> None:
    """A prompt for which there is no memory fails with 503, and those before and after it do not."""
    driver = Driver(qwen, budget_tokens=100)
    [before] = driver.submit(prompt_of(10))
    [large] = driver.submit(prompt_of(120))
    [after] = driver.submit(prompt_of(11))
    driver.run()
    assert isinstance(large.error, TooLarge)
    assert (large.error.status, large.error.code) == (503, "insufficient_memory")
    assert before.drawn == reference(qwen, prompt_of(10), 12)
    assert after.drawn == reference(qwen, prompt_of(11), 12)


class Exhausted(SlotForward):
    """A device whose memory runs out with more than two rows."""

    def decode(self, rows: object) -> torch.Tensor:
        if len(rows) > 2:  # type: ignore[arg-type]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().decode(rows)  # type: ignore[arg-type]


def test_a_device_without_memory(qwen: ChatModel) -> None:
    """When torch runs out of memory the batch is halved, and all answers come."""
    driver = Driver(qwen)
    driver.engine._forward = driver.forward = Exhausted(qwen.model, "cpu")
    heard = [driver.submit(prompt_of(6, place))[0] for place in range(7)]
    driver.run()
    for place, one in enumerate(heard):
        assert one.drawn == reference(qwen, prompt_of(6, place), 12)


class Held(SlotForward):
    """A device whose memory suffices once nothing is kept of what ended."""

    def begin(self, prefill: Prefill) -> None:
        if self.prefixes.bytes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().begin(prefill)


def test_memory_of_what_ended(qwen: ChatModel) -> None:
    """An answer for which there is no memory beside what is kept of others is tried again without that."""
    driver = Driver(qwen)
    driver.engine._forward = driver.forward = Held(qwen.model, "cpu")
    for seed in range(2):
        [one] = driver.submit(prompt_of(20, seed))
        driver.run()
        assert one.drawn == reference(qwen, prompt_of(20, seed), 12)


class Broken(SlotForward):
    """A model that fails once."""

    failures = 1

    def decode(self, rows: object) -> torch.Tensor:
        if self.failures:
            self.failures -= 1
            raise IndexError("broken")
        return super().decode(rows)  # type: ignore[arg-type]


def test_a_model_that_fails(qwen: ChatModel) -> None:
    """What runs while the model fails gets its error; what ended before, or waits, is answered."""
    driver = Driver(qwen, Limits(rows=2))
    driver.engine._forward = driver.forward = Broken(qwen.model, "cpu")
    [first] = driver.submit(prompt_of(6))
    [ended] = driver.submit(prompt_of(5), replace(GREEDY, max_tokens=1))
    [second] = driver.submit(prompt_of(7))
    with pytest.raises(IndexError) as caught:
        driver.step()
    driver.hear(driver.engine.fail(caught.value))
    driver.run()
    assert first.error is caught.value
    assert (ended.drawn, ended.reason) == (reference(qwen, prompt_of(5), 1), "length")
    assert second.drawn == reference(qwen, prompt_of(7), 12)


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bfloat16 instructions")
def test_packed_layers(tmp_path: Path) -> None:
    """In bfloat16 the layers are laid out for oneDNN, and the logits are those of the layers as they were."""
    folder = build_chat_model(tmp_path / "m")
    packed = ChatModel(Settings("m", folder)).model
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    assert isinstance(packed.lm_head, PackedLinear)
    assert pack(ChatModel(Settings("m", folder, dtype="float32")).model) == 0
    ids = torch.tensor([prompt_of(20)])
    with torch.inference_mode():
        torch.testing.assert_close(packed(ids).logits, plain(ids).logits)
