"""The worker process: one model, one thread that loads and runs it, one that listens and one that sends.

python -m backends.worker FOLDER --name NAME --settings JSON --fd N

The settings are the fields of `backends.base.Settings` but name and folder, all of which may be left out; `handler`,
the dotted path of one; `engine`, as in `load`; and `rehearsals`, the capabilities that it shows before it is ready.
"""

from __future__ import annotations

import gc
import importlib
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import click
import orjson

from backends.base import Settings
from backends.frames import Frame, Kind, encode
from backends.mailbox import Mailbox, Outbox
from backends.runner import HandlerRunner, Runner
from llmproxy.core.types import JsonObject

_MEMORY_S = 5.0


def load(settings: Settings, handler: str | None, engine: JsonObject) -> Runner:
    """Load the model; `engine` are the fields of `backends.engine.Limits`, and `window_s` of embeddings.

    Raises whatever keeps it from loading.
    """
    window_s = engine.pop("window_s", 0.0)
    name = f"local/{settings.name}"
    made = _named(handler or _chat_model(settings.folder))(settings)
    if getattr(made, "shares_batch", False):
        from backends.answers import ChatRunner
        from backends.engine import Limits

        return ChatRunner(made, name, Limits(**engine))
    if hasattr(made, "embed") and not made.thread_safe:
        from backends.microbatch import EmbeddingRunner

        return EmbeddingRunner(made, name, window_s=window_s)
    return HandlerRunner(made, name)


def _chat_model(folder: Path) -> str:
    """The class that runs the chat model in a folder: another one where its files say that it reads images."""
    from backends.weights import kind_of

    config = orjson.loads((folder / "config.json").read_bytes())
    return "backends.vision.VisionModel" if kind_of(folder, config) == "vision" else "backends.chat.ChatModel"


def _named(handler: str) -> Any:
    module, _, name = handler.rpartition(":" if ":" in handler else ".")
    return getattr(importlib.import_module(module), name)


def _silence() -> None:
    """Keep the libraries from printing to the server's terminal."""
    warnings.simplefilter("ignore")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", required=True)
@click.option("--settings", "told", default="{}")
@click.option("--device", default=None, help="as in the settings")
@click.option("--fd", type=int, required=True)
def main(folder: Path, name: str, told: str, device: str | None, fd: int) -> None:
    """Load the model in FOLDER and serve it over the socket FD."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the server ends its workers itself
    gc.disable()  # what is imported stays: to look at it again and again would take a tenth of the start
    sock = socket.socket(fileno=fd)
    mailbox = Mailbox(sock)
    try:
        fields: JsonObject = {"device": "auto", **orjson.loads(told), **({"device": device} if device else {})}
        handler, engine, shown = fields.pop("handler", None), fields.pop("engine", {}), fields.pop("rehearsals", ())
        _silence()
        settings = Settings(name=name, folder=folder, **fields)
        runner = load(settings, handler, engine)
        if shown:
            from backends.rehearsal import rehearse

            rehearse(runner, shown)
    except Exception as error:  # whatever keeps a model from loading is told to the server, which fails over
        sock.sendall(encode(Frame(Kind.FAILED, 0, f"{type(error).__name__}: {error}".encode())))
        sys.exit(1)
    gc.freeze()
    gc.enable()
    outbox = Outbox(sock)
    outbox.put([_memory(settings.device), Frame(Kind.READY, 0)])
    threading.Thread(target=_tell_memory, args=(settings.device, outbox), name="memory", daemon=True).start()
    runner.run(mailbox, outbox)


def _memory(device: str) -> Frame:
    from backends.devices import memory_bytes

    return Frame(Kind.MEMORY, 0, orjson.dumps(memory_bytes(device)))


def _tell_memory(device: str, outbox: Outbox) -> None:
    """Tell what the process takes, now and then."""
    while True:
        time.sleep(_MEMORY_S)
        outbox.put([_memory(device)])


if __name__ == "__main__":
    main()
