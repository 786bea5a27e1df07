"""Server reflection, in both of its versions.

The library serves `grpc.reflection.v1alpha` only. Newer clients ask for `grpc.reflection.v1` first, and some for
nothing else. The messages of the two are the same on the wire and differ in their package alone, so the library's
servicer answers for both; the descriptors of the newer one are made from those of the older.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

V1ALPHA = reflection.SERVICE_NAME
V1 = V1ALPHA.replace(".v1alpha.", ".v1.")


def serve_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Let `server` tell of the services `names`, and of reflection itself."""
    servicer = reflection.aio.ReflectionServicer([*names, V1, V1ALPHA], pool=_Pool())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": handler}),)
    )


class _Pool:
    """The descriptors of the process and those of reflection v1. Finds the members of services, messages and enums by
    name as well, which the library's pool does not: ghz asks for the method that it is to call."""

    def __init__(self) -> None:
        self._pools = (descriptor_pool.Default(), _v1_pool())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pools[0], name)

    def FindFileByName(self, name: str) -> Any:  # noqa: N802
        """Raises KeyError."""
        return self._first("FindFileByName", name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802
        """Raises KeyError."""
        try:
            return self._first("FindFileContainingSymbol", symbol)
        except KeyError:
            owner, _, member = symbol.rpartition(".")
            if not owner or not self._has(owner, member):
                raise
            return self._first("FindFileContainingSymbol", owner)

    def _first(self, method: str, name: str) -> Any:
        default, newer = self._pools
        try:
            return getattr(default, method)(name)
        except KeyError:
            return getattr(newer, method)(name)

    def _has(self, owner: str, member: str) -> bool:
        for method, members in (
            ("FindServiceByName", ("methods_by_name",)),
            ("FindMessageTypeByName", ("fields_by_name", "oneofs_by_name")),
            ("FindEnumTypeByName", ("values_by_name",)),
        ):
            try:
                descriptor = self._first(method, owner)
            except KeyError:
                continue
            return any(member in getattr(descriptor, each) for each in members)
        return False


def _v1_pool() -> descriptor_pool.DescriptorPool:
    """Reflection v1, in a pool of its own: another library of this process may bring the same file."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = V1.rpartition(".")[0]
    file.ClearField("options")
    old, new = f".{reflection_pb2.DESCRIPTOR.package}.", f".{file.package}."
    for field in (f for message in file.message_type for f in message.field if f.type_name):
        field.type_name = field.type_name.replace(old, new)
    for method in (m for service in file.service for m in service.method):
        method.input_type = method.input_type.replace(old, new)
        method.output_type = method.output_type.replace(old, new)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
