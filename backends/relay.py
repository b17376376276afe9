"""A model that an OpenAI-compatible server has: calls go there, its bytes come back. Stands where a worker stands."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping

import aiohttp
import orjson
from aiohttp.client_exceptions import ConnectionTimeoutError

from llmproxy.core.env import MissingVariable, Secret, expand
from llmproxy.core.errors import ConnectFailed, ConnectionLost, Refused
from llmproxy.core.types import JsonObject
from llmproxy.dialects.refusals import refusal

_PATHS = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings", "rerank": "/rerank"}
_CONNECT_S = 5.0
_ERROR_BYTES = 1 << 16


class Relay:
    """One model of one server that runs already. `base_url` and `key` may hold `${VAR}`, read when used."""

    def __init__(self, name: str, base_url: str, model: str, key: Secret | None = None) -> None:
        self.name = name
        self.memory_bytes: Mapping[str, int] = {}  # it takes none here
        self.waiting = 0
        self._base_url = base_url.rstrip("/")
        self._model = model
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Nothing to load."""

    @property
    def state(self) -> str:
        """Always `ready`: whether the server answers is told by each call."""
        return "ready"

    async def run(self, request: JsonObject) -> AsyncGenerator[bytes, None]:
        """Send `request["body"]`, the client's own, under the model's name there; give the answer piece by piece.

        `endpoint` is `chat`, `completions`, `embeddings` or `rerank`; with `stream` the pieces are server-sent events.
        Leaving early closes the connection, which is how a server learns that nobody waits. Raises `AttemptError`.
        """
        endpoint = request["endpoint"]
        if endpoint not in _PATHS:
            raise Refused(f"{self.name} does not serve this endpoint", kind="unsupported", http_status=400)
        body: JsonObject = {**request["body"], "model": self._model}
        if request["stream"]:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        url, headers = self._target(_PATHS[endpoint])
        session = self._session = self._session or _new_session()
        try:
            async with session.post(url, data=orjson.dumps(body), headers=headers) as response:
                if not 200 <= response.status < 300:
                    raw = await response.content.read(_ERROR_BYTES)
                    raise refusal(response.status, response.headers, raw, now=time.time())
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientConnectorError, ConnectionTimeoutError) as error:
            raise ConnectFailed(f"{self.name}: {error}") from error
        except (aiohttp.ClientError, OSError, RuntimeError) as error:  # the last of a session that was closed
            raise ConnectionLost(f"{self.name}: {type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        """Close the connections; calls in flight fail."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _target(self, path: str) -> tuple[str, dict[str, str]]:
        headers = {"Content-Type": "application/json"}
        try:
            url = expand(self._base_url) + path
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key.reveal()}"
        except MissingVariable as missing:
            raise Refused(f"{self.name}: {missing}", kind="server", http_status=503, code="not_configured") from missing
        return url, headers


def _new_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=1 << 17,
    )
