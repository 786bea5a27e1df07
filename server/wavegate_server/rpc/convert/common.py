"""What both kinds of session have in common: times, formats, settings, acks, the session's own events."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from typing import Any, overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from wavegate.speech.v1 import types_pb2 as pb

from wavegate_server import __version__, errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.errors import Violation
from wavegate_server.rpc import status
from wavegate_server.session import events
from wavegate_server.waves.settings import (
    IDENTIFIER,
    SYNTHESIS,
    Field,
    Keyword,
    Kind,
    Schema,
    Settings,
)

MAX_LABELS = 16
MAX_LABEL_CHARS = 128
NANOS = 1_000_000_000
FIRST_SECOND, LAST_SECOND = -62_135_596_800, 253_402_300_799
"""Of a Timestamp: the years 1 and 9999."""


@overload
def duration(seconds: float) -> Duration: ...
@overload
def duration(seconds: None) -> None: ...
@overload
def duration(seconds: float | None) -> Duration | None: ...
def duration(seconds: float | None) -> Duration | None:
    """Seconds to a Duration, to the nanosecond; None stays None (an absent field)."""
    if seconds is None:
        return None
    nanos = round(seconds * NANOS)
    whole, rest = divmod(abs(nanos), NANOS)
    sign = -1 if nanos < 0 else 1
    return Duration(seconds=sign * whole, nanos=sign * rest)


def seconds(message: Duration) -> float:
    """A Duration to seconds."""
    return message.seconds + message.nanos / NANOS


def timestamp(epoch_s: float | None) -> Timestamp | None:
    """Seconds since the Unix epoch to a Timestamp."""
    if epoch_s is None:
        return None
    whole, rest = divmod(round(epoch_s * NANOS), NANOS)
    return Timestamp(seconds=whole, nanos=rest)


def epoch_s(message: Timestamp) -> float:
    """A Timestamp to seconds since the Unix epoch."""
    return message.seconds + message.nanos / NANOS


def valid_timestamp(message: Timestamp) -> bool:
    """Return whether a Timestamp is within its type's range: the years 1 to 9999, and a part of a second."""
    return FIRST_SECOND <= message.seconds <= LAST_SECOND and 0 <= message.nanos < NANOS


# -- formats ----------------------------------------------------------------------------------------------------

ENCODINGS: dict[int, Encoding] = {
    pb.AUDIO_ENCODING_UNSPECIFIED: Encoding.LINEAR16,
    pb.AUDIO_ENCODING_LINEAR16: Encoding.LINEAR16,
    pb.AUDIO_ENCODING_LINEAR32: Encoding.LINEAR32,
    pb.AUDIO_ENCODING_MULAW: Encoding.MULAW,
    pb.AUDIO_ENCODING_ALAW: Encoding.ALAW,
    pb.AUDIO_ENCODING_OPUS: Encoding.OPUS,
    pb.AUDIO_ENCODING_OGG_OPUS: Encoding.OGG_OPUS,
    pb.AUDIO_ENCODING_MP3: Encoding.MP3,
    pb.AUDIO_ENCODING_WAV: Encoding.WAV,
}
_ENCODING_NUMBERS = {encoding: number for number, encoding in ENCODINGS.items() if number}


def audio_format_from_proto(
    message: pb.AudioFormat,
    default: AudioFormat,
    encodings: Iterable[Encoding],
    rates_hz: Iterable[int],
    path: str,
) -> tuple[AudioFormat, list[Violation]]:
    """The format asked for, with defaults, and what is wrong with it."""
    found = []
    encodings, rates_hz = tuple(encodings), tuple(rates_hz)
    encoding = ENCODINGS.get(message.encoding)
    if encoding not in encodings:
        names = ", ".join(e.name for e in encodings)
        found.append(Violation(f"{path}.encoding", f"must be one of {names}"))
    rate = message.sample_rate_hertz or default.sample_rate_hz
    if rate not in rates_hz:
        found.append(
            Violation(
                f"{path}.sample_rate_hertz", f"must be one of {', '.join(map(str, rates_hz))}, got {rate}"
            )
        )
    if message.channel_count not in (0, 1):
        found.append(
            Violation(f"{path}.channel_count", f"must be 1, got {message.channel_count}; mix down before")
        )
    return AudioFormat(encoding or default.encoding, rate), found


def audio_format_to_proto(audio_format: AudioFormat) -> pb.AudioFormat:
    return pb.AudioFormat(
        encoding=pb.AudioEncoding.Name(_ENCODING_NUMBERS[audio_format.encoding]),
        sample_rate_hertz=audio_format.sample_rate_hz,
        channel_count=1,
    )


# -- settings ---------------------------------------------------------------------------------------------------

_CONTENT_FILTERS = {
    pb.CONTENT_FILTER_FLAG: "flag",
    pb.CONTENT_FILTER_REJECT: "reject",
    pb.CONTENT_FILTER_OFF: "off",
}
_NUMERALS = {pb.NUMERALS_AUTO: "auto", pb.NUMERALS_ALWAYS: "always", pb.NUMERALS_NONE: "none"}
_CONTENT_FILTER_NUMBERS = {v: k for k, v in _CONTENT_FILTERS.items()}
_NUMERALS_NUMBERS = {v: k for k, v in _NUMERALS.items()}


def settings_from_proto(schema: Schema, message: Any) -> dict[str, Any]:
    """The set fields of a settings message."""
    out: dict[str, Any] = {}
    for field in schema.fields:
        if not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        match field.kind:
            case Kind.DURATION:
                out[field.name] = seconds(value)
            case Kind.EXTRA:
                out[field.name] = struct_to_dict(value)
            case Kind.KEYWORDS:
                out[field.name] = tuple(
                    Keyword(k.phrase, k.boost if k.HasField("boost") else None) for k in value.keywords
                )
            case Kind.CONTENT_FILTER | Kind.NUMERALS:
                names = _CONTENT_FILTERS if field.kind is Kind.CONTENT_FILTER else _NUMERALS
                if value in names:
                    out[field.name] = names[value]
                # UNSPECIFIED, and a value of a newer contract, say nothing: the field stays unset
            case _:
                out[field.name] = value
    return out


def settings_to_proto(schema: Schema, settings: Settings) -> Any:
    """A settings message with all of `settings` set."""
    message = pb.SynthesisSettings() if schema is SYNTHESIS else pb.TranscriptionSettings()
    for field in schema.fields:
        if field.name in settings:
            _set_field(message, field, settings[field.name])
    return message


def _set_field(message: Any, field: Field, value: Any) -> None:
    match field.kind:
        case Kind.DURATION:
            getattr(message, field.name).CopyFrom(duration(value))
        case Kind.EXTRA:
            getattr(message, field.name).update(value)
        case Kind.KEYWORDS:
            target = getattr(message, field.name)
            target.SetInParent()
            for keyword in value:
                target.keywords.add(phrase=keyword.phrase, boost=keyword.boost)
        case Kind.CONTENT_FILTER:
            setattr(message, field.name, _CONTENT_FILTER_NUMBERS[value])
        case Kind.NUMERALS:
            setattr(message, field.name, _NUMERALS_NUMBERS[value])
        case _:
            setattr(message, field.name, value)


def effective_settings(schema: Schema, settings: Settings) -> pb.EffectiveSettings:
    message = settings_to_proto(schema, settings)
    if schema is SYNTHESIS:
        return pb.EffectiveSettings(synthesis=message)
    return pb.EffectiveSettings(transcription=message)


def struct_to_dict(struct: Struct) -> dict[str, Any]:
    """A Struct as plain values. Its numbers are doubles; whole ones become integers again."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_to_dict(value.struct_value)
        case "list_value":
            return _plain_list(value.list_value)
        case _:
            return None


def _plain_list(values: ListValue) -> list[Any]:
    return [_plain(v) for v in values.values]


_POLICIES = {
    pb.APPLY_POLICY_UNSPECIFIED: events.ApplyPolicy.NEXT_BOUNDARY,
    pb.APPLY_POLICY_NEXT_BOUNDARY: events.ApplyPolicy.NEXT_BOUNDARY,
    pb.APPLY_POLICY_IMMEDIATE: events.ApplyPolicy.IMMEDIATE,
    pb.APPLY_POLICY_NO_RECONNECT: events.ApplyPolicy.NO_RECONNECT,
}


def update_from_proto(schema: Schema, message: Any) -> events.UpdateSettings:
    """An in-band delta (`UpdateSynthesisSettings` or `UpdateTranscriptionSettings`).

    Raises `errors.InvalidInput` for an id that is none.
    """
    update_id = optional_id(message.update_id, "update_settings.update_id")
    return _update(
        schema, message, message.settings, update_id, path="update_settings.settings", in_band=True
    )


def control_update_from_proto(schema: Schema, message: Any) -> events.UpdateSettings:
    """An `UpdateSettingsRequest` for a session of this schema."""
    update_id = required_id(message.update_id, "update_id")
    arm = message.WhichOneof("settings")
    update = _update(
        schema,
        message,
        getattr(message, arm) if arm == schema.arm else None,
        update_id,
        path=schema.arm,
        in_band=False,
    )
    if arm in (None, schema.arm):
        return update
    wrong = Violation(arm, f"the session is one of {schema.arm}; send its own settings")
    return events.UpdateSettings(
        update.update_id,
        {},
        violations=(wrong,),
        after_input_sequence=update.after_input_sequence,
        in_band=False,
    )


def _update(
    schema: Schema, message: Any, settings: Any, update_id: str, *, path: str, in_band: bool
) -> events.UpdateSettings:
    delta = settings_from_proto(schema, settings) if settings is not None else {}
    violations = []
    after = None
    if not in_band and message.HasField("after_input_sequence"):
        after = message.after_input_sequence
        if after < 0:
            violations.append(Violation("after_input_sequence", "must not be negative"))
    return events.UpdateSettings(
        update_id,
        delta,
        reset=tuple(dict.fromkeys(message.reset_mask.paths)),
        # An unknown value counts as unspecified, which is the first one.
        policy=_POLICIES.get(message.apply_policy, events.ApplyPolicy.NEXT_BOUNDARY),
        expected_revision=message.expected_revision if message.HasField("expected_revision") else None,
        validate_only=message.validate_only,
        after_input_sequence=after,
        in_band=in_band,
        path=path,
        reset_path="update_settings.reset_mask" if in_band else "reset_mask",
        violations=tuple(violations),
    )


# -- pages ------------------------------------------------------------------------------------------------------


def page_token(kind: str, place: str) -> str:
    """A page token: where in a list of this kind the next page begins."""
    return base64.urlsafe_b64encode(f"{kind} {place}".encode()).decode()


def place_of_token(kind: str, token: str) -> str:
    """The place in a token that `page_token` made. Raises `errors.InvalidInput` for any other."""
    try:
        found, _, place = (
            base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().partition(" ")
        )
    except ValueError:
        found = place = ""
    if found != kind:
        raise errors.InvalidInput.field("page_token", "is not one that this service gave")
    return place


# -- ids and labels ---------------------------------------------------------------------------------------------

_ID_RULE = "must be 1 to 128 characters of A-Z a-z 0-9 _ . -"


def optional_id(value: str, path: str) -> str:
    """An id that may be left out. Raises `errors.InvalidInput`."""
    if value and not IDENTIFIER.fullmatch(value):
        raise errors.InvalidInput.field(path, _ID_RULE)
    return value


def required_id(value: str, path: str) -> str:
    """An id that may not be left out. Raises `errors.InvalidInput`."""
    if not IDENTIFIER.fullmatch(value):
        raise errors.InvalidInput.field(path, _ID_RULE)
    return value


def id_violations(value: str, path: str) -> list[Violation]:
    """What is wrong with an optional id, for messages that report everything at once."""
    return [Violation(path, _ID_RULE)] if value and not IDENTIFIER.fullmatch(value) else []


def label_violations(labels: Mapping[str, str], path: str) -> list[Violation]:
    """What is wrong with a session's labels."""
    found = []
    if len(labels) > MAX_LABELS:
        found.append(Violation(path, f"at most {MAX_LABELS} labels, got {len(labels)}"))
    for key, value in labels.items():
        if not IDENTIFIER.fullmatch(key):
            found.append(Violation(f"{path}[{key[:40]!r}]", f"a key {_ID_RULE}"))
        elif len(value) > MAX_LABEL_CHARS or not value.isprintable():
            found.append(
                Violation(f"{path}[{key!r}]", f"must be at most {MAX_LABEL_CHARS} printable characters")
            )
    return found


def duration_violations(
    message: Any, field: str, path: str, *, zero: bool = True, high_s: float = math.inf
) -> list[Violation]:
    """What is wrong with an optional Duration field: negative, zero unless `zero` allows it, or above `high_s`."""
    if not message.HasField(field):
        return []
    value = seconds(getattr(message, field))
    if (value > 0 or (zero and value == 0)) and value <= high_s:
        return []
    bounds = "must not be negative" if zero else "must be more than 0"
    bounds += f" and at most {high_s:g} seconds" if high_s < math.inf else ""
    return [Violation(f"{path}.{field}", f"{bounds}, got {value:g} seconds")]


# -- events -----------------------------------------------------------------------------------------------------


def session_started(event: events.SessionStarted, schema: Schema) -> pb.SessionStarted:
    limits = event.limits
    return pb.SessionStarted(
        session_id=event.session_id,
        audio_format=audio_format_to_proto(event.audio_format),
        settings=effective_settings(schema, event.settings),
        settings_revision=event.settings_revision,
        limits=pb.SessionLimits(
            client_idle_timeout=duration(limits.client_idle_timeout_s),
            resume_window=duration(limits.resume_window_s),
            max_text_message_chars=limits.max_text_message_chars,
            max_buffered_chars=limits.max_buffered_chars,
            max_audio_message_bytes=limits.max_audio_message_bytes,
            max_concurrent_sessions=limits.max_concurrent_sessions,
            active_sessions=limits.active_sessions,
        ),
        trace_id=event.trace_id,
        resumed=event.resumed,
        input_sequence_acknowledged=event.input_sequence_acknowledged,
        gateway_version=__version__,
    )


def upstream_info(upstream: events.Upstream) -> pb.UpstreamInfo:
    return pb.UpstreamInfo(
        session_id=upstream.session_id,
        request_id=upstream.request_id,
        endpoint=upstream.endpoint,
        connection_index=upstream.connection_index,
    )


def _mechanism(mechanism: events.Mechanism) -> str:
    return f"MECHANISM_{mechanism.name}"


def settings_ack(event: events.SettingsAcknowledged, schema: Schema) -> pb.SettingsAck:
    return pb.SettingsAck(
        update_id=event.update_id,
        state=f"STATE_{event.state.value}",
        mechanism=_mechanism(event.mechanism),
        fields=[
            pb.SettingsAck.FieldOutcome(path=name, mechanism=_mechanism(how)) for name, how in event.fields
        ],
        settings_revision=event.settings_revision,
        settings=effective_settings(schema, event.settings) if event.settings is not None else None,
        first_utterance_id=event.first_utterance_id,
        applied_after_input_sequence=event.applied_after_input_sequence,
        audio_offset=duration(event.audio_offset_s),
        apply_duration=duration(event.apply_duration_s),
        error=status.to_proto(event.error) if event.error is not None else None,
    )


def connection_event(event: events.ConnectionChanged) -> pb.ConnectionEvent:
    return pb.ConnectionEvent(
        state=f"STATE_{event.state.value}",
        reason=f"REASON_{event.reason.value}",
        attempt=event.attempt,
        max_attempts=event.max_attempts,
        next_retry_delay=duration(event.next_retry_delay_s),
        handshake_duration=duration(event.handshake_s),
        close_code=event.close_code,
        upstream=upstream_info(event.upstream),
        replayed_audio_duration=duration(event.replayed_audio_s),
        lost_audio_duration=duration(event.lost_audio_s),
        replayed_character_count=event.replayed_character_count,
        cause=status.to_proto(event.cause) if event.cause is not None else None,
    )


def warning(event: events.WarningRaised) -> pb.Warning:
    return pb.Warning(
        reason=event.reason,
        message=event.message,
        metadata=dict(event.metadata),
        utterance_id=event.utterance_id,
    )


def go_away(event: events.GoingAway) -> pb.GoAway:
    return pb.GoAway(time_left=duration(event.time_left_s), reason=event.reason, resumable=event.resumable)


def usage(totals: events.Usage) -> pb.SessionUsage:
    return pb.SessionUsage(
        input_character_count=totals.input_character_count,
        audio_bytes=totals.audio_bytes,
        audio_duration=duration(totals.audio_duration_s),
        utterance_count=totals.utterance_count,
        reconnect_count=totals.reconnect_count,
        start_time=timestamp(totals.start_time),
        end_time=timestamp(totals.end_time),
    )


def session_ended(event: events.SessionEnded) -> pb.SessionEnded:
    return pb.SessionEnded(
        reason=f"REASON_{event.reason.value}",
        status=status.to_proto(event.error),
        usage=usage(event.usage),
    )


def session_event(response: Any, event: Any, schema: Schema) -> bool:
    """Put an event that all sessions have into a response of either stream; False when it is not one of them."""
    match event:
        case events.SessionStarted():
            response.session_started.CopyFrom(session_started(event, schema))
        case events.SettingsAcknowledged():
            response.settings_ack.CopyFrom(settings_ack(event, schema))
        case events.ConnectionChanged():
            response.connection.CopyFrom(connection_event(event))
        case events.WarningRaised():
            response.warning.CopyFrom(warning(event))
        case events.GoingAway():
            response.go_away.CopyFrom(go_away(event))
        case events.SessionEnded():
            response.session_ended.CopyFrom(session_ended(event))
        case _:
            return False
    return True
