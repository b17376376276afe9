"""From logits to a token: penalties, bias, truncation, draw. Torch only; no model knowledge."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backends.parameters import Sampling


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token, its log probability under the model, and the likeliest alternatives (token id, log probability)."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """The state of one sequence: what was generated (for penalties), and its own random numbers."""

    def __init__(self, sampling: Sampling, defaults: Sampling, vocab_size: int, prompt: torch.Tensor) -> None:
        """`prompt` is (seq,); `defaults` are the model's own, used where the request says nothing."""
        self._sampling = sampling
        self._temperature = _first(sampling.temperature, defaults.temperature, 1.0)
        self._top_p = _first(sampling.top_p, defaults.top_p, 1.0)
        self._top_k = int(_first(sampling.top_k, defaults.top_k, 0))
        self._repetition = _first(sampling.repetition_penalty, defaults.repetition_penalty, 1.0)
        self._generator = torch.Generator(device="cpu")
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed & (2**63 - 1))
        self._counts = torch.zeros(vocab_size)
        self._seen = torch.zeros(vocab_size, dtype=torch.bool)
        if self._repetition != 1.0:
            self._seen[prompt.cpu()] = True
        self._plain = not (
            sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias or self._repetition != 1.0
        )

    def draw(self, logits: torch.Tensor) -> Drawn:
        """The next token from `logits` (vocab,)."""
        raw = logits.float().cpu()
        adjusted = raw if self._plain else self._penalised(raw.clone())
        if self._temperature <= 0:
            token = int(adjusted.argmax())
        else:
            probabilities = torch.softmax(self._truncated(adjusted / self._temperature), dim=-1)
            token = int(torch.multinomial(probabilities, 1, generator=self._generator))
        self._counts[token] += 1
        self._seen[token] = True
        if self._sampling.logprobs is None:
            return Drawn(token)
        logprobs = torch.log_softmax(raw, dim=-1)
        top: tuple[tuple[int, float], ...] = ()
        if self._sampling.logprobs:
            values, ids = logprobs.topk(self._sampling.logprobs)
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        return Drawn(token, float(logprobs[token]), top)

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        sampling = self._sampling
        if self._repetition != 1.0:
            scaled = torch.where(logits > 0, logits / self._repetition, logits * self._repetition)
            logits = torch.where(self._seen, scaled, logits)
        logits -= sampling.frequency_penalty * self._counts
        logits -= sampling.presence_penalty * (self._counts > 0)
        for token, bias in sampling.logit_bias.items():
            if 0 <= token < logits.shape[-1]:
                logits[token] += bias
        return logits

    def _truncated(self, logits: torch.Tensor) -> torch.Tensor:
        if 0 < self._top_k < logits.shape[-1]:
            logits = logits.masked_fill(logits < logits.topk(self._top_k).values[-1], -torch.inf)
        if self._sampling.min_p > 0:
            probabilities = torch.softmax(logits, dim=-1)
            logits = logits.masked_fill(probabilities < self._sampling.min_p * probabilities.max(), -torch.inf)
        if self._top_p < 1.0:
            values, ids = logits.sort(descending=True)
            before = torch.softmax(values, dim=-1).cumsum(dim=-1) - torch.softmax(values, dim=-1)
            logits = logits.index_fill(0, ids[before >= self._top_p], -torch.inf)
        return logits


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
