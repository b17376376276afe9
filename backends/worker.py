"""The worker process: one model, one thread that runs it, one that listens.

python -m backends.worker FOLDER --name NAME --device auto --fd N
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from backends.frames import Frame, Kind, encode, receive_blocking
from backends.parameters import Sampling
from backends.render import Renderer, TokenLogprob, renderer
from backends.toolcalls import ToolCall, ToolCallParser

if TYPE_CHECKING:
    from backends.chat import ChatModel, Piece, Prompt

_log = logging.getLogger(__name__)


class Mailbox:
    """Calls that wait, and those that were cancelled; filled by the listening thread, emptied by the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._calls: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        threading.Thread(target=self._listen, name="listener", daemon=True).start()

    def next(self) -> Frame:
        """The next call that nobody cancelled yet; waits for it."""
        while True:
            frame = self._calls.get()
            if frame.call in self._cancelled:
                self._cancelled.discard(frame.call)
                continue
            return frame

    def is_cancelled(self, call: int) -> bool:
        return call in self._cancelled

    def ended(self, call: int) -> None:
        """Nothing more will be asked about `call`."""
        self._cancelled.discard(call)

    def _listen(self) -> None:
        try:
            while True:
                frame = receive_blocking(self._sock)
                if frame.kind is Kind.CANCEL:
                    self._cancelled.add(frame.call)
                else:
                    self._calls.put(frame)
        except (EOFError, OSError):
            # The server is gone: there is nobody to work for, and the other thread may be deep in a matrix product.
            os._exit(0)


def serve(model: ChatModel, name: str, mailbox: Mailbox, sock: socket.socket) -> None:
    """Answer calls one after the other, for ever."""
    from backends.chat import Rejected

    while True:
        frame = mailbox.next()
        try:
            for data in _answer(
                model, name, orjson.loads(frame.payload), lambda call=frame.call: mailbox.is_cancelled(call)
            ):
                if data:
                    sock.sendall(encode(Frame(Kind.DATA, frame.call, data)))
            reply = Frame(Kind.DONE, frame.call)
        except Rejected as error:
            fields = {"kind": error.kind, "status": error.status, "code": error.code, "param": error.param}
            reply = Frame(Kind.ERROR, frame.call, orjson.dumps({**fields, "message": str(error)}))
        except Exception as error:  # one bad call must not end the model for all others
            _log.exception("a call of %s failed", name)
            fields = {
                "kind": "server",
                "status": 500,
                "code": "internal_error",
                "message": f"{type(error).__name__}: {error}",
            }
            reply = Frame(Kind.ERROR, frame.call, orjson.dumps(fields))
        mailbox.ended(frame.call)
        sock.sendall(encode(reply))


def _answer(model: ChatModel, name: str, request: dict[str, Any], cancelled: Any) -> Iterator[bytes]:
    body, endpoint = request["body"], request["endpoint"]
    fields = request["sampling"]
    bias = {int(token): value for token, value in fields["logit_bias"].items()}
    sampling = Sampling(**{**fields, "stop": tuple(fields["stop"]), "logit_bias": bias})
    out = renderer(endpoint, stream=request["stream"], call_id=request["id"], model=name)
    prompts = [model.chat_prompt(body)] if endpoint == "chat" else model.text_prompts(body["prompt"])
    reads_tools = endpoint == "chat" and bool(body.get("tools")) and body.get("tool_choice") != "none"
    prompt_tokens = completion_tokens = 0
    for place, prompt in enumerate(prompts):
        prompt_tokens += len(prompt.ids)
        for copy in range(sampling.n):
            index = place * sampling.n + copy
            one = sampling if sampling.seed is None else _reseeded(sampling, copy)
            for item in _choice(model, prompt, one, index, reads_tools, out, cancelled):
                if isinstance(item, int):
                    completion_tokens += item
                elif item is None:
                    return
                else:
                    yield item
    yield out.end(prompt_tokens, completion_tokens)


def _choice(
    model: ChatModel, prompt: Prompt, sampling: Sampling, index: int, reads_tools: bool, out: Renderer, cancelled: Any
) -> Iterator[bytes | int | None]:
    """Bytes to send, then the number of tokens made; None when the call was cancelled."""
    from backends.chat import End

    parser = ToolCallParser() if reads_tools else None
    if parser is not None and prompt.forced:
        parser.feed(prompt.forced)
    begun = False
    for piece in model.generate(prompt, sampling, cancelled):
        if isinstance(piece, End):
            if piece.reason == "cancelled":
                yield None
                return
            for said in parser.end() if parser is not None else ():
                yield out.say(index, said, ())
                begun = True
            if not begun:
                yield out.say(index, "", ())
            yield out.finish(index, piece.reason)
            yield piece.completion_tokens
        else:
            logprobs = _logprobs(model, piece)
            for said in parser.feed(piece.text) if parser is not None else (piece.text,):
                yield out.say(index, said, logprobs if not isinstance(said, ToolCall) else ())
                logprobs, begun = (), True


def _logprobs(model: ChatModel, piece: Piece) -> tuple[TokenLogprob, ...]:
    return tuple(
        (text, drawn.logprob or 0.0, [(model.tokenizer.decode([token]), value) for token, value in drawn.top])
        for text, drawn in piece.tokens
    )


def _reseeded(sampling: Sampling, copy: int) -> Sampling:
    from dataclasses import replace

    return replace(sampling, seed=(sampling.seed or 0) + copy)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True)
@click.option("--device", default="auto")
@click.option("--fd", type=int, required=True)
def main(folder: Path, name: str, device: str, fd: int) -> None:
    """Load the model in FOLDER and serve it over the socket FD."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the server ends its workers itself
    sock = socket.socket(fileno=fd)
    mailbox = Mailbox(sock)
    warnings.simplefilter("ignore")
    try:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        from backends.chat import ChatModel

        model = ChatModel(folder, device)
    except Exception as error:  # whatever keeps a model from loading is told to the server, which fails over
        sock.sendall(encode(Frame(Kind.FAILED, 0, f"{type(error).__name__}: {error}".encode())))
        sys.exit(1)
    sock.sendall(encode(Frame(Kind.READY, 0)))
    serve(model, f"local/{name}", mailbox, sock)


if __name__ == "__main__":
    main()
