"""Items of a response that grow piece by piece: what the model says, and what it thinks."""

from __future__ import annotations

from typing import Any, Protocol

from llmproxy.core.types import JsonObject
from llmproxy.dialects.responses_items import seal


class Tell(Protocol):
    """Tells one event of a stream."""

    def __call__(self, kind: str, **fields: Any) -> None: ...


class Item:
    """An item that is not complete; `say` tells an event with the place where it stands."""

    def __init__(self, tell: Tell, index: int, item: JsonObject) -> None:
        self.item = item
        self._tell = tell
        self._index = index
        self._pieces: list[str] = []
        tell("response.output_item.added", output_index=index, item=item)

    def say(self, kind: str, **fields: Any) -> None:
        self._tell(f"response.{kind}", item_id=self.item["id"], output_index=self._index, **fields)

    def closed(self, status: str) -> JsonObject:
        """The complete item."""
        raise NotImplementedError


class Message(Item):
    """What the model says: text, or why it does not answer."""

    def __init__(self, tell: Tell, item_id: str, index: int) -> None:
        super().__init__(
            tell,
            index,
            {"id": item_id, "type": "message", "status": "in_progress", "role": "assistant", "content": []},
        )
        self._kind = ""
        self._logprobs: list[JsonObject] = []

    def text(self, kind: str, text: str, logprobs: list[JsonObject]) -> None:
        if self._kind != kind:
            self._end_part()
            self._kind = kind
            self.say("content_part.added", content_index=self._place, part=self._part(""))
        self._pieces.append(text)
        self._logprobs += logprobs
        if kind == "refusal":
            self.say("refusal.delta", content_index=self._place, delta=text)
        else:
            self.say("output_text.delta", content_index=self._place, delta=text, logprobs=logprobs)

    def closed(self, status: str) -> JsonObject:
        self._end_part()
        return {**self.item, "status": status}

    @property
    def _place(self) -> int:
        return len(self.item["content"])

    def _end_part(self) -> None:
        if not self._kind:
            return
        text = "".join(self._pieces)
        part = self._part(text)
        if self._kind == "refusal":
            self.say("refusal.done", content_index=self._place, refusal=text)
        else:
            self.say("output_text.done", content_index=self._place, text=text, logprobs=self._logprobs)
        self.say("content_part.done", content_index=self._place, part=part)
        self.item["content"].append(part)
        self._kind, self._pieces, self._logprobs = "", [], []

    def _part(self, text: str) -> JsonObject:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs}


class Reasoning(Item):
    """What the model thinks: as a summary where one was asked for, else as it is."""

    def __init__(self, tell: Tell, item_id: str, index: int, summarised: bool) -> None:
        item: JsonObject = {"id": item_id, "type": "reasoning", "status": "in_progress", "summary": []}
        super().__init__(tell, index, item if summarised else {**item, "content": []})
        self.signed: list[JsonObject] = []
        self._begun = False
        self._field = "summary" if summarised else "content"
        self._place = {"summary_index": 0} if summarised else {"content_index": 0}
        self._part, self._kind, self._text = (
            ("reasoning_summary_part", "summary_text", "reasoning_summary_text")
            if summarised
            else ("content_part", "reasoning_text", "reasoning_text")
        )

    def text(self, text: str) -> None:
        if not self._begun:
            self._begun = True
            self.say(f"{self._part}.added", **self._place, part={"type": self._kind, "text": ""})
        self._pieces.append(text)
        self.say(f"{self._text}.delta", **self._place, delta=text)

    def closed(self, status: str) -> JsonObject:
        item: JsonObject = {**self.item, "status": status}
        if self._begun:
            text = "".join(self._pieces)
            part = {"type": self._kind, "text": text}
            self.say(f"{self._text}.done", **self._place, text=text)
            self.say(f"{self._part}.done", **self._place, part=part)
            item[self._field] = [part]
        if self.signed:
            item["encrypted_content"] = seal({"thinking_blocks": self.signed})
        return item
