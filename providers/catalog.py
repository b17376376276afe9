"""The data of `catalog.json` as typed values, and one provider's settings: the catalog under what the user wrote."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from yarl import URL

from llmproxy.core.config import FreeLimit, Provider
from llmproxy.core.env import MissingVariable, Secret, expand
from llmproxy.core.types import Model, Rate
from llmproxy.routing.capabilities import Facts
from llmproxy.routing.declared import Rule, rules_of_catalog
from llmproxy.routing.findings import Findings, rule_with

_NONE = Findings()
# Fields without which the answer is the same: whoever does not know them is no worse a candidate.
_HINTS = frozenset({"user", "metadata", "store", "service_tier", "prediction", "safety_identifier"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One provider of the catalog; see `docs/providers.md` for what the fields mean."""

    id: str
    name: str
    base_url: str
    protocol: str = "openai"
    api_key_env: tuple[str, ...] = ()
    key_required: bool = True
    key_url: str | None = None
    local: bool = False
    models_url: str | None = None
    models_id_field: str = "id"
    models_keep_task: str | None = None
    headers: Mapping[str, str] | None = None
    quirks: Mapping[str, Any] | None = None
    retired: bool = False
    free_note: str = ""
    free_models: tuple[str, ...] = ()
    free_limits: tuple[Rule, ...] = ()
    facts: Facts = Facts()

    @property
    def known_models(self) -> tuple[str, ...]:
        """Ids that work whether the provider's list has them or not."""
        listed = tuple(glob for glob in self.free_models if not set(glob) & set("*?["))
        return listed + tuple((self.quirks or {}).get("models_extra", ()))

    @property
    def is_twin(self) -> bool:
        """Whether it is another provider's account under a second address, which nobody asked for by its key alone."""
        return bool((self.quirks or {}).get("shares_limits_with")) and "${" not in self.base_url

    @property
    def exact_ids(self) -> frozenset[str]:
        """Every id that the entry names in full."""
        named = [*self.known_models, *(glob for glob, _ in self.facts.capabilities + self.facts.context_tokens)]
        named += [glob for rule in self.free_limits for glob in rule.globs]
        return frozenset(name for name in named if not set(name) & set("*?["))

    @property
    def key_variable(self) -> str | None:
        """The first of its usual variables that is set."""
        return next((name for name in self.api_key_env if os.environ.get(name)), None)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything one provider needs to be called; `keys` is empty for a provider without keys."""

    name: str
    base_url: str
    models_url: str
    protocol: str
    keys: tuple[Secret, ...]
    headers: Mapping[str, str]
    proxy: str | None
    models_id_field: str
    models_keep_task: str | None
    model_filter: tuple[str, ...] | None
    quirks: Mapping[str, Any]
    known_models: tuple[str, ...]
    facts: Facts
    exposed: bool
    on_this_machine: bool


class NotUsable(Exception):
    """A provider lacks something; the message says what, in words for a person."""


@lru_cache(maxsize=1)
def catalog() -> Mapping[str, Entry]:
    """The whole catalog by provider id."""
    data = json.loads(resources.files("providers").joinpath("catalog.json").read_text("utf-8"))
    return {name: _entry(name, fields) for name, fields in data.items()}


def resolve(name: str, written: Provider | None) -> Settings:
    """What the user wrote over what the catalog knows; raises `NotUsable`."""
    entry = catalog().get(name)
    written = written or Provider()
    if not written.enabled:
        raise NotUsable("disabled by enabled: false")
    try:
        base_url = expand(written.base_url or (entry.base_url if entry else "")).rstrip("/")
        headers = {
            key: expand(value) for key, value in {**((entry and entry.headers) or {}), **written.headers}.items()
        }
        proxy = expand(written.proxy) if written.proxy else None
        models_url = expand(written.models_url or (entry and entry.models_url) or "") or f"{base_url}/models"
    except MissingVariable as missing:
        raise NotUsable(f"set {missing.name}") from missing
    if not base_url:
        raise NotUsable(f"set providers.{name}.base_url")
    for field, url in (("base_url", base_url), ("models_url", models_url)):
        try:
            URL(url)
        except ValueError as error:
            raise NotUsable(f"providers.{name}.{field} is no URL: {error}") from error
    protocol = written.protocol or (entry.protocol if entry else "openai")
    keys = _keys(name, written, entry)
    return Settings(
        name=name,
        base_url=base_url,
        models_url=models_url,
        protocol=protocol,
        keys=keys,
        headers=headers,
        proxy=proxy,
        models_id_field=written.models_id_field or (entry.models_id_field if entry else "id"),
        models_keep_task=written.models_keep_task or (entry.models_keep_task if entry else None),
        model_filter=written.model_filter,
        quirks=(entry.quirks if entry and entry.quirks else {}),
        known_models=entry.known_models if entry else (),
        facts=entry.facts if entry else Facts(all_free=_is_loopback(base_url)),
        exposed=written.expose_to_virtual_models,
        on_this_machine=_is_loopback(base_url),
    )


def rule_of(model: Model, written: Mapping[str, FreeLimit], findings: Findings = _NONE) -> Rule | None:
    """The free limits that are known of a model: in the configuration, else as found, else in the catalogue."""
    entry = catalog().get(model.source)
    return rule_with(model, written, findings, entry.free_limits if entry is not None else ())


def is_unmeasured(model: Model, written: Mapping[str, FreeLimit], findings: Findings = _NONE) -> bool:
    """Whether it is free at a provider of the catalogue, and no limit of it is written down anywhere."""
    entry = catalog().get(model.source)
    return model.free and entry is not None and not entry.local and rule_of(model, written, findings) is None


def reserves_output(model: Model) -> bool:
    """Whether its provider debits `max_tokens` ahead."""
    entry = catalog().get(model.source)
    return bool(entry is not None and entry.quirks and entry.quirks.get("reserves_max_tokens"))


def _keys(name: str, written: Provider, entry: Entry | None) -> tuple[Secret, ...]:
    """The usable keys, each once; a reference to an unset variable is no key."""
    usable: list[Secret] = []
    missing: list[str] = []
    for secret in written.keys:
        try:
            if secret.reveal():
                usable.append(secret)
        except MissingVariable as error:
            missing.append(error.name)
    if not usable and not written.keys and entry is not None and (variable := entry.key_variable):
        usable.append(Secret("${" + variable + "}"))
    if not usable and (missing or (entry is not None and entry.key_required)):
        variables = missing or list(entry.api_key_env[:1] if entry else ())
        raise NotUsable(f"set {' or '.join(variables) or f'providers.{name}.api_key'}")
    return tuple(usable)


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    free_models = tuple(fields.get("free_models", ()))
    return Entry(
        id=name,
        name=fields.get("name", name),
        base_url=fields["base_url"],
        protocol=fields.get("protocol", "openai"),
        api_key_env=tuple(fields.get("api_key_env", ())),
        key_required=fields.get("key_required", True),
        key_url=fields.get("key_url"),
        local=fields.get("local", False),
        models_url=fields.get("models_url"),
        models_id_field=fields.get("models_id_field", "id"),
        models_keep_task=fields.get("models_keep_task"),
        headers=fields.get("headers"),
        quirks=fields.get("quirks"),
        retired=fields.get("free", {}).get("kind") == "retired",
        free_note=fields.get("free", {}).get("note", ""),
        free_models=free_models,
        free_limits=rules_of_catalog(
            fields.get("free_limits", ()), fields.get("quirks", {}).get("shares_limits_with", "")
        ),
        facts=Facts(
            free_models=free_models,
            free_suffix=fields.get("free_suffix"),
            all_free=bool(fields.get("local")),
            capabilities=tuple((glob, frozenset(tags)) for glob, tags in fields.get("capabilities", {}).items()),
            context_tokens=tuple(fields.get("context", {}).items()),
            not_chat=tuple(fields.get("quirks", {}).get("not_chat", ())),
            rates=tuple(
                (glob, tuple(Rate(unit, *amounts) for unit, amounts in rates.items()))
                for glob, rates in fields.get("rates", {}).items()
            ),
            refuses=_refused(fields.get("quirks", {})),
            streams=not fields.get("quirks", {}).get("no_stream"),
        ),
    )


def _refused(quirks: Mapping[str, Any]) -> frozenset[str]:
    """The fields that change an answer and that the provider does not honour."""
    only_one = frozenset({"n"} if quirks.get("max_n") == 1 else ())
    return (frozenset(quirks.get("unsupported_parameters", ())) | only_one) - _HINTS


def _is_loopback(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    host = host.rpartition(":")[0] if host.count(":") == 1 else host.partition("]")[0].strip("[")
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
