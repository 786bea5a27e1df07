"""Timelines from spans: the lines, and where the time went. Both are pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text
from wavegate import TraceSpan
from wavegate.cli import trace_names
from wavegate.cli import waterfall as module
from wavegate.cli.time_spent import TimeSpent, longest_gap, time_spent
from wavegate.cli.trace import of_session
from wavegate.cli.waterfall import IN_ASCII, percentile, verdict, waterfall
from wavegate_server.telemetry import names

TRACE, SESSION = "4bf92f3577b34da6a3ce929d0e0e4736", "s-one"
METHOD = "wavegate.speech.v1.SynthesisService/SynthesizeStream"
BEGIN_NS = 1_790_000_000 * 10**9
_numbers = itertools.count(1)


def span(
    name: str,
    start_ms: float,
    end_ms: float,
    attributes: Mapping[str, Any] | None = None,
    *,
    under: TraceSpan | None = None,
    session: str = SESSION,
    **fields: Any,
) -> TraceSpan:
    """A span, in milliseconds of its session."""
    return TraceSpan(
        trace_id=fields.pop("trace_id", under.trace_id if under else TRACE),
        span_id=fields.pop("span_id", f"{next(_numbers):016x}"),
        parent_id=fields.pop("parent_id", under.span_id if under else ""),
        name=name,
        kind=fields.pop("kind", "INTERNAL"),
        start_ns=BEGIN_NS + round(start_ms * 1e6),
        end_ns=BEGIN_NS + round(end_ms * 1e6),
        attributes={**({names.SESSION_ID: session} if session else {}), **(attributes or {})},
        **fields,
    )


def chunk(
    start_ms: float,
    queue_ms: float = 0.0,
    write_ms: float = 0.0,
    *,
    under: TraceSpan | None,
    name: str = names.CHUNK_OUT,
    length_ms: float = 100.0,
    **fields: Any,
) -> TraceSpan:
    sequence = next(_numbers)
    attributes = {
        names.CHUNK_GENERATION: 1,
        names.CHUNK_SEQUENCE: sequence,
        names.CHUNK_BYTES: 4800,
        names.CHUNK_OFFSET_MS: fields.pop("offset_ms", 0.0),
        names.CHUNK_DURATION_MS: length_ms,
        names.CHUNK_QUEUE_MS: queue_ms,
        names.CHUNK_WRITE_MS: write_ms,
    }
    end_ms = start_ms + queue_ms + write_ms
    return span(name, start_ms, end_ms, attributes, under=under, kind="CONSUMER", **fields)


def call(end_ms: float, **fields: Any) -> TraceSpan:
    attributes = {names.RPC_RESPONSE_STATUS_CODE: "OK"}
    return span(METHOD, 0, end_ms, attributes, kind="SERVER", **fields)


def utterance(start_ms: float, end_ms: float, under: TraceSpan, **attributes: Any) -> TraceSpan:
    said = {names.UTTERANCE_ID: "greeting", names.UTTERANCE_OUTCOME: "completed", names.CHUNK_GENERATION: 1}
    return span(
        "text_to_speech lightning_v3.1", start_ms, end_ms, {**said, **attributes}, under=under, kind="CLIENT"
    )


def segment(end_ms: float, lag_ms: float, under: TraceSpan, **fields: Any) -> TraceSpan:
    return span(names.SESSION_SEGMENT, 0, end_ms, {names.SEGMENT_LOOP_LAG_MS: lag_ms}, under=under, **fields)


def spoken(
    *chunks: tuple[float, float, float], lag_ms: float = 1.0, text_ms: float = 0.0, **attributes: Any
) -> list[TraceSpan]:
    """A session of one utterance: chunks of audio of 100 ms, each with when it came, its queue and its write."""
    end_ms = max((sum(c) for c in chunks), default=100.0) + 10
    root = call(end_ms)
    said = utterance(0, end_ms, root, **attributes)
    text = chunk(0, text_ms, 0.0, under=said, name=names.CHUNK_IN, length_ms=0)
    audio = [chunk(*c, under=said, offset_ms=100.0 * n) for n, c in enumerate(chunks)]
    return [text, *audio, said, segment(end_ms, lag_ms, root), root]


def plain(lines: list[Text]) -> str:
    return "\n".join(line.plain for line in lines)


def shown(spans: list[TraceSpan], width: int = 100, **options: Any) -> str:
    return plain(waterfall(spans, width=width, **options))


def the_line(text: str, having: str) -> str:
    (line,) = (line for line in text.splitlines() if having in line)
    return line


def spent(spans: list[TraceSpan]) -> TimeSpent:
    found = time_spent(spans)
    assert found is not None
    return found


def test_the_names_are_the_gateways() -> None:
    ours = {name: value for name, value in vars(trace_names).items() if name.isupper()}
    assert len(ours) > 30
    assert ours == {name: getattr(names, name) for name in ours}


class TestLines:
    def test_a_tree_with_durations_and_bars(self) -> None:
        spans = spoken((20, 1, 1), (60, 1, 1), (90, 1, 8))
        text = shown(spans)
        assert TRACE in text
        assert SESSION in text
        number = spans[0].attributes[names.CHUNK_SEQUENCE]
        rows = (
            "SynthesizeStream",
            "├ text_to_speech lightning_v3.1",
            f"│ ├ chunk.in #{number}",
            "│ └ chunk.out ×3",
            "└ session.segment",
        )
        assert [row for line in text.splitlines() for row in rows if line.startswith(row)] == [*rows]
        line = the_line(text, "SynthesizeStream")
        assert "109 ms" in line
        bars = {name: the_line(text, name)[44:] for name in ("SynthesizeStream", "chunk.out")}
        assert bars["SynthesizeStream"].count(module.BAR) > 45
        first = bars["chunk.out"].index(module.BAR if module.BAR in bars["chunk.out"] else module.SHORT)
        assert 0.1 < first / 50 < 0.3, "a fifth of the way"

    def test_chunks_are_one_line_with_sums_and_percentiles(self) -> None:
        chunks = [(n * 10.0, 1.0, float(n)) for n in range(1, 21)]
        text = shown(spoken(*chunks))
        assert text.count("chunk.out") == 1
        assert "chunk.out ×20" in text
        assert "96 kB" in text
        assert "2.00 s of audio" in text
        assert "residence 11/20/21 ms" in text
        assert "queue 1.0/1.0/1.0 ms" in text
        assert "write 10/19/20 ms" in text

    def test_all_of_them_are_a_line_each(self) -> None:
        spans = spoken(*((n * 10.0, 1.0, 2.0) for n in range(1, 21)))
        text = shown(spans, all_chunks=True)
        assert text.count("chunk.out #") == 20
        assert text.count("queue 1.0 ms") == 20

    def test_utterances_have_lanes_of_their_own(self) -> None:
        root = call(400)
        said = [utterance(0, 200, root), utterance(200, 400, root)]
        audio = [chunk(10.0 + 200 * n + 10 * m, under=said[n]) for n in (0, 1) for m in range(n + 2)]
        text = shown([*audio, *said, root])
        assert "chunk.out ×2" in text
        assert "chunk.out ×3" in text

    def test_first_audio_and_the_longest_gap_are_marked(self) -> None:
        text = shown(spoken((20, 0, 1), (30, 0, 1), (90, 0, 1), **{names.FIRST_AUDIO_MS: 21.0}))
        assert module.FIRST_AUDIO in the_line(text, "text_to_speech")
        assert module.GAP * 10 in the_line(text, "chunk.out")
        assert "longest gap 60 ms" in text
        assert "first audio 21 ms" in text
        legend = the_line(text, "numbers of chunks")
        assert "first audio" in legend
        assert "longest gap" in legend
        assert "reconnect" not in legend

    def test_reconnects_and_interrupts_are_marked(self) -> None:
        root = call(100)
        said = utterance(0, 90, root)
        reconnect = {
            names.UPSTREAM_REASON: "UPSTREAM_CLOSED",
            names.UPSTREAM_ATTEMPT: 2,
            names.UPSTREAM_CLOSE_CODE: 1011,
        }
        cancel = {names.CANCEL_METHOD: "UPSTREAM_CANCEL", names.CANCEL_DISCARDED_MS: 250.0}
        spans = [
            span(names.UPSTREAM_RECONNECT, 40, 50, reconnect, under=root),
            span(names.INTERRUPT, 80, 85, cancel, under=said),
            said,
            root,
        ]
        text = shown(spans)
        assert module.RECONNECT in the_line(text, "upstream.reconnect")
        assert "upstream closed, attempt 2 · closed with 1011" in text
        assert module.INTERRUPT in the_line(text, "interrupt ")
        assert "250 ms of audio discarded" in text

    def test_a_settings_update_says_what_and_how(self) -> None:
        root = call(100)
        update = {
            names.UPDATE_FIELDS: ["voice_id", "speed"],
            names.UPDATE_STATE: "APPLIED",
            names.UPDATE_MECHANISM: "NEXT_UTTERANCE",
        }
        text = shown([span(names.SETTINGS_UPDATE, 10, 11, update, under=root), root])
        assert "voice_id, speed: applied · next utterance" in text

    def test_errors_are_red(self) -> None:
        root = call(100)
        failed = span(
            "text_to_speech x",
            0,
            90,
            {names.ERROR_TYPE: "UPSTREAM_REJECTED"},
            under=root,
            failed=True,
            error_message="it said no",
        )
        lines = waterfall([failed, root], width=80)
        red = [line.plain[s.start : s.end] for line in lines for s in line.spans if "red" in str(s.style)]
        assert any("text_to_speech x" in piece for piece in red)
        assert any("error: UPSTREAM_REJECTED it said no" in piece for piece in red)
        assert not any("SynthesizeStream" in piece for piece in red)

    def test_segments_are_one_line(self) -> None:
        root = call(100)
        spans = [segment(50, 3, root), segment(90, 12, root), root]
        text = shown(spans)
        assert "session.segment ×2" in text
        assert "event loop up to 12 ms late" in text

    def test_what_has_not_ended_has_a_place(self) -> None:
        spans = [s for s in spoken((20, 1, 1), (60, 1, 1)) if s.kind == "CONSUMER"]
        text = shown(spans)
        assert "(not ended yet)" in text
        assert "chunk.out ×2" in text
        assert "spans that have not ended are not here" in text.replace("\n", " ")

    def test_a_whole_session_is_not_said_to_run(self) -> None:
        assert "not ended" not in shown(spoken((20, 1, 1), (60, 1, 1)))

    @pytest.mark.parametrize("says_so", [True, False], ids=["the gateway", "Jaeger"])
    def test_the_callers_own_span_is_not_missed(self, says_so: bool) -> None:
        root = call(100, parent_id="00f067aa0ba902b7", parent_is_remote=says_so)
        assert "not ended" not in shown([root])

    def test_a_trace_that_goes_on_elsewhere(self) -> None:
        root = call(100)
        gone_on = segment(90, 1, root, links=(("f" * 32, "e" * 16),))
        assert "goes on in another trace" in shown([gone_on, root])
        rest = span(names.SESSION_CONTINUATION, 50, 50, trace_id="f" * 32, span_id="e" * 16)
        text = shown([gone_on, root, rest])
        assert "goes on in another trace" not in text
        assert "session.continuation" in text
        assert "f" * 32 in text

    def test_a_terminal_is_told_nothing_to_obey(self) -> None:
        text = shown([span("evil\x1b[2J", 0, 1, failed=True, error_message="\x1b]0;mine\x07")])
        assert text.replace("\n", "").isprintable()
        assert "evil?[2J" in text

    @given(
        st.integers(0, 200),
        st.lists(
            st.tuples(st.floats(0, 5000), st.floats(0, 300), st.floats(0, 300)), max_size=12, unique=True
        ),
        st.booleans(),
    )
    def test_no_line_is_wider_than_the_terminal(
        self, width: int, chunks: list[tuple[float, float, float]], all_chunks: bool
    ) -> None:
        lines = waterfall(spoken(*chunks, **{names.FIRST_AUDIO_MS: 1e6}), width=width, all_chunks=all_chunks)
        assert max(line.cell_len for line in lines) <= max(width, module.MIN_WIDTH)
        assert plain(lines).translate(IN_ASCII).isascii()

    def test_a_narrow_terminal_has_durations_without_bars(self) -> None:
        text = shown(spoken((20, 1, 1), (60, 1, 1)), width=30)
        assert module.BAR not in text
        assert "SynthesizeStream" in text
        assert "72 ms" in text


class TestTimeSpent:
    def test_each_instant_is_someones_or_nobodys(self) -> None:
        found = spent(spoken((300, 2, 3), (900, 2, 3), text_ms=5))
        assert found.total_s == pytest.approx(0.905)
        # 5 ms of text held, then 295 of waiting; 100 ms of audio played, 2 + 3 of it held; then 500 of a gap.
        assert found.gateway_s == pytest.approx(0.009)
        assert found.client_s == pytest.approx(0.006)
        assert found.upstream_s == pytest.approx(0.795)
        assert found.longest_gap_ms == pytest.approx(600)
        assert found.audio_s == pytest.approx(0.2)

    def test_an_upstream_that_is_as_fast_as_speech_keeps_nobody_waiting(self) -> None:
        found = spent(spoken(*((10 + 90.0 * n, 0.0, 0.0) for n in range(50))))
        assert found.upstream_s == pytest.approx(0.010)

    def test_what_waits_behind_a_write_waits_for_the_client(self) -> None:
        """Four chunks come at once; each write takes 50 ms, and the others wait for it."""
        found = spent(spoken(*((10.0, 50.0 * n, 50.0) for n in range(4))))
        assert found.client_s == pytest.approx(0.2)
        assert found.gateway_s == 0
        assert found.longest_queue_ms == pytest.approx(150)

    def test_what_waits_for_no_write_waits_for_the_gateway(self) -> None:
        found = spent(spoken((10, 50, 2), (200, 50, 2)))
        assert found.gateway_s == pytest.approx(0.1)
        assert found.client_s == pytest.approx(0.004)

    def test_a_write_no_longer_than_the_loop_is_late_is_the_gateways(self) -> None:
        chunks = [(10.0, 0.0, 40.0), (200.0, 0.0, 40.0)]
        assert spent(spoken(*chunks, lag_ms=2.0)).client_s == pytest.approx(0.08)
        busy = spent(spoken(*chunks, lag_ms=45.0))
        assert (busy.client_s, busy.gateway_s) == (0, pytest.approx(0.08))

    def test_admission_is_the_accounts(self) -> None:
        found = spent(spoken((500, 0, 0), text_ms=300, **{names.ADMISSION_WAIT_MS: 290.0}))
        assert found.account_s == pytest.approx(0.29)
        assert found.gateway_s == pytest.approx(0.01)
        assert found.upstream_s == pytest.approx(0.2)

    def test_text_that_still_comes_is_the_input(self) -> None:
        spans = spoken((500, 0, 0))
        said = spans[-3]
        spans.append(chunk(400, under=said, name=names.CHUNK_IN, length_ms=0))
        found = spent(spans)
        assert found.input_s == pytest.approx(0.4)
        assert found.upstream_s == pytest.approx(0.1)

    @pytest.mark.parametrize("tokens", [1, 4], ids=["whole sentences", "tokens"])
    @pytest.mark.parametrize("uneven_ms", [0, 120], ids=["even", "uneven"])
    def test_text_at_one_sentence_a_second_is_the_input(self, tokens: int, uneven_ms: float) -> None:
        """Each sentence is 300 ms of audio, more or less, 50 ms after its last token; then there is no text."""
        root = call(9100)
        said = utterance(0, 9090, root)
        spans = [said, root, segment(9090, 0.5, root)]
        lengths_ms = [300 + (uneven_ms if second % 2 else -uneven_ms / 2) for second in range(9)]
        for second, length_ms in enumerate(lengths_ms):
            for token in range(tokens):
                at_ms = second * 1000 - token * 150 if second else 0
                spans.append(chunk(at_ms, under=said, name=names.CHUNK_IN, length_ms=0))
            spans += [
                chunk(second * 1000 + 50 + piece * 2, under=said, length_ms=length_ms / 3)
                for piece in range(3)
            ]
        found = spent(spans)
        played_s = sum(lengths_ms[:-1]) / 1e3
        assert found.upstream_s == pytest.approx(9 * 0.05, abs=0.01)
        assert found.input_s == pytest.approx(found.total_s - played_s - 9 * 0.05, abs=0.02)
        assert "The input dominated" in verdict(spans)

    def test_a_hole_in_a_text_that_is_there_is_the_upstreams(self) -> None:
        """Also where other text comes meanwhile: it is not what is waited for."""
        root = call(9100)
        said = utterance(0, 9090, root)
        text = [chunk(0, under=said, name=names.CHUNK_IN, length_ms=0) for _ in range(9)]
        text.append(chunk(4900, under=said, name=names.CHUNK_IN, length_ms=0))
        audio = [chunk(10 + 2 * n, under=said) for n in range(20)]
        audio += [chunk(5000 + 2 * n, under=said) for n in range(80)]
        found = spent([*text, *audio, said, segment(9090, 0.5, root), root])
        # Two seconds of what was heard play; then three are silent.
        assert found.upstream_s == pytest.approx(0.010 + 5.0 - 2.010, abs=0.001)
        assert found.input_s == 0

    def test_while_audio_is_playing_nobody_waits(self) -> None:
        """Two seconds come at once, and the rest before they are over; utterances play one after the other."""
        root = call(3000)
        first, second = utterance(0, 1500, root), utterance(0, 1900, root)
        second.attributes[names.CHUNK_GENERATION] = 2  # type: ignore[index]
        audio = [chunk(10 + n, under=first) for n in range(20)] + [chunk(1000, under=first)]
        later = [chunk(1100, under=second, name=names.CHUNK_IN, length_ms=0), chunk(1800, under=second)]
        for mine in later:
            mine.attributes[names.CHUNK_GENERATION] = 2  # type: ignore[index]
        text = chunk(0, under=first, name=names.CHUNK_IN, length_ms=0)
        found = spent([text, *audio, *later, first, second, segment(1900, 0.5, root), root])
        assert found.upstream_s == pytest.approx(0.010)
        assert found.input_s == 0

    def test_tokens_before_the_first_audio_are_the_input_and_those_after_it_are_not(self) -> None:
        root = call(900)
        said = utterance(0, 890, root)
        text = [chunk(50.0 * n, under=said, name=names.CHUNK_IN, length_ms=0) for n in range(16)]
        audio = [chunk(420 + 5 * n, under=said) for n in range(30)]
        found = spent([*text, *audio, said, segment(890, 0.5, root), root])
        assert found.input_s == pytest.approx(0.4)
        assert found.upstream_s == pytest.approx(0.02)

    def test_text_behind_an_utterance_does_not_wait_for_the_gateway(self) -> None:
        root = call(1000)
        first, second = utterance(0, 500, root), utterance(0, 900, root)
        second.attributes[names.CHUNK_GENERATION] = 2  # type: ignore[index]
        chunks = [
            chunk(0, 1, under=first, name=names.CHUNK_IN, length_ms=0),
            chunk(1, 490, under=second, name=names.CHUNK_IN, length_ms=0),
            chunk(50, 0, 1, under=first),
            chunk(490, 0, 1, under=first),
            chunk(600, 0, 1, under=second),
        ]
        for mine in (chunks[1], chunks[4]):
            mine.attributes[names.CHUNK_GENERATION] = 2  # type: ignore[index]
        found = spent([*chunks, first, second, segment(900, 0.5, root), root])
        assert found.gateway_s == pytest.approx(0.001)

    def test_a_reconnect_is_the_upstreams(self) -> None:
        spans = spoken((500, 0, 0), text_ms=300)
        spans.append(span(names.UPSTREAM_RECONNECT, 0, 300, under=spans[-1]))
        found = spent(spans)
        assert (found.gateway_s, found.upstream_s) == (0, pytest.approx(0.5))

    def test_a_transcript_is_waited_for_after_the_audio(self) -> None:
        root = call(3000)
        turn = span(
            "speech_to_text pulse",
            0,
            2500,
            {names.CHUNK_GENERATION: 1, names.TIME_TO_FINAL_MS: 500.0},
            under=root,
        )
        audio = [
            chunk(n * 100.0, 1, 1, under=turn, name=names.CHUNK_IN, offset_ms=n * 100.0) for n in range(20)
        ]
        found = spent([*audio, chunk(2400, 1, 2, under=turn), turn, segment(2500, 0.1, root), root])
        assert found.total_s == pytest.approx(0.503)
        assert found.upstream_s == pytest.approx(0.499)
        assert (found.gateway_s, found.client_s) == (pytest.approx(0.002), pytest.approx(0.002))
        assert found.audio_s == pytest.approx(2.0)

    def test_nothing_without_chunks(self) -> None:
        root = call(100)
        assert time_spent([utterance(0, 90, root), root]) is None

    @given(
        st.lists(st.tuples(st.floats(0, 2000), st.floats(0, 300), st.floats(0, 300)), max_size=15),
        st.floats(0, 100),
        st.floats(0, 500),
    )
    def test_the_parts_are_never_more_than_the_whole(
        self, chunks: list[tuple[float, float, float]], lag_ms: float, text_ms: float
    ) -> None:
        found = spent(spoken(*chunks, lag_ms=lag_ms, text_ms=text_ms, **{names.ADMISSION_WAIT_MS: 20.0}))
        parts = (found.input_s, found.account_s, found.upstream_s, found.gateway_s, found.client_s)
        assert min(parts) >= -1e-9
        assert sum(parts) <= found.total_s + 1e-9


class TestVerdict:
    @pytest.mark.parametrize(
        ("spans", "sentence"),
        [
            (spoken((800, 0, 1), (900, 0, 1)), "The upstream dominated: the longest gap was 100 ms."),
            (
                spoken((10, 0, 1), (900, 0, 1), **{names.UPSTREAM_FIRST_AUDIO_MS: 10.0}),
                "The upstream dominated: its first audio came after 10 ms, the longest gap was 890 ms.",
            ),
            (
                spoken(*((10.0, 50.0 * n, 50.0) for n in range(9))),
                "The client dominated: it took up to 50 ms",
            ),
            (spoken(*((10.0, 50.0 * n, 50.0) for n in range(9)), lag_ms=80.0), "The gateway dominated:"),
            (
                spoken((10, 300, 1)),
                "chunks waited in it for up to 300 ms, and its event loop was up to 1.0 ms late",
            ),
            (spoken((510, 0, 1), text_ms=500, **{names.ADMISSION_WAIT_MS: 499.0}), "The account dominated:"),
            (spoken((20, 1, 1)), "Nothing stands out; the most was the upstream's."),
        ],
        ids=["first audio", "gap", "client", "loop", "queue", "account", "nothing"],
    )
    def test_one_sentence(self, spans: list[TraceSpan], sentence: str) -> None:
        assert sentence in verdict(spans)
        assert sentence[:20] in shown(spans)

    def test_shares(self) -> None:
        said = verdict(spoken((75, 0, 25)))
        assert said.startswith("100 ms for 0.10 s of audio, 100 ms of it waiting:")
        assert "the upstream 75 ms (75%), the gateway 0 ms, the client 25 ms (25%)" in said

    def test_no_one_is_blamed_for_certain_before_the_loop_is_known(self) -> None:
        spans = [
            s for s in spoken(*((10.0, 50.0 * n, 50.0) for n in range(9))) if s.name != names.SESSION_SEGMENT
        ]
        assert "Or the gateway's event loop is late" in verdict(spans)

    def test_without_chunks_it_says_so(self) -> None:
        root = call(100)
        firsts = {names.FIRST_AUDIO_MS: 80.0, names.UPSTREAM_FIRST_AUDIO_MS: 70.0}
        said = verdict([utterance(0, 90, root, **firsts), root])
        assert "there are none here" in said
        assert "first audio came after 80 ms, 70 ms of it the upstream's" in said


def test_percentiles_are_values_that_were_there() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, p) for p in (50, 95, 100)] == [3.0, 5.0, 5.0]
    assert percentile([7.0], 50) == 7.0
    assert percentile(map(float, range(1, 101)), 95) == 95.0


def test_the_longest_gap() -> None:
    chunks = [chunk(at, under=None) for at in (10, 400, 20)]
    assert longest_gap(chunks) == (chunks[2].start_ns, chunks[1].start_ns)
    assert longest_gap(chunks[:1]) == longest_gap([]) == (0, 0)


def test_of_a_trace_of_several_sessions_one() -> None:
    app = span("my application", 0, 900, session="")
    one, two = (span(METHOD, 0, 100, under=app, session=name) for name in ("s-one", "s-two"))
    children = [span("session.open", 0, 1, under=parent, session="") for parent in (one, two)]
    assert of_session([app, one, two, *children], "s-two") == [two, children[1]]
