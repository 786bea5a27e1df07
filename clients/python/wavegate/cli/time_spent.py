"""Where the time of a trace went: each instant that somebody waits is put down to whom is waited for. Pure.

What is looked at is for speech the time from an utterance's first text to its last audio, for a transcript that from
a turn's last audio to its last transcript. An instant of it belongs to

- the client, while its transport takes a chunk: a write;
- the gateway, while it holds a chunk and no write is in its way;
- nobody, while audio that came before is still playing, where each piece is played as soon as the one before it ends:
  then the upstream is as fast as speech, or faster;
- the account, while an utterance waits for admission;
- the input, while all text that has come is spoken, and more of it is to come;
- the upstream, for the rest.

A busy gateway notices the end of a write late. So a write that took no longer than the gateway's event loop was late
(`speech.segment.max_loop_lag_ms`) is put down to the gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wavegate.cli import trace_names as names
from wavegate.traces import TraceSpan

SPOKEN = 0.6
"""So much of the audio that a text makes, and it counts as spoken: speech is not equally fast everywhere."""

Interval = tuple[int, int]
"""From and to, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class TimeSpent:
    """The time of a trace, in seconds, by whom was waited for; and the longest single ones, in milliseconds."""

    audio_s: float
    """Playing time of what was spoken or heard."""
    total_s: float
    """With that in which nobody was waited for."""
    input_s: float
    account_s: float
    upstream_s: float
    gateway_s: float
    client_s: float
    first_audio_ms: float | None
    """Of the upstream: from the text sent to it to its first audio."""
    final_ms: float | None
    """From the end of a turn's audio to its final transcript."""
    longest_gap_ms: float
    longest_queue_ms: float
    longest_write_ms: float
    loop_lag_ms: float | None
    """None where no segment has ended, so that nobody knows."""


def number(span: TraceSpan, name: str) -> float | None:
    """An attribute that is a number; None where it is not there."""
    value = span.attributes.get(name)
    return float(value) if isinstance(value, int | float) else None


def largest(spans: Iterable[TraceSpan], name: str) -> float | None:
    """The largest that an attribute is."""
    return max((value for span in spans if (value := number(span, name)) is not None), default=None)


def audio_ms(chunks: Iterable[TraceSpan]) -> float:
    """How much audio some chunks cover; transcripts cover the same again and again."""
    places = [
        (number(c, names.CHUNK_OFFSET_MS) or 0.0, number(c, names.CHUNK_DURATION_MS) or 0.0) for c in chunks
    ]
    return max((at + length for at, length in places), default=0.0) - min(
        (at for at, _ in places), default=0.0
    )


def is_chunk(span: TraceSpan) -> bool:
    return span.name in {names.CHUNK_IN, names.CHUNK_OUT}


def is_operation(span: TraceSpan) -> bool:
    """An utterance or a turn."""
    return span.name.startswith((names.TEXT_TO_SPEECH, names.SPEECH_TO_TEXT))


def longest_gap(chunks: Iterable[TraceSpan]) -> Interval:
    """The longest time between two chunks that came; nothing where there are not two."""
    starts = sorted(chunk.start_ns for chunk in chunks)
    return max(pairwise(starts), key=lambda g: g[1] - g[0], default=(0, 0))


def time_spent(spans: Sequence[TraceSpan]) -> TimeSpent | None:
    """None where there is no chunk by which it could be told."""
    parts: dict[tuple[object, object], _Part] = defaultdict(_Part)
    for span in spans:
        if is_chunk(span) or is_operation(span):
            key = (span.attributes.get(names.SESSION_ID), span.attributes.get(names.CHUNK_GENERATION))
            parts[key].add(span)
    loop_lag_ms = largest(spans, names.SEGMENT_LOOP_LAG_MS)
    lag_ms = loop_lag_ms or 0.0
    waited = [part for part in parts.values() if part.window()]
    if not waited:
        return None
    all_out = [chunk for part in waited for chunk in part.out]
    window = _union(interval for part in waited for interval in part.window())
    writes = _union(_write(c) for c in all_out if (number(c, names.CHUNK_WRITE_MS) or 0.0) > lag_ms)
    # What the upstream's transport takes long to take, the upstream takes long to take.
    sends = _union(
        _write(c) for part in waited for c in part.in_ if (number(c, names.CHUNK_WRITE_MS) or 0.0) > lag_ms
    )
    connects = _union(
        (span.start_ns, span.end_ns)
        for span in spans
        if span.name in {names.UPSTREAM_CONNECT, names.UPSTREAM_RECONNECT}
    )
    client = _both(writes, window)
    admission = _both(_union(i for part in waited for i in part.admission()), window)
    gateway = _without(_both(_held(waited), window), _union([*client, *admission, *sends, *connects]))
    played = _without(_both(_playing(parts), window), _union([*client, *gateway]))
    account = _without(admission, _union([*client, *played]))
    taken = _union([*client, *gateway, *played, *account, *sends, *connects])
    input_ = _without(_both(_input(waited), window), taken)
    total, rest = _length(window), sum(map(_length, (client, account, gateway, input_, played)))
    return TimeSpent(
        audio_s=sum(part.audio_ms for part in waited) / 1e3,
        total_s=total * 1e-9,
        input_s=_length(input_) * 1e-9,
        account_s=_length(account) * 1e-9,
        upstream_s=(total - rest) * 1e-9,
        gateway_s=_length(gateway) * 1e-9,
        client_s=_length(client) * 1e-9,
        first_audio_ms=largest(spans, names.UPSTREAM_FIRST_AUDIO_MS),
        final_ms=largest(spans, names.TIME_TO_FINAL_MS),
        longest_gap_ms=max(_length([longest_gap(part.out)]) for part in waited) / 1e6,
        longest_queue_ms=largest(all_out, names.CHUNK_QUEUE_MS) or 0.0,
        longest_write_ms=largest(all_out, names.CHUNK_WRITE_MS) or 0.0,
        loop_lag_ms=loop_lag_ms,
    )


def _held(parts: Sequence[_Part]) -> list[Interval]:
    """While the gateway had a chunk. Text that waits while an earlier utterance is spoken has its turn to wait for."""
    held: list[Interval] = []
    earlier: list[Interval] = []
    for part in sorted(parts, key=lambda part: part.window()):
        held += _without(_union((c.start_ns, c.end_ns) for c in part.in_), earlier)
        held += [(c.start_ns, c.end_ns) for c in part.out]
        earlier = _union([*earlier, *part.window()])
    return _union(held)


def _playing(parts: Mapping[tuple[object, object], _Part]) -> list[Interval]:
    """While a listener, who plays each piece of a session as soon as the one before it ends, has something to play."""
    out: dict[object, list[TraceSpan]] = defaultdict(list)
    for (session_id, _), part in parts.items():
        if part.is_speech:
            out[session_id] += part.out
    playing: list[Interval] = []
    for chunks in out.values():
        until = 0
        for chunk in sorted(chunks, key=lambda chunk: chunk.start_ns):
            begin = max(until, chunk.start_ns)
            until = begin + _playing_ns(chunk)
            playing.append((begin, until))
    return _union(playing)


def _input(parts: Sequence[_Part]) -> list[Interval]:
    """While speech that is waited for has no text. No utterance is waited for before the one ahead of it has ended."""
    found: list[Interval] = []
    earlier: list[Interval] = []
    for part in sorted(parts, key=lambda part: part.window()):
        if part.is_speech:
            found += _without(_union(part.input()), earlier)
            earlier = _union([*earlier, *part.window()])
    return _union(found)


class _Part:
    """An utterance or a turn: its span, if that has ended, and its chunks."""

    def __init__(self) -> None:
        self.span: TraceSpan | None = None
        self.in_: list[TraceSpan] = []
        self.out: list[TraceSpan] = []

    def add(self, span: TraceSpan) -> None:
        if not is_chunk(span):
            self.span = self.span or span
        elif span.name == names.CHUNK_OUT:
            self.out.append(span)
        else:
            self.in_.append(span)

    @property
    def is_speech(self) -> bool:
        """Whether text became speech here."""
        if self.span is not None:
            return self.span.name.startswith(names.TEXT_TO_SPEECH)
        return not any(number(chunk, names.CHUNK_DURATION_MS) for chunk in self.in_)

    @property
    def audio_ms(self) -> float:
        return audio_ms(self.out if self.is_speech else self.in_)

    def window(self) -> list[Interval]:
        """While somebody waits; nothing where it cannot be told."""
        if not self.in_ and not self.out:
            return []
        spans = [*self.in_, *self.out, *([self.span] if self.span is not None else [])]
        last = max((chunk.end_ns for chunk in self.out), default=max(s.end_ns for s in spans))
        if self.is_speech:
            return [(min(s.start_ns for s in spans), last)]
        heard = max((chunk.start_ns for chunk in self.in_), default=last)
        return [(heard, last)] if heard < last else []

    def admission(self) -> list[Interval]:
        wait_ms = number(self.span, names.ADMISSION_WAIT_MS) if self.span is not None else None
        if not wait_ms or not self.in_:
            return []
        first = min(self.in_, key=lambda chunk: chunk.start_ns)
        return [(first.start_ns, min(first.end_ns, first.start_ns + round(wait_ms * 1e6)))]

    def input(self) -> list[Interval]:
        """While all text that had come was spoken, and more was to come."""
        (begin, end), *_ = self.window()
        texts = sorted((chunk.start_ns, number(chunk, names.CHUNK_BYTES) or 0.0) for chunk in self.in_)
        size = sum(text_bytes for _, text_bytes in texts)
        ns_per_byte = sum(map(_playing_ns, self.out)) / size if size else 0.0
        out = [(chunk.start_ns, _playing_ns(chunk)) for chunk in sorted(self.out, key=lambda c: c.start_ns)]
        if not out:
            out = [(end, 0)]  # all of it is still waited for
        found: list[Interval] = []
        # Since the last wait for text: how long what came will play, and how long what was spoken does.
        asked_ns = spoken_ns = 0.0
        since, at = begin, 0
        for start_ns, playing_ns in out:
            is_spoken = spoken_ns >= SPOKEN * asked_ns
            latest, more_ns = since, 0.0
            while at < len(texts) and texts[at][0] < start_ns:
                latest, more_ns, at = texts[at][0], more_ns + texts[at][1] * ns_per_byte, at + 1
            if is_spoken and latest > since:
                found.append((since, latest))
                asked_ns = spoken_ns = 0.0
            asked_ns += more_ns
            spoken_ns += playing_ns
            since = start_ns
        return found


def _playing_ns(chunk: TraceSpan) -> int:
    return round((number(chunk, names.CHUNK_DURATION_MS) or 0.0) * 1e6)


def _write(chunk: TraceSpan) -> Interval:
    return (chunk.end_ns - round((number(chunk, names.CHUNK_WRITE_MS) or 0.0) * 1e6), chunk.end_ns)


def _union(intervals: Iterable[Interval]) -> list[Interval]:
    """The same instants, in order, each once."""
    found: list[Interval] = []
    for begin, end in sorted(intervals):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        elif begin < end:
            found.append((begin, end))
    return found


def _both(these: Sequence[Interval], those: Sequence[Interval]) -> list[Interval]:
    """The instants that are in both; each is a union."""
    found, at = [], 0
    for begin, end in these:
        while at < len(those) and those[at][1] <= begin:
            at += 1
        here = at
        while here < len(those) and those[here][0] < end:
            found.append((max(begin, those[here][0]), min(end, those[here][1])))
            here += 1
    return found


def _without(these: Sequence[Interval], those: Sequence[Interval]) -> list[Interval]:
    """The instants of these that are not in those; each is a union."""
    if not these:
        return []
    edges = [these[0][0], *(edge for interval in those for edge in interval), these[-1][1]]
    outside = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
    return _both(these, outside)


def _length(intervals: Iterable[Interval]) -> int:
    return sum(end - begin for begin, end in intervals)
