"""Every provider of the catalog can be used as soon as its key is there; what is missing is told."""

from __future__ import annotations

import re

import pytest

from llmproxy.core.config import Config, Provider
from llmproxy.core.env import Secret, references
from llmproxy.core.types import CAPABILITIES, Model
from llmproxy.routing.catalog import Catalog, Offer
from providers.catalog import NotUsable, Settings, catalog, resolve

ENTRIES = catalog()


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of any provider is set."""
    for entry in ENTRIES.values():
        for name in (*entry.api_key_env, *references(entry.base_url + (entry.models_url or ""))):
            monkeypatch.delenv(name, raising=False)


def provider(**fields: object) -> Provider:
    return Provider.model_validate({"base_url": "http://h/v1", **fields})


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_resolves(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its variables set, each provider is usable."""
    entry = ENTRIES[name]
    for variable in (*entry.api_key_env[:1], *references(entry.base_url + (entry.models_url or ""))):
        monkeypatch.setenv(variable, "value-of-it")
    settings = resolve(name, None)
    assert re.fullmatch(r"https?://[^${}\s]+[^/]", settings.base_url)
    assert re.fullmatch(r"https?://[^${}\s]+", settings.models_url)
    assert len(settings.keys) == bool(entry.api_key_env)
    assert settings.exposed


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_says_what_is_missing(name: str) -> None:
    """Without its key, a provider that needs one names the variable; the others are usable as they are."""
    entry = ENTRIES[name]
    needed = references(entry.base_url + (entry.models_url or ""))
    if needed:
        expected = f"set {needed[0]}"
    elif entry.key_required:
        expected = f"set {entry.api_key_env[0]}"
    else:
        assert resolve(name, None).keys == ()
        return
    with pytest.raises(NotUsable, match=re.escape(expected)):
        resolve(name, None)


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_every_entry_is_sound(name: str) -> None:
    """Ids are names, capabilities are known words, windows are sizes."""
    entry = ENTRIES[name]
    assert re.fullmatch(r"[a-z0-9-]+", name)
    assert name not in ("local", "llmproxy")
    for _, tags in entry.facts.capabilities:
        assert tags <= CAPABILITIES
    assert all(size > 0 for _, size in entry.facts.context_tokens)
    assert not set("*?[") & set("".join(entry.known_models))


def test_the_globs_of_the_catalog_match() -> None:
    """What the catalog says is free is free: a model made from each of its globs is in the free pool."""
    lost = []
    for name, entry in ENTRIES.items():
        for glob in entry.free_models:
            model = Model(name, glob.replace("*", "x").replace("?", "x"))
            found = Catalog([Offer(name, (model,), facts=entry.facts)], Config()).models[0]
            if not found.free:
                lost.append(f"{name}: {glob}")
    assert lost == []


def test_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider's usual variables are looked at in order; its key stays a reference."""
    first, second = ENTRIES["github"].api_key_env[:2]
    monkeypatch.setenv(second, "two")
    assert [key.reveal() for key in resolve("github", None).keys] == ["two"]
    monkeypatch.setenv(first, "one")
    (key,) = resolve("github", Provider()).keys
    assert (key.reveal(), key.reference) == ("one", "${" + first + "}")


def test_keys_that_are_written_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the catalog is not looked at when the configuration holds keys."""
    monkeypatch.setenv("GROQ_API_KEY", "from-environment")
    keys = resolve("groq", Provider(api_key=Secret("a"), api_keys=(Secret("b"), Secret("a")))).keys
    assert [key.reveal() for key in keys] == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({}, []),
        ({"api_key": "a"}, ["a"]),
        ({"api_keys": ["a", "b", "a"]}, ["a", "b"]),
        ({"api_key": "c", "api_keys": ["a"]}, ["c", "a"]),
        ({"api_keys": ["${TEST_UNSET_KEY}", "b"]}, ["b"]),
        ({"api_key": ""}, []),
    ],
)
def test_keys(fields: dict[str, object], keys: list[str]) -> None:
    """Each key is a credential, once; references to unset variables are none as long as another key is left."""
    assert [key.reveal() for key in resolve("mine", provider(**fields)).keys] == keys


@pytest.mark.parametrize(
    ("name", "fields", "says"),
    [
        ("mine", {"api_key": "${TEST_UNSET_KEY}"}, "set TEST_UNSET_KEY"),
        ("mine", {"api_keys": ["${TEST_UNSET_A}", "${TEST_UNSET_B}"]}, "set TEST_UNSET_A or TEST_UNSET_B"),
        ("groq", {"api_key": "${TEST_UNSET_KEY}"}, "set TEST_UNSET_KEY"),
        ("mine", {"base_url": "http://${TEST_UNSET_HOST}/v1"}, "set TEST_UNSET_HOST"),
        ("mine", {"headers": {"x": "${TEST_UNSET_HEADER}"}}, "set TEST_UNSET_HEADER"),
        ("mine", {"proxy": "http://${TEST_UNSET_PROXY}"}, "set TEST_UNSET_PROXY"),
        ("mine", {"models_url": "http://${TEST_UNSET_LIST}"}, "set TEST_UNSET_LIST"),
        ("mine", {"enabled": False}, "enabled: false"),
        ("groq", {"enabled": False}, "enabled: false"),
        ("mine", {"base_url": None}, "set providers.mine.base_url"),
    ],
)
def test_what_is_missing(name: str, fields: dict[str, object], says: str) -> None:
    """What a person has to do to use a provider is told in words."""
    with pytest.raises(NotUsable, match=re.escape(says)):
        resolve(name, provider(**fields))


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/v1", "http://[::1/v1", "http://host:port/v1"])
def test_a_url_that_is_none(url: str) -> None:
    """A base_url that cannot be read is told like anything else that is missing."""
    with pytest.raises(NotUsable, match="base_url"):
        resolve("mine", provider(base_url=url))


def test_what_is_written_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of the configuration replace those of the catalog; headers are merged; what is left out stays."""
    monkeypatch.setenv("TEST_LLMPROXY_HOST", "example.test")
    fields = {
        "base_url": "http://${TEST_LLMPROXY_HOST}/v1/",
        "api_key": "k",
        "models_url": "http://lists.test/all",
        "models_id_field": "slug",
        "models_keep_task": "chat",
        "model_filter": ["a"],
        "headers": {"x-a": "${TEST_LLMPROXY_HOST}"},
        "proxy": "http://proxy:3128",
        "expose_to_virtual_models": False,
    }
    settings = resolve("groq", Provider.model_validate(fields))
    assert (settings.base_url, settings.models_url) == ("http://example.test/v1", "http://lists.test/all")
    assert (settings.models_id_field, settings.models_keep_task, settings.model_filter) == ("slug", "chat", ("a",))
    assert (settings.headers, settings.proxy, settings.exposed) == ({"x-a": "example.test"}, "http://proxy:3128", False)
    assert settings.quirks == ENTRIES["groq"].quirks


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:11434/v1", True),
        ("http://127.0.0.1:8000", True),
        ("http://127.1.2.3/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://user:pass@localhost/v1", True),
        ("http://192.168.1.5:8000/v1", False),
        ("https://api.example.com/v1", False),
        ("https://localhost.example.com/v1", False),
        pytest.param(
            "https://127.example.com/v1",
            False,
        ),
    ],
)
def test_servers_on_this_machine_are_free(url: str, here: bool) -> None:
    """An unknown provider on a loopback address costs nothing; anywhere else it may."""
    settings: Settings = resolve("mine", provider(base_url=url))
    assert (settings.on_this_machine, settings.facts.all_free) == (here, here)
