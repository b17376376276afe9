"""The SDK's blocking and its other client over each of the servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest

from tests.fakes.anthropic_upstream import AnthropicThread
from tests.fakes.gemini_upstream import GeminiThread
from tests.fakes.openai_upstream import OpenAiThread
from tests.sdk.calling import Caller, calling
from tests.servers import Server, provider, serving


class Fakes(NamedTuple):
    """The upstreams behind `polyglot`, by the names of their providers."""

    oai: OpenAiThread
    claude: AnthropicThread
    gem: GeminiThread


@pytest.fixture(scope="session")
def fakes() -> Iterator[Fakes]:
    """An upstream of each wire format."""
    with OpenAiThread() as oai, AnthropicThread() as claude, GeminiThread() as gem:
        yield Fakes(oai, claude, gem)


@pytest.fixture(scope="session")
def polyglot(fakes: Fakes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over the sources of the matrix: the embedded model and a provider of each wire format."""
    config = {
        "providers": {
            "oai": provider(fakes.oai.url),
            "claude": provider(fakes.claude.url, protocol="anthropic"),
            "gem": provider(fakes.gem.url, protocol="gemini"),
        }
    }
    with serving(config, tmp_path_factory.mktemp("polyglot")) as server:
        yield server


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
