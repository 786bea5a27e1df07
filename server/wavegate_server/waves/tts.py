"""One text-to-speech connection: what is written, and what the frames that come back mean.

Theory of operation
-------------------
A *request* is one piece of speech on the wire: one `context_id` (continuations) or one `continue … flush`
series (flush). Requests go one after the other; the next begins when the one before it has ended. Each frame
belongs to the request whose `external_request_id` it echoes, or, where the upstream echoes nothing, whose
`request_id` of the upstream's own it repeats. Frames of an ended request are stale: dropped and counted.

    IDLE --speak--> OPEN --speak(last)--> CLOSING --end found--> IDLE
                      \\------cancel / failure / closed-------/

The end of a request is the hard part, since the upstream's documents and clients disagree on whether
`complete` comes, how often, and whether it closes the socket. After the closing fragment:

- the socket closes in good order after a `complete`: the end;
- a `complete` after audio of a request that can have one release only (one short message, one sentence): the
  end;
- any other `complete`: the end, once it is confirmed by `CONFIRM_S` without a frame, since a release of a
  later sentence may follow it; by `QUIET_UNKNOWN_S` where too little was heard for the text;
- audio and then silence: the end after a quiet whose length follows the upstream's habits (`Habits`) — unless
  what was heard is implausibly short for the text, or this upstream is known to send `complete`: a stall;
- nothing at all: a stall, `OWED_S` after audio was due; for a text without letters and digits, such as an
  emoji, the end after `QUIET_UNKNOWN_S`, since there may be nothing to say.

Only audio, words and `complete` count as frames here: what says nothing keeps nobody waiting.

No clock lives here: the time is an argument, `deadline` says when to call `expire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard

import msgspec
import pybase64

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.waves import close
from wavegate_server.waves.settings import LIGHTNING_V2, SYNTHESIS, Settings, upstream_values

OWED_S = 5.0
"""How long the upstream may stay silent once it owes audio (the semantics' stall rule)."""
CONFIRM_S = 0.6
"""Quiet after a `complete` that may not be the last; LiveKit's plugin waits as long."""
QUIET_UNKNOWN_S = 2.0
"""Quiet that ends a request when it is not known yet whether this upstream sends `complete`, or when what it
said is not to be trusted."""
QUIET_SILENT_S = 0.8
"""The same for an upstream that was seen to send none."""
LATE_CANCEL_S = 0.25
"""Audio of a cancelled request that comes later than this after the cancel was sent shows that the upstream
does not obey; before that it was under way already."""
MAX_GARBAGE = 3
"""Malformed frames of one connection before it is given up."""
ONE_RELEASE_CHARS = 150
"""A message of one sentence and at most this length is spoken in one piece."""
MAX_WORD_TIME_S = 86_400.0
"""No utterance is a day long: a word's time beyond it is malformed."""
WORD_ROUNDING_S = 0.02
"""Times of words are rounded: one that begins this little before its release still counts on from the last."""
KEEPALIVE_ID = "keepalive"
"""The `request_id` of keepalives, by which an answer to one is told from an answer to a request."""

_ENDINGS = ".!?…。！？।"


class Mode(Enum):
    """How text is streamed into one request."""

    CONTINUATIONS = "continuations"
    FLUSH = "flush"


class Completion(Enum):
    """What told that a request is over; the contract's `CompletionSource`."""

    UPSTREAM = "UPSTREAM"
    NEXT_REQUEST = "NEXT_REQUEST"
    QUIET_TIMEOUT = "QUIET_TIMEOUT"


@dataclass(slots=True)
class Habits:
    """What was learnt of one upstream, over all of its connections; shared by the sessions of a gateway."""

    sends_complete: bool | None = None
    """Whether a `complete` follows the audio; None before the first request ended."""
    quiet_s: float = QUIET_SILENT_S
    """Quiet that ends a request of an upstream that sends no `complete`. Grows when it proved too short."""
    fastest_s_per_letter: float = 0.0
    """Least playing time a letter or digit was spoken in, of requests known to be whole; 0.0 before the first."""
    doubted_at: float | None = None
    """When a `complete` was missed for the first time since the last one came."""

    def completes(self) -> None:
        """A `complete` ended a request."""
        self.sends_complete = True
        self.doubted_at = None

    def missed_complete(self, began_at: float, now: float) -> None:
        """No `complete` came for a request that may be whole: a stall, or this upstream has stopped sending them.

        Many requests stall at once, and none of them may be taken for whole because of the others: only one that
        began after the first, with no `complete` seen since, settles it.
        """
        if self.doubted_at is None:
            self.doubted_at = now
        elif began_at >= self.doubted_at:
            self.sends_complete = self.doubted_at = None

    def whole(self, letters: int, audio_s: float, speed: float) -> None:
        """A request is known to have been spoken to its end."""
        if letters >= 8 and audio_s > 0:
            pace = audio_s * speed / letters
            self.fastest_s_per_letter = min(self.fastest_s_per_letter or pace, pace)

    def plausible(self, letters: int, audio_s: float, speed: float) -> bool:
        """Whether that much audio can be all of that much text. Half the fastest pace seen is the line."""
        return audio_s * speed >= letters * self.fastest_s_per_letter / 2


class AudioReceived(msgspec.Struct, frozen=True):
    """A piece of a request's audio: PCM, as it came (maybe not whole samples)."""

    request: Request
    pcm: bytes


@dataclass(frozen=True, slots=True)
class WordReceived:
    """A word's times within the request, in seconds, on the request's own timeline."""

    request: Request
    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class RequestCompleted:
    """All audio of a request is there."""

    request: Request
    source: Completion


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request will not be finished. The connection may live on; see `TtsProtocol.reusable`."""

    request: Request
    error: WavegateError


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is of no more use, and no request was open on it."""

    error: WavegateError


TtsEvent = AudioReceived | WordReceived | RequestCompleted | RequestFailed | ConnectionFailed


class _Phase(Enum):
    OPEN = "open"
    CLOSING = "closing"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Request:
    """One piece of speech on the wire. Made by the session, kept up by the protocol."""

    request_id: str
    settings: Settings
    phase: _Phase = _Phase.OPEN
    upstream_request_id: str = ""
    """The upstream's own id of the latest release."""
    messages: int = 0
    began_at: float = 0.0
    letters: int = 0
    """Letters and digits of its text: what is sure to be heard."""
    audio_bytes: int = 0
    last_frame_at: float = 0.0
    unanswered: bool = False
    """Whether nothing was heard since the last text: audio is owed for it."""
    closed_at: float = 0.0
    owed_since: float | None = None
    """When the upstream had everything it needs to speak; None while it owes nothing."""
    last_was_complete: bool = False
    one_release: bool = False
    ended_by_quiet: bool = False
    release_base_s: float = 0.0
    """Playing time before the current release: word times restart with each."""
    word_seen: bool = False

    @property
    def ended(self) -> bool:
        return self.phase is _Phase.ENDED

    @property
    def closing(self) -> bool:
        """Whether the closing fragment was sent; no more text can be added."""
        return self.phase is not _Phase.OPEN


@dataclass(slots=True)
class Counters:
    """What a connection dropped; for metrics."""

    stale_frames: int = 0
    stale_audio_bytes: int = 0
    unknown_frames: int = 0
    garbage: int = 0


@dataclass(slots=True)
class TtsProtocol:
    """The core of one connection."""

    mode: Mode
    sample_rate_hz: int
    session_id: str
    habits: Habits = field(default_factory=Habits)
    upstream_session_id: str = ""
    counters: Counters = field(default_factory=Counters)
    reusable: bool = True
    """Whether the next request may go over this connection."""
    disobeyed: bool = False
    """Whether audio of a cancelled request went on: the old audio stands in the way of the next request's."""
    announced_idle: bool = False
    """Whether the upstream said that it hangs up because nothing was sent."""
    _current: Request | None = None
    _ended: dict[str, Request] = field(default_factory=dict)
    _own_ids: dict[str, Request] = field(default_factory=dict)
    _echoes: bool | None = None
    """Whether frames say whose they are; None before the first frame."""
    _cancelled_at: dict[str, float] = field(default_factory=dict)
    _closing: WavegateError | None = None
    _unread_until: float = 0.0
    """Until when frames were left unread: silence before proves nothing."""

    # -- out ------------------------------------------------------------------------------------------------

    def speak(self, request: Request, text: str, *, last: bool, now: float) -> list[str]:
        """Messages that add `text` to a request, and close it with `last`.

        The first call begins the request; no other may be open. An empty text is sent only to close.
        """
        if request.phase is not _Phase.OPEN:
            raise AssertionError(f"request {request.request_id} takes no more text")
        if self._current is not request:
            if self._current is not None:
                raise AssertionError("one request at a time")
            self._current = request
        first = request.messages == 0
        if first:
            request.began_at = now
        request.messages += 1
        letters = sum(c.isalnum() for c in text)
        if letters:
            request.letters += letters
            request.unanswered = True
            request.last_was_complete = False
            if request.owed_since is None and self._releases_by_itself(request.settings):
                request.owed_since = now + request.settings.get("max_buffer_delay", 0.0)
        if last:
            request.phase = _Phase.CLOSING
            request.closed_at = now
            request.one_release = first and _one_sentence(text)
            if request.letters and not request.last_was_complete:
                request.owed_since = now if request.owed_since is None else min(now, request.owed_since)
        payload = self._payload(request.settings, request.request_id)
        payload["text"] = text
        payload["continue"] = not last
        if self.mode is Mode.CONTINUATIONS:
            payload["context_id"] = request.request_id
        else:
            payload["flush"] = last
        return [_encode(payload)]

    def cancel(self, request: Request, now: float) -> list[str]:
        """End a request here and now; messages that tell the upstream.

        None are returned where the upstream has no word for it: then `reusable` is false, and only a new
        connection stops the old audio.
        """
        if request.ended:
            return []
        self._end(request)
        self._cancelled_at[request.request_id] = now
        if request.messages == 0:
            return []
        if self.mode is Mode.FLUSH or self._echoes is False:
            # Without echoed ids the old audio could not be told from the next request's.
            self.reusable = False
            return []
        payload = self._payload(request.settings, request.request_id)
        payload["context_id"] = request.request_id
        payload["cancel_request"] = True
        return [_encode(payload)]

    def keepalive(self, settings: Settings) -> list[str]:
        """A message that resets the upstream's idle clock and is not heard; none while a request is open."""
        if self._current is not None:
            return []
        return [_encode({**self._payload(settings, KEEPALIVE_ID), "text": " "})]

    # -- in -------------------------------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: float) -> list[TtsEvent]:
        """What a message means. Never raises for what the upstream sent."""
        try:
            if isinstance(message, bytes):
                return self._unreadable(message, "a binary frame where text belongs")
            frame = _decode(message)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._unreadable(message, "a frame that is not JSON")
        if not isinstance(frame, dict):
            return self._garbage("a frame that is not an object")
        status = frame.get("status")
        if isinstance(session := frame.get("session_id"), str):
            self.upstream_session_id = session
        if status == "chunk":
            return self._chunk(frame, now)
        if status == "word_timestamp":
            return self._word(frame, now)
        if status == "complete":
            return self._complete(frame, now)
        if status == "error" or (status is None and frame.get("error") is not None):
            return self._error(frame)
        self.counters.unknown_frames += 1
        return []

    def closed(self, code: int | None, reason: str, now: float) -> list[TtsEvent]:
        """The socket has gone; whatever was open has ended, well or not."""
        self.reusable = False
        request = self._current
        error = self._closing or close.from_close(code, reason)
        if request is None:
            return [] if code in (1000, 1001) and self._closing is None else [ConnectionFailed(error)]
        spoken = request.last_was_complete and (request.closing or self._may_be_whole(request))
        if code in (1000, 1001) and self._closing is None and spoken:
            # All that was sent is spoken; the session says any further text over a new connection.
            self._know_completes(request)
            return self._completed(request, Completion.UPSTREAM)
        self._end(request)
        return [RequestFailed(request, error)]

    def failed(self, error: WavegateError) -> list[TtsEvent]:
        """The connection was given up for `error`."""
        self.reusable = False
        if (request := self._current) is None:
            return []
        self._end(request)
        return [RequestFailed(request, error)]

    def abandon(self) -> None:
        """Forget the open request without an event: the session says it over another connection."""
        self.reusable = False
        if self._current is not None:
            self._end(self._current)

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `expire`, on the clock of the other calls' `now`; None for not at all."""
        request = self._current
        if request is None:
            return None
        since = max(request.last_frame_at, self._unread_until)
        if request.phase is _Phase.CLOSING:
            quiet = self._quiet_s(request)
            return max(since, request.closed_at) + (OWED_S if quiet is None else quiet)
        if request.owed_since is None:
            return None
        return max(since, request.owed_since) + OWED_S

    def expire(self, now: float) -> list[TtsEvent]:
        """The deadline has passed: a quiet end, or a stall."""
        due = self.deadline()
        request = self._current
        if request is None or due is None or now < due:
            return []
        if request.phase is _Phase.CLOSING and self._quiet_s(request) is not None:
            if request.last_was_complete:
                self._know_completes(request)
                return self._completed(request, Completion.UPSTREAM)
            if request.audio_bytes and self.habits.sends_complete is None:
                self.habits.sends_complete = False
            if self._echoes is False:
                # A late frame could not be told from the next request's.
                self.reusable = False
            request.ended_by_quiet = True
            return self._completed(request, Completion.QUIET_TIMEOUT)
        if self._may_be_whole(request):
            self.habits.missed_complete(request.began_at, now)
        self._end(request)
        self.reusable = False
        return [
            RequestFailed(
                request,
                errors.UpstreamStalled(f"the upstream owes audio and sent nothing for {OWED_S:g} s"),
            )
        ]

    def touch(self, now: float) -> None:
        """The connection was not read until now, so silence up to here proves nothing."""
        self._unread_until = now

    # -- inside ---------------------------------------------------------------------------------------------

    def _payload(self, settings: Settings, request_id: str) -> dict[str, Any]:
        """The full effective settings, as every message carries them."""
        values = upstream_values(SYNTHESIS, settings)
        delay_ms = values.pop("max_buffer_delay_ms", None)
        if delay_ms is not None:
            key = "max_buffer_delay_ms" if self.mode is Mode.CONTINUATIONS else "max_buffer_flush_ms"
            values[key] = delay_ms
        values["sample_rate"] = self.sample_rate_hz
        values["output_format"] = "pcm"
        values["session_id"] = self.session_id
        values["request_id"] = request_id
        return values

    def _releases_by_itself(self, settings: Settings) -> bool:
        """Whether buffered text is spoken after a delay without being asked for."""
        return self.mode is Mode.CONTINUATIONS or settings.get("max_buffer_delay", 0.0) > 0

    def _quiet_s(self, request: Request) -> float | None:
        """How long silence ends a closing request; None where silence alone never does."""
        if request.last_was_complete:
            return CONFIRM_S if self._may_be_whole(request) else QUIET_UNKNOWN_S
        if not request.letters and not request.audio_bytes:
            return QUIET_UNKNOWN_S
        if not self._may_be_whole(request):
            return None
        match self.habits.sends_complete:
            case None:
                return QUIET_UNKNOWN_S
            case False:
                return self.habits.quiet_s
            case True:
                return None

    def _may_be_whole(self, request: Request) -> bool:
        """Whether what was heard can be all there is to hear."""
        return not request.unanswered and self._plausible(request)

    def _plausible(self, request: Request) -> bool:
        if request.letters and not request.audio_bytes:
            return False
        speed = request.settings.get("speed", 1.0)
        return self.habits.plausible(request.letters, self._audio_s(request), speed)

    def _audio_s(self, request: Request) -> float:
        return request.audio_bytes / 2 / self.sample_rate_hz

    def _owner(self, frame: Mapping[str, Any], now: float) -> Request | None:
        """The open request a frame belongs to; None for a stale one."""
        own = frame.get("request_id")
        echoed = frame.get("external_request_id")
        if isinstance(echoed, str) and echoed:
            self._echoes = True
            request = self._current
            if request is None or request.request_id != echoed:
                self._stale(self._ended.get(echoed), frame, now)
                return None
        elif isinstance(own, str) and own in self._own_ids:
            request = self._own_ids[own]
            if request is not self._current:
                self._stale(request, frame, now)
                return None
        else:
            if self._echoes is None:
                self._echoes = False
                if self._cancelled_at:
                    # Perhaps of what was cancelled: nothing tells it from what was asked for since.
                    self.disobeyed = True
                    self.reusable = False
            request = self._current
            if request is None or self._echoes or self.disobeyed:
                self._stale(None, frame, now)
                return None
        if isinstance(own, str) and own and own != request.upstream_request_id:
            if request.upstream_request_id:
                request.release_base_s = self._audio_s(request)
                request.word_seen = False
            request.upstream_request_id = own
            self._own_ids[own] = request
        return request

    def _stale(self, request: Request | None, frame: Mapping[str, Any], now: float) -> None:
        self.counters.stale_frames += 1
        if frame.get("status") != "chunk":
            return
        data = frame.get("data")
        audio = data.get("audio") if isinstance(data, Mapping) else None
        self.counters.stale_audio_bytes += len(audio) * 3 // 4 if isinstance(audio, str) else 0
        if request is None:
            return
        cancelled_at = self._cancelled_at.get(request.request_id)
        if request.ended_by_quiet:
            # It had more to say: that quiet was too short.
            self.habits.quiet_s = min(QUIET_UNKNOWN_S, self.habits.quiet_s * 2)
        elif cancelled_at is not None and now - cancelled_at > LATE_CANCEL_S:
            self.disobeyed = True
            self.reusable = False

    def _chunk(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        request = self._owner(frame, now)
        if request is None:
            return []
        data = frame.get("data")
        audio = data.get("audio") if isinstance(data, Mapping) else None
        if audio is None:
            audio = frame.get("audio")
        if audio is None or audio == "":
            return []
        try:
            pcm = pybase64.b64decode(audio, validate=True)
        except (ValueError, TypeError):
            return self._damaged(request, "audio that is not base64")
        request.last_frame_at = now
        request.unanswered = False
        request.last_was_complete = False
        request.owed_since = None
        request.audio_bytes += len(pcm)
        return [AudioReceived(request, pcm)]

    def _word(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        request = self._owner(frame, now)
        if request is None:
            return []
        data = frame.get("data")
        if not isinstance(data, Mapping):
            return self._garbage("a word_timestamp without data")
        text, start, end = data.get("word"), data.get("start"), data.get("end")
        if not (isinstance(text, str) and is_word_time(start) and is_word_time(end)):
            return self._garbage("a word_timestamp without word, start and end")
        request.last_frame_at = now
        if not request.word_seen:
            request.word_seen = True
            if start + WORD_ROUNDING_S >= request.release_base_s > 0:
                request.release_base_s = 0.0  # this upstream counts on from release to release
        base = request.release_base_s
        return [WordReceived(request, text, base + start, base + max(start, end))]

    def _complete(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        request = self._owner(frame, now)
        if request is None:
            return []
        request.last_frame_at = now
        request.last_was_complete = True
        if request.phase is not _Phase.CLOSING:
            request.owed_since = None  # a release ended; text that comes now is owed anew
            return []
        request.owed_since = None
        if request.one_release and self._plausible(request):
            self._know_completes(request)
            return self._completed(request, Completion.UPSTREAM)
        return []

    def _error(self, frame: Mapping[str, Any]) -> list[TtsEvent]:
        error = close.from_error_frame(frame)
        if close.is_idle_timeout(frame):
            self._closing = errors.UpstreamUnavailable(
                f"the upstream closed an idle connection: {error.message}"
            )
            self.announced_idle = True
            self.reusable = False
            if self._current is None:
                return []
            error = self._closing
        echoed = frame.get("external_request_id")
        request = self._current
        if request is None or (isinstance(echoed, str) and echoed and echoed != request.request_id):
            if isinstance(echoed, str) and echoed in self._ended:
                self.counters.stale_frames += 1
                return []
            if isinstance(error, errors.UpstreamRejected | errors.UpstreamCapacity):
                return []  # about something that is over, such as a keepalive
            self.reusable = False
            return [ConnectionFailed(error)]
        if not echoed and isinstance(error, errors.UpstreamRejected) and self._follows_cancel(request):
            # An answer to the cancel, or to the request: another connection, where nothing was cancelled, will show.
            self.disobeyed = True
            self.reusable = False
            return []
        self._end(request)
        if not isinstance(error, errors.UpstreamRejected | errors.UpstreamCapacity):
            self.reusable = False
        return [RequestFailed(request, error)]

    def _follows_cancel(self, request: Request) -> bool:
        """Whether nothing was heard of a request yet, and the one before it was cancelled."""
        before = next(reversed(self._ended), "")
        return before in self._cancelled_at and not request.last_frame_at

    def _garbage(self, what: str) -> list[TtsEvent]:
        """A frame that says nothing: passed over, until there are too many of them."""
        self.counters.garbage += 1
        if self.counters.garbage < MAX_GARBAGE:
            return []
        return self._give_up(f"the upstream sent {what}, for the {self.counters.garbage}th time")

    def _unreadable(self, message: str | bytes, what: str) -> list[TtsEvent]:
        """A frame that cannot be read. Where it names audio and some is expected, it takes that along."""
        names_audio = b'"audio"' in message if isinstance(message, bytes) else '"audio"' in message
        if names_audio and self._current is not None:
            return self._damaged(self._current, what)
        return self._garbage(what)

    def _damaged(self, request: Request, what: str) -> list[TtsEvent]:
        """A frame that should have held audio: a hole, which cannot be passed over."""
        self.counters.garbage += 1
        return self._give_up(f"the upstream sent {what}")

    def _give_up(self, text: str) -> list[TtsEvent]:
        self.reusable = False
        error = errors.UpstreamProtocol(text)
        request = self._current
        if request is None:
            return [ConnectionFailed(error)]
        self._end(request)
        return [RequestFailed(request, error)]

    def _know_completes(self, request: Request) -> None:
        self.habits.completes()
        if self._plausible(request):
            speed = request.settings.get("speed", 1.0)
            self.habits.whole(request.letters, self._audio_s(request), speed)

    def _completed(self, request: Request, source: Completion) -> list[TtsEvent]:
        self._end(request)
        return [RequestCompleted(request, source)]

    def _end(self, request: Request) -> None:
        request.phase = _Phase.ENDED
        self._ended[request.request_id] = request
        # A long session makes many requests; late frames of the newest few are all that can still come.
        while len(self._ended) > _REMEMBERED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._cancelled_at.pop(oldest, None)
        while len(self._own_ids) > _REMEMBERED * 4:
            del self._own_ids[next(iter(self._own_ids))]
        if self._current is request:
            self._current = None


_REMEMBERED = 32
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def _encode(payload: Mapping[str, Any]) -> str:
    return _encoder.encode(payload).decode()


def _decode(message: str) -> Any:
    return _decoder.decode(message)


def is_word_time(value: object) -> TypeGuard[float]:
    """Whether a frame's value can be the time of a word, in seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_WORD_TIME_S


def _one_sentence(text: str) -> bool:
    """Whether a text can only be released in one piece: short, and without a sentence end inside."""
    body = text.strip().rstrip(_ENDINGS + "\"')]”’ ")
    return len(body) <= ONE_RELEASE_CHARS and not any(c in body for c in _ENDINGS + "\n;:")


def defaults(mode: Mode) -> dict[str, Any]:
    """Settings that are always sent, whoever else sets nothing.

    The upstream's own `complete_backoff_ms` is 4 s, and would hold every utterance's end back as long. Buffering
    is the upstream's own: 3 s with continuations, none with flush.
    """
    return {
        "max_buffer_delay": 3.0 if mode is Mode.CONTINUATIONS else 0.0,
        "completion_backoff": 0.1,
    }


TTS_PATH = "/waves/v1/tts/live"
TTS_OLD_PATH = "/waves/v1/lightning-v3.1/get_speech/stream"
TTS_V2_PATH = "/waves/v1/lightning-v2/get_speech/stream"


def path_of(settings: Settings, *, old_paths: bool) -> str:
    """The endpoint that serves these settings: an old model has its own, a flag brings the old one back."""
    if settings.get("model") == LIGHTNING_V2:
        return TTS_V2_PATH
    return TTS_OLD_PATH if old_paths else TTS_PATH
