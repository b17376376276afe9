"""Where replicas on several machines agree who refreshes, and see what it found: a Redis that they share anyway.

The evidence itself stays with the replica that gathered it; it is the first to be asked the next time, so that
histories are long. Another one takes its place when it is gone.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

_PREFIX = "{llmproxy}:scrape:"
_TIMEOUT_S = 2.0
# A period is claimed for so long; the one that refreshed last goes first for as long.
_REMEMBERED_S = 3 * 86_400


class Posted(NamedTuple):
    """Findings as JSON, and when they were made (Unix seconds)."""

    made_at_s: float
    findings: dict[str, Any]


class Away(Exception):
    """Redis cannot be asked now."""


class Board:
    """One replica's access to the board."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._id = secrets.token_hex(6)

    async def leads(self) -> bool:
        """Whether this replica goes first: it refreshed last, or nobody did of late. Raises `Away`."""
        with _asking():
            leader = await self._redis.get(_PREFIX + "leader")
        return leader in (None, self._id)

    async def claim(self, period: str) -> bool:
        """Whether no other replica has begun the run of `period`; from now on this one has. Raises `Away`."""
        with _asking():
            mine = await self._redis.set(f"{_PREFIX}run:{period}", self._id, nx=True, ex=_REMEMBERED_S)
            if mine:
                await self._redis.set(_PREFIX + "leader", self._id, ex=_REMEMBERED_S)
        return bool(mine)

    async def post(self, posted: Posted) -> None:
        """Show the others what was found. Raises `Away`."""
        with _asking():
            fields = ("made_at_s", repr(posted.made_at_s), "findings", orjson.dumps(posted.findings).decode())
            await self._redis.hset(_PREFIX + "findings", items=list(fields))

    async def newer(self, than_s: float) -> Posted | None:
        """What was found later than `than_s`; None when nothing was. Raises `Away`."""
        key = _PREFIX + "findings"
        with _asking():
            made_at_s = float(await self._redis.hget(key, "made_at_s") or 0.0)
            if made_at_s <= than_s:
                return None
            return Posted(made_at_s, orjson.loads(await self._redis.hget(key, "findings") or b"{}"))

    async def aclose(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """A Redis that is away, or holds something else than was put there, raises `Away`."""
    try:
        yield
    except (RedisError, OSError, ValueError) as error:
        raise Away(str(error)) from error
