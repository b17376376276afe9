"""A small Whisper with random weights, built from its configuration with a tokenizer trained on the spot, and something
to hear for it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from backends.base import Cancel, SpeechHandler, SpeechRequest, Transcript

CORPUS = (
    " The quick brown fox jumps over the lazy dog. What is the weather in Paris?",
    " Der schnelle braune Fuchs springt. Wie ist das Wetter?",
    " 日本語 天気 0 1 2 3 4 5 6 7 8 9",
)
LANGUAGES = ("en", "de", "ja")
MOST_POSITIONS = 64
END = "<|endoftext|>"
RATE = 16_000
GREEDY = 1e-6  # a temperature that is asked for is the only one, and this one leaves one token


@dataclass(frozen=True, slots=True)
class Kind:
    """What the model is like. `sure` models believe in what they write; `favours` names a token that follows the start
    token with near certainty."""

    multilingual: bool = True
    aligned: bool = True
    sure: float = 1.0
    favours: str | None = None
    seed: int = 0


def special_tokens(*, multilingual: bool) -> list[str]:
    """Whisper's tokens behind the text, in its order."""
    languages = [f"<|{language}|>" for language in LANGUAGES] if multilingual else []
    tasks = ["<|translate|>", "<|transcribe|>"]
    rest = ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return ["<|startoftranscript|>", *languages, *tasks, *rest]


def build_tokenizer(*, multilingual: bool) -> WhisperTokenizer:
    """A byte-level BPE: text tokens, the end token, the special ones, then 1501 times."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    trained = json.loads(backend.to_str())["model"]
    special = special_tokens(multilingual=multilingual)
    vocabulary: dict[str, int] = trained["vocab"]
    if multilingual:  # those have an empty token, by which CTranslate2 knows them
        vocabulary[""] = len(vocabulary)
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[tuple(merge) for merge in trained["merges"]])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    times = [AddedToken(f"<|{place * 0.02:.2f}|>", special=False, normalized=False) for place in range(1501)]
    tokenizer.add_tokens(times)
    return tokenizer


def build_whisper(folder: Path, kind: Kind | None = None) -> Path:
    """A Whisper of about 100,000 parameters with windows of 30 s; the same kind gives the same transcripts."""
    kind = kind or Kind()
    tokenizer = build_tokenizer(multilingual=kind.multilingual)
    ids = tokenizer.convert_tokens_to_ids
    torch.manual_seed(kind.seed)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=16,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_target_positions=MOST_POSITIONS,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    _shape(model, kind, tokenizer)
    model.generation_config = GenerationConfig(**_generation(tokenizer, kind))
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer).save_pretrained(folder)
    return folder


def _generation(tokenizer: WhisperTokenizer, kind: Kind) -> dict[str, Any]:
    """What a Whisper's generation config says beside its model's."""
    ids = tokenizer.convert_tokens_to_ids
    fields: dict[str, Any] = {
        "decoder_start_token_id": ids("<|startoftranscript|>"),
        "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "no_timestamps_token_id": ids("<|notimestamps|>"),
        "prev_sot_token_id": ids("<|startofprev|>"),
        "max_initial_timestamp_index": 50,
        "max_length": MOST_POSITIONS,
        "suppress_tokens": [ids(token) for token in special_tokens(multilingual=kind.multilingual)],
        "begin_suppress_tokens": [ids("Ġ"), tokenizer.eos_token_id],
        "is_multilingual": kind.multilingual,
    }
    if kind.multilingual:
        fields["lang_to_id"] = {f"<|{language}|>": ids(f"<|{language}|>") for language in LANGUAGES}
        fields["task_to_id"] = {task: ids(f"<|{task}|>") for task in ("translate", "transcribe")}
    if kind.aligned:
        fields["alignment_heads"] = [[0, 1], [1, 0]]
    return fields


@torch.no_grad()
def _shape(model: WhisperForConditionalGeneration, kind: Kind, tokenizer: WhisperTokenizer) -> None:
    """Give chance a direction: places and sounds change what follows, lest one token is repeated for ever; what the
    decoder has in mind after the start token makes times rarer than text, and the favoured token certain."""
    vectors = model.proj_out.weight
    vectors *= kind.sure
    model.model.decoder.embed_positions.weight *= 10 * kind.sure
    for layer in model.model.decoder.layers:
        layer.encoder_attn.out_proj.weight *= 30 * kind.sure
    start = torch.tensor([[model.config.decoder_start_token_id]])
    state = model.model(torch.zeros(1, 16, 3000), decoder_input_ids=start).last_hidden_state[0, -1]
    towards = state / state.norm() ** 2
    vectors[tokenizer.convert_tokens_to_ids("<|0.00|>") :] -= 8 * towards
    if kind.favours is not None:
        vectors[tokenizer.convert_tokens_to_ids(kind.favours)] = 40 * towards


def sound(seconds: float) -> np.ndarray:
    """Noise over a tone, with silence in each third second."""
    times = np.arange(int(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(times))
    return ((noise + 0.2 * np.sin(2 * np.pi * 300 * times)) * (times % 3 < 2)).astype(np.float32)


def heard(
    model: SpeechHandler, seconds: float = 4.0, request: SpeechRequest | None = None, cancel: Cancel | None = None
) -> Transcript:
    """What a model makes of `sound`."""
    return model.transcribe(sound(seconds), request or SpeechRequest(), cancel or threading.Event())


def asking(*timestamps: str, **fields: object) -> SpeechRequest:
    """A request for these times, decoded greedily."""
    return SpeechRequest(**{"temperature": GREEDY, "timestamps": frozenset(timestamps), **fields})  # type: ignore[arg-type]
