"""The source of all local models, as far as it needs no model."""

from __future__ import annotations

import asyncio

import pytest

from backends.local import LocalSource, Setting
from backends.placement import Need
from llmproxy.core.errors import Refused


async def test_a_source_that_is_closed_at_once() -> None:
    """Who waits for a source that is replaced before it has begun is told so, and does not wait for ever."""
    source = LocalSource([], Setting(device="cpu"))
    waiting = [asyncio.create_task(source.load("any")), asyncio.create_task(source.warmed())]
    source.start()
    await source.aclose()
    loaded, warmed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert isinstance(loaded, Refused)
    assert (loaded.http_status, loaded.upstream_code) == (503, "shutting_down")
    assert warmed == {}
    assert source.is_ready


class Unreadable:
    """A model whose files cannot be looked at."""

    name = "lost"

    def need(self) -> Need:
        raise OSError("the disk is gone")


async def test_models_that_cannot_be_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong before any model is loaded is logged, and told to whoever asks for one, and at a strict start."""
    source = LocalSource([Unreadable()], Setting(device="cpu", warm=frozenset({"lost"}), strict=True))  # type: ignore[list-item]
    source.start()
    try:
        problems = await asyncio.wait_for(source.warmed(), 5)
        assert "the disk is gone" in problems["lost"]
        with pytest.raises(Refused, match="the disk is gone") as caught:
            await asyncio.wait_for(source.load("lost"), 5)
        assert (caught.value.http_status, caught.value.upstream_code) == (503, "model_load_failed")
        assert not source.is_ready
    finally:
        await source.aclose()
    assert "the disk is gone" in caplog.text


async def test_nothing_to_load() -> None:
    """Without models everything is ready at once, with a strict start as well."""
    source = LocalSource([], Setting(device="cpu", strict=True))
    source.start()
    try:
        assert await source.warmed() == {}
        assert source.is_ready
        with pytest.raises(KeyError):
            await source.load("any")
    finally:
        await source.aclose()
