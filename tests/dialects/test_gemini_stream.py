"""A canonical stream becomes a Gemini stream, as events and as an array, in any cutting."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import sse
from llmproxy.core.errors import AllCandidatesFailed
from llmproxy.dialects.base import Renderer
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.openai import error_body
from tests.core.properties import cuts, quick
from tests.dialects.talk import Json, answers, call, chunk, deltas_of, rendered, reply, stream, usage_chunk, words

THOUGHTFUL: Json = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
USAGE = {
    "promptTokenCount": 20,
    "cachedContentTokenCount": 12,
    "candidatesTokenCount": 5,
    "thoughtsTokenCount": 4,
    "totalTokenCount": 29,
}
FAILED = sse.event(json.dumps(error_body(AllCandidatesFailed("nobody could answer"))).encode()) + sse.DONE


def renderer(*, events: bool = True, request: Json = THOUGHTFUL) -> Renderer:
    return Gemini("m", stream=True, sse=events).renderer(request)


def read(data: bytes, *, events: bool = True) -> list[Any]:
    """What a client reads, strictly."""
    if not events:
        found = json.loads(data)
        assert isinstance(found, list)
        return found
    blocks = data.decode().split("\r\n\r\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def joined(frames: list[Json]) -> Json:
    """The candidate that a client puts together from the elements of a stream."""
    parts: list[Json] = []
    for frame in frames:
        for part in frame["candidates"][0]["content"]["parts"]:
            last = parts[-1] if parts else {}
            if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                last["text"] += part["text"]
            elif part != {"text": ""}:
                parts.append(dict(part))
    last_frame = frames[-1]
    return {"parts": parts, "finish": last_frame["candidates"][0]["finishReason"], "usage": last_frame["usageMetadata"]}


@pytest.mark.parametrize("events", [True, False])
def test_text(events: bool) -> None:
    """Text comes as it is made; the last element has the reason and the usage."""
    frames = read(rendered(renderer(events=events), [words("Hel", "lo")]), events=events)
    origin = {"modelVersion": "a/model", "responseId": "chatcmpl-abc"}
    assert frames == [
        {"candidates": [{"content": {"parts": [{"text": "Hel"}], "role": "model"}, "index": 0}], **origin},
        {"candidates": [{"content": {"parts": [{"text": "lo"}], "role": "model"}, "index": 0}], **origin},
        {
            "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": USAGE,
            **origin,
        },
    ]


@quick
@given(answers(), st.booleans(), st.data())
def test_any_cutting_gives_the_whole_reply(message: Json, events: bool, data: st.DataObject) -> None:
    """A stream in any pieces says what the whole reply says."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    pieces = data.draw(cuts(deltas_of(message, finish)))
    made = joined(read(rendered(renderer(events=events), pieces), events=events))
    whole = Gemini("m").reply(reply(message, finish), THOUGHTFUL)["candidates"][0]
    assert made == {"parts": whole["content"]["parts"], "finish": whole["finishReason"], "usage": USAGE}


def test_parallel_calls_and_signatures() -> None:
    """Each call is a part of its own with its signature, and a signature without text gets an empty text."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    frames = read(
        rendered(
            renderer(),
            [
                stream(
                    chunk({"tool_calls": [{"index": 0, **call("a", "f", {"x": 1}, **signed)}]}),
                    chunk({"tool_calls": [{"index": 1, **call("b", "g", {})}]}),
                    chunk(signed),
                    chunk({}, "tool_calls"),
                    usage_chunk(),
                )
            ],
        )
    )
    assert [frame["candidates"][0]["content"]["parts"] for frame in frames] == [
        [{"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"}],
        [{"functionCall": {"id": "b", "name": "g", "args": {}}}],
        [{"text": "", "thoughtSignature": "c2ln"}],
        [{"text": ""}],
    ]


def test_thoughts_only_when_asked_for() -> None:
    """Thoughts that were not asked for are left out."""
    data = stream(chunk({"reasoning_content": "hm"}), chunk({"content": "a"}), chunk({}, "stop"))
    frames = read(rendered(renderer(request={}), [data]))
    assert [frame["candidates"][0]["content"]["parts"] for frame in frames] == [[{"text": "a"}], [{"text": ""}]]


def test_candidates_finish_together() -> None:
    """With several candidates, the last element has the end of each."""
    data = stream(
        chunk({"content": "a"}),
        chunk({"content": "b"}, index=1),
        chunk({}, "length", index=1),
        chunk({}, "stop"),
        usage_chunk(),
    )
    frames = read(rendered(renderer(), [data]))
    ends = [(one["index"], one["finishReason"]) for one in frames[-1]["candidates"]]
    assert ends == [(0, "STOP"), (1, "MAX_TOKENS")]


def test_refusal() -> None:
    """A refusal is text that ends for safety."""
    frames = read(rendered(renderer(), [stream(chunk({"refusal": "no"}), chunk({}, "stop"))]))
    assert [frame["candidates"][0]["content"]["parts"] for frame in frames] == [[{"text": "no"}], [{"text": ""}]]
    assert frames[-1]["candidates"][0]["finishReason"] == "SAFETY"


@pytest.mark.parametrize("events", [True, False])
def test_error_in_the_stream(events: bool) -> None:
    """An error comes as Gemini writes one, ends the stream, and leaves it readable."""
    data = stream(chunk({"content": "a"}), done=False) + FAILED + words("late")
    frames = read(rendered(renderer(events=events), [data]), events=events)
    assert frames[1:] == [{"error": {"code": 502, "message": "nobody could answer", "status": "UNAVAILABLE"}}]


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("data", [b"", stream(chunk({"content": "a"}), chunk({}, "stop"), done=False)])
def test_end_without_end(data: bytes, events: bool) -> None:
    """A stream that just stops is told as an error, also before its first element."""
    frames = read(rendered(renderer(events=events), [data]), events=events)
    assert frames[-1]["error"]["status"] == "UNAVAILABLE"


def test_life_signs() -> None:
    """A comment becomes an answer without text among events, and white space in an array."""
    data = sse.comment("still waiting")
    assert read(renderer().feed(data)) == [
        {"candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "index": 0}]}
    ]
    array = renderer(events=False)
    assert array.feed(data).strip() == b""
    assert len(read(array.feed(words("a")) + array.feed(data) + array.finish(), events=False)) == 2


def test_a_life_sign_belongs_to_its_answer() -> None:
    """Once an answer has begun, a life sign has its id and its model, as every frame of it."""
    events = renderer()
    first = read(events.feed(stream(chunk({"content": "a"}), done=False)))[0]
    sign = read(events.feed(sse.comment("still waiting")))[0]
    assert (sign["responseId"], sign["modelVersion"]) == (first["responseId"], first["modelVersion"])


def test_content_types() -> None:
    """Each form says what it is."""
    assert renderer().content_type == "text/event-stream"
    assert renderer(events=False).content_type.startswith("application/json")
