"""The telemetry port on OpenTelemetry: the one module that imports it.

Ids are made in any case, so that sessions and log lines can be told apart; spans go out over OTLP when
`OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set. The SDK reads the other standard
variables (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…`).

Parents are always handed over explicitly: no span is ever "current", which would be wrong across tasks.

This is for the few spans of a call. A span for each chunk of audio is another matter (50 to 80 µs each, and a
queue that drops silently): the records of chunks get a way of their own, beside this one.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import uuid
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from wavegate_server.telemetry import Attribute, NullSpan, Span, logs, names

logger = logging.getLogger(__name__)

# A burst of sessions that end at once must fit in; the SDK's own 2,048 drops without a word. A short delay,
# since people look for the trace right after the call.
QUEUE_SPANS: Final = 8192
BATCH_SPANS: Final = 128
EXPORT_DELAY_MS: Final = 200

PROTOCOLS: Final = ("grpc", "http/protobuf")

_W3C: Final = TraceContextTextMapPropagator()


class TelemetryConfigError(Exception):
    """Raised when an `OTEL_…` variable says something that cannot be done."""


class OtelSpan:
    """A span of the SDK."""

    __slots__ = ("_span", "span_id", "trace_id")

    def __init__(self, span: trace.Span) -> None:
        context = span.get_span_context()
        self._span = span
        self.trace_id = trace.format_trace_id(context.trace_id)
        self.span_id = trace.format_span_id(context.span_id)

    def __repr__(self) -> str:
        return f"<OtelSpan {self.trace_id}/{self.span_id} {'open' if self._span.is_recording() else 'done'}>"

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        if self._span.is_recording():
            self._span.set_attributes(attributes)

    def event(self, name: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        if self._span.is_recording():
            self._span.add_event(name, attributes)

    def fail(self, error_type: str, description: str = "") -> None:
        if self._span.is_recording():
            self._span.set_attribute(names.ERROR_TYPE, error_type)
            self._span.set_status(Status(StatusCode.ERROR, logs.redact(description) or None))

    def end(self) -> None:
        if self._span.is_recording():
            self._span.end()

    def as_parent(self) -> Context:
        """The context for a child of this span."""
        return trace.set_span_in_context(self._span, Context())


class OtelTelemetry:
    """A `Telemetry` that makes SDK spans. `exporter` None: they get ids and go nowhere."""

    def __init__(self, exporter: SpanExporter | None, version: str) -> None:
        self._provider = TracerProvider(resource=_resource(version), shutdown_on_exit=False)
        if exporter is not None:
            self._provider.add_span_processor(_processor(exporter))
        self._tracer = self._provider.get_tracer(names.SCOPE, version)
        self._served: dict[str, Attribute] = {}

    def __repr__(self) -> str:
        return f"<OtelTelemetry {self._provider.resource.attributes.get(SERVICE_NAME)}>"

    def serving(self, host: str, port: int) -> None:
        """Where the gateway listens, for the SERVER spans from now on."""
        self._served = {names.SERVER_ADDRESS: host, names.SERVER_PORT: port}

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        carrier: dict[str, list[str]] = {}
        for key, value in metadata:
            if isinstance(value, str):
                carrier.setdefault(key, []).append(value)
        return self._start(
            method,
            SpanKind.SERVER,
            _W3C.extract(carrier, Context()),
            {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method, **self._served},
        )

    def connection_span(self, parent: Span, kind: str, endpoint: str, attempt: int) -> Span:
        url = urlsplit(endpoint)
        attributes: dict[str, Attribute] = {
            names.UPSTREAM_KIND: kind,
            names.UPSTREAM_ATTEMPT: attempt,
            names.NETWORK_PROTOCOL_NAME: "websocket",
            names.URL_SCHEME: url.scheme,
            names.URL_PATH: url.path,
            names.SERVER_ADDRESS: url.hostname or "",
            names.SERVER_PORT: url.port or (443 if url.scheme in ("wss", "https") else 80),
        }
        context = parent.as_parent() if isinstance(parent, OtelSpan) else Context()
        return self._start(names.UPSTREAM_CONNECTION, SpanKind.CLIENT, context, attributes)

    def shutdown(self, timeout_s: float) -> None:
        # The SDK's own shutdown waits up to 30 s for a collector that does not answer. Its threads are daemons,
        # so what is not done in time ends with the process.
        flusher = threading.Thread(target=self._provider.shutdown, name="telemetry-shutdown", daemon=True)
        flusher.start()
        flusher.join(timeout_s)
        if flusher.is_alive():
            logger.warning("the collector took no more spans within %g s; the last ones are lost", timeout_s)

    def _start(
        self, name: str, kind: SpanKind, context: Context, attributes: Mapping[str, Attribute]
    ) -> Span:
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        if not span.get_span_context().is_valid:
            # OTEL_SDK_DISABLED: nothing is traced, sessions and log lines have their ids all the same.
            return NullSpan(secrets.token_hex(16), secrets.token_hex(8))
        return OtelSpan(span)


def from_environment(version: str) -> OtelTelemetry:
    """Telemetry as the standard `OTEL_…` variables ask for it. Raises `TelemetryConfigError`."""
    try:
        return OtelTelemetry(_exporter(), version)
    except (ValueError, OSError, KeyError) as exc:
        raise TelemetryConfigError(f"the OTEL_… variables cannot be followed: {exc}") from exc


def destination() -> str | None:
    """The endpoint that spans go to; None where they go nowhere."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get(
        "OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    return endpoint.strip() or None if endpoint else None


def _exporter() -> SpanExporter | None:
    if destination() is None:
        return None
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "grpc"
    ).strip()
    # Each of them takes its while to import, and only one is needed.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter()
    raise TelemetryConfigError(
        f"OTEL_EXPORTER_OTLP_PROTOCOL must be {' or '.join(PROTOCOLS)}, got {protocol!r}"
    )


def _resource(version: str) -> Resource:
    """What the environment says, and ours where it says nothing."""
    found = Resource.create()
    said = found.attributes
    ours = {
        SERVICE_VERSION: said.get(SERVICE_VERSION, version),
        SERVICE_INSTANCE_ID: said.get(SERVICE_INSTANCE_ID, str(uuid.uuid4())),
    }
    if str(said.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        ours[SERVICE_NAME] = names.SERVICE_NAME
    return found.merge(Resource(ours))


def _processor(exporter: SpanExporter) -> BatchSpanProcessor:
    """Our numbers where the environment names none."""

    def unless_set(variable: str, number: int) -> int | None:
        return None if variable in os.environ else number

    return BatchSpanProcessor(
        exporter,
        max_queue_size=unless_set("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS),
        max_export_batch_size=unless_set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS),
        schedule_delay_millis=unless_set("OTEL_BSP_SCHEDULE_DELAY", EXPORT_DELAY_MS),
    )
