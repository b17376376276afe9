"""Images of requests: what is read, and that nothing else can be reached through them.

The servers are real, speak TLS with a certificate made on the spot, and count the connections they accept: "refused"
means that there was none.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from PIL import Image, PngImagePlugin

from backends.images import ImagePolicy, ImageReader, sniff
from backends.netguard import Reach, is_public
from llmproxy.core.errors import InvalidRequest

ROOT = Path(__file__).parents[2]
FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF", "image/bmp": "BMP"}
SECRET = "account-number-4711"
ANY_HOST = ("*:*",)
Json = dict[str, Any]
Answer = Callable[[str], Iterable[bytes]]


# -- images and messages ------------------------------------------------------------------------------------------


def encoded(kind: str = "image/png", size: tuple[int, int] = (32, 24), mode: str = "RGB") -> bytes:
    """An image with something in it, so that it is more than a header."""
    made = Image.linear_gradient("L").resize(size).convert(mode)
    out = BytesIO()
    made.save(out, FORMATS[kind])
    return out.getvalue()


def data_url(data: bytes, declared: str = "image/png") -> str:
    return f"data:{declared};base64,{base64.b64encode(data).decode()}"


def asking(*urls: object) -> list[Json]:
    """A user message with some text and then the images."""
    parts: list[Json] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": [{"type": "text", "text": "?"}, *parts]},
    ]


class Refusals(NamedTuple):
    """A reader, and the reasons it told."""

    reader: ImageReader
    reasons: list[str]

    async def reason(self, *urls: object) -> str:
        """Why the last of `urls` is refused, checked to be told alike to the client and to the metrics."""
        place = len(urls)
        with pytest.raises(InvalidRequest) as caught:
            await self.reader.read(asking(*urls))
        assert caught.value.status == 400
        assert caught.value.param == f"messages.1.content.{place}.image_url"
        assert caught.value.message.startswith(f"{caught.value.param}: ")
        assert SECRET not in caught.value.message
        assert len(self.reasons) == 1
        return self.reasons.pop()


def reader(
    *,
    hosts: Sequence[str] = (),
    servers: Sequence[HttpsServer] = (),
    resolver: AbstractResolver | None = None,
    trust: ssl.SSLContext | None = None,
    timeout_s: float = 5.0,
    **limits: Any,
) -> Refusals:
    """A reader that reaches `hosts`, and of the addresses that are not public only those of `servers`."""
    reasons: list[str] = []
    reach = Reach(hosts, frozenset(server.address for server in servers), timeout_s=timeout_s)
    policy = ImagePolicy(reach, **limits)
    return Refusals(
        ImageReader(policy, lambda _, reason: reasons.append(reason), resolver=resolver, ssl_context=trust), reasons
    )


# -- servers and names --------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    """A key, and a certificate that is trusted by `trust` only."""

    pem: Path
    key: Path

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.pem))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for images.test and all loopback addresses that tests use."""
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    names = "DNS:images.test,DNS:*.images.test,DNS:localhost,IP:127.0.0.1,IP:127.0.0.2,IP:::1,IP:::ffff:127.0.0.1"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=images.test", "-addext", f"subjectAltName={names}",
         "-keyout", str(made.key), "-out", str(made.pem)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return made


class HttpsServer:
    """Answers each path as `answer` says, one connection after the other; `accepted` counts TCP connections."""

    def __init__(self, certificate: Certificate, answer: Answer, host: str, port: int) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.pem, certificate.key)
        self._answer = answer
        self._listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.port = self.address[1]
        self.accepted = 0
        self.sent_bytes = 0
        self.requests: list[str] = []
        self._thread.start()

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join(5)
            assert not self._thread.is_alive()
            self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.accepted += 1
            connection.settimeout(5)
            try:
                self._serve(connection)
            except OSError:  # the client hung up, or did not like the certificate
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        with self._context.wrap_socket(connection, server_side=True) as channel:
            request = b""
            while b"\r\n\r\n" not in request:
                request += channel.recv(4096)
            self.requests.append(request.decode())
            for piece in self._answer(request.split()[1].decode()):
                channel.sendall(piece)
                self.sent_bytes += len(piece)


Serve = Callable[..., HttpsServer]


@pytest.fixture
def serve(certificate: Certificate) -> Iterator[Serve]:
    """Starts servers, and ends them with the test."""
    running: list[HttpsServer] = []

    def start(answer: Answer | bytes, host: str = "127.0.0.1", port: int = 0) -> HttpsServer:
        answering = answer if callable(answer) else lambda _path: [answer]
        running.append(HttpsServer(certificate, answering, host, port))
        return running[-1]

    yield start
    for server in running:
        server.close()


def ok(body: bytes, kind: str = "image/png") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def redirect(location: str, *headers: str) -> bytes:
    lines = ["HTTP/1.1 302 Found", f"Location: {location}", "Content-Length: 0", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


class Names(AbstractResolver):
    """Answers for every name; each question takes the next answer, and the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> Any:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in answer
        ]

    async def close(self) -> None:
        pass


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    begin_s = time.monotonic()
    yield
    assert time.monotonic() - begin_s < limit_s


# -- data: URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
async def test_images_in_the_request(kind: str) -> None:
    """An image in a data: URL is read as it is, whatever its kind, in upper or lower case."""
    data = encoded(kind)
    url = data_url(data, kind)
    assert sniff(data) == kind
    assert await reader().reader.read(asking(url, "DATA:" + url[5:].replace("image/", "Image/", 1))) == [data, data]


async def test_order_and_places() -> None:
    """Images come in the order of their parts, over all messages; other parts and plain text have none."""
    images = [encoded(size=(8 + place, 8)) for place in range(3)]
    messages = [*asking(data_url(images[0]), data_url(images[1])), *asking(data_url(images[2]))]
    assert await reader().reader.read(messages) == images
    assert await reader().reader.read([{"role": "user", "content": "text"}, {"role": "assistant"}]) == []


async def test_other_names_of_kinds() -> None:
    """image/jpg is a common name of image/jpeg."""
    data = encoded("image/jpeg")
    assert await reader().reader.read(asking(data_url(data, "image/jpg"))) == [data]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
async def test_modes(mode: str) -> None:
    """Every kind of pixel that PNG knows is read."""
    data = encoded(mode=mode)
    assert await reader().reader.read(asking(data_url(data))) == [data]


async def test_only_the_first_frame_counts() -> None:
    """A GIF with several frames is read."""
    out = BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert await reader().reader.read(asking(data_url(out.getvalue(), "image/gif"))) == [out.getvalue()]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (None, "malformed"),
        (7, "malformed"),
        ("", "scheme"),
        ("data:", "malformed"),
        ("data:image/png;base64", "malformed"),
        ("data:image/png,abc", "malformed"),
        ("data:;base64,AAAA", "malformed"),
        ("data:image/png;charset=utf-8;base64,AAAA", "malformed"),
        ("data:text/html;base64,AAAA", "type"),
        ("data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=", "type"),
        ("data:image/tiff;base64,SUkqAA==", "type"),
        ("data:image/png;base64,", "type"),
        ("data:image/png;base64,AAAA", "type"),
        ("data:image/png;base64,AAA", "malformed"),
        ("data:image/png;base64,AA\nAA", "malformed"),
        ("data:image/png;base64,AAAA====", "malformed"),
        ("data:image/png;base64,AA-_", "malformed"),
        ("data:image/png;base64,ÄÄÄÄ", "malformed"),
    ],
)
async def test_what_is_no_image_url(url: object, reason: str) -> None:
    """A URL of the wrong form is refused with the part and the reason."""
    assert await reader(hosts=ANY_HOST).reason(url) == reason


@pytest.mark.parametrize("kind", FORMATS)
async def test_the_declared_kind_must_fit(kind: str) -> None:
    """Bytes of one kind under the name of another are refused."""
    other = "image/png" if kind != "image/png" else "image/webp"
    assert await reader().reason(data_url(encoded(kind), other)) == "type"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
async def test_images_cut_off(kind: str, share: float) -> None:
    """An image whose end is missing is refused."""
    data = encoded(kind, (120, 90))
    assert await reader().reason(data_url(data[: int(len(data) * share)], kind)) == "damaged"


async def test_broken_checksums() -> None:
    """A PNG with one bit turned over is refused."""
    data = bytearray(encoded(size=(64, 64)))
    data[len(data) // 2] ^= 1
    assert await reader().reason(data_url(bytes(data))) == "damaged"


@pytest.mark.parametrize(
    "text",
    ["<svg xmlns='http://www.w3.org/2000/svg'/>", "<?xml version='1.0'?><svg/>", "<!DOCTYPE html><html>", "%!PS-Adobe"],
)
async def test_text_is_no_image(text: str) -> None:
    """SVG, HTML and PostScript are refused by their bytes, although they are declared as an image."""
    assert await reader().reason(data_url(f"{text}{SECRET}".encode())) == "type"


def test_nothing_is_imported_before_it_is_needed() -> None:
    """A server without local models needs neither Pillow nor torch."""
    code = "import sys, backends.images; print({'PIL', 'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# -- sizes --------------------------------------------------------------------------------------------------------


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_bomb(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def bmp_bomb() -> bytes:
    data = bytearray(encoded("image/bmp"))
    data[18:26] = struct.pack("<ii", 50_000, 50_000)
    return bytes(data)


def gif_bomb() -> bytes:
    data = bytearray(encoded("image/gif"))
    data[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(data)


def webp_bomb() -> bytes:
    sides = (16_382).to_bytes(3, "little") * 2
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides + encoded("image/webp")[12:]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg_bomb() -> bytes:
    data = encoded("image/jpeg")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", 50_000, 50_000) + data[frame + 4 :]


@pytest.mark.parametrize(
    ("bomb", "kind"),
    [
        (png_bomb(50_000, 50_000), "image/png"),
        (png_bomb(12_000, 8_000), "image/png"),
        (png_bomb(2**31 - 1, 2**31 - 1), "image/png"),
        (bmp_bomb(), "image/bmp"),
        (gif_bomb(), "image/gif"),
        (webp_bomb(), "image/webp"),
        (jpeg_bomb(), "image/jpeg"),
    ],
    ids=["png", "png of 96 megapixels", "png of 4 exapixels", "bmp", "gif", "webp", "jpeg"],
)
async def test_bombs(bomb: bytes, kind: str) -> None:
    """A small file that claims a huge size is refused by its header: at once, before any pixel is made."""
    assert len(bomb) < 20_000
    with within(1.0):
        assert await reader().reason(data_url(bomb, kind)) == "too_many_pixels"


async def test_the_limit_of_pixels() -> None:
    """An image of exactly as many pixels as allowed is read, one with a row more is not."""
    refusals = reader(max_pixels=50 * 40)
    assert len(await refusals.reader.read(asking(data_url(encoded(size=(50, 40)))))) == 1
    assert await refusals.reason(data_url(encoded(size=(50, 41)))) == "too_many_pixels"


async def test_text_that_unpacks_to_much() -> None:
    """A PNG whose comment unpacks to a hundred megabytes is refused and not unpacked."""
    made = PngImagePlugin.PngInfo()
    made.add_text("Comment", "x" * 100_000_000, zip=True)
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG", pnginfo=made)
    assert len(out.getvalue()) < 200_000
    with within(1.0):
        assert await reader().reason(data_url(out.getvalue())) == "damaged"


async def test_too_many_images() -> None:
    """One image more than allowed is refused, and none is read."""
    url = data_url(encoded())
    assert len(await reader(max_images=2).reader.read(asking(url, url))) == 2
    assert await reader(max_images=2).reason(url, url, url) == "too_many"


async def test_too_many_bytes() -> None:
    """An image with a byte more than allowed is refused, and so is the one that is too much for the request."""
    data = encoded(size=(100, 100))
    url = data_url(data)
    assert await reader(max_bytes=len(data)).reader.read(asking(url)) == [data]
    for less in (1, 2, 3, 40):
        assert await reader(max_bytes=len(data) - less).reason(url) == "too_large"
    assert len(await reader(max_total_bytes=2 * len(data)).reader.read(asking(url, url))) == 2
    assert await reader(max_total_bytes=2 * len(data) - 1).reason(url, url) == "too_large"


# -- where images may come from -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "/etc/passwd",
        "etc/passwd",
        "~/.ssh/id_rsa",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "file://localhost/etc/passwd",
        "C:\\secrets.png",
        "\\\\host\\share\\a.png",
        "//images.test/a.png",
        "http://images.test/a.png",
        "ftp://images.test/a.png",
        "gopher://images.test/a.png",
        "javascript:alert(1)",
        "blob:https://images.test/1",
    ],
)
async def test_other_schemes(url: str) -> None:
    """Files, plain http and all other schemes are refused, even where every host is allowed."""
    assert await reader(hosts=ANY_HOST).reason(url) == "scheme"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https:///a.png", "malformed"),
        ("https://", "malformed"),
        ("https:a.png", "malformed"),
        ("https://images.test:99999/a.png", "malformed"),
        ("https://[::1/a.png", "malformed"),
        ("https://images.test/" + "a" * 9000, "malformed"),
        ("https://user@images.test/a.png", "host"),
        ("https://user:password@images.test/a.png", "host"),
    ],
)
async def test_odd_urls(url: str, reason: str) -> None:
    """A URL without a host, with a user, or that cannot be parsed is refused."""
    assert await reader(hosts=ANY_HOST).reason(url) == reason


async def test_no_network_by_default(serve: Serve, certificate: Certificate) -> None:
    """Without a list of hosts nothing is downloaded, and no name is looked up."""
    server, names = serve(ok(encoded())), Names(["127.0.0.1"])
    refusals = reader(servers=[server], resolver=names, trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "host"
    assert (server.accepted, names.asked) == (0, 0)


@pytest.mark.parametrize(
    ("hosts", "url", "allowed"),
    [
        (["images.test:*"], "https://images.test:{port}/a.png", True),
        (["images.test:{port}"], "https://IMAGES.test:{port}/a.png", True),
        (["*.test:*"], "https://images.test.:{port}/a.png", True),
        (["other.test:*", "*.images.test:*"], "https://a.images.test:{port}/a.png", True),
        (["*.images.test:*"], "https://images.test:{port}/a.png", False),
        (["images.test"], "https://images.test:{port}/a.png", False),
        (["*"], "https://images.test:{port}/a.png", False),
        (["images.test:1"], "https://images.test:{port}/a.png", False),
        (["images.test:*"], "https://images.test.evil.test:{port}/a.png", False),
        (["images.test:*"], "https://evil.test:{port}/images.test", False),
        (["images.test:*"], "https://evil.test:{port}#@images.test/", False),
        (["images.test:*"], "https://images.test@evil.test:{port}/", False),
    ],
)
async def test_hosts(serve: Serve, certificate: Certificate, hosts: list[str], url: str, allowed: bool) -> None:
    """A pattern means a host at port 443, or at the port that it names; everything else is refused unasked."""
    data = encoded()
    server, names = serve(ok(data)), Names(["127.0.0.1"])
    patterns = [host.replace("{port}", str(server.port)) for host in hosts]
    refusals = reader(hosts=patterns, servers=[server], resolver=names, trust=certificate.trust)
    target = url.replace("{port}", str(server.port))
    if allowed:
        assert await refusals.reader.read(asking(target)) == [data]
        assert (server.accepted, names.asked) == (1, 1)
    else:
        assert await refusals.reason(target) == "host"
        assert (server.accepted, names.asked) == (0, 0)


async def test_all_urls_are_checked_first(serve: Serve, certificate: Certificate) -> None:
    """One bad URL keeps the good ones before it from being downloaded."""
    server = serve(ok(encoded()))
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    good = f"https://images.test:{server.port}/a.png"
    assert await refusals.reason(good, good, "file:///etc/passwd") == "scheme"
    assert server.accepted == 0


# -- addresses ----------------------------------------------------------------------------------------------------

PRIVATE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.255.0.1", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1",
    "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::1", "2002:a00:1::1", "3fff::1", "4000::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%lo",
    "fec0::1", "ff02::1", "not an address", "", "1.2.3", "0x7f000001", "2130706433", "127.1", "0177.0.0.1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.32.0.1", "::ffff:8.8.8.8",
    "64:ff9b::808:808", "2606:4700:4700::1111", "2a00:1450:4001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    """Private, local, shared, multicast and reserved addresses are not public, nor are they inside another one."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_that_are_public(address: str) -> None:
    """Addresses of the public internet are, also inside another one."""
    assert is_public(address)


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["::"], ["10.0.0.1"], ["169.254.169.254"],
        ["fe80::1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["8.8.8.8", "127.0.0.1"], ["2606:4700:4700::1111", "::1"],
    ],
    ids=str,
)  # fmt: skip
async def test_names_of_private_addresses(serve: Serve, certificate: Certificate, answer: list[str]) -> None:
    """A name one of whose addresses is not public is refused; the servers there see no connection."""
    server = serve(ok(encoded()))
    six = serve(ok(encoded()), "::1", server.port)
    refusals = reader(hosts=ANY_HOST, resolver=Names(answer), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "address"
    assert (server.accepted, six.accepted) == (0, 0)


async def test_all_addresses_of_a_name_count(serve: Serve, certificate: Certificate) -> None:
    """One address that is not public makes a name unusable, even if another one could be reached."""
    server = serve(ok(encoded()))
    for answer in (["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"]):
        refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(answer), trust=certificate.trust)
        assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "address"
    assert server.accepted == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]", "0.0.0.0", "2130706433", "0x7f000001",
        "017700000001", "0x7f.1", "127.1", "0177.0.0.1", "0", "localhost", "LOCALHOST", "１２７.0.0.1",
    ],
)  # fmt: skip
async def test_hosts_that_are_addresses(serve: Serve, certificate: Certificate, host: str) -> None:
    """A host that is an address, in whatever notation, is judged by the address; names go to the system's resolver."""
    server = serve(ok(encoded()))
    six = serve(ok(encoded()), "::1", server.port)
    refusals = reader(hosts=ANY_HOST, trust=certificate.trust)
    assert await refusals.reason(f"https://{host}:{server.port}/a.png") == "address"
    assert (server.accepted, six.accepted) == (0, 0)


@pytest.mark.parametrize(("host", "listens"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1"), ("localhost", None)])
async def test_an_exception_for_one_server(
    serve: Serve, certificate: Certificate, host: str, listens: str | None
) -> None:
    """A private address and port that the policy lists is reached, and nothing beside it."""
    data = encoded()
    server = serve(ok(data), listens or "127.0.0.1")
    other = serve(ok(data), listens or "127.0.0.1")
    resolver = Names(["127.0.0.1"]) if listens is None else None
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=resolver, trust=certificate.trust)
    assert await refusals.reader.read(asking(f"https://{host}:{server.port}/a.png")) == [data]
    assert await refusals.reason(f"https://{host}:{other.port}/a.png") == "address"
    assert (server.accepted, other.accepted) == (1, 0)


async def test_a_name_that_changes_its_answer(serve: Serve, certificate: Certificate) -> None:
    """The address that was checked is the one that is connected to: a second answer is not even asked for."""
    data = encoded()
    server = serve(ok(data), "127.0.0.1")
    victim = serve(ok(data), "127.0.0.2", server.port)
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=names, trust=certificate.trust)
    url = f"https://images.test:{server.port}/a.png"
    assert await refusals.reader.read(asking(url)) == [data]
    assert (server.accepted, victim.accepted, names.asked) == (1, 0, 1)
    assert await refusals.reason(url) == "address"
    assert (server.accepted, victim.accepted, names.asked) == (1, 0, 2)


async def test_a_redirect_to_a_name_that_changed(serve: Serve, certificate: Certificate) -> None:
    """A redirect to the same name is a new connection, whose address is checked again."""
    server = serve(redirect("/again"), "127.0.0.1")
    victim = serve(ok(encoded()), "127.0.0.2", server.port)
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=names, trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "address"
    assert (server.accepted, victim.accepted) == (1, 0)


# -- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://images.test:{port}/a.png", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("data:image/png;base64,AAAA", "scheme"),
        ("https://other.test:{port}/a.png", "host"),
        ("//other.test:{port}/a.png", "host"),
        ("https://user@images.test:{port}/a.png", "host"),
        ("https://127.0.0.2:{port}/a.png", "address"),
        ("https://[::1]:{port}/a.png", "address"),
        ("https://2130706434:{port}/a.png", "address"),
        ("https://[::1", "redirect"),
        ("/loop", "redirect"),
        ("https://images.test:{port}/loop", "redirect"),
    ],
)
async def test_bad_redirects(serve: Serve, certificate: Certificate, location: str, reason: str) -> None:
    """A redirect is checked like the first URL: scheme, host and address; and there are not many of them."""

    def answer(_path: str) -> list[bytes]:
        return [redirect(location.replace("{port}", str(server.port)))]

    server = serve(answer)
    victims = [serve(ok(encoded()), host, server.port) for host in ("127.0.0.2", "::1")]
    hosts = ["images.test:*", "127.0.0.*:*", "2130706434:*", "*1:*"]
    refusals = reader(hosts=hosts, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == reason
    assert server.accepted == (4 if reason == "redirect" and "loop" in location else 1)
    assert [victim.accepted for victim in victims] == [0, 0]


async def test_good_redirects(serve: Serve, certificate: Certificate) -> None:
    """A few redirects are followed, relative ones too; cookies that are set on the way are not sent back."""
    data = encoded()
    answers = {
        "/a": redirect("b", "Set-Cookie: session=1; Path=/"),
        "/b": redirect("?c"),
        "/b?c": redirect("//images.test:{port}/d"),
        "/d": ok(data),
    }
    server = serve(lambda path: [answers[path].replace(b"{port}", str(server.port).encode())])
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reader.read(asking(f"https://images.test:{server.port}/a")) == [data]
    assert server.accepted == 4
    assert not any("cookie" in request.lower() for request in server.requests)


# -- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png"),
        (b"<!DOCTYPE html><title>intranet</title>", "image/png"),
        (b'{"password": "hunter2"}', "image/jpeg"),
        (gzip.compress(encoded()), "image/png"),
        (b"", "image/png"),
    ],
)
async def test_answers_that_are_no_image(serve: Serve, certificate: Certificate, body: bytes, kind: str) -> None:
    """Bytes decide: whatever is no image is refused under any content type, and none of it is told."""
    server = serve(ok(body + SECRET.encode() if body else b"", kind))
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "type"
    assert server.accepted == 1


async def test_a_wrong_content_type_does_not_matter(serve: Serve, certificate: Certificate) -> None:
    """An image that is served as text is read."""
    data = encoded("image/webp")
    server = serve(ok(data, "text/plain"))
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reader.read(asking(f"https://images.test:{server.port}/a")) == [data]


async def test_packed_answers(serve: Serve, certificate: Certificate) -> None:
    """An answer is not unpacked, whatever its encoding says: what unpacks to much is never unpacked."""
    packed = gzip.compress(encoded() + bytes(50_000_000))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    server = serve(head + packed)
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "type"


@pytest.mark.parametrize("head", ["", "Transfer-Encoding: chunked\r\n", "Content-Length: 5000000\r\n"])
async def test_endless_answers(serve: Serve, certificate: Certificate, head: str) -> None:
    """A body that is too long is given up at the limit, whether its length is told, chunked, or not known."""

    def answer(_path: str) -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\n{head}\r\n".encode()
        yield b"fffff0\r\n" if "chunked" in head else b""
        yield encoded()
        for _ in range(5000):
            yield bytes(16_384)

    server = serve(answer)
    refusals = reader(
        hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust, max_bytes=200_000
    )
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "too_large"
    server.close()
    assert server.sent_bytes < 20_000_000


async def test_slow_answers(serve: Serve, certificate: Certificate) -> None:
    """A host that sends a byte now and then is given up after the time for one image."""

    def answer(_path: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        for byte in encoded()[:40]:
            time.sleep(0.05)
            yield bytes([byte])

    server = serve(answer)
    refusals = reader(
        hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust, timeout_s=0.4
    )
    with within(1.5):
        assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "timeout"


@pytest.mark.parametrize("status", ["404 Not Found", "204 No Content", "206 Partial Content", "500 Oops", "304 Same"])
async def test_other_statuses(serve: Serve, certificate: Certificate, status: str) -> None:
    """Only 200 has an image."""
    server = serve(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "status"


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n\x89PNG\r\n\x1a\n"]
)
async def test_answers_that_break_off(serve: Serve, certificate: Certificate, answer: bytes) -> None:
    """What is not HTTP, or ends too early, is refused."""
    server = serve(answer)
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reason(f"https://images.test:{server.port}/a.png") == "unreachable"


async def test_certificates(serve: Serve, certificate: Certificate) -> None:
    """A host with a certificate of another name, or of nobody who is trusted, is not asked."""
    server = serve(ok(encoded()))
    for host, trust in (("other.test", certificate.trust), ("images.test", None)):
        refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=trust)
        assert await refusals.reason(f"https://{host}:{server.port}/a.png") == "unreachable"
    assert (server.accepted, server.requests) == (2, [])


async def test_nobody_listens(certificate: Certificate) -> None:
    """A host that cannot be reached is refused, and so is a name that does not exist."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    reasons: list[str] = []
    policy = ImagePolicy(Reach(ANY_HOST, frozenset({address})))
    refusals = Refusals(
        ImageReader(policy, lambda _, reason: reasons.append(reason), resolver=Names(["127.0.0.1"])), reasons
    )
    assert await refusals.reason(f"https://images.test:{address[1]}/a.png") == "unreachable"
    assert await reader(hosts=ANY_HOST).reason("https://nobody.invalid/a.png") == "unreachable"


async def test_proxies_of_the_environment(
    serve: Serve, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that the environment names is not used: it would connect to whatever it likes."""
    data = encoded()
    server, proxy = serve(ok(data)), serve(ok(data))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    refusals = reader(hosts=ANY_HOST, servers=[server, proxy], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    assert await refusals.reader.read(asking(f"https://images.test:{server.port}/a.png")) == [data]
    assert (server.accepted, proxy.accepted) == (1, 0)


async def test_requests_that_are_given_up(serve: Serve, certificate: Certificate) -> None:
    """When nobody waits for the image any more, the connection ends at once."""
    begun = threading.Event()

    def answer(_path: str) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        begun.set()
        for _ in range(1000):
            time.sleep(0.02)
            yield bytes(100)

    server = serve(answer)
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    reading = asyncio.ensure_future(refusals.reader.read(asking(f"https://images.test:{server.port}/a.png")))
    await asyncio.to_thread(begun.wait, 5)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    with within(1.0):
        server.close()
    assert refusals.reasons == []


def test_on_the_loop_of_the_server(serve: Serve, certificate: Certificate) -> None:
    """On uvloop, which the server runs on, downloads work and addresses are judged as well."""
    data = encoded()
    server = serve(ok(data))
    victim = serve(ok(data))

    async def work() -> None:
        refusals = reader(hosts=ANY_HOST, servers=[server], trust=certificate.trust)
        assert await refusals.reader.read(asking(f"https://127.0.0.1:{server.port}/a.png")) == [data]
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "2130706433"):
            assert await refusals.reason(f"https://{host}:{victim.port}/a.png") == "address"

    uvloop.run(work())
    assert (server.accepted, victim.accepted) == (1, 0)


async def test_what_is_sent(serve: Serve, certificate: Certificate) -> None:
    """A download tells the host nothing of the client or of this proxy but its name."""
    server = serve(ok(encoded()))
    refusals = reader(hosts=ANY_HOST, servers=[server], resolver=Names(["127.0.0.1"]), trust=certificate.trust)
    await refusals.reader.read(asking(f"https://images.test:{server.port}/a.png?b=1#fragment"))
    lines = server.requests[0].strip().split("\r\n")
    assert lines[0] == "GET /a.png?b=1 HTTP/1.1"
    assert {re.split(": ?", line)[0].lower() for line in lines[1:]} <= {
        "host", "accept", "accept-encoding", "user-agent", "connection",
    }  # fmt: skip


async def test_the_loop_stays_free() -> None:
    """While large images are decoded, the event loop answers others within some hundredths of a second."""
    url = data_url(encoded(size=(5000, 4000)))
    late_s = 0.0

    async def tick() -> None:
        nonlocal late_s
        while True:
            begin_s = time.monotonic()
            await asyncio.sleep(0.005)
            late_s = max(late_s, time.monotonic() - begin_s - 0.005)

    ticking = asyncio.ensure_future(tick())
    await reader().reader.read(asking(url, url))
    ticking.cancel()
    assert 0 < late_s < 0.2
