"""Masks that keep what a model writes inside a grammar (llguidance). Runs in the worker process only."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from backends.base import Rejected
from backends.structure.forced import Structure
from backends.structure.forced import read_structure as read_structure

_KEPT_GRAMMARS = 128
_BITS = 32
_WHOLE = ("NoExtension", "NoExtensionBias", "EndOfSentence")  # the other reasons to stop are limits and errors


class GrammarFailed(RuntimeError):
    """The grammar ran into a limit of its compiler, or was given a token that it forbids: the answer cannot go on."""


class Constraint:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int, ends: Sequence[int]) -> None:
        self._matcher, self._vocab_size, self._ends = matcher, vocab_size, ends
        self._words = np.zeros(-(-vocab_size // _BITS), dtype=np.uint32)
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether nothing but the end of the text may follow."""
        return self._ended or (self._matcher.is_stopped() and self._matcher.stop_reason() in _WHOLE)

    def mask(self, row: torch.Tensor) -> None:
        """Set the logits `row` (vocab,) of every forbidden token to -inf. Raises `GrammarFailed`."""
        forbidden = self._forbidden()[: row.shape[0]]
        row[forbidden.shape[0] :] = -torch.inf
        if row.device.type == "cpu" and row.dtype == torch.float32:
            # torch would share so small a task among threads, and wait for the slowest of them.
            np.copyto(row.numpy()[: forbidden.shape[0]], -np.inf, where=forbidden)
        else:
            row[: forbidden.shape[0]].masked_fill_(torch.from_numpy(forbidden).to(row.device), -torch.inf)

    def _forbidden(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which tokens may not follow (vocab,)."""
        if self.finished:
            self._words.fill(0)
            for token in self._ends:
                self._words[token // _BITS] |= np.uint32(1 << token % _BITS)
        else:
            self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
            self._refuse_errors()
            if not self._words.any():
                raise GrammarFailed("no token can follow")
        return np.unpackbits(~self._words.view(np.uint8), bitorder="little", count=self._vocab_size).view(np.bool_)

    def accept(self, token: int) -> None:
        """Go on after `token`. Raises `GrammarFailed` where the grammar forbids it."""
        if token in self._ends and (self.finished or self._matcher.is_accepting()):
            self._ended = True
        elif not self._matcher.consume_token(token):
            self._refuse_errors()
            raise GrammarFailed(f"the grammar forbids the token {token}")

    def _refuse_errors(self) -> None:
        if self._matcher.is_error():
            raise GrammarFailed(str(self._matcher.get_error()).partition("\n")[0])


class Grammars:
    """The grammars of one model, each compiled once."""

    def __init__(self, tokenizer: Any, vocab_size: int, ends: frozenset[int]) -> None:
        """`vocab_size` is that of the logits; `ends` are the tokens that end a text."""
        self._special = special_tokens(tokenizer)
        self._vocab_size, self._ends = vocab_size, sorted(ends)
        vocabulary = _Vocabulary(tokenizer, vocab_size, self._special, self._ends)
        self._tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=self._ends)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def constraint(self, structure: Structure) -> Constraint:
        """A constraint at the beginning of an answer. Raises `Rejected` for a grammar that cannot be compiled."""
        matcher = self._compiled.pop(structure.digest, None) or self._compile(structure)
        self._compiled[structure.digest] = matcher
        if len(self._compiled) > _KEPT_GRAMMARS:
            self._compiled.popitem(last=False)
        return Constraint(matcher.deep_copy(), self._vocab_size, self._ends)

    def _compile(self, structure: Structure) -> LLMatcher:
        matcher = LLMatcher(self._tokenizer, structure.lark(self._special), log_level=0)
        if matcher.is_error():
            raise Rejected(
                f"the schema cannot be enforced: {str(matcher.get_error()).partition(chr(10))[0]}",
                kind="unsupported",
                code="unsupported_json_schema",
                param=structure.param,
            )
        return matcher


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """The tokens that decoding leaves out, by their text."""
    added = tokenizer.added_tokens_decoder
    return {token.content: number for number, token in added.items() if token.special}


class _Vocabulary:
    """A fast tokenizer as llguidance reads one: the bytes that each token stands for."""

    def __init__(self, tokenizer: Any, vocab_size: int, special: Mapping[str, int], ends: Sequence[int]) -> None:
        self._backend = tokenizer.backend_tokenizer
        self.eos_token_id = ends[0] if ends else None
        self.bos_token_id = tokenizer.bos_token_id
        self.special_token_ids = sorted({*special.values(), *ends})
        self.tokens = token_bytes(tokenizer, vocab_size)

    def __call__(self, text: bytes) -> list[int]:
        ids: list[int] = self._backend.encode(text.decode(), add_special_tokens=False).ids
        return ids


def token_bytes(tokenizer: Any, vocab_size: int) -> list[bytes]:
    """The bytes of each of `vocab_size` tokens, none for those that have no text.

    Byte-level tokenizers write each byte as a character; the others write a space as `▁` and a byte without a token of
    its own as `<0x0A>` (Hugging Face tokenizers, `decoders`).
    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    decoders = {part["type"]: part for part in decoder.get("decoders", (decoder,)) if part}
    added = tokenizer.added_tokens_decoder
    alphabet = _byte_alphabet()
    out = [b""] * vocab_size
    for text, number in tokenizer.get_vocab().items():
        if number >= vocab_size:
            continue
        if number in added:
            out[number] = added[number].content.encode()
        elif "ByteLevel" in decoders:
            known = all(character in alphabet for character in text)
            out[number] = bytes(alphabet[character] for character in text) if known else text.encode()
        elif "ByteFallback" in decoders and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            out[number] = bytes([int(text[3:5], 16)])
        else:
            out[number] = text.replace("▁", " ").encode()
    return out


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in byte-level tokenizers: itself where it is printable."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
