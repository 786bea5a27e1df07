"""A gRPC server with a session service that does what a test says, and telemetry that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from wavegate.speech.v1 import session_service_pb2 as pb
from wavegate.speech.v1 import session_service_pb2_grpc as pb_grpc
from wavegate_server.rpc.auth import Authenticator
from wavegate_server.rpc.server import GrpcServer, Service, Tls
from wavegate_server.rpc.trace import CallInterceptor
from wavegate_server.telemetry import Attribute, NullTelemetry, Span

SESSION_SERVICE = "wavegate.speech.v1.SessionService"
MAX_STREAM_MESSAGE_BYTES = 4096
MAX_MESSAGE_BYTES = 64 * 1024

Unary = Callable[[Any, Any], Awaitable[Any]]


class RecordedSpan:
    """A span that a test can read."""

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    span_id = "b7ad6b7169203331"

    def __init__(self, name: str) -> None:
        self.name = name
        self.attributes: dict[str, Attribute] = {}
        self.error_type = ""
        self.ended = 0
        self.done = asyncio.Event()

    def set(self, attributes: Mapping[str, Attribute]) -> None:
        self.attributes.update(attributes)

    def event(self, name: str, attributes: Mapping[str, Attribute] | None = None) -> None:
        raise AssertionError("no events are expected")

    def fail(self, error_type: str, description: str = "") -> None:
        self.error_type = error_type

    def end(self) -> None:
        self.ended += 1
        self.done.set()


class RecordingTelemetry(NullTelemetry):
    """Remembers the SERVER spans."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []

    def server_span(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> Span:
        self.spans.append(RecordedSpan(method))
        return self.spans[-1]


class ScriptedServicer(pb_grpc.SessionServiceServicer):
    """Each method does what the test gave it."""

    def __init__(self, get: Unary | None, update: Unary | None) -> None:
        self._get = get
        self._update = update

    async def GetSession(self, request: Any, context: Any) -> Any:
        assert self._get is not None
        return await self._get(request, context)

    async def UpdateSettings(self, request_iterator: Any, context: Any) -> None:
        assert self._update is not None
        await self._update(request_iterator, context)

    async def ListSessions(self, request: Any, context: Any) -> Any:
        return pb.ListSessionsResponse()

    async def CloseSession(self, request: Any, context: Any) -> Any:
        return pb.CloseSessionResponse()

    async def GetTrace(self, request: Any, context: Any) -> None:
        await context.write(pb.GetTraceResponse())


@dataclass(frozen=True)
class Served:
    """What a test needs of a running server."""

    server: GrpcServer
    interceptor: CallInterceptor
    telemetry: RecordingTelemetry = field(default_factory=RecordingTelemetry)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def span(self) -> RecordedSpan:
        (span,) = self.telemetry.spans
        return span


@asynccontextmanager
async def serving(
    *,
    get: Unary | None = None,
    update: Unary | None = None,
    auth: Authenticator | None = None,
    more: Sequence[Service] = (),
    tls: Tls | None = None,
) -> AsyncIterator[Served]:
    """Serve on a port of its own until the block is left."""
    telemetry = RecordingTelemetry()
    interceptor = CallInterceptor(telemetry, auth or Authenticator(), MAX_STREAM_MESSAGE_BYTES)
    service = Service(
        SESSION_SERVICE, ScriptedServicer(get, update), pb_grpc.add_SessionServiceServicer_to_server
    )
    server = GrpcServer([service, *more], interceptor, max_message_bytes=MAX_MESSAGE_BYTES, tls=tls)
    await server.start("127.0.0.1", 0)
    await server.set_serving(True)
    try:
        yield Served(server, interceptor, telemetry)
    finally:
        await server.stop(0)
