"""What a robots.txt allows (RFC 9309): groups by product token, the longest rule that fits, `*` and `$`. Pure.

The parser of the standard library follows an older draft: there the first rule that fits counts, `*` and `$` mean
themselves, and a second group of the same name is not seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from llmproxy.dialects.waits import number

MAX_BYTES = 512 << 10
MAX_DELAY_S = 30.0

_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_TRIPLET = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_PRODUCT = re.compile(r"\*|[A-Za-z_-]+")
_END_OF_LINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether paths that fit `pattern` may be asked for."""

    pattern: str
    allows: bool


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one crawler; `delay_s` is the time that the site wants between requests, at most `MAX_DELAY_S`."""

    rules: tuple[Rule, ...] = ()
    delay_s: float = 0.0

    def allows(self, target: str) -> bool:
        """Whether `target` (path and query, as they are sent) may be asked for; of equally long rules, the kind one."""
        target = _comparable(target)
        fitting = [(len(rule.pattern), rule.allows) for rule in self.rules if _fits(rule.pattern, target)]
        return max(fitting, default=(0, True))[1]


def read(raw: bytes, product: str) -> Robots:
    """The rules of a robots.txt for `product`: its own groups taken together, else those for `*`.

    More than `MAX_BYTES` is not looked at.
    """
    rules: dict[str, list[Rule]] = {}
    delays_s: dict[str, float] = {}
    products: set[str] = set()
    naming = False
    for name, value in _records(raw):
        match name:
            case "user-agent":
                products = products if naming else set()
                products.add(_product(value))
                for one in products:
                    rules.setdefault(one, [])
                naming = True
            case "allow" | "disallow":
                naming = False
                for one in products if value else ():
                    rules[one].append(Rule(_comparable(value), name == "allow"))
            case "crawl-delay":
                for one in products:
                    delays_s.setdefault(one, min(max(number(value) or 0.0, 0.0), MAX_DELAY_S))
    chosen = product.lower() if product.lower() in rules else "*"
    return Robots(tuple(rules.get(chosen, ())), delays_s.get(chosen, 0.0))


def _records(raw: bytes) -> Iterator[tuple[str, str]]:
    if len(raw) > MAX_BYTES:
        raw = raw[:MAX_BYTES].rpartition(b"\n")[0]  # half a path would be another path
    for line in _END_OF_LINE.split(raw.decode("utf-8-sig", "replace")):
        name, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield name.strip().lower(), value.strip()


def _product(text: str) -> str:
    match = _PRODUCT.match(text)
    return match[0].lower() if match else ""


def _comparable(text: str) -> str:
    """`text` with one spelling for what can be percent-encoded or not."""

    def spelt(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if _UNRESERVED.fullmatch(character) else match[0].upper()

    return _TRIPLET.sub(spelt, quote(text, safe=_ASCII))


def _fits(pattern: str, target: str) -> bool:
    """Whether `target` begins with `pattern`, where `*` stands for anything and a last `$` for the end."""
    whole = pattern.endswith("$")
    first, *parts = pattern.removesuffix("$").split("*")
    if not parts:
        return target == first if whole else target.startswith(first)
    if not target.startswith(first):
        return False
    at = len(first)
    for part in parts[:-1]:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return target[at:].endswith(parts[-1]) if whole else parts[-1] in target[at:]
