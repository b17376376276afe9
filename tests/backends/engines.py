"""Small float32 models, and engines over them, for the tests of the chat engine."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from backends.base import Settings
from backends.chat import ChatModel
from backends.engine import Engine, Event, Limits
from backends.forward import SlotForward
from backends.parameters import Sampling
from backends.rows import End, Job, Piece, Row
from backends.sampling import Constraint
from backends.solo import SoloForward
from tests.backends.build import CONTEXT_TOKENS, build_chat_model, build_tokenizer

GREEDY = Sampling(temperature=0.0, max_tokens=12)
# One that a window of 24 tokens serves: a slot cache cannot.
_CLASSES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 24}),
}


def build(kind: str, folder: Path) -> ChatModel:
    """A model with random weights: `qwen3`, `llama`, or `mistral` with a sliding window."""
    if kind == "qwen3":
        build_chat_model(folder)
    else:
        tokenizer = build_tokenizer()
        config, model_class, more = _CLASSES[kind]
        torch.manual_seed(0)
        model = model_class(
            config(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT_TOKENS,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **more,
            )
        )
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return ChatModel(Settings(kind, folder, dtype="float32"))


def prompt_of(size: int, seed: int = 0) -> list[int]:
    """Random tokens, none of them special."""
    rng = random.Random(f"{size} {seed}")
    return [rng.randrange(3, 259) for _ in range(size)]


def reference(model: ChatModel, prompt: Sequence[int], count: int) -> list[int]:
    """What transformers' own `generate` says after `prompt`, greedily, in at most `count` tokens."""
    ids = torch.tensor([list(prompt)])
    out = model.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count)
    said: list[int] = out[0, len(prompt) :].tolist()
    return said


@dataclass(eq=False)
class Heard:
    """What became of one row."""

    row: Row
    text: str = ""
    reason: str = ""
    error: Exception | None = None
    pieces: list[Piece] = field(default_factory=list)

    @property
    def drawn(self) -> list[int]:
        """The tokens that were drawn."""
        return self.row.ids[len(self.row.ids) - self.row.completion_tokens :]


class Driver:
    """An engine of its own over a model, and all that its rows said."""

    def __init__(
        self,
        model: ChatModel,
        limits: Limits | None = None,
        *,
        budget_tokens: int | None = None,
        forward: Any = None,
        **options: Any,
    ) -> None:
        self.model = model
        if forward is not None:
            self.forward = forward
        elif isinstance(model.forward, SlotForward):
            self.forward: Any = SlotForward(model.model, "cpu", budget_tokens, model.forward.token_bytes)
        else:
            self.forward = SoloForward(model.model, "cpu")
        self.engine = Engine(self.forward, limits, **options)
        self.heard: dict[Row, Heard] = {}

    def submit(
        self, prompt: list[int], sampling: Sampling = GREEDY, constraint: Callable[[], Constraint] | None = None
    ) -> list[Heard]:
        """Queue the answers to a prompt."""
        job: Job = self.model.job(prompt, sampling, threading.Event(), constraint=constraint)
        rows = list(job.rows)
        self.engine.submit([job])
        self.heard |= {row: Heard(row) for row in rows}
        return [self.heard[row] for row in rows]

    def step(self) -> None:
        """One step of the engine."""
        self.hear(self.engine.step())

    def hear(self, events: Sequence[Event]) -> None:
        """Note what rows said."""
        for row, what in events:
            heard = self.heard[row]
            assert not heard.reason, "a row that ended says no more"
            if isinstance(what, Piece):
                heard.text += what.text
                heard.pieces.append(what)
            elif isinstance(what, End):
                heard.reason = what.reason
            else:
                heard.reason, heard.error = "error", what

    def run(self) -> None:
        """Step until nothing is left to do."""
        while not self.engine.idle:
            self.step()

    def solo(self, prompt: list[int], sampling: Sampling = GREEDY) -> Heard:
        """The answer when it is alone."""
        [heard] = self.submit(prompt, sampling)
        self.run()
        return heard
