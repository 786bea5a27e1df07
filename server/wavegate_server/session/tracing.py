"""How a session shows in traces and metrics: which of its events become spans, and with what attributes.

A session tells its trace what it takes and what it says; nothing here decides anything. An utterance's or turn's
span ends when its last event was handed to the caller, since that is when the caller knows. Times of chunks are
nanoseconds since the Unix epoch, read where the bytes are: the loop's own clock stands still within an iteration.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from wavegate_server.errors import SessionClosed, WavegateError
from wavegate_server.session import transcription_events as heard
from wavegate_server.session.context import SessionContext
from wavegate_server.session.events import (
    ConnectionChanged,
    ConnectionReason,
    ConnectionState,
    SessionEnded,
    SessionStarted,
    SettingsAcknowledged,
    UpdateSettings,
)
from wavegate_server.session.log import Entry
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
)
from wavegate_server.session.utterance import Utterance
from wavegate_server.telemetry import Attribute, Lane, Span, instruments, milliseconds, names
from wavegate_server.telemetry.instruments import Instrument

_TURN_ENDS = frozenset(
    {heard.FinalTrigger.ENDPOINT, heard.FinalTrigger.CLIENT_FINALIZE, heard.FinalTrigger.END}
)


class SessionTrace:
    """What both kinds of session show."""

    def __init__(self, context: SessionContext, kind: str, attributes: Mapping[str, Attribute]) -> None:
        self._telemetry = context.telemetry
        self._metric_labels = context.metric_labels
        self._root = context.span
        self._kind = kind
        self._generation = 0
        self._reconnect: Span | None = None
        self._lost_ns: int | None = None
        self._close_code: int | None = None
        self._updates: dict[str, deque[Span]] = {}
        self._closed = False
        self._root.set({names.SESSION_ID: context.session_id, names.SESSION_KIND: kind})
        self._telemetry.retain(self._root)
        said: dict[str, Attribute] = {names.SESSION_KIND: kind, **attributes}
        if context.client_session_id:
            said[names.CLIENT_SESSION_ID] = context.client_session_id
        labels: dict[str, Attribute] = {names.LABEL + key: value for key, value in context.labels.items()}
        self._root.set(labels)
        said.update(labels)
        self._open: Span | None = self._telemetry.span(self._root, names.SESSION_OPEN, said)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._root.trace_id}>"

    def _record(self, instrument: Instrument, value: float, *labels: str, span: Span | None = None) -> None:
        """Count or measure, with the session's own labels where the instrument has them."""
        own = self._metric_labels if instrument.of_session else ()
        self._telemetry.record(instrument, value, *labels, *own, span=span)

    def said(self, event: Any) -> None:
        """The session says `event`."""
        match event:
            case SessionStarted():
                self._end_open(None)
            case ConnectionChanged():
                self._connection(event)
            case SettingsAcknowledged():
                if event.state.terminal:
                    self._settled(event)
            case SessionEnded():
                self._root.set({names.SESSION_END_REASON: event.reason.value})
                # A caller that leaves is no failure of what it did not wait for.
                error = None if isinstance(event.error, SessionClosed) else event.error
                self._end_open(error)
                self._end_reconnect(error)

    def handed_over(self, entry: Entry, sequence: int, handed_ns: int, end_ns: int) -> None:
        """The caller's transport has an event."""

    def update(self, update: UpdateSettings, caller: Span | None) -> None:
        """A settings delta came; `caller`: the call it came by, where that is not the session's own."""
        fields = (*update.delta, *update.reset)
        span = self._telemetry.span(
            self._root,
            names.SETTINGS_UPDATE,
            {names.UPDATE_ID: update.update_id, names.UPDATE_FIELDS: fields},
        )
        if caller is not None:
            span.link(caller)
        self._updates.setdefault(update.update_id, deque()).append(span)

    def refused(self, error: WavegateError) -> None:
        """The session cannot even begin."""
        self._end_open(error)
        self.close()

    def close(self) -> None:
        """Nothing more comes, and nothing more is handed over."""
        if self._closed:
            return
        self._closed = True
        self._end_open(None)
        if self._reconnect is not None:
            self._reconnect.end()
        for spans in self._updates.values():
            for span in spans:
                span.end()
        self._updates.clear()
        self._telemetry.release(self._root)

    def _end_open(self, error: WavegateError | None) -> None:
        span, self._open = self._open, None
        if span is not None:
            if error is not None:
                span.fail(error.reason)
            span.end()

    def _settled(self, ack: SettingsAcknowledged) -> None:
        spans = self._updates.get(ack.update_id)
        if not spans:
            return
        span = spans.popleft()
        if not spans:
            del self._updates[ack.update_id]
        span.set(
            {
                names.UPDATE_STATE: ack.state.value,
                names.UPDATE_MECHANISM: ack.mechanism.name,
                names.SETTINGS_REVISION: ack.settings_revision,
            }
        )
        if ack.error is not None:
            span.set({names.ERROR_TYPE: ack.error.reason})
        span.end()

    def _connection(self, event: ConnectionChanged) -> None:
        match event.state:
            case ConnectionState.DISCONNECTED:
                self._lost_ns, self._close_code = time.time_ns(), event.close_code
            case ConnectionState.RECONNECTING:
                self._end_reconnect(event.cause)
                self._begin_reconnect(event, time.time_ns())
                if event.next_retry_delay_s is not None and self._reconnect is not None:
                    self._reconnect.set({names.RETRY_DELAY_MS: milliseconds(event.next_retry_delay_s)})
            case ConnectionState.CONNECTED:
                if event.handshake_s is not None:
                    self._record(instruments.UPSTREAM_CONNECT, event.handshake_s, self._kind, span=self._root)
                if event.reason is ConnectionReason.INITIAL:
                    return
                self._record(instruments.RECONNECTS, 1, self._kind, event.reason.value)
                if self._reconnect is None:
                    handshake_ns = round((event.handshake_s or 0.0) * 1e9)
                    self._begin_reconnect(event, self._lost_ns or time.time_ns() - handshake_ns)
                assert self._reconnect is not None
                self._reconnect.set(
                    {
                        names.UPSTREAM_ATTEMPT: event.attempt,
                        names.UPSTREAM_INDEX: event.upstream.connection_index,
                        names.REPLAYED_AUDIO_MS: milliseconds(event.replayed_audio_s or 0.0),
                        names.LOST_AUDIO_MS: milliseconds(event.lost_audio_s or 0.0),
                        names.REPLAYED_CHARACTERS: event.replayed_character_count,
                    }
                )
                self._end_reconnect(None)

    def _begin_reconnect(self, event: ConnectionChanged, start_ns: int) -> None:
        attributes: dict[str, Attribute] = {
            names.UPSTREAM_REASON: event.reason.value,
            names.UPSTREAM_ATTEMPT: event.attempt,
        }
        if self._close_code is not None:
            attributes[names.UPSTREAM_CLOSE_CODE] = self._close_code
        self._lost_ns = self._close_code = None
        self._reconnect = self._telemetry.span(
            self._root, names.UPSTREAM_RECONNECT, attributes, client=True, start_ns=start_ns
        )

    def _end_reconnect(self, error: WavegateError | None) -> None:
        span, self._reconnect = self._reconnect, None
        if span is not None:
            if error is not None:
                span.fail(error.reason)
            span.end()


class UtteranceTrace:
    """One utterance: its text on the way in, its audio on the way out."""

    __slots__ = (
        "_arrivals",
        "_mark",
        "_out",
        "_telemetry",
        "_text",
        "barged_ns",
        "interrupt",
        "span",
        "start_ns",
        "utterance",
    )

    def __init__(self, trace: SynthesisTrace, utterance: Utterance, generation: int, start_ns: int) -> None:
        telemetry = self._telemetry = trace._telemetry
        self.utterance = utterance
        settings = utterance.settings
        model = settings.get("model", "")
        attributes: dict[str, Attribute] = {
            names.GEN_AI_OPERATION_NAME: names.TEXT_TO_SPEECH,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_OUTPUT_TYPE: "speech",
            names.GEN_AI_REQUEST_MODEL: model,
            names.GEN_AI_SPEECH_VOICE: settings.get("voice_id", ""),
            names.UTTERANCE_ID: utterance.utterance_id,
            names.SETTINGS_REVISION: utterance.settings_revision,
            names.CHUNK_GENERATION: generation,
        }
        self.span = telemetry.span(
            trace._root,
            f"{names.TEXT_TO_SPEECH} {model}".rstrip(),
            attributes,
            client=True,
            traceparent=utterance.traceparent,
            start_ns=start_ns,
        )
        self.start_ns = start_ns
        self.interrupt: Span | None = None
        self.barged_ns = 0
        self._mark: dict[str, Attribute] = {names.CHUNK_GENERATION: generation}
        self._text = telemetry.lane(self.span, "tts", "in", self._mark)
        self._out = telemetry.lane(self.span, "tts", "out", self._mark)
        self._arrivals: deque[tuple[int, int, int, int]] = deque()

    def arrived(self, sequence: int, text: str, received_ns: int, end: int) -> None:
        """A piece of text, which ends `end` characters into the utterance."""
        self._arrivals.append((sequence, len(text.encode("utf-8", "replace")), received_ns, end))

    def sent(self, until: int, handed_ns: int, end_ns: int) -> None:
        """The upstream's transport has the first `until` characters."""
        arrivals = self._arrivals
        while arrivals and arrivals[0][3] <= until:
            sequence, size, received_ns, _ = arrivals.popleft()
            handed = max(received_ns, handed_ns)
            self._text.chunk(sequence, size, received_ns, handed, max(handed, end_ns))

    def left(self) -> None:
        """What was not sent never will be."""
        self._text.close()
        if self._arrivals:
            now = time.time_ns()
            self._text = self._telemetry.lane(
                self.span, "tts", "in", {**self._mark, names.CHUNK_DROPPED: True}
            )
            self.sent(1 << 60, now, now)
            self._text.close()

    def audio(self, entry: Entry, sequence: int, rate_hz: int, handed_ns: int, end_ns: int) -> None:
        """A piece of audio was handed to the caller."""
        event: AudioProduced = entry.event
        self._out.chunk(
            sequence,
            len(event.audio),
            entry.at_ns or handed_ns,
            handed_ns,
            end_ns,
            event.start_offset_s,
            event.samples / rate_hz,
        )

    def end(self, after_s: float | None) -> None:
        """The utterance has ended, `after_s` seconds after its first text; None: now."""
        self._text.close()
        self._out.close()
        if self.interrupt is not None:
            self.interrupt.end()
        self.span.end(None if after_s is None else self.end_ns(after_s, 0))

    def end_ns(self, after_s: float | None, unknown_ns: int) -> int:
        """Return when the utterance ended, `after_s` seconds after its first text, in nanoseconds since the Unix epoch.

        `unknown_ns` for None.
        """
        return unknown_ns if after_s is None else self.start_ns + round(after_s * 1e9)


class SynthesisTrace(SessionTrace):
    """A synthesis session. `rate_hz`: of the audio that its caller gets."""

    def __init__(self, context: SessionContext, encoding: str, rate_hz: int) -> None:
        super().__init__(context, "tts", {names.AUDIO_ENCODING: encoding, names.AUDIO_RATE: rate_hz})
        self._rate_hz = rate_hz
        self._live: set[UtteranceTrace] = set()

    def utterance(self, utterance: Utterance, received_ns: int) -> UtteranceTrace:
        """A new utterance, whose first text came at `received_ns`."""
        self._generation += 1
        trace = UtteranceTrace(self, utterance, self._generation, received_ns)
        self._live.add(trace)
        return trace

    def interrupted(self, utterance: Utterance, received_ns: int) -> None:
        """The caller cancels."""
        trace = utterance.trace
        if trace is not None and trace.interrupt is None:
            trace.interrupt = self._telemetry.span(
                trace.span,
                names.INTERRUPT,
                {names.UTTERANCE_ID: utterance.utterance_id},
                start_ns=received_ns,
            )
            trace.barged_ns = received_ns

    def handed_over(self, entry: Entry, sequence: int, handed_ns: int, end_ns: int) -> None:
        """The caller's transport has an event."""
        event = entry.event
        match event:
            case AudioProduced():
                trace = event.utterance.trace
                if trace is None:
                    return
                trace.audio(entry, sequence, self._rate_hz, handed_ns, end_ns)
                first_s = event.utterance.metrics.time_to_first_audio_s
                if event.chunk_index == 0 and first_s is not None:
                    trace.span.set({names.FIRST_AUDIO_MS: milliseconds(first_s)})
                    self._record(instruments.FIRST_AUDIO, first_s, span=trace.span)
            case UtteranceCompleted():
                source = event.source.name if event.source is not None else ""
                self._end(event.utterance, "completed", {names.COMPLETION_SOURCE: source} if source else {})
            case UtteranceCancelled():
                self._cancelled(event, end_ns)
            case UtteranceFailed():
                if event.utterance.trace is not None:
                    event.utterance.trace.span.fail(event.error.reason)
                self._record(instruments.ERRORS, 1, event.error.reason)
                self._end(event.utterance, "failed", {})

    def late_audio(self, seconds: float) -> None:
        """Audio came for an utterance that was reported as completed."""
        self._telemetry.record(instruments.LATE_AUDIO, seconds)

    def failed(self, error: WavegateError) -> None:
        """What is being said fails, with the session."""
        for trace in list(self._live):
            trace.span.fail(error.reason)
            trace.left()
            self._end(trace.utterance, "failed", {})

    def close(self) -> None:
        for trace in list(self._live):
            trace.left()
            self._end(trace.utterance, "abandoned", {})
        super().close()

    def _cancelled(self, event: UtteranceCancelled, end_ns: int) -> None:
        trace = event.utterance.trace
        if trace is not None and trace.interrupt is not None:
            trace.interrupt.set(
                {
                    names.CANCEL_METHOD: event.method.value,
                    names.CANCEL_DISCARDED_MS: milliseconds(event.discarded_audio_s),
                }
            )
            # No later than the utterance, which ends before its last event is written: a child ends within its parent.
            trace.interrupt.end(min(end_ns, trace.end_ns(event.utterance.metrics.total_s, end_ns)))
            self._record(instruments.BARGE_IN, max(0, end_ns - trace.barged_ns) * 1e-9, span=trace.span)
        self._end(event.utterance, "cancelled", {names.CANCEL_METHOD: event.method.value})

    def _end(self, utterance: Utterance, outcome: str, more: Mapping[str, Attribute]) -> None:
        record = self._record
        trace, metrics = utterance.trace, utterance.metrics
        audio_s = metrics.audio_samples / self._rate_hz
        attributes: dict[str, Attribute] = {
            names.UTTERANCE_OUTCOME: outcome,
            names.UTTERANCE_CHARACTERS: metrics.input_character_count,
            names.CHUNKS: metrics.chunk_count,
            names.AUDIO_MS: milliseconds(audio_s),
            names.AUDIO_BYTES: metrics.audio_bytes,
            names.RECONNECTS: metrics.reconnect_count,
            names.ADMISSION_WAIT_MS: milliseconds(metrics.admission_wait_s),
            names.MAX_GAP_MS: milliseconds(metrics.max_gap_s),
            **more,
        }
        span = trace.span if trace is not None else None
        first_s, first_at = metrics.upstream_time_to_first_audio_s, metrics.first_received_at
        if first_s is not None:
            attributes[names.GEN_AI_TIME_TO_FIRST_CHUNK] = round(first_s, 9)
            attributes[names.UPSTREAM_FIRST_AUDIO_MS] = milliseconds(first_s)
            record(instruments.UPSTREAM_FIRST_AUDIO, first_s, span=span)
        if audio_s and first_at is not None and metrics.last_received_at is not None:
            attributes[names.REAL_TIME_FACTOR] = round((metrics.last_received_at - first_at) / audio_s, 6)
        if metrics.first_sent_at is not None:
            record(instruments.ADMISSION_WAIT, metrics.admission_wait_s, span=span)
        if utterance.upstreams:
            attributes[names.GEN_AI_RESPONSE_ID] = utterance.upstreams[-1].request_id
        record(instruments.UTTERANCES, 1, outcome)
        record(instruments.CHARACTERS, metrics.input_character_count)
        record(instruments.AUDIO_BYTES, metrics.audio_bytes, "tts", "out")
        record(instruments.AUDIO_SECONDS, audio_s, "tts")
        if trace is not None:
            trace.span.set(attributes)
            trace.end(metrics.total_s)
            self._live.discard(trace)


class _Turn:
    """One turn of a caller: its audio on the way in, its transcripts on the way out."""

    __slots__ = ("asked", "bytes_in", "chunks", "in_", "mark", "out", "seconds", "span", "start_ns", "under")

    def __init__(self, trace: TranscriptionTrace, generation: int, start_ns: int) -> None:
        telemetry = trace._telemetry
        self.start_ns = start_ns
        self.span = telemetry.span(
            trace._root,
            f"{names.SPEECH_TO_TEXT} {names.PULSE}",
            trace.described(generation),
            client=True,
            start_ns=start_ns,
        )
        self.mark: dict[str, Attribute] = {names.CHUNK_GENERATION: generation}
        self.in_ = telemetry.lane(self.span, "stt", "in", self.mark)
        self.out = telemetry.lane(self.span, "stt", "out", self.mark)
        self.under: Span | None = None
        """Its twin in a trace that the caller named."""
        self.asked = False
        """Whether the caller has ended it."""
        self.bytes_in = self.chunks = 0
        self.seconds = 0.0


class TranscriptionTrace(SessionTrace):
    """A transcription session."""

    def __init__(self, context: SessionContext, encoding: str, rate_hz: int, language: str) -> None:
        super().__init__(context, "stt", {names.AUDIO_ENCODING: encoding, names.AUDIO_RATE: rate_hz})
        self._language = language
        self._open_turns: deque[_Turn] = deque()
        """The last is the one that the caller speaks in, the first the one that is being understood."""
        self._arrivals: deque[tuple[_Turn, int, int, int, int, float, float]] = deque()
        self._transcripts: deque[_Turn | None] = deque()
        """The turns of the transcripts that were said and not handed over yet; None: it is of none."""
        self._rest: Lane | None = None
        """For transcripts that are of no turn: the last one of a session that has nothing more to say."""
        self._live: set[_Turn] = set()

    def described(self, generation: int) -> dict[str, Attribute]:
        """The attributes of a turn."""
        return {
            names.GEN_AI_OPERATION_NAME: names.SPEECH_TO_TEXT,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_OUTPUT_TYPE: "text",
            names.GEN_AI_REQUEST_MODEL: names.PULSE,
            names.GEN_AI_SPEECH_INPUT_LANGUAGE: self._language,
            names.CHUNK_GENERATION: generation,
        }

    def arrived(
        self, sequence: int, size: int, received_ns: int, end: int, offset_s: float, duration_s: float
    ) -> None:
        """A piece of audio, which ends at sample `end` of the session."""
        turn = self._spoken_in(received_ns)
        turn.chunks += 1
        turn.bytes_in += size
        turn.seconds += duration_s
        self._arrivals.append((turn, sequence, size, received_ns, end, offset_s, duration_s))

    def forwarded(self, until: int, handed_ns: int, end_ns: int) -> None:
        """The upstream's transport has the session's audio up to sample `until`."""
        arrivals = self._arrivals
        while arrivals and arrivals[0][4] <= until:
            turn, sequence, size, received_ns, _, offset_s, duration_s = arrivals.popleft()
            handed = max(received_ns, handed_ns)
            turn.in_.chunk(sequence, size, received_ns, handed, max(handed, end_ns), offset_s, duration_s)

    def finalize(self, finalize_id: str, traceparent: str, received_ns: int) -> None:
        """The caller ends its turn."""
        turn = self._spoken_in(received_ns)
        turn.asked = True
        if finalize_id:
            turn.span.set({names.FINALIZE_ID: finalize_id})
        if traceparent and turn.under is None:
            turn.under = self._telemetry.span(
                turn.span,
                f"{names.SPEECH_TO_TEXT} {names.PULSE}",
                self.described(self._generation),
                client=True,
                traceparent=traceparent,
                start_ns=turn.start_ns,
            )
            turn.span.link(turn.under)

    def said(self, event: Any) -> None:
        if isinstance(event, heard.Transcribed):
            if not self._open_turns and (event.text or not event.is_last):
                self._begin(time.time_ns())
            turn = self._open_turns[0] if self._open_turns else None
            self._transcripts.append(turn)
            if turn is not None and event.is_final and self._ends(turn, event):
                self._open_turns.popleft()
        else:
            super().said(event)

    def handed_over(self, entry: Entry, sequence: int, handed_ns: int, end_ns: int) -> None:
        """The caller's transport has an event."""
        event = entry.event
        if not isinstance(event, heard.Transcribed) or not self._transcripts:
            return
        turn = self._transcripts.popleft()
        if turn is None:
            self._rest = self._rest or self._telemetry.lane(self._root, "stt", "out", {})
        lane = self._rest if turn is None else turn.out
        assert lane is not None
        size = len(event.text.encode("utf-8", "replace"))
        length_s = max(0.0, event.end_s - event.start_s)
        lane.chunk(sequence, size, entry.at_ns or handed_ns, handed_ns, end_ns, event.start_s, length_s)
        if turn is None or not event.is_final:
            return
        attributes: dict[str, Attribute] = {names.FINAL_TRIGGER: event.final_trigger.value}
        if event.finalize_latency_s is not None:
            attributes[names.FINALIZE_LATENCY_MS] = milliseconds(event.finalize_latency_s)
            self._record(instruments.FINALIZE_LATENCY, event.finalize_latency_s, span=turn.span)
        if event.audio_latency_s is not None:
            attributes[names.TIME_TO_FINAL_MS] = milliseconds(event.audio_latency_s)
            self._record(instruments.TIME_TO_FINAL, event.audio_latency_s, span=turn.span)
        if event.upstream.request_id or event.upstream.session_id:
            attributes[names.GEN_AI_RESPONSE_ID] = event.upstream.request_id or event.upstream.session_id
        turn.span.set(attributes)
        if turn not in self._open_turns and turn not in self._transcripts:
            self._end(turn, attributes)

    def close(self) -> None:
        now = time.time_ns()
        dropped: dict[_Turn, Lane] = {}
        for turn, sequence, size, received_ns, _, offset_s, duration_s in self._arrivals:
            if turn not in dropped:
                dropped[turn] = self._telemetry.lane(
                    turn.span, "stt", "in", {**turn.mark, names.CHUNK_DROPPED: True}
                )
            handed_ns = max(received_ns, now)
            dropped[turn].chunk(sequence, size, received_ns, handed_ns, handed_ns, offset_s, duration_s)
        self._arrivals.clear()
        for lane in (*dropped.values(), *([self._rest] if self._rest is not None else ())):
            lane.close()
        for turn in list(self._live):
            self._end(turn, {})
        self._transcripts.clear()
        self._open_turns.clear()
        super().close()

    def _spoken_in(self, now_ns: int) -> _Turn:
        """The turn that the caller's audio is of: what follows a finalize is of the next one."""
        turns = self._open_turns
        return turns[-1] if turns and not turns[-1].asked else self._begin(now_ns)

    def _ends(self, turn: _Turn, final: heard.Transcribed) -> bool:
        """Whether nothing of the turn follows. The answer to a finalize is still to come after an endpoint."""
        if final.final_trigger is heard.FinalTrigger.ENDPOINT:
            return not turn.asked
        return final.final_trigger in _TURN_ENDS

    def _begin(self, start_ns: int) -> _Turn:
        self._generation += 1
        turn = _Turn(self, self._generation, start_ns)
        self._open_turns.append(turn)
        self._live.add(turn)
        return turn

    def _end(self, turn: _Turn, attributes: Mapping[str, Attribute]) -> None:
        sums: dict[str, Attribute] = {
            names.CHUNKS: turn.chunks,
            names.AUDIO_BYTES: turn.bytes_in,
            names.AUDIO_MS: milliseconds(turn.seconds),
        }
        self._record(instruments.AUDIO_BYTES, turn.bytes_in, "stt", "in")
        self._record(instruments.AUDIO_SECONDS, turn.seconds, "stt")
        turn.in_.close()
        turn.out.close()
        for span in (turn.under, turn.span):
            if span is not None:
                span.set({**attributes, **sums})
                span.end()
        self._live.discard(turn)
