"""A proxy that opens tunnels (HTTP CONNECT) and forwards nothing else: between a caller and a host, as in an office.

It finds hosts by its own table, so that a test reaches servers of this machine by names that no resolver knows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """Switches to set, and records to read."""

    hosts: Mapping[str, int]
    """`HOST:PORT` -> the port of this machine that stands for it. Any other is answered with 502."""
    user: str = ""
    password: str = ""
    """What callers must say, if anything."""
    status: int = 200
    """Other than 200: the answer to every tunnel."""
    port: int = 0
    tunnels: list[str] = field(default_factory=list)
    """Every host that was asked for."""
    opened: int = 0
    heard: bytearray = field(default_factory=bytearray)
    """What went through open tunnels, both ways."""

    @property
    def url(self) -> str:
        credentials = f"{self.user}:{self.password}@" if self.user else ""
        return f"http://{credentials}127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await self._answer(head, reader, writer)
            finally:
                writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (method, target, _), *lines = (line.split(" ", 2) for line in head.strip().split("\r\n"))
        self.tunnels.append(target)
        headers = {line[0].lower(): " ".join(line[1:]) for line in lines}
        expected = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        status = self.status
        if method != "CONNECT":
            status = 405
        elif self.user and headers.get("proxy-authorization:") != f"Basic {expected}":
            status = 407
        elif status == 200 and target not in self.hosts:
            status = 502
        writer.write(f"HTTP/1.1 {status} So it is\r\n\r\n".encode())
        await writer.drain()
        if status != 200:
            return
        self.opened += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.hosts[target])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pump(reader, far_writer))
            group.create_task(self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.heard += data
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def connect_proxy(
    hosts: Mapping[str, int], *, user: str = "", password: str = "", status: int = 200
) -> AsyncIterator[ConnectProxy]:
    """Run a proxy in this event loop until the block is left."""
    proxy = ConnectProxy(hosts, user, password, status)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
