"""Responses that are kept for `previous_response_id`: the latest ones, in this process."""

from __future__ import annotations

from collections import OrderedDict

import orjson

from llmproxy.core.types import JsonObject
from llmproxy.dialects.responses_history import Stored

_MOST = 1000
_MOST_BYTES = 64 << 20


class Responses:
    """At most `most` responses of `most_bytes` together (as JSON); the one that was used longest ago goes first."""

    def __init__(self, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._items: dict[str, JsonObject] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, response_id: str) -> Stored | None:
        """What is kept under an id."""
        found = self._kept.get(response_id)
        if found is None:
            return None
        self._kept.move_to_end(response_id)
        return found[0]

    def item(self, item_id: str) -> JsonObject | None:
        """An item of an answer that is kept."""
        return self._items.get(item_id)

    def keep(self, stored: Stored) -> None:
        """Keep a response; one that is larger than all the room is not kept."""
        size = len(orjson.dumps(stored.items)) + len(orjson.dumps(stored.response))
        self.forget(stored.id)
        if size > self._most_bytes:
            return
        self._kept[stored.id] = (stored, size)
        self._bytes += size
        self._items |= {item["id"]: item for item in stored.response["output"] if item.get("id")}
        while len(self._kept) > self._most or self._bytes > self._most_bytes:
            self.forget(next(iter(self._kept)))

    def forget(self, response_id: str) -> bool:
        """Whether it was kept; it is no more."""
        found = self._kept.pop(response_id, None)
        if found is None:
            return False
        self._bytes -= found[1]
        for item in found[0].response["output"]:
            self._items.pop(item.get("id"), None)
        return True
