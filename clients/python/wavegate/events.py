"""What a session tells its caller.

Times are seconds. Names of states, reasons and methods are the contract's without their prefix; `UNKNOWN` stands
for one that a newer gateway has and this client has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from wavegate.errors import WavegateError
from wavegate.settings import AudioFormat, JsonValue, SynthesisSettings, TranscriptionSettings

__all__ = [
    "AckState",
    "AudioChunk",
    "AudioProgress",
    "CancelMethod",
    "CompletionSource",
    "ConnectionEvent",
    "ConnectionReason",
    "ConnectionState",
    "EndReason",
    "EstimateSource",
    "FieldOutcome",
    "FinalTrigger",
    "GatewayWarning",
    "GoAway",
    "Mechanism",
    "Sentence",
    "SessionEnded",
    "SessionInfo",
    "SessionLimits",
    "SessionMoved",
    "SessionResumed",
    "SessionStarted",
    "SessionState",
    "SessionUsage",
    "SettingsAck",
    "SpeechEnded",
    "SpeechStarted",
    "SynthesisEvent",
    "TimedWord",
    "Transcript",
    "TranscriptMetrics",
    "TranscriptionEvent",
    "UpstreamInfo",
    "UtteranceCancelled",
    "UtteranceCompleted",
    "UtteranceFailed",
    "UtteranceMetrics",
    "UtteranceStarted",
    "Voice",
    "Word",
    "WordTimings",
]

# --- of every session -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What the gateway enforces on this session; 0 or `None` where there is no limit."""

    max_session_duration_s: float | None
    client_idle_timeout_s: float | None
    resume_window_s: float
    max_text_message_chars: int
    max_buffered_chars: int
    max_audio_message_bytes: int
    max_concurrent_sessions: int
    active_sessions: int


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The upstream has accepted the connection: the first event of every session."""

    session_id: str
    audio_format: AudioFormat
    settings: SynthesisSettings | TranscriptionSettings | None
    settings_revision: int
    limits: SessionLimits
    trace_id: str
    """Hexadecimal; the trace that holds the session's spans."""
    resumed: bool
    input_sequence_acknowledged: int
    gateway_version: str


@dataclass(frozen=True, slots=True)
class UpstreamInfo:
    """How the upstream calls this conversation; quote it in a support ticket."""

    session_id: str
    request_id: str
    endpoint: str
    connection_index: int


ConnectionState = Literal["UNSPECIFIED", "CONNECTED", "DISCONNECTED", "RECONNECTING", "UNKNOWN"]
ConnectionReason = Literal[
    "UNSPECIFIED",
    "INITIAL",
    "SETTINGS_UPDATE",
    "UTTERANCE_CANCEL",
    "IDLE_TIMEOUT",
    "UPSTREAM_CLOSED",
    "NETWORK_ERROR",
    "AUTHENTICATION",
    "CONCURRENCY_LIMIT",
    "UNKNOWN",
]


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The gateway's connection to the upstream came, went, or is being remade."""

    state: ConnectionState
    reason: ConnectionReason
    attempt: int
    max_attempts: int
    next_retry_delay_s: float
    handshake_duration_s: float
    close_code: int | None
    upstream: UpstreamInfo | None
    replayed_audio_duration_s: float
    lost_audio_duration_s: float
    replayed_character_count: int
    cause: WavegateError | None


@dataclass(frozen=True, slots=True)
class GatewayWarning:
    """Something the caller should know that stops nothing."""

    reason: str
    message: str
    metadata: Mapping[str, str]
    utterance_id: str


@dataclass(frozen=True, slots=True)
class GoAway:
    """The gateway will end this session in `time_left_s`."""

    time_left_s: float
    reason: str
    resumable: bool


EndReason = Literal[
    "UNSPECIFIED",
    "CLIENT_HALF_CLOSE",
    "CLIENT_END",
    "CLIENT_IDLE",
    "LIMIT",
    "DRAIN",
    "FAILURE",
    "CLOSED_BY_OPERATOR",
    "TAKEN_OVER",
    "UNKNOWN",
]


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """Totals of a session."""

    input_character_count: int
    audio_bytes: int
    audio_duration_s: float
    utterance_count: int
    reconnect_count: int
    start_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The last event of a session. `error` is `None` where it ended well."""

    reason: EndReason
    error: WavegateError | None
    usage: SessionUsage


@dataclass(frozen=True, slots=True)
class SessionResumed:
    """The connection to the gateway was lost and is there again; nothing is missing, nothing comes twice.

    This event and `SessionMoved` are made by the client itself.
    """

    session_id: str
    outage_s: float
    """From the loss to the end of it."""
    attempts: int
    cause: WavegateError
    """How the connection was lost."""


@dataclass(frozen=True, slots=True)
class SessionMoved:
    """The gateway shuts down, and another session goes on where this one stood, at another gateway or the same address.

    What comes from here on has the new session's numbers: of settings revisions, of inputs, of totals.
    """

    started: SessionStarted
    previous_session_id: str
    target: str
    lost_audio_s: float
    """Transcription: playing time of audio that was kept no longer, and has no final transcript."""

    @property
    def session_id(self) -> str:
        """What the session is called now."""
        return self.started.session_id


AckState = Literal[
    "UNSPECIFIED", "QUEUED", "APPLIED", "REJECTED", "SUPERSEDED", "SESSION_ENDED", "VALIDATED", "UNKNOWN"
]
Mechanism = Literal["UNSPECIFIED", "NO_CHANGE", "IN_PLACE", "NEXT_UTTERANCE", "RECONNECT", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class FieldOutcome:
    """How one setting took, or will take, effect."""

    path: str
    """The contract's name of the setting."""
    mechanism: Mechanism


@dataclass(frozen=True, slots=True)
class SettingsAck:
    """What became of one change of settings: at most once QUEUED, then exactly one other state."""

    update_id: str
    state: AckState
    mechanism: Mechanism
    """The most disruptive of the fields'."""
    fields: tuple[FieldOutcome, ...]
    settings_revision: int
    settings: SynthesisSettings | TranscriptionSettings | None
    first_utterance_id: str
    """Synthesis: the first utterance that uses it; empty where that is not known yet."""
    applied_after_input_sequence: int
    audio_offset_s: float | None
    """Transcription: where in the session's audio it took effect."""
    apply_duration_s: float
    error: WavegateError | None


# --- of synthesis ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """The first text of an utterance has gone upstream."""

    utterance_id: str
    first_input_sequence: int
    settings_revision: int


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """A piece of an utterance's audio."""

    audio: bytes
    utterance_id: str
    chunk_index: int
    start_offset_s: float
    """From the start of the utterance's audio."""
    discontinuity: bool
    """It may not join exactly onto the audio before it: the upstream connection was lost in between."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A spoken word and when it is heard, from the start of the utterance's audio."""

    text: str
    word_index: int
    start_offset_s: float
    end_offset_s: float


@dataclass(frozen=True, slots=True)
class WordTimings:
    """The next words of an utterance."""

    utterance_id: str
    words: tuple[TimedWord, ...]


@dataclass(frozen=True, slots=True)
class UtteranceMetrics:
    """How long an utterance took, as the gateway measured it."""

    time_to_first_audio_s: float | None
    """First text in to first audio out; `None` where there was no audio."""
    upstream_time_to_first_audio_s: float | None
    """First text sent upstream to first audio received; `None` where there was none."""
    total_duration_s: float
    audio_duration_s: float
    max_chunk_gap_s: float
    input_character_count: int
    audio_bytes: int
    chunk_count: int
    reconnect_count: int
    admission_wait_s: float


CompletionSource = Literal["UNSPECIFIED", "UPSTREAM", "NEXT_REQUEST", "QUIET_TIMEOUT", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class UtteranceCompleted:
    """All audio of an utterance has been sent."""

    utterance_id: str
    metrics: UtteranceMetrics
    completion_source: CompletionSource
    settings_revision: int
    upstreams: tuple[UpstreamInfo, ...]
    end_unconfirmed: bool = False
    """True where nothing proves that all of the text was heard."""


CancelMethod = Literal["UNSPECIFIED", "NOT_SENT", "DISCARD", "RECONNECT", "UPSTREAM_CANCEL", "UNKNOWN"]
EstimateSource = Literal["UNSPECIFIED", "WORD_TIMINGS", "PROPORTIONAL", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class UtteranceCancelled:
    """An utterance was cancelled; no audio of it follows."""

    utterance_id: str
    method: CancelMethod
    spoken_text: str
    """What the listener has heard, as far as it is known; see `estimate_source`."""
    remaining_text: str
    estimate_source: EstimateSource
    metrics: UtteranceMetrics
    discarded_audio_duration_s: float


@dataclass(frozen=True, slots=True)
class UtteranceFailed:
    """An utterance failed; the session goes on."""

    utterance_id: str
    error: WavegateError
    retryable: bool
    audio_sent_duration_s: float


SynthesisEvent = (
    SessionStarted
    | UtteranceStarted
    | AudioChunk
    | WordTimings
    | UtteranceCompleted
    | UtteranceCancelled
    | UtteranceFailed
    | SettingsAck
    | ConnectionEvent
    | GatewayWarning
    | GoAway
    | SessionResumed
    | SessionMoved
    | SessionEnded
)

# --- of transcription -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word, timed from the first sample of the session."""

    text: str
    start_offset_s: float
    end_offset_s: float
    confidence: float | None
    speaker: str
    speaker_confidence: float | None


@dataclass(frozen=True, slots=True)
class Sentence:
    """A recognised sentence, timed from the first sample of the session."""

    text: str
    start_offset_s: float
    end_offset_s: float
    speaker: str


@dataclass(frozen=True, slots=True)
class TranscriptMetrics:
    """How late a transcript is, as the gateway measured it; `None` where it does not apply."""

    finalize_latency_s: float | None
    """From the request to finalize."""
    audio_latency_s: float | None
    """From the last sample."""
    capture_latency_s: float | None
    """From the capture time that the caller gave."""


FinalTrigger = Literal["UNSPECIFIED", "ENDPOINT", "CLIENT_FINALIZE", "END", "RECONNECT", "UNKNOWN"]


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said, or so it seems so far. The same `segment_id` replaces, a new one appends."""

    segment_id: str
    segment_revision: int
    text: str
    is_final: bool
    is_last: bool
    speech_final: bool
    final_trigger: FinalTrigger
    finalize_id: str
    words: tuple[Word, ...]
    sentences: tuple[Sentence, ...]
    language_codes: tuple[str, ...]
    start_offset_s: float
    """From the first sample of the session, as all offsets."""
    end_offset_s: float
    stable_prefix_length: int
    """Characters that recent revisions did not change."""
    full_text: str
    """On finals, with the setting `full_transcript`: all finals so far and this one."""
    redacted_entities: tuple[str, ...]
    settings_revision: int
    upstream: UpstreamInfo | None
    metrics: TranscriptMetrics
    extra: Mapping[str, JsonValue]
    """What else the upstream said of it, such as emotion."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody began to speak."""

    audio_offset_s: float


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech stopped."""

    audio_offset_s: float


@dataclass(frozen=True, slots=True)
class AudioProgress:
    """How far the audio has come, about once a second."""

    received_duration_s: float
    forwarded_duration_s: float
    finalized_duration_s: float
    lost_duration_s: float


TranscriptionEvent = (
    SessionStarted
    | Transcript
    | SpeechStarted
    | SpeechEnded
    | AudioProgress
    | SettingsAck
    | ConnectionEvent
    | GatewayWarning
    | GoAway
    | SessionResumed
    | SessionMoved
    | SessionEnded
)

# --- asked for ------------------------------------------------------------------------------------

SessionState = Literal[
    "UNSPECIFIED", "CONNECTING", "ACTIVE", "RECONNECTING", "DRAINING", "DETACHED", "UNKNOWN"
]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A live session, seen from outside."""

    session_id: str
    kind: Literal["synthesis", "transcription", "unknown"]
    state: SessionState
    settings: SynthesisSettings | TranscriptionSettings | None
    settings_revision: int
    audio_format: AudioFormat
    usage: SessionUsage
    upstream: UpstreamInfo | None
    labels: Mapping[str, str]
    create_time: datetime | None
    last_activity_time: datetime | None
    trace_id: str


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of the catalogue."""

    voice_id: str
    display_name: str
    models: tuple[str, ...]
    language_codes: tuple[str, ...]
    tags: Mapping[str, tuple[str, ...]]
    word_timings_supported: bool
