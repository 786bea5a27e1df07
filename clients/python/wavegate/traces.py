"""What a gateway recorded of a call: OpenTelemetry spans, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from wavegate._settings_wire import enum_name, struct_from_wire
from wavegate.settings import JsonValue
from wavegate.speech.v1 import session_service_pb2

__all__ = ["SpanKind", "TraceSpan", "trace_span"]

SpanKind = Literal["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A timed piece of work that has ended. Ids are hex digits, times nanoseconds since the Unix epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the root of a trace."""
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, JsonValue]
    parent_is_remote: bool = False
    """Whether the parent is the caller's own span, which the gateway does not have."""
    failed: bool = False
    error_message: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span id of each span that this one points to."""


def trace_span(message: session_service_pb2.TraceSpan) -> TraceSpan:
    """A span from the wire."""
    return TraceSpan(
        trace_id=message.trace_id,
        span_id=message.span_id,
        parent_id=message.parent_span_id,
        name=message.name,
        kind=cast(SpanKind, enum_name(session_service_pb2.TraceSpan.Kind, message.kind, "KIND_")),
        start_ns=message.start_time.ToNanoseconds(),
        end_ns=message.end_time.ToNanoseconds(),
        attributes=struct_from_wire(message.attributes),
        parent_is_remote=message.parent_is_remote,
        failed=message.failed,
        error_message=message.error_message,
        links=tuple((link.trace_id, link.span_id) for link in message.links),
    )
