"""Settings, in Python, on the wire and as typed; checked against the contract field by field."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavegate import events
from wavegate import settings as settings_module
from wavegate._events_wire import synthesis_event, transcription_event
from wavegate._settings_wire import (
    duration,
    python_name,
    reset_mask,
    seconds,
    settings_to_wire,
    synthesis_settings_from_wire,
    transcription_settings_from_wire,
)
from wavegate.cli.assignments import parse_assignments, text_of
from wavegate.settings import (
    AudioEncoding,
    AudioFormat,
    Keyword,
    SynthesisOptions,
    SynthesisSettings,
    TranscriptionOptions,
    TranscriptionSettings,
)
from wavegate.speech.v1 import (
    session_service_pb2,
    synthesis_service_pb2,
    transcription_service_pb2,
    types_pb2,
)
from wavegate.speech.v1 import settings as speech_settings

# One row a field: as an option, as typed, as it comes back.
SYNTHESIS: Mapping[str, tuple[Any, str]] = {
    "voice_id": ("magnus", "magnus"),
    "model": ("lightning_v3.1", "lightning_v3.1"),
    "language_code": ("en-US", "en-US"),
    "number_language_code": ("hi", "hi"),
    "speed": (1.25, "1.25"),
    "word_timings": (True, "true"),
    "math_notation": (False, "off"),
    "max_buffer_delay_s": (0.3, "300ms"),
    "completion_backoff_s": (2.0, "2s"),
    "max_chunk_bytes": (4096, "4096"),
    "consistency": (0.5, "0.5"),
    "similarity": (0.0, "0"),
    "enhancement": (1, "1"),
    "extra": ({"a": 1, "b": [True, None, "c"], "d": {"e": 0.5}}, '{"a":1,"b":[true,null,"c"],"d":{"e":0.5}}'),
    "content_filter": ("REJECT", "reject"),
}
TRANSCRIPTION: Mapping[str, tuple[Any, str]] = {
    "model": ("pulse", "pulse"),
    "language_code": ("en", "en"),
    "interim_results": (True, "yes"),
    "word_timings": (True, "1"),
    "sentence_timings": (False, "0"),
    "diarization": (True, "on"),
    "voice_activity_events": (False, "no"),
    "end_of_utterance_timeout_s": (0.8, "0.8"),
    "auto_finalize_on_words": (True, "true"),
    "max_words": (20, "20"),
    "formatting": (True, "true"),
    "punctuation": (False, "false"),
    "capitalization": (True, "true"),
    "inverse_text_normalization": (True, "true"),
    "redact_pii": (True, "true"),
    "redact_pci": (False, "false"),
    "keywords": ((Keyword("gRPC", 2.0), Keyword("a:b")), "gRPC:2, a:b"),
    "full_transcript": (True, "true"),
    "numerals": ("AUTO", "auto"),
    "extra": ({}, "{}"),
    "endpointing": (True, "true"),
    "endpointing_timeout_s": (0.25, "250 ms"),
    "emotion_detection": (True, "true"),
    "gender_detection": (True, "true"),
    "vad_threshold": (0.5, "0.5"),
    "vad_min_speech_s": (0.1, "0.1s"),
    "no_format_delay": (True, "true"),
}

KINDS = [
    (
        types_pb2.SynthesisSettings,
        SynthesisOptions,
        SynthesisSettings,
        SYNTHESIS,
        synthesis_settings_from_wire,
    ),
    (
        types_pb2.TranscriptionSettings,
        TranscriptionOptions,
        TranscriptionSettings,
        TRANSCRIPTION,
        transcription_settings_from_wire,
    ),
]
FIELDS = [
    pytest.param(kind, name, id=f"{kind[0].DESCRIPTOR.name}.{name}") for kind in KINDS for name in kind[3]
]


@pytest.mark.parametrize("kind", KINDS, ids=["synthesis", "transcription"])
def test_all_lists_of_fields_are_the_contracts(kind: Any) -> None:
    message, options, echo, table, _ = kind
    contract = [python_name(f) for f in message.DESCRIPTOR.fields]
    assert list(typing.get_type_hints(options)) == contract
    assert [f.name for f in dataclasses.fields(echo)] == contract
    assert list(table) == contract


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_goes_to_the_wire_and_comes_back(kind: Any, name: str) -> None:
    message, _, echo, table, from_wire = kind
    value = table[name][0]
    wire = settings_to_wire(message, {name: value})
    assert [f.name for f, _ in wire.ListFields()] == [name.removesuffix("_s")]
    assert from_wire(wire) == echo(**{name: value})


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_is_understood_as_typed(kind: Any, name: str) -> None:
    message, _, _, table, _ = kind
    value, typed = table[name]
    for spelling in {name, name.removesuffix("_s")}:
        options = parse_assignments(message, [f"{spelling}={typed}"])
        assert options == {name: value}
    assert parse_assignments(message, [f"{name}={text_of(value)}"]) == {name: value}


def test_what_is_not_given_stays_unset() -> None:
    assert settings_to_wire(types_pb2.SynthesisSettings, {"speed": None}).ListFields() == []
    assert synthesis_settings_from_wire(types_pb2.SynthesisSettings()) == SynthesisSettings()


def test_an_empty_list_of_keywords_clears() -> None:
    wire = settings_to_wire(types_pb2.TranscriptionSettings, {"keywords": []})
    assert wire.HasField("keywords")
    assert not settings_to_wire(types_pb2.TranscriptionSettings, {}).HasField("keywords")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"speed": "fast"}, "speed cannot be 'fast': a number is expected"),
        ({"speed": True}, "speed cannot be True: a number is expected"),
        ({"word_timings": 1}, "word_timings cannot be 1: True or False is expected"),
        ({"enhancement": 1 << 40}, "enhancement cannot be 1099511627776: a 32-bit integer is expected"),
        ({"max_buffer_delay_s": "1"}, "max_buffer_delay_s cannot be '1': a number of seconds is expected"),
        ({"max_buffer_delay_s": math.nan}, "max_buffer_delay_s cannot be nan: a number of seconds"),
        ({"max_buffer_delay_s": math.inf}, "max_buffer_delay_s cannot be inf: a number of seconds"),
        ({"extra": [1]}, r"extra cannot be \[1\]: a JSON object"),
        ({"extra": {"a": object()}}, "extra cannot be .*: a JSON object"),
        ({"voice_id": 7}, "voice_id cannot be 7: a string is expected"),
        ({"voice_id": b"x"}, "voice_id cannot be b'x': a string is expected"),
        ({"content_filter": 1}, "content_filter is one of FLAG, REJECT, OFF"),
        ({"langage": "en"}, "there is no setting 'langage'"),
        ({"sped": 1}, "did you mean speed"),
    ],
)
def test_wrong_types_are_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        settings_to_wire(types_pb2.SynthesisSettings, options)


def test_wrong_words_are_a_sentence() -> None:
    with pytest.raises(ValueError, match="content_filter is one of FLAG, REJECT, OFF, not 'LOUD'"):
        settings_to_wire(types_pb2.SynthesisSettings, {"content_filter": "LOUD"})
    with pytest.raises(TypeError, match=r"keywords cannot be 'a': a list of phrases"):
        settings_to_wire(types_pb2.TranscriptionSettings, {"keywords": "a"})
    with pytest.raises(TypeError, match=r"keywords cannot be \[1\]"):
        settings_to_wire(types_pb2.TranscriptionSettings, {"keywords": [1]})


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("speed", "speed has no value: write speed=1.2"),
        ("fast!", "'fast!' is no setting: write NAME=VALUE"),
        ("speed=fast", "speed cannot be 'fast': a number is expected"),
        ("sped=1", "there is no setting 'sped': did you mean speed"),
        ("enhancement=1.5", "enhancement cannot be '1.5': a 32-bit integer is expected"),
        ("word_timings=maybe", "word_timings cannot be 'maybe': true or false is expected"),
        ("max_buffer_delay=soon", "max_buffer_delay_s cannot be 'soon': a number of seconds is expected"),
        ("max_buffer_delay=1.2.3", "max_buffer_delay_s cannot be"),
        ("extra=[1]", r"extra cannot be '\[1\]': a JSON object"),
        ("extra={", "extra cannot be '{': a JSON object"),
    ],
)
def test_what_is_typed_wrong_is_a_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_assignments(types_pb2.SynthesisSettings, [typed])


def test_nothing_is_given_twice() -> None:
    with pytest.raises(ValueError, match="max_buffer_delay_s is given twice"):
        parse_assignments(types_pb2.SynthesisSettings, ["max_buffer_delay=1", "max_buffer_delay_s=2"])


@pytest.mark.parametrize(
    ("encoding", "sample_rate_hz", "error", "sentence"),
    [
        ("OGG", 0, ValueError, "there is no encoding 'OGG'; there are LINEAR16, "),
        (3, 0, TypeError, "an encoding is one of LINEAR16, "),
        ("WAV", -1, ValueError, "a sample rate of -1 Hz cannot be"),
        ("WAV", 1 << 31, ValueError, "cannot be"),
        ("WAV", 8000.0, TypeError, "a whole number of Hz, not 8000.0"),
        ("WAV", True, TypeError, "a whole number of Hz, not True"),
    ],
)
def test_an_audio_format_checks_itself(
    encoding: Any, sample_rate_hz: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        AudioFormat(encoding, sample_rate_hz)
    assert AudioFormat("mulaw", 8000) == AudioFormat("MULAW", 8000)  # type: ignore[arg-type]


def test_every_setting_says_what_it_is() -> None:
    """In editors, and in the API reference: what the contract says of it."""
    tree = ast.parse(Path(speech_settings.__file__).read_text())
    for definition in [node for node in tree.body if isinstance(node, ast.ClassDef)]:
        body = definition.body[1:]
        assert len(body) >= 2
        for field, docstring in zip(body[::2], body[1::2], strict=True):
            assert isinstance(field, ast.AnnAssign)
            assert isinstance(docstring, ast.Expr)
            assert len(ast.literal_eval(docstring.value)) > 20


def test_a_mask_takes_both_names() -> None:
    mask = reset_mask(types_pb2.SynthesisSettings, ["speed", "max_buffer_delay_s", "completion_backoff"])
    assert mask.paths == ["speed", "max_buffer_delay", "completion_backoff"]
    with pytest.raises(TypeError, match="did you mean speed"):
        reset_mask(types_pb2.SynthesisSettings, ["sped"])


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_durations_survive_to_the_microsecond(microseconds: int) -> None:
    value_s = microseconds / 1e6
    wire = duration(value_s)
    assert wire.seconds * wire.nanos >= 0, "both parts have the same sign"
    assert abs(wire.nanos) < 10**9
    assert math.isclose(seconds(wire), value_s, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("literal", "enum", "prefix"),
    [
        (AudioEncoding, types_pb2.AudioEncoding, "AUDIO_ENCODING_"),
        (settings_module.ContentFilter, types_pb2.ContentFilter, "CONTENT_FILTER_"),
        (settings_module.Numerals, types_pb2.Numerals, "NUMERALS_"),
        (settings_module.ApplyPolicy, types_pb2.ApplyPolicy, "APPLY_POLICY_"),
        (events.ConnectionState, types_pb2.ConnectionEvent.State, "STATE_"),
        (events.ConnectionReason, types_pb2.ConnectionEvent.Reason, "REASON_"),
        (events.EndReason, types_pb2.SessionEnded.Reason, "REASON_"),
        (events.AckState, types_pb2.SettingsAck.State, "STATE_"),
        (events.Mechanism, types_pb2.SettingsAck.Mechanism, "MECHANISM_"),
        (
            events.CompletionSource,
            synthesis_service_pb2.UtteranceCompleted.CompletionSource,
            "COMPLETION_SOURCE_",
        ),
        (events.CancelMethod, synthesis_service_pb2.UtteranceCancelled.Method, "METHOD_"),
        (events.EstimateSource, synthesis_service_pb2.EstimateSource, "ESTIMATE_SOURCE_"),
        (events.FinalTrigger, transcription_service_pb2.Transcript.FinalTrigger, "FINAL_TRIGGER_"),
        (events.SessionState, session_service_pb2.Session.State, "STATE_"),
    ],
)
def test_names_are_the_contracts(literal: Any, enum: Any, prefix: str) -> None:
    contract = {name.removeprefix(prefix) for name in enum.keys()}  # noqa: SIM118
    assert set(get_args(literal)) - {"UNKNOWN", "UNSPECIFIED"} == contract - {"UNSPECIFIED"}


@pytest.mark.parametrize(
    ("response", "convert"),
    [
        (synthesis_service_pb2.SynthesizeStreamResponse, synthesis_event),
        (synthesis_service_pb2.SynthesizeResponse, synthesis_event),
        (transcription_service_pb2.TranscribeStreamResponse, transcription_event),
    ],
)
def test_every_event_of_the_contract_is_known(response: Any, convert: Any) -> None:
    """An event with no field set converts; each of its fields has a place on the Python side."""
    for arm in response.DESCRIPTOR.oneofs_by_name["event"].fields:
        message = response()
        getattr(message, arm.name).SetInParent()
        event = convert(message)
        ours = {f.name.removesuffix("_s") for f in dataclasses.fields(event)}
        contract = {f.name for f in arm.message_type.fields}
        renamed = {"status": "error"}
        assert {renamed.get(name, name) for name in contract} == ours
    assert convert(response()) is None


def test_values_of_a_newer_gateway_are_unknown() -> None:
    message = types_pb2.SettingsAck(update_id="u", state=77)  # type: ignore[arg-type]
    response = synthesis_service_pb2.SynthesizeStreamResponse(settings_ack=message)
    event = synthesis_event(response)
    assert isinstance(event, events.SettingsAck)
    assert event.state == "UNKNOWN"


def test_json_integers_stay_integers() -> None:
    wire = settings_to_wire(types_pb2.SynthesisSettings, {"extra": {"n": 3, "x": 0.5}})
    extra = synthesis_settings_from_wire(wire).extra
    assert extra == {"n": 3, "x": 0.5}
    assert isinstance(extra["n"], int)
