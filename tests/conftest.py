"""Shared by all tests: a time limit for each, one scripted upstream and one real server for each worker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Generator, Iterator
from types import FrameType

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import Client, Server, client_of, provider, serving, unreachable

LIMIT_S = 60
MODELS = ("ok", "acme/ok-large", "ok:free", "embed", "trickle")


@contextlib.contextmanager
def _limited(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("limit")
    limit_s = marker.args[0] if marker else LIMIT_S

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the test took longer than {limit_s} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test keeps anything in the cache of the user."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of this suite."""
    config.addinivalue_line("markers", f"limit(seconds): the test may take longer, or less, than {LIMIT_S} s")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """End a test that hangs."""
    with _limited(item):
        return (yield)


@pytest.fixture(scope="session")
def upstream() -> Iterator[UpstreamThread]:
    """The scripted upstream that `server` knows as the providers `a` and `b`."""
    with UpstreamThread(models=list(MODELS)) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def server(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over two providers and no local model; tests must leave its health as it was."""
    config = {
        "providers": {"a": provider(upstream.url), "b": provider(upstream.url)},
        "local": {"models": []},
        "aliases": {"helexa/small": "a/ok", "gpt-4o-mini": "b/ok"},
        "pools": {
            "pair": {"where": {"models": ["a/ok", "b/ok"]}, "order": "as_listed"},
            "turns": {"where": {"models": ["a/ok", "b/ok"]}, "order": "round_robin"},
        },
    }
    with serving(config, tmp_path_factory.mktemp("server"), "--no-local") as server:
        yield server


@pytest.fixture(scope="session")
def local_server(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the embedded model, a healthy provider `up`, and `down`, where nobody listens."""
    with unreachable() as nowhere:
        config = {
            "providers": {
                "up": provider(upstream.url),
                "down": provider(nowhere),
            },
            "pools": {"home": {"where": {"models": ["local/*", "up/ok"]}, "order": "as_listed"}},
        }
        with serving(config, tmp_path_factory.mktemp("local")) as server:
            yield server


@pytest.fixture
async def http(server: Server) -> AsyncIterator[Client]:
    """A client of `server`."""
    async with client_of(server) as client:
        yield client
