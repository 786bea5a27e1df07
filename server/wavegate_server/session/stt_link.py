"""One upstream connection of a transcription session: a reader of the session's audio, with a cursor."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session.backlog import LAG_S, Backlog
from wavegate_server.session.base import Link
from wavegate_server.session.boundaries import Boundary
from wavegate_server.session.events import ConnectionReason, Upstream
from wavegate_server.session.replay import AudioHistory
from wavegate_server.session.sound import SILENCE_S, sound_s
from wavegate_server.session.timeline import SessionClock, Timeline
from wavegate_server.waves import stt
from wavegate_server.waves.framing import split


@dataclass(frozen=True, slots=True)
class Mark:
    """A ping in the row of what is sent, and the position in the connection's audio that its pong proves read."""

    position_s: float


class SttLink(Link):
    """A connection with its protocol core. It is opened, maybe tried out, and then takes up the session."""

    def __init__(
        self, base: Link, audio_format: AudioFormat, history: AudioHistory, clock: SessionClock
    ) -> None:
        super().__init__(base.transport, base.url, base.index, base.span, base.opened_at, base.handshake_s)
        self.protocol = stt.SttProtocol(audio_format.encoding)
        self._format = audio_format
        self._history = history
        self._clock = clock
        self.timeline = Timeline(0, clock.hz)
        self.backlog = Backlog()
        self.transport.reading_s = lambda: self.backlog.unread_s
        self.cursor = 0
        """Number of the frame to send next."""
        self._headers_sent = 0
        self._began = False
        """Whether audio was sent, other than headers."""
        self.outbox: deque[str | bytes | Mark] = deque()
        """Messages that are due, ahead of everything else."""
        self.last_audio_at = base.opened_at
        self.keepalive_due = False
        self.writable = True
        """False once a send found it closed; its receiver will say why."""
        # What it heard, as far as the session has to know it.
        self.last_frame_at = base.opened_at
        self.speaking = False
        self.speech_ended_at: int | None = None
        """Where the last voice stopped."""
        self.heard_since_final = False
        """Whether a voice or a sound came since the last final."""
        self.sounding_since: float | None = None
        """When it may be expected to have heard the first sound, on the loop's clock, since it last told of the end of
        a voice or of a final; None where it was sent none."""
        self._sound_until = 0
        """Where the last sound ends that was sent."""
        self._quiet_until = 0
        """Up to here earlier connections must have heard the audio."""
        self.had_final = False
        self.final_words: tuple[stt.HeardWord, ...] = ()
        """Of the last final with words."""
        self.repeats_before = 0
        """Words that lie before this were in finals of an earlier connection."""
        self.replayed_until = 0
        """Up to here an earlier connection had the audio, too."""
        self.leaving: Boundary | None = None
        """Where the audio ends that it is still to be heard on, before another connection takes its place for other
        settings; None while none will."""
        self.deaf = False
        """True once it said all there is to say before it is left; what else it says is heard on the connection that
        follows."""

    @property
    def upstream(self) -> Upstream:
        return Upstream(self.protocol.upstream_session_id, "", self.endpoint, self.index)

    def take_up(
        self,
        index: int,
        repeats_before: int,
        forwarded: int,
        sent_before: int,
        now: float,
        *,
        after: SttLink | None = None,
        pace: float = 0.0,
    ) -> None:
        """Begin to send, from the oldest audio that is kept. `forwarded`: how far the session's audio was ever sent;
        `sent_before`: how much its earlier connections were sent, in all; `after`: the last one of them; `pace`: how
        many seconds of audio a second are sent at most, 0 for as many as it reads."""
        if after is not None:
            self._quiet_until = after.must_be_heard(now)
        self.backlog.keep_pace(pace, now)
        history = self._history
        self.index = index
        self.timeline = Timeline(history.start, self._clock.hz, sent_before)
        self.cursor = history.first_index
        self.repeats_before = repeats_before
        self.replayed_until = forwarded
        self.opened_at = self.last_audio_at = self.last_frame_at = now

    @property
    def may_repeat(self) -> bool:
        """Whether a final without word times may be of audio that finals of an earlier connection cover: the first one,
        while no voice stopped in audio that this connection alone had."""
        replayed = self.timeline.base < self.replayed_until
        return replayed and not self.had_final and (self.speech_ended_at or 0) <= self.replayed_until

    def has_all(self, limit: int | None = None) -> bool:
        """Whether all audio that is there was sent, up to the frame of number `limit` where that is given."""
        end = self._history.next_index if limit is None else min(limit, self._history.next_index)
        return self._headers_sent == len(self._history.headers) and self.cursor >= end

    def said_final(self, covered: int, now: float) -> None:
        """Note that it said a final, after which finals cover the audio up to `covered`."""
        self.heard_since_final = self._is_sound_behind(covered, now)
        self.sounding_since = self._heard_by(now) if self.heard_since_final else None
        self.had_final = True

    def said_end_of_voice(self, position: int, now: float) -> None:
        """Note that it told where a voice stopped."""
        self.speaking = False
        self.sounding_since = self._heard_by(now) if self._is_sound_behind(position, now) else None
        self.speech_ended_at = position

    def _is_sound_behind(self, position: int, now: float) -> bool:
        """Whether sound lies behind `position` that it was sent and has not come to yet."""
        return self._sound_until > position and self.backlog.behind_s(now) >= LAG_S

    def _heard_by(self, now: float) -> float:
        """When it may be expected to have heard all that it was sent; now, unless it is behind."""
        behind_s = self.backlog.behind_s(now)
        return now + behind_s if behind_s >= LAG_S else now

    def may_send(self, now: float) -> bool:
        """Whether it may be sent audio now, as far as it has read what it was sent."""
        at = self.backlog.send_at()
        return at is not None and at <= now

    @property
    def unheard_s(self) -> float:
        """Playing time of the audio that was sent, is kept, and is not proved heard: the time that the upstream may
        take before it comes to a question that is asked now."""
        return min(self.backlog.unheard_s, self._clock.duration_s(self._history.kept))

    def hears(self, position: int) -> None:
        """Note that the upstream said something of the session's audio up to here."""
        rest_s = self._clock.duration_s(max(0, self.timeline.position - position))
        self.backlog.heard(self.backlog.sent_s - rest_s)

    @property
    def heard_position(self) -> int:
        """How far it can have heard, of what it was sent: all but what it has certainly not read."""
        waiting_s = self.backlog.waiting_s
        if waiting_s < LAG_S:
            return self.timeline.position
        return max(self.timeline.base, self.timeline.position - self._clock.samples(waiting_s))

    def must_be_heard(self, now: float) -> int:
        """Up to here it must have heard the audio: that was read, and had the time to be heard and answered."""
        backlog, clock = self.backlog, self._clock
        overdue_s = backlog.must_be_heard(0.0, now) - stt.OWED_S
        ago_s = max(backlog.waiting_s, -overdue_s, 0.0)
        return max(self._quiet_until, self.timeline.position - clock.samples(ago_s))

    def mark(self) -> None:
        """Put a ping into the outbox, behind all that was said."""
        self.outbox.append(Mark(self.backlog.mark_now()))

    def send_audio(self, now: float) -> None:
        """Put the next header page or frame into the outbox. There must be one: see `has_all`."""
        history, timeline = self._history, self.timeline
        if self._headers_sent < len(history.headers):
            self.outbox.extend(split(history.headers[self._headers_sent], self._format.encoding))
            self._headers_sent += 1
            return
        frame = history.frame(self.cursor)
        if not self._began:
            self._began = True
            timeline.drops(history.lead_in)
        samples = frame.end - frame.start
        duration_s = self._clock.duration_s(samples)
        sound = sound_s(frame.data, self._format.encoding, duration_s)
        if sound:
            self.heard_since_final = True
            self._sound_until = frame.end
        self.backlog.sent(duration_s, now)
        if sound and self.sounding_since is None:
            self.sounding_since = self._heard_by(now)
        behind_s = self.backlog.behind_s(now)
        self.outbox.extend(self.protocol.audio(frame.data, now, sound_s=sound, behind_s=behind_s))
        timeline.sent(samples)
        if (position_s := self.backlog.mark()) is not None:
            self.outbox.append(Mark(position_s))
        self.cursor += 1
        self.last_audio_at = now
        self.keepalive_due = False

    def send_silence(self, pieces: list[bytes], now: float) -> None:
        """Put `SILENCE_S` of silence into the outbox; it is taken out of every time again."""
        for piece in pieces:
            self.outbox.extend(split(piece, self._format.encoding))
        self.timeline.inserted(self._clock.samples(SILENCE_S))
        self.backlog.sent(SILENCE_S, now)
        self.last_audio_at = now

    def reason(self, error: WavegateError) -> ConnectionReason:
        """What a connection event says of its loss."""
        if self.protocol.announced_idle:
            return ConnectionReason.IDLE_TIMEOUT
        match error:
            case errors.UpstreamCapacity():
                return ConnectionReason.CONCURRENCY_LIMIT
            case errors.UpstreamCredential():
                return ConnectionReason.AUTHENTICATION
            case errors.UpstreamError(close_code=code) if code not in (None, 1006):
                return ConnectionReason.UPSTREAM_CLOSED
            case _:
                return ConnectionReason.NETWORK_ERROR
