"""The multipart forms of `/v1/audio/transcriptions` and `/v1/audio/translations`. Pure; runs in the server's process.

The body is held whole (its size is limited where it is read), so that a part is found by searching for its boundary
(RFC 2046, section 5.1.1; RFC 7578); the headers of a part are those of a mail, and Python's mail parser reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from typing import cast, get_args

from backends.base import SpeechRequest
from backends.speech.transcripts import RESPONSE_FORMATS, Granularity, ResponseFormat, Task, language_code
from llmproxy.core.errors import InvalidRequest, UnsupportedParameter

_MAX_PARTS = 32
_MAX_HEADER_BYTES = 4 * 1024
_SINGLE = frozenset({"file", "model", "language", "prompt", "response_format", "temperature", "stream"})
_GRANULARITIES = ("timestamp_granularities[]", "timestamp_granularities")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_PLAIN_ENCODINGS = ("", "7bit", "8bit", "binary")
_SUBTITLES: tuple[ResponseFormat, ...] = ("srt", "vtt")


@dataclass(frozen=True, slots=True)
class Upload:
    """One request for a transcript. `model` is empty where the form does not name it."""

    model: str
    audio: bytes
    filename: str
    request: SpeechRequest
    response_format: ResponseFormat
    stream: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form; `filename` is None where it is not a file."""

    name: str
    content: bytes
    filename: str | None = None

    @property
    def text(self) -> str:
        """The content as text; raises `InvalidRequest` when it is none."""
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{self.name} is not UTF-8", param=self.name) from error


def read_upload(pieces: Sequence[bytes], content_type: str, task: Task) -> Upload:
    """A form, from the pieces of its body and the header that names its boundary.

    Raises `InvalidRequest` for what is wrong everywhere, and `UnsupportedParameter` for a field that a local model does
    not honour, and another candidate may.
    """
    fields, granularities = _fields(b"".join(pieces), content_type)
    if "file" not in fields or not fields["file"].content:
        raise InvalidRequest("send the audio as a file in the field `file` of a multipart form", param="file")
    texts = {name: part.text for name, part in fields.items() if name != "file"}
    response_format = _response_format(texts.get("response_format", "json"))
    return Upload(
        model=texts.get("model", ""),
        audio=fields["file"].content,
        filename=fields["file"].filename or "",
        request=SpeechRequest(
            task=task,
            language=_language(texts.get("language", "")),
            prompt=texts.get("prompt") or None,
            temperature=_temperature(texts.get("temperature", "0")),
            timestamps=_timestamps(granularities, response_format),
        ),
        response_format=response_format,
        stream=_boolean("stream", texts.get("stream", "false")),
    )


def parts(body: bytes, content_type: str) -> Iterator[Part]:
    """The parts of a multipart form; raises `InvalidRequest` when it is not one, or is cut off."""
    delimiter = b"\r\n--" + _boundary(content_type)
    first = 0 if body.startswith(delimiter[2:]) else body.find(delimiter) + 2
    if first == 1:
        raise _malformed("its boundary does not occur")
    place = first + len(delimiter) - 2
    for _ in range(_MAX_PARTS + 1):
        if body.startswith(b"--", place):
            return
        line_end = body.find(b"\r\n", place)
        if line_end < 0 or body[place:line_end].strip(b" \t"):
            raise _malformed("there is text behind a boundary")
        end = body.find(delimiter, line_end)
        if end < 0:
            raise _malformed("it is cut off")
        yield _part(body, line_end, end)
        place = end + len(delimiter)
    raise _malformed(f"it has more than {_MAX_PARTS} parts")


def _part(body: bytes, begin: int, end: int) -> Part:
    """The part between the line end behind one boundary and the next boundary."""
    blank = body.find(b"\r\n\r\n", begin, min(end, begin + _MAX_HEADER_BYTES))
    if blank < 0:
        raise _malformed("a part has no headers, or too many")
    headers = HeaderParser().parsestr(body[begin + 2 : blank].decode("utf-8", "replace"))
    if headers.get("content-transfer-encoding", "").strip().lower() not in _PLAIN_ENCODINGS:
        raise _malformed("a part has a content-transfer-encoding")
    name = headers.get_param("name", header="content-disposition")
    if headers.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise _malformed("a part has no name")
    return Part(name, body[blank + 4 : end], headers.get_filename())


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_boundary() or ""
    if header.get_content_type() != "multipart/form-data" or not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise _malformed("the content type must be multipart/form-data with a boundary")
    return boundary.encode()


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"the multipart form cannot be read: {why}")


def _fields(body: bytes, content_type: str) -> tuple[dict[str, Part], list[str]]:
    """The fields that occur once, and the values of `timestamp_granularities[]`."""
    fields: dict[str, Part] = {}
    granularities: list[str] = []
    for part in parts(body, content_type):
        if part.name in _GRANULARITIES:
            granularities.append(part.text)
        elif part.name not in _SINGLE:
            raise UnsupportedParameter(f"{part.name} is not supported by a local model", param=part.name)
        elif part.name in fields:
            raise InvalidRequest(f"{part.name} is given twice", param=part.name)
        else:
            fields[part.name] = part
    return fields, granularities


def _response_format(value: str) -> ResponseFormat:
    if value == "diarized_json":
        raise UnsupportedParameter("a local model does not tell speakers apart", param="response_format")
    if value not in RESPONSE_FORMATS:
        raise InvalidRequest(f"response_format must be one of {', '.join(RESPONSE_FORMATS)}", param="response_format")
    return value


def _language(value: str) -> str | None:
    if not value.strip():
        return None
    if (code := language_code(value)) is None:
        raise InvalidRequest("language must be an ISO 639-1 code (en) or an English name (english)", param="language")
    return code


def _temperature(value: str) -> float:
    try:
        temperature = float(value)
    except ValueError:
        temperature = math.nan
    if not 0.0 <= temperature <= 1.0:
        raise InvalidRequest("temperature must be a number from 0 to 1", param="temperature")
    return temperature


def _timestamps(values: Sequence[str], response_format: ResponseFormat) -> frozenset[Granularity]:
    name = _GRANULARITIES[0]
    if values and response_format != "verbose_json":
        raise InvalidRequest(f"{name} needs the response_format verbose_json", param=name)
    if any(value not in get_args(Granularity) for value in values):
        raise InvalidRequest(f"{name} must be segment or word", param=name)
    if values:
        return frozenset(cast(Sequence[Granularity], values))
    return frozenset({"segment"} if response_format in (*_SUBTITLES, "verbose_json") else ())


def _boolean(name: str, value: str) -> bool:
    if (meant := _BOOLEANS.get(value.lower())) is None:
        raise InvalidRequest(f"{name} must be true or false", param=name)
    return meant
