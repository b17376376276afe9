"""One HTTP call to a provider: keep-alive session, errors of the library mapped once to ours."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import aiohttp
from aiohttp.client_exceptions import ConnectionTimeoutError
from multidict import CIMultiDict
from yarl import URL

from llmproxy import __version__
from llmproxy.core.errors import AttemptError, BadReply, ConnectFailed, ConnectionLost
from llmproxy.core.types import DEGRADED
from llmproxy.dialects.refusals import refusal

USER_AGENT = f"llmproxy/{__version__}"

# How long an upstream may take to end a response whose last event was read, before its connection is given up.
_LINGER_S = 1.0


def new_session(connect_timeout_s: float) -> aiohttp.ClientSession:
    """The session of all providers: pooled keep-alive connections, no cookies, no limit on time but to connect."""
    environment = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy")
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        trust_env=any(os.environ.get(name) for name in environment),
        read_bufsize=1 << 17,
        max_line_size=1 << 16,
        max_field_size=1 << 16,
    )


class Request:
    """A request on its way: `async with` sends it and waits for the headers of an answer that is no error.

    Entering raises `Refused` for an error status. Iterating gives the body in pieces as they arrive; `read` gives it
    whole. Leaving before the end closes the connection, which is how an upstream learns that nobody listens.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None = None,
        proxy: str | None = None,
    ) -> None:
        self._sending = session.request(method, url, headers=headers, data=body, proxy=proxy, allow_redirects=False)
        self._response: aiohttp.ClientResponse | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}
        # Fields of the call that were left out, to be told among the headers.
        self.lost: tuple[str, ...] = ()

    async def __aenter__(self) -> Request:
        try:
            response = self._response = await self._sending
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise mapped(error, before_headers=True) from error
        self.status = response.status
        self.headers = degraded(response.headers, self.lost)
        if not 200 <= response.status < 300:
            raise await self._refused(response)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        response = self._response
        if response is None or response.content.is_eof():
            return
        if error is not None:
            response.close()
            return
        # The answer was read to its last event, but the end of the body is still under way: let it arrive by itself,
        # so that the connection can be used again, and wait for nobody.
        timer = asyncio.get_running_loop().call_later(_LINGER_S, response.close)
        response.content.on_eof(timer.cancel)

    def __aiter__(self) -> Request:
        return self

    async def __anext__(self) -> bytes:
        assert self._response is not None
        try:
            data = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise mapped(error) from error
        if not data:
            raise StopAsyncIteration
        return data

    async def read(self) -> bytes:
        """The whole body."""
        assert self._response is not None
        try:
            return await self._response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise mapped(error) from error

    async def _refused(self, response: aiohttp.ClientResponse) -> AttemptError:
        raw = b""
        try:
            async with asyncio.timeout(_LINGER_S):
                while len(raw) < 1 << 16 and (piece := await response.content.readany()):
                    raw += piece
        except (aiohttp.ClientError, OSError):
            pass  # the status, and what has come, say enough
        finally:
            response.release()
        return refusal(response.status, response.headers, raw, now=time.time())


def degraded(headers: Mapping[str, str], lost: Sequence[str]) -> Mapping[str, str]:
    """The headers of an answer, and the fields of the request that the provider could not honour."""
    return CIMultiDict([*headers.items(), (DEGRADED, ", ".join(lost))]) if lost else headers


def mapped(error: Exception, *, before_headers: bool = False) -> AttemptError:
    """An error of aiohttp or of a socket, as one of ours."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        # The reader keeps its error, and the frames of the error keep the reader.
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    match error:
        case ConnectionTimeoutError() | aiohttp.ClientConnectorError() | aiohttp.ClientHttpProxyError():
            return ConnectFailed(text)
        case aiohttp.ClientPayloadError() if "content-encoding" in text:
            return BadReply(f"the body cannot be decoded: {text}", outcome="bad_encoding")
        case aiohttp.InvalidURL() | ValueError():
            return ConnectFailed(text)
        case aiohttp.ClientResponseError():
            return BadReply(f"not HTTP: {text}", outcome="bad_http")
        case _:
            return ConnectionLost(text, sent_nothing=before_headers)
