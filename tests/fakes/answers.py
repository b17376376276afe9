"""What the scripted model says to a request, before it is put into a wire format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.schema import satisfy, violate
from tests.fakes.script import Script

Body = Mapping[str, Any]

DEFAULT_WORDS = 8
PIECE_CHARS = 5


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` is the JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: text in the pieces it is streamed in, or tool calls."""

    pieces: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        """The whole content."""
        return "".join(self.pieces)

    @property
    def completion_tokens(self) -> int:
        """One token per streamed piece."""
        arguments = sum(len(slices(call.arguments)) for call in self.calls)
        return len(self.pieces) + len(self.reasoning) + len(self.refusal) + arguments


def words(text: str) -> tuple[str, ...]:
    """Split into words that keep the space before them; joined they are the text."""
    return tuple(re.findall(r"\s*\S+|\s+$", text))


def slices(text: str) -> tuple[str, ...]:
    """Split into pieces of a few characters; joined they are the text."""
    return tuple(text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))


def sentence(script: Script) -> str:
    """The fixed sentence: "word0 word1 …"."""
    return " ".join(f"word{index}" for index in range(script.number("tokens", DEFAULT_WORDS)))


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message whose content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def prompt_words(body: Body) -> int:
    """The count of words in the prompt, used as its count of tokens."""
    texts = [message_text(message) for message in body.get("messages", [])] + prompts(body)
    return sum(len(text.split()) for text in texts)


def prompts(body: Body) -> list[str]:
    """The prompts of a legacy completion request; token ids are written as numbers."""
    prompt = body.get("prompt", "")
    items = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    return [item if isinstance(item, str) else " ".join(map(str, item)) for item in items]


def chat_answer(body: Body, script: Script) -> Answer:
    """The answer to a chat request."""
    messages = body.get("messages", [])
    calls = _calls(body, script, messages)
    if calls and script.has("hermes"):
        return Answer(words("\n".join(_hermes(call) for call in calls)))
    if calls:
        return Answer(calls=calls, finish_reason="tool_calls")
    if (text := _json_text(body, script)) is not None:
        return Answer(slices(text))
    prompt = next((message_text(m) for m in reversed(messages) if m.get("role") == "user"), "")
    text = _reply_text(prompt, script)
    if script.has("prefill") and messages and messages[-1].get("role") == "assistant":
        text = text.removeprefix(message_text(messages[-1]))
    return _flavoured(Answer(words(text)), body, script)


def text_answer(prompt: str, body: Body, script: Script) -> Answer:
    """The answer to one prompt of a legacy completion request."""
    return _flavoured(Answer(words(_reply_text(prompt, script))), body, script)


def _reply_text(prompt: str, script: Script) -> str:
    if prompt.startswith("Repeat: "):
        return prompt.removeprefix("Repeat: ")
    return sentence(script)


def _flavoured(answer: Answer, body: Body, script: Script) -> Answer:
    half = answer.pieces[: len(answer.pieces) // 2]
    if script.has("empty"):
        return Answer()
    if script.has("refusal"):
        return Answer(refusal=words("I cannot help with that."))
    if script.has("content-filter"):
        return replace(answer, pieces=half, finish_reason="content_filter")
    if script.has("length"):
        return replace(answer, pieces=half, finish_reason="length")
    if script.has("think"):
        answer = replace(answer, pieces=("<thi", "nk>", "let", " me", " see", "</thi", "nk>", "\n\n", *answer.pieces))
    if script.has("reasoning"):
        answer = replace(answer, reasoning=words("let me see"))
    return _capped(answer, body)


def _capped(answer: Answer, body: Body) -> Answer:
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit and len(answer.pieces) > limit:
        return replace(answer, pieces=answer.pieces[:limit], finish_reason="length")
    return answer


def _calls(body: Body, script: Script, messages: Sequence[Mapping[str, Any]]) -> tuple[Call, ...]:
    tools = [tool["function"] for tool in body.get("tools") or [] if "function" in tool]
    chosen = [] if script.has("prose", "empty", "refusal") else _chosen(body, tools, messages)
    if not chosen:
        return ()
    if script.has("two-tools", "dup-tool-index"):
        chosen = (chosen + [tool for tool in tools if tool is not chosen[0]] + chosen)[:2]
    return tuple(_call(index, tool, script) for index, tool in enumerate(chosen))


def _chosen(body: Body, tools: list[dict[str, Any]], messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    choice = body.get("tool_choice") or "auto"
    if not tools or choice == "none":
        return []
    if isinstance(choice, dict):
        return [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    if choice == "required":
        return tools[:1]
    last = messages[-1] if messages else {}
    asked = message_text(last)
    if last.get("role") != "user" or "call" not in asked:
        return []
    return [tool for tool in tools if tool["name"] in asked][:1] or tools[:1]


def _call(index: int, tool: Mapping[str, Any], script: Script) -> Call:
    schema = tool.get("parameters") or {"type": "object"}
    arguments = json.dumps(violate(schema) if script.has("schema-args") else satisfy(schema))
    if script.has("bad-args"):
        arguments = arguments[: len(arguments) // 2] + '"'
    return Call(f"call_{index}", "not_offered" if script.has("wrong-tool") else tool["name"], arguments)


def _hermes(call: Call) -> str:
    return f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'


def _json_text(body: Body, script: Script) -> str | None:
    """The JSON text that was asked for by `response_format` or by the script, or None for prose."""
    wanted = body.get("response_format") or {"type": "text"}
    if script.has("prose", "empty", "refusal"):
        return None
    if wanted["type"] == "text" and not script.has("fenced-json", "truncated-json", "wrong-json"):
        return None
    schema = wanted.get("json_schema", {}).get("schema")
    text = json.dumps(_json_value(schema, script))
    if script.has("truncated-json"):
        return text[: len(text) // 2]
    return f"```json\n{text}\n```" if script.has("fenced-json") else text


def _json_value(schema: Mapping[str, Any] | None, script: Script) -> Any:
    if script.has("wrong-json"):
        return violate(schema) if schema else [1, 2]
    return satisfy(schema) if schema else {"answer": sentence(script)}
