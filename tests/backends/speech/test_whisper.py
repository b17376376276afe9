"""Whisper, built small with random weights: what it says is noise, how it is run is not."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Rejected, Settings, SpeechRequest
from backends.speech.alignment import align
from backends.speech.whisper import WhisperModel
from backends.speech.windows import Decoded, Span, split
from tests.backends.build import build_chat_model
from tests.backends.speech.build import (
    GREEDY,
    LANGUAGES,
    MOST_POSITIONS,
    RATE,
    Kind,
    asking,
    build_whisper,
    heard,
    sound,
)

SECONDS = 100  # the place of the first time stamp in the pure tests
Load = Callable[[Kind], WhisperModel]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Models by their kind, each built and loaded once."""
    loaded: dict[Kind, WhisperModel] = {}

    def load(kind: Kind) -> WhisperModel:
        if kind not in loaded:
            folder = build_whisper(tmp_path_factory.mktemp("whisper"), kind)
            loaded[kind] = WhisperModel(Settings("whisper", folder))
        return loaded[kind]

    return load


@pytest.fixture
def whisper(load: Load) -> WhisperModel:
    """A model that knows languages and the times of words."""
    return load(Kind())


class Patience:
    """A call that is given up after so many runs of the decoder; counts those after it."""

    def __init__(self, model: WhisperModel, runs: int) -> None:
        self.left = runs
        self._hook = model.model.get_decoder().register_forward_hook(self._ran)

    def _ran(self, *_: object) -> None:
        self.left -= 1

    def is_set(self) -> bool:
        return self.left <= 0

    def late(self) -> int:
        """Runs since it was given up; the last question."""
        self._hook.remove()
        return -self.left


def refusal(model: WhisperModel, request: SpeechRequest) -> Rejected:
    """How a request is refused."""
    with pytest.raises(Rejected) as caught:
        heard(model, 1.0, request)
    assert (caught.value.status, caught.value.kind) == (400, "unsupported")
    assert caught.value.code == "unsupported_parameter"
    return caught.value


def reference(model: WhisperModel, seconds: float, *, stamped: bool, prompt: Sequence[int] = ()) -> list[int]:
    """The tokens of a window by transformers' own greedy generation, without those that open it."""
    features = model.processor.feature_extractor(sound(seconds), sampling_rate=RATE, return_tensors="pt")
    before = torch.tensor(prompt) if prompt else None
    out = model.model.generate(
        features.input_features,
        language="en",
        task="transcribe",
        return_timestamps=stamped,
        temperature=0.0,
        prompt_ids=before,
        max_new_tokens=MOST_POSITIONS // 2,
        force_unique_generate_call=True,
    )[0].tolist()
    end = model.processor.tokenizer.eos_token_id
    return [token for token in out[len(prompt) + 3 + (not stamped) :] if token != end]


# -- against transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_text_as_transformers(load: Load, seed: int) -> None:
    """Without times, a window gives the tokens that transformers' own generation gives."""
    model = load(Kind(seed=seed, sure=10.0))
    (segment,) = heard(model, 8.0, asking(language="en")).segments
    assert list(segment.tokens) == reference(model, 8.0, stamped=False)
    assert (segment.begin_s, segment.end_s) == (0.0, 8.0)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_times_as_transformers(load: Load, seed: int) -> None:
    """With times, the tokens of a window's sentences are the first of those that transformers generates."""
    model = load(Kind(seed=seed, sure=10.0))
    segments = heard(model, 30.0, asking("segment", language="en")).segments
    expected = reference(model, 30.0, stamped=True)
    first = segments[0]
    assert list(first.tokens) == expected[: len(first.tokens)]
    stamp = model.vocabulary.first_stamp
    assert first.begin_s == pytest.approx((expected[0] - stamp) * 0.02)
    ends = (first.tokens[-1] - stamp) * 0.02 if first.tokens[-1] >= stamp else 30.0
    assert first.end_s == pytest.approx(min(ends, 30.0))


def test_the_same_after_a_prompt(load: Load) -> None:
    """A prompt stands before the start token, as transformers puts it."""
    model = load(Kind(sure=10.0))
    prompt = model.processor.get_prompt_ids("quick brown fox", return_tensors="np").tolist()
    (segment,) = heard(model, 8.0, asking(language="en", prompt="quick brown fox")).segments
    assert list(segment.tokens) == reference(model, 8.0, stamped=False, prompt=prompt)


def test_the_same_language_as_transformers(whisper: WhisperModel) -> None:
    """The language that is detected is the one that transformers detects."""
    features = whisper.processor.feature_extractor(sound(4.0), sampling_rate=RATE, return_tensors="pt")
    (token,) = whisper.model.detect_language(features.input_features).tolist()
    assert whisper.vocabulary.languages[heard(whisper).language] == token


# -- languages and tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_detection(load: Load, language: str) -> None:
    """A model that hears a language says so, and a language that is given is not detected."""
    model = load(Kind(favours=f"<|{language}|>"))
    assert heard(model).language == language
    assert heard(model, request=asking(language="en")).language == "en"


def test_tasks_differ(whisper: WhisperModel) -> None:
    """Each task in each language is another question to the model."""
    answers = {
        heard(whisper, request=asking(task=task, language=language)).segments[0].avg_logprob
        for task in ("transcribe", "translate")
        for language in ("en", "de")
    }
    assert len(answers) == 4


def test_an_unknown_language(whisper: WhisperModel) -> None:
    """A language that the model has no token for is refused."""
    assert refusal(whisper, SpeechRequest(language="fr")).param == "language"


def test_an_english_model(load: Load) -> None:
    """A model for English only transcribes English, and refuses other languages and translation."""
    model = load(Kind(multilingual=False))
    assert heard(model).language == "en"
    assert heard(model, request=asking("segment", language="en")).segments
    assert refusal(model, SpeechRequest(language="de")).param == "language"
    assert refusal(model, SpeechRequest(task="translate")).param == "task"


# -- temperatures and silence -----------------------------------------------------------------------------------------


def test_doubtful_text_is_decoded_again(whisper: WhisperModel) -> None:
    """Text that the model does not believe in is decoded at every temperature, up to 1."""
    (segment,) = heard(whisper).segments
    assert segment.temperature == 1.0
    assert segment.avg_logprob < -1.0


def test_sound_text_is_taken(load: Load) -> None:
    """Text that the model believes in is taken as it was first decoded."""
    (segment,) = heard(load(Kind(sure=30.0, seed=2))).segments
    assert segment.temperature == 0.0
    assert segment.avg_logprob > -1.0


def test_a_temperature_that_is_asked_for(whisper: WhisperModel) -> None:
    """A temperature above 0 is the only one."""
    (segment,) = heard(whisper, request=SpeechRequest(temperature=0.4)).segments
    assert segment.temperature == 0.4


def test_the_same_again(whisper: WhisperModel) -> None:
    """The same sound and request give the same transcript, though tokens are drawn by chance."""
    request = SpeechRequest(temperature=1.0, timestamps=frozenset({"segment"}))
    assert heard(whisper, 40.0, request) == heard(whisper, 40.0, request)


def test_no_empty_beginning(load: Load) -> None:
    """A model that would rather end at once writes a token first."""
    (segment,) = heard(load(Kind(favours="<|endoftext|>")), 8.0, asking(language="en")).segments
    assert len(segment.tokens) == 1


def test_silence(load: Load) -> None:
    """Where the model is sure that nothing is said, nothing is written."""
    transcript = heard(load(Kind(favours="<|nospeech|>")), 70.0, SpeechRequest(timestamps=frozenset({"segment"})))
    assert (transcript.text, tuple(transcript.segments)) == ("", ())
    assert transcript.duration_s == 70.0


@pytest.mark.parametrize(
    ("text", "logprob", "no_speech", "doubtful", "silence"),
    [
        ("The quick brown fox jumps.", -0.3, 0.0, False, False),
        ("The quick brown fox jumps.", -1.1, 0.0, True, False),
        ("again and " * 40, -0.3, 0.0, True, False),
        ("again and " * 40, -1.1, 0.9, False, True),
        ("The quick brown fox jumps.", -0.3, 0.9, False, False),
        ("", -0.1, 0.9, False, False),
    ],
)
def test_when_to_decode_again(text: str, logprob: float, no_speech: float, doubtful: bool, silence: bool) -> None:
    """Text that repeats itself or that is improbable is doubtful; improbable text in silence is silence."""
    decoded = Decoded((), text, 0.0, logprob, no_speech)
    assert (decoded.is_doubtful, decoded.is_silence) == (doubtful, silence)


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [29.0, 90.0])
@pytest.mark.parametrize("temperature", [GREEDY, 1.0])
def test_the_times_of_segments(whisper: WhisperModel, seconds: float, temperature: float) -> None:
    """Segments follow one another, within the audio."""
    request = SpeechRequest(temperature=temperature, timestamps=frozenset({"segment"}))
    transcript = heard(whisper, seconds, request)
    assert transcript.duration_s == seconds
    assert len(transcript.segments) > seconds / 30
    times = [time for segment in transcript.segments for time in (segment.begin_s, segment.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= seconds  # noqa: PT018
    assert transcript.text == "".join(segment.text for segment in transcript.segments).strip()


def test_long_audio_without_times(whisper: WhisperModel) -> None:
    """Audio of more than a window is heard to its end, whether times are asked for or not."""
    segments = heard(whisper, 65.0, asking()).segments
    assert segments[-1].end_s > 60


@pytest.mark.parametrize("seconds", [6.0, 40.0])
def test_the_times_of_words(whisper: WhisperModel, seconds: float) -> None:
    """The words of a segment are its text, follow one another, and lie within it."""
    for segment in heard(whisper, seconds, asking("word", language="en")).segments:
        times = [time for word in segment.words for time in (word.begin_s, word.end_s)]
        assert times == sorted(times)
        assert segment.begin_s <= times[0]
        assert times[-1] <= segment.end_s
        assert "".join(word.text for word in segment.words) == "".join(segment.text.split())


def test_words_are_where_the_model_looks(load: Load) -> None:
    """A token begins where the attention goes when the token is drawn, which is one place before it is read."""
    model = load(Kind(seed=5))
    opening, tokens = [1, 2, 3], [10, 11, 12, 13, 14]

    def look(_module: object, _inputs: object, output: tuple[torch.Tensor, torch.Tensor]) -> tuple[object, object]:
        weights = torch.full_like(output[1], 1e-3)
        for place in range(weights.shape[2]):
            weights[:, :, place, 50 * place : 50 * (place + 1)] = 1.0
        return output[0], weights

    layers = model.model.get_decoder().layers
    hooks = [layer.encoder_attn.register_forward_hook(look) for layer in layers]
    times = model.token_times(torch.zeros(1, 1500, 32), opening, tokens, 30.0)
    for hook in hooks:
        hook.remove()
    assert times == pytest.approx([0.0, 4.0, 5.0, 6.0, 7.0, 8.0], abs=0.05)


def test_words_change_nothing_else(whisper: WhisperModel) -> None:
    """Asking for words leaves the text, and how the model is run, as they were."""
    before = whisper.model.config._attn_implementation
    with_words = heard(whisper, 40.0, asking("word", "segment"))
    assert whisper.model.config._attn_implementation == before != "eager"
    assert with_words.text == heard(whisper, 40.0, asking("segment")).text


def test_words_need_alignment_heads(load: Load) -> None:
    """A model whose configuration names no alignment heads refuses words, and gives segments."""
    model = load(Kind(aligned=False))
    assert refusal(model, asking("word")).param == "timestamp_granularities"
    assert heard(model, request=asking("segment")).segments


def path_weight(weights: np.ndarray, columns: Sequence[int]) -> float:
    """The most that a path collects whose rows begin at these columns: a row ends where the next one begins, or one
    column before."""
    rows = [float(weights[-1, columns[-1] :].sum())]
    for row, (begin, after) in zip(weights, itertools.pairwise(columns), strict=False):
        rows.append(max(float(row[begin:end].sum()) for end in (after, after + 1) if end > begin))
    return sum(rows)


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_alignment(rows: int, columns: int, seed: int) -> None:
    """No monotonic path that begins each row where it begins, or elsewhere, collects more weight."""
    weights = np.random.default_rng(seed).normal(size=(rows, columns))
    begins = align(weights)
    assert begins[0] == 0
    assert list(begins) == sorted(begins)
    best = max(
        path_weight(weights, (0, *rest)) for rest in itertools.combinations_with_replacement(range(columns), rows - 1)
    )
    assert path_weight(weights, begins.tolist()) == pytest.approx(best)


def test_alignment_of_steps() -> None:
    """Rows that stand out at their own columns begin there."""
    weights = np.zeros((3, 9))
    weights[0, :2] = weights[1, 2:7] = weights[2, 7:] = 1.0
    assert align(weights).tolist() == [0, 2, 7]


# -- windows ----------------------------------------------------------------------------------------------------------


def at(seconds: float) -> int:
    """The stamp for a time."""
    return SECONDS + round(seconds * 50)


@pytest.mark.parametrize(
    ("tokens", "heard_s", "spans", "advance_s"),
    [
        ([], 30, [], 30),
        ([1, 2], 30, [([1, 2], 0, 30)], 30),
        ([at(0), 1, at(4)], 30, [([at(0), 1, at(4)], 0, 4)], 30),
        ([at(0.5), 1], 30, [([at(0.5), 1], 0.5, 30)], 30),
        ([at(0), 1, at(4), at(4)], 30, [([at(0), 1, at(4)], 0, 4)], 4),
        ([at(0), 1, at(4), at(5), 2], 30, [([at(0), 1, at(4)], 0, 4)], 4),
        ([at(0), 1, at(4), at(5), 2, at(7)], 30, [([at(0), 1, at(4)], 0, 4), ([at(5), 2, at(7)], 5, 7)], 30),
        ([at(0), 1, at(4), at(5), 2, at(7), at(7)], 30, [([at(0), 1, at(4)], 0, 4), ([at(5), 2, at(7)], 5, 7)], 7),
        ([at(0), 1, at(20)], 10, [([at(0), 1, at(20)], 0, 10)], 10),
        ([at(0), 1, at(0.2), at(0.2), 2], 30, [([at(0), 1, at(0.2)], 0, 0.2), ([at(0.2), 2], 0.2, 30)], 30),
    ],
    ids=["nothing", "no times", "one", "no end", "pair at the end", "half a sentence", "two", "two and a pair",
         "beyond the sound", "runaway"],
)  # fmt: skip
def test_sentences_of_a_window(
    tokens: list[int], heard_s: float, spans: list[tuple[list[int], float, float]], advance_s: float
) -> None:
    """A window is cut at its pairs of stamps, and the next one begins where the last whole sentence ended."""
    found, advance = split(tokens, SECONDS, round(heard_s * RATE))
    assert found == [Span(part, pytest.approx(begin), pytest.approx(end)) for part, begin, end in spans]
    assert advance == round(advance_s * RATE)


def test_no_sound(whisper: WhisperModel) -> None:
    """Nothing is said in no time."""
    assert heard(whisper, 0.0).text == ""


@pytest.mark.parametrize(("temperature", "remembers"), [(GREEDY, True), (1.0, False)])
def test_what_a_window_remembers(whisper: WhisperModel, temperature: float, remembers: bool) -> None:
    """A window reads what was written before it, unless that was drawn at a high temperature."""
    read: list[int] = []
    hook = whisper.model.get_decoder().register_forward_pre_hook(
        lambda _module, _inputs, fields: read.append(fields["input_ids"].shape[1]), with_kwargs=True
    )
    heard(whisper, 70.0, asking("segment", language="en", temperature=temperature))
    hook.remove()
    first, *later = [length for length in read if length > 1]
    assert first == 3
    assert all(length > 3 if remembers else length == 3 for length in later)
    assert later


# -- prompts, cancelling, loading -------------------------------------------------------------------------------------


def test_no_special_tokens_in_a_prompt(whisper: WhisperModel) -> None:
    """A prompt cannot hold the model's own special tokens: they are left out."""
    odd = heard(whisper, request=asking(prompt="quick<|endoftext|><|translate|> fox<|1.00|>"))
    plain = heard(whisper, request=asking(prompt="quick fox"))
    assert odd == plain != heard(whisper, request=asking())


def test_a_long_prompt(whisper: WhisperModel) -> None:
    """Of a prompt that is too long, the end is used."""
    many = "The quick brown fox. " * 200
    assert heard(whisper, request=asking(prompt=many)) == heard(whisper, request=asking(prompt="no! " + many))


@pytest.mark.parametrize("runs", [1, 2, 10, 100])
def test_cancel(whisper: WhisperModel, runs: int) -> None:
    """A call that is given up ends at the next token, wherever it is."""
    patience = Patience(whisper, runs)
    heard(whisper, 120.0, SpeechRequest(language="en", timestamps=frozenset({"word"})), patience)
    assert patience.late() == 0


def test_given_up_before_it_began(whisper: WhisperModel) -> None:
    """A call that nobody waits for any more says nothing."""
    cancel = threading.Event()
    cancel.set()
    assert heard(whisper, 60.0, cancel=cancel).text == ""


def test_another_kind_of_model(tmp_path: Path) -> None:
    """A folder with another kind of model is refused while it is loaded."""
    with pytest.raises(ValueError, match=r"processor|Unrecognized|Whisper"):
        WhisperModel(Settings("chat", build_chat_model(tmp_path)))


def test_a_generation_config_without_tokens(tmp_path: Path) -> None:
    """A Whisper whose generation config does not name its tokens is refused with what is missing."""
    path = build_whisper(tmp_path) / "generation_config.json"
    fields = json.loads(path.read_text())
    del fields["lang_to_id"], fields["no_timestamps_token_id"]
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="lacks no_timestamps_token_id, lang_to_id"):
        WhisperModel(Settings("whisper", tmp_path))


def test_no_quantization(tmp_path: Path) -> None:
    """A quantization that is asked for is refused, not ignored."""
    with pytest.raises(ValueError, match="quantized"):
        WhisperModel(Settings("whisper", tmp_path, quantization="int8"))
