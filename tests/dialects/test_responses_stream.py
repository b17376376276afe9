"""A canonical stream becomes the events of the Responses API, which OpenAI's own SDK puts together."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from llmproxy.core import sse
from llmproxy.core.errors import AllCandidatesFailed, QuotaExhausted
from llmproxy.dialects.openai import error_body
from llmproxy.dialects.responses import Responses
from llmproxy.dialects.responses_stream import ResponsesRenderer
from tests.core.properties import cuts, quick
from tests.dialects.talk import (
    PIXEL,
    Json,
    answers,
    call,
    chunk,
    deltas_of,
    rendered,
    reply,
    stream,
    words,
)

REQUEST: Json = {"model": "m", "input": "x", "tools": [{"type": "custom", "name": "patch"}]}
SUMMARISED: Json = {**REQUEST, "reasoning": {"summary": "auto"}}
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def read(data: bytes) -> list[Json]:
    """The events, strictly: named as their type, numbered without a gap, of the shapes that the SDK knows."""
    found: list[Json] = []
    for block in data.decode().split("\n\n")[:-1]:
        if block.startswith(":"):
            continue
        name, _, line = block.partition("\n")
        event = json.loads(line.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(found)
        EVENTS.validate_python(event, strict=True)
        found.append(event)
    return found


def made(data: bytes, request: Json = REQUEST) -> list[Json]:
    return read(rendered(ResponsesRenderer(request, "r1"), [data]))


def client(data: bytes) -> openai.OpenAI:
    """The SDK with a server that answers everything with these bytes."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(200, content=data, headers={"content-type": "text/event-stream"})
    )
    return openai.OpenAI(api_key="unused", base_url="http://a/v1", http_client=httpx2.Client(transport=transport))


def test_text() -> None:
    """Every event of a text comes, in its order."""
    events = made(words("Hel", "lo"))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["status"] == events[1]["response"]["status"] == "in_progress"
    assert events[2]["item"]["content"] == []
    assert events[6]["text"] == "Hello"
    assert events[-1]["response"] == Responses("r1").reply(reply({"content": "Hello"}), REQUEST)


@pytest.mark.parametrize(
    ("request_body", "kinds"),
    [
        (
            REQUEST,
            ["content_part.added", "reasoning_text.delta", "reasoning_text.done", "content_part.done"],
        ),
        (
            SUMMARISED,
            [
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
            ],
        ),
    ],
)
def test_reasoning(request_body: Json, kinds: list[str]) -> None:
    """Thoughts come as they are, or as a summary where one was asked for, in an item before the text."""
    data = stream(chunk({"reasoning_content": "hm"}), chunk({"content": "a"}), chunk({}, "stop"))
    events = made(data, request_body)
    found = [event["type"].removeprefix("response.") for event in events]
    assert found[2:8] == ["output_item.added", *kinds, "output_item.done"]
    assert [event["item"]["type"] for event in events if event["type"] == "response.output_item.added"] == [
        "reasoning",
        "message",
    ]


def test_parallel_calls() -> None:
    """Each call is an item with its arguments, a custom one with its input."""
    data = stream(
        chunk({"content": "I look."}),
        chunk({"tool_calls": [{"index": 0, **call("a", "weather", {"city": "Rome"})}]}),
        chunk({"tool_calls": [{"index": 1, **call("b", "patch", {"input": "*** Begin"})}]}),
        chunk({}, "tool_calls"),
    )
    events = made(data)
    assert [event["type"].removeprefix("response.") for event in events[7:]] == [
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [(item["type"], item.get("arguments") or item.get("input")) for item in done[1:]] == [
        ("function_call", '{"city":"Rome"}'),
        ("custom_tool_call", "*** Begin"),
    ]
    assert [event["output_index"] for event in events if event["type"] == "response.output_item.added"] == [0, 1, 2]


def test_refusal_after_text() -> None:
    """A refusal is a part of its own beside the text."""
    data = stream(chunk({"content": "a"}), chunk({"refusal": "n"}), chunk({"refusal": "o"}), chunk({}, "stop"))
    events = made(data)
    refusals = [(event["type"], event["content_index"]) for event in events if "refusal" in event["type"]]
    assert refusals == [
        ("response.refusal.delta", 1),
        ("response.refusal.delta", 1),
        ("response.refusal.done", 1),
    ]
    assert events[-1]["response"]["output"][0]["content"][1] == {"type": "refusal", "refusal": "no"}


def test_picture() -> None:
    """A picture is an item that is complete at once."""
    images = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    events = made(stream(chunk({"content": "a"}), chunk({"images": images}), chunk({}, "stop")))
    assert events[-1]["response"]["output"][1]["result"] == PIXEL


@pytest.mark.parametrize(
    ("finish", "kind"),
    [("length", "response.incomplete"), ("content_filter", "response.incomplete"), ("stop", "response.completed")],
)
def test_ends(finish: str, kind: str) -> None:
    """The last event tells whether the answer is complete, and has the usage."""
    last = made(words("a", finish=finish))[-1]
    assert last["type"] == kind
    assert last["response"]["usage"]["total_tokens"] == 29


@quick
@given(answers(), st.booleans(), st.data())
def test_any_cutting_gives_the_whole_reply(message: Json, summarised: bool, data: st.DataObject) -> None:
    """A stream in any pieces ends with the response that the whole reply gives, also for the store."""
    request = SUMMARISED if summarised else REQUEST
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    renderer = ResponsesRenderer(request, "r1")
    events = read(rendered(renderer, data.draw(cuts(deltas_of(message, finish)))))
    assert events[-1]["response"] == renderer.response == Responses("r1").reply(reply(message, finish), request)


@quick
@given(answers())
def test_the_sdk_puts_it_together(message: Json) -> None:
    """OpenAI's accumulator makes the same response out of the deltas."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    data = rendered(ResponsesRenderer({"model": "m"}, "r1"), [deltas_of(message, finish)])
    texts: list[str] = []
    with client(data) as sdk, sdk.responses.stream(model="m", input="x") as events:
        for event in events:
            if event.type == "response.output_text.done":
                texts.append(event.text)
            if event.type == "response.function_call_arguments.delta":
                assert json.loads(event.snapshot) is not None
        final = events.get_final_response()
    assert "".join(texts) == final.output_text == (message["content"] or "")
    calls = [(item.call_id, item.name, item.arguments) for item in final.output if item.type == "function_call"]
    assert calls == [
        (one["id"], one["function"]["name"], one["function"]["arguments"]) for one in message.get("tool_calls", ())
    ]
    thoughts = [item.content[0].text for item in final.output if item.type == "reasoning" and item.content]
    assert thoughts == ([message["reasoning_content"]] if "reasoning_content" in message else [])
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens == 4


# -- what goes wrong ------------------------------------------------------------------------------------------------


def failing(error: Any) -> bytes:
    return sse.event(json.dumps(error_body(error)).encode()) + sse.DONE


def test_error_in_the_stream() -> None:
    """An error fails the response with what came before it, and nothing follows."""
    renderer = ResponsesRenderer(REQUEST, "r1")
    data = stream(chunk({"content": "a"}), done=False) + failing(AllCandidatesFailed("nobody could answer"))
    events = read(rendered(renderer, [data + words("late")]))
    last = events[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "nobody could answer"}
    assert last["response"]["output"][0]["content"][0]["text"] == "a"
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert renderer.response == last["response"]
    with client(rendered(ResponsesRenderer(REQUEST, "r1"), [data])) as sdk:
        kinds = [event.type for event in sdk.responses.create(model="m", input="x", stream=True)]
    assert kinds[-1] == "response.failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "invalid_request_error", "message": "no"}, "invalid_prompt"),
        ({"code": "429", "message": "no"}, "rate_limit_exceeded"),
        ({"message": "no"}, "server_error"),
    ],
)
def test_codes_of_errors(error: Json, code: str) -> None:
    """The SDK knows few codes: each error has the one that is nearest."""
    last = made(sse.event(json.dumps({"error": error}).encode()))[-1]
    assert last["response"]["error"] == {"code": code, "message": "no"}


def test_error_before_anything() -> None:
    """A response that fails at once was created first, as clients expect."""
    events = made(failing(QuotaExhausted("used up")))
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("data", [b"", stream(chunk({"content": "a"}), chunk({}, "stop"), done=False)])
def test_end_without_end(data: bytes) -> None:
    """A stream that just stops fails the response."""
    assert made(data)[-1]["type"] == "response.failed"


def test_life_signs() -> None:
    """A comment stays a comment, before the first event too."""
    renderer = ResponsesRenderer(REQUEST, "r1")
    out = renderer.feed(sse.comment("still waiting"))
    assert out.startswith(b":")
    assert len(read(out + renderer.feed(words("a")) + renderer.finish())) == 9


def test_usage_is_told_where_there_is_none() -> None:
    """Without usage there is none in the response, and the renderer says what it speaks."""
    renderer = ResponsesRenderer(REQUEST)
    assert renderer.response is None
    rendered(renderer, [stream(chunk({"content": "a"}), chunk({}, "stop"))])
    assert renderer.response is not None
    assert renderer.response["usage"] is None
    assert renderer.response["id"] == "resp_abc"
    assert renderer.content_type.startswith("text/event-stream")
