"""Spans encoded by hand, read back by the real protobuf."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status
from wavegate_server.telemetry import encoding

TRACE, SPAN, PARENT = b"t" * 16, b"s" * 8, b"p" * 8
TIMES = st.integers(0, 2**64 - 1)
# More than a byte of length, and lone surrogates, which no UTF-8 can say.
TEXTS = st.text(st.characters(), max_size=300)
KEYS = st.text(st.characters(codec="utf-8"), max_size=200)
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | TEXTS
    | st.lists(TEXTS, max_size=5).map(tuple)
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=8)


def read(encoded: bytes) -> Span:
    (span,) = ScopeSpans.FromString(encoded).spans
    return span


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(plain(item) for item in value.array_value.values)
    return getattr(value, kind) if kind else None


def said(pairs: Any) -> dict[str, Any]:
    found = {pair.key: plain(pair.value) for pair in pairs}
    assert len(found) == len(pairs), "a key stands there twice"
    return found


def sayable(value: Any) -> Any:
    """What UTF-8 makes of a value."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case tuple():
            return tuple(sayable(item) for item in value)
    return value


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if found.keys() != wanted.keys():
        return False
    for key, given_ in wanted.items():
        value, expected = found[key], sayable(given_)
        if type(value) is not type(expected):
            return False
        if value != expected and not (
            isinstance(value, float) and math.isnan(value) and math.isnan(expected)
        ):
            return False
    return True


def a_span(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": PARENT,
        "name": "a span",
        "kind": encoding.CLIENT,
        "start_ns": 1,
        "end_ns": 2,
        "flags": encoding.SAMPLED,
        "attributes": {},
    }
    return encoding.span(**{**fields, **changes})


@given(
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_id=st.just(b"") | st.binary(min_size=8, max_size=8),
    name=TEXTS,
    kind=st.integers(1, 5),
    start_ns=TIMES,
    end_ns=TIMES,
    flags=st.integers(0, 2**32 - 1),
    trace_state=TEXTS,
    attributes=ATTRIBUTES,
    events=st.lists(st.tuples(TEXTS, TIMES, ATTRIBUTES), max_size=3),
    links=st.lists(st.tuples(st.binary(min_size=16, max_size=16), ATTRIBUTES), max_size=3),
    error=st.none() | TEXTS,
)
def test_a_span_is_what_protobuf_reads(
    trace_id: bytes,
    span_id: bytes,
    parent_id: bytes,
    name: str,
    kind: int,
    start_ns: int,
    end_ns: int,
    flags: int,
    trace_state: str,
    attributes: dict[str, Any],
    events: list[tuple[str, int, dict[str, Any]]],
    links: list[tuple[bytes, dict[str, Any]]],
    error: str | None,
) -> None:
    span = read(
        encoding.span(
            trace_id=trace_id,
            span_id=span_id,
            parent_id=parent_id,
            name=name,
            kind=kind,
            start_ns=start_ns,
            end_ns=end_ns,
            flags=flags,
            trace_state=trace_state,
            attributes=attributes,
            events=[encoding.event(*event) for event in events],
            links=[encoding.link(trace, SPAN, more) for trace, more in links],
            error=error,
        )
    )
    assert (span.trace_id, span.span_id, span.parent_span_id) == (trace_id, span_id, parent_id)
    assert (span.name, span.kind, span.flags) == (sayable(name), kind, flags)
    assert span.trace_state == sayable(trace_state)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (start_ns, max(start_ns, end_ns))
    assert same(said(span.attributes), attributes)
    assert len(span.events) == len(events)
    for found, (event_name, at_ns, more) in zip(span.events, events, strict=True):
        assert (found.name, found.time_unix_nano) == (sayable(event_name), at_ns)
        assert same(said(found.attributes), more)
    assert [(link.trace_id, link.span_id) for link in span.links] == [(trace, SPAN) for trace, _ in links]
    for link, (_, more) in zip(span.links, links, strict=True):
        assert same(said(link.attributes), more)
    if error is None:
        assert not span.HasField("status")
    else:
        assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, sayable(error))


@given(number=st.integers(0, 2**64 - 1))
def test_varints(number: int) -> None:
    """Read as the length-free field that protobuf has for them."""
    assert AnyValue.FromString(b"\x18" + encoding.varint(number)).int_value % 2**64 == number


def test_a_value_that_is_long_is_cut_off() -> None:
    span = read(a_span(name="n" * 10_000, attributes={"a": "x" * 10_000, "b": ["y" * 10_000]}))
    assert said(span.attributes) == {"a": "x" * encoding.MAX_CHARS, "b": ("y" * encoding.MAX_CHARS,)}
    assert span.name == "n" * encoding.MAX_CHARS


def test_an_error_without_words_and_no_error() -> None:
    assert read(a_span(error="")).status.code == Status.STATUS_CODE_ERROR
    assert read(a_span(error="")).status.message == ""
    assert read(a_span()).status.code == Status.STATUS_CODE_UNSET


WHOLES = st.integers(0, encoding.MAX_WHOLE)


@given(
    parent_id=st.just(b"") | st.just(PARENT),
    name=st.sampled_from(["chunk.in", "chunk.out"]),
    flags=st.integers(0, 2**32 - 1),
    trace_state=TEXTS,
    attributes=ATTRIBUTES.map(lambda found: {f"own.{key}": value for key, value in found.items()}),
    keys=st.lists(KEYS, min_size=6, max_size=6, unique=True),
    chunks=st.lists(
        st.tuples(TIMES, TIMES, TIMES, WHOLES, WHOLES, *[st.floats(allow_nan=False)] * 4),
        min_size=1,
        max_size=4,
    ),
)
def test_chunks_are_what_protobuf_reads(
    parent_id: bytes,
    name: str,
    flags: int,
    trace_state: str,
    attributes: dict[str, Any],
    keys: list[str],
    chunks: list[tuple[Any, ...]],
) -> None:
    keys = [f"number.{key}" for key in keys]
    encoder = encoding.ChunkEncoder(
        trace_id=TRACE,
        parent_id=parent_id,
        name=name,
        kind=encoding.PRODUCER,
        flags=flags,
        trace_state=trace_state,
        attributes=attributes,
        whole=keys[:2],
        real=keys[2:],
    )
    encoded = [encoder.encode(*chunk) for chunk in chunks]
    assert len({len(each) for each in encoded}) == 1, "all have one length"
    spans = ScopeSpans.FromString(b"".join(encoded)).spans
    for span, (span_id, start_ns, end_ns, *numbers) in zip(spans, chunks, strict=True):
        assert (span.trace_id, span.parent_span_id, span.name) == (TRACE, parent_id, name)
        assert int.from_bytes(span.span_id, "little") == span_id
        assert len(span.span_id) == 8
        assert (span.start_time_unix_nano, span.end_time_unix_nano) == (start_ns, end_ns)
        assert (span.kind, span.flags, span.trace_state) == (
            Span.SPAN_KIND_PRODUCER,
            flags,
            sayable(trace_state),
        )
        assert same(said(span.attributes), {**attributes, **dict(zip(keys, numbers, strict=True))})


@given(resource=ATTRIBUTES, name=KEYS, version=KEYS, count=st.integers(0, 40))
def test_a_request_is_what_protobuf_reads(
    resource: dict[str, Any], name: str, version: str, count: int
) -> None:
    body = encoding.request(
        encoding.resource(resource),
        encoding.scope(name, version),
        [a_span(start_ns=i, end_ns=i) for i in range(count)],
    )
    (of_resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    (of_scope,) = of_resource.scope_spans
    assert same(said(of_resource.resource.attributes), resource)
    assert (of_scope.scope.name, of_scope.scope.version) == (name, version)
    assert [span.start_time_unix_nano for span in of_scope.spans] == list(range(count))
