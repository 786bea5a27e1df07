"""What the gateway counts and measures, kept in this process until somebody asks for it.

`record` stands in the way of every chunk of audio, so the state is plain lists and dicts, without a lock.
`telemetry.exposition` (Prometheus) and `telemetry.otlp` read it.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from wavegate_server.telemetry import NullSpan, Reading, Span, instruments
from wavegate_server.telemetry.instruments import Instrument, Kind
from wavegate_server.telemetry.session_labels import NONE

Labels = tuple[str, ...]
"""Values, in the order of the instrument's labels."""


Exemplar = tuple[str, str, float, int]
"""A measurement that somebody can look at: trace id, span id, the value, and when it was taken, in nanoseconds since
the Unix epoch."""


class Distribution:
    """The measurements of one series. The last bucket has no bound."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds: Final = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        """The newest of each bucket."""
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Distribution {sum(self.counts)} measured>"


def is_traced(span: Span) -> bool:
    """Whether this is a span at all."""
    return bool(span.trace_id) and not isinstance(span, NullSpan)


class Metrics:
    """All metrics of a process. Used from one loop."""

    def __init__(
        self,
        table: Iterable[Instrument] = instruments.ALL,
        *,
        is_traced: Callable[[Span], bool] = is_traced,
        session_labels: Sequence[str] = (),
    ) -> None:
        """`is_traced`: whether a span may be an exemplar, since somebody can find it. `session_labels`: names of the
        labels of sessions that instruments `of_session` have besides their own."""
        self.table: Final = tuple(table)
        self._session_labels = tuple(session_labels)
        self._no_session_labels: Labels = (NONE,) * len(self._session_labels)
        self.start_ns: Final = time.time_ns()
        """Since when is counted, in nanoseconds since the Unix epoch."""
        self._is_traced = is_traced
        self._numbers: dict[Instrument, dict[Labels, float]] = {}
        self._distributions: dict[Instrument, dict[Labels, Distribution]] = {}
        self._readers: dict[Instrument, Callable[[], Iterable[Reading]]] = {}
        for instrument in self.table:
            # What has no labels, or few that are known, is 0 from the start: a rate sees no first step otherwise.
            known = [
                self._whole(instrument, each) for each in (instrument.known if instrument.labels else ((),))
            ]
            if instrument.kind is Kind.HISTOGRAM:
                self._distributions[instrument] = {each: Distribution(instrument.buckets) for each in known}
            elif instrument.kind is Kind.COUNTER:
                self._numbers[instrument] = dict.fromkeys(known, 0)

    def __repr__(self) -> str:
        series = sum(map(len, self._numbers.values())) + sum(map(len, self._distributions.values()))
        return f"<Metrics {len(self.table)} instruments, {series} series>"

    def record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        """Add `value` to a counter, or measure it with a histogram; what is below 0 counts as 0.

        `labels`: a value for each of the instrument's; those of the session may follow, and are empty where they do
        not. `span`: the exemplar of a measurement.
        """
        value = max(value, 0)  # a wall clock was set back meanwhile
        if self._session_labels:
            labels = self._whole(instrument, labels)
        if instrument not in self._distributions:
            numbers = self._numbers[instrument]
            if labels not in numbers:
                self._check(instrument, labels)
                numbers[labels] = 0
            numbers[labels] += value
            return
        distribution = self._distribution(instrument, labels)
        bucket = bisect_left(distribution.bounds, value)
        distribution.counts[bucket] += 1
        distribution.sum += value
        if span is not None and self._is_traced(span):
            distribution.exemplars[bucket] = (span.trace_id, span.span_id, value, time.time_ns())

    def record_all(self, instrument: Instrument, values: Iterable[float], *labels: str) -> None:
        """Measure many values with a histogram, none below 0: a fifth of the work of one after the other."""
        distribution = self._distribution(instrument, labels)
        ordered = sorted(values)
        below = 0
        for bucket, bound in enumerate(distribution.bounds):
            up_to = bisect_right(ordered, bound, below)
            distribution.counts[bucket] += up_to - below
            below = up_to
        distribution.counts[-1] += len(ordered) - below
        distribution.sum += sum(ordered)

    def _distribution(self, instrument: Instrument, labels: Labels) -> Distribution:
        series = self._distributions[instrument]
        distribution = series.get(labels)
        if distribution is None:
            self._check(instrument, labels)
            distribution = series[labels] = Distribution(instrument.buckets)
        return distribution

    def labels_of(self, instrument: Instrument) -> Labels:
        """The names of an instrument's labels, those of sessions last."""
        return instrument.labels + (self._session_labels if instrument.of_session else ())

    def _whole(self, instrument: Instrument, labels: Labels) -> Labels:
        if instrument.of_session and len(labels) == len(instrument.labels):
            return labels + self._no_session_labels
        return labels

    def _check(self, instrument: Instrument, labels: Labels) -> None:
        if len(labels) != len(self.labels_of(instrument)):
            raise ValueError(f"{instrument.name} has the labels {self.labels_of(instrument)}, got {labels}")

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None:
        """Have a gauge read when somebody looks. `read` is called on the loop, and gives each series once."""
        if instrument.kind is not Kind.GAUGE:
            raise ValueError(f"{instrument.name} is no gauge: record what it counts")
        self._readers[instrument] = read

    def numbers(self, instrument: Instrument) -> list[Reading]:
        """The series of a counter or a gauge as they are now."""
        if instrument.kind is Kind.COUNTER:
            return list(self._numbers[instrument].items())
        read = self._readers.get(instrument)
        return [] if read is None else list(read())

    def distributions(self, instrument: Instrument) -> list[tuple[Labels, Distribution]]:
        """The series of a histogram; they go on."""
        return list(self._distributions[instrument].items())
