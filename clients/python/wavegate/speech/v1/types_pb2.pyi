import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_LINEAR16: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_LINEAR32: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_MULAW: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_ALAW: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_OPUS: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_OGG_OPUS: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_MP3: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_WAV: _ClassVar[AudioEncoding]

class ContentFilter(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTENT_FILTER_UNSPECIFIED: _ClassVar[ContentFilter]
    CONTENT_FILTER_FLAG: _ClassVar[ContentFilter]
    CONTENT_FILTER_REJECT: _ClassVar[ContentFilter]
    CONTENT_FILTER_OFF: _ClassVar[ContentFilter]

class Numerals(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NUMERALS_UNSPECIFIED: _ClassVar[Numerals]
    NUMERALS_AUTO: _ClassVar[Numerals]
    NUMERALS_ALWAYS: _ClassVar[Numerals]
    NUMERALS_NONE: _ClassVar[Numerals]

class ApplyPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    APPLY_POLICY_UNSPECIFIED: _ClassVar[ApplyPolicy]
    APPLY_POLICY_NEXT_BOUNDARY: _ClassVar[ApplyPolicy]
    APPLY_POLICY_IMMEDIATE: _ClassVar[ApplyPolicy]
    APPLY_POLICY_NO_RECONNECT: _ClassVar[ApplyPolicy]
AUDIO_ENCODING_UNSPECIFIED: AudioEncoding
AUDIO_ENCODING_LINEAR16: AudioEncoding
AUDIO_ENCODING_LINEAR32: AudioEncoding
AUDIO_ENCODING_MULAW: AudioEncoding
AUDIO_ENCODING_ALAW: AudioEncoding
AUDIO_ENCODING_OPUS: AudioEncoding
AUDIO_ENCODING_OGG_OPUS: AudioEncoding
AUDIO_ENCODING_MP3: AudioEncoding
AUDIO_ENCODING_WAV: AudioEncoding
CONTENT_FILTER_UNSPECIFIED: ContentFilter
CONTENT_FILTER_FLAG: ContentFilter
CONTENT_FILTER_REJECT: ContentFilter
CONTENT_FILTER_OFF: ContentFilter
NUMERALS_UNSPECIFIED: Numerals
NUMERALS_AUTO: Numerals
NUMERALS_ALWAYS: Numerals
NUMERALS_NONE: Numerals
APPLY_POLICY_UNSPECIFIED: ApplyPolicy
APPLY_POLICY_NEXT_BOUNDARY: ApplyPolicy
APPLY_POLICY_IMMEDIATE: ApplyPolicy
APPLY_POLICY_NO_RECONNECT: ApplyPolicy

class AudioFormat(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz", "channel_count")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioEncoding
    sample_rate_hertz: int
    channel_count: int
    def __init__(self, encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ..., channel_count: _Optional[int] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    details: _containers.RepeatedCompositeFieldContainer[_any_pb2.Any]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., details: _Optional[_Iterable[_Union[_any_pb2.Any, _Mapping]]] = ...) -> None: ...

class SessionLimits(_message.Message):
    __slots__ = ("max_session_duration", "client_idle_timeout", "resume_window", "max_text_message_chars", "max_buffered_chars", "max_audio_message_bytes", "max_concurrent_sessions", "active_sessions")
    MAX_SESSION_DURATION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_MESSAGE_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_BUFFERED_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_AUDIO_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    max_session_duration: _duration_pb2.Duration
    client_idle_timeout: _duration_pb2.Duration
    resume_window: _duration_pb2.Duration
    max_text_message_chars: int
    max_buffered_chars: int
    max_audio_message_bytes: int
    max_concurrent_sessions: int
    active_sessions: int
    def __init__(self, max_session_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., client_idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., resume_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_text_message_chars: _Optional[int] = ..., max_buffered_chars: _Optional[int] = ..., max_audio_message_bytes: _Optional[int] = ..., max_concurrent_sessions: _Optional[int] = ..., active_sessions: _Optional[int] = ...) -> None: ...

class UpstreamInfo(_message.Message):
    __slots__ = ("session_id", "request_id", "endpoint", "connection_index")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_INDEX_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    request_id: str
    endpoint: str
    connection_index: int
    def __init__(self, session_id: _Optional[str] = ..., request_id: _Optional[str] = ..., endpoint: _Optional[str] = ..., connection_index: _Optional[int] = ...) -> None: ...

class SessionStarted(_message.Message):
    __slots__ = ("session_id", "audio_format", "settings", "settings_revision", "limits", "trace_id", "resumed", "input_sequence_acknowledged", "gateway_version")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    INPUT_SEQUENCE_ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_VERSION_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    audio_format: AudioFormat
    settings: EffectiveSettings
    settings_revision: int
    limits: SessionLimits
    trace_id: str
    resumed: bool
    input_sequence_acknowledged: int
    gateway_version: str
    def __init__(self, session_id: _Optional[str] = ..., audio_format: _Optional[_Union[AudioFormat, _Mapping]] = ..., settings: _Optional[_Union[EffectiveSettings, _Mapping]] = ..., settings_revision: _Optional[int] = ..., limits: _Optional[_Union[SessionLimits, _Mapping]] = ..., trace_id: _Optional[str] = ..., resumed: _Optional[bool] = ..., input_sequence_acknowledged: _Optional[int] = ..., gateway_version: _Optional[str] = ...) -> None: ...

class EffectiveSettings(_message.Message):
    __slots__ = ("synthesis", "transcription")
    SYNTHESIS_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    synthesis: SynthesisSettings
    transcription: TranscriptionSettings
    def __init__(self, synthesis: _Optional[_Union[SynthesisSettings, _Mapping]] = ..., transcription: _Optional[_Union[TranscriptionSettings, _Mapping]] = ...) -> None: ...

class SynthesisSettings(_message.Message):
    __slots__ = ("voice_id", "model", "language_code", "number_language_code", "speed", "word_timings", "math_notation", "max_buffer_delay", "completion_backoff", "max_chunk_bytes", "consistency", "similarity", "enhancement", "extra", "content_filter")
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    SPEED_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    MATH_NOTATION_FIELD_NUMBER: _ClassVar[int]
    MAX_BUFFER_DELAY_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    ENHANCEMENT_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FILTER_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    model: str
    language_code: str
    number_language_code: str
    speed: float
    word_timings: bool
    math_notation: bool
    max_buffer_delay: _duration_pb2.Duration
    completion_backoff: _duration_pb2.Duration
    max_chunk_bytes: int
    consistency: float
    similarity: float
    enhancement: int
    extra: _struct_pb2.Struct
    content_filter: ContentFilter
    def __init__(self, voice_id: _Optional[str] = ..., model: _Optional[str] = ..., language_code: _Optional[str] = ..., number_language_code: _Optional[str] = ..., speed: _Optional[float] = ..., word_timings: _Optional[bool] = ..., math_notation: _Optional[bool] = ..., max_buffer_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., completion_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_chunk_bytes: _Optional[int] = ..., consistency: _Optional[float] = ..., similarity: _Optional[float] = ..., enhancement: _Optional[int] = ..., extra: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., content_filter: _Optional[_Union[ContentFilter, str]] = ...) -> None: ...

class TranscriptionSettings(_message.Message):
    __slots__ = ("model", "language_code", "interim_results", "word_timings", "sentence_timings", "diarization", "voice_activity_events", "end_of_utterance_timeout", "auto_finalize_on_words", "max_words", "formatting", "punctuation", "capitalization", "inverse_text_normalization", "redact_pii", "redact_pci", "keywords", "full_transcript", "numerals", "extra", "endpointing", "endpointing_timeout", "emotion_detection", "gender_detection", "vad_threshold", "vad_min_speech", "no_format_delay")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    INTERIM_RESULTS_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DIARIZATION_FIELD_NUMBER: _ClassVar[int]
    VOICE_ACTIVITY_EVENTS_FIELD_NUMBER: _ClassVar[int]
    END_OF_UTTERANCE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    AUTO_FINALIZE_ON_WORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_WORDS_FIELD_NUMBER: _ClassVar[int]
    FORMATTING_FIELD_NUMBER: _ClassVar[int]
    PUNCTUATION_FIELD_NUMBER: _ClassVar[int]
    CAPITALIZATION_FIELD_NUMBER: _ClassVar[int]
    INVERSE_TEXT_NORMALIZATION_FIELD_NUMBER: _ClassVar[int]
    REDACT_PII_FIELD_NUMBER: _ClassVar[int]
    REDACT_PCI_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    FULL_TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    NUMERALS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTING_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTING_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    EMOTION_DETECTION_FIELD_NUMBER: _ClassVar[int]
    GENDER_DETECTION_FIELD_NUMBER: _ClassVar[int]
    VAD_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    VAD_MIN_SPEECH_FIELD_NUMBER: _ClassVar[int]
    NO_FORMAT_DELAY_FIELD_NUMBER: _ClassVar[int]
    model: str
    language_code: str
    interim_results: bool
    word_timings: bool
    sentence_timings: bool
    diarization: bool
    voice_activity_events: bool
    end_of_utterance_timeout: _duration_pb2.Duration
    auto_finalize_on_words: bool
    max_words: int
    formatting: bool
    punctuation: bool
    capitalization: bool
    inverse_text_normalization: bool
    redact_pii: bool
    redact_pci: bool
    keywords: KeywordList
    full_transcript: bool
    numerals: Numerals
    extra: _struct_pb2.Struct
    endpointing: bool
    endpointing_timeout: _duration_pb2.Duration
    emotion_detection: bool
    gender_detection: bool
    vad_threshold: float
    vad_min_speech: _duration_pb2.Duration
    no_format_delay: bool
    def __init__(self, model: _Optional[str] = ..., language_code: _Optional[str] = ..., interim_results: _Optional[bool] = ..., word_timings: _Optional[bool] = ..., sentence_timings: _Optional[bool] = ..., diarization: _Optional[bool] = ..., voice_activity_events: _Optional[bool] = ..., end_of_utterance_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., auto_finalize_on_words: _Optional[bool] = ..., max_words: _Optional[int] = ..., formatting: _Optional[bool] = ..., punctuation: _Optional[bool] = ..., capitalization: _Optional[bool] = ..., inverse_text_normalization: _Optional[bool] = ..., redact_pii: _Optional[bool] = ..., redact_pci: _Optional[bool] = ..., keywords: _Optional[_Union[KeywordList, _Mapping]] = ..., full_transcript: _Optional[bool] = ..., numerals: _Optional[_Union[Numerals, str]] = ..., extra: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., endpointing: _Optional[bool] = ..., endpointing_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., emotion_detection: _Optional[bool] = ..., gender_detection: _Optional[bool] = ..., vad_threshold: _Optional[float] = ..., vad_min_speech: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., no_format_delay: _Optional[bool] = ...) -> None: ...

class KeywordList(_message.Message):
    __slots__ = ("keywords",)
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    keywords: _containers.RepeatedCompositeFieldContainer[Keyword]
    def __init__(self, keywords: _Optional[_Iterable[_Union[Keyword, _Mapping]]] = ...) -> None: ...

class Keyword(_message.Message):
    __slots__ = ("phrase", "boost")
    PHRASE_FIELD_NUMBER: _ClassVar[int]
    BOOST_FIELD_NUMBER: _ClassVar[int]
    phrase: str
    boost: float
    def __init__(self, phrase: _Optional[str] = ..., boost: _Optional[float] = ...) -> None: ...

class ConnectionEvent(_message.Message):
    __slots__ = ("state", "reason", "attempt", "max_attempts", "next_retry_delay", "handshake_duration", "close_code", "upstream", "replayed_audio_duration", "lost_audio_duration", "replayed_character_count", "cause")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ConnectionEvent.State]
        STATE_CONNECTED: _ClassVar[ConnectionEvent.State]
        STATE_DISCONNECTED: _ClassVar[ConnectionEvent.State]
        STATE_RECONNECTING: _ClassVar[ConnectionEvent.State]
    STATE_UNSPECIFIED: ConnectionEvent.State
    STATE_CONNECTED: ConnectionEvent.State
    STATE_DISCONNECTED: ConnectionEvent.State
    STATE_RECONNECTING: ConnectionEvent.State
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[ConnectionEvent.Reason]
        REASON_INITIAL: _ClassVar[ConnectionEvent.Reason]
        REASON_SETTINGS_UPDATE: _ClassVar[ConnectionEvent.Reason]
        REASON_UTTERANCE_CANCEL: _ClassVar[ConnectionEvent.Reason]
        REASON_IDLE_TIMEOUT: _ClassVar[ConnectionEvent.Reason]
        REASON_UPSTREAM_CLOSED: _ClassVar[ConnectionEvent.Reason]
        REASON_NETWORK_ERROR: _ClassVar[ConnectionEvent.Reason]
        REASON_AUTHENTICATION: _ClassVar[ConnectionEvent.Reason]
        REASON_CONCURRENCY_LIMIT: _ClassVar[ConnectionEvent.Reason]
    REASON_UNSPECIFIED: ConnectionEvent.Reason
    REASON_INITIAL: ConnectionEvent.Reason
    REASON_SETTINGS_UPDATE: ConnectionEvent.Reason
    REASON_UTTERANCE_CANCEL: ConnectionEvent.Reason
    REASON_IDLE_TIMEOUT: ConnectionEvent.Reason
    REASON_UPSTREAM_CLOSED: ConnectionEvent.Reason
    REASON_NETWORK_ERROR: ConnectionEvent.Reason
    REASON_AUTHENTICATION: ConnectionEvent.Reason
    REASON_CONCURRENCY_LIMIT: ConnectionEvent.Reason
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    HANDSHAKE_DURATION_FIELD_NUMBER: _ClassVar[int]
    CLOSE_CODE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    LOST_AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_CHARACTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    state: ConnectionEvent.State
    reason: ConnectionEvent.Reason
    attempt: int
    max_attempts: int
    next_retry_delay: _duration_pb2.Duration
    handshake_duration: _duration_pb2.Duration
    close_code: int
    upstream: UpstreamInfo
    replayed_audio_duration: _duration_pb2.Duration
    lost_audio_duration: _duration_pb2.Duration
    replayed_character_count: int
    cause: Status
    def __init__(self, state: _Optional[_Union[ConnectionEvent.State, str]] = ..., reason: _Optional[_Union[ConnectionEvent.Reason, str]] = ..., attempt: _Optional[int] = ..., max_attempts: _Optional[int] = ..., next_retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., handshake_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., close_code: _Optional[int] = ..., upstream: _Optional[_Union[UpstreamInfo, _Mapping]] = ..., replayed_audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lost_audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., replayed_character_count: _Optional[int] = ..., cause: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("reason", "message", "metadata", "utterance_id")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    utterance_id: str
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., utterance_id: _Optional[str] = ...) -> None: ...

class GoAway(_message.Message):
    __slots__ = ("time_left", "reason", "resumable")
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    time_left: _duration_pb2.Duration
    reason: str
    resumable: bool
    def __init__(self, time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., resumable: _Optional[bool] = ...) -> None: ...

class EndSession(_message.Message):
    __slots__ = ("discard",)
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    discard: bool
    def __init__(self, discard: _Optional[bool] = ...) -> None: ...

class SessionEnded(_message.Message):
    __slots__ = ("reason", "status", "usage")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[SessionEnded.Reason]
        REASON_CLIENT_HALF_CLOSE: _ClassVar[SessionEnded.Reason]
        REASON_CLIENT_END: _ClassVar[SessionEnded.Reason]
        REASON_CLIENT_IDLE: _ClassVar[SessionEnded.Reason]
        REASON_LIMIT: _ClassVar[SessionEnded.Reason]
        REASON_DRAIN: _ClassVar[SessionEnded.Reason]
        REASON_FAILURE: _ClassVar[SessionEnded.Reason]
        REASON_CLOSED_BY_OPERATOR: _ClassVar[SessionEnded.Reason]
        REASON_TAKEN_OVER: _ClassVar[SessionEnded.Reason]
    REASON_UNSPECIFIED: SessionEnded.Reason
    REASON_CLIENT_HALF_CLOSE: SessionEnded.Reason
    REASON_CLIENT_END: SessionEnded.Reason
    REASON_CLIENT_IDLE: SessionEnded.Reason
    REASON_LIMIT: SessionEnded.Reason
    REASON_DRAIN: SessionEnded.Reason
    REASON_FAILURE: SessionEnded.Reason
    REASON_CLOSED_BY_OPERATOR: SessionEnded.Reason
    REASON_TAKEN_OVER: SessionEnded.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    reason: SessionEnded.Reason
    status: Status
    usage: SessionUsage
    def __init__(self, reason: _Optional[_Union[SessionEnded.Reason, str]] = ..., status: _Optional[_Union[Status, _Mapping]] = ..., usage: _Optional[_Union[SessionUsage, _Mapping]] = ...) -> None: ...

class SessionUsage(_message.Message):
    __slots__ = ("input_character_count", "audio_bytes", "audio_duration", "utterance_count", "reconnect_count", "start_time", "end_time")
    INPUT_CHARACTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_BYTES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    input_character_count: int
    audio_bytes: int
    audio_duration: _duration_pb2.Duration
    utterance_count: int
    reconnect_count: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, input_character_count: _Optional[int] = ..., audio_bytes: _Optional[int] = ..., audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., utterance_count: _Optional[int] = ..., reconnect_count: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class SettingsAck(_message.Message):
    __slots__ = ("update_id", "state", "mechanism", "fields", "settings_revision", "settings", "first_utterance_id", "applied_after_input_sequence", "audio_offset", "apply_duration", "error")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[SettingsAck.State]
        STATE_QUEUED: _ClassVar[SettingsAck.State]
        STATE_APPLIED: _ClassVar[SettingsAck.State]
        STATE_REJECTED: _ClassVar[SettingsAck.State]
        STATE_SUPERSEDED: _ClassVar[SettingsAck.State]
        STATE_SESSION_ENDED: _ClassVar[SettingsAck.State]
        STATE_VALIDATED: _ClassVar[SettingsAck.State]
    STATE_UNSPECIFIED: SettingsAck.State
    STATE_QUEUED: SettingsAck.State
    STATE_APPLIED: SettingsAck.State
    STATE_REJECTED: SettingsAck.State
    STATE_SUPERSEDED: SettingsAck.State
    STATE_SESSION_ENDED: SettingsAck.State
    STATE_VALIDATED: SettingsAck.State
    class Mechanism(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MECHANISM_UNSPECIFIED: _ClassVar[SettingsAck.Mechanism]
        MECHANISM_NO_CHANGE: _ClassVar[SettingsAck.Mechanism]
        MECHANISM_IN_PLACE: _ClassVar[SettingsAck.Mechanism]
        MECHANISM_NEXT_UTTERANCE: _ClassVar[SettingsAck.Mechanism]
        MECHANISM_RECONNECT: _ClassVar[SettingsAck.Mechanism]
    MECHANISM_UNSPECIFIED: SettingsAck.Mechanism
    MECHANISM_NO_CHANGE: SettingsAck.Mechanism
    MECHANISM_IN_PLACE: SettingsAck.Mechanism
    MECHANISM_NEXT_UTTERANCE: SettingsAck.Mechanism
    MECHANISM_RECONNECT: SettingsAck.Mechanism
    class FieldOutcome(_message.Message):
        __slots__ = ("path", "mechanism")
        PATH_FIELD_NUMBER: _ClassVar[int]
        MECHANISM_FIELD_NUMBER: _ClassVar[int]
        path: str
        mechanism: SettingsAck.Mechanism
        def __init__(self, path: _Optional[str] = ..., mechanism: _Optional[_Union[SettingsAck.Mechanism, str]] = ...) -> None: ...
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    FIRST_UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AFTER_INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_OFFSET_FIELD_NUMBER: _ClassVar[int]
    APPLY_DURATION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    state: SettingsAck.State
    mechanism: SettingsAck.Mechanism
    fields: _containers.RepeatedCompositeFieldContainer[SettingsAck.FieldOutcome]
    settings_revision: int
    settings: EffectiveSettings
    first_utterance_id: str
    applied_after_input_sequence: int
    audio_offset: _duration_pb2.Duration
    apply_duration: _duration_pb2.Duration
    error: Status
    def __init__(self, update_id: _Optional[str] = ..., state: _Optional[_Union[SettingsAck.State, str]] = ..., mechanism: _Optional[_Union[SettingsAck.Mechanism, str]] = ..., fields: _Optional[_Iterable[_Union[SettingsAck.FieldOutcome, _Mapping]]] = ..., settings_revision: _Optional[int] = ..., settings: _Optional[_Union[EffectiveSettings, _Mapping]] = ..., first_utterance_id: _Optional[str] = ..., applied_after_input_sequence: _Optional[int] = ..., audio_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., apply_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., error: _Optional[_Union[Status, _Mapping]] = ...) -> None: ...
