"""Which known model a source means. An id counts only when the provider is known to have it. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

# Pages write a hyphen that does not break lines where an id has a plain one.
_SEPARATORS = re.compile(r"[\s_\u2010\u2011]+")
_GLOB = re.compile(r"(?:\*(?!\*)|\S{0,200}[-/:.@]\*)\S{0,200}")
_MARKS = re.compile(r"[*†‡§¹²³⁰⁴-⁹]+$|\s*\[\^?\w{1,3}\]$|\s*\((?:\d|[a-z])\)$")
# A digit after a digit or a dot is the rest of a version, and a letter at the end another model (`gpt-4o`, `glm-4.5v`).
_GLUED = re.compile(r"(?<=[a-z])\d$", re.IGNORECASE)


class Known:
    """The ids of one provider, found by however a page writes them."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = frozenset(ids)
        self._whole: dict[str, set[str]] = defaultdict(set)
        self._last: dict[str, set[str]] = defaultdict(set)
        for model_id in self.ids:
            self._whole[normalised(model_id)].add(model_id)
            self._last[normalised(model_id.rpartition("/")[2])].add(model_id)

    def find(self, text: str) -> str | None:
        """The known id that `text` means, or None.

        In order: the id itself; the same in another case or as a display name (`Gemini 2.0 Flash-Lite`), with or
        without the owner before its slash, where only one id fits; the same without a footnote mark, then without a
        digit that is glued to a letter at its end. A glob stands for itself. A suffix such as `:free` is part of an id
        and is never added or dropped.
        """
        text = text.strip().strip("`").strip()
        if is_glob(text):
            return text
        unmarked = _MARKS.sub("", text).strip()
        for spelling in (text, unmarked, _GLUED.sub("", unmarked)):
            if spelling and (found := self._one(spelling)) is not None:
                return found
        return None

    def _one(self, text: str) -> str | None:
        if text in self.ids:
            return text
        folded = normalised(text)
        fitting = self._whole.get(folded) or self._last.get(folded) or set()
        return next(iter(fitting)) if len(fitting) == 1 else None


def normalised(text: str) -> str:
    """`text` as it is compared: lower case, `-` for blanks and `_`."""
    return _SEPARATORS.sub("-", text.strip().casefold())


def is_glob(text: str) -> bool:
    """Whether `text` stands for all ids that match it (`*`, `*:free`, `gemma-3-*`), not for one model."""
    return _GLOB.fullmatch(text.strip()) is not None
