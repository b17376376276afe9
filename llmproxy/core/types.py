"""The nouns: model, candidate, call, plan, reply, attempt. All are values; nobody changes them in place.

Those that are made for every request are named tuples, which cost a third of a frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

JsonObject = dict[str, Any]
Endpoint = Literal["chat", "completions", "embeddings", "passthrough"]
Tier = Literal["exploratory", "standard", "deep"]

Unit = Literal[
    "requests", "tokens", "prompt_tokens", "completion_tokens", "audio_seconds", "images", "neurons", "credits", "usd"
]  # fmt: skip
CAPABILITIES = frozenset({"tools", "vision", "reasoning", "json", "audio", "embeddings", "rerank", "speech", "prefill"})
_NO_HEADERS: Mapping[str, str] = {}
# The header of an answer that names the fields of the request which could not be honoured.
DEGRADED = "x-llmproxy-degraded"
TIERS: tuple[Tier, ...] = ("exploratory", "standard", "deep")


class Rate(NamedTuple):
    """What a million tokens of a prompt and of an answer cost in a unit of limits (neurons, credits, USD)."""

    unit: Unit
    prompt: float
    completion: float


@dataclass(frozen=True, slots=True)
class Model:
    """What a source offers. A capability in neither `capabilities` nor `lacks` is unknown.

    `refuses` are fields of a request that its source does not honour; one without `streams` gives an answer whole.
    `exposed` models take part in pools; a `toy` stands behind every other model there, a `favourite` before them where
    the order is `best`. `created_s` is a Unix time.
    """

    source: str
    id: str
    local: bool = False
    free: bool = False
    chat: bool = True
    exposed: bool = True
    capabilities: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    context_tokens: int | None = None
    price_usd_per_mtok: float | None = None
    rates: tuple[Rate, ...] = ()
    tier: Tier | None = None
    toy: bool = False
    favourite: bool = False
    created_s: int = 0
    refuses: frozenset[str] = frozenset()
    streams: bool = True
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.source}/{self.id}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """(source, credential, model): the thing the router picks. `credential` counts from 0 in the source's keys."""

    model: Model
    credential: int = 0
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.model.name}#{self.credential}" if self.credential else self.model.name)


@dataclass(frozen=True, slots=True)
class Forced:
    """What the call insists on: one of `tools` (name → JSON schema of its arguments), or JSON in the content.

    `tools is None` means that no tool call is forced; `json_schema is None` with `json` means any JSON object.
    """

    tools: Mapping[str, Any] | None = None
    parallel: bool = True
    json: bool = False
    json_schema: Any = None

    @property
    def capability(self) -> str:
        return "tools" if self.tools is not None else "json"


@dataclass(slots=True)
class Call:
    """One canonical request (OpenAI chat schema) plus what it needs.

    `body` is the request without `model`, `models`, `stream` and `stream_options`. A pass-through call has `path`,
    `method` and `raw` instead: the pieces of its body, between which the model's own id belongs.
    `hold` asks for a stream that is judged whole before its first byte goes out; `early` for forced JSON that is let
    out as it comes and checked at the end. `include_usage` is what the client asked for; `count_usage` is False where
    it forbade asking the upstream. `dialect` is what the client speaks; `unheard` are fields of its request that
    nobody here has a word for.
    """

    id: str
    endpoint: Endpoint
    model: str
    body: JsonObject
    fallbacks: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    count_usage: bool = True
    hold: bool = False
    early: bool = False
    needs: frozenset[str] = frozenset()
    forced: Forced | None = None
    prompt_tokens: int = 0
    audio_seconds: float = 0.0
    path: str = ""
    method: str = "POST"
    raw: tuple[bytes, ...] = ()
    raw_headers: Mapping[str, str] = field(default_factory=dict)
    dialect: str = "openai"
    unheard: tuple[str, ...] = ()

    @property
    def output_tokens(self) -> int:
        """The most output that is asked for; 0 when nothing is said of it."""
        output = self.body.get("max_completion_tokens") or self.body.get("max_tokens") or 0
        return output if isinstance(output, int) else 0

    @property
    def size_tokens(self) -> int:
        """What a window must hold: the prompt (estimated) and the output that is asked for."""
        return self.prompt_tokens + self.output_tokens


class Reading(NamedTuple):
    """What a provider says of one of its limits; None for what it does not say.

    `seconds` is the length of the window, `reset_s` when more of it comes back, from now. Of kind `request`, `limit` is
    the largest single request.
    """

    unit: Unit
    seconds: float | None = None
    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    kind: Literal["window", "concurrent", "request"] = "window"


class Kept(NamedTuple):
    """A candidate that will be asked, and why it stands where it stands; `named` when the client named it itself."""

    candidate: Candidate
    reason: str
    named: bool = False


class Dropped(NamedTuple):
    """A candidate that will not be asked, and why; `retry_after_s` from now it may be, where that is known.

    `too_large` says how it refused a call of this size, or would: waiting does not help.
    """

    candidate: Candidate
    reason: str
    retry_after_s: float | None = None
    too_large: Literal["", "context_length", "too_large"] = ""


class Plan(NamedTuple):
    """The ordered candidates for a call, each kept or dropped with its reason."""

    asked: str
    reason: str
    kept: tuple[Kept, ...]
    dropped: tuple[Dropped, ...] = ()
    hint: str = ""


class Usage(NamedTuple):
    """Tokens of one answer, and its cost where the source tells it; `estimated` when it did not count them itself."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False
    cost_usd: float | None = None


class Reply(NamedTuple):
    """A whole answer. `body` is the decoded JSON, or None for a pass-through reply, whose bytes are in `raw`."""

    body: Any
    raw: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = _NO_HEADERS


class Attempt(NamedTuple):
    """One try of one candidate, as it stands in the trail, the log and the error body. Times in seconds."""

    model: str
    outcome: str
    elapsed_s: float
    status: int | None = None
    reason: str = ""
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.model}:{self.outcome} {self.elapsed_s:.2f}s"


def trail(attempts: tuple[Attempt, ...] | list[Attempt]) -> str:
    """The attempts in one line, as in `x-llmproxy-trail`."""
    return ", ".join(map(str, attempts))
