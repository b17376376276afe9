"""A transcript as the bodies that OpenAI's audio endpoints answer with. Pure.

The fields are those of https://platform.openai.com/docs/api-reference/audio; SubRip has no standard, WebVTT is
https://www.w3.org/TR/webvtt1/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import orjson

from backends.base import JsonObject, Segment, Transcript

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]
Task = Literal["transcribe", "translate"]
Granularity = Literal["segment", "word"]

RESPONSE_FORMATS: tuple[ResponseFormat, ...] = ("json", "text", "srt", "vtt", "verbose_json")
CONTENT_TYPES: dict[ResponseFormat, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "verbose_json": "application/json",
}

# The codes that Whisper has tokens for, which are ISO 639-1 but for `haw`, `jw` and `yue`, and their English names.
LANGUAGES: dict[str, str] = {
    "af": "afrikaans", "am": "amharic", "ar": "arabic", "as": "assamese", "az": "azerbaijani", "ba": "bashkir",
    "be": "belarusian", "bg": "bulgarian", "bn": "bengali", "bo": "tibetan", "br": "breton", "bs": "bosnian",
    "ca": "catalan", "cs": "czech", "cy": "welsh", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fo": "faroese",
    "fr": "french", "gl": "galician", "gu": "gujarati", "ha": "hausa", "haw": "hawaiian", "he": "hebrew",
    "hi": "hindi", "hr": "croatian", "ht": "haitian creole", "hu": "hungarian", "hy": "armenian", "id": "indonesian",
    "is": "icelandic", "it": "italian", "ja": "japanese", "jw": "javanese", "ka": "georgian", "kk": "kazakh",
    "km": "khmer", "kn": "kannada", "ko": "korean", "la": "latin", "lb": "luxembourgish", "ln": "lingala",
    "lo": "lao", "lt": "lithuanian", "lv": "latvian", "mg": "malagasy", "mi": "maori", "mk": "macedonian",
    "ml": "malayalam", "mn": "mongolian", "mr": "marathi", "ms": "malay", "mt": "maltese", "my": "myanmar",
    "ne": "nepali", "nl": "dutch", "nn": "nynorsk", "no": "norwegian", "oc": "occitan", "pa": "punjabi",
    "pl": "polish", "ps": "pashto", "pt": "portuguese", "ro": "romanian", "ru": "russian", "sa": "sanskrit",
    "sd": "sindhi", "si": "sinhala", "sk": "slovak", "sl": "slovenian", "sn": "shona", "so": "somali",
    "sq": "albanian", "sr": "serbian", "su": "sundanese", "sv": "swedish", "sw": "swahili", "ta": "tamil",
    "te": "telugu", "tg": "tajik", "th": "thai", "tk": "turkmen", "tl": "tagalog", "tr": "turkish", "tt": "tatar",
    "uk": "ukrainian", "ur": "urdu", "uz": "uzbek", "vi": "vietnamese", "yi": "yiddish", "yo": "yoruba",
    "yue": "cantonese", "zh": "chinese",
}  # fmt: skip
_OTHER_NAMES = {
    "burmese": "my", "castilian": "es", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "mandarin": "zh",
    "moldavian": "ro", "moldovan": "ro", "panjabi": "pa", "pushto": "ps", "sinhalese": "si", "valencian": "ca",
    "jv": "jw",  # Whisper's token for Javanese has a code that ISO withdrew
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole answer."""

    body: bytes
    content_type: str


def render(
    transcript: Transcript,
    response_format: ResponseFormat,
    *,
    task: Task = "transcribe",
    timestamps: Collection[Granularity] = frozenset({"segment"}),
) -> Rendered:
    """The answer in the format that was asked for; `timestamps` says which lists `verbose_json` has."""
    if response_format == "json":
        body = orjson.dumps({"text": transcript.text, "usage": _usage(transcript)})
    elif response_format == "verbose_json":
        body = orjson.dumps(_verbose(transcript, task, timestamps))
    elif response_format == "text":
        body = f"{transcript.text}\n".encode()
    elif response_format == "srt":
        body = _srt(transcript.segments).encode()
    else:
        body = _vtt(transcript.segments).encode()
    return Rendered(body, CONTENT_TYPES[response_format])


def events(transcript: Transcript) -> Iterator[bytes]:
    """The server-sent events of a request with `stream`: a delta for each segment, then the whole text."""
    deltas = [segment.text for segment in transcript.segments] or [transcript.text]
    deltas[0] = deltas[0].lstrip()
    for delta in deltas:
        yield _event({"type": "transcript.text.delta", "delta": delta})
    yield _event({"type": "transcript.text.done", "text": transcript.text, "usage": _usage(transcript)})


def language_code(name: str) -> str | None:
    """The code of a language that is given by code or by English name; None for one that Whisper does not know."""
    wanted = name.strip().lower()
    if wanted in LANGUAGES:
        return wanted
    named = next((code for code, english in LANGUAGES.items() if english == wanted), None)
    return named or _OTHER_NAMES.get(wanted)


def _usage(transcript: Transcript) -> JsonObject:
    return {"type": "duration", "seconds": math.ceil(transcript.duration_s)}


def _event(fields: JsonObject) -> bytes:
    return b"data: " + orjson.dumps(fields) + b"\n\n"


def _verbose(transcript: Transcript, task: Task, timestamps: Collection[Granularity]) -> JsonObject:
    language = "en" if task == "translate" else transcript.language
    body: JsonObject = {
        "task": task,
        "language": LANGUAGES.get(language, language),
        "duration": transcript.duration_s,
        "text": transcript.text,
    }
    if "segment" in timestamps:
        body["segments"] = [_segment(number, segment) for number, segment in enumerate(transcript.segments)]
    if "word" in timestamps:
        body["words"] = [
            {"word": word.text, "start": _milliseconds(word.begin_s) / 1000, "end": _milliseconds(word.end_s) / 1000}
            for segment in transcript.segments
            for word in segment.words
        ]
    return {**body, "usage": _usage(transcript)}


def _segment(number: int, segment: Segment) -> JsonObject:
    """One of OpenAI's segments; `seek` counts hundredths of a second, the frames of Whisper's spectrogram."""
    return {
        "id": number,
        "seek": round(segment.begin_s * 100),
        "start": _milliseconds(segment.begin_s) / 1000,
        "end": _milliseconds(segment.end_s) / 1000,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _srt(segments: Sequence[Segment]) -> str:
    """SubRip cues. There is no way to escape an arrow, which would read as a line of times, so it is shortened."""
    return "".join(
        f"{number}\n{_times(segment, ',')}\n{_one_line(segment.text, _no_arrows)}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def _vtt(segments: Sequence[Segment]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_times(segment, '.')}\n{_one_line(segment.text, _escaped)}\n\n" for segment in segments
    )


def _one_line(text: str, clean: Callable[[str], str]) -> str:
    """Text as the payload of a cue, which an empty line would end."""
    return clean(" ".join(text.split()))


def _no_arrows(text: str) -> str:
    return text.replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _times(segment: Segment, point: str) -> str:
    return f"{_clock(segment.begin_s, point)} --> {_clock(segment.end_s, point)}"


def _clock(seconds: float, point: str) -> str:
    """`00:00:00` and milliseconds; the hours grow beyond two digits."""
    rest, milliseconds = divmod(_milliseconds(seconds), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    return f"{hour:02}:{minute:02}:{second:02}{point}{milliseconds:03}"


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
