"""Spans as a collector receives them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from wavegate_server.telemetry import NullSpan, Span
from wavegate_server.telemetry.otel import OtelTelemetry, TelemetryConfigError, destination, from_environment

from tests.support.collector import Collector, Exported, grpc_collector, http_collector

METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CALLER = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("tracestate", "vendor=one,other=two")]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with grpc_collector() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        yield found


@pytest.fixture
async def telemetry(collector: Collector) -> AsyncIterator[OtelTelemetry]:
    made = started("1.2.3")
    made.serving("127.0.0.1", 50051)
    yield made
    await made.shutdown(5)


def started(version: str) -> OtelTelemetry:
    made = from_environment(version)
    made.start()
    return made


async def came(collector: Collector, wanted: Callable[[Exported], bool]) -> Exported:
    """The first span that fits, waited for beside the loop."""
    return await asyncio.to_thread(collector.wait_for, wanted)


def is_id(text: str, digits: int) -> bool:
    return len(text) == digits and int(text, 16) != 0


async def test_the_span_of_a_call(collector: Collector, telemetry: OtelTelemetry) -> None:
    span = telemetry.server_span(METHOD, [])
    span.set({"rpc.response.status_code": "OK"})
    span.end()
    found = await came(collector, lambda s: s.name == METHOD)
    assert (found.kind, found.trace_id, found.span_id) == ("SERVER", span.trace_id, span.span_id)
    assert (found.parent_span_id, found.error) == ("", False)
    assert found.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "server.address": "127.0.0.1",
        "server.port": 50051,
        "rpc.response.status_code": "OK",
    }
    assert found.resource["service.name"] == "wavegate-gateway"
    assert found.resource["service.version"] == "1.2.3"
    assert found.resource["service.instance.id"]


async def test_the_callers_trace_goes_on(collector: Collector, telemetry: OtelTelemetry) -> None:
    span = telemetry.server_span(METHOD, [*CALLER, ("other-bin", b"\x00")])
    assert span.trace_id == TRACE
    child = telemetry.connection_span(span, "tts", "wss://api.example/waves/v1/tts/live", 1)
    child.end()
    span.end()
    server = await came(collector, lambda s: s.kind == "SERVER")
    client = await came(collector, lambda s: s.kind == "CLIENT")
    assert (server.trace_id, server.parent_span_id) == (TRACE, PARENT)
    assert (client.trace_id, client.parent_span_id) == (TRACE, server.span_id)
    assert server.trace_state == client.trace_state == "vendor=one,other=two"


async def test_the_span_of_an_upstream_connection(collector: Collector, telemetry: OtelTelemetry) -> None:
    call = telemetry.server_span(METHOD, [])
    span = telemetry.connection_span(call, "stt", "ws://127.0.0.1:8090/waves/v1/stt/live", 2)
    span.event("upgraded", {"http.status": 101})
    span.fail("UPSTREAM_UNAVAILABLE", "lost: Authorization: Bearer sk_0123456789abcdef")
    span.end()
    found = await came(collector, lambda s: s.kind == "CLIENT")
    assert found.name == "upstream.connection"
    assert found.attributes == {
        "speech.upstream.kind": "stt",
        "speech.upstream.attempt": 2,
        "network.protocol.name": "websocket",
        "url.scheme": "ws",
        "url.path": "/waves/v1/stt/live",
        "server.address": "127.0.0.1",
        "server.port": 8090,
        "error.type": "UPSTREAM_UNAVAILABLE",
    }
    assert found.error
    assert found.description == "lost: Authorization: Bearer [hidden]"


async def test_a_span_is_ended_once_and_then_left_alone(
    collector: Collector, telemetry: OtelTelemetry, caplog: pytest.LogCaptureFixture
) -> None:
    span = telemetry.server_span(METHOD, [])
    span.end()
    span.set({"late": True})
    span.fail("LATE")
    span.event("late")
    span.end()
    assert (await came(collector, lambda s: s.name == METHOD)).attributes.keys() & {
        "late",
        "error.type",
    } == set()
    assert caplog.text == ""


async def test_below_what_nobody_sees_nobody_sees_anything(
    collector: Collector, telemetry: OtelTelemetry
) -> None:
    child = telemetry.connection_span(NullSpan("ab" * 16, "cd" * 8), "tts", "wss://api.example/x", 1)
    child.end()
    assert child.trace_id == "ab" * 16
    telemetry.server_span("after/it", []).end()
    await came(collector, lambda s: s.name == "after/it")
    assert [s.name for s in collector.spans] == ["after/it"]


@pytest.mark.parametrize(
    "metadata",
    [
        [("traceparent", "00-zz-zz-01")],
        [("traceparent", f"00-{'0' * 32}-{PARENT}-01")],
        [("traceparent", b"00")],
        [("tracestate", "vendor=one")],
    ],
)
async def test_a_malformed_context_begins_a_new_trace(
    telemetry: OtelTelemetry, metadata: list[tuple[str, str | bytes]]
) -> None:
    span = telemetry.server_span(METHOD, metadata)
    assert is_id(span.trace_id, 32)
    assert is_id(span.span_id, 16)


async def test_a_caller_that_is_not_sampled_costs_nothing(
    collector: Collector, telemetry: OtelTelemetry
) -> None:
    """Its trace id is kept all the same, so that its log lines can be found."""
    span = telemetry.server_span(METHOD, [("traceparent", f"00-{TRACE}-{PARENT}-00")])
    span.set({"any": 1})
    span.end()
    telemetry.server_span("after/it", []).end()
    await came(collector, lambda s: s.name == "after/it")
    assert [s.name for s in collector.spans] == ["after/it"]
    assert span.trace_id == TRACE


async def test_the_standard_variables_hold(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "speech-eu")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
    telemetry = started("1")
    telemetry.server_span(METHOD, []).end()
    found = await came(collector, lambda s: s.name == METHOD)
    await telemetry.shutdown(5)
    assert found.resource["service.name"] == "speech-eu"
    assert found.resource["deployment.environment.name"] == "test"
    assert collector.headers["x-tenant"] == "acme"


async def test_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        telemetry = started("1")
        telemetry.server_span(METHOD, []).end()
        await came(collector, lambda s: s.name == METHOD)
        await telemetry.shutdown(5)
    assert collector.headers["path"] == "/v1/traces"


async def test_what_is_held_is_sent_at_the_end(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    telemetry = started("1")
    for _ in range(10):
        telemetry.server_span(METHOD, []).end()
    assert collector.spans == []
    await telemetry.shutdown(10)
    assert len(collector.spans) == 10


def unnoticed(telemetry: OtelTelemetry) -> Span:
    span = telemetry.server_span(METHOD, CALLER)
    span.set({"a": 1})
    span.end()
    return span


async def test_without_an_endpoint_there_are_ids_and_nothing_goes_out() -> None:
    assert destination() is None
    telemetry = started("1")
    span = unnoticed(telemetry)
    assert span.trace_id == TRACE
    assert is_id(span.span_id, 16)
    assert telemetry.server_span(METHOD, []).trace_id != telemetry.server_span(METHOD, []).trace_id
    await telemetry.shutdown(5)


async def test_with_the_sdk_disabled_there_are_ids_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    assert destination() is None
    telemetry = started("1")
    span = telemetry.server_span(METHOD, [])
    assert is_id(span.trace_id, 32)
    assert is_id(telemetry.connection_span(span, "tts", "ws://h/p", 1).span_id, 16)
    await telemetry.shutdown(5)


async def test_the_traces_variable_wins_and_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317")
    assert destination() == "http://traces:4317"
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert destination() is None


async def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(TelemetryConfigError, match="must be grpc or http/protobuf, got 'http/json'"):
        from_environment("1")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_collector_that_does_not_answer_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, protocol: str
) -> None:
    """It accepts connections and says nothing: the worst kind."""
    # What an export waits for its answer: longer than the shutdown below, and soon over.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "4")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        telemetry = started("1")
        before = time.monotonic()
        for _ in range(100):
            unnoticed(telemetry)
        await telemetry.shutdown(0.2)
        assert time.monotonic() - before < 4
    assert "the last ones are lost" in caplog.text
