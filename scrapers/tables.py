"""Tables of HTML and Markdown pages, as tables: cells in a grid, with the headings and tabs they stand under. Pure.

Markdown (also MDX with `<Tabs>`) is rendered to HTML first, so that there is one reader. Nothing in a page is run or
followed; the parser is an HTML5 one, which knows no entities of a document's own. A page that was cut short loses the
cell in which it ends, so that no number is read from its first digits.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_BYTES = 16 << 20
_MAX_MARKDOWN_CHARS = 1 << 20
_MAX_ROWS = 20_000
_MAX_SPAN = 1000
_MAX_CELLS = 400_000
_MAX_TABS = 16
_MAX_TAGS = 500_000
_MAX_STEPS = 400_000_000
_STEPS_TO_FORMAT = 64
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TABS = frozenset({"tab", "tabitem", "details", "accordion"})
_SKIPPED = frozenset({"script", "style", "template", "noscript", "svg", "head"})
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


@dataclass(slots=True)
class Table:
    """One table. `rows` are of equal length; a cell that spans several places stands in each of them.

    headings: of the page, outermost first, under which the table stands; tabs: titles of the tabs around it. links:
    per row, the addresses in it. head: how many of `rows` are rows of headers only (`<thead>`, or all cells `<th>`).
    """

    rows: list[list[str]]
    headings: tuple[str, ...] = ()
    tabs: tuple[str, ...] = ()
    caption: str = ""
    links: list[list[str]] = field(default_factory=list)
    head: int = 0

    @property
    def header(self) -> list[str]:
        """The last of its header rows; the first row where none is marked."""
        return self.rows[max(0, self.head - 1)] if self.rows else []

    @property
    def body(self) -> list[list[str]]:
        return self.rows[max(1, self.head) :]

    def column(self, *names: str) -> int | None:
        """The index of the column with one of these headers, whatever its case; they are tried in this order."""
        heads = [" ".join(text.casefold().split()) for text in self.header]
        return next((heads.index(name.casefold()) for name in names if name.casefold() in heads), None)

    def under(self, *words: str) -> bool:
        """Whether one of the headings, tabs, or the caption holds all of `words`, whatever their case."""
        places = [text.casefold() for text in (*self.headings, *self.tabs, self.caption)]
        return any(all(word.casefold() in place for word in words) for place in places)


def tables(raw: bytes) -> list[Table]:
    """All tables of a page in its order; raises `TooLarge`. Empty ones are left out."""
    return _Reader(tree(raw)).found


def tree(raw: bytes) -> LexborHTMLParser:
    """A page as a tree of HTML, whether it is HTML or Markdown; raises `TooLarge`."""
    if len(raw) > MAX_BYTES:
        raise TooLarge(f"the page has {len(raw):,} bytes")
    text = _whole(decoded(raw))
    if _LOOKS_LIKE_HTML.match(text[:4096]):
        return LexborHTMLParser(_passable(text))
    if len(text) > _MAX_MARKDOWN_CHARS or text.count("\n|") > _MAX_ROWS:
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
        elif tag not in _SKIPPED and (notes or tag not in _NOTES):
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


class _Reader:
    """Walks a tree once, remembering headings and tabs."""

    def __init__(self, page: LexborHTMLParser) -> None:
        self.found: list[Table] = []
        self._headings: dict[int, str] = {}
        self._cells = 0
        if page.root is not None:
            self._walk(page.root)

    def _walk(self, root: LexborNode) -> None:
        stack: list[tuple[LexborNode, tuple[str, ...]]] = [(root, ())]
        while stack:
            node, tabs = stack.pop()
            tag = node.tag or ""
            if tag in _SKIPPED:
                continue
            if tag in _HEADINGS:
                level = _HEADINGS[tag]
                self._headings = {key: text for key, text in self._headings.items() if key < level}
                self._headings[level] = text_of(node)
                continue
            if tag == "table":
                self._read(node, tabs)
                continue
            if tag in _TABS:
                tabs = (*tabs[: _MAX_TABS - 1], _title(node))
            stack += [(child, tabs) for child in reversed(list(node.iter()))]

    def _read(self, node: LexborNode, tabs: tuple[str, ...]) -> None:
        grid: list[list[str]] = []
        links: list[list[str]] = []
        head = 0
        for group in _groups(node):
            reaching: dict[int, tuple[int, str]] = {}
            for row in group:
                if len(grid) >= _MAX_ROWS:
                    raise TooLarge(f"a table has more than {_MAX_ROWS:,} rows")
                cells = [cell for cell in row.iter() if cell.tag in ("td", "th")]
                placed, reaching = self._place(cells, reaching)
                grid.append(placed)
                links.append([str(link.attributes.get("href") or "") for link in row.css("a[href]")])
                marked = row.parent is not None and row.parent.tag == "thead"
                if head == len(grid) - 1 and (marked or (cells and all(cell.tag == "th" for cell in cells))):
                    head += 1
        width = max((len(row) for row in grid), default=0)
        if width == 0:
            return
        if width * len(grid) > _MAX_CELLS:
            raise TooLarge(f"a table has {len(grid):,} rows of {width:,} cells")
        caption = _first(node, "caption")
        self.found.append(
            Table(
                [row + [""] * (width - len(row)) for row in grid],
                tuple(self._headings[level] for level in sorted(self._headings)),
                tabs,
                text_of(caption) if caption is not None else "",
                links,
                head,
            )
        )

    def _place(
        self, cells: list[LexborNode], reaching: dict[int, tuple[int, str]]
    ) -> tuple[list[str], dict[int, tuple[int, str]]]:
        """The cells of one row at their places, and what reaches from it into the next one.

        reaching: by place, in how many more rows a cell of a row above stands there, and its text.
        """
        row: list[str] = []
        below = {place: (more - 1, text) for place, (more, text) in reaching.items() if more > 1}
        last = max(reaching, default=-1)
        waiting = iter(cells)
        cell = next(waiting, None)
        while cell is not None or len(row) <= last:
            place = len(row)
            if place in reaching:
                row.append(reaching[place][1])
            elif cell is None:
                row.append("")
            else:
                wide, high, text = _span(cell, "colspan"), _span(cell, "rowspan"), text_of(cell)
                self._count(wide * high)
                row += [text] * wide
                if high > 1:
                    below.update(dict.fromkeys(range(place, len(row)), (high - 1, text)))
                cell = next(waiting, None)
        return row, below

    def _count(self, cells: int) -> None:
        self._cells += cells
        if self._cells > _MAX_CELLS:
            raise TooLarge(f"the tables have more than {_MAX_CELLS:,} cells")


def _groups(table: LexborNode) -> Iterator[list[LexborNode]]:
    """The rows of a table by the section that they stand in, without those of tables inside it."""
    for part in table.iter():
        if part.tag in ("thead", "tbody", "tfoot"):
            yield [row for row in part.iter() if row.tag == "tr"]


def _first(node: LexborNode, tag: str) -> LexborNode | None:
    """The first child with a tag; to look further down for each node would be to read a page once for each level."""
    return next((child for child in node.iter() if child.tag == tag), None)


def _span(cell: LexborNode, name: str) -> int:
    text = str(cell.attributes.get(name) or "1").strip()
    return min(max(int(text[:9]), 1), _MAX_SPAN) if text.isascii() and text.isdigit() else 1


def _title(node: LexborNode) -> str:
    attributes = node.attributes
    for name in ("title", "label", "value"):
        if attributes.get(name):
            return str(attributes[name])
    summary = _first(node, "summary")
    return text_of(summary) if summary is not None else ""


def continued(found: list[Table]) -> list[Table]:
    """Tables whose header stands in a table of its own above them (a header row, then the rows again) put together."""
    joined: list[Table] = []
    for table in found:
        before = joined[-1] if joined else None
        if before is not None and _is_header_of(before, table):
            joined[-1] = Table(
                before.rows + table.rows, before.headings, before.tabs, before.caption, before.links + table.links, 1
            )
        else:
            joined.append(table)
    return joined


def _is_header_of(one: Table, other: Table) -> bool:
    """Whether `one` is a single row above `other`, which has no header like it of its own."""
    if len(one.rows) != 1 or (one.headings, one.tabs) != (other.headings, other.tabs):
        return False
    above, first = ([text.casefold() for text in rows[0]] for rows in (one.rows, other.rows))
    return len(above) == len(first) and not {text for text in above if text} & set(first)
