"""Pages as trees and as text: HTML or Markdown, whatever its encoding. Pure.

Markdown (also MDX with `<Tabs>`) is rendered to HTML first, so that there is one reader. Nothing in a page is run or
followed; the parser is an HTML5 one, which knows no entities of a document's own. A page that was cut short loses the
cell in which it ends, so that no number is read from its first digits.
"""

from __future__ import annotations

import re
from collections import Counter

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_BYTES = 16 << 20
_MAX_MARKDOWN_CHARS = 1 << 20
MAX_ROWS = 20_000
_MAX_TAGS = 500_000
_MAX_STEPS = 400_000_000
_STEPS_TO_FORMAT = 64
SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_NOTES = frozenset({"sup"})
# What stands on lines of its own; two numbers in cells of an inner table must not run together.
_BLOCKS = frozenset(
    {
        *("address", "article", "aside", "blockquote", "caption", "dd", "details", "div", "dl", "dt", "figcaption"),
        *(
            "figure",
            "footer",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "h6",
            "header",
            "hr",
            "li",
            "main",
            "nav",
            "ol",
            "p",
            "pre",
        ),
        *("section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"),
    }
)
# Atomic: comments could otherwise be put together in as many ways as there are subsets of them.
_LOOKS_LIKE_HTML = re.compile(r"\s*(?>(?:<!--.*?-->\s*)*)<(?:!doctype|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_INDENTED = re.compile(r"^[ \t]+(?=[|<]|#{1,6} )", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_LONE_TAG = re.compile(r"</?([A-Za-z][\w.-]*)[^>]*>")
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_NEVER_OPEN = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr")
)
# Of these the parser itself closes the one before.
_CLOSED_BY_NEXT = frozenset(
    (
        *("body", "caption", "colgroup", "dd", "dt", "head", "html", "li", "option", "p"),
        *("tbody", "td", "tfoot", "th", "thead", "tr"),
    )
)
_FORMATTING = frozenset(("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"))
_SPACE = re.compile(r"[^\S\n]+")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")


class TooLarge(ValueError):
    """A page, or a table in it, is larger than any real one."""


def tree(raw: bytes) -> LexborHTMLParser:
    """A page as a tree of HTML, whether it is HTML or Markdown; raises `TooLarge`."""
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"the page has {len(raw):,} bytes")
    text = _whole(decoded(raw))
    if _LOOKS_LIKE_HTML.match(text[:4096]):
        return LexborHTMLParser(_passable(text))
    if len(text) > _MAX_MARKDOWN_CHARS or text.count("\n|") > MAX_ROWS:
        raise TooLarge(f"the page has {len(text):,} characters of Markdown")
    return LexborHTMLParser(_passable(html_of_markdown(text)))


def cut_short(raw: bytes) -> bool:
    """Whether a page ends inside a table, or inside its tabs, as one does that did not arrive whole."""
    text = decoded(raw)
    lower = text.lower()
    if any(lower.rfind(f"<{name}") > lower.rfind(f"</{name}") for name in ("table", "tabs")):
        return True
    last = text.rstrip(" \t").rpartition("\n")[2].lstrip()
    return last.startswith("|") and not last.endswith("|")


def decoded(raw: bytes) -> str:
    """The text of a page: UTF-8, UTF-16 with a mark, else Windows-1252; its lines end in `\\n`; never an error."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = raw.decode("utf-16", "replace")
    else:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
    return text.replace("\r\n", "\n")


def _passable(html: str) -> str:
    """`html`, unless parsing it would take long; raises `TooLarge`.

    For each tag a parser walks up through what is open, and opens again the formatting (`<b>`) that a block closed. A
    page of nothing but `<div>` or `<b>` costs the square of its length; how deep it is, is known from its tags alone.
    """
    opened: Counter[str] = Counter()
    depth = formats = steps = 0
    for count, match in enumerate(_TAG.finditer(html)):
        name = match[2].lower()
        if name not in _NEVER_OPEN and name not in _CLOSED_BY_NEXT:
            step = 1 if not match[1] else -1 if opened[name] else 0
            opened[name] += step
            depth += step
            formats += step if name in _FORMATTING else 0
        steps += depth + formats * _STEPS_TO_FORMAT
        if count > _MAX_TAGS or steps > _MAX_STEPS:
            raise TooLarge(f"the page has {count:,} tags up to {depth:,} deep")
    return html


def _whole(text: str) -> str:
    """`text` without the beginning of a cell in which it ends."""
    lower = text.lower()
    opened = max(lower.rfind(cell) for cell in ("<td>", "<td ", "<th>", "<th "))
    if opened >= 0 and "</" not in text[opened:]:
        return text[: max(text.rfind(">") + 1, opened)]
    before, newline, last = text.rpartition("\n")
    return before + newline + last[: last.rfind("|") + 1] if last.lstrip().startswith("|") else text


def html_of_markdown(text: str) -> str:
    """Markdown with tables, and with HTML or MDX tags around them, as HTML."""
    text = _FRONT_MATTER.sub("", text)
    text = _INDENTED.sub("", text)
    lines: list[str] = []
    for line in text.split("\n"):
        # A tag on a line of its own would swallow the table below it as raw HTML; a blank line ends its block.
        tag = _LONE_TAG.fullmatch(line.strip())
        if tag is None:
            lines.append(line)
        elif line.rstrip().endswith("/>"):
            # HTML does not know that this closes the tag, and would put the rest of the page into it.
            lines += ["", f"{line.strip()}</{tag[1]}>", ""]
        else:
            lines += ["", line.strip(), ""]
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render("\n".join(lines)))


def text_of(node: LexborNode, *, notes: bool = False) -> str:
    """The text of a node; `<br>` and blocks are line ends, superscripts (footnotes) are left out unless wanted."""
    parts: list[str] = []
    waiting = _inside(node)
    # By hand, not by recursion: pages nest deeper than Python does.
    while waiting:
        part = waiting.pop()
        tag = "" if isinstance(part, str) else part.tag or ""
        if isinstance(part, str):
            parts.append(part)
        elif tag == "-text":
            parts.append(part.text_content or "")
        elif tag == "br":
            parts.append("\n")
        elif tag not in SKIPPED and (notes or tag not in _NOTES):
            if tag in _BLOCKS:
                parts.append("\n")
                waiting.append("\n")
            waiting += _inside(part)
    lines = (_SPACE.sub(" ", line).strip() for line in _INVISIBLE.sub("", "".join(parts)).split("\n"))
    return "\n".join(line for line in lines if line)


def _inside(node: LexborNode) -> list[LexborNode | str]:
    """The children of a node, last first."""
    children: list[LexborNode | str] = list(node.iter(include_text=True))
    children.reverse()
    return children
