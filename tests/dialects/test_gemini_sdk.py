"""Google's own SDK reads what the Gemini dialect writes, and writes what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given

from llmproxy.core import sse
from llmproxy.core.errors import AllCandidatesFailed, NoCandidates
from llmproxy.dialects import gemini_other as other
from llmproxy.dialects.gemini import Gemini
from llmproxy.dialects.openai import error_body, parse_chat
from tests.core.properties import quick
from tests.dialects.talk import Json, answers, chunk, deltas_of, rendered, reply, stream, words

genai = pytest.importorskip("google.genai", reason="the SDK of Google is not installed")


class Server:
    """Answers every request of the SDK's client as it was last told to, and keeps what was asked for."""

    def __init__(self) -> None:
        self.asked: Json = {}
        self.path = ""
        self.client = self._client()
        self.says({})

    def says(self, content: Any, status: int = 200) -> Any:
        """The client, which will get this."""
        self.events = isinstance(content, bytes)
        self._content = content if self.events else json.dumps(content).encode()
        self._status = status
        return self.client

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked = json.loads(request.content or b"{}")
        self.path = request.url.path
        media = "text/event-stream" if self.events else "application/json"
        return httpx2.Response(self._status, content=self._content, headers={"content-type": media})

    def _client(self) -> Any:
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        options = genai.types.HttpOptions(base_url="http://a", httpx_client=http)
        return genai.Client(api_key="unused", vertexai=False, http_options=options)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for all: the SDK takes its time to make a client."""
    served = Server()
    with served.client:
        yield served


def thoughtful(**more: Any) -> Any:
    return genai.types.GenerateContentConfig(thinking_config=genai.types.ThinkingConfig(include_thoughts=True), **more)


def parts_of(message: Json) -> list[Any]:
    """(thought, text) or (id, name, arguments) of each part that a client should see."""
    found: list[Any] = []
    if "reasoning_content" in message:
        found.append((True, message["reasoning_content"]))
    if message["content"]:
        found.append((False, message["content"]))
    calls = message.get("tool_calls") or ()
    found += [(one["id"], one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls]
    return found


def seen(parts: list[Any]) -> list[Any]:
    found: list[Any] = []
    for part in parts or []:
        if part.function_call is not None:
            found.append((part.function_call.id, part.function_call.name, part.function_call.args))
        elif part.text and found and found[-1][0] is bool(part.thought):
            found[-1] = (found[-1][0], found[-1][1] + part.text)
        elif part.text:
            found.append((bool(part.thought), part.text))
    return found


@quick
@given(answers())
def test_replies(server: Server, message: Json) -> None:
    """A whole reply has the parts, the end and the usage that the model gave it."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    client = server.says(Gemini("m").reply(reply(message, finish)))
    found = client.models.generate_content(model="m", contents="x", config=thoughtful())
    assert seen(found.candidates[0].content.parts) == parts_of(message)
    assert found.candidates[0].finish_reason.value == "STOP"
    assert (found.usage_metadata.total_token_count, found.usage_metadata.thoughts_token_count) == (29, 4)


@quick
@given(answers())
def test_streams(server: Server, message: Json) -> None:
    """A stream has the same parts, put together."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    request: Json = {"generationConfig": {"thinkingConfig": {"includeThoughts": True}}}
    data = rendered(Gemini("m", stream=True).renderer(request), [deltas_of(message, finish)])
    client = server.says(data)
    chunks = list(client.models.generate_content_stream(model="m", contents="x", config=thoughtful()))
    parts = [part for one in chunks for part in one.candidates[0].content.parts]
    assert seen(parts) == parts_of(message)
    assert chunks[-1].usage_metadata.total_token_count == 29
    assert chunks[-1].candidates[0].finish_reason.value == "STOP"


def test_life_signs_do_no_harm(server: Server) -> None:
    """A life sign is a chunk without text to the SDK."""
    data = rendered(Gemini("m", stream=True).renderer({}), [sse.comment("still waiting"), words("Hello")])
    client = server.says(data)
    texts = [one.text for one in client.models.generate_content_stream(model="m", contents="x")]
    assert "".join(texts) == "Hello"


def test_error_in_the_stream(server: Server) -> None:
    """An error in a stream reaches the caller."""
    failed = sse.event(json.dumps(error_body(AllCandidatesFailed("nobody could answer"))).encode()) + sse.DONE
    data = rendered(Gemini("m", stream=True).renderer({}), [stream(chunk({"content": "a"}), done=False) + failed])
    client = server.says(data)
    with pytest.raises(genai.errors.ServerError, match="nobody could answer"):
        list(client.models.generate_content_stream(model="m", contents="x"))


def test_errors(server: Server) -> None:
    """An error response is the SDK's own kind of error."""
    error = Gemini("m").error(NoCandidates("nobody is there"), 503, "r1")
    client = server.says(error, 503)
    with pytest.raises(genai.errors.ServerError) as caught:
        client.models.generate_content(model="m", contents="x")
    assert (caught.value.code, caught.value.status, caught.value.message) == (503, "UNAVAILABLE", "nobody is there")


def test_requests(server: Server) -> None:
    """What the SDK makes of its own types is understood, field by field."""
    types = genai.types
    client = server.says(Gemini("m").reply(reply({"content": "{}"})))

    def weather(city: str) -> str:
        """The weather."""
        return "sun"

    config = types.GenerateContentConfig(
        system_instruction="be brief",
        temperature=0.5,
        max_output_tokens=9,
        tools=[weather],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
        thinking_config=types.ThinkingConfig(thinking_level="LOW"),
    )
    contents = [
        types.Content(role="user", parts=[types.Part.from_bytes(data=b"\xff\xfe\xfb", mime_type="image/png")]),
        types.Content(role="model", parts=[types.Part.from_function_call(name="weather", args={"city": "Rome"})]),
        types.Content(
            role="user", parts=[types.Part.from_function_response(name="weather", response={"result": "sun"})]
        ),
        types.Content(role="user", parts=[types.Part(text="and?")]),
    ]
    client.models.generate_content(model="a/b", contents=contents, config=config)
    assert server.path.endswith("/models/a/b:generateContent")
    found = Gemini("a/b").request(server.asked, {})
    parse_chat(found, "c1")
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert found["messages"][1]["content"][0]["image_url"]["url"] == "data:image/png;base64,//77"
    assert found["tools"][0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
    assert {name: found[name] for name in ("temperature", "max_tokens", "reasoning_effort", "tool_choice")} == {
        "temperature": 0.5, "max_tokens": 9, "reasoning_effort": "low", "tool_choice": "required",
    }  # fmt: skip
    assert "gemini" not in found


def test_schema_of_the_sdk(server: Server) -> None:
    """A pydantic model that the SDK turns into a schema is a JSON schema again."""
    client = server.says(Gemini("m").reply(reply({"content": "{}"})))
    schema = {
        "type": "OBJECT",
        "properties": {"name": {"type": "STRING", "nullable": True}},
        "required": ["name"],
    }
    config = genai.types.GenerateContentConfig(response_mime_type="application/json", response_schema=schema)
    client.models.generate_content(model="m", contents="x", config=config)
    form = Gemini("m").request(server.asked, {})["response_format"]
    assert form["json_schema"]["schema"]["properties"]["name"]["type"] == ["string", "null"]


def test_smaller_methods(server: Server) -> None:
    """Tokens are counted, vectors made and models listed."""
    client = server.says(other.token_count(8))
    assert client.models.count_tokens(model="m", contents="x").total_tokens == 8
    assert other.counted_request(server.asked)["contents"]
    vectors = {"data": [{"index": place, "embedding": [float(place)]} for place in range(2)]}
    client = server.says(other.batch_embed_reply(vectors))
    found = client.models.embed_content(model="e", contents=["a", "b"])
    assert [one.values for one in found.embeddings] == [[0.0], [1.0]]
    assert server.path.endswith("/models/e:batchEmbedContents")
    assert other.batch_embed_request(server.asked, "e")["input"] == ["a", "b"]
    entry = {"id": "groq__m", "created": 1, "owned_by": "groq", "context_length": 9}
    client = server.says(other.model_list([entry]))
    (model,) = client.models.list()
    assert (model.name, model.input_token_limit) == ("models/groq__m", 9)
