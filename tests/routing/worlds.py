"""Small worlds of sources and models for the routing tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

from llmproxy.core.config import Config
from llmproxy.core.types import CAPABILITIES, TIERS, Call, Candidate, Model, Plan
from llmproxy.routing.catalog import Catalog, Offer
from llmproxy.routing.health import Health
from llmproxy.routing.planner import plan

NOW = 1000.0

tags = st.frozensets(st.sampled_from(sorted(CAPABILITIES)), max_size=3)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Any model that a source may list."""
    capabilities = draw(tags)
    drawn: dict[str, Any] = {
        "free": draw(st.booleans()),
        "chat": draw(st.integers(0, 3)) > 0,
        "capabilities": capabilities,
        "lacks": draw(tags) - capabilities,
        "context_tokens": draw(st.none() | st.sampled_from([4096, 32768, 131072])),
        "price_usd_per_mtok": draw(st.none() | st.sampled_from([0.0, 0.1, 2.5])),
        "tier": draw(st.none() | st.sampled_from(TIERS)),
    }
    source = draw(st.sampled_from(["a", "b", "local"]))
    name = draw(st.sampled_from(["m1", "m2", "x/m3", "x/m4:free", "m5-embed", "m6"]))
    return Model(source, name, local=source == "local", **drawn)


worlds = st.lists(models(), min_size=1, max_size=8, unique_by=lambda model: model.name)


def catalog_of(found: Iterable[Model], config: Config | None = None, **offer: Any) -> Catalog:
    """A catalog with one offer for each source of the models."""
    listed = list(found)
    sources = dict.fromkeys(model.source for model in listed)
    offers = [Offer(source, tuple(model for model in listed if model.source == source), **offer) for source in sources]
    return Catalog(offers, config or Config())


def call_of(model: str, *fallbacks: str, endpoint: Any = "chat", needs: Iterable[str] = (), **body: Any) -> Call:
    """A call of a name."""
    return Call("c", endpoint, model, body, fallbacks=fallbacks, needs=frozenset(needs))


def planned(found: Iterable[Model], name: str, *, health: Health | None = None, **options: Any) -> Plan:
    """The plan of a chat call for a name over the models."""
    catalog = catalog_of(found, options.pop("config", None))
    call = options.pop("call", None) or call_of(name)
    return plan(catalog, call, health or Health(), NOW, options.pop("ticket", 0), **options)


def kept(made: Plan) -> list[str]:
    """The keys of the candidates that will be asked, in order."""
    return [entry.candidate.key for entry in made.kept]


def candidates(*found: Model) -> list[Candidate]:
    """One candidate for each model."""
    return [Candidate(model) for model in found]
