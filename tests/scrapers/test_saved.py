"""Replies in a folder: which one counts, how old it is, and that nothing outside of the folder is touched."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from scrapers.fetch import Fetched, FetchFailed
from scrapers.saved import MAX_BYTES, Saved, SavedError, read, write

JUNE_S = datetime(2026, 6, 17, 4, 17, tzinfo=UTC).timestamp()


def put(folder: Path, name: str, text: str = "", *, mtime_s: float = 0.0, meta: Any = None) -> Path:
    """A reply of the source `docs`, with a file beside it where `meta` says so."""
    path = folder / "docs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text or name)
    os.utime(path, (mtime_s, mtime_s))
    if meta is not None:
        path.with_name(f"{name}.meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    return path


def day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def fetched(raw: bytes | None, at_s: float = JUNE_S) -> Fetched:
    return Fetched("https://a.example/limits?page=2", raw, 'W/"é"', "Wed, 17 Jun 2026 04:17:00 GMT", at_s)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    """A reply comes back byte for byte, with its address, time and validators."""
    raw = bytes(range(256))
    path = write(tmp_path / "new", "docs", fetched(raw, JUNE_S + 0.25), ".html")
    assert path is not None
    assert path.name == "2026-06-17T041700Z.html"
    wanted = Saved(raw, JUNE_S + 0.25, "https://a.example/limits?page=2", 'W/"é"', "Wed, 17 Jun 2026 04:17:00 GMT")
    assert read(tmp_path / "new", "docs") == wanted
    assert wanted.fetched_at_s == wanted.seen_at_s
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.meta.json"]


def test_the_newest_that_was_written_is_read(tmp_path: Path) -> None:
    """Each write keeps those before it, and the latest time counts, whatever the order of writing."""
    for at_s, raw in ((JUNE_S + 1, b"second"), (JUNE_S + 2, b"third"), (JUNE_S, b"first")):
        write(tmp_path, "docs", fetched(raw, at_s), ".json")
    found = read(tmp_path, "docs")
    assert found is not None
    assert (found.raw, found.seen_at_s) == (b"third", JUNE_S + 2)
    assert len(list((tmp_path / "docs").iterdir())) == 6


def test_an_empty_reply_is_a_reply(tmp_path: Path) -> None:
    """No bytes at all are kept as such: what they mean is for the source to say."""
    write(tmp_path, "docs", fetched(b""), "")
    found = read(tmp_path, "docs")
    assert found is not None
    assert found.raw == b""


def test_unchanged_writes_nothing(tmp_path: Path) -> None:
    """A reply that says only that nothing changed leaves what is there."""
    assert write(tmp_path, "docs", fetched(None), ".json") is None
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_files_has_none(tmp_path: Path) -> None:
    """No folder, an empty one, and one with only other things in it are the same: nothing was saved."""
    assert read(tmp_path, "docs") is None
    (tmp_path / "docs" / "older").mkdir(parents=True)
    assert read(tmp_path, "docs") is None
    put(tmp_path, ".half-written")
    put(tmp_path, "lost.json.meta.json", "{}")
    assert read(tmp_path, "docs") is None


@pytest.mark.parametrize(
    ("name", "seen_at_s"),
    [
        ("2026-06-17.json", day("2026-06-17")),
        ("limits-2026-06-17.v2.html", day("2026-06-17")),
        ("2026-06.md", day("2026-06-01")),
        ("2026-06-17T041700Z.json", JUNE_S),
        ("2026-13-01_2026-02-03.json", day("2026-02-03")),
        ("build-12026-06-17.json", 5.0),
        ("2026-02-30.json", 5.0),
        ("page.html", 5.0),
    ],
)
def test_a_file_is_as_old_as_its_name_says(tmp_path: Path, name: str, seen_at_s: float) -> None:
    """The date in a name counts, a month from its first day; without one it is the time of the file."""
    put(tmp_path, name, mtime_s=5.0)
    found = read(tmp_path, "docs")
    assert found is not None
    assert (found.seen_at_s, found.url) == (seen_at_s, "")


@pytest.fixture
def in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A computer whose own time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("in_tokyo")
@pytest.mark.parametrize(
    ("stated", "seen_at_s"),
    [
        ("2026-06-17T04:17:00Z", JUNE_S),
        ("2026-06-17T06:17:00+02:00", JUNE_S),
        ("2026-06-17T04:17:00", JUNE_S),
        ("2026-06-17", day("2026-06-17")),
    ],
)
def test_what_lies_beside_a_file_counts_first(tmp_path: Path, stated: str, seen_at_s: float) -> None:
    """`fetched_at` outranks the name and the time of the file; without a zone it is UTC."""
    put(tmp_path, "2020-01-01.json", mtime_s=5.0, meta={"url": "https://a.example", "fetched_at": stated})
    assert read(tmp_path, "docs") == Saved(b"2020-01-01.json", seen_at_s, "https://a.example")


def test_all_kinds_of_dates_are_compared(tmp_path: Path) -> None:
    """The newest counts, however its date is known; of two equally old ones the last by name."""
    put(tmp_path, "page.html", mtime_s=day("2026-01-01"))
    put(tmp_path, "2026-02.html")
    assert (read(tmp_path, "docs") or Saved(b"", 0)).raw == b"2026-02.html"
    put(tmp_path, "2019-01-01.html", meta={"fetched_at": "2026-03-01"})
    assert (read(tmp_path, "docs") or Saved(b"", 0)).raw == b"2019-01-01.html"
    put(tmp_path, "a-2026-04.html")
    put(tmp_path, "b-2026-04.html")
    assert (read(tmp_path, "docs") or Saved(b"", 0)).raw == b"b-2026-04.html"


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ("{", "not JSON"),
        ("\udcff", "not JSON"),
        ("[]", "must be a JSON object"),
        ({"fetched_at": "yesterday"}, "fetched_at: must be an ISO 8601 time"),
        ({"fetched_at": 5}, "fetched_at: must be a text"),
        ({"url": ["https://a.example"]}, "url: must be a text"),
    ],
)
def test_a_broken_file_beside_is_told(tmp_path: Path, meta: Any, says: str) -> None:
    """What cannot be understood is an error that names the file, not a guess at another date."""
    path = put(tmp_path, "page.html")
    beside = path.with_name("page.html.meta.json")
    text = meta if isinstance(meta, str) else json.dumps(meta)
    beside.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SavedError, match=says) as caught:
        read(tmp_path, "docs")
    assert str(beside) in str(caught.value)


@pytest.mark.parametrize("name", ["..", ".", "", "../docs", "a/b", "/etc", "a\0b", ".hidden", "a\n", "x" * 101])
def test_a_source_is_one_folder_deep(tmp_path: Path, name: str) -> None:
    """A name that could mean another place is refused, for reading and for writing."""
    folder = tmp_path / "saved"
    folder.mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "x.json").write_text("outside")
    with pytest.raises(SavedError, match="cannot be the name of a source"):
        read(folder, name)
    with pytest.raises(SavedError, match="cannot be the name of a source"):
        write(folder, name, fetched(b"x"), ".json")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("what", ["folder", "file", "meta", "old file"])
def test_no_link_leads_out(tmp_path: Path, what: str) -> None:
    """A link to something outside is an error, whether it is the folder of a source, a reply, or what is beside it."""
    folder, secret = tmp_path / "saved", tmp_path / "secret"
    (folder / "docs").mkdir(parents=True)
    secret.mkdir()
    (secret / "x.json").write_text('{"url": "secret"}')
    docs = folder / "docs"
    if what == "folder":
        docs.rmdir()
        docs.symlink_to(secret)
    elif what == "file":
        (docs / "2026-06-17.json").symlink_to(secret / "x.json")
    elif what == "meta":
        put(folder, "page.html")
        (docs / "page.html.meta.json").symlink_to(secret / "x.json")
    else:
        put(folder, "2026-06-17.json")
        (docs / "2026-06-16.json").symlink_to(secret / "x.json")
    with pytest.raises(SavedError, match="leads out of"):
        read(folder, "docs")
    if what == "folder":
        with pytest.raises(SavedError, match="leads out of"):
            write(folder, "docs", fetched(b"x"), ".json")
        assert [path.name for path in secret.iterdir()] == ["x.json"]


def test_links_inside_are_followed(tmp_path: Path) -> None:
    """A link that stays in the folder is as good as a file, also where the folder itself is reached by a link."""
    real, folder = tmp_path / "real", tmp_path / "saved"
    real.mkdir()
    folder.symlink_to(real)
    (real / "docs").mkdir()
    (real / "all.json").write_text("shared")
    (real / "docs" / "2026-06-17.json").symlink_to(Path("..") / "all.json")
    assert read(folder, "docs") == Saved(b"shared", day("2026-06-17"))


def test_a_link_to_itself_is_told(tmp_path: Path) -> None:
    """A loop of links, and a link to nothing, are errors and not replies."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.json").symlink_to(docs / "b.json")
    with pytest.raises(SavedError, match=r"a\.json|b\.json"):
        read(tmp_path, "docs")
    (docs / "b.json").symlink_to(docs / "a.json")
    with pytest.raises(SavedError, match=r"a\.json|b\.json"):
        read(tmp_path, "docs")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A misspelt folder is an error, and so is a file in place of one."""
    with pytest.raises(SavedError, match=r"nowhere: no such folder"):
        read(tmp_path / "nowhere", "docs")
    (tmp_path / "docs").write_text("a file")
    with pytest.raises(SavedError, match=r"docs: not a folder"):
        read(tmp_path, "docs")
    with pytest.raises(SavedError, match=r"docs"):
        write(tmp_path, "docs", fetched(b"x"), ".json")


def test_what_is_no_page_is_not_read(tmp_path: Path) -> None:
    """A file that is too large to be a page is refused, and a pipe is not waited for."""
    path = put(tmp_path, "page.html")
    os.mkfifo(path.with_name("2030-01-01.json"))
    assert (read(tmp_path, "docs") or Saved(b"", 0)).raw == b"page.html"
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(SavedError, match=r"page\.html: larger than 64 MiB"):
        read(tmp_path, "docs")


@pytest.mark.parametrize("suffix", ["/../x", "json", ".meta.json", ".a/b", "..json", ".\n"])
def test_a_suffix_is_an_ending(tmp_path: Path, suffix: str) -> None:
    """What could lead elsewhere, or be taken for the file beside a reply, is refused."""
    with pytest.raises(SavedError, match="cannot end the name"):
        write(tmp_path, "docs", fetched(b"x"), suffix)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """An error of the file system comes out as one of this module, with the folder in it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedError, match="file: cannot be written"):
        write(tmp_path / "file", "docs", fetched(b"x"), ".json")


def test_it_is_a_fetch_that_failed() -> None:
    """Who reads from folders and from hosts need know only one kind of failure."""
    assert issubclass(SavedError, FetchFailed)
