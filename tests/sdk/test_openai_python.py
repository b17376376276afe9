"""OpenAI's Python SDK over upstream providers: what it sends is understood, and what it gets is what it knows."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.fakes.upstream import UpstreamThread
from tests.sdk.calling import Caller, calling, done, function, listed, text_of
from tests.servers import Json, Server

SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
WEATHER = function("get_weather", "Look up the weather.", {"city": {"type": "string"}, "days": {"type": "integer"}})
CLOCK = function("get_time", "Look up the time.", {"zone": {"type": "string"}})
WEATHER_ARGUMENTS = {"city": "value", "days": 1}


class Trip(pydantic.BaseModel):
    """What `.parse` is asked for."""

    city: str
    days: int
    tags: list[str]


async def test_a_chat_completion(caller: Caller) -> None:
    """Text, finish reason, usage and the candidate that answered."""
    reply = await caller.chat("a/ok")
    [choice] = reply.choices
    assert (choice.message.content, choice.finish_reason) == (SENTENCE, "stop")
    assert reply.model == "a/ok"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 8, 10)


async def test_a_streamed_completion(caller: Caller) -> None:
    """The pieces come one by one, one id for all, the role first, one finish reason last, and no usage unasked."""
    chunks = await caller.chunks("a/ok")
    assert text_of(chunks) == SENTENCE
    assert len(chunks) > 8
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("model", ["a/ok", "a/usage-none"])
async def test_usage_in_a_stream(caller: Caller, model: str) -> None:
    """`include_usage` gives one last chunk without choices, estimated where the upstream does not count."""
    chunks = await caller.chunks(model, stream_options={"include_usage": True})
    *others, last = chunks
    assert (last.choices, last.usage.total_tokens) == ([], last.usage.prompt_tokens + last.usage.completion_tokens)
    assert last.usage.completion_tokens >= 8
    assert all(chunk.usage is None for chunk in others)


async def test_the_stream_helper(caller: Caller) -> None:
    """`.stream()` puts the same completion together, and its events carry the text."""
    events, final = await caller.helped("a/ok")
    assert final.choices[0].message.content == SENTENCE
    assert "".join(event.delta for event in events if event.type == "content.delta") == SENTENCE
    assert [event.content for event in events if event.type == "content.done"] == [SENTENCE]


async def test_the_stream_helper_with_tools_and_usage(caller: Caller) -> None:
    """The call is put together, and its usage arrives."""
    weather = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}
    options: Json = {"tools": [weather], "tool_choice": "required", "stream_options": {"include_usage": True}}
    _, final = await caller.helped("a/ok", **options)
    [call] = final.choices[0].message.tool_calls
    assert call.function.parsed_arguments == WEATHER_ARGUMENTS
    assert final.usage.completion_tokens > 0


async def test_the_stream_helper_tells_when_a_tool_call_is_done(caller: Caller) -> None:
    """The helper fires its event, for which the finish reason must come after the call, in a chunk of its own."""
    events, _ = await caller.helped("a/ok", tools=[WEATHER], tool_choice="required")
    assert [e.name for e in events if e.type == "tool_calls.function.arguments.done"] == ["get_weather"]


@pytest.mark.parametrize("models", [["a/ok"], ["a/prose", "b/ok"], ["a/truncated-json", "b/ok"]])
async def test_parse_gives_the_pydantic_model(caller: Caller, models: list[str]) -> None:
    """A schema is honoured, by the next candidate where the first one does not."""
    assert await caller.parsed(models[-1], Trip) == Trip(city="value", days=1, tags=["value"])
    reply = await caller.chat(
        models[0],
        response_format={"type": "json_schema", "json_schema": {"name": "trip", "schema": Trip.model_json_schema()}},
        extra_body={"models": models[1:]},
    )
    assert Trip.model_validate_json(reply.choices[0].message.content)
    assert reply.model == models[-1]


@pytest.mark.parametrize(
    ("choice", "prompt", "name"),
    [
        ("auto", "please call get_time", "get_time"),
        ("auto", "hello there", None),
        ("none", "please call get_time", None),
        ("required", "hello there", "get_weather"),
        ({"type": "function", "function": {"name": "get_time"}}, "hello there", "get_time"),
    ],
)
async def test_tools(caller: Caller, choice: Any, prompt: str, name: str | None) -> None:
    """Each form of `tool_choice`, streamed or not, gives the same call."""
    options: Json = {"tools": [WEATHER, CLOCK], "tool_choice": choice}
    message = (await caller.chat("a/ok", prompt, **options)).choices[0].message
    chunks = await caller.chunks("a/ok", prompt, **options)
    fragments = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    if name is None:
        assert (message.content, message.tool_calls, text_of(chunks), fragments) == (SENTENCE, None, SENTENCE, [])
        return
    [call] = message.tool_calls
    assert (call.function.name, fragments[0].function.name) == (name, name)
    assert call.function.arguments == "".join(fragment.function.arguments for fragment in fragments)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_a_tool_round_trip(caller: Caller, upstream: UpstreamThread) -> None:
    """A call and its result go back as the SDK sends them, and arrive upstream unchanged."""
    messages: list[Any] = [{"role": "user", "content": "hello there"}]
    first = await caller.chat("a/ok", messages=messages, tools=[WEATHER], tool_choice="required")
    message = first.choices[0].message
    [call] = message.tool_calls
    assert json.loads(call.function.arguments) == WEATHER_ARGUMENTS
    messages += [
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    second = await caller.chat("a/ok", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == SENTENCE
    assert upstream.requests[-1].json["messages"] == messages


async def test_parameters_arrive_as_they_were_sent(caller: Caller, upstream: UpstreamThread) -> None:
    """What the proxy has no opinion on goes upstream untouched, with the upstream's own model id and key."""
    sent: Json = {
        "n": 2, "stop": ["END", "\n"], "seed": 7, "temperature": 0.2, "top_p": 0.9, "max_completion_tokens": 50,
        "presence_penalty": 0.1, "frequency_penalty": -0.1, "logit_bias": {"5": -100}, "user": "someone",
        "metadata": {"a": "b"}, "parallel_tool_calls": True, "reasoning_effort": "low",
    }  # fmt: skip
    reply = await caller.chat("a/acme/ok-large", **sent, extra_body={"top_k": 5})
    assert [choice.index for choice in reply.choices] == [0, 1]
    got = upstream.requests[-1]
    assert got.json == {
        "model": "acme/ok-large", "messages": [{"role": "user", "content": "hello there"}], "top_k": 5, **sent
    }  # fmt: skip
    assert got.headers["authorization"] == "Bearer sk-upstream-0123456789"
    assert not {"x-stainless-lang", "openai-organization"} & got.headers.keys()


async def test_log_probabilities(caller: Caller) -> None:
    """They pass through, whole and streamed."""
    whole = (await caller.chat("a/ok", logprobs=True)).choices[0].logprobs.content
    chunks = await caller.chunks("a/ok", logprobs=True)
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert "".join(token.token for token in whole) == SENTENCE == "".join(token.token for token in streamed)


async def test_several_choices_in_a_stream(caller: Caller) -> None:
    """Interleaved choices keep their indices, and each of them ends."""
    chunks = await caller.chunks("a/ok", n=2)
    for index in (0, 1):
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(choice.delta.content or "" for choice in own) == SENTENCE
        assert own[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("model", "stream"),
    [
        ("a/reasoning", False),
        ("a/reasoning", True),
        ("a/think", True),
        pytest.param("a/think", False),
    ],
)
async def test_reasoning_stands_beside_the_answer(caller: Caller, model: str, stream: bool) -> None:
    """In a field of its own or inside the text upstream, for the client it is `reasoning_content`."""
    if stream:
        said = [chunk.choices[0].delta for chunk in await caller.chunks(model)]
    else:
        said = [(await caller.chat(model)).choices[0].message]
    fields = {
        name: "".join(getattr(one, name, None) or "" for one in said) for name in ("content", "reasoning_content")
    }
    assert fields == {"content": SENTENCE, "reasoning_content": "let me see"}


@pytest.mark.parametrize("given", ["one text", ["one text", "another"], [1, 2, 3]])
async def test_embeddings(caller: Caller, given: Any) -> None:
    """The SDK's base64 default and plain floats are the same vectors."""
    packed = await done(caller.client.embeddings.create(model="a/embed", input=given))
    floats = await done(caller.client.embeddings.create(model="a/embed", input=given, encoding_format="float"))
    assert [entry.embedding for entry in packed.data] == [entry.embedding for entry in floats.data]
    assert len(packed.data) == (2 if isinstance(given, list) and isinstance(given[0], str) else 1)
    assert (packed.model, len(packed.data[0].embedding)) == ("a/embed", 8)
    assert packed.usage.total_tokens > 0


async def test_embeddings_fail_over(caller: Caller) -> None:
    """The next model of `models` embeds when the first one cannot."""
    reply = await done(
        caller.client.embeddings.create(model="a/status-500+embed=1", input="x", extra_body={"models": ["b/embed"]})
    )
    assert reply.model == "b/embed"


async def test_legacy_completions(caller: Caller) -> None:
    """`completions.create`, whole and streamed, with several prompts and choices."""
    create = caller.client.completions.create
    whole = await done(create(model="a/ok", prompt="Repeat: so it is", max_tokens=20))
    assert (whole.choices[0].text, whole.choices[0].finish_reason, whole.model) == ("so it is", "stop", "a/ok")
    several = await done(create(model="a/ok", prompt=["Repeat: x", "Repeat: y"], n=2))
    assert [choice.text for choice in several.choices] == ["x", "x", "y", "y"]
    options: Json = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = await listed(await done(create(model="a/ok", prompt="Repeat: so it is", **options)))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "so it is"
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_legacy_completions_fail_over(caller: Caller, stream: bool, blocking: bool) -> None:
    """Text completions go through the same loop as chat."""
    model = f"a/status-500+text={stream}{blocking}"
    options: Json = {"stream": stream, "extra_body": {"models": ["b/ok"]}}
    reply = await done(caller.client.completions.create(model=model, prompt="Repeat: so", **options))
    replies = await listed(reply) if stream else [reply]
    assert "".join(choice.text for one in replies for choice in one.choices) == "so"
    assert {one.model for one in replies} == {"b/ok"}


async def test_models_are_listed_and_retrieved(caller: Caller) -> None:
    """Each listed id, with `/` or `:` in it or not, can be retrieved and asked."""
    ids = [model.id for model in await listed(await done(caller.client.models.list()))]
    assert {"a__ok", "a__acme/ok-large", "a__ok:free", "helexa/small", "llmproxy/auto", "llmproxy/pair"} <= set(ids)
    for model_id in ids:
        assert (await done(caller.client.models.retrieve(model_id))).id == model_id
    for model_id in ("a__acme/ok-large", "a__ok:free", "helexa/small", "llmproxy/pair"):
        assert (await caller.chat(model_id)).choices[0].message.content == SENTENCE


@pytest.mark.parametrize(
    ("model", "options", "kind", "code", "param"),
    [
        ("nobody/knows", {}, openai.NotFoundError, "model_not_found", "model"),
        ("a/ok", {"messages": []}, openai.BadRequestError, "invalid_request", "messages"),
        ("a/ok", {"temperature": "hot"}, openai.BadRequestError, "invalid_request", "temperature"),
        ("a/invalid-request", {}, openai.BadRequestError, "invalid_request_error", "messages"),
        ("a/status-404", {}, openai.NotFoundError, "model_not_found", "model"),
        ("a/status-413", {}, openai.APIStatusError, "request_too_large", None),
        ("a/status-422", {}, openai.UnprocessableEntityError, "unprocessable_entity", None),
        ("a/status-500", {}, openai.InternalServerError, "all_candidates_failed", None),
        (
            "a/prose",
            {"tools": [CLOCK], "tool_choice": "required"},
            openai.InternalServerError,
            "capability_unmet",
            None,
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_errors_are_the_sdks_own(
    caller: Caller,
    model: str,
    options: Json,
    kind: type[openai.APIStatusError],
    code: str,
    param: str | None,
    stream: bool,
) -> None:
    """Each failure is the SDK's exception class, with code, param and the request's id."""
    with pytest.raises(kind) as raised:
        await caller.chat(model, stream=stream, **options)
    error = raised.value
    assert (error.code, error.param) == (code, param)
    assert error.request_id == error.response.headers["x-request-id"]
    assert str(error.request_id).startswith("req_")


async def test_a_rate_limit_tells_when_to_come_back(caller: Caller, blocking: bool) -> None:
    """`RateLimitError` with `Retry-After`."""
    with pytest.raises(openai.RateLimitError) as raised:
        await caller.chat(f"a/status-429+retry-after=9+sdk={blocking}")
    assert raised.value.code == "rate_limit_exceeded"
    assert raised.value.response.headers["retry-after"] == "9"


async def test_headers_tell_who_answered_and_why(caller: Caller, blocking: bool) -> None:
    """`with_raw_response` shows the id, the candidate, the reason, the attempts and the trail."""
    model = f"a/status-503+headers={blocking}"
    raw = await done(
        caller.client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": "hello there"}],
            extra_body={"models": ["b/ok"]},
            extra_headers={"x-request-id": "mine-1"},
        )
    )
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.headers["x-llmproxy-selected-model"] == "b/ok"
    assert raw.headers["x-llmproxy-route-reason"] == "pinned; after 503"
    assert raw.headers["x-llmproxy-attempts"] == "2"
    failed, answered = raw.headers["x-llmproxy-trail"].split(", ")
    assert failed.startswith(f"{model}:503 ")
    assert answered.startswith("b/ok:ok ")
    reply = await done(raw.parse())
    assert reply.choices[0].message.content == SENTENCE
    assert raw.request_id == "mine-1"


@pytest.mark.parametrize(
    "name", ["a/ok", "a__ok", "ok__a", "ok (a)", "helexa/small", "llmproxy/pair", "llmproxy__pair"]
)
async def test_names(caller: Caller, name: str) -> None:
    """Every spelling of a model, an alias and a pool is answered by the model that it stands for."""
    assert (await caller.chat(name)).model == "a/ok"


async def test_a_pool_takes_turns(caller: Caller) -> None:
    """A `round_robin` pool spreads calls over its members."""
    assert {(await caller.chat("llmproxy/turns")).model for _ in range(4)} == {"a/ok", "b/ok"}


async def test_the_sdks_own_retries_end_well(server: Server, upstream: UpstreamThread, blocking: bool) -> None:
    """A model that is down for one call answers the SDK's second try."""
    model = f"once-500+retry={blocking}"
    async with calling(server, blocking=blocking, max_retries=2) as caller:
        assert (await caller.chat(f"a/{model}")).choices[0].message.content == SENTENCE
    assert upstream.count(model) == 2
