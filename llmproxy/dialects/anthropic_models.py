"""What the generations of Claude accept. Of any other model that speaks the Messages API nothing is known.

Sources, read in November 2026: the migration guides of https://platform.claude.com/docs/en/models and the refusals
that name the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

# claude-3-5-sonnet-20241022, claude-sonnet-4-20250514, claude-opus-4-1, anthropic.claude-opus-4-6-v1, claude-fable-5-1
_CLAUDE = re.compile(
    r"claude-(?:(?P<old_major>\d)(?:[-.](?P<old_minor>\d))?-)?(?P<family>[a-z]+)"
    r"(?:-(?P<major>\d{1,2})(?!\d)(?:[-.](?P<minor>\d{1,2})(?!\d))?)?"
)
_ALWAYS_THINK = frozenset({"fable", "mythos"})

Off = Literal["", "disabled", "between_tools", "never"]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a model accepts; the defaults are for one of which nothing is known.

    `off` is how thinking is switched off: by saying nothing, by a type of `thinking`, or `never`.
    """

    adaptive: bool = False  # `thinking` of type adaptive, whose depth is `output_config.effort`
    budgets: bool = True  # `thinking` of type enabled, whose depth is `budget_tokens`
    extra_high: bool = False  # the effort xhigh
    off: Off = "disabled"
    sampling: bool = True  # temperature, top_p and top_k
    both: bool = True  # temperature and top_p in one request
    formats: bool = False  # `output_config.format`: answers that a JSON schema constrains
    forces_tools: bool = True  # `tool_choice` of types any and tool
    max_tokens: int = 8192  # what every model like this can answer


@lru_cache(maxsize=512)
def traits(model: str) -> Traits:
    """What `model`, an id of the upstream, accepts."""
    found = _CLAUDE.search(model.lower())
    if found is None or not (found["major"] or found["old_major"]):
        return Traits()
    family = found["family"]
    major, minor = (found["major"], found["minor"]) if found["major"] else (found["old_major"], found["old_minor"])
    version = (int(major), int(minor or 0))
    return Traits(
        adaptive=version >= (4, 6),
        budgets=version < (4, 7),
        extra_high=version >= (4, 7),
        off=_off(family, version),
        sampling=version < (4, 7),
        both=version < (4, 1),
        formats=version >= (4, 5),
        forces_tools=version < ((5, 1) if family in _ALWAYS_THINK else (5, 5)) or family == "haiku",
        max_tokens=4096 if version < (3, 5) else 8192 if version < (3, 7) else 32_000,
    )


def _off(family: str, version: tuple[int, int]) -> Off:
    if version < (5, 0):
        return ""
    if family in _ALWAYS_THINK or (family == "opus" and version >= (5, 5)):
        return "never"
    return "between_tools" if family == "sonnet" and version >= (5, 5) else "disabled"
