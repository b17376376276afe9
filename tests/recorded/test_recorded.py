"""What real providers once answered reaches a client of llmproxy as it was; `benchmarks/recorded.py` says what counts.

Played by a real upstream, asked for by the OpenAI SDK, directly and through a real `llmproxy serve`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.recorded import Report, replay
from benchmarks.recordings import pieces, read_stored

FILES = {path.stem: path for path in sorted(Path(__file__).parents[1].joinpath("data", "recorded").glob("*.json"))}

# Answers that the judge rightly does not take: no text, no tool call, and no reason for it.
JUDGED = {
    "openrouter__ruby_llm__chat_tool_choice_and_calls_control_openrouter_claude-haiku-4-5_respects_choice_none__0"
}


@pytest.fixture(scope="module")
def report() -> Report:
    """All recordings, replayed through one server."""
    return asyncio.run(replay([read_stored(path) for path in FILES.values()]))


@pytest.mark.parametrize("name", list(FILES))
def test_the_client_sees_what_the_provider_said(report: Report, name: str) -> None:
    """The SDK gives its caller the same answer, stream or error, however the bytes were cut."""
    result = report.results[list(FILES).index(name)]
    assert result.verdict == ("judged" if name in JUDGED else "equal"), result.notes


def test_the_server_met_nothing_unexpected(report: Report) -> None:
    """Not one recording makes the server log a traceback."""
    assert not report.crashed, report.log


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_the_whole_body(name: str) -> None:
    """The upstream cuts a body into pieces, and changes at most its line ends."""
    exchange = read_stored(FILES[name])
    for variant in ("events", "whole", "split"):
        assert b"".join(pieces(exchange, variant)) == exchange.body
    assert b"".join(pieces(exchange, "crlf")).replace(b"\r\n", b"\n") == exchange.body.replace(b"\r\n", b"\n")
