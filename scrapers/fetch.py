"""Reads pages politely: one request per host at a time, with a pause; only what changed; only what robots.txt allows.

`Fetcher.get` ends in a `Fetched` or a `FetchFailed`. The addresses in messages have no query and no user: a key may
stand there. Redirects are followed here, since each new host has rules of its own and is given no key of another.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from yarl import URL

from llmproxy import __version__
from llmproxy.core.retry import backoff
from llmproxy.core.text import scrub
from llmproxy.dialects.waits import parse_wait_s
from scrapers import robots as rules_of
from scrapers.robots import Robots

PRODUCT = "llmproxy"
USER_AGENT = f"{PRODUCT}/{__version__} (refreshes free limits)"

_NO_HEADERS: Mapping[str, str] = {}
_GOOD = frozenset({200, 203})
_MOVED = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_LONGEST_WAIT_S = 60.0
_ROBOTS_HOLD_S = 86_400.0
# A robots.txt that could not be read is tried again in the next run, but not for each page of this one.
_NO_ROBOTS_HOLD_S = 300.0
_PRIVATE = re.compile(r"key|token|secret|passw|auth|sign", re.IGNORECASE)
_ENCODINGS = frozenset({"", "identity", "gzip", "deflate", "br", "zstd"})


@dataclass(frozen=True, slots=True)
class Fetched:
    """One answer. `raw` is the decoded body, or None where nothing changed since `etag` or `last_modified`.

    `url` is the address that answered, after redirects and without keys.
    """

    url: str
    raw: bytes | None
    etag: str
    last_modified: str
    fetched_at_s: float


class FetchFailed(Exception):
    """A page could not be read; the message says which and why. `status` is what was answered, if anything was."""

    def __init__(self, reason: str, *, url: URL | None = None, status: int | None = None) -> None:
        super().__init__(f"{_shown(url)}: {reason}" if url else reason)
        self.status = status


class _Again(FetchFailed):
    """It may go well the next time."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of each host on the way; `private` headers go to the first origin only."""

    headers: Mapping[str, str]
    private: Mapping[str, str]
    max_bytes: int
    robots: bool = True
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Answer:
    url: URL
    status: int
    headers: Mapping[str, str]
    raw: bytes


@dataclass(slots=True)
class _Host:
    """Whose turn it is with a host, and the time before which no request to it starts."""

    gap_s: float
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    not_before_s: float = 0.0


@dataclass(slots=True)
class _Site:
    """What is known of an origin's robots.txt; `refusal` tells why nothing may be asked for now."""

    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    robots: Robots = field(default_factory=Robots)
    refusal: str = ""
    read_s: float = 0.0
    hold_s: float = 0.0


class Fetcher:
    """Fetches with GET over `session`.

    now: Unix time in seconds; also the clock that paces. pace_s: between the starts of two requests to a host; a
    Crawl-delay may make it longer. timeout_s: of one attempt, body included. max_bytes: of a body, decompressed.
    attempts: in all, 1 means no retry.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        now: Callable[[], float],
        pace_s: float = 2.0,
        timeout_s: float = 30.0,
        max_bytes: int = 16 << 20,
        attempts: int = 3,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._now = now
        self._pace_s = pace_s
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._attempts = attempts
        self._sleep = sleep
        self._hosts: dict[str, _Host] = {}
        self._sites: dict[URL, _Site] = {}

    async def get(
        self,
        url: str,
        *,
        etag: str = "",
        last_modified: str = "",
        headers: Mapping[str, str] | None = None,
        accept: str = "*/*",
        robots: bool = True,
    ) -> Fetched:
        """The page at `url`; raises `FetchFailed`.

        etag, last_modified: of what is known already. headers: more of them, such as Authorization; they are not
        sent on to another origin. robots: False for calls that a user makes with their own key.
        """
        known = {"If-None-Match": _sendable(etag), "If-Modified-Since": _sendable(last_modified)}
        known = {name: value for name, value in known.items() if value}
        request = _Request({"Accept": accept, **known}, headers or _NO_HEADERS, self._max_bytes, robots)
        answer = await self._follow(_address(url), request)
        unchanged = answer.status == HTTPStatus.NOT_MODIFIED
        if unchanged and not known:
            raise FetchFailed("says that nothing changed, but nothing was known of it", url=answer.url, status=304)
        return Fetched(
            _kept(answer.url),
            None if unchanged else answer.raw,
            _sendable(answer.headers.get("ETag", "")) or (etag if unchanged else ""),
            _sendable(answer.headers.get("Last-Modified", "")) or (last_modified if unchanged else ""),
            self._now(),
        )

    async def _follow(self, url: URL, request: _Request) -> _Answer:
        """The answer at the end of the redirects."""
        first = url
        for _ in range(_MAX_REDIRECTS + 1):
            if request.robots:
                await self._permit(url)
            private = request.private if url.origin() == first.origin() else _NO_HEADERS
            answer = await self._persist(url, {**request.headers, **private, "User-Agent": USER_AGENT}, request)
            if answer.status not in _MOVED:
                return answer
            url = _onward(answer)
        raise FetchFailed(f"redirects more than {_MAX_REDIRECTS} times", url=first)

    async def _persist(self, url: URL, headers: Mapping[str, str], request: _Request) -> _Answer:
        # The waits between attempts are the caller's to measure, as all others here.
        async for attempt in backoff(_Again, attempts=self._attempts).copy(sleep=self._sleep):
            with attempt:
                return await self._once(url, headers, request)
        raise AssertionError("backoff ends with an answer or an error")

    async def _once(self, url: URL, headers: Mapping[str, str], request: _Request) -> _Answer:
        host = self._hosts.setdefault(url.host or "", _Host(self._pace_s))
        async with host.turn:
            await self._pace(host)
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            try:
                async with self._session.get(url, headers=headers, allow_redirects=False, timeout=timeout) as response:
                    self._judge(url, response, host)
                    raw = await _body(url, response, request) if response.status in _GOOD else b""
                    return _Answer(url, response.status, response.headers, raw)
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # Not `from error`: a traceback would print its text, which may hold the whole address.
                raise self._failure(url, error) from None

    async def _pace(self, host: _Host) -> None:
        wait_s = host.not_before_s - self._now()
        if wait_s > 0:  # bounded, for a clock that was set back
            await self._sleep(min(wait_s, max(host.gap_s, _LONGEST_WAIT_S)))
        host.not_before_s = self._now() + host.gap_s

    def _judge(self, url: URL, response: aiohttp.ClientResponse, host: _Host) -> None:
        """Raise for a status that is no answer; a stated wait holds for all requests to the host."""
        status = response.status
        if status in _GOOD or status in _MOVED or status == HTTPStatus.NOT_MODIFIED:
            return
        reason = f"answered {status}{_phrase(status)}"
        if status not in (408, 429) and status < 500:
            raise FetchFailed(reason, url=url, status=status)
        wait_s = parse_wait_s(response.headers.get("Retry-After", ""), now=self._now()) or 0.0
        if wait_s > _LONGEST_WAIT_S:
            raise FetchFailed(f"{reason} and wants {wait_s:.0f} s of rest", url=url, status=status)
        host.not_before_s = max(host.not_before_s, self._now() + wait_s)
        raise _Again(reason, url=url, status=status)

    def _failure(self, url: URL, error: Exception) -> FetchFailed:
        match error:
            case TimeoutError():
                return _Again(f"took longer than {self._timeout_s:g} s", url=url)
            case aiohttp.ClientSSLError():
                return FetchFailed(f"the secure connection failed ({type(error).__name__})", url=url)
            case aiohttp.ClientPayloadError() if "content-encoding" in str(error):
                return FetchFailed("the body is not encoded as its header says", url=url)
            case aiohttp.ClientPayloadError():
                return _Again("the body ended too early", url=url)
            case aiohttp.ClientResponseError():
                return FetchFailed("the answer is not HTTP", url=url)
            case aiohttp.InvalidURL() | ValueError():
                return FetchFailed("cannot be asked for: the address or a header is not valid", url=url)
            case _:
                detail = getattr(error, "strerror", None) or type(error).__name__
                return _Again(f"the connection failed ({detail})", url=url)

    async def _permit(self, url: URL) -> None:
        """Raise `FetchFailed` unless the robots.txt of the origin allows `url`."""
        site = self._sites.setdefault(url.origin(), _Site())
        async with site.asking:
            if not 0 <= self._now() - site.read_s < site.hold_s:
                await self._read_robots(url, site)
        if site.refusal:
            raise FetchFailed(f"not fetched for now: {site.refusal}", url=url)
        if not site.robots.allows(url.raw_path_qs):
            raise FetchFailed("not fetched: its robots.txt does not allow it", url=url)

    async def _read_robots(self, url: URL, site: _Site) -> None:
        request = _Request({"Accept": "text/plain, */*;q=0.5"}, _NO_HEADERS, rules_of.MAX_BYTES, robots=False, cut=True)
        robots, refusal = Robots(), ""
        try:
            answer = await self._follow(url.origin() / "robots.txt", request)
            robots = rules_of.read(answer.raw, PRODUCT)
        except FetchFailed as error:
            # RFC 9309 §2.3.1: there is none (4xx, an empty answer), or nobody can tell. A host that wants to be asked
            # less often (429) has not said that there is none.
            status = error.status or 0
            if not (200 <= status < 300 or 400 <= status < 500) or status in (408, 429):
                refusal = str(error)
        site.robots, site.refusal, site.read_s = robots, refusal, self._now()
        site.hold_s = _NO_ROBOTS_HOLD_S if refusal else _ROBOTS_HOLD_S
        host = self._hosts.setdefault(url.host or "", _Host(self._pace_s))
        host.gap_s = max(self._pace_s, robots.delay_s)


async def _body(url: URL, response: aiohttp.ClientResponse, request: _Request) -> bytes:
    """The decoded body, of which never much more than the limit is in memory."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise FetchFailed(f"the body has an encoding that was not asked for ({encoding[:20]!r})", url=url)
    too_large = FetchFailed(f"the body is larger than {request.max_bytes / 2**20:g} MiB", url=url)
    if (response.content_length or 0) > request.max_bytes and not request.cut:
        raise too_large
    raw = bytearray()
    while len(raw) <= request.max_bytes and (piece := await response.content.readany()):
        raw += piece
    if len(raw) > request.max_bytes and not request.cut:
        raise too_large
    return bytes(raw)


def _onward(answer: _Answer) -> URL:
    """Where a redirect leads."""
    try:
        target = answer.url.join(URL(answer.headers["Location"]))
    except (KeyError, ValueError):
        raise FetchFailed("redirects to nowhere", url=answer.url, status=answer.status) from None
    if target.scheme not in ("http", "https") or not target.host:
        raise FetchFailed("redirects to something that is not http(s)", url=answer.url, status=answer.status)
    return target.with_user(None).with_fragment(None)


def _address(url: str) -> URL:
    try:
        address = URL(url)
    except ValueError:
        address = URL()
    if address.scheme not in ("http", "https") or not address.host:
        raise FetchFailed("not an http(s) address")
    return address.with_fragment(None)


def _shown(url: URL) -> str:
    """An address as it may be told to others."""
    return str(url.with_user(None).with_query(None).with_fragment(None))[:200]


def _kept(url: URL) -> str:
    """An address as it may be written down: without user, and without keys in its query."""
    url = url.with_user(None)
    if any(_PRIVATE.search(name) for name in url.query):
        url = url.with_query([(name, value) for name, value in url.query.items() if not _PRIVATE.search(name)])
    return scrub(str(url))


def _sendable(value: str) -> str:
    """A validator that can go into a header as it came; others are forgotten."""
    return value if value.isascii() and value.isprintable() else ""


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""
