"""What is recorded, and how it reads as Prometheus text, as OpenMetrics and as OTLP."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from wavegate_server.telemetry import NullSpan, instruments, otlp
from wavegate_server.telemetry.exposition import Exposition, family_of, labels_of, unit_of
from wavegate_server.telemetry.instruments import (
    AUDIO_BYTES,
    AUDIO_SECONDS,
    CALL_DURATION,
    CHARACTERS,
    CHUNK_RESIDENCE,
    ERRORS,
    FIRST_AUDIO,
    SESSIONS_ACTIVE,
    TRACE_SPANS,
    Instrument,
    Kind,
)
from wavegate_server.telemetry.metrics import Metrics

from tests.support.collector import attributes

PAGE = Path(__file__).parents[3] / "docs" / "telemetry.md"
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"
METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"


class Traced(NullSpan):
    """A span that somebody can find."""


def traced(trace_id: str, span_id: str = "00f067aa0ba902b7") -> Traced:
    return Traced(trace_id, span_id)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
NEWER = "af7651916cd43dd8448eb211c80319c0"


def metrics() -> Metrics:
    return Metrics(is_traced=lambda span: isinstance(span, Traced))


async def families(found: Metrics, accept: str = OPENMETRICS) -> dict[str, Any]:
    """Families by name, read by Prometheus' own parsers."""
    body, content_type = await Exposition(found).render(accept)
    openmetrics = content_type.startswith("application/openmetrics-text")
    parse = parse_openmetrics if openmetrics else parse_text
    return {family.name: family for family in parse(body.decode())}


def exported(found: Metrics, now_ns: int = 0) -> dict[str, metrics_pb2.Metric]:
    """Metrics by name, as a collector reads them."""
    raw = otlp.request(found, {"service.name": "gateway", "n": 1}, "1.2", now_ns or time.time_ns())
    (of_resource,) = ExportMetricsServiceRequest.FromString(raw).resource_metrics
    assert attributes(of_resource.resource.attributes) == {"service.name": "gateway", "n": 1}
    (of_scope,) = of_resource.scope_metrics
    assert (of_scope.scope.name, of_scope.scope.version) == ("wavegate_server", "1.2")
    return {metric.name: metric for metric in of_scope.metrics}


def values(family: Any) -> dict[tuple[str, ...], float]:
    """Samples of a counter or a gauge by their labels' values."""
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instrument", "name", "unit"),
    [
        (CALL_DURATION, "rpc_server_call_duration_seconds", "seconds"),
        (AUDIO_BYTES, "wavegate_audio_size_bytes", "bytes"),
        (CHARACTERS, "wavegate_characters", ""),
        (Instrument("a.wait.seconds", Kind.HISTOGRAM, "s", ""), "a_wait_seconds", "seconds"),
    ],
)
def test_names_follow_the_rules_of_opentelemetry(instrument: Instrument, name: str, unit: str) -> None:
    assert (family_of(instrument), unit_of(instrument)) == (name, unit)


def test_labels_have_underscores() -> None:
    assert labels_of(CALL_DURATION.labels) == ["rpc_method", "rpc_response_status_code"]


def test_every_instrument_of_the_table_is_exposed_under_its_own_name() -> None:
    assert len({family_of(each) for each in instruments.ALL}) == len(instruments.ALL)
    assert all((each.kind is Kind.HISTOGRAM) == bool(each.buckets) for each in instruments.ALL)
    assert all(list(each.buckets) == sorted(set(each.buckets)) for each in instruments.ALL)
    assert all(len(known) == len(each.labels) for each in instruments.ALL for known in each.known)


def prometheus_name(instrument: Instrument) -> str:
    return family_of(instrument) + ("_total" if instrument.kind is Kind.COUNTER else "")


def test_the_documentation_has_every_metric() -> None:
    rows = [
        "| metric | in Prometheus | kind | unit | labels | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in instruments.ALL:
        labels = ", ".join(f"`{label}`" for label in each.labels) or "–"
        rows.append(
            f"| `{each.name}` | `{prometheus_name(each)}` | {each.kind.name.lower()} | `{each.unit}` | {labels} "
            f"| {each.description} |"
        )
    assert "\n".join(rows) + "\n\n" in PAGE.read_text(encoding="utf-8")


# -- what is recorded ---------------------------------------------------------------------------------------------


async def test_a_counter_counts_each_series_by_itself() -> None:
    found = metrics()
    for value, kind, direction in ((320, "tts", "out"), (640, "tts", "out"), (1, "stt", "in")):
        found.record(AUDIO_BYTES, value, kind, direction)
    family = (await families(found))["wavegate_audio_size_bytes"]
    assert (family.type, family.unit, family.documentation) == ("counter", "bytes", AUDIO_BYTES.description)
    samples = {(s.name, s.labels["kind"], s.labels["direction"]): s.value for s in family.samples}
    assert samples == {
        ("wavegate_audio_size_bytes_total", "tts", "out"): 960,
        ("wavegate_audio_size_bytes_total", "stt", "in"): 1,
    }


async def test_a_measurement_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    found = metrics()
    for value in (0.0, 0.005, 0.0051, 10.0, 10.1):
        found.record(FIRST_AUDIO, value)
    family = (await families(found))["wavegate_first_audio_seconds"]
    samples = {s.labels.get("le", s.name.rpartition("_")[2]): s.value for s in family.samples}
    assert (samples["0.005"], samples["0.01"], samples["5.0"], samples["10.0"], samples["+Inf"]) == (
        2,
        3,
        3,
        4,
        5,
    )
    assert (samples["count"], samples["sum"]) == (5, pytest.approx(20.1101))
    (point,) = exported(found)[FIRST_AUDIO.name].histogram.data_points
    assert list(point.explicit_bounds) == list(FIRST_AUDIO.buckets)
    assert {i: n for i, n in enumerate(point.bucket_counts) if n} == {0: 2, 1: 1, 17: 1, 18: 1}
    assert (point.count, point.sum) == (5, pytest.approx(20.1101))


async def test_what_has_known_labels_is_0_from_the_start_and_all_else_appears_when_it_happens() -> None:
    found = await families(metrics())
    assert values(found["wavegate_characters"]) == {(): 0}
    assert values(found["wavegate_trace_spans"]) == {("produced",): 0, ("sent",): 0, ("dropped",): 0}
    assert [s.value for s in found["wavegate_first_audio_seconds"].samples] == [0] * (
        len(FIRST_AUDIO.buckets) + 3
    )
    assert found["wavegate_errors"].samples == []
    assert ERRORS.name not in exported(metrics())


def test_wrong_labels_are_told() -> None:
    found = metrics()
    with pytest.raises(ValueError, match=r"rpc\.server\.call\.duration has the labels"):
        found.record(CALL_DURATION, 1.0, "OK")
    with pytest.raises(ValueError, match=r"wavegate\.errors has the labels"):
        found.record(ERRORS, 1)
    with pytest.raises(ValueError, match="is no gauge"):
        found.watch(ERRORS, list)


async def test_a_clock_that_was_set_back_makes_no_sum_fall() -> None:
    found = metrics()
    found.record(FIRST_AUDIO, -3.0)
    found.record(CHARACTERS, -3)
    (point,) = exported(found)[FIRST_AUDIO.name].histogram.data_points
    assert (point.count, point.sum, point.bucket_counts[0]) == (1, 0, 1)
    assert values((await families(found))["wavegate_characters"]) == {(): 0}


async def test_a_gauge_is_read_when_somebody_looks() -> None:
    found = metrics()
    live = {("tts",): 2.0, ("stt",): 0.0}
    assert found.numbers(SESSIONS_ACTIVE) == []
    found.watch(SESSIONS_ACTIVE, live.items)
    assert values((await families(found))["wavegate_sessions_active"]) == live
    live[("tts",)] = 5.0
    assert values((await families(found))["wavegate_sessions_active"]) == live
    points = exported(found)[SESSIONS_ACTIVE.name].gauge.data_points
    assert {p.attributes[0].value.string_value: p.as_int for p in points} == {"tts": 5, "stt": 0}


# -- exemplars ----------------------------------------------------------------------------------------------------


async def test_each_bucket_keeps_its_newest_traced_span() -> None:
    found = metrics()
    before_ns = time.time_ns()
    found.record(FIRST_AUDIO, 0.11, span=traced(TRACE))
    found.record(FIRST_AUDIO, 0.12, span=traced(NEWER))
    found.record(FIRST_AUDIO, 0.13)
    found.record(FIRST_AUDIO, 0.14, span=NullSpan("0" * 31 + "1", "0" * 15 + "1"))
    found.record(FIRST_AUDIO, 99.0, span=traced(TRACE))
    family = (await families(found))["wavegate_first_audio_seconds"]
    shown = {s.labels["le"]: s.exemplar for s in family.samples if s.exemplar is not None}
    assert {le: (e.labels, e.value) for le, e in shown.items()} == {
        "0.15": ({"trace_id": NEWER, "span_id": "00f067aa0ba902b7"}, 0.12),
        "+Inf": ({"trace_id": TRACE, "span_id": "00f067aa0ba902b7"}, 99.0),
    }
    (point,) = exported(found)[FIRST_AUDIO.name].histogram.data_points
    assert [(e.trace_id.hex(), e.span_id.hex(), e.as_double) for e in point.exemplars] == [
        (NEWER, "00f067aa0ba902b7", 0.12),
        (TRACE, "00f067aa0ba902b7", 99.0),
    ]
    assert all(before_ns <= e.time_unix_nano <= time.time_ns() for e in point.exemplars)
    assert all(abs(float(e.timestamp) - before_ns / 1e9) < 60 for e in shown.values())


async def test_the_older_text_format_has_no_exemplars_and_the_same_numbers() -> None:
    found = metrics()
    found.record(CALL_DURATION, 0.3, METHOD, "OK", span=traced(TRACE))
    body, content_type = await Exposition(found).render("*/*")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert TRACE not in body.decode()
    old, new = await families(found, ""), await families(found)
    name = "rpc_server_call_duration_seconds"
    assert [(s.name, s.labels, s.value) for s in old[name].samples] == [
        (s.name, s.labels, s.value) for s in new[name].samples
    ]


async def test_the_process_and_its_python_are_told_of() -> None:
    found = await families(metrics())
    assert found["process_cpu_seconds"].type == "counter"
    assert found["process_resident_memory_bytes"].samples[0].value > 0
    assert found["python_info"].samples[0].labels["implementation"]


# -- OTLP ---------------------------------------------------------------------------------------------------------


def test_otlp_is_cumulative_since_the_start() -> None:
    before_ns = time.time_ns()
    found = metrics()
    assert before_ns <= found.start_ns <= time.time_ns()
    found.record(TRACE_SPANS, 3, "sent")
    found.record(AUDIO_SECONDS, 0.25, "tts")
    found.record(CHUNK_RESIDENCE, 0.001, "tts", "out")
    now_ns = found.start_ns + 10**9
    got = exported(found, now_ns)
    assert {(m.description, m.unit) for m in got.values()} <= {
        (i.description, i.unit) for i in instruments.ALL
    }
    for metric in got.values():
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        assert data.data_points
        for point in data.data_points:
            assert point.time_unix_nano == now_ns
        if kind != "gauge":
            assert data.aggregation_temporality == metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
            assert {p.start_time_unix_nano for p in data.data_points} == {found.start_ns}
        if kind == "sum":
            assert data.is_monotonic
    spans = {attributes(p.attributes)["outcome"]: p.as_int for p in got[TRACE_SPANS.name].sum.data_points}
    assert spans == {"produced": 0, "sent": 3, "dropped": 0}
    seconds = got[AUDIO_SECONDS.name].sum.data_points
    assert {attributes(p.attributes)["kind"]: p.as_double for p in seconds} == {"tts": 0.25, "stt": 0.0}
    assert {p.WhichOneof("value") for p in seconds} == {"as_double"}, "from the first one on"
    (residence,) = (p for p in got[CHUNK_RESIDENCE.name].histogram.data_points if p.count)
    assert attributes(residence.attributes) == {"kind": "tts", "direction": "out"}


async def test_prometheus_and_otlp_have_the_same_metrics() -> None:
    """Under the names that follow from each other."""
    found = metrics()
    for each in instruments.ALL:
        labels = tuple("x" for _ in each.labels)
        if each.kind is Kind.GAUGE:
            found.watch(each, lambda labels=labels: [(labels, 1.0)])
        else:
            found.record(each, 1, *labels)
    got, shown = exported(found), await families(found)
    assert got.keys() == {each.name for each in instruments.ALL}
    for each in instruments.ALL:
        family = shown[family_of(each)]
        assert family.type == each.kind.name.lower()
        assert re.fullmatch(r"[a-z_]+", family.name)
        points = getattr(got[each.name], str(got[each.name].WhichOneof("data"))).data_points
        assert {a.key.replace(".", "_") for p in points for a in p.attributes} == set(labels_of(each.labels))
        assert {k for s in family.samples for k in s.labels} - {"le"} == set(labels_of(each.labels))


def test_many_values_at_once_count_like_one_after_the_other() -> None:
    values = [*instruments.RESIDENCE_S, 0.0, 3e-5, 0.0007, 4.9, 5.1, 100.0, 0.0007]
    one_by_one, at_once = Metrics(), Metrics()
    for metrics in (one_by_one, at_once):
        metrics.record(CHUNK_RESIDENCE, 0.002, "tts", "out")
    for value in values:
        one_by_one.record(CHUNK_RESIDENCE, value, "tts", "out")
    at_once.record_all(CHUNK_RESIDENCE, values, "tts", "out")
    at_once.record_all(CHUNK_RESIDENCE, [], "tts", "out")
    found = dict(at_once.distributions(CHUNK_RESIDENCE))[("tts", "out")]
    expected = dict(one_by_one.distributions(CHUNK_RESIDENCE))[("tts", "out")]
    assert found.counts == expected.counts
    assert found.sum == pytest.approx(expected.sum)
    with pytest.raises(ValueError, match="labels"):
        at_once.record_all(CHUNK_RESIDENCE, [1.0], "tts")
