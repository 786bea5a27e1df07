"""The telemetry port on OpenTelemetry: what the standard `OTEL_…` variables ask for, and the parts put together.

Ids are made in any case, so that sessions and log lines can be told apart, and the newest spans are kept for those
who ask the gateway itself. Spans go out over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` or
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set. Resource, sampler and W3C propagation are the SDK's; spans are made and
sent by `tracer` and `export`, since a span for each chunk is more than the SDK's way could bear.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, Protocol, cast
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, ParentBasedTraceIdRatio, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from wavegate_server.telemetry import (
    Attribute,
    Direction,
    EndedSpan,
    Lane,
    NullLane,
    NullSpan,
    Reading,
    Span,
    encoding,
    names,
)
from wavegate_server.telemetry.export import (
    BATCH_SPANS,
    DELAY_S,
    QUEUE_SPANS,
    Destination,
    SpanExporter,
    TelemetryConfigError,
    sender,
    whole_number,
)
from wavegate_server.telemetry.instruments import TRACE_SPANS, Instrument
from wavegate_server.telemetry.tracer import Knobs, Parent, Tracer, found

__all__ = ["Knobs", "OtelTelemetry", "TelemetryConfigError", "destination", "from_environment"]

_W3C: Final = TraceContextTextMapPropagator()
MAX_STATE_CHARS: Final = 512
_KINDS: Final[Mapping[int, Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]]] = {
    encoding.INTERNAL: "INTERNAL",
    encoding.SERVER: "SERVER",
    encoding.CLIENT: "CLIENT",
    encoding.PRODUCER: "PRODUCER",
    encoding.CONSUMER: "CONSUMER",
}


class Numbers(Protocol):
    """Where measurements go."""

    def record(
        self, instrument: Instrument, value: float, *labels: str, span: Span | None = None
    ) -> None: ...

    def record_all(self, instrument: Instrument, values: Iterable[float], *labels: str) -> None: ...

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None: ...


class _NoNumbers:
    def record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        pass

    def record_all(self, instrument: Instrument, values: Iterable[float], *labels: str) -> None:
        pass

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None:
        pass


class OtelTelemetry:
    """A `Telemetry`. Used from one loop."""

    def __init__(
        self,
        version: str,
        *,
        knobs: Knobs | None = None,
        ratio: float = 1.0,
        to: Destination | None = None,
        numbers: Numbers | None = None,
        disabled: bool = False,
    ) -> None:
        """`to` None: spans go nowhere. `ratio`: of the sessions that no caller has decided upon, where
        `OTEL_TRACES_SAMPLER` says nothing. Raises `TelemetryConfigError`."""
        self.resource: Mapping[str, Attribute] = _resource(version)
        self._numbers: Numbers = numbers or _NoNumbers()
        self._disabled = disabled
        self._served: dict[str, Attribute] = {}
        self._sampler = _sampler(ratio)
        self.exporter: SpanExporter | None = None
        if to is not None and not disabled:
            self.exporter = SpanExporter(
                sender(to),
                encoding.resource(self.resource),
                encoding.scope(names.SCOPE, version),
                count=lambda outcome, spans: self._numbers.record(TRACE_SPANS, spans, outcome),
                queue_spans=whole_number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS),
                batch_spans=whole_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS),
                delay_s=whole_number("OTEL_BSP_SCHEDULE_DELAY", round(DELAY_S * 1000)) / 1000,
            )
        exporter = self.exporter
        self.tracer = Tracer(
            knobs or Knobs(),
            sample=self._is_sampled,
            offer=exporter.offer if exporter is not None else None,
            record=self._numbers.record,
            record_all=self._numbers.record_all,
            dropped=lambda: exporter.dropped if exporter is not None else 0,
        )

    def __repr__(self) -> str:
        return f"<OtelTelemetry {self.resource.get(SERVICE_NAME)}>"

    def start(self) -> None:
        """Begin to send. On the loop."""
        if self.exporter is not None:
            self.exporter.start()

    def serving(self, host: str, port: int) -> None:
        """Where the gateway listens, for the SERVER spans from now on."""
        self._served = {names.SERVER_ADDRESS: host, names.SERVER_PORT: port}

    async def shutdown(self, timeout_s: float) -> None:
        """Send what is still held, for at most `timeout_s` seconds."""
        self.tracer.flush()
        if self.exporter is not None:
            await self.exporter.aclose(timeout_s)

    # -- the port ---------------------------------------------------------------------------------------------------

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        if self._disabled:
            return NullSpan(secrets.token_hex(16), secrets.token_hex(8))
        carrier: dict[str, list[str]] = {}
        for key, value in metadata:
            if isinstance(value, str):
                carrier.setdefault(key, []).append(value)
        attributes = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method, **self._served}
        return self.tracer.server_span(method, attributes, _remote(carrier))

    def span(
        self,
        parent: Span,
        name: str,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        client: bool = False,
        traceparent: str = "",
        start_ns: int | None = None,
    ) -> Span:
        remote = _remote({"traceparent": [traceparent]}) if traceparent else None
        return self.tracer.span(parent, name, attributes, client, remote, start_ns)

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
        return self.span(parent, names.UPSTREAM_CONNECTION, attributes, client=True)

    def lane(
        self, parent: Span, kind: str, direction: Direction, attributes: Mapping[str, Attribute]
    ) -> Lane:
        return NullLane() if self._disabled else self.tracer.lane(parent, kind, direction, attributes)

    def retain(self, span: Span) -> None:
        self.tracer.retain(span)

    def release(self, span: Span) -> None:
        self.tracer.release(span)

    def record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        self._numbers.record(instrument, value, *labels, span=span)

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None:
        self._numbers.watch(instrument, read)

    # -- for those who ask the gateway ------------------------------------------------------------------------------

    def recent(self, key: str, caller: str) -> Iterator[EndedSpan]:
        self.tracer.flush()
        return map(_decoded, found(self.tracer.recent, key, caller))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _is_sampled(self, trace_id: bytes, name: str, parent: Parent | None) -> bool:
        number = int.from_bytes(trace_id, "big")
        context = Context()
        if parent is not None:
            _, span_id, sampled, state = parent
            remote = SpanContext(
                number,
                int.from_bytes(span_id, "big"),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
                trace_state=TraceState.from_header([state]) if state else TraceState(),
            )
            context = trace.set_span_in_context(NonRecordingSpan(remote), context)
        decision = self._sampler.should_sample(context, number, name, SpanKind.SERVER).decision
        return decision is Decision.RECORD_AND_SAMPLE


def from_environment(
    version: str, knobs: Knobs | None = None, ratio: float = 1.0, numbers: Numbers | None = None
) -> OtelTelemetry:
    """Telemetry as the standard `OTEL_…` variables ask for it. Raises `TelemetryConfigError`."""
    try:
        return OtelTelemetry(
            version,
            knobs=knobs,
            ratio=ratio,
            to=Destination.from_environment("traces"),
            numbers=numbers,
            disabled=os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
        )
    except (ValueError, OSError, KeyError) as exc:
        raise TelemetryConfigError(f"the OTEL_… variables cannot be followed: {exc}") from exc


def destination() -> str | None:
    """The endpoint that spans go to; None where they go nowhere. Raises `TelemetryConfigError`."""
    to = Destination.from_environment("traces")
    return to.endpoint if to is not None else None


def _decoded(encoded: bytes) -> EndedSpan:
    """A span as `encoding` made it."""
    span = ScopeSpans.FromString(encoded).spans[0]
    return EndedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        parent_is_remote=bool(span.parent_span_id) and bool(span.flags & encoding.IS_REMOTE),
        name=span.name,
        kind=_KINDS[span.kind],
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={pair.key: _plain(pair.value) for pair in span.attributes},
        failed=span.status.code == encoding.STATUS_ERROR,
        error_message=span.status.message,
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
    )


def _plain(value: AnyValue) -> Attribute:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(item.string_value for item in value.array_value.values)
    return cast("Attribute", getattr(value, kind)) if kind else ""


def _remote(carrier: Mapping[str, list[str]]) -> Parent | None:
    """The caller's context; None where there is none, or a malformed one."""
    span = trace.get_current_span(_W3C.extract(carrier, Context()))
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return (
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
        context.trace_flags.sampled,
        _bounded(context.trace_state.to_header()),
    )


def _bounded(state: str) -> str:
    """A `tracestate`, each chunk's span holds it: its first members, up to what W3C says must be handed on."""
    while len(state) > MAX_STATE_CHARS:
        state = state.rpartition(",")[0]
    return state


def _sampler(ratio: float) -> Sampler:
    """What `OTEL_TRACES_SAMPLER` says, else our own ratio; a caller's decision holds."""
    if os.environ.get("OTEL_TRACES_SAMPLER", "").strip():
        return TracerProvider(shutdown_on_exit=False).sampler
    return ParentBasedTraceIdRatio(ratio)


def _resource(version: str) -> dict[str, Attribute]:
    """What the environment says, and ours where it says nothing."""
    found_ = Resource.create()
    said = found_.attributes
    ours = {
        SERVICE_VERSION: said.get(SERVICE_VERSION, version),
        SERVICE_INSTANCE_ID: said.get(SERVICE_INSTANCE_ID, str(uuid.uuid4())),
    }
    if str(said.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        ours[SERVICE_NAME] = names.SERVICE_NAME
    return cast("dict[str, Attribute]", dict(found_.merge(Resource(ours)).attributes))
