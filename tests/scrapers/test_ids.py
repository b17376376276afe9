"""A source's name for a model is taken for a known id only when it can mean that one alone."""

from __future__ import annotations

import pytest

from scrapers.ids import Known, is_glob, normalised


def test_an_id_is_itself() -> None:
    """An id that is known is found as it stands, also between backticks."""
    known = Known(["meta-llama/Llama-3.3-70B-Instruct", "@cf/meta/llama-3-8b-instruct"])
    assert known.find("meta-llama/Llama-3.3-70B-Instruct") == "meta-llama/Llama-3.3-70B-Instruct"
    assert known.find(" `@cf/meta/llama-3-8b-instruct` ") == "@cf/meta/llama-3-8b-instruct"


@pytest.mark.parametrize(
    "text",
    [
        "GEMINI-2.0-FLASH-LITE",
        "Gemini 2.0 Flash-Lite",
        "gemini_2.0_flash_lite",
        "Gemini 2.0 Flash\u2011Lite",
        "Gemini\u00a02.0\nFlash-Lite",
    ],
)
def test_a_display_name_is_the_id_in_other_letters(text: str) -> None:
    """Case, blanks, underscores and unbreakable hyphens make no difference where one id fits."""
    assert Known(["gemini-2.0-flash", "gemini-2.0-flash-lite"]).find(text) == "gemini-2.0-flash-lite"


def test_a_name_without_its_owner() -> None:
    """The part of an id after its last slash is enough where only one id ends so."""
    known = Known(["microsoft/MAI-DS-R1", "models/gemini-2.5-pro", "a/twin", "b/twin"])
    assert known.find("MAI-DS-R1") == "microsoft/MAI-DS-R1"
    assert known.find("Gemini 2.5 Pro") == "models/gemini-2.5-pro"
    assert known.find("twin") is None
    assert known.find("c/twin") is None


def test_a_whole_id_comes_before_the_end_of_another() -> None:
    """A name that is an id in another case is that one, although the id of somebody else ends the same."""
    assert Known(["gpt-oss-20b", "openai/gpt-oss-20b"]).find("GPT OSS 20B") == "gpt-oss-20b"


def test_twins_that_differ_in_case_alone() -> None:
    """Two ids that differ in case are found exactly, and by no third spelling."""
    known = Known(["GLM-4.5", "glm-4.5"])
    assert known.find("glm-4.5") == "glm-4.5"
    assert known.find("GLM-4.5") == "GLM-4.5"
    assert known.find("Glm 4.5") is None


@pytest.mark.parametrize(
    "text",
    [
        "gemma-4-31b¹",
        "gemma-4-31b*",
        "gemma-4-31b †",
        "gemma-4-31b [1]",
        "gemma-4-31b[^2]",
        "gemma-4-31b (a)",
        "gemma-4-31b1",
    ],
)
def test_footnote_marks_are_no_part_of_an_id(text: str) -> None:
    """A mark of a footnote after an id, or a digit glued to its last letter, is left out."""
    assert Known(["gemma-4-31b", "gemma-4-31"]).find(text) == "gemma-4-31b"


def test_a_glued_digit_is_part_of_an_id_that_has_it() -> None:
    """What looks like a footnote's digit stays where there is a model of that name."""
    assert Known(["gemma-4-31b", "gemma-4-31b1"]).find("gemma-4-31b1") == "gemma-4-31b1"


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("gpt-4o", "gpt-4"),
        ("glm-4.5v", "glm-4.5"),
        ("gemma-3n", "gemma-3"),
        ("llama-3.11", "llama-3.1"),
        ("grok-42", "grok-4"),
        ("qwen3-32b", "qwen3-3"),
    ],
)
def test_a_longer_name_is_another_model(text: str, near: str) -> None:
    """A letter at the end, or a digit after a digit, tells models apart; neither is taken for a footnote."""
    assert Known([near]).find(text) is None


def test_the_suffix_of_free_models_is_never_added_or_dropped() -> None:
    """The free and the paid id of one model are two ids."""
    both = Known(["z-ai/glm-4.5-air", "z-ai/glm-4.5-air:free"])
    assert both.find("z-ai/glm-4.5-air:free") == "z-ai/glm-4.5-air:free"
    assert both.find("GLM-4.5-Air:free") == "z-ai/glm-4.5-air:free"
    assert both.find("GLM 4.5 Air") == "z-ai/glm-4.5-air"
    assert Known(["z-ai/glm-4.5-air"]).find("z-ai/glm-4.5-air:free") is None
    assert Known(["z-ai/glm-4.5-air:free"]).find("z-ai/glm-4.5-air") is None
    assert Known(["z-ai/glm-4.5-air:free"]).find("GLM 4.5 Air") is None


@pytest.mark.parametrize("glob", ["*", "*:free", "gemma-3-*", "@cf/*", "openai/gpt-*", "gemini-2.*-flash"])
def test_a_glob_stands_for_itself(glob: str) -> None:
    """A glob is handed on, whether or not an id is known that fits it."""
    assert is_glob(glob)
    assert Known([]).find(glob) == glob


@pytest.mark.parametrize(
    "text", ["* prices may change", "** note", "**gpt-oss-20b**", "llama-3 *", "", "  ", "†", "[1]", "``", "/"]
)
def test_notes_are_no_globs(text: str) -> None:
    """A footnote of a page, or nothing, is no model, not even where an id ends in a slash."""
    assert not is_glob(text)
    assert Known(["gpt-oss-20b", "odd/"]).find(text) is None


def test_an_unknown_name_is_nobody() -> None:
    """What the provider is not known to have is not found, however alike."""
    assert Known(["gemini-2.5-flash"]).find("Gemini 2.5 Flash Preview") is None


def test_normalised() -> None:
    """The spelling that is compared is in lower case with single hyphens for blanks."""
    assert normalised("  Llama 3.3\t 70B_Instruct ") == "llama-3.3-70b-instruct"
