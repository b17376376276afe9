"""Canonical replies and deltas → a response of the Responses API, item by item.

https://platform.openai.com/docs/api-reference/responses-streaming. `Output` is told what the model does and tells the
events of a stream; a whole reply is the same without listening.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.dialects.canonical import reported_usage, status_of
from llmproxy.dialects.responses_growing import Item, Message, Reasoning
from llmproxy.dialects.responses_items import FREE_TEXT
from llmproxy.dialects.responses_tools import Origin, origins

Listener = Callable[[str, JsonObject], None]

_ECHOED: JsonObject = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "user": None,
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def whole(body: JsonObject, request: JsonObject, call_id: str) -> JsonObject:
    """A whole canonical reply as a response; `request` is what the client sent."""
    output = Output(request, call_id)
    output.begin(body)
    choice: JsonObject = next(iter(body.get("choices") or ()), {})
    output.delta(choice.get("message") or {}, choice.get("logprobs"))
    return output.end(str(choice.get("finish_reason")), body.get("usage"))


class Output:
    """One response as it comes to be: `begin` → `delta`* → `end` or `fail`. `listen` hears each event, by its type.

    What is handed to `listen` changes later: it must be written at once.
    """

    def __init__(self, request: JsonObject, call_id: str, listen: Listener | None = None) -> None:
        self._listen = listen
        self._seed = call_id
        self._sequence = 0
        self._items: list[JsonObject] = []
        self._item: Item | None = None
        self._summarised = _asks_summary(request)
        self._origins = origins(request.get("tools"))
        self.response = _echo(request)
        self.begun = False

    def begin(self, origin: JsonObject) -> None:
        """`origin` has the id, the model and the time of the canonical reply."""
        self.begun = True
        self._seed = self._seed or re.sub(r"^chatcmpl-|[^\w-]", "", str(origin.get("id") or ""))
        self.response |= {
            "id": f"resp_{self._seed}",
            "created_at": origin.get("created") or 0,
            "model": origin.get("model") or "",
        }
        self.tell("response.created", response=self.response)
        self.tell("response.in_progress", response=self.response)

    def delta(self, delta: JsonObject, logprobs: Any = None) -> None:
        """More of the answer."""
        if thought := delta.get("reasoning_content"):
            self._reasoning().text(thought)
        if signed := delta.get("thinking_blocks"):
            self._reasoning().signed += signed
        if text := delta.get("content"):
            self._message().text("output_text", text, _entries(logprobs))
        if refusal := delta.get("refusal"):
            self._message().text("refusal", refusal, [])
        if delta.get("extra_content") and isinstance(self._item, Message):
            self._item.item["extra_content"] = delta["extra_content"]
        for image in delta.get("images") or ():
            self._image(image)
        for call in delta.get("tool_calls") or ():
            self._call(call)

    def end(self, finish_reason: str, usage: Any) -> JsonObject:
        """The whole response; whether it is complete, `finish_reason` tells."""
        reason = _INCOMPLETE.get(finish_reason)
        status = "incomplete" if reason else "completed"
        if reason:
            self.response["incomplete_details"] = {"reason": reason}
        return self._ended(status, status, usage)

    def fail(self, error: JsonObject, usage: Any = None) -> JsonObject:
        """The response up to an error of the canonical stream."""
        if not self.begun:
            self.begin({})
        status = status_of(error)
        code = "rate_limit_exceeded" if status == 429 else "invalid_prompt" if status == 400 else "server_error"
        self.response["error"] = {"code": code, "message": str(error.get("message") or "")}
        return self._ended("failed", "incomplete", usage)

    def tell(self, kind: str, **fields: Any) -> None:
        """One event."""
        if self._listen is not None:
            self._listen(kind, {"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1

    # -- items ----------------------------------------------------------------------------------------------------

    def _ended(self, status: str, item_status: str, usage: Any) -> JsonObject:
        self._close(item_status)
        self.response |= {"status": status, "output": self._items, "usage": _usage(usage)}
        self.tell(f"response.{status}", response=self.response)
        return self.response

    def _reasoning(self) -> Reasoning:
        if not isinstance(self._item, Reasoning):
            self._close()
            self._item = Reasoning(self.tell, self._next_id("rs"), len(self._items), self._summarised)
        return self._item

    def _message(self) -> Message:
        if not isinstance(self._item, Message):
            self._close()
            self._item = Message(self.tell, self._next_id("msg"), len(self._items))
        return self._item

    def _call(self, call: JsonObject) -> None:
        """A call comes whole, so its item begins and ends at once."""
        self._close()
        function = call.get("function") or {}
        name, arguments = str(function.get("name") or ""), function.get("arguments") or ""
        name, namespace, custom = self._origins.get(name) or Origin(name)
        item: JsonObject = {"type": "custom_tool_call" if custom else "function_call", "status": "in_progress"}
        item |= {"id": self._next_id("ctc" if custom else "fc"), "call_id": call.get("id") or "", "name": name}
        if namespace:
            item["namespace"] = namespace
        if isinstance(call.get("extra_content"), dict):
            item["extra_content"] = call["extra_content"]
        field, kind = ("input", "custom_tool_call_input") if custom else ("arguments", "function_call_arguments")
        value = _free_text(arguments) if custom else arguments
        place: JsonObject = {"item_id": item["id"], "output_index": len(self._items)}
        self.tell("response.output_item.added", output_index=len(self._items), item={**item, field: ""})
        self.tell(f"response.{kind}.delta", **place, delta=value)
        self.tell(f"response.{kind}.done", **place, **{field: value})
        self._done({**item, field: value, "status": "completed"})

    def _image(self, image: Any) -> None:
        """A picture that the model made; what has no data of its own is told by its address."""
        holder = image.get("image_url") if isinstance(image, dict) else None
        url = str(holder.get("url") if isinstance(holder, dict) else holder)
        head, comma, data = url.partition(",")
        if not (head.startswith("data:") and comma):
            self._message().text("output_text", f"![]({url})", [])
            return
        self._close()
        item: JsonObject = {"type": "image_generation_call", "id": self._next_id("ig"), "result": None}
        self.tell("response.output_item.added", output_index=len(self._items), item={**item, "status": "in_progress"})
        self._done({**item, "result": data, "status": "completed"})

    def _close(self, status: str = "completed") -> None:
        item, self._item = self._item, None
        if item is not None:
            self._done(item.closed(status))

    def _done(self, item: JsonObject) -> None:
        self.tell("response.output_item.done", output_index=len(self._items), item=item)
        self._items.append(item)

    def _next_id(self, prefix: str) -> str:
        return f"{prefix}_{self._seed}_{len(self._items)}"


def _asks_summary(request: JsonObject) -> bool:
    reasoning = request.get("reasoning")
    return isinstance(reasoning, dict) and bool(reasoning.get("summary") or reasoning.get("generate_summary"))


def _echo(request: JsonObject) -> JsonObject:
    """What a response repeats of its request, and what it says before anything is known."""
    given = {name: request[name] for name in _ECHOED if request.get(name) is not None}
    given["tools"] = [_echoed_tool(tool) for tool in given.get("tools") or () if isinstance(tool, dict)]
    reasoning, text = request.get("reasoning"), request.get("text")
    return {
        "id": "",
        "object": "response",
        "created_at": 0,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": "",
        "output": [],
        **_ECHOED,
        **given,
        "reasoning": {"effort": None, "summary": None, **(reasoning if isinstance(reasoning, dict) else {})},
        "text": {"format": {"type": "text"}, **(text if isinstance(text, dict) else {})},
        "truncation": "disabled",
        "usage": None,
    }


def _echoed_tool(tool: JsonObject) -> JsonObject:
    return {"parameters": None, "strict": None, **tool} if tool.get("type") == "function" else tool


def _free_text(arguments: str) -> str:
    """The free text of a custom tool's call; arguments of any other shape as they are."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
    text = value.get(FREE_TEXT) if isinstance(value, dict) else None
    return text if isinstance(text, str) else arguments


def _entries(logprobs: Any) -> list[JsonObject]:
    entries: Iterable[Any] = (logprobs.get("content") if isinstance(logprobs, dict) else None) or ()
    return [
        {**_entry(entry), "top_logprobs": [_entry(one) for one in entry.get("top_logprobs") or ()]} for entry in entries
    ]


def _entry(entry: JsonObject) -> JsonObject:
    token = str(entry.get("token") or "")
    given = entry.get("bytes")
    return {
        "token": token,
        "logprob": entry.get("logprob") or 0.0,
        "bytes": list(token.encode()) if given is None else given,
    }


def _usage(usage: Any) -> JsonObject | None:
    if not isinstance(usage, dict):
        return None
    prompt, cached, completion, reasoning = reported_usage(usage)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + completion,
    }
