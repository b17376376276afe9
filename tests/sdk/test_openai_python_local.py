"""OpenAI's Python SDK over the embedded model: a real one, token by token."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

import aiohttp
import openai
import pytest
from pydantic import BaseModel, Field

from tests.sdk.calling import Caller, calling, done, function, listed, text_of
from tests.servers import Json, Server, client_of

TINY = "local/tiny"
GREETING = "Hello! How can I help you?"
REPEATED = "the quick brown fox jumps over the lazy dog"
WEATHER = function(
    "get_weather",
    "Get the current temperature for a location.",
    {
        "location": {"type": "string", "description": "City and country e.g. Bogotá, Colombia"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    required=["location"],
)
MAIL = function("send_mail", "Send a mail.", {"to": {"type": "string"}, "subject": {"type": "string"}}, required=["to"])
TOOLS: Json = {"tools": [WEATHER, MAIL]}
WEATHER_QUESTION = "What's the weather in Paris?"


def named(name: str) -> Json:
    """The `tool_choice` that forces one function."""
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("hello", GREETING),
        (f"Repeat: {REPEATED}", REPEATED),
        ("What is 12+34?", "46"),
        ("What is 2+2", "2 + 2 = 4"),
    ],
)
async def test_it_answers(local: Caller, prompt: str, said: str) -> None:
    """The model greets, repeats, adds and counts, and stops by itself, streamed or not."""
    whole = await local.chat(TINY, prompt)
    chunks = await local.chunks(TINY, prompt)
    assert said in whole.choices[0].message.content
    assert text_of(chunks) == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"
    assert (whole.model, chunks[0].model) == (TINY, TINY)


async def test_tokens_are_streamed_one_by_one(local_server: Server) -> None:
    """The pieces arrive in reads of their own, the first one while the model still writes."""
    async with client_of(local_server) as client:
        answer = await client.chat(TINY, f"Repeat: {REPEATED}", stream=True)
    assert answer.text == REPEATED
    assert len([piece for piece in answer.pieces if b'"content"' in piece]) > 3


async def test_usage_is_counted(local: Caller) -> None:
    """Whole and streamed answers tell the same real numbers."""
    whole = (await local.chat(TINY, f"Repeat: {REPEATED}")).usage
    chunks = await local.chunks(TINY, f"Repeat: {REPEATED}", stream_options={"include_usage": True})
    assert chunks[-1].usage == whole
    assert whole.prompt_tokens > 10
    assert whole.total_tokens == whole.prompt_tokens + whole.completion_tokens


async def test_no_more_tokens_are_counted_than_were_asked_for(local: Caller) -> None:
    """`max_tokens` cuts the answer, and usage says exactly so many."""
    reply = await local.chat(TINY, f"Repeat: {REPEATED}", max_tokens=5)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 5


@pytest.mark.parametrize("choice", ["auto", "required", pytest.param(named("get_weather"), id="named")])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_it_calls_a_tool(local: Caller, choice: Any, stream: bool) -> None:
    """The call has the tool's name and arguments that fit its schema, in each form of `tool_choice`."""
    options: Json = {**TOOLS, "tool_choice": choice}
    if stream:
        _, completion = await local.helped(TINY, WEATHER_QUESTION, **options)
    else:
        completion = await local.chat(TINY, WEATHER_QUESTION, **options)
    [choice] = completion.choices
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"location": "Paris"}
    assert call.id.startswith("call_")
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content


async def test_a_named_tool_is_called_whatever_was_said(local: Caller) -> None:
    """The forced name is in the answer, though the question is about another tool."""
    message = (await local.chat(TINY, WEATHER_QUESTION, **TOOLS, tool_choice=named("send_mail"))).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["send_mail"]


async def test_a_tool_round_trip(local: Caller) -> None:
    """The model's call and its result are rendered back into its template, and it goes on in words."""
    messages: list[Any] = [{"role": "user", "content": WEATHER_QUESTION}]
    first = (await local.chat(TINY, messages=messages, **TOOLS)).choices[0].message
    messages += [
        first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21 degrees"},
    ]
    second = (await local.chat(TINY, messages=messages, **TOOLS)).choices[0].message
    assert second.content
    assert second.tool_calls is None


async def test_a_partial_assistant_message_is_continued(local: Caller) -> None:
    """The answer begins where the assistant's last message ends, and does not say it again."""
    half, rest = REPEATED[:19], REPEATED[19:]
    messages = [{"role": "user", "content": f"Repeat: {REPEATED}"}, {"role": "assistant", "content": half}]
    whole = await local.chat(TINY, messages=messages)
    chunks = await local.chunks(TINY, messages=messages)
    assert whole.choices[0].message.content == text_of(chunks) == rest


async def test_stop_strings_cut_the_answer(local: Caller) -> None:
    """The text ends before the stop string, whichever tokens it is made of, streamed or not."""
    options: Json = {"stop": ["jum"]}
    whole = await local.chat(TINY, f"Repeat: {REPEATED}", **options)
    chunks = await local.chunks(TINY, f"Repeat: {REPEATED}", **options)
    assert whole.choices[0].message.content == text_of(chunks) == "the quick brown fox "
    assert whole.choices[0].finish_reason == "stop"


async def test_a_seed_gives_the_same_text(local: Caller) -> None:
    """Drawn with a seed, two answers are equal, and `n` choices of one call need not be."""
    options: Json = {"seed": 11, "temperature": 2.0, "max_tokens": 12}
    first, second = [await local.chat(TINY, "hello", **options) for _ in range(2)]
    assert first.choices[0].message.content == second.choices[0].message.content
    several = await local.chat(TINY, "hello", n=3, **options)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert several.choices[0].message.content == first.choices[0].message.content
    assert len({choice.message.content for choice in several.choices}) > 1


async def test_log_probabilities(local: Caller) -> None:
    """Each token has one, with alternatives on request, and together the tokens are the text."""
    options: Json = {"logprobs": True, "top_logprobs": 2}
    choice = (await local.chat(TINY, f"Repeat: {REPEATED}", **options)).choices[0]
    chunks = await local.chunks(TINY, f"Repeat: {REPEATED}", **options)
    streamed = [t for chunk in chunks for c in chunk.choices if c.logprobs for t in c.logprobs.content]
    tokens = choice.logprobs.content
    assert "".join(token.token for token in tokens) == choice.message.content == "".join(t.token for t in streamed)
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    assert all(token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob for token in tokens)


async def test_a_bias(local: Caller) -> None:
    """A token that is made as likely as can be is all that is said."""
    options: Json = {"logit_bias": {"40": 100}, "logprobs": True, "max_tokens": 4, "temperature": 0}
    tokens = (await local.chat(TINY, "hello", **options)).choices[0].logprobs.content
    assert (len(tokens), len({token.token for token in tokens})) == (4, 1)


async def test_legacy_completions(local: Caller) -> None:
    """`completions.create` goes on with a text, or with several, streamed or not."""
    prompt = f"<|im_start|>user\nRepeat: {REPEATED}<|im_end|>\n<|im_start|>assistant\n"
    create = local.client.completions.create
    whole = await done(create(model=TINY, prompt=[prompt, prompt], max_tokens=60))
    assert [choice.text for choice in whole.choices] == [REPEATED, REPEATED]
    chunks = await listed(await done(create(model=TINY, prompt=prompt, max_tokens=60, stream=True)))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == REPEATED


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"extra_body": {"best_of": 3}}, "best_of"),
        ({"extra_body": {"made_up": 1}}, "made_up"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_it_cannot_honour_is_refused(local: Caller, options: Json, param: str, stream: bool) -> None:
    """A field that the engine would have to ignore is a 400 that names it."""
    with pytest.raises(openai.BadRequestError) as raised:
        await local.chat(TINY, "hello", stream=stream, **options)
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("options", "param"),
    [({"temperature": 9}, "temperature"), ({"top_p": -1}, "top_p"), ({"top_logprobs": 50, "logprobs": True}, None)],
)
async def test_values_out_of_range_are_refused(local: Caller, options: Json, param: str | None) -> None:
    """A value that no engine could take is the client's error."""
    with pytest.raises(openai.BadRequestError) as raised:
        await local.chat(TINY, "hello", **options)
    assert raised.value.param == param or param is None


async def test_a_prompt_over_the_window_is_refused(local: Caller) -> None:
    """It is told as OpenAI tells it, before any work."""
    with pytest.raises(openai.BadRequestError) as raised:
        await local.chat(TINY, "word " * 5000)
    assert raised.value.code == "context_length_exceeded"


async def test_several_clients_at_once(local_server: Server) -> None:
    """Each of several concurrent calls gets its own answer."""
    words = ("one small step", "seven seas", "three wise men")
    async with calling(local_server) as caller:
        replies = await asyncio.gather(*(caller.chunks(TINY, f"Repeat: {said}") for said in words))
    assert tuple(map(text_of, replies)) == words


async def test_a_client_that_leaves_frees_the_model(local_server: Server) -> None:
    """After a stream is broken off the next call is answered at once, not after the rest of the first one."""
    async with calling(local_server) as caller:
        stream = await caller.chat(TINY, "Count from 1 to 99", stream=True)
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(10):
            reply = await caller.chat(TINY, "hello")
    assert reply.choices[0].message.content == GREETING


@pytest.mark.parametrize("name", ["tiny", "local/tiny", "local__tiny", "llmproxy/local"])
async def test_names(local: Caller, name: str) -> None:
    """The local model by every name that it has."""
    assert (await local.chat(name, "hello", max_tokens=3)).model == TINY


class Forecast(BaseModel):
    """What any model can be made to say."""

    city: Literal["Paris", "Rome", "Oslo"]
    days: Annotated[int, Field(ge=1, le=9)]
    sunny: bool
    hours: Annotated[list[Literal["morning", "noon", "night"]], Field(min_length=1, max_length=3)]


async def test_a_schema_is_kept(local: Caller) -> None:
    """`.parse` gives the typed value, of a model that has never seen JSON outside a tool call."""
    assert isinstance(await local.parsed(TINY, Forecast, "hello"), Forecast)


async def test_a_forced_tool_call_fits_its_schema(local: Caller) -> None:
    """Whatever was asked: the call is there, and its arguments are of the schema, streamed or not."""
    tools = [{"type": "function", "function": {"name": "tell", "parameters": Forecast.model_json_schema()}}]
    forced: Json = {"tools": tools, "tool_choice": "required"}
    [call] = (await local.chat(TINY, "hello", **forced)).choices[0].message.tool_calls
    assert call.function.name == "tell"
    Forecast.model_validate_json(call.function.arguments)
    _, final = await local.helped(TINY, "hello", **forced)
    [call] = final.choices[0].message.tool_calls
    Forecast.model_validate_json(call.function.arguments)


async def test_the_metrics_tell_of_the_batch(local: Caller, local_server: Server) -> None:
    """Queue, first token, batch and tokens of a local model, some of them read before, and that it is loaded."""
    for _ in range(2):
        await local.chat(TINY, "count from 3 to 40")
    wanted = (
        'llmproxy_local_queue_seconds_count{model="local/tiny"}',
        'llmproxy_local_first_token_seconds_count{model="local/tiny"}',
        'llmproxy_local_batch_rows_count{model="local/tiny"}',
        'llmproxy_local_tokens_total{kind="completion",model="local/tiny"}',
        'llmproxy_local_tokens_total{kind="cached",model="local/tiny"}',
        'llmproxy_local_loaded{model="local/tiny"} 1.0',
        'llmproxy_local_memory_bytes{device="cpu",model="local/tiny"}',
    )
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.get(f"{local_server.url}/metrics") as response:
                told = await response.text()
            if all(line in told for line in wanted):
                return
            await asyncio.sleep(0.1)
    pytest.fail(f"not all told: {[line for line in wanted if line not in told]}")
