"""What is asked, when: one JSON object a line, `{"at_s", "pool", "prompt_tokens", "completion_tokens", "needs"}`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmproxy.core.errors import ConfigError
from llmproxy.core.types import CAPABILITIES

_NUMBERS = {"at_s": 0.0, "prompt_tokens": 0, "completion_tokens": 0}


class Request(NamedTuple):
    """One request: `at_s` seconds after the beginning, for a name that a client may send, with its real tokens."""

    at_s: float
    pool: str
    prompt_tokens: int
    completion_tokens: int
    needs: frozenset[str] = frozenset()


def read(path: Path) -> list[Request]:
    """The requests of a JSONL file in the order of their times; raises `ConfigError` that names the line."""
    try:
        with path.open(encoding="utf-8") as lines:
            return sorted(_requests(lines, str(path)), key=lambda request: request.at_s)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _requests(lines: Iterable[str], origin: str) -> Iterator[Request]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{origin}:{number}"
        try:
            given: Any = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{where}: not JSON: {error}") from error
        if not isinstance(given, dict):
            raise ConfigError(f"{where}: must be an object")
        if unknown := given.keys() - {*_NUMBERS, "pool", "needs"}:
            raise ConfigError(f"{where}: {', '.join(sorted(unknown))}: unknown key")
        for name, least in _NUMBERS.items():
            value = given.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ConfigError(f"{where}: {name}: must be a number of at least 0")
        needs = given.get("needs", [])
        if not isinstance(needs, list) or not set(needs) <= CAPABILITIES:
            raise ConfigError(f"{where}: needs: must be a list of {', '.join(sorted(CAPABILITIES))}")
        pool = given.get("pool", "llmproxy/free")
        if not isinstance(pool, str):
            raise ConfigError(f"{where}: pool: must be a name")
        prompt, completion = int(given.get("prompt_tokens", 0)), int(given.get("completion_tokens", 0))
        yield Request(float(given.get("at_s", 0.0)), pool, prompt, completion, frozenset(needs))
