"""One upstream connection of a transcription session: a reader of the session's audio, with a cursor."""

from __future__ import annotations

from collections import deque

from wavegate_server import errors
from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session.base import Link
from wavegate_server.session.boundaries import Boundary
from wavegate_server.session.events import ConnectionReason, Upstream
from wavegate_server.session.replay import AudioHistory
from wavegate_server.session.sound import SILENCE_S, sound_s
from wavegate_server.session.timeline import SessionClock, Timeline
from wavegate_server.waves import stt
from wavegate_server.waves.framing import split


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
        self.cursor = 0
        """Number of the frame to send next."""
        self._headers_sent = 0
        self._began = False
        """Whether audio was sent, other than headers."""
        self.outbox: deque[str | bytes] = deque()
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
        """When it was sent the first sound, on the loop's clock, since it last told of the end of a voice or of a
        final; None where there was none."""
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

    def take_up(self, index: int, repeats_before: int, forwarded: int, sent_before: int, now: float) -> None:
        """Begin to send, from the oldest audio that is kept. `forwarded`: how far the session's audio was ever sent;
        `sent_before`: how much its earlier connections were sent, in all."""
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

    def said_final(self) -> None:
        """Note that it said a final."""
        self.heard_since_final = False
        self.sounding_since = None
        self.had_final = True

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
        sound = sound_s(frame.data, self._format.encoding, self._clock.duration_s(samples))
        if sound:
            self.heard_since_final = True
            if self.sounding_since is None:
                self.sounding_since = now
        self.outbox.extend(self.protocol.audio(frame.data, now, sound_s=sound))
        timeline.sent(samples)
        self.cursor += 1
        self.last_audio_at = now
        self.keepalive_due = False

    def send_silence(self, pieces: list[bytes], now: float) -> None:
        """Put `SILENCE_S` of silence into the outbox; it is taken out of every time again."""
        for piece in pieces:
            self.outbox.extend(split(piece, self._format.encoding))
        self.timeline.inserted(self._clock.samples(SILENCE_S))
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
