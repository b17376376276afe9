"""What is counted, in Prometheus terms (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from llmproxy.core.types import Model, Usage

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One registry per application, so that two of them in one process never share a number."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "llmproxy_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self._attempts = Counter(
            "llmproxy_attempts", "Attempts by model and outcome.", ("model", "outcome"), registry=self.registry
        )
        self._duration = Histogram(
            "llmproxy_attempt_duration_seconds",
            "Time of an attempt until its end.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter(
            "llmproxy_tokens",
            "Tokens by model and kind (prompt, completion).",
            ("model", "kind"),
            registry=self.registry,
        )
        self.in_flight = Gauge("llmproxy_requests_in_flight", "Requests being answered.", registry=self.registry)
        self._children: dict[tuple[str, ...], Counter | Histogram] = {}

    def request(self, route: str, status: int) -> None:
        """One request was answered."""
        self._counter(self._requests, route, str(status)).inc()

    def attempt(self, model: Model, outcome: str, elapsed_s: float) -> None:
        """One attempt ended."""
        self._counter(self._attempts, model.name, outcome).inc()
        duration = self._children.get(("duration", model.name))
        if duration is None:
            duration = self._children[("duration", model.name)] = self._duration.labels(model.name)
        assert isinstance(duration, Histogram)
        duration.observe(elapsed_s)

    def tokens(self, model: Model, usage: Usage) -> None:
        """An answer used up tokens."""
        self._counter(self._tokens, model.name, "prompt").inc(usage.prompt_tokens)
        self._counter(self._tokens, model.name, "completion").inc(usage.completion_tokens)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def _counter(self, family: Counter, *labels: str) -> Counter:
        key = (family._name, *labels)
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = family.labels(*labels)
        assert isinstance(found, Counter)
        return found
