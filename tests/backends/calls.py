"""Calls as the server sends them to the process of a chat model, and what comes back."""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson

from backends.answers import ChatRunner
from backends.frames import Frame, Kind
from backends.mailbox import Letter
from backends.parameters import read_sampling
from llmproxy.core.types import JsonObject


def letter(
    call: int,
    body: JsonObject,
    *,
    endpoint: str = "chat",
    stream: bool = False,
    images: Sequence[bytes] = (),
    reasons: bool = False,
) -> Letter:
    """A call: greedy, and of 8 tokens at most, unless its body says otherwise."""
    asked = {"temperature": 0, "max_tokens": 8, **body}
    request = {
        "id": f"c{call}",
        "endpoint": endpoint,
        "stream": stream,
        "sampling": asdict(read_sampling(asked, chat=endpoint == "chat", reasons=reasons)),
        "body": asked,
        "images": [base64.b64encode(image).decode() for image in images],
    }
    return Letter(call, orjson.loads(orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)), threading.Event())


def answered(runner: ChatRunner, letters: Sequence[Letter]) -> dict[int, list[Frame]]:
    """All frames of some calls that come at once, by call."""
    frames = [frame for one in letters for frame in runner.begin(one)]
    while not runner.idle:
        frames += runner.step()
    return {one.call: [frame for frame in frames if frame.call == one.call] for one in letters}


def body_of(frames: Sequence[Frame]) -> Any:
    """The whole answer of a call."""
    data, done = frames
    assert (data.kind, done.kind) == (Kind.DATA, Kind.DONE)
    return orjson.loads(data.payload)


def error_of(frames: Sequence[Frame]) -> Any:
    """The error of a call."""
    [frame] = frames
    assert frame.kind is Kind.ERROR
    return orjson.loads(frame.payload)
