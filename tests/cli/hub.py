"""A model hub on loopback: the few routes that a download of a whole model asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves the folders of `models` by their repository ids until the context ends; `requests` are their paths."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.requests: list[str] = []
        handler = type("Handler", (_Handler,), {"models": models, "requests": self.requests})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    models: ClassVar[dict[str, Path]]
    requests: ClassVar[list[str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.requests.append(self.path)
        status, headers, body = self._answer()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def _answer(self) -> tuple[int, dict[str, str], bytes]:
        path = self.path.partition("?")[0].strip("/")
        for repo_id, folder in self.models.items():
            if path in (f"api/models/{repo_id}", f"api/models/{repo_id}/revision/main"):
                return _json(_about(repo_id, folder))
            if path.startswith(f"api/models/{repo_id}/tree/"):
                return _json([_entry(file) for file in sorted(folder.iterdir())])
            _, found, rest = path.partition(f"{repo_id}/resolve/")
            file = folder / rest.partition("/")[2]
            if found and file.is_file():
                return 200, {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": COMMIT}, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"not found"


def _about(repo_id: str, folder: Path) -> dict[str, Any]:
    siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
    return {"id": repo_id, "modelId": repo_id, "sha": COMMIT, "private": False, "siblings": siblings, "tags": []}


def _entry(file: Path) -> dict[str, Any]:
    return {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}, json.dumps(value).encode()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
