"""The SDK's blocking and its other client over each of the servers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.sdk.calling import Caller, calling
from tests.servers import Server


@pytest.fixture(params=["sync", "async"])
def blocking(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sync")


@pytest.fixture
async def caller(server: Server, blocking: bool) -> AsyncIterator[Caller]:
    """The SDK over the upstream's providers."""
    async with calling(server, blocking=blocking) as caller:
        yield caller


@pytest.fixture
async def local(local_server: Server, blocking: bool) -> AsyncIterator[Caller]:
    """The SDK over the embedded model, a healthy provider `up` and an unreachable one, `down`."""
    async with calling(local_server, blocking=blocking) as caller:
        yield caller
