"""When nobody answered, the client gets the one error that tells the truth."""

from __future__ import annotations

from typing import Any

import pytest

from llmproxy.core.errors import (
    AllCandidatesFailed,
    AttemptError,
    BadReply,
    CapabilityUnmet,
    ConnectFailed,
    ModelNotFound,
    ModelUnavailable,
    NoCandidates,
    QuotaExhausted,
    Refused,
    SameRefusal,
    TimedOut,
    Unmet,
)
from llmproxy.core.types import Candidate, Dropped, Kept, Model, Plan
from llmproxy.gateway.verdict import nobody, of_failures, same_refusal

A, B = Candidate(Model("a", "m")), Candidate(Model("b", "m"))


def plan_of(*dropped: Dropped, hint: str = "set a key") -> Plan:
    return Plan("llmproxy/free", "best", (Kept(A, "best"),), dropped, hint)


def refused(
    status: int, kind: Any, wait_s: float | None = None, code: str | None = None, param: str | None = None
) -> Refused:
    return Refused(f"said {status}", kind=kind, http_status=status, retry_after_s=wait_s, code=code, param=param)


INVALID = refused(400, "invalid", code="bad_value", param="messages")
LIMITED = refused(429, "rate_limit", 30.0)
BROKEN = refused(500, "server")
UNMET = Unmet("no tool call", capability="tools")


@pytest.mark.parametrize(
    ("failures", "verdict", "status", "code"),
    [
        ([INVALID], SameRefusal, 400, "bad_value"),
        ([INVALID, INVALID], SameRefusal, 400, "bad_value"),
        ([refused(400, "context_length")] * 2, SameRefusal, 400, "context_length_exceeded"),
        ([refused(413, "too_large"), refused(400, "context_length")], SameRefusal, 400, "context_length_exceeded"),
        ([refused(413, "too_large")] * 2, SameRefusal, 413, "request_too_large"),
        ([refused(422, "invalid")] * 2, SameRefusal, 422, "invalid_request"),
        ([INVALID, refused(422, "invalid")], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([INVALID, BROKEN], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([LIMITED], QuotaExhausted, 429, "rate_limit_exceeded"),
        ([LIMITED, refused(429, "rate_limit")], QuotaExhausted, 429, "rate_limit_exceeded"),
        ([LIMITED, BROKEN], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([LIMITED, UNMET], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([refused(404, "not_found")] * 2, ModelNotFound, 404, "model_not_found"),
        ([UNMET], CapabilityUnmet, 502, "capability_unmet"),
        ([UNMET, UNMET], CapabilityUnmet, 502, "capability_unmet"),
        ([UNMET, BROKEN], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([BROKEN], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([refused(503, "server", 5.0, "model_load_failed")] * 2, ModelUnavailable, 503, "model_load_failed"),
        ([refused(503, "server", code="insufficient_memory")], ModelUnavailable, 503, "insufficient_memory"),
        (
            [refused(503, "server", code="insufficient_memory"), BROKEN],
            AllCandidatesFailed,
            502,
            "all_candidates_failed",
        ),
        ([BROKEN, BROKEN], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([refused(401, "auth")], AllCandidatesFailed, 502, "all_candidates_failed"),
        ([ConnectFailed("refused")], AllCandidatesFailed, 502, "all_candidates_failed"),
        (
            [TimedOut("slow", outcome="first_token_timeout"), BadReply("odd")],
            AllCandidatesFailed,
            502,
            "all_candidates_failed",
        ),
    ],
)
def test_verdicts(failures: list[AttemptError], verdict: type, status: int, code: str) -> None:
    """The same refusal everywhere is passed on, quotas and missing capabilities are told, all else is a mixture."""
    found = of_failures(plan_of(), failures)
    assert type(found) is verdict
    assert found.code == code
    assert (found.refusal_status if isinstance(found, SameRefusal) else found.status) == status
    assert failures[-1].message in found.message


@pytest.mark.parametrize(
    ("waits", "dropped", "soonest"),
    [
        ([30.0, 5.0], [], 5.0),
        ([30.0, None], [], 30.0),
        ([None], [], None),
        ([30.0], [7.0], 7.0),
        ([None], [7.0, None], 7.0),
        ([3.0], [7.0], 3.0),
    ],
)
def test_the_soonest_reset(waits: list[float | None], dropped: list[float | None], soonest: float | None) -> None:
    """`Retry-After` is the shortest wait that any candidate stated, asked or not."""
    made = plan_of(*(Dropped(B, "cooling", wait) for wait in dropped))
    assert of_failures(made, [refused(429, "rate_limit", wait) for wait in waits]).retry_after_s == soonest


def test_the_same_refusal_keeps_its_words() -> None:
    """The client gets the upstream's own message, code and param, as its own mistake."""
    found = same_refusal(INVALID)
    assert (found.message, found.code, found.param) == ("said 400", "bad_value", "messages")
    assert found.blames == "client"
    assert found.type == "invalid_request_error"


def test_an_empty_pool() -> None:
    """A pool without candidates says which key of the configuration would fill it."""
    found = nobody(Plan("llmproxy/free", "best", (), (), "set a key"))
    assert isinstance(found, NoCandidates)
    assert (found.status, found.param) == (503, "model")
    assert "set a key" in found.message


@pytest.mark.parametrize(
    ("waits", "verdict", "status", "soonest"),
    [
        ([None, None], NoCandidates, 503, None),
        ([9.0, 4.0], QuotaExhausted, 429, 4.0),
        ([None, 4.0], QuotaExhausted, 429, 4.0),
        ([0.0], QuotaExhausted, 429, 0.0),
    ],
)
def test_everyone_was_dropped(waits: list[float | None], verdict: type, status: int, soonest: float | None) -> None:
    """When all candidates are out, the client is told when to come back, or that nobody can do it."""
    dropped = tuple(Dropped(A, f"reason {place}", wait) for place, wait in enumerate(waits))
    found = nobody(Plan("llmproxy/free", "best", (), dropped, "hint"))
    assert type(found) is verdict
    assert (found.status, found.retry_after_s) == (status, soonest)
    assert "reason 0" in found.message


def test_too_large_for_everybody_is_the_clients_own_error() -> None:
    """Without a request: each candidate refused a call of this size before. With one that only waits, it is a wait."""
    large = Dropped(A, "it refused a call of about 1000 tokens", too_large="context_length")
    error = nobody(Plan("llmproxy/free", "best", (), (large, large)))
    assert isinstance(error, SameRefusal)
    assert (error.refusal_status, error.code) == (400, "context_length_exceeded")
    assert isinstance(nobody(Plan("llmproxy/free", "best", (), (large, Dropped(B, "stated", 30.0)))), QuotaExhausted)
