"""One transcription session: audio in, transcripts out, over one upstream connection at a time.

All audio goes through the history: it is kept until a final transcript covers it, and a connection is only a
reader of it, with a cursor. A connection that is lost, or replaced for other settings, is followed by one whose
cursor stands where the finals end; so nothing is lost and no final comes twice. Who does what:

- `submit` and `update_settings` (the caller's stream and the control plane) change the session at once;
- `_drive` sends, and dials when there is no connection;
- a link's receiver turns frames into events;
- `_switch`, while it runs, opens another connection for other settings beside the one in use.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session import transcription_events as out
from wavegate_server.session.base import APPLY_WITHIN_S, Link, Session, State
from wavegate_server.session.context import SessionContext
from wavegate_server.session.events import (
    ApplyPolicy,
    ConnectionChanged,
    ConnectionReason,
    ConnectionState,
    EndReason,
    EndSession,
    Mechanism,
    SessionEnded,
    SessionStarted,
    UpdateSettings,
    Upstream,
    Usage,
)
from wavegate_server.session.ledger import Pending, SettingsLedger
from wavegate_server.session.log import EventLog
from wavegate_server.session.replay import AudioHistory, Frame
from wavegate_server.session.retry import DELAYS_S, RetryBudget
from wavegate_server.session.segments import Segments
from wavegate_server.session.sound import SILENCE_S, silence, sound_s
from wavegate_server.session.timeline import SessionClock, Timeline
from wavegate_server.session.transcription_events import AcceptAudio, FinalizeTurn, FinalTrigger
from wavegate_server.session.transport import TransportClosed
from wavegate_server.waves import close, stt
from wavegate_server.waves.framing import BadAudio, clock_hz, make_framer, split
from wavegate_server.waves.settings import (
    TRANSCRIPTION,
    Field,
    Place,
    Settings,
    unknown_languages,
    upstream_values,
)

KEEPALIVE_S = 5.0
"""Time without audio after which the upstream is told that the session lives; LiveKit's plugin waits as long."""
PROGRESS_S = 1.0
PACE_S = 0.005
"""A source that is held back to real time may be ahead of it by less than this."""
QUIET_S = 1.0
"""Quiet after a `finalize` with nothing to say that answers it (contract, `Finalize`)."""
SLOW_ANSWER_S = 3.0
"""The same where a voice or a sound came since the last final: the answer may only be slow."""
FORCED_FINAL_S = 1.0
"""How long a connection that is to be replaced has for a last final."""
TRIAL_S = 0.2
"""How long a new connection is watched before the old one is let go: an upstream without room accepts it and
then closes it."""
HEARD_AFTER_S = 10.0
"""Audio of this age was heard: an upstream that owes an answer for longer has stalled."""
MAX_UNREAD_EVENTS = 256
"""Events that wait for a caller who does not read; then its audio is read no further."""

_FATAL = (errors.UpstreamCredential, errors.UpstreamGone, errors.UpstreamRejected)
"""What dialling again cannot mend."""


class SttLink(Link):
    """A connection with its protocol core, as a reader of the audio history."""

    protocol: stt.SttProtocol
    timeline: Timeline
    cursor: int
    """Number of the frame to send next."""
    headers_sent: int
    outbox: deque[str | bytes]
    last_audio_at: float
    last_frame_at: float
    keepalive_due: bool
    speaking: bool
    heard_since_final: bool
    """Whether a voice or a sound came since the last final."""
    speech_ended_at: int | None
    """Where the last voice stopped."""
    repeats_before: int
    """Words that lie before this were in finals already."""
    replayed_until: int
    had_final: bool
    deaf: bool
    """It said its last final; what else it says is heard on the connection that follows."""
    writable: bool


@dataclass(slots=True, eq=False)
class _Turn:
    """A `finalize` that waits for its final."""

    finalize_id: str
    position: int
    index: int
    """Number of the first frame behind it."""
    received_at: float
    own: bool = False
    """The gateway's, before it replaces the connection."""
    link: SttLink | None = None
    """Where it was sent."""
    sent_at: float = 0.0


class TranscriptionSession(Session):
    """See the module's docstring."""

    kind = "stt"

    def __init__(
        self,
        context: SessionContext,
        audio_format: AudioFormat,
        settings: Settings,
        *,
        keep_alive: bool = True,
        keepalive_message: bool = False,
        initial_offset_s: float = 0.0,
        retry: RetryBudget | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`keepalive_message`: keep a quiet connection open by a message instead of by silence."""
        defaults = {**stt.DEFAULTS, **context.defaults}
        ledger = SettingsLedger(TRANSCRIPTION, {**defaults, **settings}, defaults, mechanism=_mechanism)
        super().__init__(context, audio_format, ledger, EventLog(context.bounds.max_waiting_audio_s))
        self._clock = SessionClock(clock_hz(audio_format), initial_offset_s)
        self._keep_alive = keep_alive
        self._silence = [] if keepalive_message else silence(audio_format)
        self._keepalive_refused = False
        self._retry = retry or RetryBudget()
        self._wall_clock = wall_clock
        self._framer = make_framer(audio_format)
        self._history = AudioHistory(audio_format.encoding.bytes_per_sample)
        self._limit = self._clock.samples(context.bounds.audio_history_s)
        self._segments = Segments()
        self._hanging: tuple[out.Word, ...] = ()
        """Words of the open segment."""
        self._last_final = ""
        self._covered = 0
        """Up to here nothing has to be sent again: finals cover it, or nobody spoke."""
        self._finalized = 0
        self._forwarded = 0
        self._lost = 0
        self._turns: deque[_Turn] = deque()
        self._voice_on = False
        self._voice_at = 0
        self._link: SttLink | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._switching: asyncio.Task[None] | None = None
        self._in_switch: list[Pending] = []
        self._one_by_one = False
        """Whether the upstream refused deltas together, so that each has to be tried alone."""
        self._accepted_at: dict[Pending, int] = {}
        """How much audio had come before a waiting delta."""
        self._loss: tuple[WavegateError | None, ConnectionReason] | None = None
        """Why there is no connection, and none is being opened yet."""
        self._capacity_since: float | None = None
        self._crash: BaseException | None = None
        self._complete = False
        """Whether the last transcript is out."""
        self._early: list[Any] | None = []
        """Events from before `session_started`; None after it."""
        self._unread = 0
        self._room = asyncio.Event()
        """Set whenever `ready` should look again."""
        self._changed = asyncio.Event()
        """Set whenever a turn is answered, or a connection lost."""
        self._discarded = asyncio.Event()
        self._audio_bytes = 0
        self._finals = 0
        self._first_audio_at: float | None = None
        self._progress_at: float | None = None

    # -- the caller's messages ----------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until more audio may come: what is kept is bounded, and so is what waits to be read."""
        while self.ended is None and self._ending is None:
            wait_s = self._hold_back_s(self._now())
            if wait_s == 0:
                return
            self._room.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._room.wait()
            except TimeoutError:
                pass

    def _hold_back_s(self, now: float) -> float | None:
        """How long to read no further; 0 for not at all, None for until something changes.

        A source in real time is never held back while the upstream takes its audio. A faster one waits for
        finals, so that what is kept is enough to replay; where none come it goes on in real time.
        """
        if self._unread >= MAX_UNREAD_EVENTS:
            return None
        kept = self._history.kept
        if kept < self._limit or self._first_audio_at is None:
            return 0
        link = self._link
        if link is None or self._history.end - link.timeline.position >= self._limit:
            return None
        ahead_s = self._clock.duration_s(self._history.end) - (now - self._first_audio_at)
        return ahead_s if ahead_s >= PACE_S else 0

    def _handle(self, command: Any, now: float) -> None:
        match command:
            case AcceptAudio():
                self._accept(command, now)
            case FinalizeTurn():
                self._turns.append(
                    _Turn(command.finalize_id, self._history.end, self._history.next_index, now)
                )
            case _:
                raise TypeError(f"not a command of a transcription session: {type(command).__name__}")

    def _accept(self, command: AcceptAudio, now: float) -> None:
        content = command.content
        limit = self.context.bounds.max_audio_message_bytes
        if not content:
            raise errors.InvalidInput.field("audio.content", "must not be empty")
        if len(content) > limit:
            raise errors.InvalidInput.field(
                "audio.content", f"at most {limit} bytes a message, got {len(content)}; send it in pieces"
            )
        try:
            pieces = self._framer.add(content)
        except BadAudio as exc:
            raise errors.InvalidInput.field("audio.content", str(exc)) from exc
        self._audio_bytes += len(content)
        if self._first_audio_at is None:
            self._first_audio_at = now
            self._progress_at = now
        history = self._history
        history.lead_in = self._framer.lead_in
        capture_epoch = None
        if command.captured_at is not None:
            capture_epoch = command.captured_at - self._clock.duration_s(history.end)
        for piece in pieces:
            history.append(piece, self.input_sequence, now, capture_epoch)
        self._fall_out(now)
        if self._progress_at is not None and now - self._progress_at >= PROGRESS_S:
            self._progress_at = now
            seconds = self._clock.seconds
            self._emit(
                out.AudioProgressed(
                    seconds(history.end),
                    seconds(self._forwarded),
                    seconds(self._finalized),
                    self._clock.duration_s(self._lost),
                )
            )

    def _fall_out(self, now: float) -> None:
        """Keep no more audio than the bound allows. Only what was sent can fall out; the rest is waited for."""
        link = self._link
        if link is None:
            return
        for frame in self._history.evict(self._limit, link.cursor):
            heard = now - frame.received_at >= HEARD_AFTER_S
            silent = not link.speaking and not self._segments.text
            if heard and silent and frame.start <= self._covered:
                self._covered = max(self._covered, frame.end)

    def end(self, command: EndSession) -> None:
        super().end(command)
        if command.discard:
            self._discarded.set()
        if self.state is not State.CONNECTING:
            self.state = State.DRAINING
        self._room.set()

    # -- settings -----------------------------------------------------------------------------------------------

    def _take_update(self, update: UpdateSettings, now: float) -> None:
        outcome = self.ledger.assess(update, now, self.input_sequence)
        if not isinstance(outcome, Pending):
            self._acknowledge(outcome)
            return
        for ack in self.ledger.supersede(outcome, lambda old: old not in self._in_switch):
            self._acknowledge(ack)
        self.ledger.accept(outcome)
        self._accepted_at[outcome] = self._history.end
        self._accepted_at = {p: self._accepted_at[p] for p in self.ledger.pending}
        self._warn_languages(update.delta)
        self._settle(now)
        if outcome in self.ledger.pending:
            self._acknowledge(self.ledger.queued(outcome))

    def _warn_languages(self, settings: Settings) -> None:
        for name, tag in unknown_languages(TRANSCRIPTION, settings):
            self._warn(
                "UNKNOWN_LANGUAGE",
                f"{name} {tag!r} is not in the gateway's table; it is passed on as it is",
                field=name,
            )

    def _settle(self, now: float) -> None:
        """Apply the deltas whose time has come."""
        if self._switching is not None:
            return
        while self.ledger.pending and all(
            how.value <= Mechanism.IN_PLACE.value for _, how in self.ledger.pending[0].fields
        ):
            self._apply([self.ledger.pending[0]], now, self._history.end)
        if self._boundary(now):
            self._switching = asyncio.create_task(self._switch(), name=f"switch {self.session_id}")

    def _boundary(self, now: float) -> bool:
        """Whether the waiting deltas may be applied now, by another connection."""
        pending, link = self.ledger.pending, self._link
        if not pending or link is None or self._complete or link.protocol.close_sent:
            return False
        if self._ending is not None:
            # Only for audio that came after the delta; nothing more will.
            return any(self._accepted_at[p] < self._history.end for p in pending)
        if any(p.update.policy is ApplyPolicy.IMMEDIATE for p in pending):
            return True
        if now >= pending[0].accepted_at + APPLY_WITHIN_S:
            return True
        return not link.speaking and (not self._segments.text or self._is_speech_over(link))

    def _is_speech_over(self, link: SttLink) -> bool:
        """Whether a voice stopped after the last word that was heard."""
        if link.speech_ended_at is None or not self._hanging:
            return False
        return self._clock.seconds(link.speech_ended_at) >= _middle(self._hanging[-1])

    def _apply(self, batch: list[Pending], now: float, position: int) -> None:
        """Put deltas in force from `position` of the audio on."""
        reconnected = any(how is Mechanism.RECONNECT for p in batch for _, how in p.fields)
        passed = self._history.passed_sequence if reconnected and self._history.end else None
        for pending in batch:
            self._accepted_at.pop(pending, None)
            self._acknowledge(
                self.ledger.apply(
                    pending,
                    now,
                    audio_offset_s=self._clock.seconds(position),
                    input_sequence=passed,
                )
            )

    async def _switch(self) -> None:
        """Bring the waiting deltas into force over another connection, while the one in use goes on."""
        try:
            while self.ledger.pending and self._link is not None and not self._complete:
                await self._switch_once(self._batch())
                if not (self._one_by_one and self.ledger.pending):
                    break
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._crash = exc
        finally:
            self._in_switch = []
            self._switching = None
            self._wake.set()
            self._room.set()

    def _batch(self) -> list[Pending]:
        """The deltas to apply with the next connection."""
        pending = self.ledger.pending
        if not pending:
            self._one_by_one = False
        self._in_switch = pending[:1] if self._one_by_one else list(pending)
        return self._in_switch

    async def _switch_once(self, batch: list[Pending]) -> None:
        old = self._link
        try:
            link = await self._open_patiently(batch[-1].settings)
        except errors.UpstreamCapacity:
            # No room for two connections: the old one goes first, and `_drive` opens the next.
            if old is not None and self._link is old:
                await self._make_room(old)
            return
        except WavegateError as exc:
            self._refused(batch, exc)
            return
        try:
            hurry = any(p.update.policy is ApplyPolicy.IMMEDIATE for p in batch)
            if old is not None and self._link is old and not hurry and self._is_speech_over(old):
                await self._force_final(old)
            self._take_over(link, batch, ConnectionReason.SETTINGS_UPDATE, 1)
        finally:
            if self._link is not link:
                link.release()

    async def _open_patiently(self, settings: Settings) -> SttLink:
        """Open another connection beside the one in use; trouble on the way is worth some tries."""
        for attempt, delay in enumerate((*DELAYS_S, None), start=1):
            try:
                link = await self._open(settings, attempt)
                await self._try_out(link)
                return link
            except errors.UpstreamCapacity:
                raise
            except WavegateError as exc:
                if delay is None or not exc.retryable:
                    raise
                await asyncio.sleep(delay)
        raise AssertionError("the last try returns or raises")

    async def _try_out(self, link: SttLink) -> None:
        """Raise what a new connection says against itself within `TRIAL_S`."""
        error: WavegateError | None = None
        try:
            async with asyncio.timeout(TRIAL_S):
                while error is None:
                    message = await link.transport.recv()
                    for event in link.protocol.receive(message, self._now()):
                        if isinstance(event, stt.ConnectionFailed):
                            error = event.error
        except TimeoutError:
            return
        except TransportClosed as exc:
            error = close.from_close(exc.code, exc.reason)
        except BaseException:
            link.release()
            raise
        link.release(error)
        assert error is not None
        raise error

    async def _force_final(self, link: SttLink) -> None:
        """Ask for a last final of what was said; it may stay out."""
        turn = _Turn("", link.timeline.position, link.cursor, self._now(), own=True)
        self._turns.append(turn)
        self._wake.set()
        deadline = self._now() + FORCED_FINAL_S
        while turn in self._turns and self._link is link and (left := deadline - self._now()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                break
        if turn in self._turns:
            self._turns.remove(turn)

    async def _make_room(self, old: SttLink) -> None:
        self._link = None
        self._loss = (None, ConnectionReason.SETTINGS_UPDATE)
        self._say_disconnected(old, ConnectionReason.SETTINGS_UPDATE, None, None)
        await self._close_politely(old)

    def _refused(self, batch: list[Pending], error: WavegateError) -> None:
        """The upstream would not have these settings: the old ones stay."""
        if len(batch) > 1 and isinstance(error, _FATAL):
            self._one_by_one = True
            return
        for pending in list(batch):
            self._accepted_at.pop(pending, None)
            for ack in self.ledger.reject(pending, error):
                self._acknowledge(ack)

    # -- the upstream's events ----------------------------------------------------------------------------------

    def _on_event(self, link: SttLink, event: stt.SttEvent, now: float) -> None:
        if link is not self._link:
            return  # replaced; its successor hears the same audio
        match event:
            case stt.TranscriptReceived():
                self._delivered_by(link, now)
                if not link.deaf:
                    self._on_transcript(link, event, now)
            case stt.SpeechStarted():
                self._delivered_by(link, now)
                self._on_voice(link, True, link.timeline.to_session(event.at_s))
            case stt.SpeechEnded():
                self._delivered_by(link, now)
                self._on_voice(link, False, link.timeline.to_session(event.at_s))
            case stt.StreamFinished():
                self._on_finished(link, now)
            case stt.ConnectionFailed():
                self._on_failed(link, event.error)
            case stt.PongReceived():
                pass
        self._settle(now)
        self._wake.set()

    def _on_finished(self, link: SttLink, now: float) -> None:
        """It closed in good order; without its last transcript only where there was nothing left to say."""
        if self._complete:
            return
        if self._segments.text or link.heard_since_final:
            error = errors.UpstreamUnavailable("the upstream closed before it sent its last transcript")
            self._on_failed(link, error, 1000)
        else:
            self._on_last(link, None, now)

    def _delivered_by(self, link: SttLink, now: float) -> None:
        link.delivered = True
        link.last_frame_at = now
        self._capacity_since = None

    def _on_voice(self, link: SttLink, started: bool, position: int) -> None:
        """Tell the caller of a voice once, whatever the connections say of the same audio again."""
        shown = bool(self.ledger.settings.get("voice_activity_events"))
        if started:
            link.speaking = True
            link.heard_since_final = True
            if self._voice_on and link.replayed_until <= position and link.speech_ended_at is None:
                # The connection that began it never said where it ended, and this one heard no rest of it.
                self._voice_on = False
                if shown:
                    self._emit(out.VoiceEnded(self._clock.seconds(link.timeline.base)))
            if self._voice_on or position < self._voice_at:
                return
        else:
            link.speaking = False
            link.speech_ended_at = position
            if not self._voice_on:
                return
        self._voice_on = started
        self._voice_at = max(self._voice_at, position)
        if shown:
            offset = self._clock.seconds(self._voice_at)
            self._emit(out.VoiceStarted(offset) if started else out.VoiceEnded(offset))

    def _on_transcript(self, link: SttLink, event: stt.TranscriptReceived, now: float) -> None:
        said = self._place(link, event)
        if event.is_last and link.protocol.close_sent:
            self._on_last(link, said, now)
        elif event.is_final:
            self._on_final(link, said, event.from_finalize, now)
        elif said.text or (self._segments.text and not said.repeated):
            self._on_partial(link, said, now)

    def _place(self, link: SttLink, event: stt.TranscriptReceived) -> _Said:
        """A transcript on the session's timeline, without what finals of an earlier connection said."""
        seconds, to_session = self._clock.seconds, link.timeline.to_session
        repeats = seconds(link.repeats_before)
        words = tuple(
            out.Word(
                w.text,
                seconds(to_session(w.start_s)),
                seconds(to_session(w.end_s)),
                w.confidence,
                w.speaker,
                w.speaker_confidence,
            )
            for w in event.words
        )
        sentences = tuple(
            out.Sentence(s.text, seconds(to_session(s.start_s)), seconds(to_session(s.end_s)), s.speaker)
            for s in event.sentences
        )
        text, repeated = event.text, False
        if link.repeats_before:
            fresh = tuple(w for w in words if _middle(w) > repeats)
            if len(fresh) < len(words):
                words, text = fresh, " ".join(w.text for w in fresh)
                sentences = tuple(s for s in sentences if _middle(s) > repeats)
                repeated = not words
            elif not words and event.is_final and not link.had_final and text.strip() == self._last_final:
                text, repeated = "", True
        end = to_session(event.words[-1].end_s) if words else None
        return _Said(text, words, sentences, end, event, repeated)

    def _on_partial(self, link: SttLink, said: _Said, now: float) -> None:
        stable = self._segments.saw(said.text)
        self._hanging = said.words
        if not self.ledger.settings.get("interim_results", True):
            return
        segment_id, revision = self._segments.show()
        end = link.timeline.position if said.end is None else said.end
        self._emit(self._transcribed(link, said, segment_id, revision, end, now, stable_prefix_length=stable))

    def _on_final(self, link: SttLink, said: _Said, from_finalize: bool, now: float) -> None:
        turn = self._answered_turn(link, said, now) if from_finalize else None
        trigger = FinalTrigger.UNSPECIFIED
        if turn is not None and turn.own:
            trigger = FinalTrigger.RECONNECT
            link.deaf = True
            said = self._until_speech_end(link, said)
        elif from_finalize:
            trigger = FinalTrigger.CLIENT_FINALIZE
        elif said.event is not None and (said.event.speech_final or self._ended_by_silence(link, said)):
            trigger = FinalTrigger.ENDPOINT
        answers = turn is not None and not turn.own
        # An empty final closes an open segment, unless it is empty because it said nothing new.
        closes = bool(self._segments.text) and not said.repeated and trigger is not FinalTrigger.RECONNECT
        if said.text or answers or closes:
            self._say_final(link, said, trigger, turn if answers else None, now)
        link.heard_since_final = False
        link.had_final = True

    def _until_speech_end(self, link: SttLink, said: _Said) -> _Said:
        """A forced final without words that it may have cut: those are heard whole on the next connection."""
        if link.speech_ended_at is None or not said.words:
            return said
        limit = self._clock.seconds(link.speech_ended_at)
        words = tuple(w for w in said.words if _middle(w) <= limit)
        if len(words) == len(said.words):
            return said
        end = self._position(words[-1].end_s) if words else None
        sentences = tuple(s for s in said.sentences if s.end_s <= limit)
        return replace(said, text=" ".join(w.text for w in words), words=words, sentences=sentences, end=end)

    def _ended_by_silence(self, link: SttLink, said: _Said) -> bool:
        if link.speech_ended_at is None or not said.words:
            return False
        return self._clock.seconds(link.speech_ended_at) >= _middle(said.words[-1])

    def _answered_turn(self, link: SttLink, said: _Said, now: float) -> _Turn | None:
        """The turn that a final answers; empty ones before it, which the upstream passed over, are answered."""
        sent = [t for t in self._turns if t.link is link]
        if not sent:
            return None
        chosen = sent[0]
        if said.words:
            middle = _middle(said.words[0])
            chosen = next((t for t in sent if self._clock.seconds(t.position) >= middle), chosen)
        for turn in sent[: sent.index(chosen)]:
            self._answer_empty(link, turn, now)
        self._turns.remove(chosen)
        self._changed.set()
        return chosen

    def _answer_empty(self, link: SttLink | None, turn: _Turn, now: float, *, is_last: bool = False) -> None:
        """The final of a turn with nothing to say."""
        self._turns.remove(turn)
        self._changed.set()
        if turn.own:
            return
        self._finals += 1
        segment_id, revision = self._segments.aside()
        self._emit(
            self._transcribed(
                link,
                _NOTHING,
                segment_id,
                revision,
                turn.position,
                now,
                is_final=True,
                is_last=is_last,
                trigger=FinalTrigger.CLIENT_FINALIZE,
                turn=turn,
            )
        )

    def _say_final(
        self,
        link: SttLink | None,
        said: _Said,
        trigger: FinalTrigger,
        turn: _Turn | None,
        now: float,
        *,
        is_last: bool = False,
    ) -> None:
        """Close the open segment and let go of the audio that is behind."""
        end = said.end
        if end is None:
            if turn is not None:
                end = turn.position
            elif link is None or not said.text:
                end = self._covered
            elif link.speech_ended_at is not None and link.speech_ended_at > self._covered:
                end = link.speech_ended_at  # no word has times: where the voice stopped is the next best
            else:
                end = link.timeline.position
        segment_id, revision = self._segments.close(said.text)
        self._emit(
            self._transcribed(
                link,
                said,
                segment_id,
                revision,
                end,
                now,
                is_final=True,
                is_last=is_last,
                trigger=trigger,
                turn=turn,
                stable_prefix_length=len(said.text),
            )
        )
        self._hanging = ()
        self._finals += 1
        if said.text:
            self._last_final = said.text.strip()
        if link is not None:
            self._retry.delivered()
        reach = max(end, turn.position) if turn is not None else end
        if link is not None:
            reach = min(reach, max(0, link.timeline.position))
        self._finalized = max(self._finalized, reach)
        self._covered = max(self._covered, reach)
        self._history.cover(self._covered)
        self._room.set()

    def _on_last(self, link: SttLink | None, said: _Said | None, now: float) -> None:
        """Nothing more comes from upstream: answer what is open, the last answer being the last transcript."""
        self._complete = True
        said = said or _NOTHING
        for turn in [t for t in self._turns if t.own]:
            self._turns.remove(turn)
        turns = list(self._turns)
        chosen: _Turn | None = None
        if turns:
            chosen = turns[0]
            if said.words:
                middle = _middle(said.words[0])
                chosen = next((t for t in turns if self._clock.seconds(t.position) >= middle), None)
        before = turns[: turns.index(chosen)] if chosen is not None else turns
        behind = turns[len(before) + 1 :]
        for turn in before:
            self._answer_empty(link, turn, now)
        if chosen is not None:
            self._turns.remove(chosen)
        if self._history.end or self._segments.text or chosen is not None:
            trigger = FinalTrigger.END if chosen is None else FinalTrigger.CLIENT_FINALIZE
            is_last = bool(self._history.end) and not behind
            self._say_final(link, said, trigger, chosen, now, is_last=is_last)
        for turn in behind:
            self._answer_empty(link, turn, now, is_last=bool(self._history.end) and turn is behind[-1])
        self._finalized = self._covered = self._history.end

    def _transcribed(
        self,
        link: SttLink | None,
        said: _Said,
        segment_id: str,
        segment_revision: int,
        end: int,
        now: float,
        *,
        is_final: bool = False,
        is_last: bool = False,
        trigger: FinalTrigger = FinalTrigger.UNSPECIFIED,
        turn: _Turn | None = None,
        stable_prefix_length: int = 0,
    ) -> out.Transcribed:
        settings = self.ledger.settings
        seconds = self._clock.seconds
        frame = self._history.at(end)
        event = said.event
        full_text = ""
        if is_final and settings.get("full_transcript"):
            full_text = self._segments.full_text
        capture_latency = None
        if frame is not None and frame.capture_epoch_s is not None:
            captured_at = frame.capture_epoch_s + self._clock.duration_s(end)
            capture_latency = self._wall_clock() - captured_at
        start_s = seconds(min(end, self._covered) if said.text else end)
        if said.words:
            start_s = said.words[0].start_s
        return out.Transcribed(
            segment_id,
            segment_revision,
            said.text,
            is_final,
            start_s,
            seconds(end),
            is_last=is_last,
            final_trigger=trigger,
            finalize_id=turn.finalize_id if turn is not None else "",
            words=said.words if settings.get("word_timings") else (),
            sentences=said.sentences if settings.get("sentence_timings") else (),
            languages=event.languages if event is not None else (),
            stable_prefix_length=stable_prefix_length,
            full_text=full_text,
            redacted_entities=event.redacted_entities if event is not None else (),
            settings_revision=self.ledger.revision,
            upstream=self._upstream_of(link) if link is not None else self.upstream(),
            speech_final=event.speech_final if event is not None else False,
            extra=event.extra if event is not None else {},
            finalize_latency_s=now - turn.received_at if turn is not None else None,
            audio_latency_s=now - frame.received_at if frame is not None else None,
            capture_latency_s=capture_latency,
        )

    def _position(self, seconds: float) -> int:
        """The sample at an offset of the session."""
        return self._clock.samples(seconds - self._clock.offset_s)

    # -- driving ------------------------------------------------------------------------------------------------

    async def _drive(self) -> None:
        work = asyncio.create_task(self._work(), name=f"work {self.session_id}")
        discarded = asyncio.create_task(self._discarded.wait(), name=f"discard {self.session_id}")
        try:
            await asyncio.wait({work, discarded}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            work.cancel()
            discarded.cancel()
            await asyncio.gather(work, discarded, return_exceptions=True)
        if self.ended is None:
            self._finish(self._end_reason or EndReason.CLIENT_END, self._failure)

    async def _work(self) -> None:
        await self._connect()
        while not self._complete:
            self._wake.clear()
            now = self._now()
            if self._crash is not None:
                raise self._crash
            if self._discarded.is_set():
                return
            self._settle(now)
            link = self._link
            if link is None:
                if self._switching is not None:
                    await self._wake.wait()
                elif self._is_all_said():
                    self._on_last(None, None, now)
                else:
                    await self._connect()
                continue
            message = self._next_message(link, now)
            self._rearm()
            if message is None:
                if not self._complete:
                    await self._wake.wait()
                continue
            try:
                await link.transport.send(message)
            except TransportClosed:
                link.writable = False  # what it said before it closed is still to be read
            except WavegateError as exc:
                self._on_failed(link, exc)
        self._finish(self._end_reason or EndReason.CLIENT_END, self._failure)
        if self._link is not None:
            await self._close_politely(self._link)

    def _is_all_said(self) -> bool:
        """Whether the end of the input finds nothing that would need a connection."""
        return self._ending is not None and self._covered >= self._history.end and not self._segments.text

    def _next_message(self, link: SttLink, now: float) -> str | bytes | None:
        """What to send next; None for nothing."""
        if not link.writable or link.protocol.close_sent:
            return None
        if link.outbox:
            return link.outbox.popleft()
        history = self._history
        if link.headers_sent < len(history.headers):
            link.outbox.extend(split(history.headers[link.headers_sent], self.audio_format.encoding))
            link.headers_sent += 1
        elif (turn := self._unsent_turn(link)) is not None:
            turn.link = link
            turn.sent_at = now
            link.outbox.extend(link.protocol.finalize(now, owed=bool(self._segments.text)))
        elif link.cursor < history.next_index:
            self._send_frame(link, history.frame(link.cursor), now)
        elif self._ending is not None and self._switching is None:
            self._end_stream(link, now)
        elif link.keepalive_due:
            self._send_keepalive(link, now)
        return link.outbox.popleft() if link.outbox else None

    def _unsent_turn(self, link: SttLink) -> _Turn | None:
        for turn in self._turns:
            if turn.link is not link:
                return turn if turn.index <= link.cursor else None
        return None

    def _send_frame(self, link: SttLink, frame: Frame, now: float) -> None:
        if not link.timeline.connection_samples and link.timeline.position == link.timeline.base:
            link.timeline.drops(self._history.lead_in)
        samples = frame.end - frame.start
        sound = sound_s(frame.data, self.audio_format.encoding, self._clock.duration_s(samples))
        if sound:
            link.heard_since_final = True
        link.outbox.extend(link.protocol.audio(frame.data, now, sound_s=sound))
        link.timeline.sent(samples)
        link.cursor += 1
        link.last_audio_at = now
        link.keepalive_due = False
        self._forwarded = max(self._forwarded, link.timeline.position)
        self._fall_out(now)
        self._room.set()

    def _end_stream(self, link: SttLink, now: float) -> None:
        if self._framer.rest_bytes:
            self._warn(
                "INCOMPLETE_AUDIO",
                f"the audio ended within a sample or page; its last {self._framer.rest_bytes} bytes were left out",
                bytes=str(self._framer.rest_bytes),
            )
        if not self._history.end:
            self._on_last(link, None, now)  # nothing was heard, nothing can come
            return
        link.outbox.extend(link.protocol.close_stream(now))

    def _send_keepalive(self, link: SttLink, now: float) -> None:
        link.keepalive_due = False
        link.last_audio_at = now
        if self._silence:
            for piece in self._silence:
                link.outbox.extend(split(piece, self.audio_format.encoding))
            link.timeline.inserted(self._clock.samples(SILENCE_S))
        elif not self._keepalive_refused:
            link.outbox.extend(link.protocol.keepalive())

    # -- connections --------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Open the connection that there is none of; raises what cannot be mended."""
        attempt = 0
        while True:
            loss, reason = self._loss or (None, ConnectionReason.INITIAL)
            attempt += 1
            if loss is not None:
                delay = self._delay_s(loss)
                if delay is None:
                    raise loss
                self._say_reconnecting(reason, attempt, delay, loss)
                await asyncio.sleep(delay)
            batch = self._batch() if self.state is not State.CONNECTING else []
            settings = batch[-1].settings if batch else self.ledger.settings
            try:
                link = await self._open(settings, attempt)
            except WavegateError as exc:
                if batch and isinstance(exc, _FATAL):
                    self._refused(batch, exc)
                    attempt -= 1
                    self._loss = (None, reason)
                else:
                    self._loss = (exc, reason)
                continue
            finally:
                self._in_switch = []
            break
        self._take_over(link, batch, reason, attempt)

    def _delay_s(self, error: WavegateError) -> float | None:
        """Whether to try again, and after how long; a full account only within the queue's time."""
        if isinstance(error, errors.UpstreamCapacity):
            now = self._now()
            if self._capacity_since is None:
                self._capacity_since = now
            delay = error.retry_after_s if error.retry_after_s is not None else 0.5
            return (
                delay if now + delay <= self._capacity_since + self.context.bounds.max_queue_wait_s else None
            )
        if isinstance(error, errors.UpstreamProtocol) and error.http_status is None:
            # Garbage: the audio is sent again, so nothing is damaged by it, unless it lasts.
            return self._retry.next_delay_s(errors.UpstreamUnavailable(error.message))
        return self._retry.next_delay_s(error)

    async def _open(self, settings: Settings, attempt: int) -> SttLink:
        target = self.context.target
        url = target.websocket_url(
            stt.path_of(old_path=target.old_stt_path),
            stt.query(
                settings,
                self.audio_format,
                external_session_id=self.context.client_session_id,
                old_path=target.old_stt_path,
            ),
        )
        base = await self._dial(url, attempt)
        link = SttLink(base.transport, url, base.index, base.span, base.opened_at, base.handshake_s)
        link.protocol = stt.SttProtocol(self.audio_format.encoding)
        link.headers_sent = 0
        link.outbox = deque()
        link.last_audio_at = link.last_frame_at = base.opened_at
        link.keepalive_due = link.speaking = link.heard_since_final = link.had_final = link.deaf = False
        link.writable = True
        link.speech_ended_at = None
        link.timeline = Timeline(0, self._clock.hz)
        link.cursor = link.repeats_before = link.replayed_until = 0
        return link

    def _take_over(self, link: SttLink, batch: list[Pending], reason: ConnectionReason, attempt: int) -> None:
        """Go on over a new connection, from where the finals end."""
        now = self._now()
        history, first = self._history, self.state is State.CONNECTING
        old, self._link, self._loss = self._link, link, None
        if old is not None:
            old.deaf = True
            task = asyncio.create_task(self._close_politely(old), name=f"close {self.session_id}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for turn in [t for t in self._turns if t.own]:
            self._turns.remove(turn)
        history.cover(self._covered)
        base = history.start
        lost = max(0, base - self._covered)
        if lost:
            self._lost += lost
            self._keep_hanging_words(base, now)
            self._covered = base
        link.timeline = Timeline(base, self._clock.hz)
        link.cursor = history.first_index
        link.repeats_before = self._covered if not first else 0
        link.replayed_until = max(base, self._forwarded)
        replayed = link.replayed_until - base
        link.opened_at = link.last_audio_at = link.last_frame_at = now
        link.receiver = asyncio.create_task(self._receive(link), name=f"receive {self.session_id}")
        self.state = State.DRAINING if self._ending is not None else State.ACTIVE
        if first:
            self._emit(self._started())
            self._warn_languages(self.ledger.settings)
        else:
            self.reconnect_count += 1
        self._emit(
            ConnectionChanged(
                ConnectionState.CONNECTED,
                reason,
                self.upstream(),
                attempt=attempt,
                max_attempts=self._retry.max_attempts,
                handshake_s=link.handshake_s,
                replayed_audio_s=None if first else self._clock.duration_s(replayed),
                lost_audio_s=None if first else self._clock.duration_s(lost),
            )
        )
        self._apply(batch, now, base)
        self._room.set()
        self._wake.set()

    def _keep_hanging_words(self, position: int, now: float) -> None:
        """Words of the open segment whose audio is gone will not be heard again: they are final as they are."""
        limit = self._clock.seconds(position)
        words = tuple(w for w in self._hanging if _middle(w) <= limit)
        if words:
            said = _Said(" ".join(w.text for w in words), words, (), self._position(words[-1].end_s), None)
            self._say_final(None, said, FinalTrigger.UNSPECIFIED, None, now)

    async def _receive(self, link: SttLink) -> None:
        """Read one connection to its end."""
        try:
            while True:
                message = await link.transport.recv()
                now = self._now()
                for event in link.protocol.receive(message, now):
                    self._on_event(link, event, now)
                self._rearm()
        except TransportClosed as exc:
            for event in link.protocol.closed(exc.code, exc.reason):
                if isinstance(event, stt.ConnectionFailed):
                    self._on_failed(link, event.error, exc.code)
                else:
                    self._on_event(link, event, self._now())
        except Exception as exc:
            self._crash = exc
            self._wake.set()

    def _on_failed(self, link: SttLink, error: WavegateError, code: int | None = None) -> None:
        """A connection is of no more use: its error ends the session, or another connection follows."""
        if self._link is not link or self._complete:
            return
        full = error.metadata.get("close_code") == "1008"
        reason = ConnectionReason.IDLE_TIMEOUT if link.protocol.announced_idle else _reason_of(error)
        if link.protocol.keepalives_unanswered and isinstance(error, errors.UpstreamRejected):
            # It knows no such message. Silence is understood by all.
            self._keepalive_refused = True
            self._silence = silence(self.audio_format)
            error = errors.UpstreamUnavailable(f"the upstream refused a keepalive message: {error.message}")
        self._link = None
        self._loss = (error, reason)
        self._retry.connection_ended(self._now() - link.opened_at, link.delivered)
        self._say_disconnected(link, reason, error, code)
        link.release(error)
        if isinstance(error, _FATAL) or (full and (link.delivered or not self.reconnect_count)):
            self._crash = error
        elif self.state is State.ACTIVE:
            self.state = State.RECONNECTING
        self._changed.set()
        self._wake.set()

    def _say_disconnected(
        self, link: SttLink, reason: ConnectionReason, error: WavegateError | None, code: int | None
    ) -> None:
        self._emit(
            ConnectionChanged(
                ConnectionState.DISCONNECTED,
                reason,
                self._upstream_of(link),
                close_code=1006 if code is None and error is not None else code,
                cause=error,
            )
        )

    def _say_reconnecting(
        self, reason: ConnectionReason, attempt: int, delay_s: float, error: WavegateError
    ) -> None:
        if self.state is State.CONNECTING:
            return
        self._emit(
            ConnectionChanged(
                ConnectionState.RECONNECTING,
                reason,
                self.upstream(),
                attempt=attempt,
                max_attempts=self._retry.max_attempts,
                next_retry_delay_s=delay_s,
                cause=error,
            )
        )

    async def _close_politely(self, link: SttLink) -> None:
        """Close a connection that is not needed any more; its account's slot is free then."""
        if link.receiver is not None:
            link.receiver.cancel()
        try:
            await link.transport.close()
        finally:
            link.release()

    # -- time, totals, the end ----------------------------------------------------------------------------------

    def _due(self) -> float | None:
        times = [p.accepted_at + APPLY_WITHIN_S for p in self.ledger.pending if p not in self._in_switch]
        link = self._link
        if link is not None:
            if (deadline := link.protocol.deadline()) is not None:
                times.append(deadline)
            if self._wants_keepalive(link):
                times.append(link.last_audio_at + KEEPALIVE_S)
            if (due := self._quiet_turn(link)) is not None:
                times.append(due[1])
        return min(times, default=None)

    def _on_due(self, now: float) -> None:
        link = self._link
        if link is not None:
            for event in link.protocol.expire(now):
                self._on_event(link, event, now)
            if self._wants_keepalive(link) and now >= link.last_audio_at + KEEPALIVE_S:
                link.keepalive_due = True
            while (due := self._quiet_turn(link)) is not None and now >= due[1]:
                self._answer_empty(link, due[0], now)
        self._settle(now)
        self._wake.set()

    def _wants_keepalive(self, link: SttLink) -> bool:
        if not self._keep_alive or link.keepalive_due or link.protocol.close_sent:
            return False
        return bool(self._silence) or not self._keepalive_refused

    def _quiet_turn(self, link: SttLink) -> tuple[_Turn, float] | None:
        """The oldest turn without an answer, and when quiet alone answers it."""
        if self._segments.text or link.protocol.close_sent:
            return None  # there is something to say, and the upstream owes it
        turn = next((t for t in self._turns if t.link is link), None)
        if turn is None:
            return None
        quiet_s = SLOW_ANSWER_S if link.heard_since_final else QUIET_S
        return turn, max(turn.sent_at, link.last_frame_at) + quiet_s

    def _busy(self) -> bool:
        link = self._link
        return (
            link is None
            or link.cursor < self._history.next_index
            or bool(self._segments.text)
            or bool(self._turns)
            or self._ending is not None
        )

    def _emit(self, event: Any, audio_s: float = 0.0) -> None:
        if self._early is not None and not isinstance(event, SessionEnded):
            if not isinstance(event, SessionStarted):
                self._early.append(event)
                return
            waiting, self._early = self._early, None
            self._emit(event)
            for earlier in waiting:
                self._emit(earlier)
            return
        self._unread += 1
        super()._emit(event, audio_s)

    def delivered(self, event: Any) -> None:
        self._unread -= 1
        if self._unread < MAX_UNREAD_EVENTS:
            self._room.set()
        if isinstance(event, out.Transcribed):
            self.last_activity_at = self._wall_clock()

    def upstream(self) -> Upstream:
        link = self._link
        if link is None:
            return Upstream(connection_index=max(0, self.connection_index))
        return self._upstream_of(link)

    def _upstream_of(self, link: SttLink) -> Upstream:
        return Upstream(link.protocol.upstream_session_id, "", link.endpoint, link.index)

    def usage(self) -> Usage:
        return Usage(
            0,
            self._audio_bytes,
            self._clock.duration_s(self._history.end),
            self._finals,
            self.reconnect_count,
            self.created_at,
            self.ended_at,
        )

    def _release(self) -> None:
        for task in (self._switching, *self._closing):
            if task is not None:
                task.cancel()
        if self._link is not None:
            self._link.release(self._failure)
            self._link = None


@dataclass(frozen=True, slots=True)
class _Said:
    """A transcript on the session's timeline. `end`: the sample where its words end; None where none has times."""

    text: str
    words: tuple[out.Word, ...]
    sentences: tuple[out.Sentence, ...]
    end: int | None
    event: stt.TranscriptReceived | None
    """What the upstream said, for all that needs no place."""
    repeated: bool = False
    """Whether all of it was said in finals before."""


_NOTHING = _Said("", (), (), None, None)


def _middle(piece: out.Word | out.Sentence) -> float:
    return (piece.start_s + piece.end_s) / 2


def _mechanism(field: Field, old: Settings, new: Settings) -> Mechanism:
    """Every upstream setting is in the URL, so a change that shows there reconnects."""
    if field.place is Place.GATEWAY:
        return Mechanism.IN_PLACE

    def shown(settings: Settings) -> dict[str, Any]:
        return upstream_values(
            TRANSCRIPTION, {field.name: settings[field.name]} if field.name in settings else {}
        )

    return Mechanism.IN_PLACE if shown(old) == shown(new) else Mechanism.RECONNECT


def _reason_of(error: WavegateError) -> ConnectionReason:
    match error:
        case errors.UpstreamCapacity():
            return ConnectionReason.CONCURRENCY_LIMIT
        case errors.UpstreamCredential():
            return ConnectionReason.AUTHENTICATION
        case errors.UpstreamError(close_code=int(), http_status=None):
            return ConnectionReason.UPSTREAM_CLOSED
        case _:
            return ConnectionReason.NETWORK_ERROR
