"""Objects of the Gemini API as clients write them.

The API is defined in protobuf, and its JSON mapping (https://protobuf.dev/programming-guides/json/) lets a client
write each field in camelCase or as the proto names it, whole numbers as strings, and base64 in either alphabet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject

_BASE64 = re.compile(r"[A-Za-z0-9+/]*")
_TO_STANDARD = str.maketrans("-_", "+/")

# The field of canonical bodies, tools and parts for what only Gemini has a word for: such upstreams get it as it was.
GEMINI = "gemini"


@lru_cache(maxsize=512)
def snake(name: str) -> str:
    """`functionCall` → `function_call`."""
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


class Fields:
    """One object, read by the camelCase names of its fields in whichever spelling they came.

    `path` is where it stands in the client's body. Every reader raises `InvalidRequest` with the path of a field of
    the wrong type; null counts as absent.
    """

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise InvalidRequest(f"{path or 'the body'} must be an object", param=path or None)
        self.value = value
        self.path = path

    def at(self, name: str) -> str:
        """The path of a field, spelled as the client spelled it."""
        spelled = name if name in self.value or snake(name) not in self.value else snake(name)
        return f"{self.path}.{spelled}" if self.path else spelled

    def get(self, name: str) -> Any:
        """The value as it is."""
        value = self.value.get(name)
        return self.value.get(snake(name)) if value is None else value

    def wrong(self, name: str, wanted: str) -> InvalidRequest:
        """The error for a field that is not what it has to be."""
        return InvalidRequest(f"{self.at(name)} must be {wanted}", param=self.at(name))

    def text(self, name: str) -> str | None:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def name(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if not value:
            raise self.wrong(name, "a string that is not empty")
        return value

    def word(self, name: str) -> str:
        """The name of an enum value, in capitals; empty when there is none."""
        return (self.text(name) or "").upper()

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def number(self, name: str) -> float | None:
        value = self.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self.wrong(name, "a number")

    def integer(self, name: str) -> int | None:
        value = self.get(name)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong(name, "an integer")
        return value

    def texts(self, name: str) -> list[str]:
        value = self.get(name)
        if isinstance(value, str):
            return [value]
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise self.wrong(name, "a list of strings")
        return list(value or ())

    def object(self, name: str) -> Fields | None:
        value = self.get(name)
        return None if value is None else Fields(value, self.at(name))

    def objects(self, name: str) -> list[Fields]:
        """A list of objects; one that stands alone counts as a list of one, as the API has it."""
        value, path = self.get(name), self.at(name)
        if isinstance(value, dict):
            return [Fields(value, path)]
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "a list of objects")
        return [Fields(one, f"{path}.{place}") for place, one in enumerate(value or ())]

    def rest(self, known: Collection[str]) -> JsonObject:
        """The fields that are there and are not among `known`, spelled as the client spelled them."""
        names = {*known, *map(snake, known)}
        return {key: value for key, value in self.value.items() if key not in names and value is not None}


def own_words(holder: JsonObject) -> JsonObject:
    """What the field `gemini` of a canonical body, tool or part holds; empty where there is none."""
    given = holder.get(GEMINI)
    return given if isinstance(given, dict) else {}


def signed(message: JsonObject, signature: str | None) -> JsonObject:
    """`message` (or a tool call) with the signature of its thought, where there is one."""
    return {**message, "extra_content": {"google": {"thought_signature": signature}}} if signature else message


def signature_of(holder: Mapping[str, Any]) -> str | None:
    """The signature of a thought that a message or a tool call carries."""
    extra = holder.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def standard_base64(data: str) -> str | None:
    """Base64 of either alphabet, padded or not, in the standard one; None when it is none."""
    text = "".join(data.split()).translate(_TO_STANDARD).rstrip("=")
    if _BASE64.fullmatch(text) is None or len(text) % 4 == 1:
        return None
    return text + "=" * (-len(text) % 4)
