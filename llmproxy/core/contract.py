"""The protocols between the layers: what a source is to the loop, and what a client is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from llmproxy.core.types import Call, Candidate, Model, Reply


class Stream(Protocol):
    """An answer that is being made.

    `headers` are the source's response headers (lower-case names). Iterating gives bytes, cut anywhere: server-sent
    events of OpenAI chat chunks (https://platform.openai.com/docs/api-reference/chat-streaming), or for a
    pass-through call whatever the upstream sends.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Source(Protocol):
    """Something that answers calls: a provider over HTTP or a backend in this machine.

    Every failure is raised as an `AttemptError` (or a `ClientError` when it would be the same everywhere).
    Cancelling a call, or leaving the context of a stream, stops the work behind it.
    """

    @property
    def name(self) -> str: ...

    async def send(self, call: Call, candidate: Candidate) -> Reply:
        """The whole answer of `candidate` to `call`."""
        ...

    def stream(self, call: Call, candidate: Candidate) -> AbstractAsyncContextManager[Stream]:
        """The answer as it is made; entering waits for the response headers."""
        ...

    async def models(self) -> Sequence[Model]:
        """What the source offers now."""
        ...

    async def aclose(self) -> None:
        """Give back sockets and processes; a closed source is not used again."""
        ...
