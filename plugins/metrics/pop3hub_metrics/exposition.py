"""Write metrics in the formats of prometheus_client.

Only a server with --metrics imports this module: other commands need not wait for the import.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from pop3hub_metrics.samples import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pop3hub_metrics.samples import Samples

FAMILIES: dict[str, Callable[..., Any]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class _Samples(Collector):
    """Samples as prometheus_client takes them."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Any]:
        """Yield every metric, including those without samples."""
        for metric in METRICS.values():
            family = FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels)
            for (name, *labels), values in self._samples.items():
                if name != metric.name:
                    continue
                if metric.kind == "histogram":
                    counts = accumulate(values[:-1])
                    bounds = [*map(str, metric.bounds), "+Inf"]
                    buckets = list(zip(bounds, counts, strict=True))
                    family.add_metric(labels, buckets=buckets, sum_value=values[-1])
                else:
                    family.add_metric(labels, values[0])
            yield family


def expose(samples: Samples, accept: str) -> tuple[bytes, str]:
    """Return the samples in the format that an Accept field asks for, and its content type."""
    encode, kind = choose_encoder(accept)
    return encode(_Samples(samples)), kind
