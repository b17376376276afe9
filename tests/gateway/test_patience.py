"""Waiting is bounded by one timer, which counts silence of the upstream only."""

from __future__ import annotations

import asyncio

import pytest

from llmproxy.core.errors import TimedOut
from llmproxy.gateway.patience import Patience

# Long enough that a busy machine does not fire a timer too early by being late elsewhere.
STEP_S = 0.05


async def outcome(limit_s: float, phase: str, *steps: object) -> str:
    """What becomes of waiting through the steps: a number sleeps so many steps, a text is a call of Patience."""
    try:
        async with Patience(limit_s, phase) as patience:
            for step in steps:
                if isinstance(step, int | float):
                    await asyncio.sleep(step * STEP_S)
                elif isinstance(step, tuple):
                    patience.phase(step[0] * STEP_S, step[1])
                else:
                    getattr(patience, str(step))()
    except TimedOut as error:
        return error.outcome
    return "done"


@pytest.mark.parametrize(
    ("limit", "steps", "ends"),
    [
        (2, (60,), "first_token_timeout"),
        (60, (1,), "done"),
        (4, (2, "progress", 2, "progress", 2, "progress", 2), "done"),
        (4, (2, "progress", 60), "first_token_timeout"),
        (3, ("pause", 8, "progress", 1), "done"),
        (3, ("pause", 8, "progress", 60), "first_token_timeout"),
        (2, ((60, "stall"), 6), "done"),
        (60, ((2, "stall"), 60), "stall_timeout"),
        (60, ((4, "stall"), 2, (4, "stall"), 2, (4, "stall"), 2), "done"),
        (60, ((2, "stall"), "pause", 6, (2, "stall"), 60), "stall_timeout"),
        (60, ("pause", (2, "stall"), 60), "stall_timeout"),
    ],
    ids=[
        "too long", "in time", "progress", "silence after progress", "the client is slow", "silence after a pause",
        "a new phase has its own limit", "the new phase runs out", "a phase said again is progress",
        "a pause in the new phase", "a new phase ends a pause",
    ],
)  # fmt: skip
async def test_patience(limit: float, steps: tuple[object, ...], ends: str) -> None:
    """Silence beyond the limit raises with the name of the phase; progress, pauses and phases count as they should."""
    assert await outcome(limit * STEP_S, "first_token", *steps) == ends


async def test_the_message() -> None:
    """The error says how long nothing came, and in which phase."""
    with pytest.raises(TimedOut, match=r"nothing came for 0\.01 s \(first token\)"):
        async with Patience(0.01, "first_token"):
            await asyncio.sleep(5)


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("inner"), asyncio.CancelledError()])
async def test_other_errors_pass(error: BaseException) -> None:
    """An error of the work comes out as it was, a timeout of something inside too."""
    with pytest.raises(type(error)) as caught:
        async with Patience(60, "request"):
            raise error
    assert caught.value is error


async def test_a_cancelled_wait_is_cancelled() -> None:
    """Cancelling from outside is not taken for running out of patience."""

    async def wait() -> None:
        async with Patience(60, "request"):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_timer_is_left() -> None:
    """After the work nothing fires any more."""
    async with Patience(0.02, "request") as patience:
        patience.phase(0.02, "stall")
    await asyncio.sleep(0.05)
