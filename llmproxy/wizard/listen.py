"""The step about where to listen, and who may come in."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket

from llmproxy.access import check_access
from llmproxy.core.config import Config, Server
from llmproxy.core.errors import ConfigError
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk
from llmproxy.wizard.draft import Draft

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
_OTHER = "other"
_TRIES = 50


def step(desk: Desk) -> None:
    """Ask for address and port; beyond loopback a key is made where there is none."""
    desk.head("Where to listen")
    set_host(desk, _ask_host(desk))
    before = desk.draft.get("server", "port")
    chosen = int(desk.ask.text("Port", usual=str(_usual_port(desk)), check=port_problem))
    desk.draft.put(chosen, "server", "port")
    if chosen not in (0, before) and not is_free(host(desk.draft), chosen):
        desk.bad(f"Something listens on port {chosen} now: stop it first, or run `llmproxy serve --port N`.")


def host(draft: Draft) -> str:
    """The address of the draft."""
    return str(draft.get("server", "host", default=Server().host))


def port(draft: Draft) -> int:
    """The port of the draft."""
    return int(draft.get("server", "port", default=Server().port))


def set_host(desk: Desk, host: str) -> None:
    """Write the address down, and a key where other machines can reach it."""
    desk.draft.put(host, "server", "host")
    if is_open(desk.draft) and not desk.draft.get("server", "api_keys"):
        desk.draft.put([new_key()], "server", "api_keys")
        desk.ask.say(
            "Other machines need a key now. A new one is in server.api_keys of the file; it is not shown here."
        )
        desk.ask.say("There is no TLS: in a network that you do not trust, put a server that does TLS in front.")


def new_key() -> str:
    """A key that nobody guesses."""
    return f"sk-llmproxy-{secrets.token_urlsafe(32)}"


def is_open(draft: Draft) -> bool:
    """Whether other machines can reach the address of the draft."""
    try:
        check_access(Config(server=Server(host=host(draft))))
    except ConfigError:
        return True
    return False


def _ask_host(desk: Desk) -> str:
    now = host(desk.draft)
    choices = [
        Choice(LOOPBACK, "only this machine (127.0.0.1)"),
        Choice(EVERYWHERE, "this machine and its network (0.0.0.0), with a key"),
    ]
    if now not in (LOOPBACK, EVERYWHERE):
        choices.insert(0, Choice(now, f"as it is ({now})"))
    choices.append(Choice(_OTHER, "another address"))
    chosen = str(desk.ask.pick("Who may ask llmproxy?", choices, usual=now))
    return desk.ask.text("Address", usual=now, check=host_problem) if chosen == _OTHER else chosen


def _usual_port(desk: Desk) -> int:
    """The port of the file; else the usual one, or the next one that nobody listens on."""
    written = desk.draft.get("server", "port")
    if written is not None:
        return int(written)
    first = port(desk.draft)
    return next((one for one in range(first, first + _TRIES) if is_free(host(desk.draft), one)), first)


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def host_problem(text: str) -> str:
    """Why an address cannot be listened on; nothing where it can."""
    if text == "localhost":
        return ""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "An address of this machine, such as 192.168.1.20."
    return ""


def port_problem(text: str) -> str:
    """Why a port cannot be; nothing where it can."""
    return "" if text.isdecimal() and int(text) <= 65535 else "A number up to 65535."
