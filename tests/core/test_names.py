"""One grammar for the names of models and pools; no two readings of one name."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import names
from llmproxy.core.config import Config
from llmproxy.core.names import PoolName
from llmproxy.core.types import TIERS, Model
from llmproxy.routing.catalog import Catalog, Offer
from tests.core.properties import quick

PROVIDERS = ("groq", "openrouter", "z-ai", "meta")
ids = st.from_regex(r"@?[a-z0-9]+([-._:/][a-z0-9]+){0,4}(:free)?", fullmatch=True)
sources = st.sampled_from(PROVIDERS)


@quick
@given(st.lists(st.tuples(sources, ids), min_size=1, max_size=6, unique=True))
def test_every_spelling_resolves(pairs: list[tuple[str, str]]) -> None:
    """Every spelling of a listed model finds it, unless another model is spelled the same; `provider/id` always."""
    offers = [Offer(source, tuple(Model(*pair) for pair in pairs if pair[0] == source)) for source in PROVIDERS]
    catalog = Catalog(offers, Config())
    owners: dict[str, set[tuple[str, str]]] = {}
    for pair in pairs:
        for spelling in names.spellings(*pair):
            owners.setdefault(spelling, set()).add(pair)
    for source, model_id in pairs:
        found = catalog.find(f"{source}/{model_id}")
        assert found is not None
        assert (found.source, found.id) == (source, model_id)
        for spelling in names.spellings(source, model_id):
            found = catalog.find(spelling)
            assert found is not None
            assert (found.source, found.id) in owners[spelling]


@quick
@given(sources, ids)
def test_an_unlisted_model_resolves(source: str, model_id: str) -> None:
    """The spellings that hold the whole id are read without a list."""
    for name in (f"{source}/{model_id}", f"{source}__{model_id}", f"{model_id}__{source}", f"{model_id} ({source})"):
        if name.partition("/")[0] in PROVIDERS and not name.startswith(f"{source}/"):
            continue  # the id of one provider may begin with the name of another one
        assert names.split_model(name, PROVIDERS) == (source, model_id)


@pytest.mark.parametrize(
    ("source", "model_id", "name"),
    [
        ("groq", "llama-3.3-70b-versatile", "groq__llama-3.3-70b-versatile"),
        ("openrouter", "meta-llama/llama-3:free", "openrouter__meta-llama/llama-3:free"),
        ("cloudflare", "@cf/meta/llama-3.1-8b", "cloudflare__@cf_meta/llama-3.1-8b"),
        ("hf", "a/b/c/d", "hf__a_b_c/d"),
    ],
)
def test_listed_names(source: str, model_id: str, name: str) -> None:
    """In the list every slash of an id but the last is an underscore."""
    assert names.listed(source, model_id) == name


@pytest.mark.parametrize(
    "name", ["llama", "nobody/llama", "nobody__llama", "llama (nobody)", "groq/", "groq", "__groq"]
)
def test_names_without_a_known_provider(name: str) -> None:
    """A name that holds no known provider, or nothing beside it, is no model of anyone."""
    assert names.split_model(name, PROVIDERS) is None


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("llmproxy", PoolName()),
        ("llmproxy/auto", PoolName()),
        ("llmproxy/free", PoolName(free=True)),
        ("llmproxy__free", PoolName(free=True)),
        ("llmproxy/local", PoolName(local=True)),
        ("llmproxy__local", PoolName(local=True)),
        ("llmproxy/local/free", PoolName(local=True, free=True)),
        *((f"llmproxy/{tier}", PoolName(tier=tier)) for tier in TIERS),
        *((f"llmproxy/{tier}/free", PoolName(tier=tier, free=True)) for tier in TIERS),
        ("llmproxy__deep/free", PoolName(tier="deep", free=True)),
        ("llmproxy/deep__free", PoolName(tier="deep", free=True)),
        ("llmproxy__deep__free", PoolName(tier="deep", free=True)),
        ("llmproxy/deep/local", PoolName(tier="deep", local=True)),
        *((f"llmproxy/{word}", PoolName(capabilities=frozenset({word}))) for word in names.CAPABILITY_POOLS),
        ("llmproxy/tools/free", PoolName(capabilities=frozenset({"tools"}), free=True)),
        ("llmproxy/groq", PoolName(provider="groq")),
        ("llmproxy__groq", PoolName(provider="groq")),
        ("llmproxy/groq/auto", PoolName(provider="groq")),
        ("llmproxy/groq/free", PoolName(provider="groq", free=True)),
        ("llmproxy/z-ai/deep/free", PoolName(provider="z-ai", tier="deep", free=True)),
        ("llmproxy/groq__vision", PoolName(provider="groq", capabilities=frozenset({"vision"}))),
        ("llmproxy/coder", PoolName(user_pool="coder")),
        ("llmproxy__coder", PoolName(user_pool="coder")),
        ("llmproxy/nobody", None),
        ("llmproxy/deep/standard", None),
        ("llmproxy/free/groq", None),
        ("llmproxy/groq/meta", None),
        ("llmproxy/Free", None),
        ("llmproxy/coder/free", None),
    ],
)
def test_pool_names(name: str, pool: PoolName | None) -> None:
    """Each form of a pool name means one pool; a word that is unknown, or in the wrong place, means none."""
    assert names.is_pool(name)
    assert names.parse_pool(name, PROVIDERS, {"coder"}) == pool


@pytest.mark.parametrize("name", ["llmproxyfree", "llmproxy-free", "groq/llmproxy", "LLMPROXY/free", "auto", "free"])
def test_not_pool_names(name: str) -> None:
    """Only `llmproxy` and what follows it after a separator is a pool."""
    assert not names.is_pool(name)


POOLS = [
    PoolName(provider=provider, tier=tier, capabilities=capabilities, free=free, local=local)
    for provider, tier, capabilities, free, local in itertools.product(
        (None, "groq"),
        (None, *TIERS),
        (frozenset[str](), frozenset({"tools"}), frozenset({"json", "vision"})),
        (False, True),
        (False, True),
    )
    if bool(tier) + len(capabilities) + free + local <= 3
]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_pool_name_reads_back(pool: PoolName) -> None:
    """A pool written as a name means that pool again, with either separator."""
    assert names.parse_pool(str(pool), PROVIDERS) == pool
    assert names.parse_pool(str(pool).replace("/", "__"), PROVIDERS) == pool


@pytest.mark.parametrize(
    ("pattern", "source", "model_id", "fits"),
    [
        ("groq/llama", "groq", "llama", True),
        ("llama", "groq", "llama", True),
        ("groq/*", "groq", "meta/llama", True),
        ("groq/*", "groq2", "llama", False),
        ("openrouter/*:free", "openrouter", "a/b:free", True),
        ("openrouter/*:free", "openrouter", "a/b", False),
        ("*:free", "openrouter", "a/b:free", True),
        ("groq/llama-?", "groq", "llama-3", True),
        ("groq/llama-[34]", "groq", "llama-5", False),
        ("GROQ/llama", "groq", "llama", False),
        ("llam", "groq", "llama", False),
        ("", "groq", "llama", False),
    ],
)
def test_globs(pattern: str, source: str, model_id: str, fits: bool) -> None:
    """A pattern names a model by `provider/id` or by its bare id; `*` crosses slashes, and case counts."""
    assert names.matches((pattern,), source, model_id) is fits


def test_one_provider_is_not_another() -> None:
    """`google/gemini` is the model of the provider google, not one that OpenRouter (for money) calls by that id."""
    config = Config(free_limits={"google/gemini-2.5-flash": {"requests_per_day": 20}})  # type: ignore[dict-item]
    offers = [
        Offer("google", (Model("google", "gemini-2.5-flash"),)),
        Offer("openrouter", (Model("openrouter", "google/gemini-2.5-flash"),)),
    ]
    free = {model.name for model in Catalog(offers, config).models if model.free}
    assert free == {"google/gemini-2.5-flash"}
