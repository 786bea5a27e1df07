"""Metrics as OTLP: cumulative since the process began, under their OpenTelemetry names."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as pb
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from wavegate_server.telemetry import Attribute, names
from wavegate_server.telemetry.export import Destination, Sender, Verdict, sender, whole_number
from wavegate_server.telemetry.instruments import Instrument, Kind
from wavegate_server.telemetry.metrics import Distribution, Labels, Metrics

logger = logging.getLogger(__name__)

INTERVAL_MS: Final = 60_000
"""How often they are sent; `OTEL_METRIC_EXPORT_INTERVAL`."""

_NO_METRICS: Final = ("UNIMPLEMENTED", "HTTP 404")
"""So says who only takes spans, as Jaeger does."""
_CUMULATIVE: Final = pb.AGGREGATION_TEMPORALITY_CUMULATIVE


def request(metrics: Metrics, resource: Mapping[str, Attribute], version: str, now_ns: int) -> bytes:
    """An `ExportMetricsServiceRequest` of all that was recorded until `now_ns`."""
    found = (_metric(metrics, instrument, now_ns) for instrument in metrics.table)
    of_scope = pb.ScopeMetrics(
        scope=InstrumentationScope(name=names.SCOPE, version=version),
        metrics=[metric for metric in found if metric is not None],
    )
    attributes = [KeyValue(key=key, value=_any(value)) for key, value in resource.items()]
    of_resource = pb.ResourceMetrics(resource=Resource(attributes=attributes), scope_metrics=[of_scope])
    return ExportMetricsServiceRequest(resource_metrics=[of_resource]).SerializeToString()


def _metric(metrics: Metrics, instrument: Instrument, now_ns: int) -> pb.Metric | None:
    """None where it has no series yet."""
    metric = pb.Metric(name=instrument.name, description=instrument.description, unit=instrument.unit)
    start_ns, names = metrics.start_ns, metrics.labels_of(instrument)
    if instrument.kind is Kind.HISTOGRAM:
        points = [
            _histogram_point(names, labels, distribution, start_ns, now_ns)
            for labels, distribution in metrics.distributions(instrument)
        ]
        metric.histogram.CopyFrom(pb.Histogram(data_points=points, aggregation_temporality=_CUMULATIVE))
        return metric if points else None
    numbers = [
        pb.NumberDataPoint(
            attributes=_attributes(names, labels),
            start_time_unix_nano=start_ns if instrument.kind is Kind.COUNTER else 0,
            time_unix_nano=now_ns,
            # A series keeps its type: seconds have fractions, all else is counted in whole ones.
            **({"as_double": float(number)} if instrument.unit == "s" else {"as_int": int(number)}),
        )
        for labels, number in metrics.numbers(instrument)
    ]
    if instrument.kind is Kind.COUNTER:
        metric.sum.CopyFrom(
            pb.Sum(data_points=numbers, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
        )
    else:
        metric.gauge.CopyFrom(pb.Gauge(data_points=numbers))
    return metric if numbers else None


def _histogram_point(
    names: Labels, labels: Labels, distribution: Distribution, start_ns: int, now_ns: int
) -> pb.HistogramDataPoint:
    return pb.HistogramDataPoint(
        attributes=_attributes(names, labels),
        start_time_unix_nano=start_ns,
        time_unix_nano=now_ns,
        count=sum(distribution.counts),
        sum=distribution.sum,
        bucket_counts=distribution.counts,
        explicit_bounds=distribution.bounds,
        exemplars=[
            pb.Exemplar(
                time_unix_nano=at_ns,
                as_double=value,
                trace_id=bytes.fromhex(trace_id),
                span_id=bytes.fromhex(span_id),
            )
            for trace_id, span_id, value, at_ns in filter(None, distribution.exemplars)
        ],
    )


def _attributes(names: Labels, labels: Labels) -> Iterable[KeyValue]:
    return [
        KeyValue(key=key, value=AnyValue(string_value=value))
        for key, value in zip(names, labels, strict=True)
    ]


def _any(value: Attribute) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[_any(each) for each in value]))


class MetricsExporter:
    """Sends all metrics every so often, and once more at the end. Used from one loop.

    What a collector does not take is in the next request again, so nothing is kept for it.
    """

    def __init__(self, encode: Callable[[int], bytes], to: Sender, interval_s: float) -> None:
        """`encode` makes the request, given the time in nanoseconds since the Unix epoch."""
        self._encode = encode
        self._sender = to
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<MetricsExporter every {self._interval_s:g} s {self._trouble}>"

    def start(self) -> None:
        """Begin to send. On the loop."""
        self._task = asyncio.create_task(self._run(), name="export metrics")

    async def aclose(self, timeout_s: float) -> None:
        """Send the last state, for at most `timeout_s` seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._export()
        await self._sender.aclose()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._export()

    async def _export(self) -> None:
        outcome = await self._sender.send("metrics", self._encode(time.time_ns()))
        trouble = "" if outcome.verdict is Verdict.TAKEN else outcome.verdict.name
        # A line when trouble begins or changes, and one when it is over.
        if trouble and trouble != self._trouble:
            if outcome.why.startswith(_NO_METRICS):
                logger.info("the collector takes no metrics; with OTEL_METRICS_EXPORTER=none it is sent none")
            else:
                logger.warning("the collector takes no metrics (%s); they are sent again", outcome.why)
        elif self._trouble and not trouble:
            logger.info("the collector takes metrics again")
        self._trouble = trouble


def from_environment(
    metrics: Metrics, resource: Mapping[str, Attribute], version: str
) -> MetricsExporter | None:
    """What the standard `OTEL_…` variables ask for; None where metrics go nowhere. Raises `TelemetryConfigError`."""
    interval_ms = whole_number("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL_MS)
    to = Destination.from_environment("metrics")
    if to is None:
        return None
    return MetricsExporter(
        lambda now_ns: request(metrics, resource, version, now_ns), sender(to), interval_ms / 1000
    )
