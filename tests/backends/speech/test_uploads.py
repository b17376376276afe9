"""The forms of the audio endpoints are read whole or refused by name."""

from __future__ import annotations

import itertools
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backends.base import Segment, SpeechRequest, Transcript, Word
from backends.speech.transcripts import Task, render
from backends.speech.uploads import Upload, parts, read_upload
from llmproxy.core.errors import InvalidRequest, UnsupportedParameter

AUDIO = b"RIFF\r\n\r\n--\x00\xff audio \r\n"


def form(data: dict[str, Any], audio: bytes | None = AUDIO, filename: str = "a.wav") -> tuple[bytes, str]:
    """A form as browsers and curl write it, and its content type; a list is a field that is repeated."""
    written = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
        for name, values in data.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    if audio is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: audio/wav\r\n\r\n'
        written.append(head.encode() + audio)
    return multipart(*written), "multipart/form-data; boundary=b"


def upload(task: Task = "transcribe", **data: Any) -> Upload:
    """The upload of a form with these fields; `_` stands for the brackets of a list."""
    body, content_type = form({name.replace("_list", "[]"): value for name, value in data.items()})
    return read_upload([body], content_type, task)


def multipart(*written: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """A body of parts that are written by hand."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in written) + end


def test_the_least() -> None:
    """A file and a model are enough; the rest is as OpenAI has it."""
    assert upload(model="local/whisper") == Upload(
        model="local/whisper",
        audio=AUDIO,
        filename="a.wav",
        request=SpeechRequest(task="transcribe"),
        response_format="json",
        stream=False,
    )


def test_all_fields() -> None:
    """Each field comes where it belongs."""
    read = upload(
        "translate",
        model="m",
        language="German",
        prompt="Grüße, ",
        response_format="verbose_json",
        temperature="0.4",
        stream="true",
        timestamp_granularities_list=["word", "segment"],
    )
    assert read.request == SpeechRequest("translate", "de", "Grüße, ", 0.4, frozenset({"word", "segment"}))
    assert (read.response_format, read.stream) == ("verbose_json", True)


@pytest.mark.parametrize(
    ("response_format", "timestamps"),
    [("json", set()), ("text", set()), ("srt", {"segment"}), ("vtt", {"segment"}), ("verbose_json", {"segment"})],
)
def test_what_needs_times(response_format: str, timestamps: set[str]) -> None:
    """Subtitles and `verbose_json` need the times of segments, without being asked."""
    assert upload(response_format=response_format).request.timestamps == timestamps


@pytest.mark.parametrize("name", ["timestamp_granularities[]", "timestamp_granularities"])
def test_both_names_of_a_list(name: str) -> None:
    """Some clients leave out the brackets of a list."""
    body, content_type = form({name: ["word"], "response_format": "verbose_json"})
    assert read_upload([body], content_type, "transcribe").request.timestamps == {"word"}


def test_empty_fields() -> None:
    """A language or prompt that is left empty is one that was not given."""
    read = upload(language="", prompt="")
    assert (read.request.language, read.request.prompt, read.model) == (None, None, "")


def test_without_the_name_of_the_model() -> None:
    """The pieces between which the name of the model was cut out are a form whose model is empty."""
    body, content_type = form({"model": "local/whisper", "prompt": "x"})
    read = read_upload(body.split(b"local/whisper"), content_type, "transcribe")
    assert (read.model, read.request.prompt, read.audio) == ("", "x", AUDIO)


@settings(deadline=None)
@given(audio=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 900), max_size=5), prompt=st.text())
def test_any_bytes(audio: bytes, cuts: list[int], prompt: str) -> None:
    """Any audio and text come back as they were sent, into whatever pieces the body was cut."""
    body, content_type = form({"model": "m", "prompt": prompt}, audio)
    assume(body.count(b"\r\n--b") == 3)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[begin:end] for begin, end in itertools.pairwise(edges)]
    read = read_upload(pieces, content_type, "transcribe")
    assert read.audio == audio
    assert read.request.prompt == (prompt or None)


@pytest.mark.parametrize("filename", ["a.wav", "Größe 日本.m4a", 'with "quotes".mp3', ""])
async def test_another_client(filename: str) -> None:
    """aiohttp writes its forms in another way; they are read all the same."""
    data = aiohttp.FormData(default_to_multipart=True)
    data.add_field("model", "m")
    data.add_field("file", AUDIO, filename=filename, content_type="audio/wav")
    payload = data()
    body = await payload.as_bytes()
    read = read_upload([body], payload.headers["content-type"], "transcribe")
    assert (read.model, read.audio) == ("m", AUDIO)


async def test_the_sdk() -> None:
    """OpenAI's SDK writes forms that are read, and reads the answers that are rendered."""
    uploads: list[Upload] = []

    async def answer(request: web.Request) -> web.Response:
        read = read_upload([await request.read()], request.headers["content-type"], "transcribe")
        uploads.append(read)
        transcript = Transcript("Hello.", "en", 1.2, (Segment(" Hello.", 0.0, 1.2, words=(Word("Hello.", 0.1, 1.2),)),))
        rendered = render(transcript, read.response_format, timestamps=read.request.timestamps)
        return web.Response(body=rendered.body, headers={"content-type": rendered.content_type})

    app = web.Application()
    app.router.add_post("/audio/transcriptions", answer)
    async with TestServer(app) as server, openai.AsyncOpenAI(base_url=str(server.make_url("/")), api_key="x") as client:
        create = client.audio.transcriptions.create
        file = ("Größe 日本.m4a", AUDIO)
        verbose = await create(
            model="m", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"],
            language="de", temperature=0.2, prompt="before",
        )  # fmt: skip
        subtitles = await create(model="m", file=file, response_format="srt")
    assert uploads[0].request == SpeechRequest("transcribe", "de", "before", 0.2, frozenset({"word", "segment"}))
    assert (uploads[0].audio, uploads[0].filename) == (AUDIO, "Größe 日本.m4a")
    assert verbose.words is not None
    assert [(word.word, word.start, word.end) for word in verbose.words] == [("Hello.", 0.1, 1.2)]
    assert subtitles == "1\n00:00:00,000 --> 00:00:01,200\nHello.\n\n"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"response_format": ""}, "response_format"),
        ({"temperature": "1.1"}, "temperature"),
        ({"temperature": "-0.1"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": ""}, "temperature"),
        ({"language": "xx"}, "language"),
        ({"language": "en-US"}, "language"),
        ({"stream": "maybe"}, "stream"),
        ({"timestamp_granularities_list": "word"}, "timestamp_granularities[]"),
        ({"timestamp_granularities_list": "word", "response_format": "srt"}, "timestamp_granularities[]"),
        ({"timestamp_granularities_list": "page", "response_format": "verbose_json"}, "timestamp_granularities[]"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"model": ["a", "b"]}, "model"),
    ],
)
def test_wrong_values(fields: dict[str, Any], param: str) -> None:
    """A wrong value is told by the name of its field."""
    with pytest.raises(InvalidRequest) as caught:
        upload(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"include_list": "logprobs"}, "include[]"),
        ({"chunking_strategy": "auto"}, "chunking_strategy"),
        ({"anything_new": ""}, "anything_new"),
        ({"response_format": "diarized_json"}, "response_format"),
    ],
)
def test_what_is_not_honoured(fields: dict[str, Any], param: str) -> None:
    """A field that a local model does not honour is refused, so that another candidate is asked."""
    with pytest.raises(UnsupportedParameter) as caught:
        upload(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize("audio", [b"", None])
def test_no_file(audio: bytes | None) -> None:
    """A form without audio is refused."""
    body, content_type = form({"model": "m"}, b"") if audio == b"" else (multipart(), "multipart/form-data; boundary=b")
    with pytest.raises(InvalidRequest) as caught:
        read_upload([body], content_type, "transcribe")
    assert caught.value.param == "file"


def test_text_that_is_none() -> None:
    """A text field must be UTF-8."""
    body = multipart(
        b'content-disposition: form-data; name="prompt"\r\n\r\n\xff',
        b'content-disposition: form-data; name="file"; filename="a"\r\n\r\nx',
    )
    with pytest.raises(InvalidRequest) as caught:
        read_upload([body], "multipart/form-data; boundary=b", "transcribe")
    assert caught.value.param == "prompt"


def test_odd_but_right() -> None:
    """A preamble, spaces behind a boundary, names without quotes, empty parts and an epilogue are all in the RFC."""
    body = (
        b"preamble\r\n--b  \r\nContent-Disposition: form-data; name=model\r\n\r\n\r\n"
        b'--b\r\nContent-Type: audio/wav\r\nCONTENT-DISPOSITION: form-data; filename="x;y.wav"; name="file"\r\n\r\n'
        b"\r\n\r\n--b--epilogue"
    )
    model, file = parts(body, 'multipart/form-data; boundary="b"; charset=utf-8')
    assert (model.name, model.content, model.filename) == ("model", b"", None)
    assert (file.name, file.content, file.filename) == ("file", b"\r\n", "x;y.wav")


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (multipart(b"x"), "multipart/form-data; boundary=b", "no headers"),
        (multipart(b"a: b\r\n\r\nx"), "multipart/form-data; boundary=b", "no name"),
        (multipart(b"content-disposition: form-data\r\n\r\nx"), "multipart/form-data; boundary=b", "no name"),
        (multipart(b'content-disposition: attachment; name="a"\r\n\r\n'), "multipart/form-data; boundary=b", "no name"),
        (multipart(b"a: " + b"x" * 9_000 + b"\r\n\r\n"), "multipart/form-data; boundary=b", "too many"),
        (
            multipart(b'content-disposition: form-data; name="a"\r\ncontent-transfer-encoding: base64\r\n\r\neA=='),
            "multipart/form-data; boundary=b",
            "content-transfer-encoding",
        ),
        (multipart(b'content-disposition: form-data; name="a"\r\n\r\nx', end=b""), "multipart/form-data; boundary=b",
         "cut off"),
        (multipart(b'content-disposition: form-data; name="a"\r\n\r\nx', end=b"--bx"),
         "multipart/form-data; boundary=b", "behind a boundary"),
        (b"", "multipart/form-data; boundary=b", "does not occur"),
        (b"--c\r\n", "multipart/form-data; boundary=b", "does not occur"),
        (b"--b", "multipart/form-data; boundary=b", "behind a boundary"),
        (multipart(), "multipart/form-data", "content type"),
        (multipart(), "multipart/form-data; boundary=", "content type"),
        (multipart(), "multipart/form-data; boundary=" + "b" * 71, "content type"),
        (multipart(), "multipart/form-data; boundary=bö", "content type"),
        (multipart(), "application/json; boundary=b", "content type"),
        (multipart(), "", "content type"),
        (multipart(*[b'content-disposition: form-data; name="a"\r\n\r\n'] * 33), "multipart/form-data; boundary=b",
         "more than 32"),
    ],
)  # fmt: skip
def test_no_form(body: bytes, content_type: str, says: str) -> None:
    """What is no multipart form, or not all of one, is refused with what is wrong with it."""
    with pytest.raises(InvalidRequest, match=says):
        list(parts(body, content_type))


@settings(deadline=None)
@given(st.binary(max_size=200), st.text(max_size=80))
def test_any_body(body: bytes, content_type: str) -> None:
    """Whatever arrives is read or refused."""
    for sent, header in ((body, content_type), (b"--b\r\n" + body + b"\r\n--b--", "multipart/form-data; boundary=b")):
        try:
            read = read_upload([sent], header, "transcribe")
        except (InvalidRequest, UnsupportedParameter):
            continue
        assert read.audio
