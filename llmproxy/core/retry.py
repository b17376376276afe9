"""The one wrapper of tenacity: every repeated try in the project goes through `backoff`."""

from __future__ import annotations

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential


def backoff(
    on: type[BaseException] | tuple[type[BaseException], ...],
    *,
    attempts: int = 3,
    first_wait_s: float = 0.5,
    max_wait_s: float = 30.0,
) -> AsyncRetrying:
    """Try up to `attempts` times in all (1 means no retry), waiting a random time that doubles from `first_wait_s`.

    Use: `async for attempt in backoff(OSError): with attempt: ...`. The last error is raised as it was.
    """
    return AsyncRetrying(
        retry=retry_if_exception_type(on),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=first_wait_s, max=max_wait_s),
        reraise=True,
    )
