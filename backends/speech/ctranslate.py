"""Whisper on CTranslate2, by way of faster-whisper; `backends.speech.windowed` leads it through the audio.

Runs in the worker process only, and needs the extra `speech`. A window is decoded in one piece, so that a call that is
given up ends after the temperature that is being decoded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backends.base import Settings
from backends.devices import device_of
from backends.speech.transcripts import LANGUAGES
from backends.speech.windowed import Call, WindowedWhisper
from backends.speech.windows import STAMP_S, Decoded, Vocabulary
from backends.weights import is_ctranslate

try:
    import ctranslate2
    import faster_whisper
    from faster_whisper.feature_extractor import FeatureExtractor

    from backends.speech.conversion import converted, facts_of
except ImportError as error:
    raise ImportError(f"this model needs faster-whisper (pip install '.[speech]'): {error}") from error

# What is computed with where neither dtype nor quantization is said, the first that the device has.
_USUAL = {"cpu": ("int8", "float32"), "cuda": ("float16", "float32")}
_MOST_STATES = 1500
_TASKS = ("transcribe", "translate")


class CTranslateWhisper(WindowedWhisper):
    """A Whisper of any size, in the form of CTranslate2 or of transformers, which is converted.

    At temperatures above 0, the same samples and request may give another transcript: CTranslate2 goes on with its
    random numbers from call to call. Raises `ValueError` for a dtype or quantization that the device does not compute
    with, and whatever keeps the model from being converted or loaded.
    """

    def __init__(self, settings: Settings) -> None:
        device, index = _place(device_of(settings))
        compute_type = _compute_type(settings, device, index)
        folder = settings.folder
        if not is_ctranslate(folder):
            folder = converted(folder, compute_type, trust_remote_code=settings.trust_remote_code)
        if not (folder / "tokenizer.json").is_file():  # faster-whisper would download one
            raise ValueError(f"{folder} has no tokenizer.json")
        self.whisper: Any = faster_whisper.WhisperModel(
            str(folder),
            device=device,
            device_index=index,
            compute_type=compute_type,
            cpu_threads=torch.get_num_threads(),
            local_files_only=True,
        )
        facts = facts_of(folder)
        if facts.multilingual and not self.whisper.model.is_multilingual:
            raise ValueError(f"CTranslate2 takes {settings.name} for one that knows English only")
        self.vocabulary = _vocabulary(self.whisper)
        self.positions = facts.positions
        self.tells_words = bool(json.loads((folder / "config.json").read_text("utf-8")).get("alignment_heads"))
        # The bands of the model itself: without its preprocessor_config.json, faster-whisper takes 80.
        bands = {**self.whisper.feat_kwargs, "feature_size": self.whisper.model.n_mels}
        self._features = FeatureExtractor(**bands)
        self.window_samples = self._features.n_samples
        if device == "cuda":  # libraries of CUDA are looked for only when they are used: what is missing shows here
            self.encode(np.zeros(1, dtype=np.float32))

    def tokens_of(self, text: str) -> Sequence[int]:
        """See `WindowedWhisper`."""
        ids: list[int] = self.whisper.hf_tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `WindowedWhisper`."""
        return str(self.whisper.hf_tokenizer.decode(list(tokens)))

    def encode(self, heard: NDArray[np.float32]) -> Any:
        """The states (1, 1500, d_model), in the memory of the device."""
        window = np.pad(heard, (0, self.window_samples - len(heard)))
        return self.whisper.encode(self._features(window, padding=0))

    def detect(self, states: Any) -> str:
        """The likeliest language of those that are known here."""
        (likely,) = self.whisper.model.detect_language(states)
        return next(code for token, _ in likely if (code := token.strip("<|>")) in self.vocabulary.languages)

    def decode(self, states: Any, prompt: Sequence[int], start: int, temperature: float, call: Call) -> Decoded:
        """See `WindowedWhisper`; the tokens that are never drawn are those of the model's configuration."""
        chance = {"sampling_topk": 0, "sampling_temperature": temperature} if temperature > 0 else {}
        half = self.positions // 2
        room = min(half, self.positions - len(prompt))
        (told,) = self.whisper.model.generate(
            states,
            [list(prompt)],
            beam_size=1,
            max_length=self.positions - (room < half),  # behind a long prompt, it counts one place more than `room`
            return_scores=True,
            return_no_speech_prob=True,
            **chance,
        )
        tokens: list[int] = told.sequences_ids[0]
        drawn = len(tokens) + (len(tokens) < room)  # the end token too; a score is the sum by the tokens without it
        logprob = told.scores[0] * len(tokens) / drawn
        text = self.text_of(self._text_tokens(tokens))
        return Decoded(tokens, text, temperature, logprob, told.no_speech_prob)

    def token_times(self, states: Any, opening: Sequence[int], tokens: Sequence[int], heard_s: float) -> list[float]:
        """See `WindowedWhisper`: where the alignment heads look for each token."""
        prompt = [token for token in opening if token != self.vocabulary.no_stamps]
        moments = max(min(round(heard_s / STAMP_S), _MOST_STATES), 1)
        (told,) = self.whisper.model.align(states, prompt, [list(tokens)], 2 * moments)
        begins: dict[int, int] = {}
        for row, moment in told.alignments:
            begins.setdefault(row, moment)
        return [begins[row] * STAMP_S for row in range(len(tokens) + 1)]


def _place(device: torch.device) -> tuple[str, int]:
    """What CTranslate2 calls a device of torch; it has none for Apple's GPUs."""
    return ("cuda", device.index or 0) if device.type == "cuda" else ("cpu", 0)


def _compute_type(settings: Settings, device: str, index: int) -> str:
    """What the weights are computed with: the quantization, else the dtype, else what is usual on the device."""
    known: set[str] = ctranslate2.get_supported_compute_types(device, index)
    asked = settings.quantization or (None if settings.dtype == "auto" else settings.dtype)
    if asked is None:
        return next(kind for kind in _USUAL[device] if kind in known)
    if asked not in known:
        raise ValueError(f"{settings.name}: CTranslate2 computes with {', '.join(sorted(known))} here, not {asked}")
    return asked


def _vocabulary(whisper: Any) -> Vocabulary:
    """Raises `ValueError` when a token is missing that every Whisper has."""
    find = whisper.hf_tokenizer.token_to_id
    ids = {
        name: find(f"<|{token}|>")
        for name, token in (
            ("start", "startoftranscript"),
            ("previous", "startofprev"),
            ("end", "endoftext"),
            ("no_stamps", "notimestamps"),
        )
    }
    if missing := [name for name, token in ids.items() if token is None]:
        raise ValueError(f"the tokenizer lacks the tokens {', '.join(missing)}")
    multilingual = whisper.model.is_multilingual
    found = {code: find(f"<|{code}|>") for code in (*LANGUAGES, *_TASKS)} if multilingual else {}
    return Vocabulary(
        **ids,
        no_speech=ids["no_stamps"] - 1,
        languages={code: found[code] for code in LANGUAGES if found.get(code) is not None},
        tasks={task: found[task] for task in _TASKS if found.get(task) is not None},
    )
