"""The port to an upstream WebSocket, and the one import of `websockets`.

A session sees `Transport` (send, recv, close, abort) and a `Dialer` that makes one. Everything that can go
wrong comes out of here as an error of `wavegate_server.errors` or as `TransportClosed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from aiohappyeyeballs import start_connection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.protocol import State as ConnectionState
from websockets.uri import WebSocketURI, parse_uri

from wavegate_server import errors
from wavegate_server.network import Proxies, Proxy, Tunnel, TunnelRefused
from wavegate_server.waves import close

SEND_TIMEOUT_S = 2.0
"""A send that blocks longer, while nothing is taken, means a peer that no longer reads; `websockets` alone would wait
for ever."""
PING_INTERVAL_S = 5.0
PING_TIMEOUT_S = 5.0
"""A peer that answers no ping for this long is gone, however quiet the line may rightly be: this long, and as long as
it may need to read what was sent before the ping."""
OPEN_TIMEOUT_S = 5.0
"""TCP, TLS and upgrade together. Real handshakes were seen to take up to 1.5 s."""
HAPPY_EYEBALLS_S = 0.25
"""How long one address is tried alone before the next is tried too (RFC 8305, 8.)."""
CLOSE_TIMEOUT_S = 1.0
MAX_MESSAGE_BYTES = 2**22
"""Largest message taken from the upstream: 4 MiB is over a minute of base64 speech in one frame."""
UNBLOCKED_BYTES = 2**13
"""So much may wait to be written, and a send does not block: far below the library's limit of 32 KiB, also where a
character is four bytes. No deadline is set then: on uvloop a timer costs more than the rest of a send."""
RECEIVE_QUEUE = 4
"""Messages read ahead of the session; then the socket is read no further, which is the back-pressure."""

_TCP_INFO = struct.Struct("=120xQ16xI")
"""`tcpi_bytes_acked` and `tcpi_notsent_bytes` in Linux' `struct tcp_info`, which only ever grows at its end."""
_VIOLATIONS = (1002, 1007, 1009)
"""Close codes with which a WebSocket library leaves a peer that breaks the protocol (RFC 6455, 7.4.1)."""
T = TypeVar("T")

logger = logging.getLogger(__name__)


class TransportClosed(Exception):
    """Raised by `recv` and `send` when the connection has gone.

    `code` is the close code that the peer sent, or that told it what it did wrong; None where the connection was lost
    without one. `stalled`: this end cut it, since a ping was not answered in time.
    """

    def __init__(self, code: int | None, reason: str = "", *, stalled: bool = False) -> None:
        super().__init__(f"closed {code} {reason}".rstrip())
        self.code = code
        self.reason = reason
        self.stalled = stalled


class Transport(Protocol):
    """One open connection. One task may receive while another sends."""

    timings: Timings | None
    """What opening it took; None where nobody measured."""
    reading_s: Callable[[], float]
    """Seconds that the peer may rightly need to read what it was sent; 0 unless the user of the transport sets it. A
    ping stands behind all of that, so it may be answered later by as much."""

    async def send(self, message: str | bytes) -> None:
        """Write one message.

        Raises `TransportClosed` when the connection has gone and `errors.UpstreamStalled` when the peer takes
        nothing for `SEND_TIMEOUT_S` seconds; the connection is aborted then. Cancelling may leave the message
        unsent.
        """

    async def ping(self, on_pong: Callable[[], None]) -> None:
        """Write a ping. `on_pong` is called when it is answered: the peer, or a proxy in front of it, has read all that
        was sent before. Raises as `send` does; a connection that ends first never calls it."""

    async def recv(self) -> str | bytes:
        """The next message. Raises `TransportClosed`. Cancelling loses nothing."""

    async def close(self, code: int = 1000) -> None:
        """Close in good order, waiting at most `CLOSE_TIMEOUT_S` seconds. Safe to call again."""

    def leave(self) -> None:
        """Close in good order without waiting for the peer to do so, too. Safe to call again."""

    def abort(self) -> None:
        """Cut the connection now. Safe to call again."""

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it yet, as far as is known without asking the peer."""


@dataclass(frozen=True, slots=True)
class Timings:
    """What opening a connection took, in seconds."""

    dns_s: float
    tcp_s: float
    """With a proxy: to the proxy, and until it has opened the tunnel."""
    tls_s: float | None
    """None without TLS."""
    upgrade_s: float
    """The WebSocket handshake."""


class Dialer(Protocol):
    """Makes transports."""

    async def dial(self, url: str, headers: Mapping[str, str]) -> Transport:
        """Open a WebSocket. Raises an error of `wavegate_server.errors` that says what was refused."""


class Reach(Protocol):
    """How an upstream is asked that may be away for a known while."""

    async def __call__(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns. It may be made later than now, and again after the upstream was away.

        Raises what `attempt` raises, or `errors.UpstreamUnavailable` where the upstream does not come back in time.
        """


async def at_once(attempt: Callable[[], Awaitable[T]]) -> T:
    """The `Reach` of an upstream of which nothing is known: once, and now."""
    return await attempt()


class ReachingDialer:
    """A dialer for an upstream that may be away for a known while."""

    def __init__(self, dialer: Dialer, reach: Reach) -> None:
        self._dialer = dialer
        self._reach = reach

    async def dial(self, url: str, headers: Mapping[str, str]) -> Transport:
        return await self._reach(lambda: self._dialer.dial(url, headers))


@dataclass(frozen=True, slots=True)
class DialOptions:
    """Time limits of a connection, in seconds; see the constants above for why they are what they are."""

    open_timeout_s: float = OPEN_TIMEOUT_S
    send_timeout_s: float = SEND_TIMEOUT_S
    ping_interval_s: float = PING_INTERVAL_S
    ping_timeout_s: float = PING_TIMEOUT_S
    ssl: ssl.SSLContext | None = field(default=None)
    """None: the system's trust for `wss`, nothing for `ws`."""
    proxies: Proxies = field(default_factory=Proxies)
    """Which proxy leads to a URL; by default none."""


class _Stopwatch:
    """Laps of an opening."""

    def __init__(self) -> None:
        self._laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = now - self._last
        self._last = now

    def timings(self, *, tls: bool) -> Timings:
        laps = self._laps
        return Timings(laps["dns_s"], laps["tcp_s"], laps["tls_s"] if tls else None, laps["upgrade_s"])


class WebSocketDialer:
    """Dials with the `websockets` library."""

    def __init__(self, options: DialOptions | None = None) -> None:
        self._options = options or DialOptions()

    async def dial(self, url: str, headers: Mapping[str, str]) -> Transport:
        options = self._options
        where = url.partition("?")[0]
        clock = _Stopwatch()
        sock: socket.socket | None = None
        proxy: Proxy | None = None
        try:
            async with asyncio.timeout(options.open_timeout_s):
                uri = parse_uri(url)
                loop = asyncio.get_running_loop()
                proxy = options.proxies.to(url)
                first: Proxy | WebSocketURI = proxy or uri
                try:
                    found = await loop.getaddrinfo(first.host, first.port, type=socket.SOCK_STREAM)
                    clock.lap("dns_s")
                    sock = await start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_S, loop=loop)
                except OSError as exc:
                    if proxy is None:
                        raise
                    raise TunnelRefused(f"the proxy {proxy} cannot be reached: {exc}") from exc
                if proxy is not None:
                    await _tunnel(sock, Tunnel(proxy, uri.host, uri.port))
                clock.lap("tcp_s")
                connection = await connect(
                    url,
                    sock=sock,
                    additional_headers=dict(headers),
                    user_agent_header=None,
                    # Audio in base64 does not shrink, and deflate costs 50 KiB a connection.
                    compression=None,
                    proxy=None,  # the socket leads through it already
                    open_timeout=None,
                    # Pings are this module's: the library's would count a session that is not reading (a slow
                    # caller) as a dead peer.
                    ping_interval=None,
                    close_timeout=CLOSE_TIMEOUT_S,
                    max_size=MAX_MESSAGE_BYTES,
                    max_queue=RECEIVE_QUEUE,
                    # DEBUG logs of the library show the Authorization header.
                    logger=_quiet,
                    process_exception=_never_retry,
                    create_connection=lambda *args, **kwargs: _Connection(clock, *args, **kwargs),  # type: ignore[arg-type]
                    **_tls(url, options),
                )
                clock.lap("upgrade_s")
        except InvalidStatus as exc:
            response = exc.response
            body = bytes(response.body or b"").decode("utf-8", "replace")
            raise close.from_status(response.status_code, body, response.headers.get("Retry-After")) from exc
        except ValueError as exc:
            status = exc.__cause__.response.status_code if isinstance(exc.__cause__, InvalidStatus) else None
            if status is None:
                raise
            raise errors.UpstreamProtocol(
                f"the upstream at {where} answered with a redirect (HTTP {status}), which is not followed, since the "
                "key would go along; set --upstream to where it leads"
            ) from exc
        except InvalidURI as exc:
            raise errors.UpstreamUnavailable(
                f"the upstream address {where} is not a WebSocket address"
            ) from exc
        except InvalidMessage as exc:
            if isinstance(exc.__cause__, EOFError | OSError):
                raise errors.UpstreamUnavailable(f"the upstream at {where} hung up in the handshake") from exc
            raise errors.UpstreamProtocol(f"the upstream at {where} does not speak WebSocket: {exc}") from exc
        except InvalidHandshake as exc:
            raise errors.UpstreamProtocol(f"the upstream at {where} does not speak WebSocket: {exc}") from exc
        except TunnelRefused as exc:
            if sock is not None:
                sock.close()
            raise errors.UpstreamUnavailable(f"the upstream at {where} cannot be reached: {exc}") from exc
        except TimeoutError as exc:
            through = f" through the proxy {proxy}" if proxy is not None else ""
            raise errors.UpstreamUnavailable(
                f"the upstream at {where} did not accept a connection{through} within {options.open_timeout_s:g} s"
            ) from exc
        except ssl.SSLError as exc:
            raise errors.UpstreamUnavailable(
                f"no secure connection to the upstream at {where}: {exc.reason or exc}"
            ) from exc
        except (OSError, EOFError, ConnectionClosed) as exc:
            raise errors.UpstreamUnavailable(f"the upstream at {where} cannot be reached: {exc}") from exc
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        # Small frames go out at once; a chunk of audio must not wait for an ACK.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return WebSocketTransport(connection, options, clock.timings(tls=uri.secure))


async def _tunnel(sock: socket.socket, tunnel: Tunnel) -> None:
    """Have the proxy at the other end of `sock` open a tunnel. Raises `TunnelRefused` and OSError."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, tunnel.request)
    # Nothing follows the answer before we have spoken, so that no byte of the tunnel's own is read with it.
    while not tunnel.feed(await loop.sock_recv(sock, 4096)):
        pass


def _tls(url: str, options: DialOptions) -> dict[str, Any]:
    if options.ssl is None or not url.startswith("wss:"):
        return {}
    return {"ssl": options.ssl}


def _never_retry(exc: Exception) -> Exception | None:
    """The session decides when to dial again."""
    return exc


class _Connection(ClientConnection):
    """A peer that broke the protocol, by a message that is too large too, is left at once: the library would wait for
    its closing handshake, for as long as it likes."""

    def __init__(self, clock: _Stopwatch, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock

    def connection_made(self, transport: Any) -> None:
        self._clock.lap("tls_s")
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.protocol.parser_exc is not None:
            self.transport.close()


_quiet = logging.getLogger("wavegate_server.websockets")
_quiet.setLevel(logging.WARNING)


class WebSocketTransport:
    """A `Transport` over `websockets`."""

    def __init__(self, connection: ClientConnection, options: DialOptions, timings: Timings) -> None:
        self.timings: Timings | None = timings
        self._connection = connection
        self._options = options
        self._receiving = False
        self._received = 0
        self._unanswered_s = 0.0
        """How long a ping went without an answer, where that is why the connection was cut."""
        self.reading_s: Callable[[], float] = lambda: 0.0
        self._pinger = asyncio.create_task(self._ping(), name="upstream-ping")

    def __repr__(self) -> str:
        return f"<WebSocketTransport {self._connection.state.name}>"

    async def send(self, message: str | bytes) -> None:
        await self._write(self._connection.send(message), len(message))

    async def ping(self, on_pong: Callable[[], None]) -> None:
        def answered(pong: asyncio.Future[float]) -> None:
            if not pong.cancelled() and pong.exception() is None:
                on_pong()

        pong = await self._write(self._connection.ping(), 0)
        asyncio.ensure_future(pong).add_done_callback(answered)

    async def _write(self, writing: Coroutine[Any, Any, T], size: int) -> T:
        """Write something of that many bytes."""
        connection = self._connection
        try:
            if connection.transport.get_write_buffer_size() + size <= UNBLOCKED_BYTES:
                return await writing
            return await self._while_taken(writing)
        except TimeoutError as exc:
            self.abort()
            raise errors.UpstreamStalled(
                f"the upstream took nothing for {self._options.send_timeout_s:g} s"
            ) from exc
        except ConnectionClosed as exc:
            raise _closed(exc) from exc
        except AttributeError as exc:
            # The library's own: its peer closed while it waited for room in the write buffer.
            if self.is_open:
                raise
            raise TransportClosed(None, "closed while sending") from exc

    async def _while_taken(self, sending: Coroutine[Any, Any, T]) -> T:
        """Wait for room in the write buffer as long as the peer takes anything: one that is slower than the caller does
        no wrong. Raises TimeoutError."""
        task = asyncio.ensure_future(sending)
        taken = self._taken_bytes()
        try:
            while not (await asyncio.wait({task}, timeout=self._options.send_timeout_s))[0]:
                before, taken = taken, self._taken_bytes()
                if taken == before:
                    raise TimeoutError
            return await task
        finally:
            task.cancel()

    def _taken_bytes(self) -> int:
        """How much the peer's system has taken so far, while more waits for it; 0 where nothing does, and where this
        system does not tell."""
        sock = self._connection.transport.get_extra_info("socket")
        if sock is None or sys.platform != "linux":
            return 0
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        except OSError:
            return 0
        if len(info) < _TCP_INFO.size:
            return 0
        acked, unsent = _TCP_INFO.unpack(info)
        waits = unsent or self._connection.transport.get_write_buffer_size()
        return int(acked) if waits else 0

    def _signs_of_life(self) -> tuple[int, int]:
        return self._received, self._taken_bytes()

    async def recv(self) -> str | bytes:
        self._receiving = True
        try:
            message = await self._connection.recv()
        except ConnectionClosed as exc:
            if self._unanswered_s:
                reason = f"the upstream answered no ping for {self._unanswered_s:.0f} s"
                raise TransportClosed(None, reason, stalled=True) from exc
            raise _closed(exc) from exc
        finally:
            self._receiving = False
        self._received += 1
        return message

    async def close(self, code: int = 1000) -> None:
        self._pinger.cancel()
        try:
            # The library's close waits for its write buffer first, for ever where the peer does not read.
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._connection.close(code)
        except (TimeoutError, ConnectionClosed):
            pass
        finally:
            self.abort()

    def leave(self) -> None:
        self._pinger.cancel()
        connection = self._connection
        if not self.is_open:
            return
        if connection.transport.get_write_buffer_size():
            self.abort()  # what waits to be written might never go
            return
        connection.protocol.send_close(1000)
        connection.send_data()
        connection.transport.close()

    def abort(self) -> None:
        self._pinger.cancel()
        transport = self._connection.transport
        if transport is not None:
            transport.abort()

    @property
    def is_open(self) -> bool:
        return self._connection.state is ConnectionState.OPEN

    async def _ping(self) -> None:
        """Abort a connection whose peer has gone without a word.

        Counts only while a receiver waits: then the queue is empty, so a pong would have been seen.
        """
        options = self._options
        try:
            while True:
                await asyncio.sleep(options.ping_interval_s)
                if not self._receiving:
                    continue
                before = self._signs_of_life()
                timeout_s = options.ping_timeout_s + self.reading_s()
                pong = asyncio.ensure_future(await self._while_taken(self._connection.ping()))
                waited = 0.0
                step = options.ping_timeout_s / 5
                while not (await asyncio.wait({pong}, timeout=step))[0]:
                    # A peer that talks is alive, and one that we do not listen to proves nothing. Nor does one that
                    # has not come to the ping yet: it takes what was sent before it.
                    signs = self._signs_of_life()
                    waited = waited + step if self._receiving and signs == before else 0.0
                    before = signs
                    if waited >= timeout_s:
                        logger.warning("upstream answered no ping for %.0f s", waited)
                        self._unanswered_s = waited
                        self.abort()
                        return
        except TimeoutError:
            self.abort()
        except ConnectionClosed:
            pass


def _closed(exc: ConnectionClosed) -> TransportClosed:
    said = exc.rcvd
    if said is None and exc.sent is not None and exc.sent.code in _VIOLATIONS:
        said = exc.sent  # what the peer did wrong, as the library told it
    if said is None:
        return TransportClosed(None, str(exc))
    return TransportClosed(said.code, said.reason)
