"""Audio files as Whisper wants them: float32, mono, 16,000 samples a second. Runs in the worker process.

libsndfile reads wav, flac, ogg and mp3; whatever it refuses (m4a, webm) goes to ffmpeg.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from backends.base import Rejected

Samples = NDArray[np.float32]

RATE = 16_000  # samples a second
_BLOCK_SAMPLES = 1 << 18
_LOUDEST = 1e4  # full scale is 1; beyond this the power of a float file's sample overflows
_RATES = range(1_000, 768_001)

# The low-pass filter of the resampler: 80 dB down at half the lower rate (Kaiser's formulas give the shape, and with
# 32 zero crossings on each side a transition of 16 % of that band).
_ZERO_CROSSINGS = 32
_ROLLOFF = 0.92
_KAISER_BETA = 0.1102 * (80 - 8.7)
_LARGEST_DENOMINATOR = 500
_LEAST_BLOCK = 480

# Demuxers that hold sound itself. Playlists are not among them: they name further files, which ffmpeg would open.
_DEMUXERS = "aac,aiff,amr,asf,caf,flac,matroska,mov,mp3,mpeg,ogg,w64,wav"


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """The largest file, the longest audio, and how long ffmpeg may take."""

    max_bytes: int = 200 * 1024 * 1024
    max_duration_s: float = 2 * 3600.0
    decode_s: float = 120.0


DEFAULT_LIMITS = AudioLimits()


def read_audio(source: bytes | Path, limits: AudioLimits = DEFAULT_LIMITS) -> Samples:
    """The samples (samples,) of an audio file or of its bytes.

    Raises `Rejected`: 400 `invalid_audio` when it is no audio, 400 `unsupported_audio_format` when ffmpeg would be
    needed and is not installed, 413 `audio_too_large` or `audio_too_long` beyond a limit.
    """
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size > limits.max_bytes:
        raise Rejected(
            f"the file has {size} bytes, and at most {limits.max_bytes} are read",
            kind="too_large",
            status=413,
            code="audio_too_large",
            param="file",
        )
    samples = _with_libsndfile(source, limits)
    if samples is None:
        samples = _with_ffmpeg(source, limits)
    if not len(samples):
        raise _invalid("there is no sound in the file")
    return samples


def is_usual(rate: int) -> bool:
    """Whether `Resampler` takes the rate: all that recorders use, and whatever is as round."""
    return rate in _RATES and Fraction(RATE, rate).denominator <= _LARGEST_DENOMINATOR


def resample(samples: Samples, rate: int) -> Samples:
    """Samples (samples,) at `rate` a second, as they are at 16,000 a second."""
    resampler = Resampler(rate)
    return np.concatenate([resampler.feed(samples), resampler.end()])


class Resampler:
    """Polyphase windowed-sinc resampling to 16,000 samples a second, block by block.

    `block_in` samples and those around them (`reach` on each side) make `block_out` samples, by one matrix product.
    Raises `ValueError` for a rate that `is_usual` denies: its blocks would be too large.
    """

    def __init__(self, rate: int) -> None:
        if not is_usual(rate):
            raise ValueError(f"{rate} samples a second are not resampled")
        ratio = Fraction(RATE, rate)
        blocks = math.ceil(_LEAST_BLOCK / ratio.denominator)
        self.block_in, self.block_out = ratio.denominator * blocks, ratio.numerator * blocks
        narrowing = min(1.0, float(ratio))
        self.reach = math.ceil(_ZERO_CROSSINGS / narrowing)
        self._ratio = ratio
        self._weights = self._filter(narrowing)
        self._waiting = np.zeros(self.reach, dtype=np.float32)
        self._fed = self._given = 0

    def feed(self, samples: Samples) -> Samples:
        """What can be told after these samples; may be nothing yet."""
        if self._ratio == 1:
            return samples
        self._fed += len(samples)
        return self._convolved(samples)

    def end(self) -> Samples:
        """The rest: after the last sample there is silence."""
        wanted = math.ceil(self._fed * self._ratio)
        rest = self._convolved(np.zeros(self.reach + self.block_in, dtype=np.float32))
        return rest[: max(wanted - (self._given - len(rest)), 0)]

    def _convolved(self, samples: Samples) -> Samples:
        signal = np.concatenate([self._waiting, samples])
        count = max((len(signal) - 2 * self.reach) // self.block_in, 0)
        if not count:
            self._waiting = signal
            return np.zeros(0, dtype=np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(signal, self.block_in + 2 * self.reach)
        out: Samples = (np.ascontiguousarray(windows[:: self.block_in][:count]) @ self._weights).reshape(-1)
        self._waiting = signal[count * self.block_in :].copy()
        self._given += len(out)
        return out

    def _filter(self, narrowing: float) -> Samples:
        """The weights (block_in + 2 · reach, block_out) of the samples around a block; those of one output sum to 1."""
        times = np.arange(-self.reach, self.block_in + self.reach, dtype=np.float64)[:, None]
        places = np.arange(self.block_out, dtype=np.float64)[None, :] / float(self._ratio)
        distance = times - places
        inside = np.clip(1.0 - (distance * narrowing / _ZERO_CROSSINGS) ** 2, 0.0, None)
        weights = np.sinc(_ROLLOFF * narrowing * distance) * np.i0(_KAISER_BETA * np.sqrt(inside)) * (inside > 0)
        return np.ascontiguousarray(weights / weights.sum(axis=0), dtype=np.float32)


def _with_libsndfile(source: bytes | Path, limits: AudioLimits) -> Samples | None:
    """Decode block by block, so that only the result is held whole; None when libsndfile cannot.

    A file is given by its descriptor: of a name, soundfile believes the suffix.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        opened = file.fileno() if isinstance(source, Path) else file
        try:
            with soundfile.SoundFile(opened, closefd=False) as audio:
                return _resampled(audio, limits) if is_usual(audio.samplerate) else None
        except soundfile.LibsndfileError:
            return None


def _resampled(file: Any, limits: AudioLimits) -> Samples:
    resampler = Resampler(file.samplerate)
    blocks: list[Samples] = []
    frames = 0
    while len(block := _next_block(file)):
        frames += len(block)
        if frames > limits.max_duration_s * file.samplerate:
            raise _too_long(limits)
        blocks.append(resampler.feed(block.mean(axis=1)))
    return np.concatenate([*blocks, resampler.end()])


def _next_block(file: Any) -> Samples:
    """The next frames (frames, channels) of a file; none at its end."""
    return _checked(file.read(max(_BLOCK_SAMPLES // file.channels, 1), dtype="float32", always_2d=True))


def _with_ffmpeg(source: bytes | Path, limits: AudioLimits) -> Samples:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise Rejected(
            "this audio is not wav, flac, ogg or mp3: to read other formats, install ffmpeg where the proxy runs "
            "(apt-get install ffmpeg)",
            kind="unsupported",
            code="unsupported_audio_format",
            param="file",
        )
    with _as_file(source) as path:
        raw = _decoded(ffmpeg, path, limits)
    if len(raw) > limits.max_duration_s * RATE * 4:
        raise _too_long(limits)
    return _checked(np.frombuffer(raw[: len(raw) // 4 * 4], dtype="<f4").astype(np.float32))


def _decoded(ffmpeg: str, path: Path, limits: AudioLimits) -> bytes:
    """Little-endian float32 samples of the first sound track; a second more than the limit at most."""
    command = [ffmpeg, "-nostdin", "-hide_banner", "-loglevel", "quiet", "-threads", "1"]
    command += ["-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS, "-i", f"file:{path}"]
    command += ["-map", "0:a:0", "-t", str(limits.max_duration_s + 1), "-ac", "1", "-ar", str(RATE)]
    command += ["-f", "f32le", "pipe:1"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=limits.decode_s, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise _invalid(f"it could not be decoded within {limits.decode_s:g} s") from error
    except subprocess.CalledProcessError as error:
        raise _invalid("neither libsndfile nor ffmpeg can decode the file") from error
    return done.stdout


def _checked(samples: Samples) -> Samples:
    if not (np.abs(samples) <= _LOUDEST).all():
        raise _invalid("the file holds samples that are no sound")
    return samples


@contextmanager
def _as_file(source: bytes | Path) -> Iterator[Path]:
    """A file to seek in: an m4a has its index at the end, so that it cannot be read from a pipe."""
    if isinstance(source, Path):
        yield source.absolute()
        return
    with tempfile.NamedTemporaryFile(prefix="audio-") as file:
        file.write(source)
        file.flush()
        yield Path(file.name)


def _invalid(message: str) -> Rejected:
    return Rejected(message, kind="invalid", code="invalid_audio", param="file")


def _too_long(limits: AudioLimits) -> Rejected:
    return Rejected(
        f"at most {limits.max_duration_s:g} s of audio are transcribed at once",
        kind="too_large",
        status=413,
        code="audio_too_long",
        param="file",
    )
