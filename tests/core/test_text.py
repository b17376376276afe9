"""Keys never get out of an upstream's error text."""

from __future__ import annotations

import pytest

from llmproxy.core.text import overlap, scrub


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Incorrect API key provided: sk-proj-abc123def456. See docs.", "Incorrect API key provided: …. See docs."),
        ("Incorrect API key provided: sk-abcd****wxyz.", "Incorrect API key provided: …."),
        ("bad key gsk_A1b2C3d4E5f6G7h8", "bad key …"),
        ("API key AIzaSyD-1234567890abcdef is invalid", "API key … is invalid"),
        ("header 'Authorization: Bearer abc.def-123'", "header 'Authorization: Bearer …'"),
        ("GET https://x.example/v1?key=secret123&alt=sse", "GET https://x.example/v1?key=…&alt=sse"),
        ("proxy http://me:pass@host:80 refused", "proxy http://…@host:80 refused"),
        ("token hf_abcDEF123456789 revoked", "token … revoked"),
    ],
)
def test_keys_are_scrubbed(text: str, left: str) -> None:
    """The forms in which providers print keys back."""
    assert scrub(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "The model `gpt-oss-120b` does not exist",
        "Rate limit reached for model llama-3.3-70b-versatile in organization org_01 on tokens per minute",
        "unknown parameter: key_frames, sk-learn is not a model",
        "https://console.groq.com/docs/errors",
        "Please retry in 7.66s",
    ],
)
def test_other_text_stays(text: str) -> None:
    """Model ids, addresses and waits are what a person needs to read."""
    assert scrub(text) == text


def test_overlap() -> None:
    """How much of an end may be the beginning of a tag."""
    assert [overlap(text, "<think>") for text in ("", "a<", "a<thin", "<think>", "think>")] == [0, 1, 5, 0, 0]
