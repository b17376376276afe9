"""Whisper on transformers; `backends.speech.windowed` leads it through the audio. In worker processes only.

Tokens are drawn here, one after the other, so that a call that is given up ends between two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from backends.base import Cancel, Settings, SpeechRequest, Transcript
from backends.devices import device_of, dtype_of
from backends.speech.alignment import align, salience
from backends.speech.windowed import Call, WindowedWhisper
from backends.speech.windows import RATE, STAMP_S, Decoded, Vocabulary

_SEED = 0


class WhisperModel(WindowedWhisper):
    """A Whisper of any size. Raises whatever transformers raises, and `ValueError` for a model of another kind."""

    def __init__(self, settings: Settings) -> None:
        if settings.quantization is not None:
            raise ValueError("a speech model is not quantized while it is loaded")
        self.device = device_of(settings)
        kind = dtype_of(settings, torch.float16 if self.device.type == "cuda" else torch.float32)
        options = {"trust_remote_code": settings.trust_remote_code}
        self.processor: Any = AutoProcessor.from_pretrained(settings.folder, **options)
        self.model: Any = (
            AutoModelForSpeechSeq2Seq.from_pretrained(settings.folder, dtype=kind, **options).to(self.device).eval()
        )
        if self.model.config.model_type != "whisper":
            raise ValueError(f"{settings.name} is a {self.model.config.model_type} and not a Whisper")
        self.vocabulary = _vocabulary(self.model.generation_config, self.processor.tokenizer)
        never = set(self.model.generation_config.suppress_tokens or ())  # tokens for sounds, and special ones
        never_first = never | set(self.model.generation_config.begin_suppress_tokens or ())
        self._never = torch.tensor(sorted(never), dtype=torch.long, device=self.device)
        self._never_first = torch.tensor(sorted(never_first), dtype=torch.long, device=self.device)
        self.window_samples = self.processor.feature_extractor.n_samples
        self.positions = self.model.config.max_target_positions
        self.tells_words = bool(getattr(self.model.generation_config, "alignment_heads", None))

    @torch.inference_mode()
    def transcribe(self, samples: Any, request: SpeechRequest, cancel: Cancel) -> Transcript:
        """See `WindowedWhisper`. The same samples and request give the same transcript."""
        return super().transcribe(samples, request, cancel)

    def chance(self) -> torch.Generator:
        """The same for each call."""
        return torch.Generator(self.device).manual_seed(_SEED)

    def tokens_of(self, text: str) -> Sequence[int]:
        """See `WindowedWhisper`."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def text_of(self, tokens: Sequence[int]) -> str:
        """See `WindowedWhisper`."""
        return str(self.processor.tokenizer.decode(tokens, clean_up_tokenization_spaces=False))

    def encode(self, heard: NDArray[np.float32]) -> torch.Tensor:
        """The states (1, 1500, d_model)."""
        features = self.processor.feature_extractor(heard, sampling_rate=RATE, return_tensors="pt").input_features
        states: torch.Tensor = self.model.get_encoder()(features.to(self.device, self.model.dtype)).last_hidden_state
        return states

    def detect(self, states: torch.Tensor) -> str:
        """The language whose token is the likeliest after the start token."""
        logits = self._forward(states, [self.vocabulary.start], use_cache=False).logits[0, -1]
        return max(self.vocabulary.languages.items(), key=lambda item: float(logits[item[1]]))[0]

    def decode(
        self, states: torch.Tensor, prompt: Sequence[int], start: int, temperature: float, call: Call
    ) -> Decoded:
        """See `WindowedWhisper`."""
        stamped = prompt[-1] != self.vocabulary.no_stamps
        stamps = WhisperTimeStampLogitsProcessor(self.model.generation_config, len(prompt)) if stamped else None
        ids = torch.tensor([prompt], device=self.device)
        out = self._forward(states, prompt, use_cache=True)
        no_speech_prob = float(out.logits[0, start].float().softmax(-1)[self.vocabulary.no_speech])
        tokens: list[int] = []
        logprob, drawn = 0.0, 0
        room = min(self.positions // 2, self.positions - len(prompt))
        while drawn < room and not call.cancel.is_set():
            scores = out.logits[:, -1].float()
            scores[:, self._never if drawn else self._never_first] = -torch.inf
            scores = (stamps(ids, scores) if stamps is not None else scores)[0]
            token = _draw(scores, temperature, call.chance)
            logprob += float(scores.log_softmax(-1)[token])
            drawn += 1
            if token == self.vocabulary.end:
                break
            tokens.append(token)
            ids = torch.cat([ids, ids.new_tensor([[token]])], dim=1)
            if drawn < room:
                out = self._forward(states, [token], past_key_values=out.past_key_values, use_cache=True)
        text = self.text_of(self._text_tokens(tokens))
        return Decoded(tokens, text, temperature, logprob / max(drawn, 1), no_speech_prob)

    def token_times(
        self, states: torch.Tensor, opening: Sequence[int], tokens: Sequence[int], heard_s: float
    ) -> list[float]:
        """Seconds at which each token begins, and the last one ends: where the alignment heads look for it.

        The tokens are read once more, with attention that tells its weights; the path through (tokens, states) that
        collects the most weight and never goes back is the alignment.
        """
        known = self.vocabulary
        prompt = [token for token in opening if token != known.no_stamps]
        read = [*prompt, known.no_stamps, *tokens, known.end]
        attention = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            crosses = self._forward(states, read, use_cache=False, output_attentions=True).cross_attentions
        finally:
            self.model.set_attn_implementation(attention)
        heads = self.model.generation_config.alignment_heads
        weights = torch.stack([crosses[layer][0, head] for layer, head in heads]).float()
        length = max(min(round(heard_s / STAMP_S), weights.shape[-1]), 1)
        weights = weights[:, :, :length]
        # The row before a token is what draws it.
        rows = salience(weights, self.model.config.median_filter_width)[len(prompt) : -1]
        return [float(time) * STAMP_S for time in align(rows)]

    def _forward(self, states: torch.Tensor, tokens: Sequence[int], **options: Any) -> Any:
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=torch.tensor([tokens], device=self.device),
            **options,
        )


def _draw(scores: torch.Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0.0:
        return int(scores.argmax())
    return int(torch.multinomial((scores / temperature).softmax(-1), 1, generator=generator))


def _vocabulary(config: Any, tokenizer: Any) -> Vocabulary:
    """Raises `ValueError` when the generation config does not name the tokens, as those of 2022 did not."""
    multilingual = bool(getattr(config, "is_multilingual", True))
    needed = ["decoder_start_token_id", "no_timestamps_token_id"]
    if multilingual:
        needed += ["lang_to_id", "task_to_id"]
    if missing := [name for name in needed if getattr(config, name, None) is None]:
        raise ValueError(f"the generation config lacks {', '.join(missing)}")
    languages = config.lang_to_id if multilingual else {}
    previous = getattr(config, "prev_sot_token_id", None)
    return Vocabulary(
        start=config.decoder_start_token_id,
        previous=tokenizer.convert_tokens_to_ids("<|startofprev|>") if previous is None else previous,
        end=tokenizer.eos_token_id,
        no_speech=config.no_timestamps_token_id - 1,
        no_stamps=config.no_timestamps_token_id,
        languages={name.strip("<|>"): token for name, token in languages.items()},
        tasks=dict(config.task_to_id) if multilingual else {},
    )
