"""Describing images over a real server: one call for each request, by whichever model is named."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from PIL import Image

from tests.backends.build_vision import build_vision_model
from tests.fakes.upstream import UpstreamThread
from tests.servers import ROOT, Answer, Client, Json, Server, client_of, provider, serving

DESCRIBE, CROPS = "/api/inference/describe", "/api/inference/crop-describe"
SENTENCE = "word0 word1 word2 word3 word4 word5 word6 word7"
SCHEMA: Json = {
    "type": "object",
    "properties": {"count": {"type": "integer", "minimum": 3}},
    "required": ["count"],
    "additionalProperties": False,
}
FORM: Json = {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}}
CUP: Json = {"bbox": [10, 10, 60, 60], "class": "cup", "confidence": 0.9, "track_id": 7}


@pytest.fixture(scope="module")
def server(upstream: UpstreamThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two providers, a pool, an alias, a default of its own, and no local model."""
    config = {
        "providers": {"a": provider(upstream.url), "b": provider(upstream.url)},
        "local": {"models": []},
        "aliases": {"eyes": "a/ok"},
        "pools": {"see": {"where": {"models": ["b/ok"]}, "order": "as_listed"}},
        "inference": {"vision_model": "b/ok"},
        "state": {"url": "memory"},
    }
    with serving(config, tmp_path_factory.mktemp("vision"), "--no-local") as made:
        yield made


@pytest.fixture
async def http(server: Server, upstream: UpstreamThread) -> AsyncIterator[Client]:
    upstream.reset()
    async with client_of(server) as client:
        yield client


def encoded(kind: str = "PNG", size: tuple[int, int] = (80, 60), colour: Any = "red") -> bytes:
    file = BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


IMAGE = base64.b64encode(encoded()).decode()


def parts_of(upstream: UpstreamThread) -> list[Json]:
    """The content of the one message of the one request that was made."""
    [request] = [one for one in upstream.requests if one.model]
    [message] = request.json["messages"]
    parts: list[Json] = message["content"]
    return parts


def image_of(part: Json) -> tuple[str, bytes]:
    """(MIME type, bytes) of an image part."""
    head, _, text = part["image_url"]["url"].partition(",")
    return head, base64.b64decode(text)


async def described(http: Client, **body: Any) -> Answer:
    return await http.post(DESCRIBE, {"image_b64": IMAGE, "prompt": "What is it?", **body})


def saying(*crops: str, description: str = "a kitchen", entities: Any = ("cup",)) -> str:
    """A prompt that the scripted model repeats: what it says of the scene and the panels."""
    said = {"description": description, "entities": entities, "crop_descriptions": crops}
    return f"Repeat: {json.dumps(said)}"


async def cropped(http: Client, *crops: Any, **body: Any) -> Answer:
    return await http.post(CROPS, {"image_b64": IMAGE, "crops": list(crops), **body})


# -- describe ---------------------------------------------------------------------------------------------------------


async def test_describe(http: Client, upstream: UpstreamThread) -> None:
    """The prompt and the image go out as they came, in one call, and its text is the description."""
    reply = await described(http)
    assert reply.status == 200
    assert reply.json.keys() == {"description", "model", "usage", "elapsed_ms"}
    assert (reply.json["description"], reply.json["model"]) == (SENTENCE, "b/ok")
    assert reply.json["usage"]["completion_tokens"] == 8
    assert isinstance(reply.json["elapsed_ms"], int)
    assert reply.headers["x-llmproxy-selected-model"] == "b/ok"
    text, image = parts_of(upstream)
    assert text == {"type": "text", "text": "What is it?"}
    assert image_of(image) == ("data:image/png;base64", encoded())


@pytest.mark.parametrize(
    ("model", "answered"),
    [("a/ok", "a/ok"), ("a__ok", "a/ok"), ("eyes", "a/ok"), ("llmproxy/see", "b/ok"), (None, "b/ok"), ("", "b/ok")],
)
@pytest.mark.parametrize("path", [DESCRIBE, CROPS])
async def test_any_model_can_be_asked(http: Client, path: str, model: str | None, answered: str) -> None:
    """A candidate, an alias, a pool, or the default of the configuration; the reply names who answered."""
    reply = await http.post(path, {"image_b64": IMAGE, "prompt": "?", "crops": [CUP], "model": model})
    assert (reply.status, reply.json["model"]) == (200, answered)


@pytest.mark.parametrize("path", [DESCRIBE, CROPS])
async def test_an_unknown_model(http: Client, path: str) -> None:
    """A name that stands for nothing is a 404, and nobody is asked."""
    reply = await http.post(path, {"image_b64": IMAGE, "crops": [], "model": "nobody/nothing"})
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")


async def test_what_is_sent_along(http: Client, upstream: UpstreamThread) -> None:
    """`max_tokens` and `extra_body` reach the model; the latter changes neither the messages nor the model."""
    extra = {"temperature": 0.5, "model": "a/embed", "messages": [], "stream": True}
    reply = await described(http, max_tokens=3, extra_body=extra)
    assert reply.json["description"] == "word0 word1 word2"
    [request] = upstream.requests
    assert (request.json["temperature"], request.json["max_tokens"], request.json["model"]) == (0.5, 3, "ok")
    assert "stream" not in request.json
    assert len(parts_of(upstream)) == 2


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
async def test_kinds_of_images(http: Client, upstream: UpstreamThread, kind: str) -> None:
    """Whatever the file is, it is sent on under its own type."""
    image = base64.b64encode(encoded(kind)).decode()
    assert (await described(http, image_b64=image)).status == 200
    assert image_of(parts_of(upstream)[1]) == (f"data:image/{kind.lower()};base64", encoded(kind))


@pytest.mark.parametrize(
    "written",
    [
        f"data:image/png;base64,{IMAGE}",
        f"data:image/jpeg;base64,{IMAGE}",
        base64.urlsafe_b64encode(encoded()).decode().rstrip("="),
        base64.encodebytes(encoded()).decode(),
    ],
)
async def test_spellings_of_base64(http: Client, upstream: UpstreamThread, written: str) -> None:
    """A data URL whatever it declares, base64 for URLs without padding, and base64 in lines are the same image."""
    assert (await described(http, image_b64=written)).status == 200
    assert image_of(parts_of(upstream)[1]) == ("data:image/png;base64", encoded())


@pytest.mark.parametrize(
    "image",
    [
        None,
        "",
        7,
        [],
        "not base64 at all",
        "ünïcode",
        "A",
        base64.b64encode(b"%PDF-1.7 no image").decode(),
        base64.b64encode(encoded()[:-30]).decode(),
        base64.b64encode(encoded("JPEG")[:200]).decode(),
        "http://127.0.0.1/x.png",
        "/etc/passwd",
    ],
)
@pytest.mark.parametrize("path", [DESCRIBE, CROPS])
async def test_a_bad_image(http: Client, upstream: UpstreamThread, path: str, image: Any) -> None:
    """What is no image, or not a whole one, is a 400 that names the field, and no model is called."""
    reply = await http.post(path, {"image_b64": image, "prompt": "?", "crops": []})
    assert (reply.status, reply.error["param"]) == (400, "image_b64")
    assert upstream.requests == []


async def test_an_image_of_too_many_pixels(http: Client) -> None:
    """A small file that unfolds to a huge image is refused by its header."""
    file = BytesIO()
    Image.new("1", (10_000, 5_000)).save(file, "PNG")
    reply = await described(http, image_b64=base64.b64encode(file.getvalue()).decode())
    assert (reply.status, reply.error["param"]) == (400, "image_b64")
    assert "pixels" in reply.error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (DESCRIBE, {"prompt": ""}, "prompt"),
        (DESCRIBE, {"prompt": ["a"]}, "prompt"),
        (DESCRIBE, {"max_tokens": 0}, "max_tokens"),
        (DESCRIBE, {"model": 7}, "model"),
        (DESCRIBE, {"extra_body": []}, "extra_body"),
        (DESCRIBE, {"extra_body": "a"}, "extra_body"),
        (DESCRIBE, {"response_format": "json"}, "response_format"),
        (CROPS, {"crops": None}, "crops"),
        (CROPS, {"crops": {}}, "crops"),
        (CROPS, {"crops": [CUP] * 51}, "crops"),
        (CROPS, {"crops": [CUP, "cup"]}, "crops.1"),
        (CROPS, {"max_crops": 21}, "max_crops"),
        (CROPS, {"max_crops": -1}, "max_crops"),
        (CROPS, {"max_crops": True}, "max_crops"),
        (CROPS, {"scene_prompt": "  "}, "scene_prompt"),
    ],
)
async def test_wrong_fields(http: Client, upstream: UpstreamThread, path: str, body: Json, param: str) -> None:
    """A wrong field is a 400 that names it, and no model is called."""
    reply = await http.post(path, {"image_b64": IMAGE, "crops": [], **body})
    assert (reply.status, reply.error["param"]) == (400, param)
    assert upstream.requests == []


async def test_schema_answers_are_returned_untouched(http: Client, upstream: UpstreamThread) -> None:
    """What a model writes under the client's own schema is the description, letter by letter, at both endpoints."""
    for reply in (await described(http, response_format=FORM), await cropped(http, CUP, response_format=FORM)):
        assert reply.json["description"] == json.dumps({"count": 3})
    assert (reply.json["entities"], reply.json["crop_descriptions"]) == (None, [])
    assert [request.json["response_format"] for request in upstream.requests] == [FORM, FORM]
    assert "JSON" not in upstream.requests[1].json["messages"][0]["content"][0]["text"]


async def test_an_answer_without_the_schema_is_none(http: Client) -> None:
    """The client's own schema is forced: prose is no answer to it."""
    reply = await described(http, model="a/prose", response_format=FORM)
    assert (reply.status, reply.error["code"]) == (502, "capability_unmet")


# -- crop-describe ----------------------------------------------------------------------------------------------------


async def test_crop_describe(http: Client, upstream: UpstreamThread) -> None:
    """One call with the scene and a sheet of one panel for each crop; each answer goes with what it is about."""
    dog = {"xyxy": [0, 0, 30, 30], "label": "dog"}
    asked = saying("a red cup", "a small dog")
    reply = await cropped(http, CUP, dog, scene_prompt=asked)
    assert reply.status == 200
    assert reply.json.keys() == {"description", "entities", "crop_descriptions", "model", "usage", "elapsed_ms"}
    text, image, sheet = parts_of(upstream)
    assert text["text"].startswith(f"{asked}\n")
    assert "\n1: cup (confidence 0.9, track_id 7)\n2: dog\n" in text["text"]
    assert image_of(image) == ("data:image/png;base64", encoded())
    kind, panels = image_of(sheet)
    assert kind == "data:image/jpeg;base64"
    assert Image.open(BytesIO(panels)).size == (2 * 336 + 6, 336 + 28)
    assert (reply.json["description"], reply.json["entities"]) == ("a kitchen", ["cup"])
    told = {"bbox": CUP["bbox"], "label": "cup", "confidence": 0.9, "track_id": 7}
    assert reply.json["crop_descriptions"] == [
        {"panel": 1, "crop": 0, **told, "description": "a red cup"},
        {"panel": 2, "crop": 1, "bbox": dog["xyxy"], "label": "dog", "description": "a small dog"},
    ]


@pytest.mark.parametrize(
    "sides", [None, [1, 2, 3], ["a", 1, 2, 3], [60, 10, 10, 60], [900, 900, 950, 950], [1e300, 0, -1e300, 5], {}]
)
async def test_invalid_boxes_are_skipped(http: Client, upstream: UpstreamThread, sides: Any) -> None:
    """A box that is none, or shows nothing, has no panel; the others keep their place in the list."""
    reply = await cropped(http, {"bbox": sides, "class": "ghost"}, CUP, scene_prompt=saying("a cup"))
    assert reply.status == 200
    text, _, sheet = parts_of(upstream)
    assert "ghost" not in text["text"]
    assert "\n1: cup" in text["text"]
    assert Image.open(BytesIO(image_of(sheet)[1])).size == (336, 336 + 28)
    assert [one["crop"] for one in reply.json["crop_descriptions"]] == [1]


@pytest.mark.parametrize(
    ("given", "most", "panels"), [(0, None, 0), (1, 0, 0), (3, 2, 2), (50, None, 20), (50, 20, 20), (2, 20, 2)]
)
async def test_how_many_crops_are_shown(
    http: Client, upstream: UpstreamThread, given: int, most: int | None, panels: int
) -> None:
    """The first `max_crops`, which is at most 20; without one there is no sheet."""
    crops = [{**CUP, "class": f"cup{number}"} for number in range(given)]
    assert (await cropped(http, *crops, max_crops=most)).status == 200
    parts = parts_of(upstream)
    assert len(parts) == (3 if panels else 2)
    named = [number for number in range(given) if f": cup{number} (" in parts[0]["text"]]
    assert named == list(range(panels))


@pytest.mark.parametrize(
    "said",
    [
        "A kitchen with a cup.",
        '{"description": "a kit',
        '{"description": 7, "crop_descriptions": ["a"]}',
        "{" * 5000,
        "[1, 2]",
        "a set {1, 2} of numbers",
    ],
)
async def test_an_answer_in_prose(http: Client, upstream: UpstreamThread, said: str) -> None:
    """Nobody forced a form: what a model says without it is the description, and it is asked once."""
    reply = await cropped(http, CUP, scene_prompt=f"Repeat: {said}", max_tokens=4000)
    assert reply.status == 200
    assert (reply.json["entities"], reply.json["crop_descriptions"]) == (None, [])
    assert reply.json["description"].startswith(said.split()[0])
    assert upstream.count() == 1


async def test_json_within_other_words(http: Client) -> None:
    """The form after some prose, and with more behind it, is read all the same."""
    said = saying("a cup").replace("Repeat: ", "Repeat: Here it is:\n```json\n") + "\n```"
    reply = await cropped(http, CUP, scene_prompt=said)
    assert reply.json["description"] == "a kitchen"
    assert [one["description"] for one in reply.json["crop_descriptions"]] == ["a cup"]


@pytest.mark.parametrize(("said", "told"), [(("a", "b", "c"), ["a", "b"]), (("a",), ["a"]), ((), [])])
async def test_more_or_fewer_descriptions_than_panels(http: Client, said: tuple[str, ...], told: list[str]) -> None:
    """Each panel has at most one, in their order; what is left over belongs to nobody."""
    reply = await cropped(http, CUP, CUP, scene_prompt=saying(*said, entities=None))
    assert [one["description"] for one in reply.json["crop_descriptions"]] == told
    assert reply.json["entities"] is None


async def test_labels_of_any_language(http: Client, upstream: UpstreamThread) -> None:
    """A label outside Latin-1, or over several lines, stands in the prompt on one line."""
    reply = await cropped(http, {**CUP, "class": "чашка\n 杯子"}, {"bbox": [0, 0, 20, 20], "class": None})
    assert reply.status == 200
    text = parts_of(upstream)[0]["text"]
    assert "\n1: чашка 杯子 (" in text
    assert "\n2: object\n" in text


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [DESCRIBE, CROPS])
@pytest.mark.parametrize(("status", "wait"), [(429, "7"), (503, "9")])
async def test_an_upstream_that_is_busy(http: Client, path: str, status: int, wait: str) -> None:
    """Its 429 or 503 stays that, with its Retry-After."""
    model = f"a/status-{status}+retry-after={wait}+tokens={len(path)}"
    reply = await http.post(path, {"image_b64": IMAGE, "prompt": "?", "crops": [], "model": model})
    assert reply.status == status
    assert 0 < int(reply.headers["Retry-After"]) <= int(wait)
    assert reply.error["attempts"][0]["status"] == status
    assert reply.headers["x-llmproxy-attempts"] == "1"


@pytest.mark.parametrize(
    ("path", "model"),
    [
        (DESCRIBE, "a/status-400+code=content_filter"),
        (CROPS, "a/status-400+code=content_filter"),
        (DESCRIBE, "a/content-filter"),
        (CROPS, "a/content-filter+prose"),
    ],
)
async def test_moderation(http: Client, path: str, model: str) -> None:
    """A refusal for its content, by a status or by a finish reason, is a 422 that says so."""
    reply = await http.post(path, {"image_b64": IMAGE, "prompt": "?", "crops": [], "model": model})
    assert (reply.status, reply.json["moderated"], reply.error["code"]) == (422, True, "moderated")
    assert "x-llmproxy-trail" in reply.headers


async def test_a_model_that_refuses_in_words(http: Client) -> None:
    """What it says is the description."""
    assert (await described(http, model="a/refusal")).json["description"] == "I cannot help with that."


@pytest.mark.parametrize(("model", "status"), [("a/status-500", 502), ("a/status-400", 400)])
async def test_other_failures(http: Client, model: str, status: int) -> None:
    """They are those of any call."""
    assert (await described(http, model=model)).status == status


async def test_another_candidate_takes_over(http: Client) -> None:
    """A request that names fallbacks is answered by the next one, and says so."""
    reply = await described(http, model="a/status-500+tokens=9", extra_body={"models": ["b/ok"]})
    assert (reply.status, reply.json["model"]) == (200, "b/ok")
    assert [outcome for _, outcome in reply.trail] == ["500", "ok"]


async def test_without_pillow(upstream: UpstreamThread, tmp_path: Path) -> None:
    """The server starts and chats without Pillow, and says what is missing where it is needed."""
    blocked = tmp_path / "blocked" / "PIL"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ModuleNotFoundError('No module named PIL', name='PIL')\n")
    config = {"providers": {"a": provider(upstream.url)}, "state": {"url": "memory"}}
    env = {"PYTHONPATH": f"{blocked.parent}:{ROOT}"}
    with serving(config, tmp_path / "home", "--no-local", env=env) as server:
        async with client_of(server) as client:
            assert (await client.chat("a/ok")).status == 200
            for path in (DESCRIBE, CROPS):
                reply = await client.post(path, {"image_b64": IMAGE, "crops": [CUP], "model": "a/ok"})
                assert (reply.status, reply.error["code"]) == (501, "not_installed")
                assert "pip install 'llmproxy[local]'" in reply.error["message"]


@pytest.mark.limit(180)
async def test_a_local_model(tmp_path: Path) -> None:
    """A real vision model of this machine is asked like any other, and keeps to a form that a client gives."""
    folder = build_vision_model(tmp_path / "sees")
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    settings["text_config"]["max_position_embeddings"] = 1024  # its tokenizer makes many of little text
    (folder / "config.json").write_text(json.dumps(settings), "utf-8")
    entry = {"name": "sees", "hf_repo_id": str(folder)}
    (tmp_path / "models.local.yaml").write_text(json.dumps({"models": [entry]}), "utf-8")
    config = {"local": {"models": []}, "state": {"url": "memory"}, "inference": {"vision_model": "local/sees"}}
    with serving(config, tmp_path) as server:
        async with client_of(server) as client:
            reply = await described(client, max_tokens=4)
            assert (reply.status, reply.json["model"]) == (200, "local/sees")
            assert reply.json["usage"]["completion_tokens"] <= 4
            reply = await cropped(client, CUP, scene_prompt="?", max_tokens=4)
            assert (reply.status, reply.json["model"]) == (200, "local/sees")
            assert (reply.json["entities"], reply.json["crop_descriptions"]) == (None, [])
            reply = await described(client, response_format=FORM, max_tokens=512)
            jsonschema_rs.validate(SCHEMA, json.loads(reply.json["description"]))
