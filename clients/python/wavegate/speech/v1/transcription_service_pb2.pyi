import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from wavegate.speech.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TranscribeStreamRequest(_message.Message):
    __slots__ = ("input_sequence", "start", "audio", "finalize", "update_settings", "end_session")
    INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    FINALIZE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    END_SESSION_FIELD_NUMBER: _ClassVar[int]
    input_sequence: int
    start: StartTranscription
    audio: AudioInput
    finalize: Finalize
    update_settings: UpdateTranscriptionSettings
    end_session: _types_pb2.EndSession
    def __init__(self, input_sequence: _Optional[int] = ..., start: _Optional[_Union[StartTranscription, _Mapping]] = ..., audio: _Optional[_Union[AudioInput, _Mapping]] = ..., finalize: _Optional[_Union[Finalize, _Mapping]] = ..., update_settings: _Optional[_Union[UpdateTranscriptionSettings, _Mapping]] = ..., end_session: _Optional[_Union[_types_pb2.EndSession, _Mapping]] = ...) -> None: ...

class StartTranscription(_message.Message):
    __slots__ = ("audio_format", "settings", "client_session_id", "labels", "resume_session_id", "last_received_sequence", "keep_alive", "resume_window", "initial_audio_offset")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RESUME_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_RECEIVED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KEEP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    RESUME_WINDOW_FIELD_NUMBER: _ClassVar[int]
    INITIAL_AUDIO_OFFSET_FIELD_NUMBER: _ClassVar[int]
    audio_format: _types_pb2.AudioFormat
    settings: _types_pb2.TranscriptionSettings
    client_session_id: str
    labels: _containers.ScalarMap[str, str]
    resume_session_id: str
    last_received_sequence: int
    keep_alive: bool
    resume_window: _duration_pb2.Duration
    initial_audio_offset: _duration_pb2.Duration
    def __init__(self, audio_format: _Optional[_Union[_types_pb2.AudioFormat, _Mapping]] = ..., settings: _Optional[_Union[_types_pb2.TranscriptionSettings, _Mapping]] = ..., client_session_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., resume_session_id: _Optional[str] = ..., last_received_sequence: _Optional[int] = ..., keep_alive: _Optional[bool] = ..., resume_window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., initial_audio_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AudioInput(_message.Message):
    __slots__ = ("content", "capture_time")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_TIME_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    capture_time: _timestamp_pb2.Timestamp
    def __init__(self, content: _Optional[bytes] = ..., capture_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Finalize(_message.Message):
    __slots__ = ("finalize_id", "traceparent")
    FINALIZE_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    finalize_id: str
    traceparent: str
    def __init__(self, finalize_id: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class UpdateTranscriptionSettings(_message.Message):
    __slots__ = ("update_id", "settings", "reset_mask", "apply_policy", "expected_revision", "validate_only")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    RESET_MASK_FIELD_NUMBER: _ClassVar[int]
    APPLY_POLICY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    settings: _types_pb2.TranscriptionSettings
    reset_mask: _field_mask_pb2.FieldMask
    apply_policy: _types_pb2.ApplyPolicy
    expected_revision: int
    validate_only: bool
    def __init__(self, update_id: _Optional[str] = ..., settings: _Optional[_Union[_types_pb2.TranscriptionSettings, _Mapping]] = ..., reset_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., apply_policy: _Optional[_Union[_types_pb2.ApplyPolicy, str]] = ..., expected_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class TranscribeStreamResponse(_message.Message):
    __slots__ = ("sequence", "acknowledged_input_sequence", "session_started", "transcript", "speech_started", "speech_ended", "progress", "settings_ack", "connection", "warning", "go_away", "session_ended")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SESSION_STARTED_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPEECH_ENDED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_ACK_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    GO_AWAY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    acknowledged_input_sequence: int
    session_started: _types_pb2.SessionStarted
    transcript: Transcript
    speech_started: SpeechStarted
    speech_ended: SpeechEnded
    progress: AudioProgress
    settings_ack: _types_pb2.SettingsAck
    connection: _types_pb2.ConnectionEvent
    warning: _types_pb2.Warning
    go_away: _types_pb2.GoAway
    session_ended: _types_pb2.SessionEnded
    def __init__(self, sequence: _Optional[int] = ..., acknowledged_input_sequence: _Optional[int] = ..., session_started: _Optional[_Union[_types_pb2.SessionStarted, _Mapping]] = ..., transcript: _Optional[_Union[Transcript, _Mapping]] = ..., speech_started: _Optional[_Union[SpeechStarted, _Mapping]] = ..., speech_ended: _Optional[_Union[SpeechEnded, _Mapping]] = ..., progress: _Optional[_Union[AudioProgress, _Mapping]] = ..., settings_ack: _Optional[_Union[_types_pb2.SettingsAck, _Mapping]] = ..., connection: _Optional[_Union[_types_pb2.ConnectionEvent, _Mapping]] = ..., warning: _Optional[_Union[_types_pb2.Warning, _Mapping]] = ..., go_away: _Optional[_Union[_types_pb2.GoAway, _Mapping]] = ..., session_ended: _Optional[_Union[_types_pb2.SessionEnded, _Mapping]] = ...) -> None: ...

class Transcript(_message.Message):
    __slots__ = ("segment_id", "segment_revision", "text", "is_final", "is_last", "final_trigger", "finalize_id", "words", "sentences", "language_codes", "start_offset", "end_offset", "stable_prefix_length", "full_text", "redacted_entities", "settings_revision", "upstream", "metrics", "speech_final", "extra")
    class FinalTrigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FINAL_TRIGGER_UNSPECIFIED: _ClassVar[Transcript.FinalTrigger]
        FINAL_TRIGGER_ENDPOINT: _ClassVar[Transcript.FinalTrigger]
        FINAL_TRIGGER_CLIENT_FINALIZE: _ClassVar[Transcript.FinalTrigger]
        FINAL_TRIGGER_END: _ClassVar[Transcript.FinalTrigger]
        FINAL_TRIGGER_RECONNECT: _ClassVar[Transcript.FinalTrigger]
    FINAL_TRIGGER_UNSPECIFIED: Transcript.FinalTrigger
    FINAL_TRIGGER_ENDPOINT: Transcript.FinalTrigger
    FINAL_TRIGGER_CLIENT_FINALIZE: Transcript.FinalTrigger
    FINAL_TRIGGER_END: Transcript.FinalTrigger
    FINAL_TRIGGER_RECONNECT: Transcript.FinalTrigger
    SEGMENT_ID_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_REVISION_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IS_FINAL_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    FINAL_TRIGGER_FIELD_NUMBER: _ClassVar[int]
    FINALIZE_ID_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    STABLE_PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    FULL_TEXT_FIELD_NUMBER: _ClassVar[int]
    REDACTED_ENTITIES_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SPEECH_FINAL_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    segment_id: str
    segment_revision: int
    text: str
    is_final: bool
    is_last: bool
    final_trigger: Transcript.FinalTrigger
    finalize_id: str
    words: _containers.RepeatedCompositeFieldContainer[Word]
    sentences: _containers.RepeatedCompositeFieldContainer[Sentence]
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    start_offset: _duration_pb2.Duration
    end_offset: _duration_pb2.Duration
    stable_prefix_length: int
    full_text: str
    redacted_entities: _containers.RepeatedScalarFieldContainer[str]
    settings_revision: int
    upstream: _types_pb2.UpstreamInfo
    metrics: TranscriptMetrics
    speech_final: bool
    extra: _struct_pb2.Struct
    def __init__(self, segment_id: _Optional[str] = ..., segment_revision: _Optional[int] = ..., text: _Optional[str] = ..., is_final: _Optional[bool] = ..., is_last: _Optional[bool] = ..., final_trigger: _Optional[_Union[Transcript.FinalTrigger, str]] = ..., finalize_id: _Optional[str] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., sentences: _Optional[_Iterable[_Union[Sentence, _Mapping]]] = ..., language_codes: _Optional[_Iterable[str]] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., stable_prefix_length: _Optional[int] = ..., full_text: _Optional[str] = ..., redacted_entities: _Optional[_Iterable[str]] = ..., settings_revision: _Optional[int] = ..., upstream: _Optional[_Union[_types_pb2.UpstreamInfo, _Mapping]] = ..., metrics: _Optional[_Union[TranscriptMetrics, _Mapping]] = ..., speech_final: _Optional[bool] = ..., extra: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...

class Word(_message.Message):
    __slots__ = ("text", "start_offset", "end_offset", "confidence", "speaker", "speaker_confidence")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    text: str
    start_offset: _duration_pb2.Duration
    end_offset: _duration_pb2.Duration
    confidence: float
    speaker: str
    speaker_confidence: float
    def __init__(self, text: _Optional[str] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., confidence: _Optional[float] = ..., speaker: _Optional[str] = ..., speaker_confidence: _Optional[float] = ...) -> None: ...

class Sentence(_message.Message):
    __slots__ = ("text", "start_offset", "end_offset", "speaker")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SPEAKER_FIELD_NUMBER: _ClassVar[int]
    text: str
    start_offset: _duration_pb2.Duration
    end_offset: _duration_pb2.Duration
    speaker: str
    def __init__(self, text: _Optional[str] = ..., start_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., end_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., speaker: _Optional[str] = ...) -> None: ...

class TranscriptMetrics(_message.Message):
    __slots__ = ("finalize_latency", "audio_latency", "capture_latency")
    FINALIZE_LATENCY_FIELD_NUMBER: _ClassVar[int]
    AUDIO_LATENCY_FIELD_NUMBER: _ClassVar[int]
    CAPTURE_LATENCY_FIELD_NUMBER: _ClassVar[int]
    finalize_latency: _duration_pb2.Duration
    audio_latency: _duration_pb2.Duration
    capture_latency: _duration_pb2.Duration
    def __init__(self, finalize_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., audio_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., capture_latency: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpeechStarted(_message.Message):
    __slots__ = ("audio_offset",)
    AUDIO_OFFSET_FIELD_NUMBER: _ClassVar[int]
    audio_offset: _duration_pb2.Duration
    def __init__(self, audio_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpeechEnded(_message.Message):
    __slots__ = ("audio_offset",)
    AUDIO_OFFSET_FIELD_NUMBER: _ClassVar[int]
    audio_offset: _duration_pb2.Duration
    def __init__(self, audio_offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AudioProgress(_message.Message):
    __slots__ = ("received_duration", "forwarded_duration", "finalized_duration", "lost_duration")
    RECEIVED_DURATION_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_DURATION_FIELD_NUMBER: _ClassVar[int]
    FINALIZED_DURATION_FIELD_NUMBER: _ClassVar[int]
    LOST_DURATION_FIELD_NUMBER: _ClassVar[int]
    received_duration: _duration_pb2.Duration
    forwarded_duration: _duration_pb2.Duration
    finalized_duration: _duration_pb2.Duration
    lost_duration: _duration_pb2.Duration
    def __init__(self, received_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., forwarded_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., finalized_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lost_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RecognizeRequest(_message.Message):
    __slots__ = ("content", "uri", "audio_format", "settings", "request_id")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    uri: str
    audio_format: _types_pb2.AudioFormat
    settings: _types_pb2.TranscriptionSettings
    request_id: str
    def __init__(self, content: _Optional[bytes] = ..., uri: _Optional[str] = ..., audio_format: _Optional[_Union[_types_pb2.AudioFormat, _Mapping]] = ..., settings: _Optional[_Union[_types_pb2.TranscriptionSettings, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class RecognizeResponse(_message.Message):
    __slots__ = ("text", "words", "sentences", "language_codes", "audio_duration", "upstream")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    LANGUAGE_CODES_FIELD_NUMBER: _ClassVar[int]
    AUDIO_DURATION_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    text: str
    words: _containers.RepeatedCompositeFieldContainer[Word]
    sentences: _containers.RepeatedCompositeFieldContainer[Sentence]
    language_codes: _containers.RepeatedScalarFieldContainer[str]
    audio_duration: _duration_pb2.Duration
    upstream: _types_pb2.UpstreamInfo
    def __init__(self, text: _Optional[str] = ..., words: _Optional[_Iterable[_Union[Word, _Mapping]]] = ..., sentences: _Optional[_Iterable[_Union[Sentence, _Mapping]]] = ..., language_codes: _Optional[_Iterable[str]] = ..., audio_duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., upstream: _Optional[_Union[_types_pb2.UpstreamInfo, _Mapping]] = ...) -> None: ...
