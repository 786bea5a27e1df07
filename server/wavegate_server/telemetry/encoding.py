"""OTLP bytes of spans, made by hand: what a span for every chunk of audio can afford. Pure.

A span of the SDK and its way through the stock exporter cost 44 to 58 µs of CPU; docs/benchmarks.md has what one made
here costs. What comes out is what `opentelemetry.proto` parses (the tests hold the two against each other). Field
numbers are those of `opentelemetry/proto/{trace,common,resource}/v1`.

Whole numbers of a chunk are written as varints of four bytes, whatever their value: then all chunks of a lane have
the same length, and one `struct.pack` writes one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from wavegate_server.telemetry import Attribute

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5

STATUS_ERROR: Final = 2
SAMPLED: Final = 0x01
HAS_REMOTE: Final = 0x100
"""`flags`: whether the parent was remote is known; `IS_REMOTE`: it was."""
IS_REMOTE: Final = 0x200
MAX_WHOLE: Final = (1 << 28) - 1
"""The largest whole number that four bytes of a varint hold."""
MAX_CHARS: Final = 4_096
"""What is longer is cut off."""

# Tags: field number * 8 + wire type.
_SPAN_ATTRIBUTE = b"\x4a"
_EVENT_ATTRIBUTE = b"\x1a"
_LINK_ATTRIBUTE = b"\x22"
_RESOURCE_ATTRIBUTE = b"\x0a"


def varint(number: int) -> bytes:
    """A whole number from 0 on."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sized(tag: bytes, payload: bytes) -> bytes:
    """A field of bytes: its tag, its length, itself."""
    return tag + (bytes((len(payload),)) if len(payload) < 0x80 else varint(len(payload))) + payload


@lru_cache(512)
def _key(key: str) -> bytes:
    return sized(b"\x0a", key.encode("utf-8", "replace"))


def _any(value: Attribute) -> bytes:
    """`AnyValue`."""
    match value:
        case bool():
            return b"\x10\x01" if value else b"\x10\x00"
        case int():
            return b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)
        case float():
            return b"\x21" + struct.pack("<d", value)
        case str():
            return sized(b"\x0a", value[:MAX_CHARS].encode("utf-8", "replace"))
    return sized(b"\x2a", b"".join(sized(b"\x0a", _any(item)) for item in value))


def attribute(key: str, value: Attribute, tag: bytes = _SPAN_ATTRIBUTE) -> bytes:
    """One attribute, of a span unless another tag is given."""
    return sized(tag, _key(key) + sized(b"\x12", _any(value)))


def _attributes(pairs: Mapping[str, Attribute], tag: bytes) -> bytes:
    return b"".join([attribute(key, value, tag) for key, value in pairs.items()])


def event(name: str, at_ns: int, attributes: Mapping[str, Attribute]) -> bytes:
    """`Span.Event`."""
    body = b"\x09" + struct.pack("<Q", at_ns) + sized(b"\x12", name.encode("utf-8", "replace"))
    return sized(b"\x5a", body + _attributes(attributes, _EVENT_ATTRIBUTE))


def link(trace_id: bytes, span_id: bytes, attributes: Mapping[str, Attribute] | None = None) -> bytes:
    """`Span.Link`."""
    body = sized(b"\x0a", trace_id) + sized(b"\x12", span_id)
    return sized(b"\x6a", body + _attributes(attributes or {}, _LINK_ATTRIBUTE))


def _head(trace_id: bytes, parent_id: bytes, name: str, kind: int, flags: int, trace_state: str) -> bytes:
    parts = sized(b"\x0a", trace_id)
    if trace_state:
        parts += sized(b"\x1a", trace_state.encode("utf-8", "replace"))
    if parent_id:
        parts += sized(b"\x22", parent_id)
    return (
        parts
        + sized(b"\x2a", name[:MAX_CHARS].encode("utf-8", "replace"))
        + bytes((0x30, kind))
        + b"\x85\x01"
        + struct.pack("<I", flags)
    )


def span(
    *,
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    name: str,
    kind: int,
    start_ns: int,
    end_ns: int,
    flags: int,
    trace_state: str = "",
    attributes: Mapping[str, Attribute],
    events: Iterable[bytes] = (),
    links: Iterable[bytes] = (),
    error: str | None = None,
) -> bytes:
    """A span as a field of `ScopeSpans`. `error`: its status is ERROR, with this description."""
    body = b"".join(
        (
            _head(trace_id, parent_id, name, kind, flags, trace_state),
            sized(b"\x12", span_id),
            struct.pack("<cQcQ", b"\x39", start_ns, b"\x41", max(start_ns, end_ns)),
            _attributes(attributes, _SPAN_ATTRIBUTE),
            *events,
            *links,
        )
    )
    if error is not None:
        body += sized(
            b"\x7a",
            (sized(b"\x12", error.encode("utf-8", "replace")) if error else b"")
            + bytes((0x18, STATUS_ERROR)),
        )
    return sized(b"\x12", body)


class ChunkEncoder:
    """Spans of chunks that differ only in their id, times and numbers."""

    __slots__ = ("_consts", "_pack", "_prefix", "_size", "_size_varint")

    def __init__(
        self,
        *,
        trace_id: bytes,
        parent_id: bytes,
        name: str,
        kind: int,
        flags: int,
        trace_state: str,
        attributes: Mapping[str, Attribute],
        whole: Sequence[str],
        real: Sequence[str],
    ) -> None:
        """`whole` and `real`: keys of the whole numbers (up to `MAX_WHOLE`) and the others that each chunk has."""
        head = _head(trace_id, parent_id, name, kind, flags, trace_state)
        head += _attributes(attributes, _SPAN_ATTRIBUTE) + b"\x12\x08"
        wholes = [_number(key, b"\x18", 4) for key in whole]
        reals = [_number(key, b"\x21", 8) for key in real]
        numbers = "QcQcQ" + "".join(f"{len(h)}sI" for h in wholes) + "".join(f"{len(h)}sd" for h in reals)
        self._prefix = b"\x12" + varint(len(head) + struct.calcsize("<" + numbers)) + head
        self._pack = struct.Struct(f"<{len(self._prefix)}s{numbers}").pack
        self._consts = (*wholes, *reals)
        self._size = 0
        self._size_varint = _four(0)

    def encode(
        self,
        span_id: int,
        start_ns: int,
        end_ns: int,
        number: int,
        size: int,
        r0: float,
        r1: float,
        r2: float,
        r3: float,
    ) -> bytes:
        """One span with two whole numbers, of which the second is often the same, and four others (`r`)."""
        if size != self._size:
            self._size, self._size_varint = size, _four(size)
        a, b, c, d, e, f = self._consts
        return self._pack(
            self._prefix,
            span_id,
            b"\x39",
            start_ns,
            b"\x41",
            end_ns,
            a,
            # What `_four` does; a call costs more than the rest of it.
            number & 0x7F
            | (number & 0x3F80) << 1
            | (number & 0x1FC000) << 2
            | (number & 0xFE00000) << 3
            | 0x808080,
            b,
            self._size_varint,
            c,
            r0,
            d,
            r1,
            e,
            r2,
            f,
            r3,
        )


def _four(number: int) -> int:
    """The four bytes of a varint, as the number that they are; of a larger one the lowest `MAX_WHOLE`."""
    return (
        number & 0x7F
        | (number & 0x3F80) << 1
        | (number & 0x1FC000) << 2
        | (number & 0xFE00000) << 3
        | 0x808080
    )


def _number(key: str, tag: bytes, size: int) -> bytes:
    """What stands before a number of `size` bytes that is the value of an attribute."""
    value = b"\x12" + bytes((1 + size,)) + tag
    return _SPAN_ATTRIBUTE + varint(len(_key(key)) + len(value) + size) + _key(key) + value


def request(resource: bytes, scope: bytes, spans: Sequence[bytes]) -> bytes:
    """`ExportTraceServiceRequest` (and `TracesData`, which has the same bytes) of spans of one resource and scope."""
    scope, resource = sized(b"\x0a", scope), sized(b"\x0a", resource)
    size = len(scope) + sum(map(len, spans))
    resource += b"\x12" + varint(size)
    # Copied once: these may be a megabyte.
    return b"".join((b"\x0a", varint(len(resource) + size), resource, scope, *spans))


def resource(attributes: Mapping[str, Attribute]) -> bytes:
    """`Resource`."""
    return _attributes(attributes, _RESOURCE_ATTRIBUTE)


def scope(name: str, version: str) -> bytes:
    """`InstrumentationScope`."""
    return sized(b"\x0a", name.encode()) + sized(b"\x12", version.encode())
