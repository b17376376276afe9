"""Conversations that are kept between requests (`store`, `previous_response_id`): values in, values out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llmproxy.core.errors import InvalidRequest
from llmproxy.core.types import JsonObject
from llmproxy.dialects.responses_items import as_items, messages


class Stored(NamedTuple):
    """What is kept of a response.

    `items` are all items of the conversation up to it, its own output last; instructions are not among them, as each
    request has its own. `response` is what was answered.
    """

    items: tuple[JsonObject, ...]
    response: JsonObject

    @property
    def id(self) -> str:
        return str(self.response["id"])


def nothing_kept(item_id: str) -> JsonObject | None:
    """For where single items cannot be looked up."""
    return None


def continued(
    body: JsonObject, earlier: Stored | None, find: Callable[[str], JsonObject | None] = nothing_kept
) -> JsonObject:
    """The body with the whole conversation in `input`, and nothing in it that refers to what is kept.

    `earlier` is what is kept under its `previous_response_id`; `find` looks up an item by its id. Raises
    `InvalidRequest` for what is not kept, and for what is wrong with the new items.
    """
    wanted = body.get("previous_response_id")
    if wanted is None and not isinstance(body.get("input"), list):
        return body
    if wanted is not None and (earlier is None or earlier.id != wanted):
        raise unknown_response(wanted)
    before = earlier.items if earlier is not None and wanted is not None else ()
    own = {str(item["id"]): item for item in before if item.get("id")}
    items = [_resolved(item, own, find) for item in as_items(body.get("input"))]
    if before:
        messages([*before, *items], first=-len(before))  # here an error can name the place in the client's own items
    rest = {name: value for name, value in body.items() if name != "previous_response_id"}
    return {**rest, "input": [*before, *items]}


def stored(body: JsonObject, response: JsonObject) -> Stored | None:
    """What to keep of the answer to a body that `continued` has made; None where nothing is to be kept."""
    if body.get("store") is False or response.get("status") not in ("completed", "incomplete"):
        return None
    return Stored((*as_items(body.get("input")), *response["output"]), response)


def unknown_response(wanted: object) -> InvalidRequest:
    """The error for a `previous_response_id` that is not, or no longer, kept."""
    error = InvalidRequest(f"Previous response with id {wanted!r} not found.", param="previous_response_id")
    error.code = "previous_response_not_found"
    return error


def _resolved(item: JsonObject, own: dict[str, JsonObject], find: Callable[[str], JsonObject | None]) -> JsonObject:
    """An item, or the one that it refers to where that is kept."""
    if item.get("type") != "item_reference" and set(item) != {"id"}:
        return item
    item_id = str(item.get("id"))
    return own.get(item_id) or find(item_id) or {"type": "item_reference", "id": item_id}
