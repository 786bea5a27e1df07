"""A gateway in this process, in front of a local upstream, with stubs to call it: what the users have."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import grpc.aio
import waves_local
from wavegate.speech import v1
from wavegate.speech.v1 import (
    session_service_pb2_grpc,
    synthesis_service_pb2_grpc,
    transcription_service_pb2_grpc,
)
from wavegate_server.network import Proxies
from wavegate_server.rpc.auth import Authenticator
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.server import GrpcServer, Service
from wavegate_server.rpc.session import SessionServicer
from wavegate_server.rpc.synthesis import SynthesisServicer
from wavegate_server.rpc.trace import CallInterceptor
from wavegate_server.rpc.transcription import TranscriptionServicer
from wavegate_server.session.account import Account
from wavegate_server.session.catalogue import Catalogue
from wavegate_server.session.context import Bounds, UpstreamTarget
from wavegate_server.session.http import UpstreamHttp
from wavegate_server.session.pool import Upstreams
from wavegate_server.session.registry import Registry
from wavegate_server.session.transport import DialOptions, WebSocketDialer
from wavegate_server.telemetry import NullTelemetry
from wavegate_server.waves.tts import Mode

VOICE = "magnus"
SMALL_WINDOWS = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
"""What a client that wants to hear a barge-in at once sets."""


@dataclass
class RunningGateway:
    """A gateway that serves, its upstream, and a channel to it."""

    gateway: Gateway
    port: int
    upstream: waves_local.Upstream | None
    channel: grpc.aio.Channel

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def synthesis(self) -> Any:
        return synthesis_service_pb2_grpc.SynthesisServiceStub(self.channel)

    @property
    def transcription(self) -> Any:
        return transcription_service_pb2_grpc.TranscriptionServiceStub(self.channel)

    @property
    def sessions(self) -> Any:
        return session_service_pb2_grpc.SessionServiceStub(self.channel)


@contextlib.asynccontextmanager
async def running_gateway(
    options: waves_local.Options | None = None,
    *,
    mode: Mode = Mode.CONTINUATIONS,
    bounds: Bounds | None = None,
    upstream_url: str | None = None,
    key: str = "test-key",
    upstreams: Callable[[UpstreamTarget], Upstreams] = Upstreams,
    max_sessions: int = 0,
    max_sessions_per_caller: int = 0,
    start_timeout_s: float = 10.0,
    engine: waves_local.Engine | None = None,
    account: Account | None = None,
    proxies: Proxies | None = None,
    upstream_tls: ssl.SSLContext | None = None,
    **changes: Any,
) -> AsyncGenerator[RunningGateway, None]:
    """Run a gateway; `changes` replace fields of `Gateway`.

    `upstream_url` replaces the local upstream, to which `proxies` lead and whose authority `upstream_tls` trusts;
    `upstreams` makes the pool of accounts.
    """
    async with contextlib.AsyncExitStack() as stack:
        upstream = None
        if upstream_url is None:
            engine = engine or waves_local.deterministic_engine()
            upstream = await stack.enter_async_context(
                waves_local.serve(engine=engine, options=options or waves_local.Options())
            )
            upstream_url = upstream.url
        target = UpstreamTarget(upstream_url, key, tts_mode=mode, account=account or Account())
        pool = upstreams(target)
        stack.push_async_callback(pool.aclose)
        gateway = Gateway(
            registry=Registry(max_sessions, max_sessions_per_caller),
            upstreams=pool,
            dialer=WebSocketDialer(DialOptions(proxies=proxies or Proxies(), ssl=upstream_tls)),
            telemetry=NullTelemetry(),
            bounds=bounds or Bounds(),
            synthesis_defaults={"voice_id": VOICE, "model": "lightning_v3.1"},
            transcription_defaults={"model": "pulse", "language_code": "en"},
            start_timeout_s=start_timeout_s,
            auth=Authenticator(),
        )
        gateway = replace(gateway, **changes)
        http = UpstreamHttp(pool, proxies=proxies, tls=upstream_tls)
        stack.push_async_callback(http.aclose)
        server = GrpcServer(
            [
                Service(
                    "wavegate.speech.v1.SynthesisService",
                    SynthesisServicer(gateway, http, Catalogue(http)),
                    synthesis_service_pb2_grpc.add_SynthesisServiceServicer_to_server,
                ),
                Service(
                    "wavegate.speech.v1.TranscriptionService",
                    TranscriptionServicer(gateway, http),
                    transcription_service_pb2_grpc.add_TranscriptionServiceServicer_to_server,
                ),
                Service(
                    "wavegate.speech.v1.SessionService",
                    SessionServicer(gateway),
                    session_service_pb2_grpc.add_SessionServiceServicer_to_server,
                ),
            ],
            CallInterceptor(gateway.telemetry, gateway.auth, gateway.max_stream_message_bytes),
            max_message_bytes=33 * 2**20,
        )
        port = await server.start("127.0.0.1", 0)
        await server.set_serving(True)
        stack.push_async_callback(server.stop, 0.0)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=SMALL_WINDOWS)
        stack.push_async_callback(channel.close)
        yield RunningGateway(gateway, port, upstream, channel)


def start(**settings: Any) -> v1.SynthesizeStreamRequest:
    """A `start` of a synthesis stream with these settings."""
    return v1.SynthesizeStreamRequest(
        start=v1.StartSynthesis(settings=v1.SynthesisSettings(**settings)),
    )


def text(words: str, utterance_id: str = "", end: bool = False) -> v1.SynthesizeStreamRequest:
    return v1.SynthesizeStreamRequest(
        text=v1.TextInput(text=words, utterance_id=utterance_id, end_utterance=end)
    )


END = v1.SynthesizeStreamRequest(end_session=v1.EndSession())


async def collect(call: Any, requests: Iterable[Any]) -> list[Any]:
    """Write all requests, half-close, and read every response. Raises `grpc.aio.AioRpcError` at the end."""
    for request in requests:
        await call.write(request)
    await call.done_writing()
    return [r async for r in responses(call)]


async def responses(call: Any) -> AsyncIterator[Any]:
    """Responses until the stream ends; a failed call ends it too (its status is the call's)."""
    while True:
        response = await call.read()
        if response is grpc.aio.EOF:
            return
        yield response


def of(kind: str, found: Iterable[Any]) -> list[Any]:
    """The events of one kind."""
    return [getattr(r, kind) for r in found if r.WhichOneof("event") == kind]


def audio_of(found: Iterable[Any], utterance_id: str | None = None) -> bytes:
    """The audio of an utterance, or of all."""
    return b"".join(c.audio for c in of("audio", found) if utterance_id in (None, c.utterance_id))
