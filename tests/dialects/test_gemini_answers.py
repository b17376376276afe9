"""Replies and streams of Gemini become canonical ones, recorded ones too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import BadReply, Refused
from llmproxy.core.types import Call
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.gemini_upstream import GeminiUpstream
from llmproxy.gateway.judge import check_reply
from llmproxy.gateway.relay import Relay
from tests.core.properties import cuts, quick
from tests.dialects.talk import PIXEL, USAGE, Json, answers, call, deltas_of, rendered, reply

RECORDED = Path(__file__).parents[1] / "data" / "gemini"


def answered(*parts: Json, finish: str = "STOP", **more: Any) -> Json:
    content = {"parts": list(parts), "role": "model"}
    return {"candidates": [{"content": content, "finishReason": finish, "index": 0}], "responseId": "r1", **more}


def test_reply() -> None:
    """Thoughts, text and calls are told apart, and calls without ids get the same ids every time."""
    body = answered(
        {"text": "hm", "thought": True},
        {"text": "I "},
        {"text": "look."},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        {"functionCall": {"name": "time", "id": "own"}},
        usageMetadata={
            "promptTokenCount": 10,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 15,
        },
    )
    found = GeminiUpstream().reply(body, "google/g")
    assert found == GeminiUpstream().reply(body, "google/g")
    choice = found["choices"][0]
    ids = [one["id"] for one in choice["message"]["tool_calls"]]
    assert len(set(ids)) == 3
    assert ids[2] == "own"
    assert choice == {
        "index": 0,
        "finish_reason": "tool_calls",
        "message": {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                call(ids[0], "weather", {"city": "Rome"}, extra_content={"google": {"thought_signature": "c2ln"}}),
                call(ids[1], "weather", {"city": "Rome"}),
                call("own", "time", {}),
            ],
        },
    }
    assert found["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert (found["id"], found["model"]) == ("r1", "google/g")


@pytest.mark.parametrize(
    ("native", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
    ],
)
def test_finish_reasons(native: str, finish: str) -> None:
    """Every end has its canonical word, and what that word does not tell is kept."""
    choice = GeminiUpstream().reply(answered({"text": "a"}, finish=native), "m")["choices"][0]
    assert choice["finish_reason"] == finish
    assert choice.get("native_finish_reason") == (native if finish == "content_filter" else None)


@pytest.mark.parametrize("native", ["MALFORMED_FUNCTION_CALL", "OTHER", "SOMETHING_NEW"])
def test_failures_are_no_answers(native: str) -> None:
    """A model that made nothing of use has not answered: whole or streamed, the next one is tried."""
    body = answered(finish=native)
    with pytest.raises(BadReply, match=native) as caught:
        GeminiUpstream().reply(body, "m")
    assert caught.value.outcome == native.lower()
    with pytest.raises(Refused, match=native) as refused:
        relayed([event(answered({"text": "a"}, finish="")), event(body)])
    assert refused.value.kind == "server"


def test_blocked_prompt() -> None:
    """A prompt that was refused is answered by a filter, whole or streamed."""
    body = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 3}}
    choice = GeminiUpstream().reply(body, "m")["choices"][0]
    assert (choice["finish_reason"], choice["native_finish_reason"]) == ("content_filter", "PROHIBITED_CONTENT")
    last = relayed([event(body)])[-2]["choices"][0]
    assert (last["finish_reason"], last["native_finish_reason"]) == ("content_filter", "PROHIBITED_CONTENT")


@pytest.mark.parametrize("body", [[], "x", {}, {"candidates": []}])
def test_no_answers(body: Any) -> None:
    """What is no reply is told as a bad one."""
    with pytest.raises(BadReply):
        GeminiUpstream().reply(body, "m")


def test_logprobs_and_pictures() -> None:
    """Log probabilities and pictures of the model come through."""
    body = answered({"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": PIXEL}})
    body["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "a", "logProbability": -0.5}]}],
    }
    choice = GeminiUpstream().reply(body, "m")["choices"][0]
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    assert choice["logprobs"]["content"] == [{**token, "top_logprobs": [token]}]
    assert choice["message"]["images"] == [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    ]


# -- streams ------------------------------------------------------------------------------------------------------


def event(body: Json) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\r\n\r\n"


def relayed(pieces: list[bytes]) -> list[Json]:
    """The chunks that a client gets when Gemini streams these pieces."""
    relay = Relay(Call("c1", "chat", "m", {}, stream=True, include_usage=True))
    relay.begin("google/g")
    translator = GeminiUpstream().translator("g")
    out = b"".join(relay.feed(translator.feed(piece)) for piece in pieces)
    out += relay.feed(translator.finish())
    out += relay.end()
    events = out.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(one.removeprefix("data: ")) for one in events[:-2]]


def put_together(chunks: list[Json]) -> Json:
    """The reply that a client puts together of the chunks of a stream."""
    message: Json = {"content": "", "reasoning_content": "", "tool_calls": []}
    finish: Any = None
    for one in chunks:
        for choice in one["choices"]:
            delta = choice["delta"]
            for name in ("content", "reasoning_content"):
                message[name] += delta.get(name) or ""
            for fragment in delta.get("tool_calls") or ():
                assert fragment["index"] == len(message["tool_calls"])
                message["tool_calls"].append(fragment)
            finish = choice["finish_reason"] or finish
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": chunks[-1]["usage"]}


def told(reply: Json, expected: Json) -> Json:
    """What a reply says, in the words of the recordings; an id that Gemini did not give is only there."""
    choice, usage = reply["choices"][0], reply["usage"]
    calls = choice["message"].get("tool_calls") or []
    assert all(one["id"] and one["type"] == "function" for one in calls)
    extras = [one.get("extra_content", {}).get("google", {}) for one in calls]
    return {
        "content": choice["message"]["content"] or "",
        "reasoning_content": choice["message"].get("reasoning_content") or "",
        "calls": [
            {
                "id": one["id"] if given["id"] else None,
                "name": one["function"]["name"],
                "args": json.loads(one["function"]["arguments"]),
                "signature": extra.get("thought_signature"),
            }
            for one, given, extra in zip(calls, expected["calls"], extras, strict=True)
        ],
        "finish": choice["finish_reason"],
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
        "completion_tokens": usage["completion_tokens"],
        "reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"],
    }


def recorded(name: str) -> Json:
    found: Json = json.loads((RECORDED / f"{name}.json").read_text("utf-8"))
    return found


STREAMS = sorted(file.stem for file in RECORDED.glob("stream_*.json"))
WHOLES = sorted(file.stem for file in RECORDED.glob("whole_*.json"))


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams(name: str) -> None:
    """A real stream comes out whole: text, thoughts, calls, the end and the usage, as its elements say."""
    raw = recorded(name)
    assert told(put_together(relayed([raw["body"].encode()])), raw["expected"]) == raw["expected"]


@quick
@given(st.sampled_from(STREAMS), st.data())
def test_recorded_streams_in_any_cutting(name: str, data: st.DataObject) -> None:
    """The cutting of a real stream makes no difference, to the byte."""
    body = recorded(name)["body"].encode()
    whole = rendered(GeminiUpstream().translator("g"), [body])
    assert rendered(GeminiUpstream().translator("g"), data.draw(cuts(body))) == whole


@pytest.mark.parametrize("name", WHOLES)
def test_recorded_replies(name: str) -> None:
    """A real reply is an answer to the judge, and says what was recorded."""
    raw = recorded(name)
    body = check_reply(Call("c1", "chat", "m", {}), GeminiUpstream().reply(json.loads(raw["body"]), "g"))
    assert told(body, raw["expected"]) == raw["expected"]


def test_error_instead_of_a_stream() -> None:
    """An error that comes where events were asked for is raised as what it is."""
    raw = json.dumps({"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}, indent=1)
    for body in (raw, f"[{raw}]", f"data: {json.dumps(json.loads(raw))}\n\n"):
        with pytest.raises(Refused, match="API key not valid") as caught:
            relayed([body.encode()])
        assert caught.value.kind == "auth"


def test_stream_that_stops() -> None:
    """A stream without a finish reason has no proper end."""
    out = rendered(GeminiUpstream().translator("g"), [event(answered({"text": "a"}, finish=""))])
    assert b"[DONE]" not in out
    assert b'"content":"a"' in out


def test_several_candidates() -> None:
    """Each candidate is a choice of its own, whole or streamed, with its own calls and end."""
    called = {"functionCall": {"name": "f", "args": {}}}
    candidates = [
        {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"},
        {"content": {"parts": [called]}, "finishReason": "STOP", "index": 1},
    ]
    choices = GeminiUpstream().reply({"candidates": candidates}, "m")["choices"]
    assert [(one["index"], one["finish_reason"]) for one in choices] == [(0, "stop"), (1, "tool_calls")]
    first, second = ({"candidates": [one], "responseId": "r1"} for one in candidates)
    out = rendered(GeminiUpstream().translator("g"), [event(second), event(first)]).decode()
    chunks = [json.loads(one.removeprefix("data: ")) for one in out.split("\n\n")[:-2]]
    assert [(one["id"], one["choices"][0]["index"], one["choices"][0]["finish_reason"]) for one in chunks] == [
        ("r1", 1, "tool_calls"),
        ("r1", 0, "stop"),
    ]
    assert chunks[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


def test_one_candidate_is_open() -> None:
    """A stream ends properly only when every candidate that began has ended."""
    parts = [{"content": {"parts": [{"text": "a"}]}, "index": 1}, {"finishReason": "STOP", "index": 0}]
    assert b"[DONE]" not in rendered(GeminiUpstream().translator("g"), [event({"candidates": parts})])


def test_usage_after_the_end() -> None:
    """Usage that comes after the finish reason replaces what came with it."""
    first = answered({"text": "a"}, usageMetadata={"promptTokenCount": 3})
    late = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}, "responseId": "r1"}
    assert relayed([event(first), event(late)])[-1]["usage"]["completion_tokens"] == 2


@quick
@given(answers(), st.data())
def test_what_is_rendered_is_read(message: Json, data: st.DataObject) -> None:
    """An answer rendered for a client of Gemini is the same answer when Gemini is the upstream, whole and streamed."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    request: Json = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    whole = GeminiUpstream().reply(Gemini().reply(reply(message, finish), request), "g")
    assert whole["choices"] == [{"index": 0, "message": message, "finish_reason": finish}]
    assert whole["usage"] == USAGE

    events = rendered(Gemini(stream=True).renderer(request), [deltas_of(message, finish)])
    joined = put_together(relayed(data.draw(cuts(events))))
    found = joined["choices"][0]["message"]
    calls = [{key: value for key, value in one.items() if key != "index"} for one in found["tool_calls"]]
    assert (found["content"], found["reasoning_content"], calls, joined["usage"]) == (
        message["content"] or "",
        message.get("reasoning_content", ""),
        message.get("tool_calls", []),
        USAGE,
    )
