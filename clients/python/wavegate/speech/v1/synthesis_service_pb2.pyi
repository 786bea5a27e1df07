import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from wavegate.speech.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EstimateSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ESTIMATE_SOURCE_UNSPECIFIED: _ClassVar[EstimateSource]
    ESTIMATE_SOURCE_WORD_TIMINGS: _ClassVar[EstimateSource]
    ESTIMATE_SOURCE_PROPORTIONAL: _ClassVar[EstimateSource]
ESTIMATE_SOURCE_UNSPECIFIED: EstimateSource
ESTIMATE_SOURCE_WORD_TIMINGS: EstimateSource
ESTIMATE_SOURCE_PROPORTIONAL: EstimateSource

class SynthesizeStreamRequest(_message.Message):
    __slots__ = ("input_sequence", "start", "text", "end_utterance", "cancel", "update_settings", "playback", "end_session", "flush")
    INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    END_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    PLAYBACK_FIELD_NUMBER: _ClassVar[int]
    END_SESSION_FIELD_NUMBER: _ClassVar[int]
    FLUSH_FIELD_NUMBER: _ClassVar[int]
    input_sequence: int
    start: StartSynthesis
    text: TextInput
    end_utterance: EndUtterance
    cancel: CancelUtterance
    update_settings: UpdateSynthesisSettings
    playback: PlaybackReport
    end_session: _types_pb2.EndSession
    flush: Flush
    def __init__(self, input_sequence: _Optional[int] = ..., start: _Optional[_Union[StartSynthesis, _Mapping]] = ..., text: _Optional[_Union[TextInput, _Mapping]] = ..., end_utterance: _Optional[_Union[EndUtterance, _Mapping]] = ..., cancel: _Optional[_Union[CancelUtterance, _Mapping]] = ..., update_settings: _Optional[_Union[UpdateSynthesisSettings, _Mapping]] = ..., playback: _Optional[_Union[PlaybackReport, _Mapping]] = ..., end_session: _Optional[_Union[_types_pb2.EndSession, _Mapping]] = ..., flush: _Optional[_Union[Flush, _Mapping]] = ...) -> None: ...

class StartSynthesis(_message.Message):
    __slots__ = ("settings", "audio_format", "client_session_id", "labels", "resume_session_id", "last_received_sequence", "resume_window", "max_audio_lead")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RESUME_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_RECEIVED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    MAX_AUDIO_LEAD_FIELD_NUMBER: _ClassVar[int]
    settings: _types_pb2.SynthesisSettings
    audio_format: _types_pb2.AudioFormat
    client_session_id: str
    labels: _containers.ScalarMap[str, str]
    resume_session_id: str
    last_received_sequence: int
    resume_window: _duration_pb2.Duration
    max_audio_lead: _duration_pb2.Duration
    def __init__(self, settings: _Optional[_Union[_types_pb2.SynthesisSettings, _Mapping]] = ..., audio_format: _Optional[_Union[_types_pb2.AudioFormat, _Mapping]] = ..., client_session_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., resume_session_id: _Optional[str] = ..., last_received_sequence: _Optional[int] = ..., resume_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_audio_lead: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TextInput(_message.Message):
    __slots__ = ("text", "utterance_id", "end_utterance", "traceparent")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    END_UTTERANCE_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    text: str
    utterance_id: str
    end_utterance: bool
    traceparent: str
    def __init__(self, text: _Optional[str] = ..., utterance_id: _Optional[str] = ..., end_utterance: _Optional[bool] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Flush(_message.Message):
    __slots__ = ("utterance_id",)
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    def __init__(self, utterance_id: _Optional[str] = ...) -> None: ...

class EndUtterance(_message.Message):
    __slots__ = ("utterance_id",)
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    def __init__(self, utterance_id: _Optional[str] = ...) -> None: ...

class CancelUtterance(_message.Message):
    __slots__ = ("utterance_id", "playback_offset")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PLAYBACK_OFFSET_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    playback_offset: _duration_pb2.Duration
    def __init__(self, utterance_id: _Optional[str] = ..., playback_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UpdateSynthesisSettings(_message.Message):
    __slots__ = ("update_id", "settings", "reset_mask", "apply_policy", "expected_revision", "validate_only")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    RESET_MASK_FIELD_NUMBER: _ClassVar[int]
    APPLY_POLICY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    settings: _types_pb2.SynthesisSettings
    reset_mask: _field_mask_pb2.FieldMask
    apply_policy: _types_pb2.ApplyPolicy
    expected_revision: int
    validate_only: bool
    def __init__(self, update_id: _Optional[str] = ..., settings: _Optional[_Union[_types_pb2.SynthesisSettings, _Mapping]] = ..., reset_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., apply_policy: _Optional[_Union[_types_pb2.ApplyPolicy, str]] = ..., expected_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class PlaybackReport(_message.Message):
    __slots__ = ("utterance_id", "playback_offset")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    PLAYBACK_OFFSET_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    playback_offset: _duration_pb2.Duration
    def __init__(self, utterance_id: _Optional[str] = ..., playback_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SynthesizeStreamResponse(_message.Message):
    __slots__ = ("sequence", "acknowledged_input_sequence", "session_started", "utterance_started", "audio", "word_timings", "utterance_completed", "utterance_cancelled", "utterance_failed", "settings_ack", "connection", "warning", "go_away", "session_ended")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_STARTED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_STARTED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_CANCELLED_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_FAILED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_ACK_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    acknowledged_input_sequence: int
    session_started: _types_pb2.SessionStarted
    utterance_started: UtteranceStarted
    audio: AudioChunk
    word_timings: WordTimings
    utterance_completed: UtteranceCompleted
    utterance_cancelled: UtteranceCancelled
    utterance_failed: UtteranceFailed
    settings_ack: _types_pb2.SettingsAck
    connection: _types_pb2.ConnectionEvent
    warning: _types_pb2.Warning
    go_away: _types_pb2.GoAway
    session_ended: _types_pb2.SessionEnded
    def __init__(self, sequence: _Optional[int] = ..., acknowledged_input_sequence: _Optional[int] = ..., session_started: _Optional[_Union[_types_pb2.SessionStarted, _Mapping]] = ..., utterance_started: _Optional[_Union[UtteranceStarted, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., word_timings: _Optional[_Union[WordTimings, _Mapping]] = ..., utterance_completed: _Optional[_Union[UtteranceCompleted, _Mapping]] = ..., utterance_cancelled: _Optional[_Union[UtteranceCancelled, _Mapping]] = ..., utterance_failed: _Optional[_Union[UtteranceFailed, _Mapping]] = ..., settings_ack: _Optional[_Union[_types_pb2.SettingsAck, _Mapping]] = ..., connection: _Optional[_Union[_types_pb2.ConnectionEvent, _Mapping]] = ..., warning: _Optional[_Union[_types_pb2.Warning, _Mapping]] = ..., go_away: _Optional[_Union[_types_pb2.GoAway, _Mapping]] = ..., session_ended: _Optional[_Union[_types_pb2.SessionEnded, _Mapping]] = ...) -> None: ...

class UtteranceStarted(_message.Message):
    __slots__ = ("utterance_id", "first_input_sequence", "settings_revision")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    first_input_sequence: int
    settings_revision: int
    def __init__(self, utterance_id: _Optional[str] = ..., first_input_sequence: _Optional[int] = ..., settings_revision: _Optional[int] = ...) -> None: ...

class AudioChunk(_message.Message):
    __slots__ = ("audio", "utterance_id", "chunk_index", "start_offset", "discontinuity")
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    CHUNK_INDEX_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DISCONTINUITY_FIELD_NUMBER: _ClassVar[int]
    audio: bytes
    utterance_id: str
    chunk_index: int
    start_offset: _duration_pb2.Duration
    discontinuity: bool
    def __init__(self, audio: _Optional[bytes] = ..., utterance_id: _Optional[str] = ..., chunk_index: _Optional[int] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., discontinuity: _Optional[bool] = ...) -> None: ...

class WordTimings(_message.Message):
    __slots__ = ("utterance_id", "words")
    class Word(_message.Message):
        __slots__ = ("text", "word_index", "start_offset", "end_offset")
        TEXT_FIELD_NUMBER: _ClassVar[int]
        WORD_INDEX_FIELD_NUMBER: _ClassVar[int]
        START_OFFSET_FIELD_NUMBER: _ClassVar[int]
        END_OFFSET_FIELD_NUMBER: _ClassVar[int]
        text: str
        word_index: int
        start_offset: _duration_pb2.Duration
        end_offset: _duration_pb2.Duration
        def __init__(self, text: _Optional[str] = ..., word_index: _Optional[int] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    words: _containers.RepeatedCompositeFieldContainer[WordTimings.Word]
    def __init__(self, utterance_id: _Optional[str] = ..., words: _Optional[_Iterable[_Union[WordTimings.Word, _Mapping]]] = ...) -> None: ...

class UtteranceCompleted(_message.Message):
    __slots__ = ("utterance_id", "metrics", "completion_source", "settings_revision", "upstreams", "end_unconfirmed")
    class CompletionSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COMPLETION_SOURCE_UNSPECIFIED: _ClassVar[UtteranceCompleted.CompletionSource]
        COMPLETION_SOURCE_UPSTREAM: _ClassVar[UtteranceCompleted.CompletionSource]
        COMPLETION_SOURCE_NEXT_REQUEST: _ClassVar[UtteranceCompleted.CompletionSource]
        COMPLETION_SOURCE_QUIET_TIMEOUT: _ClassVar[UtteranceCompleted.CompletionSource]
    COMPLETION_SOURCE_UNSPECIFIED: UtteranceCompleted.CompletionSource
    COMPLETION_SOURCE_UPSTREAM: UtteranceCompleted.CompletionSource
    COMPLETION_SOURCE_NEXT_REQUEST: UtteranceCompleted.CompletionSource
    COMPLETION_SOURCE_QUIET_TIMEOUT: UtteranceCompleted.CompletionSource
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    END_UNCONFIRMED_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    metrics: UtteranceMetrics
    completion_source: UtteranceCompleted.CompletionSource
    settings_revision: int
    upstreams: _containers.RepeatedCompositeFieldContainer[_types_pb2.UpstreamInfo]
    end_unconfirmed: bool
    def __init__(self, utterance_id: _Optional[str] = ..., metrics: _Optional[_Union[UtteranceMetrics, _Mapping]] = ..., completion_source: _Optional[_Union[UtteranceCompleted.CompletionSource, str]] = ..., settings_revision: _Optional[int] = ..., upstreams: _Optional[_Iterable[_Union[_types_pb2.UpstreamInfo, _Mapping]]] = ..., end_unconfirmed: _Optional[bool] = ...) -> None: ...

class UtteranceMetrics(_message.Message):
    __slots__ = ("time_to_first_audio", "upstream_time_to_first_audio", "total_duration", "audio_duration", "max_chunk_gap", "input_character_count", "audio_bytes", "chunk_count", "reconnect_count", "admission_wait")
    TIME_TO_FIRST_AUDIO_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_TIME_TO_FIRST_AUDIO_FIELD_NUMBER: _ClassVar[int]
    TOTAL_DURATION_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    MAX_CHUNK_GAP_FIELD_NUMBER: _ClassVar[int]
    INPUT_CHARACTER_COUNT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_BYTES_FIELD_NUMBER: _ClassVar[int]
    CHUNK_COUNT_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_COUNT_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_WAIT_FIELD_NUMBER: _ClassVar[int]
    time_to_first_audio: _duration_pb2.Duration
    upstream_time_to_first_audio: _duration_pb2.Duration
    total_duration: _duration_pb2.Duration
    audio_duration: _duration_pb2.Duration
    max_chunk_gap: _duration_pb2.Duration
    input_character_count: int
    audio_bytes: int
    chunk_count: int
    reconnect_count: int
    admission_wait: _duration_pb2.Duration
    def __init__(self, time_to_first_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., upstream_time_to_first_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., total_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_chunk_gap: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., input_character_count: _Optional[int] = ..., audio_bytes: _Optional[int] = ..., chunk_count: _Optional[int] = ..., reconnect_count: _Optional[int] = ..., admission_wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UtteranceCancelled(_message.Message):
    __slots__ = ("utterance_id", "method", "spoken_text", "remaining_text", "estimate_source", "metrics", "discarded_audio_duration")
    class Method(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        METHOD_UNSPECIFIED: _ClassVar[UtteranceCancelled.Method]
        METHOD_NOT_SENT: _ClassVar[UtteranceCancelled.Method]
        METHOD_DISCARD: _ClassVar[UtteranceCancelled.Method]
        METHOD_RECONNECT: _ClassVar[UtteranceCancelled.Method]
        METHOD_UPSTREAM_CANCEL: _ClassVar[UtteranceCancelled.Method]
    METHOD_UNSPECIFIED: UtteranceCancelled.Method
    METHOD_NOT_SENT: UtteranceCancelled.Method
    METHOD_DISCARD: UtteranceCancelled.Method
    METHOD_RECONNECT: UtteranceCancelled.Method
    METHOD_UPSTREAM_CANCEL: UtteranceCancelled.Method
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SPOKEN_TEXT_FIELD_NUMBER: _ClassVar[int]
    REMAINING_TEXT_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_SOURCE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    method: UtteranceCancelled.Method
    spoken_text: str
    remaining_text: str
    estimate_source: EstimateSource
    metrics: UtteranceMetrics
    discarded_audio_duration: _duration_pb2.Duration
    def __init__(self, utterance_id: _Optional[str] = ..., method: _Optional[_Union[UtteranceCancelled.Method, str]] = ..., spoken_text: _Optional[str] = ..., remaining_text: _Optional[str] = ..., estimate_source: _Optional[_Union[EstimateSource, str]] = ..., metrics: _Optional[_Union[UtteranceMetrics, _Mapping]] = ..., discarded_audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UtteranceFailed(_message.Message):
    __slots__ = ("utterance_id", "error", "retryable", "audio_sent_duration")
    UTTERANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    AUDIO_SENT_DURATION_FIELD_NUMBER: _ClassVar[int]
    utterance_id: str
    error: _types_pb2.Status
    retryable: bool
    audio_sent_duration: _duration_pb2.Duration
    def __init__(self, utterance_id: _Optional[str] = ..., error: _Optional[_Union[_types_pb2.Status, _Mapping]] = ..., retryable: _Optional[bool] = ..., audio_sent_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SynthesizeRequest(_message.Message):
    __slots__ = ("text", "settings", "audio_format", "request_id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    text: str
    settings: _types_pb2.SynthesisSettings
    audio_format: _types_pb2.AudioFormat
    request_id: str
    def __init__(self, text: _Optional[str] = ..., settings: _Optional[_Union[_types_pb2.SynthesisSettings, _Mapping]] = ..., audio_format: _Optional[_Union[_types_pb2.AudioFormat, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class SynthesizeResponse(_message.Message):
    __slots__ = ("session_started", "audio", "utterance_completed", "warning", "word_timings")
    SESSION_STARTED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    UTTERANCE_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMINGS_FIELD_NUMBER: _ClassVar[int]
    session_started: _types_pb2.SessionStarted
    audio: AudioChunk
    utterance_completed: UtteranceCompleted
    warning: _types_pb2.Warning
    word_timings: WordTimings
    def __init__(self, session_started: _Optional[_Union[_types_pb2.SessionStarted, _Mapping]] = ..., audio: _Optional[_Union[AudioChunk, _Mapping]] = ..., utterance_completed: _Optional[_Union[UtteranceCompleted, _Mapping]] = ..., warning: _Optional[_Union[_types_pb2.Warning, _Mapping]] = ..., word_timings: _Optional[_Union[WordTimings, _Mapping]] = ...) -> None: ...

class ListVoicesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "model", "language_code")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    model: str
    language_code: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., model: _Optional[str] = ..., language_code: _Optional[str] = ...) -> None: ...

class ListVoicesResponse(_message.Message):
    __slots__ = ("voices", "next_page_token")
    VOICES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    voices: _containers.RepeatedCompositeFieldContainer[Voice]
    next_page_token: str
    def __init__(self, voices: _Optional[_Iterable[_Union[Voice, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Voice(_message.Message):
    __slots__ = ("voice_id", "display_name", "models", "language_codes", "tags", "word_timings_supported")
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    WORD_TIMINGS_SUPPORTED_FIELD_NUMBER: _ClassVar[int]
    voice_id: str
    display_name: str
    models: _containers.RepeatedScalarFieldContainer[str]
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedCompositeFieldContainer[VoiceTag]
    word_timings_supported: bool
    def __init__(self, voice_id: _Optional[str] = ..., display_name: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., language_codes: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[_Union[VoiceTag, _Mapping]]] = ..., word_timings_supported: _Optional[bool] = ...) -> None: ...

class VoiceTag(_message.Message):
    __slots__ = ("key", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, key: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...
