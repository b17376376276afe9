"""Ollama's Python SDK over every kind of source: the embedded model, OpenAI's, Anthropic's and Gemini's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import jsonschema_rs
import ollama
import pytest

from tests.fakes import scenarios
from tests.fakes.upstream import UpstreamThread
from tests.sdk.conftest import Fakes
from tests.sdk.matrix import FAKES, LOCAL, SOURCES, cells, greeting, model_of, schema_of
from tests.servers import Json, Server, client_of, provider, serving

WEATHER: Json = {
    "type": "function",
    "function": {
        "name": scenarios.TOOL,
        "description": "Get the current temperature for a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
upstreams = pytest.mark.parametrize("source", FAKES)
modes = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def client(polyglot: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=polyglot.url, timeout=30) as client:
        yield client


class Said:
    """An answer, whole or in pieces: what they add up to, and the last of them."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        messages = [piece.message for piece in pieces]
        self.text = "".join(message.content or "" for message in messages)
        self.thoughts = "".join(message.thinking or "" for message in messages)
        self.calls = [call for message in messages for call in message.tool_calls or ()]
        self.last = pieces[-1]
        self.done = [piece.done for piece in pieces]


def ask(client: Any, model: str, stream: bool, said: Any = "hello", **options: Any) -> Said:
    """The answer to `said`, a text or messages."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    found = client.chat(model, messages, stream=stream, **options)
    return Said(list(found) if stream else [found])


# -- the matrix ---------------------------------------------------------------------------------------------------


@cells("ollama", "text")
def test_text(client: ollama.Client, source: str, stream: bool) -> None:
    """The text, who said it, and the counts that clients divide by the time."""
    said = ask(client, model_of(source, "text"), stream)
    assert said.text == greeting(source)
    assert said.done == [False] * (len(said.done) - 1) + [True]
    assert (said.last.model, said.last.done_reason) == (model_of(source, "text"), "stop")
    assert said.last.prompt_eval_count > 0
    assert said.last.eval_count > 0
    assert said.last.eval_duration > 0
    assert said.last.total_duration > 0


@cells("ollama", "tools")
def test_tools(client: ollama.Client, source: str, stream: bool) -> None:
    """Calls have objects as arguments; results find their calls by their order, as this format has no ids for them."""
    model, question = model_of(source, "tools"), {"role": "user", "content": "What's the weather in Paris?"}
    first = ask(client, model, stream, [question], tools=[WEATHER])
    cities = scenarios.CITIES[:1] if source == LOCAL else scenarios.CITIES
    told = [(call.function.name, call.function.arguments) for call in first.calls]
    assert told == [(scenarios.TOOL, {"city": city}) for city in cities]
    results = [
        {"role": "tool", "tool_name": scenarios.TOOL, "content": f"{degrees} degrees"}
        for _, degrees in zip(cities, scenarios.TEMPERATURES, strict=False)
    ]
    answer = ollama.Message(role="assistant", content=first.text, tool_calls=first.calls)
    second = ask(client, model, stream, [question, answer, *results], tools=[WEATHER])
    assert not second.calls
    assert second.text if source == LOCAL else second.text == scenarios.WEATHER


@cells("ollama", "image")
def test_image(client: ollama.Client, source: str, stream: bool) -> None:
    """The bytes of an image arrive as they were, with the media type that they begin with."""
    said = [{"role": "user", "content": "Which colour is this?", "images": [scenarios.IMAGE]}]
    assert ask(client, model_of(source, "image"), stream, said).text == scenarios.COLOUR


@cells("ollama", "schema")
def test_schema(client: ollama.Client, source: str, stream: bool) -> None:
    """An answer in the form that `format` asks for."""
    said = ask(client, model_of(source, "schema"), stream, "Who is it?", format=schema_of(source))
    jsonschema_rs.validate(schema_of(source), json.loads(said.text))
    assert source == LOCAL or json.loads(said.text) == scenarios.PERSON
    assert said.last.done_reason == "stop"


@cells("ollama", "refused")
def test_an_error(client: ollama.Client, source: str, stream: bool) -> None:
    """The SDK raises one sentence and the status."""
    if source == LOCAL:
        with pytest.raises(ollama.ResponseError) as raised:
            ask(client, LOCAL, stream, "word " * 5000)
        assert raised.value.status_code == 400
        return
    with pytest.raises(ollama.ResponseError) as raised:
        ask(client, model_of(source, "refused", f"ollama-{stream}"), stream)
    assert raised.value.status_code == 429
    assert scenarios.REFUSAL in raised.value.error


@cells("ollama", "cut")
def test_a_cut_answer(client: ollama.Client, source: str, stream: bool) -> None:
    """What was said before the break is told, and then an error: nobody takes it for the whole."""
    model = model_of(source, "cut", f"ollama-{stream}")
    if not stream:
        with pytest.raises(ollama.ResponseError) as raised:
            ask(client, model, stream)
        assert raised.value.status_code == 502
        return
    heard: list[Any] = []
    with pytest.raises(ollama.ResponseError) as raised:
        heard.extend(client.chat(model, [{"role": "user", "content": "hello"}], stream=True))
    assert Said(heard).text == scenarios.BEFORE_THE_CUT
    assert not any(piece.done for piece in heard)
    assert raised.value.error


@cells("ollama", "thinks")
def test_reasoning(client: ollama.Client, source: str, stream: bool) -> None:
    """Thoughts stand in `thinking`, beside the content, and count among the tokens of the answer."""
    said = ask(client, model_of(source, "thinks"), stream, think=True)
    assert (said.thoughts, said.text) == (scenarios.THOUGHT, scenarios.DONE)
    assert said.last.prompt_eval_count == scenarios.PROMPT_TOKENS
    assert said.last.eval_count == scenarios.COMPLETION_TOKENS


# -- beside the matrix --------------------------------------------------------------------------------------------


@modes
@upstreams
def test_the_limit_of_tokens_ends_an_answer(client: ollama.Client, source: str, stream: bool) -> None:
    """The reason is `length`, whatever the upstream calls it."""
    assert ask(client, model_of(source, "long"), stream).last.done_reason == "length"


@modes
@pytest.mark.parametrize("source", SOURCES)
def test_generate(client: ollama.Client, source: str, stream: bool) -> None:
    """The older endpoint answers a prompt."""
    found = cast(Any, client).generate(model_of(source, "text"), "hello", stream=stream)
    pieces = list(found) if stream else [found]
    assert "".join(piece.response for piece in pieces) == greeting(source)
    assert (pieces[-1].done, pieces[-1].done_reason) == (True, "stop")


@upstreams
def test_options_arrive(client: ollama.Client, fakes: Fakes, source: str) -> None:
    """`options` become the fields of the upstream; those of a local Ollama's loading change nothing."""
    model = model_of(source, "text", "options")
    options = {"temperature": 0.5, "num_predict": 77, "stop": ["END"], "num_ctx": 4096}
    assert ask(client, model, False, options=options).text == greeting(source)
    sent = getattr(fakes, source).last(model.partition("/")[2]).json
    shapes: dict[str, Json] = {
        "oai": {"temperature": 0.5, "max_tokens": 77, "stop": ["END"]},
        "claude": {"temperature": 0.5, "max_tokens": 77, "stop_sequences": ["END"]},
        "gem": {"generationConfig": {"temperature": 0.5, "maxOutputTokens": 77, "stopSequences": ["END"]}},
    }
    assert shapes[source].items() <= sent.items()
    assert "num_ctx" not in json.dumps(sent)


@modes
async def test_what_is_not_heard_is_told(polyglot: Server, stream: bool) -> None:
    """The header, which the SDK hides, names what only a local Ollama knows, and what the upstream lacks a word for."""
    body = {"model": "claude/text", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    async with client_of(polyglot) as client:
        more = {"keep_alive": "5m", "options": {"num_ctx": 4096, "repeat_penalty": 1.1}}
        answer = await client.post("/api/chat", {**body, **more})
        plain = await client.post("/api/chat", body)
    assert answer.headers["x-llmproxy-degraded"] == "keep_alive, options.num_ctx, repetition_penalty"
    assert "x-llmproxy-degraded" not in plain.headers


@pytest.mark.parametrize("model", ["gem/gemini-3-tools"])
def test_calls_of_a_model_that_signs_them(client: ollama.Client, model: str) -> None:
    """This format has no place for the signatures of Gemini's calls, and the round trip works without them."""
    question = {"role": "user", "content": "What's the weather?"}
    first = ask(client, model, False, [question], tools=[WEATHER])
    results = [{"role": "tool", "tool_name": scenarios.TOOL, "content": degrees} for degrees in scenarios.TEMPERATURES]
    answer = ollama.Message(role="assistant", tool_calls=first.calls)
    assert ask(client, model, False, [question, answer, *results], tools=[WEATHER]).text == scenarios.WEATHER


def test_the_list_of_models(client: ollama.Client) -> None:
    """`list` has every model and pool, `show` tells of one of them, `ps` names what is loaded."""
    names = {model.model for model in client.list().models}
    assert {"local__tiny", "oai__text", "claude__text", "gem__text", "llmproxy/local"} <= names
    shown = client.show("local__tiny")
    assert "completion" in (shown.capabilities or [])
    assert "tools" in (shown.capabilities or [])
    ask(client, LOCAL, False)
    assert [model.model for model in client.ps().models] == ["local__tiny"]


def test_an_unknown_model_is_not_found(client: ollama.Client) -> None:
    """404, and a sentence that names it."""
    with pytest.raises(ollama.ResponseError, match="nobody/nothing") as raised:
        ask(client, "nobody/nothing", False)
    assert raised.value.status_code == 404


def test_embeddings(upstream: UpstreamThread, tmp_path: Path) -> None:
    """`embed` gives a vector for each text."""
    config = {"local": {"models": []}, "providers": {"a": provider(upstream.url)}}
    with serving(config, tmp_path, "--no-local") as server, ollama.Client(host=server.url) as client:
        found = client.embed("a/embed", ["one", "two"])
    assert len(found.embeddings) == 2
    assert len(found.embeddings[0]) == 8
    assert found.prompt_eval_count == 2


def test_a_key(fakes: Fakes, tmp_path: Path) -> None:
    """The key is a Bearer token; without it the door stays shut, and says so in a sentence."""
    config = {
        "server": {"api_keys": ["sk-door"]},
        "local": {"models": []},
        "providers": {"oai": provider(fakes.oai.url)},
    }
    with serving(config, tmp_path, "--no-local") as server:
        with ollama.Client(host=server.url, headers={"Authorization": "Bearer sk-door"}) as client:
            assert ask(client, "oai/text", False).text == greeting("oai")
        with (
            ollama.Client(host=server.url, headers={"Authorization": "Bearer wrong"}) as client,
            pytest.raises(ollama.ResponseError) as raised,
        ):
            ask(client, "oai/text", False)
        assert raised.value.status_code == 401


async def test_the_async_client(polyglot: Server) -> None:
    """The other client streams the same."""
    async with ollama.AsyncClient(host=polyglot.url) as client:
        stream = await client.chat("gem/text", [{"role": "user", "content": "hello"}], stream=True)
        pieces = [piece async for piece in stream]
    assert Said(pieces).text == greeting("gem")
