"""What becomes of spans and chunks between the session and the exporter. No network, no clock but virtual time."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from wavegate_server.telemetry import Lane, NullSpan, names
from wavegate_server.telemetry.instruments import CHUNK_RESIDENCE, CLIENT_WAIT, Instrument
from wavegate_server.telemetry.tracer import (
    FLUSH_CHUNKS,
    FLUSH_S,
    KEPT_CHUNKS,
    RECENT_SPANS,
    SEGMENT_CHUNKS,
    Knobs,
    LiveSpan,
    Parent,
    Tracer,
    found,
)

from tests.support.virtual_time import virtual_time

MS = 10**6
SECOND = 10**9
T0 = 1_700_000_000 * SECOND
METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
CALLER: Parent = (b"\xaa" * 16, b"\xbb" * 8, True, "vendor=one")
LIMIT = 2_500
"""Spans of a trace that can be opened."""


class Sink:
    """Takes what the tracer hands on."""

    def __init__(self, *, sampled: bool = True, exporting: bool = True, **knobs: Any) -> None:
        self.encoded: list[bytes] = []
        self.numbers: list[tuple[Instrument, float, tuple[str, ...]]] = []
        self.dropped = 0
        self.asked: list[tuple[bytes, str, Parent | None]] = []
        self.sampled = sampled
        self.tracer = Tracer(
            Knobs(**knobs),
            sample=self._sample,
            offer=self._offer if exporting else None,
            record=self._record,
            dropped=lambda: self.dropped,
        )

    def _sample(self, trace_id: bytes, name: str, parent: Parent | None) -> bool:
        self.asked.append((trace_id, name, parent))
        return self.sampled

    def _offer(self, spans: Sequence[bytes]) -> None:
        self.encoded += spans

    def _record(self, instrument: Instrument, value: float, *labels: str) -> None:
        self.numbers.append((instrument, value, labels))

    def call(self, parent: Parent | None = None, session_id: str = "s-1") -> LiveSpan:
        root = self.tracer.server_span(METHOD, {}, parent)
        if session_id:
            root.set({names.SESSION_ID: session_id})
        return root

    def below(
        self, parent: LiveSpan, name: str = "a", remote: Parent | None = None, client: bool = False
    ) -> LiveSpan:
        return cast("LiveSpan", self.tracer.span(parent, name, None, client, remote, None))

    def lane(self, parent: LiveSpan, direction: Any = "out", kind: str = "tts") -> Lane:
        return self.tracer.lane(parent, kind, direction, {names.CHUNK_GENERATION: 1})

    @property
    def spans(self) -> list[Span]:
        """What was handed on, after all that waits."""
        self.tracer.flush()
        return list(ScopeSpans.FromString(b"".join(self.encoded)).spans)

    def named(self, name: str) -> list[Span]:
        return [s for s in self.spans if s.name == name]

    @property
    def chunks(self) -> list[Span]:
        return [s for s in self.spans if s.name.startswith("chunk.")]


def send(lane: Lane, count: int, start: int = 0, gap_ns: int = 20 * MS) -> None:
    for i in range(start, start + count):
        at = T0 + i * gap_ns
        lane.chunk(i, 480, at, at + MS, at + 3 * MS, i * 0.02, 0.02)


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def traces(spans: Sequence[Span]) -> dict[bytes, list[Span]]:
    of: dict[bytes, list[Span]] = {}
    for span in spans:
        of.setdefault(span.trace_id, []).append(span)
    return of


def orphans(spans: Sequence[Span], *known: bytes) -> list[Span]:
    """Spans whose parent is not in their own trace."""
    ids = {(s.trace_id, s.span_id) for s in spans}
    return [
        s
        for s in spans
        if s.parent_span_id and (s.trace_id, s.parent_span_id) not in ids and s.parent_span_id not in known
    ]


def links(span: Span) -> set[tuple[bytes, bytes]]:
    return {(link.trace_id, link.span_id) for link in span.links}


# -- chunks ---------------------------------------------------------------------------------------------------------


@virtual_time
async def test_a_chunk_is_one_span_with_its_times_and_numbers() -> None:
    sink = Sink()
    root = sink.call(CALLER)
    turn = sink.below(root, "text_to_speech x", client=True)
    lane = sink.lane(turn)
    lane.chunk(7, 960, T0, T0 + 2 * MS, T0 + 5 * MS, 1.5, 0.02)
    (chunk,) = sink.chunks
    assert (chunk.name, chunk.kind) == ("chunk.out", Span.SPAN_KIND_CONSUMER)
    assert (chunk.trace_id, chunk.parent_span_id) == (CALLER[0], turn.span_bytes)
    assert chunk.trace_state == "vendor=one"
    assert (chunk.start_time_unix_nano, chunk.end_time_unix_nano) == (T0, T0 + 5 * MS)
    assert attributes(chunk) == {
        names.SESSION_ID: "s-1",
        names.CHUNK_DIRECTION: "out",
        names.CHUNK_GENERATION: 1,
        names.CHUNK_SEQUENCE: 7,
        names.CHUNK_BYTES: 960,
        names.CHUNK_OFFSET_MS: 1500.0,
        names.CHUNK_DURATION_MS: 20.0,
        names.CHUNK_QUEUE_MS: 2.0,
        names.CHUNK_WRITE_MS: 3.0,
    }
    sink.lane(turn, "in").chunk(8, 5, T0, T0, T0)
    assert [(c.name, c.kind) for c in sink.chunks[1:]] == [("chunk.in", Span.SPAN_KIND_PRODUCER)]


@virtual_time
async def test_each_chunk_is_measured() -> None:
    sink = Sink()
    turn = sink.below(sink.call())
    sink.lane(turn).chunk(1, 1, T0, T0 + 2 * MS, T0 + 5 * MS)
    sink.lane(turn, "in", "stt").chunk(1, 1, T0, T0, T0 + MS)
    sink.tracer.flush()
    assert [(i, round(v * 1e6), labels) for i, v, labels in sink.numbers] == [
        (CHUNK_RESIDENCE, 5_000, ("tts", "out")),
        (CLIENT_WAIT, 3_000, ("tts",)),
        (CHUNK_RESIDENCE, 1_000, ("stt", "in")),
    ]


@virtual_time
async def test_a_clock_that_is_set_back_makes_no_time_negative() -> None:
    sink = Sink()
    root = sink.call()
    sink.lane(sink.below(root)).chunk(1, 1, T0, T0 - SECOND, T0 - 2 * SECOND)
    root.end()
    (chunk,) = sink.chunks
    assert (chunk.start_time_unix_nano, chunk.end_time_unix_nano) == (T0, T0)
    assert attributes(chunk)[names.CHUNK_QUEUE_MS] == attributes(chunk)[names.CHUNK_WRITE_MS] == 0
    assert all(value == 0 for _, value, _ in sink.numbers)


@virtual_time
async def test_chunks_go_out_soon_and_all_at_once_where_they_are_many() -> None:
    sink = Sink()
    lane = sink.lane(sink.below(sink.call()))
    send(lane, 3)
    assert sink.encoded == []
    await asyncio.sleep(FLUSH_S)
    assert len(sink.encoded) == 3
    send(lane, FLUSH_CHUNKS, 3)
    assert len(sink.encoded) == 3 + FLUSH_CHUNKS
    await asyncio.sleep(10)
    assert len(sink.encoded) == 3 + FLUSH_CHUNKS


@virtual_time
async def test_a_span_goes_out_soon() -> None:
    """A live session is found by its first span, without any chunk."""
    sink = Sink()
    sink.below(sink.call()).end()
    await asyncio.sleep(FLUSH_S)
    assert len(sink.encoded) == 1


# -- volumes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("utterances", [1, 40, 4_000])
@virtual_time
async def test_no_trace_is_too_large(utterances: int) -> None:
    """10,000 chunks each way, with few or many spans around them."""
    sink = Sink()
    root = sink.call(CALLER)
    each = 10_000 // utterances
    for number in range(utterances):
        turn = sink.below(root, "turn", client=True)
        out, in_ = sink.lane(turn), sink.lane(turn, "in")
        send(out, each, number * each)
        send(in_, each, number * each)
        out.close()
        in_.close()
        sink.below(turn, "interrupt").end()
        turn.end()
    root.end()
    spans = sink.spans
    assert Counter(c.name for c in sink.chunks) == {
        "chunk.in": each * utterances,
        "chunk.out": each * utterances,
    }
    for name in ("chunk.in", "chunk.out"):
        seen = Counter(attributes(c)[names.CHUNK_SEQUENCE] for c in spans if c.name == name)
        assert set(seen.values()) == {1}, "each exactly once"
    assert len({s.span_id for s in spans}) == len(spans)
    by_trace = traces(spans)
    assert max(map(len, by_trace.values())) <= LIMIT
    assert orphans(spans, CALLER[1]) == []
    # The trees meet: from each continuation back to the call, and from the main tree on to each.
    pointed = set().union(*(links(s) for s in spans))
    roots = [s for s in spans if s.name == names.SESSION_CONTINUATION]
    assert len(roots) == len(by_trace) - 1 > 0
    assert [attributes(s)[names.SEGMENT_INDEX] for s in roots] == list(range(1, len(roots) + 1))
    for continuation in roots:
        assert not continuation.parent_span_id
        assert (CALLER[0], root.span_bytes) in links(continuation)
        assert attributes(continuation)[names.SESSION_ID] == "s-1"
        assert (continuation.trace_id, continuation.span_id) in pointed
    assert all(attributes(s)[names.SESSION_ID] == "s-1" for s in spans)


@virtual_time
async def test_a_continuation_that_begins_between_two_segments_is_linked_too() -> None:
    sink = Sink(chunks="off")
    root = sink.call()
    for _ in range(LIMIT):
        sink.below(root).end()
    root.end()
    (continuation,) = sink.named(names.SESSION_CONTINUATION)
    (call,) = sink.named(METHOD)
    assert links(call) == {(continuation.trace_id, continuation.span_id)}


@virtual_time
async def test_the_sessions_of_one_callers_trace_share_its_room() -> None:
    """Beside each other, one after the other, and by the messages' own context."""
    sink = Sink()
    open_calls = [sink.call(CALLER, f"s-{i}") for i in range(3)]
    for call in open_calls:
        lane = sink.lane(sink.below(call))
        send(lane, 1_000)
    for call in open_calls:
        call.end()
    del open_calls, call, lane
    sink.tracer.flush()
    gc.collect()
    for i in range(3, 6):
        call = sink.call(CALLER, f"s-{i}")
        send(sink.lane(sink.below(call)), 1_000)
        call.end()
    other = sink.call(None, "s-6")
    message = sink.below(other, "utterance", CALLER)
    send(sink.lane(message), 1_000)
    other.end()
    assert len(sink.chunks) == 7_000
    assert max(map(len, traces(sink.spans).values())) <= LIMIT
    for i in range(7):
        assert len([c for c in sink.chunks if attributes(c)[names.SESSION_ID] == f"s-{i}"]) == 1_000


@virtual_time
async def test_counts_of_traces_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wavegate_server.telemetry.tracer.REMEMBERED_TRACES", 10)
    sink = Sink()
    for number in range(1, 200):
        call = sink.call((number.to_bytes(16, "big"), b"\xbb" * 8, True, ""))
        sink.below(call, "utterance", ((1000 + number).to_bytes(16, "big"), b"\xcc" * 8, True, "")).end()
        call.end()
    del call
    sink.tracer.flush()
    gc.collect()
    assert len(sink.tracer.counts) <= 10


# -- a message's own context ----------------------------------------------------------------------------------------


@virtual_time
async def test_a_message_with_a_context_of_its_own() -> None:
    sink = Sink()
    root = sink.call()
    remote: Parent = (b"\xcc" * 16, b"\xdd" * 8, True, "")
    turn = sink.below(root, "turn", remote, client=True)
    send(sink.lane(turn), 2)
    inner = sink.below(turn, "interrupt")
    inner.end()
    turn.end()
    (found_,) = sink.named("turn")
    assert (found_.trace_id, found_.parent_span_id) == (remote[0], remote[1])
    assert found_.flags & 0x300 == 0x300, "its parent is remote"
    assert links(found_) == {(root.trace_bytes, root.span_bytes)}
    for below in (*sink.chunks, *sink.named("interrupt")):
        assert (below.trace_id, below.parent_span_id) == (remote[0], turn.span_bytes)
        assert attributes(below)[names.SESSION_ID] == "s-1"


@virtual_time
async def test_a_message_within_the_calls_own_trace() -> None:
    sink = Sink()
    root = sink.call(CALLER)
    turn = sink.below(root, "turn", (CALLER[0], b"\xdd" * 8, True, ""))
    turn.end()
    (found_,) = sink.named("turn")
    assert (found_.trace_id, found_.parent_span_id) == (CALLER[0], b"\xdd" * 8)
    assert found_.trace_state == CALLER[3]


# -- whose context --------------------------------------------------------------------------------------------------


@virtual_time
async def test_trust_goes_on_with_the_callers_trace() -> None:
    sink = Sink()
    root = sink.call(CALLER)
    root.end()
    (span,) = sink.spans
    assert (span.trace_id, span.parent_span_id, span.trace_state) == (CALLER[0], CALLER[1], CALLER[3])
    assert span.flags == 0x301
    assert sink.asked == [(CALLER[0], METHOD, CALLER)]
    assert links(span) == set()


@virtual_time
async def test_link_begins_a_trace_of_its_own() -> None:
    sink = Sink(context="link")
    root = sink.call(CALLER)
    turn = sink.below(root, "turn", (b"\xcc" * 16, b"\xdd" * 8, True, ""))
    turn.end()
    root.end()
    (span,) = sink.named(METHOD)
    assert span.trace_id != CALLER[0]
    assert (span.parent_span_id, span.trace_state) == (b"", "")
    assert links(span) == {CALLER[:2]}
    assert sink.asked == [(span.trace_id, METHOD, None)], "the caller's flag decides nothing"
    (below,) = sink.named("turn")
    assert (below.trace_id, below.parent_span_id) == (span.trace_id, span.span_id)
    assert links(below) == {(b"\xcc" * 16, b"\xdd" * 8)}


# -- segments -------------------------------------------------------------------------------------------------------


@virtual_time
async def test_segments_sum_up_what_passed() -> None:
    sink = Sink()
    root = sink.call(CALLER)
    turn = sink.below(root)
    out, in_ = sink.lane(turn), sink.lane(turn, "in")
    count = 2 * SEGMENT_CHUNKS + 100
    for i in range(count):
        at = T0 + i * MS
        if i == SEGMENT_CHUNKS:
            sink.tracer.flush()
            sink.dropped = 13
        if i % 4 == 0:
            in_.chunk(i, 10, at, at + 3 * MS, at + 4 * MS)
        else:
            out.chunk(i, 1_000, at, at + MS, at + (2 + i % 7) * MS, 0.0, 0.02)
    turn.end()
    root.end()
    segments = sink.named(names.SESSION_SEGMENT)
    said = [attributes(s) for s in segments]
    assert [s[names.SEGMENT_INDEX] for s in said] == [1, 2, 3]
    assert [s[names.SEGMENT_CHUNKS_IN] + s[names.SEGMENT_CHUNKS_OUT] for s in said] == [500, 500, 100]
    assert sum(s[names.SEGMENT_CHUNKS_IN] for s in said) == count // 4
    assert sum(s[names.SEGMENT_BYTES_IN] for s in said) == 10 * count // 4
    assert sum(s[names.SEGMENT_BYTES_OUT] for s in said) == 1_000 * (count - count // 4)
    assert sum(s[names.SEGMENT_AUDIO_MS] for s in said) == pytest.approx(20 * (count - count // 4))
    assert {s[names.SEGMENT_MAX_QUEUE_MS] for s in said} == {3.0}
    assert {s[names.SEGMENT_MAX_WRITE_MS] for s in said} == {7.0}
    assert [s[names.SEGMENT_DROPPED] for s in said] == [0, 13, 0]
    for segment in segments:
        assert (segment.trace_id, segment.parent_span_id) == (CALLER[0], root.span_bytes)
        assert segment.trace_state == CALLER[3]
    assert segments[0].start_time_unix_nano == T0
    assert segments[1].start_time_unix_nano == T0 + SEGMENT_CHUNKS * MS
    assert segments[2].end_time_unix_nano >= max(
        c.end_time_unix_nano for c in sink.chunks if c.name == "chunk.in"
    )


async def test_a_segment_shows_how_late_the_loop_came_while_it_lasted() -> None:
    sink = Sink()
    calls = []
    for lag_s in (0.25, 0.125):
        root = sink.call(CALLER)
        now = time.time_ns()
        sink.lane(sink.below(root)).chunk(0, 10, now, now, now)
        sink.tracer.flush()
        sink.tracer.lagged(lag_s)
        calls.append(root)
        await asyncio.sleep(0.001)
    for root in calls:
        root.end()
    said = [attributes(s) for s in sink.named(names.SESSION_SEGMENT)]
    assert [s[names.SEGMENT_LOOP_LAG_MS] for s in said] == [250.0, 125.0]


@virtual_time
async def test_a_segment_takes_thirty_seconds_at_most() -> None:
    sink = Sink()
    root = sink.call()
    lane = sink.lane(sink.below(root))
    send(lane, 10, gap_ns=10 * SECOND)
    lane.chunk(10, 480, T0 + 3600 * SECOND, T0 + 3600 * SECOND, T0 + 3600 * SECOND)
    root.end()
    segments = sink.named(names.SESSION_SEGMENT)
    assert [attributes(s)[names.SEGMENT_CHUNKS_OUT] for s in segments] == [3, 3, 3, 1, 1]
    assert all(s.end_time_unix_nano - s.start_time_unix_nano <= 30 * SECOND for s in segments)


@virtual_time
async def test_only_audio_has_playing_time() -> None:
    sink = Sink()
    root = sink.call()
    turn = sink.below(root)
    sink.lane(turn, "in", "stt").chunk(1, 1, T0, T0, T0, 0, 0.5)
    sink.lane(turn, "out", "stt").chunk(1, 1, T0, T0, T0, 0, 4.0)
    sink.lane(turn, "in", "tts").chunk(1, 1, T0, T0, T0, 0, 8.0)
    root.end()
    (segment,) = sink.named(names.SESSION_SEGMENT)
    assert attributes(segment)[names.SEGMENT_AUDIO_MS] == 500


# -- knobs ----------------------------------------------------------------------------------------------------------


def a_session(sink: Sink, count: int = 20, *, fails: bool = False) -> LiveSpan:
    root = sink.call()
    turn = sink.below(root, "turn")
    lane = sink.lane(turn)
    send(lane, count)
    lane.close()
    if fails:
        turn.fail("UPSTREAM_UNAVAILABLE")
    turn.end()
    root.end()
    return root


def numbers_of(spans: Sequence[Span]) -> list[int]:
    return sorted(attributes(s)[names.CHUNK_SEQUENCE] for s in spans)


@pytest.mark.parametrize(
    ("chunks", "fails", "wanted"),
    [
        ("all", False, list(range(20))),
        ("first_last", False, [0, 19]),
        ("off", False, []),
        ("off", True, []),
        ("errors", False, []),
        ("errors", True, list(range(20))),
    ],
)
@virtual_time
async def test_which_chunks_have_spans(chunks: str, fails: bool, wanted: list[int]) -> None:
    sink = Sink(chunks=chunks)
    a_session(sink, fails=fails)
    assert numbers_of(sink.chunks) == wanted
    (segment,) = sink.named(names.SESSION_SEGMENT)
    assert attributes(segment)[names.SEGMENT_CHUNKS_OUT] == 20, "the sums have all"
    assert len([n for n in sink.numbers if n[0] is CHUNK_RESIDENCE]) == 20


@virtual_time
async def test_the_only_chunk_of_a_lane_is_its_first_and_its_last() -> None:
    sink = Sink(chunks="first_last")
    a_session(sink, 1)
    assert numbers_of(sink.chunks) == [0]
    a_session(sink, 0)
    assert numbers_of(sink.chunks) == [0]


@virtual_time
async def test_chunks_of_errors_are_the_newest_before_and_all_after() -> None:
    sink = Sink(chunks="errors")
    root = sink.call()
    turn = sink.below(root)
    lane = sink.lane(turn)
    send(lane, 2_000)
    sink.tracer.flush()
    connection = sink.below(root, "upstream.connection")
    connection.fail("UPSTREAM_UNAVAILABLE")
    connection.end()
    send(lane, 1_000, 2_000)
    turn.end()
    root.end()
    assert numbers_of(sink.chunks) == list(range(2_000 - KEPT_CHUNKS, 3_000))
    assert orphans(sink.spans) == []


@virtual_time
async def test_a_long_session_without_errors_has_no_empty_continuations() -> None:
    sink = Sink(chunks="errors")
    a_session(sink, 20_000)
    assert len(traces(sink.spans)) == 1


@pytest.mark.parametrize("chunks", ["all", "errors"])
@virtual_time
async def test_what_is_not_sampled_is_not_sent(chunks: str) -> None:
    sink = Sink(sampled=False, chunks=chunks)
    a_session(sink)
    await asyncio.sleep(60)
    assert sink.spans == []
    assert len([n for n in sink.numbers if n[0] is CHUNK_RESIDENCE]) == 20, "it counts all the same"


@virtual_time
async def test_what_fails_is_sent_though_it_was_not_sampled() -> None:
    sink = Sink(sampled=False)
    root = sink.call()
    sink.below(root, names.SESSION_OPEN).end()
    for number in range(10):
        turn = sink.below(root, "turn")
        send(sink.lane(turn), 300, 300 * number)
        turn.end()
    sink.tracer.flush()
    assert sink.encoded == []
    root.fail("UPSTREAM_UNAVAILABLE")
    root.end()
    assert numbers_of(sink.chunks) == list(range(3_000 - KEPT_CHUNKS, 3_000))
    assert len(sink.named("turn")) == 10
    assert len(sink.named(names.SESSION_OPEN)) == len(sink.named(METHOD)) == 1
    assert orphans(sink.spans) == []


@virtual_time
async def test_errors_are_not_kept_where_the_operator_says_so() -> None:
    sink = Sink(sampled=False, keep_errors=False)
    a_session(sink, fails=True)
    assert sink.spans == []


# -- how long a recording lasts -------------------------------------------------------------------------------------


@virtual_time
async def test_a_session_outlives_its_call() -> None:
    """A session that is resumed goes on in the trace that it began in."""
    sink = Sink(sampled=False)
    root = sink.call()
    sink.tracer.retain(root)
    turn = sink.below(root, "turn")
    lane = sink.lane(turn)
    send(lane, 2)
    root.end()
    send(lane, 2, 2)
    sink.tracer.flush()
    assert sink.encoded == []
    turn.fail("UPSTREAM_UNAVAILABLE")
    turn.end()
    sink.tracer.release(root)
    assert numbers_of(sink.chunks) == [0, 1, 2, 3]
    segments = [attributes(s) for s in sink.named(names.SESSION_SEGMENT)]
    assert [s[names.SEGMENT_CHUNKS_OUT] for s in segments] == [2, 2], "one for each call"


@virtual_time
async def test_after_its_end_nothing_is_kept_of_a_recording() -> None:
    sink = Sink(sampled=False)
    root = a_session(sink)
    late = sink.below(root)
    late.fail("LATE")
    late.end()
    assert sink.spans == []


@virtual_time
async def test_a_span_ends_once() -> None:
    sink = Sink()
    root = sink.call()
    root.end(T0)
    for _ in range(2):
        root.set({"late": 1})
        root.event("late")
        root.fail("LATE")
        root.link(sink.call())
        root.end()
    (span,) = sink.spans
    assert attributes(span) == {names.SESSION_ID: "s-1"}
    assert (len(span.events), len(span.links), span.HasField("status")) == (0, 0, False)


@virtual_time
async def test_below_what_is_not_recorded_nothing_is() -> None:
    sink = Sink()
    nobody = NullSpan("ab" * 16, "cd" * 8)
    span = sink.tracer.span(nobody, "a", None, False, None, None)
    lane = sink.tracer.lane(nobody, "tts", "out", {})
    lane.chunk(1, 1, T0, T0, T0)
    lane.close()
    sink.tracer.retain(nobody)
    sink.tracer.release(nobody)
    span.end()
    assert span.trace_id == nobody.trace_id
    assert sink.spans == []


# -- for those who ask the gateway itself ---------------------------------------------------------------------------


@virtual_time
async def test_recent_spans_are_found_by_trace_and_by_session() -> None:
    sink = Sink(exporting=False)
    first, second = sink.call(CALLER, "s-1"), sink.call(None, "s-2")
    for call in (first, second):
        send(sink.lane(sink.below(call)), 3_000)
        call.end()
    sink.tracer.flush()

    def of(key: str) -> list[Span]:
        encoded = found(sink.tracer.recent, key, "")
        return list(ScopeSpans.FromString(b"".join(encoded)).spans)

    by_trace = of(first.trace_id)
    assert {s.trace_id for s in by_trace} == {CALLER[0]}
    by_session = of("s-1")
    assert len([s for s in by_session if s.name == "chunk.out"]) == 3_000, "with its continuations"
    assert {attributes(s)[names.SESSION_ID] for s in by_session} == {"s-1"}
    assert of("s-3") == of("z" * 32) == of("") == []
    assert sink.encoded == []


@virtual_time
async def test_recent_spans_are_bounded() -> None:
    sink = Sink(exporting=False)
    root = sink.call()
    send(sink.lane(sink.below(root)), RECENT_SPANS + 1_000)
    root.end()
    sink.tracer.flush()
    assert len(sink.tracer.recent) == RECENT_SPANS
