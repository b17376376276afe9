"""Read a model name as a small script: names and options joined by `+`, such as `cut+after=5` or `ok+tokens=200`.

Only the last path segment before a `:` counts, so `acme/cut+after=5:free` reads the same.
Unknown names answer healthily.

Statuses and refusals
    status-N            any status; `+retry-after=SECONDS|date|none` (1 by default at 429; `date` is `+in=2` s ahead),
                        `+retry-after-ms=N`, `+code=X`, `+type=X`, `+message=X`; 502 has an HTML body
    context-length      400 `context_length_exceeded`; with `+limit=N` only for prompts of more than N words
    invalid-request     400 `invalid_request_error`
    unsupported-tools   400 when the request has tools
    unsupported-param   400 when the request has the parameter `+param=temperature`
    rejects-prefill     400 when the last message is the assistant's
    error-array-400     400 with the error inside a JSON array
    groq-429-rpm, …     how providers refuse: each key of `refusals.PROVIDER_REFUSALS`
Connection
    reset, reset-headers, silence, slow-headers (`+delay=S`), slow-first (`+delay=S`)
    cut, cut-clean, stall  after `+after=3` content chunks (for a whole body: half-way); `cut+rst` resets by RST
    trickle             `+delay=S` between chunks
Odd answers
    html-200, not-json, error-200, error-array-200 (the error inside a JSON array), empty, no-choices, gzip,
    gzip-garbage, malformed, no-done, open-after-done, in-band-error (`+after=3`, `+code=X`),
    dup-tool-index (`+index=missing`), usage-none, no-role (no role delta),
    comments (SSE comments before the first event and in every wait)
What the model says
    ok, prefill, think, reasoning, content-filter, length, refusal, prose,
    jina (reranking in its shape, else in Cohere's),
    wrong-tool, bad-args, schema-args, two-tools, hermes, fenced-json, truncated-json, wrong-json
    `+tokens=8` words in the fixed sentence
Over time
    once-X              the first `+times=1` requests of this model get X, a status or a name above
    flap, flap-X        every other request, from the first, gets X (500)
Wire
    `+split=N` bytes a write, `+crlf`, `+spaces`, `+rates=groq` (rate headers of `refusals.RATE_HEADERS`)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """What one model name asks of the upstream."""

    names: frozenset[str]
    options: Mapping[str, str] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Whether any of the names is part of the script."""
        return not self.names.isdisjoint(names)

    def text(self, key: str, default: str = "") -> str:
        """The option's value as written."""
        return self.options.get(key, default)

    def number(self, key: str, default: int) -> int:
        """The option's value as an integer."""
        return int(self.options.get(key, default))

    def seconds(self, key: str, default_s: float) -> float:
        """The option's value in seconds."""
        return float(self.options.get(key, default_s))

    def on_attempt(self, attempt: int) -> Script:
        """The script for one request; `attempt` counts the requests of this model and starts at 1."""
        names = set[str]()
        for name in self.names:
            names |= self._due(name, attempt)
        return Script(frozenset(names), self.options)

    def _due(self, name: str, attempt: int) -> set[str]:
        verb, _, fault = name.partition("-")
        if verb == "once" and fault:
            return {_fault_name(fault)} if attempt <= self.number("times", 1) else set()
        if verb == "flap":
            return {_fault_name(fault or "500")} if attempt % 2 else set()
        return {name}


def _fault_name(fault: str) -> str:
    return f"status-{fault}" if fault.isdigit() else fault


def parse(model: str) -> Script:
    """Parse a model name; no name is refused."""
    words = model.rsplit("/", 1)[-1].split(":", 1)[0].split("+")
    names = frozenset(word for word in words if word and "=" not in word)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    return Script(names, options)
