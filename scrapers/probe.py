"""Tiny real requests that show what a model can do: one for its existence, one for each capability. Opt-in.

What counts, and nothing else does (a wrong answer, 429, 5xx, or silence claims nothing):

    exists              True: it answered; False: 410, or a 404 that says that there is no such model (any more)
    free = none         the answer cost something; then nothing more is asked of the model
    capability.tools    True: the tool was called by its name, with arguments that fit
    capability.json     True: the content is a JSON object with the key that was asked for
    capability.vision   True: the colour of an image was named, and no other
                        each False: a 400 or 422 that says that this parameter is not supported, after a good answer
                        to the same model without it

The asking is the caller's `Ask`, which keeps to the free limits.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llmproxy.core.errors import LlmproxyError
from llmproxy.core.types import JsonObject
from llmproxy.dialects.refusals import classify, read_error
from scrapers.base import Evidence, observed, seen_in_answers

SOURCE = seen_in_answers("probe")
MAX_TOKENS = 512  # room for a model that thinks before it speaks

_NO_SUCH_MODEL = frozenset({"model_not_found", "model_decommissioned", "model_archived", "model_deprecated"})
_RGB = {"green": (0, 150, 0), "yellow": (255, 230, 0), "orange": (255, 128, 0), "purple": (128, 0, 160)}
# More names than images, so that a model that sees nothing seldom guesses right.
_COLOURS = ("black", "blue", "green", "orange", "purple", "red", "white", "yellow")
_SIDE_PX = 64
_NEVER = float("-inf")
_WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class Probeable:
    """A model that may be asked; `model` is the upstream's id, `tags` are the capabilities to look for."""

    provider: str
    model: str
    tags: frozenset[str] = frozenset({"tools", "json", "vision"})

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: HTTP status, decoded body (OpenAI chat), cost where it is known.

    `retired`: the provider says that the model is gone, in a way that `body` alone does not show.
    """

    status: int
    body: Any
    cost_usd: float | None = None
    retired: bool = False


class Ask(Protocol):
    """Sends one chat request to `model` (`provider/id`). May raise `LlmproxyError`, `TimeoutError` or `OSError`."""

    async def __call__(self, model: str, body: JsonObject) -> Answer: ...


@dataclass(frozen=True, slots=True)
class _Test:
    """How a capability shows: what is sent, when it was delivered, which parameters a refusal of it would name.

    `unless` finds what a refusal of only this way of asking would speak of.
    """

    body: Callable[[str], JsonObject]
    delivered: Callable[[JsonObject, str], bool]
    parameters: frozenset[str]
    unless: re.Pattern[str]


def due(
    models: Iterable[Probeable], probed_at: Mapping[str, float], now: float, *, per_run: int, every_s: float
) -> list[Probeable]:
    """Whom to probe in this run: those never probed first, then the oldest, in turns between providers.

    probed_at: by `provider/id`, the Unix time of the last probe. A provider that waited longest goes first, so that
    a small `per_run` comes round to all.
    """
    known = {model.name: model for model in models}
    last_s = {name: probed_at.get(name, _NEVER) for name in known}
    served_s: dict[str, float] = defaultdict(lambda: _NEVER)
    for name, model in known.items():
        served_s[model.provider] = max(served_s[model.provider], last_s[name])
    turns: Counter[tuple[bool, str]] = Counter()
    ordered: list[tuple[bool, int, float, float, str]] = []
    for name in sorted(known, key=lambda name: (last_s[name], name)):
        if 0 <= now - last_s[name] < every_s:  # a probe in the future was dated by a clock that was wrong
            continue
        provider, before = known[name].provider, name in probed_at
        ordered.append((before, turns[before, provider], last_s[name], served_s[provider], name))
        turns[before, provider] += 1
    return [known[name] for *_, name in sorted(ordered)[: max(per_run, 0)]]


async def probe(ask: Ask, model: Probeable) -> list[Evidence]:
    """What `model` shows, without provenance (see `stamp`); stops early where going on would cost or be refused."""
    found: list[Evidence] = []
    answer = await _asked(ask, model, _chat("Reply with one word: ready"))
    if answer is None or _costs(found, model, answer):
        return found
    if _says_retired(answer):
        found.append(Evidence(model.provider, model.model, "exists", False, note=f"answered {answer.status}"))
    if _message(answer) is None:
        return found
    found.append(Evidence(model.provider, model.model, "exists", True))
    for tag in sorted(model.tags & _TESTS.keys()):
        answer = await _asked(ask, model, _TESTS[tag].body(model.name))
        if answer is None:
            return found
        has = _shows(_TESTS[tag], answer, model.name)
        if has is not None:
            note = "" if has else f"answered {answer.status}"
            found.append(Evidence(model.provider, model.model, f"capability.{tag}", has, note=note))
        if _costs(found, model, answer) or answer.status not in (200, 400, 422):
            return found
    return found


def stamp(claims: Iterable[Evidence], *, seen_at_s: float) -> list[Evidence]:
    """The claims of a probe with their provenance."""
    return observed(SOURCE, claims, seen_at_s)


async def _asked(ask: Ask, model: Probeable, body: JsonObject) -> Answer | None:
    try:
        return await ask(model.name, body)
    except (LlmproxyError, TimeoutError, OSError):
        return None


def _costs(found: list[Evidence], model: Probeable, answer: Answer) -> bool:
    """Whether the answer cost something, which goes into `found`, as does that a model which sells answers exists."""
    if answer.cost_usd is None or not answer.cost_usd > 0:
        return False
    if _message(answer) is not None and not any(claim.field == "exists" for claim in found):
        found.append(Evidence(model.provider, model.model, "exists", True))
    found.append(
        Evidence(model.provider, model.model, "free", "none", note=f"an answer cost {answer.cost_usd:.2g} USD")
    )
    return True


def _says_retired(answer: Answer) -> bool:
    if answer.status < 400:
        return False
    code = (read_error(answer.body, "").code or "").lower()
    return answer.retired or answer.status == 410 or (answer.status == 404 and code in _NO_SUCH_MODEL)


def _message(answer: Answer) -> JsonObject | None:
    """The message of a good answer, one with something in it."""
    match answer:
        case Answer(200, {"choices": [{"message": dict(message)}, *_]}):
            said = ("content", "tool_calls", "reasoning", "reasoning_content")
            return message if any(message.get(name) for name in said) else None
    return None


def _shows(test: _Test, answer: Answer, name: str) -> bool | None:
    """Whether the capability is there; None where the answer does not tell."""
    message = _message(answer)
    if message is not None:
        return test.delivered(message, name) or None
    if answer.status not in (400, 422):
        return None
    error = read_error(answer.body, "")
    refused = classify(answer.status, {}, error, now=0.0)
    if refused.kind != "unsupported" or error.code == "unsupported_value" or test.unless.search(error.message):
        return None
    named = re.findall(r"[a-z_]+", (refused.param or "").lower())
    return False if named and named[-1] in test.parameters else None


def _chat(content: str | list[JsonObject], **more: Any) -> JsonObject:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": MAX_TOKENS, **more}


def _text(message: JsonObject) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return content if isinstance(content, str) else ""


def _tool_body(_name: str) -> JsonObject:
    number = {"type": "integer"}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    tool = {"name": "add", "description": "Adds two whole numbers.", "parameters": schema}
    return _chat("Call the tool add with a = 2 and b = 3.", tools=[{"type": "function", "function": tool}])


def _called(message: JsonObject, _name: str) -> bool:
    match message.get("tool_calls"):
        case [{"function": {"name": "add", "arguments": str(text)}}, *_]:
            arguments = _json(text)
            fit = isinstance(arguments, dict) and arguments.keys() == {"a", "b"}
            return fit and all(type(value) is int for value in arguments.values())
    return False


def _json_body(_name: str) -> JsonObject:
    asked = 'Answer in JSON: an object with the one key "sum", which holds 2 + 3.'
    return _chat(asked, response_format={"type": "json_object"})


def _is_json(message: JsonObject, _name: str) -> bool:
    value = _json(_text(message))
    return isinstance(value, dict) and "sum" in value


def _image_body(name: str) -> JsonObject:
    url = "data:image/png;base64," + base64.b64encode(_png(_RGB[_colour(name)])).decode()
    asked = f"The image has one colour. Which of these is it: {', '.join(_COLOURS)}? Answer with the one word."
    return _chat([{"type": "text", "text": asked}, {"type": "image_url", "image_url": {"url": url}}])


def _named(message: JsonObject, name: str) -> bool:
    return set(_WORD.findall(_text(message).lower())) & set(_COLOURS) == {_colour(name)}


def _colour(name: str) -> str:
    """The colour that is shown to a model: the same each time, not the same for all."""
    return sorted(_RGB)[zlib.crc32(name.encode()) % len(_RGB)]


def _png(rgb: tuple[int, int, int]) -> bytes:
    """A square image of one colour (PNG, 8 bits a channel)."""
    rows = (b"\0" + bytes(rgb) * _SIDE_PX) * _SIDE_PX
    header = struct.pack(">IIBBBBB", _SIDE_PX, _SIDE_PX, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_TESTS = {
    "tools": _Test(
        _tool_body,
        _called,
        frozenset({"tools", "tool", "functions"}),
        re.compile(r"\b(?:schema|strict|tool_choice)\b", re.IGNORECASE),
    ),
    "json": _Test(
        _json_body,
        _is_json,
        frozenset({"response_format", "json_object", "json_mode"}),
        re.compile(r"\bjson_schema\b", re.IGNORECASE),
    ),
    "vision": _Test(
        _image_body,
        _named,
        frozenset({"vision", "image", "image_url"}),
        re.compile(r"\b(?:png|jpe?g|webp|format|size|pixels?|base64|data ur[il]s?|https?)\b", re.IGNORECASE),
    ),
}
