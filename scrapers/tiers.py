"""How much a model can probably think, from its name and what is known of it: for the pools of a tier. Pure.

A rough order and no measurement: it stands behind whatever a person wrote in `model_reasoning`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from llmproxy.core.types import Tier

# `120b`, `1.5B`, `8x22b`; not the active part of a mixture (`a3b`).
_SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_SMALL = re.compile(r"(?:^|[-_/.:])(?:nano|mini|lite|tiny|small|micro|instant|haiku)(?:$|[-_/.:])", re.IGNORECASE)
_STRONG = re.compile(r"(?:^|[-_/.:])(?:pro|opus|ultra|max|large|deep|r1|k2)(?:$|[-_/.:])", re.IGNORECASE)
_FEW_B = 10.0
_MANY_B = 40.0


def tier_of(model_id: str, capabilities: Collection[str]) -> Tier:
    """`exploratory` for small models, `deep` for large ones that reason, `standard` for all between.

    `model_id`: without its provider; sizes are billions of parameters as ids tell them.
    """
    sizes = [float(many or 1) * float(each) for many, each in _SIZE.findall(model_id)]
    reasons = "reasoning" in capabilities
    if sizes:
        size = max(sizes)
        if size <= _FEW_B:
            return "exploratory"
        return "deep" if size >= _MANY_B and reasons else "standard"
    if _SMALL.search(model_id):
        return "exploratory"
    return "deep" if reasons or _STRONG.search(model_id) else "standard"
