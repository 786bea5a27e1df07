"""The way to the collector: what becomes of spans when it is down, hangs, refuses, comes back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from wavegate_server.telemetry import encoding
from wavegate_server.telemetry.export import (
    BATCH_BYTES,
    RETRY_S,
    TIMEOUT_S,
    Destination,
    Outcome,
    SpanExporter,
    TelemetryConfigError,
    Verdict,
    sender,
)

from tests.support.certificates import Certificates
from tests.support.tools import free_ports
from tests.support.virtual_time import settle, virtual_time

RESOURCE = encoding.resource({"service.name": "a gateway"})
SCOPE = encoding.scope("a scope", "1")
TAKEN = Outcome(Verdict.TAKEN)
LATER = Outcome(Verdict.LATER, why="UNAVAILABLE: nobody is there")
RECOVERY_S = 5.0


def a_span(number: int, size: int = 0) -> bytes:
    return encoding.span(
        trace_id=b"t" * 16,
        span_id=number.to_bytes(8, "big"),
        parent_id=b"",
        name="n" * size,
        kind=encoding.INTERNAL,
        start_ns=number,
        end_ns=number,
        flags=1,
        attributes={},
    )


def some(count: int, start: int = 0) -> list[bytes]:
    return [a_span(i) for i in range(start, start + count)]


class Scripted:
    """A sender that answers as it is told: an outcome, a time to wait first, or for ever."""

    def __init__(self, answer: Callable[[int], Outcome | float] = lambda n: TAKEN) -> None:
        self.answer = answer
        self.requests: list[list[int]] = []
        """The spans of each request, by their number; repeated ones too."""
        self.times: list[float] = []
        self.sizes: list[int] = []
        self.closed = False

    async def send(self, signal: str, body: bytes) -> Outcome:
        assert signal == "traces"
        self.times.append(asyncio.get_running_loop().time())
        self.sizes.append(len(body))
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        (of_resource,) = request.resource_spans
        assert of_resource.resource.attributes[0].value.string_value == "a gateway"
        self.requests.append([s.start_time_unix_nano for s in of_resource.scope_spans[0].spans])
        said = self.answer(len(self.requests))
        if isinstance(said, Outcome):
            return said
        await asyncio.sleep(said)
        return LATER

    async def aclose(self) -> None:
        self.closed = True


class Counted:
    """An exporter on a scripted sender, and its account."""

    def __init__(self, to: Any, **bounds: Any) -> None:
        self.counts: Counter[str] = Counter()
        self.exporter = SpanExporter(to, RESOURCE, SCOPE, count=self._count, **bounds)
        self.exporter.start()

    def _count(self, outcome: str, spans: int) -> None:
        self.counts[outcome] += spans

    @property
    def settled(self) -> bool:
        return self.counts["sent"] + self.counts["dropped"] == self.counts["produced"]

    def of(self, outcome: str) -> int:
        return self.counts[outcome]


# -- on virtual time ------------------------------------------------------------------------------------------------


@virtual_time
async def test_spans_are_sent_in_order_in_batches() -> None:
    to = Scripted()
    out = Counted(to, batch_spans=100)
    for start in range(0, 1_000, 70):
        out.exporter.offer(some(70, start))
    await asyncio.sleep(2)
    assert [n for request in to.requests for n in request] == list(range(1_050))
    assert {len(r) for r in to.requests[:-1]} == {100}
    assert out.counts == {"produced": 1_050, "sent": 1_050}
    await out.exporter.aclose(1)
    assert to.closed


@virtual_time
async def test_a_few_spans_wait_for_others_but_not_long() -> None:
    to = Scripted()
    out = Counted(to)
    out.exporter.offer(some(1))
    await asyncio.sleep(0.1)
    out.exporter.offer(some(1, 1))
    await asyncio.sleep(0.4)
    assert to.requests == [[0, 1]]
    await out.exporter.aclose(1)


@virtual_time
async def test_long_spans_go_in_smaller_batches() -> None:
    to = Scripted()
    out = Counted(to)
    out.exporter.offer([a_span(i, 4_000) for i in range(2_000)])
    await asyncio.sleep(5)
    assert len(to.requests) > 1
    assert max(to.sizes) < BATCH_BYTES + 10_000
    assert out.of("sent") == 2_000
    await out.exporter.aclose(1)


@pytest.mark.parametrize("trouble", [LATER, Outcome(Verdict.LATER, why="RESOURCE_EXHAUSTED"), TIMEOUT_S])
@virtual_time
async def test_a_collector_that_comes_back(
    trouble: Outcome | float, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten minutes away, at 2,500 chunks a second: bounded, counted, and soon over."""
    away = True
    to = Scripted(lambda n: trouble if away else TAKEN)
    out = Counted(to, queue_spans=5_000, batch_spans=500)
    number = 0

    async def produce(seconds: int) -> None:
        nonlocal number
        for _ in range(seconds):
            out.exporter.offer(some(250, number))
            number += 250
            await asyncio.sleep(0.1)
            held = out.of("produced") - out.of("sent") - out.of("dropped")
            assert held <= 5_500, "the queue, and what is on its way"

    await produce(600)
    assert out.of("sent") == 0
    assert out.of("dropped") >= number - 5_500
    away = False
    back = asyncio.get_running_loop().time()
    produced = number
    await produce(20)
    sent_at = [t for t, request in zip(to.times, to.requests, strict=True) if produced - 1 in request]
    assert sent_at
    assert sent_at[0] - back <= RECOVERY_S
    await asyncio.sleep(10)
    assert out.settled
    assert out.exporter.dropped == out.of("dropped")
    delivered = [n for t, r in zip(to.times, to.requests, strict=True) if t >= back for n in r]
    newest = delivered[-out.of("sent") :]
    assert newest == sorted(set(newest)), "once each, in order; what was dropped were the oldest"
    assert newest[-1] == number - 1
    await out.exporter.aclose(1)
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "takes no spans" in line]) <= 1, "one line, not one a try"


@virtual_time
async def test_tries_are_spread() -> None:
    to = Scripted(lambda n: LATER)
    out = Counted(to)
    out.exporter.offer(some(1))
    await asyncio.sleep(30)
    pauses = [b - a for a, b in zip(to.times, to.times[1:], strict=False)]
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, RETRY_S])
    assert set(map(round, pauses[4:])) == {round(RETRY_S)}
    await out.exporter.aclose(0.2)
    assert out.settled


@virtual_time
async def test_what_is_refused_is_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    to = Scripted(lambda n: Outcome(Verdict.REFUSED, why="INVALID_ARGUMENT") if n == 1 else TAKEN)
    out = Counted(to)
    out.exporter.offer(some(3))
    await asyncio.sleep(1)
    out.exporter.offer(some(2, 3))
    await asyncio.sleep(1)
    assert to.requests == [[0, 1, 2], [3, 4]]
    assert out.counts == {"produced": 5, "dropped": 3, "sent": 2}
    assert "refuses spans (INVALID_ARGUMENT)" in caplog.text
    await out.exporter.aclose(1)


@pytest.mark.parametrize(("rejected", "dropped"), [(0, 0), (2, 2), (99, 5), (-1, 0)])
@virtual_time
async def test_a_partial_success(rejected: int, dropped: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = trace_service_pb2.ExportTraceServiceResponse(
        partial_success=trace_service_pb2.ExportTracePartialSuccess(
            rejected_spans=rejected, error_message="too old"
        )
    )
    out = Counted(Scripted(lambda n: Outcome(Verdict.TAKEN, answer.SerializeToString())))
    out.exporter.offer(some(5))
    await asyncio.sleep(1)
    assert out.settled
    assert (out.of("sent"), out.of("dropped")) == (5 - dropped, dropped)
    assert ("(too old)" in caplog.text) == bool(dropped)
    await out.exporter.aclose(1)


@virtual_time
async def test_an_answer_that_is_no_answer_is_taken() -> None:
    out = Counted(Scripted(lambda n: Outcome(Verdict.TAKEN, b"<html>")))
    out.exporter.offer(some(5))
    await asyncio.sleep(1)
    assert out.counts == {"produced": 5, "sent": 5}
    await out.exporter.aclose(1)


@virtual_time
async def test_a_queue_smaller_than_what_is_offered_at_once_keeps_the_newest() -> None:
    to = Scripted()
    out = Counted(to, queue_spans=100)
    out.exporter.offer(some(256))
    await asyncio.sleep(1)
    assert to.requests == [list(range(156, 256))]
    assert out.counts == {"produced": 256, "dropped": 156, "sent": 100}
    await out.exporter.aclose(1)


@virtual_time
async def test_at_the_end_what_waits_is_sent() -> None:
    to = Scripted()
    out = Counted(to, batch_spans=10, delay_s=600)
    out.exporter.offer(some(35))
    await out.exporter.aclose(5)
    assert [len(r) for r in to.requests] == [10, 10, 10, 5]
    assert out.counts == {"produced": 35, "sent": 35}
    assert asyncio.get_running_loop().time() < 1


@pytest.mark.parametrize("trouble", [LATER, 600.0])
@virtual_time
async def test_at_the_end_a_collector_that_is_away_is_given_up(trouble: Outcome | float) -> None:
    to = Scripted(lambda n: trouble)
    out = Counted(to, batch_spans=10)
    out.exporter.offer(some(35))
    await asyncio.sleep(1)
    before = asyncio.get_running_loop().time()
    await out.exporter.aclose(1)
    assert asyncio.get_running_loop().time() - before == pytest.approx(1, abs=0.2)
    assert out.counts == {"produced": 35, "dropped": 35}
    assert to.closed


@virtual_time
async def test_what_comes_after_the_end_is_counted_as_dropped() -> None:
    out = Counted(Scripted())
    await out.exporter.aclose(1)
    out.exporter.offer(some(3))
    await settle()
    assert out.counts == {"produced": 3, "dropped": 3}


@virtual_time
async def test_nothing_offered_is_nothing() -> None:
    to = Scripted()
    out = Counted(to)
    out.exporter.offer([])
    await asyncio.sleep(1)
    assert (to.requests, out.counts) == ([], {})
    await out.exporter.aclose(1)


# -- what the environment says --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def destination(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Destination:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    found = Destination.from_environment("traces")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("variables", "endpoint", "in_the_clear"),
    [
        ({"ENDPOINT": "http://h:4317"}, "http://h:4317", True),
        ({"ENDPOINT": "https://h:4317"}, "https://h:4317", False),
        ({"ENDPOINT": "https://h:4317", "INSECURE": "true"}, "https://h:4317", False),
        ({"ENDPOINT": "h:4317", "INSECURE": "true"}, "http://h:4317", True),
        ({"ENDPOINT": "h:4317"}, "https://h:4317", False),
        (
            {"ENDPOINT": "http://h:4318/", "PROTOCOL": "http/protobuf"},
            "http://h:4318/v1/traces",
            True,
        ),
        (
            {"ENDPOINT": "http://h:4318/base", "PROTOCOL": "http/protobuf"},
            "http://h:4318/base/v1/traces",
            True,
        ),
        (
            {"ENDPOINT": "http://h:1", "TRACES_ENDPOINT": "https://t/x", "PROTOCOL": "http/protobuf"},
            "https://t/x",
            False,
        ),
        ({"ENDPOINT": "http://h:1", "TRACES_PROTOCOL": "http/protobuf"}, "http://h:1/v1/traces", True),
    ],
)
def test_where_spans_go(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str, in_the_clear: bool
) -> None:
    found = destination(monkeypatch, **variables)
    assert (found.endpoint, found.insecure) == (endpoint, in_the_clear)


@pytest.mark.parametrize(
    ("text", "seconds"), [("", TIMEOUT_S), ("10000", 10), ("100", 0.1), ("10", 10), ("0.5", 0.5), ("99", 99)]
)
def test_a_timeout_in_milliseconds_or_seconds(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    assert destination(monkeypatch, ENDPOINT="http://h:1", TIMEOUT=text).timeout_s == seconds


def test_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = destination(
        monkeypatch, ENDPOINT="http://h:1", HEADERS="Authorization=Bearer%20a%3Db, x-tenant = acme ,,"
    )
    assert found.headers == {"authorization": "Bearer a=b", "x-tenant": "acme"}
    found = destination(monkeypatch, TRACES_HEADERS="x-other=1")
    assert found.headers == {"x-other": "1"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ENDPOINT": "http://"}, "must be http"),
        ({"ENDPOINT": "ftp://h:1"}, "must be http"),
        ({"ENDPOINT": "http://h:port"}, "must be http"),
        ({"ENDPOINT": "http://h:1", "COMPRESSION": "zstd"}, "must be gzip or none"),
        ({"ENDPOINT": "http://h:1", "TIMEOUT": "soon"}, "must be a time above 0"),
        ({"ENDPOINT": "http://h:1", "TIMEOUT": "-1"}, "must be a time above 0"),
        ({"ENDPOINT": "http://h:1", "TIMEOUT": "nan"}, "must be a time above 0"),
        ({"ENDPOINT": "http://h:1", "HEADERS": "secret-token"}, "must be key=value"),
        ({"ENDPOINT": "http://h:1", "HEADERS": "a=1\n"}, ""),
        ({"ENDPOINT": "https://h:1", "CERTIFICATE": "/nowhere/ca.pem"}, "cannot read /nowhere/ca.pem"),
    ],
)
def test_what_cannot_be_followed_is_said(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    if not words:
        assert destination(monkeypatch, **variables).headers == {"a": "1"}
        return
    with pytest.raises(TelemetryConfigError, match=words) as caught:
        destination(monkeypatch, **variables)
    assert "secret-token" not in str(caught.value)


def test_a_certificate_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
    found = destination(monkeypatch, ENDPOINT="https://h:1", PROTOCOL="http/protobuf", CERTIFICATE=str(file))
    with pytest.raises(TelemetryConfigError, match="certificates"):
        sender(found)


# -- over real sockets ----------------------------------------------------------------------------------------------


class Heard:
    """What a collector was sent."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.headers: list[dict[str, str]] = []
        self._changed = threading.Condition()

    def take(self, request: Any, headers: Any) -> None:
        with self._changed:
            self.numbers += [
                s.start_time_unix_nano for r in request.resource_spans for c in r.scope_spans for s in c.spans
            ]
            self.headers.append({str(k).lower(): v for k, v in dict(headers).items()})
            self._changed.notify_all()

    def wait_for(self, number: int, timeout_s: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: number in self.numbers, timeout_s), "it did not come"


@contextlib.contextmanager
def over_grpc(
    heard: Heard, port: int = 0, certificates: Certificates | None = None, answer: Any = None
) -> Iterator[int]:
    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            if answer is not None:
                answer(context)
            heard.take(request, context.invocation_metadata())
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add(Servicer(), server)
    address = f"127.0.0.1:{port}"
    if certificates is None:
        port = server.add_insecure_port(address)
    else:
        pair = (certificates.read("server.key"), certificates.read("server.pem"))
        port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextlib.asynccontextmanager
async def over_http(
    heard: Heard, port: int = 0, certificates: Certificates | None = None, answer: Any = None
) -> AsyncIterator[int]:
    async def export(request: web.Request) -> web.Response:
        if answer is not None and (said := await answer(request)) is not None:
            assert isinstance(said, web.Response)
            return said
        # The server inflates what came compressed.
        heard.take(
            trace_service_pb2.ExportTraceServiceRequest.FromString(await request.read()), request.headers
        )
        return web.Response()

    context = None
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.folder / "server.pem", certificates.folder / "server.key")
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/traces", export)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
    await site.start()
    assert runner.addresses
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def collecting(
    protocol: str, heard: Heard, port: int = 0, certificates: Certificates | None = None, answer: Any = None
) -> AsyncIterator[int]:
    if protocol == "grpc":
        with over_grpc(heard, port, certificates, answer) as bound:
            yield bound
    else:
        async with over_http(heard, port, certificates, answer) as bound:
            yield bound


BOTH = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


@BOTH
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_headers_and_compression_on_the_wire(
    monkeypatch: pytest.MonkeyPatch, protocol: str, compression: str
) -> None:
    heard = Heard()
    async with collecting(protocol, heard) as port:
        to = sender(
            destination(
                monkeypatch,
                ENDPOINT=f"http://127.0.0.1:{port}",
                PROTOCOL=protocol,
                HEADERS="x-tenant=acme",
                COMPRESSION=compression,
            )
        )
        out = Counted(to)
        out.exporter.offer(some(2_000))
        await asyncio.to_thread(heard.wait_for, 1_999)
        await out.exporter.aclose(10)
    assert heard.numbers == list(range(2_000))
    assert out.counts == {"produced": 2_000, "sent": 2_000}
    assert all(headers["x-tenant"] == "acme" for headers in heard.headers)
    if protocol != "grpc":
        assert heard.headers[0].get("content-encoding", "none") == compression
        assert heard.headers[0]["content-type"] == "application/x-protobuf"


@BOTH
async def test_tls_with_the_certificate_that_a_variable_names(
    monkeypatch: pytest.MonkeyPatch, protocol: str, certificates: Certificates
) -> None:
    heard = Heard()
    async with collecting(protocol, heard, certificates=certificates) as port:
        url = f"https://localhost:{port}"
        trusting = destination(
            monkeypatch, ENDPOINT=url, PROTOCOL=protocol, CERTIFICATE=str(certificates.folder / "ca.pem")
        )
        out = Counted(sender(trusting))
        out.exporter.offer(some(3))
        await asyncio.to_thread(heard.wait_for, 2)
        await out.exporter.aclose(10)
        assert out.counts == {"produced": 3, "sent": 3}
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_CERTIFICATE")
        wary = Counted(sender(destination(monkeypatch, ENDPOINT=url, PROTOCOL=protocol)))
        wary.exporter.offer(some(3, 3))
        await wary.exporter.aclose(1.5)
        assert wary.counts == {"produced": 3, "dropped": 3}, "who is not known is told nothing"
    assert heard.numbers == [0, 1, 2]


@BOTH
async def test_down_and_back(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    """The port is refused, then served."""
    (port,) = free_ports(1)
    heard = Heard()
    out = Counted(sender(destination(monkeypatch, ENDPOINT=f"http://127.0.0.1:{port}", PROTOCOL=protocol)))
    out.exporter.offer(some(10))
    await asyncio.sleep(2.5)
    assert out.counts == {"produced": 10}
    async with collecting(protocol, heard, port):
        # What it takes on a machine at rest is at most RECOVERY_S; on virtual time that is exact.
        await asyncio.to_thread(heard.wait_for, 9, 4 * RECOVERY_S)
        await out.exporter.aclose(10)
    assert heard.numbers == list(range(10))
    assert out.counts == {"produced": 10, "sent": 10}


@BOTH
async def test_a_collector_that_hangs_and_then_answers(
    monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """It takes the connection and says nothing; then one that works has its place."""
    heard = Heard()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        out = Counted(
            sender(
                destination(
                    monkeypatch, ENDPOINT=f"http://127.0.0.1:{port}", PROTOCOL=protocol, TIMEOUT="500"
                )
            )
        )
        out.exporter.offer(some(10))
        await asyncio.sleep(2)
        assert out.counts == {"produced": 10}
    async with collecting(protocol, heard, port):
        await asyncio.to_thread(heard.wait_for, 9, 4 * RECOVERY_S)
        await out.exporter.aclose(10)
    assert out.counts == {"produced": 10, "sent": 10}


@pytest.mark.parametrize(
    ("code", "again"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (grpc.StatusCode.INVALID_ARGUMENT, False),
        (grpc.StatusCode.UNAUTHENTICATED, False),
        (grpc.StatusCode.UNIMPLEMENTED, False),
    ],
)
async def test_statuses_over_grpc(
    monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode, again: bool
) -> None:
    calls: list[int] = []

    def answer(context: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            context.abort(code, "not now")

    heard = Heard()
    async with collecting("grpc", heard, answer=answer) as port:
        out = Counted(sender(destination(monkeypatch, ENDPOINT=f"http://127.0.0.1:{port}")))
        out.exporter.offer(some(3))
        await _until(lambda: out.settled and bool(out.counts))
        await out.exporter.aclose(10)
    assert heard.numbers == ([0, 1, 2] if again else [])
    assert out.of("sent" if again else "dropped") == 3


@pytest.mark.parametrize(
    ("status", "again"), [(429, True), (503, True), (502, True), (400, False), (401, False), (302, False)]
)
async def test_statuses_over_http(monkeypatch: pytest.MonkeyPatch, status: int, again: bool) -> None:
    calls: list[int] = []

    async def answer(request: web.Request) -> web.Response | None:
        calls.append(1)
        return web.Response(status=status, headers={"Location": "/elsewhere"}) if len(calls) == 1 else None

    heard = Heard()
    async with collecting("http/protobuf", heard, answer=answer) as port:
        out = Counted(
            sender(destination(monkeypatch, ENDPOINT=f"http://127.0.0.1:{port}", PROTOCOL="http/protobuf"))
        )
        out.exporter.offer(some(3))
        await _until(lambda: out.settled and bool(out.counts))
        await out.exporter.aclose(10)
    assert heard.numbers == ([0, 1, 2] if again else [])
    assert out.of("sent" if again else "dropped") == 3


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - counts have no Event
            await asyncio.sleep(0.01)
