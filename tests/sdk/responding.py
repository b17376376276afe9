"""OpenAI's Python SDK for the Responses API, blocking and not, behind one way to call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from tests.sdk.calling import done, listed, sdk
from tests.servers import Server


class Responder:
    """`client.responses` as tests use it."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.responses = client.responses

    async def say(self, model: str, said: Any = "hello", *, stream: bool = False, **options: Any) -> Any:
        """The whole response to `said` (a text, or items), put together by the SDK where it is streamed."""
        if not stream:
            return await done(self.responses.create(model=model, input=said, **options))
        return (await self.helped(model, said, **options))[1]

    async def events(self, model: str, said: Any = "hello", **options: Any) -> list[Any]:
        """The events of a stream."""
        return await listed(await done(self.responses.create(model=model, input=said, stream=True, **options)))

    async def helped(self, model: str, said: Any = "hello", **options: Any) -> tuple[list[Any], Any]:
        """The events of the `.stream()` helper, and the response that it puts together."""
        manager = self.responses.stream(model=model, input=said, **options)
        if isinstance(manager, AbstractAsyncContextManager):
            async with manager as stream:
                return await listed(stream), await stream.get_final_response()
        with manager as stream:
            return list(stream), stream.get_final_response()

    async def ended(self, model: str, said: Any = "hello", *, stream: bool) -> Any:
        """The response, however it ended: the helper puts together only those that are completed."""
        if not stream:
            return await self.say(model, said)
        return (await self.events(model, said))[-1].response

    async def parsed(self, model: str, kind: type, said: Any = "hello") -> Any:
        """What `.parse` makes of the answer."""
        return (await done(self.responses.parse(model=model, input=said, text_format=kind))).output_parsed

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Any other method: `retrieve`, `delete`."""
        return await done(getattr(self.responses, name)(*arguments, **options))


@asynccontextmanager
async def responding(server: Server, *, blocking: bool) -> AsyncIterator[Responder]:
    """A responder of `server`, closed at the end."""
    client = sdk(server, blocking=blocking)
    try:
        yield Responder(client)
    finally:
        await done(client.close())
