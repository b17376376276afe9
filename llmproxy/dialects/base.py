"""What a dialect is: a wire format of clients, of upstreams, or of both, translated to and from the canonical one.

The canonical format is OpenAI chat (https://platform.openai.com/docs/api-reference/chat): requests as the body of
`POST /v1/chat/completions`, whole replies as its body, streams as its server-sent events. Reasoning stands in
`reasoning_content` of messages and deltas. Dialects are pure: values in, values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llmproxy.core.errors import LlmproxyError
from llmproxy.core.types import JsonObject


class Renderer(Protocol):
    """A canonical stream → a client's stream. Bytes in, cut anywhere; bytes out, possibly none.

    Comments of the canonical stream are life signs and become what the dialect has for them, or nothing.
    """

    @property
    def content_type(self) -> str:
        """The media type of the stream."""
        ...

    def feed(self, data: bytes) -> bytes:
        """What the client gets for some more of the canonical stream; its error event becomes the dialect's own."""
        ...

    def finish(self) -> bytes:
        """What is left when the canonical stream has ended; an end without `[DONE]` is an error, told as one."""
        ...


class Inbound(Protocol):
    """A wire format that clients speak."""

    def request(self, body: JsonObject, headers: Mapping[str, str]) -> JsonObject:
        """The canonical body; raises `InvalidRequest` with the path of the client's own field in `param`."""
        ...

    def reply(self, body: JsonObject, request: JsonObject | None = None) -> JsonObject:
        """A whole canonical reply as the client of `request` (its own body) expects it."""
        ...

    def renderer(self, request: JsonObject) -> Renderer:
        """For the stream that answers the client's `request`."""
        ...

    def error(self, error: LlmproxyError, status: int, request_id: str) -> JsonObject:
        """The body of an error response."""
        ...


class Translator(Protocol):
    """An upstream's stream → the canonical stream. Bytes in, cut anywhere; whole server-sent events out."""

    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes:
        """What is left at the upstream's end; ends with `[DONE]` only where the upstream ended properly."""
        ...


class Outbound(Protocol):
    """A wire format that upstreams speak. What cannot be expressed in it is named, never dropped silently."""

    def request(self, body: JsonObject, model: str, *, stream: bool) -> tuple[JsonObject, tuple[str, ...]]:
        """(the upstream's body, the canonical fields that it cannot honour).

        Raises `InvalidRequest` for what is wrong everywhere, which ends the call, and `UnsupportedParameter` for what
        only this kind of upstream cannot do.
        """
        ...

    def reply(self, body: JsonObject, model: str) -> JsonObject:
        """The upstream's whole reply as a canonical one; raises `BadReply` where it is none."""
        ...

    def translator(self, model: str) -> Translator:
        """For one stream of `model`."""
        ...
