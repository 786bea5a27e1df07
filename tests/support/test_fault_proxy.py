"""The proxy itself: each fault does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from collections.abc import AsyncGenerator

import pytest

from tests.support.fault_proxy import BUFFER_BYTES, FaultProxy, Faults
from tests.support.scripted_upstream import nobody

PATIENCE_S = 60.0
SILENCE_S = 0.2
"""How long nothing has to come where nothing may come."""


class Echo:
    """Sends back what it gets."""

    def __init__(self) -> None:
        self.received = 0
        self.resets = 0
        self.ends = 0
        self.changed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                self.changed.set()
                writer.write(data)
                await writer.drain()
            self.ends += 1
        except OSError:
            self.resets += 1
        finally:
            self.changed.set()
            writer.close()

    async def until(self, what: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while getattr(self, what) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def echo() -> AsyncGenerator[tuple[Echo, FaultProxy], None]:
    server = Echo()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        async with FaultProxy(listening.sockets[0].getsockname()[1], seed=7) as proxy:
            yield server, proxy
        listening.close()


async def connect(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def read(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.readexactly(count)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        return await reader.read()


async def write_until_blocked(writer: asyncio.StreamWriter) -> int:
    """How many bytes go out before a write blocks."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5 * SILENCE_S):
            while True:
                writer.write(bytes(16_384))
                sent += 16_384
                await writer.drain()
    return sent


async def is_silent(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SILENCE_S):
            await reader.read(1)
            return False
    return True


async def test_without_faults_bytes_and_the_end_pass_both_ways(echo: tuple[Echo, FaultProxy]) -> None:
    server, proxy = echo
    reader, writer = await connect(proxy)
    data = random.Random(1).randbytes(500_000)
    reading = asyncio.create_task(read(reader, len(data)))
    writer.write(data)
    assert await reading == data
    writer.write_eof()
    assert await read_to_end(reader) == b""
    await server.until("ends", 1)
    writer.close()
    await proxy.wait_for(lambda p: p.live == 0)
    assert (proxy.accepted, proxy.bytes_up, proxy.bytes_down) == (1, len(data), len(data))


async def test_latency_holds_every_byte_and_keeps_the_order_whatever_the_jitter(
    echo: tuple[Echo, FaultProxy],
) -> None:
    _, proxy = echo
    proxy.set(up=Faults(latency_s=0.05), down=Faults(latency_s=0.05, jitter_s=0.05))
    reader, writer = await connect(proxy)
    began = time.monotonic()
    for number in range(20):
        writer.write(bytes([number]))
        await asyncio.sleep(0.005)
    assert await read(reader, 20) == bytes(range(20))
    assert time.monotonic() - began >= 0.1
    writer.close()


async def test_bandwidth_is_never_exceeded(echo: tuple[Echo, FaultProxy]) -> None:
    _, proxy = echo
    proxy.set(down=Faults(bytes_per_s=50_000))
    reader, writer = await connect(proxy)
    began = time.monotonic()
    writer.write(bytes(20_000))
    await read(reader, 20_000)
    assert time.monotonic() - began >= 0.3
    writer.close()


async def test_slices_arrive_as_many_small_pieces(echo: tuple[Echo, FaultProxy]) -> None:
    _, proxy = echo
    proxy.set(down=Faults(slice_bytes=3))
    reader, writer = await connect(proxy)
    data = random.Random(2).randbytes(600)
    writer.write(data)
    pieces = []
    async with asyncio.timeout(PATIENCE_S):
        while sum(map(len, pieces)) < len(data):
            pieces.append(await reader.read(65536))
    assert b"".join(pieces) == data
    # The kernel may join some of the 200.
    assert len(pieces) > 10
    writer.close()


@pytest.mark.parametrize("limit_by", ["close", "reset"])
async def test_a_limit_cuts_at_the_very_byte_and_so_often_as_was_said(
    echo: tuple[Echo, FaultProxy], limit_by: str
) -> None:
    server, proxy = echo
    proxy.set(down=Faults(limit_bytes=100, limit_by=limit_by, limit_times=1))
    reader, writer = await connect(proxy)
    writer.write(bytes(70))
    assert await read(reader, 70) == bytes(70)
    writer.write(bytes(70))
    if limit_by == "close":
        assert await read_to_end(reader) == bytes(30)
        await server.until("ends", 1)
    else:
        with pytest.raises(ConnectionResetError):
            await read_to_end(reader)
        await server.until("resets", 1)
    writer.close()
    assert proxy.bytes_down == 100
    again, writer = await connect(proxy)
    writer.write(bytes(500))
    assert await read(again, 500) == bytes(500)
    writer.close()


async def test_a_limit_counts_from_when_it_was_set(echo: tuple[Echo, FaultProxy]) -> None:
    _, proxy = echo
    reader, writer = await connect(proxy)
    writer.write(bytes(1000))
    await read(reader, 1000)
    proxy.set(up=Faults(limit_bytes=10))
    writer.write(bytes(50))
    assert len(await read_to_end(reader)) <= 10
    assert proxy.bytes_up == 1010
    writer.close()


async def test_reset_and_close_are_told_apart_on_both_sides(echo: tuple[Echo, FaultProxy]) -> None:
    server, proxy = echo
    for cut, expected in ((proxy.reset, "resets"), (proxy.close, "ends")):
        reader, writer = await connect(proxy)
        writer.write(b"x")
        await read(reader, 1)
        cut()
        if cut == proxy.reset:
            with pytest.raises(ConnectionResetError):
                await read_to_end(reader)
        else:
            assert await read_to_end(reader) == b""
        writer.close()
        await server.until(expected, 1)
        await proxy.wait_for(lambda p: p.live == 0)


async def test_a_caller_that_resets_is_seen_as_one_by_the_upstream(echo: tuple[Echo, FaultProxy]) -> None:
    server, proxy = echo
    reader, writer = await connect(proxy)
    writer.write(b"x")
    await read(reader, 1)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await server.until("resets", 1)


async def test_a_black_hole_accepts_and_never_answers_until_it_is_cleared(
    echo: tuple[Echo, FaultProxy],
) -> None:
    server, proxy = echo
    proxy.black_hole()
    reader, writer = await connect(proxy)
    writer.write(b"hello")
    assert await is_silent(reader)
    assert (server.received, proxy.live) == (0, 1)
    proxy.clear()
    assert await read(reader, 5) == b"hello"
    writer.close()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_stopped_direction_holds_everything_and_loses_nothing(
    echo: tuple[Echo, FaultProxy], direction: str
) -> None:
    _, proxy = echo
    reader, writer = await connect(proxy)
    writer.write(b"before")
    assert await read(reader, 6) == b"before"
    proxy.set(**{direction: Faults(is_stopped=True)})
    writer.write(b"after")
    assert await is_silent(reader)
    proxy.clear()
    assert await read(reader, 5) == b"after"
    writer.close()


async def test_a_stopped_direction_is_soon_felt_by_the_sender(echo: tuple[Echo, FaultProxy]) -> None:
    server, proxy = echo
    proxy.set(up=Faults(is_stopped=True))
    _, writer = await connect(proxy)
    sent = await write_until_blocked(writer)
    # How much the kernel takes on this side is its own affair (megabytes by default); that it ends is what counts.
    assert sent >= BUFFER_BYTES
    assert server.received == 0
    writer.transport.abort()


async def test_swallowed_bytes_are_taken_and_gone(echo: tuple[Echo, FaultProxy]) -> None:
    server, proxy = echo
    reader, writer = await connect(proxy)
    proxy.set(up=Faults(is_swallowed=True))
    for _ in range(100):
        writer.write(bytes(16_384))
        async with asyncio.timeout(PATIENCE_S):
            await writer.drain()
    assert await is_silent(reader)
    assert server.received == 0
    writer.transport.abort()


async def test_an_upstream_that_is_down_is_a_connection_that_breaks() -> None:
    async with FaultProxy(int(nobody().rpartition(":")[2])) as proxy:
        reader, writer = await connect(proxy)
        with pytest.raises(ConnectionResetError):
            await read_to_end(reader)
        writer.close()
        await proxy.wait_for(lambda p: p.live == 0)


async def test_it_leaves_nothing_behind(echo: tuple[Echo, FaultProxy]) -> None:
    def tasks() -> list[str]:
        names = [t.get_coro().__qualname__ for t in asyncio.all_tasks()]  # type: ignore[union-attr]
        return [n for n in names if n.startswith(FaultProxy.__name__)]

    async with FaultProxy(1) as proxy:
        proxy.black_hole()
        opened = [await connect(proxy) for _ in range(5)]
        await proxy.wait_for(lambda p: p.accepted == 5)
        assert len(tasks()) == 5
    assert tasks() == []
    for _, writer in opened:
        writer.close()
