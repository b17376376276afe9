"""`llmproxy setup` in a real terminal: keys go in, and what a person would read comes out."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pexpect

from tests.servers import environment, unreachable

ENTER, DOWN, SPACE, CTRL_C, CTRL_U, BACKSPACE = "\r", "\x1b[B", " ", "\x03", "\x15", "\x7f"
COLUMNS, ROWS = 200, 50
PATIENCE_S = 30.0
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]|\r")


class Terminal:
    """A terminal of its own with `llmproxy setup` in it; `home` is its home folder."""

    def __init__(
        self, home: Path, *arguments: str, env: Mapping[str, str] | None = None, term: str = "xterm-256color"
    ) -> None:
        size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS)}  # whoever runs the tests may have set others
        variables = {
            **size,
            "TERM": term,
            "NO_COLOR": "1",
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "LANG": "C.UTF-8",
            **(env or {}),
        }
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "llmproxy", "setup", *arguments],
            cwd=str(home),
            env=environment(home, **variables),
            dimensions=(ROWS, COLUMNS),
            encoding="utf-8",
            codec_errors="replace",
            timeout=PATIENCE_S,
            # A shell that starts the tests in the background lets them, and their children, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        self.child.delaybeforesend = None
        self.raw = ""
        self._read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.child.close(force=True)

    @property
    def text(self) -> str:
        """All that was printed, without what moves the cursor and changes colours."""
        return _ESCAPES.sub("", self.raw)

    def expect(self, text: str) -> str:
        """Wait until `text` is printed after what was expected before; what came until its end."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (found := self.text.find(text, self._read)) < 0:
            assert time.monotonic() < deadline_s, f"{text!r} did not come; since the last:\n{self.text[self._read :]}"
            try:
                self.raw += self.child.read_nonblocking(size=65536, timeout=1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                found = self.text.find(text, self._read)
                assert found >= 0, f"ended before {text!r}; since the last:\n{self.text[self._read :]}"
                break
        before, self._read = self._read, found + len(text)
        return self.text[before : self._read]

    def send(self, keys: str) -> None:
        """Press keys."""
        self.child.send(keys)

    def answer(self, question: str, keys: str = "") -> None:
        """Wait for a question, press keys, then Enter."""
        self.expect(question)
        self.send(keys + ENTER)

    def choose(self, question: str, search: str) -> None:
        """Wait for a list, type what narrows it down to the choice, and take it."""
        self.answer(question, search)

    def end(self) -> int:
        """The exit code, after the rest was read."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                self.raw += self.child.read_nonblocking(size=65536, timeout=1)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                break
        self.child.close()
        return -int(self.child.signalstatus) if self.child.signalstatus else int(self.child.exitstatus)

    def kill(self) -> None:
        """End it as a lost connection or a power cut would, without a chance to tidy up."""
        self.child.kill(signal.SIGKILL)
        self.end()


@contextlib.contextmanager
def nothing_found() -> Iterator[tuple[str, ...]]:
    """Options that look for servers where none is, whatever runs in this machine."""
    with unreachable() as nowhere:
        port = nowhere.removesuffix("/v1").rpartition(":")[2]
        yield tuple(
            word for name in ("ollama", "lmstudio", "llamacpp", "vllm") for word in ("--server-port", f"{name}={port}")
        )
