"""The one exception tree.

    LlmproxyError
    ├── ConfigError                    a file or flag is wrong; carries the path of the field
    ├── ClientError                    blames the client; the same everywhere, so never tried on another candidate
    │   ├── InvalidJson · InvalidRequest · InvalidApiKey · ModelNotFound · RequestTooLarge · MethodNotAllowed
    ├── ProxyError                     blames this proxy or the state of all candidates together
    │   ├── NoCandidates · QuotaExhausted · CapabilityUnmet · AllCandidatesFailed · DeadlineExceeded · ShuttingDown
    │   ├── ModelUnavailable           local models cannot be loaded
    │   ├── NotInstalled               a part of the installation is missing
    └── AttemptError                   blames one candidate: the loop goes on to the next one
        ├── ConnectFailed · ConnectionLost · TimedOut
        ├── NoRoom                     a free limit is used up: nothing was sent
        ├── Refused                    an HTTP status that is not 2xx, classified by `kind`
        ├── BadReply · Truncated       a 2xx that is not an answer
        └── Unmet                      an answer without the capability that the call forced

`status`, `code`, `type`, `blames` and `retryable` are class attributes; one envelope writer per dialect renders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from llmproxy.core.types import Attempt, Reading

Blame = Literal["client", "proxy", "upstream"]


class LlmproxyError(Exception):
    """Base of everything that llmproxy raises on purpose."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: ClassVar[str] = "api_error"
    blames: Blame = "proxy"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.attempts: Sequence[Attempt] = ()


class ConfigError(LlmproxyError):
    """The configuration cannot be used; `message` begins with the path of the wrong field."""

    code = "invalid_config"


# -- the client's fault -------------------------------------------------------------------------------------------


class ClientError(LlmproxyError):
    """The request itself is wrong."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    blames = "client"


class InvalidJson(ClientError):
    code = "invalid_json"


class InvalidRequest(ClientError):
    code = "invalid_request"


class InvalidApiKey(ClientError):
    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class ModelNotFound(ClientError):
    status = 404
    code = "model_not_found"


class NotFound(ClientError):
    status = 404
    code = "not_found"


class MethodNotAllowed(ClientError):
    status = 405
    code = "method_not_allowed"


class RequestTooLarge(ClientError):
    status = 413
    code = "request_too_large"


class ClientGone(ClientError):
    """The client closed the connection; 499 appears in the log and the metrics only."""

    status = 499
    code = "client_closed_request"


# -- nobody could answer ------------------------------------------------------------------------------------------


class ProxyError(LlmproxyError):
    """No candidate could answer."""

    status = 502
    type = "api_error"


class NoCandidates(ProxyError):
    status = 503
    code = "no_candidates"


class QuotaExhausted(ProxyError):
    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    blames = "upstream"


class CapabilityUnmet(ProxyError):
    code = "capability_unmet"
    blames = "upstream"


class AllCandidatesFailed(ProxyError):
    code = "all_candidates_failed"
    blames = "upstream"


class SameRefusal(ProxyError):
    """Every candidate refused with the same 400, 413 or 422: the client gets that refusal."""

    type = "invalid_request_error"
    blames = "client"

    def __init__(self, message: str, *, refusal_status: int, code: str, param: str | None) -> None:
        super().__init__(message, param=param)
        self.refusal_status = refusal_status
        self.code = code


class ModelUnavailable(ProxyError):
    """Every model that could answer is one of this machine, and none can be loaded, or has the memory."""

    status = 503

    def __init__(self, message: str, *, code: str, retry_after_s: float | None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = code


class NotInstalled(ProxyError):
    """What was asked for needs a part that is not installed; `message` says how to get it."""

    status = 501
    code = "not_installed"
    blames = "proxy"


class DeadlineExceeded(ProxyError):
    status = 504
    code = "deadline_exceeded"
    blames = "upstream"


class ShuttingDown(ProxyError):
    status = 503
    code = "shutting_down"


# -- one candidate failed -----------------------------------------------------------------------------------------


class AttemptError(LlmproxyError):
    """One candidate did not answer. `outcome` is its word in the trail, the metrics and the error body."""

    status = 502
    type = "api_error"
    blames = "upstream"
    retryable = True
    outcome: str = "error"
    http_status: int | None = None

    def forget_frames(self) -> None:
        """It was dealt with. A kept error holds the frames that it came through, and they hold it: a cycle that is
        freed only at some later collection, with the response and its buffers."""
        self.__traceback__ = self.__cause__ = self.__context__ = None


class ConnectFailed(AttemptError):
    outcome = "connect_error"


class ConnectionLost(AttemptError):
    """The connection died; `sent_nothing` tells that not one byte of an answer had come."""

    outcome = "connection_lost"

    def __init__(self, message: str, *, sent_nothing: bool = False) -> None:
        super().__init__(message)
        self.sent_nothing = sent_nothing


class TimedOut(AttemptError):
    """A candidate was silent for too long; `outcome` names the phase: headers, first token, stall, request."""

    def __init__(self, message: str, *, outcome: str) -> None:
        super().__init__(message)
        self.outcome = outcome


RefusalKind = Literal[
    "auth", "credit", "forbidden", "not_found", "timeout", "conflict", "rate_limit",
    "too_large", "context_length", "unsupported", "invalid", "content_filter", "server",
]  # fmt: skip


class Refused(AttemptError):
    """An upstream answered with an error status (or an error body under 200), classified by `kind`.

    `http_status` is the status on the wire; `param` names the field that is not supported, where it says so; `readings`
    is what it tells of the provider's limits.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: RefusalKind,
        http_status: int,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        readings: Sequence[Reading] = (),
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.readings = readings
        self.kind: RefusalKind = kind
        self.http_status = http_status
        self.upstream_code = code
        self.outcome = str(http_status) if http_status >= 400 else f"error_in_{http_status}"


class UnsupportedParameter(Refused):
    """A candidate cannot honour a field of the request; another one may."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message, kind="unsupported", http_status=400, code="unsupported_parameter", param=param)


class NoRoom(AttemptError):
    """A free limit leaves no room for the request: it was not sent."""

    outcome = "no_room"


class BadReply(AttemptError):
    """A 2xx that is no answer: not JSON, no choices, no output."""

    outcome = "bad_reply"

    def __init__(self, message: str, *, outcome: str = "bad_reply", http_status: int | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.http_status = http_status


class Truncated(AttemptError):
    """A stream ended without a finish reason."""

    outcome = "truncated"


class Unmet(AttemptError):
    """The answer lacks the capability that the call forced; `capability` is `tools` or `json`."""

    outcome = "unmet"

    def __init__(self, message: str, *, capability: str) -> None:
        super().__init__(message)
        self.capability = capability
