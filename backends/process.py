"""The server's side of a worker process: start it, send it calls, notice its death, start it again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import orjson

from backends.frames import Frame, Kind, encode, receive
from backends.pace import Pace
from backends.supervised import Supervised
from llmproxy.core.errors import AttemptError, ConnectFailed, ConnectionLost, Refused
from llmproxy.core.types import JsonObject

_log = logging.getLogger(__name__)

_RESTART_WAITS_S = (0.0, 1.0, 5.0, 30.0)
_STOP_PATIENCE_S = 3.0
# A step of a large model on a CPU takes minutes at worst; what takes longer than this does not end by itself.
_PATIENCE_S = 600.0


class Worker(Supervised):
    """One model in one process. Calls wait until it is ready; they fail over when it dies or cannot load."""

    def __init__(
        self,
        name: str,
        folder: Path,
        device: str,
        settings: JsonObject | None = None,
        on_figures: Callable[[str, JsonObject], None] = lambda name, told: None,
        *,
        most_calls: int | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """`settings` are those of `backends.worker`; `on_figures` is told what the process has counted.

        A call beyond `most_calls` in flight is refused (the chat engine has a queue of its own, and looks at all calls
        in each step: None). A process that works on for `patience_s` after its call was given up, and had its turn, is
        ended and started again.
        """
        super().__init__(name)
        self._on_figures = on_figures
        self._most_calls, self._patience_s = most_calls, patience_s
        self._pace = Pace(time.monotonic)
        self._given_up: dict[int, asyncio.TimerHandle] = {}
        told = orjson.dumps(settings or {}).decode()
        self._command = [sys.executable, "-m", "backends.worker", str(folder), "--name", name]
        self._command += ["--device", device, "--settings", told]
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Queue[Frame | None]] = {}
        self._writer: asyncio.StreamWriter | None = None

    def start(self) -> None:
        """Begin to load the model; returns at once."""
        self._background.start(self._supervise(), f"worker of {self.name}")

    async def run(self, request: JsonObject) -> AsyncGenerator[bytes, None]:
        """Send one request and give what the worker makes of it, piece by piece; leaving early cancels it."""
        await self._settled.wait()
        if self._failure is not None or self._writer is None:
            cause = self._failure or "the worker is not running"
            raise Refused(cause, kind="server", http_status=503, code="model_load_failed")
        self._refuse_if_full()
        payload = orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS)  # biases have the ids of tokens as keys
        call = next(self._ids)
        inbox = self._calls[call] = asyncio.Queue()
        finished = False
        try:
            self._send(Frame(Kind.CALL, call, payload))
            while True:
                frame = await inbox.get()
                if frame is None:
                    finished = True
                    raise ConnectionLost(f"the worker of {self.name} died")
                if frame.kind is Kind.DATA:
                    yield frame.payload
                    continue
                finished = True
                if frame.kind is Kind.ERROR:
                    raise _error(frame.payload)
                return
        finally:
            del self._calls[call]
            self._pace.count(1, len(self._calls))
            if not finished and not _has_ended(inbox):
                self._give_up(call)

    async def aclose(self) -> None:
        """End the process; calls in flight fail."""
        await self._background.aclose()
        self._failure = self._failure or f"{self.name} was stopped"
        self._settled.set()

    def _refuse_if_full(self) -> None:
        calls = len(self._calls)
        if self._most_calls is not None and calls >= self._most_calls:
            raise Refused(
                f"{calls} calls of {self.name} are waiting already",
                kind="rate_limit",
                http_status=429,
                code="queue_full",
                retry_after_s=self._pace.seconds_for(calls / 2),
            )

    def _give_up(self, call: int) -> None:
        """Have the process stop working on a call; it says so, or is ended."""
        self._send(Frame(Kind.CANCEL, call))
        if self._process is not None:
            self._await_end(call, self._process)

    def _await_end(self, call: int, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        self._given_up[call] = loop.call_later(self._patience_s, self._end_stuck, call, process)

    def _end_stuck(self, call: int, process: asyncio.subprocess.Process) -> None:
        del self._given_up[call]
        has_turns = self._most_calls is not None
        if has_turns and any(earlier < call for earlier in (*self._calls, *self._given_up)):
            self._await_end(call, process)  # it may not have had its turn yet
        elif process.returncode is None:
            _log.error("%s goes on with a call %g s after it was given up", self.name, self._patience_s)
            process.kill()

    def _send(self, frame: Frame) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(frame))

    async def _supervise(self) -> None:
        for restarts in itertools.count():
            await asyncio.sleep(_RESTART_WAITS_S[min(restarts, len(_RESTART_WAITS_S) - 1)])
            await self._live()
            if self._failure is not None:
                return
            _log.error("the worker of %s died and is started again", self.name)

    async def _live(self) -> None:
        """One life of the process, from its start to its end."""
        ours, theirs = socket.socketpair()
        process = None
        try:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                "--fd",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
            )
            theirs.close()
            reader, self._writer = await asyncio.open_unix_connection(sock=ours)
            with contextlib.suppress(EOFError):
                await self._listen(reader)
        except OSError as error:
            self._failure = f"the worker of {self.name} cannot be started: {error}"
            self._settled.set()
        finally:
            theirs.close()
            was_ready = self._settled.is_set()
            if self._failure is None:
                self._settled.clear()  # calls wait for its next life
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            else:
                ours.close()
            for inbox in self._calls.values():
                inbox.put_nowait(None)
            for timer in self._given_up.values():
                timer.cancel()
            self._given_up.clear()
            self.memory_bytes, self.waiting = {}, 0
            if process is not None:
                await _end(process)
                if not was_ready:  # memory is the usual cause
                    self._failure = f"the worker of {self.name} ended while it loaded the model: {_ending(process)}"
                    self._settled.set()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            frame = await receive(reader)
            if frame.kind is Kind.READY:
                self._failure = None
                self._settled.set()
            elif frame.kind is Kind.FAILED:
                self._failure = frame.payload.decode("utf-8", "replace")
                _log.error("%s cannot be loaded: %s", self.name, self._failure)
                self._settled.set()
                return
            elif frame.kind is Kind.FIGURES:
                told = orjson.loads(frame.payload)
                self.waiting = told["waiting"]
                self._on_figures(self.name, told)
            elif frame.kind is Kind.MEMORY:
                self.memory_bytes = orjson.loads(frame.payload)
            elif (inbox := self._calls.get(frame.call)) is not None:
                inbox.put_nowait(frame)
            elif frame.kind is not Kind.DATA and (timer := self._given_up.pop(frame.call, None)) is not None:
                timer.cancel()


def _has_ended(inbox: asyncio.Queue[Frame | None]) -> bool:
    """Whether the last frame of a call lies unread in its inbox; takes out all of them."""
    frames = [inbox.get_nowait() for _ in range(inbox.qsize())]
    return any(frame is None or frame.kind is not Kind.DATA for frame in frames)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a process to end, and make it."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _ending(process: asyncio.subprocess.Process) -> str:
    code = process.returncode or 0
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _error(payload: bytes) -> AttemptError:
    fields = orjson.loads(payload)
    if fields["kind"] == "lost":
        return ConnectFailed(fields["message"])
    return Refused(
        fields["message"],
        kind=fields["kind"],
        http_status=fields["status"],
        code=fields.get("code"),
        param=fields.get("param"),
        retry_after_s=fields.get("retry_after_s"),
    )
