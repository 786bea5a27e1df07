"""One synthesis session: utterances in, audio out, over one upstream connection at a time.

Utterances wait in a line. The first one is spoken: its text goes up as it comes, in one request after the
other (a `flush` or an IMMEDIATE delta closes one and opens the next), and its audio goes down into the event
log. Who does what:

- `submit` and `update_settings` (the caller's stream and the control plane) change the line at once;
- `SettingsSchedule` decides which utterance gets which settings;
- `_drive` is the only one that dials and sends;
- a link's receiver turns frames into events, and stops reading while the caller is behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import Violation, WavegateError
from wavegate_server.session.account import Claim
from wavegate_server.session.base import Session, State
from wavegate_server.session.context import SessionContext
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.events import (
    ConnectionChanged,
    ConnectionReason,
    ConnectionState,
    EndReason,
    EndSession,
    Mechanism,
    UpdateSettings,
    Upstream,
    Usage,
)
from wavegate_server.session.ledger import SettingsLedger
from wavegate_server.session.line import Line
from wavegate_server.session.log import EventLog
from wavegate_server.session.retake import Heard, NotTheSame
from wavegate_server.session.retry import QueueWait, RetryBudget
from wavegate_server.session.settings_schedule import SettingsSchedule
from wavegate_server.session.synthesis_events import (
    AudioProduced,
    CancelMethod,
    CancelUtterance,
    EndUtterance,
    FlushText,
    ReportPlayback,
    SpeakText,
    UtteranceCancelled,
    UtteranceCompleted,
    UtteranceFailed,
    UtteranceStarted,
    WordsTimed,
    chunks,
    unspeakable,
)
from wavegate_server.session.tracing import SynthesisTrace
from wavegate_server.session.transport import Transport, TransportClosed
from wavegate_server.session.tts_link import TtsLink, reason_of
from wavegate_server.session.utterance import Metrics, Utterance
from wavegate_server.waves import ending, tts
from wavegate_server.waves.settings import SYNTHESIS, Field, Place, Settings, unknown_languages

logger = logging.getLogger(__name__)

LOOK_S = ending.HAND_OVER_S
"""What a frame makes due is due no sooner than this after it. So while frames come, a look this often is enough, and
each frame need not reckon when the next thing is due."""
KEEPALIVE_S = 25.0
"""Idle time after which the upstream is told that the session lives; it hangs up after 60 s (tts-ws)."""
LEAST_PIECE_S = 0.02
"""Audio is cut into pieces no shorter than this for the sake of a lead."""
MAX_UNREAD_EVENTS = 1024
"""Events other than audio that may wait for the caller to read; then its messages, which make most of them, are
read no further."""

_ENDS = (UtteranceCompleted, UtteranceFailed)
_FATAL = (errors.UpstreamCredential, errors.UpstreamGone)
"""What dialling again cannot mend: utterance and session end both."""


class SynthesisSession(Session):
    """See the module's docstring."""

    kind = "tts"

    def __init__(
        self,
        context: SessionContext,
        audio_format: AudioFormat,
        settings: Settings,
        *,
        max_audio_lead_s: float | None = None,
        retry: RetryBudget | None = None,
    ) -> None:
        ledger = SettingsLedger(
            SYNTHESIS,
            settings,
            context.defaults,
            mechanism=self._mechanism,
            max_buffer_delay_s=max_buffer_delay_s(context.upstreams.template.tts_mode),
            require=require_voice,
        )
        log = EventLog(context.bounds.max_waiting_audio_s, max_audio_lead_s)
        trace = SynthesisTrace(context, audio_format.encoding.name, audio_format.sample_rate_hz)
        super().__init__(context, audio_format, ledger, log, trace)
        self.trace: SynthesisTrace = trace
        self._line = Line()
        self._schedule = SettingsSchedule(ledger, self._line, self._acknowledge)
        self._retry = retry or RetryBudget()
        self._queue_wait = QueueWait(context.bounds.max_queue_wait_s)
        self._link: TtsLink | None = None
        self._standby: TtsLink | None = None
        """A connection to another endpoint, opened to try a delta that needs it."""
        self._upstream = Upstream()
        """The latest connection, also when it has gone."""
        self._ready: tuple[Transport, float] | None = None
        """A connection that was opened ahead, taken and not used yet, and when it was opened."""
        self._dialling: asyncio.Task[TtsLink] | None = None
        self._wanted = True
        """Whether to dial before there is text to say."""
        self._reason = ConnectionReason.INITIAL
        """Why the next connection is opened: how the last one ended."""
        self._not_before: float | None = None
        """When to dial, or to say the text again, after a failure."""
        self._to_send: deque[str] = deque()
        """Messages beside the text: cancels and keepalives."""
        self._cancelling = False
        """Whether a cancel waits to be sent: until then the upstream counts its request as active."""
        self._room = asyncio.Event()
        self._room.set()
        account = self.target.account
        self._slot = Claim(
            account.requests,
            "active request",
            context.caller,
            self._wake.set,
            context.bounds.max_queue_wait_s,
        )
        self._socket = Claim(
            account.sockets, "connection", context.caller, self._wake.set, context.bounds.max_queue_wait_s
        )
        self._trial_socket = Claim(account.sockets, "connection", context.caller, self._wake.set, 0.0)
        lead_s = max(LEAST_PIECE_S, max_audio_lead_s) if max_audio_lead_s else 0.0
        self._longest_samples = int(lead_s * audio_format.sample_rate_hz)
        """Audio in larger pieces would run ahead of the listener by more than the lead; 0: in any pieces."""
        self._requests = 0
        self._warned_late: deque[str] = deque(maxlen=32)
        """Requests whose late audio the caller was warned of."""
        self._input_chars = 0
        self._audio_bytes = 0
        self._audio_samples = 0
        self._replayed_chars = 0

    # -- the caller's messages ----------------------------------------------------------------------------------

    async def ready(self) -> None:
        await self._room.wait()

    def end(self, command: EndSession) -> None:
        super().end(command)
        if self.state is not State.CONNECTING:
            self.state = State.DRAINING
        if self._line.open is not None:
            self._end_text(self._line.open)
        self._room.set()
        if command.discard:
            self._discard()

    def _handle(self, command: Any, now: float) -> None:
        match command:
            case SpeakText():
                self._speak(command, now)
            case FlushText():
                if (utterance := self._open(command.utterance_id, "flush")) is not None:
                    self._add(utterance, utterance.speakable.finish())
                    utterance.cut()
            case EndUtterance():
                if (utterance := self._open(command.utterance_id, "end_utterance")) is not None:
                    self._end_text(utterance)
                elif command.utterance_id in ("", self._line.refused):
                    self._line.refused = ""
            case CancelUtterance():
                self._cancel(command, now)
            case ReportPlayback():
                heard = [u for u in self._unended() if u.utterance_id == command.utterance_id]
                for utterance in heard:
                    utterance.playback_s = command.playback_offset_s
                if not heard:
                    self._unknown(command.utterance_id, "playback")
            case _:
                raise TypeError(f"not a command of a synthesis session: {type(command).__name__}")
        self._update_room()

    def _speak(self, command: SpeakText, now: float) -> None:
        utterance_id = command.utterance_id
        utterance = self._line.open
        if utterance is None or utterance_id not in ("", utterance.utterance_id):
            if utterance_id and utterance_id == self._line.refused:
                if command.end_utterance:
                    self._line.refused = ""
                return  # its failure was reported
            if self._line.is_used(utterance_id):
                self._warn(
                    "STALE_TEXT",
                    f"text for utterance {utterance_id!r}, which has ended, was dropped; use a new utterance_id",
                    utterance_id,
                    characters=str(len(command.text)),
                )
                return
            if utterance is not None:
                self._end_text(utterance)
            utterance = self._new_utterance(utterance_id or self._line.unused_id(), now)
        utterance.traceparent = utterance.traceparent or command.traceparent
        if utterance.trace is None:
            utterance.trace = self.trace.utterance(utterance, self.log.at_ns)
        utterance.last_input_sequence = self.input_sequence
        warned = bool(utterance.speakable.removed)
        text = utterance.speakable.add(command.text)
        if (error := self._refusal(utterance, command.text, text)) is not None:
            utterance.text_ended = command.end_utterance
            self._fail_utterance(utterance, error, now)
            return
        if utterance.speakable.removed and not warned:
            self._emit(unspeakable(utterance.speakable.removed, utterance.utterance_id))
        self._add(utterance, text)
        utterance.trace.arrived(self.input_sequence, command.text, self.log.at_ns, len(utterance.text))
        if command.end_utterance:
            self._end_text(utterance)

    def _add(self, utterance: Utterance, text: str) -> None:
        self._input_chars += len(text)
        utterance.add(text)

    def _end_text(self, utterance: Utterance) -> None:
        self._add(utterance, utterance.speakable.finish())
        self._line.end_text(utterance)

    def _new_utterance(self, utterance_id: str, now: float) -> Utterance:
        utterance = Utterance(
            utterance_id,
            self.ledger.latest,
            self.ledger.latest_revision,
            self.input_sequence,
            Metrics(first_text_at=self._arrived_at),
            make_encoder(self.audio_format),
            self.audio_format.sample_rate_hz,
        )
        self._line.append(utterance)
        return utterance

    def _refusal(self, utterance: Utterance, given: str, text: str) -> WavegateError | None:
        """What is wrong with a piece of text; `text` is what can be spoken of `given`."""
        bounds = self.context.bounds
        if len(given) > bounds.max_text_message_chars:
            wrong = (
                f"at most {bounds.max_text_message_chars} characters a message, got {len(given)}; "
                "send it in pieces"
            )
        elif len(utterance.text) + len(text) > bounds.max_utterance_chars:
            wrong = f"at most {bounds.max_utterance_chars} characters an utterance; begin a new one at a sentence end"
        else:
            return None
        return errors.InvalidInput.field("text.text", wrong)

    def _open(self, utterance_id: str, what: str) -> Utterance | None:
        """The open utterance, if it is the one meant; else a warning."""
        utterance = self._line.open
        if utterance is not None and utterance_id in ("", utterance.utterance_id):
            utterance.last_input_sequence = self.input_sequence
            return utterance
        if not self._line.refused or utterance_id not in ("", self._line.refused):
            self._unknown(utterance_id, what)  # else its failure was reported
        return None

    def _unknown(self, utterance_id: str, what: str) -> None:
        which = f"utterance {utterance_id!r} is not open" if utterance_id else "no utterance is open"
        self._warn("UNKNOWN_UTTERANCE", f"{what}: {which}; nothing was done", utterance_id, input=what)

    # -- cancelling ---------------------------------------------------------------------------------------------

    def _unended(self) -> list[Utterance]:
        """What the caller has not heard the end of: first what has ended, but whose audio still waits for it."""
        ended: dict[str, Utterance] = {}
        unheard: set[str] = set()
        for event in self.log:
            match event:
                case AudioProduced():
                    unheard.add(event.utterance.utterance_id)
                case UtteranceCompleted() | UtteranceFailed():
                    ended[event.utterance.utterance_id] = event.utterance
        return [*(u for i, u in ended.items() if i in unheard), *self._line]

    def _cancel(self, command: CancelUtterance, now: float) -> None:
        chosen = [u for u in self._unended() if command.utterance_id in ("", u.utterance_id)]
        if not chosen:
            which = f"utterance {command.utterance_id!r}" if command.utterance_id else "nothing"
            state = "is not being spoken" if command.utterance_id else "is being spoken"
            self._warn("NOTHING_TO_CANCEL", f"{which} {state}", command.utterance_id)
            return
        # What is spoken first, so that its stale audio stops first; the offset is of that utterance.
        for index, utterance in enumerate(chosen):
            self.trace.interrupted(utterance, self.log.at_ns)
            self._cancel_one(utterance, command.playback_offset_s if index == 0 else None, now)
        self._schedule.apply_due(now, self.input_sequence)

    def _cancel_one(self, utterance: Utterance, playback_s: float | None, now: float) -> None:
        rate_hz = self.audio_format.sample_rate_hz
        total_s = utterance.metrics.audio_samples / rate_hz if utterance.whole else None
        method = self._stop_upstream(utterance, now)
        discarded = self._take_back(utterance)
        delivered_s = utterance.metrics.audio_samples / rate_hz
        heard_s = playback_s if playback_s is not None else utterance.playback_s
        heard_s = delivered_s if heard_s is None else min(heard_s, delivered_s)
        spoken, remaining, source = utterance.spoken(heard_s, total_s)
        cancelled = UtteranceCancelled(utterance, method, spoken, remaining, source, discarded / rate_hz)
        if not utterance.over:
            self._leave(utterance, now)
            self._emit(cancelled)
            self._catch_up(now)
        else:
            # It had ended; its caller had not heard so. What has begun since stays behind its end.
            self.log.replace(
                lambda event: isinstance(event, _ENDS) and event.utterance is utterance, cancelled
            )

    def _stop_upstream(self, utterance: Utterance, now: float) -> CancelMethod:
        """Have the upstream say no more of an utterance, as far as that can be."""
        requests = utterance.open_requests
        if not utterance.started and not requests:
            return CancelMethod.NOT_SENT
        link = self._link
        if link is None or not requests:
            return CancelMethod.DISCARD
        messages = [m for request in requests for m in link.protocol.cancel(request, now)]
        if messages and link.protocol.reusable:
            self._to_send.extend(messages)
            self._cancelling = True
            return CancelMethod.UPSTREAM_CANCEL
        is_behind = utterance is not self._line.head and self._request_open()
        self._free_slot(cut=not link.protocol.reusable and not is_behind)
        if link.protocol.reusable:
            return CancelMethod.DISCARD
        if is_behind:
            # The one before it is spoken to its end; then the connection goes, and with it what was sent ahead.
            self._want_standby(link.url)
            link.drop_reason = ConnectionReason.UTTERANCE_CANCEL
            return CancelMethod.DISCARD
        link.protocol.abandon()
        self._return_ahead()
        self._want_standby(link.url)
        link.drop_reason = ConnectionReason.UTTERANCE_CANCEL
        self._wanted = True
        return CancelMethod.RECONNECT

    def _take_back(self, utterance: Utterance) -> int:
        """Take what waits of an utterance out of the caller's way; the samples that are not delivered."""
        taken = self.log.take_back(
            lambda event: (
                (isinstance(event, AudioProduced) and event.utterance is utterance)
                or (isinstance(event, WordsTimed) and event.utterance_id == utterance.utterance_id)
            )
        )
        if utterance.started:
            self.log.forget_lead()
        metrics = utterance.metrics
        samples = 0
        for event in taken:
            if isinstance(event, AudioProduced):
                samples += event.samples
                metrics.chunk_count -= 1
                metrics.audio_bytes -= len(event.audio)
                self._audio_bytes -= len(event.audio)
        metrics.audio_samples -= samples
        self._audio_samples -= samples
        return samples

    # -- settings -----------------------------------------------------------------------------------------------

    def _mechanism(self, field: Field, old: Settings, new: Settings) -> Mechanism:
        if field.place is Place.GATEWAY:
            return Mechanism.IN_PLACE
        if field.name in ("model", "language_code"):
            changed = {**old, field.name: new.get(field.name, "")}
            if self._endpoint(old) != self._endpoint(changed):
                return Mechanism.RECONNECT
        return Mechanism.NEXT_UTTERANCE

    def _take_update(self, update: UpdateSettings, now: float) -> None:
        if self._schedule.take(update, now, self.input_sequence):
            self._warn_languages(update.delta)

    def _warn_languages(self, settings: Settings) -> None:
        for name, tag in unknown_languages(SYNTHESIS, settings):
            self._warn(
                "UNKNOWN_LANGUAGE",
                f"{name} {tag!r} is not in the gateway's table; it is passed on as it is",
                field=name,
            )

    # -- the upstream's events ----------------------------------------------------------------------------------

    def _take_events(self, link: TtsLink, events: Iterable[tts.TtsEvent], now: float) -> None:
        for event in events:
            if isinstance(event, tts.RequestFailed | tts.ConnectionFailed) and not link.protocol.reusable:
                # First what happened to the connection, then what that means.
                self._lose(link, link.reason(event.error), event.error)
            self._on_event(link, event, now)
            if not isinstance(event, tts.AudioReceived):  # the commonest, and nothing for the driver
                self._wake.set()

    def _on_event(self, link: TtsLink, event: tts.TtsEvent, now: float) -> None:
        if isinstance(event, tts.ConnectionFailed):
            if isinstance(event.error, (*_FATAL, errors.UpstreamCapacity)):
                self.fail(event.error)
            return
        if isinstance(event, tts.LateAudioReceived):
            self._on_late_audio(event)
            return
        if isinstance(event, tts.RequestReturned):
            self._return_ahead()
            return
        utterance = self._line.head
        if utterance is None or utterance.request is not event.request:
            return
        match event:
            case tts.AudioReceived():
                try:
                    self._on_audio(link, utterance, event.pcm, now)
                except NotTheSame:
                    if utterance.doubted_s is None:
                        self._fail_utterance(utterance, _otherwise(utterance), now)
                        self._wake.set()
                    else:
                        utterance.is_compared = True
            case tts.WordReceived():
                if utterance.settings.get("word_timings"):
                    word = utterance.add_word(event.text, event.start_s, event.end_s)
                    if word is not None:
                        self._emit(WordsTimed(utterance.utterance_id, (word,)))
            case tts.RequestCompleted():
                self._on_completed(link, utterance, event, now)
            case tts.RequestFailed():
                self._on_failed(utterance, event, now)

    def _on_audio(self, link: TtsLink, utterance: Utterance, pcm: bytes, now: float) -> None:
        utterance.metrics.received(now)
        if utterance.is_compared:
            return
        if utterance.repetition is not None:
            pcm = utterance.repetition.receive(pcm)
            if utterance.repetition.caught_up:
                utterance.repetition = None
        pcm = utterance.whole_samples(pcm)
        if pcm:
            if self._queue_wait.since is not None:
                self._queue_wait.over()  # only by what was not heard before: it may be refused at the same place again
            utterance.heard.add(pcm)
            self._produce(utterance, utterance.encoder.encode(pcm), len(pcm) // 2)
            link.progressed = link.progressed or utterance.is_beyond_repeated

    def _on_late_audio(self, event: tts.LateAudioReceived) -> None:
        """Audio came for a request that counted as spoken whole: its tail was cut off."""
        self.trace.late_audio(event.seconds)
        request = event.request
        head = self._line.head
        if head is not None and head.utterance_id == request.utterance_id:
            # What followed was heard already, so that it cannot be put in its place any more.
            self._fail_utterance(
                head,
                errors.UpstreamProtocol(
                    "the upstream sent audio of a part of this utterance after its next part"
                ),
                self._now(),
            )
            return
        if request.request_id in self._warned_late:
            return
        self._warned_late.append(request.request_id)
        self._warn(
            "LATE_AUDIO",
            f"the upstream sent more audio of utterance {request.utterance_id!r} after its end was reported; it was "
            "dropped",
            request.utterance_id,
        )

    def _produce(self, utterance: Utterance, audio: bytes, samples: int) -> None:
        size = self.ledger.settings.get("max_chunk_bytes")
        if self._longest_samples and samples > self._longest_samples:
            share = len(audio) * self._longest_samples // samples
            size = min(share, size or share)
        for chunk in chunks(utterance, audio, samples, self.audio_format, size):
            self._audio_samples += chunk.samples
            self._audio_bytes += len(chunk.audio)
            # Straight into the log: audio comes after `session_started`, is watched by nobody and is bounded there.
            self.log.append(chunk, self.input_sequence, chunk.samples / self.audio_format.sample_rate_hz)

    def _on_completed(
        self, link: TtsLink, utterance: Utterance, event: tts.RequestCompleted, now: float
    ) -> None:
        if utterance.is_compared and event.is_unconfirmed:
            self._free_slot()
            self._end_as_heard(utterance, now)
            return
        if utterance.repetition is not None:
            self._fail_utterance(utterance, _otherwise(utterance), now)
            return
        self._retry.delivered()
        self._queue_wait.over()
        upstream = link.upstream
        utterance.upstreams.append(
            Upstream(
                upstream.session_id,
                event.request.upstream_request_id,
                upstream.endpoint,
                upstream.connection_index,
            )
        )
        self._free_slot(cut=link.drop_reason is ConnectionReason.UTTERANCE_CANCEL)
        utterance.completion = event.source
        utterance.is_unconfirmed = utterance.is_unconfirmed or event.is_unconfirmed
        utterance.finish_request()
        if utterance.ahead is not None:
            self._catch_up(now)
        elif utterance.text_ended and not utterance.has_words:
            self._complete(utterance, now)

    def _complete(self, utterance: Utterance, now: float) -> None:
        self._produce(utterance, utterance.encoder.finish(), 0)
        utterance.whole = True
        self._leave(utterance, now)
        self._emit(UtteranceCompleted(utterance, utterance.completion, utterance.is_unconfirmed))
        self._schedule.apply_due(now, self.input_sequence)
        self._catch_up(now)

    def _on_failed(self, utterance: Utterance, event: tts.RequestFailed, now: float) -> None:
        error = event.error
        self._free_slot(cut=self._link is None)
        if event.is_doubtful:
            heard_s = event.request.audio_bytes / 2 / self.audio_format.sample_rate_hz
            if utterance.is_compared and ending.are_alike(utterance.doubted_s or 0.0, heard_s):
                self.target.habits.ended_alike()
                self._end_as_heard(utterance, now)
                return
            is_first_doubt, utterance.doubted_s = utterance.doubted_s is None, heard_s
            if is_first_doubt:
                # Perhaps nothing failed at all: looking again is no attempt to mend.
                self._say_reconnecting(error, 0.0)
                self._say_again(utterance, now)
                return
        if isinstance(error, _FATAL) or error.metadata.get("close_code") == "1008":
            self._fail_utterance(utterance, error, now)
            self.fail(error)
            return
        delay_s = self._delay_s(utterance, error, now)
        if delay_s is None:
            self._fail_utterance(utterance, error, now)
            return
        self._not_before = now + delay_s
        if self._link is None:
            self._say_reconnecting(error, delay_s)
        self._say_again(utterance, now)

    def _end_as_heard(self, utterance: Utterance, now: float) -> None:
        """The request was whole the first time, though nothing said so."""
        utterance.completion = tts.Completion.QUIET_TIMEOUT
        utterance.is_unconfirmed = True
        utterance.finish_request()
        if utterance.text_ended and not utterance.has_words:
            self._complete(utterance, now)

    def _say_again(self, utterance: Utterance, now: float) -> None:
        """What the current request has left unheard goes back in line."""
        before = utterance.waiting_chars
        left = utterance.say_again()
        if self._link is None:
            utterance.metrics.reconnect_count += 1
            self._replayed_chars += utterance.waiting_chars - before
        if not left and utterance.text_ended:
            # The connection went after the last word.
            utterance.completion = utterance.completion or tts.Completion.QUIET_TIMEOUT
            self._complete(utterance, now)

    def _delay_s(self, utterance: Utterance | None, error: WavegateError, now: float) -> float | None:
        """Whether to try again, and after how long; a full account only within the queue's time."""
        if not isinstance(error, errors.UpstreamCapacity):
            return self._retry.next_delay_s(error)
        delay_s = self._queue_wait.next_delay_s(error, now)
        if utterance is not None and delay_s is not None:
            utterance.metrics.admission_wait_s += delay_s
        return delay_s

    def _fail_utterance(self, utterance: Utterance, error: WavegateError, now: float) -> None:
        self._stop_upstream(utterance, now)
        sent_s = utterance.metrics.audio_samples / self.audio_format.sample_rate_hz
        if not utterance.text_ended:
            self._line.refused = utterance.utterance_id
        self._leave(utterance, now)
        self._emit(UtteranceFailed(utterance, error, sent_s))
        self._schedule.apply_due(now, self.input_sequence)
        self._catch_up(now)

    def _leave(self, utterance: Utterance, now: float) -> None:
        """An utterance has ended, whatever became of it."""
        if utterance.trace is not None:
            utterance.trace.left()
        if utterance is self._line.head:
            self._queue_wait.over()
            if not self._cancelling:
                self._free_slot()  # it may have waited for its turn
        utterance.pieces.clear()
        utterance.forget_request()
        utterance.ahead = None
        self._line.remove(utterance)
        self._update_room()
        self._wake.set()

    # -- driving ------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        self._rearm()
        while self.ended is None:
            self._wake.clear()
            if await self._advance() or self.ended is not None:
                continue
            if self._line.head is None and self._link is not None:
                self._socket.offer(self._give_up_socket)
            if self._is_idle(self._now()):
                self._slot.offer(self._slot.give_back)
            if self._ending is not None and self.state is not State.CONNECTING and not self._line:
                self._finish(self._end_reason or EndReason.CLIENT_END, self._failure)
                return
            self._rearm()
            await self._wake.wait()

    def _discard(self) -> None:
        """Stop now: what was begun ends with the session."""
        now = self._now()
        self._release()
        failure = self._failure
        # Before `session_started` nothing was begun, and so nothing ends.
        if self.state is not State.CONNECTING and self.ended is None:
            if failure is None or isinstance(failure, errors.SessionClosed):
                for utterance in self._unended():
                    self._cancel_one(utterance, None, now)
            else:
                for utterance in self._line:
                    self._fail_utterance(utterance, failure, now)
        self._finish(self._end_reason or EndReason.CLIENT_END, failure)

    def _break_off(self, error: WavegateError) -> None:
        if self.state is not State.CONNECTING:
            for utterance in self._line:
                self._fail_utterance(utterance, error, self._now())
        super()._break_off(error)

    async def _advance(self) -> bool:
        """Do the next thing that can be done; False when there is none."""
        now = self._now()
        link = self._link
        if link is not None:
            if link.protocol.disobeyed:
                self._replace_disobedient(link)
                return True
            if not link.protocol.reusable and not self._request_open():
                self._lose(link, link.reason(None), None)
                return True
            if link.protocol.wants_proof and not link.asked and not link.broken:
                await self._ask(link)
                return True
            if self._to_send and not link.broken:
                await self._send(link, self._to_send.popleft())
                if self._cancelling and not self._to_send:
                    self._free_slot(cut=link.broken)
                return True
        trial = self._schedule.trial
        if trial is not None and self.state is not State.CONNECTING and (self._line or self._ending is None):
            await self._try_settings(trial.settings)
            return True
        utterance = self._to_speak(now)
        settings = utterance.next_settings if utterance is not None else self.ledger.settings
        endpoint = self._endpoint(settings)
        if link is not None and link.endpoint != endpoint and not self._request_open():
            self._lose(link, ConnectionReason.SETTINGS_UPDATE, None)
            self._wanted = True
            return True
        if utterance is None and not self._wanted:
            if link is None:
                self._socket.give_back()  # whoever waited for it has gone
            return False
        held_back = self._not_before is not None
        if link is not None:
            self._wanted = False
            self._socket.ask(now)  # it is needed: an offer of it is taken back
            if utterance is None or link.broken or held_back:
                return False
            if not self._request_open() and not self._admitted(utterance, now):
                return utterance.over
            await self._say(link, utterance, now)
            return True
        if held_back:
            return False
        if utterance is None and self._ending is not None and self.state is not State.CONNECTING:
            self._wanted = False
            return False
        self._choose_again(settings)
        if not self._has_socket(utterance, endpoint, now):
            return self.ended is not None or (utterance is not None and utterance.over)
        await self._connect(utterance, endpoint)
        return True

    def _choose_again(self, settings: Settings) -> None:
        """Before a connection is opened: move to another account, if the key of this one is gone."""
        if self._standby is not None:
            return  # it is open already, and holds its account's place
        before = self.target.account
        self._choose_target(settings)
        account = self.target.account
        if account is not before:
            self._slot.give_back(before.slot_linger_s)
            self._slot.move(account.requests)
            self._socket.move(account.sockets)
            self._trial_socket.move(account.sockets)

    def _has_socket(self, utterance: Utterance | None, endpoint: str, now: float) -> bool:
        """Whether a connection may be opened, or stands ready; waits for that, or lets what needs it fail."""
        if self._standby is not None and self._trial_socket.held:
            self._socket.take_over(self._trial_socket)
            return True
        standby = self.target.account.standby
        if standby is not None and self._ready is None and not self._socket.held:
            taken = standby.take(self._url(endpoint))
            if taken is not None:
                transport, ticket, opened_at = taken
                self._socket.adopt(ticket)
                self._ready = transport, opened_at
        if self._socket.ask(now, self._queue_wait.since):
            return True
        if utterance is not None:
            self._queue_wait.began(now)
        if (error := self._socket.refused(now)) is not None:
            if self.state is State.CONNECTING:
                raise error
            self._wanted = False
            if utterance is not None:
                self._fail_utterance(utterance, error, now)
        return False

    def _replace_disobedient(self, link: TtsLink) -> None:
        """The upstream still speaks what was cancelled: only another connection stops it."""
        utterance = self._line.head
        request = utterance.request if utterance is not None else None
        link.drop_reason = ConnectionReason.UTTERANCE_CANCEL
        if request is not None and request.audio_bytes:
            link.protocol.disobeyed = False  # the next utterance is heard already: let it finish
            return
        link.protocol.abandon()
        self._free_slot(cut=True)
        self._want_standby(link.url)
        self._wanted = True
        self._lose(link, ConnectionReason.UTTERANCE_CANCEL, None)
        if utterance is not None and request is not None:
            self._say_again(utterance, self._now())

    def _request_open(self) -> bool:
        head = self._line.head
        return head is not None and head.request is not None

    def _to_speak(self, now: float) -> Utterance | None:
        """The utterance that has something to send now; what has nothing to say is completed on the way."""
        while (utterance := self._line.head) is not None:
            if utterance.request is not None:
                return self._to_speak_behind(utterance, now)
            if utterance.has_words:
                return utterance
            if not utterance.text_ended:
                return None
            self._complete(utterance, now)  # all of it is spoken, or it was blank
        return None

    def _to_speak_behind(self, head: Utterance, now: float) -> Utterance | None:
        """The utterance that has something to send now, while the request of `head` is open."""
        link, request = self._link, head.request
        if link is None or request is None:
            return None
        if not request.closing:
            return head if head.takes_text else None
        for utterance in self._line:
            if utterance.ahead is not None:
                return utterance if utterance.takes_text else None
        for utterance in self._line:
            if utterance.has_words:
                may = (
                    self._schedule.trial is None and self._endpoint(utterance.next_settings) == link.endpoint
                )
                return utterance if may and link.protocol.may_follow(now) else None
            if not utterance.text_ended:
                return None  # more of it may come
        return None

    def _catch_up(self, now: float) -> None:
        """What was sent ahead is what is spoken now, if all before it has ended."""
        while (head := self._line.head) is not None and head.request is None:
            if head.ahead is not None:
                head.catch_up()
                self._begin_request(head)
                return
            is_behind = any(u.ahead is not None for u in self._line)
            if not is_behind or head.has_words or not head.text_ended:
                return
            self._complete(head, now)  # it was blank

    def _return_ahead(self) -> None:
        """What was sent ahead has to be sent again."""
        for utterance in self._line:
            utterance.return_ahead()
        self._update_room()
        self._wake.set()

    def _is_idle(self, now: float) -> bool:
        """Whether the account's place is kept only until the end of what was spoken can be reported."""
        if self._link is None or self._cancelling:
            return False
        at = self._link.protocol.idle_at()
        return at is not None and now >= at

    def _admitted(self, utterance: Utterance, now: float) -> bool:
        """Whether the account lets another request be active; waits for it, or fails the utterance."""
        if self._slot.ask(now, self._queue_wait.since):
            utterance.metrics.admission_wait_s += self._slot.waited_s(now)
            return True
        self._queue_wait.began(now)
        if (error := self._slot.refused(now)) is not None:
            self._fail_utterance(utterance, error, now)
        return False

    def _free_slot(self, *, cut: bool = False) -> None:
        """The request is over. One whose connection was cut may count as active for some time yet."""
        self._cancelling = False
        if not cut and any(not request.ended for u in self._line for request in u.open_requests):
            return  # it holds for what was sent ahead, too
        self._slot.give_back(self.target.account.slot_linger_s if cut else 0.0)

    def _give_up_socket(self) -> None:
        """Another session needs a connection, and this one has no use for its own now."""
        link = self._link
        if link is not None and self._line.head is None:
            self._lose(link, ConnectionReason.CONCURRENCY_LIMIT, None)

    def _want_standby(self, url: str) -> None:
        """Have a connection ready for the utterance that follows the next barge-in."""
        target, upstreams, dialer = self.target, self.context.upstreams, self.context.dialer
        if target.account.standby is None:
            return

        async def open_one() -> Transport:
            if not upstreams.holds(target):
                raise errors.UpstreamCredential("the key was taken away")
            return await dialer.dial(url, target.headers())

        target.account.standby.want(url, open_one)

    async def _say(self, link: TtsLink, utterance: Utterance, now: float) -> None:
        """Send the utterance's next message."""
        request = utterance.newest_request
        taken = utterance.take()
        if taken is None:
            raise AssertionError(f"{utterance!r} has nothing to say")
        text, last, is_cut = taken
        if request is None or request.closing:
            self._requests += 1
            request = tts.Request(
                f"{self.session_id[-12:]}-{self._requests}", utterance.next_settings, utterance.utterance_id
            )
            if self._request_open():
                utterance.send_ahead(request)
            else:
                utterance.request = request
                self._begin_request(utterance)
        utterance.note_sent(text, is_cut=is_cut)
        if utterance.metrics.first_sent_at is None:
            utterance.metrics.first_sent_at = now
        self._update_room()
        until, handed_ns = len(utterance.text) - utterance.waiting_chars, time.time_ns()
        for message in link.protocol.speak(request, text, last=last, now=now):
            await self._send(link, message)
        if utterance.trace is not None:
            utterance.trace.sent(until, handed_ns, time.time_ns())

    def _begin_request(self, utterance: Utterance) -> None:
        """A request of the utterance is the one that is spoken from now on."""
        utterance.is_compared = False
        if utterance.repetition is not None and utterance.request is not None:
            utterance.request.doubted_audio_s = utterance.doubted_s
            utterance.request.least_audio_s = (
                utterance.heard.size_bytes / 2 / self.audio_format.sample_rate_hz
            )
        if utterance.repetition is None:
            utterance.heard = Heard()
            utterance.request_base_s = utterance.metrics.audio_samples / self.audio_format.sample_rate_hz
        if not utterance.started:
            utterance.started = True
            self._emit(
                UtteranceStarted(
                    utterance.utterance_id, utterance.first_input_sequence, utterance.settings_revision
                )
            )

    async def _send(self, link: TtsLink, message: str) -> None:
        link.last_sent_at = self._now()
        self._rearm()
        try:
            await link.transport.send(message)
        except TransportClosed:
            link.broken = True  # what it said before it closed is still to be read
        except WavegateError as exc:
            link.close_code = 1006
            self._take_events(link, link.protocol.failed(exc), self._now())
            self._lose(link, link.reason(exc), exc)

    async def _ask(self, link: TtsLink) -> None:
        """Ask whether the upstream is there: silence is an end only then."""
        asked_at = self._now()
        link.asked = True

        def answered() -> None:
            link.asked = False
            link.protocol.answered(asked_at)
            self._alarm.look_by(self._now())

        try:
            await link.transport.ping(answered)
        except (TransportClosed, WavegateError):
            link.broken = True  # its receiver will say why

    def _keep_alive(self, link: TtsLink, now: float) -> None:
        """Tell the upstream that the session lives."""
        link.last_sent_at = now
        head = self._line.head
        if head is None or head.request is None:
            self._to_send.extend(link.protocol.keepalive(self.ledger.settings))
        else:
            # A blank would fall into the text. All that was said so far is long spoken, so its request may as
            # well end: what comes next begins another.
            head.cut()

    # -- connections --------------------------------------------------------------------------------------------

    def _endpoint(self, settings: Settings) -> str:
        """Scheme, host and path that serve these settings."""
        language = settings.get("language_code", "")
        target = self.context.upstreams.located(self.target, self.kind, language)
        return target.websocket_url(tts.path_of(settings, old_paths=target.old_tts_path))

    async def _connect(self, utterance: Utterance | None, endpoint: str) -> None:
        """Have a connection to say `utterance` over. On failure: wait, or let the utterance or the session fail."""
        attempt, attempts = self._retry.attempt, self._retry.attempts
        link, self._standby = self._standby, None
        if link is None or link.endpoint != endpoint:
            if link is not None:
                link.release()
            if self.state is State.ACTIVE:
                self.state = State.RECONNECTING
            self._retry.dialled()
            try:
                link = await self._open_link(endpoint, attempt)
            except WavegateError as exc:
                self._dial_failed(utterance, exc)
                return
            if link is None:
                return  # the session was told to stop
            self._retry.connected()
        self._link = link
        self._wanted = False
        first = self.state is State.CONNECTING
        self.state = self._settled_state()
        if utterance is None:
            self._queue_wait.over()
        if first:
            self._emit(self._started())
            self._warn_languages(self.ledger.settings)
        else:
            self.reconnect_count += 1
        replayed, self._replayed_chars = self._replayed_chars, 0
        self._emit(
            ConnectionChanged(
                ConnectionState.CONNECTED,
                self._reason,
                link.upstream,
                attempt=attempt,
                max_attempts=attempts,
                handshake_s=link.handshake_s,
                replayed_character_count=replayed,
            )
        )
        link.receiver = asyncio.create_task(self._receive(link), name=f"receive {self.session_id}")

    async def _open_link(self, endpoint: str, attempt: int) -> TtsLink | None:
        """Dial. None: the session was told to stop meanwhile."""
        self._dialling = asyncio.create_task(self._dial_link(endpoint, attempt))
        try:
            link = await self._dialling
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None
        finally:
            self._dialling = None
        if self.ended is not None:
            link.release()
            return None
        return link

    async def _dial_link(self, endpoint: str, attempt: int) -> TtsLink:
        target = self.target
        url = self._url(endpoint)
        protocol = tts.TtsProtocol(
            target.tts_mode,
            self.audio_format.sample_rate_hz,
            self.context.client_session_id or self.session_id,
            target.habits,
            alive_at=0.0,
            counts_requests=bool(target.account.requests.limit),
        )
        ready, self._ready = self._ready, None
        base = await self._dial(url, attempt) if ready is None else self._adopt(url, ready[0])
        if target.tts_mode is tts.Mode.FLUSH or not target.habits.obeys_cancel(self._now()):
            self._want_standby(url)  # every barge-in costs a connection
        link = TtsLink(base, protocol)
        if ready is not None:
            link.opened_ahead = True
            link.last_sent_at = ready[1]  # the upstream's idle clock runs since then
        return link

    def _url(self, endpoint: str) -> str:
        # Never shorter than what keepalives keep open: an utterance may be long, and its caller silent.
        timeout_s = max(round(2 * KEEPALIVE_S), round(self.context.bounds.idle_timeout_s))
        return f"{endpoint}?{urlencode({'timeout': timeout_s})}"

    def _dial_failed(self, utterance: Utterance | None, error: WavegateError) -> None:
        now = self._now()
        fatal = isinstance(error, _FATAL)
        delay_s = None if fatal else self._delay_s(utterance, error, now)
        if delay_s is not None:
            self._not_before = now + delay_s
            if self.state is not State.CONNECTING:
                self._say_reconnecting(error, delay_s)
            return
        if self.state is State.CONNECTING:
            raise error
        self.state = self._settled_state()
        self._wanted = False
        if utterance is not None and not utterance.over:
            self._fail_utterance(utterance, error, now)
        if fatal:
            self.fail(error)

    async def _try_settings(self, settings: Settings) -> None:
        """Open a connection to the endpoint that a delta needs, and say whether that can be had."""
        endpoint = self._endpoint(settings)
        # Where the account has no room for another connection, or its key is gone, it cannot be tried beforehand.
        if (
            self.context.upstreams.holds(self.target)
            and self._trial_socket.ask(self._now())
            and (self._link is None or self._link.endpoint != endpoint)
        ):
            try:
                link = await self._open_link(endpoint, 1)
            except WavegateError as exc:
                self._trial_socket.give_back()
                self._schedule.refused(exc, self._now(), self.input_sequence)
                return
            if link is None:
                return
            if self._standby is not None:
                self._standby.release()
            self._standby = link
        else:
            self._trial_socket.give_back()
        self._schedule.proven(self._now(), self.input_sequence)

    def _settled_state(self) -> State:
        return State.ACTIVE if self._ending is None else State.DRAINING

    def _say_reconnecting(self, error: WavegateError, delay_s: float) -> None:
        counted = not isinstance(error, errors.UpstreamCapacity)
        self._emit(
            ConnectionChanged(
                ConnectionState.RECONNECTING,
                reason_of(error),
                self.upstream(),
                attempt=self._retry.attempt,
                max_attempts=self._retry.attempts if counted else 0,
                next_retry_delay_s=delay_s,
                cause=error,
            )
        )

    async def _receive(self, link: TtsLink) -> None:
        """Read one connection to its end."""
        protocol = link.protocol
        try:
            while self._link is link:
                message = await link.transport.recv()
                link.delivered = True
                self.log.at_ns = time.time_ns()
                now = self._now()
                events = protocol.receive(message, now)
                self._take_events(link, events, now)
                self._alarm.look_by(now + LOOK_S)
                if not events or not protocol.reusable:
                    self._wake.set()  # a `complete`, perhaps: the next text may be sent
                if self.log.full:
                    await self.log.room()
                    protocol.touch(self._now())
                    self._rearm()
        except TransportClosed as exc:
            self.log.at_ns = time.time_ns()
            now = self._now()
            link.close_code = exc.code if exc.code is not None else 1006
            stall = errors.UpstreamStalled(exc.reason) if exc.stalled else None
            ends = protocol.closed(exc.code, exc.reason, now) if stall is None else protocol.failed(stall)
            self._take_events(link, ends, now)
            self._lose(link, link.reason(stall), stall)
        except Exception:
            logger.exception("session failed unexpectedly")
            self.fail(
                errors.GatewayBug("the gateway failed; its log has the details under this session's trace id")
            )

    def _lose(self, link: TtsLink, reason: ConnectionReason, error: WavegateError | None) -> None:
        """A connection has gone, or is let go."""
        if self._link is not link:
            return
        self._upstream = link.upstream
        self._link = None
        self._return_ahead()
        self._socket.give_back()
        self._to_send.clear()
        if self._cancelling:
            self._free_slot(cut=True)
        self._reason = reason
        self._retry.connection_ended(self._now() - link.opened_at, link.progressed)
        if link.is_lost or isinstance(error, errors.UpstreamStalled):
            self._doubt_twins(link)
        self._emit(
            ConnectionChanged(
                ConnectionState.DISCONNECTED,
                reason,
                self._upstream,
                close_code=link.close_code,
                cause=error,
            )
        )
        link.release(error)
        self._wake.set()

    def _doubt_twins(self, link: TtsLink) -> None:
        """What ended a connection may have ended those that stand ready, too: say nothing over them."""
        if link.opened_ahead and not link.delivered:
            self._retry.standby_lost()
        if self._standby is not None:
            self._standby.release()
            self._standby = None
            self._trial_socket.give_back()
        if (standby := self.target.account.standby) is not None:
            standby.doubt(link.url)

    def _release(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        speaks = self._link is not None and (self._cancelling or self._request_open())
        self._free_slot(cut=speaks)
        if self._link is not None:
            self._upstream = self._link.upstream
            self._link.release(in_order=not speaks)
            self._link = None
        if self._ready is not None:
            self._ready[0].leave()
            self._ready = None
        self._socket.give_back()
        self._trial_socket.give_back()
        if self._standby is not None:
            self._standby.release()
            self._standby = None

    # -- time, bounds, totals -----------------------------------------------------------------------------------

    def _due(self) -> float | None:
        times = [self._schedule.due(), self._not_before, self._slot.deadline]
        if self._dialling is None:
            times.append(self._socket.deadline)  # while it dials, the driver could do nothing about it
        if self._link is not None:
            times.append(self._link.last_sent_at + KEEPALIVE_S)
            protocol = self._link.protocol
            # While the caller is behind, nothing is read: silence is ours.
            times.append(None if self.log.full else protocol.deadline())
            if self._slot.is_wanted:
                times.append(protocol.idle_at())
        return min((t for t in times if t is not None), default=None)

    def _on_due(self, now: float) -> None:
        if self._not_before is not None and now >= self._not_before:
            self._not_before = None
        head = self._line.head
        if head is not None and head.request is None and (error := self._slot.refused(now)) is not None:
            self._fail_utterance(head, error, now)
        link = self._link
        if link is not None and not self.log.full:
            self._take_events(link, link.protocol.expire(now), now)
        if link is not None and link is self._link and now >= link.last_sent_at + KEEPALIVE_S:
            self._keep_alive(link, now)
        self._schedule.apply_due(now, self.input_sequence)
        self._wake.set()

    def _busy(self) -> bool:
        return any(u.text_ended or u.request is not None for u in self._line) or self.log.waiting_audio_s > 0

    def _emit(self, event: Any, audio_s: float = 0.0) -> None:
        super()._emit(event, audio_s)
        if self._unread_events > MAX_UNREAD_EVENTS:
            self._update_room()

    @property
    def _unread_events(self) -> int:
        return self.log.waiting_events + len(self._early or ())

    def _update_room(self) -> None:
        bounds = self.context.bounds
        full = (
            self._unread_events > MAX_UNREAD_EVENTS
            # One is being spoken, the others wait.
            or len(self._line) > bounds.max_queued_utterances
            or self._line.waiting_chars >= bounds.max_buffered_chars
        )
        if full and self._ending is None:
            self._room.clear()
        else:
            self._room.set()

    def handing_over(self, event: Any) -> None:
        if isinstance(event, UtteranceCompleted | UtteranceCancelled | UtteranceFailed):
            metrics = event.utterance.metrics
            if metrics.ended_at is None:  # else it was handed over before, and lost
                metrics.ended_at = self._now()

    def delivered(self, event: Any) -> None:
        if isinstance(event, AudioProduced):
            self.last_activity_at = time.time()
            if event.utterance.metrics.first_delivered_at is None:
                event.utterance.metrics.first_delivered_at = self._now()
        if not self._room.is_set():
            self._update_room()

    def upstream(self) -> Upstream:
        return self._upstream if self._link is None else self._link.upstream

    def usage(self) -> Usage:
        return Usage(
            self._input_chars,
            self._audio_bytes,
            self._audio_samples / self.audio_format.sample_rate_hz,
            self._line.ended,
            self.reconnect_count,
            self.created_at,
            self.ended_at,
        )


def max_buffer_delay_s(mode: tts.Mode) -> float:
    """Largest `max_buffer_delay` of a way of streaming text: 5 s with continuations, 1 s without."""
    return 5.0 if mode is tts.Mode.CONTINUATIONS else 1.0


def _otherwise(utterance: Utterance) -> WavegateError:
    """The error of an utterance that cannot go on where it was cut."""
    sent_s = utterance.metrics.audio_samples / utterance.sample_rate_hz
    return errors.UpstreamUnavailable(
        f"the upstream connection was lost after {sent_s:.2f} s of this utterance, and what it says anew begins "
        "otherwise, so that it cannot go on without a break; say the rest of the text in an utterance of its own"
    )


def require_voice(settings: Settings, path: str) -> Iterable[Violation]:
    """A session needs a voice, from the caller or from the gateway's default."""
    if "voice_id" not in settings:
        yield Violation(f"{path}.voice_id", "a voice is required: the gateway has no default voice")
