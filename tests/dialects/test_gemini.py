"""Gemini requests become canonical ones; what cannot be had is refused by name."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from llmproxy.core.errors import InvalidRequest, QuotaExhausted
from llmproxy.core.types import Attempt
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.openai import parse_chat
from tests.dialects.talk import PIXEL, WEATHER, Json, call, reply

HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]


def canonical(contents: Any = HELLO, **more: Any) -> Json:
    found = Gemini("models/google/gemini-x").request({"contents": contents, **more}, {})
    parse_chat(found, "c1")  # whatever comes out is a request that the gateway takes
    return found


def refused(body: Json) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        Gemini("m").request(body, {})
    return caught.value.param


def config(**fields: Any) -> Json:
    found = canonical(generationConfig=fields)
    return {name: value for name, value in found.items() if name not in ("model", "messages")}


def user(*parts: Json) -> Any:
    return canonical([{"role": "user", "parts": list(parts)}])["messages"][0]["content"]


def test_plain_request() -> None:
    """The model comes from the path, the system instruction first, and a single text is a string."""
    found = canonical(systemInstruction={"parts": [{"text": "be brief"}]})
    assert found == {
        "model": "google/gemini-x",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    }


def test_streams_ask_for_usage() -> None:
    """A streamed answer ends with its usage, so the canonical request asks for it."""
    found = Gemini("m", stream=True).request({"contents": HELLO}, {})
    assert (found["stream"], found["stream_options"]) == (True, {"include_usage": True})


def test_settings() -> None:
    """Every setting has its canonical name, and whole numbers may come as strings."""
    assert config(
        temperature=0.5, topP=0.9, topK="40", maxOutputTokens=100, stopSequences=["END"], candidateCount=2, seed=7,
        presencePenalty=0.1, frequencyPenalty=0.2, responseLogprobs=True, logprobs=3,
    ) == {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 100, "stop": ["END"], "n": 2, "seed": 7,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "logprobs": True, "top_logprobs": 3,
    }  # fmt: skip


def test_both_spellings() -> None:
    """The names of the proto fields are read like those in camelCase, at every level."""
    snake = {
        "system_instruction": {"parts": {"text": "s"}},
        "generation_config": {"max_output_tokens": 5, "response_mime_type": "application/json"},
        "tools": [{"function_declarations": [{"name": "f", "parameters_json_schema": WEATHER}]}],
        "tool_config": {"function_calling_config": {"mode": "any", "allowed_function_names": ["f"]}},
    }
    camel = {
        "systemInstruction": {"parts": [{"text": "s"}]},
        "generationConfig": {"maxOutputTokens": 5, "responseMimeType": "application/json"},
        "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": WEATHER}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    }
    parts = [{"inline_data": {"mime_type": "image/png", "data": PIXEL}}]
    same = [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]
    assert canonical([{"parts": parts}], **snake) == canonical([{"parts": same}], **camel)


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"thinkingLevel": "low"}, "low"),
        ({"thinkingLevel": "MINIMAL", "includeThoughts": True}, "minimal"),
        ({"thinkingBudget": 0}, "none"),
        ({"thinkingBudget": 1024}, "low"),
        ({"thinkingBudget": 8192}, "medium"),
        ({"thinking_budget": "8193"}, "high"),
        ({"thinkingBudget": -1}, None),
        ({"includeThoughts": True}, None),
    ],
)
def test_thinking_becomes_an_effort(thinking: Json, effort: str | None) -> None:
    """A level is an effort, a budget is the effort that it suffices for, and a free budget says nothing."""
    assert config(thinkingConfig=thinking).get("reasoning_effort") == effort


def test_budget_goes_along() -> None:
    """A budget is kept for upstreams that know budgets, and so is what else only Gemini has a word for."""
    found = canonical(
        generationConfig={"thinkingConfig": {"thinkingBudget": 99}, "speechConfig": {}, "topK": 1},
        safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        tools=[{"functionDeclarations": [{"name": "f", "response": {"type": "STRING"}}]}],
    )
    assert found["gemini"] == {
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {"speechConfig": {}, "thinkingConfig": {"thinkingBudget": 99}},
    }
    assert found["tools"][0]["gemini"] == {"response": {"type": "STRING"}}


def test_schema_in_capitals() -> None:
    """Gemini's schema becomes a JSON schema: types, counts as strings, nullable, the order of properties."""
    schema = {
        "type": "OBJECT",
        "properties": {
            "type": {"type": "STRING", "format": "enum", "enum": ["a", "b"], "nullable": True},
            "tags": {"type": "ARRAY", "items": {"type": "STRING"}, "minItems": "1", "max_items": 3},
            "either": {"anyOf": [{"type": "INTEGER"}, {"type": "NULL"}], "example": 4},
        },
        "required": ["tags"],
        "propertyOrdering": ["tags", "type"],
    }
    form = config(responseMimeType="application/json", responseSchema=schema)["response_format"]
    assert form["type"] == "json_schema"
    found = form["json_schema"]["schema"]
    assert found == {
        "type": "object",
        "properties": {
            "type": {"type": ["string", "null"], "enum": ["a", "b", None]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
            "either": {"anyOf": [{"type": "integer"}, {"type": "null"}], "examples": [4]},
        },
        "required": ["tags"],
    }
    assert list(found["properties"]) == ["tags", "type", "either"]


def test_nullable_choice() -> None:
    """What may be null beside several kinds is one more of them; bounds come as numbers."""
    schema = {"nullable": True, "anyOf": [{"type": "STRING", "minLength": "2", "maxLength": "3"}]}
    form = config(responseMimeType="application/json", responseSchema=schema)["response_format"]
    kinds = [{"type": "string", "minLength": 2, "maxLength": 3}, {"type": "null"}]
    assert form["json_schema"]["schema"] == {"anyOf": kinds}


def test_json_schema_and_json_mode() -> None:
    """A JSON schema stays as it is, and JSON without a schema is any object."""
    schema = {**WEATHER, "$defs": {"a": {"type": "string"}}, "additionalProperties": False}
    form = config(responseMimeType="application/json", responseJsonSchema=schema)["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}
    assert config(responseMimeType="application/json") == {"response_format": {"type": "json_object"}}
    assert config(responseMimeType="text/plain") == {}


# -- tools --------------------------------------------------------------------------------------------------------


def tooled(mode: str = "", *allowed: str) -> Json:
    calling = {"mode": mode, "allowedFunctionNames": list(allowed)}
    functions = [
        {"name": "weather", "description": "w", "parameters": {"type": "OBJECT", "properties": {}}},
        {"name": "time"},
    ]
    found = canonical(
        tools=[{"functionDeclarations": functions}], toolConfig={"functionCallingConfig": calling} if mode else None
    )
    return {
        "tools": [tool["function"]["name"] for tool in found["tools"]],
        "tool_choice": found.get("tool_choice"),
    }


@pytest.mark.parametrize(
    ("mode", "allowed", "tools", "choice"),
    [
        ("", (), ["weather", "time"], None),
        ("AUTO", (), ["weather", "time"], None),
        ("NONE", (), ["weather", "time"], "none"),
        ("ANY", (), ["weather", "time"], "required"),
        ("any", ("time",), ["time"], {"type": "function", "function": {"name": "time"}}),
        ("ANY", ("weather", "time"), ["weather", "time"], "required"),
        ("VALIDATED", ("time",), ["time"], None),
    ],
)
def test_function_calling_modes(mode: str, allowed: tuple[str, ...], tools: list[str], choice: Any) -> None:
    """Each mode is a tool choice, and functions that may not be called are not offered."""
    assert tooled(mode, *allowed) == {"tools": tools, "tool_choice": choice}


def test_functions() -> None:
    """A function keeps its description, and has a schema even when it takes nothing."""
    found = canonical(tools=[{"functionDeclarations": [{"name": "now", "description": "the time"}]}])
    function = {"name": "now", "description": "the time", "parameters": {"type": "object", "properties": {}}}
    assert found["tools"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize("tool", ["googleSearch", "google_search", "codeExecution", "urlContext", "computerUse"])
def test_hosted_tools_are_refused(tool: str) -> None:
    """A tool that runs at Google is refused by its name, as the client spelled it."""
    assert refused({"contents": HELLO, "tools": [{"functionDeclarations": []}, {tool: {}}]}) == f"tools.1.{tool}"


# -- contents -----------------------------------------------------------------------------------------------------


def test_neighbouring_contents_of_the_model_are_one_turn() -> None:
    """Google's SDK keeps each piece of a stream as a content of its own: calls and text are put together again."""
    pieces = [{"text": "I "}, {"text": "look"}, {"functionCall": {"name": "f", "args": {"n": 1}}}]
    pieces += [{"functionCall": {"name": "f", "args": {"n": 2}}}, {"text": ""}]
    results = [{"functionResponse": {"name": "f", "response": {"output": text}}} for text in ("one", "two")]
    contents = [*HELLO, *({"role": "model", "parts": [piece]} for piece in pieces), {"role": "user", "parts": results}]
    _, said, one, two = canonical(contents)["messages"]
    assert said["content"] == "I look"
    assert [made["function"]["arguments"] for made in said["tool_calls"]] == ['{"n":1}', '{"n":2}']
    assert [made["id"] for made in said["tool_calls"]] == [one["tool_call_id"], two["tool_call_id"]]
    assert (one["content"], two["content"]) == ("one", "two")
    assert len(canonical([*HELLO, {"role": "model", "parts": [{"text": "I "}]}])["messages"]) == 2


def test_conversation_with_calls_without_ids() -> None:
    """Calls without ids get some, and results find their calls by name, in order."""
    found = canonical(
        [
            {"role": "user", "parts": [{"text": "weather?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "hm", "thought": True},
                    {"text": "I look."},
                    {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "time"}},
                    {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}},
                ],
            },
            {
                "role": "function",
                "parts": [
                    {"functionResponse": {"name": "time", "response": {"hour": 3}}},
                    {"functionResponse": {"name": "weather", "response": {"result": "sun"}}},
                    {"functionResponse": {"name": "weather", "response": {"error": "no data"}}},
                    {"text": "and?"},
                ],
            },
        ]
    )
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert found["messages"] == [
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                call("call_1_2", "weather", {"city": "Rome"}, **signed),
                call("call_1_3", "time", {}),
                call("call_1_4", "weather", {"city": "Oslo"}),
            ],
        },
        {"role": "tool", "tool_call_id": "call_1_3", "content": '{"hour":3}'},
        {"role": "tool", "tool_call_id": "call_1_2", "content": "sun"},
        {"role": "tool", "tool_call_id": "call_1_4", "content": "no data", "is_error": True},
        {"role": "user", "content": "and?"},
    ]


def test_calls_with_ids() -> None:
    """Ids are kept, and a result with an id belongs to that call whatever the order."""
    calls = [{"functionCall": {"id": name, "name": "f", "args": {}}} for name in ("one", "two")]
    results = [{"functionResponse": {"id": name, "name": "f", "response": {"output": name}}} for name in ("two", "one")]
    found = canonical([*HELLO, {"role": "model", "parts": calls}, {"role": "user", "parts": results}])
    assert [(m["tool_call_id"], m["content"]) for m in found["messages"][2:]] == [("two", "two"), ("one", "one")]


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (
            {"inlineData": {"mimeType": "image/png", "data": "-_8"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,+/8="}},
        ),
        (
            {"inlineData": {"mimeType": "audio/mpeg", "data": PIXEL}},
            {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "mp3"}},
        ),
        (
            {"inlineData": {"mimeType": "application/pdf", "data": PIXEL}},
            {
                "type": "file",
                "file": {"filename": "document.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"},
            },
        ),
        (
            {"inlineData": {"mimeType": "video/mp4", "data": PIXEL}, "videoMetadata": {"fps": 1}},
            {
                "type": "video_url",
                "video_url": {"url": f"data:video/mp4;base64,{PIXEL}"},
                "gemini": {"videoMetadata": {"fps": 1}},
            },
        ),
        (
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "https://a.example/b.jpg"}},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg"}},
        ),
        (
            {"fileData": {"fileUri": "https://youtu.be/x"}},
            {"type": "video_url", "video_url": {"url": "https://youtu.be/x"}},
        ),
    ],
)
def test_media(part: Json, content: Json) -> None:
    """Data of each kind becomes the part for it, base64 of either alphabet in the standard one."""
    assert user(part, {"text": "?"}) == [content, {"type": "text", "text": "?"}]


def test_code_of_the_model() -> None:
    """Code that ran at Google earlier in the conversation, and what came of it, are text."""
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "print(1)"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"executableCode": {"language": "LANGUAGE_UNSPECIFIED", "code": "x"}},
    ]
    found = canonical([*HELLO, {"role": "model", "parts": parts}])["messages"][1]
    content = "```python\nprint(1)\n```\n```\n1\n```\n```\nx\n```\n"
    assert found == {"role": "assistant", "content": content}


def test_text_files_are_text() -> None:
    """A text that comes as data is a text, which every model reads."""
    data = base64.urlsafe_b64encode("a;b\nü".encode()).decode()
    assert user({"inlineData": {"mimeType": "text/csv", "data": data}}) == "a;b\nü"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": [{"role": "robot", "parts": []}]}, "contents.0.role"),
        ({"contents": [{"parts": [{}]}]}, "contents.0.parts.0"),
        ({"contents": [{"parts": ["hello"]}]}, "contents.0.parts.0"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "%"}}]}]},
            "contents.0.parts.0.inlineData.data",
        ),
        (
            {"contents": [{"parts": [{"file_data": {"file_uri": "gs://b/c", "mimeType": "image/png"}}]}]},
            "contents.0.parts.0.file_data.file_uri",
        ),
        (
            {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {}}}]}]},
            "contents.0.parts.0.functionResponse",
        ),
        ({"contents": HELLO, "cachedContent": "cachedContents/1"}, "cachedContent"),
        ({"contents": HELLO, "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"contents": HELLO, "generation_config": {"maxOutputTokens": 0}}, "generation_config.maxOutputTokens"),
        (
            {"contents": HELLO, "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
            "generationConfig.responseModalities",
        ),
        (
            {"contents": HELLO, "generationConfig": {"responseMimeType": "text/x.enum"}},
            "generationConfig.responseMimeType",
        ),
        (
            {"contents": HELLO, "generationConfig": {"responseSchema": {"type": "STRIN"}}},
            "generationConfig.responseSchema",
        ),
        (
            {"contents": HELLO, "generationConfig": {"responseSchema": {}, "responseJsonSchema": {}}},
            "generationConfig.responseJsonSchema",
        ),
        (
            {"contents": HELLO, "generationConfig": {"thinkingConfig": {"thinkingLevel": "huge"}}},
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
        ({"contents": HELLO, "tools": [{"functionDeclarations": [{}]}]}, "tools.0.functionDeclarations.0.name"),
        (
            {
                "contents": HELLO,
                "tools": [{"functionDeclarations": [{"name": "f"}]}],
                "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}},
            },
            "toolConfig.functionCallingConfig.allowedFunctionNames",
        ),
    ],
)
def test_wrong_requests(body: Json, param: str) -> None:
    """What is wrong or cannot be had is named by the path of the client's own field, in its own spelling."""
    assert refused(body) == param


# -- replies and errors -------------------------------------------------------------------------------------------


def test_reply() -> None:
    """Thoughts, text and calls become parts, thoughts are counted apart, and a call's end is STOP."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    message = {
        "content": "I look.",
        "reasoning_content": "hm",
        "tool_calls": [call("c1", "weather", {"city": "Rome"}, **signed), call("c2", "time", {})],
    }
    request = {"contents": HELLO, "generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    found = Gemini("m").reply(reply(message, "tool_calls"), request)
    assert found == {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "hm", "thought": True},
                        {"text": "I look."},
                        {
                            "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Rome"}},
                            "thoughtSignature": "c2ln",
                        },
                        {"functionCall": {"id": "c2", "name": "time", "args": {}}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 20,
            "cachedContentTokenCount": 12,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 4,
            "totalTokenCount": 29,
        },
        "modelVersion": "a/model",
        "responseId": "chatcmpl-abc",
    }


def test_thoughts_only_when_asked_for() -> None:
    """Gemini does not show thoughts unbidden: clients put all parts together."""
    found = Gemini("m").reply(reply({"content": "a", "reasoning_content": "b"}), {"contents": HELLO})
    assert found["candidates"][0]["content"]["parts"] == [{"text": "a"}]


@pytest.mark.parametrize(
    ("message", "finish", "native", "reason"),
    [
        ({"content": "a"}, "length", None, "MAX_TOKENS"),
        ({"content": ""}, "content_filter", None, "SAFETY"),
        ({"content": ""}, "content_filter", "RECITATION", "RECITATION"),
        ({"content": ""}, "content_filter", "refusal", "SAFETY"),
        ({"content": None, "refusal": "no"}, "stop", None, "SAFETY"),
        ({"content": "a"}, "function_call", None, "STOP"),
    ],
)
def test_finish_reasons(message: Json, finish: str, native: str | None, reason: str) -> None:
    """Every end has its word, and a word of Gemini's own comes through."""
    found = Gemini("m").reply(reply(message, finish, native_finish_reason=native))["candidates"][0]
    assert found["finishReason"] == reason
    assert found["content"] == (
        {"role": "model", "parts": [{"text": message["content"] or message["refusal"]}]}
        if message["content"] or message.get("refusal")
        else {"role": "model"}
    )


def test_arguments_that_are_no_object() -> None:
    """Arguments that are not JSON can be seen: they stand in a field of their own."""
    broken = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{broken"}}
    found = Gemini("m").reply(reply({"content": None, "tool_calls": [broken]}, "tool_calls"))
    assert found["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {"arguments": "{broken"}


def test_pictures() -> None:
    """A picture of the model is data, or a link where it has an address."""
    urls = [f"data:image/png;base64,{PIXEL}", "https://a.example/b,c"]
    made = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    found = Gemini("m").reply(reply({"content": "look", "images": made}))["candidates"][0]["content"]["parts"]
    assert found[1:] == [
        {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
        {"fileData": {"mimeType": "image/*", "fileUri": "https://a.example/b,c"}},
    ]


def test_logprobs() -> None:
    """Log probabilities are told for chosen tokens and those beside them, and on average."""
    entries = [
        {"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2.0, "bytes": []}]},
        {"token": "c", "logprob": -3.0, "bytes": [99], "top_logprobs": []},
    ]
    found = Gemini("m").reply(reply({"content": "ac"}, logprobs={"content": entries}))["candidates"][0]
    assert found["avgLogprobs"] == -2.0
    assert found["logprobsResult"] == {
        "chosenCandidates": [{"token": "a", "logProbability": -1.0}, {"token": "c", "logProbability": -3.0}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -2.0}]}, {"candidates": []}],
    }


def test_usage_without_details() -> None:
    """Where nothing was cached and nothing thought, nothing is said of it."""
    body = {**reply({"content": "a"}), "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert Gemini("m").reply(body)["usageMetadata"] == {
        "promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5,
    }  # fmt: skip


def test_error() -> None:
    """An error is a status object whose details name the reason, the field, the wait and the attempts."""
    error = QuotaExhausted("all used up", param="contents.0", retry_after_s=12.5)
    error.attempts = (Attempt("a/b", "429", 0.5, 429),)
    found = Gemini("m").error(error, 429, "req-1")["error"]
    kinds = {detail.pop("@type").rpartition(".")[2]: detail for detail in found.pop("details")}
    assert found == {"code": 429, "message": "all used up", "status": "RESOURCE_EXHAUSTED"}
    assert kinds == {
        "ErrorInfo": {"reason": "RATE_LIMIT_EXCEEDED", "domain": "llmproxy"},
        "BadRequest": {"fieldViolations": [{"field": "contents.0", "description": "all used up"}]},
        "RetryInfo": {"retryDelay": "12.5s"},
        "DebugInfo": {"stackEntries": [], "detail": "a/b:429 0.50s"},
        "RequestInfo": {"requestId": "req-1", "servingData": ""},
    }
