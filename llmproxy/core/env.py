"""`${VAR}` references, read from the environment when used and never written back; and the folder of caches."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class MissingVariable(LookupError):
    """A referenced environment variable is not set; `name` is its name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the environment variable {name} is not set")
        self.name = name


def cache_folder() -> Path:
    """Where what can be made again is kept (XDG Base Directory Specification); it may not be there yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "llmproxy"


def references(text: str) -> list[str]:
    """The names of the variables that `text` refers to."""
    return _REFERENCE.findall(text)


def expand(text: str, environ: Mapping[str, str] | None = None) -> str:
    """`text` with each `${VAR}` replaced; raises `MissingVariable` for one that is unset or empty."""
    if "${" not in text:
        return text
    known = os.environ if environ is None else environ

    def value(match: re.Match[str]) -> str:
        found = known.get(match[1])
        if not found:
            raise MissingVariable(match[1])
        return found

    return _REFERENCE.sub(value, text)


class Secret:
    """A key or token, possibly a `${VAR}` reference. Prints masked; `reveal` is the only way to the value."""

    __slots__ = ("_reference",)

    def __init__(self, reference: str) -> None:
        self._reference = reference

    def reveal(self) -> str:
        """The value; raises `MissingVariable`."""
        return expand(self._reference).strip()

    @property
    def reference(self) -> str:
        """What the file says, when that is a reference; else the masked value: safe to print and to write."""
        return self.masked

    @property
    def masked(self) -> str:
        """A short form that tells two keys apart and gives neither away."""
        text = self._reference
        if _REFERENCE.fullmatch(text):
            return text
        return f"{text[:3]}…{text[-2:]}" if len(text) > 12 else "…"

    def __repr__(self) -> str:
        return f"Secret({self.masked!r})"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._reference == self._reference

    def __hash__(self) -> int:
        return hash(self._reference)
