"""Canonical requests become Gemini's; what it has no word for is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.gemini_upstream import GeminiUpstream, path
from tests.core.properties import quick
from tests.dialects.talk import (
    PIXEL,
    WEATHER,
    Json,
    call,
    conversations,
)

OLD, NEW = "gemini-2.5-flash", "gemini-3-flash-preview"
RECORDED = Path(__file__).parents[1] / "data" / "gemini"
USER = {"role": "user", "content": "hello"}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "w", "parameters": WEATHER}}
DECLARED = {"name": "weather", "description": "w", "parametersJsonSchema": WEATHER}


def asked(model: str = OLD, messages: Any = (USER,), **more: Any) -> tuple[Json, tuple[str, ...]]:
    return GeminiUpstream().request({"messages": list(messages), **more}, model, stream=False)


def config(model: str = OLD, **more: Any) -> Json:
    body, missing = asked(model, **more)
    assert missing == ()
    return dict(body["generationConfig"])


def contents(*messages: Json, model: str = OLD) -> Any:
    return asked(model, messages)[0]["contents"]


def test_plain_request() -> None:
    """Instructions at the beginning stand apart, and later ones keep their place."""
    messages = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "system", "content": "d"},
        {"role": "assistant", "content": "e"},
    ]
    assert asked(messages=messages) == (
        {
            "systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]},
            "contents": [
                {"role": "user", "parts": [{"text": "c"}, {"text": "d"}]},
                {"role": "model", "parts": [{"text": "e"}]},
            ],
        },
        (),
    )


def test_instructions_alone_are_asked() -> None:
    """There must be something to answer."""
    assert asked(messages=[{"role": "system", "content": "a"}])[0] == {
        "contents": [{"role": "user", "parts": [{"text": "a"}]}]
    }


def test_paths() -> None:
    """A stream is another method, as events."""
    assert path(OLD, stream=False) == "/models/gemini-2.5-flash:generateContent"
    assert path("models/x", stream=True) == "/models/x:streamGenerateContent?alt=sse"


def test_settings() -> None:
    """Every setting that Gemini knows has its name there."""
    assert config(
        temperature=0.5, top_p=0.9, top_k=40, max_completion_tokens=9, n=2, seed=7, presence_penalty=0.1,
        frequency_penalty=0.2, logprobs=True, top_logprobs=3, stop="END",
    ) == {
        "temperature": 0.5, "topP": 0.9, "topK": 40, "maxOutputTokens": 9, "candidateCount": 2, "seed": 7,
        "presencePenalty": 0.1, "frequencyPenalty": 0.2, "responseLogprobs": True, "logprobs": 3,
        "stopSequences": ["END"],
    }  # fmt: skip


def test_what_cannot_be_honoured_is_named() -> None:
    """A field that Gemini has no word for is named; hints about billing and keeping are not."""
    missing = asked(
        logit_bias={"1": 2},
        prediction={"type": "content"},
        parallel_tool_calls=False,
        tools=[FUNCTION],
        user="me",
        store=True,
        metadata={"a": "b"},
        seed=None,
        messages=[
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b", "detail": "low"}}]},
            {"role": "assistant", "content": "a", "thinking_blocks": [{"type": "thinking"}]},
        ],
    )[1]
    assert set(missing) == {
        "logit_bias", "prediction", "parallel_tool_calls", "messages.content.image_url.detail",
        "messages.thinking_blocks",
    }  # fmt: skip


def test_a_tool_that_is_no_function_is_refused() -> None:
    """Without it the answer would be another one; who has it may be asked instead."""
    with pytest.raises(UnsupportedParameter, match="web_search") as raised:
        asked(tools=[FUNCTION, {"type": "web_search"}])
    assert raised.value.param == "tools.1"


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "missing"),
    [
        (OLD, "none", {"thinkingBudget": 0}, ()),
        (OLD, "low", {"includeThoughts": True, "thinkingBudget": 1024}, ()),
        (OLD, "xhigh", {"includeThoughts": True, "thinkingBudget": 24576}, ()),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}, ("reasoning_effort",)),
        (NEW, "none", {"thinkingLevel": "minimal"}, ()),
        (NEW, "medium", {"includeThoughts": True, "thinkingLevel": "medium"}, ()),
        ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "high"}, ()),
        ("gemini-3.1-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "medium"}, ()),
        ("gemini-3-pro-preview", "none", {"thinkingLevel": "low"}, ("reasoning_effort",)),
        ("gemini-flash-latest", "high", {"includeThoughts": True, "thinkingLevel": "high"}, ()),
        ("gemini-2.0-flash", "high", None, ("reasoning_effort",)),
        ("gemma-3-27b-it", "none", None, ()),
        (OLD, "furious", None, ("reasoning_effort",)),
    ],
)
def test_effort(model: str, effort: str, thinking: Json | None, missing: tuple[str, ...]) -> None:
    """Each generation is told in its own way how much to think; one that cannot be told so is named."""
    body, unheard = asked(model, reasoning_effort=effort)
    assert body.get("generationConfig", {}).get("thinkingConfig") == thinking
    assert unheard == missing


def test_json_mode() -> None:
    """A JSON schema goes along as it is; beside tools only Gemini 3 takes one."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER, "strict": True}}
    json_only = {"responseMimeType": "application/json"}
    assert config(response_format=form) == {**json_only, "responseJsonSchema": WEATHER}
    assert config(response_format={"type": "json_object"}) == json_only
    assert config(NEW, response_format=form, tools=[FUNCTION]) == {**json_only, "responseJsonSchema": WEATHER}
    assert asked(OLD, response_format=form, tools=[FUNCTION])[1] == ("response_format",)


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        (None, None),
        ("auto", None),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "weather"}},
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            {"mode": "ANY", "allowedFunctionNames": ["weather"]},
        ),
    ],
)
def test_tool_choice(choice: Any, calling: Json | None) -> None:
    """Every choice is a mode."""
    body, missing = asked(tools=[FUNCTION], tool_choice=choice)
    assert (body["tools"], missing) == ([{"functionDeclarations": [DECLARED]}], ())
    assert body.get("toolConfig") == (calling and {"functionCallingConfig": calling})


def test_allowed_tools_that_may_be_called() -> None:
    """Tools that may not be called are not offered where Gemini cannot be told so."""
    other = {"type": "function", "function": {"name": "time"}}
    allowed = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "time"}}]}
    body, _ = asked(tools=[FUNCTION, other], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert body["tools"] == [{"functionDeclarations": [{"name": "time", "description": ""}]}]


def test_calls_and_results() -> None:
    """Parallel calls are one turn and their results the next; text is wrapped, objects are not, errors say so."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    found = contents(
        USER,
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "hm",
            "tool_calls": [call("a", "f", {"x": 1}, **signed), call("b", "g", {}), call("c", "f", {})],
        },
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "tool", "tool_call_id": "b", "content": '{"hour":3}'},
        {"role": "tool", "tool_call_id": "c", "content": "no data", "is_error": True},
    )
    assert found[1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "hm", "thought": True},
                {"functionCall": {"name": "f", "args": {"x": 1}, "id": "a"}, "thoughtSignature": "c2ln"},
                {"functionCall": {"name": "g", "args": {}, "id": "b"}},
                {"functionCall": {"name": "f", "args": {}, "id": "c"}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"name": "f", "response": {"output": "sun"}, "id": "a"}},
                {"functionResponse": {"name": "g", "response": {"hour": 3}, "id": "b"}},
                {"functionResponse": {"name": "f", "response": {"error": "no data"}, "id": "c"}},
            ],
        },
    ]


def test_results_of_unknown_calls() -> None:
    """A result whose call is not there goes by its own name."""
    messages = [
        {"role": "function", "name": "f", "content": "a"},
        {"role": "tool", "tool_call_id": "b", "content": "c"},
    ]
    names = [part["functionResponse"]["name"] for part in contents(USER, *messages)[0]["parts"][1:]]
    assert names == ["f", "b"]


def test_calls_of_another_model() -> None:
    """Gemini 3 wants a signature on the first call of a turn; one that nobody signed says so."""
    turn = {"role": "assistant", "content": "a", "tool_calls": [call("a", "f", {}), call("b", "g", {})]}
    parts = contents(USER, turn, model=NEW)[1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == [None, "skip_thought_signature_validator", None]
    assert all("thoughtSignature" not in part for part in contents(USER, turn, model=OLD)[1]["parts"])


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{PIXEL}"}},
            {"inlineData": {"mimeType": "image/webp", "data": PIXEL}},
        ),
        (
            {"type": "image_url", "image_url": "data:image/svg+xml,%3Csvg%2F%3E"},
            {"inlineData": {"mimeType": "image/svg+xml", "data": "PHN2Zy8+"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/b.PNG?x=1"}},
            {"fileData": {"fileUri": "https://a.example/b.PNG?x=1", "mimeType": "image/png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://a.example/b"}},
            {"fileData": {"fileUri": "https://a.example/b"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}},
            {"inlineData": {"mimeType": "audio/mp3", "data": PIXEL}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}},
            {"inlineData": {"mimeType": "application/pdf", "data": PIXEL}},
        ),
        (
            {"type": "file", "file": {"filename": "a.csv", "file_data": PIXEL}},
            {"inlineData": {"mimeType": "text/csv", "data": PIXEL}},
        ),
        (
            {
                "type": "video_url",
                "video_url": {"url": "https://youtu.be/x"},
                "gemini": {"videoMetadata": {"fps": 1}},
            },
            {"fileData": {"fileUri": "https://youtu.be/x"}, "videoMetadata": {"fps": 1}},
        ),
        ({"type": "text", "text": "a"}, {"text": "a"}),
    ],
)
def test_parts(part: Json, expected: Json) -> None:
    """Every kind of content is data or a link."""
    assert contents({"role": "user", "content": [part]})[0]["parts"] == [expected]


def test_images_in_results() -> None:
    """A picture in a result follows it, which models before Gemini 3 take too."""
    content = [{"type": "text", "text": "here"}, {"type": "image_url", "image_url": {"url": f"data:;base64,{PIXEL}"}}]
    found = contents(
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call("a", "shot", {})]},
        {"role": "tool", "tool_call_id": "a", "content": content},
    )
    assert found[-1]["parts"] == [
        {"functionResponse": {"name": "shot", "response": {"output": "here"}, "id": "a"}},
        {"inlineData": {"mimeType": "image/jpeg", "data": PIXEL}},
    ]


@pytest.mark.parametrize(
    ("part", "error", "param"),
    [
        ({"type": "file", "file": {"file_id": "f-1"}}, UnsupportedParameter, "messages.0.content.0"),
        ({"type": "hologram"}, UnsupportedParameter, "messages.0.content.0"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}},
            InvalidRequest,
            "messages.0.content.0.image_url.url",
        ),
        ({"type": "image_url", "image_url": {}}, InvalidRequest, "messages.0.content.0.image_url.url"),
        ({"type": "image_url", "image_url": "data:oops"}, InvalidRequest, "messages.0.content.0.image_url.url"),
    ],
)
def test_parts_that_cannot_be_sent(part: Json, error: type[Exception], param: str) -> None:
    """What is malformed is the client's fault; what Gemini does not take, another may."""
    with pytest.raises(error) as caught:
        contents({"role": "user", "content": [part]})
    assert getattr(caught.value, "param", None) == param


@quick
@given(conversations())
def test_round_trip(messages: list[Json]) -> None:
    """A conversation written for Gemini and read again is the same: ids, arguments, images, order."""
    body = asked(messages=messages)[0]
    assert Gemini().request(body, {})["messages"] == messages


def test_gemini_to_gemini() -> None:
    """What only Gemini has a word for reaches a Gemini as the client wrote it."""
    given: Json = {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {"thinkingConfig": {"thinkingBudget": -1, "includeThoughts": True}, "topP": 0.5},
    }
    assert GeminiUpstream().request(Gemini().request(given, {}), OLD, stream=False) == (given, ())
