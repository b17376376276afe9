"""Tokens a second and time to the first token of the chat engine, beside transformers' `generate` in the same run.

Run `python -m benchmarks.local` from the root of the repository, with the `dev` extra installed; `--write FILE` puts
the table between its two marks in that file. The model is a Qwen3 with 100 million random weights, built for the run;
`--shape 4b` builds one like Qwen3-4B, and `--model FOLDER` takes another one. Each round gives every engine the same
prompts in turn, and the figures are medians of the rounds. `generate` answers one call after the other; the static
batch is one `generate` for all calls at once, whose first token comes with the last one, as it does not stream.

The share of the limit is the least time in which the machine could do the work (`benchmarks.machine`) over the time
that it took.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.machine import Machine, Work, machine, work_of
from llmproxy.core.page_table import page_with, rewrite

MARK = "local"
CONCURRENCIES = (1, 8, 16)
PROMPT_TOKENS = COMPLETION_TOKENS = 64
VOCAB_SIZE = 32_000


class Run(NamedTuple):
    """One engine at one concurrency in one round."""

    tokens_per_s: float
    first_token_s: float


Prompts = Sequence[list[int]]


# What differs from 100 million parameters: https://huggingface.co/Qwen/Qwen3-4B/blob/main/config.json
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "100m": {},
    "4b": {
        "vocab_size": 151_936,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
}


def build(folder: Path, shape: str = "100m") -> None:
    """A Qwen3 of random bfloat16 weights with a tokenizer that knows single words only."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = {f"w{place}": place for place in range(VOCAB_SIZE)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)
    torch.manual_seed(0)
    usual = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 640,
        "intermediate_size": 1920,
        "num_hidden_layers": 12,
        "num_attention_heads": 10,
        "num_key_value_heads": 5,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    config = Qwen3Config(**{**usual, **SHAPES[shape]})
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def one_by_one(model: Any, prompts: Prompts) -> Run:
    """`model.generate` for one call after the other."""
    import torch
    from transformers.generation.streamers import BaseStreamer

    class Clock(BaseStreamer):  # type: ignore[misc]
        """Notes when the first token comes: the first `put` is the prompt."""

        def __init__(self) -> None:
            self.puts: list[float] = []

        def put(self, value: Any) -> None:
            self.puts.append(time.perf_counter())

        def end(self) -> None:
            """Nothing is left to do."""

    begun, firsts = time.perf_counter(), []
    for prompt in prompts:
        clock = Clock()
        ids = torch.tensor([prompt], device=model.device)
        model.generate(ids, attention_mask=torch.ones_like(ids), streamer=clock, **_GREEDY)
        firsts.append(clock.puts[1] - begun)
    return _run(begun, len(prompts), firsts)


def static_batch(model: Any, prompts: Prompts) -> Run:
    """One `model.generate` for all calls."""
    import torch

    begun = time.perf_counter()
    ids = torch.tensor(prompts, device=model.device)
    model.generate(ids, attention_mask=torch.ones_like(ids), **_GREEDY)
    return _run(begun, len(prompts), [time.perf_counter() - begun])


def continuous(chat: Any, prompts: Prompts) -> Run:
    """The chat engine, token by token with detokenization, as the worker runs it."""
    from backends.engine import Engine
    from backends.parameters import Sampling

    sampling = Sampling(temperature=0.0, max_tokens=COMPLETION_TOKENS)
    engine = Engine(chat.forward)
    begun = time.perf_counter()
    for prompt in prompts:
        engine.submit([chat.job(prompt, sampling, threading.Event())])
    firsts: dict[Any, float] = {}
    while not engine.idle:
        for row, _ in engine.step():
            firsts.setdefault(row, time.perf_counter() - begun)
    return _run(begun, len(prompts), list(firsts.values()))


_GREEDY = {"do_sample": False, "min_new_tokens": COMPLETION_TOKENS, "max_new_tokens": COMPLETION_TOKENS}


def _run(begun: float, calls: int, firsts: Sequence[float]) -> Run:
    return Run(calls * COMPLETION_TOKENS / (time.perf_counter() - begun), statistics.median(firsts))


class Measured(NamedTuple):
    """By engine and concurrency the medians of all rounds; what the machine can do, and what there is to do."""

    runs: dict[tuple[str, int], Run]
    machine: Machine
    work: Work

    def share(self, calls: int, tokens_per_s: float) -> float:
        """The least time for so many calls, over the time that they took."""
        took_s = calls * COMPLETION_TOKENS / tokens_per_s
        return self.work.least_s(self.machine, calls, PROMPT_TOKENS, COMPLETION_TOKENS) / took_s


def measure(folder: Path, rounds: int, only: Sequence[int], *, alone: bool = False) -> Measured:
    """Run every engine (with `alone` the chat engine only) at every concurrency, after calls that warm it up."""
    import torch
    from transformers import AutoModelForCausalLM

    from backends.base import Settings
    from backends.chat import ChatModel

    chat = ChatModel(Settings("benchmark", folder, device="auto"))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=chat.model.dtype).eval()
    work = work_of(plain, getattr(chat.forward, "token_bytes", 0))
    engines: dict[str, Callable[[Prompts], Run]] = {
        "`generate`, one by one": lambda prompts: one_by_one(plain, prompts),
        "`generate`, static batch": lambda prompts: static_batch(plain, prompts),
        "llmproxy": lambda prompts: continuous(chat, prompts),
    }
    if alone:
        engines = {"llmproxy": engines["llmproxy"]}
        del plain
    else:
        plain = plain.to(chat.device)
    rng = random.Random(0)
    runs: dict[tuple[str, int], list[Run]] = {}
    with torch.inference_mode():
        for engine in engines.values():
            engine(_prompts(rng, 2))
        most = machine(chat.device, chat.model.dtype)
        for concurrency in list(only) * rounds:
            # New prompts in each round: none of them begins as one that is known.
            prompts = _prompts(rng, concurrency)
            for name, engine in engines.items():
                runs.setdefault((name, concurrency), []).append(engine(prompts))
    medians = {key: Run(*map(statistics.median, zip(*found, strict=True))) for key, found in runs.items()}
    return Measured(medians, most, work)


def _prompts(rng: random.Random, count: int) -> Prompts:
    return [[rng.randrange(2, VOCAB_SIZE) for _ in range(PROMPT_TOKENS)] for _ in range(count)]


HEAD = (
    "| engine | calls at once | tokens/s | of `generate` | of the limit | first token, median |",
    "|---|---:|---:|---:|---:|---:|",
)


def rows(found: Measured) -> list[str]:
    """The lines of the table, and what the limit is."""
    runs = found.runs
    base = {concurrency: run.tokens_per_s for (name, concurrency), run in runs.items() if "one by one" in name}
    lines = [
        f"| {name} | {calls} | {run.tokens_per_s:.0f} | {_times(run.tokens_per_s, base.get(calls))} | "
        f"{found.share(calls, run.tokens_per_s):.0%} | {run.first_token_s * 1000:.0f} ms |"
        for (name, calls), run in sorted(runs.items(), key=lambda entry: entry[0][1])
    ]
    weights_mb = found.work.weight_bytes / 1e6
    return [*lines, "", f"The limit: {weights_mb:.0f} MB of weights for each step, on a machine with {found.machine}."]


def _times(value: float, base: float | None) -> str:
    return "-" if base is None else f"{value / base:.1f} ×"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCIES))
    parser.add_argument("--shape", choices=list(SHAPES), default="100m", help="of the model that is built")
    parser.add_argument("--alone", action="store_true", help="measure the chat engine only")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a model with a vocabulary of 32,000 or more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument("--write", type=page_with(MARK), metavar="FILE", help="Markdown file with the two marks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.model or Path(made)
        if options.model is None:
            build(folder, options.shape)
        found = measure(folder, options.rounds, options.concurrency, alone=options.alone)
    lines = [*HEAD, *rows(found)]
    print(*lines, sep="\n")
    if options.json:
        options.json.write_text(json.dumps([[*key, *run] for key, run in found.runs.items()]), encoding="utf-8")
    if options.write:
        rewrite(options.write, "\n".join(lines), MARK)


if __name__ == "__main__":
    main()
