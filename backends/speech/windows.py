"""One window of Whisper: its tokens, what was decoded of it, and the sentences in that. Pure."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

RATE = 16_000
STAMP_S = 0.02  # what a time stamp token counts, and the time between two states of the encoder
_STAMP_SAMPLES = 320

# The thresholds of the paper (section 4.5): text that repeats itself, or that the model does not believe in, is decoded
# again at the next temperature; silence is what the model takes for silence and does not believe in either.
_MOST_COMPRESSION = 2.4
_LEAST_LOGPROB = -1.0
_SILENCE = 0.6

# A window that would move on by less is taken whole: thousands of windows for a minute are a runaway, not speech.
_LEAST_ADVANCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The special tokens of a model. Tokens below `end` are text, those from `first_stamp` on are times."""

    start: int
    previous: int
    end: int
    no_speech: int
    no_stamps: int
    languages: dict[str, int]
    tasks: dict[str, int]

    @property
    def first_stamp(self) -> int:
        return self.no_stamps + 1


@dataclass(frozen=True, slots=True)
class Decoded:
    """What one decoding of a window gave, without the end token; `text` has no time stamps."""

    tokens: Sequence[int]
    text: str
    temperature: float
    avg_logprob: float
    no_speech_prob: float

    @property
    def compression_ratio(self) -> float:
        """How much shorter zlib makes the text: high for text that repeats itself."""
        raw = self.text.encode()
        return len(raw) / len(zlib.compress(raw))

    @property
    def is_silence(self) -> bool:
        return self.no_speech_prob > _SILENCE and self.avg_logprob < _LEAST_LOGPROB

    @property
    def is_doubtful(self) -> bool:
        """Whether a higher temperature may do better."""
        failed = self.compression_ratio > _MOST_COMPRESSION or self.avg_logprob < _LEAST_LOGPROB
        return failed and not self.is_silence


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens between two time stamps, in seconds from the beginning of their window."""

    tokens: Sequence[int]
    begin_s: float
    end_s: float


def split(tokens: Sequence[int], first_stamp: int, heard: int) -> tuple[list[Span], int]:
    """The sentences of a window of `heard` samples, and by how many samples the next window begins later.

    Two stamps in a row end one sentence and begin the next. What follows the last pair is half a sentence, which the
    next window hears whole; a single stamp at the end says that nothing was spoken after it.
    """
    heard_s = heard / RATE
    stamps = [token >= first_stamp for token in tokens]
    cuts = [place for place in range(1, len(tokens)) if stamps[place - 1] and stamps[place]]
    complete = stamps[-2:] == [False, True]
    last_s = (tokens[cuts[-1] - 1] - first_stamp) * STAMP_S if cuts else 0.0
    if cuts and not complete and last_s >= _LEAST_ADVANCE_S:
        edges, advance = [0, *cuts], round(last_s / STAMP_S) * _STAMP_SAMPLES
    else:
        edges, advance = [0, *cuts, len(tokens)], heard
    spans = []
    for begin, end in itertools.pairwise(edges):
        part = tokens[begin:end]
        times = [(token - first_stamp) * STAMP_S for token in part if token >= first_stamp]
        begin_s = times[0] if times and part[0] >= first_stamp else 0.0
        end_s = times[-1] if len(times) > 1 else heard_s
        spans.append(Span(part, min(begin_s, heard_s), min(end_s, heard_s)))
    return [span for span in spans if span.tokens], advance
