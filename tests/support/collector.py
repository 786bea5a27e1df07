"""An OTLP collector that remembers what it was sent, over gRPC or HTTP, on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

KINDS = {Span.SPAN_KIND_SERVER: "SERVER", Span.SPAN_KIND_CLIENT: "CLIENT"}


def plain(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    return getattr(value, which) if which else None


def attributes(pairs: Any) -> dict[str, Any]:
    pairs_: list[KeyValue] = list(pairs)
    return {pair.key: plain(pair.value) for pair in pairs_}


@dataclass(frozen=True)
class Exported:
    """One span as it arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_span_id: str
    trace_state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    error: bool
    description: str
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span id of each."""
    start_ns: int = 0
    end_ns: int = 0


class Collector:
    """`endpoint` is what `OTEL_EXPORTER_OTLP_ENDPOINT` wants."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.headers: dict[str, str] = {}
        self.raw: list[bytes] = []
        """Each request as it came."""
        self._spans: list[Exported] = []
        self._changed = threading.Condition()

    def take(self, request: Any) -> None:
        found = [
            Exported(
                name=span.name,
                kind=KINDS.get(span.kind, "other"),
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_span_id=span.parent_span_id.hex(),
                trace_state=span.trace_state,
                attributes=attributes(span.attributes),
                resource=attributes(of_resource.resource.attributes),
                error=span.status.code == 2,
                description=span.status.message,
                links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                start_ns=span.start_time_unix_nano,
                end_ns=span.end_time_unix_nano,
            )
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]
        with self._changed:
            self.raw.append(request.SerializeToString())
            self._spans += found
            self._changed.notify_all()

    @property
    def spans(self) -> list[Exported]:
        with self._changed:
            return list(self._spans)

    def wait_for(self, wanted: Callable[[Exported], bool], timeout_s: float = 60.0) -> Exported:
        """The first span that fits. Raises AssertionError with what came instead. Blocks."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for span in self._spans:
                    if wanted(span):
                        return span
                if not self._changed.wait(max(0.0, end - time.monotonic())):
                    raise AssertionError(f"no such span came, only {self._spans}")


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    collector = Collector()

    class Servicer(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            collector.headers.update(context.invocation_metadata())
            collector.take(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Servicer(), server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


@contextmanager
def http_collector() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.headers.update({"path": self.path, **dict(self.headers)})
            collector.take(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
