"""Bidirectional calls: what every kind of stream shares.

grpc.aio ends a whole call when a task that waits for one of its reads or writes is cancelled, so callers never touch
the call. The two tasks of a `Line` do: one empties an outbox, the other hands on what comes. Callers wait for a state
(`Duplex._until`), and cancelling such a wait leaves the call as it is.

Reading stops at a full buffer, so that audio piles up in the gateway and not here; but it goes on while anybody
waits for an answer or for room to write, because what they wait for may lie behind that audio.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from grpc import aio

from wavegate._channel import ROUTE_KEY, Channel, StreamCall
from wavegate._process import check_process
from wavegate.errors import SessionClosedError, WavegateError

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
EventT = TypeVar("EventT")
AnswerT = TypeVar("AnswerT")

GOODBYE_S = 2.0
"""How long the gateway may take to end the call after its last message; it gives our side 1 s to stop writing."""
LAST_WRITE_S = 0.5
"""How long a call that nobody wants any more may take for its last request,"""
LAST_ANSWER_S = 1.0
"""and its other end for ending it."""


class LineOwner(Protocol):
    """Who is told what happens on a line."""

    def _on_response(self, line: Any, response: Any) -> bool:
        """A response came; true if it is the last one."""

    def _on_over(self, line: Any, failure: WavegateError | None) -> None:
        """The call is over: after a failure, or in good order, or because this side cancelled it."""

    def _notify(self) -> None:
        """Something else changed."""


class Line(Generic[RequestT, ResponseT]):
    """One call: a task writes what waits in the outbox, another reads as long as `flow` is set."""

    def __init__(
        self, owner: LineOwner, channel: Channel, call: StreamCall[RequestT, ResponseT], route: str = ""
    ) -> None:
        self._owner: LineOwner | None = owner
        self.channel = channel
        self._call = call
        self.queued = 0
        self.written = 0
        self.session_id = ""
        """What the gateway named the session, which it does before the upstream has accepted it."""
        self.route = route
        """What leads a balancer to the same gateway again; empty where there is none, or it does not say."""
        self.over = False
        self.cancelled = False
        """Whether this side ended the call."""
        self.failure: WavegateError | None = None
        """Why it is over, unless it ended in good order."""
        self.flow = asyncio.Event()
        """While clear, nothing is handed on."""
        self.flow.set()
        self._outbox: deque[RequestT] = deque()
        self._half_close = False
        self._work = asyncio.Event()
        channel.lines += 1
        self._writer = asyncio.create_task(self._write())
        self._reader = asyncio.create_task(self._read())

    def put(self, request: RequestT) -> int:
        """Sends a request after those before it; `written` reaches the number given back once it has gone."""
        self._outbox.append(request)
        self._work.set()
        self.queued += 1
        return self.queued

    def end(self) -> None:
        """Half-closes the call once everything queued is written."""
        self._half_close = True
        self._work.set()

    async def discard(self, last: RequestT) -> bool:
        """Sends `last` instead of what is not sent yet, and waits for the end, of which nobody is told any more.

        False if that did not come in time.
        """
        self._owner = None
        self.flow.set()
        self._outbox.clear()
        self.put(last)
        self.end()
        await asyncio.wait([self._writer], timeout=LAST_WRITE_S)
        if self.written != self.queued or self.over:
            return False
        # A message that is sent may still wait for the gateway to read what came before it.
        await asyncio.wait([self._reader], timeout=LAST_ANSWER_S)
        return self._reader.done()

    async def stop(self) -> None:
        """Ends the call, if it lives, and its tasks. Takes no longer than the goodbye."""
        try:
            if not self.over:
                self._call.cancel()
                self._reader.cancel()
            await asyncio.wait([self._reader])
        finally:
            self._call.cancel()
            self._reader.cancel()
            self._writer.cancel()
        await asyncio.gather(self._reader, self._writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            while True:
                while self._outbox:
                    request = self._outbox.popleft()
                    await self._call.write(request)
                    self.written = self.queued - len(self._outbox)
                    self._notify()
                if self._half_close:
                    await self._call.done_writing()
                    return
                self._work.clear()
                await self._work.wait()
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call is over; the reader learns why

    async def _read(self) -> None:
        failure: WavegateError | None = None
        answered = last = False
        try:
            named = dict(await self._call.initial_metadata() or ())
            self.session_id = str(named.get("wavegate-session-id", ""))
            self.route = str(named.get(ROUTE_KEY, self.route))
            async for response in self._call:
                answered = True
                await self.flow.wait()
                last = self._owner is not None and self._owner._on_response(self, response)
                if last:
                    break
        except aio.AioRpcError as exc:
            failure = self.channel.error(exc, answered=answered or bool(self.session_id))
        except asyncio.CancelledError:
            self.cancelled = True
        except Exception as exc:  # whoever waits must hear of it, whatever it is
            failure = WavegateError(f"an answer of the gateway cannot be read: {exc}", code="INTERNAL")
            failure.__cause__ = exc
            self._call.cancel()
        self.over = True
        self.failure = failure
        self.channel.lines -= 1
        if self._owner is not None:
            self._owner._on_over(self, failure)
        if last:
            await self._goodbye()

    async def _goodbye(self) -> None:
        """Lets the gateway end the call itself, so that both sides see the same status."""
        self._outbox.clear()
        self.end()
        try:
            async with asyncio.timeout(GOODBYE_S):
                async for _ in self._call:
                    pass
        except (aio.AioRpcError, asyncio.CancelledError, TimeoutError):
            pass
        self._call.cancel()

    def _notify(self) -> None:
        if self._owner is not None:
            self._owner._notify()


class Duplex(Generic[RequestT, ResponseT, EventT]):
    """Base of the streams: a line, a buffer of events, and waiting. One event loop."""

    def __init__(self, *, buffer_limit_bytes: int | None) -> None:
        self._buffer_limit_bytes = buffer_limit_bytes
        self._line: Line[RequestT, ResponseT] | None = None
        self._input_ended = False

        self._buffer: deque[EventT] = deque()
        self._buffered_bytes = 0
        self._discarding = False
        self._waiting = 0
        self._paused = False
        self._change: asyncio.Event | None = None

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

    def _is_taken(self, line: Line[RequestT, ResponseT], number: int) -> bool:
        """Whether whoever sent request `number` of the line need not wait any longer."""
        return line.written >= number

    # --- sending --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._line is None:
            raise RuntimeError("it is not open yet: enter it by `async with`")
        if self._finished:
            raise self._closed_error()
        if self._input_ended:
            raise SessionClosedError("the session's input has ended; open another session to send more")

    async def _put(self, request: RequestT) -> None:
        """Sends a request; returns when the transport has taken it. A cancelled wait does not take it back."""
        self._check_open()
        assert self._line is not None
        await self._taken(self._line, self._line.put(request))

    async def _taken(self, line: Line[RequestT, ResponseT], number: int) -> None:
        await self._until(lambda: self._is_taken(line, number) or None)

    # --- receiving ------------------------------------------------------------------------------

    def _on_response(self, line: Line[RequestT, ResponseT], response: ResponseT) -> bool:
        event = self._receive(response)
        if event is not None:
            self._deliver(event)
        self._notify()
        return False

    def _on_over(self, line: Line[RequestT, ResponseT], failure: WavegateError | None) -> None:
        self._finish(failure)

    def _finish(self, failure: WavegateError | None) -> None:
        self._finished = True
        self._failure = failure
        self._notify()

    def _deliver(self, event: Any) -> None:
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
        if self._line is None:
            return
        limit = self._buffer_limit_bytes
        if (limit is None or self._buffered_bytes < limit or self._waiting) and not self._paused:
            self._line.flow.set()
        else:
            self._line.flow.clear()

    # --- waiting --------------------------------------------------------------------------------

    def _notify(self) -> None:
        if self._change is not None:
            self._change.set()
            self._change = None

    async def _changed(self) -> None:
        check_process()
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
        """Ends the call, if it lives, and all tasks. Takes no longer than the goodbye."""
        if self._line is not None:
            await self._line.stop()
