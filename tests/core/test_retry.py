"""The one way to try again."""

from __future__ import annotations

import contextlib

import pytest

from llmproxy.core.retry import backoff


@pytest.mark.parametrize(("attempts", "fails", "ok"), [(1, 0, True), (1, 1, False), (3, 2, True), (3, 3, False)])
async def test_attempts_are_counted_in_all(attempts: int, fails: int, ok: bool) -> None:
    """`attempts` counts the first try; the last error comes out as it was."""
    tries = 0

    async def work() -> None:
        nonlocal tries
        async for attempt in backoff(OSError, attempts=attempts, first_wait_s=0.001, max_wait_s=0.002):
            with attempt:
                tries += 1
                if tries <= fails:
                    raise OSError("down")

    with contextlib.nullcontext() if ok else pytest.raises(OSError, match=r"^down$"):
        await work()
    assert tries == min(attempts, fails + 1)


async def test_other_errors_come_out_at_once() -> None:
    """An error of another type is not tried again."""
    tries = 0

    async def work() -> None:
        nonlocal tries
        async for attempt in backoff(OSError, attempts=5):
            with attempt:
                tries += 1
                raise KeyError("x")

    with pytest.raises(KeyError):
        await work()
    assert tries == 1
