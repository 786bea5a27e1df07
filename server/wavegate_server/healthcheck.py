"""`wavegate-server healthcheck`: ask a running gateway whether it serves."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wavegate_server.config import Address


def check(target: Address, ca: bytes | None, server_name: str, timeout_s: float) -> str:
    """`SERVING`, `NOT_SERVING`, or a sentence that says why there was no answer.

    `ca` (PEM) given: over TLS; `server_name` is the name to expect in the certificate, if not the target's.
    """
    address = str(target)
    if ca is None:
        channel = grpc.insecure_channel(address)
    else:
        override = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), override)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as exc:
            return f"no answer from {address}: {exc.code().name}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
