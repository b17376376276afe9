"""Histograms in the form of Prometheus: https://prometheus.io/docs/concepts/metric_types/#histogram."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

from prometheus_client.core import HistogramMetricFamily

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


# How late the event loop may be: finer than what a request takes.
LATENESS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class Histogram:
    """Counts of one labelled series: a bucket up to each of `bounds`, one beyond them, and the sum of the values."""

    __slots__ = ("_bounds", "_buckets", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._buckets[bisect_left(self._bounds, value)] += 1
        self._total += value

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative buckets by their upper bounds, and the sum."""
        seen, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._buckets, strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        return buckets, self._total


def family(name: str, text: str, label: str, series: Mapping[str, Histogram]) -> HistogramMetricFamily:
    """All series of one name, as a registry wants them."""
    found = HistogramMetricFamily(name, text, labels=(label,))
    for value, histogram in list(series.items()):
        found.add_metric((value,), *histogram.told())
    return found
