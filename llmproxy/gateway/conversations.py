"""Who answered a conversation the last time: its provider may have the beginning of the prompt in a cache."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import orjson

from llmproxy.core.types import Call

_MOST = 10_000


class Conversations:
    """A bounded memory: conversation → key of a candidate. A conversation is known by how it begins."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, str] = OrderedDict()

    def last(self, call: Call) -> str:
        """The key of the candidate that answered last; empty when none is remembered."""
        return self._last.get(_beginning(call), "") if call.endpoint == "chat" else ""

    def answered(self, call: Call, key: str) -> None:
        """Remember it; the conversation that was not heard of for the longest time makes room."""
        if call.endpoint != "chat":
            return
        beginning = _beginning(call)
        self._last[beginning] = key
        self._last.move_to_end(beginning)
        if len(self._last) > _MOST:
            self._last.popitem(last=False)


def _beginning(call: Call) -> bytes:
    """The name that was asked for, and the messages up to the first one of the user."""
    messages = call.body.get("messages") or []
    first = next((place for place, one in enumerate(messages) if one.get("role") == "user"), len(messages))
    return hashlib.blake2b(orjson.dumps([call.model, messages[: first + 1]]), digest_size=16).digest()
