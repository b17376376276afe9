"""Replies that lie in a folder, as `llmproxy scrape --from DIR` reads them and `--save DIR` writes them.

    DIR/<name of the source>/<file>               what the source answered, byte for byte
    DIR/<name of the source>/<file>.meta.json     optional: {"url", "fetched_at" (ISO 8601), "etag", "last_modified"}

Where several files lie there, the newest counts. A file is as old as its `fetched_at` says; else as a date in its name
does (`2026-06-17.json`, `limits-2026-06.html`, `2026-06-17T041700Z.json`; a month counts from its first day, all in
UTC); else as its modification time does. Files whose name begins with a dot are not looked at. Nothing outside DIR is
read or written, whatever a link says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scrapers.fetch import Fetched, FetchFailed

MAX_BYTES = 64 << 20

_META = ".meta.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,12}){0,2}")
_DATE = re.compile(r"(?<!\d)(20\d\d)-(\d\d)(?:-(\d\d)(?:T(\d\d)(\d\d)(\d\d)Z)?)?(?!\d)")


class SavedError(FetchFailed):
    """A folder of saved replies cannot be used; the message names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Saved:
    """One reply from a folder; `seen_at_s` is the Unix time when it was fetched. What is not known is empty."""

    raw: bytes
    seen_at_s: float
    url: str = ""
    etag: str = ""
    last_modified: str = ""

    @property
    def fetched_at_s(self) -> float:
        """The same time under the name that a fetched answer has for it."""
        return self.seen_at_s


def read(folder: Path, source_name: str) -> Saved | None:
    """The newest reply of a source, or None where there is none; raises `SavedError`."""
    place = _place(folder, source_name)
    if not place.exists():
        return None
    found: list[tuple[float, str, Path, dict[str, str]]] = []
    for path in _files(place):
        real, meta = _inside(folder, path), _meta(folder, path)
        found.append((_seen_at_s(path, meta), path.name, real, meta))
    if not found:
        return None
    seen_at_s, _, newest, meta = max(found, key=lambda entry: entry[:2])
    return Saved(_bytes(newest), seen_at_s, meta.get("url", ""), meta.get("etag", ""), meta.get("last_modified", ""))


def write(folder: Path, source_name: str, fetched: Fetched, suffix: str) -> Path | None:
    """Keep a reply so that `read` finds it; its path, or None for a reply that says only that nothing changed.

    suffix: of the file, such as `.json`. Raises `SavedError`.
    """
    if not _SUFFIX.fullmatch(suffix) or suffix.endswith(_META):
        raise SavedError(f"{suffix!r} cannot end the name of a file here")
    if fetched.raw is None:
        return None
    moment = datetime.fromtimestamp(fetched.fetched_at_s, UTC)
    meta = {
        "url": fetched.url,
        "fetched_at": moment.isoformat(),
        "etag": fetched.etag,
        "last_modified": fetched.last_modified,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = _place(folder, source_name)
        place.mkdir(exist_ok=True)
        path = place / f"{moment:%Y-%m-%dT%H%M%SZ}{suffix}"
        # In this order, so that nobody finds the reply without what is known about it.
        _replace(path.with_name(path.name + _META), json.dumps(meta, indent=2, ensure_ascii=False).encode() + b"\n")
        _replace(path, fetched.raw)
    except OSError as error:
        raise SavedError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return path


def _place(folder: Path, source_name: str) -> Path:
    """The folder of a source, which may not exist yet."""
    if not _NAME.fullmatch(source_name):
        raise SavedError(f"{source_name!r} cannot be the name of a source")
    if not folder.is_dir():
        raise SavedError(f"{folder}: no such folder")
    place = _inside(folder, folder / source_name)
    if place.exists() and not place.is_dir():
        raise SavedError(f"{place}: not a folder")
    return place


def _files(place: Path) -> list[Path]:
    try:
        return [path for path in place.iterdir() if not path.name.startswith(".") and _counts(path)]
    except OSError as error:
        raise SavedError(f"{place}: cannot be read: {error.strerror or error}") from error


def _counts(path: Path) -> bool:
    return not path.name.endswith(_META) and (path.is_file() or path.is_symlink())


def _inside(folder: Path, path: Path) -> Path:
    """`path` without links; raises `SavedError` where it leads out of `folder`."""
    try:
        real = path.resolve()
        inside = real.is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise SavedError(f"{path}: cannot be read: {error}") from error
    if not inside:
        raise SavedError(f"{path}: leads out of {folder}")
    return real


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise SavedError(f"{path}: not a file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SavedError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise SavedError(f"{path}: larger than {MAX_BYTES >> 20} MiB")
    return raw


def _meta(folder: Path, path: Path) -> dict[str, str]:
    """What lies beside a reply about it: texts only, empty where there is no such file."""
    beside = path.with_name(path.name + _META)
    if not beside.exists() and not beside.is_symlink():
        return {}
    try:
        data: Any = json.loads(_bytes(_inside(folder, beside)))
    except (ValueError, RecursionError) as error:
        raise SavedError(f"{beside}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise SavedError(f"{beside}: must be a JSON object")
    for name in ("url", "fetched_at", "etag", "last_modified"):
        if not isinstance(data.get(name, ""), str):
            raise SavedError(f"{beside}: {name}: must be a text")
    return data


def _seen_at_s(path: Path, meta: dict[str, str]) -> float:
    if "fetched_at" in meta:
        try:
            moment = datetime.fromisoformat(meta["fetched_at"])
        except ValueError as error:
            raise SavedError(f"{path}{_META}: fetched_at: must be an ISO 8601 time") from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if (dated_s := _date_in(path.name)) is not None:
        return dated_s
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise SavedError(f"{path}: cannot be read: {error.strerror or error}") from error


def _date_in(name: str) -> float | None:
    """The first date in a file name, as a Unix time."""
    for match in _DATE.finditer(name):
        year, month, day, hour, minute, second = (int(part) if part else 0 for part in match.groups())
        with contextlib.suppress(ValueError):
            return datetime(year, month, day or 1, hour, minute, second, tzinfo=UTC).timestamp()
    return None


def _replace(path: Path, raw: bytes) -> None:
    """Write `path` so that it is there whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
