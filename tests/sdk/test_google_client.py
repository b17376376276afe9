"""Google's Python SDK (`google-genai`) over every kind of source, under `/v1` and `/v1beta`."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.genai import errors, types
from jsonschema_rs import validate
from pydantic import BaseModel

from tests.fakes import scenarios
from tests.fakes.gemini_replies import SIGNATURES, UNSIGNED
from tests.sdk.conftest import Fakes
from tests.sdk.googling import Google, Heard, google
from tests.sdk.matrix import LOCAL, cells, greeting, model_of, schema_of
from tests.servers import Json, Server

SDK = "google-genai"
# The SDK's own session of aiohttp.
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")
modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
upstreams = pytest.mark.parametrize("source", ["oai", "claude", "gem"])

WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name=scenarios.TOOL,
            description="Get the current temperature of a city.",
            parameters_json_schema={
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        )
    ]
)
BY_HAND = types.AutomaticFunctionCallingConfig(disable=True)
THOUGHTS: Json = {"thinking_config": types.ThinkingConfig(include_thoughts=True)}


class Person(BaseModel):
    """What `scenarios.SCHEMA` describes."""

    name: str
    age: int


@pytest.fixture(params=[("v1", True), ("v1beta", False)], ids=["v1-sync", "v1beta-async"])
async def caller(request: pytest.FixtureRequest, polyglot: Server) -> AsyncIterator[Google]:
    """The SDK in both of its forms and under both of its paths."""
    version, blocking = request.param
    async with google(polyglot, version=version, blocking=blocking) as caller:
        yield caller


def new(source: str, scenario: str) -> str:
    """A model's name that nobody has used: one that failed before is not asked again at once."""
    return model_of(source, scenario, uuid.uuid4().hex[:8])


def asked(city: str, degrees: str, call: Any) -> Any:
    """The result of a call."""
    assert (call.name, call.args) == (scenarios.TOOL, {"city": city})
    return types.Part(
        function_response=types.FunctionResponse(id=call.id, name=call.name, response={"result": f"{degrees} degrees"})
    )


@cells(SDK, "text")
async def test_text(caller: Google, source: str, stream: bool) -> None:
    """The text, the end, the model and the tokens arrive where the SDK has them; a stream comes in pieces."""
    heard = await caller.say(model_of(source, "text"), "hello", stream=stream)
    assert heard.text == greeting(source)
    assert heard.finish == "STOP"
    assert heard.last.model_version == model_of(source, "text")
    assert heard.last.response_id
    usage = heard.usage
    assert usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count > 2
    assert len(heard.responses) > 2 if stream else len(heard.responses) == 1
    assert heard.responses[0].sdk_http_response.headers["x-llmproxy-selected-model"] == model_of(source, "text")


@cells(SDK, "tools")
async def test_tools(caller: Google, source: str, stream: bool) -> None:
    """Two calls at once arrive with ids, their results find them again, and the answer is made of both."""
    model, config = model_of(source, "tools"), {"tools": [WEATHER], "automatic_function_calling": BY_HAND}
    question = types.Content(role="user", parts=[types.Part(text="What's the weather in Paris?")])
    first = await caller.say(model, [question], stream=stream, **config)
    cities = scenarios.CITIES[:1] if source == LOCAL else scenarios.CITIES
    assert first.finish == "STOP"
    assert len({call.id for call in first.calls}) == len(cities) == len(first.calls)
    results = [
        asked(city, degrees, call)
        for city, degrees, call in zip(cities, scenarios.TEMPERATURES, first.calls, strict=False)
    ]
    turns = [question, types.Content(role="model", parts=first.parts), types.Content(role="user", parts=results)]
    second = await caller.say(model, turns, stream=stream, **config)
    assert not second.calls
    assert second.text == (
        f"The result is {scenarios.TEMPERATURES[0]} degrees." if source == LOCAL else scenarios.WEATHER
    )


@upstreams
@modes
async def test_the_sdk_calls_functions_by_itself(caller: Google, source: str, stream: bool) -> None:
    """Python functions as tools: the SDK runs both calls, sends their results, and ends with the answer."""
    ran: list[str] = []

    def get_weather(city: str) -> str:
        """Get the current temperature of a city."""
        ran.append(city)
        return f"{dict(zip(scenarios.CITIES, scenarios.TEMPERATURES, strict=True))[city]} degrees"

    heard = await caller.say(model_of(source, "tools"), "What's the weather?", stream=stream, tools=[get_weather])
    assert ran == list(scenarios.CITIES)
    assert heard.text == scenarios.WEATHER


@cells(SDK, "image")
async def test_image(caller: Google, source: str, stream: bool) -> None:
    """The bytes of a picture arrive under their media type."""
    picture = types.Part.from_bytes(data=scenarios.IMAGE, mime_type=scenarios.IMAGE_TYPE)
    heard = await caller.say(model_of(source, "image"), [picture, "Which colour is this?"], stream=stream)
    assert heard.text == scenarios.COLOUR


@cells(SDK, "schema")
async def test_schema(caller: Google, source: str, stream: bool) -> None:
    """A JSON schema reaches whoever answers, and the answer follows it."""
    heard = await caller.say(
        model_of(source, "schema"),
        "Who is it?",
        stream=stream,
        response_mime_type="application/json",
        response_json_schema=schema_of(source),
    )
    validate(schema_of(source), found := json.loads(heard.text))
    assert found == scenarios.PERSON or source == LOCAL
    assert heard.finish == "STOP"


@upstreams
async def test_a_schema_of_a_class(caller: Google, source: str) -> None:
    """A pydantic class, which the SDK writes in Google's own schema language, comes back as an object of it."""
    heard = await caller.say(
        model_of(source, "schema"), "Who is it?", response_mime_type="application/json", response_schema=Person
    )
    assert heard.last.parsed == Person(**scenarios.PERSON)


@cells(SDK, "refused")
async def test_refused(caller: Google, source: str, stream: bool) -> None:
    """An error is the SDK's own, with Google's word for it, the wait where there is one, and the id of the request."""
    if source == LOCAL:
        with pytest.raises(errors.ClientError) as raised:
            await caller.say(LOCAL, "word " * 5000, stream=stream)
        assert (raised.value.code, raised.value.status) == (400, "INVALID_ARGUMENT")
        return
    with pytest.raises(errors.ClientError, match=scenarios.REFUSAL) as raised:
        await caller.say(new(source, "refused"), "hello", stream=stream)
    assert (raised.value.code, raised.value.status) == (429, "RESOURCE_EXHAUSTED")
    details = {one["@type"].rpartition(".")[2]: one for one in raised.value.details["error"]["details"]}
    headers = raised.value.response.headers
    assert 0 < float(details["RetryInfo"]["retryDelay"].removesuffix("s")) <= scenarios.RETRY_AFTER_S
    assert headers["retry-after"] == str(scenarios.RETRY_AFTER_S)
    assert details["RequestInfo"]["requestId"] == headers["x-request-id"]
    assert details["ErrorInfo"]["reason"] == "RATE_LIMIT_EXCEEDED"


@cells(SDK, "cut")
async def test_cut(caller: Google, source: str, stream: bool) -> None:
    """What was said before a break is heard, and then an error of the SDK's own, in the stream or in its place."""
    heard = Heard()
    with pytest.raises(errors.ServerError) as raised:
        await caller.listen(heard, new(source, "cut"), "hello", stream=stream)
    assert (raised.value.code, raised.value.status) == (502, "UNAVAILABLE")
    assert heard.text == (scenarios.BEFORE_THE_CUT if stream else "")


@cells(SDK, "thinks")
async def test_thinks(caller: Google, source: str, stream: bool) -> None:
    """Thoughts come as parts of their own, and thoughts and cached tokens are counted by themselves."""
    heard = await caller.say(model_of(source, "thinks"), "hello", stream=stream, **THOUGHTS)
    assert (heard.thoughts, heard.text) == (scenarios.THOUGHT, scenarios.DONE)
    usage = heard.usage
    assert (usage.prompt_token_count, usage.cached_content_token_count) == (
        scenarios.PROMPT_TOKENS,
        scenarios.CACHED_TOKENS,
    )
    assert usage.thoughts_token_count == scenarios.REASONING_TOKENS
    assert usage.candidates_token_count == scenarios.COMPLETION_TOKENS - scenarios.REASONING_TOKENS
    assert usage.total_token_count == scenarios.PROMPT_TOKENS + scenarios.COMPLETION_TOKENS


@upstreams
@modes
async def test_thoughts_that_nobody_asked_for_stay_out(caller: Google, source: str, stream: bool) -> None:
    """Without `include_thoughts` a client of Google gets none, as from Google, but they are counted."""
    heard = await caller.say(model_of(source, "thinks"), "hello", stream=stream)
    assert (heard.thoughts, heard.text) == ("", scenarios.DONE)
    assert heard.usage.thoughts_token_count == scenarios.REASONING_TOKENS


@upstreams
@modes
@pytest.mark.parametrize(("scenario", "finish"), [("declined", "SAFETY"), ("long", "MAX_TOKENS")])
async def test_ends(caller: Google, source: str, stream: bool, scenario: str, finish: str) -> None:
    """A refusal of the model and an answer that was cut by its limit end in Google's words."""
    heard = await caller.say(model_of(source, scenario), "hello", stream=stream)
    assert heard.finish == finish
    assert (heard.text == greeting(source)) == (scenario == "long")


@modes
async def test_a_gemini_gets_what_a_client_of_gemini_sent(caller: Google, fakes: Fakes, stream: bool) -> None:
    """All that only Gemini has a word for reaches a Gemini as it was, instructions and settings too."""
    model = f"gemini-3-text+{uuid.uuid4().hex[:8]}"
    heard = await caller.say(
        f"gem/{model}",
        [types.Content(role="user", parts=[types.Part(text="hello")])],
        stream=stream,
        system_instruction="be brief",
        temperature=0.5,
        top_k=7,
        max_output_tokens=99,
        stop_sequences=["END"],
        media_resolution="MEDIA_RESOLUTION_LOW",
        thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level=types.ThinkingLevel.LOW),
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    )
    assert heard.responses[0].sdk_http_response.headers.get("x-llmproxy-degraded") is None
    assert fakes.gem.last(model).json == {
        "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "temperature": 0.5,
            "topK": 7,
            "maxOutputTokens": 99,
            "stopSequences": ["END"],
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "thinkingConfig": {"include_thoughts": True, "thinking_level": "LOW"},  # in the SDK's own spelling
        },
    }


@modes
@pytest.mark.parametrize(("maker", "signature"), [("gem", SIGNATURES[0]), ("oai", UNSIGNED), ("claude", UNSIGNED)])
async def test_signatures_of_calls(caller: Google, fakes: Fakes, maker: str, signature: str, stream: bool) -> None:
    """A Gemini 3 gets its signatures back; for another model's calls it gets what Google asks for in their place."""
    config = {"tools": [WEATHER], "automatic_function_calling": BY_HAND}
    question = types.Content(role="user", parts=[types.Part(text="What's the weather?")])
    first = await caller.say(model_of(maker, "tools"), [question], stream=stream, **config)
    results = [
        types.Part.from_function_response(name=call.name, response={"result": "21 degrees"}) for call in first.calls
    ]
    turns = [question, types.Content(role="model", parts=first.parts), types.Content(role="user", parts=results)]
    model = f"gemini-3-text+{uuid.uuid4().hex[:8]}"
    assert (await caller.say(f"gem/{model}", turns, stream=stream, **config)).text == greeting("gem")
    _, answered, _ = fakes.gem.last(model).json["contents"]
    calls = [part for part in answered["parts"] if "functionCall" in part]
    assert calls[0]["thoughtSignature"] == signature
    assert [part["functionCall"]["args"]["city"] for part in calls] == list(scenarios.CITIES)


@upstreams
async def test_what_cannot_be_honoured_is_named(caller: Google, source: str) -> None:
    """A setting that only Gemini knows is told in a header where somebody else answers."""
    heard = await caller.say(model_of(source, "text"), "hello", media_resolution="MEDIA_RESOLUTION_LOW")
    degraded = heard.last.sdk_http_response.headers.get("x-llmproxy-degraded", "")
    assert ("gemini.generationConfig" in degraded) == (source != "gem")


async def test_a_wrong_field_is_named(caller: Google) -> None:
    """400 INVALID_ARGUMENT, with the path of the client's own field in the details."""
    contents = [types.Content(role="user", parts=[types.Part(file_data=types.FileData(file_uri="files/abc"))])]
    with pytest.raises(errors.ClientError) as raised:
        await caller.say("gem/text", contents)
    assert (raised.value.code, raised.value.status) == (400, "INVALID_ARGUMENT")
    (violation,) = [one for one in raised.value.details["error"]["details"] if "fieldViolations" in one]
    assert violation["fieldViolations"][0]["field"] == "contents.0.parts.0.fileData.file_uri"


@modes
async def test_an_unknown_model(caller: Google, stream: bool) -> None:
    """404 NOT_FOUND, streamed or not."""
    with pytest.raises(errors.ClientError) as raised:
        await caller.say("nobody/knows", "hello", stream=stream)
    assert (raised.value.code, raised.value.status) == (404, "NOT_FOUND")


async def test_models(caller: Google, polyglot: Server) -> None:
    """The list comes page by page, complete, in Google's shape, and each of its names can be asked for and used."""
    found = {model.name: model for model in await caller.listed(page_size=7)}
    assert {"models/local__tiny", "models/oai__text", "models/claude__text", "models/gem__text"} <= found.keys()
    gemini = found["models/gem__text"]
    assert gemini.input_token_limit == 1_048_576
    assert "generateContent" in gemini.supported_actions
    one = await caller.call(caller.models.get, model="gem__text")
    assert one == gemini
    assert (await caller.say(gemini.name, "hello")).text == greeting("gem")


async def test_tokens_are_counted(caller: Google) -> None:
    """`count_tokens` answers about how many there are."""
    few = await caller.call(caller.models.count_tokens, model="gem/text", contents="hello")
    many = await caller.call(caller.models.count_tokens, model="gem/text", contents="hello " * 100)
    assert 0 < few.total_tokens < 20 < 100 <= many.total_tokens < 400


async def test_vectors(server: Server) -> None:
    """`embed_content` gives a vector for each text, in their order."""
    async with google(server, version="v1beta", blocking=True) as caller:
        both = await caller.call(caller.models.embed_content, model="a/embed", contents=["a cat", "a dog"])
        alone = await caller.call(caller.models.embed_content, model="a/embed", contents="a dog")
    assert len(both.embeddings) == 2
    assert both.embeddings[1].values == alone.embeddings[0].values != both.embeddings[0].values


async def test_a_key(polyglot: Server) -> None:
    """The key of a client is not sent on: the upstream, which lets in one key alone, gets its own."""
    async with google(polyglot, version="v1beta", blocking=True, key="of-the-client") as caller:
        assert (await caller.say("gem/text", "hello")).text == greeting("gem")
