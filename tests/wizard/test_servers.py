"""Servers of models on this machine are found by their ports, and told apart by what they say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmproxy.wizard.servers import Server, find
from tests.servers import Server as Running
from tests.servers import unreachable


@contextlib.contextmanager
def answering(status: int, body: Any) -> Iterator[int]:
    """The port of a server that answers each GET of `/v1/models` alike, and 404 to everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(body).encode() if not isinstance(body, bytes) else body
            self.send_response(status if self.path == "/v1/models" else 404)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def models(*ids: str, owner: str = "me") -> dict[str, Any]:
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": owner} for name in ids]}


@pytest.mark.parametrize(
    ("usual", "owner", "name"),
    [
        ("ollama", "library", "ollama"),
        ("lmstudio", "organization_owner", "lmstudio"),
        ("vllm", "vllm", "vllm"),
        ("llamacpp", "llamacpp", "llamacpp"),
        ("vllm", "llamacpp", "llamacpp"),
        ("llamacpp", "vllm", "vllm"),
    ],
)
def test_each_kind(usual: str, owner: str, name: str) -> None:
    """What usually listens on the port, unless the list says that it is another one."""
    with answering(200, models("one", "two", owner=owner)) as port:
        assert find({usual: port}) == [Server(name, f"http://127.0.0.1:{port}/v1", ("one", "two"))]


@pytest.mark.parametrize(
    ("status", "body"), [(200, b"<html>hello</html>"), (404, b"nothing"), (200, {"data": 3}), (200, []), (500, {})]
)
def test_other_programs_are_none(status: int, body: Any) -> None:
    """A web server on such a port is not taken for one of models."""
    with answering(status, body) as port:
        assert find({"vllm": port}) == []


def test_one_that_wants_a_key() -> None:
    """It is there, but does not tell its models."""
    with answering(401, {"error": "key"}) as port:
        (found,) = find({"lmstudio": port})
        assert found.locked
        assert "wants a key" in found.title


def test_nobody_is_there() -> None:
    """A refused connection is no error."""
    with unreachable() as nowhere:
        assert find({"ollama": int(nowhere.removesuffix("/v1").rpartition(":")[2])}) == []


async def test_llmproxy_itself_is_left_out(server: Running) -> None:
    """It listens on the port of llama.cpp, and must not be its own provider."""
    import asyncio

    port = int(server.url.rpartition(":")[2])
    assert await asyncio.to_thread(find, {"llamacpp": port}) == []
