"""The configuration: one JSON file, parsed once into frozen objects. Unknown keys are errors with their path.

Keys that begin with `_` are notes and are ignored. What only the predecessor knew is listed in `_RETIRED`: accepted,
without effect, and reported by `Config.warnings`.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from llmproxy.core.env import MissingVariable, Secret, expand
from llmproxy.core.errors import ConfigError
from llmproxy.core.names import POOL_WORDS
from llmproxy.core.types import CAPABILITIES, Tier, Unit

RESERVED_NAMES = frozenset({"llmproxy", *POOL_WORDS})

_RETIRED = {
    "": ("free_tier", "fusion", "providers_pr", "flagship_tier"),
    "server": ("stream_timeout",),
}


def _secret(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return Secret(value)


def _capability(value: Any) -> Any:
    if value not in CAPABILITIES:
        raise ValueError(f"unknown capability {value!r}; known: {', '.join(sorted(CAPABILITIES))}")
    return value


def _state_url(value: str) -> str:
    if value not in ("sqlite", "memory") and not value.startswith(("redis://", "rediss://", "unix://", "${")):
        raise ValueError("must be sqlite, memory, or the redis:// URL of a server")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is no time zone") from error
    return value


def _cron(value: str | None) -> str | None:
    if value is None:
        return value
    try:
        if len(value.split()) != 5:
            raise CronSimError("five fields are needed")
        next(CronSim(value, datetime(2000, 1, 1)))
    except (CronSimError, StopIteration) as error:
        why = str(error) or "there is no such day"
        raise ValueError(f"{value!r} is no cron expression (minute hour day month weekday): {why}") from error
    return value


def _reset(value: str | None) -> str | None:
    if value is None or value in ("rolling", "minute", "bucket"):
        return value
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{value!r} is neither rolling, minute, bucket nor a time zone") from error
    return value


SecretField = Annotated[
    Secret,
    BeforeValidator(_secret),
    PlainSerializer(lambda secret: secret.masked, return_type=str),
    WithJsonSchema({"type": "string", "description": "a key, or ${VAR} to read it from the environment"}),
]
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=//)[^/@]*:[^/@]*@")


def _masked_headers(headers: dict[str, str]) -> dict[str, str]:
    return {name: Secret(value).masked if _SECRET_HEADER.search(name) else value for name, value in headers.items()}


def _masked_url(url: str | None) -> str | None:
    return None if url is None else _USER_INFO.sub("…@", url)


Headers = Annotated[dict[str, str], PlainSerializer(_masked_headers, return_type=dict[str, str])]
Url = Annotated[str, PlainSerializer(_masked_url, return_type=str)]
Amount = Annotated[float | None, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
RateUnit = Literal["neurons", "credits", "usd"]
Capability = Annotated[str, BeforeValidator(_capability)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """Base of every part of the configuration: frozen, and no unknown keys but notes."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_notes(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if not str(key).startswith("_")}
        return data


class Server(Section):
    """Where to listen, and how long to wait for whom. All times in seconds."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    api_keys: tuple[SecretField, ...] = ()
    body_limit_mb: Annotated[float, Field(gt=0)] = 32
    request_timeout: Annotated[Seconds, Field(description="one attempt without streaming, headers included")] = 120
    connect_timeout: Annotated[Seconds, Field(description="TCP and TLS set-up of one connection")] = 5
    first_token_timeout: Annotated[Seconds, Field(description="from the request to the first output of a stream")] = 15
    stall_timeout: Annotated[Seconds, Field(description="silence between two pieces of a stream")] = 15
    min_tokens_per_second: Annotated[
        float,
        Field(ge=0, description="a stream of a provider that is slower, over two stall timeouts, is left; 0: never"),
    ] = 0.5
    keep_alive: Annotated[
        Seconds | None, Field(description="silence after which a waiting stream gets a comment; null: never")
    ] = 10
    deadline: Annotated[Seconds, Field(description="until an answer has begun, over all candidates")] = 90
    grace: Annotated[Seconds, Field(description="how long streams in flight may finish after SIGTERM")] = 30


class Provider(Section):
    """One upstream provider. Fields that are left out come from `providers/catalog.json`."""

    base_url: Url | None = None
    api_key: SecretField | None = None
    api_keys: tuple[SecretField, ...] = ()
    protocol: Literal["openai", "anthropic", "gemini"] | None = None
    model_filter: tuple[str, ...] | None = None
    models_url: Url | None = None
    models_id_field: str | None = None
    models_keep_task: str | None = None
    headers: Headers = {}
    proxy: Url | None = None
    enabled: bool = True
    expose_to_virtual_models: bool = True

    @property
    def keys(self) -> tuple[Secret, ...]:
        """All credentials, `api_key` first, each once."""
        first = (self.api_key,) if self.api_key is not None else ()
        return tuple(dict.fromkeys(first + self.api_keys))


class Local(Section):
    """Models that run in this machine: catalog names, folders, or hub ids."""

    models: tuple[str, ...] = ("tiny",)
    device: str = "auto"
    catalog: str = "models.yaml"
    engine: Literal["process", "ray"] = "process"
    warm_up: Annotated[
        Literal["on", "off", "strict"],
        Field(
            description="`on` loads models at the start as far as they fit; `strict`: `/ready` waits for all of them, "
            "and the server ends if one cannot be loaded"
        ),
    ] = "on"
    memory_limit_mb: Annotated[
        int | None, Field(gt=0, description="MiB that all models together take of each device, at most")
    ] = None
    idle_unload: Annotated[Seconds | None, Field(description="a model that is not used for so long leaves")] = None
    load_timeout: Annotated[Seconds, Field(description="for one load of a model")] = 600
    max_concurrent: Annotated[int, Field(ge=1, description="answers that a model makes at the same time")] = 32
    max_waiting: Annotated[Count, Field(description="answers of a model that may wait")] = 128
    batch_window_ms: Annotated[
        float, Field(ge=0, description="how long a lone embedding call waits for others to share its batch")
    ] = 0
    image_hosts: Annotated[tuple[str, ...], Field(description="globs of hosts that images are fetched from")] = ()
    image_limit_mb: Annotated[float, Field(gt=0, description="largest image, in MiB")] = 10
    image_timeout: Annotated[Seconds, Field(description="for fetching one image")] = 10
    audio_limit_mb: Annotated[float, Field(gt=0, description="largest audio file, in MiB")] = 200
    trust_remote_code: Annotated[tuple[str, ...], Field(description="models whose own Python code may run")] = ()


class Where(Section):
    """Conditions on the candidates of a pool; all of them hold."""

    capabilities: tuple[Capability, ...] = ()
    free: bool | None = None
    local: bool | None = None
    providers: tuple[str, ...] = ()
    models: Annotated[tuple[str, ...], Field(description="globs over provider/model")] = ()
    reasoning: Tier | None = None
    min_context: Count | None = None
    max_price: Annotated[float | None, Field(ge=0, description="USD per million tokens")] = None


class Pool(Section):
    """A virtual model of the user."""

    where: Where = Where()
    order: Literal["best", "fastest", "cheapest", "round_robin", "as_listed"] = "best"


class Window(Section):
    """A window of an unusual length, such as five hours."""

    unit: Unit
    amount: Annotated[float, Field(ge=0)]
    seconds: Seconds


class FreeLimit(Section):
    """A declared free limit; null means that this dimension is not limited, or not known."""

    requests_per_second: Amount = None
    requests_per_minute: Amount = None
    requests_per_hour: Amount = None
    requests_per_day: Amount = None
    requests_per_week: Amount = None
    requests_per_month: Amount = None
    tokens_per_minute: Amount = None
    tokens_per_hour: Amount = None
    tokens_per_day: Amount = None
    tokens_per_week: Amount = None
    tokens_per_month: Amount = None
    prompt_tokens_per_minute: Amount = None
    prompt_tokens_per_hour: Amount = None
    prompt_tokens_per_day: Amount = None
    completion_tokens_per_minute: Amount = None
    completion_tokens_per_hour: Amount = None
    completion_tokens_per_day: Amount = None
    audio_seconds_per_hour: Amount = None
    audio_seconds_per_day: Amount = None
    images_per_minute: Amount = None
    images_per_day: Amount = None
    neurons_per_day: Amount = None
    neurons_per_month: Amount = None
    credits_per_day: Amount = None
    credits_per_week: Amount = None
    credits_per_month: Amount = None
    usd_per_day: Amount = None
    usd_per_week: Amount = None
    usd_per_month: Amount = None
    requests_once: Amount = None
    tokens_once: Amount = None
    credits_once: Amount = None
    usd_once: Amount = None
    max_request_tokens: Amount = None
    max_prompt_tokens: Amount = None
    max_completion_tokens: Amount = None
    concurrency: Amount = None
    windows: tuple[Window, ...] = ()
    reset: Annotated[str | None, AfterValidator(_reset)] = None
    shared: bool = False


class Routing(Section):
    """How candidates are tried."""

    fallbacks: bool = True
    max_attempts: Annotated[int, Field(ge=1)] = 12
    hedge_after: Annotated[
        Seconds | None, Field(description="without any output after so long, the next candidate is asked as well")
    ] = None
    delivery: Literal["stream", "whole"] = "stream"
    sticky: Annotated[
        bool, Field(description="a conversation stays with the candidate that answered it, for its prompt cache")
    ] = False
    favourites: Annotated[
        tuple[str, ...], Field(description="globs of models that pools in the order `best` ask first")
    ] = ()
    content_filter_fallback: Annotated[
        bool, Field(description="a prompt that a provider's filter refuses is tried on the next candidate")
    ] = False


class State(Section):
    """Where what was counted and learned is kept."""

    url: Annotated[Url, AfterValidator(_state_url)] = "sqlite"

    @property
    def shared(self) -> bool:
        """Whether other processes count in the same place."""
        return self.url not in ("sqlite", "memory")

    def address(self) -> str:
        """The URL with its variables; raises `ConfigError` for one that is not set."""
        try:
            return expand(self.url)
        except MissingVariable as error:
            raise ConfigError(f"state.url: {error}") from error


class Scrape(Section):
    """When what providers give away is looked up again, and where."""

    schedule: Annotated[
        str | None, AfterValidator(_cron), Field(description="cron: minute hour day month weekday; null: never")
    ] = "17 4 * * *"
    timezone: Annotated[str, AfterValidator(_zone), Field(description="of the schedule")] = "UTC"
    jitter: Annotated[float, Field(ge=0, description="seconds after the scheduled time, at most")] = 300
    on_startup: bool = False
    sources: Annotated[tuple[str, ...] | None, Field(description="names of sources; null: all")] = None
    probes: Annotated[Count, Field(description="tiny requests to free models in each run, to see what they can")] = 0


class Inference(Section):
    """The endpoints under `/api/inference`."""

    vision_model: Annotated[str, Field(description="describes images where a request names no model")] = (
        "llmproxy/vision"
    )


class Admin(Section):
    enabled: bool = True
    token: SecretField | None = None


class Config(Section):
    """The whole file."""

    server: Server = Server()
    providers: dict[str, Provider] = {}
    local: Local = Local()
    aliases: dict[str, str] = {}
    pools: dict[str, Pool] = {}
    believed_free: tuple[str, ...] = ()
    cost_observed_free_tier: tuple[str, ...] = ()
    model_reasoning: dict[str, Tier] = {}
    model_capabilities: dict[str, tuple[Capability, ...]] = {}
    model_context: dict[str, Annotated[int, Field(gt=0)]] = {}
    model_rates: dict[str, dict[RateUnit, tuple[NotNegative, NotNegative]]] = {}
    free_limits: dict[str, FreeLimit] = {}
    routing: Routing = Routing()
    state: State = State()
    scrape: Scrape = Scrape()
    inference: Inference = Inference()
    admin: Admin = Admin()

    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was accepted but has no effect, a line each."""
        return self._warnings

    def with_server(self, server: Server) -> Config:
        """This configuration with another `server` part, as command-line flags make it."""
        changed = self.model_copy(update={"server": server})
        changed._warnings = self._warnings
        return changed

    def with_strict_start(self) -> Config:
        """This configuration, where no local model may be missing at the start."""
        changed = self.model_copy(update={"local": self.local.model_copy(update={"warm_up": "strict"})})
        changed._warnings = self._warnings
        return changed

    def with_state(self, url: str) -> Config:
        """This configuration with its state elsewhere; raises `ConfigError`."""
        try:
            changed = self.model_copy(update={"state": State(url=url)})
        except ValidationError as error:
            raise ConfigError(f"--state: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
        changed._warnings = self._warnings
        return changed

    def filled(self, values: Mapping[str, Mapping[str, Any]]) -> Config:
        """This configuration with `values`, by section and field, where it says nothing; raises `ConfigError`."""
        sections: dict[str, Section] = {}
        for name, fields in values.items():
            section: Section = getattr(self, name)
            said = {field: getattr(section, field) for field in section.model_fields_set}
            try:
                sections[name] = type(section).model_validate({**fields, **said})
            except ValidationError as error:
                raise ConfigError(f"the environment: {name}." + "; ".join(map(_problem, error.errors()))) from error
        changed = self.model_copy(update=sections)
        changed._warnings = self._warnings
        return changed

    @model_validator(mode="after")
    def _no_reserved_names(self) -> Config:
        for name in self.providers:
            if name in RESERVED_NAMES or "/" in name or "__" in name or not name:
                raise ValueError(f"providers.{name}: the name is reserved or holds '/' or '__'")
        for name in self.pools:
            if name in RESERVED_NAMES or not name:
                raise ValueError(f"pools.{name}: the name is reserved")
        return self


def default_path() -> Path:
    """`$LLMPROXY_CONFIG`, else `~/.config/llmproxy/config.json`."""
    named = os.environ.get("LLMPROXY_CONFIG")
    return Path(named).expanduser() if named else Path.home() / ".config" / "llmproxy" / "config.json"


def parse(data: Any, *, origin: str = "config") -> Config:
    """Validate a decoded file; raises `ConfigError` whose message lists `path: reason` for each wrong field."""
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: must be a JSON object")
    data, warnings = _without_retired(data)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + "; ".join(map(_problem, error.errors()))) from error
    config._warnings = tuple(warnings)
    return config


def load(path: Path) -> Config:
    """Read and validate a file; raises `ConfigError` when it is missing, unreadable, not JSON, or wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        data = json.loads(text, object_pairs_hook=_no_repeats)
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from error
    return parse(data, origin=str(path))


def save(path: Path, data: Mapping[str, Any]) -> None:
    """Write a file atomically with mode 0600; a crash leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen and not key.startswith("_"):
            raise ValueError(f"the key {key!r} is there twice")
        seen[key] = value
    return seen


def _without_retired(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    warnings: list[str] = []
    kept = dict(data)
    if isinstance(kept.get("known_free"), list):
        known = kept.pop("known_free")
        if isinstance(believed := kept.get("believed_free", []), list):
            kept["believed_free"] = [*believed, *known]
        warnings.append("known_free is now called believed_free")
    for section, keys in _RETIRED.items():
        part = kept if not section else dict(kept[section]) if isinstance(kept.get(section), dict) else {}
        found = [key for key in keys if part.pop(key, None) is not None]
        warnings += [f"{section + '.' if section else ''}{key} has no effect any more" for key in found]
        if section and section in kept and isinstance(kept[section], dict):
            kept[section] = part
    for mapping in (
        "free_limits",
        "model_reasoning",
        "model_capabilities",
        "model_context",
        "model_rates",
        "aliases",
        "providers",
        "pools",
    ):
        if isinstance(kept.get(mapping), dict):
            kept[mapping] = {key: value for key, value in kept[mapping].items() if not key.startswith("_")}
    return kept, warnings


def _problem(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key"
    return f"{path}: {message}" if path else message
