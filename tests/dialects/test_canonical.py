"""The canonical stream is read the same in any cutting, and its errors have the status of their own responses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import ModelNotFound, QuotaExhausted
from llmproxy.dialects.canonical import Reader, only_choice, reported_usage, status_of
from llmproxy.dialects.openai import error_body
from tests.core.properties import cuts, quick
from tests.dialects.talk import USAGE, chunk, stream

STREAM = b": still waiting\n\n" + stream(chunk({"content": "süß"}), chunk({}, "stop")) + b'data: {"late": true}\n\n'


@quick
@given(st.data())
def test_any_cutting_gives_the_same_chunks(data: st.DataObject) -> None:
    """Chunks and comments come in their order, and nothing after [DONE]."""
    reader = Reader()
    found = [one for piece in data.draw(cuts(STREAM)) for one in reader.feed(piece)]
    assert found == [None, chunk({"content": "süß"}), chunk({}, "stop")]
    assert reader.done


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (error_body(QuotaExhausted("x"))["error"], 429),
        (error_body(ModelNotFound("x"))["error"], 404),
        ({"code": "429", "type": "api_error"}, 429),
        ({"code": "stall", "type": "api_error"}, 502),
        ({"code": None, "type": "invalid_request_error"}, 400),
        ({}, 502),
    ],
)
def test_status_of_an_error(error: dict[str, Any], status: int) -> None:
    """An error of ours has its own status, a number is one itself, and anything else is a bad gateway."""
    assert status_of(error) == status


def test_usage_and_choice() -> None:
    """Usage is read with its details, odd numbers are 0, and only the first choice counts."""
    assert reported_usage(USAGE) == (20, 12, 9, 4)
    assert reported_usage({"prompt_tokens": "7", "completion_tokens": -1}) == (0, 0, 0, 0)
    assert only_choice(chunk({"content": "b"}, index=1)) is None
    assert only_choice(chunk({"content": "a"})) == {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
