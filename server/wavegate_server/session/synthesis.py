"""One synthesis session: utterances in, audio out, over one upstream connection at a time.

Utterances wait in a line. The first one is spoken: its text goes up as it comes, in one request after the
other (a `flush` or an IMMEDIATE delta closes one and opens the next), and its audio goes down into the event
log. Who does what:

- `submit` and `update_settings` (the caller's stream and the control plane) change the line at once;
- `_drive` is the only one that dials and sends;
- a link's receiver turns frames into events, and stops reading while the caller is behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import Violation, WavegateError
from wavegate_server.session.base import APPLY_WITHIN_S, Link, Session, State
from wavegate_server.session.context import SessionContext
from wavegate_server.session.encode import make_encoder
from wavegate_server.session.events import (
    ApplyPolicy,
    ConnectionChanged,
    ConnectionReason,
    ConnectionState,
    EndReason,
    Mechanism,
    UpdateSettings,
    Upstream,
    Usage,
)
from wavegate_server.session.ledger import Pending, SettingsLedger
from wavegate_server.session.log import EventLog
from wavegate_server.session.retry import RetryBudget
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
)
from wavegate_server.session.transport import TransportClosed
from wavegate_server.session.utterance import UNSPEAKABLE, Metrics, TimedWord, Utterance
from wavegate_server.waves import tts
from wavegate_server.waves.settings import SYNTHESIS, Field, Place, Settings, unknown_languages

KEEPALIVE_S = 25.0
"""Idle time after which the upstream is told that the session lives; it hangs up after 60 s (tts-ws)."""
REMEMBERED_IDS = 1024
"""Ended utterances whose late text is still recognised."""
MAX_UNREAD_EVENTS = 1024
"""Events other than audio that may wait for the caller to read; then its messages, which make most of them, are
read no further."""


class TtsLink(Link):
    """A connection with its protocol core."""

    protocol: tts.TtsProtocol
    path: str = ""
    last_sent_at: float = 0.0
    broken: bool = False
    """A send found it closed; its receiver will say why."""


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
        mode = context.target.tts_mode
        ledger = SettingsLedger(
            SYNTHESIS,
            settings,
            context.defaults,
            mechanism=self._mechanism,
            max_buffer_delay_s=max_buffer_delay_s(mode),
            require=require_voice,
        )
        super().__init__(
            context, audio_format, ledger, EventLog(context.bounds.max_waiting_audio_s, max_audio_lead_s)
        )
        self._retry = retry or RetryBudget()
        self._line: deque[Utterance] = deque()
        self._open: Utterance | None = None
        """The utterance that takes text; always the last of the line."""
        self._over: OrderedDict[str, None] = OrderedDict()
        self._counter = 0
        self._requests = 0
        self._link: TtsLink | None = None
        self._upstream = Upstream()
        """The latest connection, also when it has gone."""
        self._dialling: asyncio.Task[TtsLink] | None = None
        self._redial_at: float | None = None
        self._redial_reason: ConnectionReason | None = ConnectionReason.INITIAL
        """Why a connection is wanted before there is text for it; None: one is dialled when there is."""
        self._to_send: deque[str] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._barriers: dict[int, Utterance] = {}
        """Revision of a waiting delta -> the last utterance that still has the old settings."""
        self._buffered_chars = 0
        self._input_chars = 0
        self._utterance_count = 0
        self._audio_bytes = 0
        self._audio_samples = 0
        self._capacity_since: float | None = None

    # -- the caller's messages ----------------------------------------------------------------------------------

    async def ready(self) -> None:
        await self._room.wait()

    def _handle(self, command: Any, now: float) -> None:
        match command:
            case SpeakText():
                self._speak(command, now)
            case FlushText():
                if (utterance := self._find(command.utterance_id, "flush")) is not None:
                    utterance.cut()
            case EndUtterance():
                if (utterance := self._find(command.utterance_id, "end_utterance")) is not None:
                    self._end_text(utterance)
            case CancelUtterance():
                self._cancel(command, now)
            case ReportPlayback():
                known = next((u for u in self._unended() if u.utterance_id == command.utterance_id), None)
                if (utterance := known) is not None:
                    utterance.playback_s = command.playback_offset_s
                else:
                    self._unknown(command.utterance_id, "playback")
            case _:
                raise TypeError(f"not a command of a synthesis session: {type(command).__name__}")
        self._update_room()

    def _speak(self, command: SpeakText, now: float) -> None:
        utterance_id = command.utterance_id
        utterance = self._open
        if utterance is None or utterance_id not in ("", utterance.utterance_id):
            if utterance_id and (utterance_id in self._over or self._by_id(utterance_id) is not None):
                self._warn(
                    "STALE_TEXT",
                    f"text for utterance {utterance_id!r}, which has ended, was dropped; use a new utterance_id",
                    utterance_id,
                    characters=str(len(command.text)),
                )
                return
            if utterance is not None:
                self._end_text(utterance)
            utterance = self._new_utterance(utterance_id, command.traceparent, now)
        if command.traceparent and not utterance.traceparent:
            utterance.traceparent = command.traceparent
        bounds = self.context.bounds
        error: WavegateError | None = None
        if len(command.text) > bounds.max_text_message_chars:
            error = errors.InvalidInput.field(
                "text.text",
                f"at most {bounds.max_text_message_chars} characters a message, got {len(command.text)}; "
                "send it in pieces",
            )
        elif len(utterance.text) + len(command.text) > bounds.max_utterance_chars:
            error = errors.InvalidInput.field(
                "text.text",
                f"at most {bounds.max_utterance_chars} characters an utterance; begin a new one at a sentence end",
            )
        elif (bad := UNSPEAKABLE.search(command.text)) is not None:
            error = errors.InvalidInput.field("text.text", f"holds the control character U+{ord(bad[0]):04X}")
        if error is not None:
            self._fail_utterance(utterance, error, now)
            return
        self._input_chars += len(command.text)
        utterance.add(command.text)
        if command.end_utterance:
            self._end_text(utterance)

    def _new_utterance(self, utterance_id: str, traceparent: str, now: float) -> Utterance:
        if not utterance_id:
            self._counter += 1
            utterance_id = f"utterance-{self._counter}"
            while utterance_id in self._over or self._by_id(utterance_id) is not None:
                self._counter += 1
                utterance_id = f"utterance-{self._counter}"
        utterance = Utterance(
            utterance_id,
            self.ledger.latest,
            self.ledger.latest_revision,
            self.input_sequence,
            Metrics(first_text_at=now),
            make_encoder(self.audio_format),
            self.audio_format.sample_rate_hz,
            traceparent=traceparent,
        )
        self._line.append(utterance)
        self._open = utterance
        return utterance

    def _end_text(self, utterance: Utterance) -> None:
        utterance.text_ended = True
        if self._open is utterance:
            self._open = None

    def _find(self, utterance_id: str, what: str) -> Utterance | None:
        """The open utterance, if it is the one meant; else a warning."""
        utterance = self._open
        if utterance is not None and utterance_id in ("", utterance.utterance_id):
            return utterance
        self._unknown(utterance_id, what)
        return None

    def _unknown(self, utterance_id: str, what: str) -> None:
        which = f"utterance {utterance_id!r} is not open" if utterance_id else "no utterance is open"
        self._warn("UNKNOWN_UTTERANCE", f"{what}: {which}; nothing was done", utterance_id, input=what)

    def _by_id(self, utterance_id: str) -> Utterance | None:
        return next((u for u in self._line if u.utterance_id == utterance_id), None)

    def _unended(self) -> list[Utterance]:
        """What the caller has not heard the end of: first those that are made, but whose audio still waits for it."""
        waiting = [e for e in self.log if isinstance(e, AudioProduced | UtteranceCompleted)]
        unheard = {e.utterance.utterance_id for e in waiting if isinstance(e, AudioProduced)}
        made = [e.utterance for e in waiting if isinstance(e, UtteranceCompleted)]
        return [*(u for u in made if u.utterance_id in unheard), *self._line]

    def _cancel(self, command: CancelUtterance, now: float) -> None:
        chosen = [u for u in self._unended() if command.utterance_id in ("", u.utterance_id)]
        if not chosen:
            self._warn(
                "NOTHING_TO_CANCEL",
                f"utterance {command.utterance_id!r} is not being spoken"
                if command.utterance_id
                else "nothing is being spoken",
                command.utterance_id,
            )
            return
        # What is spoken first, so that its stale audio stops first; the offset is of that utterance.
        for index, utterance in enumerate(chosen):
            self._cancel_one(utterance, command.playback_offset_s if index == 0 else None, now)
        self._settle_settings(now)

    def _cancel_one(self, utterance: Utterance, playback_s: float | None, now: float) -> None:
        method = CancelMethod.NOT_SENT
        total_s: float | None = None
        if utterance.started:
            method = CancelMethod.DISCARD
            link, request = self._link, utterance.request
            if request is None and utterance.text_ended and not utterance.pieces:
                total_s = utterance.metrics.audio_samples / self.audio_format.sample_rate_hz
            if link is not None and request is not None and not request.ended:
                messages = link.protocol.cancel(request, now)
                if messages:
                    method = CancelMethod.UPSTREAM_CANCEL
                    self._to_send.extend(messages)
                elif not link.protocol.reusable:
                    method = CancelMethod.RECONNECT
                    self._redial_reason = ConnectionReason.UTTERANCE_CANCEL
        taken = self.log.take_back(
            lambda e: (
                (isinstance(e, AudioProduced | UtteranceCompleted) and e.utterance is utterance)
                or (isinstance(e, WordsTimed) and e.utterance_id == utterance.utterance_id)
            )
        )
        self.log.forget_lead()
        discarded = 0
        for chunk in taken:
            if isinstance(chunk, AudioProduced):
                discarded += chunk.samples
                self._take_from_account(chunk)
        rate = self.audio_format.sample_rate_hz
        delivered_s = utterance.metrics.audio_samples / rate
        heard_s = playback_s if playback_s is not None else utterance.playback_s
        spoken, remaining, source = utterance.spoken(
            delivered_s if heard_s is None else min(heard_s, delivered_s), total_s
        )
        if not utterance.over:
            self._close_utterance(utterance, now)
        self._emit(UtteranceCancelled(utterance, method, spoken, remaining, source, discarded / rate))

    # -- settings -----------------------------------------------------------------------------------------------

    def _mechanism(self, field: Field, old: Settings, new: Settings) -> Mechanism:
        if field.place is Place.GATEWAY:
            return Mechanism.IN_PLACE
        if field.name == "model" and self._path(old) != self._path(new):
            return Mechanism.RECONNECT
        return Mechanism.NEXT_UTTERANCE

    def _take_update(self, update: UpdateSettings, now: float) -> None:
        outcome = self.ledger.assess(update, now, self.input_sequence)
        if not isinstance(outcome, Pending):
            self._acknowledge(outcome)
            return
        newest = self._line[-1] if self._line else None
        for ack in self.ledger.supersede(
            outcome, lambda old: self._barriers.get(old.revision) is newest and newest is not None
        ):
            self._acknowledge(ack)
        self.ledger.accept(outcome)
        self._warn_languages(update.delta)
        if outcome.update.policy is ApplyPolicy.IMMEDIATE:
            self._apply_now(outcome, now)
        elif newest is None:
            self._acknowledge(self.ledger.apply(outcome, now))
        else:
            self._barriers[outcome.revision] = newest
            self._acknowledge(self.ledger.queued(outcome))

    def _warn_languages(self, settings: Settings) -> None:
        for name, tag in unknown_languages(SYNTHESIS, settings):
            self._warn(
                "UNKNOWN_LANGUAGE",
                f"{name} {tag!r} is not in the gateway's table; it is passed on as it is",
                field=name,
            )

    def _apply_now(self, until: Pending, now: float) -> None:
        """Put `until` and all before it in force with the next upstream message."""
        changed = {name for p in self.ledger.pending for name in p.changed if p.revision <= until.revision}
        upstream = any((f := SYNTHESIS.field(n)) is not None and f.place is Place.UPSTREAM for n in changed)
        touched: list[Utterance] = []
        for utterance in self._line:
            request = utterance.request
            closed = request is not None and utterance.text_ended and not utterance.pieces
            if closed or utterance.settings_revision >= until.revision:
                continue
            utterance.settings = until.settings
            utterance.settings_revision = until.revision
            if upstream:
                utterance.cut_before_waiting()
            touched.append(utterance)
        in_place = any(u.started for u in touched)
        while self.ledger.pending and self.ledger.pending[0].revision <= until.revision:
            pending = self.ledger.pending[0]
            self._barriers.pop(pending.revision, None)
            if in_place:
                pending.fields = tuple(
                    (name, Mechanism.IN_PLACE if how is Mechanism.NEXT_UTTERANCE else how)
                    for name, how in pending.fields
                )
            self._acknowledge(
                self.ledger.apply(
                    pending,
                    now,
                    first_utterance_id=touched[0].utterance_id if touched else "",
                    input_sequence=self.input_sequence,
                )
            )

    def _settle_settings(self, now: float) -> None:
        """Apply the deltas whose last old utterance is over."""
        while self.ledger.pending:
            pending = self.ledger.pending[0]
            barrier = self._barriers.get(pending.revision)
            if barrier is not None and not barrier.over:
                return
            self._barriers.pop(pending.revision, None)
            first = next((u for u in self._line if u.settings_revision >= pending.revision), None)
            self._acknowledge(
                self.ledger.apply(pending, now, first_utterance_id=first.utterance_id if first else "")
            )

    # -- the upstream's events ----------------------------------------------------------------------------------

    def _on_event(self, event: tts.TtsEvent, now: float) -> None:
        match event:
            case tts.AudioReceived():
                utterance = self._speaking(event.request)
                if utterance is not None:
                    self._on_audio(utterance, event.pcm, now)
            case tts.WordReceived():
                utterance = self._speaking(event.request)
                if utterance is not None and utterance.settings.get("word_timings"):
                    base = utterance.request_base_s
                    word = TimedWord(
                        event.text, len(utterance.words), base + event.start_s, base + event.end_s
                    )
                    utterance.words.append(word)
                    self._emit(WordsTimed(utterance.utterance_id, (word,)))
            case tts.RequestCompleted():
                utterance = self._speaking(event.request)
                if utterance is not None:
                    self._on_completed(utterance, event.source, now)
            case tts.RequestFailed():
                utterance = self._speaking(event.request)
                if utterance is not None:
                    self._on_failed(utterance, event.error, now)
            case tts.ConnectionFailed():
                if isinstance(event.error, (*_FATAL, errors.UpstreamCapacity)):
                    self.fail(event.error)
        self._wake.set()

    def _speaking(self, request: tts.Request) -> Utterance | None:
        utterance = self._line[0] if self._line else None
        return utterance if utterance is not None and utterance.request is request else None

    def _on_audio(self, utterance: Utterance, pcm: bytes, now: float) -> None:
        metrics = utterance.metrics
        if metrics.first_received_at is None:
            metrics.first_received_at = now
        elif metrics.last_received_at is not None:
            metrics.max_gap_s = max(metrics.max_gap_s, now - metrics.last_received_at)
        metrics.last_received_at = now
        if self._link is not None:
            self._link.delivered = True
        pcm = utterance.whole_samples(pcm)
        if pcm:
            self._produce(utterance, utterance.encoder.encode(pcm), len(pcm) // 2)

    def _produce(self, utterance: Utterance, audio: bytes, samples: int) -> None:
        before = utterance.metrics.audio_samples, utterance.metrics.audio_bytes
        size = self.ledger.settings.get("max_chunk_bytes")
        for chunk in chunks(utterance, audio, samples, self.audio_format, size):
            self._emit(chunk, chunk.samples / self.audio_format.sample_rate_hz)
        self._audio_samples += utterance.metrics.audio_samples - before[0]
        self._audio_bytes += utterance.metrics.audio_bytes - before[1]

    def _take_from_account(self, chunk: AudioProduced) -> None:
        """A chunk that was never delivered."""
        metrics = chunk.utterance.metrics
        metrics.audio_samples -= chunk.samples
        metrics.audio_bytes -= len(chunk.audio)
        metrics.chunk_count -= 1
        self._audio_samples -= chunk.samples
        self._audio_bytes -= len(chunk.audio)

    def _on_completed(self, utterance: Utterance, source: tts.Completion, now: float) -> None:
        self._retry.delivered()
        self._capacity_since = None
        self._note_upstream(utterance)
        utterance.forget_request()
        if utterance.text_ended and not any(isinstance(p, str) and p.strip() for p in utterance.pieces):
            self._complete(utterance, source, now)

    def _complete(self, utterance: Utterance, source: tts.Completion | None, now: float) -> None:
        tail = utterance.encoder.finish()
        if tail:
            self._produce(utterance, tail, 0)
        self._close_utterance(utterance, now)
        self._emit(UtteranceCompleted(utterance, source))
        self._settle_settings(now)

    def _on_failed(self, utterance: Utterance, error: WavegateError, now: float) -> None:
        self._note_upstream(utterance)
        request = utterance.request
        unheard = request is not None and request.audio_bytes == 0
        closed_1008 = error.metadata.get("close_code") == "1008"
        if isinstance(error, _FATAL) or closed_1008:
            self._fail_utterance(utterance, error, now)
            self.fail(error)
            return
        if unheard and error.retryable and (delay := self._delay_s(error, now)) is not None:
            utterance.give_back()
            utterance.metrics.reconnect_count += 1
            self._redial_at = now + delay
            if not isinstance(error, errors.UpstreamCapacity):
                self._emit_retry(error, delay)
            return
        self._fail_utterance(utterance, error, now)

    def _delay_s(self, error: WavegateError, now: float) -> float | None:
        """Whether to try again, and after how long; a full account only within the queue's time."""
        if isinstance(error, errors.UpstreamCapacity):
            if self._capacity_since is None:
                self._capacity_since = now
            delay = error.retry_after_s if error.retry_after_s is not None else 0.5
            limit = self._capacity_since + self.context.bounds.max_queue_wait_s
            if now + delay > limit:
                self._capacity_since = None
                return None
            return delay
        return self._retry.next_delay_s(error)

    def _fail_utterance(self, utterance: Utterance, error: WavegateError, now: float) -> None:
        sent_s = utterance.metrics.audio_samples / self.audio_format.sample_rate_hz
        request = utterance.request
        if request is not None and not request.ended and self._link is not None:
            self._to_send.extend(self._link.protocol.cancel(request, now))
        self._close_utterance(utterance, now)
        self._emit(UtteranceFailed(utterance, error, sent_s))
        self._settle_settings(now)

    def _close_utterance(self, utterance: Utterance, now: float) -> None:
        """Take an utterance out of the line, whatever became of it."""
        utterance.over = True
        self._utterance_count += 1
        utterance.text_ended = True
        utterance.pieces.clear()
        utterance.metrics.ended_at = now
        utterance.forget_request()
        if self._open is utterance:
            self._open = None
        self._line.remove(utterance)
        self._over[utterance.utterance_id] = None
        while len(self._over) > REMEMBERED_IDS:
            self._over.popitem(last=False)
        self._update_room()
        self._wake.set()

    def _note_upstream(self, utterance: Utterance) -> None:
        upstream = self.upstream()
        request = utterance.request
        if request is not None and upstream.endpoint:
            utterance.upstreams.append(
                Upstream(
                    upstream.session_id,
                    request.upstream_request_id,
                    upstream.endpoint,
                    upstream.connection_index,
                )
            )

    # -- driving ------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        self._rearm()
        while self.ended is None:
            self._wake.clear()
            if self._ending is not None and self._ending.discard:
                self._discard_all()
                return
            if await self._advance():
                continue
            if self._ending is not None and self.state is not State.CONNECTING and not self._line:
                self._finish(self._end_reason or EndReason.CLIENT_END, self._failure)
                return
            self._rearm()
            await self._wake.wait()

    def _discard_all(self) -> None:
        now = self._now()
        failure = self._failure
        # Before `session_started` nothing was begun, and so nothing ends.
        if self.state is not State.CONNECTING:
            if failure is None or isinstance(failure, errors.SessionClosed):
                for utterance in self._unended():
                    self._cancel_one(utterance, None, now)
            else:
                for utterance in list(self._line):
                    self._fail_utterance(utterance, failure, now)
        self._finish(self._end_reason or EndReason.CLIENT_END, failure)

    def _break_off(self, error: WavegateError) -> None:
        if self.state is not State.CONNECTING:
            for utterance in list(self._line):
                self._fail_utterance(utterance, error, self._now())
        super()._break_off(error)

    async def _advance(self) -> bool:
        """Do the next thing that can be done; False when there is none."""
        now = self._now()
        link = self._link
        if link is not None and link.protocol.disobeyed:
            self._replace_disobedient(link)
            return True
        if link is not None and not link.protocol.reusable and not self._request_open():
            self._lose(link, self._redial_reason or ConnectionReason.UPSTREAM_CLOSED, None)
            return True
        if link is not None and self._to_send and not link.broken:
            await self._send(link, self._to_send.popleft())
            return True
        utterance = self._next_utterance(now)
        if utterance is None and self._redial_reason is None:
            return False
        fresh = utterance is not None and utterance.request is None
        if (
            link is not None
            and utterance is not None
            and fresh
            and link.path != self._path(utterance.settings)
        ):
            self._lose(link, ConnectionReason.SETTINGS_UPDATE, None)
            self._redial_reason = ConnectionReason.SETTINGS_UPDATE
            return True
        if link is None:
            if self._redial_at is not None and now < self._redial_at:
                return False
            if self._ending is not None and utterance is None and self.state is not State.CONNECTING:
                self._redial_reason = None
                return False
            await self._connect(utterance)
            return True
        self._redial_reason = None
        if utterance is None or link.broken or (self._redial_at is not None and now < self._redial_at):
            return False
        self._redial_at = None
        return await self._say(link, utterance, now)

    def _replace_disobedient(self, link: TtsLink) -> None:
        """The upstream still speaks what was cancelled: only another connection stops it."""
        utterance = self._line[0] if self._line else None
        if utterance is not None and utterance.request is not None:
            if utterance.request.audio_bytes:
                link.protocol.disobeyed = False  # the new request is heard already: let it finish
                return
            link.protocol.abandon()
            utterance.give_back()
        self._redial_reason = ConnectionReason.UTTERANCE_CANCEL
        self._lose(link, ConnectionReason.UTTERANCE_CANCEL, None)

    def _request_open(self) -> bool:
        request = self._line[0].request if self._line else None
        return request is not None and not request.ended

    def _next_utterance(self, now: float) -> Utterance | None:
        """The utterance to speak, if it has something to say; blank ones are completed on the way."""
        while self._line:
            utterance = self._line[0]
            if utterance.request is None and utterance.text_ended:
                waiting = any(isinstance(p, str) and p.strip() for p in utterance.pieces)
                if not waiting:
                    # All of it is spoken, or there was nothing to say.
                    self._complete(utterance, tts.Completion.UPSTREAM if utterance.started else None, now)
                    continue
            if utterance.request is not None and utterance.request.ended:
                return None
            if utterance.pieces or (utterance.text_ended and not self._is_closing(utterance)):
                blank = not any(isinstance(p, str) and p.strip() for p in utterance.pieces)
                if utterance.request is None and blank:
                    return None
                return None if self._is_closing(utterance) else utterance
            return None
        return None

    def _is_closing(self, utterance: Utterance) -> bool:
        """Whether the closing fragment of the current request is sent."""
        return utterance.request is not None and utterance.request.closing

    async def _say(self, link: TtsLink, utterance: Utterance, now: float) -> bool:
        """Send the utterance's next message."""
        taken = utterance.take()
        if taken is None:
            return False
        text, last = taken
        request = utterance.request
        if request is None:
            self._requests += 1
            request = tts.Request(f"{self.session_id[-12:]}-{self._requests}", utterance.settings)
            utterance.request = request
            utterance.request_base_s = utterance.metrics.audio_samples / self.audio_format.sample_rate_hz
        request.settings = utterance.settings
        utterance.request_text += text
        if not utterance.started:
            utterance.started = True
            self._emit(
                UtteranceStarted(
                    utterance.utterance_id, utterance.first_input_sequence, utterance.settings_revision
                )
            )
        if utterance.metrics.first_sent_at is None:
            utterance.metrics.first_sent_at = now
        self._update_room()
        for message in link.protocol.speak(request, text, last=last, now=now):
            await self._send(link, message)
        return True

    async def _send(self, link: TtsLink, message: str) -> None:
        link.last_sent_at = self._now()
        self._rearm()
        try:
            await link.transport.send(message)
        except TransportClosed:
            link.broken = True  # what it said before it closed is still to be read
        except WavegateError as exc:
            now = self._now()
            events = link.protocol.failed(exc)
            self._lose(link, ConnectionReason.NETWORK_ERROR, exc)
            for event in events:
                self._on_event(event, now)

    # -- connections --------------------------------------------------------------------------------------------

    def _path(self, settings: Settings) -> str:
        return tts.path_of(settings, old_paths=self.context.target.old_tts_path)

    async def _connect(self, utterance: Utterance | None) -> None:
        """Dial. On failure: wait for the next try, or let the utterance or the session fail."""
        settings = utterance.settings if utterance is not None else self.ledger.latest
        path = self._path(settings)
        reason = self._redial_reason or ConnectionReason.UPSTREAM_CLOSED
        attempt = self._retry.failures + 1
        if self.state is State.ACTIVE:
            self.state = State.RECONNECTING
        self._dialling = asyncio.create_task(self._open_link(path, attempt))
        try:
            link = await self._dialling
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return  # the session was told to stop
        except WavegateError as exc:
            self._dial_failed(utterance, exc)
            return
        finally:
            self._dialling = None
        self._link = link
        self._redial_at = None
        self._redial_reason = None
        first = self.state is State.CONNECTING
        self.state = self._settled_state()
        if first:
            self._emit(self._started())
            self._warn_languages(self.ledger.settings)
        else:
            self.reconnect_count += 1
        self._emit(
            ConnectionChanged(
                ConnectionState.CONNECTED,
                ConnectionReason.INITIAL if first else reason,
                self.upstream(),
                attempt=attempt,
                max_attempts=self._retry.max_attempts,
                handshake_s=link.handshake_s,
                replayed_character_count=(
                    utterance.waiting_chars
                    if utterance is not None and utterance.metrics.reconnect_count
                    else 0
                ),
            )
        )
        link.receiver = asyncio.create_task(self._receive(link), name=f"receive {self.session_id}")

    async def _open_link(self, path: str, attempt: int) -> TtsLink:
        target = self.context.target
        url = target.websocket_url(
            path, urlencode({"timeout": max(1, round(self.context.bounds.idle_timeout_s))})
        )
        base = await self._dial(url, attempt)
        link = TtsLink(base.transport, url, base.index, base.span, base.opened_at, base.handshake_s)
        link.protocol = tts.TtsProtocol(
            target.tts_mode,
            self.audio_format.sample_rate_hz,
            self.context.client_session_id or self.session_id,
            target.habits,
        )
        link.path = path
        link.last_sent_at = base.opened_at
        return link

    def _dial_failed(self, utterance: Utterance | None, error: WavegateError) -> None:
        now = self._now()
        fatal = isinstance(error, _FATAL)
        delay = None if fatal else self._delay_s(error, now)
        if delay is not None:
            self._redial_at = now + delay
            if self.state is not State.CONNECTING:
                self._emit_retry(error, delay)
            return
        if self.state is State.CONNECTING:
            raise error
        self.state = self._settled_state()
        self._redial_at = None
        self._redial_reason = None
        self._retry.delivered()  # the next text has a budget of its own
        if utterance is not None:
            self._fail_utterance(utterance, error, now)
        if fatal:
            self.fail(error)

    def _settled_state(self) -> State:
        return State.ACTIVE if self._ending is None else State.DRAINING

    def _emit_retry(self, error: WavegateError, delay_s: float) -> None:
        self._emit(
            ConnectionChanged(
                ConnectionState.RECONNECTING,
                _reason_of(error),
                self.upstream(),
                attempt=self._retry.failures,
                max_attempts=self._retry.max_attempts,
                next_retry_delay_s=delay_s,
                cause=error,
            )
        )

    async def _receive(self, link: TtsLink) -> None:
        """Read one connection to its end."""
        protocol = link.protocol
        transport = link.transport
        try:
            while True:
                message = await transport.recv()
                now = self._now()
                for event in protocol.receive(message, now):
                    self._on_event(event, now)
                self._rearm()
                if not protocol.reusable:
                    self._wake.set()
                if self.log.full:
                    await self.log.room()
                    protocol.touch(self._now())
                    self._rearm()
        except TransportClosed as exc:
            now = self._now()
            idle = protocol.announced_idle
            events = protocol.closed(exc.code, exc.reason, now)
            error = next(
                (e.error for e in events if isinstance(e, tts.RequestFailed | tts.ConnectionFailed)), None
            )
            reason = ConnectionReason.IDLE_TIMEOUT if idle else _reason_of(error)
            self._lose(link, reason, error, exc.code)
            for event in events:
                self._on_event(event, now)
        except WavegateError as exc:
            self._lose(link, ConnectionReason.NETWORK_ERROR, exc)
            for event in protocol.failed(exc):
                self._on_event(event, self._now())

    def _lose(
        self, link: TtsLink, reason: ConnectionReason, error: WavegateError | None, code: int | None = None
    ) -> None:
        """A connection has gone, or is let go."""
        if self._link is not link:
            return
        self._upstream = self.upstream()
        self._link = None
        self._to_send.clear()
        self._retry.connection_ended(self._now() - link.opened_at, link.delivered)
        self._emit(
            ConnectionChanged(
                ConnectionState.DISCONNECTED,
                reason,
                self._upstream,
                close_code=code,
                cause=error,
            )
        )
        link.release(error)
        self._wake.set()

    # -- time, totals, the end ----------------------------------------------------------------------------------

    def _due(self) -> float | None:
        times = []
        if self._link is not None:
            deadline = self._link.protocol.deadline()
            # While the caller is behind, nothing is read: silence is ours.
            if deadline is not None and not self.log.full:
                times.append(deadline)
            times.append(self._link.last_sent_at + KEEPALIVE_S)
        if self._redial_at is not None:
            times.append(self._redial_at)
        times += [p.accepted_at + APPLY_WITHIN_S for p in self.ledger.pending]
        return min(times, default=None)

    def _on_due(self, now: float) -> None:
        link = self._link
        if link is not None and not self.log.full:
            for event in link.protocol.expire(now):
                self._on_event(event, now)
        if link is not None and now >= link.last_sent_at + KEEPALIVE_S:
            self._to_send.extend(link.protocol.keepalive(self.ledger.latest))
            link.last_sent_at = now
        for pending in list(self.ledger.pending):
            if now >= pending.accepted_at + APPLY_WITHIN_S and pending in self.ledger.pending:
                self._apply_now(pending, now)
        self._wake.set()

    def _busy(self) -> bool:
        return any(u.text_ended or u.request is not None for u in self._line) or self.log.waiting_audio_s > 0

    def _emit(self, event: Any, audio_s: float = 0.0) -> None:
        super()._emit(event, audio_s)
        if self._unread_events() > MAX_UNREAD_EVENTS:
            self._room.clear()

    def _unread_events(self) -> int:
        return self.log.waiting_events + len(self._early or ())

    def _update_room(self) -> None:
        bounds = self.context.bounds
        self._buffered_chars = sum(u.waiting_chars for u in self._line)
        if (
            self._buffered_chars > bounds.max_buffered_chars
            or len(self._line) > bounds.max_queued_utterances
            or self._unread_events() > MAX_UNREAD_EVENTS
        ):
            self._room.clear()
        else:
            self._room.set()

    def end(self, command: Any) -> None:
        super().end(command)
        if self.state is not State.CONNECTING:
            self.state = State.DRAINING
        if self._open is not None:
            self._end_text(self._open)
        self._room.set()
        if command.discard and self._dialling is not None:
            self._dialling.cancel()

    def delivered(self, event: Any) -> None:
        if isinstance(event, AudioProduced):
            self.last_activity_at = time.time()
            if event.utterance.metrics.first_delivered_at is None:
                event.utterance.metrics.first_delivered_at = self._now()
        if not self._room.is_set():
            self._update_room()

    def upstream(self) -> Upstream:
        link = self._link
        if link is None:
            return self._upstream
        return Upstream(link.protocol.upstream_session_id, "", link.endpoint, link.index)

    def usage(self) -> Usage:
        return Usage(
            self._input_chars,
            self._audio_bytes,
            self._audio_samples / self.audio_format.sample_rate_hz,
            self._utterance_count,
            self.reconnect_count,
            self.created_at,
            self.ended_at,
        )

    def _release(self) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._link is not None:
            self._link.release()
            self._link = None


def max_buffer_delay_s(mode: tts.Mode) -> float:
    """Largest `max_buffer_delay` of a way of streaming text: 5 s with continuations, 1 s without."""
    return 5.0 if mode is tts.Mode.CONTINUATIONS else 1.0


def require_voice(settings: Settings, path: str) -> Iterable[Violation]:
    """A session needs a voice, from the caller or from the gateway's default."""
    if not settings.get("voice_id"):
        yield Violation(f"{path}.voice_id", "a voice is required: the gateway has no default voice")


def _reason_of(error: WavegateError | None) -> ConnectionReason:
    if isinstance(error, errors.UpstreamCredential):
        return ConnectionReason.AUTHENTICATION
    if isinstance(error, errors.UpstreamCapacity):
        return ConnectionReason.CONCURRENCY_LIMIT
    if isinstance(error, errors.UpstreamUnavailable) and error.close_code not in (None, 1006):
        return ConnectionReason.UPSTREAM_CLOSED
    return ConnectionReason.UPSTREAM_CLOSED if error is None else ConnectionReason.NETWORK_ERROR
