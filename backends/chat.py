"""A causal language model with its tokenizer: prompts from requests, rows for the engine. In worker processes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from backends import linear
from backends.base import Cancel, Rejected, Settings
from backends.devices import device_of, dtype_of, half_where_fast
from backends.forward import Forward
from backends.parameters import Sampling, template_options, with_defaults
from backends.quantization import load_model
from backends.reading import Reading
from backends.reasoning import Reasoning, opened_by, tags_of
from backends.rows import Decode, Job, Row
from backends.sampling import Constraint, Sampler
from backends.sight import Sight
from backends.structure.forced import Structure, read_structure
from backends.templates import continues, for_template, rendered
from backends.toolcalls import family_of, markers, parser
from backends.ways import forward_of
from llmproxy.core.types import JsonObject

# A request may hold more prompts than one, as token ids or as texts.
_Prompts = str | list[str] | list[int] | list[list[int]]


class Prompt(NamedTuple):
    """Token ids as rows have them, the text that they were made of where a chat template wrote it, and its images."""

    ids: list[int]
    text: str = ""
    sight: Sight | None = None


class Loaded(NamedTuple):
    """A model, its tokenizer, and what writes chats by its template: the tokenizer or a processor."""

    model: Any
    tokenizer: Any
    writer: Any


class ChatModel:
    """A model and its tokenizer. Raises whatever transformers raises when the folder cannot be loaded."""

    shares_batch = True  # so that the worker gives it to the engine

    def __init__(self, settings: Settings) -> None:
        device = device_of(settings)
        self.device, kind = str(device), dtype_of(settings, half_where_fast(device))
        loaded = self._load(settings, kind)
        self.tokenizer, self._writer = loaded.tokenizer, loaded.writer
        model = loaded.model.to(self.device).eval()
        config = model.config.get_text_config()
        window = getattr(config, "max_position_embeddings", None) or 4096
        self.context_tokens: int = min(window, settings.context_tokens or window)
        self.vocab_size: int = config.vocab_size
        self._ends = _ends(model.generation_config, self.tokenizer)
        self._defaults = _defaults(model.generation_config)
        self._told_defaults = settings.defaults
        self.template = _template(self._writer)
        self.tool_family = family_of(self.template) or "hermes"
        self._hidden = _special_ids(self.tokenizer)
        self._marks = {self.tokenizer.convert_tokens_to_ids(mark) for mark in markers(self.tool_family)}
        self._grammars: Any = None
        linear.pack(model)
        self.model = model
        self.forward = self._way()

    def _load(self, settings: Settings, dtype: torch.dtype) -> Loaded:
        """What is in the folder."""
        code = settings.trust_remote_code
        tokenizer = AutoTokenizer.from_pretrained(settings.folder, trust_remote_code=code)
        model = load_model(AutoModelForCausalLM, settings, dtype, trust_remote_code=code)
        return Loaded(model, tokenizer, tokenizer)

    def _way(self) -> Forward:
        """How its rows are run."""
        return forward_of(self.model, self.device)

    # -- prompts ------------------------------------------------------------------------------------------------------

    def prompts(self, endpoint: str, body: JsonObject, images: Sequence[bytes] = ()) -> list[Prompt]:
        """The prompts of a request; each is to be answered. Raises `Rejected`.

        `images`, encoded, are those of the messages of a chat, in their order.
        """
        if endpoint == "chat":
            return [self._chat_prompt(body, images)]
        prompt: _Prompts = body["prompt"]
        many = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
        return [Prompt(self._ids(one)) for one in many]

    def _chat_prompt(self, body: JsonObject, images: Sequence[bytes]) -> Prompt:
        """Render messages and tools through the model's chat template."""
        if images:
            raise ValueError("images came for a model that reads none")
        return self._text_prompt(self._written(body, for_template(body["messages"], template=self.template)))

    def _written(self, body: JsonObject, messages: Sequence[JsonObject]) -> str:
        goes_on = continues(body["messages"], body)
        options = template_options(body, self.template)
        return rendered(self._writer, messages, _tools(body), goes_on=goes_on, **options)

    def _text_prompt(self, text: str) -> Prompt:
        return Prompt(self.tokenizer(text, add_special_tokens=False).input_ids, text)

    def _ids(self, prompt: Any) -> list[int]:
        ids: list[int] = self.tokenizer(prompt).input_ids if isinstance(prompt, str) else list(prompt)
        if not ids or max(ids) >= self.vocab_size or min(ids) < 0:
            raise Rejected(
                "the prompt is empty or holds unknown tokens", kind="invalid", code="invalid_request", param="prompt"
            )
        return ids

    # -- rows ---------------------------------------------------------------------------------------------------------

    def job(
        self,
        prompt: list[int],
        sampling: Sampling,
        cancel: Cancel,
        *,
        owner: object = None,
        first_index: int = 0,
        tools: bool = False,
        constraint: Callable[[], Constraint] | None = None,
        sight: Sight | None = None,
    ) -> Job:
        """The `n` answers to a prompt, numbered from `first_index`; the tokens of tool calls are text where `tools` is.

        `sight` are the images of the prompt.

        Raises `Rejected` with `context_length_exceeded` when the prompt leaves no room in the window.
        """
        sampling = with_defaults(sampling, self._told_defaults)
        room = self.context_tokens - len(prompt)
        if room < 1:
            raise Rejected(
                f"the prompt has {len(prompt)} tokens and the window of this model {self.context_tokens}",
                kind="context_length",
                code="context_length_exceeded",
                param="messages",
            )
        known = prompt if sight is None else sight.read_as(prompt)
        rows = [
            Row(
                owner,
                first_index + copy,
                prompt,
                Sampler(_reseeded(sampling, copy), self._defaults, self.vocab_size, known),
                self.decoder(tools=tools),
                limit_tokens=min(sampling.max_tokens or room, room),
                ends=self._ends,
                stop=sampling.stop,
                logprobs=sampling.logprobs is not None,
                cancel=cancel,
                constraint=constraint() if constraint is not None else None,
                sight=sight,
            )
            for copy in range(sampling.n)
        ]
        return Job(rows)

    def structure(self, body: JsonObject) -> Structure | None:
        """What a chat request forces its answers to be. Raises `Rejected`."""
        return read_structure(body, self.tool_family)

    def constraint(self, structure: Structure) -> Callable[[], Constraint]:
        """What makes the constraint of each answer. Its first call raises `Rejected` for what cannot be compiled."""
        if self._grammars is None:
            from backends.structure.masks import Grammars

            self._grammars = Grammars(self.tokenizer, self.vocab_size, self._ends)
        return partial(self._grammars.constraint, structure)

    def reading(self, body: JsonObject, prompt: Prompt, structure: Structure | None) -> Reading:
        """What reads an answer to a chat request; one that is forced from its beginning on does not think."""
        tags = tags_of(self.template) if structure is None or structure.free else None
        tools = _tools(body)
        return Reading(
            Reasoning(tags, inside=opened_by(prompt.text, tags)) if tags is not None else None,
            parser(self.tool_family, tools) if tools else None,
        )

    def decoder(self, *, tools: bool = False) -> Decode:
        """Tokens to text, without special tokens; those that mark tool calls stay in where `tools` is."""
        hidden = self._hidden - self._marks if tools else self._hidden
        backend = getattr(self.tokenizer, "backend_tokenizer", None)

        def decode(tokens: Sequence[int]) -> str:
            shown = [token for token in tokens if token not in hidden]
            if backend is not None:
                return str(backend.decode(shown, skip_special_tokens=False))
            return str(self.tokenizer.decode(shown, clean_up_tokenization_spaces=False))

        return decode


def _tools(body: JsonObject) -> list[JsonObject]:
    return [] if body.get("tool_choice") == "none" else body.get("tools") or []


def _template(writer: Any) -> str:
    """The chat template; of several, the usual one."""
    found = writer.chat_template
    return str((found.get("default") if isinstance(found, dict) else found) or "")


def _reseeded(sampling: Sampling, copy: int) -> Sampling:
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + copy)


def _ends(generation: Any, tokenizer: Any) -> frozenset[int]:
    ends = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    return frozenset([ends] if isinstance(ends, int) else ends or ())


def _special_ids(tokenizer: Any) -> set[int]:
    added = {token for token, meaning in tokenizer.added_tokens_decoder.items() if meaning.special}
    return added | set(tokenizer.all_special_ids)


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
