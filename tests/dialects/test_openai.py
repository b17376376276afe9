"""OpenAI requests become calls; what is wrong is named, what is forced is found."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import ClientError, InvalidRequest
from llmproxy.core.names import AUTO
from llmproxy.core.types import Call
from llmproxy.dialects.openai import parse_chat, parse_completion, parse_embeddings
from tests.core.properties import quick

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
MESSAGES = [{"role": "user", "content": "hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS = [WEATHER, TIME]
BROKEN_TOOL = {"type": "function", "function": {"name": "broken", "parameters": {"type": "strin"}}}


def chat(**body: Any) -> Call:
    return parse_chat({"messages": MESSAGES, **body}, "c1")


def named(name: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


def json_schema(holder: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": holder}


WRONG_FIELDS: list[tuple[str, list[Any]]] = [
    ("temperature", ["hot", True, [1]]),
    ("top_p", ["x", {}]),
    ("presence_penalty", ["x"]),
    ("frequency_penalty", [False]),
    ("max_tokens", [0, -1, 1.5, "9", True]),
    ("max_completion_tokens", [0, "9"]),
    ("n", [0, "2", True]),
    ("seed", ["x", 1.5]),
    ("stop", [1, ["a", 2], {}]),
    ("stream", ["yes", 1]),
    ("stream_options", [True, []]),
    ("parallel_tool_calls", ["no", 0]),
    ("logit_bias", [[1]]),
    ("response_format", ["json", []]),
    ("tools", [{}, "weather"]),
    ("tool_choice", [1, []]),
    ("model", ["", 7, ["a"]]),
    ("models", ["a", ["a", 1], {}]),
]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG_FIELDS for value in values])
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    """A field of the wrong type is refused, with its name in `param`, on every endpoint that has it."""
    for parse, body in (
        (parse_chat, {"messages": MESSAGES}),
        (parse_completion, {"prompt": "x"}),
        (parse_embeddings, {"model": "m", "input": "x"}),
    ):
        with pytest.raises(InvalidRequest) as caught:
            parse({**body, field: value}, "c")
        assert caught.value.param == field
        assert caught.value.status == 400


@pytest.mark.parametrize("field", [field for field, _ in WRONG_FIELDS])
def test_null_is_as_good_as_nothing(field: str) -> None:
    """Every optional field may be null."""
    assert chat(**{field: None}).model == AUTO


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("hello", "messages"),
        ({"role": "user"}, "messages"),
        (["hello"], "messages.0"),
        ([*MESSAGES, None], "messages.1"),
        ([{"content": "x"}], "messages.0.role"),
        ([{"role": "robot", "content": "x"}], "messages.0.role"),
        ([*MESSAGES, {"role": None, "content": "x"}], "messages.1.role"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "tool", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": 7}], "messages.0.content"),
        ([{"role": "assistant", "content": 7}], "messages.0.content"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content.0"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}, {"text": "y"}]}], "messages.0.content.1"),
        ([{"role": "user", "content": [{"type": 7}]}], "messages.0.content.0"),
    ],
)
def test_a_wrong_message_is_named(messages: Any, param: str) -> None:
    """The path in `param` leads to the wrong place in the messages."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat({"messages": messages}, "c")
    assert caught.value.param == param


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]},
        {"role": "assistant", "tool_calls": [{"id": "a"}]},
        {"role": "tool", "content": "", "tool_call_id": "a"},
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": []},
        {"role": "function", "content": None, "name": "f"},
        {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "me"},
    ],
)
def test_what_messages_may_be(message: dict[str, Any]) -> None:
    """Calls of tools need no content; texts may be empty; parts are a list."""
    assert parse_chat({"messages": [message]}, "c").body["messages"] == [message]


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ("weather", "tools.1"),
        ({"type": "function"}, "tools.1.function.name"),
        ({"type": "function", "function": {"name": ""}}, "tools.1.function.name"),
        ({"function": {"name": 7}}, "tools.1.function.name"),
        ({"type": "function", "function": {"name": "x", "parameters": "none"}}, "tools.1.function.parameters"),
    ],
)
def test_a_wrong_tool_is_named(tool: Any, param: str) -> None:
    """The path in `param` leads to the wrong tool."""
    with pytest.raises(InvalidRequest) as caught:
        chat(tools=[WEATHER, tool])
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        ("required", {"weather": SCHEMA, "time": None}),
        (named("time"), {"time": None}),
        (named("weather"), {"weather": SCHEMA}),
        (allowed("required", named("time")), {"time": None}),
        (allowed("required", named("time"), named("weather")), {"time": None, "weather": SCHEMA}),
        (allowed("auto", named("time")), None),
        ("auto", None),
        ("none", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("parallel", [None, True, False])
def test_forced_tools(choice: Any, forced: dict[str, Any] | None, parallel: bool | None) -> None:
    """`required`, a named function and required `allowed_tools` force a call; `auto` and `none` never do."""
    call = chat(tools=TOOLS, tool_choice=choice, parallel_tool_calls=parallel)
    if forced is None:
        assert call.forced is None
    else:
        assert call.forced is not None
        assert call.forced.tools == forced
        assert call.forced.parallel is (parallel is not False)
        assert call.forced.capability == "tools"


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        (TOOLS, "some"),
        (TOOLS, {}),
        (TOOLS, {"type": "function"}),
        (TOOLS, named("unknown")),
        (TOOLS, named(None)),
        (TOOLS, allowed("required")),
        (TOOLS, allowed("required", named("unknown"))),
        (None, "required"),
        ([], named("weather")),
        ([{"type": "web_search"}], "required"),
    ],
)
def test_a_tool_choice_that_cannot_be_met(tools: Any, choice: Any) -> None:
    """A choice of a tool that is not offered, or in no known form, is the client's mistake."""
    with pytest.raises(InvalidRequest) as caught:
        chat(tools=tools, tool_choice=choice)
    assert caught.value.param == "tool_choice"


@pytest.mark.parametrize("choice", ["required", named("broken")])
def test_a_broken_schema_is_refused_when_it_is_forced(choice: Any) -> None:
    """Parameters that are no JSON schema can be forced on nobody; unforced they go on as they are."""
    with pytest.raises(InvalidRequest) as caught:
        chat(tools=[BROKEN_TOOL], tool_choice=choice)
    assert caught.value.param == "tools"
    assert chat(tools=[BROKEN_TOOL]).forced is None


@pytest.mark.parametrize(
    ("form", "forced", "schema"),
    [
        (None, False, None),
        ({"type": "text"}, False, None),
        ({"type": "json_object"}, True, None),
        (json_schema({"name": "x", "schema": SCHEMA}), True, SCHEMA),
        (json_schema({"name": "x"}), True, {}),
        (json_schema({"name": "x", "schema": None}), True, {}),
    ],
)
def test_forced_json(form: Any, forced: bool, schema: Any) -> None:
    """`json_object` forces an object, `json_schema` forces its schema, and text forces nothing."""
    call = chat(response_format=form)
    assert (call.forced is not None) is forced
    if call.forced:
        assert (call.forced.json, call.forced.json_schema, call.forced.tools) == (True, schema, None)
        assert call.forced.capability == "json"


def test_a_forced_tool_comes_before_json() -> None:
    """With both, the tool call is what is forced: its answer has no content."""
    call = chat(tools=TOOLS, tool_choice="required", response_format={"type": "json_object"})
    assert call.forced is not None
    assert call.forced.tools is not None
    assert not call.forced.json


@pytest.mark.parametrize(
    "holder", [None, [], "x", {"schema": []}, {"schema": {"type": "strin"}}, {"schema": {"$ref": "file:///etc/passwd"}}]
)
def test_a_broken_response_schema_is_refused(holder: Any) -> None:
    """A schema of the response that is none is the client's mistake, told with its path."""
    with pytest.raises(InvalidRequest) as caught:
        chat(response_format=json_schema(holder))
    assert caught.value.param == "response_format.json_schema.schema"


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({}, set()),
        ({"tools": TOOLS}, {"tools"}),
        ({"tools": TOOLS, "tool_choice": "none"}, set()),
        ({"tools": []}, set()),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": json_schema({"schema": SCHEMA})}, {"json"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, {"vision"}),
        ({"messages": [*MESSAGES, {"role": "user", "content": [AUDIO, {"type": "text", "text": "?"}]}]}, {"audio"}),
        ({"messages": [{"role": "user", "content": [IMAGE, AUDIO]}], "tools": TOOLS}, {"vision", "audio", "tools"}),
    ],
)
def test_needs(body: dict[str, Any], needs: set[str]) -> None:
    """A call needs the capabilities that its fields make use of."""
    assert chat(**body).needs == needs


@pytest.mark.parametrize(
    ("body", "model", "fallbacks"),
    [
        ({}, AUTO, ()),
        ({"model": None}, AUTO, ()),
        ({"model": "groq/x"}, "groq/x", ()),
        ({"model": "a", "models": ["b", "c"]}, "a", ("b", "c")),
        ({"model": "a", "models": ["a", "b"]}, "a", ("b",)),
        ({"models": ["b"]}, AUTO, ("b",)),
    ],
)
def test_the_model_and_its_fallbacks(body: dict[str, Any], model: str, fallbacks: tuple[str, ...]) -> None:
    """Without a model anyone may answer; `models` are tried after it."""
    call = chat(**body)
    assert (call.model, call.fallbacks) == (model, fallbacks)


@pytest.mark.parametrize(
    ("body", "stream", "include", "count"),
    [
        ({}, False, False, True),
        ({"stream": False, "stream_options": {"include_usage": True}}, False, False, True),
        ({"stream": True}, True, False, True),
        ({"stream": True, "stream_options": None}, True, False, True),
        ({"stream": True, "stream_options": {}}, True, False, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False, False),
    ],
)
def test_stream_options(body: dict[str, Any], stream: bool, include: bool, count: bool) -> None:
    """Usage in the stream is for whoever asked; an explicit refusal is respected upstream too."""
    call = chat(**body)
    assert (call.stream, call.include_usage, call.count_usage) == (stream, include, count)


def test_the_rest_goes_on_as_it_is() -> None:
    """Fields that the proxy does not know reach the candidate; its own do not."""
    call = chat(model="m", models=["n"], stream=True, stream_options={}, temperature=0, x_new={"a": [1]})
    assert call.body == {"messages": MESSAGES, "temperature": 0, "x_new": {"a": [1]}}
    assert (call.id, call.endpoint) == ("c1", "chat")


@pytest.mark.parametrize(
    ("content", "tokens"), [("", 4), ("x" * 400, 104), ([{"type": "text", "text": "x" * 40}, IMAGE], 14)]
)
def test_prompt_tokens_are_estimated(content: Any, tokens: int) -> None:
    """About four characters are a token; each message costs a few more."""
    assert chat(messages=[{"role": "user", "content": content}]).prompt_tokens == tokens


@pytest.mark.parametrize("prompt", [None, "", [], 7, {}])
def test_a_completion_needs_a_prompt(prompt: Any) -> None:
    """A prompt is a text (it may be empty) or a list that is not."""
    if prompt == "":
        assert parse_completion({"prompt": ""}, "c").endpoint == "completions"
        return
    with pytest.raises(InvalidRequest) as caught:
        parse_completion({"prompt": prompt}, "c")
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "x"}, "model"),
        ({"model": "m"}, "input"),
        ({"model": "m", "input": ""}, "input"),
        ({"model": "m", "input": []}, "input"),
        ({"model": "m", "input": {"a": 1}}, "input"),
        ({"model": "m", "input": "x", "stream": True}, "stream"),
    ],
)
def test_wrong_embedding_requests(body: dict[str, Any], param: str) -> None:
    """Embeddings need a model and an input, and are not streamed."""
    with pytest.raises(InvalidRequest) as caught:
        parse_embeddings(body, "c")
    assert caught.value.param == param


@pytest.mark.parametrize("given_input", ["x", ["x", "y"], [1, 2, 3], [[1, 2], [3]]])
def test_embedding_requests(given_input: Any) -> None:
    """Texts and tokens, one or many, are inputs."""
    call = parse_embeddings({"model": "m", "input": given_input, "dimensions": 8}, "c")
    assert call.body == {"input": given_input, "dimensions": 8}
    assert call.endpoint == "embeddings"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "user", "required", "function"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "name", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@quick
@given(st.dictionaries(st.sampled_from(["messages", *(field for field, _ in WRONG_FIELDS), "y"]), json_values))
def test_only_client_errors(body: dict[str, Any]) -> None:
    """Whatever JSON comes, a body is parsed or refused as the client's mistake."""
    for parse in (parse_chat, parse_completion, parse_embeddings):
        try:
            call = parse({"messages": MESSAGES, **body}, "c")
        except ClientError:
            continue
        assert call.model


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": [], "content": "x"}]},
        {"messages": [{"role": {}, "content": "x"}]},
        {"tools": TOOLS, "tool_choice": allowed("required", "time")},
        {"tools": TOOLS, "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": 1}}},
        {"tools": TOOLS, "tool_choice": allowed("required", {"function": "time"})},
        {"tools": TOOLS, "tool_choice": named(["time"])},
        {"tools": [{"type": "custom", "function": {}}], "tool_choice": "required"},
    ],
)
def test_odd_shapes_are_client_errors(body: dict[str, Any]) -> None:
    """Values of the wrong type deep inside a request are the client's mistake too, never the proxy's."""
    try:
        chat(**body)
    except ClientError:
        return
    except (AttributeError, KeyError, TypeError) as error:
        pytest.fail(repr(error))
