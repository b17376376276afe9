"""Background tasks end with their owner."""

from __future__ import annotations

import asyncio

import pytest

from llmproxy.core.tasks import Background


async def test_closing_ends_what_runs() -> None:
    """After `aclose` no task runs."""
    background = Background()
    task = background.start(asyncio.sleep(3600), "sleeper")
    await background.aclose()
    assert task.cancelled()


async def test_an_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task that fails says so in the log, with its name."""

    async def fail() -> None:
        raise RuntimeError("boom")

    background = Background()
    task = background.start(fail(), "failing work")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    await background.aclose()
    assert "failing work" in caplog.text
    assert "boom" in caplog.text
