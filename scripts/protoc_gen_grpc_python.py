"""A protoc plugin that writes the gRPC stubs for Python (`*_pb2_grpc.py`).

grpcio-tools has that generator built into its protoc and ships no plugin, and buf calls plugins. So this
one hands the request on: what buf has parsed becomes a descriptor set, the built-in generator reads it, and
what it wrote goes back.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return the stubs of every file to generate that defines a service."""
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with_services = {file.name for file in request.proto_file if file.service}
    wanted = [name for name in request.file_to_generate if name in with_services]
    if not wanted:
        return response
    with tempfile.TemporaryDirectory() as folder:
        descriptors, out = Path(folder, "in.binpb"), Path(folder, "out")
        descriptors.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out.mkdir()
        arguments = ["protoc", f"--descriptor_set_in={descriptors}", f"--grpc_python_out={out}", *wanted]
        if protoc.main(arguments) != 0:
            response.error = "grpc_tools.protoc could not write the gRPC stubs; its messages are above"
            return response
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text(encoding="utf-8"))
    return response


if __name__ == "__main__":
    code_request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(generate(code_request).SerializeToString())
