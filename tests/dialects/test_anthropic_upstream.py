"""Canonical requests become requests of the Messages API, as each generation of Claude takes them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from llmproxy.core.errors import InvalidRequest, UnsupportedParameter
from llmproxy.dialects.anthropic import AnthropicMessages
from llmproxy.dialects.anthropic_schema import narrowed
from llmproxy.dialects.anthropic_upstream import AnthropicUpstream, headers
from llmproxy.dialects.openai import parse_chat
from tests.core.properties import quick
from tests.dialects.recordings import RECORDED, Recording
from tests.dialects.talks import talks

OLD, MIDDLE, NEW, NEWEST = "claude-3-5-sonnet-20241022", "claude-haiku-4-5", "claude-opus-4-7", "claude-opus-5-5"
HELLO = [{"role": "user", "content": "hello"}]
BLOCKS = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
OPEN = {"type": "object", "additionalProperties": {"type": "number"}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g"}}
THEIRS = {"name": "f", "description": "d", "input_schema": SCHEMA}
CACHE = {"cache_control": {"type": "ephemeral"}}


def asked(model: str = OLD, *, stream: bool = False, **body: Any) -> dict[str, Any]:
    return AnthropicUpstream().request({"messages": HELLO, **body}, model, stream=stream)[0]


def unheard(model: str = OLD, **body: Any) -> tuple[str, ...]:
    return AnthropicUpstream().request({"messages": HELLO, **body}, model, stream=False)[1]


def form(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


def test_the_least_request() -> None:
    """What the API asks for is there, and nothing that the client did not say."""
    assert asked() == {"model": OLD, "messages": BLOCKS, "max_tokens": 8192}
    assert asked(stream=True)["stream"] is True


@pytest.mark.parametrize(
    ("body", "expected"),
    [({"max_tokens": 5}, 5), ({"max_completion_tokens": 6}, 6), ({"max_tokens": 5, "max_completion_tokens": 6}, 6)],
)
def test_the_limit_of_the_client(body: dict[str, Any], expected: int) -> None:
    """The limit is the client's where it has one, in either of its names."""
    assert asked(**body)["max_tokens"] == expected


@pytest.mark.parametrize(("model", "limit"), [("claude-3-haiku-20240307", 4096), (NEW, 32_000), ("glm-5", 8192)])
def test_the_limit_of_the_model(model: str, limit: int) -> None:
    """Without a limit of the client it is what the model can answer at least."""
    assert asked(model)["max_tokens"] == limit


def test_what_keeps_its_meaning() -> None:
    """Stop sequences, sampling and the user are told in Anthropic's words."""
    body = asked(stop="END", temperature=0.5, top_p=0.9, top_k=7, user="u", seed=None, n=1, logprobs=False)
    assert {key: body[key] for key in ("stop_sequences", "temperature", "top_p", "top_k", "metadata")} == {
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "metadata": {"user_id": "u"},
    }


def test_what_it_cannot_honour_is_named() -> None:
    """Fields without a counterpart are named; values that ask for nothing are not."""
    given = {"seed": 1, "logprobs": True, "presence_penalty": 0.5, "logit_bias": {"1": 2}, "store": False, "min_p": 0}
    assert unheard(**given, stop=["a", "\n"], temperature=1.5) == (
        "logit_bias",
        "logprobs",
        "presence_penalty",
        "seed",
        "stop",
        "temperature",
    )
    body = asked(stop=["a", "\n"], temperature=1.5)
    assert (body["stop_sequences"], body["temperature"]) == (["a"], 1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages.0.content.0",
        ),
        ({"messages": [{"role": "assistant", "content": None, "audio": {"id": "1"}}]}, "messages.0.audio"),
        (
            {"messages": [{"role": "assistant", "content": None, "function_call": {"name": "f"}}]},
            "messages.0.function_call",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "custom": {}}]}]},
            "messages.0.tool_calls.0",
        ),
    ],
)
def test_what_another_kind_of_upstream_may_do(body: dict[str, Any], param: str) -> None:
    """What would spoil the answer is refused for this candidate only, with the path of the field."""
    with pytest.raises(UnsupportedParameter) as caught:
        asked(**body)
    assert caught.value.param == param
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": "  "}], "messages"),
        ([{"role": "system", "content": "only"}], "messages"),
        ([{"role": "tool", "content": "x"}], "messages.0.tool_call_id"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0.text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0.content.0.image_url.url"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}]}],
            "messages.0.content.0.image_url.url",
        ),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "messages.0.content.0.file"),
        (
            [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,%"}}]}],
            "messages.0.content.0.file.file_data",
        ),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
            "messages.0.tool_calls.0.id",
        ),
    ],
)
def test_what_is_wrong_everywhere(messages: list[Any], param: str) -> None:
    """Messages that nobody could answer are refused with the path of what is wrong."""
    with pytest.raises(InvalidRequest) as caught:
        asked(messages=messages)
    assert caught.value.param == param


# -- messages -----------------------------------------------------------------------------------------------------


def test_system_messages_are_gathered() -> None:
    """Wherever instructions stand, they come first; what has no text is left out."""
    body = asked(
        messages=[
            {"role": "system", "content": "a"},
            HELLO[0],
            {"role": "developer", "content": [{"type": "text", "text": "b", **CACHE}, {"type": "text", "text": " "}]},
        ]
    )
    assert body["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **CACHE}]
    assert body["messages"] == BLOCKS


def test_turns_of_one_role_are_one() -> None:
    """Roles alternate; results of tools come first in the turn of the user; ids have the characters that are taken."""
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    odd = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "[1]"}}
    body = asked(
        messages=[
            HELLO[0],
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": None, "tool_calls": [call, odd], "reasoning_content": "hm"},
            {"role": "user", "content": "meanwhile"},
            {"role": "tool", "tool_call_id": "functions.f:0", "content": "1", "is_error": True},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2", **CACHE}]},
        ]
    )
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "again"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {"arguments": "[1]"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "functions_f_0", "content": "1", "is_error": True},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "2", **CACHE}]},
                {"type": "text", "text": "meanwhile"},
            ],
        },
    ]


def test_an_answer_to_go_on_with() -> None:
    """An answer that was begun is the last turn, without white space at its end."""
    body = asked(messages=[*HELLO, {"role": "assistant", "content": "Once upon \n"}])
    assert body["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "Once upon"}]}


def test_thoughts_go_back_signed_or_not_at_all() -> None:
    """Signed thoughts come first in their turn; unsigned ones would be refused, and are named."""
    signed = {"type": "thinking", "thinking": "hm", "signature": "s"}
    turns = [*HELLO, {"role": "assistant", "content": "a", "reasoning_content": "hm", "thinking_blocks": [signed]}]
    assert asked(messages=turns)["messages"][-1]["content"] == [signed, {"type": "text", "text": "a"}]
    turns[-1] = {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert unheard(messages=turns) == ("messages.reasoning_content",)


def test_images_and_files() -> None:
    """Images and documents have their data or their address; a text file is text."""
    body = asked(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/webp;base64,UklGRg==", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}, **CACHE},
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a"}},
                    {"type": "file", "file": {"file_data": "data:text/markdown;base64,aGk="}},
                    {"type": "file", "file": {"file_id": "file_1"}},
                ],
            }
        ]
    )
    assert body["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "UklGRg=="}},
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}, **CACHE},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            "title": "a",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    ]


# -- tools --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tool_choice(body: dict[str, Any], choice: dict[str, Any] | None) -> None:
    """Each way to choose a tool has its counterpart; what is meant anyway is not said."""
    made = asked(tools=[TOOL, OTHER], **body)
    assert made.get("tool_choice") == choice
    assert made["tools"] == [THEIRS, {"name": "g", "input_schema": {"type": "object", "properties": {}}}]


def test_allowed_tools() -> None:
    """Of the tools that are offered only those that are allowed are told."""
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    made = asked(tools=[TOOL, OTHER], tool_choice={"type": "allowed_tools", "allowed_tools": allowed})
    assert [tool["name"] for tool in made["tools"]] == ["g"]
    assert made["tool_choice"] == {"type": "any"}


def test_a_model_that_cannot_be_forced_is_asked() -> None:
    """The newest models refuse a forced choice: they are told in words, and the choice is named."""
    body = {"tools": [TOOL], "tool_choice": "required"}
    made = asked(NEWEST, **body)
    assert "tool_choice" not in made
    assert "one of the tools" in made["system"][-1]["text"]
    assert unheard(NEWEST, **body) == ("tool_choice",)


@pytest.mark.parametrize(
    ("model", "schema", "strict"), [(MIDDLE, SCHEMA, True), (OLD, SCHEMA, None), (MIDDLE, OPEN, None)]
)
def test_strict_tools(model: str, schema: dict[str, Any], strict: bool | None) -> None:
    """Strictness is asked for where the model knows it and the schema is one that it compiles, else it is named."""
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": True}}
    assert asked(model, tools=[tool])["tools"][0].get("strict") is strict
    assert unheard(model, tools=[tool]) == (() if strict else ("tools.function.strict",))


# -- JSON ---------------------------------------------------------------------------------------------------------


def test_structured_outputs() -> None:
    """A model that has them is given the schema in their subset, beside the tools of the client."""
    made = asked(MIDDLE, response_format=form({**SCHEMA, "additionalProperties": True}), tools=[TOOL])
    assert made["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert "tool_choice" not in made
    assert unheard(MIDDLE, response_format=form(SCHEMA)) == ()


@pytest.mark.parametrize(
    ("model", "schema", "body", "choice"),
    [
        (OLD, SCHEMA, {}, {"type": "tool", "name": "llmproxy_answer", "disable_parallel_tool_use": True}),
        (MIDDLE, OPEN, {}, {"type": "tool", "name": "llmproxy_answer", "disable_parallel_tool_use": True}),
        (OLD, SCHEMA, {"tools": [TOOL]}, {"type": "any"}),
        (
            OLD,
            SCHEMA,
            {"tools": [TOOL], "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        (
            OLD,
            SCHEMA,
            {"tools": [TOOL], "tool_choice": "none"},
            {"type": "tool", "name": "llmproxy_answer", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_an_answer_by_a_tool(model: str, schema: Any, body: dict[str, Any], choice: dict[str, Any]) -> None:
    """Where the schema cannot be compiled, the answer is the arguments of a tool that has to be called."""
    made = asked(model, response_format=form(schema, description="the answer"), **body)
    assert made["tools"][-1] == {"name": "llmproxy_answer", "description": "the answer", "input_schema": schema}
    assert made["tool_choice"] == choice


def test_an_answer_that_is_no_object() -> None:
    """Arguments are an object: any other answer is a field of one, with the definitions where references find them."""
    schema = {"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": SCHEMA}}
    made = asked(OLD, response_format=form(schema))
    assert made["tools"][0]["name"] == "llmproxy_answer_value"
    assert made["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {"value": {"type": "array", "items": {"$ref": "#/$defs/A"}}},
        "required": ["value"],
        "$defs": {"A": SCHEMA},
    }


@pytest.mark.parametrize(
    ("model", "given"),
    [(OLD, {"type": "json_object"}), (MIDDLE, {"type": "json_object"}), (OLD, form({})), (NEWEST, form(OPEN))],
)
def test_json_by_instruction(model: str, given: dict[str, Any]) -> None:
    """JSON without a schema, and models that cannot be forced: asked for in words, and named."""
    made = asked(model, response_format=given)
    assert "JSON" in made["system"][-1]["text"]
    assert "output_config" not in made
    assert "tools" not in made
    assert unheard(model, response_format=given) == ("response_format",)
    assert ("number" in made["system"][-1]["text"]) == (model == NEWEST)


def test_a_forced_tool_goes_before_json() -> None:
    """A call that must be made is the answer; its arguments have a schema of their own."""
    made = asked(OLD, tools=[TOOL], tool_choice="required", response_format=form(SCHEMA))
    assert [tool["name"] for tool in made["tools"]] == ["f"]
    assert made["tool_choice"] == {"type": "any"}


def test_text_is_text() -> None:
    """The response format of text asks for nothing."""
    assert asked(response_format={"type": "text"}) == asked()


# -- thinking -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "body", "thinking", "effort"),
    [
        (MIDDLE, {"reasoning_effort": "low"}, {"type": "enabled", "budget_tokens": 2048}, None),
        (MIDDLE, {"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 16_000}, None),
        (MIDDLE, {"reasoning_effort": "high", "max_tokens": 3000}, {"type": "enabled", "budget_tokens": 1500}, None),
        (MIDDLE, {"reasoning_effort": "high", "max_tokens": 1500}, {"type": "enabled", "budget_tokens": 1024}, None),
        (MIDDLE, {"reasoning_effort": "none"}, None, None),
        ("glm-5", {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        ("glm-5", {"reasoning_effort": "medium"}, {"type": "enabled", "budget_tokens": 4096}, None),
        (NEW, {"reasoning_effort": "minimal"}, {"type": "adaptive", "display": "summarized"}, "low"),
        (NEW, {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "xhigh"),
        ("claude-opus-4-6", {"reasoning_effort": "xhigh"}, {"type": "adaptive", "display": "summarized"}, "high"),
        (NEW, {"reasoning_effort": "none"}, None, None),
        ("claude-opus-5", {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        ("claude-sonnet-5-5", {"reasoning_effort": "none"}, {"type": "between_tools"}, None),
        (NEWEST, {"reasoning_effort": "none"}, None, "low"),
        (NEW, {}, None, None),
    ],
)
def test_reasoning_effort(model: str, body: dict[str, Any], thinking: Any, effort: str | None) -> None:
    """An effort is a budget, of at most half the answer, or adaptive thinking with that effort, as the model has it."""
    made = asked(model, **body)
    assert made.get("thinking") == thinking
    assert made.get("output_config", {}).get("effort") == effort
    assert made["max_tokens"] > (thinking or {}).get("budget_tokens", 0)


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (MIDDLE, {"max_tokens": 1024}),
        (MIDDLE, {"tools": [TOOL], "tool_choice": "required"}),
        (OLD, {"response_format": form(SCHEMA)}),
        (
            MIDDLE,
            {
                "messages": [
                    *HELLO,
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                    },
                    {"role": "tool", "tool_call_id": "1", "content": "x"},
                ]
            },
        ),
    ],
)
def test_when_a_budget_cannot_be_had(model: str, body: dict[str, Any]) -> None:
    """No thinking where it would be refused: too small an answer, a forced tool, tools called without thoughts."""
    assert "thinking" not in asked(model, reasoning_effort="high", **body)
    assert unheard(model, reasoning_effort="high", **body) == ("reasoning_effort",)


@pytest.mark.parametrize(
    ("model", "body", "named"),
    [
        (NEW, {"temperature": 0.5, "top_p": 0.5, "top_k": 5}, ("temperature", "top_k", "top_p")),
        (NEW, {"temperature": 1, "top_p": 1}, ()),
        (MIDDLE, {"temperature": 0.5, "top_p": 0.5}, ("top_p",)),
        (MIDDLE, {"top_p": 0.5}, ()),
        (MIDDLE, {"temperature": 0.5, "reasoning_effort": "low"}, ("temperature",)),
        (MIDDLE, {"temperature": 1, "top_p": 0.96, "reasoning_effort": "low"}, ()),
    ],
)
def test_sampling_that_is_not_taken(model: str, body: dict[str, Any], named: tuple[str, ...]) -> None:
    """What a model refuses is left out and named, unless it is what the model does anyway."""
    made = asked(model, **body)
    assert unheard(model, **body) == named
    assert not made.keys() & set(named)


# -- what only this dialect knows ---------------------------------------------------------------------------------


def test_extras_go_through() -> None:
    """Fields that a client of this dialect sent reach the upstream of this dialect, and betas its headers."""
    body = {
        "messages": HELLO,
        "anthropic": {"service_tier": "auto", "metadata": {"user_id": "u"}, "betas": ["b1", "b2"]},
    }
    made, missing = AnthropicUpstream().request(body, OLD, stream=False)
    assert (made["service_tier"], made["metadata"], missing) == ("auto", {"user_id": "u"}, ())
    assert "betas" not in made
    assert headers("key", body) == {
        "x-api-key": "key",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "b1,b2",
    }
    assert "anthropic-beta" not in headers("key")


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        (MIDDLE, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, {"type": "enabled", "budget_tokens": 5000}),
        (NEW, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, {"type": "adaptive", "display": "summarized"}),
        (NEW, {"thinking": {"type": "adaptive", "display": "omitted"}}, {"type": "adaptive", "display": "omitted"}),
        (MIDDLE, {"thinking": {"type": "adaptive"}}, {"type": "enabled", "budget_tokens": 8192}),
        ("claude-opus-5", {"thinking": {"type": "disabled"}}, {"type": "disabled"}),
        ("claude-sonnet-5-5", {"thinking": {"type": "disabled"}}, {"type": "between_tools"}),
        (MIDDLE, {"thinking": {"type": "disabled"}}, None),
        (NEW, {"output_config": {"effort": "low"}}, None),
    ],
)
def test_thinking_as_the_client_said_it(model: str, given: dict[str, Any], expected: Any) -> None:
    """A client of this dialect gets the very thinking that it asked for, or the nearest that the model has."""
    body = AnthropicMessages().request({"model": "m", "messages": HELLO, **given}, {})
    made, _ = AnthropicUpstream().request(body, model, stream=False)
    assert made.get("thinking") == expected
    assert made.get("output_config", {}).get("effort") == given.get("output_config", {}).get("effort") or expected


@quick
@given(talks())
def test_conversations_survive(messages: list[dict[str, Any]]) -> None:
    """What is asked of the upstream, read as a client's request, is the same conversation: text, images, calls, ids,
    arguments, results, thoughts, and all of it in order."""
    made, missing = AnthropicUpstream().request({"messages": messages}, MIDDLE, stream=False)
    assert AnthropicMessages().request(made, {})["messages"] == messages
    assert missing == ()
    roles = [turn["role"] for turn in made["messages"]]
    assert all(one != other for one, other in pairwise(roles))


# -- what clients really sent -------------------------------------------------------------------------------------


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """A recorded request in the spelling that is written here."""
    made = {key: value for key, value in body.items() if value is not None and value is not False and value != []}
    made["messages"] = []
    for turn in body["messages"]:
        if made["messages"] and made["messages"][-1]["role"] == turn["role"]:
            made["messages"][-1]["content"] += _blocks(turn["content"])
        else:
            made["messages"].append({**turn, "content": _blocks(turn["content"])})
    if "system" in body:
        made["system"] = _blocks(body["system"])
    if made.get("tool_choice") == {"type": "auto"}:
        del made["tool_choice"]
    if form := made.pop("output_format", None):
        made["output_config"] = {"format": form}
    if "format" in made.get("output_config", {}):
        schema = narrowed(made["output_config"]["format"]["schema"])
        made["output_config"] = {**made["output_config"], "format": {"type": "json_schema", "schema": schema}}
    return made


def _blocks(content: Any) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    found = []
    for block in blocks:
        if block["type"] == "tool_result":
            block = {key: value for key, value in block.items() if value is not False}
            inner = block.get("content")
            if isinstance(inner, list) and len(inner) == 1 and inner[0].keys() == {"type", "text"}:
                block["content"] = inner[0]["text"]
        found.append(block)
    return found


@pytest.mark.parametrize(
    "recording", [one for one in RECORDED if one.asks and one.status == 200], ids=lambda one: one.name
)
def test_a_recorded_request_arrives_as_it_was(recording: Recording) -> None:
    """A request to Claude that goes through the canonical format is the same request."""
    asked_for = recording.request
    call = parse_chat(AnthropicMessages().request(asked_for, {}), "c")
    made, missing = AnthropicUpstream().request(call.body, asked_for["model"], stream=call.stream)
    assert normal(made) == normal(asked_for)
    assert missing == ()
