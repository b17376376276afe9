"""The configuration is read strictly, written whole or not at all, and gives no secret away."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import config
from llmproxy.core.config import Config, Provider, Server
from llmproxy.core.env import Secret
from llmproxy.core.errors import ConfigError
from llmproxy.core.types import CAPABILITIES, TIERS
from providers.catalog import resolve
from tests.core.properties import quick

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.json"
PREDECESSOR = ROOT / "tests" / "data" / "predecessor_config.json"
KEY = "sk-live-0123456789abcdef"

names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in config.RESERVED_NAMES)
words = st.from_regex(r"[A-Za-z0-9:/.@-]{1,20}", fullmatch=True)
crons = st.sampled_from(["17 4 * * *", "*/15 * * * *", "0 0 1 1 0", "5 0,12 * 2-4 *"])
references = names.map(lambda name: "${" + name.upper().replace("-", "_") + "}")
seconds = st.floats(min_value=0.001, max_value=1e6)
rates = st.tuples(*[st.floats(min_value=0, max_value=1e6)] * 2).map(list)
counts = st.integers(min_value=0, max_value=10**9)
tiers = st.sampled_from(TIERS)
capabilities = st.lists(st.sampled_from(sorted(CAPABILITIES)), max_size=3)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects in which each field may be missing."""
    return st.fixed_dictionaries({}, optional=fields)


def some(values: st.SearchStrategy[Any], keys: st.SearchStrategy[str] = words) -> st.SearchStrategy[dict[str, Any]]:
    """Small mappings."""
    return st.dictionaries(keys, values, max_size=3)


providers = optional(
    base_url=words,
    api_key=references,
    api_keys=st.lists(references, max_size=2),
    protocol=st.sampled_from(["openai", "anthropic", "gemini"]),
    model_filter=st.none() | st.lists(words, max_size=2),
    models_url=st.none() | words,
    models_id_field=words,
    models_keep_task=st.none() | words,
    headers=some(words),
    proxy=st.none() | words,
    enabled=st.booleans(),
    expose_to_virtual_models=st.booleans(),
)
where = optional(
    capabilities=capabilities,
    free=st.booleans(),
    local=st.none() | st.booleans(),
    providers=st.lists(names, max_size=2),
    models=st.lists(words, max_size=2),
    reasoning=tiers,
    min_context=counts,
    max_price=st.none() | st.floats(min_value=0, max_value=1e4),
)
limits = optional(
    requests_per_minute=st.none() | counts,
    requests_per_day=st.none() | counts,
    tokens_per_minute=st.none() | counts,
    tokens_per_day=st.none() | counts,
    reset=st.sampled_from([None, "UTC", "America/Los_Angeles", "rolling", "minute", "bucket"]),
    usd_once=st.none() | st.floats(min_value=0, max_value=1e4),
    concurrency=st.none() | counts,
    shared=st.booleans(),
)
configs = optional(
    _note=words,
    server=optional(
        host=words,
        port=st.integers(0, 65535),
        log_level=st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR"]),
        api_keys=st.lists(references, max_size=2),
        body_limit_mb=seconds,
        deadline=seconds,
        grace=seconds,
        _note=words,
    ),
    providers=some(providers, names),
    local=optional(models=st.lists(words, max_size=2), engine=st.sampled_from(["process", "ray"])),
    aliases=some(words),
    pools=some(
        optional(where=where, order=st.sampled_from(["best", "fastest", "cheapest", "round_robin", "as_listed"])),
        names,
    ),
    believed_free=st.lists(words, max_size=2),
    cost_observed_free_tier=st.lists(words, max_size=2),
    model_reasoning=some(tiers),
    model_capabilities=some(capabilities),
    model_context=some(st.integers(1, 10**7)),
    model_rates=some(st.dictionaries(st.sampled_from(["neurons", "credits", "usd"]), rates, max_size=2)),
    free_limits=some(limits),
    routing=optional(
        fallbacks=st.booleans(),
        max_attempts=st.integers(1, 100),
        hedge_after=st.none() | seconds,
        delivery=st.sampled_from(["stream", "whole"]),
    ),
    state=optional(url=st.sampled_from(["sqlite", "memory"])),
    scrape=optional(schedule=st.none() | crons, on_startup=st.booleans(), sources=st.none() | st.lists(words)),
    admin=optional(enabled=st.booleans(), token=st.none() | references),
)


@quick
@given(configs)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    """A configuration that was parsed, written as JSON and parsed again is the same."""
    parsed = config.parse(data)
    assert config.parse(json.loads(parsed.model_dump_json())) == parsed


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "config: must be a JSON object"),
        ({"sever": {}}, "sever: unknown key"),
        ({"server": {"prot": 1}}, "server.prot: unknown key"),
        ({"server": {"port": 70000}}, "server.port: "),
        ({"server": {"port": "web"}}, "server.port: "),
        ({"server": {"log_level": "LOUD"}}, "server.log_level: "),
        ({"server": {"deadline": 0}}, "server.deadline: "),
        ({"server": {"api_keys": [7]}}, "server.api_keys.0: must be a string"),
        ({"server": []}, "server: "),
        ({"providers": []}, "providers: "),
        ({"providers": {"groq": {"base_uri": "x"}}}, "providers.groq.base_uri: unknown key"),
        ({"providers": {"groq": {"base_url": 7}}}, "providers.groq.base_url: "),
        ({"providers": {"groq": {"protocol": "soap"}}}, "providers.groq.protocol: "),
        ({"providers": {"groq": {"api_key": ["a"]}}}, "providers.groq.api_key: must be a string"),
        ({"providers": {"groq": {"model_filter": "llama"}}}, "providers.groq.model_filter: "),
        ({"providers": {"groq": {"headers": {"x": 1}}}}, "providers.groq.headers.x: "),
        ({"providers": {"local": {}}}, "providers.local: the name is reserved"),
        ({"providers": {"llmproxy": {}}}, "providers.llmproxy: the name is reserved"),
        ({"providers": {"a/b": {}}}, "providers.a/b: "),
        ({"providers": {"a__b": {}}}, "providers.a__b: "),
        ({"providers": {"": {}}}, "providers.: "),
        ({"local": {"engine": "vllm"}}, "local.engine: "),
        ({"aliases": {"a": 1}}, "aliases.a: "),
        ({"pools": {"p": {"where": {"fre": True}}}}, "pools.p.where.fre: unknown key"),
        ({"pools": {"p": {"where": {"capabilities": ["fly"]}}}}, "pools.p.where.capabilities.0: unknown capability"),
        ({"pools": {"p": {"where": {"max_price": -1}}}}, "pools.p.where.max_price: "),
        ({"pools": {"p": {"order": "random"}}}, "pools.p.order: "),
        ({"believed_free": "groq/llama"}, "believed_free: "),
        ({"model_reasoning": {"groq/llama": "deepest"}}, "model_reasoning.groq/llama: "),
        ({"model_capabilities": {"groq/llama": ["tools", "fly"]}}, "model_capabilities.groq/llama.1: "),
        ({"model_context": {"groq/llama": 0}}, "model_context.groq/llama: "),
        ({"model_rates": {"a/m": {"neurons": [1]}}}, "model_rates.a/m.neurons"),
        ({"model_rates": {"a/m": {"euros": [1, 2]}}}, "model_rates.a/m.euros"),
        ({"free_limits": {"groq/llama": {"rpm": 3}}}, "free_limits.groq/llama.rpm: unknown key"),
        ({"free_limits": {"groq/llama": {"requests_per_day": -1}}}, "free_limits.groq/llama.requests_per_day: "),
        ({"routing": {"max_attempts": 0}}, "routing.max_attempts: "),
        ({"routing": {"delivery": "pigeon"}}, "routing.delivery: "),
        ({"state": {"url": None}}, "state.url: "),
        ({"scrape": {"on_startup": "maybe"}}, "scrape.on_startup: "),
        ({"scrape": {"schedule": "every day"}}, "scrape.schedule: "),
        ({"scrape": {"schedule": "0 0 31 2 *"}}, "scrape.schedule: "),
        ({"scrape": {"timezone": "Mars/Olympus"}}, "scrape.timezone: "),
        ({"admin": {"token": 1}}, "admin.token: must be a string"),
    ],
)
def test_a_wrong_field_is_named(data: Any, problem: str) -> None:
    """The message begins with the path of the wrong field, as it stands in the file."""
    with pytest.raises(ConfigError) as caught:
        config.parse(data)
    assert problem in caught.value.message


def test_all_wrong_fields_are_named() -> None:
    """Two mistakes are told at once."""
    with pytest.raises(ConfigError, match=r"server\.port: .*; routing\.max_attempts: "):
        config.parse({"server": {"port": -1}, "routing": {"max_attempts": 0}})


@pytest.mark.parametrize(
    "data",
    [
        {"_note": 1},
        {"server": {"_why": ["x"]}},
        {"providers": {"groq": {"_note": "x"}}},
        {"providers": {"_note": "x"}},
        {"free_limits": {"_note": "x"}},
        {"model_reasoning": {"_note": "x"}},
        {"model_capabilities": {"_note": "x"}},
        {"model_context": {"_note": "x"}},
        {"aliases": {"_note": "x"}},
        {"pools": {"p": {"_note": "x", "where": {"_note": "x"}}}},
        pytest.param(
            {"pools": {"_note": "x"}},
        ),
    ],
)
def test_notes_are_passed_over(data: dict[str, Any]) -> None:
    """A key that begins with an underscore may stand in every object and changes nothing."""
    without = config.parse({})
    parsed = config.parse(data)
    assert parsed.server == without.server
    assert "_note" not in parsed.model_dump_json()


@pytest.mark.parametrize("believed", [None, "groq/llama", 7])
def test_a_wrong_list_beside_known_free(believed: Any) -> None:
    """A wrong believed_free is named whether the old field is there or not."""
    with pytest.raises(ConfigError, match="believed_free: "):
        config.parse({"known_free": ["a/b"], "believed_free": believed})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("// {}", "not JSON"),
        ('{"server": {"port": 1, "port": 2}}', "the key 'port' is there twice"),
        ('{"server": {}, "server": {}}', "the key 'server' is there twice"),
        ("[1]", "must be a JSON object"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """A file that is no JSON, or says a key twice, is refused with its path and the reason."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(path) in caught.value.message
    assert problem in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder, and bytes that are no text are refused in words."""
    garbage = tmp_path / "garbage.json"
    garbage.write_bytes(b"\xff\xfe\x00")
    for path, problem in ((tmp_path / "none.json", "no such file"), (tmp_path, "cannot be read"), (garbage, "cannot")):
        with pytest.raises(ConfigError, match=problem):
            config.load(path)


def test_notes_may_be_there_twice(tmp_path: Path) -> None:
    """Only real keys must be unique."""
    path = tmp_path / "config.json"
    path.write_text('{"_note": 1, "_note": 2}')
    assert config.load(path) == Config()


def test_a_key_is_read_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`${VAR}` needs no variable while the file is read, follows the environment later, and is dumped as written."""
    monkeypatch.delenv("TEST_LLMPROXY_KEY", raising=False)
    data = {"providers": {"mine": {"base_url": "http://h/v1", "api_key": "${TEST_LLMPROXY_KEY}"}}}
    parsed = config.parse(data)
    for value in ("first-key", "second-key"):
        monkeypatch.setenv("TEST_LLMPROXY_KEY", value)
        (secret,) = resolve("mine", parsed.providers["mine"]).keys
        assert secret.reveal() == value
        assert value not in parsed.model_dump_json()
        assert value not in repr(parsed)
    assert json.loads(parsed.model_dump_json())["providers"]["mine"]["api_key"] == "${TEST_LLMPROXY_KEY}"


SECRETS = {
    "server": {"api_keys": [KEY]},
    "providers": {"groq": {"api_key": KEY, "api_keys": [KEY, KEY + "2"]}},
    "admin": {"token": KEY},
}


@pytest.mark.parametrize(
    "show", [repr, str, Config.model_dump_json, lambda parsed: str(parsed.model_dump(mode="json"))]
)
def test_secrets_are_masked(show: Any) -> None:
    """No way of showing a configuration shows a key."""
    shown = show(config.parse(SECRETS))
    assert KEY not in shown
    assert KEY[4:20] not in shown


def test_an_error_shows_no_secret() -> None:
    """A key of the wrong type does not appear in the message about it."""
    with pytest.raises(ConfigError) as caught:
        config.parse({"providers": {"groq": {"api_key": [KEY]}}})
    assert KEY not in caught.value.message


def test_keys_count_once() -> None:
    """`api_key` and `api_keys` together are one list without repetition, `api_key` first."""
    provider = config.parse({"providers": {"p": {"api_key": "b", "api_keys": ["a", "b"]}}}).providers["p"]
    assert provider.keys == (Secret("b"), Secret("a"))
    assert Provider().keys == ()


def test_saving_keeps_what_was_given(tmp_path: Path) -> None:
    """A saved file is private, in a folder that is made for it, and reads back as it was, references included."""
    path = tmp_path / "new" / "config.json"
    data = {"providers": {"groq": {"api_key": "${GROQ_API_KEY}"}}, "aliases": {"é": "groq/x"}}
    config.save(path, data)
    assert json.loads(path.read_text(encoding="utf-8")) == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert config.load(path) == config.parse(data)
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"]


class PowerCut(Mapping[str, Any]):
    """An object whose writing ends in the middle."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Any:
        raise KeyboardInterrupt

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("broken", [{"a": "x" * 100_000, "b": object()}, {"a": "x" * 100_000, "b": PowerCut()}])
def test_a_crash_keeps_the_old_file(tmp_path: Path, broken: dict[str, Any]) -> None:
    """When writing fails in the middle, the old file is whole, and nothing is left beside it."""
    path = tmp_path / "config.json"
    config.save(path, {"server": {"port": 1}})
    with pytest.raises((TypeError, KeyboardInterrupt)):
        config.save(path, broken)
    assert config.load(path).server.port == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.json"]


def test_an_old_file_becomes_private(tmp_path: Path) -> None:
    """Saving over a file that others could read makes it private."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(0o644)
    config.save(path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_path_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`$LLMPROXY_CONFIG` names the file, else it is in the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLMPROXY_CONFIG", "~/mine.json")
    assert config.default_path() == tmp_path / "mine.json"
    monkeypatch.delenv("LLMPROXY_CONFIG")
    assert config.default_path() == tmp_path / ".config" / "llmproxy" / "config.json"


def test_flags_keep_the_warnings() -> None:
    """A configuration with another server part still says what in the file has no effect."""
    parsed = config.parse({"fusion": {"x": 1}, "server": {"stream_timeout": 300}})
    changed = parsed.with_server(Server(port=1))
    assert changed.server.port == 1
    assert changed.warnings == parsed.warnings
    assert [line.split()[0] for line in parsed.warnings] == ["fusion", "server.stream_timeout"]


def test_the_predecessors_file_loads_unchanged() -> None:
    """A file of the predecessor is read as it is; what has no effect any more is told, not refused."""
    parsed = config.load(PREDECESSOR)
    assert set(parsed.providers) == {"google", "groq", "openrouter", "cloudflare-workers", "zen", "ollama"}
    assert parsed.providers["openrouter"].model_filter == ("*:free",)
    assert len(parsed.providers["openrouter"].keys) == 2
    assert not parsed.providers["zen"].enabled
    assert parsed.believed_free[0] == "groq/llama-3.3-70b-versatile"
    assert parsed.believed_free[-1] == "groq/llama-3.1-8b-instant"
    assert parsed.cost_observed_free_tier == ("google/gemini-2.5-pro",)
    assert parsed.model_reasoning["openrouter/deepseek/deepseek-r1:free"] == "deep"
    assert set(parsed.free_limits) == {
        "groq/llama-3.3-70b-versatile", "google/gemini-2.5-flash", "zen/big-pickle"
    }  # fmt: skip
    assert parsed.free_limits["google/gemini-2.5-flash"].tokens_per_day is None
    assert parsed.admin.token == Secret("${LLMPROXY_ADMIN_TOKEN}")
    assert len(parsed.warnings) == 2


def test_the_example_is_valid_and_whole() -> None:
    """config.example.json loads without a warning and shows every field of every section."""
    parsed = config.load(EXAMPLE)
    assert parsed.warnings == ()
    data = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert set(Config.model_fields) == {key for key in data if not key.startswith("_")}
    for name in ("server", "local", "routing", "state", "scrape", "admin"):
        section = Config.model_fields[name].annotation
        assert section is not None
        assert set(section.model_fields) == {key for key in data[name] if not key.startswith("_")}
    for entries, section in (
        (data["providers"], Provider),
        ({name: pool["where"] for name, pool in data["pools"].items()}, config.Where),
    ):
        shown = {key for name, entry in entries.items() if not name.startswith("_") for key in entry}
        assert set(section.model_fields) <= shown, section
    limits = {key for name, entry in data["free_limits"].items() if not name.startswith("_") for key in entry}
    amounts = {name for name in config.FreeLimit.model_fields if re.search("_per_|_once|^max_", name)}
    assert set(config.FreeLimit.model_fields) - amounts <= limits
    assert len(amounts & limits) > 5


def test_the_example_shows_the_defaults() -> None:
    """The values of the plain sections in the example are those that hold without them."""
    parsed = config.load(EXAMPLE)
    default = Config()
    for name in ("server", "local", "routing", "state", "scrape"):
        assert getattr(parsed, name) == getattr(default, name), name


def test_the_example_holds_no_secret() -> None:
    """Every key in the example is a reference."""
    parsed = config.load(EXAMPLE)
    secrets = [secret for provider in parsed.providers.values() for secret in provider.keys]
    assert all(secret.reference.startswith("${") for secret in [*secrets, parsed.admin.token] if secret)


@pytest.mark.parametrize("data", [{"providers": {"free": {"base_url": "http://h/v1"}}}, {"pools": {"free": {}}}])
def test_promises_cannot_be_renamed(data: dict[str, Any]) -> None:
    """Nobody can call a provider or a pool of his own `free`: `llmproxy/free` never leaves the free tier."""
    with pytest.raises(ConfigError, match="free"):
        config.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        {"providers": {"p": {"headers": {"Authorization": f"Bearer {KEY}"}}}},
        {"providers": {"p": {"proxy": f"http://user:{KEY}@proxy:3128"}}},
        {"state": {"url": f"redis://:{KEY}@host:6379/0"}},
        {"admin": {"token": KEY + "${SUFFIX}"}},
    ],
)
def test_secrets_in_other_fields_are_masked(data: dict[str, Any]) -> None:
    """A key in a header, or a password in a URL, is not shown either."""
    assert KEY not in config.parse(data).model_dump_json()
