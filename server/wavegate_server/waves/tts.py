"""One text-to-speech connection: what is written, and what the frames that come back mean.

Theory of operation
-------------------
A *request* is one piece of speech on the wire: one `context_id` (continuations) or one `continue … flush`
series (flush). The upstream speaks requests one after the other. Each frame belongs to the request whose
`external_request_id` it echoes, or, where the upstream echoes nothing, whose `request_id` of the upstream's own it
repeats. Frames of an ended request are stale: dropped and counted.

    OPEN --speak(last)--> CLOSING --end found--> ENDED
      \\---------- cancel, failure, close ---------/

When a closing request ends is the hard part, and is decided by the table in `waves/ending.py`. Besides, it ends

- when the socket closes in good order after a `complete`, if what was heard can be all of it;
- when the first frame of the request that follows it comes, likewise.

The request that follows may be sent as soon as the one before may have been heard whole (`may_follow`), so that
no hole comes between the two; until then two are open, `_ending` and `_current`. If anything goes wrong meanwhile,
nothing was heard of the newer one, and it is returned (`RequestReturned`).

Only audio, words and `complete` count as frames here: what says nothing keeps nobody waiting.

No clock lives here: the time is an argument, `deadline` says when to call `expire`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeGuard

import msgspec
import pybase64

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.waves import close, ending
from wavegate_server.waves.ending import OWED_S, Completes, Habits, Heard, PerRequest, Sends, Verdict
from wavegate_server.waves.settings import LIGHTNING_V2, SYNTHESIS, Settings, upstream_values

LATE_CANCEL_S = 0.25
"""Audio of a cancelled request that comes later than this after the cancel was sent shows that the upstream
does not obey; before that it was under way already."""
DELAY_SHARE = 0.8
"""Share of the buffer delay after which the upstream may have spoken without more text: its clock starts later."""
GAP_S = 0.25
"""Seconds between two pieces of text after which an upstream may have spoken what it had, whatever it was asked for."""
MAX_GARBAGE = 3
"""Malformed frames of one connection before it is given up."""
MAX_WORD_TIME_S = 86_400.0
"""No utterance is a day long: a word's time beyond it is malformed."""
WORD_ROUNDING_S = 0.02
"""Times of words are rounded: one that begins this little before its release still counts on from the last."""
KEEPALIVE_ID = "keepalive"
"""The `request_id` of keepalives, by which an answer to one is told from an answer to a request."""


class Mode(Enum):
    """How text is streamed into one request."""

    CONTINUATIONS = "continuations"
    FLUSH = "flush"


class Completion(Enum):
    """What told that a request is over; the contract's `CompletionSource`."""

    UPSTREAM = "UPSTREAM"
    NEXT_REQUEST = "NEXT_REQUEST"
    QUIET_TIMEOUT = "QUIET_TIMEOUT"


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
    """All audio of a request is there, as far as can be known."""

    request: Request
    source: Completion
    is_unconfirmed: bool = False
    """True where what was heard can be all of it, and nothing proves that it is."""


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request will not be finished. The connection may live on; see `TtsProtocol.reusable`."""

    request: Request
    error: WavegateError
    is_doubtful: bool = False
    """True where it may have been heard whole all the same: if it ends alike when it is spoken again, it was."""


@dataclass(frozen=True, slots=True)
class RequestReturned:
    """A request that was sent while the one before it was open has to be sent again. Nothing of it was heard."""

    request: Request


@dataclass(frozen=True, slots=True)
class LateAudioReceived:
    """Audio came for a request that was reported as completed. It was dropped."""

    request: Request
    seconds: float


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is of no more use, and no request was open on it."""

    error: WavegateError


TtsEvent = (
    AudioReceived
    | WordReceived
    | RequestCompleted
    | RequestFailed
    | RequestReturned
    | LateAudioReceived
    | ConnectionFailed
)


class _Phase(Enum):
    OPEN = "open"
    CLOSING = "closing"
    COMPLETED = "completed"
    CUT = "cut"
    """Cancelled, failed or returned."""


@dataclass(slots=True, eq=False)
class Request:
    """One piece of speech on the wire. Made by the session, kept up by the protocol. Times are the caller's `now`."""

    request_id: str
    settings: Settings
    utterance_id: str = ""
    """The utterance that it is a part of."""
    phase: _Phase = _Phase.OPEN
    upstream_request_id: str = ""
    """The upstream's own id of the latest release."""
    releases: int = 0
    """How many such ids it had."""
    text: str = ""
    messages: int = 0
    texts: int = 0
    """How many of its messages had letters or digits."""
    delays: int = 0
    """How often the upstream may have spoken what it had, for want of more, before another message came."""
    began_at: float = 0.0
    waits_since: float = 0.0
    """When the oldest text may have come that the upstream holds back."""
    last_text_at: float = 0.0
    letters: int = 0
    """Letters and digits of its text: what is sure to be heard."""
    audio_bytes: int = 0
    least_audio_s: float = 0.0
    """Playing time that it is known to have, in seconds: an earlier connection was heard to speak so much of it."""
    doubted_audio_s: float | None = None
    """Playing time after which it fell silent on an earlier connection, in seconds; None: that was no end."""
    words: ending.SpokenWords = field(default_factory=ending.SpokenWords)
    last_frame_at: float = 0.0
    unanswered: bool = False
    """Whether nothing was heard since the last text: audio is owed for it."""
    closed_at: float = 0.0
    owed_since: float | None = None
    """When the upstream had everything it needs to speak; None while it owes nothing."""
    completes: int = 0
    """How many `complete` frames came, those without audio before them and repeated ones left out."""
    completed_ids: set[str] = field(default_factory=set)
    """The upstream's own ids of the releases that they were about."""
    last_was_complete: bool = False
    """Whether a `complete` was the last thing that happened to it: no audio and no text came since."""
    is_counted: bool = True
    """Whether no audio came since the last `complete` that counted."""
    completed_early: bool = False
    """Whether a `complete` came before the closing fragment was sent."""
    source: Completion | None = None
    """How its end was known; None before."""
    release_base_s: float = 0.0
    """Playing time before the current release: word times restart with each."""
    word_seen: bool = False
    last_word_start_s: float = 0.0

    @property
    def ended(self) -> bool:
        return self.phase in (_Phase.COMPLETED, _Phase.CUT)

    @property
    def closing(self) -> bool:
        """Whether the closing fragment was sent; no more text can be added."""
        return self.phase is not _Phase.OPEN

    @property
    def voice(self) -> str:
        """What its pace depends on."""
        return ending.voice_of(self.settings)

    @property
    def streamed(self) -> bool:
        """Whether its text was sent in several messages."""
        return self.texts > 1


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
    alive_at: float = math.inf
    """When a ping was sent that the peer answered; kept up by the caller, which sends one where `wants_proof`. Silence
    is an end only if the peer is there at its end. Infinity: taken for granted."""
    counts_requests: bool = False
    """Whether the account has a limit of active requests."""
    wants_proof: bool = False
    """Whether silence is due to be an end, and the peer has to show that it is there."""
    _ending: Request | None = None
    """A closing request behind which another was sent."""
    _current: Request | None = None
    """The newest open request."""
    _ended: dict[str, Request] = field(default_factory=dict)
    _own_ids: dict[str, Request] = field(default_factory=dict)
    _echoes: bool | None = None
    """Whether frames say whose they are; None before the first frame."""
    _cancelled_at: dict[str, float] = field(default_factory=dict)
    _refused_early: bool = False
    """Whether the upstream refused a request that was sent while another was open, which was not sent again yet."""
    _closing: WavegateError | None = None
    _unread_until: float = 0.0
    """Until when frames were left unread: silence before proves nothing."""
    _followed: deque[Request] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """Requests that the next one followed before any `complete`: it may yet come."""
    _handed_over: Request | None = None
    """The request whose quiet was long enough for the next one to be sent."""

    # -- out ------------------------------------------------------------------------------------------------

    def speak(self, request: Request, text: str, *, last: bool, now: float) -> list[str]:
        """Messages that add `text` to a request, and close it with `last`.

        The first call begins the request: none may be open, or one that `may_follow` allows to be followed. An empty
        text is sent only to close.
        """
        if request.phase is not _Phase.OPEN:
            raise AssertionError(f"request {request.request_id} takes no more text")
        if self._current is not request:
            if self._current is not None:
                if not self.may_follow(now):
                    raise AssertionError("one request at a time")
                self._ending = self._current
            self._current = request
            request.began_at = request.waits_since = now
        request.messages += 1
        request.text += text
        delay_s = request.settings.get("max_buffer_delay", 0.0)
        letters = ending.letters_of(text)
        if letters:
            if not request.letters:
                request.waits_since = now
            elif now - request.last_text_at >= GAP_S or (
                delay_s and now - request.waits_since >= delay_s * DELAY_SHARE
            ):
                request.delays += 1
                request.waits_since = now
            request.last_text_at = now
            request.letters += letters
            request.texts += 1
            request.unanswered = True
            request.last_was_complete = False
            if request.owed_since is None and self._releases_by_itself(request.settings):
                request.owed_since = now + delay_s
        if last:
            request.phase = _Phase.CLOSING
            request.closed_at = now
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

    def may_follow(self, now: float) -> bool:
        """True once the next request may be sent: none is open, or one that may have been heard whole already."""
        request = self._current
        if request is None:
            return True
        if self._ending is not None or request.phase is not _Phase.CLOSING or not self.reusable:
            return False
        # Without echoed ids the frames of the two could not be told apart.
        if not self._echoes or self._refused_early or not self.habits.speaks_in_turn(now):
            return False
        quiet_s = ending.hand_over_s(*self._standing(request))
        if quiet_s is not None and self.counts_requests and not request.last_was_complete:
            quiet_s = max(quiet_s, ending.HAND_OVER_S)  # until then the upstream may count it as active
        return quiet_s is not None and now >= self._quiet_since(request) + quiet_s

    def idle_at(self) -> float | None:
        """When the upstream may count as done with what was sent, though its end is still to be reported; else None."""
        request = self._ending or self._current
        if request is None or request.phase is not _Phase.CLOSING or not request.last_was_complete:
            return None
        if (
            self._newer_owed_since(request) is not None
            or ending.hand_over_s(*self._standing(request)) is None
        ):
            return None
        return self._quiet_since(request) + ending.HAND_OVER_S

    def cancel(self, request: Request, now: float) -> list[str]:
        """End a request here and now; messages that tell the upstream.

        None are returned where the upstream has no word for it, or was seen not to obey it: then `reusable` is
        false, and only a new connection stops the old audio.
        """
        if request.ended:
            return []
        self._end(request)
        self._cancelled_at[request.request_id] = now
        if request.messages == 0:
            return []
        # Without echoed ids the old audio could not be told from the next request's.
        if self.mode is Mode.FLUSH or self._echoes is False or not self.habits.obeys_cancel(now):
            self.reusable = False
            return []
        payload = self._payload(request.settings, request.request_id)
        payload["context_id"] = request.request_id
        payload["cancel_request"] = True
        return [_encode(payload)]

    def keepalive(self, settings: Settings) -> list[str]:
        """A message that resets the upstream's idle clock and is not heard; none while a request is open."""
        if self._current is not None or self._ending is not None:
            return []
        return [_encode({**self._payload(settings, KEEPALIVE_ID), "text": " "})]

    # -- in -------------------------------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: float) -> list[TtsEvent]:
        """What a message means. Never raises for what the upstream sent."""
        try:
            if isinstance(message, bytes):
                return self._unreadable("a binary frame where text belongs")
            frame = _decode(message)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._unreadable("a frame that is not JSON")
        if not isinstance(frame, dict):
            return self._unreadable("a frame that is not an object")
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
        if "status" not in frame:
            return self._unreadable("a frame without a status")
        self.counters.unknown_frames += 1
        return []

    def closed(self, code: int | None, reason: str, now: float) -> list[TtsEvent]:
        """The socket has gone; whatever was open has ended, well or not."""
        self.reusable = False
        error = self._closing or close.from_close(code, reason)
        in_order = code in (1000, 1001) and self._closing is None
        request = self._ending or self._current
        if request is None:
            return [] if in_order else [ConnectionFailed(error)]
        if in_order and request.last_was_complete and self._was_all(request):
            # All that was sent is spoken; the session says any further text over a new connection.
            events = self._return_newer()
            return [*events, *self._completed(request, Completion.UPSTREAM, now)]
        return self._fail_open(error)

    def failed(self, error: WavegateError) -> list[TtsEvent]:
        """The connection was given up for `error`."""
        self.reusable = False
        return self._fail_open(error) if self._current is not None or self._ending is not None else []

    def abandon(self) -> None:
        """Forget what is open without an event: the session says it over another connection."""
        self.reusable = False
        for request in (self._ending, self._current):
            if request is not None:
                self._end(request)

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `expire`, on the clock of the other calls' `now`; None for not at all."""
        request = self._ending or self._current
        if request is None:
            return None
        if request.phase is not _Phase.CLOSING:
            if request.owed_since is None:
                return None
            return max(request.last_frame_at, self._unread_until, request.owed_since) + OWED_S
        since = self._quiet_since(request)
        standing = self._standing(request)
        verdict = ending.verdict(*standing)
        due = since + self._patience_s(request, *standing)
        if verdict in (Verdict.QUIET, Verdict.DOUBT):
            if (newer := self._newer_owed_since(request)) is not None:
                due = max(since, newer) + OWED_S
            elif self.wants_proof and self.alive_at < due:
                due += OWED_S
        if self._ending is None and self._handed_over is not request:
            quiet_s = ending.hand_over_s(*standing)
            if quiet_s is not None and not request.last_was_complete:
                due = min(due, since + ending.HAND_OVER_S)
        return due

    def expire(self, now: float) -> list[TtsEvent]:
        """The deadline has passed: the end that quiet tells, a stall, or only the time to send the next request."""
        due = self.deadline()
        request = self._ending or self._current
        if request is None or due is None or now < due:
            return []
        if request.phase is not _Phase.CLOSING:
            return self._stall(request, now)
        since = self._quiet_since(request)
        standing = self._standing(request)
        verdict, due = ending.verdict(*standing), since + self._patience_s(request, *standing)
        if now < due:
            self._handed_over = request
            return []
        if verdict is Verdict.STALL:
            return self._stall(request, now)
        if verdict in (Verdict.QUIET, Verdict.DOUBT):
            if self._newer_owed_since(request) is not None:
                return self._stall(request, now)  # the next request would have been heard
            if self.alive_at < due:
                if self.wants_proof:
                    return self._stall(request, now)
                self.wants_proof = True
                return []
        if verdict is Verdict.DOUBT:
            if not self._is_alike(request):
                return self._stall(request, now, is_doubtful=True)
            self.habits.ended_alike()
        if request.completes or request.last_was_complete:
            return self._completed(request, Completion.UPSTREAM, now, is_unconfirmed=verdict.is_unconfirmed)
        if self._echoes is False and request.audio_bytes:
            # A late frame could not be told from the next request's.
            self.reusable = False
        return self._completed(request, Completion.QUIET_TIMEOUT, now, is_unconfirmed=verdict.is_unconfirmed)

    def answered(self, asked_at: float) -> None:
        """A ping that was sent at `asked_at` was answered.

        Where a frame came meanwhile, the silence began anew, and its end asks for another proof.
        """
        self.alive_at = asked_at
        self.wants_proof = False

    def touch(self, now: float) -> None:
        """The connection was not read until now, so silence up to here proves nothing."""
        self._unread_until = now

    # -- inside: what is known ------------------------------------------------------------------------------

    def _standing(self, request: Request) -> tuple[Completes, Heard, Sends]:
        """What `waves/ending.py` decides by."""
        completes = self._completes(request)
        return completes, self._heard(request, completes), self.habits.sends

    def _completes(self, request: Request) -> Completes:
        if not request.last_was_complete:
            return Completes.NONE
        custom = self._custom(request)
        sends_one = custom.sends_one(request.letters) and not request.completed_early
        if sends_one and custom.is_certain:
            return Completes.ALL
        if request.completes > max(1, request.releases):
            return Completes.SOME  # more than the releases that its ids show: some were said again
        if request.completes >= self._possible(request):
            return Completes.ALL
        if sends_one and request.completes == 1:
            return Completes.ALL if self._leaves_no_release(request) else Completes.AS_USUAL
        return Completes.SOME

    def _possible(self, request: Request) -> int:
        """The most releases that the upstream can have made of a request."""
        possible = ending.possible_releases(request.text) + request.delays
        if self.mode is Mode.CONTINUATIONS and not request.settings.get("max_buffer_delay", 0.0):
            possible = max(possible, request.texts)  # each message is a release of its own
        return possible

    def _leaves_no_release(self, request: Request) -> bool:
        """Whether what was heard is more than the text without its last release takes."""
        if self._possible(request) > ending.possible_releases(request.text):
            return False  # nobody knows what the upstream spoke during a delay
        beginning = ending.without_last_release(request.text)
        return self.habits.is_more_than(request.voice, beginning, self._audio_s(request))

    def _heard(self, request: Request, completes: Completes) -> Heard:
        if not request.letters:
            return Heard.SOMETHING if request.audio_bytes else Heard.NOTHING_TO_SAY
        audio_s = self._audio_s(request)
        if request.unanswered or not audio_s or audio_s < request.least_audio_s - ending.SLACK_S:
            return Heard.MISSING
        if request.words.left(request.text) == 0 and audio_s + ending.SLACK_S >= request.words.last_end_s:
            return Heard.LAST_WORD
        if request.words.are_missing(request.text, audio_s):
            return Heard.MISSING
        return self._measured(request, completes, prior=completes is Completes.NONE)

    def _measured(self, request: Request, completes: Completes, *, prior: bool) -> Heard:
        """The class of a request by its length alone."""
        audio_s = self._audio_s(request)
        custom = self._custom(request)
        sends_each = custom.per_request is PerRequest.EACH and custom.seen >= ending.LEARN_REQUESTS
        strict = completes is Completes.AS_USUAL or (sends_each and completes is not Completes.ALL)
        least_s = self.habits.least_s(
            request.voice,
            request.text,
            request.letters,
            ending.quickened_by(request.settings),
            prior=prior,
            strict=strict,
        )
        return Heard.SHORT if audio_s < least_s else Heard.PLAUSIBLE

    def _was_all(self, request: Request) -> bool:
        """Whether a request may count as spoken whole now that the socket closed behind a `complete`."""
        standing = self._standing(request)
        if standing[0] is Completes.SOME and standing[1] is Heard.PLAUSIBLE:
            return self._measured(request, standing[0], prior=False) is Heard.PLAUSIBLE
        return not ending.is_short(*standing[:2])

    def _custom(self, request: Request) -> ending.Custom:
        return self.habits.custom(streamed=request.streamed)

    def _patience_s(self, request: Request, completes: Completes, heard: Heard, sends: Sends) -> float:
        """Seconds of quiet after which the verdict on a request is carried out.

        A `complete` that was asked to come late, or was seen to, is waited for as much longer.
        """
        verdict = ending.verdict(completes, heard, sends)
        if verdict is Verdict.DOUBT and self._is_alike(request):
            return ending.LAST_WORD_S
        quiet_s = verdict.quiet_s
        if completes is not Completes.NONE or heard is not Heard.PLAUSIBLE:
            return quiet_s
        late_s = self.habits.complete_late_s if sends is Sends.ALWAYS else 0.0
        asked_s: float = request.settings.get("completion_backoff", 0.0)
        return quiet_s + max(late_s, asked_s)

    def _is_alike(self, request: Request) -> bool:
        """Whether a request that is spoken again has fallen silent where it did before."""
        doubted_s = request.doubted_audio_s
        return doubted_s is not None and abs(self._audio_s(request) - doubted_s) <= ending.SLACK_S

    def _quiet_since(self, request: Request) -> float:
        return max(request.last_frame_at, request.closed_at, self._unread_until)

    def _newer_owed_since(self, request: Request) -> float | None:
        """Since when audio of the request behind this one is owed; None where there is none, or it owes nothing."""
        newer = self._current
        return newer.owed_since if newer is not None and newer is not request else None

    def _audio_s(self, request: Request) -> float:
        return request.audio_bytes / 2 / self.sample_rate_hz

    # -- inside: frames -------------------------------------------------------------------------------------

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

    def _owner(self, frame: Mapping[str, Any], now: float, events: list[TtsEvent]) -> Request | None:
        """The open request a frame belongs to; None for a stale one. What its coming means is added to `events`."""
        own = frame.get("request_id")
        echoed = frame.get("external_request_id")
        current, older = self._current, self._ending
        if isinstance(echoed, str) and echoed:
            self._echoes = True
            if current is not None and current.request_id == echoed:
                request = current
            elif older is not None and older.request_id == echoed:
                request = older
            else:
                self._stale(self._ended.get(echoed), frame, now, events)
                return None
        elif isinstance(own, str) and own in self._own_ids:
            request = self._own_ids[own]
            if request is not current and request is not older:
                self._stale(request, frame, now, events)
                return None
        else:
            if self._echoes is None:
                self._echoes = False
                if self._cancelled_at:
                    # Perhaps of what was cancelled: nothing tells it from what was asked for since.
                    self.disobeyed = True
                    self.reusable = False
            if current is None or self._echoes or self.disobeyed:
                self._stale(None, frame, now, events)
                return None
            request = current
        if request is current and older is not None:
            self._turn(older, now, events)
            if request.ended:
                return None
        if isinstance(own, str) and own and own not in self._own_ids:
            if request.upstream_request_id:
                request.release_base_s = self._audio_s(request)
                request.word_seen = False
            request.upstream_request_id = own
            request.releases += 1
            self._own_ids[own] = request
        return request

    def _turn(self, older: Request, now: float, events: list[TtsEvent]) -> None:
        """The upstream speaks the next request, so it has done with the one before it."""
        completes, heard, _ = self._standing(older)
        if ending.is_short(completes, heard):
            # It does not speak requests in turn, or dropped the rest of this one.
            self.habits.out_of_turn_at = now
            self.reusable = False
            events += self._fail_open(
                errors.UpstreamProtocol(
                    "the upstream began the next request before it had spoken this one whole"
                )
            )
            return
        if not older.completes and older.audio_bytes:
            self._followed.append(older)
        is_sure = completes is Completes.ALL or heard not in (Heard.SHORT, Heard.PLAUSIBLE)
        events += self._completed(older, Completion.NEXT_REQUEST, now, is_unconfirmed=not is_sure)

    def _stale(
        self, request: Request | None, frame: Mapping[str, Any], now: float, events: list[TtsEvent]
    ) -> None:
        self.counters.stale_frames += 1
        status = frame.get("status")
        if status == "complete" and request is not None and request.source is not None:
            self.habits.completed(now - request.last_frame_at)  # late, but it comes
            self._followed.clear()
        if status != "chunk":
            return
        data = frame.get("data")
        audio = data.get("audio") if isinstance(data, Mapping) else None
        size = len(audio) * 3 // 4 if isinstance(audio, str) else 0
        self.counters.stale_audio_bytes += size
        names_one = isinstance(named := frame.get("external_request_id"), str) and named
        if not names_one and request is None and self._echoes and self._current and audio not in (None, ""):
            # This upstream says whose its frames are, so this one is damaged, and may have been of what is open.
            events += self._damaged("audio that names no request")
        if request is None or not size:
            return
        cancelled_at = self._cancelled_at.get(request.request_id)
        if request.phase is _Phase.COMPLETED:
            seconds = size / 2 / self.sample_rate_hz
            self.habits.late_audio(request.voice, streamed=request.streamed)
            if request.source is Completion.NEXT_REQUEST:
                self.habits.out_of_turn_at = now
            events.append(LateAudioReceived(request, seconds))
        elif cancelled_at is not None and now - cancelled_at > LATE_CANCEL_S:
            self.habits.disobeyed_at = now
            self.disobeyed = True
            self.reusable = False

    def _chunk(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        events: list[TtsEvent] = []
        request = self._owner(frame, now, events)
        if request is None:
            return events
        data = frame.get("data")
        audio = data.get("audio") if isinstance(data, Mapping) else None
        if audio is None:
            audio = frame.get("audio")
        if audio is None or audio == "":
            return events
        try:
            pcm = pybase64.b64decode(audio, validate=True)
        except (ValueError, TypeError):
            return [*events, *self._damaged("audio that is not base64")]
        if not request.audio_bytes and self._refused_early:
            self._refused_early = False
            self.habits.out_of_turn_at = now  # it was refused for its coming early, and for nothing else
        request.last_frame_at = now
        request.unanswered = False
        request.last_was_complete = request.is_counted = False
        request.owed_since = None
        request.audio_bytes += len(pcm)
        self._handed_over = None
        self.wants_proof = False
        events.append(AudioReceived(request, pcm))
        return events

    def _word(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        events: list[TtsEvent] = []
        request = self._owner(frame, now, events)
        if request is None:
            return events
        data = frame.get("data")
        if not isinstance(data, Mapping):
            return [*events, *self._garbage("a word_timestamp without data")]
        text, start, end = data.get("word"), data.get("start"), data.get("end")
        if not (isinstance(text, str) and is_word_time(start) and is_word_time(end)):
            return [*events, *self._garbage("a word_timestamp without word, start and end")]
        request.last_frame_at = now
        if request.word_seen and start + WORD_ROUNDING_S < request.last_word_start_s:
            # Times that jump back are those of another release, though its id is the same.
            request.release_base_s = request.words.last_end_s
        request.last_word_start_s = start
        if not request.word_seen:
            request.word_seen = True
            if start + WORD_ROUNDING_S >= request.release_base_s > 0:
                request.release_base_s = 0.0  # this upstream counts on from release to release
        base = request.release_base_s
        request.words.add(request.text, text, base + max(start, end))
        return [*events, WordReceived(request, text, base + start, base + max(start, end))]

    def _complete(self, frame: Mapping[str, Any], now: float) -> list[TtsEvent]:
        events: list[TtsEvent] = []
        request = self._owner(frame, now, events)
        if request is None:
            return events
        self._followed.clear()
        if not request.is_counted:  # one that no audio came before teaches nothing
            self.habits.completed(now - max(request.last_frame_at, request.closed_at))
        own = frame.get("request_id")
        is_again = False
        if isinstance(own, str) and own:
            is_again = own in request.completed_ids
            if is_again and own != request.upstream_request_id:
                return events  # said again, of a release before this one
            request.completed_ids.add(own)
        request.last_frame_at = now
        request.owed_since = None  # a release ended; text that comes now is owed anew
        if not request.is_counted:
            request.is_counted = True
            request.completes += not (is_again and request.releases > 1)
            if request.phase is _Phase.OPEN and request.letters:
                request.completed_early = True
                if self._custom(request).per_request is PerRequest.ONE:
                    self._custom(request).forget()
        request.last_was_complete = True
        if request.phase is _Phase.CLOSING:
            verdict = ending.verdict(*self._standing(request))
            if not verdict.quiet_s:
                events += self._completed(
                    request, Completion.UPSTREAM, now, is_unconfirmed=verdict.is_unconfirmed
                )
        return events

    def _error(self, frame: Mapping[str, Any]) -> list[TtsEvent]:
        error = close.from_error_frame(frame)
        about_request = isinstance(error, errors.UpstreamRejected | errors.UpstreamCapacity)
        if close.is_idle_timeout(frame):
            self._closing = errors.UpstreamUnavailable(
                f"the upstream closed an idle connection: {error.message}"
            )
            self.announced_idle = True
            self.reusable = False
            if self._current is None:
                return []
            error, about_request = self._closing, False
        echoed = frame.get("external_request_id")
        request, older = self._current, self._ending
        if older is not None and older.request_id == echoed:
            request = older
        if request is None or (isinstance(echoed, str) and echoed and echoed != request.request_id):
            if isinstance(echoed, str) and echoed in self._ended:
                self.counters.stale_frames += 1
                return []
            if about_request:
                return []  # about something that is over, such as a keepalive
            self.reusable = False
            return self._fail_open(error)
        if not echoed and isinstance(error, errors.UpstreamRejected) and self._follows_cancel(request):
            # An answer to the cancel, or to the request: another connection, where nothing was cancelled, will show.
            self.disobeyed = True
            self.reusable = False
            return []
        if not about_request:
            self.reusable = False
            return self._fail_open(error)
        if older is not None and request is not older:
            # Perhaps only for its coming early: sent again once the one before has ended, it shows.
            self._refused_early = True
            return self._return_newer()
        self._refused_early = False
        self._end(request)
        return [*self._return_newer(), RequestFailed(request, error)]

    def _follows_cancel(self, request: Request) -> bool:
        """Whether nothing was heard of a request yet, and the one before it was cancelled."""
        before = next(reversed(self._ended), "")
        return before in self._cancelled_at and not request.last_frame_at

    # -- inside: what is no use -----------------------------------------------------------------------------

    def _garbage(self, what: str) -> list[TtsEvent]:
        """A frame that holds no audio and cannot be used: passed over, until there are too many of them."""
        self.counters.garbage += 1
        if self.counters.garbage < MAX_GARBAGE:
            return []
        return self._give_up(f"the upstream sent {what}, for the {self.counters.garbage}th time")

    def _unreadable(self, what: str) -> list[TtsEvent]:
        """A frame that cannot be read. It may have held audio of a request that is open."""
        return self._damaged(what) if self._current is not None else self._garbage(what)

    def _damaged(self, what: str) -> list[TtsEvent]:
        """A frame that held audio, or may have: a hole, which cannot be passed over."""
        self.counters.garbage += 1
        return self._give_up(f"the upstream sent {what}")

    def _give_up(self, text: str) -> list[TtsEvent]:
        self.reusable = False
        return self._fail_open(errors.UpstreamProtocol(text))

    def _stall(self, request: Request, now: float, *, is_doubtful: bool = False) -> list[TtsEvent]:
        completes, heard, sends = self._standing(request)
        if completes is Completes.NONE and heard is Heard.PLAUSIBLE and sends is Sends.ALWAYS:
            self.habits.missed_complete(request.began_at, now)
        self.reusable = False
        return self._fail_open(
            errors.UpstreamStalled(f"the upstream owes audio and sent nothing for {OWED_S:g} s"),
            is_doubtful=is_doubtful,
        )

    def _return_newer(self) -> list[TtsEvent]:
        """Take back the request that was sent behind one that is open."""
        newer = self._current
        if self._ending is None or newer is None:
            return []
        self._current, self._ending = self._ending, None
        newer.phase = _Phase.CUT
        self._remember(newer)
        return [RequestReturned(newer)]

    def _fail_open(self, error: WavegateError, *, is_doubtful: bool = False) -> list[TtsEvent]:
        """End what is open, and the connection with it, for `error`."""
        events = self._return_newer()
        request = self._current
        if request is None:
            return [ConnectionFailed(error)]
        self._end(request)
        return [*events, RequestFailed(request, error, is_doubtful)]

    # -- inside: the end ------------------------------------------------------------------------------------

    def _completed(
        self, request: Request, source: Completion, now: float, *, is_unconfirmed: bool = False
    ) -> list[TtsEvent]:
        self._learn(request, is_unconfirmed=is_unconfirmed)
        while self._followed and now >= self._followed[0].last_frame_at + OWED_S:
            self._followed.popleft()
            self.habits.ended_without()
        request.source = source
        self._end(request, _Phase.COMPLETED)
        return [RequestCompleted(request, source, is_unconfirmed)]

    def _learn(self, request: Request, *, is_unconfirmed: bool) -> None:
        """Learn from a request that has ended in good order."""
        custom = self._custom(request)
        possible = self._possible(request)
        completes = self._completes(request)
        shows_nothing_new = request.completes == 1 and custom.sends_one(request.letters)
        if possible > 1 and request.completes and not shows_nothing_new:
            if request.completes >= possible:
                custom.see(PerRequest.EACH, request.letters, is_sure=True)
            elif request.completes == 1 and not request.completed_early:
                # In one message nothing came later that could have been a release of its own.
                is_sure = request.releases > 1 or not request.streamed
                custom.see(PerRequest.ONE, request.letters, is_sure=is_sure)
            else:
                custom.see(None, 0, is_sure=False)
        is_whole = not is_unconfirmed or completes in (Completes.AS_USUAL, Completes.ALL)
        if request.letters and request.audio_bytes and is_whole:
            self.habits.spoken_whole(request.voice, ending.chars_of(request.text), self._audio_s(request))

    def _end(self, request: Request, phase: _Phase = _Phase.CUT) -> None:
        self.wants_proof = False
        request.phase = phase
        if self._ending is request:
            self._ending = None
        elif self._current is request:
            self._current, self._ending = self._ending, None
        self._remember(request)

    def _remember(self, request: Request) -> None:
        """Keep the newest few ended requests: late frames of them can still come."""
        request.text = ""
        request.completed_ids = set()
        request.words = ending.SpokenWords()
        self._ended[request.request_id] = request
        while len(self._ended) > _REMEMBERED:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._cancelled_at.pop(oldest, None)
        while len(self._own_ids) > _REMEMBERED * 4:
            del self._own_ids[next(iter(self._own_ids))]


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


def defaults(mode: Mode) -> dict[str, Any]:
    """Settings that are always sent, whoever else sets nothing.

    The upstream's own `complete_backoff_ms` is 4 s, and would hold every utterance's end back as long, and the
    next utterance with it. Buffering is the upstream's own: 3 s with continuations, none with flush.
    """
    return {
        "max_buffer_delay": 3.0 if mode is Mode.CONTINUATIONS else 0.0,
        "completion_backoff": 0.0,
    }


TTS_PATH = "/waves/v1/tts/live"
TTS_OLD_PATH = "/waves/v1/lightning-v3.1/get_speech/stream"
TTS_V2_PATH = "/waves/v1/lightning-v2/get_speech/stream"


def path_of(settings: Settings, *, old_paths: bool) -> str:
    """The endpoint that serves these settings: an old model has its own, a flag brings the old one back."""
    if settings.get("model") == LIGHTNING_V2:
        return TTS_V2_PATH
    return TTS_OLD_PATH if old_paths else TTS_PATH
