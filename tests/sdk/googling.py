"""Google's Python SDK, blocking and not, behind one way to call it; whole answers and streams look the same."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from google import genai
from google.genai import types

from tests.servers import Server


@dataclass(slots=True)
class Heard:
    """An answer: its parts, its end, and the responses that it came in (one, or those of a stream)."""

    responses: list[Any] = field(default_factory=list)

    @property
    def parts(self) -> list[Any]:
        """The parts of the first candidate in their order."""
        candidates = [one.candidates[0] for one in self.responses if one.candidates]
        return [part for one in candidates if one.content for part in one.content.parts or ()]

    @property
    def text(self) -> str:
        """What it says, without what it thinks."""
        return "".join(part.text or "" for part in self.parts if not part.thought)

    @property
    def thoughts(self) -> str:
        return "".join(part.text or "" for part in self.parts if part.thought)

    @property
    def calls(self) -> list[Any]:
        return [part.function_call for part in self.parts if part.function_call is not None]

    @property
    def finish(self) -> str:
        """The one reason that it ended for."""
        (found,) = [one.candidates[0].finish_reason for one in self.responses if one.candidates[0].finish_reason]
        return str(found.value)

    @property
    def usage(self) -> Any:
        return self.responses[-1].usage_metadata

    @property
    def last(self) -> Any:
        return self.responses[-1]


class Google:
    """The SDK as tests use it; the blocking client blocks this event loop, and the server is another process."""

    def __init__(self, client: Any, *, blocking: bool) -> None:
        self.client = client
        self.models = client.models if blocking else client.aio.models

    async def say(self, model: str, contents: Any, *, stream: bool = False, **config: Any) -> Heard:
        """Ask, and hear the whole answer; `config` are fields of `GenerateContentConfig`."""
        heard = Heard()
        await self.listen(heard, model, contents, stream=stream, **config)
        return heard

    async def listen(self, heard: Heard, model: str, contents: Any, *, stream: bool = False, **config: Any) -> None:
        """The same; what came before an error is in `heard`."""
        options: dict[str, Any] = {
            "model": model,
            "contents": contents,
            "config": types.GenerateContentConfig(**config) if config else None,
        }
        if not stream:
            heard.responses.append(await _done(self.models.generate_content(**options)))
            return
        async for one in _each(await _done(self.models.generate_content_stream(**options))):
            heard.responses.append(one)

    async def call(self, method: Callable[..., Any], **options: Any) -> Any:
        """Any other method of `models`."""
        return await _done(method(**options))

    async def listed(self, page_size: int) -> list[Any]:
        """All models, page by page."""
        return [one async for one in _each(await _done(self.models.list(config={"page_size": page_size})))]


@asynccontextmanager
async def google(server: Server, *, version: str, blocking: bool, key: str = "unused") -> AsyncIterator[Google]:
    """A client of `server` that asks under `/v1` or `/v1beta`, closed at the end."""
    http = types.HttpOptions(base_url=server.url, api_version=version, timeout=30_000)
    client = genai.Client(api_key=key, vertexai=False, http_options=http)
    try:
        yield Google(client, blocking=blocking)
    finally:
        await client.aio.aclose()
        client.close()


async def _done(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def _each(found: Any) -> AsyncIterator[Any]:
    if hasattr(found, "__aiter__"):
        async for one in found:
            yield one
    else:
        for one in found:
            yield one
