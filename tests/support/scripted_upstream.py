"""An upstream that does nothing by itself: the test writes each frame, and reads each message.

The local upstream plays the real one as well as it is known. This one plays whatever a test needs to see the
gateway cope with: each place where the sources disagree, and each way of going wrong. It knows the protocol's
field names and nothing else, and shares no code with the gateway or with the local upstream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

PATIENCE_S = 60.0
"""How long a script waits for the gateway before it gives up: far longer than anything should take."""


def level(number: int, samples: int = 240) -> bytes:
    """PCM of one constant level: pieces that can be told apart wherever they end up."""
    return struct.pack("<h", number) * samples


def levels(pcm: bytes) -> list[tuple[int, int]]:
    """What pieces PCM is made of: (level, samples), in order."""
    found: list[tuple[int, int]] = []
    for (sample,) in struct.iter_unpack("<h", pcm):
        if found and found[-1][0] == sample:
            found[-1] = (sample, found[-1][1] + 1)
        else:
            found.append((sample, 1))
    return found


class HungUp(Exception):
    """Raised in a script when the gateway has closed, or cut, the connection."""


@dataclass
class Turn:
    """One request of the gateway, read to its closing message."""

    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(m["text"] for m in self.messages)

    @property
    def last(self) -> dict[str, Any]:
        return self.messages[-1]


@dataclass
class Talk:
    """One connection, from the upstream's side."""

    socket: ServerConnection
    number: int
    """1 for the first connection that was accepted."""
    path: str
    query: dict[str, list[str]]
    headers: Headers
    changed: asyncio.Event
    """Set when there is something new to see; the upstream's own."""
    messages: list[dict[str, Any]] = field(default_factory=list)
    """All that was read so far."""
    requests: int = 0
    echo: bool = True
    """Whether frames carry `external_…` ids."""
    own_ids: bool = True
    """Whether frames carry the upstream's own ids."""

    async def read(self) -> dict[str, Any]:
        """The next message. Raises `HungUp`."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                raw = await self.socket.recv()
        except ConnectionClosed as exc:
            raise HungUp from exc
        assert isinstance(raw, str), "the gateway sends text frames"
        message = json.loads(raw)
        self.messages.append(message)
        self.changed.set()
        return message

    async def turn(self) -> Turn:
        """The messages of the next request, up to the one that closes it."""
        messages = []
        while not messages or messages[-1].get("continue"):
            messages.append(await self.read())
        return Turn(messages)

    async def hung_up(self) -> None:
        """Read on until the gateway goes."""
        with contextlib.suppress(HungUp):
            while True:
                await self.read()

    async def write(self, frame: Any) -> None:
        """A frame: bytes and text as they are, anything else as JSON. Raises `HungUp`."""
        try:
            await self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))
        except ConnectionClosed as exc:
            raise HungUp from exc

    async def frame(self, about: dict[str, Any], status: str, **fields: Any) -> None:
        """A documented frame about a message of the gateway, with the ids that it should have."""
        ids: dict[str, Any] = {}
        if self.own_ids:
            ids |= {"session_id": f"ws-{self.number}", "request_id": f"task-{self.number}-{self.requests}"}
        if self.echo:
            ids |= {
                "external_session_id": about.get("session_id", ""),
                "external_request_id": about.get("request_id", ""),
            }
        await self.write({**ids, "status": status, **fields})

    async def chunk(self, about: dict[str, Any], pcm: bytes) -> None:
        await self.frame(about, "chunk", data={"audio": base64.b64encode(pcm).decode()})

    async def word(self, about: dict[str, Any], index: int, word: str, start_s: float, end_s: float) -> None:
        await self.frame(
            about, "word_timestamp", data={"id": index, "word": word, "start": start_s, "end": end_s}
        )

    async def complete(self, about: dict[str, Any], **fields: Any) -> None:
        await self.frame(about, "complete", **fields)

    async def speak(self, turn: Turn, *numbers: int, complete: bool = True) -> None:
        """A whole answer: one chunk for each number, then `complete`."""
        self.requests += 1
        for number in numbers:
            await self.chunk(turn.last, level(number))
        if complete:
            await self.complete(turn.last)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)

    def reset(self) -> None:
        """Cut the TCP connection without a word."""
        sock = self.socket.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.transport.abort()

    def stop_reading(self) -> None:
        self.socket.transport.pause_reading()

    def read_on(self) -> None:
        self.socket.transport.resume_reading()


Script = Callable[[Talk], Awaitable[None]]
"""Plays one connection. When it returns, the connection is closed with 1000."""

Admit = Callable[[int], Awaitable[tuple[int, dict[str, str], bytes] | None]]
"""Given the number of a handshake, from 1: None to accept it, or status, headers and body of a refusal."""


@dataclass
class ScriptedUpstream:
    """A server at work."""

    url: str
    handshakes: int = 0
    talks: list[Talk] = field(default_factory=list)
    mistakes: list[BaseException] = field(default_factory=list)
    """What scripts raised, other than `HungUp`."""
    live: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, condition: Callable[[ScriptedUpstream], object]) -> None:
        """Wait until something is so, for instance that a connection has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def scripted_upstream(
    script: Script, *, admit: Admit | None = None
) -> AsyncGenerator[ScriptedUpstream, None]:
    """Serve `script` to each connection. What a script asserts in vain fails the test at the end."""
    upstream = ScriptedUpstream("")
    scripts: set[asyncio.Task[Any]] = set()

    async def on_handshake(connection: ServerConnection, request: Request) -> Response | None:
        upstream.handshakes += 1
        upstream.changed.set()
        refusal = None if admit is None else await admit(upstream.handshakes)
        if refusal is None:
            return None
        status, headers, body = refusal
        fields = Headers(headers)
        fields["Content-Length"] = str(len(body))
        return Response(status, HTTPStatus(status).phrase, fields, body)

    async def on_connection(connection: ServerConnection) -> None:
        assert connection.request is not None
        parts = urlsplit(connection.request.path)
        talk = Talk(
            connection,
            len(upstream.talks) + 1,
            parts.path,
            parse_qs(parts.query),
            connection.request.headers,
            upstream.changed,
        )
        upstream.talks.append(talk)
        upstream.live += 1
        playing = asyncio.current_task()
        assert playing is not None
        scripts.add(playing)
        upstream.changed.set()
        try:
            await script(talk)
        except HungUp:
            pass
        except (AssertionError, LookupError, TypeError, TimeoutError) as exc:
            upstream.mistakes.append(exc)
        finally:
            scripts.discard(playing)
            upstream.live -= 1
            upstream.changed.set()

    listener = socket.socket()
    # What the kernel takes for a script that does not read is little, and the same on every machine.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    listener.bind(("127.0.0.1", 0))
    upstream.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with serve(
        on_connection,
        sock=listener,
        process_request=on_handshake,
        ping_interval=None,
        compression=None,
        close_timeout=1.0,
        max_size=2**24,
    ) as server:
        try:
            yield upstream
        finally:
            for script_task in scripts:
                script_task.cancel()
            server.close(close_connections=True)
    if upstream.mistakes:
        raise upstream.mistakes[0]


@contextlib.asynccontextmanager
async def raw_upstream(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[str, None]:
    """A TCP server that need not speak HTTP at all; its address as a URL."""

    tasks: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await answer(reader, writer)
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve_one(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@functools.cache
def _reserved() -> socket.socket:
    """Bound, so that nobody else gets its port, and never listening."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    return reserved


def nobody() -> str:
    """The URL of a port on which nobody listens."""
    return f"http://127.0.0.1:{_reserved().getsockname()[1]}"
