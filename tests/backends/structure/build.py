"""Random models and tokenizers of every kind that grammars meet, and a loop that decodes many texts at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backends.structure.masks import Constraint, Grammars
from backends.tiny import PATH
from backends.toolcalls import markers
from tests.backends.build import CORPUS

END, TURN = "<|im_end|>", "<|im_start|>"
TAGS = ("<tool_call>", "</tool_call>")
MISTRAL, DEEPSEEK = "[TOOL_CALLS]", ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>")
VALUE_END = "\n</parameter>\n"  # without it texts of any length would hardly ever end
XML_PIECES = ("</parameter>", "\n<parameter=", "<function=", "</function>\n")
CLOSERS = frozenset('"}],')
PADDING = 13  # logits that stand for no token


def byte_level(tags: str = "plain") -> PreTrainedTokenizerFast:
    """A byte-level BPE; the tags of tool calls are `plain` text, `added` tokens, or `special` ones."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[END, TURN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*CORPUS, '"}}\n</', '[{"name": "a", "b": [1, 2]}]'], trainer)
    if tags != "plain":
        names = (*TAGS, MISTRAL, *DEEPSEEK)
        backend.add_tokens([AddedToken(tag, normalized=False, special=tags == "special") for tag in names])
        backend.add_tokens([AddedToken(piece, normalized=False) for piece in (VALUE_END, *XML_PIECES)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, clean_up_tokenization_spaces=False)


def byte_fallback() -> PreTrainedTokenizerFast:
    """As SentencePiece makes them: spaces are `▁`, and what has no token of its own is spelled in bytes."""
    plain = [chr(code) for code in range(0x21, 0x7F)] + ["▁", "é", "ü"]
    merges = [
        ("▁", "{"),
        ('"', ":"),
        ("▁", '"'),
        ('"', "}"),
        ("}", "}"),
        ("n", "a"),
        ("m", "e"),
        ("na", "me"),
        ("▁", "▁"),
    ]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *plain]
    pieces += ["".join(pair) for pair in merges]
    model = models.BPE(
        vocab={piece: place for place, piece in enumerate(pieces)},
        merges=merges,
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        bos_token="<s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def tiny() -> PreTrainedTokenizerFast:
    """The tokenizer of the model that comes with llmproxy."""
    return PreTrainedTokenizerFast.from_pretrained(PATH)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level": byte_level,
    "byte-level, added tags": lambda: byte_level("added"),
    "byte-level, special tags": lambda: byte_level("special"),
    "byte fallback": byte_fallback,
    "tiny": tiny,
}


@dataclass(frozen=True, slots=True)
class Text:
    """What was decoded, and whether it ended by itself."""

    text: str
    ended: bool


class RandomModel:
    """A model with random weights, whose logits are raised for what closes strings, lists and objects."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, llama: bool = False, closing: float = 4.0) -> None:
        torch.manual_seed(0)
        self.tokenizer, self.vocab_size = tokenizer, len(tokenizer) + PADDING
        settings: dict[str, Any] = {
            "vocab_size": self.vocab_size,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 2048,
        }
        self._model = (
            LlamaForCausalLM(LlamaConfig(**settings))
            if llama
            else Qwen3ForCausalLM(Qwen3Config(**settings, head_dim=16))
        ).eval()
        ends = frozenset([tokenizer.eos_token_id])
        self.grammars = Grammars(tokenizer, self.vocab_size, ends)
        self._ends = ends
        self._bias = torch.zeros(self.vocab_size)
        for text, token in tokenizer.get_vocab().items():
            if set(text) <= CLOSERS or text == VALUE_END:
                self._bias[token] = closing

    @torch.inference_mode()
    def decode(
        self, constraints: Sequence[Constraint], family: str, *, budget: int = 500, greedy: bool = False
    ) -> list[Text]:
        """One text for each constraint, all in one batch; sampled at temperature 1 unless `greedy`."""
        rows: list[list[int]] = [[] for _ in constraints]
        live = list(range(len(constraints)))
        step = torch.arange(len(constraints))[:, None] % self.vocab_size
        cache = DynamicCache(config=self._model.config)
        for _ in range(budget):
            logits = self._model(step, past_key_values=cache, use_cache=True).logits[:, -1] + self._bias
            for place, row in enumerate(live):
                constraints[row].mask(logits[place])
            drawn = logits.argmax(-1) if greedy else torch.multinomial(torch.softmax(logits, -1), 1)[:, 0]
            for row, token in zip(live, drawn.tolist(), strict=True):
                constraints[row].accept(token)
                rows[row].append(token)
            stay = [place for place, row in enumerate(live) if rows[row][-1] not in self._ends]
            if not stay:
                break
            if len(stay) < len(live):
                cache.batch_select_indices(torch.tensor(stay))
            live, step = [live[place] for place in stay], drawn[stay][:, None]
        kept = {self.tokenizer.convert_tokens_to_ids(mark) for mark in markers(family)}
        hidden = set(self.tokenizer.all_special_ids) - kept
        return [Text(self._text(tokens, hidden), bool(tokens) and tokens[-1] in self._ends) for tokens in rows]

    def _text(self, tokens: Sequence[int], hidden: Set[int]) -> str:
        """As an engine decodes: without special tokens, but with the tags of tool calls."""
        shown = [token for token in tokens if token not in hidden]
        return str(self.tokenizer.decode(shown, clean_up_tokenization_spaces=False))
