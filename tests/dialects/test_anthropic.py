"""Anthropic requests become canonical ones, canonical replies and errors become Anthropic's."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.errors import AllCandidatesFailed, InvalidApiKey, InvalidRequest, LlmproxyError, QuotaExhausted
from llmproxy.core.types import Attempt
from llmproxy.dialects.anthropic import AnthropicMessages, count_tokens, model_entry, models
from llmproxy.dialects.anthropic_upstream import AnthropicUpstream
from llmproxy.dialects.extras import plain
from llmproxy.dialects.openai import parse_chat

DIALECT = AnthropicMessages()
HELLO = [{"role": "user", "content": "hello"}]
CACHE = {"type": "ephemeral"}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "description": "Tells it."}}


def canonical(**body: Any) -> dict[str, Any]:
    return DIALECT.request({"model": "m", "max_tokens": 9, "messages": HELLO, **body}, {})


def messages(*given: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = canonical(messages=list(given))["messages"]
    return found


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def answer(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **more}


def test_the_least_request() -> None:
    """What means the same keeps its name, and what the client left out is not invented."""
    assert canonical() == {"model": "m", "messages": HELLO, "max_tokens": 9}


def test_all_fields() -> None:
    """Each field that has a counterpart is told in its words; the others go along under `anthropic`."""
    body = canonical(
        system=[text("be kind"), text("be brief", cache_control=CACHE)],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop_sequences=["END"],
        stream=True,
        tools=[WEATHER],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 10_000},
        metadata={"user_id": "u1"},
        service_tier="auto",
        context_management={"edits": []},
    )
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": [text("be kind"), text("be brief", cache_control=CACHE)]},
            *HELLO,
        ],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [FUNCTION],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "medium",
        "user": "u1",
        "anthropic": {
            "thinking": {"type": "enabled", "budget_tokens": 10_000},
            "metadata": {"user_id": "u1"},
            "service_tier": "auto",
            "context_management": {"edits": []},
        },
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"type": "auto", "disable_parallel_tool_use": True}, {"tool_choice": "auto", "parallel_tool_calls": False}),
        ({"type": "auto", "disable_parallel_tool_use": False}, {"tool_choice": "auto"}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each way to choose a tool has its counterpart."""
    body = canonical(tools=[WEATHER], tool_choice=choice)
    assert {name: body[name] for name in ("tool_choice", "parallel_tool_calls") if name in body} == expected


@pytest.mark.parametrize(
    ("given", "effort"),
    [
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "between_tools"}}, "none"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31_999}}, "high"),
        ({"thinking": {"type": "adaptive"}}, "medium"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "max"}}, "xhigh"),
    ],
)
def test_thinking(given: dict[str, Any], effort: str) -> None:
    """How hard to think is told in the canonical word, and as it was said."""
    body = canonical(**given)
    assert body["reasoning_effort"] == effort
    assert body["anthropic"] == given


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_a_json_schema(field: str) -> None:
    """Structured output is asked for with `response_format`, whichever of the two fields has it."""
    form = {"type": "json_schema", "schema": SCHEMA}
    body = canonical(**{field: {"format": form} if field == "output_config" else form})
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }


def test_betas_of_the_header_go_along() -> None:
    """`anthropic-beta` is kept for upstreams that know what it means, in any case of letters."""
    body = DIALECT.request({"messages": HELLO}, {"Anthropic-Beta": "one-2025-01-01, two-2025-01-01"})
    assert body["anthropic"] == {"betas": ["one-2025-01-01", "two-2025-01-01"]}


def test_a_long_user_id_is_not_a_user() -> None:
    """OpenAI refuses users of over 64 characters: a longer one is kept for Anthropic only."""
    body = canonical(metadata={"user_id": "x" * 65})
    assert "user" not in body
    assert body["anthropic"]["metadata"] == {"user_id": "x" * 65}


def test_tools_keep_what_only_anthropic_knows() -> None:
    """Fields of a tool beyond name, description and schema stay with it; Anthropic's own tools stay as they are."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    given = [{**WEATHER, "type": "custom", "strict": True, "cache_control": CACHE, "defer_loading": True}, search]
    function = {**FUNCTION["function"], "strict": True}  # type: ignore[dict-item]
    assert canonical(tools=given)["tools"] == [
        {
            "type": "function",
            "function": function,
            "cache_control": CACHE,
            "anthropic": {"defer_loading": True},
        },
        search,
    ]


# -- messages -----------------------------------------------------------------------------------------------------


def test_text_and_images() -> None:
    """One plain text is a string, anything more is parts; images come by URL, which may hold them."""
    url = {"type": "url", "url": "https://x.test/a.png"}
    found = messages(
        user(text("hi")),
        answer(text("look")),
        user(text("a"), {"type": "image", "source": PNG}, {"type": "image", "source": url, "cache_control": CACHE}),
    )
    assert found == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "look"},
        {
            "role": "user",
            "content": [
                text("a"),
                IMAGE,
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}, "cache_control": CACHE},
            ],
        },
    ]


def test_tool_calls_and_results() -> None:
    """Calls are told with their arguments as text, results are messages of their own, before what the user says."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    other = {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}}
    found = messages(
        HELLO[0],
        answer(text("a moment"), call, other),
        user(
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": [text("no"), text("idea")], "is_error": True},
            text("and?"),
        ),
    )
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "a moment",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                },
                {"id": "toolu_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "sun"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": [text("no"), text("idea")], "is_error": True},
        {"role": "user", "content": "and?"},
    ]


def test_an_image_of_a_result_is_shown_by_the_user() -> None:
    """OpenAI's tools return text: an image comes after all results, with the name of the call that it is from."""
    calls = [{"type": "tool_use", "id": f"t{n}", "name": "shoot", "input": {}} for n in (1, 2)]
    shot = {"type": "tool_result", "tool_use_id": "t1", "content": [text("done"), {"type": "image", "source": PNG}]}
    given = [HELLO[0], answer(*calls), user(shot, {"type": "tool_result", "tool_use_id": "t2"})]
    body, _ = plain({"messages": messages(*given)})
    assert body["messages"][2:] == [
        {"role": "tool", "tool_call_id": "t1", "content": "done"},
        {"role": "tool", "tool_call_id": "t2", "content": ""},
        {"role": "user", "content": [text("What t1 gave:"), IMAGE]},
    ]
    assert AnthropicUpstream().request({"messages": messages(*given)}, "m", stream=False)[0]["messages"][2] == given[2]


def test_thoughts_come_back_with_their_signatures() -> None:
    """Thinking is `reasoning_content` for all, and `thinking_blocks` for who signed it; unsigned it is only read."""
    signed = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    hidden = {"type": "redacted_thinking", "data": "xyz"}
    unsigned = {"type": "thinking", "thinking": "well", "signature": ""}
    found = messages(HELLO[0], answer(signed, hidden, text("a")), HELLO[0], answer(unsigned, text("b")), HELLO[0])
    assert found[1] == {
        "role": "assistant",
        "content": "a",
        "reasoning_content": "hm",
        "thinking_blocks": [signed, hidden],
    }
    assert found[3] == {"role": "assistant", "content": "b", "reasoning_content": "well"}


def test_thoughts_between_other_blocks_keep_their_places() -> None:
    """Signed thoughts that do not come first are kept in the order of the whole message."""
    blocks = [text("a"), {"type": "thinking", "thinking": "hm", "signature": "sig"}, text("b")]
    (found,) = messages(answer(*blocks))
    assert found["anthropic"] == blocks
    assert found["content"] == [text("a"), text("b")]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "body"}, "title": "T"},
            text("T\nbody"),
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}, "context": "C"},
            text("C\na\nb"),
        ),
        (
            {"type": "search_result", "source": "https://x.test", "title": "T", "content": [text("found")]},
            text("T\nhttps://x.test\nfound"),
        ),
    ],
)
def test_documents_of_text_are_text(block: dict[str, Any], part: dict[str, Any]) -> None:
    """Everybody can read a document of text; what it was is kept beside it."""
    assert messages(user(block)) == [{"role": "user", "content": [{**part, "anthropic": block}]}]


def test_files() -> None:
    """A PDF is a file with its data or its URL; one that is at Anthropic can only be read there."""
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    at_anthropic = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    (found,) = messages(user({"type": "document", "source": pdf, "title": "a.pdf"}, at_anthropic))
    assert found["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        {"type": "file", "file": {"file_id": "file_1"}, "anthropic": at_anthropic},
    ]


def test_a_system_message_in_between_stays_there() -> None:
    """Instructions that come later come later for the upstream too."""
    assert messages(HELLO[0], {"role": "system", "content": "now in French"})[1] == {
        "role": "system",
        "content": "now in French",
    }


def test_what_is_made_is_a_canonical_request() -> None:
    """The parser of canonical requests takes what is made of a rich request, and sees what it forces and needs."""
    body = canonical(
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "weather"},
        messages=[user(text("a"), {"type": "image", "source": PNG})],
        stream=True,
    )
    call = parse_chat(body, "c1")
    assert call.forced is not None
    assert call.forced.tools == {"weather": SCHEMA}
    assert call.needs == {"tools", "vision"}
    assert (call.stream, call.include_usage) == (True, True)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [user("hi")]}, "messages.0.content.0"),
        ({"messages": [user({"type": "text"})]}, "messages.0.content.0.text"),
        ({"messages": [user({"type": "video"})]}, "messages.0.content.0.type"),
        ({"messages": [user({"type": "image", "source": {"type": "x"}})]}, "messages.0.content.0.source.type"),
        ({"messages": [user({"type": "tool_result"})]}, "messages.0.content.0.tool_use_id"),
        ({"messages": [answer({"type": "tool_use", "id": "1", "name": "f"})]}, "messages.0.content.0.input"),
        ({"messages": [answer({"type": "tool_use", "name": "f", "input": {}})]}, "messages.0.content.0.id"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"system": 7}, "system"),
        ({"system": [{"type": "image", "source": PNG}]}, "system.0"),
        ({"tools": {}}, None),
        ({"tools": {"a": 1}}, "tools"),
        ({"tools": [7]}, "tools.0"),
        ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
        ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
        ({"tools": [WEATHER], "tool_choice": "auto"}, "tool_choice"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"output_format": {"type": "json_schema"}}, "output_format"),
        ({"output_format": {"type": "json_schema", "schema": {"type": "strin"}}}, "output_format.schema"),
    ],
)
def test_a_wrong_field_is_named(given: dict[str, Any], param: str | None) -> None:
    """What is wrong is refused with the path of the client's own field; an empty value is as good as none."""
    if param is None:
        assert "tools" not in canonical(**given)
        return
    with pytest.raises(InvalidRequest) as caught:
        canonical(**given)
    assert caught.value.param == param


# -- replies ------------------------------------------------------------------------------------------------------


def reply(message: dict[str, Any], finish: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    return DIALECT.reply({"id": "chatcmpl-7", "model": "acme/large", "choices": [choice], "usage": usage})


def test_a_whole_reply() -> None:
    """Thoughts, text and calls are blocks in this order; the input is what no cache had a part in."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    found = reply({"content": "a moment", "reasoning_content": "hm", "tool_calls": [call]}, "tool_calls")
    assert found == {
        "id": "msg_7",
        "type": "message",
        "role": "assistant",
        "model": "acme/large",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            text("a moment"),
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 60,
            "output_tokens": 20,
            "output_tokens_details": {"thinking_tokens": 5},
        },
    }


@pytest.mark.parametrize(
    ("finish", "more", "reason", "sequence"),
    [
        ("stop", {}, "end_turn", None),
        ("length", {}, "max_tokens", None),
        ("tool_calls", {}, "tool_use", None),
        ("content_filter", {}, "refusal", None),
        ("stop", {"native_finish_reason": "stop_sequence", "stop_sequence": "END"}, "stop_sequence", "END"),
        ("stop", {"native_finish_reason": "pause_turn"}, "pause_turn", None),
        ("length", {"native_finish_reason": "model_context_window_exceeded"}, "model_context_window_exceeded", None),
        ("tool_calls", {"native_finish_reason": "end_turn"}, "tool_use", None),
        ("stop", {"native_finish_reason": "STOP"}, "end_turn", None),
    ],
)
def test_stop_reasons(finish: str, more: dict[str, Any], reason: str, sequence: str | None) -> None:
    """An upstream's own word stands where it means the same as the canonical one."""
    found = reply({"content": "x"}, finish, **more)
    assert (found["stop_reason"], found["stop_sequence"]) == (reason, sequence)


def test_a_refusal() -> None:
    """What the model says when it refuses is text, and the reason of the stop."""
    found = reply({"content": None, "refusal": "I would rather not"}, "stop")
    assert found["content"] == [text("I would rather not")]
    assert found["stop_reason"] == "refusal"
    assert found["stop_details"]["explanation"] == "I would rather not"


def test_signed_thoughts_go_out_as_they_came() -> None:
    """Blocks with signatures are told instead of the reasoning that they hold."""
    signed = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    found = reply({"content": "a", "reasoning_content": "hm", "thinking_blocks": [signed]}, "stop")
    assert found["content"] == [signed, text("a")]


def test_arguments_that_are_no_object_are_not_lost() -> None:
    """An answer that broke off in the arguments of a call still tells what there is of them."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    found = reply({"content": None, "tool_calls": [call]}, "length")
    assert found["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": {"arguments": '{"a'}}]


# -- errors, counts, models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("no", param="messages"), 400, "invalid_request_error"),
        (InvalidRequest("no"), 422, "invalid_request_error"),
        (InvalidApiKey("no"), 401, "authentication_error"),
        (LlmproxyError("no"), 402, "billing_error"),
        (LlmproxyError("no"), 403, "permission_error"),
        (LlmproxyError("no"), 404, "not_found_error"),
        (LlmproxyError("no"), 413, "request_too_large"),
        (QuotaExhausted("no"), 429, "rate_limit_error"),
        (LlmproxyError("no"), 500, "api_error"),
        (AllCandidatesFailed("no"), 502, "api_error"),
        (LlmproxyError("no"), 503, "overloaded_error"),
        (LlmproxyError("no"), 504, "timeout_error"),
    ],
)
def test_errors(error: LlmproxyError, status: int, kind: str) -> None:
    """The type of an error is the one that Anthropic has for its status."""
    body = DIALECT.error(error, status, "req_1")
    said = "messages: no" if error.param else "no"
    assert body == {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}


def test_an_error_tells_what_was_tried() -> None:
    """The attempts stand in the error, as in every dialect."""
    error = AllCandidatesFailed("nobody could answer")
    error.attempts = (Attempt("groq/x", "429", 0.11, 429, "slow down"),)
    body = DIALECT.error(error, 502, "r")
    assert body["error"]["attempts"] == [
        {"model": "groq/x", "outcome": "429", "status": 429, "ms": 110, "reason": "slow down"}
    ]


@pytest.mark.parametrize(
    ("body", "least", "most"),
    [
        ({"messages": HELLO}, 4, 8),
        ({"messages": [user(text("x" * 400))]}, 100, 110),
        ({"messages": HELLO, "system": "x" * 400}, 100, 110),
        ({"messages": HELLO, "system": [text("x" * 400)]}, 100, 110),
        ({"messages": HELLO, "tools": [{**WEATHER, "description": "x" * 400}]}, 110, 150),
        ({"messages": [user({"type": "image", "source": {**PNG, "data": "A" * 99_999}})]}, 1600, 1610),
        ({"messages": [user({"type": "tool_result", "tool_use_id": "1", "content": "x" * 400})]}, 100, 110),
        ({"messages": [answer({"type": "tool_use", "id": "1", "name": "f", "input": {"a": "x" * 400}})]}, 100, 115),
        (
            {"messages": [answer({"type": "thinking", "thinking": "x" * 400, "signature": "S" * 4000})]},
            100,
            110,
        ),
        ({"messages": [user({"type": "document", "source": {"type": "text", "data": "x" * 400}})]}, 100, 110),
        ({"messages": [user({"type": "document", "source": {"type": "base64", "data": "A" * 99_999}})]}, 1600, 1610),
        ({}, 0, 0),
        ({"messages": "odd", "system": 7}, 0, 0),
    ],
)
def test_counting(body: dict[str, Any], least: int, most: int) -> None:
    """Everything that the model reads counts, and nothing else: no signatures, no image data."""
    assert least <= count_tokens(body) <= most


def test_the_model_list() -> None:
    """Models have a time of day and a page; a list without models is a page too."""
    entries = [{"id": "a", "created": 1_700_000_000, "context_length": 8192}, {"id": "b"}]
    assert models(entries) == {
        "data": [
            {
                "type": "model",
                "id": "a",
                "display_name": "a",
                "created_at": "2023-11-14T22:13:20Z",
                "max_input_tokens": 8192,
            },
            {"type": "model", "id": "b", "display_name": "b", "created_at": "1970-01-01T00:00:00Z"},
        ],
        "has_more": False,
        "first_id": "a",
        "last_id": "b",
    }
    assert models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}
    assert model_entry(entries[1])["id"] == "b"
