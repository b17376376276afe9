"""The chat engine: a transformers causal LM, loaded once, generating token by token. Runs in the worker process only.

`prompt → prefill → (draw → decode)* → end`: one sequence at a time, with its own key-value cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from backends.parameters import Sampling
from backends.sampling import Drawn, Sampler
from backends.text import Detokenizer, StopStrings
from llmproxy.core.types import JsonObject

_PREFILL_CHUNK_TOKENS = 512
_HERMES_OPEN = "<tool_call>\n"


class Rejected(Exception):
    """The request cannot be served; `kind`, `status`, `code` and `param` are those of `core.errors.Refused`."""

    def __init__(self, message: str, *, kind: str, status: int = 400, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.status, self.code, self.param = kind, status, code, param


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that became certain, and the tokens drawn for it (their log probabilities when asked for)."""

    text: str
    tokens: tuple[tuple[str, Drawn], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How a choice ended (`stop`, `length`, `cancelled`), and how many tokens were drawn for it."""

    reason: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids (seq,), and text that the answer is forced to begin with (it is part of the ids already)."""

    ids: torch.Tensor
    forced: str = ""


class ChatModel:
    """A model and its tokenizer. Raises whatever transformers raises when the folder cannot be loaded."""

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.device = _device(device)
        dtype = torch.float32 if self.device == "cpu" and not _cpu_has_bf16() else torch.bfloat16
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(self.device).eval()
        config = self.model.config.get_text_config()
        self.context_tokens: int = getattr(config, "max_position_embeddings", None) or 4096
        self.vocab_size: int = config.vocab_size
        generation = self.model.generation_config
        ends = generation.eos_token_id if generation.eos_token_id is not None else self.tokenizer.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or ())
        self._defaults = _defaults(generation)

    # -- prompts --------------------------------------------------------------------------------------------------

    def chat_prompt(self, body: JsonObject) -> Prompt:
        """Render messages and tools through the model's chat template."""
        messages, tools = body["messages"], body.get("tools") or None
        choice = body.get("tool_choice")
        continues = messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")
        if body.get("continue_final_message") is False:
            continues = False
        try:
            text = self.tokenizer.apply_chat_template(
                [_for_template(message) for message in messages],
                tools=None if choice == "none" else tools,
                tokenize=False,
                add_generation_prompt=not continues,
                continue_final_message=continues,
            )
        except Exception as error:  # templates raise whatever they like, about what a client sent
            raise Rejected(
                f"the chat template cannot render these messages: {error}",
                kind="unsupported",
                code="unsupported_messages",
                param="messages",
            ) from error
        forced = _forced_begin(choice, tools or [])
        ids = self.tokenizer(text + forced, add_special_tokens=False, return_tensors="pt").input_ids[0]
        return Prompt(ids, forced)

    def text_prompts(self, prompt: Any) -> list[Prompt]:
        """Prompts of the completions endpoint: a string, strings, token ids, or lists of token ids."""
        many = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
        return [Prompt(self._ids(one)) for one in many]

    def _ids(self, prompt: Any) -> torch.Tensor:
        if isinstance(prompt, str):
            ids: torch.Tensor = self.tokenizer(prompt, return_tensors="pt").input_ids[0]
        else:
            ids = torch.tensor(prompt)
        if not ids.numel() or int(ids.max()) >= self.vocab_size or int(ids.min()) < 0:
            raise Rejected(
                "the prompt is empty or holds unknown tokens", kind="invalid", code="invalid_request", param="prompt"
            )
        return ids

    # -- generation -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(self, prompt: Prompt, sampling: Sampling, cancelled: Callable[[], bool]) -> Iterator[Piece | End]:
        """Pieces of text, then how it ended.

        The temperature-0 text does not depend on what else the process does. Raises `Rejected` with
        `context_length_exceeded` when the prompt leaves no room in the window.
        """
        room = self.context_tokens - len(prompt.ids)
        if room < 1:
            raise Rejected(
                f"the prompt has {len(prompt.ids)} tokens and the window of this model {self.context_tokens}",
                kind="context_length",
                code="context_length_exceeded",
                param="messages",
            )
        limit = min(sampling.max_tokens or room, room)
        sampler = Sampler(sampling, self._defaults, self.vocab_size, prompt.ids)
        text, stops = Detokenizer(self._decode), StopStrings(sampling.stop)
        waiting: list[tuple[str, Drawn]] = []
        reason, count = "length", 0
        for drawn in self._tokens(prompt.ids, sampler, limit, cancelled):
            if drawn is None:
                yield End("cancelled", count)
                return
            count += 1
            if drawn.token in self._ends:
                reason = "stop"
                break
            new = stops.feed(text.feed(drawn.token))
            if sampling.logprobs is not None:
                waiting.append((self._decode([drawn.token]), drawn))
            if new:
                yield Piece(new, tuple(waiting))
                waiting.clear()
            if stops.stopped:
                reason = "stop"
                break
        if not stops.stopped and (rest := stops.feed(text.end()) + stops.end()):
            yield Piece(rest, tuple(waiting))
        yield End(reason, count)

    def _tokens(
        self, ids: torch.Tensor, sampler: Sampler, limit: int, cancelled: Callable[[], bool]
    ) -> Iterator[Drawn | None]:
        cache = DynamicCache(config=self.model.config)
        ids = ids.to(self.device)
        for part in ids.split(_PREFILL_CHUNK_TOKENS):
            if cancelled():
                yield None
                return
            out = self.model(part[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        for produced in range(1, limit + 1):
            drawn = sampler.draw(out.logits[0, -1])
            yield drawn
            if cancelled():
                yield None
                return
            if produced < limit:
                step = torch.tensor([[drawn.token]], device=self.device)
                out = self.model(step, past_key_values=cache, use_cache=True)

    def _decode(self, tokens: Any) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _for_template(message: JsonObject) -> JsonObject:
    """A message as templates expect it: text parts joined, `developer` as `system`."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": content or ""}


def _forced_begin(choice: Any, tools: list[JsonObject]) -> str:
    """The text that an answer must begin with so that it is the tool call which `tool_choice` forces."""
    if choice == "required":
        return _HERMES_OPEN + '{"name": "'
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        name = choice["function"]["name"]
        offered = (tool["function"] for tool in tools if tool.get("function", {}).get("name") == name)
        needs_arguments = any((function.get("parameters") or {}).get("required") for function in offered)
        # Tokenizers join `": {"` into one token: a text that ends inside it leads the model to an empty object.
        return f'{_HERMES_OPEN}{{"name": "{name}", "arguments": ' + ('{"' if needs_arguments else "")
    return ""


def _defaults(generation: Any) -> Sampling:
    """The sampling that a model's authors recommend in its generation config."""
    if not generation.do_sample:
        return Sampling(temperature=0.0)
    return Sampling(
        temperature=generation.temperature,
        top_p=generation.top_p,
        top_k=generation.top_k,
        repetition_penalty=generation.repetition_penalty,
    )


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cpu_has_bf16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported())
