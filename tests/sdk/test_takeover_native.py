"""A candidate that dies in the middle of its answer: another one goes on, and no client of any dialect can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import ollama
import openai
import pytest

from tests.fakes.upstream import UpstreamThread
from tests.sdk.googling import google
from tests.servers import Server, provider, serving

SENTENCE = "the red fox jumps over the lazy dog"
PROMPT = f"Repeat: {SENTENCE}"
CLIENTS = ("chat", "responses", "anthropic", "google", "ollama")


@pytest.fixture(scope="module")
def relayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A pool for each client: an upstream that breaks off after three words, then the embedded model."""
    breaking = {name: f"cut+after=3+for={name}" for name in CLIENTS}
    with UpstreamThread(list(breaking.values())) as upstream:
        config = {
            "providers": {"up": provider(upstream.url)},
            "pools": {
                name: {"where": {"models": [f"up/{model}", "local/tiny"]}, "order": "as_listed"}
                for name, model in breaking.items()
            },
        }
        with serving(config, tmp_path_factory.mktemp("relayed")) as server:
            yield server


def chat(server: Server) -> tuple[str, str, str]:
    """(first model, last model, text) of a stream of chunks."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        create: Any = client.chat.completions.create
        chunks = list(create(model="llmproxy/chat", messages=[{"role": "user", "content": PROMPT}], stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return chunks[0].model, chunks[-1].model, text


def responses(server: Server) -> tuple[str, str, str]:
    """Of the helper, which fails where the events do not fit together."""
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
        client.responses.stream(model="llmproxy/responses", input=PROMPT) as stream,
    ):
        events = list(stream)
        found = stream.get_final_response()
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    assert [item.status for item in found.output if item.type == "message"] == ["completed"]
    (created,) = [event for event in events if event.type == "response.created"]
    return created.response.model, "", found.output_text


def messages(server: Server) -> tuple[str, str, str]:
    """Of the helper, which fails where the blocks do not fit together."""
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as client:
        asked: Any = {"role": "user", "content": PROMPT}
        with client.messages.stream(model="llmproxy/anthropic", max_tokens=64, messages=[asked]) as stream:
            found = stream.get_final_message()
    assert [block.type for block in found.content] == ["text"]
    assert found.stop_reason == "end_turn"
    return found.model, "", "".join(block.text for block in found.content if block.type == "text")


def lines(server: Server) -> tuple[str, str, str]:
    """Of the lines of Ollama's client."""
    with ollama.Client(server.url) as client:
        found = list(client.chat("llmproxy/ollama", [{"role": "user", "content": PROMPT}], stream=True))
    assert [line.done for line in found] == [False] * (len(found) - 1) + [True]
    return str(found[0].model), str(found[-1].model), "".join(line.message.content or "" for line in found)


@pytest.mark.parametrize("client", [chat, responses, messages, lines], ids=["chat", "responses", "anthropic", "ollama"])
def test_the_answer_is_whole(relayed: Server, client: Callable[[Server], tuple[str, str, str]]) -> None:
    """Three words of one and the rest of the other are the sentence, each word once."""
    first, last, text = client(relayed)
    assert text == SENTENCE
    assert first.startswith("up/cut")
    assert last in ("", "local/tiny")


async def test_the_answer_is_whole_for_google(relayed: Server) -> None:
    """The same for the SDK of Google: frames of one answer, and one end."""
    async with google(relayed, version="v1beta", blocking=True) as caller:
        heard = await caller.say("llmproxy/google", PROMPT, stream=True)
    assert (heard.text, heard.finish) == (SENTENCE, "STOP")
    assert heard.responses[0].model_version.startswith("up/cut")
    assert len({one.response_id for one in heard.responses}) == 1
