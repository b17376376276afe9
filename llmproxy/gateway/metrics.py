"""What is counted, in Prometheus terms (https://prometheus.io/docs/practices/naming/).

Counting is a dictionary entry; the families are made when somebody asks for them, since that is rare and a request
is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from llmproxy.core.types import Model, Usage

_MOST_MODELS = 2000
_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class _Histogram:
    """Counts of one labelled series: a bucket each, the last one without an upper bound, and the sum in seconds."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.total_s = 0.0


class Metrics(Collector):
    """One registry per application, so that two of them in one process never share a number."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._durations: defaultdict[str, _Histogram] = defaultdict(_Histogram)
        self._tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def request(self, route: str, status: int) -> None:
        """One request was answered."""
        self._requests[route, status] += 1

    def attempt(self, model: Model, outcome: str, elapsed_s: float) -> None:
        """One attempt ended."""
        name = self._label(model)
        self._attempts[name, outcome] += 1
        histogram = self._durations[name]
        histogram.buckets[bisect_left(_SECONDS, elapsed_s)] += 1
        histogram.total_s += elapsed_s

    def call(self, endpoint: str, outcome: str) -> None:
        """One call ended, after all its attempts."""
        self._calls[endpoint, outcome] += 1

    def tokens(self, model: Model, usage: Usage) -> None:
        """An answer used up tokens."""
        name = self._label(model)
        self._tokens[name, "prompt"] += usage.prompt_tokens
        self._tokens[name, "completion"] += usage.completion_tokens

    def _label(self, model: Model) -> str:
        """The name of the model, while there are not too many: clients may ask for any name of an open provider."""
        known = model.name in self._durations or len(self._durations) < _MOST_MODELS
        return model.name if known else f"{model.source}/(other)"

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """All families, as a registry asks for them."""
        yield GaugeMetricFamily("llmproxy_requests_in_flight", "Requests being answered.", self.in_flight)
        yield _counter("llmproxy_requests", "Requests by route and status.", ("route", "status"), self._requests)
        yield _counter("llmproxy_calls", "Calls by endpoint and outcome.", ("endpoint", "outcome"), self._calls)
        yield _counter("llmproxy_attempts", "Attempts by model and outcome.", ("model", "outcome"), self._attempts)
        yield _counter("llmproxy_tokens", "Tokens by model, prompt and completion.", ("model", "kind"), self._tokens)
        durations = HistogramMetricFamily(
            "llmproxy_attempt_duration_seconds", "Time of an attempt until its end.", labels=("model",)
        )
        for model, histogram in list(self._durations.items()):
            seen, buckets = 0, []
            for bound, count in zip((*map(str, _SECONDS), "+Inf"), histogram.buckets, strict=True):
                seen += count
                buckets.append((bound, seen))
            durations.add_metric((model,), buckets, histogram.total_s)
        yield durations


def _counter(
    name: str, text: str, labels: tuple[str, str], counts: dict[tuple[str, str], int] | dict[tuple[str, int], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for (first, second), count in list(counts.items()):
        family.add_metric((first, str(second)), count)
    return family
