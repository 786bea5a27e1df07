"""Spans: the few of a call, and one for each chunk.

The hot path appends a tuple; four times a second, or after `FLUSH_CHUNKS`, all that came is encoded in one go and
handed to the exporter. There is no thread and no other process: encoding a chunk takes less time than handing it to
another process would.

- A **recording** is a call and all that happens below it. What its sampler says holds for all of it.
- A **lane** is the chunks of one direction below one span.
- A **volume** is one trace of a recording. One that has `MAX_SPANS` is continued in another, whose root is linked to
  where it came from: a trace of ten thousand spans can be opened by nobody.
- A **segment** sums up a stretch of a recording's chunks, and links to the volume that follows.

A recording that is not sampled is kept, as far as it has room, until it has ended: if it fails, it is sent after all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

from wavegate_server.telemetry import (
    Attribute,
    Chunks,
    ContextUse,
    Direction,
    Lane,
    NullLane,
    NullSpan,
    Span,
    encoding,
    logs,
    names,
)
from wavegate_server.telemetry.instruments import CHUNK_RESIDENCE, CLIENT_WAIT, Instrument

FLUSH_S: Final = 0.25
FLUSH_CHUNKS: Final = 256
"""About 0.4 ms of the loop's time."""
MAX_SPANS: Final = 2_400
"""Spans of one trace; the rest up to 2,500 is the caller's own."""
KEPT_SPANS: Final = 2_500
"""Spans kept of a recording that is only sent if it fails, beside those of chunks."""
KEPT_CHUNKS: Final = 500
"""Its newest chunks, which get spans only then; about 150 kB."""
REMEMBERED_TRACES: Final = 10_000
"""Traces whose spans are counted on when all their calls are over: another call may come."""
SEGMENT_CHUNKS: Final = 500
SEGMENT_NS: Final = 30 * 10**9
LAGS: Final = 400
"""Measurements of the loop's lag that are kept: ten a second, for longer than a segment lasts."""
RECENT_SPANS: Final = 20_000
"""Spans kept for those who ask the gateway itself, about 8 MB."""

Record = Callable[..., None]
RecordAll = Callable[..., None]
Parent = tuple[bytes, bytes, bool, str]
"""Of a caller: trace id, span id, whether it is sampled, its `tracestate`."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """What an operator can choose."""

    chunks: Chunks = "all"
    context: ContextUse = "trust"
    keep_errors: bool = True
    """Send what is not sampled all the same, if it fails."""


class _Count:
    """How many spans a trace has."""

    __slots__ = ("__weakref__", "spans")

    def __init__(self) -> None:
        self.spans = 0


class _Volume:
    """One trace of a recording."""

    __slots__ = ("_next", "count", "root_id", "trace_id", "trace_state", "tracer")

    def __init__(self, tracer: Tracer, trace_id: bytes, trace_state: str, count: _Count) -> None:
        self.tracer = tracer
        self.trace_id = trace_id
        self.trace_state = trace_state
        self.count = count
        self.root_id = b""
        """Of a continuation."""
        self._next: _Volume | None = None

    def place(self, recording: Recording) -> _Volume:
        """The volume that has room for one more span; it is counted there."""
        volume = self
        while volume.count.spans >= MAX_SPANS:
            volume = volume._next or volume._continue(recording)
        volume.count.spans += 1
        return volume

    def _continue(self, recording: Recording) -> _Volume:
        tracer = self.tracer
        following = _Volume(tracer, tracer.trace_id(), "", _Count())
        following.root_id = tracer.span_id()
        following.count.spans = 1
        self._next = following
        now = time.time_ns()
        recording.volumes += 1
        origin = recording.root
        recording.take(
            encoding.span(
                trace_id=following.trace_id,
                span_id=following.root_id,
                parent_id=b"",
                name=names.SESSION_CONTINUATION,
                kind=encoding.INTERNAL,
                start_ns=now,
                end_ns=now,
                flags=encoding.SAMPLED,
                attributes={**recording.identity, names.SEGMENT_INDEX: recording.volumes},
                links=[encoding.link(origin.trace_bytes, origin.span_bytes)],
            )
        )
        if recording.segment is not None and recording.segment.volume is self:
            recording.segment.links.append(encoding.link(following.trace_id, following.root_id))
        else:  # between two segments
            origin.link_to(following.trace_id, following.root_id)
        return following


class _Segment:
    """What is summed up over a stretch of chunks."""

    __slots__ = (
        "audio_s",
        "bytes_in",
        "bytes_out",
        "chunks_in",
        "chunks_out",
        "last_ns",
        "links",
        "max_queue_ns",
        "max_write_ns",
        "start_ns",
        "volume",
    )

    def __init__(self, volume: _Volume, start_ns: int) -> None:
        self.volume = volume
        self.start_ns = self.last_ns = start_ns
        self.chunks_in = self.chunks_out = self.bytes_in = self.bytes_out = 0
        self.max_queue_ns = self.max_write_ns = 0
        self.audio_s = 0.0
        self.links: list[bytes] = []


class Recording:
    """A call and all that happens below it."""

    __slots__ = (
        "_dropped",
        "_held",
        "_kept",
        "_lasting",
        "caller",
        "identity",
        "root",
        "sampled",
        "segment",
        "segments",
        "shows_chunks",
        "tracer",
        "volumes",
    )

    def __init__(self, tracer: Tracer, sampled: bool) -> None:
        self.tracer = tracer
        self.sampled = sampled
        self.root: LiveSpan
        self.identity: dict[str, Attribute] = {}
        """Attributes by which each part of it is found."""
        self.caller: Attribute = ""
        """Who may see it."""
        self.volumes = 0
        self.segments = 0
        self.segment: _Segment | None = None
        self._dropped = tracer.dropped
        """Of all spans, when the segment before ended; or, before the first, when the recording began."""
        self._lasting = 1
        """What has not ended: the root, and who retained it."""
        self.shows_chunks = sampled and tracer.knobs.chunks != "errors"
        self._kept: deque[bytes] | None = None
        if not sampled and tracer.knobs.keep_errors and tracer.exporting:
            self._kept = deque(maxlen=KEPT_SPANS)
        self._held: deque[tuple[Any, ...]] | None = None
        """Chunks that are shown if something fails."""
        if not self.shows_chunks and (sampled or self._kept is not None):
            self._held = deque(maxlen=KEPT_CHUNKS)

    def take(self, span: bytes) -> None:
        """An encoded span."""
        tracer = self.tracer
        tracer.recent.append((self.caller, span))
        if self.sampled:
            tracer.out.append(span)
            if tracer._armed is None:
                tracer.arm()
        elif self._kept is not None:
            self._kept.append(span)

    def take_chunk(self, record: tuple[Any, ...]) -> None:
        """A chunk that is to have a span."""
        if self.shows_chunks:
            self.take(record[0].encode(record))
        elif self._held is not None:
            self._held.append(record)

    def failed(self) -> None:
        """Something below it failed: what was kept for this case is sent, and all that follows."""
        if self._kept is not None:
            self.sampled = True
            self.tracer.out.extend(self._kept)
            self._kept = None
            self.tracer.arm()
        if self._held is not None:
            held, self._held = self._held, None
            self.shows_chunks = True
            for record in held:
                self.take_chunk(record)

    def retain(self) -> None:
        self._lasting += 1

    def release(self) -> None:
        self._lasting -= 1
        if self._lasting == 0:
            self.tracer.flush()
            self.end_segment()
            self._kept = self._held = None

    def summed(
        self,
        direction: Direction,
        start_ns: int,
        end_ns: int,
        size: int,
        queue_ns: int,
        write_ns: int,
        audio_s: float,
    ) -> None:
        """Add a chunk to the segment."""
        segment = self.segment
        if segment is not None and start_ns - segment.start_ns >= SEGMENT_NS:
            self.end_segment()
            segment = None
        if segment is None:
            volume = self.root.volume.place(self)
            segment = self.segment = _Segment(volume, start_ns)
        if direction == "out":
            segment.chunks_out += 1
            segment.bytes_out += size
        else:
            segment.chunks_in += 1
            segment.bytes_in += size
        segment.audio_s += audio_s
        # `max` would be three calls for each chunk.
        if end_ns > segment.last_ns:  # noqa: PLR1730
            segment.last_ns = end_ns
        if queue_ns > segment.max_queue_ns:  # noqa: PLR1730
            segment.max_queue_ns = queue_ns
        if write_ns > segment.max_write_ns:  # noqa: PLR1730
            segment.max_write_ns = write_ns
        if segment.chunks_in + segment.chunks_out >= SEGMENT_CHUNKS:
            self.end_segment()

    def end_segment(self) -> None:
        segment, self.segment = self.segment, None
        if segment is None:
            return
        self.segments += 1
        tracer, volume = self.tracer, segment.volume
        dropped, self._dropped = tracer.dropped - self._dropped, tracer.dropped
        self.take(
            encoding.span(
                trace_id=volume.trace_id,
                span_id=tracer.span_id(),
                parent_id=volume.root_id or self.root.span_bytes,
                name=names.SESSION_SEGMENT,
                kind=encoding.INTERNAL,
                start_ns=segment.start_ns,
                end_ns=segment.last_ns,
                flags=encoding.SAMPLED,
                trace_state=volume.trace_state,
                attributes={
                    **self.identity,
                    names.SEGMENT_INDEX: self.segments,
                    names.SEGMENT_CHUNKS_IN: segment.chunks_in,
                    names.SEGMENT_CHUNKS_OUT: segment.chunks_out,
                    names.SEGMENT_BYTES_IN: segment.bytes_in,
                    names.SEGMENT_BYTES_OUT: segment.bytes_out,
                    names.SEGMENT_AUDIO_MS: round(segment.audio_s * 1e3, 3),
                    names.SEGMENT_MAX_QUEUE_MS: segment.max_queue_ns / 1e6,
                    names.SEGMENT_MAX_WRITE_MS: segment.max_write_ns / 1e6,
                    names.SEGMENT_LOOP_LAG_MS: round(tracer.max_lag_s(segment.start_ns) * 1e3, 3),
                    names.SEGMENT_DROPPED: dropped,
                },
                links=segment.links,
            )
        )


class LiveSpan:
    """A `Span` that is being recorded."""

    __slots__ = (
        "_attributes",
        "_ended",
        "_error",
        "_events",
        "_kind",
        "_links",
        "_name",
        "_parent_id",
        "_remote",
        "_start_ns",
        "recording",
        "span_bytes",
        "volume",
    )

    def __init__(
        self,
        recording: Recording,
        volume: _Volume,
        parent_id: bytes,
        name: str,
        kind: int,
        attributes: Mapping[str, Attribute],
        *,
        remote: bool = False,
        start_ns: int | None = None,
    ) -> None:
        self.recording = recording
        self.volume = volume
        self.span_bytes = recording.tracer.span_id()
        self._parent_id = parent_id
        self._name = name
        self._kind = kind
        self._attributes = dict(attributes)
        self._remote = remote
        self._start_ns = start_ns if start_ns is not None else time.time_ns()
        self._events: list[bytes] = []
        self._links: list[bytes] = []
        self._error: str | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"<LiveSpan {self._name} {self.trace_id}/{self.span_id} {'done' if self._ended else 'open'}>"

    @property
    def trace_bytes(self) -> bytes:
        return self.volume.trace_id

    @property
    def trace_id(self) -> str:
        return self.volume.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span_bytes.hex()

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        if self._ended:
            return
        self._attributes.update(attributes)
        if self is self.recording.root:
            if names.SESSION_ID in attributes:
                self.recording.identity[names.SESSION_ID] = attributes[names.SESSION_ID]
            if names.CALLER in attributes:
                self.recording.caller = attributes[names.CALLER]

    def event(self, name: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        if not self._ended:
            self._events.append(encoding.event(name, time.time_ns(), attributes or {}))

    def link(self, other: Span, attributes: Mapping[str, Attribute] | None = None) -> None:
        if not self._ended and isinstance(other, LiveSpan):
            self.link_to(other.trace_bytes, other.span_bytes, attributes)

    def link_to(
        self, trace_id: bytes, span_id: bytes, attributes: Mapping[str, Attribute] | None = None
    ) -> None:
        self._links.append(encoding.link(trace_id, span_id, attributes))

    def fail(self, error_type: str, description: str = "") -> None:
        if not self._ended:
            self._attributes[names.ERROR_TYPE] = error_type
            self._error = logs.redact(description)

    def end(self, end_ns: int | None = None) -> None:
        if self._ended:
            return
        self._ended = True
        recording, volume = self.recording, self.volume
        flags = encoding.SAMPLED | encoding.HAS_REMOTE | (encoding.IS_REMOTE if self._remote else 0)
        recording.take(
            encoding.span(
                trace_id=volume.trace_id,
                span_id=self.span_bytes,
                parent_id=self._parent_id,
                name=self._name,
                kind=self._kind,
                start_ns=self._start_ns,
                end_ns=end_ns if end_ns is not None else time.time_ns(),
                flags=flags,
                trace_state=volume.trace_state,
                attributes=self._attributes,
                events=self._events,
                links=self._links,
                error=self._error,
            )
        )
        if self._error is not None:
            recording.failed()
        if self is recording.root:
            # What was summed up so far need not wait for a session that may be resumed.
            recording.tracer.flush()
            recording.end_segment()
            recording.release()


class ChunkLane:
    """A `Lane` that is being recorded."""

    __slots__ = (
        "_attributes",
        "_encoder",
        "_last",
        "_name",
        "_span",
        "direction",
        "first",
        "is_audio",
        "kind",
        "recording",
        "residences",
        "tracer",
        "volume",
        "waits",
    )

    def __init__(
        self,
        tracer: Tracer,
        parent: LiveSpan,
        kind: str,
        direction: Direction,
        attributes: Mapping[str, Attribute],
    ) -> None:
        self.tracer = tracer
        self.recording = parent.recording
        self.kind = kind
        self.direction: Direction = direction
        self.residences = tracer.measured(CHUNK_RESIDENCE, kind, direction)
        self.waits = tracer.measured(CLIENT_WAIT, kind)
        self.is_audio = (kind == "tts") == (direction == "out")
        self.volume = parent.volume
        self.first = True
        self._span = parent
        self._name = names.CHUNK_OUT if direction == "out" else names.CHUNK_IN
        self._attributes = {**self.recording.identity, names.CHUNK_DIRECTION: direction, **attributes}
        self._encoder: encoding.ChunkEncoder | None = None
        self._last: tuple[Any, ...] | None = None

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
        self.tracer.chunk((self, sequence, size_bytes, start_ns, handed_ns, end_ns, offset_s, duration_s))

    def close(self) -> None:
        if self._last is not None or self.tracer.knobs.chunks == "first_last":
            self.tracer.flush()
            if self._last is not None:
                self.recording.take_chunk(self._last)
                self._last = None

    def encode(self, record: tuple[Any, ...]) -> bytes:
        """One span, in the volume that has room for it."""
        _, sequence, size, start_ns, handed_ns, end_ns, offset_s, duration_s = record
        count, encoder = self.volume.count, self._encoder
        if encoder is not None and count.spans < MAX_SPANS:
            count.spans += 1
        else:
            volume = self.volume.place(self.recording)
            if encoder is None or volume is not self.volume:
                encoder = self._encoder = self._encoder_for(volume)
                self.volume = volume
        return encoder.encode(
            self.tracer.bits(64),
            start_ns,
            end_ns,
            sequence,
            size,
            int(offset_s * 1e9 + 0.5) / 1e6,  # to the nanosecond; `round` would cost three times as much
            int(duration_s * 1e9 + 0.5) / 1e6,
            (handed_ns - start_ns) / 1e6,
            (end_ns - handed_ns) / 1e6,
        )

    def hold(self, record: tuple[Any, ...]) -> None:
        """Remember what may be the last chunk."""
        self._last = record

    def _encoder_for(self, volume: _Volume) -> encoding.ChunkEncoder:
        return encoding.ChunkEncoder(
            trace_id=volume.trace_id,
            parent_id=self._span.span_bytes if volume is self._span.volume else volume.root_id,
            name=self._name,
            kind=encoding.CONSUMER if self.direction == "out" else encoding.PRODUCER,
            flags=encoding.SAMPLED,
            trace_state=volume.trace_state,
            attributes=self._attributes,
            whole=(names.CHUNK_SEQUENCE, names.CHUNK_BYTES),
            real=(names.CHUNK_OFFSET_MS, names.CHUNK_DURATION_MS, names.CHUNK_QUEUE_MS, names.CHUNK_WRITE_MS),
        )


class Tracer:
    """Makes spans; the tracing half of the telemetry port. Used from one loop."""

    def __init__(
        self,
        knobs: Knobs,
        *,
        sample: Callable[[bytes, str, Parent | None], bool],
        offer: Callable[[Sequence[bytes]], None] | None,
        record: Record,
        record_all: RecordAll | None = None,
        dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        """`sample(trace id, name, parent)` decides; `offer` takes encoded spans (None: they go nowhere); `record` is
        the port's, and `record_all` the same for many values of one series; `dropped` says how many spans were
        dropped so far."""
        self.knobs = knobs
        self.exporting = offer is not None
        self.counts: WeakValueDictionary[bytes, _Count] = WeakValueDictionary()
        self.out: list[bytes] = []
        self.recent: deque[tuple[Attribute, bytes]] = deque(maxlen=RECENT_SPANS)
        """Each with whom it belongs to: a trace may hold calls of several callers."""
        self._remembered: deque[_Count] = deque(maxlen=REMEMBERED_TRACES)
        self.bits = random.Random().getrandbits  # noqa: S311 - ids, not secrets; seeded by the system
        self._sample = sample
        self._offer = offer
        self._record_all = record_all if record_all is not None else _one_by_one(record)
        self._measured: dict[tuple[Any, ...], list[float]] = {}
        """Since the last flush, by instrument and labels."""
        self._dropped = dropped
        self._pending: list[tuple[Any, ...]] = []
        self._armed: asyncio.TimerHandle | None = None
        self._lags: deque[tuple[int, float]] = deque(maxlen=LAGS)

    def __repr__(self) -> str:
        return f"<Tracer {self.knobs.chunks} {len(self._pending)} pending>"

    @property
    def dropped(self) -> int:
        return self._dropped()

    def trace_id(self) -> bytes:
        return (self.bits(128) or 1).to_bytes(16, "big")

    def span_id(self) -> bytes:
        return (self.bits(64) or 1).to_bytes(8, "big")

    def lagged(self, lag_s: float) -> None:
        """The event loop came so late."""
        self._lags.append((time.time_ns(), lag_s))

    def measured(self, instrument: Instrument, *labels: str) -> list[float]:
        """Where the measurements of a series are gathered."""
        return self._measured.setdefault((instrument, *labels), [])

    def max_lag_s(self, since_ns: int) -> float:
        """The latest that it came since then, nanoseconds since the Unix epoch."""
        return max((lag_s for at_ns, lag_s in self._lags if at_ns >= since_ns), default=0.0)

    # -- the port ---------------------------------------------------------------------------------------------------

    def server_span(
        self, method: str, attributes: Mapping[str, Attribute], parent: Parent | None
    ) -> LiveSpan:
        """The root of a recording."""
        follows = parent is not None and self.knobs.context == "trust"
        trace_id = parent[0] if parent is not None and follows else self.trace_id()
        recording = Recording(self, self._sample(trace_id, method, parent if follows else None))
        volume = _Volume(
            self,
            trace_id,
            parent[3] if parent is not None and follows else "",
            self._count_of(trace_id, remembered=follows),
        )
        volume.count.spans += 1
        root = LiveSpan(
            recording,
            volume,
            parent[1] if parent is not None and follows else b"",
            method,
            encoding.SERVER,
            attributes,
            remote=follows,
        )
        recording.root = root
        if parent is not None and not follows:
            root.link_to(parent[0], parent[1])
        return root

    def span(
        self,
        parent: Span,
        name: str,
        attributes: Mapping[str, Attribute] | None,
        client: bool,
        remote: Parent | None,
        start_ns: int | None,
    ) -> Span:
        """A span below `parent`, or below `remote` and linked with `parent`."""
        if not isinstance(parent, LiveSpan):
            return NullSpan(parent.trace_id, self.span_id().hex())
        recording = parent.recording
        kind = encoding.CLIENT if client else encoding.INTERNAL
        said = {**recording.identity, **(attributes or {})}
        if remote is not None and self.knobs.context == "trust":
            base = (
                parent.volume
                if remote[0] == parent.volume.trace_id
                else _Volume(self, remote[0], remote[3], self._count_of(remote[0]))
            )
            volume = base.place(recording)
            away = volume is not base
            parent_id = volume.root_id if away else remote[1]
            span = LiveSpan(
                recording, volume, parent_id, name, kind, said, remote=not away, start_ns=start_ns
            )
            span.link_to(parent.trace_bytes, parent.span_bytes)
            if away:
                span.link_to(remote[0], remote[1])
            return span
        volume = parent.volume.place(recording)
        away = volume is not parent.volume
        parent_id = volume.root_id if away else parent.span_bytes
        span = LiveSpan(recording, volume, parent_id, name, kind, said, start_ns=start_ns)
        if away:
            span.link_to(parent.trace_bytes, parent.span_bytes)
        if remote is not None:
            span.link_to(remote[0], remote[1])
        return span

    def _count_of(self, trace_id: bytes, *, remembered: bool = True) -> _Count:
        """How many spans a trace has, of all calls in it. One that only this call can name need not be remembered
        when the call is over."""
        count = self.counts.get(trace_id)
        if count is None:
            count = self.counts[trace_id] = _Count()
            if remembered:
                self._remembered.append(count)
        return count

    def lane(
        self, parent: Span, kind: str, direction: Direction, attributes: Mapping[str, Attribute]
    ) -> Lane:
        return (
            ChunkLane(self, parent, kind, direction, attributes)
            if isinstance(parent, LiveSpan)
            else NullLane()
        )

    def retain(self, span: Span) -> None:
        if isinstance(span, LiveSpan):
            span.recording.retain()

    def release(self, span: Span) -> None:
        if isinstance(span, LiveSpan):
            span.recording.release()

    # -- chunks -----------------------------------------------------------------------------------------------------

    def chunk(self, record: tuple[Any, ...]) -> None:
        """The hot path."""
        pending = self._pending
        pending.append(record)
        if self._armed is None:
            self.arm()
        elif len(pending) >= FLUSH_CHUNKS:
            self.flush()

    def arm(self) -> None:
        """Have a flush come soon."""
        if self._armed is None:
            self._armed = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Encode what is pending, and hand on what is ready."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        pending, self._pending = self._pending, []
        chunks = self.knobs.chunks
        every = chunks in {"all", "errors"}
        for record in pending:
            lane, _, size, start_ns, handed_ns, end_ns, _, duration_s = record
            if not start_ns <= handed_ns <= end_ns:  # the clock was set back
                handed_ns = max(start_ns, handed_ns)
                end_ns = max(handed_ns, end_ns)
                record = (*record[:4], handed_ns, end_ns, *record[6:])  # noqa: PLW2901
            recording, direction = lane.recording, lane.direction
            write_ns = end_ns - handed_ns
            lane.residences.append((end_ns - start_ns) * 1e-9)
            if direction == "out":
                lane.waits.append(write_ns * 1e-9)
            recording.summed(
                direction,
                start_ns,
                end_ns,
                size,
                handed_ns - start_ns,
                write_ns,
                duration_s if lane.is_audio else 0.0,
            )
            if every:
                recording.take_chunk(record)
            elif chunks == "first_last":
                if lane.first:
                    recording.take_chunk(record)
                else:
                    lane.hold(record)
                lane.first = False
        for (instrument, *labels), values in self._measured.items():
            if values:
                self._record_all(instrument, values, *labels)
                values.clear()
        if self.out:
            if self._armed is not None:
                self._armed.cancel()
                self._armed = None
            out, self.out = self.out, []
            if self._offer is not None:
                self._offer(out)


def _one_by_one(record: Record) -> RecordAll:
    def record_all(instrument: Instrument, values: Iterable[float], *labels: str) -> None:
        for value in values:
            record(instrument, value, *labels)

    return record_all


def found(recent: Iterable[tuple[Attribute, bytes]], key: str, caller: str) -> list[bytes]:
    """Of a caller's encoded spans those that belong to a trace (32 hex digits), or to the traces of a session (its
    id)."""
    spans = [span for owner, span in recent if owner == caller]
    try:
        traces = {bytes.fromhex(key)} if len(key) == 32 else set()
    except ValueError:
        traces = set()
    wanted = encoding.attribute(names.SESSION_ID, key)
    traces |= {_trace_of(span) for span in spans if wanted in span}
    return [span for span in spans if _trace_of(span) in traces]


def _trace_of(span: bytes) -> bytes:
    start = 2 if span[1] < 0x80 else 3 if span[2] < 0x80 else 4
    return span[start + 2 : start + 18]
