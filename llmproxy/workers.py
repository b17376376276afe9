"""`llmproxy serve --workers N`: several processes that listen on one port and share their counts in a Redis."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from llmproxy import logs, serving
from llmproxy.access import check_access
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError

_log = logging.getLogger(__name__)

_REDIS = "docker run -d -p 6379:6379 redis   (or: apt install redis-server)"
_MISCONFIGURED = 2
# A worker that gives up sooner than this has something wrong with it that a new one would have too.
_SOON_S = 5.0


def run(config: Config, *, path: Path | None, local: bool, workers: int) -> None:
    """Serve with so many processes until SIGTERM or SIGINT; one that dies is replaced. Raises `ConfigError`."""
    if workers == 1:
        serving.run(config, path=path, local=local)
        return
    if not config.state.shared:
        raise ConfigError(
            f"--workers {workers}: workers count their free limits together, in a Redis. Start one:\n  {_REDIS}\n"
            "and add --state redis://127.0.0.1:6379/0 (or state.url to the configuration)"
        )
    check_access(config)
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        for worker in running.values():
            worker.terminate()

    context = multiprocessing.get_context("spawn")

    def begin(number: int) -> SpawnProcess:
        started[number] = time.monotonic()
        worker = context.Process(target=_work, args=(config, path, local, workers, number), name=f"worker {number}")
        worker.start()
        return worker

    running: dict[int, SpawnProcess] = {}
    started: dict[int, float] = {}
    with _reserved(config) as port:
        config = config.with_server(config.server.model_copy(update={"port": port}))
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, stop)
        running |= {number: begin(number) for number in range(workers)}
        while running:
            wait([worker.sentinel for worker in running.values()], timeout=1.0)
            for number, worker in list(running.items()):
                if worker.is_alive():
                    continue
                del running[number]
                if stopping:
                    continue
                failed = worker.exitcode is not None and worker.exitcode > 0
                if worker.exitcode == _MISCONFIGURED or (failed and time.monotonic() - started[number] < _SOON_S):
                    stop()
                    raise ConfigError(f"worker {number} gave up (exit code {worker.exitcode}); see above")
                _log.error("worker %d ended with exit code %s and is replaced", number, worker.exitcode)
                running[number] = begin(number)


@contextmanager
def _reserved(config: Config) -> Iterator[int]:
    """The port that all workers share, kept from others while they come and go."""
    host, port = config.server.host, config.server.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            kept.bind((host, port))
        except OSError as error:
            raise ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}") from error
        yield int(kept.getsockname()[1])


def _work(config: Config, path: Path | None, local: bool, workers: int, number: int) -> None:
    logs.set_up(config.server.log_level)
    try:
        serving.run(config, path=path, local=local, workers=workers, first=number == 0)
    except ConfigError as error:
        _log.error("%s", error.message)
        raise SystemExit(_MISCONFIGURED) from None
