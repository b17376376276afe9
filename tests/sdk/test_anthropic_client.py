"""Anthropic's Python SDK over every kind of source: the embedded model, OpenAI's, Anthropic's and Gemini's format."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import jsonschema_rs
import pytest
from pydantic import BaseModel

from tests.fakes import scenarios
from tests.sdk.conftest import Fakes
from tests.sdk.matrix import FAKES, LOCAL, SOURCES, cells, greeting, model_of, schema_of
from tests.servers import Json, Server, provider, serving

WEATHER: Json = {
    "name": scenarios.TOOL,
    "description": "Get the current temperature for a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING: Json = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}
FORMAT: Json = {"output_config": {"format": {"type": "json_schema", "schema": scenarios.SCHEMA}}}
upstreams = pytest.mark.parametrize("source", FAKES)
modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def client(polyglot: Server) -> Iterator[anthropic.Anthropic]:
    """The SDK, which retries nothing by itself."""
    with anthropic.Anthropic(base_url=polyglot.url, api_key="unused", max_retries=0, timeout=30) as client:
        yield client


def ask(client: anthropic.Anthropic, model: str, stream: bool, said: Any = "hello", **options: Any) -> Any:
    """The message that answers `said` (a text, or messages), put together by the SDK where it is streamed."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    body: Json = {"model": model, "max_tokens": 64, "messages": messages, **options}
    if not stream:
        return client.messages.create(**body)
    with client.messages.stream(**body) as streamed:
        return streamed.get_final_message()


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# -- the matrix ---------------------------------------------------------------------------------------------------


@cells("anthropic", "text")
def test_text(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """A message of one text block, ended by itself, with its usage, named after who answered."""
    message = ask(client, model_of(source, "text"), stream)
    assert text_of(message) == greeting(source)
    assert [block.type for block in message.content] == ["text"]
    assert (message.stop_reason, message.model) == ("end_turn", model_of(source, "text"))
    assert message.id.startswith("msg_")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


@cells("anthropic", "tools")
def test_tools(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """The calls come as blocks of their own, and both results find their calls again."""
    model, question = model_of(source, "tools"), "What's the weather in Paris?"
    first = ask(client, model, stream, question, tools=[WEATHER])
    calls = [block for block in first.content if block.type == "tool_use"]
    cities = scenarios.CITIES[:1] if source == LOCAL else scenarios.CITIES
    assert [(call.name, call.input) for call in calls] == [(scenarios.TOOL, {"city": city}) for city in cities]
    assert len({call.id for call in calls}) == len(calls)
    assert first.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"{degrees} degrees"}
        for call, degrees in zip(calls, scenarios.TEMPERATURES, strict=False)
    ]
    said = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": results},
    ]
    second = ask(client, model, stream, said, tools=[WEATHER])
    assert second.stop_reason == "end_turn"
    assert text_of(second) if source == LOCAL else text_of(second) == scenarios.WEATHER


@cells("anthropic", "image")
def test_image(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """The bytes and the media type of an image arrive as they were."""
    data = base64.b64encode(scenarios.IMAGE).decode()
    image = {"type": "image", "source": {"type": "base64", "media_type": scenarios.IMAGE_TYPE, "data": data}}
    said = [{"role": "user", "content": [image, {"type": "text", "text": "Which colour is this?"}]}]
    assert text_of(ask(client, model_of(source, "image"), stream, said)) == scenarios.COLOUR


@cells("anthropic", "schema")
def test_schema(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """An answer in the form that `output_config.format` asks for, as text."""
    form = {"format": {"type": "json_schema", "schema": schema_of(source)}}
    message = ask(client, model_of(source, "schema"), stream, "Who is it?", output_config=form)
    jsonschema_rs.validate(schema_of(source), json.loads(text_of(message)))
    assert source == LOCAL or json.loads(text_of(message)) == scenarios.PERSON
    assert message.stop_reason == "end_turn"


@cells("anthropic", "refused")
def test_an_error(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """The SDK raises the class of the status, with Anthropic's type, the request's id and the wait."""
    if source == LOCAL:
        with pytest.raises(anthropic.BadRequestError) as refused:
            ask(client, LOCAL, stream, "word " * 5000)
        assert refused.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
        return
    with pytest.raises(anthropic.RateLimitError) as raised:
        ask(client, model_of(source, "refused", f"anthropic-{stream}"), stream)
    body: Any = raised.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
    assert scenarios.REFUSAL in body["error"]["message"]
    assert body["request_id"] == raised.value.request_id
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= scenarios.RETRY_AFTER_S


@cells("anthropic", "cut")
def test_a_cut_answer(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """What was said before the break is told, and then an error: nobody takes it for the whole."""
    model = model_of(source, "cut", f"anthropic-{stream}")
    if not stream:
        with pytest.raises(anthropic.InternalServerError) as raised:
            ask(client, model, stream)
        assert raised.value.body["error"]["type"] == "api_error"  # type: ignore[index]
        return
    heard: list[str] = []
    with (
        client.messages.stream(model=model, max_tokens=64, messages=[{"role": "user", "content": "hello"}]) as streamed,
        pytest.raises(anthropic.APIStatusError) as broken,
    ):
        heard.extend(streamed.text_stream)
    assert "".join(heard) == scenarios.BEFORE_THE_CUT
    body: Any = broken.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")


@cells("anthropic", "thinks")
def test_reasoning(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """Thoughts are a block before the text; cached and thinking tokens are in the usage."""
    message = ask(client, model_of(source, "thinks"), stream, **THINKING)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == scenarios.THOUGHT
    assert text_of(message) == scenarios.DONE
    usage = message.usage
    assert usage.cache_read_input_tokens == scenarios.CACHED_TOKENS
    assert usage.input_tokens == scenarios.PROMPT_TOKENS - scenarios.CACHED_TOKENS
    assert usage.output_tokens == scenarios.COMPLETION_TOKENS
    assert usage.output_tokens_details.thinking_tokens == scenarios.REASONING_TOKENS


# -- beside the matrix --------------------------------------------------------------------------------------------


@modes
@upstreams
def test_the_limit_of_tokens_ends_an_answer(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """`max_tokens` is the stop reason, whatever the upstream calls it."""
    assert ask(client, model_of(source, "long"), stream).stop_reason == "max_tokens"


@modes
@upstreams
def test_a_refusal(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """An answer that a model withholds has the stop reason `refusal`, whatever the upstream calls it."""
    assert ask(client, model_of(source, "declined"), stream).stop_reason == "refusal"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("scenario", ["text", "tools", "thinks"])
def test_events_are_in_order(client: anthropic.Anthropic, source: str, scenario: str) -> None:
    """One start, blocks one after the other with indices without a gap, the end once."""
    question = [{"role": "user", "content": "What's the weather in Paris?"}]
    body: Json = {"messages": question, "max_tokens": 64}
    tools: Json = {"tools": [WEATHER]} if scenario == "tools" else {}
    with client.messages.create(model=model_of(source, scenario), stream=True, **body, **tools) as events:
        found = [event for event in list[Any](events) if event.type != "ping"]
    kinds = [event.type for event in found]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert found[0].message.usage.input_tokens > 0
    opened, index = "", -1
    for event in found[1:-2]:
        if event.type == "content_block_start":
            assert not opened
            opened, index = event.content_block.type, index + 1
        elif event.type == "content_block_stop":
            assert opened
            opened = ""
        assert event.index == index
    assert not opened


@pytest.mark.parametrize("source", SOURCES)
@modes
def test_the_request_id_stands_where_the_sdk_reads_it(client: anthropic.Anthropic, source: str, stream: bool) -> None:
    """`request-id` is the id of the request, in whole answers and in streams."""
    body: Json = {"model": model_of(source, "text"), "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    if stream:
        with client.messages.stream(**body) as streamed:
            headers, found = streamed.response.headers, streamed.request_id
    else:
        raw = client.messages.with_raw_response.create(**body)
        headers, found = raw.headers, raw.parse()._request_id
    assert found is not None
    assert found == headers["x-request-id"]
    assert headers["x-llmproxy-selected-model"] == model_of(source, "text")


@modes
@pytest.mark.parametrize(("source", "left_out"), [(LOCAL, True), ("oai", True), ("claude", False)])
def test_what_only_anthropic_knows_is_left_out_and_told(client: Any, source: str, left_out: bool, stream: bool) -> None:
    """Cache marks and metadata stop nobody else from answering; the header names what was not honoured."""
    text = {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
    body: Json = {"model": model_of(source, "text"), "max_tokens": 64, "metadata": {"user_id": "u" * 80}}
    answer = client.messages.with_raw_response.create(
        **body, messages=[{"role": "user", "content": [text]}], stream=stream
    )
    told = answer.headers.get("x-llmproxy-degraded")
    assert told == ("anthropic.metadata, messages.content.cache_control" if left_out else None)
    if stream:
        with answer.parse() as events:
            said = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    else:
        said = text_of(answer.parse())
    assert said == greeting(source)


@pytest.mark.parametrize("source", SOURCES)
def test_a_tool_of_anthropics_own(client: Any, source: str) -> None:
    """It goes to those who have it; everybody else refuses it by name, and nobody leaves it out."""
    tool = {"type": "web_search_20250305", "name": "web_search"}
    if source == "claude":
        assert text_of(ask(client, model_of(source, "text"), False, tools=[tool])) == greeting(source)
        return
    with pytest.raises(anthropic.BadRequestError, match="web_search_20250305"):
        ask(client, model_of(source, "text"), False, tools=[tool])


class Person(BaseModel):
    name: str
    age: int


@upstreams
def test_parse(client: anthropic.Anthropic, source: str) -> None:
    """`.parse` gives an object of the class."""
    messages: Any = [{"role": "user", "content": "Who is it?"}]
    found = client.messages.parse(
        model=model_of(source, "schema"), max_tokens=64, messages=messages, output_format=Person
    )
    assert found.parsed_output == Person(name="Ada", age=36)


def test_a_schema_goes_to_a_new_claude_as_one(client: anthropic.Anthropic, fakes: Fakes) -> None:
    """A model that knows `output_config.format` gets the schema there, and no tool that stands in for it."""
    message = ask(client, "claude/claude-haiku-4-5-schema", False, **FORMAT)
    assert json.loads(text_of(message)) == scenarios.PERSON
    sent = fakes.claude.last("claude-haiku-4-5-schema").json
    assert sent["output_config"] == FORMAT["output_config"]
    assert "tools" not in sent


@pytest.mark.parametrize("source", SOURCES)
def test_tokens_are_counted(client: anthropic.Anthropic, source: str) -> None:
    """`count_tokens` gives a number that grows with the prompt, for any model."""
    tools: Any = [WEATHER]
    few, many = (
        client.messages.count_tokens(
            model=model_of(source, "text"), messages=[{"role": "user", "content": text}], tools=tools
        ).input_tokens
        for text in ("hello", "hello " * 100)
    )
    assert 0 < few < many - 90


def test_models(client: anthropic.Anthropic) -> None:
    """The list has Anthropic's shape, and each of its names can be looked up."""
    listed = list(client.models.list())
    names = {model.id for model in listed}
    assert {"local__tiny", "oai__text", "claude__text", "gem__text"} <= names
    found = client.models.retrieve("claude__text")
    assert (found.type, found.id) == ("model", "claude__text")
    assert found.created_at.year >= 1970


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"tools": [{"name": "x"}]}, "tools.0.input_schema"),
        ({"messages": []}, "messages"),
    ],
    ids=["max_tokens", "tools", "messages"],
)
def test_a_wrong_field_is_named(client: anthropic.Anthropic, options: Json, said: str) -> None:
    """400 with the path of the field in the client's own words."""
    with pytest.raises(anthropic.BadRequestError, match=said):
        client.messages.create(
            **{"model": "oai/text", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **options}
        )


def test_an_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    """404 with Anthropic's type."""
    with pytest.raises(anthropic.NotFoundError) as raised:
        ask(client, "nobody/nothing", False)
    assert raised.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]


async def test_the_async_client(polyglot: Server) -> None:
    """The other client streams the same."""
    async with (
        anthropic.AsyncAnthropic(base_url=polyglot.url, api_key="unused", max_retries=0) as client,
        client.messages.stream(
            model="claude/text", max_tokens=64, messages=[{"role": "user", "content": "hello"}]
        ) as streamed,
    ):
        assert await streamed.get_final_text() == greeting("claude")


def test_keys(fakes: Fakes, tmp_path: Any) -> None:
    """The key is taken from `x-api-key` and from a Bearer token; a wrong one is refused in Anthropic's words."""
    config = {
        "server": {"api_keys": ["sk-door"]},
        "local": {"models": []},
        "providers": {"claude": provider(fakes.claude.url, protocol="anthropic")},
    }
    with serving(config, tmp_path, "--no-local") as server:
        ways: tuple[Json, ...] = ({"api_key": "sk-door"}, {"auth_token": "sk-door"})
        for given in ways:
            with anthropic.Anthropic(base_url=server.url, max_retries=0, **given) as client:
                assert text_of(ask(client, "claude/text", False)) == greeting("claude")
        with (
            anthropic.Anthropic(base_url=server.url, api_key="sk-wrong", max_retries=0) as client,
            pytest.raises(anthropic.AuthenticationError) as raised,
        ):
            ask(client, "claude/text", False)
        assert raised.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    assert not [request for request in fakes.claude.requests if "sk-door" in str(request.headers)]
