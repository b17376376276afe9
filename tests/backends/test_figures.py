"""What a process counts is told about once a second, and at the end of its work."""

from __future__ import annotations

import orjson

from backends.figures import Figures


def test_once_a_second_and_at_the_end() -> None:
    """Nothing is told twice, and nothing is lost."""
    now = [0.0]
    figures = Figures(lambda: now[0])
    assert figures.due(last=True) is None
    figures.observe("batch_rows", 3)
    figures.count("completion_tokens", 2)
    figures.count("completion_tokens", 5)
    assert figures.due(last=False) is None
    now[0] = 1.5
    assert figures.due(last=False) == {"observed": {"batch_rows": [3]}, "counted": {"completion_tokens": 7}}
    figures.observe("queue_seconds", 0.25)
    assert figures.due(last=False) is None
    assert figures.due(last=True) == {"observed": {"queue_seconds": [0.25]}, "counted": {}}
    assert figures.due(last=True) is None


def test_a_queue_that_is_left() -> None:
    """When there is nothing left to do, that nobody waits is told even where nothing else was counted."""
    figures = Figures(lambda: 0.0)
    figures.observe("batch_rows", 1)
    told = [figures.frames(last=True, waiting=3), figures.frames(last=False), figures.frames(), figures.frames()]
    assert [[orjson.loads(frame.payload)["waiting"] for frame in frames] for frames in told] == [[3], [], [0], []]
