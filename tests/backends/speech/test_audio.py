"""Audio of any kind becomes the samples that Whisper listens to."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import Rejected
from backends.speech.audio import RATE, AudioLimits, Resampler, Samples, read_audio, resample

LOUDNESS = 0.5


def sine(frequency: float, rate: int = RATE, seconds: float = 1.0) -> Samples:
    """A tone that peaks at `LOUDNESS`."""
    times = np.arange(int(rate * seconds)) / rate
    return (LOUDNESS * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def frequency_of(samples: Samples) -> float:
    """The frequency of the strongest tone, to a fraction of a hertz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n=8 * len(samples)))
    return float(spectrum.argmax() * RATE / (8 * len(samples)))


def loudness(samples: Samples) -> float:
    """The peak of a tone of this power, apart from its ends."""
    middle = samples[len(samples) // 10 : -len(samples) // 10]
    return float(np.sqrt(2 * np.mean(middle.astype(np.float64) ** 2)))


def encoded(samples: Samples, rate: int, kind: str, **options: str) -> bytes:
    """A file that libsndfile writes."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, **options)
    return file.getvalue()


def by_ffmpeg(wav: bytes, path: Path, *options: str) -> Path:
    """The same sound as ffmpeg writes it."""
    source = path.with_suffix(".wav")
    source.write_bytes(wav)
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y", "-i", str(source), *options, str(path)]
    subprocess.run(command, check=True, timeout=30)
    source.unlink()
    return path


def refusal(source: bytes | Path, limits: AudioLimits | None = None) -> Rejected:
    """How a file is refused."""
    with pytest.raises(Rejected) as caught:
        read_audio(source, limits or AudioLimits())
    assert caught.value.param == "file"
    return caught.value


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000])
def test_a_tone_stays_what_it_is(rate: int) -> None:
    """A tone of 440 Hz keeps its frequency, its loudness and its length at every rate."""
    samples = resample(sine(440, rate), rate)
    assert samples.dtype == np.float32
    assert len(samples) == RATE
    assert frequency_of(samples) == pytest.approx(440, abs=0.3)
    assert loudness(samples) == pytest.approx(LOUDNESS, rel=0.002)


def test_the_phase_of_a_tone_stays() -> None:
    """Resampling moves nothing in time: the samples are those of the tone itself."""
    samples = resample(sine(440, 44_100), 44_100)
    assert np.abs(samples - sine(440))[400:-400].max() < 0.001


@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [8_100, 9_000, 10_900])
def test_no_aliasing(rate: int, frequency: int) -> None:
    """What is above half the rate is gone (by 70 dB at least), and does not come back as a lower tone."""
    assert loudness(resample(sine(frequency, rate), rate)) < LOUDNESS * 10 ** (-70 / 20)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_speech_passes(rate: int) -> None:
    """Up to 6.5 kHz the loudness stays within 1 %."""
    for frequency in (50, 300, 1_000, 3_400, 5_000, 6_500):
        assert loudness(resample(sine(frequency, rate), rate)) == pytest.approx(LOUDNESS, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 9_000), max_size=8),
    rate=st.sampled_from([8_000, 12_000, 16_000, 44_100, 48_000]),
    length=st.integers(0, 9_000),
)
def test_blocks_do_not_matter(cuts: list[int], rate: int, length: int) -> None:
    """However the samples are cut into blocks, the same comes out."""
    samples = np.random.default_rng(0).normal(0, 0.1, length).astype(np.float32)
    resampler = Resampler(rate)
    pieces = [resampler.feed(part) for part in np.split(samples, sorted(min(cut, length) for cut in cuts))]
    together = np.concatenate([*pieces, resampler.end()])
    whole = resample(samples, rate)
    assert len(together) == len(whole) == -(-length * RATE // rate)
    assert np.allclose(together, whole, atol=1e-6)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_what_libsndfile_reads(tmp_path: Path, kind: str, rate: int, channels: int) -> None:
    """Bytes and files of the common formats give the same mono samples."""
    tone = sine(440, rate)
    data = encoded(np.stack([tone] * channels, axis=1), rate, kind)
    path = tmp_path / "audio"
    path.write_bytes(data)
    samples = read_audio(data)
    assert np.array_equal(samples, read_audio(path))
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(RATE, abs=2_500)  # mp3 adds silence
    assert frequency_of(samples) == pytest.approx(440, abs=1)
    assert loudness(samples) == pytest.approx(LOUDNESS, rel=0.03)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.m4a", ["-c:a", "aac", "-b:a", "96k"]),
        ("a.mp4", ["-c:a", "aac", "-b:a", "96k", "-movflags", "+faststart"]),
        ("a.webm", ["-c:a", "libopus"]),
        ("a.mkv", ["-c:a", "flac"]),
        ("a.aac", ["-c:a", "aac", "-b:a", "96k"]),
    ],
)
def test_what_ffmpeg_reads(tmp_path: Path, name: str, options: list[str]) -> None:
    """What libsndfile refuses is read by ffmpeg, from bytes and from a file, wherever the index of an m4a stands."""
    path = by_ffmpeg(encoded(sine(440, 44_100, 2.0), 44_100, "WAV"), tmp_path / name, *options)
    samples = read_audio(path)
    assert np.array_equal(samples, read_audio(path.read_bytes()))
    assert len(samples) == pytest.approx(2 * RATE, abs=2_500)
    assert frequency_of(samples) == pytest.approx(440, abs=1)
    assert loudness(samples) == pytest.approx(LOUDNESS, rel=0.05)


@pytest.mark.parametrize("name", ["a.raw", "a.mp3", "a.m4a", "a"])
def test_names_do_not_matter(tmp_path: Path, name: str) -> None:
    """A file is what its bytes are, whatever it is called."""
    path = tmp_path / name
    path.write_bytes(encoded(sine(440), RATE, "FLAC"))
    assert np.array_equal(read_audio(path), read_audio(path.read_bytes()))


def test_channels_are_mixed() -> None:
    """The mono signal is the mean of the channels."""
    tone = sine(440)
    data = encoded(np.stack([tone, np.zeros_like(tone)], axis=1), RATE, "WAV", subtype="FLOAT")
    assert np.allclose(read_audio(data), tone / 2)


def test_an_odd_rate() -> None:
    """A rate that the resampler does not take is left to ffmpeg."""
    samples = read_audio(encoded(sine(440, 44_099), 44_099, "WAV"))
    assert len(samples) == pytest.approx(RATE, abs=2)
    assert frequency_of(samples) == pytest.approx(440, abs=0.3)
    with pytest.raises(ValueError, match="44099"):
        Resampler(44_099)


def test_a_file_that_is_cut_off() -> None:
    """Of a wav that promises more than it has, what is there is read."""
    data = encoded(sine(440), RATE, "WAV")
    assert len(read_audio(data[: len(data) // 2])) == pytest.approx(RATE / 2, abs=100)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no audio at all",
        b"\x00" * 5_000,
        b"RIFF\xff\xff\xff\xffWAVEfmt ",
        b"\x1a\x45\xdf\xa3" + b"\x93" * 100,
        b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00",
        encoded(sine(440, seconds=0), RATE, "WAV"),
        encoded(np.full(RATE, np.nan, dtype=np.float32), RATE, "WAV", subtype="FLOAT"),
        encoded(np.full(RATE, np.inf, dtype=np.float32), 44_100, "WAV", subtype="FLOAT"),
        encoded(np.full(RATE, 1e30, dtype=np.float32), RATE, "WAV", subtype="FLOAT"),
    ],
    ids=["empty", "text", "zeros", "riff", "ebml", "ftyp", "no samples", "nan", "inf", "too loud"],
)
def test_no_audio(data: bytes) -> None:
    """What cannot be heard is the client's mistake."""
    error = refusal(data)
    assert (error.status, error.code, error.kind) == (400, "invalid_audio", "invalid")


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    """A playlist that names a file of the server is refused, though ffmpeg by itself would read that file."""
    by_ffmpeg(encoded(sine(440), RATE, "WAV"), tmp_path / "secret.ts", "-c:a", "aac", "-f", "mpegts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(playlist)
    by_itself = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", str(tmp_path / "list.m3u8"), "-f", "null", "-"]
    subprocess.run(by_itself, check=True, timeout=30)
    assert refusal(tmp_path / "list.m3u8").code == "invalid_audio"
    assert refusal(playlist.encode()).code == "invalid_audio"
    assert refusal(f"ffconcat version 1.0\nfile '{tmp_path}/secret.ts'\n".encode()).code == "invalid_audio"


def test_without_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where ffmpeg is missing, wav is read all the same, and other formats are refused with what to install."""
    webm = by_ffmpeg(encoded(sine(440), RATE, "WAV"), tmp_path / "a.webm")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("ffmpeg") is None
    assert len(read_audio(encoded(sine(440), RATE, "WAV"))) == RATE
    error = refusal(webm)
    assert (error.status, error.code, error.kind) == (400, "unsupported_audio_format", "unsupported")
    assert "install ffmpeg" in str(error)


def test_too_many_bytes(tmp_path: Path) -> None:
    """A file over the limit is not read at all."""
    error = refusal(b"x" * 101, AudioLimits(max_bytes=100))
    assert (error.status, error.code, error.kind) == (413, "audio_too_large", "too_large")
    (tmp_path / "a").write_bytes(b"x" * 101)
    assert refusal(tmp_path / "a", AudioLimits(max_bytes=100)).code == "audio_too_large"


@pytest.mark.parametrize("name", ["a.flac", "a.webm"])
def test_too_long(tmp_path: Path, name: str) -> None:
    """Silence that is packed into few bytes is refused by its length, whoever decodes it."""
    path = by_ffmpeg(encoded(np.zeros(20 * RATE, dtype=np.float32), RATE, "WAV"), tmp_path / name)
    assert path.stat().st_size < 100_000
    assert len(read_audio(path, AudioLimits(max_duration_s=21))) == pytest.approx(20 * RATE, abs=1_000)
    error = refusal(path, AudioLimits(max_duration_s=10))
    assert (error.status, error.code, error.kind) == (413, "audio_too_long", "too_large")


def test_ffmpeg_that_takes_too_long(tmp_path: Path) -> None:
    """A file that ffmpeg cannot decode in time is refused."""
    path = by_ffmpeg(encoded(np.zeros(60 * RATE, dtype=np.float32), RATE, "WAV"), tmp_path / "a.webm")
    assert "within 0.001 s" in str(refusal(path, AudioLimits(decode_s=0.001)))
