"""Tables of pages, as tables: cells in a grid, with the headings and tabs they stand under. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from scrapers.pages import MAX_ROWS, SKIPPED, TooLarge, text_of, tree

_MAX_SPAN = 1000
_MAX_CELLS = 400_000
_MAX_TABS = 16
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TABS = frozenset({"tab", "tabitem", "details", "accordion"})


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
    def titles(self) -> list[str]:
        """The texts of `header` to compare with: folded, with single spaces."""
        return [" ".join(text.casefold().split()) for text in self.header]

    @property
    def place(self) -> str:
        """What the table is of: the title of its tab, else the heading that it stands under; folded."""
        return (self.tabs[-1] if self.tabs else self.headings[-1] if self.headings else "").casefold()

    @property
    def body(self) -> list[list[str]]:
        return self.rows[max(1, self.head) :]

    def column(self, *names: str) -> int | None:
        """The index of the column with one of these headers, whatever its case; they are tried in this order."""
        heads = self.titles
        return next((heads.index(name.casefold()) for name in names if name.casefold() in heads), None)

    def under(self, *words: str) -> bool:
        """Whether one of the headings, tabs, or the caption holds all of `words`, whatever their case."""
        places = [text.casefold() for text in (*self.headings, *self.tabs, self.caption)]
        return any(all(word.casefold() in place for word in words) for place in places)


def tables(raw: bytes) -> list[Table]:
    """All tables of a page in its order; raises `TooLarge`. Empty ones are left out."""
    return _Reader(tree(raw)).found


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
            if tag in SKIPPED:
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
                if len(grid) >= MAX_ROWS:
                    raise TooLarge(f"a table has more than {MAX_ROWS:,} rows")
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
