"""OpenAI's Python SDK, chat and responses, over every kind of source: none of them looks different."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from jsonschema_rs import validate
from pydantic import BaseModel, ConfigDict

from tests.fakes import scenarios
from tests.sdk.calling import Caller, calling, function, text_of
from tests.sdk.matrix import LOCAL, cells, greeting, model_of, schema_of
from tests.sdk.responding import Responder, responding
from tests.servers import Json, Server

CHAT, RESPONSES = "openai-chat", "openai-responses"
modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
upstreams = pytest.mark.parametrize("source", ["oai", "claude", "gem"])

QUESTION = "What's the weather in Paris?"
WEATHER = function(scenarios.TOOL, "Get the current temperature of a city.", {"city": {"type": "string"}})
# The same as the Responses API has it.
TOOL: Json = {"type": "function", "strict": False, **WEATHER["function"]}
PICTURE = f"data:{scenarios.IMAGE_TYPE};base64,{base64.b64encode(scenarios.IMAGE).decode()}"
# What the streaming helper leaves in a message, and OpenAI does not take back.
OF_THE_HELPER: Any = {"parsed": True, "tool_calls": {"__all__": {"index": True, "function": {"parsed_arguments"}}}}
LOCAL_RESULT = f"The result is {scenarios.TEMPERATURES[0]} degrees."


class Person(BaseModel):
    """What `scenarios.SCHEMA` describes."""

    model_config = ConfigDict(extra="forbid")

    name: str
    age: int


@pytest.fixture
async def chat(polyglot: Server, blocking: bool) -> AsyncIterator[Caller]:
    """`client.chat.completions`."""
    async with calling(polyglot, blocking=blocking) as caller:
        yield caller


@pytest.fixture
async def responder(polyglot: Server, blocking: bool) -> AsyncIterator[Responder]:
    """`client.responses`."""
    async with responding(polyglot, blocking=blocking) as responder:
        yield responder


def new(source: str, scenario: str) -> str:
    """A model's name that nobody has used: one that failed before is not asked again at once."""
    return model_of(source, scenario, uuid.uuid4().hex[:8])


async def said(chat: Caller, model: str, messages: Any, *, stream: bool, **options: Any) -> Any:
    """The completion, put together by the SDK where it is streamed."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not stream:
        return await chat.chat(model, messages=messages, **options)
    return await chat.gathered(model, messages, stream_options={"include_usage": True}, **options)


class TestChat:
    """`chat.completions.create` and `.stream`."""

    @cells(CHAT, "text")
    async def test_text(self, chat: Caller, source: str, stream: bool) -> None:
        """One choice of text, ended by itself, with its usage, named after who answered."""
        found = await said(chat, model_of(source, "text"), "hello", stream=stream)
        (choice,) = found.choices
        assert (choice.message.content, choice.finish_reason) == (greeting(source), "stop")
        assert found.model == model_of(source, "text")
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 2

    @cells(CHAT, "tools")
    async def test_tools(self, chat: Caller, source: str, stream: bool) -> None:
        """Two calls at once arrive with ids, their results find them again, and the answer is made of both."""
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        first = (await said(chat, model_of(source, "tools"), messages, stream=stream, tools=[WEATHER])).choices[0]
        calls, cities = first.message.tool_calls, scenarios.CITIES[: 1 if source == LOCAL else 2]
        assert first.finish_reason == "tool_calls"
        assert [call.function.name for call in calls] == [scenarios.TOOL] * len(cities)
        assert [json.loads(call.function.arguments)["city"] for call in calls] == list(cities)
        assert len({call.id for call in calls}) == len(cities)
        messages.append(first.message.model_dump(exclude_none=True, exclude=OF_THE_HELPER))
        messages += [
            {"role": "tool", "tool_call_id": call.id, "content": f"{degrees} degrees"}
            for call, degrees in zip(calls, scenarios.TEMPERATURES, strict=False)
        ]
        second = (await said(chat, model_of(source, "tools"), messages, stream=stream, tools=[WEATHER])).choices[0]
        assert second.message.content == (LOCAL_RESULT if source == LOCAL else scenarios.WEATHER)
        assert second.finish_reason == "stop"

    @cells(CHAT, "image")
    async def test_image(self, chat: Caller, source: str, stream: bool) -> None:
        """The bytes of a picture arrive under their media type."""
        content = [
            {"type": "text", "text": "Which colour is this?"},
            {"type": "image_url", "image_url": {"url": PICTURE}},
        ]
        messages = [{"role": "user", "content": content}]
        found = await said(chat, model_of(source, "image"), messages, stream=stream)
        assert found.choices[0].message.content == scenarios.COLOUR

    @cells(CHAT, "schema")
    async def test_schema(self, chat: Caller, source: str, stream: bool) -> None:
        """A JSON schema reaches whoever answers, and the answer follows it."""
        form = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema_of(source)}}
        found = await said(chat, model_of(source, "schema"), "Who is it?", stream=stream, response_format=form)
        validate(schema_of(source), answer := json.loads(found.choices[0].message.content))
        assert answer == scenarios.PERSON or source == LOCAL

    @upstreams
    @modes
    async def test_parse(self, chat: Caller, source: str, stream: bool) -> None:
        """A pydantic class comes back as an object of it, whole and from the streaming helper."""
        model = model_of(source, "schema")
        if stream:
            found = (await chat.helped(model, "Who is it?", response_format=Person))[1].choices[0].message.parsed
        else:
            found = await chat.parsed(model, Person, "Who is it?")
        assert found == Person(**scenarios.PERSON)

    @cells(CHAT, "refused")
    async def test_refused(self, chat: Caller, source: str, stream: bool) -> None:
        """An error is the SDK's own, with the code, the wait and the id of the request where the SDK reads them."""
        model, prompt = (LOCAL, "word " * 5000) if source == LOCAL else (new(source, "refused"), "hello")
        with pytest.raises(openai.APIStatusError) as raised:
            await said(chat, model, prompt, stream=stream)
        check_refusal(source, raised.value)

    @cells(CHAT, "cut")
    async def test_cut(self, chat: Caller, source: str, stream: bool) -> None:
        """What was said before a break is heard, and then an error of the SDK's own, in the stream or in its place."""
        if not stream:
            with pytest.raises(openai.InternalServerError) as failed:
                await chat.chat(new(source, "cut"))
            assert (failed.value.status_code, failed.value.code) == (502, "all_candidates_failed")
            return
        chunks: list[Any] = []
        with pytest.raises(openai.APIError) as raised:
            await chat.heard(chunks, new(source, "cut"))
        assert text_of(chunks) == scenarios.BEFORE_THE_CUT
        assert raised.value.code == "connection_lost"

    @cells(CHAT, "thinks")
    async def test_thinks(self, chat: Caller, source: str, stream: bool) -> None:
        """Reasoning stands beside the answer, and it and cached tokens are counted."""
        found = await said(chat, model_of(source, "thinks"), "hello", stream=stream)
        message, usage = found.choices[0].message, found.usage
        assert (message.reasoning_content, message.content) == (scenarios.THOUGHT, scenarios.DONE)
        assert (usage.prompt_tokens, usage.completion_tokens) == (scenarios.PROMPT_TOKENS, scenarios.COMPLETION_TOKENS)
        assert usage.prompt_tokens_details.cached_tokens == scenarios.CACHED_TOKENS
        assert usage.completion_tokens_details.reasoning_tokens == scenarios.REASONING_TOKENS

    @upstreams
    @modes
    async def test_ends(self, chat: Caller, source: str, stream: bool) -> None:
        """An answer cut by its limit ends with `length`; a withheld one with a refusal or `content_filter`."""
        assert await ended(chat, model_of(source, "long"), stream) == (greeting(source), "", "length")
        text, refusal, finish = await ended(chat, model_of(source, "declined"), stream)
        assert (text, finish) == ("", "stop" if source == "oai" else "content_filter")
        assert bool(refusal) == (source != "gem")


async def ended(chat: Caller, model: str, stream: bool) -> tuple[str, str, str]:
    """(text, refusal, finish reason): the helper raises for answers that did not end by themselves."""
    if not stream:
        (choice,) = (await chat.chat(model)).choices
        return choice.message.content or "", choice.message.refusal or "", choice.finish_reason
    choices = [choice for chunk in await chat.chunks(model) for choice in chunk.choices]
    refusal = "".join(choice.delta.refusal or "" for choice in choices)
    return "".join(choice.delta.content or "" for choice in choices), refusal, choices[-1].finish_reason


class TestResponses:
    """`responses.create` and `.stream`."""

    @cells(RESPONSES, "text")
    async def test_text(self, responder: Responder, source: str, stream: bool) -> None:
        """One message of text, completed, with its usage, named after who answered."""
        found = await responder.say(model_of(source, "text"), stream=stream)
        assert (found.output_text, found.status, found.error) == (greeting(source), "completed", None)
        assert [item.type for item in found.output] == ["message"]
        assert found.model == model_of(source, "text")
        assert found.id.startswith("resp_")
        assert found.usage.total_tokens == found.usage.input_tokens + found.usage.output_tokens > 2

    @cells(RESPONSES, "tools")
    async def test_tools(self, responder: Responder, source: str, stream: bool) -> None:
        """Two calls at once arrive with ids, their results find them again, and the answer is made of both."""
        items: list[Any] = [{"role": "user", "content": QUESTION}]
        first = await responder.say(model_of(source, "tools"), items, stream=stream, tools=[TOOL])
        calls, cities = first.output, scenarios.CITIES[: 1 if source == LOCAL else 2]
        assert [(call.type, call.name, call.status) for call in calls] == [
            ("function_call", scenarios.TOOL, "completed")
        ] * len(cities)
        assert [json.loads(call.arguments)["city"] for call in calls] == list(cities)
        assert len({call.call_id for call in calls}) == len({call.id for call in calls}) == len(cities)
        items += [call.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for call in calls]
        items += results_of(calls)
        second = await responder.say(model_of(source, "tools"), items, stream=stream, tools=[TOOL])
        assert second.output_text == (LOCAL_RESULT if source == LOCAL else scenarios.WEATHER)

    @cells(RESPONSES, "image")
    async def test_image(self, responder: Responder, source: str, stream: bool) -> None:
        """The bytes of a picture arrive under their media type."""
        content = [
            {"type": "input_text", "text": "Which colour is this?"},
            {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
        ]
        items = [{"role": "user", "content": content}]
        assert (await responder.say(model_of(source, "image"), items, stream=stream)).output_text == scenarios.COLOUR

    @cells(RESPONSES, "schema")
    async def test_schema(self, responder: Responder, source: str, stream: bool) -> None:
        """A JSON schema reaches whoever answers, and the answer follows it."""
        text = {"format": {"type": "json_schema", "name": "person", "schema": schema_of(source), "strict": True}}
        found = await responder.say(model_of(source, "schema"), "Who is it?", stream=stream, text=text)
        validate(schema_of(source), answer := json.loads(found.output_text))
        assert answer == scenarios.PERSON or source == LOCAL

    @upstreams
    @modes
    async def test_parse(self, responder: Responder, source: str, stream: bool) -> None:
        """A pydantic class comes back as an object of it, whole and from the streaming helper."""
        model = model_of(source, "schema")
        if stream:
            found = (await responder.helped(model, "Who is it?", text_format=Person))[1].output_parsed
        else:
            found = await responder.parsed(model, Person, "Who is it?")
        assert found == Person(**scenarios.PERSON)

    @cells(RESPONSES, "refused")
    async def test_refused(self, responder: Responder, source: str, stream: bool) -> None:
        """An error is the SDK's own, with the code, the wait and the id of the request where the SDK reads them."""
        model, prompt = (LOCAL, "word " * 5000) if source == LOCAL else (new(source, "refused"), "hello")
        with pytest.raises(openai.APIStatusError) as raised:
            await responder.say(model, prompt, stream=stream)
        check_refusal(source, raised.value)

    @cells(RESPONSES, "cut")
    async def test_cut(self, responder: Responder, source: str, stream: bool) -> None:
        """A stream that breaks ends with `response.failed`, which holds what was said; without one it is an error."""
        if not stream:
            with pytest.raises(openai.InternalServerError) as failed:
                await responder.say(new(source, "cut"))
            assert (failed.value.status_code, failed.value.code) == (502, "all_candidates_failed")
            return
        events = await responder.events(new(source, "cut"))
        deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
        last = events[-1]
        assert last.type == "response.failed"
        assert (last.response.status, last.response.error.code) == ("failed", "server_error")
        assert last.response.output_text == "".join(deltas) == scenarios.BEFORE_THE_CUT

    @cells(RESPONSES, "thinks")
    async def test_thinks(self, responder: Responder, source: str, stream: bool) -> None:
        """Reasoning is an item before the message, and it and cached tokens are counted."""
        found = await responder.say(model_of(source, "thinks"), stream=stream)
        reasoning, message = found.output
        assert (reasoning.type, message.type) == ("reasoning", "message")
        assert [part.text for part in reasoning.content] == [scenarios.THOUGHT]
        assert (reasoning.summary, found.output_text) == ([], scenarios.DONE)
        usage = found.usage
        assert (usage.input_tokens, usage.output_tokens) == (scenarios.PROMPT_TOKENS, scenarios.COMPLETION_TOKENS)
        assert usage.input_tokens_details.cached_tokens == scenarios.CACHED_TOKENS
        assert usage.output_tokens_details.reasoning_tokens == scenarios.REASONING_TOKENS

    @upstreams
    @modes
    async def test_a_summary(self, responder: Responder, source: str, stream: bool) -> None:
        """A client that asks for a summary gets the reasoning as one."""
        found = await responder.say(model_of(source, "thinks"), stream=stream, reasoning={"summary": "auto"})
        assert [part.text for part in found.output[0].summary] == [scenarios.THOUGHT]

    @upstreams
    @modes
    async def test_ends(self, responder: Responder, source: str, stream: bool) -> None:
        """An answer cut by its limit is incomplete; a withheld one is too, or it is a refusal."""
        long = await responder.ended(model_of(source, "long"), stream=stream)
        assert (long.status, long.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert long.output_text == greeting(source)
        declined = await responder.ended(model_of(source, "declined"), stream=stream)
        assert declined.output_text == ""
        if source == "oai":
            assert declined.status == "completed"
        else:
            assert (declined.status, declined.incomplete_details.reason) == ("incomplete", "content_filter")
        assert [part.type for item in declined.output for part in item.content] == ["refusal"] * (source != "gem")


def check_refusal(source: str, error: openai.APIStatusError) -> None:
    """A prompt that is too long for the embedded model, or a limit of an upstream."""
    assert str(error.request_id).startswith("req_")
    if source == LOCAL:
        assert isinstance(error, openai.BadRequestError)
        assert error.code == "context_length_exceeded"
        return
    assert isinstance(error, openai.RateLimitError)
    assert scenarios.REFUSAL in error.message
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert error.response.headers["retry-after"] == str(scenarios.RETRY_AFTER_S)


def results_of(calls: Any) -> list[Json]:
    """The results of the calls, as items."""
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{degrees} degrees"}
        for call, degrees in zip(calls, scenarios.TEMPERATURES, strict=False)
    ]
