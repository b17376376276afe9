"""The Gemini upstream is as strict as the real one: what it lets pass is what a translation got right."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from google import genai
from google.genai import errors, types

from tests.fakes import scenarios
from tests.fakes.gemini_replies import CALL_IDS, SIGNATURES, Refused, answer, model_list
from tests.fakes.gemini_upstream import KEY, GeminiThread

Json = dict[str, Any]

TOOL: Json = {"name": scenarios.TOOL, "parametersJsonSchema": {"type": "object", "properties": {"city": {}}}}
TOOLS: Json = {"tools": [{"functionDeclarations": [TOOL]}]}


def user(*parts: Json) -> Json:
    return {"role": "user", "parts": list(parts)}


def called(*places: int, signed: bool = True) -> Json:
    parts: list[Json] = []
    for place in places:
        call = {"id": CALL_IDS[place], "name": scenarios.TOOL, "args": {"city": scenarios.CITIES[place]}}
        parts.append({"functionCall": call} | ({"thoughtSignature": SIGNATURES[place]} if signed else {}))
    return {"role": "model", "parts": parts}


def result(place: int, text: str = "", call_id: str = "") -> Json:
    response = {"output": text or scenarios.TEMPERATURES[place]}
    return {"functionResponse": {"id": call_id or CALL_IDS[place], "name": scenarios.TOOL, "response": response}}


def picture(data: bytes, media: str = scenarios.IMAGE_TYPE) -> Json:
    return {"inlineData": {"mimeType": media, "data": base64.b64encode(data).decode()}}


def said(model: str, *contents: Json, **body: Any) -> str:
    found = answer(model, {"contents": list(contents), **body})
    return "".join(part.get("text", "") for piece in found.pieces for part in piece)


def refused(model: str, *contents: Json, **body: Any) -> str:
    with pytest.raises(Refused) as raised:
        answer(model, {"contents": list(contents), **body})
    assert raised.value.status == 400
    assert raised.value.body["error"]["status"] == "INVALID_ARGUMENT"
    return str(raised.value)


ASK = user({"text": "hello"})


def test_both_results_make_the_answer() -> None:
    """In any order, each under its own id."""
    assert said("tools", ASK, called(0, 1), user(result(1), result(0)), **TOOLS) == scenarios.WEATHER


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        (user(result(0)), "the number of function response parts"),
        (user({"text": "well"}), "the number of function response parts"),
        (user(result(0), result(1, call_id="other")), "has the id"),
        (user(result(0, "18"), result(1, "21")), "is not 21"),
    ],
)
def test_results_must_fit(turn: Json, told: str) -> None:
    """One missing, none at all, one of another call, and two that were mixed up."""
    assert told in refused("tools", ASK, called(0, 1), turn, **TOOLS)


def test_results_need_calls() -> None:
    """Nobody was asked for it."""
    assert "the number of" in refused("text", user(result(0)))


@pytest.mark.parametrize(
    "body",
    [
        {"store": True},
        {"generationConfig": {"max_completion_tokens": 3}},
        {"contents": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]},
        {"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]},
        {"contents": [{"role": "user", "parts": []}]},
        {"contents": [{"role": "model", "parts": [{"text": "x"}]}]},
        {"tools": [{"functionDeclarations": [{**TOOL, "parameters": {}}]}]},
        {**TOOLS, "generationConfig": {"responseMimeType": "application/json"}},
        {},
    ],
)
def test_what_google_does_not_define_is_refused(body: Json) -> None:
    """Fields of other formats, wrong turns, two schemas of one function, tools beside JSON, and nothing at all."""
    with pytest.raises(Refused):
        answer("text", {"contents": [ASK], **body} if body else body)


def test_the_image_must_be_the_image() -> None:
    """Other bytes and another media type are not it."""
    assert said("image", user(picture(scenarios.IMAGE))) == scenarios.COLOUR
    assert said("image", user(picture(scenarios.IMAGE[:-1]))) == scenarios.NO_IMAGE
    assert said("image", user(picture(scenarios.IMAGE, "image/jpeg"))) == scenarios.NO_IMAGE


def test_the_schema_must_be_asked_for() -> None:
    """Under its own name and with the media type; another schema is not it."""
    config: Json = {"responseMimeType": "application/json", "responseJsonSchema": scenarios.SCHEMA}
    assert said("schema", ASK, generationConfig=config) != scenarios.NO_SCHEMA
    for wrong in ({"responseMimeType": "text/plain"}, {"responseJsonSchema": {**scenarios.SCHEMA, "required": []}}):
        assert said("schema", ASK, generationConfig={**config, **wrong}) == scenarios.NO_SCHEMA


def test_a_gemini_3_wants_signatures() -> None:
    """And tells its thoughts to those alone who ask."""
    turns = (ASK, called(0, 1, signed=False), user(result(0), result(1)))
    assert "thought_signature" in refused("gemini-3-tools", *turns, **TOOLS)
    assert said("tools", *turns, **TOOLS) == scenarios.WEATHER
    assert said("gemini-3-thinks", ASK) == scenarios.DONE
    thoughts = {"thinkingConfig": {"includeThoughts": True}}
    assert said("gemini-3-thinks", ASK, generationConfig=thoughts) == scenarios.THOUGHT + scenarios.DONE


def test_models_come_in_pages() -> None:
    """Each page but the last has a token."""
    first = model_list(["a", "b", "c"], 2)
    assert [model["name"] for model in first["models"]] == ["models/a", "models/b"]
    assert model_list(["a", "b", "c"], 2, first["nextPageToken"]).keys() == {"models"}


@pytest.mark.parametrize("stream", [False, True])
def test_googles_own_sdk_gets_on_with_it(stream: bool) -> None:
    """It reads answers and refusals, and a wrong key is refused."""

    def ask(model: str, key: str = KEY) -> str:
        http = types.HttpOptions(base_url=up.url.removesuffix("/v1beta"), api_version="v1beta")
        with genai.Client(api_key=key, vertexai=False, http_options=http) as client:
            if not stream:
                return str(client.models.generate_content(model=model, contents="hello").text)
            chunks = client.models.generate_content_stream(model=model, contents="hello")
            return "".join(chunk.text or "" for chunk in chunks)

    with GeminiThread() as up:
        assert ask("text") == scenarios.greeting("Gemini")
        for model, key, status in (("refused", KEY, "RESOURCE_EXHAUSTED"), ("text", "wrong", "INVALID_ARGUMENT")):
            with pytest.raises(errors.ClientError) as raised:
                ask(model, key)
            assert raised.value.status == status
