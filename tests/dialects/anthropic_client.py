"""What Anthropic's own SDK makes of bytes that it is served, with no server in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import anthropic
import httpx2


class _Bytes(httpx2.SyncByteStream):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces


def streamed(pieces: Iterable[bytes]) -> Any:
    """The message that the SDK's accumulator puts together; raises what it raises for an error event."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Bytes(pieces))
    )
    with httpx2.Client(transport=transport) as http:
        client = anthropic.Anthropic(api_key="k", http_client=http, max_retries=0)
        with client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]) as stream:
            return stream.get_final_message()


def told(message: Any) -> dict[str, Any]:
    """A message as a plain object, without what is None or the SDK's own."""
    found: dict[str, Any] = message.model_dump(mode="json", exclude_none=True)
    for block in found["content"]:
        block.pop("parsed_output", None)
        block.pop("caller", None)
    return found
