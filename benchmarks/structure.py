"""What it costs to keep an answer inside a grammar: compiling it, and a mask for each token, beside a decode step.

Run `python -m benchmarks.structure` from the root of the repository, with the `local` extra installed; `--write FILE`
puts the table between its two marks in that file. The tokenizer is synthetic, with as many tokens as large ones have;
the decode step is that of a model of half a billion random parameters, shaped as Qwen3, on this machine's CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from backends.structure.masks import Grammars, read_structure
from llmproxy.core.page_table import page_with, rewrite

MARK = "structure"
VOCABULARY = 151_936
END, TAGS = "<|im_end|>", ("<tool_call>", "</tool_call>")
CONTEXT_TOKENS = 256
_PUNCTUATION = ('"}', '"},', '": "', '", "', '{"', '":', '",', "}}", "]}", "[]", "[{", '"}}\n', '" ', "):", "();", "//")
_POINT = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}, "required": ["x", "y"]}
_WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
    "required": ["city"],
}
_TOOL = {"name": "get_weather", "parameters": _WEATHER}
_WIDE = {
    "type": "object",
    "properties": {
        f"field_{place}": {"anyOf": [{"type": "array", "items": _POINT}, {"type": "string", "format": "date-time"}]}
        for place in range(40)
    },
}


def _answer(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


REQUESTS = {
    "any JSON object": {"response_format": {"type": "json_object"}},
    "JSON of two fields": _answer(_WEATHER),
    "JSON of 40 fields": _answer(_WIDE),
    "a forced tool call": {"tools": [{"type": "function", "function": _TOOL}], "tool_choice": "required"},
    "text before a strict tool call": {"tools": [{"type": "function", "function": {**_TOOL, "strict": True}}]},
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of `VOCABULARY` tokens: every byte, punctuation of JSON, and invented words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = dict.fromkeys([*alphabet, *(piece.replace(" ", "Ġ").replace("\n", "Ċ") for piece in _PUNCTUATION)])
    random = Random(0)
    while len(pieces) < VOCABULARY - 1 - len(TAGS):
        word = "".join(random.choices("etaoinshrdlcumwfgypbvk", k=random.randint(2, 9)))
        pieces[random.choice(("Ġ", "", "Ġ")) + random.choice((word, word.capitalize()))] = None
    backend = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END])
    backend.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END)


def masks(grammars: Grammars, body: dict[str, Any], tokens: int, seed: int) -> Iterator[float]:
    """Seconds of mask and accept for each of `tokens` tokens, drawn from what is allowed, over as many answers."""
    generator = torch.Generator().manual_seed(seed)
    structure = read_structure(body, "hermes")
    assert structure is not None
    constraint = grammars.constraint(structure)
    for _ in range(tokens):
        row = torch.zeros(VOCABULARY)
        begun = time.perf_counter()
        constraint.mask(row)
        masked = time.perf_counter()
        token = int(torch.multinomial(torch.softmax(row, -1), 1, generator=generator))
        accepting = time.perf_counter()
        constraint.accept(token)
        yield masked - begun + time.perf_counter() - accepting
        if constraint.finished:
            constraint = grammars.constraint(structure)


def compile_s(grammars: Grammars, body: dict[str, Any]) -> float:
    """Seconds from a request to its first constraint."""
    begun = time.perf_counter()
    structure = read_structure(body, "hermes")
    assert structure is not None
    grammars.constraint(structure)
    return time.perf_counter() - begun


def decode_step_s(steps: int = 12) -> float:
    """Seconds of one decode step, the median of `steps`."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        head_dim=64,
        tie_word_embeddings=True,
    )
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3ForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    cache, times = DynamicCache(config=config), []
    with torch.inference_mode():
        prompt = torch.zeros((1, CONTEXT_TOKENS), dtype=torch.long)
        model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
        for _ in range(steps):
            begun = time.perf_counter()
            model(prompt[:, :1], past_key_values=cache, use_cache=True)
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


HEAD = (
    "| answer | compiling | mask and accept, median | mean | 99th percentile | mean of a decode step |",
    "|---|---:|---:|---:|---:|---:|",
)


def row(name: str, compiling_s: float, times: list[float], step_s: float) -> str:
    """One line of the table."""
    ordered, mean = sorted(times), statistics.mean(times)
    last = ordered[int(len(ordered) * 0.99)]
    return (
        f"| {name} | {compiling_s * 1e3:.1f} ms | {statistics.median(times) * 1e6:.0f} µs | {mean * 1e6:.0f} µs | "
        f"{last * 1e6:.0f} µs | {mean / step_s:.2%} |"
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=500, help="tokens of each kind of answer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=page_with(MARK), metavar="FILE", help="Markdown file with the two marks")
    options = parser.parse_args()
    step_s = decode_step_s()
    begun = time.perf_counter()
    used = tokenizer()
    made = time.perf_counter()
    grammars = Grammars(used, VOCABULARY, frozenset([used.eos_token_id]))
    ready = time.perf_counter()
    print(f"decode step {step_s * 1e3:.1f} ms, tokenizer {made - begun:.1f} s, for grammars {ready - made:.1f} s")
    lines = list(HEAD)
    print(*lines, sep="\n")
    for name, body in REQUESTS.items():
        compiling_s = compile_s(grammars, body)
        lines.append(row(name, compiling_s, list(masks(grammars, body, options.tokens, options.seed)), step_s))
        print(lines[-1], flush=True)
    if options.write:
        rewrite(options.write, "\n".join(lines), MARK)


if __name__ == "__main__":
    main()
