"""The images of a chat request as checked bytes: from `data:` URLs, and from the web only where the policy allows it.

What a client sends is never opened as a file, and nothing of what was fetched gets into an error. Bytes are an image
when they decode as one, whatever a header says. Runs in the server; Pillow is imported with the first image.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import NamedTuple, TypeVar

from aiohttp.abc import AbstractResolver
from yarl import URL

from backends.netguard import Downloader, Reach, Unreadable
from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject

# The names of Pillow's plugins: each file is given to its own, never to the dozens of others.
_PLUGINS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"}
_ALIASES = {"image/jpg": "image/jpeg", "image/x-ms-bmp": "image/bmp"}
_KINDS = "a PNG, JPEG, WebP, GIF or BMP image"
_DATA_HEAD = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64", re.IGNORECASE)
_DECODES_AT_ONCE = 2  # each takes up to 4 bytes a pixel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """What is read. `max_images`, `max_total_bytes` are for one request, `max_bytes`, `max_pixels` for one image.

    `reach` is empty by default: `data:` URLs only, and no network at all.
    """

    reach: Reach = field(default_factory=Reach)
    max_images: int = 8
    max_bytes: int = 10 * 1024 * 1024
    max_total_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 40_000_000


class Part(NamedTuple):
    """An `image_url` part: its path in the request, and its URL (whatever the client put there)."""

    param: str
    url: object


class Inline(NamedTuple):
    """A `data:` URL: what it says it is, and base64."""

    declared: str
    text: str


def image_parts(messages: Sequence[JsonObject]) -> Iterator[Part]:
    """The `image_url` parts of OpenAI chat messages, in their order."""
    for place, message in enumerate(messages):
        content = message.get("content")
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if isinstance(part, dict) and part.get("type") == "image_url":
                value = part.get("image_url")
                url = value.get("url") if isinstance(value, dict) else None
                yield Part(f"messages.{place}.content.{index}.image_url", url)


class ImageReader:
    """Reads within `policy`. `on_rejected` is told the model and the reason of each refusal, one word of a fixed set:

    `malformed`, `scheme`, `host`, `address`, `redirect`, `unreachable`, `timeout`, `status`, `too_many`, `too_large`,
    `too_many_pixels`, `type`, `damaged`.
    """

    def __init__(
        self,
        policy: ImagePolicy,
        on_rejected: Callable[[str, str], None] = lambda _model, _reason: None,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._on_rejected = on_rejected
        self._downloader = Downloader(policy.reach, resolver=resolver, ssl_context=ssl_context)
        # Its own threads, so that a request that is given up while it decodes still counts.
        self._decoders = ThreadPoolExecutor(_DECODES_AT_ONCE, "images")

    async def read(self, messages: Sequence[JsonObject], model: str = "") -> list[bytes]:
        """The image of each `image_url` part, encoded as it came; raises `InvalidRequest` that names the part.

        All URLs are checked before the first connection is made.
        """
        parts = list(image_parts(messages))
        sources: list[Inline | URL] = []
        for place, part in enumerate(parts):
            with self._naming(part, model):
                if place == self._policy.max_images:
                    raise Unreadable("too_many", f"a request has at most {self._policy.max_images} images")
                sources.append(self._source(part.url))
        images: list[bytes] = []
        left_bytes = self._policy.max_total_bytes
        for part, source in zip(parts, sources, strict=True):
            with self._naming(part, model):
                images.append(await self._read(source, min(left_bytes, self._policy.max_bytes)))
            left_bytes -= len(images[-1])
        return images

    def _source(self, url: object) -> Inline | URL:
        if not isinstance(url, str):
            raise Unreadable("malformed", "image_url.url must be a string")
        return _inline(url) if url[:5].lower() == "data:" else self._downloader.check(url)

    async def _read(self, source: Inline | URL, max_bytes: int) -> bytes:
        if isinstance(source, URL):
            data, declared = await self._downloader.get(source, max_bytes), None
        else:
            data, declared = await self._in_thread(_decode_base64, source.text, max_bytes), source.declared
        await self._in_thread(check_image, data, self._policy.max_pixels, declared)
        return data

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *arguments)

    @contextmanager
    def _naming(self, part: Part, model: str) -> Iterator[None]:
        try:
            yield
        except Unreadable as error:
            self._on_rejected(model, error.reason)
            raise InvalidRequest(f"{part.param}: {error}", param=part.param) from error


def check_image(data: bytes, max_pixels: int, declared: str | None = None) -> None:
    """Raises `Unreadable` unless `data` is a whole image of an accepted kind, of the `declared` one if that is given.

    Its size is taken from its header and checked before a pixel is decoded.
    """
    kind = sniff(data)
    if kind is None:
        raise Unreadable("type", f"this is not {_KINDS}")
    if declared is not None and declared != kind:
        raise Unreadable("type", f"declared as {declared}, but {kind}")
    from PIL import Image

    too_many_pixels = Unreadable("too_many_pixels", f"it has more than {max_pixels} pixels")
    try:
        with Image.open(BytesIO(data), formats=[_PLUGINS[kind]]) as image:
            if image.width * image.height > max_pixels:
                raise too_many_pixels
            image.verify()
        with Image.open(BytesIO(data), formats=[_PLUGINS[kind]]) as image:
            image.draft(None, (1, 1))  # of a JPEG all bytes are read, but only every 64th pixel is made
            image.load()
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels from error
    except Exception as error:  # decoders raise whatever they like, about what a client sent
        raise Unreadable("damaged", "the image is damaged or not complete") from error


def sniff(data: bytes) -> str | None:
    """The MIME type of an image by its first bytes, if it is an accepted one."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/bmp" if data.startswith(b"BM") else None


def _inline(url: str) -> Inline:
    head, comma, text = url.partition(",")
    found = _DATA_HEAD.fullmatch(head)
    if found is None or not comma:
        raise Unreadable("malformed", "a data: URL must be data:image/…;base64,…")
    declared = found[1].lower()
    declared = _ALIASES.get(declared, declared)
    if declared not in _PLUGINS:
        raise Unreadable("type", f"a data: URL must declare {_KINDS}")
    return Inline(declared, text)


def _decode_base64(text: str, max_bytes: int) -> bytes:
    if len(text) > 4 * ((max_bytes + 2) // 3):
        raise Unreadable("too_large", f"it has more than {max_bytes} bytes")
    try:
        if len(text) % 4 or text.endswith("==="):  # the strict mode of some Python versions lets these through
            raise ValueError("wrong padding")
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:  # binascii.Error is one, and text outside ASCII raises another
        raise Unreadable("malformed", "the data is not base64") from error
    if len(data) > max_bytes:
        raise Unreadable("too_large", f"it has more than {max_bytes} bytes")
    return data
