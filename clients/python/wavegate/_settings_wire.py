"""Settings to and from the wire: driven by the message descriptors, so that a new field needs no code here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from google.protobuf import struct_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from wavegate.settings import (
    ApplyPolicy,
    AudioEncoding,
    AudioFormat,
    JsonValue,
    Keyword,
    SynthesisSettings,
    TranscriptionSettings,
)
from wavegate.speech.v1 import types_pb2

_DURATION = Duration.DESCRIPTOR.full_name
_STRUCT = struct_pb2.Struct.DESCRIPTOR.full_name

_ENUM_PREFIX: Mapping[str, str] = {"ContentFilter": "CONTENT_FILTER_", "Numerals": "NUMERALS_"}

_Field = Any
"""A field's descriptor, of which the type stubs know two unrelated classes."""

MessageT = TypeVar("MessageT", types_pb2.SynthesisSettings, types_pb2.TranscriptionSettings)


def seconds(duration: Duration) -> float:
    """A wire duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def text_to_wire(text: str) -> str:
    """Return text as UTF-8 can carry it: the halves of a surrogate pair joined, a lone one as U+FFFD.

    Such text comes from JSON that was cut within a character, and from command lines that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def duration(value_s: float) -> Duration:
    """Seconds as a wire duration, to the nanosecond."""
    nanos = round(value_s * 1e9)
    whole, rest = divmod(abs(nanos), 1_000_000_000)
    sign = -1 if nanos < 0 else 1  # both parts carry the sign
    return Duration(seconds=sign * whole, nanos=sign * rest)


def enum_name(enum: Any, number: int, prefix: str) -> str:
    """The name of an enum's value without its prefix; `UNKNOWN` for a value of a newer gateway."""
    try:
        name: str = enum.Name(number)
    except ValueError:
        return "UNKNOWN"
    return name.removeprefix(prefix)


def audio_format_to_wire(audio_format: AudioFormat) -> types_pb2.AudioFormat:
    """Raises `ValueError` for an encoding that the contract does not know."""
    return types_pb2.AudioFormat(
        encoding=cast(
            types_pb2.AudioEncoding,
            _enum_number(types_pb2.AudioEncoding, "AUDIO_ENCODING_", "encoding", audio_format.encoding),
        ),
        sample_rate_hertz=audio_format.sample_rate_hz,
    )


def audio_format_from_wire(message: types_pb2.AudioFormat) -> AudioFormat:
    """An encoding that is not said is LINEAR16."""
    name = enum_name(types_pb2.AudioEncoding, message.encoding, "AUDIO_ENCODING_")
    return AudioFormat(
        cast(AudioEncoding, "LINEAR16" if name == "UNSPECIFIED" else name), message.sample_rate_hertz
    )


def apply_policy_number(policy: ApplyPolicy) -> types_pb2.ApplyPolicy:
    """Raises `ValueError` for a policy that the contract does not know."""
    return cast(types_pb2.ApplyPolicy, _enum_number(types_pb2.ApplyPolicy, "APPLY_POLICY_", "apply", policy))


def settings_to_wire(message_type: type[MessageT], options: Mapping[str, object]) -> MessageT:
    """Settings as a message; an option that is `None` counts as not given.

    Raises `TypeError` for an option that does not exist or has the wrong type, `ValueError` for a word that is
    none of a setting's. Ranges are the gateway's to judge.
    """
    message = message_type()
    descriptor = message_type.DESCRIPTOR
    by_name = {python_name(f): f for f in descriptor.fields}
    for name, value in options.items():
        if value is None:
            continue
        field = by_name.get(name)
        if field is None:
            raise TypeError(unknown_setting(name, by_name))
        if field.enum_type is not None:
            enum = field.enum_type.name
            number = _enum_number(getattr(types_pb2, enum), _ENUM_PREFIX[enum], name, value)
            setattr(message, field.name, number)
            continue
        try:
            _set(message, field, value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise TypeError(f"{name} cannot be {value!r}: {expected(field)} is expected") from exc
    return message


def _set(message: Message, field: _Field, value: object) -> None:
    """Raises `TypeError`, `ValueError` or `OverflowError` for a value that the field cannot hold."""
    if field.message_type is None:
        # protobuf takes True for 1, 1 for True, and bytes for text
        if isinstance(value, bytes) or isinstance(value, bool) != (field.type == FieldDescriptor.TYPE_BOOL):
            raise TypeError
        setattr(message, field.name, value)
    elif field.message_type.full_name == _DURATION:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        getattr(message, field.name).CopyFrom(duration(value))
    elif field.message_type.full_name == _STRUCT:
        if not isinstance(value, Mapping):
            raise TypeError
        struct = getattr(message, field.name)
        struct.SetInParent()  # an empty one is a value of its own: nothing extra
        struct.update(value)
    else:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError
        keywords = getattr(message, field.name)
        keywords.SetInParent()  # an empty list clears
        for item in value:
            keyword = Keyword(item) if isinstance(item, str) else item
            if not isinstance(keyword, Keyword):
                raise TypeError
            keywords.keywords.add(phrase=keyword.phrase, boost=keyword.boost)


def synthesis_settings_from_wire(message: types_pb2.SynthesisSettings) -> SynthesisSettings:
    """The fields that are set."""
    return SynthesisSettings(**_from_wire(message, SynthesisSettings))


def transcription_settings_from_wire(message: types_pb2.TranscriptionSettings) -> TranscriptionSettings:
    """The fields that are set."""
    return TranscriptionSettings(**_from_wire(message, TranscriptionSettings))


def struct_from_wire(message: struct_pb2.Struct) -> Mapping[str, JsonValue]:
    """A JSON object. The wire knows one kind of number; here those without a fraction are integers."""
    return {name: _json(value) for name, value in message.fields.items()}


def _json(value: struct_pb2.Value) -> JsonValue:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return struct_from_wire(value.struct_value)
        case "list_value":
            return [_json(item) for item in value.list_value.values]
    return None


# What `**` of it gives each field is checked by the tests, field by field, not by mypy.
def _from_wire(message: Message, target: type) -> dict[str, Any]:
    known = {f.name for f in fields(target)}
    return {
        name: _value(field, value)
        for field, value in message.ListFields()
        if (name := python_name(field)) in known
    }


def _value(field: _Field, value: object) -> object:
    if isinstance(value, Duration):
        return seconds(value)
    if isinstance(value, struct_pb2.Struct):
        return struct_from_wire(value)
    if isinstance(value, types_pb2.KeywordList):
        return tuple(Keyword(k.phrase, k.boost if k.HasField("boost") else None) for k in value.keywords)
    if field.enum_type is not None:
        name = field.enum_type.name
        return enum_name(getattr(types_pb2, name), cast(int, value), _ENUM_PREFIX[name])
    return value


def python_name(field: _Field) -> str:
    """The contract's name of a setting, with the unit where it is a time."""
    is_time = field.message_type is not None and field.message_type.full_name == _DURATION
    return f"{field.name}_s" if is_time else field.name


def reset_mask(message_type: type[MessageT], names: Iterable[str]) -> FieldMask:
    """The fields to put back to their defaults, by their names here or in the contract; `TypeError` if unknown."""
    known = setting_names(message_type.DESCRIPTOR)
    paths = []
    for name in names:
        if name not in known:
            raise TypeError(unknown_setting(name, known))
        paths.append(known[name].name)
    return FieldMask(paths=paths)


def setting_names(descriptor: Any) -> dict[str, _Field]:
    return {name: f for f in descriptor.fields for name in (f.name, python_name(f))}


def unknown_setting(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
    return f"there is no setting {name!r}: {hint}"


def _enum_number(enum: Any, prefix: str, name: str, value: object) -> int:
    words: list[str] = [w.removeprefix(prefix) for w in enum.keys()]  # noqa: SIM118
    words.remove("UNSPECIFIED")
    if not isinstance(value, str):
        raise TypeError(f"{name} is one of {', '.join(words)}")
    if value.upper() not in words:
        raise ValueError(f"{name} is one of {', '.join(words)}, not {value!r}")
    number: int = enum.Value(prefix + value.upper())
    return number


def expected(field: _Field) -> str:
    if field.message_type is not None:
        return {
            _DURATION: "a number of seconds",
            _STRUCT: "a JSON object with names as keys",
        }.get(field.message_type.full_name, "a list of phrases or Keyword")
    return {
        FieldDescriptor.TYPE_BOOL: "True or False",
        FieldDescriptor.TYPE_INT32: "a 32-bit integer",
        FieldDescriptor.TYPE_DOUBLE: "a number",
    }.get(field.type, "a string")
