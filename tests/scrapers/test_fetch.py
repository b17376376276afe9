"""Fetching over real HTTP, with a server that says what each test wants and a clock that only sleeps move."""

from __future__ import annotations

import asyncio
import gzip
import traceback
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise
from typing import Self

import aiohttp
import pytest
from aiohttp import web

from llmproxy import __version__
from scrapers.fetch import Fetcher, FetchFailed
from tests.servers import unreachable

START_S = 1_750_000_000.0
SECRET = "sk-very-secret-0123456789"


@dataclass
class Clock:
    """A time that passes only by sleeping."""

    now_s: float = START_S
    slept_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Say:
    """One reply; `cut` promises more than it sends, `hang` sends nothing until the server ends."""

    body: bytes = b"page"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False


def moved(to: str, status: int = 302) -> Say:
    return Say(b"", status, {"Location": to})


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    at_s: float


class Site:
    """A host. `says` has the replies to each path, of which the last is repeated; all else is a 404."""

    def __init__(self, clock: Clock) -> None:
        self.says: dict[str, list[Say]] = {}
        self.seen: list[Seen] = []
        self.url = ""
        self.busiest = 0
        self._busy = 0
        self._clock = clock
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        await self._runner.cleanup()

    def paths(self) -> list[str]:
        return [seen.path for seen in self.seen if seen.path != "/robots.txt"]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path, headers, self._clock()))
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        try:
            says = self.says.get(request.path) or [Say(b"", 404)]
            return await self._say(request, says.pop(0) if len(says) > 1 else says[0])
        finally:
            self._busy -= 1

    async def _say(self, request: web.Request, say: Say) -> web.StreamResponse:
        if say.hang:
            await self._ending.wait()
        if not say.cut:
            for _ in range(5):  # so that another request, if there were one, could arrive
                await asyncio.sleep(0)
            return web.Response(body=say.body, status=say.status, headers=say.headers)
        response = web.StreamResponse(status=say.status, headers=say.headers)
        response.content_length = len(say.body) + 100
        await response.prepare(request)
        await response.write(say.body)
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def sites(clock: Clock) -> AsyncIterator[list[Site]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Site(clock)) for _ in range(2)]


@pytest.fixture
def site(sites: list[Site]) -> Site:
    return sites[0]


@pytest.fixture
def other(sites: list[Site]) -> Site:
    return sites[1]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def fetcher(session: aiohttp.ClientSession, clock: Clock) -> Fetcher:
    return Fetcher(session, now=clock, sleep=clock.sleep, max_bytes=1 << 20)


@asynccontextmanager
async def speaking(reply: bytes) -> AsyncIterator[str]:
    """A host that sends the same bytes to whoever asks."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_page_comes_with_what_makes_the_next_request_cheap(fetcher: Fetcher, site: Site) -> None:
    """The body, its validators and the time are there, and the host was told who asks and for what."""
    site.says["/page"] = [Say(b"hello", headers={"ETag": 'W/"1"', "Last-Modified": "Wed, 17 Jun 2026 04:17:00 GMT"})]
    got = await fetcher.get(f"{site.url}/page#part", accept="text/html")
    assert (got.url, got.raw, got.etag) == (f"{site.url}/page", b"hello", 'W/"1"')
    assert got.last_modified == "Wed, 17 Jun 2026 04:17:00 GMT"
    asked = site.seen[-1].headers
    assert asked["user-agent"].startswith(f"llmproxy/{__version__} ")
    assert asked["accept"] == "text/html"
    assert "if-none-match" not in asked
    assert got.fetched_at_s == site.seen[-1].at_s


async def test_what_did_not_change_is_not_sent_again(fetcher: Fetcher, site: Site) -> None:
    """A 304 to a conditional request has no body, and the validators stay known."""
    site.says["/page"] = [Say(b"", 304)]
    got = await fetcher.get(f"{site.url}/page", etag='"1"', last_modified="Wed, 17 Jun 2026 04:17:00 GMT")
    assert (got.raw, got.etag, got.last_modified) == (None, '"1"', "Wed, 17 Jun 2026 04:17:00 GMT")
    assert site.seen[-1].headers["if-none-match"] == '"1"'
    assert site.seen[-1].headers["if-modified-since"] == "Wed, 17 Jun 2026 04:17:00 GMT"


async def test_unchanged_without_a_question_is_no_answer(fetcher: Fetcher, site: Site) -> None:
    """A 304 to a request without validators fails: there is nothing that it could stand for."""
    site.says["/page"] = [Say(b"", 304)]
    with pytest.raises(FetchFailed, match="nothing was known"):
        await fetcher.get(f"{site.url}/page")


async def test_validators_that_are_no_header_are_forgotten(fetcher: Fetcher, site: Site) -> None:
    """A validator with a line break or odd bytes is not sent, and the page is read whole."""
    site.says["/page"] = [Say()]
    got = await fetcher.get(f"{site.url}/page", etag='"1"\r\nX-More: 1', last_modified="\udcff")
    assert got.raw == b"page"
    assert not {"if-none-match", "if-modified-since", "x-more"} & site.seen[-1].headers.keys()


@pytest.mark.parametrize("status", [408, 429, 500, 503, 599])
async def test_a_passing_error_is_tried_again(fetcher: Fetcher, site: Site, status: int) -> None:
    """A status that may pass is followed by another try, which counts."""
    site.says["/page"] = [Say(b"", status), Say(b"there")]
    assert (await fetcher.get(f"{site.url}/page")).raw == b"there"
    assert site.paths() == ["/page", "/page"]


async def test_tries_come_to_an_end(session: aiohttp.ClientSession, site: Site, clock: Clock) -> None:
    """After `attempts` in all, with a wait before each but the first, the last error comes out with its status."""
    fetcher = Fetcher(session, now=clock, sleep=clock.sleep, pace_s=0.0)
    site.says["/page"] = [Say(b"", 503)]
    with pytest.raises(FetchFailed, match=r"/page: answered 503 \(Service Unavailable\)") as caught:
        await fetcher.get(f"{site.url}/page", robots=False)
    assert caught.value.status == 503
    assert (len(site.paths()), len(clock.slept_s)) == (3, 2)


@pytest.mark.parametrize("stated", ["40", "date"])
async def test_a_stated_wait_is_kept(fetcher: Fetcher, site: Site, stated: str) -> None:
    """`Retry-After`, in seconds or as a date, holds the next request back for that long."""
    date = format_datetime(datetime.fromtimestamp(START_S + 50, UTC), usegmt=True)
    site.says["/page"] = [Say(b"", 429, {"Retry-After": date if stated == "date" else stated}), Say(b"there")]
    assert (await fetcher.get(f"{site.url}/page", robots=False)).raw == b"there"
    first, second = (seen.at_s for seen in site.seen)
    assert second - first == pytest.approx(50.0 if stated == "date" else 40.0, abs=0.01)


async def test_a_wait_beyond_a_minute_fails_the_source(fetcher: Fetcher, site: Site, clock: Clock) -> None:
    """A host that wants more than 60 s of rest is left alone at once."""
    site.says["/page"] = [Say(b"", 429, {"Retry-After": "61"})]
    with pytest.raises(FetchFailed, match="wants 61 s of rest") as caught:
        await fetcher.get(f"{site.url}/page", robots=False)
    assert caught.value.status == 429
    assert (site.paths(), clock.slept_s) == (["/page"], [])


@pytest.mark.parametrize("status", [204, 300, 400, 401, 403, 404, 410, 451])
async def test_another_status_fails_at_once(fetcher: Fetcher, site: Site, status: int) -> None:
    """A status that will not pass is told as it is, after one request."""
    site.says["/page"] = [Say(b"", status)]
    with pytest.raises(FetchFailed, match=f"/page: answered {status} ") as caught:
        await fetcher.get(f"{site.url}/page")
    assert caught.value.status == status
    assert site.paths() == ["/page"]


async def test_a_host_that_is_not_there_is_tried_again(fetcher: Fetcher, clock: Clock) -> None:
    """A connection that fails is tried as often as an error status, and the reason is told."""
    with unreachable() as nowhere, pytest.raises(FetchFailed, match="the connection failed") as caught:
        await fetcher.get(f"{nowhere}/page", robots=False)
    assert caught.value.status is None
    assert len(clock.slept_s) >= 2


async def test_half_a_body_is_tried_again(fetcher: Fetcher, site: Site) -> None:
    """A body that ends before its length is no answer; a whole one after it is."""
    site.says["/page"] = [Say(b"half", cut=True), Say(b"whole")]
    assert (await fetcher.get(f"{site.url}/page")).raw == b"whole"
    site.says["/page"] = [Say(b"half", cut=True)]
    with pytest.raises(FetchFailed, match="ended too early"):
        await fetcher.get(f"{site.url}/page")


async def test_silence_ends(session: aiohttp.ClientSession, site: Site, clock: Clock) -> None:
    """An attempt lasts `timeout_s` at most."""
    fetcher = Fetcher(session, now=clock, sleep=clock.sleep, timeout_s=0.1, attempts=2)
    site.says["/page"] = [Say(hang=True)]
    with pytest.raises(FetchFailed, match=r"took longer than 0\.1 s"):
        await fetcher.get(f"{site.url}/page", robots=False)
    assert site.paths() == ["/page", "/page"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(fetcher: Fetcher, site: Site, status: int) -> None:
    """The page at the end counts, under the address that answered."""
    site.says |= {"/old": [moved("/new?a=1", status)], "/new": [Say(b"here")]}
    got = await fetcher.get(f"{site.url}/old")
    assert (got.url, got.raw) == (f"{site.url}/new?a=1", b"here")


async def test_five_redirects_are_followed_and_no_more(fetcher: Fetcher, site: Site) -> None:
    """The sixth redirect ends a chain, and so a loop too."""
    site.says |= {f"/{step}": [moved(f"/{step + 1}")] for step in range(6)} | {"/6": [Say(b"end")]}
    assert (await fetcher.get(f"{site.url}/1")).raw == b"end"
    with pytest.raises(FetchFailed, match=r"/0: redirects more than 5 times"):
        await fetcher.get(f"{site.url}/0")
    site.seen.clear()
    site.says["/loop"] = [moved("/loop")]
    with pytest.raises(FetchFailed, match="more than 5 times"):
        await fetcher.get(f"{site.url}/loop")
    assert len(site.paths()) == 6


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://a.example/x", "javascript:alert(1)", "https://", "//[", None]
)
async def test_a_redirect_leads_to_http_only(fetcher: Fetcher, site: Site, to: str | None) -> None:
    """Any other kind of address, or none, ends the request with a reason."""
    site.says["/old"] = [Say(b"", 302, {"Location": to} if to else {})]
    with pytest.raises(FetchFailed, match=r"redirects to (nowhere|something)"):
        await fetcher.get(f"{site.url}/old")


async def test_a_key_goes_to_its_own_host_only(fetcher: Fetcher, site: Site, other: Site) -> None:
    """The headers of the caller follow a redirect within an origin, and none leads them to another one."""
    site.says |= {"/old": [moved("/new")], "/new": [moved(f"{other.url}/away")]}
    other.says["/away"] = [Say(b"elsewhere")]
    keys = {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET}
    got = await fetcher.get(f"{site.url}/old", headers=keys, etag='"1"')
    assert got.raw == b"elsewhere"
    assert [seen.headers.get("x-api-key") for seen in site.seen if seen.path in ("/old", "/new")] == [SECRET, SECRET]
    assert all("authorization" not in seen.headers for seen in site.seen if seen.path == "/robots.txt")
    assert not {"authorization", "x-api-key"} & other.seen[-1].headers.keys()
    assert other.seen[-1].headers["if-none-match"] == '"1"'
    assert SECRET not in str([seen.headers for seen in other.seen])


async def test_what_robots_txt_forbids_is_not_asked_for(fetcher: Fetcher, site: Site) -> None:
    """The path of a rule is never requested, its neighbours are, and robots.txt is read once."""
    site.says |= {"/robots.txt": [Say(b"User-agent: *\nAllow: /\nDisallow: /private")], "/page": [Say()]}
    with pytest.raises(FetchFailed, match=r"/private/x: not fetched: its robots\.txt does not allow it"):
        await fetcher.get(f"{site.url}/private/x")
    assert (await fetcher.get(f"{site.url}/page")).raw == b"page"
    assert [seen.path for seen in site.seen] == ["/robots.txt", "/page"]


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410])
async def test_without_a_robots_txt_all_is_allowed(fetcher: Fetcher, site: Site, status: int) -> None:
    """A 4xx, or an empty answer, means that there are no rules."""
    site.says |= {"/robots.txt": [Say(b"", status)], "/page": [Say()]}
    assert (await fetcher.get(f"{site.url}/page")).raw == b"page"


@pytest.mark.parametrize("say", [Say(b"", 500), Say(b"", 429), Say(b"half", cut=True), moved("/robots.txt")])
async def test_rules_that_cannot_be_read_allow_nothing_for_now(
    fetcher: Fetcher, site: Site, clock: Clock, say: Say
) -> None:
    """While robots.txt fails no page is asked for; some minutes later it is read again."""
    site.says |= {"/robots.txt": [say], "/page": [Say()]}
    for _ in range(2):
        with pytest.raises(FetchFailed, match=r"/page: not fetched for now: .*/robots\.txt: "):
            await fetcher.get(f"{site.url}/page")
    assert site.paths() == []
    asked = len(site.seen)
    assert asked <= 6
    site.says["/robots.txt"] = [Say(b"User-agent: *\nDisallow: /else")]
    clock.now_s += 301
    assert (await fetcher.get(f"{site.url}/page")).raw == b"page"
    assert len(site.seen) == asked + 2


async def test_an_unreachable_host_has_no_rules_that_allow(fetcher: Fetcher) -> None:
    """A host that cannot be asked for its rules is not asked for a page."""
    with unreachable() as nowhere, pytest.raises(FetchFailed, match="not fetched for now"):
        await fetcher.get(f"{nowhere}/page")


async def test_rules_are_known_for_a_day(fetcher: Fetcher, site: Site, clock: Clock) -> None:
    """robots.txt is read again after 24 hours, and its new rules count."""
    site.says |= {"/robots.txt": [Say(b""), Say(b"User-agent: llmproxy\nDisallow: /")], "/page": [Say()]}
    await fetcher.get(f"{site.url}/page")
    clock.now_s += 86_000
    await fetcher.get(f"{site.url}/page")
    clock.now_s += 401
    with pytest.raises(FetchFailed, match="does not allow it"):
        await fetcher.get(f"{site.url}/page")
    assert [seen.path for seen in site.seen] == ["/robots.txt", "/page", "/page", "/robots.txt"]


async def test_two_pages_at_once_read_the_rules_once(fetcher: Fetcher, site: Site) -> None:
    """Who comes while robots.txt is being read waits for it."""
    site.says |= {"/a": [Say()], "/b": [Say()]}
    await asyncio.gather(fetcher.get(f"{site.url}/a"), fetcher.get(f"{site.url}/b"))
    assert sorted(seen.path for seen in site.seen) == ["/a", "/b", "/robots.txt"]


async def test_a_users_own_calls_ask_no_robots_txt(fetcher: Fetcher, site: Site) -> None:
    """With `robots=False` nothing but the page is requested."""
    site.says |= {"/robots.txt": [Say(b"User-agent: *\nDisallow: /")], "/v1/models": [Say(b"{}")]}
    assert (await fetcher.get(f"{site.url}/v1/models", robots=False)).raw == b"{}"
    assert [seen.path for seen in site.seen] == ["/v1/models"]


async def test_a_redirect_to_another_host_asks_its_rules(fetcher: Fetcher, site: Site, other: Site) -> None:
    """The page of a host is not read because another host points at it."""
    site.says["/old"] = [moved(f"{other.url}/private")]
    other.says |= {"/robots.txt": [Say(b"User-agent: *\nDisallow: /private")], "/private": [Say()]}
    with pytest.raises(FetchFailed, match="does not allow it"):
        await fetcher.get(f"{site.url}/old")
    assert other.paths() == []


async def test_rules_may_lie_elsewhere(fetcher: Fetcher, site: Site, other: Site) -> None:
    """A robots.txt behind a redirect holds for the host that was asked."""
    site.says |= {"/robots.txt": [moved(f"{other.url}/rules")], "/private": [Say()]}
    other.says["/rules"] = [Say(b"User-agent: *\nDisallow: /private")]
    with pytest.raises(FetchFailed, match="does not allow it"):
        await fetcher.get(f"{site.url}/private")
    assert site.paths() == []


async def test_a_huge_robots_txt_is_read_in_part(fetcher: Fetcher, site: Site) -> None:
    """No more than 512 KiB of it count, compressed or not, and it is no error."""
    padded = b"User-agent: *\nDisallow: /first\n" + b"#\n" * (300 << 10) + b"Disallow: /last\n"
    site.says |= {
        "/robots.txt": [Say(gzip.compress(padded), headers={"Content-Encoding": "gzip"})],
        "/last": [Say(b"read")],
    }
    assert (await fetcher.get(f"{site.url}/last")).raw == b"read"
    with pytest.raises(FetchFailed, match="does not allow it"):
        await fetcher.get(f"{site.url}/first")


async def test_requests_to_a_host_come_one_by_one(fetcher: Fetcher, site: Site) -> None:
    """Two requests never run at once, and `pace_s` lies between their starts."""
    site.says["/page"] = [Say()]
    await asyncio.gather(*(fetcher.get(f"{site.url}/page") for _ in range(4)))
    starts_s = [seen.at_s for seen in site.seen]
    assert site.busiest == 1
    assert len(starts_s) == 5
    assert all(later - earlier == pytest.approx(2.0) for earlier, later in pairwise(starts_s))


async def test_a_host_that_rested_is_asked_at_once(fetcher: Fetcher, site: Site, clock: Clock) -> None:
    """The time that went by anyway counts as a pause."""
    site.says["/page"] = [Say()]
    await fetcher.get(f"{site.url}/page", robots=False)
    clock.now_s += 1.5
    await fetcher.get(f"{site.url}/page", robots=False)
    clock.now_s += 2.5
    await fetcher.get(f"{site.url}/page", robots=False)
    assert clock.slept_s == [pytest.approx(0.5)]


async def test_hosts_do_not_wait_for_each_other(fetcher: Fetcher, site: Site, clock: Clock) -> None:
    """Only requests to the same host are kept apart."""
    site.says["/page"] = [Say()]
    await fetcher.get(f"{site.url}/page", robots=False)
    await fetcher.get(f"{site.url.replace('127.0.0.1', 'localhost')}/page", robots=False)
    assert clock.slept_s == []


@pytest.mark.parametrize(("asked", "kept_s"), [("7", 7.0), ("1", 2.0), ("9999", 30.0)])
async def test_a_longer_pause_may_be_asked_for(fetcher: Fetcher, site: Site, asked: str, kept_s: float) -> None:
    """A Crawl-delay makes the pause longer, within bounds, and never shorter."""
    site.says |= {"/robots.txt": [Say(f"User-agent: *\nCrawl-delay: {asked}".encode())], "/page": [Say()]}
    for _ in range(2):
        await fetcher.get(f"{site.url}/page")
    _, first, second = (seen.at_s for seen in site.seen)
    assert second - first == pytest.approx(kept_s)


async def test_a_clock_that_is_set_back_stops_nothing(fetcher: Fetcher, site: Site, clock: Clock) -> None:
    """The pause is then a minute at most, not as long as the clock was wrong."""
    site.says["/page"] = [Say()]
    await fetcher.get(f"{site.url}/page", robots=False)
    clock.now_s -= 86_400
    await fetcher.get(f"{site.url}/page", robots=False)
    assert sum(clock.slept_s) <= 60


async def test_who_gives_up_frees_the_host(fetcher: Fetcher, site: Site) -> None:
    """After a request was cancelled the next one to its host goes through."""
    site.says |= {"/slow": [Say(hang=True)], "/page": [Say()]}
    slow = asyncio.create_task(fetcher.get(f"{site.url}/slow", robots=False))
    while not site.seen:  # noqa: ASYNC110 - arrival at a real socket has no event
        await asyncio.sleep(0)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert (await fetcher.get(f"{site.url}/page", robots=False)).raw == b"page"


async def test_a_gzip_bomb_does_not_unfold(fetcher: Fetcher, site: Site) -> None:
    """The limit holds for what comes out of the compression, and no more than a part of it is ever in memory."""
    bomb = gzip.compress(bytes(64 << 20))
    site.says["/bomb"] = [Say(bomb, headers={"Content-Encoding": "gzip"})]
    tracemalloc.start()
    try:
        with pytest.raises(FetchFailed, match="larger than 1 MiB"):
            await fetcher.get(f"{site.url}/bomb", robots=False)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert site.paths() == ["/bomb"]


async def test_a_compressed_page_is_unfolded(fetcher: Fetcher, site: Site) -> None:
    """What the caller gets is the page itself."""
    site.says["/page"] = [Say(gzip.compress(b"hello" * 1000), headers={"Content-Encoding": "gzip"})]
    assert (await fetcher.get(f"{site.url}/page")).raw == b"hello" * 1000


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
async def test_the_limit_is_exact(fetcher: Fetcher, site: Site, size: int) -> None:
    """A body of `max_bytes` is read, one more byte fails."""
    site.says["/page"] = [Say(b"x" * size)]
    if size == 1 << 20:
        assert len((await fetcher.get(f"{site.url}/page")).raw or b"") == size
    else:
        with pytest.raises(FetchFailed, match="larger than 1 MiB"):
            await fetcher.get(f"{site.url}/page")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "compress", "gzip, br"])
async def test_a_body_in_another_encoding_than_it_says_fails(fetcher: Fetcher, site: Site, encoding: str) -> None:
    """Bytes that cannot be decoded are not taken for a page, and are not asked for again."""
    site.says["/page"] = [Say(b"\xff\xfeplain text", headers={"Content-Encoding": encoding})]
    with pytest.raises(FetchFailed, match="encod"):
        await fetcher.get(f"{site.url}/page")
    assert site.paths() == ["/page"]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\npage",
        b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\npage",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\npage",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\npage",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_no_page(fetcher: Fetcher, reply: bytes) -> None:
    """Lengths that are no length, and answers of other protocols, fail."""
    async with speaking(reply) as url:
        with pytest.raises(FetchFailed):
            await fetcher.get(f"{url}/page", robots=False)


async def test_a_length_beyond_the_limit_is_not_waited_for(fetcher: Fetcher) -> None:
    """A body that announces too much fails before it comes."""
    async with speaking(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\npage") as url:
        with pytest.raises(FetchFailed, match="larger than 1 MiB"):
            await fetcher.get(f"{url}/page", robots=False)


@pytest.mark.parametrize(
    "url", ["", "page", "/page", "file:///etc/passwd", "http://", "http://[", "http://a:b/", "ws://a"]
)
async def test_only_http_is_asked(fetcher: Fetcher, url: str) -> None:
    """Anything but an http(s) address is refused before a socket is opened."""
    with pytest.raises(FetchFailed, match="not an http"):
        await fetcher.get(url)


async def test_no_message_gives_a_key_away(fetcher: Fetcher, site: Site) -> None:
    """A key in the query, the user part or a header is in no message, no traceback and no address that is kept."""
    host = site.url.removeprefix("http://")
    site.says |= {"/ok": [Say()], "/gone": [Say(b"", 403)], "/robots.txt": [Say(b"User-agent: *\nDisallow: /no")]}
    async with speaking(b"not http\r\n\r\n") as broken:
        with unreachable() as nowhere:
            for start in (f"http://me:{SECRET}@{host}/gone", f"{site.url}/no", f"{site.url}/none", broken, nowhere):
                url, robots = f"{start}?key={SECRET}&token={SECRET}", start is not broken
                with pytest.raises(FetchFailed) as caught:
                    await fetcher.get(url, headers={"X-Key": SECRET}, robots=robots)
                assert SECRET not in "".join(traceback.format_exception(caught.value))
    got = await fetcher.get(f"http://me:{SECRET}@{host}/ok?api_key={SECRET[3:]}&page=2")
    assert SECRET[3:] not in repr(got)
    assert got.url == f"{site.url}/ok?page=2"
