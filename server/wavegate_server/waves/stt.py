"""One speech-to-text connection: its URL, what is written, and what the frames that come back mean.

Theory of operation
-------------------
All settings are in the URL; another setting is another connection. Up go binary audio and three text messages
(`finalize`, `close_stream`, `keepalive`), down come transcripts, voice activity and errors. Times are seconds
of this connection's audio; where that lies in a session is the session's business (`session.timeline`).

    OPEN --close_stream--> CLOSING --last transcript or close--> OVER
      \\---------------error / garbage / stall / closed-----------/

The upstream owes an answer to `close_stream`, to a `finalize` that has something to finish, and to sound; it is
silent at other times, rightly. It may be slower than it is sent audio: what lies before a question has to be heard
first, and the time for that is its own (`behind_s`).

No clock lives here: the time is an argument, `deadline` says when to call `expire`.

The sources differ on many fields, so reading is tolerant: what is missing or of another type is left out, what
is unknown is passed over. Only a frame that is no JSON object, or a transcription without a text, counts as
garbage, which ends the connection: what it was meant to say is heard again on the next one. That one passes over a
little of it, for an upstream that always talks so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.errors import WavegateError
from wavegate_server.waves import close
from wavegate_server.waves.framing import split
from wavegate_server.waves.settings import TRANSCRIPTION, Settings, query_value, upstream_values

STT_PATH = "/waves/v1/stt/live"
STT_OLD_PATH = "/waves/v1/pulse/get_text"

DEFAULTS: Settings = {"model": "pulse", "language_code": "en"}
"""What is sent where neither the caller nor the gateway's options say otherwise: the sources differ on what
the upstream takes for granted, so it is always told."""

OWED_S = 10.0
"""How long the upstream may stay silent once it owes an answer and has had the time to hear what lies before the
question (the stall rule of docs/architecture.md)."""
SOUND_S = 1.0
"""This much sound since the last frame is owed an answer; less may be a knock on the microphone."""
MAX_GARBAGE = 3
"""Malformed frames of one connection before it is given up, where another one has not mended it."""


# -- the URL --------------------------------------------------------------------------------------------------


def query(
    settings: Settings, audio_format: AudioFormat, *, external_session_id: str = "", old_path: bool = False
) -> str:
    """The query of a connection with these effective settings.

    Always in it: model, language, rate, encoding, word times and voice activity. The old path has no `model`.
    """
    values = upstream_values(TRANSCRIPTION, {**DEFAULTS, **settings})
    always = {
        "model": values.pop("model"),
        "language": values.pop("language"),
        "sample_rate": audio_format.sample_rate_hz,
        "encoding": audio_format.encoding.value,
        "word_timestamps": True,
        "vad_events": True,
    }
    if old_path:
        del always["model"]
    if external_session_id:
        values["external_session_id"] = external_session_id
    return urlencode([(k, query_value(v)) for k, v in {**always, **values}.items()], quote_via=quote)


def path_of(*, old_path: bool) -> str:
    """The endpoint; a flag brings the old one back."""
    return STT_OLD_PATH if old_path else STT_PATH


# -- events ---------------------------------------------------------------------------------------------------


class HeardWord(msgspec.Struct, frozen=True):
    """A word and its times on this connection, in seconds. None, or "", where the upstream did not say."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None
    speaker: str = ""
    speaker_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class HeardSentence:
    """A sentence and its times on this connection, in seconds."""

    text: str
    start_s: float
    end_s: float
    speaker: str = ""


class TranscriptReceived(msgspec.Struct, frozen=True):
    """What was said, so far or for good. `words` is empty where not every word came with its times."""

    text: str
    is_final: bool = False
    is_last: bool = False
    from_finalize: bool = False
    speech_final: bool = False
    words: tuple[HeardWord, ...] = ()
    sentences: tuple[HeardSentence, ...] = ()
    languages: tuple[str, ...] = ()
    redacted_entities: tuple[str, ...] = ()
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """Fields that have no name here (emotion, gender, …), as they came."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """A voice began, by the sound alone."""

    at_s: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """A voice stopped, by the sound alone."""

    at_s: float


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to a `keepalive` message."""


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The connection closed in good order after `close_stream`: nothing more comes."""


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The connection is of no more use."""

    error: WavegateError


SttEvent = TranscriptReceived | SpeechStarted | SpeechEnded | PongReceived | StreamFinished | ConnectionFailed


@dataclass(slots=True)
class Counters:
    """What a connection passed over; for metrics."""

    unknown_frames: int = 0
    garbage: int = 0


# -- the protocol ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SttProtocol:
    """The core of one connection."""

    encoding: Encoding
    upstream_session_id: str = ""
    counters: Counters = field(default_factory=Counters)
    announced_idle: bool = False
    """Whether the upstream said that it hangs up because nothing was sent."""
    close_sent: bool = False
    failed: bool = False
    """Whether `ConnectionFailed` was reported; nothing is reported after it."""
    is_tolerant: bool = False
    """Whether a little garbage is passed over: an earlier connection spoke it, too. Else the first bit of it ends the
    connection, since it may have been a transcript, which another one will repeat."""
    keepalives_unanswered: int = 0
    """Keepalive messages since the last `pong`: a connection that dies of them does not like them."""
    _owed_since: float | None = None
    _heard_by: float = 0.0
    """When the audio before the question may be expected to have been heard."""
    _sound_s: float = 0.0
    _last_answers: set[tuple[object, ...]] = field(default_factory=set)
    """What came since `close_stream`."""

    # -- out ------------------------------------------------------------------------------------------------

    # What is sent waits behind the audio that was sent before it. `behind_s` says for how many seconds that may be.

    def audio(self, data: bytes, now: float, *, sound_s: float = 0.0, behind_s: float = 0.0) -> list[bytes]:
        """Messages that carry a piece of audio. `sound_s`: how much of it is sound rather than silence."""
        if sound_s:
            self._sound_s += sound_s
            if self._sound_s >= SOUND_S:
                self._ask(now, behind_s)
        return split(data, self.encoding)

    def finalize(self, now: float, *, owed: bool, behind_s: float = 0.0) -> list[str]:
        """The turn is over. `owed`: there is something to finish; the answer to an empty turn may be none."""
        if owed:
            self._ask(now, behind_s)
        return ['{"type":"finalize"}']

    def close_stream(self, now: float, *, behind_s: float = 0.0) -> list[str]:
        """No more audio: whatever is left comes, then the end."""
        self.close_sent = True
        self._owed_since = None
        self._ask(now, behind_s)
        return ['{"type":"close_stream"}']

    def keepalive(self) -> list[str]:
        """A message that keeps a quiet connection open, where the upstream has an ear for it."""
        self.keepalives_unanswered += 1
        return ['{"type":"keepalive"}']

    # -- in -------------------------------------------------------------------------------------------------

    def receive(self, message: str | bytes, now: float) -> list[SttEvent]:
        """What a message means. Never raises for what the upstream sent."""
        if self.failed:
            return []
        try:
            if isinstance(message, bytes):
                return self._garbage("a binary frame where text belongs")
            frame = msgspec.json.decode(message)
        except (msgspec.DecodeError, UnicodeError):
            return self._garbage("a frame that is not JSON")
        if not isinstance(frame, dict):
            return self._garbage("a frame that is not an object")
        if isinstance(session := frame.get("session_id"), str):
            self.upstream_session_id = session
        match kind := frame.get("type"):
            case "transcription":
                return self._transcript(frame, now)
            case "speech_started" | "speech_ended":
                return self._activity(frame, kind == "speech_started", now)
            case "pong":
                self.keepalives_unanswered = 0
                return [PongReceived()]
            case "error":
                return self._error(frame)
        if kind is None and (frame.get("status") == "error" or frame.get("error")):
            return self._error(frame)
        if kind is None and ("transcript" in frame or "transcription" in frame):
            return self._transcript(frame, now)
        if not {"type", "status"} & set(frame):
            return self._garbage("a frame of no type")  # it may have stood in the place of a transcript
        self.counters.unknown_frames += 1
        return []

    def closed(self, code: int | None, reason: str) -> list[SttEvent]:
        """The socket has gone."""
        if self.failed:
            return []
        if self.close_sent and code in (1000, 1001, 1005):  # 1005: it closed in order and gave no code
            return [StreamFinished()]
        return self._fail(close.from_close(code, reason))

    def give_up(self, error: WavegateError) -> list[SttEvent]:
        """The connection was given up for `error`."""
        return [] if self.failed else self._fail(error)

    # -- time -----------------------------------------------------------------------------------------------

    def deadline(self) -> float | None:
        """When to call `expire`, on the clock of the other calls' `now`; None for not at all."""
        if self.failed or self._owed_since is None:
            return None
        return max(self._owed_since, self._heard_by) + OWED_S

    def expire(self, now: float) -> list[SttEvent]:
        """The deadline has passed: a stall."""
        due = self.deadline()
        if due is None or now < due:
            return []
        what = "the rest of the transcript" if self.close_sent else "a transcript"
        silent_s = now - (self._owed_since or 0.0)
        return self._fail(
            errors.UpstreamStalled(f"the upstream owes {what} and sent nothing for {silent_s:.0f} s")
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _ask(self, now: float, behind_s: float) -> None:
        """The upstream owes an answer from now on, unless it owes one already."""
        if self._owed_since is None:
            self._owed_since = now
            self._heard_by = now + behind_s

    def _answered(self, now: float, *answer: object) -> None:
        """Note an answer. After `close_stream` the upstream owes until it has closed, and says the same again in vain:
        one that repeats itself for ever would never be given up otherwise."""
        self._sound_s = 0.0
        if not self.close_sent:
            self._owed_since = None
        elif answer not in self._last_answers:
            self._last_answers.add(answer)
            self._owed_since = now

    def _transcript(self, frame: Mapping[str, Any], now: float) -> list[SttEvent]:
        text = frame.get("transcript")
        if not isinstance(text, str) or not text:
            other = frame.get("transcription")
            text = other if isinstance(other, str) else text
        if not isinstance(text, str):
            return self._garbage("a transcription without a text")
        is_last = frame.get("is_last") is True
        is_final = frame.get("is_final") is True or is_last
        words = words_of(frame.get("words"))
        self._answered(now, text, is_final, words[-1].end_s if words else None)
        return [
            TranscriptReceived(
                text=text,
                is_final=is_final,
                is_last=is_last,
                from_finalize=frame.get("from_finalize") is True,
                speech_final=frame.get("speech_final") is True,
                words=words,
                sentences=sentences_of(frame.get("utterances")),
                languages=_languages(frame),
                redacted_entities=_strings(frame.get("redacted_entities")),
                extra={k: v for k, v in frame.items() if k not in _KNOWN and v is not None},
            )
        ]

    def _activity(self, frame: Mapping[str, Any], started: bool, now: float) -> list[SttEvent]:
        at = _number(frame.get("timestamp"))
        if at is None:
            return self._garbage("voice activity without a timestamp", hides_nothing=True)
        self._answered(now, started, at)
        return [SpeechStarted(at) if started else SpeechEnded(at)]

    def _error(self, frame: Mapping[str, Any]) -> list[SttEvent]:
        error = close.from_error_frame(frame)
        if close.is_idle_timeout(frame):
            self.announced_idle = True
            error = errors.UpstreamUnavailable(f"the upstream closed an idle connection: {error.message}")
        return self._fail(error)

    def _garbage(self, what: str, *, hides_nothing: bool = False) -> list[SttEvent]:
        """A frame that nobody can read. `hides_nothing`: it was no transcript."""
        self.counters.garbage += 1
        if (self.is_tolerant or hides_nothing) and self.counters.garbage < MAX_GARBAGE:
            return []
        return self._fail(errors.UpstreamProtocol(f"the upstream sent {what}"))

    def _fail(self, error: WavegateError) -> list[SttEvent]:
        self.failed = True
        return [ConnectionFailed(error)]


# -- fields of a transcript -------------------------------------------------------------------------------------

_KNOWN = frozenset(
    "type status transcription transcript full_transcript is_final is_last from_finalize speech_final session_id "
    "request_id language languages words utterances redacted_entities".split()
)
"""Fields that are read, or that say nothing of what was said."""


def _number(value: Any) -> float | None:
    """A time or a probability; None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _speaker(value: Any) -> str:
    return "" if value is None else str(value)


def words_of(values: Any) -> tuple[HeardWord, ...]:
    """Words with their times. None at all where one of them has none: half a list would be worse."""
    words = []
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, Mapping):
            return ()
        text, start, end = value.get("word"), _number(value.get("start")), _number(value.get("end"))
        if not isinstance(text, str) or start is None or end is None:
            return ()
        start = max(0.0, start)
        words.append(
            HeardWord(
                text,
                start,
                max(start, end),
                _number(value.get("confidence")),
                _speaker(value.get("speaker")),
                _number(value.get("speaker_confidence")),
            )
        )
    return tuple(words)


def sentences_of(values: Any) -> tuple[HeardSentence, ...]:
    sentences = []
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, Mapping):
            continue
        text = value.get("text", value.get("transcript"))
        start, end = _number(value.get("start")), _number(value.get("end"))
        if isinstance(text, str) and start is not None and end is not None:
            start = max(0.0, start)
            sentences.append(HeardSentence(text, start, max(start, end), _speaker(value.get("speaker"))))
    return tuple(sentences)


def _languages(frame: Mapping[str, Any]) -> tuple[str, ...]:
    """The likeliest first, none twice."""
    several = _strings(frame.get("languages"))
    one = frame.get("language")
    first = (one,) if isinstance(one, str) and one else ()
    return tuple(dict.fromkeys((*first, *several)))


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(str(v) for v in values if v) if isinstance(values, list) else ()
