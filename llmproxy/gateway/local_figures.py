"""What the processes of local models have counted, as Prometheus families."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from llmproxy.core.types import JsonObject
from llmproxy.gateway.histograms import SECONDS, Histogram, family

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_SPEEDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
# What a process observes (`backends.figures`): the family, its help, its buckets.
_OBSERVED: dict[str, tuple[str, str, tuple[float, ...]]] = {
    "queue_seconds": ("llmproxy_local_queue_seconds", "Time until a prompt has its turn.", SECONDS),
    "first_token_seconds": ("llmproxy_local_first_token_seconds", "Time until the first text of an answer.", SECONDS),
    "tokens_per_second": ("llmproxy_local_tokens_per_second", "Tokens of an answer after its first.", _SPEEDS),
    "batch_rows": ("llmproxy_local_batch_rows", "Answers (or texts) that a step went on with together.", _ROWS),
    "cached_share": ("llmproxy_local_cached_share", "What was known of a prompt (or of the texts) of a call.", _SHARES),
}
_KINDS = {"prompt_tokens": "prompt", "cached_tokens": "cached", "completion_tokens": "completion"}


class LocalFigures:
    """Gathers what processes tell; `collect` gives the families."""

    def __init__(self) -> None:
        self._observed: dict[str, defaultdict[str, Histogram]] = {
            name: defaultdict(lambda bounds=bounds: Histogram(bounds))  # type: ignore[misc]
            for name, (_, _, bounds) in _OBSERVED.items()
        }
        self._tokens: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._images: defaultdict[tuple[str, str], int] = defaultdict(int)
        # What `backends.residents.Status` holds, of every local model.
        self.status: Callable[[], Iterable[Any]] = tuple

    def told(self, model: str, figures: JsonObject) -> None:
        """A process has told what it counted since the last time."""
        for name, values in figures["observed"].items():
            for value in values:
                self._observed[name][f"local/{model}"].add(value)
        for name, amount in figures["counted"].items():
            self._tokens[f"local/{model}", _KINDS[name]] += amount

    def image_rejected(self, model: str, reason: str) -> None:
        """An image was not read."""
        self._images[f"local/{model}", reason] += 1

    def collect(self) -> Iterable[Metric]:
        """All families."""
        for name, (title, text, _) in _OBSERVED.items():
            yield family(title, text, "model", self._observed[name])
        tokens = CounterMetricFamily("llmproxy_local_tokens", "Tokens of local chat models.", labels=("model", "kind"))
        for labels, amount in list(self._tokens.items()):
            tokens.add_metric(labels, amount)
        images = CounterMetricFamily(
            "llmproxy_images_rejected", "Images that were not read.", labels=("model", "reason")
        )
        for labels, amount in list(self._images.items()):
            images.add_metric(labels, amount)
        loaded = GaugeMetricFamily("llmproxy_local_loaded", "Whether a local model is loaded.", labels=("model",))
        memory = GaugeMetricFamily(
            "llmproxy_local_memory_bytes", "What a loaded model takes of a device.", labels=("model", "device")
        )
        waiting = GaugeMetricFamily("llmproxy_local_waiting", "Answers that have not begun.", labels=("model",))
        for status in self.status():
            model, is_loaded = f"local/{status.name}", status.state == "loaded"
            loaded.add_metric((model,), float(is_loaded))
            waiting.add_metric((model,), status.waiting)
            for device in status.place if is_loaded else ():
                counted = status.memory_mb * (1 << 20) / len(status.place)
                memory.add_metric((model, device), status.used_bytes.get(device, counted))
        yield from (tokens, images, loaded, waiting, memory)
