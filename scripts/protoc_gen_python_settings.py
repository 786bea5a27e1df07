"""A protoc plugin that writes the settings of the Python client: their names, types and docstrings.

For each of `SynthesisSettings` and `TranscriptionSettings` there is a class of keyword arguments (`...Options`) and
one of values in force, with the contract's comment on each field.
"""

import sys
import textwrap

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

FILE = "wavegate/speech/v1/types.proto"
OUT = "wavegate/speech/v1/settings.py"
WIDTH = 110
DURATION = ".google.protobuf.Duration"
SCALARS = {
    FieldDescriptorProto.TYPE_STRING: "str",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_INT32: "int",
    FieldDescriptorProto.TYPE_DOUBLE: "float",
}
MESSAGES = {
    DURATION: "float",
    ".google.protobuf.Struct": "Mapping[str, JsonValue]",
    ".wavegate.speech.v1.KeywordList": "Sequence[Keyword]",
}
GIVEN = {"Sequence[Keyword]": "Sequence[str | Keyword]"}
"""Where a caller may give more than what is in force."""
KINDS = (
    ("SynthesisSettings", "SynthesisOptions", "speech synthesis"),
    ("TranscriptionSettings", "TranscriptionOptions", "transcription"),
)
HEAD = '''\
# Generated from the .proto files by scripts/protoc_gen_python_settings.py. DO NOT EDIT!
"""Settings, with what the contract says of each. Times are seconds (`..._s`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from wavegate.values import ContentFilter, JsonValue, Keyword, Numerals
'''


def type_of(field: FieldDescriptorProto) -> str:
    """Return the Python type of a field. Raises `KeyError` for one that this script does not know."""
    if field.type == FieldDescriptorProto.TYPE_MESSAGE:
        return MESSAGES[field.type_name]
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        return field.type_name.rpartition(".")[2]
    return SCALARS[field.type]


def name_of(field: FieldDescriptorProto) -> str:
    """Return the Python name of a field: the contract's, with the unit where it is a time."""
    return f"{field.name}_s" if field.type_name == DURATION else field.name


def docstring(comment: str) -> list[str]:
    """Return a comment as the lines of an attribute's docstring, indented."""
    paragraphs = [" ".join(p.split()) for p in comment.strip().split("\n\n")]
    text = "\n\n".join(textwrap.fill(p, WIDTH - 4) for p in paragraphs)
    if "\n" not in text and len(text) + 10 <= WIDTH:
        return [f'    """{text}"""']
    first, *rest = textwrap.fill(paragraphs[0], WIDTH - 4, initial_indent=" " * 3).strip().split("\n")
    lines = [f'    """{first}', *(f"    {line}" for line in rest)]
    for paragraph in paragraphs[1:]:
        lines += ["", *(f"    {line}" for line in textwrap.wrap(paragraph, WIDTH - 4))]
    return [*lines, '    """']


def classes(message: DescriptorProto, comments: dict[str, str], options: str, about: str) -> list[str]:
    """Return the lines of both classes of a message's settings."""
    lines = ["", "", f"class {options}(TypedDict, total=False):"]
    lines += [f'    """Settings of {about}, as keyword arguments."""', ""]
    for field in message.field:
        kind = type_of(field)
        lines += [f"    {name_of(field)}: {GIVEN.get(kind, kind)}", *docstring(comments[field.name])]
    lines += ["", "", "@dataclass(frozen=True, slots=True)", f"class {message.name}:"]
    lines += [f'    """Settings in force for {about}; `None` where the upstream\'s own default holds."""', ""]
    for field in message.field:
        lines += [f"    {name_of(field)}: {type_of(field)} | None = None", *docstring(comments[field.name])]
    return lines


def module(file: FileDescriptorProto) -> str:
    """Return the source of the module."""
    comments: dict[tuple[int, ...], str] = {
        tuple(location.path): location.leading_comments for location in file.source_code_info.location
    }
    source = HEAD.splitlines()
    for index, message in enumerate(file.message_type):
        for name, options, about in KINDS:
            if message.name == name:
                of_fields = {f.name: comments[4, index, 2, at] for at, f in enumerate(message.field)}
                source += classes(message, of_fields, options, about)
    names = sorted(name for kind in KINDS for name in kind[:2])
    source += ["", "", "__all__ = [", *(f'    "{name}",' for name in names), "]", ""]
    return "\n".join(source)


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return the module, where its file is asked for."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    for file in request.proto_file:
        if file.name == FILE and file.name in request.file_to_generate:
            response.file.add(name=OUT, content=module(file))
    return response


if __name__ == "__main__":
    code_request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(code_request).SerializeToString())
