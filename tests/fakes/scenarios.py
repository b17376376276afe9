"""What the fakes of all upstreams play, each in its own wire format: the model's name says which.

`text`      "Hello from <fake>."
`tools`     two calls at once, of `get_weather` for Paris and for London; after both results, `WEATHER`; 400 in the
            upstream's own shape when calls and results do not pair up
`image`     the colour of `IMAGE`, when the request holds its bytes as image/png, else "I see no image."
`schema`    `PERSON`, when `SCHEMA` stands in the upstream's own field for it, else prose
`refused`   429 in the upstream's own shape, with `retry-after: 7`
`cut`       a stream that breaks off after `BEFORE_THE_CUT`; without a stream, the connection is closed half-way
`thinks`    reasoning (`THOUGHT`), then `DONE`, with cached and reasoning tokens in the usage
`declined`  the upstream's own word for an answer that it withholds
`long`      "Hello from <fake>.", ended by the limit of tokens

What follows a `+` in the name is not read: `refused+1` is a model of its own that refuses like `refused`.
"""

from __future__ import annotations

import base64
from typing import Any

SCENARIOS = ("text", "tools", "image", "schema", "refused", "cut", "thinks", "declined", "long")

TOOL = "get_weather"
CITIES = ("Paris", "London")
TEMPERATURES = ("21", "18")
WEATHER = "21 and 18 degrees."

# Four by four pixels of red.
IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAEElEQVR4nGP4z8AARwzEcQCukw/x0F8jngAAAABJRU5ErkJggg=="
)
IMAGE_TYPE = "image/png"
COLOUR = "red"
NO_IMAGE = "I see no image."

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PERSON: dict[str, Any] = {"name": "Ada", "age": 36}
NO_SCHEMA = "I was told of no schema."

REFUSAL = "too many requests for this fake"
RETRY_AFTER_S = 7
BEFORE_THE_CUT = "This is where"

THOUGHT = "The answer is simple."
DONE = "Done."
# Of the prompt's tokens some came from the upstream's cache; of the answer's tokens some were thoughts.
PROMPT_TOKENS, CACHED_TOKENS = 50, 32
COMPLETION_TOKENS, REASONING_TOKENS = 20, 12


def scenario_of(model: str) -> str:
    """The scenario that a model's name asks for; `text` for any other name."""
    name = model.rsplit("/", 1)[-1].split("+", 1)[0]
    return next((word for word in name.split("-") if word in SCENARIOS), "text")


def greeting(fake: str) -> str:
    """What `text` says; `fake` is "OpenAI", "Anthropic" or "Gemini"."""
    return f"Hello from {fake}."


def is_schema(given: Any) -> bool:
    """Whether this is `SCHEMA`, but for the words that SDKs add, and for those on more members than it has."""
    if not isinstance(given, dict) or not isinstance(given.get("properties"), dict):
        return False
    plain = {key: value for key, value in given.items() if key not in ("title", "description", "additionalProperties")}
    plain["properties"] = {
        name: {key: value for key, value in one.items() if key != "title"} for name, one in plain["properties"].items()
    }
    return plain == {key: value for key, value in SCHEMA.items() if key != "additionalProperties"}
