"""The step about servers of models on this machine: Ollama, LM Studio, llama.cpp, vLLM on their usual ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from llmproxy.core.types import JsonObject
from llmproxy.wizard.ask import Choice
from llmproxy.wizard.desk import Desk, in_catalogue

PORTS: Mapping[str, int] = {"ollama": 11434, "lmstudio": 1234, "llamacpp": 8080, "vllm": 8000}
TITLES: Mapping[str, str] = {"ollama": "Ollama", "lmstudio": "LM Studio", "llamacpp": "llama.cpp", "vllm": "vLLM"}
_PATIENCE_S = 2.0
_SHOWN = 4


class Server(NamedTuple):
    """A server that answered, by the name of its kind; `models` are the ids of its list."""

    name: str
    url: str
    models: tuple[str, ...]
    locked: bool = False  # it wants a key before it tells its models

    @property
    def title(self) -> str:
        """A line of a list."""
        shown = ", ".join(self.models[:_SHOWN]) + (" …" if len(self.models) > _SHOWN else "")
        what = "it wants a key" if self.locked else shown or "no model is loaded"
        return f"{TITLES.get(self.name, self.name)} at {self.url} ({what})"


def step(desk: Desk) -> None:
    """Offer the servers that are found and are not in the file yet."""
    desk.head("Servers on this machine")
    with desk.busy("Looking for Ollama, LM Studio, llama.cpp and vLLM …"):
        found = new(desk, find(desk.ports))
    if not found:
        known = ", ".join(f"{TITLES.get(name, name)} ({port})" for name, port in desk.ports.items())
        desk.ask.say(f"None that is not in use already. Looked for {known}.")
        return
    chosen = desk.ask.tick("Use these?", [Choice(one, one.title, True) for one in found])
    for one in chosen:
        use(desk, one)
        if one.locked and (key := desk.ask.secret(f"Key for {one.name}")):
            desk.draft.put(key, "providers", one.name, "api_key")
    for told in desk.probe([one.name for one in chosen]).values() if chosen else ():
        desk.tell(told)


def find(ports: Mapping[str, int]) -> list[Server]:
    """The servers that answer on these ports of this machine, looked for all at once."""
    return asyncio.run(_find(ports))


def new(desk: Desk, found: list[Server]) -> list[Server]:
    """Those of `found` that the draft does not have."""
    written = {_place(str(desk.draft.get("providers", name, "base_url", default=""))) for name in desk.providers()}
    named = set(desk.draft.names("providers"))
    return [one for one in found if _place(one.url) not in written and not (one.name == "ollama" and "ollama" in named)]


def use(desk: Desk, server: Server) -> None:
    """Write a server down as a provider; what the catalogue knows of it is left out."""
    name = server.name
    while desk.draft.get("providers", name) is not None:
        name += "-2"
    usual = in_catalogue(name) and server.url == f"http://127.0.0.1:{PORTS.get(name)}/v1"
    entry: JsonObject = {} if usual else {"base_url": server.url}
    desk.draft.put(entry, "providers", name)


async def _find(ports: Mapping[str, int]) -> list[Server]:
    timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        found = await asyncio.gather(*(_look(session, name, port) for name, port in ports.items()))
    return [one for one in found if one is not None]


async def _look(session: aiohttp.ClientSession, name: str, port: int) -> Server | None:
    root = f"http://127.0.0.1:{port}"
    status, body, headers = await _get(session, f"{root}/v1/models")
    entries = body.get("data") if isinstance(body, dict) else None
    locked = status in (401, 403)
    if (not locked and (status != 200 or not isinstance(entries, list))) or await _is_ours(session, root):
        return None
    if locked or not isinstance(entries, list):
        return Server(name, f"{root}/v1", (), locked=True)
    ids = tuple(str(one["id"]) for one in entries if isinstance(one, dict) and one.get("id"))
    return Server(_kind(name, entries, headers), f"{root}/v1", ids)


def _kind(name: str, entries: list[Any], headers: Mapping[str, str]) -> str:
    """What it says it is; else what usually listens there."""
    owners = {str(one.get("owned_by", "")).lower() for one in entries if isinstance(one, dict)}
    owners.add(headers.get("server", "").lower())
    return next((kind for kind, owner in _OWNERS.items() if any(owner in told for told in owners)), name)


_OWNERS = {"llamacpp": "llama", "vllm": "vllm", "lmstudio": "organization_owner"}


async def _is_ours(session: aiohttp.ClientSession, root: str) -> bool:
    """Whether it is llmproxy itself, which listens on 8080 too."""
    _, body, _ = await _get(session, f"{root}/version")
    return isinstance(body, dict) and body.get("name") == "llmproxy"


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[int, Any, Mapping[str, str]]:
    """(status, decoded body, headers); (0, None, {}) where nothing answers in time."""
    try:
        async with session.get(url, allow_redirects=False) as response:
            try:
                return response.status, await response.json(content_type=None), response.headers
            except ValueError:
                return response.status, None, response.headers
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, None, {}


def _place(url: str) -> tuple[str, int | None]:
    """Host and port, so that two spellings of this machine are one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        port = parts.port
    except ValueError:
        port = None
    return ("127.0.0.1" if host == "localhost" else host), port
