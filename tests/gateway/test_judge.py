"""What is an answer, and what delivers what a call forced."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.errors import BadReply, Unmet
from llmproxy.core.types import Forced
from llmproxy.gateway.judge import check_forced, check_reply, has_output, speaks
from tests.gateway.streams import call_of

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = Forced(tools={"weather": CITY, "time": None})
ONE_TOOL = Forced(tools={"weather": CITY}, parallel=False)
JSON = Forced(json=True)
SCHEMA = Forced(json=True, json_schema=CITY)


def reply(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}


def calls(*given: tuple[str, Any]) -> dict[str, Any]:
    return {"tool_calls": [{"id": "x", "function": {"name": name, "arguments": text}} for name, text in given]}


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ([], "bad_reply"),
        (None, "bad_reply"),
        ("text", "bad_reply"),
        ({}, "no_choices"),
        ({"choices": []}, "no_choices"),
        ({"choices": {}}, "no_choices"),
        ({"choices": [None]}, "empty"),
        (reply({}), "empty"),
        (reply({"content": ""}), "empty"),
        (reply({"content": None, "tool_calls": []}, "tool_calls"), "empty"),
        ({"choices": [{"message": "text"}]}, "empty"),
    ],
)
def test_what_is_no_answer(body: Any, outcome: str) -> None:
    """A body without choices, or without any output, is no answer."""
    with pytest.raises(BadReply) as caught:
        check_reply(call_of(), body)
    assert caught.value.outcome == outcome


@pytest.mark.parametrize(
    "body",
    [
        reply({"content": "x"}),
        reply({"content": [{"type": "text", "text": "x"}]}),
        reply(calls(("f", "{}"))),
        reply({"function_call": {"name": "f"}}),
        reply({"refusal": "no"}),
        reply({"audio": {"id": "a"}}),
        reply({"content": "", "reasoning_content": "hm"}),
        reply({"reasoning": "hm"}),
        reply({"content": ""}, "length"),
        reply({}, "content_filter"),
        {"choices": [{"message": {}}, {"message": {"content": "x"}}]},
    ],
)
def test_what_is_an_answer(body: dict[str, Any]) -> None:
    """Any output is an answer; so is an early end that says why."""
    assert check_reply(call_of(), body) is body


def test_other_endpoints() -> None:
    """Completions have text, embeddings have data."""
    assert has_output({"text": "x"}, "completions")
    assert not has_output({"text": "", "message": {"content": "x"}}, "completions")
    assert check_reply(call_of("embeddings"), {"data": [{"embedding": [1.0]}]})
    with pytest.raises(BadReply):
        check_reply(call_of("embeddings"), {"data": []})


@pytest.mark.parametrize("field", ["content", "tool_calls", "function_call", "refusal", "audio", "reasoning_content"])
def test_what_speaks(field: str) -> None:
    """A delta speaks when one of its fields holds something."""
    assert speaks({field: "x"})
    assert not speaks({field: ""})
    assert not speaks({"role": "assistant", field: None})


@pytest.mark.parametrize(
    ("forced", "message"),
    [
        (TOOLS, calls(("weather", '{"city": "Rome"}'))),
        (TOOLS, calls(("time", ""))),
        (TOOLS, calls(("time", "{}"), ("weather", '{"city": "Rome"}'))),
        (TOOLS, {**calls(("time", "{}")), "content": "Let me see."}),
        (ONE_TOOL, calls(("weather", '{"city": ""}'))),
        (JSON, {"content": '{"a": 1}'}),
        (JSON, {"content": " {} \n"}),
        (JSON, calls(("f", "{}"))),
        (SCHEMA, {"content": '{"city": "Rome"}'}),
        (Forced(json=True, json_schema={}), {"content": "[1]"}),
        (Forced(json=True, json_schema={"type": "array"}), {"content": "[1]"}),
    ],
)
def test_what_delivers(forced: Forced, message: dict[str, Any]) -> None:
    """Calls of offered tools with fitting arguments, and content that is the JSON asked for, are delivered."""
    check_forced(forced, message, "stop")


@pytest.mark.parametrize(
    ("forced", "message", "says"),
    [
        (TOOLS, {"content": "It is sunny."}, "no tool call"),
        (TOOLS, {"tool_calls": []}, "no tool call"),
        (TOOLS, {"tool_calls": "weather"}, "no tool call"),
        (TOOLS, calls(("date", "{}")), "not among the tools"),
        (TOOLS, {"tool_calls": [{}]}, "not among the tools"),
        (TOOLS, {"tool_calls": [None]}, "not among the tools"),
        (TOOLS, {"tool_calls": [{"function": "weather"}]}, "not among the tools"),
        (TOOLS, calls(("weather", "Rome")), "not JSON"),
        (TOOLS, calls(("weather", '{"city": "Ro')), "not JSON"),
        (TOOLS, calls(("weather", "{}")), "do not fit"),
        (TOOLS, calls(("weather", "")), "do not fit"),
        (TOOLS, calls(("weather", '{"city": 7}')), "do not fit"),
        (TOOLS, calls(("time", "{}"), ("weather", "{}")), "do not fit"),
        (ONE_TOOL, calls(*[("weather", '{"city": ""}')] * 2), "2 tool calls"),
        (JSON, {}, "no content"),
        (JSON, {"content": " "}, "no content"),
        (JSON, {"content": [{"type": "text"}]}, "no content"),
        (JSON, {"content": "sunny"}, "not JSON"),
        (JSON, {"content": "```json\n{}\n```"}, "not JSON"),
        (JSON, {"content": '{"a": '}, "not JSON"),
        (JSON, {"content": "[1]"}, "not an object"),
        (SCHEMA, {"content": "{}"}, "does not fit"),
    ],
)
def test_what_does_not_deliver(forced: Forced, message: dict[str, Any], says: str) -> None:
    """Anything else is not what was forced, and the reason is told."""
    with pytest.raises(Unmet, match=says) as caught:
        check_forced(forced, message, "stop")
    assert caught.value.capability == forced.capability


@pytest.mark.parametrize(("message", "finish"), [({}, "length"), ({}, "content_filter"), ({"refusal": "no"}, "stop")])
@pytest.mark.parametrize("forced", [TOOLS, JSON, SCHEMA])
def test_honest_ends(forced: Forced, message: dict[str, Any], finish: str) -> None:
    """A refusal, or an answer that says why it is cut off, is honest."""
    check_forced(forced, message, finish)


def test_every_choice_is_judged() -> None:
    """One choice that does not deliver spoils the answer."""
    choices = [{"message": {"content": "{}"}}, {"message": {"content": "x"}}]
    with pytest.raises(Unmet):
        check_reply(call_of(forced=JSON), {"choices": choices})


@pytest.mark.parametrize(
    "choices",
    [
        [{"message": {"content": "{}"}}, None],
        [{"message": {"content": "{}"}}, {"message": "text"}],
        [{"message": {"content": "{}"}, "finish_reason": ["stop"]}],
    ],
)
def test_odd_choices(choices: list[Any]) -> None:
    """Choices of an odd shape fail the attempt; they are no error of the proxy."""
    try:
        check_reply(call_of(forced=JSON), {"choices": choices})
    except (BadReply, Unmet):
        return
    except (AttributeError, TypeError) as error:
        pytest.fail(repr(error))
