"""The draft changes what it is told to change, keeps everything else, and never leaves half a file."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.core.errors import ConfigError
from llmproxy.wizard.draft import Draft, Edit, kept_edits, replayed, sketch_of
from tests.core.properties import quick

keys = st.sampled_from(["a", "b", "c", "_note"])
paths = st.lists(keys, min_size=1, max_size=3).map(tuple)
leaves = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.lists(st.integers(), max_size=2))
trees = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8)
objects = st.dictionaries(keys, trees, max_size=3)


def written(folder: Path, data: Any) -> Path:
    path = folder / "config.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
    return path


def at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        data = data[key] if isinstance(data, dict) and key in data else None
    return data


def test_only_what_is_put_changes(tmp_path: Path) -> None:
    """Notes, order, references, numbers and what this program does not ask about are as they were."""
    old = {"_b": [1], "server": {"port": 1, "deadline": 90.5}, "_a": "é", "providers": {"x": {"api_key": "${X}"}}}
    draft = Draft(written(tmp_path, old))
    draft.put("0.0.0.0", "server", "host")
    draft.put({"base_url": "http://y/v1"}, "providers", "y")
    draft.save()
    saved = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert saved == {
        **old,
        "server": {"port": 1, "deadline": 90.5, "host": "0.0.0.0"},
        "providers": {"x": {"api_key": "${X}"}, "y": {"base_url": "http://y/v1"}},
    }
    assert list(saved) == list(old)


def test_two_notes_of_one_name_are_both_kept(tmp_path: Path) -> None:
    """A file may say `_note` twice in one place; neither is lost."""
    draft = Draft(written(tmp_path, '{"_note": "one", "_note": "two", "aliases": {}}'))
    draft.put("llmproxy/free", "aliases", "x")
    draft.save()
    text = (tmp_path / "config.json").read_text("utf-8")
    assert '"one"' in text
    assert '"two"' in text


def test_what_is_there_already_is_no_edit(tmp_path: Path) -> None:
    """Putting the same value again changes nothing, so that nothing is written."""
    draft = Draft(written(tmp_path, {"server": {"port": 1}}))
    draft.put(1, "server", "port")
    draft.remove("server", "host")
    assert not draft.changed
    assert not draft.sketch.exists()


def test_edits_are_kept_at_once_and_privately(tmp_path: Path) -> None:
    """Each edit is in the draft before the next question; the file is as it was."""
    path = written(tmp_path, {})
    draft = Draft(path)
    draft.put("sk-1", "providers", "openai", "api_key")
    assert stat.S_IMODE(draft.sketch.stat().st_mode) == 0o600
    assert kept_edits(path) == (Edit(("providers", "openai", "api_key"), "sk-1"),)
    assert path.read_text() == "{}"


def test_kept_edits_are_laid_over_the_file_of_today(tmp_path: Path) -> None:
    """What was changed by hand after the break stays, and so does what was answered before it."""
    path = written(tmp_path, {"server": {"port": 1}})
    Draft(path).put(2, "server", "port")
    written(tmp_path, {"server": {"port": 1, "grace": 3}, "aliases": {"x": "llmproxy/free"}})
    Draft(path, kept_edits(path)).save()
    assert json.loads(path.read_text()) == {"server": {"port": 2, "grace": 3}, "aliases": {"x": "llmproxy/free"}}
    assert not sketch_of(path).exists()


def test_a_change_by_hand_during_the_setup_stays(tmp_path: Path) -> None:
    """The file is read again before it is written."""
    path = written(tmp_path, {})
    draft = Draft(path)
    draft.put(2, "server", "port")
    written(tmp_path, {"aliases": {"x": "llmproxy/free"}})
    draft.save()
    assert json.loads(path.read_text()) == {"aliases": {"x": "llmproxy/free"}, "server": {"port": 2}}


def test_a_later_edit_covers_earlier_ones_below_it(tmp_path: Path) -> None:
    """Removing a provider forgets the key that was typed for it."""
    draft = Draft(written(tmp_path, {}))
    draft.put("sk-1", "providers", "openai", "api_key")
    draft.remove("providers", "openai")
    assert "sk-1" not in draft.sketch.read_text("utf-8")


def test_nothing_wrong_is_saved(tmp_path: Path) -> None:
    """A value that the configuration refuses, or a circle of aliases, leaves the file alone."""
    path = written(tmp_path, {"aliases": {"x": "y"}})
    draft = Draft(path)
    draft.put("x", "aliases", "y")
    with pytest.raises(ConfigError, match=r"aliases\.\w: goes in a circle"):
        draft.save()
    draft.put("llmproxy/free", "aliases", "y")
    draft.put("many", "server", "port")
    with pytest.raises(ConfigError, match=r"server\.port"):
        draft.save()
    assert json.loads(path.read_text()) == {"aliases": {"x": "y"}}


@pytest.mark.parametrize("text", ["{", "[]", '{"srever": {}}', '{"aliases": {}, "aliases": {}}'])
def test_a_file_that_cannot_be_used_is_not_touched(tmp_path: Path, text: str) -> None:
    """It is refused with its path before anything is asked."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        Draft(path)
    assert path.read_text() == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"edits": 3}', '{"edits": [{"path": 5}]}', '{"edits": [5]}'])
def test_kept_edits_that_cannot_be_read_are_none(tmp_path: Path, text: str) -> None:
    """Nonsense beside the file never ends the setup."""
    sketch_of(tmp_path / "config.json").write_text(text)
    assert kept_edits(tmp_path / "config.json") == ()


def test_behind_a_link_the_file_is_replaced(tmp_path: Path) -> None:
    """A link into a folder of dot files stays a link."""
    real = written(tmp_path, {})
    link = tmp_path / "link.json"
    link.symlink_to(real)
    draft = Draft(link)
    draft.put(2, "server", "port")
    draft.save()
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"server": {"port": 2}}


def test_without_keeping_no_draft_is_written(tmp_path: Path) -> None:
    """What flags say leaves the draft of somebody who was interrupted as it is."""
    path = written(tmp_path, {})
    Draft(path).put(2, "server", "port")
    quiet = Draft(path, keep=False)
    quiet.put(3, "server", "port")
    quiet.save()
    assert kept_edits(path) == (Edit(("server", "port"), 2),)


@quick
@given(data=objects, path=paths, value=trees)
def test_put_and_nothing_else(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """After an edit its path holds the value, and every path that does not meet it is as before."""
    changed = replayed(data, [Edit(path, value)])
    assert at(changed, path) == value
    for key in data:
        if key != path[0]:
            assert changed[key] == data[key]
    kept = [key for key in data if key in changed]
    assert [key for key in changed if key in data] == kept


@quick
@given(data=objects, path=paths)
def test_remove_and_nothing_else(data: dict[str, Any], path: tuple[str, ...]) -> None:
    """A removed path is gone, removing what is not there changes nothing, and the input is never changed."""
    before = json.dumps(data)
    changed = replayed(data, [Edit(path, remove=True)])
    assert at(changed, path) is None
    if at(data, path[:-1]) is None and len(path) > 1:
        assert changed == data
    assert json.dumps(data) == before
