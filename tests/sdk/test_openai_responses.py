"""What only the Responses API has: kept conversations, events with numbers, items, and tools that run elsewhere."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from tests.fakes import scenarios
from tests.sdk.calling import function
from tests.sdk.conftest import Fakes
from tests.sdk.matrix import LOCAL, greeting, model_of
from tests.sdk.responding import Responder, responding
from tests.servers import Json, Server

modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
sources = pytest.mark.parametrize("source", ["oai", "claude", "gem"])

WEATHER: Json = {
    "type": "function",
    "strict": False,
    **function(scenarios.TOOL, "Get the current temperature of a city.", {"city": {"type": "string"}})["function"],
}
PATCH: Json = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}


@pytest.fixture
async def responder(polyglot: Server, blocking: bool) -> AsyncIterator[Responder]:
    """`client.responses`."""
    async with responding(polyglot, blocking=blocking) as responder:
        yield responder


def new(source: str, scenario: str) -> str:
    """A model's name that nobody has used, to find its requests by."""
    return model_of(source, scenario, uuid.uuid4().hex[:8])


def outputs(calls: Any) -> list[Json]:
    return [
        {"type": "function_call_output", "call_id": call.call_id, "output": f"{degrees} degrees"}
        for call, degrees in zip(calls, scenarios.TEMPERATURES, strict=True)
    ]


class TestKept:
    """`previous_response_id`, `retrieve`, `delete`, `store`."""

    @sources
    @modes
    async def test_a_conversation_goes_on(self, responder: Responder, source: str, stream: bool) -> None:
        """Only the results are sent; the question and the calls are remembered."""
        model = model_of(source, "tools")
        first = await responder.say(model, "What's the weather?", stream=stream, tools=[WEATHER])
        options: Json = {"tools": [WEATHER], "previous_response_id": first.id}
        second = await responder.say(model, outputs(first.output), stream=stream, **options)
        assert (second.output_text, second.previous_response_id) == (scenarios.WEATHER, first.id)

    @modes
    async def test_it_can_go_on_elsewhere(self, responder: Responder, fakes: Fakes, stream: bool) -> None:
        """Three turns over three wire formats: each one gets the whole conversation, and its own instructions alone."""
        asked = [new(source, "text") for source in ("claude", "gem", "oai")]
        before: Json = {}
        for turn, model in enumerate(asked):
            options: Json = {"instructions": f"rule {turn}", **before}
            found = await responder.say(model, f"question {turn}", stream=stream, **options)
            before = {"previous_response_id": found.id}
        assert fakes.oai.last(asked[-1].partition("/")[2]).json["messages"] == [
            {"role": "system", "content": "rule 2"},
            {"role": "user", "content": "question 0"},
            {"role": "assistant", "content": greeting("claude")},
            {"role": "user", "content": "question 1"},
            {"role": "assistant", "content": greeting("gem")},
            {"role": "user", "content": "question 2"},
        ]

    async def test_one_conversation_may_fork(self, responder: Responder, fakes: Fakes) -> None:
        """Two answers to one response know nothing of each other."""
        first = await responder.say(LOCAL, "hello")
        models = [new("oai", "text") for _ in range(2)]
        for model in models:
            await responder.say(model, f"to {model}", previous_response_id=first.id)
        for model in models:
            said = fakes.oai.last(model.partition("/")[2]).json["messages"]
            assert [message["role"] for message in said] == ["user", "assistant", "user"]
            assert said[-1]["content"] == f"to {model}"

    @modes
    async def test_a_response_can_be_had_again(self, responder: Responder, stream: bool) -> None:
        """`retrieve` gives the very response, and after `delete` there is none, to read or to go on from."""
        if stream:
            found = (await responder.events("oai/thinks"))[-1].response
        else:
            found = await responder.say("oai/thinks")
        assert (await responder.call("retrieve", found.id)).model_dump() == found.model_dump()
        await responder.call("delete", found.id)
        for gone in ("retrieve", "delete"):
            with pytest.raises(openai.NotFoundError, match=found.id):
                await responder.call(gone, found.id)
        with pytest.raises(openai.BadRequestError) as raised:
            await responder.say("oai/text", previous_response_id=found.id)
        assert (raised.value.code, raised.value.param) == ("previous_response_not_found", "previous_response_id")

    @modes
    async def test_nothing_is_kept_that_is_not_to_be(self, responder: Responder, stream: bool) -> None:
        """`store=False` leaves nothing behind."""
        found = await responder.say("oai/text", stream=stream, store=False)
        assert found.store is False
        with pytest.raises(openai.NotFoundError):
            await responder.call("retrieve", found.id)

    async def test_a_broken_response_is_not_kept(self, responder: Responder) -> None:
        """What failed in the middle is nothing to go on from."""
        failed = (await responder.events(new("oai", "cut")))[-1].response
        assert failed.status == "failed"
        with pytest.raises(openai.NotFoundError):
            await responder.call("retrieve", failed.id)

    async def test_it_is_not_streamed_again(self, responder: Responder) -> None:
        """`retrieve` as a stream is refused by name."""
        found = await responder.say("oai/text")
        with pytest.raises(openai.BadRequestError) as raised:
            await responder.call("retrieve", found.id, stream=True)
        assert raised.value.param == "stream"

    async def test_items_can_be_referred_to(self, responder: Responder, fakes: Fakes) -> None:
        """An item of an answer that is kept may be sent as its id alone; of one that is not, the place is named."""
        first = await responder.say("claude/text", "hello")
        model = new("oai", "text")
        reference = {"type": "item_reference", "id": first.output[0].id}
        await responder.say(model, [{"role": "user", "content": "hi"}, reference, {"role": "user", "content": "so?"}])
        said = fakes.oai.last(model.partition("/")[2]).json["messages"]
        assert said[1] == {"role": "assistant", "content": greeting("claude")}
        with pytest.raises(openai.BadRequestError) as raised:
            await responder.say(model, [{"type": "item_reference", "id": "msg_nobody_0"}])
        assert raised.value.param == "input.0.id"


class TestEvents:
    """What a stream tells, and in which order."""

    @pytest.mark.parametrize("source", [LOCAL, "oai", "claude", "gem"])
    @pytest.mark.parametrize("scenario", ["text", "tools", "thinks"])
    async def test_order(self, responder: Responder, source: str, scenario: str) -> None:
        """Numbers rise by one; items open, grow and close one after the other; the last event holds all of it."""
        options: Json = {"tools": [WEATHER]} if scenario == "tools" else {}
        events = await responder.events(model_of(source, scenario), "What's the weather in Paris?", **options)
        kinds = [event.type for event in events]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert (kinds[-1], kinds.count("response.completed")) == ("response.completed", 1)
        response = events[-1].response
        steps = [event for event in events if event.type in ("response.output_item.added", "response.output_item.done")]
        places = [place for place in range(len(response.output)) for _ in range(2)]
        assert [step.output_index for step in steps] == places
        assert [step.item.id for step in steps[::2]] == [item.id for item in response.output]
        assert [step.item for step in steps[1::2]] == list(response.output)

    @sources
    async def test_pieces_add_up(self, responder: Responder, source: str) -> None:
        """Deltas are the text, the reasoning and the arguments of the items, piece by piece."""
        events = await responder.events(model_of(source, "thinks"))
        assert joined(events, "response.reasoning_text.delta") == scenarios.THOUGHT
        assert joined(events, "response.output_text.delta") == events[-1].response.output_text == scenarios.DONE
        events = await responder.events(model_of(source, "tools"), "What's the weather?", tools=[WEATHER])
        for call in events[-1].response.output:
            mine = [event for event in events if getattr(event, "item_id", None) == call.id]
            assert joined(mine, "response.function_call_arguments.delta") == call.arguments
            assert mine[-1].type == "response.function_call_arguments.done"

    @sources
    @pytest.mark.parametrize("scenario", ["text", "tools", "thinks"])
    async def test_the_helper_puts_the_same_together(self, responder: Responder, source: str, scenario: str) -> None:
        """What `.stream()` adds up from the events is what an answer without a stream holds."""
        options: Json = {"tools": [WEATHER]} if scenario == "tools" else {}
        whole = await responder.say(model_of(source, scenario), "What's the weather?", **options)
        helped = await responder.say(model_of(source, scenario), "What's the weather?", stream=True, **options)
        told = {"id", "created_at", "completed_at"}
        assert plain(helped.model_dump(exclude=told)) == plain(whole.model_dump(exclude=told))

    @modes
    async def test_an_error_before_the_stream(self, responder: Responder, stream: bool) -> None:
        """Nothing has begun: it is a response with a status of its own, not an event."""
        with pytest.raises(openai.NotFoundError) as raised:
            await responder.say("nobody/knows", stream=stream)
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


class TestTools:
    """Functions, custom tools, and tools that run at OpenAI."""

    @modes
    async def test_a_custom_tool(self, responder: Responder, fakes: Fakes, stream: bool) -> None:
        """A call of a custom tool and its output reach any upstream as those of a function of one text."""
        items: list[Any] = [
            {"role": "user", "content": "edit it"},
            {"type": "custom_tool_call", "call_id": "call_p", "name": "apply_patch", "input": "*** Begin Patch"},
            {"type": "custom_tool_call_output", "call_id": "call_p", "output": "ok"},
        ]
        model = new("oai", "text")
        found = await responder.say(model, items, stream=stream, tools=[PATCH])
        assert found.output_text == greeting("oai")
        got = fakes.oai.last(model.partition("/")[2]).json
        call = {"name": "apply_patch", "arguments": json.dumps({"input": "*** Begin Patch"}, separators=(",", ":"))}
        assert got["messages"][1]["tool_calls"] == [{"id": "call_p", "type": "function", "function": call}]
        assert got["messages"][2] == {"role": "tool", "tool_call_id": "call_p", "content": "ok"}
        assert "start: /.+/" in got["tools"][0]["function"]["description"]

    @pytest.mark.parametrize(
        ("options", "param"),
        [
            ({"tools": [WEATHER, {"type": "web_search"}]}, "tools.1.type"),
            ({"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools.0.type"),
            ({"background": True}, "background"),
            ({"conversation": "conv_1"}, "conversation"),
            ({"prompt": {"id": "pmpt_1"}}, "prompt"),
            ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 7}}}}, "text.format.schema"),
            ({"max_output_tokens": 0}, "max_output_tokens"),
        ],
    )
    @modes
    async def test_what_only_openai_has_is_refused_by_name(
        self, responder: Responder, options: Json, param: str, stream: bool
    ) -> None:
        """400, with the path of the field that asks for it; nobody is asked."""
        with pytest.raises(openai.BadRequestError) as raised:
            await responder.say("oai/text", stream=stream, **options)
        assert raised.value.param == param

    @modes
    async def test_files_are_not_kept_here(self, responder: Responder, fakes: Fakes, stream: bool) -> None:
        """A file by its id is refused by its place; one in the request itself is read."""
        part: Json = {"type": "input_file", "file_id": "file-1"}
        with pytest.raises(openai.BadRequestError) as raised:
            await responder.say("oai/text", [{"role": "user", "content": [part]}], stream=stream)
        assert raised.value.param == "input.0.content.0.file_id"
        data = "data:text/plain;base64," + base64.b64encode(b"all of it").decode()
        part, model = {"type": "input_file", "filename": "notes.txt", "file_data": data}, new("oai", "text")
        await responder.say(model, [{"role": "user", "content": [part]}], stream=stream)
        assert fakes.oai.last(model.partition("/")[2]).json["messages"][0]["content"] == "notes.txt:\nall of it"


def joined(events: list[Any], kind: str) -> str:
    return "".join(event.delta for event in events if event.type == kind)


def plain(value: Any) -> Any:
    """A dumped response without the ids of its items, and without what only the helper adds; arguments are read."""
    if isinstance(value, dict):
        hidden = ("id", "parsed", "parsed_arguments")
        kept = {key: plain(one) for key, one in value.items() if key not in hidden and one is not None}
        return kept | ({"arguments": json.loads(kept["arguments"])} if "arguments" in kept else {})
    return [plain(one) for one in value] if isinstance(value, list) else value
