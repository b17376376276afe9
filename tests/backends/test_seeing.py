"""Prompts with images in the chat engine: whatever else is in the batch, they say what transformers' own code says."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from backends.engine import Limits
from backends.forward import SlotForward
from backends.parameters import Sampling
from backends.rows import Row
from backends.sight import Seen, Sight, shown
from backends.solo import SoloForward
from backends.vision import VisionModel, _seen
from backends.ways import Example, forward_of
from tests.backends.build_vision import build_vision_model
from tests.backends.engines import GREEDY, Heard
from tests.backends.eyes import Eyes, Json, asking, message, of_the_library, picture, settings

SIZES = [(64, 64), (160, 32), (32, 96), (64, 48)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    """A small float32 Qwen3-VL."""
    torch.set_num_threads(1)
    return VisionModel(settings(build_vision_model(tmp_path_factory.mktemp("vision"))))


@pytest.fixture(params=["slots", "solo"])
def solo(request: pytest.FixtureRequest) -> bool:
    """Whether rows are run one after the other."""
    return bool(request.param == "solo")


def pictures(*seeds: int) -> list[bytes]:
    """Images of several sizes."""
    return [picture(seed, SIZES[seed % len(SIZES)]) for seed in seeds]


class After:
    """Cancelled from the `checks`-th look at it; counts the looks."""

    def __init__(self, checks: int) -> None:
        self.checks, self.looks = checks, 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks >= self.checks


# -- the same as alone ------------------------------------------------------------------------------------------------


def test_it_shares_passes(model: VisionModel) -> None:
    """The probes at the load find that slots serve this model, for text and for images."""
    assert isinstance(model.forward, SlotForward)


@pytest.mark.parametrize("seeds", [[], [0], [1, 2], [2, 1], [1, 2, 3], [0, 0]], ids=str)
def test_alone(model: VisionModel, seeds: list[int], solo: bool) -> None:
    """With no image, one, or several of different sizes in a message, the text is the library's."""
    images, asked = pictures(*seeds), asking(len(seeds))
    heard = Eyes(model, solo=solo).answer(asked, images)
    assert heard.drawn == of_the_library(model, asked, images)
    assert heard.row.cached_tokens == 0


def test_images_of_several_messages(model: VisionModel, solo: bool) -> None:
    """Images stand where their parts stand, over all messages of the conversation."""
    asked = [
        message("Be brief.", role="developer"),
        message(None, "One?"),
        message("Yes.", role="assistant"),
        message("And", None, None),
    ]
    said = []
    for seeds in ([1, 2, 3], [3, 2, 1]):
        said.append(Eyes(model, solo=solo).answer(asked, pictures(*seeds)).drawn)
        assert said[-1] == of_the_library(model, asked, pictures(*seeds))
    assert said[0] != said[1]


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_join_and_leave(model: VisionModel, seed: int, solo: bool) -> None:
    """Rows with and without images that come and go at random say what they would say alone."""
    rng = random.Random(seed)
    driver = Eyes(model, Limits(rows=5, chunk_tokens=rng.choice([8, 64, 512])), solo=solo)
    waiting = []
    for place in range(12):
        seeds = [rng.randrange(4) for _ in range(rng.randrange(4))]
        waiting.append((asking(len(seeds), f"Question {place % 5}?"), pictures(*seeds), rng.randint(1, 16)))
    asked, heard = list(waiting), list[Heard]()
    while waiting or not driver.engine.idle:
        for _ in range(rng.randrange(3)):
            if waiting:
                messages, images, count = waiting.pop(0)
                heard += driver.ask(messages, images, replace(GREEDY, max_tokens=count))
        driver.step()
    for (messages, images, count), one in zip(asked, heard, strict=True):
        assert one.drawn == of_the_library(model, messages, images, count)


def test_rows_share_their_steps(model: VisionModel) -> None:
    """Answers to images and to text are decoded together, each at its own positions."""
    driver = Eyes(model)
    asked = [(asking(1), pictures(1)), (asking(0), []), (asking(2), pictures(1, 2)), (asking(0, "Hello?"), [])]
    heard = [driver.ask(messages, images, replace(GREEDY, max_tokens=20))[0] for messages, images in asked]
    together = []
    while not driver.engine.idle:
        driver.step()
        together.append(driver.engine.decoding)
    assert max(together) == 4
    for (messages, images), one in zip(asked, heard, strict=True):
        assert one.drawn == of_the_library(model, messages, images, 20)


def test_nothing_is_left_behind(model: VisionModel, solo: bool) -> None:
    """What is said about text alone does not depend on the images of the request before."""
    driver = Eyes(model, solo=solo)
    driver.answer(asking(2), pictures(1, 2))
    assert driver.answer(asking(0)).drawn == of_the_library(model, asking(0), [])


def test_long_texts_around_an_image(model: VisionModel) -> None:
    """Texts before and after an image are read in pieces, the image as one, and others go on between them."""
    driver = Eyes(model, Limits(chunk_tokens=16))
    [short] = driver.ask(asking(0), sampling=replace(GREEDY, max_tokens=60))
    driver.step()
    asked = [message("word " * 30, None, "word " * 30)]
    [long] = driver.ask(asked, pictures(1))
    steps = 0
    while not long.drawn:
        driver.step()
        steps += 1
    assert steps > 5
    assert short.row.completion_tokens >= steps
    driver.run()
    assert long.drawn == of_the_library(model, asked, pictures(1))
    assert short.drawn == of_the_library(model, asking(0), [], 60)


# -- what is known ----------------------------------------------------------------------------------------------------


def turns(text: str, *more: str | None) -> list[Json]:
    """A conversation about an image that goes on."""
    return [message(None, "What is this picture of?"), message(text, role="assistant"), message(*more)]


def test_the_same_image_in_the_next_turn(model: VisionModel) -> None:
    """The image of a conversation is read once: what is said about it next is what is said without a memory."""
    driver = Eyes(model)
    first = driver.answer([message(None, "What is this picture of?")], pictures(1))
    asked = turns("A cat.", "Are you sure?")
    second = driver.answer(asked, pictures(1))
    assert second.row.cached_tokens is not None
    assert second.row.cached_tokens >= len(first.row.ids) - first.row.completion_tokens
    assert second.drawn == Eyes(model).answer(asked, pictures(1)).drawn == of_the_library(model, asked, pictures(1))


def test_another_image_in_its_place(model: VisionModel) -> None:
    """An image of the same size in the same place is another one: only the text before it is known."""
    driver = Eyes(model)
    long = "Look carefully at this picture, and tell me what you see in it:"
    asked = [message(long, None, "Well?")]
    driver.answer(asked, [picture(1)])
    other = driver.answer(asked, [picture(2)])
    ids = other.row.ids
    assert other.row.cached_tokens == next(place for place, token in enumerate(ids) if token < 0)
    assert other.row.cached_tokens > 16
    assert other.drawn == of_the_library(model, asked, [picture(2)])
    again = driver.answer(asked, [picture(1)])
    assert again.row.cached_tokens == len(ids) - other.row.completion_tokens - 1
    assert again.drawn == of_the_library(model, asked, [picture(1)])


def test_one_more_image_in_the_next_turn(model: VisionModel) -> None:
    """Of two images the one that was there before is not read again, and the new one is."""
    driver = Eyes(model)
    driver.answer([message(None, "What is this picture of?")], pictures(1))
    asked = turns("A cat.", None, "And this?")
    both = driver.answer(asked, pictures(1, 2))
    fakes = [place for place, token in enumerate(both.row.ids) if token < 0]
    assert both.row.cached_tokens is not None
    assert fakes[0] < both.row.cached_tokens < fakes[-1]
    assert both.drawn == of_the_library(model, asked, pictures(1, 2))


def test_an_image_that_another_row_has_just_read(model: VisionModel) -> None:
    """A second question about an image does not read it again while the first is answered."""
    driver = Eyes(model)
    [first] = driver.ask(asking(1), pictures(1), replace(GREEDY, max_tokens=20))
    driver.step()
    [second] = driver.ask(asking(1, "Really?"), pictures(1))
    driver.run()
    assert second.row.cached_tokens
    assert first.drawn == of_the_library(model, asking(1), pictures(1), 20)
    assert second.drawn == of_the_library(model, asking(1, "Really?"), pictures(1))


def test_parts_of_an_image_are_never_reused() -> None:
    """A place inside of an image is taken back to its beginning, and a pass ends before or after it."""
    sight = Sight({"input_ids": torch.zeros(1, 40)}, [Seen(4, 10, {}), Seen(12, 30, {})])
    assert [sight.outside(tokens) for tokens in (0, 4, 5, 9, 10, 12, 29, 30, 40)] == [0, 4, 4, 4, 10, 12, 12, 30, 40]
    assert [sight.stop(0, end) for end in (3, 4, 7, 10, 11, 13, 30)] == [3, 4, 4, 10, 11, 12, 30]
    assert [sight.stop(4, end) for end in (5, 10, 13)] == [10, 10, 12]
    assert sight.stop(12, 13) == 30


def test_images_whose_inputs_belong_together() -> None:
    """What the model is given is split by images where a grid tells how; else they are read as one."""
    tokens = {"input_ids": torch.zeros(1, 20), "mm_token_type_ids": torch.zeros(1, 20)}
    grid, pixels = torch.tensor([[1, 4, 2], [1, 2, 2]]), torch.arange(12.0)[:, None]
    places = [3, 4, 8]
    apart = list(_seen({**tokens, "pixel_values": pixels, "image_grid_thw": grid}, places, 2))
    assert [(one.begin, one.end) for one in apart] == [(3, 5), (8, 9)]
    sight = Sight(tokens, apart)
    both = sight.inputs_of(0, 20)
    assert torch.equal(both["pixel_values"], pixels)
    assert torch.equal(both["image_grid_thw"], grid)
    assert torch.equal(sight.inputs_of(5, 20)["pixel_values"], pixels[8:])
    assert sight.inputs_of(9, 20) == {}
    for given in ({"pixel_values": pixels}, {"pixel_values": pixels, "image_grid_thw": grid[:1]}):
        [one] = _seen({**tokens, **given}, places, 2)
        assert (one.begin, one.end, set(one.inputs)) == (3, 9, set(given))


def test_images_are_told_apart() -> None:
    """The ids of images are in no vocabulary, and differ where the images or their order do."""
    ids = [shown([b"a"]), shown([b"b"]), shown([b"a", b"b"]), shown([b"b", b"a"]), shown([b"ab"])]
    assert len(set(ids)) == 5
    assert max(ids) < -(1 << 64)
    assert shown([b"a"]) == ids[0]


# -- sampling -------------------------------------------------------------------------------------------------------


def test_choices_share_an_image(model: VisionModel, solo: bool) -> None:
    """Several answers about an image have seeds of their own and say what each says alone."""
    sampling = Sampling(temperature=1.2, seed=3, n=4, max_tokens=10)
    driver = Eyes(model, Limits(rows=3), solo=solo)
    heard = driver.ask(asking(1), pictures(1), sampling)
    driver.run()
    assert len({one.text for one in heard}) > 1
    for copy, one in enumerate(heard):
        alone = Eyes(model).answer(asking(1), pictures(1), replace(sampling, n=1, seed=3 + copy))
        assert one.drawn == alone.drawn


def test_penalties(model: VisionModel) -> None:
    """Penalties see the tokens of a prompt with images as the library does."""
    asked, images = asking(2), pictures(1, 2)
    plain = Eyes(model).answer(asked, images).drawn
    repeated = Eyes(model).answer(asked, images, replace(GREEDY, repetition_penalty=1.9)).drawn
    assert repeated == of_the_library(model, asked, images, repetition_penalty=1.9)
    frequent = Eyes(model).answer(asked, images, replace(GREEDY, frequency_penalty=2.0)).drawn
    assert len({tuple(plain), tuple(repeated), tuple(frequent)}) > 1


def test_logprobs(model: VisionModel) -> None:
    """Log probabilities after images are those of the model alone, beside other rows."""
    driver = Eyes(model)
    [one] = driver.ask(asking(2), pictures(1, 2), replace(GREEDY, logprobs=3))
    driver.ask(asking(0))
    driver.run()
    sight = driver.prompt(asking(2), pictures(1, 2)).sight
    assert sight is not None
    ids = torch.cat([sight.inputs["input_ids"], torch.tensor([one.drawn])], dim=1)
    kinds = torch.cat([sight.inputs["mm_token_type_ids"], torch.zeros(1, len(one.drawn), dtype=torch.long)], dim=1)
    seen = {name: sight.inputs[name] for name in ("pixel_values", "image_grid_thw")}
    with torch.inference_mode():
        logits = model.model(input_ids=ids, mm_token_type_ids=kinds, **seen).logits[0, sight.tokens - 1 : -1]
    model.model.model.rope_deltas = None
    expected = torch.log_softmax(logits.float(), dim=-1)
    told = [drawn for piece in one.pieces for _, drawn in piece.tokens]
    assert told
    for place, drawn in enumerate(told):
        assert [value for _, value in drawn.top] == pytest.approx(expected[place].topk(3).values.tolist(), abs=1e-4)


# -- ending early, and memory -----------------------------------------------------------------------------------------


def test_cancelled_in_the_pass_over_an_image(model: VisionModel, solo: bool) -> None:
    """The pass ends at the latest a layer after the request was given up, and rows beside it are unharmed."""
    for checks in (2, 3, 4, 5):  # the engine looks once, then each of two layers of vision and two of text
        driver = Eyes(model, solo=solo)
        [other] = driver.ask(asking(1), pictures(3), replace(GREEDY, max_tokens=20))
        driver.step()
        cancel = After(checks)
        [gone] = driver.ask(asking(2), pictures(1, 2), cancel=cancel)
        driver.step()
        assert cancel.looks == checks
        assert not gone.drawn
        driver.run()
        assert (gone.reason, gone.row.completion_tokens) == ("cancelled", 0)
        assert other.drawn == of_the_library(model, asking(1), pictures(3), 20)
        assert driver.answer(asking(2), pictures(1, 2)).drawn == of_the_library(model, asking(2), pictures(1, 2))


def test_a_pass_is_watched_between_all_layers(model: VisionModel) -> None:
    """There is a look before each layer of vision and of text while an image is read, and none in decoding."""
    cancel = After(10**9)
    driver = Eyes(model)
    driver.ask(asking(1), pictures(1), replace(GREEDY, max_tokens=6), cancel)
    driver.step()
    looks = cancel.looks
    assert looks >= 4  # two layers of vision, two of text
    driver.step()
    assert cancel.looks - looks <= 2  # those of the engine


def test_one_leaves(model: VisionModel, solo: bool) -> None:
    """A row with images that is cancelled while it is decoded ends within a step; the others go on."""
    driver = Eyes(model, solo=solo)
    cancel = threading.Event()
    [gone] = driver.ask(asking(1), pictures(1), replace(GREEDY, max_tokens=40), cancel)
    [stays] = driver.ask(asking(2), pictures(2, 3), replace(GREEDY, max_tokens=20))
    for _ in range(4):
        driver.step()
    cancel.set()
    before = gone.row.completion_tokens
    driver.run()
    assert (gone.reason, gone.row.completion_tokens) == ("cancelled", before)
    assert stays.drawn == of_the_library(model, asking(2), pictures(2, 3), 20)


def test_rows_make_room(model: VisionModel) -> None:
    """Rows with images that are put back for want of memory read their images again and say the same."""
    driver = Eyes(model, budget_tokens=260)
    seeds = [[place % 4] * (place % 3) for place in range(9)]
    heard = [driver.ask(asking(len(one)), pictures(*one), replace(GREEDY, max_tokens=40))[0] for one in seeds]
    most = 0
    while not driver.engine.idle:
        driver.step()
        most = max(most, driver.engine.decoding)
    assert 1 < most < 9
    for one, said in zip(seeds, heard, strict=True):
        assert said.drawn == of_the_library(model, asking(len(one)), pictures(*one), 40)


class Exhausted(SoloForward):
    """A device whose memory runs out with more than two rows."""

    def decode(self, rows: Sequence[Row]) -> torch.Tensor:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().decode(rows)


def test_a_device_without_memory(model: VisionModel) -> None:
    """Rows that are run one after the other and put back, with what they have said, say the same in the end."""
    driver = Eyes(model)
    driver.engine._forward = driver.forward = Exhausted(model.model, "cpu")
    heard = [driver.ask(asking(1), pictures(place), replace(GREEDY, max_tokens=20))[0] for place in range(2)]
    for _ in range(5):
        driver.step()
    assert all(one.drawn for one in heard)
    heard.append(driver.ask(asking(1), pictures(2), replace(GREEDY, max_tokens=20))[0])
    driver.run()
    for place, one in enumerate(heard):
        assert one.drawn == of_the_library(model, asking(1), pictures(place), 20)


# -- models that cannot be batched ------------------------------------------------------------------------------------


def test_an_image_that_slots_would_see_otherwise(model: VisionModel) -> None:
    """Where an image in parts makes other logits than the model alone, or nobody knows its tokens, rows run alone."""
    prompt = Eyes(model).prompt(asking(1), pictures(1))
    assert prompt.sight is not None
    [seen] = prompt.sight.seen
    other = replace(seen, inputs={**seen.inputs, "pixel_values": -seen.inputs["pixel_values"]})
    refused = replace(seen, inputs={**seen.inputs, "pixel_values": seen.inputs["pixel_values"][:-4]})
    assert isinstance(forward_of(model.model, "cpu", Example(prompt.ids, prompt.sight)), SlotForward)
    for seens in ([other], [refused], []):
        sight = replace(prompt.sight, seen=seens)
        assert isinstance(forward_of(model.model, "cpu", Example(prompt.ids, sight)), SoloForward)
