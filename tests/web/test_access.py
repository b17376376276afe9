"""Who may come in: keys, and what stays open without one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.fakes.upstream import UpstreamThread
from tests.servers import Client, Server, client_of, provider, serving

KEY, OTHER_KEY = "sk-proxy-aaaaaaaaaaaaaaaa", "sk-proxy-bbbbbbbbbbbbbbbb"


@pytest.fixture(scope="module")
def guarded(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two keys, one of them read from the environment."""
    config = {
        "server": {"api_keys": [KEY, "${LLMPROXY_TEST_KEY}"]},
        "providers": {"a": provider(upstream.url)},
        "local": {"models": []},
    }
    env = {"LLMPROXY_TEST_KEY": OTHER_KEY}
    with serving(config, tmp_path_factory.mktemp("guarded"), "--no-local", env=env) as server:
        yield server


@pytest.fixture
async def visitor(guarded: Server) -> AsyncIterator[Client]:
    """A client without a key of its own."""
    async with client_of(guarded) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer {OTHER_KEY}"},
        {"x-api-key": KEY},
        {"x-goog-api-key": OTHER_KEY},
    ],
)
async def test_a_right_key_comes_in(visitor: Client, headers: dict[str, str]) -> None:
    """Each key, in each of the headers that clients use."""
    assert (await visitor.get("/v1/models", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"Authorization": "Basic " + KEY[:5]},
        {"Authorization": "Bearer ké"},
        {"Authorization": "Bearer ${LLMPROXY_TEST_KEY}"},
        {"x-api-key": "wrong"},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/metrics", "/v1/anything", "/nothing"])
async def test_no_key_or_a_wrong_one_stays_out(visitor: Client, path: str, headers: dict[str, str]) -> None:
    """401 in OpenAI's shape, on every path, before anything else is looked at."""
    answer = await visitor.get(path, headers=headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.error["type"] == "authentication_error"
    assert KEY not in answer.body.decode()


@pytest.mark.parametrize("path", ["/health", "/ready", "/version"])
async def test_probes_need_no_key(visitor: Client, path: str) -> None:
    """What a supervisor asks is open."""
    assert (await visitor.get(path)).status == 200


async def test_a_clients_key_never_goes_upstream(visitor: Client, upstream: UpstreamThread) -> None:
    """The upstream sees the provider's key alone."""
    headers = {"Authorization": f"Bearer {KEY}"}
    assert (await visitor.post("/v1/images/generations", {"model": "a/ok"}, headers=headers)).status == 200
    assert upstream.requests[-1].headers["authorization"] == "Bearer sk-upstream-0123456789"
    assert KEY not in str(upstream.requests[-1].headers)


async def test_the_openai_sdk_raises_authentication_error(guarded: Server) -> None:
    """A wrong key is the SDK's `AuthenticationError`; the right one is let in."""
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.models.list()
        assert raised.value.code == "invalid_api_key"
        assert (await client.with_options(api_key=KEY).models.list()).data
