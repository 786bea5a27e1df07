"""One transcription session: audio in, transcripts out, over one upstream connection at a time.

All audio goes through the history: it is kept until a final transcript covers it, and a connection is only a
reader of it, with a cursor (`stt_link`). A connection that is lost, or replaced for other settings, is followed by
one whose cursor stands where the finals end; so nothing is lost and no final comes twice. What the connections say
becomes one transcript in `transcripts`. Audio that came before a settings delta is final under the old settings before
any other connection takes over, and is never sent to one with the new ones (`boundaries`). Who does what:

- `submit` and `update_settings` (the caller's stream and the control plane) change the session at once;
- `_work` sends, and dials when there is no connection;
- a link's receiver turns frames into events;
- `_switch`, while it runs, opens another connection for other settings beside the one in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session.base import APPLY_WITHIN_S, Session, State
from wavegate_server.session.boundaries import Arrival, Boundaries, Boundary
from wavegate_server.session.context import SessionContext
from wavegate_server.session.events import (
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
from wavegate_server.session.replay import AudioHistory
from wavegate_server.session.retry import DELAYS_S, QueueWait, RetryBudget
from wavegate_server.session.sound import silence, sound_s
from wavegate_server.session.stt_link import Mark, SttLink
from wavegate_server.session.timeline import SessionClock
from wavegate_server.session.tracing import TranscriptionTrace
from wavegate_server.session.transcription_events import (
    AcceptAudio,
    AudioProgressed,
    FinalizeTurn,
    Transcribed,
)
from wavegate_server.session.transcripts import Transcripts, Turn
from wavegate_server.session.transport import TransportClosed
from wavegate_server.waves import close, stt
from wavegate_server.waves.framing import BadAudio, clock_hz, make_framer
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
UNHEARD_S = 0.1
"""This much sound behind the last final may be a word that the upstream did not come to."""
VOICE_WITHIN_S = 1.0
"""Sound that an upstream has had for so long without telling of a voice is none."""
REPLAY_PACES = (0.0, 2.0, 1.0)
"""Seconds of audio a second that a connection is sent at most, after so many in a row that fell silent when they were
sent more. 0: as much as it reads. A live source is caught up with at twice its speed."""
TRIAL_S = 0.2
"""How long a new connection is watched before the old one is let go: an upstream without room accepts it and
then closes it."""
WORD_S = 1.5
"""A word that begins before a boundary has ended so long after it."""
MAX_ID_CHARS = 128
"""The upstream's bound on `external_session_id`."""
MAX_UNREAD_EVENTS = 256
"""Events that wait for a caller who does not read; then its audio is read no further."""

_FATAL = (errors.UpstreamCredential, errors.UpstreamGone, errors.UpstreamRejected)
"""What dialling again cannot mend."""


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
        trace = TranscriptionTrace(
            context,
            audio_format.encoding.name,
            audio_format.sample_rate_hz,
            ledger.settings.get("language_code", ""),
        )
        super().__init__(context, audio_format, ledger, EventLog(context.bounds.max_waiting_audio_s), trace)
        self.trace: TranscriptionTrace = trace
        self._clock = SessionClock(clock_hz(audio_format), initial_offset_s)
        self._wall_clock = wall_clock
        self._framer = make_framer(audio_format)
        self._history = AudioHistory(audio_format.encoding.bytes_per_sample)
        self._limit = self._clock.samples(context.bounds.audio_history_s)
        self._transcripts = Transcripts(
            self._clock, self._history, ledger, self._emit, self.upstream, wall_clock
        )
        self._keep_alive = keep_alive
        self._silence = [] if keepalive_message else silence(audio_format)
        self._keepalive_refused = False
        # Connections.
        self._link: SttLink | None = None
        self._links = 0
        """Connections that took up the session."""
        self._last_link: SttLink | None = None
        """The one that was lost, until another takes up."""
        self._stalls = 0
        """How many connections in a row fell silent that were sent audio faster than it plays."""
        self._sent_before = 0
        """Samples that earlier connections were sent, silence included."""
        self._loss: tuple[WavegateError | None, ConnectionReason] = (None, ConnectionReason.INITIAL)
        """Why there is no connection. The error is None where none is to be waited for."""
        self._retry = retry or RetryBudget()
        self._queue = QueueWait(context.bounds.max_queue_wait_s)
        self._mute_closes = 0
        """Connections in a row that closed in good order without a last transcript, and without any of new audio."""
        self._closing: set[asyncio.Task[None]] = set()
        self._crash: BaseException | None = None
        """What ends the session, found by a task that cannot raise it there."""
        # Settings that wait for another connection.
        self._switching: asyncio.Task[None] | None = None
        self._boundaries = Boundaries(ledger)
        # Wakers.
        self._room = asyncio.Event()
        """Set whenever `ready` should look again."""
        self._heard = asyncio.Event()
        """Set whenever a connection said something, or was lost."""
        self._discarded = asyncio.Event()
        # Accounts.
        self._early: list[Any] | None = []
        """Events from before `session_started`; None after it."""
        self._unread = 0
        self._audio_bytes = 0
        self._forwarded = 0
        self._lost = 0
        self._first_audio_at: float | None = None
        self._progress_at = 0.0

    # -- the caller's messages ----------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Wait until more audio may come: what is kept is bounded, and so is what waits to be read."""
        while self.ended is None and self._ending is None:
            wait_s = self._hold_back_s(self._now())
            if wait_s == 0:
                return
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._room.wait()

    def _hold_back_s(self, now: float) -> float | None:
        """How long to read no further; 0 for not at all, None for until something changes.

        A source in real time is never held back while the upstream takes its audio. A faster one waits for
        finals, so that what is kept is enough to replay; where none come it goes on in real time.
        """
        if self._unread >= MAX_UNREAD_EVENTS:
            return None
        if self._history.kept < self._limit or self._first_audio_at is None:
            return 0
        link = self._link
        if link is None or not link.has_all(self._boundaries.limit):
            return None  # the upstream is behind what came already
        if self._history.end - link.timeline.position >= self._limit:
            return None
        ahead_s = self._clock.duration_s(self._history.end) - (now - self._first_audio_at)
        return ahead_s if ahead_s >= PACE_S else 0

    def _handle(self, command: Any, now: float) -> None:
        match command:
            case AcceptAudio():
                self._accept(command, now)
            case FinalizeTurn():
                history = self._history
                self.trace.finalize(command.finalize_id, command.traceparent, self.log.at_ns)
                self._transcripts.add(Turn(command.finalize_id, history.end, history.next_index, now))
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
            self._first_audio_at = self._progress_at = now
        history = self._history
        history.lead_in = self._framer.lead_in
        capture_epoch_s = None
        if command.captured_at is not None:
            capture_epoch_s = command.captured_at - self._clock.duration_s(history.end)
        before = history.end
        for piece in pieces:
            history.append(piece, self.input_sequence, now, capture_epoch_s)
        self.trace.arrived(
            self.input_sequence,
            len(content),
            self.log.at_ns,
            history.end,
            self._clock.seconds(before),
            self._clock.duration_s(history.end - before),
        )
        self._bound_history(now)
        if now - self._progress_at >= PROGRESS_S:
            self._progress_at = now
            seconds = self._clock.seconds
            self._emit(
                AudioProgressed(
                    seconds(history.end),
                    seconds(self._forwarded),
                    seconds(self._transcripts.finalized),
                    self._clock.duration_s(self._lost),
                )
            )

    def _bound_history(self, now: float) -> None:
        """Keep no more audio than allowed. Only what was sent can fall out; the rest is waited for."""
        if (link := self._link) is not None:
            for frame in self._history.evict(self._limit, link.cursor):
                self._transcripts.fell_out(link, frame, now)

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
        arrival = Arrival(self._history.end, self._history.next_index)
        for ack in self.ledger.supersede(outcome, self._boundaries.may_supersede(arrival)):
            self._acknowledge(ack)
        self.ledger.accept(outcome)
        self._boundaries.accept(outcome, arrival)
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
        self._apply_in_place(now)
        self._find_boundary(now)
        boundary, link = self._boundaries.current, self._link
        if boundary is None or self._switching is not None or self._transcripts.complete:
            return
        if link is None or link.protocol.close_sent:
            return
        if self._ending is not None and boundary.position >= self._history.end:
            self._boundaries.drop()  # no audio will come that it could govern
            return
        self._switching = asyncio.create_task(self._switch(link, boundary), name=f"switch {self.session_id}")
        self._switching.add_done_callback(self._on_switched)

    def _apply_in_place(self, now: float) -> None:
        """Apply the deltas at the head of the line that need no other connection."""
        pending = self.ledger.pending
        while (
            pending
            and self._boundaries.current is None
            and all(how.value <= Mechanism.IN_PLACE.value for _, how in pending[0].fields)
        ):
            self._apply([pending[0]], now, self._history.end)
            pending = self.ledger.pending

    def _find_boundary(self, now: float) -> None:
        """Set the boundary of the deltas that wait for another connection, where there is one to be had."""
        pending, boundaries = self.ledger.pending, self._boundaries
        if not pending or boundaries.current is not None or boundaries.pull() is not None:
            return
        link, transcripts, end = self._link, self._transcripts, self._history.end
        if link is None:
            boundaries.choose(transcripts.covered, 0)  # another connection follows in any case
            return
        positions = [p for p in map(boundaries.position, pending) if p < end or self._ending is None]
        if not positions:
            return  # at the end of the input, behind all audio
        position = positions[-1]
        came = self._history.index_at(position)
        # The audio before the deltas has to be there before it can tell anything.
        if link.cursor >= came and transcripts.is_speech_over(link) and link.speech_ended_at is not None:
            boundaries.choose(max(position, link.speech_ended_at), link.cursor)
        elif link.cursor >= came and self._is_at_rest(link, now):
            boundaries.choose(position, link.cursor)
        elif self._ending is not None or now >= pending[0].accepted_at + APPLY_WITHIN_S:
            # In mid-speech: between two words, then, of which the connection in use has heard the first one whole. The
            # first two behind the deltas where little was said since, or nothing more will be; else the last two.
            wanted = self._history.index_at(position + self._clock.samples(WORD_S))
            spares = self._ending is None and link.cursor > wanted
            boundaries.choose(position, max(link.cursor, wanted), spares_last_word=spares)

    def _is_at_rest(self, link: SttLink, now: float) -> bool:
        """Whether nobody speaks, as far as an upstream tells that has had its time."""
        rests_at = self._rests_at(link)
        return not link.speaking and not self._transcripts.open_text and (rests_at is None or now >= rests_at)

    def _rests_at(self, link: SttLink) -> float | None:
        """When the sound that was sent counts as no voice, should the upstream tell of none."""
        return None if link.sounding_since is None else link.sounding_since + VOICE_WITHIN_S

    def _apply(self, batch: list[Pending], now: float, position: int) -> None:
        """Put deltas in force from `position` of the audio on."""
        reconnected = any(how is Mechanism.RECONNECT for p in batch for _, how in p.fields)
        passed = self._history.passed_sequence if reconnected and self._history.end else None
        offset_s = self._clock.seconds(position)
        for pending in list(batch):
            ack = self.ledger.apply(pending, now, audio_offset_s=offset_s, input_sequence=passed)
            self._boundaries.done(pending, self._history.first_index)
            self._acknowledge(ack)

    def _on_switched(self, switch: asyncio.Task[None]) -> None:
        self._switching = None
        if not switch.cancelled() and (crash := switch.exception()) is not None:
            self._crash = crash
        self._wake.set()

    async def _switch(self, old: SttLink, boundary: Boundary) -> None:
        """Bring deltas into force over another connection: that is opened first, then the one in use says all that it
        was sent before the boundary, then the other takes over."""
        batch = self._boundaries.attempt()
        link: SttLink | None = None
        try:
            link = await self._open_patiently(batch[-1].settings)
        except errors.UpstreamCapacity:
            pass  # no room for two connections: the old one goes first
        except WavegateError as exc:
            self._refused(batch, exc)
            return
        try:
            if not await self._is_drained(old, boundary):
                return  # lost: the audio before the boundary is sent again under its own settings
            if link is not None:
                self._take_over(link, batch, ConnectionReason.SETTINGS_UPDATE, 1, self._retry.max_attempts)
            elif self._link is old:
                self._sent_before += old.timeline.connection_samples
                self._link = None
                self._loss = (None, ConnectionReason.SETTINGS_UPDATE)
                self._say_disconnected(old, ConnectionReason.SETTINGS_UPDATE)
                await _close(old)
        finally:
            if link is not None and self._link is not link:
                link.release()

    async def _is_drained(self, old: SttLink, boundary: Boundary) -> bool:
        """Have the old connection say all that it has to say of the audio before the boundary. Return whether that is
        final now; False where the connection was lost before, or the session is over."""
        old.leaving = boundary
        self._wake.set()
        while self._link is old and not old.deaf and not self._transcripts.complete:
            self._heard.clear()
            await self._heard.wait()
        return not self._transcripts.complete and self._boundaries.is_reached(self._transcripts.covered)

    async def _open_patiently(self, settings: Settings) -> SttLink:
        """Open another connection beside the one in use; trouble on the way is worth some tries, but not for long:
        meanwhile the one in use is sent nothing that lies behind the boundary."""
        began = self._now()
        for attempt, delay in enumerate((*DELAYS_S, None), start=1):
            try:
                link = await self._open(settings, attempt)
                await self._try_out(link)
                return link
            except errors.UpstreamCapacity:
                raise
            except WavegateError as exc:
                if delay is None or not exc.retryable or self._now() - began + delay >= APPLY_WITHIN_S:
                    raise
                await asyncio.sleep(delay)
        raise AssertionError("the last try returns or raises")

    async def _try_out(self, link: SttLink) -> None:
        """Raise what a new connection says against itself within `TRIAL_S`; it is released then."""
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
        raise error

    def _refused(self, batch: list[Pending], error: WavegateError) -> None:
        """The upstream would not have these settings: the old ones stay."""
        if isinstance(error, _FATAL) and self._boundaries.refused_together():
            return
        for pending in list(batch):
            for ack in self.ledger.reject(pending, error):
                self._acknowledge(ack)
            self._boundaries.done(pending, self._history.next_index)

    # -- the upstream's events ----------------------------------------------------------------------------------

    def _on_event(self, link: SttLink, event: stt.SttEvent, now: float) -> None:
        if link is not self._link or link.deaf or self._transcripts.complete:
            return  # replaced, or about to be: its successor hears what follows
        match event:
            case stt.TranscriptReceived():
                self._on_delivery(link, now)
                covered = self._transcripts.covered
                if self._transcripts.said(link, event, now):
                    link.progressed = True
                if self._transcripts.covered > covered:
                    self._retry.delivered()
                    self._on_progress(link, now)
                self._transcripts.read(link, now)
            case stt.SpeechStarted() | stt.SpeechEnded():
                self._on_delivery(link, now)
                self._transcripts.voice(link, isinstance(event, stt.SpeechStarted), event.at_s)
                self._transcripts.read(link, now)
            case stt.StreamFinished():
                self._on_finished(link, now)
            case stt.ConnectionFailed():
                self._on_failed(link, event.error)
            case stt.PongReceived():
                pass
        self._settle(now)
        self._wake_all()

    def _on_delivery(self, link: SttLink, now: float) -> None:
        link.delivered = True
        link.last_frame_at = now
        self._queue.over()

    def _on_progress(self, link: SttLink, now: float) -> None:
        """Note that a final covers more than before. Once it covers what was sent again, nothing is held back any
        more."""
        self._mute_closes = 0
        if self._transcripts.covered >= link.replayed_until:
            self._stalls = 0
            link.backlog.keep_pace(0.0, now)

    def _on_finished(self, link: SttLink, now: float) -> None:
        """It closed in good order; without its last transcript only where there was nothing left to say."""
        # What sounded was no speech where connection after connection has nothing to say of it.
        is_sure = self._mute_closes >= self._retry.max_attempts
        self._mute_closes += 1
        is_owed = link.heard_since_final or self._is_sound_left(link)
        if self._transcripts.open_text or (is_owed and not is_sure):
            error = errors.UpstreamUnavailable("the upstream closed before it sent its last transcript")
            self._on_failed(link, error, 1000)
        elif link.leaving is not None:
            self._transcripts.leave(link, link.leaving, now)
        else:
            self._transcripts.end(link, now)

    def _is_sound_left(self, link: SttLink) -> bool:
        """True where a connection was sent sound that lies behind what finals cover: it may have been before the last
        of them came."""
        history = self._history
        frames = (history.frame(i) for i in range(history.first_index, link.cursor))
        encoding, seconds = self.audio_format.encoding, self._clock.duration_s
        return sum(sound_s(f.data, encoding, seconds(f.end - f.start)) for f in frames) >= UNHEARD_S

    def _on_failed(self, link: SttLink, error: WavegateError, code: int | None = None) -> None:
        """A connection is of no more use: its error ends the session, or another connection follows."""
        if link is not self._link or link.deaf or self._transcripts.complete:
            return
        reason = link.reason(error)
        if link.protocol.keepalives_unanswered and isinstance(error, errors.UpstreamRejected):
            # It knows no such message. Silence is understood by all.
            self._keepalive_refused = True
            self._silence = silence(self.audio_format)
            error = errors.UpstreamUnavailable(f"the upstream refused a keepalive message: {error.message}")
        self._link, self._last_link = None, link
        self._sent_before += link.timeline.connection_samples
        self._loss = (error, reason)
        if isinstance(error, errors.UpstreamStalled) and link.backlog.was_pushed:
            self._stalls += 1
        # To silence there is nothing to say: a muted caller's connections are as good as any.
        served = link.progressed or not (link.heard_since_final or isinstance(error, errors.UpstreamStalled))
        self._retry.connection_ended(self._now() - link.opened_at, served)
        self._say_disconnected(link, reason, error, code)
        link.release(error)
        if self._switching is not None and not self._boundaries.is_reached(self._transcripts.covered):
            self._switching.cancel()  # what came before the boundary has to be heard under the old settings first
        # A connection that only replaces another may find its place still taken by that one.
        full = error.metadata.get("close_code") == "1008" and (link.delivered or not self.reconnect_count)
        if full or isinstance(error, _FATAL):
            self._crash = error
        elif self.state is State.ACTIVE:
            self.state = State.RECONNECTING
        self._wake_all()

    def _wake_all(self) -> None:
        self._wake.set()
        self._heard.set()
        self._room.set()

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
        """Send what there is to send, over whichever connection there is, until the last transcript is out."""
        await self._connect()
        while not self._transcripts.complete:
            self._wake.clear()
            now = self._now()
            if self._crash is not None:
                raise self._crash
            if self._discarded.is_set():
                return
            self._settle(now)
            link = self._link
            if link is not None:
                await self._send_next(link, now)
            elif self._switching is not None:
                await self._wake.wait()
            elif self._is_all_said():
                self.log.at_ns = time.time_ns()
                self._transcripts.end(None, now)
            else:
                await self._connect()
        self._finish(self._end_reason or EndReason.CLIENT_END, self._failure)
        if self._link is not None:
            await _close(self._link)

    def _is_all_said(self) -> bool:
        """Whether the end of the input finds nothing that would need a connection."""
        transcripts = self._transcripts
        return (
            self._ending is not None
            and transcripts.covered >= self._history.end
            and not transcripts.open_text
        )

    async def _send_next(self, link: SttLink, now: float) -> None:
        """Send the next message, or wait until there may be one."""
        if not link.outbox and link.writable and not link.protocol.close_sent:
            self._fill_outbox(link, now)
        if not link.outbox or not link.writable:
            self._rearm()
            if not self._transcripts.complete:
                await self._wake.wait()
            return
        handed_ns = time.time_ns()
        message = link.outbox.popleft()
        try:
            if isinstance(message, Mark):
                await link.transport.ping(partial(self._on_pong, link, message.position_s))
                return
            await link.transport.send(message)
            if not link.outbox or isinstance(link.outbox[0], Mark):
                self.trace.forwarded(self._forwarded, handed_ns, time.time_ns())
        except TransportClosed:
            link.writable = False  # what it said before it closed is still to be read
        except WavegateError as exc:
            self._on_failed(link, exc)

    def _on_pong(self, link: SttLink, position_s: float) -> None:
        """The upstream has read the audio up to `position_s` of the connection."""
        link.backlog.read(position_s)
        if link is self._link:
            self._transcripts.read(link, self._now())
            self._wake_all()

    def _fill_outbox(self, link: SttLink, now: float) -> None:
        """Decide what is said next, if anything."""
        if (turn := self._transcripts.next_turn(link)) is not None:
            self._transcripts.ask(turn, link, now)
            owed = bool(self._transcripts.open_text)
            link.outbox.extend(link.protocol.finalize(now, owed=owed, behind_s=link.unheard_s))
            link.mark()
        elif not link.has_all(self._boundaries.limit):
            if not link.may_send(now):
                return
            link.send_audio(now)
            self._forwarded = max(self._forwarded, link.timeline.position)
            self._bound_history(now)
            self._room.set()
        elif link.leaving is not None:
            self._ask_all(link, link.leaving, now)
        elif self._ending is not None and self._switching is None:
            self._end_stream(link, now)
        elif link.keepalive_due:
            link.keepalive_due = False
            link.last_audio_at = now
            if self._silence:
                link.send_silence(self._silence, now)
            elif not self._keepalive_refused:
                link.outbox.extend(link.protocol.keepalive())

    def _ask_all(self, link: SttLink, boundary: Boundary, now: float) -> None:
        """Ask a connection that is to be left for all that it has to say. It is closed as well, since an upstream may
        pass over a finalize with nothing to say, but not over the end."""
        if self._transcripts.owes(link):
            self._transcripts.ask_all(link, boundary, now)
            link.outbox.extend(link.protocol.finalize(now, owed=True, behind_s=link.unheard_s))
            link.outbox.extend(link.protocol.close_stream(now, behind_s=link.unheard_s))
        elif not link.deaf:
            self._transcripts.leave(link, boundary, now)
            self._heard.set()

    def _end_stream(self, link: SttLink, now: float) -> None:
        if self._framer.rest_bytes:
            self._warn(
                "INCOMPLETE_AUDIO",
                f"the audio ended within a sample or page; its last {self._framer.rest_bytes} bytes were left out",
                bytes=str(self._framer.rest_bytes),
            )
        if self._history.end:
            link.outbox.extend(link.protocol.close_stream(now, behind_s=link.unheard_s))
        else:
            self._transcripts.end(link, now)  # nothing was heard, nothing can come

    # -- connections --------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Open the connection that there is none of; raises what cannot be mended."""
        while True:
            loss, reason = self._loss
            if loss is not None:
                delay = self._delay_s(loss)
                if delay is None:
                    raise loss
                self._say_reconnecting(reason, delay, loss)
                await asyncio.sleep(delay)
            attempt, attempts = self._retry.attempt, self._retry.attempts
            self._retry.dialled()
            batch = self._next_batch()
            try:
                link = await self._open(batch[-1].settings if batch else self.ledger.settings, attempt)
            except WavegateError as exc:
                if batch and isinstance(exc, _FATAL):
                    self._refused(batch, exc)
                    self._loss = (None, reason)
                else:
                    self._loss = (exc, reason)
            else:
                self._retry.connected()
                self._take_over(link, batch, reason, attempt, attempts)
                return

    def _next_batch(self) -> list[Pending]:
        """The deltas that a connection brings into force which follows one that was lost: those of the boundary, once
        all that came before it is final."""
        if self.state is State.CONNECTING:
            return []
        self._find_boundary(self._now())
        return self._boundaries.attempt() if self._boundaries.is_reached(self._transcripts.covered) else []

    def _delay_s(self, error: WavegateError) -> float | None:
        """Whether to try again, and after how long; a full account only within the queue's time."""
        if isinstance(error, errors.UpstreamCapacity):
            return self._queue.next_delay_s(error, self._now())
        return self._retry.next_delay_s(error)

    async def _open(self, settings: Settings, attempt: int) -> SttLink:
        self._choose_target(settings)
        target = self.target
        query = stt.query(
            settings,
            self.audio_format,
            external_session_id=self._external_id(),
            old_path=target.old_stt_path,
        )
        url = target.websocket_url(stt.path_of(old_path=target.old_stt_path), query)
        return SttLink(await self._dial(url, attempt), self.audio_format, self._history, self._clock)

    def _external_id(self) -> str:
        """The caller's own id; on later connections one that no socket was sent audio under, for an upstream that
        goes by it when it counts time."""
        if not self._links:
            return self.context.client_session_id
        suffix = f".{self._links + 1}"
        return (self.context.client_session_id or self.session_id)[: MAX_ID_CHARS - len(suffix)] + suffix

    def _take_over(
        self, link: SttLink, batch: list[Pending], reason: ConnectionReason, attempt: int, attempts: int
    ) -> None:
        """Go on over a new connection, from where the finals end. It is number `attempt` of at most `attempts`."""
        now, history, transcripts = self._now(), self._history, self._transcripts
        first = self.state is State.CONNECTING
        old, self._link = self._link, link
        if old is not None:
            self._sent_before += old.timeline.connection_samples
            task = asyncio.create_task(_close(old), name=f"close {self.session_id}")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        transcripts.drop_own()
        history.cover(transcripts.covered)
        lost = max(0, history.start - transcripts.covered)
        if lost:
            self._lost += lost
            transcripts.lost(history.start, now)
        link.protocol.is_tolerant = isinstance(self._loss[0], errors.UpstreamProtocol)
        link.take_up(
            self._links,
            transcripts.covered,
            self._forwarded,
            self._sent_before,
            now,
            after=old or self._last_link,
            pace=REPLAY_PACES[min(self._stalls, len(REPLAY_PACES) - 1)],
        )
        self._last_link = None
        self._links += 1
        link.receiver = asyncio.create_task(self._receive(link), name=f"receive {self.session_id}")
        self.state = State.DRAINING if self._ending is not None else State.ACTIVE
        if first:
            self._emit(self._started())
            self._warn_languages(self.ledger.settings)
        else:
            self.reconnect_count += 1
        replayed = link.replayed_until - link.timeline.base
        self._emit(
            ConnectionChanged(
                ConnectionState.CONNECTED,
                reason,
                link.upstream,
                attempt=attempt,
                max_attempts=attempts,
                handshake_s=link.handshake_s,
                replayed_audio_s=None if first else self._clock.duration_s(replayed),
                lost_audio_s=None if first else self._clock.duration_s(lost),
            )
        )
        self._apply(batch, now, transcripts.covered)
        self._find_boundary(now)
        self._wake_all()

    async def _receive(self, link: SttLink) -> None:
        """Read one connection to its end."""
        try:
            while True:
                message = await link.transport.recv()
                self.log.at_ns = time.time_ns()
                now = self._now()
                for event in link.protocol.receive(message, now):
                    self._on_event(link, event, now)
                self._rearm()
        except TransportClosed as exc:
            self.log.at_ns = time.time_ns()
            if exc.stalled:
                closed = link.protocol.give_up(errors.UpstreamStalled(exc.reason))
            else:
                closed = link.protocol.closed(exc.code, exc.reason)
            for event in closed:
                if isinstance(event, stt.ConnectionFailed):
                    self._on_failed(link, event.error, exc.code)
                else:
                    self._on_event(link, event, self._now())
        except Exception as exc:
            self._crash = exc
            self._wake.set()

    def _say_disconnected(
        self,
        link: SttLink,
        reason: ConnectionReason,
        error: WavegateError | None = None,
        code: int | None = None,
    ) -> None:
        self._emit(
            ConnectionChanged(
                ConnectionState.DISCONNECTED,
                reason,
                link.upstream,
                close_code=1006 if code is None and error is not None else code,
                cause=error,
            )
        )

    def _say_reconnecting(self, reason: ConnectionReason, delay_s: float, error: WavegateError) -> None:
        if self.state is not State.CONNECTING:
            counted = not isinstance(error, errors.UpstreamCapacity)
            self._emit(
                ConnectionChanged(
                    ConnectionState.RECONNECTING,
                    reason,
                    self.upstream(),
                    attempt=self._retry.attempt,
                    max_attempts=self._retry.attempts if counted else 0,
                    next_retry_delay_s=delay_s,
                    cause=error,
                )
            )

    # -- time, totals, the end ----------------------------------------------------------------------------------

    def _due(self) -> float | None:
        times = []
        link = self._link
        if self.ledger.pending and self._boundaries.current is None:
            looks_at = [self.ledger.pending[0].accepted_at + APPLY_WITHIN_S]
            if link is not None and (rests_at := self._rests_at(link)) is not None:
                looks_at.append(rests_at)
            times += [at for at in looks_at if at > self._now()]  # what is past has changed nothing
        if link is not None:
            if (deadline := link.protocol.deadline()) is not None:
                times.append(deadline)
            if self._wants_keepalive(link):
                times.append(link.last_audio_at + KEEPALIVE_S)
            if not link.has_all(self._boundaries.limit) and (send_at := link.backlog.send_at()):
                times.append(send_at)
            if (quiet := self._transcripts.quiet_turn(link)) is not None:
                times.append(quiet[1])
        return min(times, default=None)

    def _on_due(self, now: float) -> None:
        if (link := self._link) is not None:
            for event in link.protocol.expire(now):
                self._on_event(link, event, now)
            if self._wants_keepalive(link) and now >= link.last_audio_at + KEEPALIVE_S:
                link.keepalive_due = True
            self._transcripts.answer_quiet(link, now)
        self._settle(now)
        self._wake_all()

    def _wants_keepalive(self, link: SttLink) -> bool:
        if not self._keep_alive or link.keepalive_due or link.protocol.close_sent:
            return False
        return bool(self._silence) or not self._keepalive_refused

    def _busy(self) -> bool:
        link, transcripts = self._link, self._transcripts
        return (
            link is None
            or not link.has_all()
            or bool(transcripts.open_text)
            or transcripts.waits
            or self._ending is not None
        )

    def _emit(self, event: Any, audio_s: float = 0.0) -> None:
        if self._early is not None and not isinstance(event, SessionEnded):
            if not isinstance(event, SessionStarted):
                self._early.append(event)
                return
            waiting, self._early = self._early, None
            for each in (event, *waiting):
                self._emit(each)
            return
        self._unread += 1
        super()._emit(event, audio_s)

    def delivered(self, event: Any) -> None:
        self._unread = max(0, self._unread - 1)  # who resumes is told some of it again
        if self._unread < MAX_UNREAD_EVENTS:
            self._room.set()
        if isinstance(event, Transcribed):
            self.last_activity_at = self._wall_clock()

    def upstream(self) -> Upstream:
        if self._link is not None:
            return self._link.upstream
        return Upstream(connection_index=max(0, self._links - 1))

    def usage(self) -> Usage:
        return Usage(
            0,
            self._audio_bytes,
            self._clock.duration_s(self._history.end),
            self._transcripts.finals,
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


async def _close(link: SttLink) -> None:
    """Close a connection that is not needed any more, in good order: its account's slot is free then."""
    if link.receiver is not None:
        link.receiver.cancel()
    try:
        await link.transport.close()
    finally:
        link.release()


def _mechanism(field: Field, old: Settings, new: Settings) -> Mechanism:
    """Every upstream setting is in the URL, so a change that shows there reconnects."""
    if field.place is Place.GATEWAY:
        return Mechanism.IN_PLACE

    def shown(settings: Settings) -> dict[str, Any]:
        value = {field.name: settings[field.name]} if field.name in settings else {}
        return upstream_values(TRANSCRIPTION, value)

    return Mechanism.IN_PLACE if shown(old) == shown(new) else Mechanism.RECONNECT
