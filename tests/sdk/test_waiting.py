"""Clients that wait for a slow candidate: comments on the wire, nothing of them in any SDK; and `/v1/failures`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import openai
import pytest

from tests.fakes.upstream import UpstreamThread, eventually
from tests.sdk.calling import Caller, calling, text_of
from tests.sdk.test_openai_node import run_node
from tests.servers import Client, Server, client_of, provider, serving

SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
SLOW = "a/slow-first+delay=0.5"
DEAD_LATE = "a/slow-headers+delay=0.4+status-500"


@pytest.fixture(scope="module")
def patient(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives signs of life ten times a second; `hedged` asks a second candidate after 0.2 s too."""
    config = {
        "server": {"keep_alive": 0.1},
        "local": {"models": []},
        "providers": {"a": provider(upstream.url), "b": provider(upstream.url)},
    }
    with serving(config, tmp_path_factory.mktemp("patient"), "--no-local") as server:
        yield server


@pytest.fixture(scope="module")
def hedged(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    config = {
        "routing": {"hedge_after": 0.2},
        "local": {"models": []},
        "providers": {"a": provider(upstream.url), "b": provider(upstream.url)},
    }
    with serving(config, tmp_path_factory.mktemp("hedged"), "--no-local") as server:
        yield server


@pytest.fixture(params=["sync", "async"])
async def caller(patient: Server, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    async with calling(patient, blocking=request.param == "sync") as caller:
        yield caller


@pytest.fixture
async def raw(patient: Server) -> AsyncIterator[Client]:
    async with client_of(patient) as client:
        yield client


async def test_comments_are_on_the_wire(raw: Client) -> None:
    """They come while the candidate is silent; who answered stands in a comment, since the headers were gone."""
    answer = await raw.chat(SLOW, stream=True)
    assert answer.body.startswith(b": still waiting\n\n")
    assert answer.text == SENTENCE
    assert f": trail {SLOW}:ok 0.".encode() in answer.body
    assert "x-llmproxy-selected-model" not in answer.headers
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.events[-1] == "[DONE]"


async def test_the_python_sdk_does_not_see_them(caller: Caller) -> None:
    """The chunks are those of any other stream."""
    chunks = await caller.chunks(SLOW)
    assert text_of(chunks) == SENTENCE
    assert chunks[0].choices[0].delta.role == "assistant"


async def test_the_python_sdk_raises_what_comes_after_them(caller: Caller) -> None:
    """When all candidates fail in an open stream, the SDK raises the error of the event."""
    with pytest.raises(openai.APIError, match=r"the candidate for .* failed"):
        await caller.chunks(DEAD_LATE)


def test_the_node_sdk_does_not_see_them(patient: Server, server: Server) -> None:
    """Every scenario over a model that is slow to begin has the streams that it has over a quick one."""
    slow, quick = run_node(patient, "a/slow-first+delay=0.25"), run_node(server, "a/ok")
    assert slow.keys() == quick.keys()
    texts = [
        [choice["delta"].get("content") for chunk in found["stream"] for choice in chunk["choices"]]
        for found in (slow, quick)
    ]
    assert texts[0] == texts[1]


async def test_failures_over_http(raw: Client) -> None:
    """Newest first, filtered by model, with how many of each outcome; an odd limit is refused."""
    await raw.chat("a/status-503+seen=1", models=["b/status-502+seen=1", "b/ok"])
    seen = (await raw.get("/v1/failures", params={"limit": "2"})).json
    assert [entry["outcome"] for entry in seen["data"]] == ["502", "503"]
    one = (await raw.get("/v1/failures", params={"model": "a/status-503+seen=1"})).json
    [entry] = one["data"]
    assert entry["asked"] == "a/status-503+seen=1"
    assert (entry["kind"], entry["status"], entry["stream"]) == ("server", 503, False)
    assert time.time() - 60 < entry["time"] <= time.time()
    assert one["outcomes"] == {"503": 1}
    refused = await raw.get("/v1/failures", params={"limit": "-1"})
    assert (refused.status, refused.error["param"]) == (400, "limit")


async def test_keys_are_cut_out_of_failures(raw: Client) -> None:
    """What a provider prints back reaches neither the ring nor the client."""
    model = "a/status-401+message=Incorrect API key provided: sk-proj-abcdef1234567890"
    answer = await raw.chat(model)
    seen = await raw.get("/v1/failures", params={"limit": "1"})
    assert b"Incorrect API key provided" in seen.body
    assert b"abcdef1234567890" not in answer.body.replace(model.encode(), b"")
    assert "abcdef1234567890" not in seen.json["data"][0]["detail"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_hedge_over_http(hedged: Server, upstream: UpstreamThread, stream: bool) -> None:
    """The second candidate answers long before the first would; the first upstream sees its client leave."""
    model = f"slow-first+delay=9+hedged={stream}"
    async with client_of(hedged) as client:
        started_s = time.monotonic()
        answer = await client.chat(f"a/{model}", models=["b/ok"], stream=stream)
        assert time.monotonic() - started_s < 5
    assert answer.text == SENTENCE
    assert answer.headers["x-llmproxy-selected-model"] == "b/ok"
    assert (f"a/{model}", "cancelled") in answer.trail
    [request] = [request for request in upstream.upstream.requests if request.model == model]
    assert await eventually(lambda: request.disconnected, 5.0)
