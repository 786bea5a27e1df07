"""A TCP proxy with bad days: what networks do to the connection between the gateway and its upstream.

    async with FaultProxy(upstream.port) as proxy:
        ... a gateway whose upstream is proxy.url ...
        proxy.set(down=Faults(latency_s=0.1, jitter_s=0.05))
        proxy.set(up=Faults(is_stopped=True))   # half open: nothing goes up any more, and nobody says so
        proxy.clear()                           # and on it goes, with not a byte lost
        proxy.reset()

`up` is from the caller to the upstream, `down` the other way. New connections have the faults that are in force; those
under way obey a change at once. Buffers are small, so that a direction that is stopped is soon felt by the sender.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

BUFFER_BYTES = 32 * 1024
"""What the proxy, and the kernel on each of its sockets, holds of one direction."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to one direction. The default: nothing."""

    latency_s: float = 0.0
    """Bytes are held for this long."""
    jitter_s: float = 0.0
    """And for up to this much longer, at random; their order stays."""
    bytes_per_s: float | None = None
    """Bandwidth; None: unlimited."""
    slice_bytes: int = 0
    """Bytes go out in pieces of at most this size; 0: as they came."""
    limit_bytes: int | None = None
    """After so many bytes the connection ends, both directions; counted from when this was set."""
    limit_by: Literal["close", "reset"] = "close"
    """How it ends."""
    limit_times: int | None = None
    """On how many connections it does; None: on all."""
    is_stopped: bool = False
    """Nothing is forwarded, and soon nothing is taken any more. What was taken goes on when this is over."""
    is_swallowed: bool = False
    """All is taken and thrown away, as by a route that has gone."""


_NONE = Faults()

_Held = tuple[float, bytes | None]
"""When bytes are due, on the loop's clock; b"" is the end of them, None an end by RST."""


class FaultProxy:
    """Listens on a port of its own, from `async with` on; see the module's docstring."""

    def __init__(self, upstream_port: int, *, host: str = "127.0.0.1", seed: int = 0) -> None:
        """`seed`: of the jitter."""
        self._upstream = (host, upstream_port)
        self._random = random.Random(seed)
        self._faults = {"up": _NONE, "down": _NONE}
        self._hits = {"up": 0, "down": 0}
        self._answers = True
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._live: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0
        """Connections that came in so far."""
        self.bytes_up = 0
        """What was handed to the upstream so far."""
        self.bytes_down = 0
        """What was handed to callers so far."""

    def __repr__(self) -> str:
        return f"<FaultProxy :{self.port} {self.live} live, {self.accepted} accepted>"

    @property
    def url(self) -> str:
        """Where the upstream seems to be."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def live(self) -> int:
        """Connections that are open now, black-holed ones included."""
        return len(self._live)

    # -- faults -------------------------------------------------------------------------------------------------

    def set(self, *, up: Faults | None = None, down: Faults | None = None) -> None:
        """Replace the faults of one direction or both; None leaves a direction as it is."""
        for name, faults in (("up", up), ("down", down)):
            if faults is not None:
                self._faults[name] = faults
                self._hits[name] = 0
                for pair in self._live:
                    pair.passed[name] = 0
        self._notify()

    def clear(self) -> None:
        """No more faults: what hung goes on, what was black-holed is answered."""
        self._answers = True
        self.set(up=_NONE, down=_NONE)

    def black_hole(self) -> None:
        """Accept new connections and do nothing with them, until `clear`."""
        self._answers = False

    def reset(self) -> None:
        """Cut every open connection with RST, on both sides."""
        for pair in list(self._live):
            pair.reset()
        self._notify()

    def close(self) -> None:
        """Close every open connection with FIN, on both sides."""
        for pair in list(self._live):
            pair.close()
        self._notify()

    async def wait_for(self, condition: Callable[[FaultProxy], object], timeout_s: float = 60.0) -> None:
        """Wait until something is so, such as that a connection came in. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    # -- the server ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> FaultProxy:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _shrink(listener)
        listener.bind(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(
            self._serve, sock=listener, limit=BUFFER_BYTES, backlog=1024
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for pair in list(self._live):
            pair.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair = _Pair(reader, writer)
        self._live.add(pair)
        self.accepted += 1
        self._notify()
        try:
            await self._until(lambda: self._answers or pair.is_over)
            if not pair.is_over:
                await self._join(pair)
            pair.close()
        except OSError:
            pass  # the upstream refuses: so does its proxy
        finally:
            pair.reset()
            self._live.discard(pair)
            self._tasks.discard(task)
            self._notify()

    async def _join(self, pair: _Pair) -> None:
        sock = socket.socket()
        _shrink(sock)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._upstream)
        except BaseException:
            sock.close()
            raise
        reader, writer = await asyncio.open_connection(sock=sock, limit=BUFFER_BYTES)
        pair.answer(reader, writer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pump(pair, "up", pair.reader, writer))
            tasks.create_task(self._pump(pair, "down", reader, pair.writer))

    # -- one direction ------------------------------------------------------------------------------------------

    async def _pump(
        self, pair: _Pair, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward one direction to its end. Taking and giving are two tasks, so that latency does not add up."""
        held: deque[_Held] = deque()
        news = asyncio.Event()
        taking = asyncio.create_task(self._take(name, reader, held, news))
        try:
            await self._give(pair, name, writer, held, news)
        except OSError:
            pair.reset()
            self._notify()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def _take(
        self,
        name: str,
        reader: asyncio.StreamReader,
        held: deque[_Held],
        news: asyncio.Event,
    ) -> None:
        """Read what comes and note when it is due."""
        loop = asyncio.get_running_loop()
        due = 0.0
        while True:
            await self._until(lambda: sum(len(data or b"") for _, data in held) < BUFFER_BYTES)
            data: bytes | None
            try:
                data = await reader.read(BUFFER_BYTES)
            except OSError:
                data = None
            faults = self._faults[name]
            delay_s = faults.latency_s + faults.jitter_s * self._random.random()
            due = max(due, loop.time() + delay_s)
            held.append((due, data))
            news.set()
            if not data:
                return

    async def _give(
        self,
        pair: _Pair,
        name: str,
        writer: asyncio.StreamWriter,
        held: deque[_Held],
        news: asyncio.Event,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not held:
                news.clear()
                await news.wait()
            due, data = held[0]
            if (ahead_s := due - loop.time()) > 0:
                await asyncio.sleep(ahead_s)
            await self._until(lambda: pair.is_over or not self._faults[name].is_stopped)
            held.popleft()
            self._notify()
            if data is None:
                raise ConnectionResetError
            if not data:
                if not pair.is_over:
                    writer.write_eof()
                return
            while data and not pair.is_over:
                data = await self._write(pair, name, writer, data)

    async def _write(self, pair: _Pair, name: str, writer: asyncio.StreamWriter, data: bytes) -> bytes:
        """Hand on as much as the faults allow at once; the rest."""
        await self._until(lambda: pair.is_over or not self._faults[name].is_stopped)
        faults = self._faults[name]
        if faults.is_swallowed or pair.is_over:
            return b""
        size = min(len(data), faults.slice_bytes or len(data))
        if faults.bytes_per_s:
            size = min(size, max(1, int(faults.bytes_per_s / 50)))
        limited = faults.limit_bytes is not None and faults.limit_times != self._hits[name]
        if limited:
            assert faults.limit_bytes is not None
            size = min(size, faults.limit_bytes - pair.passed[name])
        if size > 0:
            writer.write(data[:size])
            await writer.drain()
            pair.passed[name] += size
            if name == "up":
                self.bytes_up += size
            else:
                self.bytes_down += size
            self._notify()
        if limited and pair.passed[name] >= (faults.limit_bytes or 0):
            self._hits[name] += 1
            if faults.limit_by == "reset":
                pair.reset()
            else:
                pair.close()
            return b""
        if faults.bytes_per_s:
            await asyncio.sleep(size / faults.bytes_per_s)
        elif faults.slice_bytes:
            await asyncio.sleep(0)  # each slice a segment of its own
        return data[size:]

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()


class _Pair:
    """The two sockets of one proxied connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._upstream: asyncio.StreamWriter | None = None
        self.passed = {"up": 0, "down": 0}
        self.is_over = False
        _immediate(writer)

    def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = writer
        _immediate(writer)

    def reset(self) -> None:
        """RST to both."""
        self.is_over = True
        for writer in (self.writer, self._upstream):
            if writer is not None and not writer.transport.is_closing():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

    def close(self) -> None:
        """FIN to both, behind what was written."""
        self.is_over = True
        for writer in (self.writer, self._upstream):
            if writer is not None:
                writer.close()


def _shrink(sock: socket.socket) -> None:
    for side in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, side, BUFFER_BYTES)


def _immediate(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    writer.transport.set_write_buffer_limits(BUFFER_BYTES)
