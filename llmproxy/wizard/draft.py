"""The configuration file while it is being edited: the file as it is, and a list of edits laid over it.

Only what an edit names is touched. Everything else stays as it stands in the file: notes, the order of keys, fields
that this program has no question about, `${VAR}` references. The edits are kept in a draft beside the file from the
first one on, so that neither Ctrl-C nor a lost connection loses an answer; the file itself is only ever replaced whole.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmproxy.core import config as configuration
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import JsonObject
from llmproxy.routing.catalog import Catalog

_NOTE = (
    "Answers given to `llmproxy setup` that are not in the configuration yet. The next run offers to go on with them."
)


class Edit(NamedTuple):
    """A value that is put at a path of keys, or what is there taken away."""

    path: tuple[str, ...]
    value: Any = None
    remove: bool = False


class Draft:
    """A configuration file and the edits that are not in it yet. Raises `ConfigError` for a file that is wrong."""

    def __init__(self, path: Path, edits: Iterable[Edit] = (), *, keep: bool = True) -> None:
        """`keep`: each edit is written into `sketch` at once."""
        self.path = path.expanduser().resolve()  # behind a link, the file that it points to is the one to replace
        self.is_new = not self.path.exists()
        self._keep = keep
        self._edits = list(edits)
        self.data = replayed(_read(self.path), self._edits)
        self.config()

    @property
    def sketch(self) -> Path:
        """The file that keeps the edits until they are saved."""
        return sketch_of(self.path)

    @property
    def changed(self) -> bool:
        """Whether there is an edit that is not in the file."""
        return bool(self._edits)

    @property
    def edits(self) -> Sequence[Edit]:
        """The edits so far, oldest first."""
        return tuple(self._edits)

    def get(self, *path: str, default: Any = None) -> Any:
        """What stands at a path."""
        found: Any = self.data
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return default
            found = found[key]
        return found

    def names(self, section: str) -> list[str]:
        """The keys of a section that are no notes."""
        return [name for name in self.get(section, default={}) if not name.startswith("_")]

    def put(self, value: Any, *path: str) -> None:
        """Set a value; what stands there already is no edit."""
        if self.get(*path, default=_ABSENT) != value:
            self._edit(Edit(path, copy.deepcopy(value)))

    def remove(self, *path: str) -> None:
        """Take a value away."""
        if self.get(*path, default=_ABSENT) is not _ABSENT:
            self._edit(Edit(path, remove=True))

    def config(self) -> Config:
        """The configuration with all edits; raises `ConfigError` with the path of what is wrong."""
        config = configuration.parse(self.data, origin=str(self.path))
        Catalog((), config)  # aliases that go in a circle only show here
        return config

    def save(self) -> Config:
        """Write the file, whole, with mode 0600; what was changed in it by hand meanwhile stays."""
        self.data = replayed(_read(self.path), self._edits)
        config = self.config()
        _write(self.path, self.data)
        self.forget()
        self.is_new = False
        return config

    def forget(self) -> None:
        """Drop the kept edits; those in memory have been saved, or are not wanted."""
        self._edits.clear()
        if self._keep:
            self.sketch.unlink(missing_ok=True)

    def _edit(self, edit: Edit) -> None:
        depth = len(edit.path)
        self._edits = [old for old in self._edits if old.path[:depth] != edit.path]
        self._edits.append(edit)
        self.data = replayed(self.data, [edit])
        if self._keep:
            _write(self.sketch, {"_note": _NOTE, "edits": [_written(one) for one in self._edits]})


_ABSENT = object()


def sketch_of(path: Path) -> Path:
    """Where the edits of a configuration file are kept."""
    return path.with_name(f"{path.name}.draft")


def kept_edits(path: Path) -> tuple[Edit, ...]:
    """The edits that an earlier run left behind; none where there are none, or where they cannot be read."""
    try:
        told = json.loads(sketch_of(path.expanduser().resolve()).read_text("utf-8"))
        return tuple(
            Edit(tuple(map(str, one["path"])), one.get("value"), bool(one.get("remove"))) for one in told["edits"]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def replayed(data: JsonObject, edits: Iterable[Edit]) -> JsonObject:
    """`data` with the edits in their order; `data` itself stays as it is."""
    result = copy.deepcopy(data)
    for edit in edits:
        place: Any = result
        for key in edit.path[:-1]:
            inner = place.get(key)
            if not isinstance(inner, dict):
                if edit.remove:
                    break
                inner = place[key] = {}
            place = inner
        else:
            if edit.remove:
                place.pop(edit.path[-1], None)
            else:
                place[edit.path[-1]] = copy.deepcopy(edit.value)
    return result


def _read(path: Path) -> JsonObject:
    """The file as it stands, or nothing where there is none. A note that is there twice is kept twice."""
    if not path.exists():
        return {}
    configuration.load(path)
    data: JsonObject = json.loads(path.read_text("utf-8"), object_pairs_hook=_all_notes)
    return data


def _all_notes(pairs: list[tuple[str, Any]]) -> JsonObject:
    kept: JsonObject = {}
    for key, value in pairs:
        name = key
        while name in kept:
            name += "_"
        kept[name] = value
    return kept


def _written(edit: Edit) -> JsonObject:
    return {"path": list(edit.path), "remove": True} if edit.remove else {"path": list(edit.path), "value": edit.value}


def _write(path: Path, data: JsonObject) -> None:
    try:
        configuration.save(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
