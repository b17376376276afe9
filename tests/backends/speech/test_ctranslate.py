"""Whisper on CTranslate2: as on transformers, converted once, and which of the two runs a model."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from backends.base import Rejected, Settings, SpeechHandler, SpeechRequest
from backends.process import Worker
from backends.speech.transcriber import transcriber
from backends.speech.whisper import WhisperModel
from backends.weights import is_ctranslate, resolve
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
from tests.servers import ROOT, environment

pytest.importorskip("faster_whisper")

from backends.speech.conversion import converted, facts_of
from backends.speech.ctranslate import CTranslateWhisper

Folder = Callable[[Kind], Path]
Load = Callable[[Kind], CTranslateWhisper]

SURE = Kind(seed=2, sure=30.0)
BRIEF = Kind(favours="<|endoftext|>")  # writes one token a window, so that it needs no more places than others have
# Run in a process of its own: nothing of the package can be imported there.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("faster_whisper", "ctranslate2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from pathlib import Path
from backends.base import Settings
from backends.speech.transcriber import transcriber
print(type(transcriber(Settings("w", Path(sys.argv[1])))).__name__)
"""
CONVERT = """
import sys
from pathlib import Path
from backends.speech.conversion import converted
print("ready", flush=True)
sys.stdin.readline()
made = converted(Path(sys.argv[1]), "int8")
print(made, (made / "model.bin").stat().st_ino, sep="|")
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where conversions of this module are kept."""
    home = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home / "llmproxy" / "whisper"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llmproxy" / "whisper"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Folders by the kind of their model, each built once."""
    built: dict[Kind, Path] = {}

    def folder(kind: Kind) -> Path:
        if kind not in built:
            built[kind] = build_whisper(tmp_path_factory.mktemp("whisper"), kind)
        return built[kind]

    return folder


@pytest.fixture(scope="module")
def load(folder: Folder) -> Load:
    """Models by their kind in float32, each loaded once."""
    loaded: dict[Kind, CTranslateWhisper] = {}

    def load(kind: Kind) -> CTranslateWhisper:
        if kind not in loaded:
            loaded[kind] = CTranslateWhisper(Settings("whisper", folder(kind), dtype="float32"))
        return loaded[kind]

    return load


@pytest.fixture(scope="module")
def reference(folder: Folder) -> Callable[[Kind], WhisperModel]:
    """The same models on transformers, each loaded once."""
    loaded: dict[Kind, WhisperModel] = {}

    def reference(kind: Kind) -> WhisperModel:
        if kind not in loaded:
            loaded[kind] = WhisperModel(Settings("whisper", folder(kind), dtype="float32"))
        return loaded[kind]

    return reference


class Patience:
    """A call that is given up when it is asked for the n-th time."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def refusal(model: SpeechHandler, request: SpeechRequest) -> str | None:
    """The parameter for which a request is refused."""
    with pytest.raises(Rejected) as caught:
        heard(model, 1.0, request)
    assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")
    return caught.value.param


# -- against transformers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Kind(seed=1, sure=10.0), Kind(seed=5, sure=30.0), BRIEF, Kind(multilingual=False)])
@pytest.mark.parametrize(
    ("seconds", "request_"),
    [
        (8.0, asking(language="en")),
        (30.0, asking("segment", language="en")),
        (70.0, asking("segment", language="en", prompt="quick brown fox")),
        (65.0, asking(language="en")),
    ],
    ids=["without times", "a window", "windows", "windows without times"],
)
def test_the_same_as_transformers(
    load: Load, reference: Callable[[Kind], WhisperModel], kind: Kind, seconds: float, request_: SpeechRequest
) -> None:
    """In float32 the text, the times and what is told of segments are those of the handler on transformers."""
    found, expected = (heard(model, seconds, request_) for model in (load(kind), reference(kind)))
    assert (found.text, found.duration_s) == (expected.text, expected.duration_s)
    assert [segment.tokens for segment in found.segments] == [segment.tokens for segment in expected.segments]
    for one, other in zip(found.segments, expected.segments, strict=True):
        assert (one.text, one.temperature) == (other.text, other.temperature)
        assert (one.begin_s, one.end_s) == pytest.approx((other.begin_s, other.end_s))
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-3)
        assert one.compression_ratio == other.compression_ratio
        assert one.no_speech_prob == pytest.approx(other.no_speech_prob, rel=1e-2)


def test_the_same_at_temperature_0(load: Load, reference: Callable[[Kind], WhisperModel]) -> None:
    """Text that the model believes in is taken at temperature 0, and is that of transformers."""
    found, expected = (heard(model, 8.0, SpeechRequest(language="en")) for model in (load(SURE), reference(SURE)))
    assert found.text == expected.text != ""
    assert [segment.temperature for segment in found.segments] == [0.0]


# -- languages and tasks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_detection(load: Load, language: str) -> None:
    """A model that hears a language says so, and a language that is given is not detected."""
    model = load(Kind(favours=f"<|{language}|>"))
    assert heard(model).language == language
    assert heard(model, request=asking(language="en")).language == "en"


def test_tasks_and_languages_differ(load: Load) -> None:
    """Each task in each language is another question to the model."""
    answers = {
        heard(load(Kind()), request=asking(task=task, language=language)).segments[0].avg_logprob
        for task in ("transcribe", "translate")
        for language in ("en", "de")
    }
    assert len(answers) == 4


def test_what_is_refused(load: Load) -> None:
    """A language without a token is refused, and to a model for English any other language, and translation."""
    assert refusal(load(Kind()), SpeechRequest(language="fr")) == "language"
    english = load(Kind(multilingual=False))
    assert heard(english).language == "en"
    assert refusal(english, SpeechRequest(language="de")) == "language"
    assert refusal(english, SpeechRequest(task="translate")) == "task"


# -- temperatures, silence, prompts -----------------------------------------------------------------------------------


def test_temperatures(load: Load) -> None:
    """Doubtful text is decoded at every temperature up to 1; one that is asked for is the only one."""
    assert heard(load(Kind())).segments[0].temperature == 1.0
    assert heard(load(Kind()), request=SpeechRequest(temperature=0.4)).segments[0].temperature == 0.4


def test_silence(load: Load) -> None:
    """Where the model is sure that nothing is said, nothing is written."""
    transcript = heard(load(Kind(favours="<|nospeech|>")), 70.0, SpeechRequest(timestamps=frozenset({"segment"})))
    assert (transcript.text, tuple(transcript.segments), transcript.duration_s) == ("", (), 70.0)


def test_no_sound(load: Load) -> None:
    """Nothing is said in no time."""
    assert heard(load(Kind()), 0.0).text == ""


def test_a_long_prompt(load: Load) -> None:
    """Of a prompt that is too long, the end is used; special tokens in it are left out."""
    many = "The quick brown fox. " * 200
    told = heard(load(Kind()), request=asking(prompt=many))
    assert told == heard(load(Kind()), request=asking(prompt="no! <|endoftext|>" + many))
    assert told != heard(load(Kind()), request=asking())


# -- times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [29.0, 90.0])
@pytest.mark.parametrize("temperature", [GREEDY, 1.0])
def test_the_times_of_segments(load: Load, seconds: float, temperature: float) -> None:
    """Segments follow one another, within the audio."""
    transcript = heard(load(Kind()), seconds, asking("segment", temperature=temperature))
    assert transcript.duration_s == seconds
    times = [time for segment in transcript.segments for time in (segment.begin_s, segment.end_s)]
    assert times == sorted(times) != []
    assert times[0] >= 0
    assert times[-1] <= seconds
    assert transcript.text == "".join(segment.text for segment in transcript.segments).strip()


@pytest.mark.parametrize("seconds", [6.0, 40.0])
def test_the_times_of_words(load: Load, seconds: float) -> None:
    """The words of a segment are its text, follow one another, and lie within it; the text is that without words."""
    transcript = heard(load(Kind()), seconds, asking("word", language="en"))
    assert transcript.segments
    for segment in transcript.segments:
        times = [time for word in segment.words for time in (word.begin_s, word.end_s)]
        assert times == sorted(times)
        assert segment.begin_s <= times[0]
        assert times[-1] <= segment.end_s
        assert "".join(word.text for word in segment.words) == "".join(segment.text.split())
    assert transcript.text == heard(load(Kind()), seconds, asking("segment", language="en")).text


@pytest.mark.parametrize("kind", [Kind(seed=5), Kind(seed=3, sure=30.0)])
def test_words_are_where_transformers_hears_them(
    load: Load, reference: Callable[[Kind], WhisperModel], kind: Kind
) -> None:
    """In a whole window, tokens begin where they do for the handler on transformers."""
    mine, other = load(kind), reference(kind)
    tokens, noise = range(20, 44), sound(30.0)
    opening = mine._opening("en", "transcribe", stamped=True)
    found = mine.token_times(mine.encode(noise), opening, tokens, 30.0)
    with torch.inference_mode():
        expected = other.token_times(other.encode(noise), opening, tokens, 30.0)
    assert found == pytest.approx(expected, abs=0.05)
    assert len(set(found)) > 10


# -- giving up --------------------------------------------------------------------------------------------------------


def test_given_up_between_windows(load: Load) -> None:
    """A call that is given up hears no further window."""
    request = asking("segment", language="en")
    whole = heard(load(SURE), 120.0, request)
    some = heard(load(SURE), 120.0, request, Patience(3))  # before the first window, after it, before the second
    assert 0 < len(some.segments) < len(whole.segments)
    assert some.segments[-1].end_s <= 30.0 < whole.segments[-1].end_s


def test_given_up_between_temperatures(load: Load) -> None:
    """A call that is given up is not decoded again."""
    assert heard(load(Kind()), cancel=Patience(2)).segments[0].temperature == 0.0


def test_given_up_before_it_began(load: Load) -> None:
    """A call that nobody waits for any more says nothing."""
    cancel = threading.Event()
    cancel.set()
    assert heard(load(Kind()), 60.0, cancel=cancel).text == ""


# -- conversions ------------------------------------------------------------------------------------------------------


def test_a_conversion_is_kept(folder: Folder, empty_cache: Path) -> None:
    """A model is converted once for each way to compute with it, and again only when a file of its folder changes."""
    source = shutil.copytree(folder(SURE), empty_cache / "source")
    first = converted(source, "int8")
    assert first.parent == empty_cache
    assert facts_of(first).positions == MOST_POSITIONS
    before = (first / "model.bin").stat()
    assert converted(source, "int8") == first
    after = (first / "model.bin").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert converted(source, "float32") != first
    (source / "tokenizer_config.json").write_text((source / "tokenizer_config.json").read_text() + "\n")
    assert converted(source, "int8") != first


@pytest.mark.parametrize("broken", ["cut off", "a file is missing", "no marker", "empty"])
def test_a_broken_conversion_is_made_again(folder: Folder, empty_cache: Path, broken: str) -> None:
    """A folder that is not a whole conversion is never used, but replaced."""
    made = converted(folder(SURE), "int8")
    if broken == "cut off":
        (made / "model.bin").write_bytes((made / "model.bin").read_bytes()[:1000])
    elif broken == "empty":
        shutil.rmtree(made)
        made.mkdir()
    else:
        (made / ("tokenizer.json" if broken == "a file is missing" else "llmproxy.json")).unlink()
    left = empty_cache / f"{made.name}.abc.part"  # of a process that was ended
    left.mkdir()
    model = CTranslateWhisper(Settings("whisper", folder(SURE)))
    assert heard(model, request=asking(language="en")).text
    assert facts_of(made).positions == MOST_POSITIONS
    assert {path.name for path in made.iterdir()} > {"model.bin", "tokenizer.json", "preprocessor_config.json"}
    assert not left.exists()


@pytest.mark.limit(120)
def test_conversions_at_once(folder: Folder, tmp_path: Path) -> None:
    """Processes that want the same conversion at the same time get the same whole one, which one of them makes."""
    command = [sys.executable, "-W", "ignore", "-c", CONVERT, str(folder(SURE))]
    env = environment(tmp_path)
    running = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = {process.communicate()[0].splitlines()[-1] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(told) == 1
    made = Path(told.pop().partition("|")[0])
    assert is_ctranslate(made)
    assert {path.name for path in made.parent.iterdir()} == {made.name, f"{made.name}.lock"}


def test_a_folder_that_is_converted(folder: Folder, cache: Path, tmp_path: Path) -> None:
    """A folder in the form of CTranslate2 is speech, is run as it is, and is not converted."""
    given = shutil.copytree(converted(folder(BRIEF), "float32"), tmp_path / "faster-whisper")
    (given / "llmproxy.json").unlink()
    kept = set(cache.iterdir())
    weights = resolve(str(given))
    assert (weights.kind, weights.capabilities) == ("speech", frozenset({"speech"}))
    model = transcriber(weights.settings("cpu"))
    assert isinstance(model, CTranslateWhisper)
    assert heard(model, 40.0, asking(language="en")).text
    assert set(cache.iterdir()) == kept


def test_no_tokenizer(folder: Folder, tmp_path: Path) -> None:
    """A folder without a tokenizer is refused: none is downloaded for it."""
    given = shutil.copytree(converted(folder(BRIEF), "float32"), tmp_path / "faster-whisper")
    (given / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        transcriber(Settings("whisper", given))


def test_bands(folder: Folder, tmp_path: Path) -> None:
    """The spectrogram has the bands of the model, also where no file tells them."""
    given = shutil.copytree(converted(folder(BRIEF), "float32"), tmp_path / "faster-whisper")
    (given / "preprocessor_config.json").unlink()
    assert heard(CTranslateWhisper(Settings("whisper", given)), request=asking(language="en")).text


# -- which engine -----------------------------------------------------------------------------------------------------


def test_ctranslate_is_preferred(folder: Folder) -> None:
    """A Whisper of transformers is run on CTranslate2, in 8 bits on a CPU unless a dtype is said."""
    usual = transcriber(Settings("whisper", folder(SURE)))
    precise = transcriber(Settings("whisper", folder(SURE), dtype="float32"))
    asked = transcriber(Settings("whisper", folder(SURE), quantization="int8_float32"))
    kinds = [model.whisper.model.compute_type for model in (usual, precise, asked)]  # type: ignore[attr-defined]
    assert kinds == ["int8_float32", "float32", "int8_float32"]


def test_what_ctranslate_cannot_run(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A dtype that CTranslate2 lacks, and a conversion that cannot be kept, leave the model to transformers."""
    with caplog.at_level(logging.WARNING):
        assert isinstance(transcriber(Settings("one", folder(SURE), dtype="bfloat16")), WhisperModel)
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert isinstance(transcriber(Settings("two", folder(SURE))), WhisperModel)
    first, second = caplog.messages
    assert "one runs on transformers: ValueError: one: CTranslate2 computes with " in first
    assert "two runs on transformers: NotADirectoryError" in second


def test_a_quantization_that_is_not_known(folder: Folder) -> None:
    """A quantization that the device does not compute with is refused, with those that it does."""
    with pytest.raises(ValueError, match=r"computes with float32, int8, .* not fp8"):
        transcriber(Settings("whisper", folder(SURE), quantization="fp8"))


def test_a_handler_that_is_named(folder: Folder, tmp_path: Path) -> None:
    """The handler of an entry of the catalogue wins over the choice."""
    from backends.catalogue import load as load_catalogue

    names = ("backends.speech.whisper.WhisperModel", "backends.speech.ctranslate.CTranslateWhisper")
    entries = [
        {"name": str(place), "hf_repo_id": str(folder(SURE)), "handler": name} for place, name in enumerate(names)
    ]
    entries.append({"name": "free", "hf_repo_id": str(folder(SURE))})
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": entries}))
    found = [resolve(name, load_catalogue(tmp_path)).handler for name in ("0", "1", "free")]
    assert found == [*names, "backends.speech.transcriber.transcriber"]


@pytest.mark.limit(120)
def test_without_the_package(folder: Folder, tmp_path: Path) -> None:
    """Without faster-whisper, transformers runs its own form, and the other is refused with what to install."""
    plain = hidden(folder(BRIEF), tmp_path)
    assert (plain.returncode, plain.stdout) == (0, "WhisperModel\n"), plain.stderr
    refused = hidden(converted(folder(BRIEF), "float32"), tmp_path)
    assert refused.returncode == 1
    assert "ImportError: this model needs faster-whisper (pip install '.[speech]')" in refused.stderr


def hidden(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Which class runs a folder where the package is hidden."""
    command = [sys.executable, "-W", "ignore", "-c", HIDE, str(folder)]
    return subprocess.run(command, cwd=ROOT, env=environment(home), capture_output=True, text=True, check=False)


@pytest.mark.limit(120)
async def test_in_a_worker(folder: Folder, tmp_path: Path) -> None:
    """A worker process loads the model through the catalogue's handler and answers with segments and words."""
    weights = resolve(str(folder(SURE)))
    file = tmp_path / "noise.wav"
    soundfile.write(file, sound(6.0), RATE)
    request: dict[str, Any] = {
        "task": "transcribe",
        "language": "en",
        "prompt": None,
        "temperature": 0.0,
        "timestamps": ["segment", "word"],
    }
    body = {"file": str(file), "request": request, "response_format": "verbose_json", "stream": False}
    worker = Worker(weights.name, weights.folder, "cpu", {"handler": weights.handler})
    worker.start()
    try:
        call = {"id": "1", "endpoint": "speech", "body": body}
        told = json.loads(b"".join([piece async for piece in worker.run(call)]))
    finally:
        await worker.aclose()
    assert (told["language"], told["duration"]) == ("english", 6.0)
    assert told["segments"]
    times = [word[key] for word in told["words"] for key in ("start", "end")]
    assert times == sorted(times) != []
