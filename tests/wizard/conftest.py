"""A provider that knows a right key and a wrong one, and a place to look for servers where there are none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.upstream import UpstreamThread
from tests.wizard.terminal import nothing_found

RIGHT, WRONG, BROKE = "sk-right-0123456789abcdef", "sk-wrong-0123456789abcdef", "sk-broke-0123456789abcdef"


@pytest.fixture
def gate() -> Iterator[UpstreamThread]:
    """A provider whose list is public, and whose calls need the right key."""
    with UpstreamThread(models=["ok", "acme/ok-large", "embed"]) as upstream:
        upstream.upstream.keys |= {WRONG: "status-401", BROKE: "status-402"}
        yield upstream


@pytest.fixture
def no_servers() -> Iterator[tuple[str, ...]]:
    """Options for a machine without other servers of models."""
    with nothing_found() as options:
        yield options
