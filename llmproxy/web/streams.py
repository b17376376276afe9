"""The client's end of a stream: an aiohttp response that is opened at the commit."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from llmproxy.core.errors import ClientGone
from llmproxy.core.types import DEGRADED, Attempt, Candidate, trail
from llmproxy.dialects.base import Renderer
from llmproxy.gateway.exchange import Head
from llmproxy.web.envelope import header_text
from llmproxy.web.spoken import id_headers


class StreamClient:
    """Implements `gateway.exchange.Client` over one request; `renderer` writes another dialect than OpenAI's."""

    def __init__(
        self,
        request: web.Request,
        request_id: str,
        renderer: Renderer | None = None,
        unheard: tuple[str, ...] = (),
    ) -> None:
        self._request = request
        self._id = request_id
        self._renderer = renderer
        self._unheard = unheard
        self.response: web.StreamResponse | None = None

    async def open(self, head: Head) -> None:
        """Send status and headers."""
        headers = id_headers(self._request, self._id)
        if head.candidate is not None:
            headers |= answer_headers(head.candidate, head.reason, head.attempts, self._unheard, head.headers)
        headers["Content-Type"] = head.content_type if self._renderer is None else self._renderer.content_type
        if headers["Content-Type"].startswith("text/event-stream"):
            headers["Cache-Control"] = "no-cache"
            headers["X-Accel-Buffering"] = "no"
        self.response = web.StreamResponse(status=head.status, headers=headers)
        try:
            await self.response.prepare(self._request)
        except ConnectionResetError as error:
            raise ClientGone("the client closed the connection") from error

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client is slower than the source."""
        assert self.response is not None
        if self._renderer is not None and not (data := self._renderer.feed(data)):
            return
        try:
            await self.response.write(data)
        except ConnectionResetError as error:
            raise ClientGone("the client closed the connection") from error

    async def finish(self, data: bytes) -> None:
        """Send the last bytes and the end of the response in one go."""
        assert self.response is not None
        if self._renderer is not None:
            data = self._renderer.feed(data) + self._renderer.finish()
        try:
            await self.response.write_eof(data)
        except ConnectionResetError as error:
            raise ClientGone("the client closed the connection") from error

    def abort(self) -> None:
        """Break the connection off, so that the client cannot take what it has for the whole."""
        if self._request.transport is not None:
            self._request.transport.abort()


def answer_headers(
    candidate: Candidate,
    reason: str,
    attempts: tuple[Attempt, ...],
    unheard: tuple[str, ...],
    headers: Mapping[str, str],
) -> dict[str, str]:
    """Who answered and why, and what of the request could not be honoured.

    `unheard`: by anybody here; of `headers`, those of the answer, one says what could not be by who gave it.
    """
    told = {
        "x-llmproxy-selected-model": header_text(candidate.model.name),
        "x-llmproxy-route-reason": header_text(reason),
        "x-llmproxy-attempts": str(len(attempts)),
        "x-llmproxy-trail": header_text(trail(attempts)),
    }
    if lost := ", ".join(part for part in (*unheard, headers.get(DEGRADED, "")) if part):
        told[DEGRADED] = header_text(lost)
    return told
