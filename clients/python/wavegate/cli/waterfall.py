"""The timeline of a trace as lines of text: spans in, lines out. Pure.

Each span is a line with its place in the tree, its duration and a bar; what is worth knowing of it stands below. The
chunks of one direction of an utterance or a turn are one line, with counts, sums and percentiles.
"""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from wavegate.cli import trace_names as names
from wavegate.cli.time_spent import (
    TimeSpent,
    audio_ms,
    is_chunk,
    is_operation,
    largest,
    longest_gap,
    number,
    time_spent,
)
from wavegate.traces import TraceSpan

BAR, SHORT = "━", "╸"
FIRST_AUDIO, GAP, RECONNECT, INTERRUPT = "◆", "╌", "↻", "✕"
MARKS: Final = {
    FIRST_AUDIO: "first audio",
    GAP: "longest gap",
    RECONNECT: "reconnect",
    INTERRUPT: "interrupt",
}
IN_ASCII: Final = str.maketrans("━╸◆╌↻✕├└│·×…", "=-*~@!|`|,x.")
"""For a terminal that has nothing else."""
MIN_WIDTH, MIN_BAR = 30, 12
UNKNOWN_LAG: Final = (
    " Or the gateway's event loop is late: no segment of the session has ended that would tell."
)
NOTABLE_S: Final = 0.1
"""Waiting that people begin to notice."""

_STYLES: Final = {
    "SERVER": "blue",
    "CLIENT": "cyan",
    "CONSUMER": "green",
    "PRODUCER": "yellow",
}


def waterfall(spans: Sequence[TraceSpan], *, width: int, all_chunks: bool = False) -> list[Text]:
    """The lines of a timeline of at least one span, none wider than `width` columns.

    `all_chunks`: a line for each chunk, instead of one for all of a direction.
    """
    width = max(width, MIN_WIDTH)
    rows = _rows(spans, all_chunks=all_chunks)
    begin_ns, end_ns = min(s.start_ns for s in spans), max(s.end_ns for s in spans)
    paper = _Paper(width, begin_ns, end_ns, max(len(row.prefix) + len(row.label) for row in rows))
    lines = [*_wrapped(_head(spans, begin_ns, end_ns), width, style="bold")]
    for row in rows:
        lines += paper.lines(row)
    lines.append(Text())
    bars = "".join(line.plain for line in lines)
    legend = [f"{mark} {text}" for mark, text in MARKS.items() if mark in bars]
    if any(len(row.chunks) > 1 for row in rows):
        legend.append("numbers of chunks: p50/p95/max")
    for said in (legend, _incomplete(spans)):
        lines += _wrapped(said, width, style="dim")
    lines.append(Text("Where the time went", style="bold"))
    lines += _wrapped([verdict(spans)], width, indent=2)
    return lines


# --- where the time went ----------------------------------------------------------------------------


def verdict(spans: Sequence[TraceSpan]) -> str:
    """In words: the shares, and who was waited for most."""
    spent = time_spent(spans)
    if spent is None or not spent.total_s:
        return _without_chunks(spans)
    shares = {
        "upstream": spent.upstream_s,
        "gateway": spent.gateway_s,
        "client": spent.client_s,
        "account": spent.account_s,
        "input": spent.input_s,
    }
    waited_s = sum(shares.values())
    told = ", ".join(
        f"the {who} {duration(s * 1e9)}" + (f" ({s / waited_s:.0%})" if s else "")
        for who, s in shares.items()
        if s or who in {"upstream", "gateway", "client"}
    )
    what = f" for {spent.audio_s:.2f} s of audio" if spent.audio_s else ""
    most = max(shares, key=lambda who: shares[who])
    dominated = (
        _reason(most, spent)
        if shares[most] >= NOTABLE_S
        else f"Nothing stands out; the most was the {most}'s."
    )
    return f"{duration(spent.total_s * 1e9)}{what}, {duration(waited_s * 1e9)} of it waiting: {told}. {dominated}"


def _reason(most: str, spent: TimeSpent) -> str:
    match most:
        case "upstream":
            found = [
                f"{what} {_ms(ms)}"
                for what, ms in (
                    ("its first audio came after", spent.first_audio_ms),
                    ("the longest gap was", spent.longest_gap_ms or None),
                    ("the final transcript came after", spent.final_ms),
                )
                if ms is not None
            ]
            return "The upstream dominated" + (f": {', '.join(found)}." if found else ".")
        case "gateway":
            return (
                f"The gateway dominated: chunks waited in it for up to {_ms(spent.longest_queue_ms)}, "
                f"and its event loop was up to {_ms(spent.loop_lag_ms or 0.0)} late."
            )
        case "client":
            return (
                f"The client dominated: it took up to {_ms(spent.longest_write_ms)} to take a chunk, so others waited "
                f"for up to {_ms(spent.longest_queue_ms)} behind; it, or the network to it, is slow."
                + (UNKNOWN_LAG if spent.loop_lag_ms is None else "")
            )
        case "account":
            return "The account dominated: the utterance waited for one of its active requests to be free."
    return "The input dominated: text was still coming."


def _without_chunks(spans: Sequence[TraceSpan]) -> str:
    text = "It cannot be told without spans of chunks; there are none here."
    first = largest(spans, names.FIRST_AUDIO_MS)
    upstream = largest(spans, names.UPSTREAM_FIRST_AUDIO_MS)
    if first is not None and upstream is not None:
        text += f" The first audio came after {_ms(first)}, {_ms(upstream)} of it the upstream's."
    return text


# --- the tree ---------------------------------------------------------------------------------------


@dataclass
class _Row:
    """A line with a bar, and what stands below it."""

    prefix: str
    label: str
    style: str
    begin_ns: int
    end_ns: int
    failed: bool = False
    notes: list[str] = field(default_factory=list)
    chunks: Sequence[TraceSpan] = ()
    """Drawn one by one instead of as one bar."""
    mark: str = ""
    marked_ns: int = 0
    """Where the mark stands on the bar."""
    below: str = ""
    """What a note begins with."""


@dataclass
class _Node:
    """A span, the chunks of a lane, the segments of a session, or what has not ended yet."""

    spans: list[TraceSpan]
    children: list[_Node] = field(default_factory=list)
    is_missing: bool = False

    @property
    def begin_ns(self) -> int:
        return min(s.start_ns for s in self.all_spans())

    def all_spans(self) -> Iterator[TraceSpan]:
        yield from self.spans
        for child in self.children:
            yield from child.all_spans()


def _rows(spans: Sequence[TraceSpan], *, all_chunks: bool) -> list[_Row]:
    rows: list[_Row] = []

    def add(node: _Node, prefix: str, below: str) -> None:
        row = _row(node)
        row.prefix, row.below = prefix, below + ("│ " if node.children else "  ")
        rows.append(row)
        for child in node.children:
            last = child is node.children[-1]
            add(child, below + ("└ " if last else "├ "), below + ("  " if last else "│ "))

    for root in _trees(spans, all_chunks=all_chunks):
        add(root, "", "")
    return rows


def _trees(spans: Sequence[TraceSpan], *, all_chunks: bool) -> list[_Node]:
    """The roots, in the order of time."""
    folded: dict[object, _Node] = {}
    nodes: dict[tuple[str, str], _Node] = {}
    parents: dict[tuple[str, str], list[_Node]] = defaultdict(list)
    roots: list[_Node] = []
    for span in sorted(spans, key=lambda s: (s.start_ns, s.end_ns)):
        key: object = None
        if is_chunk(span) and not all_chunks:
            key = (span.trace_id, span.parent_id, span.name, span.attributes.get(names.CHUNK_GENERATION))
        elif span.name == names.SESSION_SEGMENT:
            key = (span.trace_id, span.parent_id, span.name)
        if key is not None and key in folded:
            folded[key].spans.append(span)
            continue
        node = _Node([span])
        if key is not None:
            folded[key] = node
        else:
            nodes[span.trace_id, span.span_id] = node
        if span.parent_id:
            parents[span.trace_id, span.parent_id].append(node)
        else:
            roots.append(node)
    for place, children in parents.items():
        if place in nodes:
            # Sums come last.
            nodes[place].children = sorted(children, key=lambda n: n.spans[0].name == names.SESSION_SEGMENT)
        elif all(map(_is_below_callers_own, (child.spans[0] for child in children))):
            roots += children
        else:
            roots.append(_Node([], children, is_missing=True))
    return sorted(roots, key=lambda node: node.begin_ns)


def _is_below_callers_own(span: TraceSpan) -> bool:
    # Jaeger does not say that a parent is remote; but only such spans have one here that is not a call.
    return span.parent_is_remote or span.kind == "SERVER" or (is_operation(span) and bool(span.links))


def _incomplete(spans: Sequence[TraceSpan]) -> list[str]:
    """What has to be said of what is not here."""
    said = []
    known = {(s.trace_id, s.span_id) for s in spans}
    if any(
        s.parent_id and (s.trace_id, s.parent_id) not in known and not _is_below_callers_own(s) for s in spans
    ):
        said.append(
            "The session still runs, or its end is not known yet: spans that have not ended are not here."
        )
    traces = {s.trace_id for s in spans}
    if any(link[0] not in traces for s in spans if s.name == names.SESSION_SEGMENT for link in s.links):
        said.append("It goes on in another trace: ask by the session's id for all of it.")
    return said


# --- a line -----------------------------------------------------------------------------------------


def _row(node: _Node) -> _Row:
    if node.is_missing:
        spans = list(node.all_spans())
        return _Row("", "(not ended yet)", "dim", node.begin_ns, max(s.end_ns for s in spans))
    span = node.spans[0]
    row = _Row(
        prefix="",
        label=span.name.rsplit("/", 1)[-1],
        style=_STYLES.get(span.kind, ""),
        begin_ns=span.start_ns,
        end_ns=max(s.end_ns for s in node.spans),
        failed=any(s.failed for s in node.spans),
        notes=list(_notes(span)),
        mark={names.UPSTREAM_RECONNECT: RECONNECT, names.INTERRUPT: INTERRUPT}.get(span.name, ""),
        marked_ns=span.start_ns,
    )
    if row.mark:
        row.style = "magenta"
    if is_chunk(span):
        row.chunks = node.spans
        row.label, row.notes = _lane(node.spans)
    elif span.name == names.SESSION_SEGMENT:
        row.label += f" ×{len(node.spans)}" if len(node.spans) > 1 else ""
        row.notes = [f"event loop up to {_ms(largest(node.spans, names.SEGMENT_LOOP_LAG_MS) or 0.0)} late"]
        dropped = sum(number(s, names.SEGMENT_DROPPED) or 0 for s in node.spans)
        if dropped:
            row.notes.append(f"{dropped:.0f} spans dropped by the gateway")
    elif is_operation(span):
        first_ms = number(span, names.FIRST_AUDIO_MS)
        if first_ms is not None:
            row.mark, row.marked_ns = FIRST_AUDIO, span.start_ns + round(first_ms * 1e6)
        if gap := _gap(node):
            row.notes.append(gap)
    return row


def _gap(node: _Node) -> str:
    chunks = [s for child in node.children for s in child.spans if s.name == names.CHUNK_OUT]
    begin, end = longest_gap(chunks)
    if begin == end:
        ms = number(node.spans[0], names.MAX_GAP_MS)
        return f"longest gap {_ms(ms)}" if ms else ""
    return f"longest gap {duration(end - begin)}"


def _notes(span: TraceSpan) -> Iterator[str]:
    """What is worth knowing of a span beside its time."""

    def ms(name: str) -> float | None:
        return number(span, name)

    def text(name: str) -> str:
        return str(span.attributes.get(name) or "")

    if utterance := text(names.UTTERANCE_ID):
        yield f"{utterance} {text(names.UTTERANCE_OUTCOME)}".rstrip()
    if (first := ms(names.FIRST_AUDIO_MS)) is not None:
        of_upstream = ms(names.UPSTREAM_FIRST_AUDIO_MS)
        yield f"first audio {_ms(first)}" + (
            f" (upstream {_ms(of_upstream)})" if of_upstream is not None else ""
        )
    if (wait := ms(names.ADMISSION_WAIT_MS)) is not None and wait >= 1:
        yield f"admission {_ms(wait)}"
    if (latency := ms(names.FINALIZE_LATENCY_MS)) is not None:
        yield f"finalize {_ms(latency)}"
    if (latency := ms(names.TIME_TO_FINAL_MS)) is not None:
        yield f"final {_ms(latency)} after the audio"
    if reconnects := ms(names.RECONNECTS):
        yield f"{reconnects:.0f} reconnect{'s' if reconnects > 1 else ''}"
    if span.name == names.UPSTREAM_RECONNECT:
        yield f"{_words(text(names.UPSTREAM_REASON))}, attempt {text(names.UPSTREAM_ATTEMPT) or '?'}"
        if code := text(names.UPSTREAM_CLOSE_CODE):
            yield f"closed with {code}"
        if lost := ms(names.LOST_AUDIO_MS):
            yield f"{_ms(lost)} of audio lost"
    if span.name == names.INTERRUPT:
        yield f"interrupted by {_words(text(names.CANCEL_METHOD))}"
        if (discarded := ms(names.CANCEL_DISCARDED_MS)) is not None:
            yield f"{_ms(discarded)} of audio discarded"
    if span.name == names.SETTINGS_UPDATE:
        fields = span.attributes.get(names.UPDATE_FIELDS)
        what = ", ".join(map(str, fields)) if isinstance(fields, list) else ""
        yield f"{what}: {text(names.UPDATE_STATE).lower()}"
        if mechanism := text(names.UPDATE_MECHANISM):
            yield _words(mechanism)
    if (status := text(names.RPC_RESPONSE_STATUS_CODE)) and status != "OK":
        yield status
    if span.name == names.SESSION_CONTINUATION:
        yield "the session's spans go on here"
    if span.failed or text(names.ERROR_TYPE):
        yield f"error: {text(names.ERROR_TYPE)} {span.error_message}".rstrip()


def _lane(chunks: Sequence[TraceSpan]) -> tuple[str, list[str]]:
    """Label and notes of the chunks of one direction, or of a single chunk."""
    size = sum(number(c, names.CHUNK_BYTES) or 0 for c in chunks)
    sums = [_bytes(size)]
    if covered_ms := audio_ms(chunks):
        sums.append(f"{covered_ms / 1000:.2f} s of audio")
    label = f"{chunks[0].name} ×{len(chunks)}"
    measures = {
        "residence": [(c.end_ns - c.start_ns) / 1e6 for c in chunks],
        "queue": [number(c, names.CHUNK_QUEUE_MS) or 0.0 for c in chunks],
        "write": [number(c, names.CHUNK_WRITE_MS) or 0.0 for c in chunks],
    }
    if len(chunks) == 1:
        sequence = number(chunks[0], names.CHUNK_SEQUENCE)
        label = chunks[0].name + (f" #{sequence:.0f}" if sequence is not None else "")
        return label, [*sums, *(f"{name} {_ms(values[0])}" for name, values in measures.items())]
    shown = [
        f"{name} {'/'.join(_short_ms(percentile(values, p)) for p in (50, 95, 100))} ms"
        for name, values in measures.items()
    ]
    return label, [*sums, *shown]


class _Paper:
    """How wide things are, and where a moment is."""

    def __init__(self, width: int, begin_ns: int, end_ns: int, label_width: int) -> None:
        self.width = width
        self.begin_ns = begin_ns
        self.span_ns = max(1, end_ns - begin_ns)
        self.time_width = 8
        self.label_width = min(label_width, max(width * 2 // 5, 16))
        self.bar_width = width - self.label_width - self.time_width - 3
        if self.bar_width < MIN_BAR:
            self.bar_width = 0
            self.label_width = width - self.time_width - 1

    def lines(self, row: _Row) -> Iterator[Text]:
        style = "bold red" if row.failed else row.style
        label = _cut(row.prefix + row.label, self.label_width)
        line = Text().append(row.prefix, style="dim")
        line.append(label[len(row.prefix) :], style=style)
        line.append(" " * (self.label_width - len(label)))
        line.append(f" {duration(row.end_ns - row.begin_ns):>{self.time_width}}")
        if self.bar_width:
            line.append("  ")
            line.append(self.bar(row), style=style)
        line.rstrip()
        line.truncate(self.width)
        yield line
        if row.notes:
            yield from _wrapped(
                row.notes,
                self.width,
                indent=2,
                below=row.below[: self.width // 2],
                style="red" if row.failed or any(note.startswith("error") for note in row.notes) else "dim",
            )

    def bar(self, row: _Row) -> str:
        cells = [" "] * self.bar_width
        pieces = [(c.start_ns, c.end_ns) for c in row.chunks] or [(row.begin_ns, row.end_ns)]
        if len(row.chunks) > 1:
            begin, end = longest_gap(row.chunks) if row.chunks[0].name == names.CHUNK_OUT else (0, 0)
            for cell in range(self.cell(begin) + 1, self.cell(end)):
                cells[cell] = GAP
        for begin, end in pieces:
            first, last = self.cell(begin), self.cell(end)
            if first == last and cells[first] in {" ", GAP}:
                cells[first] = BAR if (end - begin) * self.bar_width * 2 >= self.span_ns else SHORT
            elif first < last:
                cells[first : last + 1] = BAR * (last + 1 - first)
        if row.mark:
            cells[self.cell(row.marked_ns)] = row.mark
        return "".join(cells)

    def cell(self, at_ns: int) -> int:
        return max(0, min(self.bar_width - 1, (at_ns - self.begin_ns) * self.bar_width // self.span_ns))


def _head(spans: Sequence[TraceSpan], begin_ns: int, end_ns: int) -> list[str]:
    traces = list(dict.fromkeys(s.trace_id for s in spans))
    sessions = list(dict.fromkeys(str(i) for s in spans if (i := s.attributes.get(names.SESSION_ID))))
    at = datetime.fromtimestamp(begin_ns / 1e9, UTC)
    return [
        f"trace{'s' if len(traces) > 1 else ''} {' '.join(traces)}",
        *(f"session {session}" for session in sessions),
        f"{len(spans)} span{'s' if len(spans) != 1 else ''} in {duration(end_ns - begin_ns)}",
        f"{at:%Y-%m-%d %H:%M:%S} UTC",
    ]


# --- words ------------------------------------------------------------------------------------------


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed; of at least one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def duration(ns: float) -> str:
    """For people, in about three digits."""
    return _ms(ns / 1e6) if ns < 100e9 else f"{ns / 1e9:.0f} s"


def _ms(ms: float) -> str:
    return f"{_short_ms(ms)} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _short_ms(ms: float) -> str:
    return f"{ms:.0f}" if ms >= 10 or not ms else f"{ms:.1f}" if ms >= 1 else f"{ms:.2f}"


def _words(name: str) -> str:
    """The name of an enum's value, for people."""
    return name.lower().replace("_", " ") or "?"


def _bytes(size: float) -> str:
    return (
        f"{size:.0f} B"
        if size < 10_000
        else f"{size / 1000:.0f} kB"
        if size < 10_000_000
        else f"{size / 1e6:.0f} MB"
    )


def _printable(text: str) -> str:
    """Without what a terminal would obey: names and errors may come from anywhere."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _cut(text: str, room: int) -> str:
    text = _printable(text)
    return text if len(text) <= room else text[: room - 1] + "…"


def _wrapped(
    parts: Sequence[str], width: int, *, indent: int = 0, below: str = "", style: str = ""
) -> Iterator[Text]:
    """Parts with points between them, as many on a line as there is room for; a longer one is broken itself."""
    begin = below + " " * indent
    room = max(10, width - len(begin))
    lines: list[str] = []
    for part in map(_printable, parts):
        if lines and len(lines[-1]) + 3 + len(part) <= room:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, room)
    for line in lines:
        yield Text().append(begin, style="dim").append(line, style=style)
