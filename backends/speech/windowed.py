"""Whisper's way through long audio (https://arxiv.org/abs/2212.04356), whatever runs the model. Worker processes only.

`window of 30 s → encode → (prompt → decode, again warmer when it went wrong) → split at time stamps → next window`.
The next window begins where the last whole sentence ended. The windows are driven here, and not by a library, so that
the encoder runs once for all temperatures, a call that is given up ends soon, and each segment tells the temperature,
log probability and silence that OpenAI's API reports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import Cancel, Rejected, Segment, SpeechRequest, Transcript, Word
from backends.speech.windows import RATE, Decoded, Span, Vocabulary, split

# At 0, text that is doubtful is decoded again at the next one.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_FORGETS_ABOVE = 0.5
_NO_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo", "yue"})


@dataclass(frozen=True, slots=True)
class Call:
    """What stays the same for all windows of one transcription; `chance` is what the engine draws tokens with."""

    request: SpeechRequest
    cancel: Cancel
    chance: Any
    duration_s: float


class WindowedWhisper(ABC):
    """A `SpeechHandler` but for the model itself, which an engine adds.

    It sets `vocabulary`, `window_samples`, `positions` (the most tokens that the decoder reads and writes) and
    `tells_words` (whether `token_times` works).
    """

    thread_safe = False
    max_parallelism = 1

    vocabulary: Vocabulary
    window_samples: int
    positions: int
    tells_words: bool

    # -- what an engine does --------------------------------------------------------------------------------------

    @abstractmethod
    def tokens_of(self, text: str) -> Sequence[int]:
        """The tokens of a text, without any that open or end it."""

    @abstractmethod
    def text_of(self, tokens: Sequence[int]) -> str:
        """The text of text tokens."""

    @abstractmethod
    def encode(self, heard: NDArray[np.float32]) -> Any:
        """The encoder's states of at most a window of samples; silence fills the rest."""

    @abstractmethod
    def detect(self, states: Any) -> str:
        """The likeliest language."""

    @abstractmethod
    def decode(self, states: Any, prompt: Sequence[int], start: int, temperature: float, call: Call) -> Decoded:
        """Draw tokens until the end token; `start` is where the start token stands in the prompt."""

    @abstractmethod
    def token_times(self, states: Any, opening: Sequence[int], tokens: Sequence[int], heard_s: float) -> list[float]:
        """Seconds at which each token begins, and the last one ends."""

    def chance(self) -> Any:
        """What tokens are drawn with, anew for each call."""
        return None

    # -- the whole audio ------------------------------------------------------------------------------------------

    def transcribe(self, samples: Any, request: SpeechRequest, cancel: Cancel) -> Transcript:
        """See `SpeechHandler`.

        Raises `Rejected` for a language or task that the model has no token for, and for word times when it cannot tell
        them.
        """
        language = self._checked(request)
        audio: NDArray[np.float32] = np.asarray(samples, dtype=np.float32)
        call = Call(request, cancel, self.chance(), len(audio) / RATE)
        stamped = bool(request.timestamps) or len(audio) > self.window_samples
        history = self._history(request.prompt)
        segments: list[Segment] = []
        begin = 0
        while begin < len(audio) and not cancel.is_set():
            heard = audio[begin : begin + self.window_samples]
            states = self.encode(heard)
            language = language or self.detect(states)
            opening = self._opening(language, request.task, stamped=stamped)
            decoded = self._decode(states, history, opening, call)
            if decoded.is_silence:
                begin += len(heard)
                continue
            spans, advance = split(decoded.tokens, self.vocabulary.first_stamp, len(heard))
            found = self._segments(spans, decoded, begin / RATE, call)
            if found and "word" in request.timestamps and not cancel.is_set():
                spaced = request.task == "translate" or language not in _NO_SPACES
                found = self._with_words(found, states, opening, begin / RATE, spaced=spaced)
            segments += found
            history = [] if decoded.temperature > _FORGETS_ABOVE else [*history, *_tokens(spans)]
            begin += advance
        text = "".join(segment.text for segment in segments).strip()
        return Transcript(text, language or "en", call.duration_s, segments)

    def _checked(self, request: SpeechRequest) -> str | None:
        """The language to listen for, or None to detect it."""
        known = self.vocabulary
        if "word" in request.timestamps and not self.tells_words:
            raise _unsupported("this model cannot tell the times of words", "timestamp_granularities")
        if request.task not in known.tasks and (known.tasks or request.task != "transcribe"):
            raise _unsupported(f"this model cannot {request.task}", "task")
        if known.languages and request.language is not None and request.language not in known.languages:
            raise _unsupported(f"this model does not know the language {request.language}", "language")
        if not known.languages and request.language not in (None, "en"):
            raise _unsupported("this model knows English only", "language")
        return request.language if known.languages else "en"

    def _history(self, prompt: str | None) -> list[int]:
        if prompt is None or not prompt.strip():
            return []
        return self._text_tokens(self.tokens_of(f" {prompt.strip()}"))

    def _opening(self, language: str, task: str, *, stamped: bool) -> list[int]:
        """The tokens that say what is to be written; an English-only model has none for language and task."""
        known = self.vocabulary
        opening = [known.start]
        if known.languages:
            opening += [known.languages[language], known.tasks[task]]
        return opening if stamped else [*opening, known.no_stamps]

    def _decode(self, states: Any, history: Sequence[int], opening: Sequence[int], call: Call) -> Decoded:
        """Decode at the temperature that was asked for; at 0, at the lowest of the ladder that gives sound text."""
        asked = call.request.temperature
        before = [self.vocabulary.previous, *history[1 - self.positions // 2 :]] if history else []
        for temperature in _TEMPERATURES if asked == 0.0 else (asked,):
            decoded = self.decode(states, [*before, *opening], len(before), temperature, call)
            if call.cancel.is_set() or not decoded.is_doubtful:
                break
        return decoded

    def _segments(self, spans: Sequence[Span], decoded: Decoded, offset_s: float, call: Call) -> list[Segment]:
        """The sentences that have text and length, in seconds of the whole audio."""
        segments = [
            Segment(
                text=self.text_of(self._text_tokens(span.tokens)),
                begin_s=min(offset_s + span.begin_s, call.duration_s),
                end_s=min(offset_s + span.end_s, call.duration_s),
                tokens=tuple(span.tokens),
                temperature=decoded.temperature,
                avg_logprob=decoded.avg_logprob,
                compression_ratio=decoded.compression_ratio,
                no_speech_prob=decoded.no_speech_prob,
            )
            for span in spans
        ]
        return [segment for segment in segments if segment.text.strip() and segment.begin_s < segment.end_s]

    def _text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of text, without stamps."""
        return [token for token in tokens if token < self.vocabulary.end]

    # -- words ----------------------------------------------------------------------------------------------------

    def _with_words(
        self, segments: Sequence[Segment], states: Any, opening: Sequence[int], offset_s: float, *, spaced: bool
    ) -> list[Segment]:
        """The segments of one window with their words, which lie within them."""
        texts = [self._text_tokens(segment.tokens) for segment in segments]
        together = [token for tokens in texts for token in tokens]
        begins = self.token_times(states, opening, together, segments[-1].end_s - offset_s)
        done: list[Segment] = []
        place = 0
        for segment, tokens in zip(segments, texts, strict=True):
            words: list[Word] = []
            for text, count in self._split_words(tokens, spaced=spaced):
                begin_s, end_s = (
                    min(max(offset_s + begins[at], segment.begin_s), segment.end_s) for at in (place, place + count)
                )
                words.append(Word(text.strip(), begin_s, end_s))
                place += count
            done.append(replace(segment, words=tuple(word for word in words if word.text)))
        return done

    def _split_words(self, tokens: Sequence[int], *, spaced: bool) -> list[tuple[str, int]]:
        """Words as text and number of tokens: a token with half a character waits for the rest of it, and in a
        language with spaces what does not begin with one belongs to the word before."""
        found: list[tuple[str, int]] = []
        waiting: list[int] = []
        for token in tokens:
            waiting.append(token)
            text = self.text_of(waiting)
            if text.endswith("\ufffd") and len(waiting) < 4:
                continue
            begins = text[:1].isspace() or (not spaced and any(character.isalnum() for character in text))
            if found and not begins:
                found[-1] = (found[-1][0] + text, found[-1][1] + len(waiting))
            else:
                found.append((text, len(waiting)))
            waiting = []
        if waiting:
            found.append((self.text_of(waiting), len(waiting)))
        return found


def _tokens(spans: Sequence[Span]) -> list[int]:
    return [token for span in spans for token in span.tokens]


def _unsupported(message: str, param: str) -> Rejected:
    return Rejected(message, kind="unsupported", code="unsupported_parameter", param=param)
