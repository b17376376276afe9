"""Calls to providers over real HTTP: what is sent, what comes back, and what every failure becomes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from llmproxy import __version__
from llmproxy.core.config import Provider
from llmproxy.core.errors import AttemptError, BadReply, ConnectFailed, ConnectionLost, Refused
from llmproxy.core.types import Call, Candidate, Model, Reply
from providers.catalog import resolve
from providers.http import new_session
from providers.openai_compatible import OpenAiCompatible
from tests.fakes.refusals import PROVIDER_REFUSALS
from tests.fakes.upstream import Upstream, eventually

MESSAGES = [{"role": "user", "content": "hello there"}]


@pytest.fixture(autouse=True)
def _no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment have no part in these tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with new_session(5.0) as opened:
        yield opened


def source_of(session: aiohttp.ClientSession, url: str, name: str = "p", **fields: Any) -> OpenAiCompatible:
    """A provider at a URL."""
    return OpenAiCompatible(resolve(name, Provider.model_validate({"base_url": url, **fields})), session)


def call_of(endpoint: Any = "chat", *, stream: Any = False, **body: Any) -> Call:
    given = {"messages": MESSAGES, **body} if endpoint == "chat" else body
    return Call("c", endpoint, "m", given, stream=stream)


async def send(source: OpenAiCompatible, model: str, call: Call | None = None, credential: int = 0) -> Reply:
    return await source.send(call or call_of(), Candidate(Model("p", model), credential))


async def read(source: OpenAiCompatible, model: str, call: Call | None = None) -> bytes:
    """A whole stream."""
    async with source.stream(call or call_of(stream=True), Candidate(Model("p", model))) as stream:
        return b"".join([piece async for piece in stream])


async def failure(source: OpenAiCompatible, model: str, *, stream: bool) -> AttemptError:
    """The error that an attempt ends in, within 5 s."""
    with pytest.raises(AttemptError) as caught:
        async with asyncio.timeout(5):
            await (read(source, model) if stream else send(source, model))
    return caught.value


async def test_a_whole_answer(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """The body is decoded; the model's id, the key and the name of this program are sent, and nothing of its own."""
    source = source_of(session, upstream.url, api_key="k1", headers={"x-team": "t"})
    reply = await send(source, "acme/ok-large", call_of(temperature=0))
    assert reply.status == 200
    assert reply.body["choices"][0]["message"]["content"]
    assert reply.headers["X-Request-Id"] == "req-1"
    (request,) = upstream.requests
    assert request.json == {"model": "acme/ok-large", "messages": MESSAGES, "temperature": 0}
    assert request.headers["authorization"] == "Bearer k1"
    assert request.headers["user-agent"] == f"llmproxy/{__version__}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-team"] == "t"
    assert request.path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (call_of("completions", prompt="x"), "/v1/completions"),
        (call_of("embeddings", input="x"), "/v1/embeddings"),
    ],
)
async def test_endpoints(upstream: Upstream, session: aiohttp.ClientSession, call: Call, path: str) -> None:
    """Each endpoint has its path."""
    assert (await send(source_of(session, upstream.url), "ok", call)).body
    assert upstream.requests[0].path == path


async def test_each_credential_has_its_key(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """A candidate is asked with its own key; without keys no header is sent."""
    source = source_of(session, upstream.url, api_keys=["k0", "k1", "k2"])
    for credential in (2, 0, 1):
        await send(source, "ok", credential=credential)
    assert [request.key for request in upstream.requests] == ["k2", "k0", "k1"]
    await send(source_of(session, upstream.url), "ok")
    assert "authorization" not in upstream.requests[-1].headers


@pytest.mark.parametrize(
    ("count", "quirky", "asked"), [(True, False, True), (False, False, False), (True, True, False)]
)
async def test_usage_in_streams(
    upstream: Upstream, session: aiohttp.ClientSession, count: bool, quirky: bool, asked: bool
) -> None:
    """A stream is asked for its usage, unless the client forbade that or the provider does not know the field."""
    name = "mistral" if quirky else "p"
    source = source_of(session, upstream.url, name, api_key="k")
    call = call_of(stream=True)
    call.count_usage = count
    raw = await read(source, "ok", call)
    assert raw.endswith(b"data: [DONE]\n\n")
    body = upstream.requests[0].json
    assert body["stream"] is True
    assert body.get("stream_options") == ({"include_usage": True} if asked else None)


@pytest.mark.parametrize(
    ("name", "given", "sent"),
    [
        ("groq", {"max_tokens": 5}, {"max_completion_tokens": 5}),
        ("groq", {"max_tokens": 5, "max_completion_tokens": 6}, {"max_completion_tokens": 6}),
        ("mistral", {"max_completion_tokens": 5}, {"max_tokens": 5}),
        ("p", {"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 5, "max_completion_tokens": 6}),
    ],
)
async def test_the_name_of_the_token_limit(
    upstream: Upstream, session: aiohttp.ClientSession, name: str, given: dict[str, Any], sent: dict[str, int]
) -> None:
    """A provider that knows one of the two names gets that one; the given body is not changed."""
    call = call_of(**given)
    await send(source_of(session, upstream.url, name, api_key="k"), "ok", call)
    body = upstream.requests[0].json
    assert {key: value for key, value in body.items() if "max" in key} == sent
    assert call.body == {"messages": MESSAGES, **given}


async def test_pass_through(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """A pass-through call puts the model's own id between the pieces of its body and leaves all else alone."""
    raw = (b'{"model": "', b'", "input": "\xc3\xa9"}')
    headers = {"content-type": "application/json; charset=utf-8"}
    call = Call("c", "passthrough", "m", {}, path="/audio/speech?x=1&y=", raw=raw, raw_headers=headers)
    source = source_of(session, upstream.url, api_key="k")
    answer = orjson.loads(await read(source, "acme/voice", call))
    (request,) = upstream.requests
    assert request.body == b'{"model": "acme/voice", "input": "\xc3\xa9"}'
    assert (request.path, request.query, request.key) == ("/v1/audio/speech", "x=1&y=", "k")
    assert request.headers["content-type"] == headers["content-type"]
    assert answer["body_bytes"] == len(request.body)


async def test_pass_through_without_a_body(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """A GET is passed through without a body."""
    call = Call("c", "passthrough", "m", {}, path="/files", method="GET")
    assert orjson.loads(await read(source_of(session, upstream.url), "ok", call))["method"] == "GET"


KINDS = {
    400: "invalid", 401: "auth", 402: "credit", 404: "not_found", 408: "timeout", 409: "conflict", 413: "too_large",
    422: "invalid", 429: "rate_limit", 500: "server", 502: "server", 503: "server", 529: "server",
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("status", "kind"), KINDS.items())
async def test_statuses(
    upstream: Upstream, session: aiohttp.ClientSession, status: int, kind: str, stream: bool
) -> None:
    """Every error status is a refusal of its kind, with the wait that its headers state."""
    error = await failure(source_of(session, upstream.url), f"status-{status}", stream=stream)
    assert isinstance(error, Refused)
    assert (error.kind, error.http_status, error.outcome) == (kind, status, str(status))
    assert error.retry_after_s == (1.0 if status == 429 else None)
    assert error.message


@pytest.mark.parametrize(
    ("name", "kind", "wait_s"),
    [
        ("groq-429-tpd", "rate_limit", 432.0),
        ("groq-413-tpm", "too_large", None),
        ("gemini-429-minute", "rate_limit", 44.0),
        ("nvidia-400-degraded", "server", None),
        ("cloudflare-403-1010", "forbidden", None),
        ("hf-402", "credit", 86_400.0),
        ("context-length", "context_length", None),
        ("error-array-400", "unsupported", None),
        ("status-429+retry-after-ms=1500", "rate_limit", 1.5),
        ("status-429+retry-after=date+in=600", "rate_limit", pytest.approx(600, abs=5)),
    ],
)
async def test_refusals(
    upstream: Upstream, session: aiohttp.ClientSession, name: str, kind: str, wait_s: float | None
) -> None:
    """The refusals of real providers arrive with their meaning, header names in any case."""
    error = await failure(source_of(session, upstream.url), name, stream=False)
    assert isinstance(error, Refused)
    assert error.retry_after_s == wait_s
    assert error.kind == kind


async def test_no_refusal_is_an_accident(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """Every known refusal becomes a `Refused`, over one connection after the other."""
    source = source_of(session, upstream.url)
    for name in PROVIDER_REFUSALS:
        assert isinstance(await failure(source, name, stream=False), Refused)


@pytest.mark.parametrize(
    ("model", "error", "outcome"),
    [
        ("html-200", BadReply, "not_json"),
        ("not-json", BadReply, "not_json"),
        ("error-200", Refused, "error_in_200"),
        ("malformed", BadReply, "not_json"),
        ("cut", ConnectionLost, "connection_lost"),
        pytest.param(
            "gzip-garbage",
            BadReply,
            "bad_encoding",
        ),
        ("reset", ConnectionLost, "connection_lost"),
        ("reset-headers", ConnectionLost, "connection_lost"),
    ],
)
async def test_what_is_no_answer(
    upstream: Upstream, session: aiohttp.ClientSession, model: str, error: type[AttemptError], outcome: str
) -> None:
    """A 200 that holds no answer, and a connection that dies, are told apart."""
    found = await failure(source_of(session, upstream.url), model, stream=False)
    assert (type(found), found.outcome) == (error, outcome)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_compressed_answer(upstream: Upstream, session: aiohttp.ClientSession, stream: bool) -> None:
    """A compressed answer is decompressed as it comes."""
    source = source_of(session, upstream.url)
    assert b"word1" in (await read(source, "gzip") if stream else (await send(source, "gzip")).raw)


@pytest.mark.parametrize(
    ("model", "error", "sent_nothing"),
    [
        ("reset", ConnectionLost, True),
        ("cut", ConnectionLost, False),
        ("cut+rst", ConnectionLost, False),
        pytest.param(
            "gzip-garbage",
            BadReply,
            None,
        ),
    ],
)
async def test_streams_that_break(
    upstream: Upstream, session: aiohttp.ClientSession, model: str, error: type[AttemptError], sent_nothing: bool | None
) -> None:
    """Whether something of an answer had come decides whether the same candidate may be asked again."""
    found = await failure(source_of(session, upstream.url), model, stream=True)
    assert isinstance(found, error)
    assert getattr(found, "sent_nothing", None) is sent_nothing


@pytest.mark.parametrize("chunk_bytes", ["event", 1, 7])
async def test_streams_come_whole(session: aiohttp.ClientSession, chunk_bytes: Any) -> None:
    """However a stream is cut on the wire, the same bytes arrive."""
    async with Upstream(chunk_bytes=chunk_bytes) as upstream, Upstream() as plain:
        raw = await read(source_of(session, upstream.url), "ok")
        assert raw == await read(source_of(session, plain.url), "ok")


async def test_nobody_listens(session: aiohttp.ClientSession) -> None:
    """A refused connection, an unknown host and a URL without a scheme are failures to connect."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/v1", "http://host.invalid/v1", "127.0.0.1/v1"):
            assert isinstance(await failure(source_of(session, url), "ok", stream=False), ConnectFailed)


async def test_a_connection_that_hangs() -> None:
    """A server that never accepts is given up after the time to connect."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with new_session(0.2) as session:
            source = source_of(session, f"http://127.0.0.1:{full.getsockname()[1]}/v1")
            assert isinstance(await failure(source, "ok", stream=False), ConnectFailed)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def tcp_server(handle: Handler) -> AsyncIterator[str]:
    """A server whose connections are handled, and closed, before it ends; gives its base URL."""
    running: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await handle(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    if running:
        await asyncio.wait(running)


@contextlib.asynccontextmanager
async def counted(url: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A TCP relay in front of a URL, and the connections that were made to it."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    made: list[int] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(len(made))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    async with tcp_server(relay) as relayed:
        yield relayed, made


@pytest.mark.parametrize("to_done", [False, True], ids=["to the end", "to [DONE]"])
async def test_connections_are_used_again(upstream: Upstream, to_done: bool) -> None:
    """Twenty streams one after the other use one connection, also when nobody reads on after [DONE]."""
    async with counted(upstream.url) as (url, made), new_session(5.0) as session:
        source = source_of(session, url)
        for _ in range(20):
            async with source.stream(call_of(stream=True), Candidate(Model("p", "ok"))) as stream:
                async for piece in stream:
                    if to_done and b"[DONE]" in piece:
                        break
            await asyncio.sleep(0.005)
    assert len(made) == 1


async def test_refusals_keep_the_connection(upstream: Upstream) -> None:
    """A refused request does not cost the connection either."""
    async with counted(upstream.url) as (url, made), new_session(5.0) as session:
        source = source_of(session, url)
        for model in ("status-400", "ok", "status-500", "ok"):
            with contextlib.suppress(Refused):
                await send(source, model)
    assert len(made) == 1


async def test_leaving_early_tells_the_upstream(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """When the work on a stream fails, the upstream sees that nobody listens any more."""
    candidate = Candidate(Model("p", "trickle+delay=0.2"))

    async def work() -> None:
        async with source_of(session, upstream.url).stream(call_of(stream=True), candidate) as stream:
            async for _ in stream:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        await work()
    assert await eventually(lambda: upstream.requests[0].disconnected, timeout_s=3.0)


async def test_an_open_end_is_given_up(upstream: Upstream) -> None:
    """A connection whose body never ends after [DONE] is waited for by nobody, and is closed after a while."""
    async with counted(upstream.url) as (url, made), new_session(5.0) as session:
        source = source_of(session, url)
        async with asyncio.timeout(5):
            async with source.stream(call_of(stream=True), Candidate(Model("p", "open-after-done"))) as stream:
                async for piece in stream:
                    if b"[DONE]" in piece:
                        break
            await send(source, "ok")
        assert len(made) == 2
        assert await eventually(lambda: upstream.requests[0].disconnected, timeout_s=3.0)


@contextlib.asynccontextmanager
async def forward_proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy for plain requests, and the URLs that were asked of it."""
    asked: list[str] = []

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(str(request.url))
        headers = {
            key: value for key, value in request.headers.items() if key.lower() not in ("host", "content-length")
        }
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, request.url, headers=headers, data=await request.read()) as answer,
        ):
            response = web.StreamResponse(status=answer.status, headers={"content-type": answer.content_type})
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    runner = web.ServerRunner(web.Server(forward))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_a_proxy_for_one_provider(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """A provider with a proxy is asked through it, its list too; other providers are not."""
    async with forward_proxy() as (proxy, asked):
        through = source_of(session, upstream.url, api_key="k", proxy=proxy)
        assert (await send(through, "ok")).body["choices"]
        assert (await read(through, "ok")).endswith(b"[DONE]\n\n")
        assert await through.models()
        assert asked == [f"{upstream.url}/chat/completions"] * 2 + [f"{upstream.url}/models"]
        await send(source_of(session, upstream.url), "ok")
        assert len(asked) == 3
    assert upstream.requests[0].key == "k"


async def test_a_proxy_that_is_not_there(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    """A proxy that cannot be reached is a failure to connect."""
    found = await failure(source_of(session, upstream.url, proxy="http://127.0.0.1:1"), "ok", stream=False)
    assert isinstance(found, ConnectFailed)


@pytest.mark.parametrize("shape", ["data", "array", "models"])
async def test_model_lists(session: aiohttp.ClientSession, shape: Any) -> None:
    """The list is fetched with the key, in any shape, and filtered."""
    async with Upstream(models=["a", "b:free", "c"], models_shape=shape) as upstream:
        source = source_of(session, upstream.url, api_key="k", model_filter=["*:free", "c", "unlisted"])
        assert [model.name for model in await source.models()] == ["p/b:free", "p/c", "p/unlisted"]
        assert upstream.requests[0].key == "k"


@pytest.mark.parametrize(
    ("fault", "error"), [("html", BadReply), ("503", Refused), ("401", Refused), ("reset", ConnectionLost)]
)
async def test_model_lists_that_fail(session: aiohttp.ClientSession, fault: str, error: type[AttemptError]) -> None:
    """A list that cannot be had raises."""
    async with Upstream(models_fault=fault) as upstream:
        with pytest.raises(error):
            await source_of(session, upstream.url).models()


def raw_server(*steps: bytes | float) -> contextlib.AbstractAsyncContextManager[str]:
    """A server that reads a request's head, writes the bytes and waits the seconds, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for step in steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await asyncio.sleep(step)

    return tcp_server(answer)


async def test_an_error_in_two_packets(session: aiohttp.ClientSession) -> None:
    """The body of an error is read to its end, however slowly it comes."""
    body = orjson.dumps({"error": {"message": "m" * 100, "code": "context_length_exceeded"}})

    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_server(head + body[:30], 0.05, body[30:]) as url:
        found = await failure(source_of(session, url), "ok", stream=False)
    assert isinstance(found, Refused)
    assert found.kind == "context_length"


@pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02\r\n\r\n"])
async def test_what_is_no_http(session: aiohttp.ClientSession, head: bytes) -> None:
    """A server that speaks something else fails the attempt."""
    async with raw_server(head) as url:
        found = await failure(source_of(session, url), "ok", stream=False)
    assert isinstance(found, BadReply | ConnectionLost)


async def test_redirects_are_not_followed(session: aiohttp.ClientSession) -> None:
    """A redirect is a refusal: a key is never carried to another host."""
    head = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(head) as url:
        found = await failure(source_of(session, url, api_key="k"), "ok", stream=False)
    assert isinstance(found, Refused)
    assert found.http_status == 307
