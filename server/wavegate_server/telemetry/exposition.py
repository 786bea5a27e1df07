"""Metrics as Prometheus reads them: its text format, or OpenMetrics with exemplars for whoever accepts that.

Names follow the rules by which OpenTelemetry's become Prometheus': underscores for dots, the unit at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from wavegate_server.telemetry.instruments import Instrument, Kind
from wavegate_server.telemetry.metrics import Distribution, Metrics
from wavegate_server.telemetry.session_labels import prometheus_name_of

UNITS: Final = {"s": "seconds", "By": "bytes"}
"""Units that stand at the end of a name. Those in braces only say what is counted."""
_END: Final = b"# EOF\n"
"""Of OpenMetrics."""


def unit_of(instrument: Instrument) -> str:
    """The unit as Prometheus writes it; "" for what is only counted."""
    return "" if instrument.unit.startswith("{") else UNITS[instrument.unit]


def family_of(instrument: Instrument) -> str:
    """The name of the metric family; the samples of a counter have `_total` behind it."""
    name, unit = instrument.name.replace(".", "_"), unit_of(instrument)
    return f"{name}_{unit}" if unit and not name.endswith(f"_{unit}") else name


def labels_of(names: Iterable[str]) -> list[str]:
    """The names of labels, as they are in Prometheus."""
    return [prometheus_name_of(name) for name in names]


class Exposition:
    """What `/metrics` answers: the gateway's metrics, and those of its process and Python."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(metrics))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type, by an HTTP `Accept` header.

        All of it takes 5 ms and more, for which no chunk of audio shall wait: the loop goes on between the families.
        """
        encode, content_type = choose_encoder(accept)
        parts = []
        for family in self._registry.collect():
            parts.append(encode(_Family(family)).removesuffix(_END))
            await asyncio.sleep(0)
        if content_type.startswith("application/openmetrics-text"):
            parts.append(_END)
        return b"".join(parts), content_type


@dataclass(frozen=True, slots=True)
class _Family(Collector):
    """A registry of one family."""

    family: Metric

    def collect(self) -> Iterator[Metric]:
        yield self.family


class _Families(Collector):
    """All of ours."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for instrument in self._metrics.table:
            name, unit = family_of(instrument), unit_of(instrument)
            labels = labels_of(self._metrics.labels_of(instrument))
            if instrument.kind is Kind.HISTOGRAM:
                histogram = HistogramMetricFamily(name, instrument.description, labels=labels, unit=unit)
                for values, distribution in self._metrics.distributions(instrument):
                    histogram.add_metric(values, _buckets(distribution), distribution.sum)
                yield histogram
            else:
                make = CounterMetricFamily if instrument.kind is Kind.COUNTER else GaugeMetricFamily
                family = make(name, instrument.description, labels=labels, unit=unit)
                for values, number in self._metrics.numbers(instrument):
                    family.add_metric(values, number)
                yield family


def _buckets(distribution: Distribution) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Bound, how many are not above it, and an exemplar where there is one."""
    found: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    below = 0
    bounds = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
    for bound, count, example in zip(bounds, distribution.counts, distribution.exemplars, strict=True):
        below += count
        if example is None:
            found.append((bound, below))
        else:
            trace_id, span_id, value, at_ns = example
            ids = {"trace_id": trace_id, "span_id": span_id}
            found.append((bound, below, Exemplar(ids, value, at_ns / 1e9)))
    return found
