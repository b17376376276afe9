"""A transcript reads the same in every format that OpenAI's endpoints know."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.audio import TranscriptionVerbose
from transformers.models.whisper.tokenization_whisper import LANGUAGES as WHISPER_LANGUAGES
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from backends.base import Segment, Transcript, Word
from backends.speech.transcripts import LANGUAGES, RESPONSE_FORMATS, ResponseFormat, events, language_code, render

SEGMENTS = (
    Segment(
        " Hello there.", 0.0, 1.52, (11, 12, 13), 0.2, -0.25, 1.2, 0.03,
        (Word("Hello", 0.0, 0.7), Word("there.", 0.7, 1.52)),
    ),
    Segment(" Bye.", 1.52, 3.0, (14,), words=(Word("Bye.", 1.6, 3.0),)),
)  # fmt: skip
TRANSCRIPT = Transcript("Hello there. Bye.", "en", 3.2, SEGMENTS)
TIME = r"\d{2,}:[0-5]\d:[0-5]\d[,.]\d{3}"


def text_of(transcript: Transcript, response_format: ResponseFormat) -> str:
    """The body as text."""
    return render(transcript, response_format).body.decode()


def cue(text: str, begin_s: float = 0.0, end_s: float = 1.0) -> Transcript:
    """A transcript of one segment."""
    return Transcript(text.strip(), "en", end_s, (Segment(text, begin_s, end_s),))


def verbose(transcript: Transcript = TRANSCRIPT, **options: Any) -> Any:
    """The body of `verbose_json`."""
    return json.loads(render(transcript, "verbose_json", **options).body)


def test_json() -> None:
    """The text, and as many seconds as are begun."""
    rendered = render(TRANSCRIPT, "json")
    assert rendered.content_type == "application/json"
    assert json.loads(rendered.body) == {
        "text": "Hello there. Bye.",
        "usage": {"type": "duration", "seconds": 4},
    }


def test_text() -> None:
    """The text and the end of its line."""
    assert render(TRANSCRIPT, "text").content_type == "text/plain; charset=utf-8"
    assert text_of(TRANSCRIPT, "text") == "Hello there. Bye.\n"


def test_srt() -> None:
    """Numbered cues, whose milliseconds follow a comma."""
    assert render(TRANSCRIPT, "srt").content_type == "application/x-subrip; charset=utf-8"
    assert text_of(TRANSCRIPT, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,520\nHello there.\n\n2\n00:00:01,520 --> 00:00:03,000\nBye.\n\n"
    )


def test_vtt() -> None:
    """A header, then cues whose milliseconds follow a point."""
    assert render(TRANSCRIPT, "vtt").content_type == "text/vtt; charset=utf-8"
    assert text_of(TRANSCRIPT, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.520\nHello there.\n\n00:00:01.520 --> 00:00:03.000\nBye.\n\n"
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "00:00:00.000"),
        (0.0004, "00:00:00.000"),
        (59.9994, "00:00:59.999"),
        (59.9996, "00:01:00.000"),
        (3599.9996, "01:00:00.000"),
        (3661.5, "01:01:01.500"),
        (359_999.9996, "100:00:00.000"),
    ],
)
def test_clocks(seconds: float, shown: str) -> None:
    """Times are rounded to milliseconds, which carry into seconds, minutes and hours."""
    transcript = cue("x", seconds, seconds)
    assert f"{shown} --> {shown}" in text_of(transcript, "vtt")
    comma = shown.replace(".", ",")
    assert f"{comma} --> {comma}" in text_of(transcript, "srt")


@given(st.floats(0, 1e6))
def test_every_clock_is_within_half_a_millisecond(seconds: float) -> None:
    """A clock reads back as the time that it shows."""
    shown = re.findall(TIME, text_of(cue("x", seconds, seconds), "vtt"))[0]
    hours, minutes, rest = shown.split(":")
    assert int(hours) * 3600 + int(minutes) * 60 + float(rest) == pytest.approx(seconds, abs=0.000501)


def test_markup_in_vtt() -> None:
    """What WebVTT would read as markup or as an arrow is escaped."""
    assert "\nA &lt;b&gt; &amp;amp; --&gt; C\n" in text_of(cue(" A <b> &amp; --> C"), "vtt")


@given(st.text())
def test_text_stays_in_its_cue(text: str) -> None:
    """No text ends its cue, begins another one, or reads as a line of times."""
    transcript = Transcript("", "en", 2.0, (Segment(text, 0.0, 1.0), Segment(" end", 1.0, 2.0)))
    for name, arrows in (("srt", 2), ("vtt", 2)):
        body = text_of(transcript, name)  # type: ignore[arg-type]
        assert body.count("-->") == arrows
        assert body.endswith("\nend\n\n")
        assert len(re.findall(rf"^{TIME} --> {TIME}$", body, re.MULTILINE)) == 2


def test_verbose_json() -> None:
    """All fields that OpenAI gives, under its names; its own SDK reads them."""
    body = verbose()
    assert body == {
        "task": "transcribe",
        "language": "english",
        "duration": 3.2,
        "text": "Hello there. Bye.",
        "segments": [
            {
                "id": 0, "seek": 0, "start": 0.0, "end": 1.52, "text": " Hello there.", "tokens": [11, 12, 13],
                "temperature": 0.2, "avg_logprob": -0.25, "compression_ratio": 1.2, "no_speech_prob": 0.03,
            },
            {
                "id": 1, "seek": 152, "start": 1.52, "end": 3.0, "text": " Bye.", "tokens": [14],
                "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0,
            },
        ],
        "usage": {"type": "duration", "seconds": 4},
    }  # fmt: skip
    parsed = TranscriptionVerbose.model_validate(body, strict=True)
    assert parsed.segments is not None
    assert parsed.segments[0].text == " Hello there."


def test_words() -> None:
    """Words come where they are asked for, segments likewise."""
    body = verbose(timestamps={"word"})
    assert "segments" not in body
    assert body["words"] == [
        {"word": "Hello", "start": 0.0, "end": 0.7},
        {"word": "there.", "start": 0.7, "end": 1.52},
        {"word": "Bye.", "start": 1.6, "end": 3.0},
    ]
    assert {"segments", "words"} <= set(verbose(timestamps={"word", "segment"}))


def test_the_language_of_a_translation() -> None:
    """A translation is in English, whatever was spoken."""
    german = Transcript("x", "de", 1.0)
    assert verbose(german)["language"] == "german"
    assert verbose(german, task="translate")["language"] == "english"
    assert verbose(german, task="translate")["task"] == "translate"


@pytest.mark.parametrize("response_format", RESPONSE_FORMATS)
def test_silence(response_format: ResponseFormat) -> None:
    """Where nothing was said, every format says so."""
    body = text_of(Transcript("", "en", 0.0), response_format)
    assert "-->" not in body
    assert body.startswith({"srt": "", "vtt": "WEBVTT\n\n", "text": "\n"}.get(response_format, "{"))


def test_events() -> None:
    """The deltas of a stream add up to the text that its last event gives."""
    sent = [json.loads(event.decode().removeprefix("data: ")) for event in events(TRANSCRIPT)]
    assert [event["type"] for event in sent] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(event["delta"] for event in sent[:-1]) == sent[-1]["text"] == "Hello there. Bye."
    assert sent[-1]["usage"] == {"type": "duration", "seconds": 4}
    assert all(event.endswith(b"\n\n") for event in events(TRANSCRIPT))


def test_events_of_silence() -> None:
    """A stream of nothing ends like every other."""
    assert len(list(events(Transcript("", "en", 1.0)))) == 2


def test_the_languages_of_whisper() -> None:
    """Every language that Whisper has a token for is known, under its name."""
    assert LANGUAGES == WHISPER_LANGUAGES


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("en", "en"), ("EN", "en"), ("English", "en"), (" german ", "de"), ("haitian creole", "ht"), ("jv", "jw"),
        ("xx", None), ("", None), ("klingon", None),
    ],
)  # fmt: skip
def test_names_of_languages(name: str, code: str | None) -> None:
    """A language is given by code or by English name."""
    assert language_code(name) == code


def test_every_name_that_whisper_knows() -> None:
    """Some languages have several English names."""
    assert {name: language_code(name) for name in TO_LANGUAGE_CODE} == TO_LANGUAGE_CODE
