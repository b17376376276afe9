"""Bodies with one odd value in them, at every place."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ODD: list[Any] = [
    None,
    True,
    7,
    -1.5,
    "",
    "odd",
    [],
    [None],
    ["odd"],
    [[]],
    [{}],
    {},
    {"odd": 1},
    {"type": "odd"},
    {"type": 7},
]


def spoilt(body: Any) -> Iterator[Any]:
    """Copies of `body` in which one value (or an item of a list, or all of it) is an odd one."""
    for path in _paths(body):
        for value in ODD:
            made = copy.deepcopy(body)
            holder = made
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = copy.deepcopy(value)
            yield made


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _paths(inner, (*path, key))
