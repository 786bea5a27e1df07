"""A TCP proxy that cuts connections, after as many bytes as it was told."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]


@dataclass
class CuttingProxy:
    """Forwards to `to_port`. `budgets` says after how many bytes of a direction the next cut comes; `None`: never."""

    to_port: int
    port: int = 0
    budgets: Iterator[tuple[Direction, int]] | None = None
    refusing: bool = False
    """New connections are reset at once."""
    deaf: bool = False
    """New connections are taken, and nothing of them is forwarded."""
    cuts: dict[Direction, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    connections: set[_Connection] = field(default_factory=set)
    accepted: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def arm(self, budgets: Iterator[tuple[Direction, int]] | None) -> None:
        """Cuts from now on, the connections that are there first."""
        self.budgets = budgets
        for connection in self.connections:
            connection.arm()

    def cut(self) -> None:
        """Cuts what is connected now."""
        for connection in list(self.connections):
            connection.cut()

    def freeze(self) -> None:
        """What is connected now stays so, and nothing of it is forwarded any more."""
        for connection in self.connections:
            connection.is_frozen = True

    async def close(self) -> None:
        """Cuts everything, and waits until nothing of it is left."""
        self.budgets = None
        while self.tasks:
            self.cut()
            await asyncio.wait(self.tasks, timeout=0.1)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        self.connections.add(connection)
        try:
            if self.deaf:
                await reader.read(-1)
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.to_port)
            connection.writers.append(there)
            await asyncio.gather(
                connection.forward(reader, there, "up"), connection.forward(there_reader, writer, "down")
            )
        except OSError:
            pass  # one side has gone, and so does the other
        finally:
            self.connections.discard(connection)
            connection.cut()


class _Connection:
    def __init__(self, proxy: CuttingProxy, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.writers = [writer]
        self.left: dict[str, int] = {}
        self.is_frozen = False
        self.arm()

    def arm(self) -> None:
        self.left = dict([next(self.proxy.budgets)]) if self.proxy.budgets is not None else {}

    def cut(self) -> None:
        for writer in self.writers:
            _reset(writer)

    async def forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        while data := await reader.read(16 * 1024):
            if self.is_frozen:
                continue
            left = self.left.get(direction)
            if left is not None and len(data) >= left:
                self.proxy.cuts[direction] += 1
                writer.write(data[:left])
                await writer.drain()
                raise ConnectionResetError
            if left is not None:
                self.left[direction] = left - len(data)
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection as a dead host or an impatient middlebox does, without a goodbye."""
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def cutting_proxy(to_port: int) -> AsyncIterator[CuttingProxy]:
    """A proxy on a free port."""
    proxy = CuttingProxy(to_port)
    server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
