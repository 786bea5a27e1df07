"""Metrics on their way to a collector."""

from __future__ import annotations

import asyncio
import logging

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from wavegate_server.telemetry import otlp
from wavegate_server.telemetry.export import Outcome, Signal, TelemetryConfigError, Verdict
from wavegate_server.telemetry.instruments import CHARACTERS
from wavegate_server.telemetry.metrics import Metrics
from wavegate_server.telemetry.otlp import MetricsExporter

from tests.support.virtual_time import virtual_time

TAKEN = Outcome(Verdict.TAKEN)


class FakeSender:
    """Takes requests as it is told to."""

    def __init__(self, *answers: Outcome) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.characters: list[int] = []
        self.closed = False

    async def send(self, signal: Signal, body: bytes) -> Outcome:
        assert signal == "metrics"
        self.times.append(asyncio.get_running_loop().time())
        (of_resource,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
        (found,) = (m for m in of_resource.scope_metrics[0].metrics if m.name == CHARACTERS.name)
        self.characters.append(found.sum.data_points[0].as_int)
        return self.answers.pop(0) if self.answers else TAKEN

    async def aclose(self) -> None:
        self.closed = True


class HangingSender(FakeSender):
    async def send(self, signal: Signal, body: bytes) -> Outcome:
        await super().send(signal, body)
        await asyncio.Event().wait()
        return TAKEN


def exporter(metrics: Metrics, to: FakeSender) -> MetricsExporter:
    return MetricsExporter(lambda now_ns: otlp.request(metrics, {}, "1", now_ns), to, 60.0)


@virtual_time
async def test_metrics_are_sent_every_minute_and_at_the_end() -> None:
    metrics, to = Metrics(), FakeSender()
    sending = exporter(metrics, to)
    sending.start()
    metrics.record(CHARACTERS, 5)
    await asyncio.sleep(130.0)
    metrics.record(CHARACTERS, 2)
    await sending.aclose(1.0)
    assert to.times == [60.0, 120.0, 130.0]
    assert to.characters == [5, 5, 7]
    assert to.closed


@virtual_time
async def test_what_was_not_taken_is_in_the_next_request_and_trouble_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    later, refused = (
        Outcome(Verdict.LATER, why="UNAVAILABLE: nobody there"),
        Outcome(Verdict.REFUSED, why="HTTP 400"),
    )
    to = FakeSender(later, later, refused, TAKEN)
    sending = exporter(metrics, to)
    with caplog.at_level(logging.INFO):
        sending.start()
        for _ in range(4):
            metrics.record(CHARACTERS, 1)
            await asyncio.sleep(61.0)
    await sending.aclose(1.0)
    assert to.characters == [1, 2, 3, 4, 4]
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "the collector takes no metrics (UNAVAILABLE: nobody there); they are sent again"),
        ("WARNING", "the collector takes no metrics (HTTP 400); they are sent again"),
        ("INFO", "the collector takes metrics again"),
    ]


@virtual_time
async def test_a_collector_of_spans_alone_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    sending = exporter(Metrics(), FakeSender(Outcome(Verdict.REFUSED, why="UNIMPLEMENTED: unknown service")))
    with caplog.at_level(logging.INFO):
        sending.start()
        await asyncio.sleep(61.0)
    await sending.aclose(1.0)
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "OTEL_METRICS_EXPORTER=none" in caplog.text


@virtual_time
async def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    to = HangingSender()
    sending = exporter(Metrics(), to)
    sending.start()
    await asyncio.sleep(70.0)
    await sending.aclose(0.5)
    assert asyncio.get_running_loop().time() == 70.5
    assert to.times == [60.0, 70.0]
    assert to.closed


def from_environment() -> MetricsExporter | None:
    return otlp.from_environment(Metrics(), {}, "1")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_METRICS_EXPORTER",
    ):
        monkeypatch.delenv(name, raising=False)


async def test_without_an_endpoint_nothing_is_sent() -> None:
    assert from_environment() is None


async def test_the_interval_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for said, shown in ((None, "60"), ("1500", "1.5")):
        if said is not None:
            monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", said)
        sending = from_environment()
        assert sending is not None
        assert f"every {shown} s" in repr(sending)
        await sending.aclose(0.1)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "soon")
    with pytest.raises(TelemetryConfigError, match="OTEL_METRIC_EXPORT_INTERVAL must be a whole number"):
        from_environment()


async def test_metrics_can_be_turned_off_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert from_environment() is None
