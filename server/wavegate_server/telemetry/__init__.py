"""The telemetry port: the handful of verbs that the gateway speaks, and a null that does nothing.

Rooms below `app` know this port, the names of spans and attributes (`telemetry.names`) and the table of metrics
(`telemetry.instruments`); only `app` imports what is behind it. Content — text, audio, keys — never goes into a
name or an attribute. Parents are handed over explicitly: no span is ever "current", which would be wrong across
tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from wavegate_server.telemetry.instruments import Instrument

Attribute = str | int | float | bool | Sequence[str]
Direction = Literal["in", "out"]
"""`in`: from the caller to the upstream; `out`: from the upstream to the caller."""
Chunks = Literal["all", "first_last", "errors", "off"]
"""Which chunks get spans. `errors`: those of calls in which something fails."""
ContextUse = Literal["trust", "link"]
"""What a caller's trace context does. `link`: calls begin traces of their own, linked to the caller's."""
Reading = tuple[tuple[str, ...], float]
"""What a gauge shows: the values of its labels, and the number."""


def milliseconds(seconds: float) -> float:
    """Return seconds as the milliseconds of an attribute, to the nanosecond: what a Duration of the contract has."""
    return round(seconds * 1e3, 6)


@dataclass(frozen=True, slots=True)
class EndedSpan:
    """A span as it was recorded. Ids are hex digits, `parent_id` is empty for the root of a trace; times are
    nanoseconds since the Unix epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    parent_is_remote: bool
    """Whether the parent is the caller's own span."""
    name: str
    kind: Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Attribute]
    failed: bool
    error_message: str
    links: tuple[tuple[str, str], ...]
    """Trace and span id of each."""


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

    def link(self, other: Span, attributes: Mapping[str, Attribute] | None = None) -> None:
        """Point to a span of another tree."""

    def fail(self, error_type: str, description: str = "") -> None:
        """Mark it as failed, with OpenTelemetry's `error.type`."""

    def end(self, end_ns: int | None = None) -> None:
        """Stop the clock, now or at a time in nanoseconds since the Unix epoch, and hand it on."""


class Lane(Protocol):
    """The chunks of one direction under one span: a turn's audio, or an utterance's text."""

    def chunk(
        self,
        sequence: int,
        size_bytes: int,
        start_ns: int,
        handed_ns: int,
        end_ns: int,
        offset_s: float = 0.0,
        duration_s: float = 0.0,
    ) -> None:
        """One chunk: when its bytes were received, when it was handed to its transport and when that had taken it,
        in nanoseconds since the Unix epoch; its place and playing time, in seconds, where it is audio."""

    def close(self) -> None:
        """No chunk follows."""


class Telemetry(Protocol):
    """Where spans come from, and where numbers go."""

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        """The SERVER span of one RPC. `method` is `package.Service/Method`; the caller's trace context is taken
        from the call metadata (W3C `traceparent`, `tracestate`)."""

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
        """A span below `parent`: of kind CLIENT or else INTERNAL, from now or from `start_ns` on. With a valid
        `traceparent` (W3C) it is a child of that one instead, and linked with `parent`."""

    def connection_span(self, parent: Span, kind: str, endpoint: str, attempt: int) -> Span:
        """The CLIENT span of one upstream connection, from dialling to its end. `kind` is `tts` or `stt`;
        `endpoint` has no query and no key."""

    def lane(
        self, parent: Span, kind: str, direction: Direction, attributes: Mapping[str, Attribute]
    ) -> Lane:
        """Where the chunks below `parent` go. `kind` is `tts` or `stt`."""

    def retain(self, span: Span) -> None:
        """What is below `span` goes on after its end, until `release`."""

    def release(self, span: Span) -> None:
        """Nothing more comes below `span`: what was kept for the case of an error is sent or dropped."""

    def record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        """Count, or take a measurement. `span`: the exemplar."""

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None:
        """Have a gauge read when somebody looks."""

    def recent(self, key: str, caller: str) -> Iterator[EndedSpan]:
        """The newest spans of a trace (its id), or of the traces of a session (its id), as far as they are below
        SERVER spans whose `speech.caller` is `caller` (empty: that have none). Each is decoded when it is asked for."""


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

    def link(self, other: Span, attributes: Mapping[str, Attribute] | None = None) -> None:
        pass

    def fail(self, error_type: str, description: str = "") -> None:
        pass

    def end(self, end_ns: int | None = None) -> None:
        pass


class NullLane:
    """Chunks that nobody sees."""

    __slots__ = ()

    def chunk(
        self,
        sequence: int,
        size_bytes: int,
        start_ns: int,
        handed_ns: int,
        end_ns: int,
        offset_s: float = 0.0,
        duration_s: float = 0.0,
    ) -> None:
        pass

    def close(self) -> None:
        pass


class NullTelemetry:
    """Telemetry that goes nowhere."""

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        return NullSpan()

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
        return NullSpan(parent.trace_id)

    def connection_span(self, parent: Span, kind: str, endpoint: str, attempt: int) -> Span:
        return NullSpan(parent.trace_id)

    def lane(
        self, parent: Span, kind: str, direction: Direction, attributes: Mapping[str, Attribute]
    ) -> Lane:
        return NullLane()

    def retain(self, span: Span) -> None:
        pass

    def release(self, span: Span) -> None:
        pass

    def record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        pass

    def watch(self, instrument: Instrument, read: Callable[[], Iterable[Reading]]) -> None:
        pass

    def recent(self, key: str, caller: str) -> Iterator[EndedSpan]:
        return iter(())
