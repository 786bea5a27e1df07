"""A protoc plugin that writes one `__init__.py` per protobuf package.

It offers every top-level message, enum and enum value of the package by name, so that a user writes
`from wavegate.speech import v1` and then `v1.TextInput`, whichever file defines it.
"""

import sys
from pathlib import PurePosixPath

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto


def exported_names(file: FileDescriptorProto) -> list[str]:
    """Return what the generated module of `file` defines at its top level, sorted."""
    names = [message.name for message in file.message_type]
    for enum in file.enum_type:
        names += [enum.name, *(value.name for value in enum.value)]
    return sorted(names)


def package_module(files: list[FileDescriptorProto]) -> str:
    """Return the source of the `__init__.py` of the package that `files` make up."""
    lines = [
        "# Generated from the .proto files by scripts/protoc_gen_python_package.py. DO NOT EDIT!",
        f'"""Every message and enum of `{files[0].package}`."""',
        "",
    ]
    everything: list[str] = []
    for file in files:
        module = PurePosixPath(file.name).with_suffix("").as_posix().replace("/", ".") + "_pb2"
        names = exported_names(file)
        everything += names
        lines += [f"from {module} import (", *(f"    {name}," for name in names), ")"]
    lines += ["", "__all__ = [", *(f'    "{name}",' for name in sorted(everything)), "]", ""]
    return "\n".join(lines)


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return one `__init__.py` for each folder that has files to generate."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    wanted = set(request.file_to_generate)
    folders: dict[PurePosixPath, list[FileDescriptorProto]] = {}
    for file in sorted(request.proto_file, key=lambda file: file.name):
        if file.name in wanted:
            folders.setdefault(PurePosixPath(file.name).parent, []).append(file)
    for folder, files in folders.items():
        response.file.add(name=str(folder / "__init__.py"), content=package_module(files))
    return response


if __name__ == "__main__":
    code_request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(code_request).SerializeToString())
