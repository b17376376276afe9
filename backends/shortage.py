"""What becomes of a batch that a device has no memory for: its halves. Knows torch's errors by their names only."""

from __future__ import annotations

from collections.abc import Callable

from backends.base import Rejected

_NAMES = frozenset({"OutOfMemoryError", "MemoryError"})
_WORDS = ("can't allocate memory", "out of memory")


class TooLarge(Rejected):
    """A request for which there is not enough memory, even alone."""

    def __init__(self) -> None:
        message = "there is not enough memory for this request, even alone"
        super().__init__(message, kind="server", status=503, code="insufficient_memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short: torch has a class for CUDA, and words for the rest."""
    if any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def in_halves(places: list[int], run: Callable[[list[int]], None]) -> None:
    """Run a batch; where memory is short, each half of it. Raises `TooLarge` for one place that does not fit alone."""
    try:
        run(places)
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if len(places) == 1:
            raise TooLarge from error
    # Out of the handler: what the failed try holds is given back first.
    middle = len(places) // 2
    for half in (places[:middle], places[middle:]):
        in_halves(half, run)
