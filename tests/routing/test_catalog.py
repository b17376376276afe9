"""What names stand for: models, aliases, pools; and what pools promise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core import names
from llmproxy.core.config import Config
from llmproxy.core.errors import ConfigError, ModelNotFound
from llmproxy.core.types import CAPABILITIES, TIERS, Model
from llmproxy.routing.catalog import Catalog, Offer
from tests.core.properties import quick
from tests.routing.worlds import catalog_of, tags, worlds

WORLD = [
    Model("a", "big", free=True, tier="deep", capabilities=frozenset({"tools"}), context_tokens=131072),
    Model("a", "small", tier="exploratory", lacks=frozenset({"tools"}), context_tokens=4096, price_usd_per_mtok=0.1),
    Model("b", "x/big", free=True, price_usd_per_mtok=3.0),
    Model("b", "dear", price_usd_per_mtok=30.0, tier="deep", capabilities=frozenset({"tools", "vision"})),
    Model("b", "text-embed", free=True),
    Model("local", "tiny", local=True, toy=True, capabilities=frozenset({"tools", "prefill"}), context_tokens=1024),
]


def chosen(name: str, config: dict[str, Any] | None = None, world: list[Model] = WORLD) -> list[str]:
    """The names of the models that a name stands for."""
    selection = catalog_of(world, Config.model_validate(config or {})).select(name)
    return [candidate.model.name for candidate in selection.candidates]


pool_words = st.lists(st.sampled_from(["", "a", "b", *names.POOL_WORDS]), min_size=1, max_size=3)


@quick
@given(worlds, pool_words, st.sampled_from(["/", "__"]))
def test_free_pools_stay_free(world: list[Model], words: list[str], separator: str) -> None:
    """`…/free` holds nothing that costs money, whatever stands before it."""
    catalog = catalog_of(world)
    name = separator.join(["llmproxy", *filter(None, words), "free"])
    if names.parse_pool(name, catalog.offers) is None:
        return
    assert all(one.model.free or one.model.local for one in catalog.select(name).candidates)


@quick
@given(worlds, pool_words, st.sampled_from(["/", "__"]))
def test_local_pools_stay_local(world: list[Model], words: list[str], separator: str) -> None:
    """`…/local` never leaves the machine."""
    catalog = catalog_of(world)
    name = separator.join(["llmproxy", *filter(None, words), "local"])
    if names.parse_pool(name, catalog.offers) is None:
        return
    assert all(one.model.local for one in catalog.select(name).candidates)


@quick
@given(worlds, st.sampled_from(["llmproxy", "llmproxy/auto", "llmproxy/free"]))
def test_auto_costs_nothing(world: list[Model], name: str) -> None:
    """Without a word about money, a pool holds free and local models only, and all of them."""
    expected = {model.name for model in catalog_of(world).models if model.free or model.local}
    assert {one.model.name for one in catalog_of(world).select(name).candidates} == expected


@quick
@given(worlds, tags)
def test_capability_pools_are_never_empty_for_want_of_metadata(world: list[Model], needs: frozenset[str]) -> None:
    """A capability only orders: a pool that names one holds the same models as one that does not."""
    catalog = catalog_of(world)
    everything = {model.name for model in catalog.models}
    for word in names.CAPABILITY_POOLS:
        selection = catalog.select(f"llmproxy/{word}")
        assert {one.model.name for one in selection.candidates} == everything
        flat = [one.model.name for group in selection.groups(needs) for one in group]
        assert sorted(flat) == sorted(everything)


@quick
@given(worlds, st.sampled_from(["a", "b"]))
def test_a_provider_pool_holds_one_provider(world: list[Model], provider: str) -> None:
    """`llmproxy/<provider>` holds all models of that provider and no other."""
    catalog = Catalog([Offer("a", tuple(m for m in world if m.source == "a")), Offer("b")], Config())
    found = {one.model.name for one in catalog.select(f"llmproxy/{provider}").candidates}
    assert found == {model.name for model in catalog.models if model.source == provider}


def test_tiers_hold_what_is_tagged() -> None:
    """A tier pool holds the models of that tier, paid ones too unless `/free` is appended."""
    assert chosen("llmproxy/deep") == ["a/big", "b/dear"]
    assert chosen("llmproxy/deep/free") == ["a/big"]
    assert chosen("llmproxy/b/deep") == ["b/dear"]
    assert chosen("llmproxy/standard") == []


def test_several_keys_are_several_candidates() -> None:
    """A model stands for one candidate per key of its source, whether it is named or in a pool."""
    catalog = catalog_of([Model("a", "m", free=True)], credentials=3)
    for name in ("a/m", "llmproxy/free"):
        assert [one.key for one in catalog.select(name).candidates] == ["a/m", "a/m#1", "a/m#2"]


def test_unexposed_providers() -> None:
    """A provider that is not exposed is in no pool, not even its own, but can be asked by name."""
    own = {"pools": {"mine": {"where": {"providers": ["a"]}}}}
    catalog = catalog_of([Model("a", "m", free=True)], Config.model_validate(own), exposed=False)
    for pool in ("llmproxy", "llmproxy/free", "llmproxy/a", "llmproxy/tools", "llmproxy/mine"):
        assert catalog.select(pool).candidates == ()
    assert [one.model.id for one in catalog.select("a/m").candidates] == ["m"]
    assert catalog.pool_names() == []


@pytest.mark.parametrize("exposed", [False, True])
def test_an_open_source_lends_any_id(exposed: bool) -> None:
    """An id that the list leaves out can be asked for where the source is open, described like any other model."""
    config = Config.model_validate({"believed_free": ["a/*"]})
    found = Catalog([Offer("a", open=True, exposed=exposed)], config).find("a/new/model")
    assert found is not None
    assert (found.id, found.free, found.exposed) == ("new/model", True, exposed)
    with pytest.raises(ModelNotFound):
        Catalog([Offer("a")], config).select("a/new/model")


@pytest.mark.parametrize("name", ["local/tiny", "tiny", "local__tiny"])
def test_local_models_need_no_prefix(name: str) -> None:
    """A local model is found by its bare name too."""
    assert chosen(name) == ["local/tiny"]


def test_aliases() -> None:
    """An alias stands for a model, a pool, or another alias, and wins over a model of the same name."""
    aliases = {"gpt": "b/dear", "any": "llmproxy/deep/free", "twice": "gpt", "tiny": "a/small"}
    config = {"aliases": aliases}
    assert chosen("gpt", config) == ["b/dear"]
    assert chosen("any", config) == ["a/big"]
    assert chosen("twice", config) == ["b/dear"]
    assert chosen("tiny", config) == ["a/small"]
    selection = catalog_of(WORLD, Config.model_validate(config)).select("gpt")
    assert (selection.asked, selection.reason) == ("gpt", "alias of b/dear")


@pytest.mark.parametrize("aliases", [{"a": "a"}, {"a": "b", "b": "a"}, {"x": "a", "a": "b", "b": "c", "c": "a"}])
def test_alias_loops_are_refused(aliases: dict[str, str]) -> None:
    """A circle of aliases is a mistake in the configuration, told with the way around."""
    with pytest.raises(ConfigError, match=r"^aliases\..*→"):
        catalog_of(WORLD, Config(aliases=aliases))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobody/model", "does not exist"),
        ("llmproxy/nothing", "does not exist"),
        ("gone", "does not exist"),
        ("bgi", "did you mean"),
        ("openai/big", "a/big"),
    ],
)
def test_unknown_names(name: str, says: str) -> None:
    """An unknown name is refused with `param` model, and with what was probably meant."""
    world = [*WORLD, Model("local", "bigi", local=True)]
    with pytest.raises(ModelNotFound, match=says) as caught:
        catalog_of(world).select(name)
    assert caught.value.param == "model"


def test_an_alias_of_nothing() -> None:
    """An alias whose target does not exist is refused when it is asked for."""
    with pytest.raises(ModelNotFound, match="nobody/x"):
        chosen("a1", {"aliases": {"a1": "nobody/x"}})


def test_what_is_missing_is_told() -> None:
    """A model of a provider without a key is refused with what would make it usable."""
    with pytest.raises(ModelNotFound, match="set GROQ_API_KEY"):
        Catalog([Offer("groq", missing="set GROQ_API_KEY")], Config()).select("groq/llama")


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, ["a/big", "a/small", "b/x/big", "b/dear", "b/text-embed", "local/tiny"]),
        ({"free": True}, ["a/big", "b/x/big", "b/text-embed", "local/tiny"]),
        ({"free": False}, ["a/small", "b/dear"]),
        ({"local": True}, ["local/tiny"]),
        ({"local": False, "free": True}, ["a/big", "b/x/big", "b/text-embed"]),
        ({"providers": ["a", "local"]}, ["a/big", "a/small", "local/tiny"]),
        ({"models": ["*/big"]}, ["a/big", "b/x/big"]),
        ({"models": ["dear", "a/s*"]}, ["a/small", "b/dear"]),
        ({"reasoning": "deep"}, ["a/big", "b/dear"]),
        ({"min_context": 5000}, ["a/big", "b/x/big", "b/dear", "b/text-embed"]),
        ({"max_price": 5}, ["a/big", "a/small", "b/x/big", "b/text-embed", "local/tiny"]),
        ({"max_price": 0}, ["a/big", "b/x/big", "b/text-embed", "local/tiny"]),
        ({"capabilities": ["tools"]}, ["a/big", "b/x/big", "b/dear", "b/text-embed", "local/tiny"]),
        ({"capabilities": ["tools"], "free": True, "min_context": 32000, "providers": ["a"]}, ["a/big"]),
        ({"providers": ["nobody"]}, []),
    ],
)
def test_pools_of_the_user(where: dict[str, Any], expected: list[str]) -> None:
    """Each condition holds for every model of a pool; what is unknown about a model is not held against it."""
    config = {"pools": {"mine": {"where": where, "order": "round_robin"}}}
    assert chosen("llmproxy/mine", config) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("best", [["a/big", "b/dear"], ["b/x/big"], ["a/small"], ["local/tiny"]]),
        ("cheapest", [["a/big", "b/x/big"], ["a/small"], ["b/dear"], ["local/tiny"]]),
        ("round_robin", [["b/dear", "a/big", "a/small", "b/x/big", "local/tiny"]]),
        ("fastest", [["b/dear", "a/big", "a/small", "b/x/big", "local/tiny"]]),
        ("as_listed", [["b/dear"], ["local/tiny"], ["a/small"], ["b/x/big"], ["a/big"]]),
    ],
)
def test_orders_of_the_user(order: str, expected: list[list[str]]) -> None:
    """Each order groups the same models in its own way; `as_listed` follows the list of the user."""
    globs = ["b/dear", "local/*", "a/small", "b/x/*", "a/*"]
    world = [WORLD[3], *WORLD[:3], *WORLD[5:]]
    pools = {"mine": {"where": {"models": globs}, "order": order}}
    catalog = catalog_of(world, Config.model_validate({"pools": pools}))
    groups = catalog.select("llmproxy/mine").groups(frozenset())
    assert [sorted(one.model.name for one in group) for group in groups] == [sorted(group) for group in expected]


def test_known_capabilities_come_first() -> None:
    """Within a pool, models known to have what is needed come before unknown ones, and those before incapable ones."""
    groups = catalog_of(WORLD).select("llmproxy/tools").groups(frozenset({"tools"}))
    flat = [one.model.name for group in groups for one in group]
    assert flat == ["a/big", "b/dear", "local/tiny", "b/x/big", "b/text-embed", "a/small"]


def test_pools_that_hold_something_are_listed() -> None:
    """Only pools with a candidate are named."""
    listed = catalog_of(WORLD, Config.model_validate({"pools": {"mine": {}, "none": {"where": {"providers": ["x"]}}}}))
    found = set(listed.pool_names())
    assert {"llmproxy/auto", "llmproxy/free", "llmproxy/local", "llmproxy/deep", "llmproxy/deep/free"} <= found
    assert {"llmproxy/a", "llmproxy/b", "llmproxy/mine", "llmproxy/tools/free"} <= found
    assert not {"llmproxy/standard", "llmproxy/standard/free", "llmproxy/none", "llmproxy/exploratory/free"} & found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llmproxy/local", "local.models"),
        ("llmproxy/standard", "model_reasoning"),
        ("llmproxy/free", "believed_free"),
        ("llmproxy/a", "providers.a.api_key"),
        ("llmproxy/mine", "pools.mine"),
    ],
)
def test_an_empty_pool_says_what_fills_it(name: str, says: str) -> None:
    """The hint of a pool names the key of the configuration that would fill it."""
    config = Config.model_validate({"pools": {"mine": {"where": {"reasoning": TIERS[0]}}}})
    selection = Catalog([Offer("a")], config).select(name)
    assert selection.candidates == ()
    assert says in selection.hint


def test_capability_words_are_capabilities() -> None:
    """Every capability pool is named after a capability."""
    assert set(names.CAPABILITY_POOLS) <= CAPABILITIES
