"""What the last refresh of the free tiers came to, as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from llmproxy.core.types import JsonObject


def scrape_figures(status: JsonObject) -> Iterable[Metric]:
    """The families of a status as `GET /v1/scrape/status` tells it; none while there is no refresher."""
    if not status:
        return
    yield GaugeMetricFamily("llmproxy_scrape_version", "Version of the findings in use.", status["version"])
    last = status["last"]
    if last is None or last["ended"] is None:
        return
    yield GaugeMetricFamily(
        "llmproxy_scrape_last_run_timestamp_seconds",
        "When the last refresh ended.",
        datetime.fromisoformat(last["ended"]).timestamp(),
    )
    claims = GaugeMetricFamily(
        "llmproxy_scrape_source_claims", "Claims of a source in the last refresh.", labels=("source", "status")
    )
    for report in (last["report"] or {}).get("sources", ()):
        claims.add_metric((report["source"], report["status"]), report["claims"])
    yield claims
