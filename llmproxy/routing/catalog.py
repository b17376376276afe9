"""The immutable snapshot of everything that can be asked for, and what each name in it stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from llmproxy.core import names
from llmproxy.core.config import Config, Pool, Where
from llmproxy.core.errors import ConfigError, ModelNotFound
from llmproxy.core.types import TIERS, Candidate, Model
from llmproxy.routing.capabilities import Facts, describe, rank
from llmproxy.routing.findings import Findings
from llmproxy.routing.policies import ORDERS, Groups, Order, by_capability
from llmproxy.routing.rotation import Rotation


@dataclass(frozen=True, slots=True)
class Offer:
    """What one source brings to the snapshot.

    `open` means that ids which are not in `models` may be asked for by name: lists leave out models that work, and
    only a real call proves that one does not;
    `credentials` is the number of its keys (1 for a source that needs none); `missing` says what would make a source
    without models usable, in words for a person.
    """

    source: str
    models: tuple[Model, ...] = ()
    credentials: int = 1
    open: bool = False
    exposed: bool = True
    facts: Facts = Facts()
    missing: str = ""


@dataclass(slots=True)
class Selection:
    """What a name stands for, before a call's needs are looked at. `groups` are cached per set of needs."""

    asked: str
    reason: str
    candidates: tuple[Candidate, ...]
    order: Order
    needs: frozenset[str] = frozenset()
    pool: bool = False
    hint: str = ""
    in_pools: Mapping[str, frozenset[str]] = field(default_factory=dict)
    _gained: frozenset[tuple[str, str]] = frozenset()
    _groups: dict[frozenset[str], Groups] = field(default_factory=dict)
    _rotations: dict[frozenset[str], tuple[Rotation, ...]] = field(default_factory=dict)

    def groups(self, needs: frozenset[str], gained: frozenset[tuple[str, str]] = frozenset()) -> Groups:
        """The candidates in the order of the policy, those known (or learned: `gained`) to have `needs` first."""
        if gained is not self._gained:
            self._gained = gained
            self._groups.clear()
            self._rotations.clear()
        found = self._groups.get(needs)
        if found is None:
            wanted = needs | self.needs
            buckets = by_capability(self.candidates, lambda model: rank(model, wanted, gained))
            found = tuple(group for bucket in buckets for group in ORDERS[self.order](bucket))
            self._groups[needs] = found
        return found

    def rotations(
        self, needs: frozenset[str], gained: frozenset[tuple[str, str]] = frozenset()
    ) -> tuple[Rotation, ...]:
        """The same groups, in which those that cannot be asked wait aside."""
        groups = self.groups(needs, gained)
        found = self._rotations.get(needs)
        if found is None:
            wanted = needs | self.needs
            groups = tuple(part for group in groups for part in self._set_apart(group))
            found = self._rotations[needs] = tuple(Rotation(group, wanted, self.in_pools) for group in groups)
        return found

    def _set_apart(self, group: tuple[Candidate, ...]) -> Groups:
        """Members of small pools of the user stand behind the others: calls for these pools have nobody else."""
        if not self.in_pools:
            return (group,)
        counts = Counter(pool for one in group for pool in self.in_pools.get(one.key, ()))
        small = {pool for pool, count in counts.items() if 2 * count <= len(group)}
        free = tuple(one for one in group if not small & self.in_pools.get(one.key, frozenset()))
        kept = tuple(one for one in group if small & self.in_pools.get(one.key, frozenset()))
        return tuple(part for part in (free, kept) if part)


class Catalog:
    """All models, aliases and pools at one moment. Built anew when anything changes; never changed in place."""

    def __init__(self, offers: Sequence[Offer], config: Config, findings: Findings | None = None) -> None:
        self._findings = findings or Findings()
        self.offers = {offer.source: offer for offer in offers}
        self.aliases = dict(config.aliases)
        self.pools = dict(config.pools)
        self._config = config
        self.models: tuple[Model, ...] = tuple(
            _placed(describe(model, config, offer.facts, self._findings), offer)
            for offer in offers
            for model in offer.models
        )
        self._by_name: dict[str, Model] = {}
        for model in self.models:
            for spelling in names.spellings(model.source, model.id):
                self._by_name.setdefault(spelling, model)
            if model.local:
                self._by_name.setdefault(model.id, model)
        self._candidates = tuple(candidate for model in self.models for candidate in self.credentials_of(model))
        self._selections: dict[str, Selection] = {}
        self._in_pools = {
            one.key: frozenset(f"pool {name}" for name, pool in config.pools.items() if _fits(one.model, pool.where))
            for one in (self._candidates if config.pools else ())
        }
        _refuse_alias_loops(self.aliases)

    def credentials_of(self, model: Model) -> tuple[Candidate, ...]:
        """One candidate for each key of the model's source."""
        return tuple(Candidate(model, index) for index in range(max(1, self.offers[model.source].credentials)))

    def find(self, name: str) -> Model | None:
        """The model of a concrete name in any spelling; an open source lends any id."""
        found = self._by_name.get(name)
        if found is not None:
            return found
        split = names.split_model(name, self.offers)
        if split is None or not self.offers[split[0]].open:
            return None
        offer = self.offers[split[0]]
        return _placed(describe(Model(*split), self._config, offer.facts, self._findings), offer)

    def select(self, name: str) -> Selection:
        """What `name` stands for; raises `ModelNotFound`."""
        found = self._selections.get(name)
        if found is None:
            found = self._select(name)
            if len(self._selections) < 4096:
                self._selections[name] = found
        return found

    def pool_names(self) -> list[str]:
        """The pools that have a candidate, as they are listed."""
        words = [*names.POOL_WORDS, *(f"{tier}/free" for tier in TIERS)]
        words += [f"{word}/free" for word in names.CAPABILITY_POOLS]
        words += [source for source, offer in self.offers.items() if source != "local" and not offer.missing]
        words += list(self.pools)
        return [f"llmproxy/{word}" for word in words if self.select(f"llmproxy/{word}").candidates]

    def suggestions(self, name: str) -> list[str]:
        """Known names that look like `name`, the likeliest first."""
        known = {*self._by_name, *self.aliases, *(f"llmproxy/{word}" for word in names.POOL_WORDS)}
        tail = name.rpartition("/")[2]
        ends = sorted(spelling for spelling in known if spelling.endswith(f"/{tail}") and "__" not in spelling)
        return list(dict.fromkeys([*ends[:3], *get_close_matches(name, known, n=3, cutoff=0.75)]))[:3]

    def _select(self, name: str) -> Selection:
        if name in self.aliases:
            target = self.select(self.aliases[name])
            return Selection(
                name,
                f"alias of {target.asked}",
                target.candidates,
                target.order,
                target.needs,
                target.pool,
                target.hint,
            )
        model = self.find(name)
        if model is not None:
            return Selection(name, "pinned", self.credentials_of(model), "pinned")
        if names.is_pool(name):
            pool = names.parse_pool(name, self.offers.keys() - {"local"}, self.pools)
            if pool is not None:
                return self._select_pool(pool)
        likely = self.suggestions(name)
        offer = self.offers.get((names.split_model(name, self.offers) or ("", ""))[0])
        why = f" ({offer.missing})" if offer is not None and offer.missing else ""
        hint = f"; did you mean {' or '.join(likely)}?" if likely else ""
        raise ModelNotFound(f"The model {name!r} does not exist{why}{hint}", param="model")

    def _select_pool(self, pool: names.PoolName) -> Selection:
        asked = str(pool)
        if pool.user_pool is not None:
            own = self.pools[pool.user_pool]
            return Selection(
                asked,
                f"pool {pool.user_pool}, {own.order}",
                _listed_order(own, [candidate for candidate in self._candidates if _fits(candidate.model, own.where)]),
                own.order,
                frozenset(own.where.capabilities),
                True,
                f"pools.{pool.user_pool}.where is met by no model",
                self._in_pools,
            )
        auto = pool.provider is None and pool.tier is None and not pool.capabilities and not pool.local
        chosen = tuple(
            candidate
            for candidate in self._candidates
            if candidate.model.exposed
            and (pool.provider is None or candidate.model.source == pool.provider)
            and (pool.tier is None or candidate.model.tier == pool.tier)
            and (candidate.model.local or not pool.local)
            and (candidate.model.free or candidate.model.local or not (pool.free or auto))
        )
        reason = f"{asked}, best"
        return Selection(asked, reason, chosen, "best", pool.capabilities, True, _what_fills(pool), self._in_pools)


def _placed(model: Model, offer: Offer) -> Model:
    return model if offer.exposed else replace(model, exposed=False)


def _fits(model: Model, where: Where) -> bool:
    """Whether a model meets the conditions of a pool; an unknown capability or window is not held against it."""
    return (
        model.exposed
        and not (frozenset(where.capabilities) & model.lacks)
        and (where.free is None or (model.free or model.local) == where.free)
        and (where.local is None or model.local == where.local)
        and (not where.providers or model.source in where.providers)
        and (not where.models or names.matches(where.models, model.source, model.id))
        and (where.reasoning is None or model.tier == where.reasoning)
        and (where.min_context is None or model.context_tokens is None or model.context_tokens >= where.min_context)
        and (
            where.max_price is None
            or model.free
            or model.local
            or (model.price_usd_per_mtok is not None and model.price_usd_per_mtok <= where.max_price)
        )
    )


def _listed_order(pool: Pool, candidates: list[Candidate]) -> tuple[Candidate, ...]:
    if pool.order != "as_listed" or not (pool.where.models or pool.where.providers):
        return tuple(candidates)

    def place(candidate: Candidate) -> tuple[int, int]:
        model = candidate.model
        globs = (
            index for index, glob in enumerate(pool.where.models) if names.matches((glob,), model.source, model.id)
        )
        providers = pool.where.providers
        return next(globs, 0), providers.index(model.source) if model.source in providers else 0

    return tuple(sorted(candidates, key=place))


def _what_fills(pool: names.PoolName) -> str:
    if pool.local:
        return "add a model to local.models"
    if pool.tier is not None:
        return f"tag a model as {pool.tier!r} in model_reasoning"
    if pool.provider is not None:
        return f"set the key of {pool.provider} in providers.{pool.provider}.api_key"
    if pool.free:
        return "add a provider with a free tier to providers, or name free models in believed_free"
    return "add a provider to providers, or a model to local.models"


def _refuse_alias_loops(aliases: Mapping[str, str]) -> None:
    for name in aliases:
        seen = [name]
        while (target := aliases.get(seen[-1])) is not None:
            if target in seen:
                raise ConfigError(f"aliases.{name}: goes in a circle: {' → '.join([*seen, target])}")
            seen.append(target)
