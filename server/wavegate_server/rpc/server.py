"""The gRPC server: its port, TLS, limits, health and reflection. What is served is handed in."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from wavegate_server.rpc.reflection import serve_reflection
from wavegate_server.rpc.trace import CallInterceptor, require_coroutines

logger = logging.getLogger(__name__)

MAX_STREAMS_PER_CONNECTION: Final = 1024
"""Calls that one client connection may have open; more wait in the client. A bound against floods of resets;
far above what one client needs (two calls a session), since one that waits unseen looks like a hang."""
MAX_METADATA_BYTES: Final = 8192
KEEPALIVE_TIME_MS: Final = 20_000
KEEPALIVE_TIMEOUT_MS: Final = 10_000
"""A client that went away without a word is noticed after half a minute."""
MAX_CONNECTION_AGE_MS: Final = 600_000
"""Then the client is asked to open a new connection for its next calls, so that replicas get their share."""


class BindError(Exception):
    """Raised when the port cannot be had; says why."""


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM texts. `client_ca` given: clients must show a certificate that it signed."""

    certificate_chain: bytes
    private_key: bytes
    client_ca: bytes | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the contract: its name, its servicer, and the generated function that registers it."""

    name: str
    servicer: object
    register: Callable[[Any, Any], None]


def options(max_message_bytes: int) -> list[tuple[str, int]]:
    """The channel arguments of the server."""
    return [
        # Two gateways on one port would share it unseen; the second one shall fail.
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # Newer gRPC waits this long for the answer to a ping, a minute by default, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping as often as they like: by default one that pings a quiet stream each 5 s is cut.
        # (`min_recv_ping_…` is the name that works on servers; `min_ping_…` has no effect here.)
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        # Without a grace, for that one would cut long streams: those end by themselves.
        ("grpc.max_connection_age_ms", MAX_CONNECTION_AGE_MS),
    ]


class GrpcServer:
    """Serves `services` and the standard health and reflection services. Used from one loop."""

    def __init__(
        self,
        services: Sequence[Service],
        interceptor: CallInterceptor,
        *,
        max_message_bytes: int,
        tls: Tls | None = None,
    ) -> None:
        self._interceptor = interceptor
        self._tls = tls
        self._names = [service.name for service in services]
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(interceptors=[interceptor], options=options(max_message_bytes))
        self.port = 0
        """The port that is served; 0 before `start`."""
        for service in services:
            require_coroutines(service.servicer)
            service.register(service.servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        serve_reflection([*self._names, health.SERVICE_NAME], self._server)

    def __repr__(self) -> str:
        return f"<GrpcServer :{self.port} {len(self._names)} services>"

    async def start(self, host: str, port: int) -> int:
        """Bind and serve; the port, which the system picks where `port` is 0. Raises `BindError`.

        Health says NOT_SERVING until `set_serving`.
        """
        await self.set_serving(False)
        address = _joined(host, port)
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _credentials(self._tls))
        except RuntimeError as exc:
            # grpc only says that it failed; the system says why.
            check_port(host, port)
            raise BindError(f"cannot listen on {address}: {exc}") from exc
        await self._server.start()
        return self.port

    async def set_serving(self, serving: bool) -> None:
        """What the health service says: of each service, and of the gateway as a whole."""
        state = health_pb2.HealthCheckResponse
        for name in ("", *self._names):
            await self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, let live ones run for at most `grace_s` seconds, then cancel them."""
        self._interceptor.stopping = True
        # With no grace at all grpc returns before its handlers have seen their cancellation.
        await self._server.stop(max(grace_s, 0.05))


def _credentials(tls: Tls) -> Any:
    return grpc.ssl_server_credentials(
        [(tls.private_key, tls.certificate_chain)],
        root_certificates=tls.client_ca,
        require_client_auth=tls.client_ca is not None,
    )


def check_port(host: str, port: int) -> None:
    """See whether the port can be had, without keeping it. Raises `BindError` with the system's own reason."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as exc:
        raise BindError(
            f"cannot listen on {_joined(host, port)}: {(exc.strerror or str(exc)).lower()}"
        ) from exc


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
