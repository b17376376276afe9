"""A provider's model list as models that can be routed. Pure; the lists are read by `llmproxy.dialects.model_lists`."""

from __future__ import annotations

from llmproxy.core.names import matches, matches_id
from llmproxy.core.types import Model
from llmproxy.dialects.model_lists import Listed, read_models


def parse_models(raw: bytes, source: str, *, id_field: str = "id", keep_task: str | None = None) -> tuple[Model, ...]:
    """The models in a list as it was received, in its order, each once; raises `BadReply` when it is no list."""
    listed = read_models(raw, id_field=id_field, keep_task=keep_task).models
    return tuple(_model(source, one) for one in listed)


def filtered(
    models: tuple[Model, ...], source: str, keep: tuple[str, ...] | None, known: tuple[str, ...] = ()
) -> tuple[Model, ...]:
    """The models that `keep` (ids or globs) lets through, and those it or `known` names that the list leaves out."""
    kept = [model for model in models if keep is None or matches_id(keep, model.id) or matches(keep, source, model.id)]
    have = {name for model in kept for name in (model.id, model.name)}
    named = [name for name in (keep if keep is not None else known) if not set(name) & set("*?[") and name not in have]
    prefix = f"{source}/"
    return tuple(kept) + tuple(Model(source, name.removeprefix(prefix)) for name in named)


def _model(source: str, listed: Listed) -> Model:
    prompt, completion = listed.prompt_usd_per_mtok, listed.completion_usd_per_mtok
    return Model(
        source,
        listed.id,
        chat=listed.chat is not False and listed.active is not False,
        capabilities=listed.capabilities,
        lacks=listed.lacks,
        context_tokens=listed.context_tokens,
        price_usd_per_mtok=None if prompt is None or completion is None else prompt + completion,
        created_s=listed.created_s,
    )
