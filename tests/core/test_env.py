"""Secrets are read from the environment when they are used, and print masked."""

from __future__ import annotations

import pytest

from llmproxy.core.env import MissingVariable, Secret, expand, references


@pytest.mark.parametrize(
    ("text", "value"),
    [("plain", "plain"), ("${A}", "1"), ("x-${A}-${B}", "x-1-2"), ("$A", "$A"), ("${a b}", "${a b}"), ("", "")],
)
def test_expand(text: str, value: str) -> None:
    """Each `${VAR}` is replaced; everything else stays."""
    assert expand(text, {"A": "1", "B": "2"}) == value


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_a_missing_variable_is_named(environ: dict[str, str]) -> None:
    """A variable that is unset or empty raises an error that carries its name."""
    with pytest.raises(MissingVariable) as caught:
        expand("Bearer ${KEY}", environ)
    assert caught.value.name == "KEY"
    assert "KEY" in str(caught.value)


def test_references() -> None:
    """All referenced variables are found, in their order."""
    assert references("${A}/x/${B_2}${") == ["A", "B_2"]


def test_a_secret_is_read_when_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference follows the environment; white space around a key (a copied line end) is dropped."""
    secret = Secret("${TEST_LLMPROXY_KEY}")
    monkeypatch.setenv("TEST_LLMPROXY_KEY", "one\n")
    assert secret.reveal() == "one"
    monkeypatch.setenv("TEST_LLMPROXY_KEY", "two")
    assert secret.reveal() == "two"
    assert secret.reference == "${TEST_LLMPROXY_KEY}"


@pytest.mark.parametrize("key", ["sk-abcdefghijklmnop", "short", "x" * 12, "gsk_0123456789"])
def test_a_secret_never_prints(key: str) -> None:
    """No way of printing a secret gives more than its beginning and its end."""
    secret = Secret(key)
    for shown in (repr(secret), str(secret), f"{secret}", secret.masked, secret.reference):
        assert key not in shown
        assert key[4:-3] not in shown or len(key) < 8


def test_equal_secrets_are_one() -> None:
    """Secrets compare and hash by what was written, so that a key given twice counts once."""
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"
