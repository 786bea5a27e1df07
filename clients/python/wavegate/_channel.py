"""The connection to the gateway, and types for what grpcio leaves untyped."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from copy import copy
from importlib import import_module
from typing import Any, Protocol, TypeVar

import grpc
from grpc import aio

from wavegate._process import check_process, is_forked, note_use
from wavegate._target import check_target, is_loopback, proxy_to
from wavegate.errors import WavegateError, error_from_rpc
from wavegate.speech.v1 import (
    session_service_pb2_grpc,
    synthesis_service_pb2_grpc,
    transcription_service_pb2_grpc,
)

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)
ResponseT = TypeVar("ResponseT")

Metadata = tuple[tuple[str, str], ...]

ROUTE_KEY = "wavegate-route"
"""What a balancer puts into the initial metadata, and what leads a later call to the same gateway."""

_MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""The gateway's own limit for a whole recording in one request."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Small receive windows: audio waits in the gateway, where a cancel can drop it, and not for over a minute of
    # playing time in this process's transport. Without the probe the window stays as small as it is set.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 64 * 1024),
    # A peer that vanished is noticed within half a minute, also in a long silence. The gateway allows a ping
    # every 5 s; a ping needs no data between it and the one before.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Newer gRPC waits this long for the answer to a ping, a minute by default, whatever the line above says.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A lost connection is made again as soon as a session wants to be resumed over it, not seconds later.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # Each client its own connection, so that clients of one process spread over the workers behind an address.
    ("grpc.use_local_subchannel_pool", 1),
)


class StreamCall(Protocol[RequestT_contra, ResponseT_co]):
    """A bidirectional call: written with `write`, read by iterating.

    grpcio keeps a style for each direction. Reading by iteration matters: `read()` gives up what has arrived
    but was not read yet as soon as a write has failed, iteration does not.
    """

    async def initial_metadata(self) -> Any:
        """What the server sent before its first response; empty where the call failed before."""

    async def write(self, request: RequestT_contra) -> None:
        """Sends one message. Cancelling it cancels the call."""

    async def done_writing(self) -> None:
        """Half-closes the call."""

    def cancel(self) -> bool:
        """Ends the call at once."""

    def __aiter__(self) -> AsyncIterator[ResponseT_co]:
        """The responses; raises `grpc.aio.AioRpcError` at the end of a call that failed."""


class ResponseStream(Protocol[ResponseT_co]):
    """The answers to one request."""

    def cancel(self) -> bool:
        """Ends the call at once."""

    def __aiter__(self) -> AsyncIterator[ResponseT_co]:
        """The responses."""


def check_token(token: str) -> str:
    """Return the token as given if it can go in a header; raises `ValueError`, which does not repeat it, otherwise."""
    if "\n" in token or "\r" in token:
        raise ValueError("the token holds a line break")
    for at, character in enumerate(token):
        if not " " <= character <= "~":
            raise ValueError(f"the token holds a character that is not printable ASCII (at character {at})")
    return token


class Channel:
    """The gRPC channel to one target, with what every call of it carries."""

    def __init__(
        self,
        target: str,
        *,
        tls: bool,
        root_certificates: bytes | None,
        client_certificate: tuple[bytes, bytes] | None,
        token: str | None,
        metadata: Sequence[tuple[str, str]],
        options: Sequence[tuple[str, str | int]],
    ) -> None:
        """Opens nothing yet. Raises `ValueError` for a target that is written wrong or a token that no header takes."""
        if root_certificates is not None and b"-----BEGIN " not in root_certificates:
            # Nothing would be trusted by it, and nothing is sent in the clear because of it.
            raise ValueError("root_certificates holds no certificate (PEM)")
        self._tls = bool(tls or root_certificates or client_certificate)
        self.target = check_target(target, tls=self._tls)
        self.lines = 0
        """How many calls are open on it."""
        # A proxy of the environment does not lead back to this machine.
        direct = (("grpc.enable_http_proxy", 0),) if is_loopback(target) else ()
        self._options: dict[str, str | int] = dict([*_OPTIONS, *direct, *options])
        self._root_certificates = root_certificates
        self._client_certificate = client_certificate
        self._metadata: Metadata = (
            *metadata,
            *((("authorization", f"Bearer {check_token(token)}"),) if token else ()),
        )
        self._forget()

    def _forget(self) -> None:
        """Let go of the connection; the next call makes another."""
        self.lines = 0
        self._made: Any = None
        self._stubs: dict[Callable[[Any], Any], Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def max_send_bytes(self) -> int | None:
        """How large a message may be that goes out here; `None` where the caller has lifted the limit."""
        limit_bytes = int(dict(self._options)["grpc.max_send_message_length"])
        return None if limit_bytes < 0 else limit_bytes

    def fresh(self) -> Channel:
        """The same with a connection of its own, which may lead to another process behind the same address."""
        other = copy(self)
        other._forget()
        return other

    # Made with the first call, since grpc.aio ties a channel to the event loop in which it is made. The generated
    # stubs carry no types; the classes that use them say what each call takes and gives.

    def _stub(self, make: Callable[[Any], Any]) -> Any:
        """The calls of a service in the running event loop.

        Where the loop of the connection was closed, as by a second `asyncio.run`, another connection is made. Raises
        `RuntimeError` where that loop may still run, and in a process that was forked after gRPC was used.
        """
        check_process()
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            if not self._loop.is_closed():
                raise RuntimeError(
                    f"the client of {self.target} belongs to another event loop, which is not closed: make a client "
                    "for each loop, or use wavegate.sync"
                )
            self._forget()
        if self._made is None:
            note_use()
            self._made = self._open()
            self._loop = loop
        if make not in self._stubs:
            self._stubs[make] = make(self._made)
        return self._stubs[make]

    def _open(self) -> Any:
        options = [*self._options.items()]
        if not self._tls:
            return aio.insecure_channel(self.target, options=options)
        key, chain = self._client_certificate or (None, None)
        credentials = grpc.ssl_channel_credentials(self._root_certificates, key, chain)
        return aio.secure_channel(self.target, credentials, options=options)

    @property
    def synthesis(self) -> Any:
        """The calls of `SynthesisService`."""
        return self._stub(synthesis_service_pb2_grpc.SynthesisServiceStub)

    @property
    def transcription(self) -> Any:
        """The calls of `TranscriptionService`."""
        return self._stub(transcription_service_pb2_grpc.TranscriptionServiceStub)

    @property
    def sessions(self) -> Any:
        """The calls of `SessionService`."""
        return self._stub(session_service_pb2_grpc.SessionServiceStub)

    def metadata(self, route: str = "") -> Metadata:
        """What goes with every call: the caller's own, the token, the current trace context, and `route` if any."""
        return (*self._metadata, *_trace_context(), *(((ROUTE_KEY, route),) if route else ()))

    async def close(self) -> None:
        """Ends every call of this channel and closes it. Another call connects again."""
        made, loop = self._made, self._loop
        if made is None:
            return
        self._forget()
        # The loop of another one is closed and took it along, or it is the parent's of this process.
        if not is_forked() and loop is asyncio.get_running_loop():
            await made.close()

    def error(self, rpc_error: aio.AioRpcError, *, answered: bool) -> WavegateError:
        """The exception for how gRPC ended a call of this channel."""
        return error_from_rpc(
            rpc_error.code().name,
            rpc_error.details() or "",
            rpc_error.trailing_metadata() or (),
            target=self.target,
            answered=answered,
            proxy=proxy_to(self.target, self._options),
            tls=self._tls,
        )

    async def unary(
        self,
        method: Callable[..., Awaitable[ResponseT]],
        request: object,
        timeout_s: float | None,
        *,
        route: str = "",
    ) -> ResponseT:
        """One request, one answer; raises `WavegateError`."""
        with self.in_use():
            try:
                return await method(request, timeout=timeout_s, metadata=self.metadata(route))
            except aio.AioRpcError as exc:
                raise self.error(exc, answered=False) from exc

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """A call that is no `Line`, while which the connection is not closed for want of use."""
        self.lines += 1
        try:
            yield
        finally:
            self.lines -= 1


class Channels:
    """The channels of a client: one a target, the one in use first."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._channels = [*channels]
        self._replaced: list[Channel] = []

    @property
    def current(self) -> Channel:
        """Where new calls go."""
        return self._channels[0]

    def candidates(self) -> list[Channel]:
        """Where a session may be opened, in the order of preference."""
        return [*self._channels]

    def prefer(self, channel: Channel) -> None:
        """This one works: what comes next goes there first."""
        if channel in self._channels:
            at = self._channels.index(channel)
            self._channels = [*self._channels[at:], *self._channels[:at]]

    async def leave(self, channel: Channel) -> Channel | None:
        """The gateway there shuts down: the other targets come first, and a fresh connection to this one last.

        The old connection stays as long as calls use it. Gives the fresh one; `None` where it was left before.
        """
        fresh = None
        if channel in self._channels:
            fresh = channel.fresh()
            self._channels.remove(channel)
            self._channels.append(fresh)
            self._replaced.append(channel)
        for unused in [c for c in self._replaced if not c.lines]:
            self._replaced.remove(unused)
            await unused.close()
        return fresh

    async def close(self) -> None:
        """Ends every call and closes every connection."""
        for channel in (*self._channels, *self._replaced):
            await channel.close()


def _trace_context() -> Metadata:
    """The W3C trace context of the caller's current span, where the program uses OpenTelemetry."""
    if "opentelemetry.trace" not in sys.modules:
        return ()  # nobody can have opened a span, and importing it costs a command line its start
    propagate = import_module("opentelemetry.propagate")
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple(carrier.items())
