"""Around every handler: id, log line and error envelope, and inside them the door (draining, keys)."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from llmproxy.core.env import Secret
from llmproxy.core.errors import (
    InvalidApiKey,
    InvalidRequest,
    LlmproxyError,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    ShuttingDown,
)
from llmproxy.core.types import trail
from llmproxy.web.envelope import response_of, status_of
from llmproxy.web.spoken import id_headers, key_in_query, native_error
from llmproxy.web.state import SERVICES, TRACE, Services, Trace, new_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_GOOD_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_OPEN_PATHS = frozenset({"/health", "/ready", "/version"})


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, turn errors into the envelope, write one log line."""
    services = request.app[SERVICES]
    started_s = time.perf_counter()
    given = request.headers.get("x-request-id", "")
    current = request[TRACE] = Trace(given if given and _GOOD_ID.fullmatch(given) else new_id())
    status = 499
    services.metrics.in_flight += 1
    try:
        response = await _enveloped(request, handler, services)
        status = response.status
        if not response.prepared:
            response.headers.update(id_headers(request, current.id))
        return response
    finally:
        services.metrics.in_flight -= 1
        _tell(services, request, current, status, time.perf_counter() - started_s)


def _let_in(request: web.Request, services: Services) -> None:
    """The door: nobody new while draining, nobody without a key where keys are set."""
    if request.path in _OPEN_PATHS:
        return
    server = services.config().server
    if services.draining:
        raise ShuttingDown("the server is shutting down", retry_after_s=server.grace)
    if server.api_keys:
        _check_key(request, server.api_keys)


async def _enveloped(request: web.Request, handler: Handler, services: Services) -> web.StreamResponse:
    try:
        _let_in(request, services)
        return await handler(request)
    except LlmproxyError as error:
        request[TRACE].attempts = tuple(error.attempts)
        return _told(request, error)
    except web.HTTPRequestEntityTooLarge:
        limit_mb = request.app[SERVICES].config().server.body_limit_mb
        return _told(request, RequestTooLarge(f"the body is larger than {limit_mb:g} MB (server.body_limit_mb)"))
    except web.RequestPayloadError as error:
        response = _told(request, InvalidRequest(f"the body cannot be read: {error}"))
        response.force_close()
        return response
    except web.HTTPNotFound:
        return _told(request, NotFound(f"there is nothing at {request.method} {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _told(request, MethodNotAllowed(f"{request.method} is not allowed here; allowed: {allowed}"))
        response.headers["Allow"] = allowed
        return response
    except web.HTTPException as error:
        return _told(request, LlmproxyError(error.reason))
    except ConnectionResetError:
        raise asyncio.CancelledError from None
    except Exception as error:
        _log.exception("request %s: an error that nobody expected", request[TRACE].id)
        kind = type(error).__name__
        return _told(request, LlmproxyError(f"internal error ({kind}); see the log for {request[TRACE].id}"))


def _told(request: web.Request, error: LlmproxyError) -> web.Response:
    """An error as the dialect of the path writes it."""
    return response_of(error, native_error(request, error, status_of(error), request[TRACE].id))


def _check_key(request: web.Request, api_keys: Sequence[Secret]) -> None:
    given = request.headers.get("Authorization", "")
    given = given[7:] if given[:7].lower() == "bearer " else given
    given = given or request.headers.get("x-api-key", "") or request.headers.get("x-goog-api-key", "")
    given = given or key_in_query(request)
    known = False
    for secret in api_keys:
        # Every key is compared, in constant time, so that neither the answer's time nor its order tells anything.
        known |= hmac.compare_digest(given.strip().encode(), secret.reveal().encode())
    if not known or not given:
        raise InvalidApiKey("the API key is missing or wrong; send it as 'Authorization: Bearer …'")


def _tell(services: Services, request: web.Request, current: Trace, status: int, elapsed_s: float) -> None:
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "unmatched"
    services.metrics.request(route, status)
    if not services.log_request.enabled:
        return
    line: dict[str, object] = {
        "event": "request",
        "id": current.id,
        "method": request.method,
        "route": route,
        "status": status,
        "ms": round(elapsed_s * 1000, 1),
    }
    call, answer = current.call, current.answer
    if call is not None:
        line["model"] = call.model
        line["stream"] = call.stream
    if answer is not None:
        line["selected"] = answer.candidate.key
        line["trail"] = trail(answer.attempts)
        line["prompt_tokens"] = answer.usage.prompt_tokens
        line["completion_tokens"] = answer.usage.completion_tokens
    elif current.attempts:
        line["trail"] = trail(current.attempts)
    services.log_request(line)
