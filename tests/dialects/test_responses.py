"""Requests of the Responses API become canonical ones, and replies responses; conversations go on where they ended."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from openai.types.responses import Response

from llmproxy.core.errors import InvalidRequest, QuotaExhausted
from llmproxy.dialects.openai import error_body, parse_chat
from llmproxy.dialects.responses import Responses
from llmproxy.dialects.responses_history import Stored, continued, stored
from tests.core.properties import quick
from tests.dialects.talk import PIXEL, WEATHER, Json, answers, call, reply

FUNCTION = {"type": "function", "name": "weather", "description": "w", "parameters": WEATHER, "strict": True}
PATCH = {"type": "custom", "name": "patch", "description": "edits a file"}
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


def canonical(given: Any = "hello", **more: Any) -> Json:
    found = Responses().request({"model": "m", "input": given, **more}, {})
    parse_chat(found, "c1")  # whatever comes out is a request that the gateway takes
    return found


def settings(**more: Any) -> Json:
    found = canonical(**more)
    return {name: value for name, value in found.items() if name not in ("model", "messages")}


def said(role: str, *texts: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text} for text in texts]}


def refused(**body: Any) -> str | None:
    with pytest.raises(InvalidRequest) as caught:
        Responses().request({"model": "m", "input": "hello", **body}, {})
    return caught.value.param


def valid(response: Json) -> Json:
    """The response, if it is what the SDK's own types say."""
    Response.model_validate(response, strict=True)
    return response


def test_plain_request() -> None:
    """A string is a message of the user, instructions come before it."""
    assert canonical("hello", instructions="be brief") == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    }


def test_settings() -> None:
    """Every setting has its canonical name; hints about keeping and billing are not sent on."""
    assert settings(
        max_output_tokens=9, temperature=0.5, top_p=0.9, reasoning={"effort": "low", "summary": "auto"}, stream=True,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"], top_logprobs=2, store=False,
        metadata={"a": "b"}, user="me", truncation="auto", prompt_cache_key="k", text={"verbosity": "low"}, seed=7,
        parallel_tool_calls=True,
    ) == {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "reasoning_effort": "low", "stream": True,
        "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2, "verbosity": "low", "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "canonical_form"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "x", "schema": WEATHER, "strict": True},
            {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER, "strict": True}},
        ),
    ],
)
def test_formats(form: Json, canonical_form: Json | None) -> None:
    """A format is a response format; text is no format."""
    assert settings(text={"format": form}).get("response_format") == canonical_form


def test_functions() -> None:
    """A flat function becomes a nested one, and one that takes nothing has an empty schema."""
    found = settings(tools=[FUNCTION, {"type": "function", "name": "now", "parameters": None}])
    assert [tool["function"] for tool in found["tools"]] == [
        {"name": "weather", "description": "w", "parameters": WEATHER, "strict": True},
        {"name": "now", "parameters": {"type": "object", "properties": {}}},
    ]


def test_custom_tools() -> None:
    """A custom tool is a function of one text, and its grammar is told to the model."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    function = settings(tools=[{**PATCH, "format": grammar}])["tools"][0]["function"]
    assert function["name"] == "patch"
    assert function["description"].startswith("edits a file")
    assert "start: WORD" in function["description"]
    assert function["parameters"]["required"] == ["input"]


@pytest.mark.parametrize(
    ("choice", "tools", "canonical_choice"),
    [
        (None, ["weather", "patch"], None),
        ("none", ["weather", "patch"], "none"),
        ("required", ["weather", "patch"], "required"),
        (
            {"type": "function", "name": "weather"},
            ["weather", "patch"],
            {"type": "function", "function": {"name": "weather"}},
        ),
        (
            {"type": "custom", "name": "patch"},
            ["weather", "patch"],
            {"type": "function", "function": {"name": "patch"}},
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]},
            ["patch"],
            "required",
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
            ["weather"],
            "auto",
        ),
    ],
)
def test_tool_choice(choice: Any, tools: list[str], canonical_choice: Any) -> None:
    """Every choice has its counterpart; tools that may not be called are not offered."""
    found = settings(tools=[FUNCTION, PATCH], tool_choice=choice, parallel_tool_calls=False)
    assert [tool["function"]["name"] for tool in found["tools"]] == tools
    assert found.get("tool_choice") == canonical_choice
    assert found["parallel_tool_calls"] is False


SPACE: Json = {
    "type": "namespace",
    "name": "mcp__sky",
    "description": "About the sky.",
    "tools": [{**FUNCTION, "name": "forecast"}, {**PATCH, "name": "draw"}],
}


def test_namespaces() -> None:
    """Members of a namespace are functions with its name before theirs, in its place; what it is about is told once."""
    found = settings(tools=[FUNCTION, SPACE])["tools"]
    assert [tool["function"]["name"] for tool in found] == ["weather", "mcp__sky__forecast", "mcp__sky__draw"]
    assert [tool["function"]["description"].count("About the sky.") for tool in found] == [0, 1, 0]
    assert found[2]["function"]["parameters"]["required"] == ["input"]


def test_calls_of_a_namespace() -> None:
    """A call of a member comes back under both of its names, and goes in again as what it was."""
    functions = [
        {"name": "mcp__sky__forecast", "arguments": "{}"},
        {"name": "mcp__sky__draw", "arguments": '{"input":"a cloud"}'},
    ]
    calls = [{"id": f"c{n}", "type": "function", "function": function} for n, function in enumerate(functions)]
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "tool_calls": calls}, "finish_reason": "stop"}]}
    output = Responses("x").reply(body, {"tools": [SPACE]})["output"]
    told = [(item["type"], item["namespace"], item["name"]) for item in output]
    assert told == [("function_call", "mcp__sky", "forecast"), ("custom_tool_call", "mcp__sky", "draw")]
    results = [{"type": f"{item['type']}_output", "call_id": item["call_id"], "output": "ok"} for item in output]
    again = Responses().request({"input": [*output, *results]}, {})["messages"]
    assert again[0]["tool_calls"] == calls


def test_long_names_are_cut_and_stay_apart() -> None:
    """No function has more than 64 characters, and two that begin alike are two."""
    members = [{**FUNCTION, "name": f"{'look_up_' * 8}{end}"} for end in ("a", "b")]
    names = [tool["function"]["name"] for tool in settings(tools=[{**SPACE, "tools": members}])["tools"]]
    assert len(set(names)) == 2
    assert all(len(name) == 64 and name.startswith("mcp__sky__look_up_") for name in names)


def test_a_member_can_be_chosen() -> None:
    """By its name and that of its namespace."""
    choice = {"type": "function", "namespace": "mcp__sky", "name": "forecast"}
    function = {"name": "mcp__sky__forecast"}
    assert settings(tools=[SPACE], tool_choice=choice)["tool_choice"] == {"type": "function", "function": function}


@pytest.mark.parametrize(
    ("space", "param"),
    [
        ({"name": ""}, "tools.0.name"),
        ({"tools": None}, "tools.0.tools"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.tools.0.type"),
    ],
)
def test_wrong_namespaces(space: Json, param: str) -> None:
    """The place of what is wrong is named."""
    with pytest.raises(InvalidRequest) as caught:
        canonical(tools=[{**SPACE, **space}])
    assert caught.value.param == param


def test_choice_without_tools() -> None:
    """Where there are no tools, nothing is said about them: upstreams refuse a choice then."""
    assert settings(tools=[], tool_choice="auto", parallel_tool_calls=True) == {}


@pytest.mark.parametrize(
    "tool",
    ["web_search", "web_search_preview", "file_search", "computer_use_preview", "code_interpreter", "mcp",
     "image_generation", "local_shell", "shell", "apply_patch", "tool_search"],
)  # fmt: skip
def test_hosted_tools_are_refused(tool: str) -> None:
    """A tool that runs elsewhere is refused by its name, offered or chosen."""
    with pytest.raises(InvalidRequest, match=tool) as caught:
        canonical(tools=[FUNCTION, {"type": tool}])
    assert caught.value.param == "tools.1.type"
    with pytest.raises(InvalidRequest, match=tool):
        canonical(tools=[FUNCTION], tool_choice={"type": tool})


# -- items --------------------------------------------------------------------------------------------------------


def test_conversation() -> None:
    """Reasoning, words and calls of one turn are one message; outputs are messages of the tool."""
    items = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"id": "msg_1", "status": "completed", **said("assistant", "I ", "look.")},
        {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "b", "name": "patch", "input": "*** Begin"},
        {"type": "function_call_output", "call_id": "a", "output": "sun"},
        {
            "type": "custom_tool_call_output",
            "call_id": "b",
            "output": [{"type": "input_text", "text": "done"}, {"type": "input_image", "image_url": "https://a/b"}],
        },
        {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "so"}]},
        {"type": "reasoning", "id": "rs_3", "summary": [], "encrypted_content": "gAAAA"},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "message", "role": "assistant", "content": "really"},
    ]
    assert canonical(items)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [call("a", "weather", {"city": "Rome"}), call("b", "patch", {"input": "*** Begin"})],
        },
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {
            "role": "tool",
            "tool_call_id": "b",
            "content": [
                {"type": "text", "text": "done"},
                {"type": "image_url", "image_url": {"url": "https://a/b"}},
            ],
        },
        {"role": "assistant", "content": "no", "reasoning_content": "so"},
        {"role": "assistant", "content": "really"},
    ]


def test_words_after_a_call() -> None:
    """Nothing may stand between a call and its output: what is said after the call joins its message."""
    items = [
        said("user", "go"),
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        said("assistant", "called"),
        {"type": "function_call_output", "call_id": "a", "output": "x"},
    ]
    assert canonical(items)["messages"][1:] == [
        {"role": "assistant", "content": "called", "tool_calls": [call("a", "f", {})]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
    ]


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (
            {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}", "detail": "low"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
        ),
        (
            {"type": "input_file", "filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PIXEL}"}},
        ),
        (
            {
                "type": "input_file",
                "filename": "a.md",
                "file_data": "data:text/markdown;base64," + base64.b64encode("# ü".encode()).decode(),
            },
            {"type": "text", "text": "a.md:\n# ü"},
        ),
    ],
)
def test_content(part: Json, content: Json) -> None:
    """Every kind of content has its part, and a text file is a text."""
    found = canonical([{"role": "user", "content": [part, {"type": "input_text", "text": "?"}]}])
    assert found["messages"][0]["content"] == [content, {"type": "text", "text": "?"}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["hello"]}, "input.0"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 7}]}, "input.0.content"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input.0.content.0.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0.file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a/b"}]}]},
            "input.0.content.0.file_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0.file_data"),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_image", "image_url": "https://a/b"}]}]},
            "input.0.content",
        ),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input.0.type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input.0.id"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input.0.call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "x"}]}, "input.0.call_id"),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": "high"}, "reasoning"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "strin"}}}}, "text.format.schema"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [{**FUNCTION, "parameters": []}]}, "tools.0.parameters"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"include": "all"}, "include"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_wrong_requests(body: Json, param: str) -> None:
    """What is wrong or cannot be had is named by the path of the client's own field."""
    assert refused(**body) == param


# -- replies ------------------------------------------------------------------------------------------------------


def test_reply() -> None:
    """A response has an item for each thing that the model did, and repeats its request."""
    message = {
        "content": "I look.",
        "reasoning_content": "hm",
        "tool_calls": [
            call("a", "weather", {"city": "Rome"}, extra_content={"google": {"thought_signature": "c2ln"}}),
            call("b", "patch", {"input": "*** Begin"}),
        ],
    }
    request = {
        "model": "auto", "input": "x", "tools": [FUNCTION, PATCH], "instructions": "be brief", "metadata": {"k": "v"},
        "max_output_tokens": 99, "temperature": 0.5, "store": False, "previous_response_id": "resp_0",
    }  # fmt: skip
    found = valid(Responses("r1").reply(reply(message, "tool_calls"), request))
    assert found["output"] == [
        {
            "id": "rs_r1_0",
            "type": "reasoning",
            "status": "completed",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "id": "msg_r1_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}],
        },
        {
            "id": "fc_r1_2",
            "type": "function_call",
            "status": "completed",
            "call_id": "a",
            "name": "weather",
            "arguments": '{"city":"Rome"}',
            "extra_content": {"google": {"thought_signature": "c2ln"}},
        },
        {
            "id": "ctc_r1_3",
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "b",
            "name": "patch",
            "input": "*** Begin",
        },
    ]
    assert found["usage"] == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 12, "cache_write_tokens": 0},
        "output_tokens": 9,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 29,
    }
    repeated = {name: found[name] for name in ("instructions", "metadata", "max_output_tokens", "store", "temperature")}
    assert repeated == {name: request[name] for name in repeated}
    assert (found["id"], found["created_at"], found["model"]) == ("resp_r1", 1_700_000_000, "a/model")
    assert (found["status"], found["previous_response_id"]) == ("completed", "resp_0")


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_ends(finish: str, status: str, reason: str | None) -> None:
    """An answer that was cut off is incomplete, and so is its last item."""
    found = valid(Responses().reply(reply({"content": "a"}, finish)))
    assert (found["status"], found["output"][-1]["status"]) == (status, status)
    assert found["incomplete_details"] == (reason and {"reason": reason})
    assert found["id"] == "resp_abc"


def test_refusal_summary_and_logprobs() -> None:
    """A refusal is a part of its own; a summary is given where one was asked for; log probabilities come along."""
    entry = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "b", "logprob": -1.5}]}
    message = {"content": "a", "refusal": "no", "reasoning_content": "hm"}
    request = {"reasoning": {"effort": "low", "summary": "auto"}}
    found = valid(Responses().reply(reply(message, logprobs={"content": [entry]}), request))
    reasoning, answer = found["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert "content" not in reasoning
    assert answer["content"] == [
        {
            "type": "output_text",
            "text": "a",
            "annotations": [],
            "logprobs": [
                {
                    "token": "a",
                    "logprob": -0.5,
                    "bytes": [97],
                    "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}],
                }
            ],
        },
        {"type": "refusal", "refusal": "no"},
    ]


def test_pictures() -> None:
    """A picture of the model is an item, and can be sent back."""
    found = valid(Responses("r").reply(reply({"content": "look", "images": [PICTURE]})))
    assert found["output"][1] == {
        "type": "image_generation_call",
        "id": "ig_r_1",
        "result": PIXEL,
        "status": "completed",
    }
    again = canonical([said("user", "draw"), *found["output"]])["messages"]
    assert again[1:] == [{"role": "assistant", "content": "look"}, {"role": "user", "content": [PICTURE]}]


def test_signed_reasoning_comes_back() -> None:
    """What the maker of reasoning wants back unchanged is sealed in the item and opened when it comes back."""
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "x"}]
    message = {"role": "assistant", "content": "a", "reasoning_content": "hm", "thinking_blocks": blocks}
    output = Responses().reply(reply(message))["output"]
    assert canonical([said("user", "x"), *output])["messages"][1] == message


@quick
@given(answers())
def test_round_trip(message: Json) -> None:
    """An answer that is sent back as items is the same message: text, thoughts, ids, arguments, order."""
    output = valid(Responses().reply(reply(message)))["output"]
    assert canonical([said("user", "x"), *output])["messages"][1] == message


def test_error() -> None:
    """Errors are OpenAI's."""
    assert Responses().error(QuotaExhausted("x"), 429, "r") == error_body(QuotaExhausted("x"))


# -- conversations that are kept ----------------------------------------------------------------------------------


def test_conversation_goes_on() -> None:
    """Each turn is sent with all that came before it; instructions are only those of the last."""
    first: Json = {"model": "m", "input": "weather?", "instructions": "be brief", "tools": [FUNCTION]}
    message = {"content": None, "tool_calls": [call("a", "weather", {"city": "Rome"})]}
    kept = stored(continued(first, None), Responses("r1").reply(reply(message, "tool_calls"), first))
    assert kept is not None
    assert kept.id == "resp_r1"

    second: Json = {
        "model": "m",
        "input": [{"type": "function_call_output", "call_id": "a", "output": "sun"}],
        "previous_response_id": "resp_r1",
    }
    whole = continued(second, kept)
    asked = Responses().request(whole, {})["messages"]
    assert asked == [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", **message},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
    ]
    kept = stored(whole, Responses("r2").reply(reply({"content": "Sun."}), second))
    third: Json = {"model": "m", "input": "thanks", "previous_response_id": "resp_r2"}
    assert Responses().request(continued(third, kept), {})["messages"] == [
        *asked,
        {"role": "assistant", "content": "Sun."},
        {"role": "user", "content": "thanks"},
    ]
    assert "previous_response_id" not in whole


def test_what_is_not_kept() -> None:
    """Nothing is kept where the client says so, or where there was no answer."""
    body: Json = {"input": "x"}
    response = Responses("r").reply(reply({"content": "a"}), body)
    assert stored({**body, "store": False}, response) is None
    assert stored(body, {**response, "status": "failed"}) is None
    assert stored(body, {**response, "status": "incomplete"}) is not None


@pytest.mark.parametrize("kept", [None, Stored((), {"id": "resp_other"})])
def test_unknown_response(kept: Stored | None) -> None:
    """A response that is not kept is refused as OpenAI does it."""
    with pytest.raises(InvalidRequest, match="resp_1") as caught:
        continued({"input": "x", "previous_response_id": "resp_1"}, kept)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_places_in_errors_are_the_clients_own() -> None:
    """Items that were kept do not count in the path of an error."""
    kept = Stored((said("user", "a"), said("assistant", "b")), {"id": "resp_1"})
    items = [said("user", "c"), {"type": "mcp_call"}]
    with pytest.raises(InvalidRequest) as caught:
        continued({"input": items, "previous_response_id": "resp_1"}, kept)
    assert caught.value.param == "input.1.type"


def test_references() -> None:
    """An item may be named by its id where it is kept, in the conversation or anywhere."""
    answer = {"id": "msg_1", **said("assistant", "b")}
    elsewhere = {"id": "msg_2", **said("assistant", "c")}
    kept = Stored((said("user", "a"), answer), {"id": "resp_1"})
    named = [{"type": "item_reference", "id": "msg_1"}, {"id": "msg_2"}, said("user", "d")]
    whole = continued({"input": named}, kept, {"msg_1": answer, "msg_2": elsewhere}.get)
    assert whole["input"] == [answer, elsewhere, said("user", "d")]
    whole = continued({"input": named[:1], "previous_response_id": "resp_1"}, kept)
    assert whole["input"] == [*kept.items, answer]
