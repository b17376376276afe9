"""The generations of Claude are told apart by their ids."""

from __future__ import annotations

import pytest

from llmproxy.dialects.anthropic_models import Traits, traits


@pytest.mark.parametrize(
    ("model", "adaptive", "budgets", "sampling", "formats", "forces", "off"),
    [
        ("claude-3-haiku-20240307", False, True, True, False, True, ""),
        ("claude-3-5-sonnet-20241022", False, True, True, False, True, ""),
        ("claude-3-7-sonnet-latest", False, True, True, False, True, ""),
        ("claude-opus-4-20250514", False, True, True, False, True, ""),
        ("claude-opus-4-1-20250805", False, True, True, False, True, ""),
        ("claude-haiku-4-5-20251001", False, True, True, True, True, ""),
        ("anthropic.claude-opus-4-6-v1", True, True, True, True, True, ""),
        ("anthropic/claude-sonnet-4.6", True, True, True, True, True, ""),
        ("claude-opus-4-7", True, False, False, True, True, ""),
        ("claude-sonnet-5", True, False, False, True, True, "disabled"),
        ("claude-opus-5", True, False, False, True, True, "disabled"),
        ("claude-sonnet-5-5", True, False, False, True, False, "between_tools"),
        ("claude-opus-5-5", True, False, False, True, False, "never"),
        ("claude-haiku-5-5", True, False, False, True, True, "disabled"),
        ("claude-fable-5", True, False, False, True, True, "never"),
        ("claude-fable-5-1", True, False, False, True, False, "never"),
    ],
)
def test_generations(
    model: str, adaptive: bool, budgets: bool, sampling: bool, formats: bool, forces: bool, off: str
) -> None:
    """Each id is read as its version, however it is written, and the date in it is not taken for one."""
    known = traits(model)
    told = (known.adaptive, known.budgets, known.sampling, known.formats, known.forces_tools, known.off)
    assert told == (adaptive, budgets, sampling, formats, forces, off)


@pytest.mark.parametrize("model", ["deepseek-chat", "glm-5", "claude-latest", "kimi-k3", ""])
def test_of_others_nothing_is_known(model: str) -> None:
    """Any other model that speaks the format gets what the first Claudes took."""
    assert traits(model) == Traits()


@pytest.mark.parametrize(
    ("model", "most"),
    [("claude-3-opus-20240229", 4096), ("claude-3-5-haiku-20241022", 8192), ("claude-opus-4-1", 32_000), ("x", 8192)],
)
def test_most_tokens(model: str, most: int) -> None:
    """No model is asked for more tokens than it can give where the client sets no limit."""
    assert traits(model).max_tokens == most
