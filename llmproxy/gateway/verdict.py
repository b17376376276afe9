"""When nobody answered: which one error tells the client the truth. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from llmproxy.core.errors import (
    AllCandidatesFailed,
    AttemptError,
    CapabilityUnmet,
    LlmproxyError,
    ModelNotFound,
    ModelUnavailable,
    NoCandidates,
    NoRoom,
    QuotaExhausted,
    Refused,
    SameRefusal,
    Unmet,
)
from llmproxy.core.types import Plan
from llmproxy.routing.planner import soonest_s

_RELAYED = frozenset({400, 413, 422})
# What local models say that cannot be loaded, or that have no memory for a request.
_UNAVAILABLE = frozenset({"insufficient_memory", "model_load_failed"})
_CODES = {"context_length": "context_length_exceeded", "too_large": "request_too_large"}


def nobody(plan: Plan) -> LlmproxyError:
    """The plan kept no candidate: all are cooling down, or there never was one."""
    if not plan.dropped:
        return NoCandidates(f"no candidate for {plan.asked}: {plan.hint}", param="model")
    wait_s = soonest_s(plan.dropped)
    if all(entry.too_large for entry in plan.dropped):
        message = f"{plan.asked}: {plan.dropped[0].reason}"
        if all(entry.too_large == "too_large" for entry in plan.dropped):
            return SameRefusal(message, refusal_status=413, code="request_too_large", param=None)
        return SameRefusal(message, refusal_status=400, code="context_length_exceeded", param="messages")
    why = "; ".join(f"{entry.candidate.key}: {entry.reason}" for entry in plan.dropped[:4])
    if wait_s is None:
        return NoCandidates(f"no candidate for {plan.asked} can serve this call: {why}", param="model")
    return QuotaExhausted(f"every candidate for {plan.asked} is out of quota: {why}", retry_after_s=wait_s)


def of_failures(plan: Plan, failures: Sequence[AttemptError]) -> LlmproxyError:
    """Every candidate that was tried failed."""
    refusals = [failure for failure in failures if isinstance(failure, Refused)]
    if len(refusals) == len(failures):
        if all(refusal.kind in _CODES for refusal in refusals):
            # Some refuse by the window, some by the bytes: the window is what the client can do something about.
            return same_refusal(min(refusals, key=lambda refusal: refusal.kind != "context_length"))
        statuses = {refusal.http_status for refusal in refusals}
        if len(statuses) == 1 and statuses <= _RELAYED:
            return same_refusal(refusals[0])
        if len(codes := {refusal.upstream_code for refusal in refusals}) == 1 and codes <= _UNAVAILABLE:
            return _unavailable(plan, refusals)
        if all(refusal.kind == "not_found" for refusal in refusals):
            return ModelNotFound(f"{plan.asked}: {refusals[-1].message}", param="model")
    limited = [failure for failure in failures if _is_limited(failure)]
    if len(limited) == len(failures):
        return _out_of_quota(plan, limited)
    if all(isinstance(failure, Unmet) for failure in failures):
        reasons = "; ".join(failure.message for failure in failures)
        return CapabilityUnmet(f"no candidate delivered what the call forces: {reasons}")
    last = failures[-1]
    tried = "the candidate" if len(failures) == 1 else f"all {len(failures)} candidates"
    return AllCandidatesFailed(f"{tried} for {plan.asked} failed; the last one said: {last.message}")


def same_refusal(refused: Refused) -> SameRefusal:
    """The refusal that would be the same everywhere, as the client's own error."""
    code = _CODES.get(refused.kind) or refused.upstream_code or "invalid_request"
    # An error that came under a 200 (or inside a stream) is still the client's own fault, not an answer.
    status = refused.http_status if refused.http_status and refused.http_status >= 400 else 400
    return SameRefusal(refused.message, refusal_status=status, code=code, param=refused.param)


def _unavailable(plan: Plan, refusals: Sequence[Refused]) -> ModelUnavailable:
    waits = [refusal.retry_after_s for refusal in refusals if refusal.retry_after_s is not None]
    return ModelUnavailable(
        f"{plan.asked}: {refusals[-1].message}",
        code=refusals[-1].upstream_code or "",
        retry_after_s=min(waits) if waits else None,
    )


def _is_limited(failure: AttemptError) -> bool:
    return isinstance(failure, NoRoom) or (isinstance(failure, Refused) and failure.kind == "rate_limit")


def _out_of_quota(plan: Plan, refusals: Sequence[AttemptError]) -> QuotaExhausted:
    stated = [refusal.retry_after_s for refusal in refusals if refusal.retry_after_s is not None]
    later = soonest_s(plan.dropped)
    waits = stated + ([later] if later is not None else [])
    message = f"every candidate for {plan.asked} is out of quota; the last one said: {refusals[-1].message}"
    return QuotaExhausted(message, retry_after_s=min(waits) if waits else None)
