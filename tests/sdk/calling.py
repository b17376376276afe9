"""OpenAI's Python SDK, blocking and not, behind one way to call it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai

from tests.servers import Json, Server

Sdk = openai.OpenAI | openai.AsyncOpenAI


def sdk(server: Server, *, blocking: bool, max_retries: int = 0) -> Sdk:
    """A client of `server`, which retries by itself only when told to."""
    url = f"{server.url}/v1"
    if blocking:
        return openai.OpenAI(base_url=url, api_key="unused", max_retries=max_retries, timeout=30)
    return openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=max_retries, timeout=30)


class Caller:
    """The SDK as tests use it: whatever it returns is awaited or iterated as it wants to be.

    The blocking client blocks this event loop; the server is another process and the upstream another thread.
    """

    def __init__(self, client: Sdk) -> None:
        self.client: Any = client

    async def chat(self, model: str, prompt: str = "hello there", **options: Any) -> Any:
        """A chat completion."""
        messages = options.pop("messages", [{"role": "user", "content": prompt}])
        return await done(self.client.chat.completions.create(model=model, messages=messages, **options))

    async def chunks(self, model: str, prompt: str = "hello there", **options: Any) -> list[Any]:
        """The chunks of a streamed chat completion."""
        return await listed(await self.chat(model, prompt, stream=True, **options))

    async def parsed(self, model: str, kind: type, prompt: str = "hello there") -> Any:
        """What `.parse` makes of the answer."""
        messages = [{"role": "user", "content": prompt}]
        reply = await done(self.client.chat.completions.parse(model=model, messages=messages, response_format=kind))
        return reply.choices[0].message.parsed

    async def helped(self, model: str, prompt: str = "hello there", **options: Any) -> tuple[list[Any], Any]:
        """The events of the `.stream()` helper and the completion that it puts together."""
        messages = [{"role": "user", "content": prompt}]
        manager = self.client.chat.completions.stream(model=model, messages=messages, **options)
        if isinstance(manager, AbstractAsyncContextManager):
            async with manager as stream:
                return await listed(stream), await stream.get_final_completion()
        with manager as stream:
            return list(stream), stream.get_final_completion()

    async def gathered(self, model: str, messages: Any, **options: Any) -> Any:
        """The completion that the `.stream()` helper puts together, its events unseen."""
        manager = self.client.chat.completions.stream(model=model, messages=messages, **options)
        if isinstance(manager, AbstractAsyncContextManager):
            async with manager as stream:
                return await stream.get_final_completion()
        with manager as stream:
            return stream.get_final_completion()

    async def heard(self, chunks: list[Any], model: str, prompt: str = "hello there", **options: Any) -> None:
        """Puts the chunks of a stream into `chunks` one by one: those that come before an error stay."""
        stream = await self.chat(model, prompt, stream=True, **options)
        if hasattr(stream, "__aiter__"):
            async for chunk in stream:
                chunks += [chunk]
        else:
            for chunk in stream:
                chunks += [chunk]

    async def close(self) -> None:
        await done(self.client.close())


async def done(value: Any) -> Any:
    """The value, awaited where it must be."""
    return await value if inspect.isawaitable(value) else value


async def listed(stream: Any) -> list[Any]:
    """Everything that a stream or a page gives."""
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


def text_of(chunks: list[Any]) -> str:
    """The content that a stream's chunks add up to."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def function(name: str, description: str, properties: Json, required: list[str] | None = None) -> Json:
    """A function tool; all its properties are required unless `required` says which."""
    wanted = list(properties) if required is None else required
    schema = {"type": "object", "properties": properties, "required": wanted, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


@asynccontextmanager
async def calling(server: Server, *, blocking: bool = False, max_retries: int = 0) -> AsyncIterator[Caller]:
    """A caller of `server`, closed at the end."""
    caller = Caller(sdk(server, blocking=blocking, max_retries=max_retries))
    try:
        yield caller
    finally:
        await caller.close()
