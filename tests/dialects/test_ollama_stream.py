"""Canonical streams become lines of JSON, as Ollama's own SDK reads them."""

from __future__ import annotations

from typing import Any

import ollama
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.base import Renderer
from llmproxy.dialects.ollama import OllamaChat, OllamaGenerate
from tests.core.properties import cuts, quick
from tests.dialects.talks import call, end, stream, usage

REQUEST = {"model": "m"}
ROLE = {"role": "assistant", "content": ""}
HEAD = {"model": "acme/large", "created_at": "2023-11-14T22:13:20Z"}


class Clock:
    """Counts a microsecond each time it is asked."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns


def lines(renderer: Renderer, *pieces: bytes) -> list[dict[str, Any]]:
    out = b"".join(map(renderer.feed, pieces)) + renderer.finish()
    assert out.endswith(b"\n")
    return [orjson.loads(line) for line in out.splitlines()]


def chat(*pieces: bytes) -> list[dict[str, Any]]:
    return lines(OllamaChat(Clock()).renderer(REQUEST), *pieces)


def test_a_chat() -> None:
    """A line for each piece, with thoughts and calls where they belong, and a last one with the figures."""
    found = chat(
        stream(
            ROLE,
            {"reasoning_content": "hm"},
            {"content": "a"},
            call(0, "c1", "f", '{"x":1}'),
            end("tool_calls"),
            usage(7, 3, cached=4),
        )
    )
    assert found == [
        {**HEAD, "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
        {**HEAD, "message": {"role": "assistant", "content": "a"}, "done": False},
        {
            **HEAD,
            "message": {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}}],
            },
            "done": False,
        },
        {
            **HEAD,
            "message": {"role": "assistant", "content": ""},
            "done_reason": "stop",
            "done": True,
            "total_duration": 2_000,
            "load_duration": 0,
            "prompt_eval_count": 7,
            "prompt_eval_cached_count": 4,
            "prompt_eval_duration": 1_000,
            "eval_count": 3,
            "eval_duration": 1_000,
        },
    ]


def test_a_generation() -> None:
    """The pieces of a generation are its response."""
    renderer = OllamaGenerate().renderer(REQUEST)
    data = stream({"reasoning_content": "hm"}, {"content": "a"}, {"refusal": "b"}, end("length"), usage(1, 1))
    read = [ollama.GenerateResponse.model_validate(line) for line in lines(renderer, data)]
    assert [(one.response, one.thinking) for one in read] == [("", "hm"), ("a", None), ("b", None), ("", None)]
    assert (read[-1].done, read[-1].done_reason) == (True, "length")
    assert renderer.content_type == "application/x-ndjson"


def test_a_life_sign_is_a_line() -> None:
    """A comment becomes a line without text, also before anybody has answered: no reader takes anything else."""
    found = chat(stream("queued", {"content": "a"}, "working", end("stop"), usage(1, 1)))
    assert [line["message"]["content"] for line in found] == ["", "a", "", ""]
    assert found[0] == {"model": "m", "message": {"role": "assistant", "content": ""}, "done": False}
    assert all(ollama.ChatResponse.model_validate(line) for line in found)


@pytest.mark.parametrize("begun", [False, True])
def test_an_error_in_the_stream(begun: bool) -> None:
    """An error is the last line, whatever comes after it."""
    chunks = [{"content": "a"}] if begun else []
    found = chat(stream(*chunks, {"error": {"message": "no", "code": "x"}}, {"content": "never"}))
    assert found[-1] == {"error": "no"}
    assert len(found) == 1 + begun


@pytest.mark.parametrize("data", [b"", stream({"content": "a"}, done=False)])
def test_an_end_that_nothing_announced_is_an_error(data: bytes) -> None:
    """A stream that breaks off is never taken for an answer."""
    assert chat(data)[-1].keys() == {"error"}


def test_log_probabilities() -> None:
    """They stand beside the piece that they are about."""
    logprobs = {"content": [{"token": "a", "logprob": -0.1}]}
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": logprobs, "finish_reason": None}]}
    assert chat(stream(chunk, end("stop")))[0]["logprobs"] == [{"token": "a", "logprob": -0.1}]


deltas = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=8).map(lambda text: {"content": text}),
        st.text(min_size=1, max_size=8).map(lambda text: {"reasoning_content": text}),
        st.integers(0, 99).map(lambda number: call(0, f"call_{number}", "f", f'{{"n":{number}}}')),
    ),
    max_size=8,
)


@quick
@given(st.data(), deltas)
def test_any_stream_in_any_cutting_says_the_same(data: st.DataObject, given_deltas: list[dict[str, Any]]) -> None:
    """However a stream is cut, the SDK reads all the text, all the thoughts and all the calls, in their order."""
    whole = stream(*given_deltas, end("stop"), usage(5, 7))
    read = [ollama.ChatResponse.model_validate(line) for line in chat(*data.draw(cuts(whole)))]
    assert "".join(one.message.content or "" for one in read) == "".join(d.get("content", "") for d in given_deltas)
    thoughts = "".join(one.message.thinking or "" for one in read)
    assert thoughts == "".join(d.get("reasoning_content", "") for d in given_deltas)
    calls = [call.function.arguments for one in read for call in one.message.tool_calls or ()]
    assert calls == [
        orjson.loads(d["tool_calls"][0]["function"]["arguments"]) for d in given_deltas if "tool_calls" in d
    ]
    assert [one.done for one in read] == [False] * (len(read) - 1) + [True]
