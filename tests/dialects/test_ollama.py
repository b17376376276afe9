"""Ollama's requests become canonical ones, canonical replies become Ollama's, as its own SDK reads them."""

from __future__ import annotations

from typing import Any

import ollama
import pytest
from hypothesis import given

from llmproxy.core.errors import InvalidRequest, LlmproxyError
from llmproxy.dialects.ollama import (
    OllamaChat,
    OllamaGenerate,
    embed_reply,
    embed_request,
    embed_unheard,
    embeddings_reply,
)
from llmproxy.dialects.openai import parse_chat, parse_embeddings
from tests.core.properties import quick
from tests.dialects.talks import talks

HELLO = [{"role": "user", "content": "hello"}]
PNG, JPEG = "iVBORw0KGgo=", "/9j/4AA="
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def chat(**body: Any) -> dict[str, Any]:
    return OllamaChat().request({"model": "m", "messages": HELLO, "stream": False, **body}, {})


def generate(**body: Any) -> dict[str, Any]:
    return OllamaGenerate().request({"model": "m", "stream": False, **body}, {})


def image(data: str, kind: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}"}}


def test_a_stream_is_what_is_meant() -> None:
    """Ollama streams unless it is told not to."""
    assert OllamaChat().request({"model": "m", "messages": HELLO}, {}) == {"model": "m", "messages": HELLO, **STREAM}
    assert chat() == {"model": "m", "messages": HELLO}
    assert generate(stream=None, prompt="hello") == {"model": "m", "messages": HELLO, **STREAM}


def test_options() -> None:
    """Options that others have too are told in their words; what means nothing is left out."""
    options = {
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40.0,
        "min_p": 0.05,
        "seed": 0,
        "num_predict": 64,
        "stop": ["END"],
        "presence_penalty": 0.5,
        "frequency_penalty": 0,
        "repeat_penalty": 1.1,
        "num_ctx": 4096,
        "mirostat": 1,
    }
    body = {"options": options, "keep_alive": "5m", "tools": [TOOL], "think": None}
    assert chat(**body) == {
        "model": "m",
        "messages": HELLO,
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "seed": 0,
        "max_tokens": 64,
        "stop": ["END"],
        "presence_penalty": 0.5,
        "repetition_penalty": 1.1,
        "tools": [TOOL],
    }
    told = OllamaChat().unheard({"model": "m", "messages": HELLO, **body})
    assert told == ("keep_alive", "options.num_ctx", "options.mirostat")


@pytest.mark.parametrize(
    "options", [{"num_predict": -1}, {"num_predict": -2}, {"top_k": 0}, {"repeat_penalty": 1.0}, {}]
)
def test_options_that_set_no_limit(options: dict[str, Any]) -> None:
    """No limit is asked for by saying nothing."""
    assert chat(options=options) == chat()


@pytest.mark.parametrize(
    ("think", "effort"),
    [(True, "medium"), (False, "none"), ("low", "low"), ("high", "high"), ("max", "xhigh"), ("", None), (None, None)],
)
def test_think(think: Any, effort: str | None) -> None:
    """Thinking is switched by the canonical effort."""
    assert chat(think=think).get("reasoning_effort") == effort
    assert generate(prompt="x", think=think).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", {"type": "json_object"}),
        (SCHEMA, {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}),
        ("", None),
        (None, None),
    ],
)
def test_format(form: Any, expected: Any) -> None:
    """JSON is asked for with a word or a schema."""
    assert chat(format=form).get("response_format") == expected
    assert generate(prompt="x", format=form).get("response_format") == expected


def test_images() -> None:
    """Images have no type there: it is read from how they begin."""
    assert chat(messages=[{"role": "user", "content": "look", "images": [PNG, JPEG]}])["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "look"}, image(PNG, "png"), image(JPEG, "jpeg")]}
    ]
    assert generate(images=["R0lGODlh", "UklGRg=="])["messages"] == [
        {"role": "user", "content": [image("R0lGODlh", "gif"), image("UklGRg==", "webp")]}
    ]
    given = {"role": "user", "content": "", "images": ["data:image/png;base64,AA", "unknown"]}
    assert [part["image_url"]["url"] for part in chat(messages=[given])["messages"][0]["content"]] == [
        "data:image/png;base64,AA",
        "data:image/png;base64,unknown",
    ]


def test_tool_calls_get_ids() -> None:
    """Calls without ids get some, and results find the call of their name, the earliest that has none yet."""
    calls = [
        {"function": {"name": "f", "arguments": {"n": 1}}},
        {"function": {"name": "g"}},
        {"function": {"name": "f", "arguments": '{"n":2}'}},
    ]
    found = chat(
        messages=[
            *HELLO,
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": calls},
            {"role": "tool", "tool_name": "g", "content": "G"},
            {"role": "tool", "tool_name": "f", "content": "F1"},
            {"role": "tool", "content": "F2", "images": [PNG]},
            {"role": "user", "content": "and?"},
        ]
    )["messages"]
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "call_1_0", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}},
                {"id": "call_1_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                {"id": "call_1_2", "type": "function", "function": {"name": "f", "arguments": '{"n":2}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "call_1_1", "content": "G"},
        {"role": "tool", "tool_call_id": "call_1_0", "content": "F1"},
        {"role": "tool", "tool_call_id": "call_1_2", "content": "F2"},
        {"role": "user", "content": [image(PNG, "png")]},
        {"role": "user", "content": "and?"},
    ]


def test_a_generate_request_is_a_chat_of_one_message() -> None:
    """The prompt is what the user says, after the system prompt."""
    assert generate(prompt="hello", system="be kind")["messages"] == [{"role": "system", "content": "be kind"}, *HELLO]
    assert OllamaGenerate().unheard({"model": "m", "prompt": "x", "options": {"num_gpu": 1}}) == ("options.num_gpu",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages.0"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [1]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "images": "y"}]}, "messages.0.images"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls.0"),
        ({"format": "xml"}, "format"),
        ({"format": {"type": "strin"}}, "format"),
        ({"think": "hard"}, "think"),
        ({"think": 1}, "think"),
        ({"options": []}, None),
        ({"options": "x"}, "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"seed": 1.5}}, "options.seed"),
        ({"options": {"stop": 1}}, "options.stop"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str | None) -> None:
    """What is wrong is refused with the path of the client's own field."""
    with pytest.raises(InvalidRequest) as caught:
        chat(**body)
    assert caught.value.param == (param or "options")


@pytest.mark.parametrize("field", ["suffix", "template", "raw", "context"])
def test_prompts_that_are_written_by_hand(field: str) -> None:
    """What goes around the chat template cannot be had; said empty, it is not asked for."""
    with pytest.raises(InvalidRequest) as caught:
        generate(prompt="x", **{field: [1] if field == "context" else "y"})
    assert caught.value.param == field
    assert generate(prompt="x", **{field: ""})["messages"]


def test_what_is_made_is_a_canonical_request() -> None:
    """The parser of canonical requests takes what is made."""
    call = parse_chat(chat(tools=[TOOL], format=SCHEMA, options={"top_k": 3}, think=True), "c")
    assert call.forced is not None
    assert call.forced.json_schema == SCHEMA


# -- replies ------------------------------------------------------------------------------------------------------


def canonical(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    return {"id": "c", "created": 1_700_000_000, "model": "acme/large", "choices": [choice], "usage": usage}


CALL = {"id": "call_9", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def test_a_chat_reply() -> None:
    """A message with thoughts and calls, whose arguments are objects, and the figures in nanoseconds."""
    reply = OllamaChat(lambda: 5_000).reply(
        canonical({"content": "hello", "reasoning_content": "hm", "tool_calls": [CALL]}, "tool_calls")
    )
    assert reply == {
        "model": "acme/large",
        "created_at": "2023-11-14T22:13:20Z",
        "message": {
            "role": "assistant",
            "content": "hello",
            "thinking": "hm",
            "tool_calls": [{"id": "call_9", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}],
        },
        "done_reason": "stop",
        "done": True,
        "total_duration": 5_000,
        "load_duration": 0,
        "prompt_eval_count": 7,
        "prompt_eval_cached_count": 4,
        "prompt_eval_duration": 0,
        "eval_count": 3,
        "eval_duration": 5_000,
    }
    read = ollama.ChatResponse.model_validate(reply)
    assert read.message.tool_calls is not None
    assert read.message.tool_calls[0].function.arguments == {"a": 1}


def test_a_generate_reply() -> None:
    """The text is the response, thoughts stand beside it."""
    reply = OllamaGenerate().reply(canonical({"content": "hello", "reasoning_content": "hm"}, "length"))
    read = ollama.GenerateResponse.model_validate(reply)
    assert (read.response, read.thinking, read.done, read.done_reason) == ("hello", "hm", True, "length")
    assert (read.eval_count, read.eval_duration) == (3, 1)


@pytest.mark.parametrize(
    ("message", "finish", "content", "reason"),
    [
        ({"content": None, "refusal": "no"}, "stop", "no", "stop"),
        ({"content": ""}, "content_filter", "", "content_filter"),
        ({"content": None, "tool_calls": [CALL]}, "tool_calls", "", "stop"),
    ],
)
def test_ends(message: dict[str, Any], finish: str, content: str, reason: str) -> None:
    """A refusal is text; a reason that Ollama has no word for keeps its own."""
    reply = OllamaChat().reply(canonical(message, finish))
    assert (reply["message"]["content"], reply["done_reason"]) == (content, reason)


def test_logprobs() -> None:
    """Log probabilities are asked for and told in the same words."""
    assert chat(logprobs=True, top_logprobs=2)["top_logprobs"] == 2
    body = canonical({"content": "a"})
    body["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -0.1}]}
    assert OllamaChat().reply(body)["logprobs"] == [{"token": "a", "logprob": -0.1}]


def test_errors() -> None:
    """An error is a sentence, which names the field that is wrong."""
    assert OllamaChat().error(LlmproxyError("no"), 500, "r") == {"error": "no"}
    assert OllamaGenerate().error(InvalidRequest("bad", param="options.seed"), 400, "r") == {
        "error": "options.seed: bad"
    }


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), ("5m", "load"), (0, "unload"), ("0", "unload")])
def test_a_request_that_says_nothing_loads_a_model(keep_alive: Any, reason: str) -> None:
    """Clients load and unload models by an empty request; that is answered without asking anybody."""
    body = {"model": "m", "keep_alive": keep_alive}
    found = OllamaChat().preloaded({**body, "messages": []}, 1_700_000_000)
    assert found is not None
    assert ollama.ChatResponse.model_validate(found).done_reason == reason
    found = OllamaGenerate().preloaded(body, 1_700_000_000)
    assert found is not None
    assert ollama.GenerateResponse.model_validate(found).response == ""
    assert OllamaChat().preloaded({"messages": HELLO}, 0) is None
    assert OllamaGenerate().preloaded({"prompt": "x"}, 0) is None


@quick
@given(talks(thoughts=False))
def test_conversations_survive(messages: list[dict[str, Any]]) -> None:
    """A conversation whose answers were told in Ollama's words is the same one: texts, calls, arguments and order."""
    told = []
    for message in messages:
        if message["role"] == "assistant":
            told.append(OllamaChat().reply({"choices": [{"message": message}]})["message"])
        elif message["role"] == "tool":
            told.append({"role": "tool", "tool_call_id": message["tool_call_id"], "content": message["content"]})
        else:
            content = message["content"]
            parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
            texts = "".join(part["text"] for part in parts if part["type"] == "text")
            images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            told.append({"role": message["role"], "content": texts, **({"images": images} if images else {})})
    found = chat(messages=told)["messages"]
    assert [message["role"] for message in found] == [message["role"] for message in messages]
    for one, other in zip(found, messages, strict=True):
        assert one.get("tool_calls") == other.get("tool_calls")
        assert one.get("tool_call_id") == other.get("tool_call_id")
        assert _spoken(one) == _spoken(other)


def _spoken(message: dict[str, Any]) -> tuple[str, list[str]]:
    content = message["content"] or ""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return "".join(part["text"] for part in parts if part["type"] == "text"), images


# -- embeddings ---------------------------------------------------------------------------------------------------


def test_embed() -> None:
    """One text or several are embedded; vectors come back in the order of the texts."""
    body = embed_request({"model": "m", "input": ["a", "b"], "dimensions": 2, "truncate": True})
    assert body == {"model": "m", "input": ["a", "b"], "dimensions": 2}
    assert parse_embeddings(body, "c").endpoint == "embeddings"
    assert embed_unheard({"model": "m", "input": "a", "truncate": True, "options": {"num_ctx": 1}}) == (
        "truncate",
        "options.num_ctx",
    )
    data = [{"index": 1, "embedding": [0.3]}, {"index": 0, "embedding": [0.1]}]
    reply = embed_reply({"model": "acme/e", "data": data, "usage": {"prompt_tokens": 5}}, 9)
    assert ollama.EmbedResponse.model_validate(reply).embeddings == [[0.1], [0.3]]
    assert reply == {
        "model": "acme/e",
        "embeddings": [[0.1], [0.3]],
        "total_duration": 9,
        "load_duration": 0,
        "prompt_eval_count": 5,
    }


def test_the_older_embeddings() -> None:
    """The older endpoint has a prompt and one vector."""
    assert embed_request({"model": "m", "prompt": "a"}) == {"model": "m", "input": "a"}
    assert embeddings_reply({"data": [{"index": 0, "embedding": [0.1]}]}) == {"embedding": [0.1]}
    assert embeddings_reply({}) == {"embedding": []}


@pytest.mark.parametrize(("body", "param"), [({"input": []}, "input"), ({"input": [1]}, "input"), ({}, "prompt")])
def test_what_cannot_be_embedded(body: dict[str, Any], param: str) -> None:
    """Only text can be embedded."""
    with pytest.raises(InvalidRequest) as caught:
        embed_request({"model": "m", **body})
    assert caught.value.param == param
