"""The telemetry port: the handful of verbs that the gateway speaks, and a null that does nothing.

Rooms below `app` know this port only; `telemetry.otel` is the one module that imports OpenTelemetry, and only
`app` imports it. Names of spans and attributes are in `telemetry.names`. Content — text, audio, keys — never
goes into a name or an attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

Attribute = str | int | float | bool | Sequence[str]


class Span(Protocol):
    """One timed piece of work. Must be ended exactly once; ending it again does nothing."""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty where nothing is traced."""

    @property
    def span_id(self) -> str:
        """16 hex digits; empty where nothing is traced."""

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        """Add attributes."""

    def event(self, name: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Note a moment."""

    def fail(self, error_type: str, description: str = "") -> None:
        """Mark it as failed, with OpenTelemetry's `error.type`."""

    def end(self) -> None:
        """Stop the clock and hand it on."""


class Telemetry(Protocol):
    """Where spans come from."""

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        """The SERVER span of one RPC. `method` is `package.Service/Method`; the caller's trace context is taken
        from the call metadata (W3C `traceparent`, `tracestate`)."""

    def connection_span(self, parent: Span, kind: str, endpoint: str, attempt: int) -> Span:
        """The CLIENT span of one upstream connection, from dialling to its end. `kind` is `tts` or `stt`;
        `endpoint` has no query and no key."""

    def shutdown(self, timeout_s: float) -> None:
        """Send what is still held, for at most `timeout_s` seconds."""


class NullSpan:
    """A span that nobody sees, with ids all the same: sessions and logs can be told apart by them."""

    __slots__ = ("span_id", "trace_id")

    def __init__(self, trace_id: str = "", span_id: str = "") -> None:
        self.trace_id = trace_id
        self.span_id = span_id

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        pass

    def event(self, name: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        pass

    def fail(self, error_type: str, description: str = "") -> None:
        pass

    def end(self) -> None:
        pass


class NullTelemetry:
    """Telemetry that goes nowhere."""

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        return NullSpan()

    def connection_span(self, parent: Span, kind: str, endpoint: str, attempt: int) -> Span:
        return NullSpan()

    def shutdown(self, timeout_s: float) -> None:
        pass
