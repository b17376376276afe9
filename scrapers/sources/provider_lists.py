"""What each provider's own list of models says: who is there, what they can do, what they cost.

The reading itself is that of the proxy (`llmproxy.dialects.model_lists`); here its entries become evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llmproxy.core.errors import BadReply
from llmproxy.dialects.model_lists import Listed, ModelList, chats, read_models
from scrapers.base import PARTIAL, Evidence, FreeKind, NotUnderstood, Rank, Source, Value, capabilities

Free = Callable[[Listed], FreeKind | None]


def source_for(
    provider: str,
    models_url: str,
    *,
    id_field: str = "id",
    keep_task: str | None = None,
    free_suffix: str | None = None,
) -> Source:
    """The list of `provider` at `models_url`; the options are those of the catalogue of providers.

    free_suffix: ids that end with it are free up to a quota, and ids at a price above zero are not. Without it a price
    says nothing of that: it may be paid from a free budget.
    """

    free: Free = partial(free_by_suffix, suffix=free_suffix) if free_suffix else _unknown

    def parse(raw: bytes) -> list[Evidence]:
        found = understood(raw, id_field=id_field, keep_task=keep_task)
        return claims(provider, found, free)

    return Source(
        name=f"{provider}_api",
        url=models_url,
        rank=Rank.API,
        confidence=0.95,
        parse=parse,
        provider=provider,
        complete=True,
        accept="application/json",
    )


def understood(raw: bytes, *, id_field: str = "id", keep_task: str | None = None) -> ModelList:
    """The list in `raw`; raises `NotUnderstood` when there is none, or when most of it has no ids."""
    try:
        found = read_models(raw, id_field=id_field, keep_task=keep_task)
    except BadReply as error:
        raise NotUnderstood(str(error)) from error
    if not found.models:
        raise NotUnderstood("the model list names no model")
    if found.unread > len(found.models):
        raise NotUnderstood(
            f"the model list has {found.unread} entries without an id, and {len(found.models)} with one"
        )
    return found


def claims(provider: str, found: ModelList, free: Free) -> list[Evidence]:
    """Everything that a list says of its models; `free` tells what one of them costs the user."""
    note = PARTIAL if found.more or found.unread else ""
    return [claim for listed in found.models for claim in _of(provider, listed, free(listed), note)]


def free_by_suffix(listed: Listed, suffix: str, also: frozenset[str] = frozenset()) -> FreeKind | None:
    """Free by its id, not free by its price; a price of zero alone says nothing."""
    named = listed.id.endswith(suffix) or listed.id in also
    if listed.priced:
        return None if named else "none"
    return "quota" if named else None


def _unknown(_: Listed) -> FreeKind | None:
    return None


def _of(provider: str, listed: Listed, free: FreeKind | None, note: str) -> list[Evidence]:
    chat = chats(listed.id, listed.chat)
    there = listed.active is not False
    found = [Evidence(provider, listed.id, "exists", there, note=note, until_s=listed.ends_s if there else None)]
    if free is not None:
        found.append(Evidence(provider, listed.id, "free", free, until_s=listed.ends_s))
    values: dict[str, Value] = {
        "chat": chat,
        "context": listed.context_tokens,
        "max_output": listed.max_output_tokens if chat is not False else None,
        "price.prompt": listed.prompt_usd_per_mtok,
        "price.completion": listed.completion_usd_per_mtok,
    }
    found += [Evidence(provider, listed.id, field, value) for field, value in values.items() if value is not None]
    tags: dict[str, bool | None] = {
        tag: tag in listed.capabilities for tag in sorted(listed.capabilities | listed.lacks)
    }
    return found + capabilities(provider, listed.id, tags)
