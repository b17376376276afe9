"""What is counted, in Prometheus terms (https://prometheus.io/docs/practices/naming/).

Counting is a dictionary entry; the families are made when somebody asks for them, since that is rare and a request
is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from llmproxy.core.types import JsonObject, Model, Usage
from llmproxy.gateway.histograms import LATENESS, SECONDS, Histogram, family
from llmproxy.gateway.local_figures import LocalFigures
from llmproxy.gateway.scrape_figures import scrape_figures

_MOST_MODELS = 2000


class Metrics(Collector):
    """One registry per application, so that two of them in one process never share a number."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._calls: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._attempts: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._durations: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))
        self._tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.local = LocalFigures()
        self.lateness = Histogram(LATENESS)
        # The status of the scrapers, whoever knows it.
        self.scraped: Callable[[], JsonObject] = dict
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def request(self, route: str, status: int) -> None:
        """One request was answered."""
        self._requests[route, status] += 1

    def attempt(self, model: Model, outcome: str, elapsed_s: float) -> None:
        """One attempt ended."""
        name = self._label(model)
        self._attempts[name, outcome] += 1
        self._durations[name].add(elapsed_s)

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
        yield family("llmproxy_attempt_duration_seconds", "Time of an attempt until its end.", "model", self._durations)
        late = HistogramMetricFamily("llmproxy_event_loop_lateness_seconds", "How late a timer of the server comes.")
        late.add_metric((), *self.lateness.told())
        yield late
        yield from self.local.collect()
        yield from scrape_figures(self.scraped())


def _counter(
    name: str, text: str, labels: tuple[str, str], counts: dict[tuple[str, str], int] | dict[tuple[str, int], int]
) -> Metric:
    found = CounterMetricFamily(name, text, labels=labels)
    for (first, second), count in list(counts.items()):
        found.add_metric((first, str(second)), count)
    return found
