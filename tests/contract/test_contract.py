"""What the contract promises beyond names and numbers, read from the generated code's own descriptors."""

import json
from collections.abc import Iterator

import pytest
from google.protobuf import any_pb2, json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from wavegate.speech import v1
from wavegate.speech.v1 import (
    session_service_pb2,
    session_service_pb2_grpc,
    synthesis_service_pb2,
    synthesis_service_pb2_grpc,
    transcription_service_pb2,
    transcription_service_pb2_grpc,
    types_pb2,
)

MODULES = (types_pb2, synthesis_service_pb2, transcription_service_pb2, session_service_pb2)
FILES: tuple[FileDescriptor, ...] = tuple(module.DESCRIPTOR for module in MODULES)
STUBS = (synthesis_service_pb2_grpc, transcription_service_pb2_grpc, session_service_pb2_grpc)


def messages() -> Iterator[Descriptor]:
    """Every message of the contract, nested ones included, map entries left out."""
    pending = [message for file in FILES for message in file.message_types_by_name.values()]
    while pending:
        message = pending.pop()
        if not message.GetOptions().map_entry:
            yield message
            pending.extend(message.nested_types)


def enums() -> Iterator[EnumDescriptor]:
    """Every enum of the contract, nested ones included."""
    for file in FILES:
        yield from file.enum_types_by_name.values()
    for message in messages():
        yield from message.enum_types


def fields() -> Iterator[FieldDescriptor]:
    """Every field of the contract."""
    for message in messages():
        yield from message.fields


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_the_package_offers_everything_that_a_file_defines(module: object) -> None:
    file: FileDescriptor = module.DESCRIPTOR  # type: ignore[attr-defined]
    names = [*file.message_types_by_name, *file.enum_types_by_name]
    names += [value.name for enum in file.enum_types_by_name.values() for value in enum.values]
    assert names
    for name in names:
        assert getattr(v1, name) == getattr(module, name)
        assert name in v1.__all__


def test_the_package_offers_nothing_else() -> None:
    defined = {name for file in FILES for name in (*file.message_types_by_name, *file.enum_types_by_name)}
    defined |= {v.name for file in FILES for e in file.enum_types_by_name.values() for v in e.values}
    assert set(v1.__all__) == defined
    assert len(v1.__all__) == len(defined)


@pytest.mark.parametrize("enum", list(enums()), ids=lambda enum: enum.full_name)
def test_absent_and_unspecified_are_the_same_for_every_enum(enum: EnumDescriptor) -> None:
    assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("settings", [v1.SynthesisSettings, v1.TranscriptionSettings])
def test_every_setting_has_presence_so_that_absent_means_unchanged(settings: type) -> None:
    for field in settings.DESCRIPTOR.fields:  # type: ignore[attr-defined]
        assert field.has_presence, f"{field.full_name} cannot be told from its zero"


def test_a_setting_set_to_its_zero_survives_the_wire() -> None:
    sent = v1.SynthesisSettings(speed=0.0, word_timings=False, voice_id="", enhancement=0)
    received = v1.SynthesisSettings.FromString(sent.SerializeToString())
    for name in ("speed", "word_timings", "voice_id", "enhancement"):
        assert received.HasField(name)
    assert not received.HasField("model")


def test_no_keywords_differs_from_unchanged_keywords() -> None:
    cleared = v1.TranscriptionSettings(keywords=v1.KeywordList())
    received = v1.TranscriptionSettings.FromString(cleared.SerializeToString())
    assert received.HasField("keywords")
    assert not v1.TranscriptionSettings().HasField("keywords")


def test_lengths_of_time_are_durations() -> None:
    lengths = [field for field in fields() if field.name.endswith(("_duration", "_offset", "_timeout"))]
    assert len(lengths) > 20
    for field in lengths:
        assert field.message_type is not None, field.full_name
        assert field.message_type.full_name == "google.protobuf.Duration", field.full_name


def test_a_status_parses_as_google_rpc_status_and_back() -> None:
    info = error_details_pb2.ErrorInfo(reason="FIELD_INVALID", domain="wavegate.speech")
    detail = any_pb2.Any()
    detail.Pack(info)
    ours = v1.Status(code=3, message="start.settings.speed: 3.0 is above 2.0", details=[detail])

    theirs = status_pb2.Status.FromString(ours.SerializeToString())

    assert (theirs.code, theirs.message) == (ours.code, ours.message)
    unpacked = error_details_pb2.ErrorInfo()
    assert theirs.details[0].Unpack(unpacked)
    assert unpacked == info
    assert v1.Status.FromString(theirs.SerializeToString()) == ours


def test_a_request_reads_as_a_person_would_write_it() -> None:
    text = '{"start": {"settings": {"voiceId": "meher", "maxBufferDelay": "0.250s", "extra": {"n": 3}}}}'
    request = json_format.Parse(text, v1.SynthesizeStreamRequest())
    assert request.start.settings.max_buffer_delay.ToMilliseconds() == 250
    assert json.loads(json_format.MessageToJson(request)) == json.loads(text)


SHAPES = {
    # method: (the client streams, the gateway streams)
    "SynthesisService.SynthesizeStream": (True, True),
    "SynthesisService.Synthesize": (False, True),
    "SynthesisService.ListVoices": (False, False),
    "TranscriptionService.TranscribeStream": (True, True),
    "TranscriptionService.Recognize": (False, False),
    "SessionService.UpdateSettings": (True, True),
    "SessionService.GetSession": (False, False),
    "SessionService.ListSessions": (False, False),
    "SessionService.CloseSession": (False, False),
    "SessionService.GetTrace": (False, True),
}


def test_the_services_have_these_methods_of_these_shapes() -> None:
    found = {
        f"{service.name}.{method.name}": (method.client_streaming, method.server_streaming)
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert found == SHAPES


def test_every_method_has_a_stub_and_a_servicer() -> None:
    offered = {name: getattr(module, name) for module in STUBS for name in dir(module)}
    for path in SHAPES:
        service, method = path.split(".")
        assert callable(getattr(offered[f"{service}Servicer"], method))
        assert f"{service}Stub" in offered
        assert f"add_{service}Servicer_to_server" in offered
