"""A real `redis-server` of a test, which can be stopped and started on the same port, with its data or without."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

_START_S = 10.0


class RedisServer:
    """`with RedisServer(folder) as redis: redis.url`. Its data are those of `folder`, written at a `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Run, and wait until it answers."""
        program = shutil.which("redis-server")
        assert program is not None, "these tests need redis-server (apt install redis-server)"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "3600 1"]
        self._process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG"):
                        return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError("redis-server did not start")

    def stop(self, *, forget: bool = False) -> None:
        """End it; with `forget` its data are lost."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
        if forget:
            (self._folder / "dump.rdb").unlink(missing_ok=True)
