"""`wavegate-server healthcheck`: ask a running gateway whether it serves."""

from __future__ import annotations

import os
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from wavegate_server.config import Address

_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where gRPC looks for a proxy, the first that is set wins."""


def check(target: Address, ca: bytes | None, server_name: str, timeout_s: float) -> str:
    """`SERVING`, `NOT_SERVING`, or a sentence that says why there was no answer.

    `ca` (PEM) given: over TLS; `server_name` is the name to expect in the certificate, if not the target's.
    """
    address = str(target)
    # The environment's proxies do not lead back to this machine.
    options: list[tuple[str, int | str]] = [("grpc.enable_http_proxy", 0)] if target.is_loopback else []
    if ca is None:
        channel = grpc.insecure_channel(address, options)
    else:
        if server_name:
            options.append(("grpc.ssl_target_name_override", server_name))
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout_s
            )
        except grpc.RpcError as exc:
            proxy = next((name for name in _PROXY_VARIABLES if os.environ.get(name)), "")
            through = f" through the proxy of {proxy}" if proxy and not target.is_loopback else ""
            return f"no answer from {address}{through}: {exc.code().name}"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
