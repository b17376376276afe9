"""Handlers as a person may write them, for the tests of the processes that run them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from backends.base import Cancel, ChatRequest, Settings


class Sleeper:
    """Says `awake` after as many seconds as the message says, and does not listen meanwhile."""

    thread_safe = False
    max_parallelism = 1
    generation_defaults: Mapping[str, Any] = {}

    def __init__(self, settings: Settings) -> None:
        """Nothing to load."""

    def count_tokens(self, request: ChatRequest) -> int:
        return 1

    def generate(self, request: ChatRequest, cancel: Cancel) -> Iterator[str]:
        threading.Event().wait(_seconds(request))
        yield "awake"


class Stuck(Sleeper):
    """Is never loaded."""

    def __init__(self, settings: Settings) -> None:
        threading.Event().wait()


class Deaf(Sleeper):
    """Loads, and then begins an answer that it never gives."""

    def generate(self, request: ChatRequest, cancel: Cancel) -> Iterator[str]:
        threading.Event().wait()
        yield "never"


class Mute(Sleeper):
    """Loads, and then answers nothing."""

    def generate(self, request: ChatRequest, cancel: Cancel) -> Iterator[str]:
        raise RuntimeError("no voice")


def _seconds(request: ChatRequest) -> float:
    text = str(request.messages[-1]["content"])
    return float(text) if text.replace(".", "").isdigit() else 0.0
