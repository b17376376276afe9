"""Tables come out of HTML, Markdown and MDX as grids, and no page however made takes long or breaks the reader."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapers.pages import TooLarge, cut_short, decoded, text_of, tree
from scrapers.tables import Table, continued, tables


def html(body: str) -> bytes:
    return f"<!doctype html><html><body>{body}</body></html>".encode()


def only(raw: bytes) -> Table:
    (table,) = tables(raw)
    return table


def seconds_of(raw: bytes) -> float:
    """How long a page takes, whether it is read or refused."""
    began = time.perf_counter()
    with contextlib.suppress(TooLarge):
        tables(raw)
    return time.perf_counter() - began


def test_a_table_of_html() -> None:
    """Rows, links, caption and marked headers; entities are their characters."""
    table = only(
        html(
            "<h1>Docs</h1><h2>Limits</h2><table><caption>Free &amp; easy</caption>"
            "<thead><tr><th>Model</th><th>RPM</th></tr></thead>"
            "<tbody><tr><td><a href='/m/a'>a&#45;1</a></td><td>&#51;0</td></tr></tbody></table>"
        )
    )
    assert table.rows == [["Model", "RPM"], ["a-1", "30"]]
    assert (table.header, table.body, table.head) == (["Model", "RPM"], [["a-1", "30"]], 1)
    assert (table.headings, table.caption, table.links) == (("Docs", "Limits"), "Free & easy", [[], ["/m/a"]])
    assert (table.titles, table.place) == (["model", "rpm"], "limits")
    assert table.column("rpm") == 1
    assert table.column("id", "MODEL") == 0
    assert table.column("TPM") is None


def test_a_table_of_markdown() -> None:
    """Pipes, code, bold, escapes and links are read as what they show."""
    table = only(
        b"# Docs\n\n| **Model** | RPM |\n| :-- | --: |\n| [`a|b`](/x) | \\- |\n| `c` | 1,000 |\n".replace(
            b"a|b", b"a\\|b"
        )
    )
    assert table.rows == [["Model", "RPM"], ["a|b", "-"], ["c", "1,000"]]
    assert table.links[1] == ["/x"]


def test_headings_are_those_above() -> None:
    """A heading ends those of its level and below it."""
    page = "<h1>A</h1><h2>B</h2><h3>C</h3>{0}<h3>D</h3>{0}<h2>E</h2>{0}<h1>F</h1>{0}".format(
        "<table><tr><td>x</td></tr></table>"
    )
    assert [table.headings for table in tables(html(page))] == [("A", "B", "C"), ("A", "B", "D"), ("A", "E"), ("F",)]


def test_spans_stand_in_each_of_their_places() -> None:
    """A cell over several columns and rows is repeated; the cells beside it keep their columns."""
    table = only(
        html(
            "<table><tr><th>Tier<th>Model<th>RPM<th>RPD</tr>"
            "<tr><td rowspan=3>low<td>a<td colspan=2>15</tr>"
            "<tr><td rowspan=2>b<td>1<td>2</tr><tr><td>3<td>4</tr><tr><td>high<td>c<td>5</tr></table>"
        )
    )
    assert table.rows == [
        ["Tier", "Model", "RPM", "RPD"],
        ["low", "a", "15", "15"],
        ["low", "b", "1", "2"],
        ["low", "b", "3", "4"],
        ["high", "c", "5", ""],
    ]


def test_a_span_ends_with_its_section() -> None:
    """A header that claims more rows than its section has does not push the cells of the body aside."""
    table = only(html("<table><thead><tr><th rowspan=5>Model<th>RPM</thead><tbody><tr><td>a<td>1</tbody></table>"))
    assert table.rows == [["Model", "RPM"], ["a", "1"]]


def test_a_wide_cell_over_a_tall_one_moves_nothing_below() -> None:
    """Where cells overlap, the tall one still stands in the rows below."""
    table = only(
        html("<table><tr><td>a<td rowspan=3>tall<td>b</tr><tr><td colspan=2>wide<td>c</tr><tr><td>d<td>e</tr></table>")
    )
    assert table.rows[2] == ["d", "tall", "e"]


def test_two_rows_of_headers() -> None:
    """The last row of headers is the header, and the body begins below it."""
    table = only(
        html("<table><tr><th colspan=2>L</tr><tr><th>Model<th>RPM</tr><tr><td>a<td>1</tr><tr><th>b<td>2</tr></table>")
    )
    assert (table.head, table.header, table.body) == (2, ["Model", "RPM"], [["a", "1"], ["b", "2"]])


def test_a_table_inside_a_cell() -> None:
    """It is part of that cell, with its numbers apart, and adds no rows."""
    table = only(html("<table><tr><td>a<td><table><tr><td>30<td>40</tr></table></tr><tr><td>b<td>2</tr></table>"))
    assert table.rows == [["a", "30\n40"], ["b", "2"]]


def test_tabs_of_mdx() -> None:
    """Each table knows the tabs around it, by `title`, `label` or `value`; a tab ends where it ends."""
    page = (
        b'<Tabs>\n  <Tab title="Free">\n    | M | RPM |\n    | - | - |\n    | `a`<sup>1</sup> | 1 |\n\n'
        b"    <sup>1</sup> Note\n  </Tab>\n\n"
        b'  <TabItem value="x" label="Paid">\n    | M | RPM |\n    | - | - |\n    | a | 9 |\n  </TabItem>\n</Tabs>\n\n'
        b"| M | RPM |\n| - | - |\n| b | 5 |\n"
    )
    assert [(table.tabs, table.body) for table in tables(page)] == [
        (("Free",), [["a", "1"]]),
        (("Paid",), [["a", "9"]]),
        ((), [["b", "5"]]),
    ]


def test_details_are_tabs_by_their_own_summary() -> None:
    """A summary names the details that it belongs to, not those around it."""
    table = "<table><tr><td>x</tr></table>"
    page = f"<details><details><summary>Inner <b>one</b></summary>{table}</details></details>"
    assert only(html(page)).tabs == ("", "Inner one")
    assert only(b"<details>\n<summary>Free</summary>\n\n| M |\n| - |\n| a |\n\n</details>\n").tabs == ("Free",)
    assert (
        only(b"# Limits\n\n<details>\n<summary>Free</summary>\n\n| M |\n| - |\n| a |\n\n</details>\n").place == "free"
    )


def test_a_tag_that_closes_itself_holds_nothing() -> None:
    """`<Tab … />` or `<div … />` on a line of its own is not around what follows."""
    page = b'<Accordion title="Paid" />\n\n<div style={{display: "none"}} />\n\n| M |\n| - |\n| a |\n'
    assert only(page).tabs == ()


def test_under_looks_at_headings_tabs_and_caption() -> None:
    """All words have to stand in one of them, in any case."""
    table = Table([["x"]], ("Rate limits", "Preview models"), ("Free Tier",), "Batch")
    assert table.under("rate", "LIMITS")
    assert table.under("free")
    assert table.under("batch")
    assert not table.under("rate", "free")


def test_a_header_in_a_table_of_its_own() -> None:
    """A row of headers and the table below it are one, where that has no such header itself."""
    page = b"## L\n\n| MODEL ID | RPM |\n| - | - |\n\n| a | 1 |\n| - | - |\n| b | 2 |\n"
    (table,) = continued(tables(page))
    assert (table.header, table.body, table.head) == (["MODEL ID", "RPM"], [["a", "1"], ["b", "2"]], 1)
    assert len(table.links) == len(table.rows)


@pytest.mark.parametrize(
    "below",
    [
        b"| Model | RPM |\n| - | - |\n| a | 9 |\n",
        b"## Other\n\n| a | 1 |\n| - | - |\n| b | 2 |\n",
        b"| a | 1 | 2 |\n| - | - | - |\n| b | 2 | 3 |\n",
    ],
    ids=["its own header", "another heading", "another width"],
)
def test_a_header_is_not_put_over_what_is_not_its_own(below: bytes) -> None:
    """A table that names one of the columns itself, or stands elsewhere, or is of another width, is another table."""
    found = continued(tables(b"## L\n\n| MODEL ID | RPM |\n| - | - |\n\n" + below))
    assert [len(table.rows) for table in found] == [1, 2]


def test_what_is_not_shown_is_not_text() -> None:
    """Scripts, styles, templates, drawings, comments, footnotes and invisible characters are left out."""
    cell = "a<script>1</script><style>2</style><template>3</template>\u200b<svg>4</svg><!-- 5 --><sup>6</sup>-b"
    assert only(html(f"<table><tr><td>{cell}</tr></table>")).rows == [["a-b"]]
    table = "<table><tr><td>x</tr></table>"
    assert (
        tables(html(f"<script>{table}</script><style>{table}</style><!-- {table} --><noscript>{table}</noscript>"))
        == []
    )
    assert tables(b"```\n| M |\n| - |\n| a |\n```\n") == []


def test_footnotes_are_kept_when_wanted() -> None:
    """The caller decides whether a superscript is a note or an exponent."""
    node = tree(html("<p>10<sup>3</sup></p>")).css_first("p")
    assert node is not None
    assert (text_of(node), text_of(node, notes=True)) == ("10", "103")


def test_lines_of_a_cell() -> None:
    """Breaks and blocks end lines; runs of blanks are one."""
    cell = "<p>a  b</p>c<br>d&nbsp;&nbsp;e<ul><li>f</li><li>g</li></ul>"
    assert only(html(f"<table><tr><td>{cell}</tr></table>")).rows == [["a b\nc\nd e\nf\ng"]]


@pytest.mark.parametrize("encode", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-with-mark", "crlf"])
def test_encodings(encode: str) -> None:
    """UTF-8 and UTF-16 with their marks, in HTML and in Markdown with front matter."""
    for text in (
        "---\ntitle: x\n---\n| Modèle | RPM |\n| - | - |\n| é | 1 |\n",
        "<html><table><tr><th>Modèle<th>RPM</tr><tr><td>é<td>1</tr></table></html>",
    ):
        if encode == "crlf":
            raw = text.replace("\n", "\r\n").encode()
        elif encode == "utf-16-be-with-mark":
            raw = b"\xfe\xff" + text.encode("utf-16-be")
        else:
            raw = text.encode(encode)
        assert only(raw).rows == [["Modèle", "RPM"], ["é", "1"]]


def test_bytes_that_are_no_utf8_are_windows_1252() -> None:
    """Neither an odd byte nor half a character is an error."""
    assert decoded(b"\x93a\x94 \xe9") == "“a” é"
    assert decoded(b"\xff\xfea\x00b") == "a\ufffd"


def test_comments_before_html_take_no_time() -> None:
    """Whether a page is HTML is known at once, however many comments it begins with."""
    assert seconds_of(b"<!---->" * 600 + b"| M |\n| - |\n| a |\n") < 1
    assert only(b"<!-- a --> <!-- b -->\n<!DOCTYPE html><table><tr><td>x</table>").rows == [["x"]]


@pytest.mark.parametrize(
    ("page", "rows"),
    [
        (b"| M | RPM |\n| - | - |\n| a | 14", [["M", "RPM"], ["a", ""]]),
        (b"| M | RPM |\n| - | - |\n| a", [["M", "RPM"], ["", ""]]),
        (b"<html><table><tr><td>M<td>RPM<tr><td>a<td>14", [["M", "RPM"], ["a", ""]]),
        (b"<html><table><tr><td>M<td>RPM<tr><td>a<td>14</t", [["M", "RPM"], ["a", "14"]]),
        (b"# T\n\n<table>\n<tr><td>M</td><td>RPM</td></tr>\n<tr><td>a</td><td>\n14", [["M", "RPM"], ["a", ""]]),
    ],
)
def test_the_cell_in_which_a_page_ends_is_not_read(page: bytes, rows: list[list[str]]) -> None:
    """14 may be the beginning of 14400."""
    assert only(page).rows == rows
    assert cut_short(page)


def test_a_whole_page_is_not_cut_short() -> None:
    """A table, or its tabs, may end a page, with and without a line end; prose may name tags."""
    for page in (
        b"| M |\n| - |\n| a |",
        b"| M |\n| - |\n| a |\n",
        b"<Tabs>\n<Tab title='x'>\n</Tab>\n</Tabs>",
        b"Use <think> here",
        b"",
    ):
        assert not cut_short(page)
    assert tables(b"| M |\n| - |\n| a |\n\nA `<think>` tag opens thoughts.\n")[0].body == [["a"]]
    assert cut_short(b"<Tabs>\n<Tab title='x'>\n| M |\n| - |\n| a |\n")


def test_ten_megabytes_of_rows_are_refused_at_once() -> None:
    """No page is that large; as HTML and as Markdown it takes a few seconds at most to say so."""
    for raw in (
        html("<table>" + "<tr><td>anvil</td><td>30</td></tr>" * 300_000 + "</table>"),
        b"| M | RPM |\n| - | - |\n" + b"| anvil | 30 |\n" * 700_000,
        b"| M | RPM |\n| - | - |\n" + b"| a | 3 |\n" * 25_000,
        b"x" * (17 << 20),
        b"word " * 1_000_000,
    ):
        began = time.perf_counter()
        with pytest.raises(TooLarge):
            tables(raw)
        assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    "page",
    [
        "<table>" + "<tr><td colspan=1000 rowspan=1000>x</td></tr>" * 50 + "</table>",
        "<table>" + ("<tr><td colspan=1000>x</td></tr>" + "<tr><td>y</td></tr>" * 1000) * 10 + "</table>",
        "<table><tr>" + "<td>" * 500_000 + "</table>",
        "<table><tr>" + "<td colspan=1000>x" * 390 + "</tr>" + "<tr><td>y" * 2000 + "</table>",
        "<table>" + "<tr>" * 500_000 + "</table>",
    ],
    ids=["spans", "padding", "one row", "one wide row", "empty rows"],
)
def test_tables_that_would_grow_are_refused(page: str) -> None:
    """A small page cannot become a table that does not fit into memory."""
    began = time.perf_counter()
    with pytest.raises(TooLarge):
        tables(html(page))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("span", ["0", "-1", "x", "1.5", "9" * 5000, "²", ""])
def test_odd_spans_are_one_or_bounded(span: str) -> None:
    """What is no number of places is one; a huge one is refused or cut."""
    try:
        table = only(html(f"<table><tr><td colspan='{span}'>a<td>b</table>"))
    except TooLarge:
        return
    assert (table.rows[0][0], table.rows[0][-1]) == ("a", "b")
    assert len(table.rows[0]) <= 1001


@pytest.mark.parametrize(
    "page",
    [
        html("<div>" * 50_000 + "<table><tr><td>x</td></tr></table>"),
        html("<table><tr><td>" * 50_000),
        html("<table><tr><td>" + "<div>" * 50_000 + "x"),
        html("<h2>" + "<span>" * 50_000 + "x"),
        html("<details>" * 50_000 + "<table><tr><td>x</td></tr></table>"),
        html("<ul><li>" * 50_000 + "x"),
        html("".join(f"<b id={number}>" for number in range(20_000)) + "<p>x" * 100_000),
        html("<div></x>" * 50_000),
        b"> " * 50_000 + b"x\n",
        b"- " * 20_000 + b"x\n",
        b"[" * 50_000,
        b"![](" * 20_000,
        b"*a **a " * 20_000,
        b"`" * 50_000 + b"a" + b"`" * 49_999,
        b"<" * 100_000,
        b"<a " * 100_000,
        b"<!--" * 50_000,
        b"&" * 100_000 + b"#" * 100_000,
        b"| " * 100_000 + b"\n" + b"| - " * 50_000 + b"|\n",
        b" " * 500_000 + b"|\n" + b"\t" * 500_000,
        b"---\n" * 100_000,
        b"<Tab title='" * 20_000,
        b"\x00" * 100_000,
    ],
    ids=[
        "divs", "tables", "cell", "heading", "details", "lists", "bold", "ends", "quotes", "markdown lists", "brackets",
        "images", "emphasis", "ticks", "less", "tags", "comments", "entities", "pipes", "blanks", "front matter",
        "attributes", "nulls",
    ],
)  # fmt: skip
def test_nesting_and_noise_take_no_longer_than_their_length(page: bytes) -> None:
    """No depth and no repetition makes the reader fail, or take more than a few seconds."""
    assert seconds_of(page) < 8


@given(
    st.lists(
        st.lists(st.text(alphabet="abc 123&<>\"'", min_size=1, max_size=8), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    )
)
def test_any_grid_comes_back(rows: list[list[str]]) -> None:
    """What is written into cells of HTML is what is read, but for blanks."""

    def cell(text: str) -> str:
        return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

    page = (
        "<table>"
        + "".join("<tr>" + "".join(f"<td>{cell(text)}</td>" for text in row) + "</tr>" for row in rows)
        + "</table>"
    )
    assert only(html(page)).rows == [[" ".join(text.split()) for text in row] for row in rows]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_any_span_fills_its_rectangle(wide: int, high: int, rest: int) -> None:
    """A cell over `wide` columns and `high` rows is in each of them and in no other."""
    first = f"<tr><td rowspan={high} colspan={wide}>x</td>" + "<td>o</td>" * rest + "</tr>"
    table = only(html("<table>" + first + ("<tr>" + "<td>o</td>" * rest + "</tr>") * (high - 1) + "</table>"))
    assert table.rows == [["x"] * wide + ["o"] * rest] * high


@given(st.binary(max_size=400))
def test_no_bytes_are_an_error(raw: bytes) -> None:
    """Whatever arrives is a list of tables whose rows are of equal length."""
    for table in tables(raw):
        assert len({len(row) for row in table.rows}) == 1
        assert len(table.links) == len(table.rows)
    assert isinstance(cut_short(raw), bool)
