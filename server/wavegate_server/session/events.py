"""What both kinds of session are told and what they tell.

Commands are imperatives, events are what happened. Durations and offsets are seconds. `rpc.convert` is the
only place that turns these into messages of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from wavegate_server.audio import AudioFormat
from wavegate_server.errors import Violation, WavegateError
from wavegate_server.waves.settings import Settings


class ApplyPolicy(Enum):
    """How much disruption a settings delta may cause. Values are the contract's names without prefix."""

    NEXT_BOUNDARY = "NEXT_BOUNDARY"
    IMMEDIATE = "IMMEDIATE"
    NO_RECONNECT = "NO_RECONNECT"


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """A delta, in-band or from `UpdateSettings`."""

    update_id: str
    delta: Settings
    reset: tuple[str, ...] = ()
    policy: ApplyPolicy = ApplyPolicy.NEXT_BOUNDARY
    expected_revision: int | None = None
    validate_only: bool = False
    after_input_sequence: int | None = None
    in_band: bool = True
    path: str = "update_settings.settings"
    """Where BadRequest paths of the delta's fields start."""
    reset_path: str = "update_settings.reset_mask"
    violations: tuple[Violation, ...] = ()
    """What conversion already found wrong with it, such as the other kind's settings."""


@dataclass(frozen=True, slots=True)
class EndSession:
    """No more input: finish, deliver everything, end. With `discard`: stop now, drop what is pending."""

    discard: bool = False
    by_half_close: bool = False


class AckState(Enum):
    """Progress of one delta; the contract's `SettingsAck.State`."""

    QUEUED = "QUEUED"
    APPLIED = "APPLIED"
    REJECTED = "REJECTED"
    SUPERSEDED = "SUPERSEDED"
    SESSION_ENDED = "SESSION_ENDED"
    VALIDATED = "VALIDATED"

    @property
    def terminal(self) -> bool:
        return self is not AckState.QUEUED


class Mechanism(Enum):
    """How a field took, or will take, effect; ordered from least to most disruptive."""

    UNSPECIFIED = 0
    NO_CHANGE = 1
    IN_PLACE = 2
    NEXT_UTTERANCE = 3
    RECONNECT = 4


@dataclass(frozen=True, slots=True)
class SettingsAcknowledged:
    """One step of a delta's life."""

    update_id: str
    state: AckState
    mechanism: Mechanism = Mechanism.UNSPECIFIED
    fields: tuple[tuple[str, Mechanism], ...] = ()
    settings_revision: int = 0
    settings: Settings | None = None
    first_utterance_id: str = ""
    applied_after_input_sequence: int = 0
    audio_offset_s: float | None = None
    apply_duration_s: float | None = None
    error: WavegateError | None = None


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What the gateway will enforce on this session."""

    client_idle_timeout_s: float
    resume_window_s: float
    max_text_message_chars: int
    max_buffered_chars: int
    max_audio_message_bytes: int
    max_concurrent_sessions: int
    active_sessions: int


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The upstream has accepted the connection."""

    session_id: str
    audio_format: AudioFormat
    settings: Settings
    settings_revision: int
    limits: SessionLimits
    trace_id: str = ""
    resumed: bool = False
    input_sequence_acknowledged: int = 0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Upstream identifiers, for support tickets."""

    session_id: str = ""
    request_id: str = ""
    endpoint: str = ""
    connection_index: int = 0


class ConnectionState(Enum):
    """The contract's `ConnectionEvent.State`."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    RECONNECTING = "RECONNECTING"


class ConnectionReason(Enum):
    """The contract's `ConnectionEvent.Reason`."""

    INITIAL = "INITIAL"
    SETTINGS_UPDATE = "SETTINGS_UPDATE"
    UTTERANCE_CANCEL = "UTTERANCE_CANCEL"
    IDLE_TIMEOUT = "IDLE_TIMEOUT"
    UPSTREAM_CLOSED = "UPSTREAM_CLOSED"
    NETWORK_ERROR = "NETWORK_ERROR"
    AUTHENTICATION = "AUTHENTICATION"
    CONCURRENCY_LIMIT = "CONCURRENCY_LIMIT"


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The state of the upstream WebSocket changed."""

    state: ConnectionState
    reason: ConnectionReason
    upstream: Upstream
    attempt: int = 0
    max_attempts: int = 0
    next_retry_delay_s: float | None = None
    handshake_s: float | None = None
    close_code: int | None = None
    replayed_audio_s: float | None = None
    lost_audio_s: float | None = None
    replayed_character_count: int = 0
    cause: WavegateError | None = None


@dataclass(frozen=True, slots=True)
class WarningRaised:
    """Something the caller should know that does not stop the stream."""

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    utterance_id: str = ""


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The planned end of the session, ahead of time."""

    time_left_s: float
    reason: str
    resumable: bool = False


class EndReason(Enum):
    """The contract's `SessionEnded.Reason`."""

    CLIENT_HALF_CLOSE = "CLIENT_HALF_CLOSE"
    CLIENT_END = "CLIENT_END"
    CLIENT_IDLE = "CLIENT_IDLE"
    LIMIT = "LIMIT"
    DRAIN = "DRAIN"
    FAILURE = "FAILURE"
    CLOSED_BY_OPERATOR = "CLOSED_BY_OPERATOR"
    TAKEN_OVER = "TAKEN_OVER"


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals of a session. Times are seconds since the Unix epoch."""

    input_character_count: int
    audio_bytes: int
    audio_duration_s: float
    utterance_count: int
    reconnect_count: int
    start_time: float
    end_time: float | None


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The last event of a session. `error` None: it ended well."""

    reason: EndReason
    error: WavegateError | None
    usage: Usage
