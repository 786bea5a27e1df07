import datetime

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

class UpdateSettingsRequest(_message.Message):
    __slots__ = ("update_id", "session_id", "synthesis", "transcription", "reset_mask", "apply_policy", "after_input_sequence", "expected_revision", "validate_only", "watch")
    UPDATE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SYNTHESIS_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    RESET_MASK_FIELD_NUMBER: _ClassVar[int]
    APPLY_POLICY_FIELD_NUMBER: _ClassVar[int]
    AFTER_INPUT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_REVISION_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    update_id: str
    session_id: str
    synthesis: _types_pb2.SynthesisSettings
    transcription: _types_pb2.TranscriptionSettings
    reset_mask: _field_mask_pb2.FieldMask
    apply_policy: _types_pb2.ApplyPolicy
    after_input_sequence: int
    expected_revision: int
    validate_only: bool
    watch: bool
    def __init__(self, update_id: _Optional[str] = ..., session_id: _Optional[str] = ..., synthesis: _Optional[_Union[_types_pb2.SynthesisSettings, _Mapping]] = ..., transcription: _Optional[_Union[_types_pb2.TranscriptionSettings, _Mapping]] = ..., reset_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., apply_policy: _Optional[_Union[_types_pb2.ApplyPolicy, str]] = ..., after_input_sequence: _Optional[int] = ..., expected_revision: _Optional[int] = ..., validate_only: _Optional[bool] = ..., watch: _Optional[bool] = ...) -> None: ...

class UpdateSettingsResponse(_message.Message):
    __slots__ = ("session_id", "ack", "connection", "session_ended")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ENDED_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    ack: _types_pb2.SettingsAck
    connection: _types_pb2.ConnectionEvent
    session_ended: _types_pb2.SessionEnded
    def __init__(self, session_id: _Optional[str] = ..., ack: _Optional[_Union[_types_pb2.SettingsAck, _Mapping]] = ..., connection: _Optional[_Union[_types_pb2.ConnectionEvent, _Mapping]] = ..., session_ended: _Optional[_Union[_types_pb2.SessionEnded, _Mapping]] = ...) -> None: ...

class GetSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class GetSessionResponse(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: Session
    def __init__(self, session: _Optional[_Union[Session, _Mapping]] = ...) -> None: ...

class CloseSessionRequest(_message.Message):
    __slots__ = ("session_id", "discard")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    discard: bool
    def __init__(self, session_id: _Optional[str] = ..., discard: _Optional[bool] = ...) -> None: ...

class CloseSessionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("session_id", "state", "settings", "settings_revision", "audio_format", "usage", "upstream", "labels", "create_time", "last_activity_time", "trace_id")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Session.State]
        STATE_CONNECTING: _ClassVar[Session.State]
        STATE_ACTIVE: _ClassVar[Session.State]
        STATE_RECONNECTING: _ClassVar[Session.State]
        STATE_DRAINING: _ClassVar[Session.State]
        STATE_DETACHED: _ClassVar[Session.State]
    STATE_UNSPECIFIED: Session.State
    STATE_CONNECTING: Session.State
    STATE_ACTIVE: Session.State
    STATE_RECONNECTING: Session.State
    STATE_DRAINING: Session.State
    STATE_DETACHED: Session.State
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_REVISION_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FORMAT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_ACTIVITY_TIME_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    state: Session.State
    settings: _types_pb2.EffectiveSettings
    settings_revision: int
    audio_format: _types_pb2.AudioFormat
    usage: _types_pb2.SessionUsage
    upstream: _types_pb2.UpstreamInfo
    labels: _containers.ScalarMap[str, str]
    create_time: _timestamp_pb2.Timestamp
    last_activity_time: _timestamp_pb2.Timestamp
    trace_id: str
    def __init__(self, session_id: _Optional[str] = ..., state: _Optional[_Union[Session.State, str]] = ..., settings: _Optional[_Union[_types_pb2.EffectiveSettings, _Mapping]] = ..., settings_revision: _Optional[int] = ..., audio_format: _Optional[_Union[_types_pb2.AudioFormat, _Mapping]] = ..., usage: _Optional[_Union[_types_pb2.SessionUsage, _Mapping]] = ..., upstream: _Optional[_Union[_types_pb2.UpstreamInfo, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_activity_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., trace_id: _Optional[str] = ...) -> None: ...

class GetTraceRequest(_message.Message):
    __slots__ = ("trace_id", "session_id")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    session_id: str
    def __init__(self, trace_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class GetTraceResponse(_message.Message):
    __slots__ = ("spans",)
    SPANS_FIELD_NUMBER: _ClassVar[int]
    spans: _containers.RepeatedCompositeFieldContainer[TraceSpan]
    def __init__(self, spans: _Optional[_Iterable[_Union[TraceSpan, _Mapping]]] = ...) -> None: ...

class TraceSpan(_message.Message):
    __slots__ = ("trace_id", "span_id", "parent_span_id", "parent_is_remote", "name", "kind", "start_time", "end_time", "attributes", "failed", "error_message", "links")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[TraceSpan.Kind]
        KIND_INTERNAL: _ClassVar[TraceSpan.Kind]
        KIND_SERVER: _ClassVar[TraceSpan.Kind]
        KIND_CLIENT: _ClassVar[TraceSpan.Kind]
        KIND_PRODUCER: _ClassVar[TraceSpan.Kind]
        KIND_CONSUMER: _ClassVar[TraceSpan.Kind]
    KIND_UNSPECIFIED: TraceSpan.Kind
    KIND_INTERNAL: TraceSpan.Kind
    KIND_SERVER: TraceSpan.Kind
    KIND_CLIENT: TraceSpan.Kind
    KIND_PRODUCER: TraceSpan.Kind
    KIND_CONSUMER: TraceSpan.Kind
    class Link(_message.Message):
        __slots__ = ("trace_id", "span_id")
        TRACE_ID_FIELD_NUMBER: _ClassVar[int]
        SPAN_ID_FIELD_NUMBER: _ClassVar[int]
        trace_id: str
        span_id: str
        def __init__(self, trace_id: _Optional[str] = ..., span_id: _Optional[str] = ...) -> None: ...
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_IS_REMOTE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LINKS_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    span_id: str
    parent_span_id: str
    parent_is_remote: bool
    name: str
    kind: TraceSpan.Kind
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    attributes: _struct_pb2.Struct
    failed: bool
    error_message: str
    links: _containers.RepeatedCompositeFieldContainer[TraceSpan.Link]
    def __init__(self, trace_id: _Optional[str] = ..., span_id: _Optional[str] = ..., parent_span_id: _Optional[str] = ..., parent_is_remote: _Optional[bool] = ..., name: _Optional[str] = ..., kind: _Optional[_Union[TraceSpan.Kind, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., attributes: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., failed: _Optional[bool] = ..., error_message: _Optional[str] = ..., links: _Optional[_Iterable[_Union[TraceSpan.Link, _Mapping]]] = ...) -> None: ...
