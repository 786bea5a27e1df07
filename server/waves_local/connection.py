"""One WebSocket of a client: messages in and out, with journal and faults between."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from aiohttp import ClientConnectionError, WSMsgType, web

from waves_local import frames
from waves_local.faults import Action, Fault, FaultPlan
from waves_local.journal import ConnectionRecord, Journal

_CLOSE_TIMEOUT_S = 2.0
_MAX_REASON_BYTES = 120
"""A close frame holds 125 bytes, two of them the code."""

_AUDIO_FIELD = re.compile(rb'("audio":")[^"]*"')


class ConnectionGone(Exception):
    """Raised when something is to be sent to a client that is gone."""


def reset(transport: asyncio.Transport | None) -> None:
    """Cut a TCP connection without a goodbye (RST)."""
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # Either loop says in its own way that the connection has gone already.
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def damage(frame: bytes, fault: Fault) -> list[tuple[bytes, bool]]:
    """What goes out in place of this frame: payloads, each with whether it is a binary frame."""
    match fault.do:
        case "bad-json":
            return [(frame[: max(1, len(frame) - 2)] + b"#", False)]
        case "bad-utf8":
            return [(frame[:1] + b"\xff\xfe" + frame[1:], False)]
        case "bad-base64":
            return [(_AUDIO_FIELD.sub(rb'\1*not base64*"', frame), False)]
        case "empty-audio":
            return [(_AUDIO_FIELD.sub(rb'\1"', frame), False)]
        case "wrong-type":
            return [(frames.dumps(_mistyped(frames.loads(frame))), False)]
        case "unknown-frame":
            unknown = {"status": "weather", "type": "weather", "data": {"forecast": "rain"}}
            return [(frames.dumps(unknown), False), (frame, False)]
        case "binary":
            return [(frame, True)]
        case "duplicate":
            return [(frame, False), (frame, False)]
        case _:
            return [(frame, False)]


def _mistyped(value: Any) -> Any:
    """Every leaf with another type than it had; discriminators keep theirs, or it would be an unknown frame."""
    if isinstance(value, dict):
        return {k: v if k in {"status", "type"} else _mistyped(v) for k, v in value.items()}
    if isinstance(value, list):
        return {"0": value}
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return [value]
    if isinstance(value, str):
        return len(value)
    return value


class IdleClock:
    """Calls back once when nothing has been heard for a while."""

    def __init__(self, timeout_s: float, on_idle: Callable[[], None]) -> None:
        """`timeout_s` of 0: never."""
        self._loop = asyncio.get_running_loop()
        self._timeout_s = timeout_s
        self._on_idle = on_idle
        self._heard_at_s = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s:
            self._look()

    def heard(self) -> None:
        """Something was heard."""
        self._heard_at_s = self._loop.time()

    def stop(self) -> None:
        """Never call back."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        # One timer that looks again, not one that every message moves.
        due_s = self._heard_at_s + self._timeout_s
        if self._loop.time() < due_s:
            self._timer = self._loop.call_at(due_s + 0.001, self._look)
        else:
            self._on_idle()


class Connection:
    """The server's end of one WebSocket.

    One task reads (`async for`), any task may send; frames do not interleave. Once the client is gone, `send`
    raises ConnectionGone and the reader ends.
    """

    def __init__(
        self,
        ws: web.WebSocketResponse,
        request: web.Request,
        record: ConnectionRecord,
        journal: Journal,
        plan: FaultPlan,
    ) -> None:
        self._ws = ws
        self._transport = request.transport
        self.record = record
        self._journal = journal
        self._plan = plan
        self._gone = asyncio.Event()
        self._is_paused = False
        """Whether we stopped reading from the network."""
        self._sending = asyncio.Lock()
        self._receiving = asyncio.Lock()
        self._is_closing = False
        """Whether we have begun to close."""
        self._ignores_messages = False
        """Whether what still comes is dropped, because we close or are about to."""
        self._has_ended = False
        """Whether no message can come any more."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_ping: Callable[[], None] = lambda: None

    def opened(self) -> None:
        """The handshake is done."""
        self.record.status = 101
        self._journal.notify()
        self._plan.opened(self._strike)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            await self._wait_while("deaf", "vanish")
            if delay_s := self._plan.reading_delay_s():
                await self._read_late(delay_s)
            message = await self._receive()
            if message is None:
                return
            if not self._ignores_messages:
                yield message

    async def _receive(self) -> str | bytes | None:
        """The next text or binary message; `None` when none will come."""
        while True:
            # While the socket is being closed, the reader and `close` both read, until one finds the end.
            async with self._receiving:
                if self._has_ended:
                    return None
                message = await self._ws.receive()
                if message.type in {WSMsgType.TEXT, WSMsgType.BINARY}:
                    data = message.data
                    return data if isinstance(data, str) else bytes(data)
                if message.type == WSMsgType.PING:
                    self.on_ping()
                    with contextlib.suppress(ClientConnectionError, ConnectionError):
                        await self._ws.pong(message.data)
                elif message.type != WSMsgType.PONG:
                    self._has_ended = True
                    if message.type == WSMsgType.CLOSE and not self._is_closing:
                        await self._write_close(message.data or 1000, "")
                        self._close_transport()
                    return None

    def received(self, message: str | bytes, parsed: Any = None) -> None:
        """Note what the reader got, once it has parsed it."""
        self._journal.received(self.record, message, parsed)
        self._plan.received(0 if isinstance(message, str) else len(message))

    def spoke(self, text: str) -> None:
        """Note a text that was given to the engine."""
        self._journal.spoke(self.record, text)

    async def send(self, frame: bytes, audio_bytes: int = 0) -> None:
        """Send one text frame (JSON). Raises ConnectionGone."""
        async with self._sending:
            payloads = [(frame, False)]
            for fault in self._plan.frame_faults():
                if fault.do == "slow":
                    await self.sleep(fault.delay_s)
                else:
                    first, *rest = payloads
                    payloads = [*damage(first[0], fault), *rest]
            await self._wait_while("stall", "vanish")
            for payload, is_binary in payloads:
                await self._write(payload, is_binary=is_binary)
            self._journal.sent(self.record, audio_bytes)
            self._plan.sent(audio_bytes)

    async def close(self, code: int = 1000, reason: str = "", *, by: str = "server") -> None:
        """Close with a handshake: what the client still sends is read and dropped until it answers, two seconds
        at most."""
        if self._is_closing:
            return
        self._is_closing = self._ignores_messages = True
        self.lost()
        if not self.record.closed_by:
            self.record.closed_by = by
        if not self._has_ended and await self._write_close(code, reason):
            self.record.close_code = code
            self._resume()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    while await self._receive() is not None:
                        pass
        self._close_transport()

    def drop(self, *, by: str = "server") -> None:
        """Reset the TCP connection."""
        if not self.record.closed_by:
            self.record.closed_by = by
        self.lost()
        reset(self._transport)

    def lost(self) -> None:
        """The client cannot be reached any more. What it had sent before can still be read."""
        self._gone.set()
        self._plan.wake()

    def close_soon(self, code: int, reason: str = "", *, by: str = "server") -> None:
        """Send and hear nothing more and close, without waiting for it."""
        self._ignores_messages = True
        self.lost()
        self._in_background(self.close(code, reason, by=by))

    async def ended(self) -> None:
        """The conversation is over: finish closing and note how it ended. Called once, at the end."""
        self.lost()
        self._plan.closed()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.record.close_code is None:
            self.record.close_code = self._ws.close_code or 1006
        self.record.closed_by = self.record.closed_by or "client"
        self.record.closed_at_s = asyncio.get_running_loop().time()
        self._journal.notify()

    async def _write(self, payload: bytes, *, is_binary: bool) -> None:
        if self._gone.is_set():
            raise ConnectionGone
        try:
            await self._ws.send_frame(payload, WSMsgType.BINARY if is_binary else WSMsgType.TEXT)
        except (ClientConnectionError, ConnectionError, RuntimeError) as error:
            # RuntimeError: the socket is closing already.
            raise ConnectionGone from error

    async def _write_close(self, code: int, reason: str) -> bool:
        """Send a close frame. False: the client is gone."""
        # Not by `WebSocketResponse.close`: where a task waits for messages, that cuts the connection without
        # waiting for the client, and whatever it had on its way makes a reset of it, which eats the close frame.
        payload = struct.pack("!H", code) + reason.encode()[:_MAX_REASON_BYTES]
        try:
            await self._ws.send_frame(payload, WSMsgType.CLOSE)
        except (ClientConnectionError, ConnectionError, RuntimeError):
            return False
        return True

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _resume(self) -> None:
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._is_paused = False

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds. Raises ConnectionGone as soon as the client is known to be gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._gone.wait()
                raise ConnectionGone

    async def _wait_while(self, *actions: Action) -> None:
        await self._plan.wait_while(*actions, unless=self._gone.is_set)

    async def _read_again(self) -> None:
        """Read from the network again, once nothing keeps us from it."""
        await self._wait_while("deaf", "vanish")
        self._resume()

    async def _read_late(self, delay_s: float) -> None:
        """Read nothing for a while, so that the client's network fills up as behind a slow reader."""
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.pause_reading()
        self._is_paused = True
        with contextlib.suppress(ConnectionGone):
            await self.sleep(delay_s)
        self._resume()

    def _strike(self, fault: Fault) -> None:
        if fault.do == "drop":
            self.drop(by="fault")
        elif fault.do == "close":
            self.close_soon(fault.code, fault.reason, by="fault")
        elif fault.do in {"deaf", "vanish"}:
            # At once, so that not even the kernel's buffers are emptied any more.
            if self._transport is not None and not self._transport.is_closing():
                self._transport.pause_reading()
                self._is_paused = True
                self._in_background(self._read_again())
        elif fault.do == "error":
            self._in_background(self._send_error(fault))

    async def _send_error(self, fault: Fault) -> None:
        message = fault.body or "Internal server error"
        with contextlib.suppress(ConnectionGone):
            await self.send(frames.dumps({"type": "error", "status": "error", "message": message}))

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
