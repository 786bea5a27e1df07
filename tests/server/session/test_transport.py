"""The WebSocket transport, over real sockets, before peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from wavegate_server import errors
from wavegate_server.session.transport import (
    MAX_MESSAGE_BYTES,
    DialOptions,
    Transport,
    TransportClosed,
    WebSocketDialer,
)
from wavegate_server.waves import close
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

IMPATIENT = DialOptions(send_timeout_s=0.5, ping_interval_s=0.1, ping_timeout_s=0.5)


@asynccontextmanager
async def facing(
    play: Callable[[ServerConnection], Awaitable[None]], options: DialOptions | None = None
) -> AsyncIterator[Transport]:
    """A connection to a peer whose system holds little of what it does not read."""

    async def on_connection(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await play(connection)

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with serve(
        on_connection, sock=listener, ping_interval=None, compression=None, close_timeout=0.1, max_queue=1
    ):
        transport = await WebSocketDialer(options).dial(f"ws://127.0.0.1:{port}", {})
        try:
            yield transport
        finally:
            transport.abort()


async def read_slowly(connection: ServerConnection) -> None:
    """Takes 600 kB a second, and nothing in between."""
    async for message in connection:
        await asyncio.sleep(len(message) / 600_000)


async def read_nothing(connection: ServerConnection) -> None:
    connection.transport.pause_reading()
    await connection.wait_closed()


async def flood(transport: Transport, count: int) -> None:
    for _ in range(count):
        await transport.send(bytes(4096))


@pytest.mark.skipif("sys.platform != 'linux'", reason="only Linux tells what the peer has taken")
async def test_a_peer_that_is_slow_is_no_stall() -> None:
    """It takes what fills every buffer, for several times as long as a send may be blocked."""
    async with facing(read_slowly, IMPATIENT) as transport:
        receiving = asyncio.create_task(transport.recv())
        await flood(transport, 1100)
        assert not receiving.done()
        receiving.cancel()


async def test_a_peer_that_takes_nothing_has_stalled() -> None:
    async with facing(read_nothing, IMPATIENT) as transport:
        with pytest.raises((errors.UpstreamStalled, TransportClosed)):
            await flood(transport, 100_000)


async def test_a_pong_proves_that_what_was_sent_before_was_read() -> None:
    """A peer that reads only when it is told to answers a ping only then."""
    may_read = asyncio.Event()
    read: list[bytes] = []

    async def play(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await may_read.wait()
        connection.transport.resume_reading()
        async for message in connection:
            assert isinstance(message, bytes)
            read.append(message)

    answered = asyncio.Event()
    async with facing(play) as transport:
        receiving = asyncio.create_task(transport.recv())
        await transport.send(b"one")
        await transport.ping(answered.set)
        assert not answered.is_set()
        may_read.set()
        await answered.wait()
        assert transport.is_open
        receiving.cancel()


async def test_a_ping_of_a_connection_that_ends_is_never_answered() -> None:
    answered: list[None] = []
    async with facing(read_nothing) as transport:
        await transport.ping(lambda: answered.append(None))
        transport.abort()
        with pytest.raises(TransportClosed):
            await transport.recv()
        with pytest.raises(TransportClosed):
            await transport.ping(lambda: answered.append(None))
        assert not answered


async def test_a_ping_without_an_answer_is_a_stall() -> None:
    async with facing(read_nothing, IMPATIENT) as transport:
        with pytest.raises(TransportClosed) as raised:
            async with asyncio.timeout(30):
                await transport.recv()
        assert raised.value.stalled
        assert raised.value.code is None
        assert "no ping" in raised.value.reason


async def test_a_ping_behind_much_audio_may_be_answered_later() -> None:
    """What the peer may need to read what was sent before is added to what it has for the answer itself."""
    may_read = asyncio.Event()

    async def play(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await may_read.wait()
        connection.transport.resume_reading()
        await connection.send("read")
        await connection.wait_closed()

    options = replace(IMPATIENT, ping_timeout_s=0.1)
    async with facing(play, options) as transport:
        transport.reading_s = lambda: 60.0
        receiving = asyncio.create_task(transport.recv())
        await asyncio.wait({receiving}, timeout=1.0)
        assert not receiving.done(), "ten times as long as a ping may take otherwise"
        may_read.set()
        assert await receiving == "read"


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_message_that_is_too_large_is_told_at_once(goes_on: bool) -> None:
    """Whether or not its sender closes the connection then."""

    async def play(connection: ServerConnection) -> None:
        await connection.send(bytes(MAX_MESSAGE_BYTES))
        if goes_on:
            connection.transport.pause_reading()
        await connection.send(bytes(MAX_MESSAGE_BYTES + 1))
        await connection.wait_closed()

    async with facing(play) as transport:
        assert len(await transport.recv()) == MAX_MESSAGE_BYTES
        with pytest.raises(TransportClosed) as raised:
            async with asyncio.timeout(10):
                await transport.recv()
    assert raised.value.code == 1009
    assert isinstance(close.from_close(raised.value.code, raised.value.reason), errors.UpstreamProtocol)


async def test_leaving_waits_for_nothing_and_tells_the_peer() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def play(connection: ServerConnection) -> None:
        await connection.send("unread")
        await connection.wait_closed()
        codes.put_nowait(connection.close_code)

    async with facing(play) as transport:
        await transport.recv()
        transport.leave()
        transport.leave()
        assert not transport.is_open
        assert await codes.get() == 1000
