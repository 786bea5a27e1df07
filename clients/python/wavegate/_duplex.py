"""One bidirectional call: what every kind of stream shares.

grpc.aio ends a whole call when a task that waits for one of its reads or writes is cancelled, so callers never touch
the call. Two tasks do: the writer empties an outbox, the reader fills a buffer of events. Callers wait for a state
(`_until`), and cancelling such a wait leaves the call as it is.

The reader stops at a full buffer, so that audio piles up in the gateway and not here; but it reads on while anybody
waits for an answer or for room to write, because what they wait for may lie behind that audio.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from grpc import aio

from wavegate._channel import Channel, StreamCall
from wavegate.errors import ConnectionLostError, SessionClosedError, WavegateError

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
EventT = TypeVar("EventT")
AnswerT = TypeVar("AnswerT")

GOODBYE_S = 2.0
"""How long the gateway may take to end the call after its last message; it gives our side 1 s to stop writing."""


class Duplex(Generic[RequestT, ResponseT, EventT]):
    """Base of the streams: outbox, buffer of events, and waiting. One event loop."""

    def __init__(self, channel: Channel, *, buffer_limit_bytes: int | None) -> None:
        self._channel = channel
        self._buffer_limit_bytes = buffer_limit_bytes
        self._call: StreamCall[RequestT, ResponseT] | None = None
        self._tasks: list[asyncio.Task[None]] = []

        self._outbox: deque[RequestT] = deque()
        self._queued = 0
        self._written = 0
        self._half_close = False
        self._work = asyncio.Event()

        self._buffer: deque[EventT] = deque()
        self._buffered_bytes = 0
        self._discarding = False
        self._waiting = 0
        self._flow = asyncio.Event()
        self._flow.set()
        self._change: asyncio.Event | None = None

        self._answered = False
        self._finished = False
        self._failure: WavegateError | None = None
        self._failure_raised = False

    # --- what a kind of stream says -------------------------------------------------------------

    @abstractmethod
    def _receive(self, response: ResponseT) -> EventT | None:
        """Takes note of a response; returns what the caller shall see of it."""

    def _size_bytes(self, event: EventT) -> int:
        """How much of the buffer an event takes."""
        return 0

    def _is_last(self, event: EventT) -> bool:
        """Whether nothing follows this event, whatever the call's own status will be."""
        return False

    def _ending(self) -> WavegateError | None:
        """The failure of a call that ended with OK; `None` if that is as it should be."""
        return None

    # --- sending --------------------------------------------------------------------------------

    def _start(self, call: StreamCall[RequestT, ResponseT]) -> None:
        self._call = call
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]

    def _check_open(self) -> None:
        if self._call is None:
            raise RuntimeError("it is not open yet: enter it by `async with`")
        if self._finished:
            raise self._closed_error()
        if self._half_close:
            raise SessionClosedError("the session's input has ended; open another session to send more")

    async def _put(self, request: RequestT, *, last: bool = False) -> None:
        """Sends a request; returns when the transport has taken it. A cancelled wait does not take it back."""
        self._check_open()
        self._queued += 1
        mine = self._queued
        self._outbox.append(request)
        if last:
            self._end_of_input()
        self._work.set()
        await self._until(lambda: True if self._written >= mine else None)

    def _end_of_input(self) -> None:
        """Half-closes the call once everything queued is written."""
        self._half_close = True
        self._work.set()

    async def _write(self) -> None:
        assert self._call is not None
        try:
            while True:
                while self._outbox:
                    await self._call.write(self._outbox.popleft())
                    self._written += 1
                    self._notify()
                if self._half_close:
                    await self._call.done_writing()
                    return
                self._work.clear()
                await self._work.wait()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call is over; the reader learns why

    # --- receiving ------------------------------------------------------------------------------

    async def _read(self) -> None:
        assert self._call is not None
        failure: WavegateError | None = None
        last = False
        try:
            async for response in self._call:
                self._answered = True
                event = self._receive(response)
                if event is not None:
                    self._deliver(event)
                    last = self._is_last(event)
                if last:
                    break
                self._notify()
                await self._flow.wait()
            failure = self._ending()
        except aio.AioRpcError as exc:
            failure = self._channel.error(exc, answered=self._answered)
        except asyncio.CancelledError:
            pass  # we ended the call ourselves
        except Exception as exc:  # whoever waits must hear of it, whatever it is
            failure = WavegateError(f"an answer of the gateway cannot be read: {exc}", code="INTERNAL")
            failure.__cause__ = exc
            self._call.cancel()
        self._finish(failure)
        if last:
            await self._goodbye()

    def _finish(self, failure: WavegateError | None) -> None:
        self._finished = True
        self._failure = failure
        self._notify()

    async def _goodbye(self) -> None:
        """Lets the gateway end the call itself, so that both sides see the same status."""
        assert self._call is not None
        self._outbox.clear()
        self._end_of_input()
        try:
            async with asyncio.timeout(GOODBYE_S):
                async for _ in self._call:
                    pass
        except (aio.AioRpcError, asyncio.CancelledError, TimeoutError):
            pass
        self._call.cancel()

    def _deliver(self, event: EventT) -> None:
        if not self._discarding:
            self._buffer.append(event)
            self._buffered_bytes += self._size_bytes(event)
            self._update_flow()

    def _take(self) -> EventT | None:
        """The next event; at the end raises the failure if there is one, or gives `None`."""
        if not self._buffer:
            if self._failure is not None:
                self._failure_raised = True
                raise self._failure
            return None
        event = self._buffer.popleft()
        self._buffered_bytes -= self._size_bytes(event)
        self._update_flow()
        return event

    async def _next(self) -> EventT | None:
        """Waits for the next event; `None` at the end. Cancelling it loses nothing."""
        while not self._buffer and not self._finished:
            await self._changed()
        return self._take()

    def _drop(self, unwanted: Callable[[EventT], bool]) -> None:
        """Takes events out of the buffer."""
        self._buffer = deque(event for event in self._buffer if not unwanted(event))
        self._buffered_bytes = sum(map(self._size_bytes, self._buffer))
        self._update_flow()

    def _update_flow(self) -> None:
        limit = self._buffer_limit_bytes
        if limit is None or self._buffered_bytes < limit or self._waiting:
            self._flow.set()
        else:
            self._flow.clear()

    # --- waiting --------------------------------------------------------------------------------

    def _notify(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _changed(self) -> None:
        if self._change is None:
            self._change = asyncio.Event()
        await self._change.wait()

    async def _until(self, ready: Callable[[], AnswerT | None]) -> AnswerT:
        """Waits until `ready` answers; raises the stream's failure, or that it is closed, if it never will."""
        self._waiting += 1
        self._update_flow()
        try:
            while (answer := ready()) is None:
                if self._finished:
                    raise self._closed_error()
                await self._changed()
            return answer
        finally:
            self._waiting -= 1
            self._update_flow()

    def _closed_error(self) -> WavegateError:
        if self._failure is None:
            return SessionClosedError("the session has ended; open another one")
        self._failure_raised = True
        return self._failure

    # --- leaving --------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Reads to the end and throws it away; raises the stream's failure if nobody has seen it yet."""
        self._discarding = True
        self._drop(lambda _: True)
        await self._until(lambda: self._finished or None)
        if self._failure is not None and not self._failure_raised:
            raise self._closed_error()

    async def _stop(self) -> None:
        """Ends the call, if it lives, and its tasks. Takes no longer than the goodbye."""
        if self._call is None:
            return
        writer, reader = self._tasks
        try:
            if not self._finished:
                self._call.cancel()
                reader.cancel()
            await asyncio.wait([reader])
        finally:
            self._call.cancel()
            reader.cancel()
            writer.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _lost(self) -> ConnectionLostError:
        return ConnectionLostError(
            f"the gateway at {self._channel.target} ended the call without a last word; open a new session",
            code="UNAVAILABLE",
        )
