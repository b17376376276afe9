"""The catalogue of local models: `models.yaml` of this package under the user's own `models.local.yaml`.

A file is a mapping with one key, `models`: a list of entries. Those of the user change an entry of the same `name`,
else the one of the same `hf_repo_id`, else they are new. Mappings inside an entry are merged, everything else is
replaced, and `null` takes a field back to its default.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from backends.base import Pooling
from llmproxy.core.config import SecretField, Section, Url
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import CAPABILITIES, JsonObject

Kind = Literal["chat", "vision", "embeddings", "rerank", "speech"]

BUILT_IN = Path(__file__).with_name("models.yaml")
OWN = ("models.local.yaml", "models.local.yml")
# What runs each kind; chat has none, it is the engine of the worker itself, which also runs the class for vision.
HANDLERS: dict[Kind, str] = {
    "vision": "backends.vision.VisionModel",
    "embeddings": "backends.embedding.EmbeddingModel",
    "rerank": "backends.rerank.reranker",
    "speech": "backends.speech.transcriber.transcriber",
}
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_KNOWN = CAPABILITIES | {"chat"}


def _capability(value: str) -> str:
    if value not in _KNOWN:
        raise ValueError(f"unknown capability {value!r}; known: {', '.join(sorted(_KNOWN))}")
    return value


def _dotted(value: str) -> str:
    if not _DOTTED.fullmatch(value):
        raise ValueError(f"{value!r} is no dotted path such as package.module.Class")
    return value


def _words(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


Positive = Annotated[int, Field(gt=0)]


class Defaults(Section):
    """Sampling fields that a request overrides."""

    temperature: Annotated[float | None, Field(ge=0, le=2)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    max_tokens: Positive | None = None


class Entry(Section):
    """One model; `docs/local.md` says what each field means."""

    name: Annotated[str, Field(description="what it is called after `local/`; `hf_repo_id` by default")] = ""
    hf_repo_id: Annotated[str, Field(description="id on the Hugging Face hub, or a folder of this machine")] = ""
    aliases: Annotated[tuple[str, ...], Field(description="other names for it")] = ()
    capabilities: Annotated[
        tuple[Annotated[str, AfterValidator(_capability)], ...],
        Field(description="what it can do; read from its files when empty"),
    ] = ()
    handler: Annotated[
        Annotated[str, AfterValidator(_dotted)] | None,
        Field(description="dotted path of the class that runs it; the one for its capabilities by default"),
    ] = None
    context: Annotated[Positive | None, Field(description="window in tokens; read from its files by default")] = None
    pooling: Annotated[
        Pooling | None, Field(description="of embeddings: how token vectors become one; read from its files by default")
    ] = None
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], Field(description="of the weights in memory")
    ] = "auto"
    quantization: Annotated[
        str | None, Field(description="how the weights are quantised, such as `fp8`; they must be what it says")
    ] = None
    defaults: Annotated[
        Defaults, Field(description="`temperature`, `top_p`, `max_tokens` of requests that do not say them")
    ] = Defaults()
    memory_mb: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(description="MiB that it takes when loaded; by default guessed from the size of its files"),
    ] = None
    min_devices: Annotated[Positive, Field(description="devices that it is spread over")] = 1
    min_device_memory_mb: Annotated[
        Annotated[int, Field(ge=0)], Field(description="MiB that each of its devices must have in all")
    ] = 0
    pinned: Annotated[bool, Field(description="never leaves to make room for another")] = False
    priority: Annotated[int, Field(description="models of a lower one leave first")] = 0
    warm_up: Annotated[
        bool, Field(description="answers a small request for each of its capabilities when it is loaded at the start")
    ] = True
    revision: Annotated[str | None, Field(description="branch, tag or commit on the hub; `main` by default")] = None
    files: Annotated[tuple[str, ...], Field(description="globs of what `llmproxy pull` fetches")] = ()
    skip_download: Annotated[bool, Field(description="`llmproxy pull` fetches nothing for it")] = False
    trust_remote_code: Annotated[bool, Field(description="run the Python code that comes with the weights")] = False
    command: Annotated[
        tuple[str, ...],
        BeforeValidator(_words),
        Field(
            description="an OpenAI-compatible server to start for it, with `{port}`, `{folder}`, `{model}`, `{name}`"
        ),
    ] = ()
    health_path: Annotated[
        str, Field(pattern="^/", description="path of that server which answers 200 once it can be used")
    ] = "/health"
    upstream_base_url: Annotated[
        Url | None, Field(description="an OpenAI-compatible server that runs it already; may hold `${VAR}`")
    ] = None
    upstream_api_key: Annotated[SecretField | None, Field(description="the key for that server, or `${VAR}`")] = None
    upstream_model: Annotated[
        str | None, Field(description="its name in that server, or in the one that `command` starts")
    ] = None

    @model_validator(mode="after")
    def _has_one_engine(self) -> Entry:
        if self.command and self.upstream_base_url:
            raise ValueError("command and upstream_base_url exclude each other")
        if self.upstream_api_key is not None and not self.upstream_base_url:
            raise ValueError("upstream_api_key needs upstream_base_url")
        return self

    @property
    def kind(self) -> Kind:
        """What its capabilities make of it; chat when they say nothing."""
        kinds: tuple[Kind, ...] = ("speech", "rerank", "embeddings", "vision")
        return next((kind for kind in kinds if kind in self.capabilities), "chat")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name that means this entry, its own first."""
        return tuple(dict.fromkeys(name for name in (self.name, self.hf_repo_id, *self.aliases) if name))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All entries, in the order of the files."""

    entries: tuple[Entry, ...]

    def find(self, name: str) -> Entry | None:
        """The entry of this name, else of this alias, else of this id on the hub."""
        return (
            next((entry for entry in self.entries if entry.name == name), None)
            or next((entry for entry in self.entries if name in entry.aliases), None)
            or next((entry for entry in self.entries if entry.hf_repo_id == name), None)
        )


@lru_cache(maxsize=1)
def built_in() -> Catalogue:
    """The catalogue of the package alone."""
    return load(None)


def load(folder: Path | None, base: str = "models.yaml") -> Catalogue:
    """The catalogue as seen from the folder of the configuration (None: the package's alone).

    A file `base` in that folder stands in place of the package's. Raises `ConfigError`, which names the file and the
    entry, for what cannot be read and for unknown keys.
    """
    own_base = folder / base if folder is not None else None
    if own_base is not None and own_base.is_file():
        first = own_base
    elif base == BUILT_IN.name:
        first = BUILT_IN
    else:
        raise ConfigError(f"local.catalog: there is no file {own_base or base}")
    merged: list[_Written] = []
    _merge(merged, _read(first))
    for name in OWN if folder is not None else ():
        assert folder is not None
        if (folder / name).is_file():
            _merge(merged, _read(folder / name))
    entries = tuple(map(_entry, merged))
    _refuse_repeats(entries, merged)
    return Catalogue(entries)


@dataclass(slots=True)
class _Written:
    """An entry as it stands in files; `origin` is the last one that had a part in it, with the place in there."""

    fields: JsonObject
    origin: str
    file: Path


def _read(path: Path) -> list[_Written]:
    try:
        data = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if data is None:
        return []
    if not isinstance(data, dict) or set(data) != {"models"} or not isinstance(data["models"], list | None):
        raise ConfigError(f"{path}: must be a mapping with the one key models, a list")
    written = []
    for place, fields in enumerate(data["models"] or []):
        if not isinstance(fields, dict):
            raise ConfigError(f"{path}: models[{place}]: must be a mapping")
        label = fields.get("name") or fields.get("hf_repo_id")
        written.append(_Written(fields, f"{path}: models[{place}]" + (f" ({label})" if label else ""), path))
    return written


def _merge(merged: list[_Written], changes: Sequence[_Written]) -> None:
    """Put the entries of one file over those of the files before it.

    An entry that this file has changed already is not found again: it may tell of two variants of one repository.
    """
    for change in changes:
        target = _target(merged, change)
        if target is None:
            merged.append(change)
        else:
            target.fields = deep_merged(target.fields, change.fields)
            target.origin, target.file = change.origin, change.file


def _target(merged: Sequence[_Written], change: _Written) -> _Written | None:
    name, repo = change.fields.get("name"), change.fields.get("hf_repo_id")
    before = [written for written in merged if written.file != change.file]
    named = (written for written in before if name and _name(written.fields) == name)
    same = (written for written in before if repo and written.fields.get("hf_repo_id") == repo)
    return next(named, None) or next(same, None)


def deep_merged(below: JsonObject, above: JsonObject) -> JsonObject:
    """`below` with the fields of `above`; mappings are merged, and None takes a field away."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = deep_merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return {key: value for key, value in merged.items() if value is not None}


def _name(fields: JsonObject) -> Any:
    """Its name; else its repository, or the last part of a folder."""
    repo = fields.get("hf_repo_id")
    if isinstance(repo, str) and repo.startswith((".", "/", "~")):
        repo = Path(repo).name
    return fields.get("name") or repo


def _entry(written: _Written) -> Entry:
    fields = {key: value for key, value in written.fields.items() if value is not None}
    if not _name(fields):
        raise ConfigError(f"{written.origin}: needs a name or hf_repo_id")
    try:
        return Entry.model_validate({**fields, "name": _name(fields)})
    except ValidationError as error:
        raise ConfigError(f"{written.origin}: " + "; ".join(map(_problem, error.errors()))) from error


def _problem(error: Any) -> str:
    path = ".".join(map(str, error["loc"]))
    message = str(error["msg"]).removeprefix("Value error, ")
    message = "unknown key" if error["type"] == "extra_forbidden" else message
    return f"{path}: {message}" if path else message


def _refuse_repeats(entries: Sequence[Entry], written: Sequence[_Written]) -> None:
    seen: dict[str, str] = {}
    for entry, source in zip(entries, written, strict=True):
        for name in _own_names(entry):
            if name in seen:
                raise ConfigError(f"{source.origin}: {name!r} is a name of {seen[name]!r} already")
            seen[name] = entry.name


def _own_names(entry: Entry) -> Iterator[str]:
    yield from dict.fromkeys((entry.name, *entry.aliases))


class _Loader(yaml.SafeLoader):
    """Plain data only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if repeated := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)
