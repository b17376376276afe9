"""A model that reads images is a chat model: its calls get all that those of other chat models get."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch

from backends.answers import ChatRunner
from backends.base import Cancel, ChatRequest, Settings
from backends.chat import ChatModel, Prompt
from backends.endpoints import chat
from backends.engine import Limits
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.runner import HandlerRunner
from backends.vision import VisionModel
from backends.worker import load
from tests.backends import calls
from tests.backends.build import build_chat_model
from tests.backends.build_vision import CONTEXT_TOKENS, TEMPLATE, build_vision_model
from tests.backends.calls import body_of
from tests.backends.eyes import Eyes, Json, asking, message, of_the_library, picture, settings

SCHEMA: Json = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
TOOL: Json = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build_vision_model(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def model(folder: Path) -> VisionModel:
    return VisionModel(settings(folder))


def letter(call: int, messages: Sequence[Json], images: Sequence[bytes] = (), **body: Any) -> Letter:
    """A call with images, of 12 tokens at most unless it says otherwise."""
    stream = body.pop("stream", False)
    asked = {"max_tokens": 12, "messages": messages, **body}
    return calls.letter(call, asked, stream=stream, images=images, reasons=True)


def answered(model: ChatModel, *letters: Letter, limits: Limits | None = None) -> dict[int, list[Frame]]:
    """All frames of some calls that come at once, by call."""
    return calls.answered(ChatRunner(model, "local/eyes", limits), letters)


def chunks_of(frames: Sequence[Frame]) -> list[Any]:
    """The events of a streamed answer."""
    assert frames[-1].kind is Kind.DONE
    events = b"".join(frame.payload for frame in frames[:-1]).split(b"\n\n")
    return [orjson.loads(event[6:]) for event in events if event.startswith(b"data: {")]


def error_of(model: ChatModel, one: Letter) -> Any:
    """The error of a call, beside one that is answered."""
    frames = answered(model, one, letter(99, asking(1), [picture(1)]))
    assert body_of(frames[99])["choices"][0]["finish_reason"] in ("stop", "length")
    [frame] = frames[one.call]
    assert frame.kind is Kind.ERROR
    return orjson.loads(frame.payload)


def said(model: ChatModel, messages: Sequence[Json], images: Sequence[bytes] = (), **body: Any) -> str:
    """The text of an answer."""
    [choice] = body_of(answered(model, letter(1, messages, images, **body))[1])["choices"]
    return str(choice["message"]["content"])


# -- answers ------------------------------------------------------------------------------------------------------


def test_calls_beside_each_other(model: VisionModel) -> None:
    """Calls with and without images are answered together, whole and streamed, as the library answers each alone."""
    images = [picture(1, (160, 32)), picture(2), picture(3, (32, 64))]
    asked = [(asking(count), images[:count]) for count in range(4)]
    letters = [letter(place, *one, stream=place % 2 == 1) for place, one in enumerate(asked)]
    frames = answered(model, *letters)
    for place, one in enumerate(asked):
        decode = model.decoder()
        expected = decode(of_the_library(model, *one))
        if place % 2:
            chunks = chunks_of(frames[place])
            pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"]]
            assert "".join(pieces) == expected
            assert sum(map(bool, pieces)) > 3
        else:
            assert body_of(frames[place])["choices"][0]["message"]["content"] == expected


def test_usage(model: VisionModel) -> None:
    """Usage counts tokens, an image as one for each 16 × 16 pixels; what is read again is told as cached."""
    images = [picture(1, (64, 32)), picture(2, (32, 32))]
    runner = ChatRunner(model, "local/eyes")
    usages = []
    for _ in range(2):
        frames = runner.begin(letter(1, asking(2), images))
        while not runner.idle:
            frames += runner.step()
        usages.append(body_of(frames)["usage"])
    plain = body_of(answered(model, letter(1, asking(0)))[1])["usage"]
    assert usages[0]["prompt_tokens"] == plain["prompt_tokens"] + (8 + 2) + (4 + 2)
    assert usages[0]["completion_tokens"] == len(of_the_library(model, asking(2), images))
    assert [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages] == [0, usages[0]["prompt_tokens"] - 1]
    assert usages[0]["total_tokens"] == usages[0]["prompt_tokens"] + usages[0]["completion_tokens"]


def test_fields_of_sampling(model: VisionModel) -> None:
    """Choices, seeds, log probabilities, biases, penalties and stop strings are those of every chat model."""
    images = [picture(1)]
    drawn = {"temperature": 1.3, "n": 3, "seed": 5, "logprobs": True, "top_logprobs": 2}
    frames = answered(
        model,
        letter(1, asking(1), images, **drawn),
        letter(2, asking(1), images, **{**drawn, "n": 1, "seed": 6}),
        letter(3, asking(1), images, logit_bias={"70": 100}, frequency_penalty=1.0),
    )
    choices = body_of(frames[1])["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in choices}) > 1
    assert choices[1]["message"]["content"] == body_of(frames[2])["choices"][0]["message"]["content"]
    assert all(len(token["top_logprobs"]) == 2 for token in choices[0]["logprobs"]["content"])
    assert body_of(frames[3])["choices"][0]["message"]["content"] == model.decoder()([70]) * 12
    whole = said(model, asking(1), images)
    middle = whole[len(whole) // 2 : len(whole) // 2 + 2]
    assert said(model, asking(1), images, stop=middle) == whole[: whole.index(middle)]


def test_defaults(folder: Path) -> None:
    """Fields of the settings hold where the request says nothing."""
    narrow = VisionModel(settings(folder, defaults={"max_tokens": 3}))
    usage = body_of(answered(narrow, letter(1, asking(1), [picture(1)], max_tokens=None))[1])["usage"]
    assert usage["completion_tokens"] == 3


def test_an_answer_that_is_begun(model: VisionModel) -> None:
    """A last message of the assistant is gone on with, unless the request says that it is not."""
    begun = [*asking(1), message("It shows", role="assistant")]
    prompts = [Eyes(model).prompt(begun, [picture(1)], continue_final_message=on).text for on in (True, False)]
    assert prompts[0].endswith("assistant\nIt shows")
    assert prompts[1].endswith("It shows<|im_end|>\n<|im_start|>assistant\n")
    decode = model.decoder()
    assert said(model, begun, [picture(1)]) == decode(of_the_library(model, begun, [picture(1)]))


def test_forced_forms(model: VisionModel) -> None:
    """JSON of a schema and forced calls about an image fit their schema, beside a free answer, whatever is drawn."""
    form = {"type": "json_schema", "json_schema": {"name": "seen", "schema": SCHEMA, "strict": True}}
    forced = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    letters = []
    for seed in range(6):
        more: Json = form_of(seed, form, forced)
        letters.append(letter(seed, asking(1), [picture(seed)], temperature=1.2, seed=seed, max_tokens=200, **more))
    frames = answered(model, *letters, letter(9, asking(0)))
    for seed in range(6):
        [choice] = body_of(frames[seed])["choices"]
        if seed % 2:
            [call] = choice["message"]["tool_calls"]
            assert (call["function"]["name"], choice["finish_reason"]) == ("look", "tool_calls")
            value = orjson.loads(call["function"]["arguments"])
        else:
            value = orjson.loads(choice["message"]["content"])
        assert sorted(value) == ["colour", "count"]
        assert value["colour"] in ("red", "blue")
        assert value["count"] in range(10)
    assert body_of(frames[9])["choices"][0]["message"]["content"]


def form_of(seed: int, form: Json, forced: Json) -> Json:
    """One or the other."""
    return forced if seed % 2 else {"response_format": form}


def test_tool_calls_in_a_stream(model: VisionModel) -> None:
    """The template tells the family of tool calls; they are told from text while they stream."""
    assert model.tool_family == "hermes"
    more = {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}}
    chunks = chunks_of(
        answered(model, letter(1, asking(2), [picture(1), picture(2)], stream=True, max_tokens=200, **more))[1]
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    assert not any(delta.get("content") for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["function"]["name"] == "look"
    assert chunks[-1]["usage"]["completion_tokens"] > 10
    assert "<tool_call>" not in orjson.dumps(deltas).decode()


def test_results_of_tools(model: VisionModel) -> None:
    """Calls and their results are written by the template, in a conversation about an image."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"colour": "red"}'}}
    asked = [
        message(None, "What colour?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "It is red."},
    ]
    text = Eyes(model).prompt(asked, [picture(1)], tools=[TOOL]).text
    assert '<tool_call>\n{"name": "look", "arguments": {"colour": "red"}}\n</tool_call>' in text
    assert "It is red." in text
    assert "enum" in text
    assert said(model, asked, [picture(1)], tools=[TOOL])


def test_reasoning(tmp_path: Path) -> None:
    """What a model that thinks says before the closing tag is told apart, and its template can be switched."""
    folder = build_vision_model(tmp_path / "m")
    thinking = (
        TEMPLATE + "{% if enable_thinking is not defined or enable_thinking %}<think>\n{% else %}</think>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(thinking)
    thinks = VisionModel(settings(folder))
    frames = answered(
        thinks,
        letter(1, asking(1), [picture(1)]),
        letter(2, asking(1), [picture(1)], reasoning_effort="none"),
        letter(3, asking(1), [picture(1)], chat_template_kwargs={"enable_thinking": False}),
    )
    thoughts, plain, switched = (body_of(frames[call])["choices"][0]["message"] for call in (1, 2, 3))
    assert thoughts["reasoning_content"]
    assert not thoughts["content"]
    assert plain["content"] == switched["content"]
    assert plain["content"]
    assert "reasoning_content" not in plain


def test_completions(model: VisionModel) -> None:
    """A prompt without a chat is continued as well."""
    one = letter(1, [])
    one.request.update({"endpoint": "completions", "body": {"prompt": "one two"}})
    [choice] = body_of(answered(model, one)[1])["choices"]
    ids = model.tokenizer("one two", return_tensors="pt")
    with torch.inference_mode():
        out = model.model.generate(**ids, do_sample=False, max_new_tokens=12)[0, ids["input_ids"].shape[1] :]
    assert choice["text"] == model.decoder()(out.tolist())


def test_types_of_numbers(folder: Path) -> None:
    """With the type of numbers left to the machine, and with half precision, it says something too."""
    for dtype in ("auto", "bfloat16"):
        assert said(VisionModel(settings(folder, dtype=dtype)), asking(2), [picture(1), picture(2)])


# -- ending early -------------------------------------------------------------------------------------------------


def test_a_call_that_is_given_up(model: VisionModel) -> None:
    """A call with images that is given up, before they were looked at or later, is over; one beside it is answered."""
    runner = ChatRunner(model, "local/eyes")
    gone, late, stays = (letter(call, asking(2), [picture(1), picture(2)], stream=True) for call in (1, 2, 3))
    gone.cancel.set()
    frames = [frame for one in (gone, late, stays) for frame in runner.begin(one)]
    while not any(frame.call == 3 for frame in frames):
        frames += runner.step()
    late.cancel.set()
    while not runner.idle:
        frames += runner.step()
    assert [frame for frame in frames if frame.call == 1] == [Frame(Kind.DONE, 1)]
    assert [frame.kind for frame in frames if frame.call == 2][-1] is Kind.DONE
    assert len(chunks_of([frame for frame in frames if frame.call == 3])) > 3


class Gated(VisionModel):
    """A model that looks at images while its gate is open."""

    gate = threading.Event()

    def _seeing_prompt(self, text: str, images: Sequence[bytes]) -> Prompt:
        self.gate.wait()
        return super()._seeing_prompt(text, images)


def test_text_does_not_wait_for_images(folder: Path) -> None:
    """While the images of a call are decoded, other calls are answered."""
    Gated.gate.set()
    model = Gated(settings(folder))
    Gated.gate.clear()
    runner = ChatRunner(model, "local/eyes")
    frames = runner.begin(letter(1, asking(1), [picture(1)]))
    frames += runner.begin(letter(2, asking(0)))
    try:
        while not frames:
            frames += runner.step()
        assert {frame.call for frame in frames} == {2}
        assert not runner.idle
    finally:
        Gated.gate.set()
    while not runner.idle:
        frames += runner.step()
    assert body_of([frame for frame in frames if frame.call == 1])["choices"]


def test_a_full_queue(model: VisionModel) -> None:
    """Calls with images count among those that wait, from when they came."""
    letters = [letter(call, asking(1), [picture(1)]) for call in range(4)]
    frames = answered(model, *letters, limits=Limits(rows=1, waiting=2))
    for call in (0, 1):
        assert body_of(frames[call])["choices"]
    for call in (2, 3):
        [frame] = frames[call]
        assert orjson.loads(frame.payload)["code"] == "queue_full"


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url", None])
def test_other_parts(model: VisionModel, kind: str | None) -> None:
    """A part that is neither text nor an image is refused by its place."""
    asked = [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": kind}]}]
    error = error_of(model, letter(1, asked))
    assert (error["kind"], error["param"], error["status"]) == ("unsupported", "messages.0.content.1", 400)


@pytest.mark.parametrize("mark", ["<|image_pad|>", "<|video_pad|>"])
@pytest.mark.parametrize("images", [0, 1])
def test_marks_in_text(model: VisionModel, mark: str, images: int) -> None:
    """A client cannot write the model's own mark of an image or a video into its text or its tools."""
    error = error_of(model, letter(1, asking(images, f"Look: {mark}"), [picture(1)] * images))
    assert (error["kind"], error["code"]) == ("invalid", "invalid_request")
    assert "must not hold" in error["message"]
    tools = [{"type": "function", "function": {"name": "look", "description": mark}}]
    assert "must not hold" in error_of(model, letter(1, asking(0), tools=tools))["message"]


def test_a_mark_in_pieces(model: VisionModel) -> None:
    """Texts beside each other are one text in the prompt: a mark that is cut into two of them is refused as well."""
    for parts in (["<|image_", "pad|>", None], [None, "Look: <|", "video_pad", "|> here"]):
        error = error_of(model, letter(1, [message(*parts)], [picture(1)]))
        assert (error["kind"], error["code"]) == ("invalid", "invalid_request")
        assert "must not hold" in error["message"]


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", picture(1)[:90], picture(1, (1200, 4))], ids=["empty", "head only", "cut off", "a line"]
)
def test_bad_images(model: VisionModel, data: bytes) -> None:
    """An image that cannot be decoded, or that the model's processor does not take, is refused."""
    error = error_of(model, letter(1, asking(2), [picture(2), data]))
    assert (error["kind"], error["param"], error["status"]) == ("invalid", "messages", 400)


def test_too_long(folder: Path, model: VisionModel) -> None:
    """A prompt that fills the window, the model's own or a smaller one, is refused."""
    error = error_of(model, letter(1, asking(1, "word " * CONTEXT_TOKENS), [picture(1)]))
    assert (error["kind"], error["code"]) == ("context_length", "context_length_exceeded")
    tokens = len(Eyes(model).prompt(asking(1), [picture(1)]).ids)
    narrow = VisionModel(settings(folder, context_tokens=tokens + 2))
    [choice] = body_of(answered(narrow, letter(1, asking(1), [picture(1)]))[1])["choices"]
    assert choice["finish_reason"] == "length"
    [frame] = answered(VisionModel(settings(folder, context_tokens=tokens)), letter(1, asking(1), [picture(1)]))[1]
    assert f"the window of this model {tokens}" in orjson.loads(frame.payload)["message"]


def test_images_that_belong_nowhere(model: VisionModel) -> None:
    """Images without their parts are a mistake of the caller, not of the client."""
    with pytest.raises(ValueError, match="2 images came with 1"):
        model.prompts("chat", {"messages": asking(1)}, [picture(1), picture(2)])


@pytest.mark.parametrize(
    ("fields", "says"), [({"quantization": "int8"}, "quantization"), ({"dtype": "float99"}, "no dtype float99")]
)
def test_settings_that_cannot_be_met(folder: Path, fields: Json, says: str) -> None:
    """A model is not loaded in another way than it was asked for."""
    with pytest.raises(ValueError, match=says):
        VisionModel(Settings("eyes", folder, **fields))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    """An empty folder is not loaded, and nothing is downloaded for it."""
    with pytest.raises((OSError, ValueError)):
        VisionModel(Settings("eyes", tmp_path))


# -- what runs a folder -------------------------------------------------------------------------------------------


def test_files_tell_that_a_chat_model_reads_images(folder: Path, tmp_path: Path) -> None:
    """Without a handler the engine runs a folder, one that reads images by its files as such; named, it is the same."""
    for handler in (None, "backends.vision.VisionModel"):
        runner = load(settings(folder), handler, {"rows": 3})
        assert isinstance(runner, ChatRunner)
        assert type(runner._model) is VisionModel
    plain = load(Settings("m", build_chat_model(tmp_path / "m")), None, {})
    assert isinstance(plain, ChatRunner)
    assert type(plain._model) is ChatModel


class Counts:
    """Somebody's own handler that reads images: it says how many bytes they have."""

    thread_safe = True
    max_parallelism = 1
    generation_defaults: Mapping[str, Any] = {}

    def __init__(self, settings: Settings) -> None:
        self.name = settings.name

    def count_tokens(self, request: ChatRequest) -> int:
        return len(request.messages)

    def generate(self, request: ChatRequest, cancel: Cancel) -> Iterator[str]:
        yield " ".join(str(len(image)) for image in request.images)


def test_a_handler_of_ones_own(tmp_path: Path) -> None:
    """A class of somebody's own gets the images as they came, whatever the files say."""
    name = f"{Counts.__module__}.Counts"
    assert isinstance(load(settings(tmp_path), name, {}), HandlerRunner)
    one = letter(1, asking(2), [b"abc", b"de"])
    [data] = chat(Counts(settings(tmp_path)), one.request, threading.Event(), "local/counts")
    assert orjson.loads(data)["choices"][0]["message"]["content"] == "3 2"
