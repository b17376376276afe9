"""Strings that stand in a text as they are, without quotes, as terminals of a grammar. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backends.structure.merge import Node, SchemaRefused

_PIECES = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
# What these stand for in JSON Schema (ECMA-262, 22.2.2.9); regular expressions of grammars mean Unicode.
_CLASSES = {"\\d": "[0-9]", "\\D": "[^0-9]", "\\w": "[A-Za-z0-9_]", "\\W": "[^A-Za-z0-9_]"}
# What cannot stand in a terminal as it is.
_ODD = re.compile(r"\\.|[/\n]", re.DOTALL)
_ODD_AS = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
ANYTHING = "(?s:.*)"
_DOT = r"[^\n\r\u2028\u2029]"


def written(regex: str) -> str:
    """A regular expression as a terminal's body."""
    return "/" + _ODD.sub(lambda found: _ODD_AS.get(found[0], found[0]), regex) + "/"


def without(texts: Sequence[str]) -> str:
    """Text that holds none of `texts`, as a terminal's body."""
    either = "|".join(map(re.escape, texts))
    return f"{written(ANYTHING)} & ~{written(f'{ANYTHING}(?:{either}){ANYTHING}')}"


def lines(barred: str, tags: Sequence[str], heads: Sequence[str]) -> str:
    """Text without `barred` characters that holds none of `tags`, and no line that begins with one of `heads`, as a
    regular expression. These begin with `<`, and hold no other.

    It has no complement: to count characters beside one, the compiler would try all their numbers at each step.
    """
    plain = rf"[^<\n{barred}]"
    inside = f"(?:<{_begins_with_none([tag[1:] for tag in tags], barred)})*"
    first = _begins_with_none([tag[1:] for tag in (*tags, *heads)], barred)
    line = f"(?:(?:{plain}+|<{first}){inside})?"
    return rf"{line}(?:\n{line})*"


def _begins_with_none(tails: Sequence[str], barred: str) -> str:
    """What may follow a `<` in its line up to the next one."""
    after: dict[str, list[str]] = {}
    for tail in tails:
        after.setdefault(tail[0], []).append(tail[1:])
    branches = [rf"[^<\n{barred}{''.join(map(re.escape, after))}][^<\n{barred}]*"]
    branches += [re.escape(head) + _begins_with_none(rest, barred) for head, rest in after.items() if "" not in rest]
    return f"(?:{'|'.join(branches)})?"


def narrowed(plain: str, node: Node) -> str:
    """Those of the texts of the terminal `plain` that fit a node of type string, as a terminal's body."""
    parts = [plain]
    if "minLength" in node or "maxLength" in node:
        parts.append(written(f"(?s:.{{{node.get('minLength', 0)},{node.get('maxLength', '')}}})"))
    return " & ".join([*parts, *(written(whole(pattern)) for pattern in node.get("patterns", ()))])


def whole(pattern: str) -> str:
    """The regular expression that matches a whole text where `pattern` is found in it.

    Raises `SchemaRefused` for anchors anywhere but at the ends of the pattern, or of its outermost alternatives.
    """
    branches: list[list[str]] = [[]]
    depth = 0
    for piece in _PIECES.findall(pattern):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and depth == 0:
            branches.append([])
        else:
            branches[-1].append(piece)
    return "|".join(map(_branch, branches))


def _branch(pieces: list[str]) -> str:
    begins, ends = pieces[:1] == ["^"], pieces[-1:] == ["$"]
    inner = pieces[begins : len(pieces) - ends]
    if "^" in inner or "$" in inner:
        raise SchemaRefused("^ and $ inside of a pattern cannot be enforced in this model's tool calls")
    body = f"(?:{''.join(map(_piece, inner))})"
    return ("" if begins else ANYTHING) + body + ("" if ends else ANYTHING)


def _piece(piece: str) -> str:
    if piece == ".":
        return _DOT
    if piece[0] == "[":
        return re.sub(r"\\.", lambda found: _CLASSES.get(found[0], found[0]), piece, flags=re.DOTALL)
    return _CLASSES.get(piece, piece)
