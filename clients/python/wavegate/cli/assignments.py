"""Settings as they are typed on a command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from wavegate._settings_wire import MessageT, expected, python_name, setting_names, unknown_setting
from wavegate.settings import Keyword

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_TIME = re.compile(r"(-?[0-9.]+(?:e-?[0-9]+)?)\s*(ms|s)?", re.IGNORECASE)


def parse_assignments(message_type: type[MessageT], assignments: Iterable[str]) -> dict[str, object]:
    """Options from texts like `speed=1.2`, `max_buffer_delay=300ms`, `keywords=gRPC:2,codec` or `extra={"a":1}`.

    Times are seconds unless they end in `ms`. Raises `ValueError` with a sentence that says what is wrong.
    """
    known = setting_names(message_type.DESCRIPTOR)
    options: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        field = known.get(name.strip())
        if not equals and field is not None:
            raise ValueError(f"{name.strip()} has no value: write {name.strip()}={_example(field)}")
        if not equals and not name.strip().isidentifier():
            raise ValueError(f"{assignment!r} is no setting: write NAME=VALUE")
        if field is None:
            raise ValueError(unknown_setting(name.strip(), known))
        key = python_name(field)
        if key in options:
            raise ValueError(f"{key} is given twice")
        options[key] = _parse(field, key, text.strip())
    return options


def _example(field: Any) -> str:
    """A value that a field may have."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true"
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return "1.2"
    if field.message_type is not None and field.message_type.full_name == Duration.DESCRIPTOR.full_name:
        return "0.3"
    return "VALUE"


def _parse(field: Any, name: str, text: str) -> object:
    wrong = ValueError(f"{name} cannot be {text!r}: {expected(field)} is expected")
    if field.message_type is not None:
        if field.message_type.full_name == Duration.DESCRIPTOR.full_name:
            return _parse_time(text, wrong)
        if field.message_type.full_name == Struct.DESCRIPTOR.full_name:
            return _parse_object(text, wrong)
        return tuple(_parse_keyword(item.strip()) for item in text.split(",") if item.strip())
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError(f"{name} cannot be {text!r}: true or false is expected")
        return text.lower() in _TRUE
    try:
        if field.type == FieldDescriptor.TYPE_INT32:
            return int(text)
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return float(text)
    except ValueError as exc:
        raise wrong from exc
    return text.upper() if field.enum_type is not None else text


def _parse_time(text: str, wrong: ValueError) -> float:
    match = _TIME.fullmatch(text)
    try:
        value = float(match[1]) if match else None
    except ValueError:
        value = None
    if match is None or value is None:
        raise wrong
    return value / 1000 if (match[2] or "").lower() == "ms" else value


def _parse_object(text: str, wrong: ValueError) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise wrong from exc
    if not isinstance(value, dict):
        raise wrong
    return value


def _parse_keyword(text: str) -> Keyword:
    phrase, colon, boost = text.rpartition(":")
    if colon:
        try:
            return Keyword(phrase, float(boost))
        except ValueError:
            pass  # a phrase with a colon in it
    return Keyword(text)


def text_of(value: object) -> str:
    """A setting's value as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Keyword):
        return value.phrase if value.boost is None else f"{value.phrase}:{value.boost:g}"
    if isinstance(value, tuple | list):
        return ",".join(text_of(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
