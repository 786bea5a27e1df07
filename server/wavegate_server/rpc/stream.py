"""What both bidirectional streams do: begin, read, write, end. A kind of stream brings its conversions.

Three tasks serve a call: one reads requests and hands them to the session, one drives the session, and the
handler's own writes what the session says. Nobody waits for anybody but through the session's bounds: a caller
that does not read fills the event log, and the upstream is read no further; a caller that sends too much is
read no further.

How a call ends (each point learnt the hard way, see docs/architecture.md):

- `session_ended` is written first, then input is read until it ends (`DRAIN_S` at most), then the call ends with
  the same status: a server that aborts while an asyncio client still writes loses its status.
- A cancelled call first looks like a half-close, for up to 50 ms. So a bare end of input waits `GRACE_S` before
  it means anything; an `end_session` means it at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.rpc import status
from wavegate_server.rpc.convert import common
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.trace import current_call, take_cut
from wavegate_server.session.base import Session
from wavegate_server.session.context import SessionContext
from wavegate_server.session.events import EndReason, EndSession, SessionEnded, Usage
from wavegate_server.session.log import Detached, Entry
from wavegate_server.telemetry import logs, names
from wavegate_server.waves.settings import Settings

logger = logging.getLogger(__name__)

GRACE_S = 0.06
"""A cancel shows itself at most 50 ms after it looked like an end of input (measured on grpcio 1.85)."""
_cutting: set[asyncio.Future[None]] = set()
"""Sessions on their way out, held so that their tasks are not collected."""
DRAIN_S = 1.0
"""How long input is read on after `session_ended`, so that the status arrives."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of stream: how its messages convert.

    `open(start, context)` checks the `start` message and makes the session; `command(request)` converts what
    follows; `response(entry, sequence)` converts what the session says. The first two raise errors of
    `wavegate_server.errors`.
    """

    name: str
    """The sessions' own `kind`."""
    open: Callable[[Any, SessionContext], Session]
    command: Callable[[Any], Any]
    response: Callable[[Entry, int], Any]
    defaults: Settings


def new_session_id() -> str:
    """An id that cannot be guessed: who knows it may not use it, but should not find it either."""
    return f"s-{secrets.token_hex(16)}"


async def serve(gateway: Gateway, kind: Kind, context: Any) -> None:
    """Serve one call to its end. Raises what ends the call on the wire (`grpc.aio.AbortError`)."""
    stream = _Stream(gateway, kind, context)
    error = await stream.run()
    if error is not None:
        await status.abort(context, error)


class _Stream:
    """One call."""

    def __init__(self, gateway: Gateway, kind: Kind, context: Any) -> None:
        self._gateway = gateway
        self._kind = kind
        self._context = context
        self._sequence = 0
        self._input_sequence = 0
        self._broken: BaseException | None = None
        self._driver: asyncio.Task[None] | None = None
        self._reader = 0
        """Token of the session's log."""
        self._said_all = False
        """Whether the session's last words were written."""
        self._heard_all = False
        """Whether the caller ended its input after that: it has heard them. Nothing else proves it."""
        self._resumed_after: int | None = None
        """Number of the last event that a resuming caller had."""
        self._repeated_until = 0
        """Input up to this number was kept before the call, so that a repetition of it is dropped."""

    async def run(self) -> WavegateError | None:
        """Serve the call; the error that it ends with."""
        try:
            start = await self._read_start()
            session = self._resume(start) if start.resume_session_id else self._open(start)
        except WavegateError as exc:
            await self._refuse(exc)
            return exc
        except asyncio.CancelledError:
            if (cut := take_cut()) is None:
                raise
            await self._write_refusal(cut)
            return cut
        call = current_call()
        call.span.set({names.SESSION_ID: session.session_id})
        logs.bind(**{names.LOG_SESSION_ID: session.session_id})
        if self._driver is None:
            self._driver = session.start()
            self._driver.add_done_callback(lambda _: self._gateway.registry.leave(call.caller))
        lost = True
        try:
            error = await self._serve(session, call.span.trace_id)
            lost = self._broken is not None
            if self._broken is not None:
                raise self._broken
            return error
        finally:
            if not self._taken_over(session):
                await self._let_go(session, lost=lost)

    def _taken_over(self, session: Session) -> bool:
        """Whether another call has resumed the session: true at once, though this one may be stuck in a write."""
        return not session.log.is_read_by(self._reader)

    def _open(self, start: Any) -> Session:
        """A new session. Raises errors of `wavegate_server.errors`."""
        call, gateway = current_call(), self._gateway
        active = gateway.registry.admit(call.caller)
        try:
            session = self._kind.open(
                start,
                SessionContext(
                    session_id=new_session_id(),
                    caller=call.caller,
                    upstreams=gateway.upstreams,
                    dialer=gateway.dialer,
                    bounds=gateway.bounds,
                    labels=dict(start.labels),
                    metric_labels=gateway.session_labels.values_of(start.labels),
                    client_session_id=start.client_session_id,
                    defaults=self._kind.defaults,
                    telemetry=gateway.telemetry,
                    span=call.span,
                    max_concurrent_sessions=gateway.registry.max_sessions_per_caller,
                    active_sessions=active,
                ),
            )
        except BaseException:
            gateway.registry.leave(call.caller)
            raise
        session.input_sequence = self._input_sequence
        session.grant_resume(common.seconds(start.resume_window))
        gateway.registry.add(session)
        self._reader = session.log.attach()
        return session

    def _resume(self, start: Any) -> Session:
        """A session that lost its call, or has another one. Raises errors of `wavegate_server.errors`."""
        common.required_id(start.resume_session_id, "start.resume_session_id")
        if start.last_received_sequence < 0:
            raise errors.InvalidInput.field("start.last_received_sequence", "must not be negative")
        call = current_call()
        session = self._gateway.registry.resumable(start.resume_session_id, call.caller, self._kind.name)
        session.reattach(start.last_received_sequence)
        call.span.link(session.context.span)
        self._reader = session.log.attach()
        self._driver = session.driver
        self._input_sequence = self._repeated_until = session.input_sequence
        self._resumed_after = start.last_received_sequence
        return session

    async def _let_go(self, session: Session, *, lost: bool) -> None:
        """The call is over. A session that may be resumed waits for that; any other one ends here.

        One that has ended waits, too: its last words may be lost in a network that broke under them.
        """
        registry = self._gateway.registry
        if (lost or not self._heard_all) and session.resume_window_s and not session.discarding:
            loop = asyncio.get_running_loop()

            def expired() -> None:
                registry.remove(session)
                tasks = asyncio.ensure_future(session.cut(), loop=loop)
                _cutting.add(tasks)
                tasks.add_done_callback(_cutting.discard)

            session.detach(expired)
            if session.ended is not None:
                registry.keep(session)
            return
        registry.remove(session)
        await session.cut()

    async def _read_start(self) -> Any:
        timeout_s = self._gateway.start_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                request = await self._context.read()
        except TimeoutError as exc:
            raise errors.StartTimeout(f"no start message came within {timeout_s:g} s") from exc
        if request is grpc.aio.EOF:
            raise errors.MessageOrder("the stream ended before its start message")
        if request.WhichOneof("input") != "start":
            raise errors.MessageOrder("the first message must be start")
        self._count(request)
        return request.start

    def _count(self, request: Any) -> int:
        """The number of an input message: the caller's own, which must grow, or one more than the last."""
        given = request.input_sequence
        if given == 0:
            self._input_sequence += 1
        elif given <= self._input_sequence:
            raise errors.MessageOrder(
                f"input_sequence must grow: {given} came after {self._input_sequence}; 0 lets the gateway count"
            )
        else:
            self._input_sequence = given
        return self._input_sequence

    async def _serve(self, session: Session, trace_id: str) -> WavegateError | None:
        await self._context.send_initial_metadata(
            (("wavegate-session-id", session.session_id), ("wavegate-trace-id", trace_id))
        )
        reader = asyncio.create_task(self._read(session), name=f"read {session.session_id}")
        cut: WavegateError | None = None
        try:
            await self._write(session, trace_id)
            if self._broken is None:
                await asyncio.wait({reader}, timeout=DRAIN_S)
            if self._heard_all and session.resume_window_s:
                await asyncio.sleep(GRACE_S)  # was it an end of input, or of the connection?
        except asyncio.CancelledError:
            # The gateway stops: no longer is the caller waited for, be it to read or to end its input.
            if (cut := take_cut()) is None:
                raise
        finally:
            reader.cancel()
            await asyncio.wait({reader})
        if self._taken_over(session):
            return errors.SessionTakenOver("another call has resumed this session")
        if cut is not None and not self._said_all:
            return cut
        if session.ended is None:
            return None  # broken; `run` says so
        return session.ended.error

    async def _read(self, session: Session) -> None:
        """Hand requests to the session until they end; after the session has ended, read and drop."""
        context = self._context
        ended_by_message = False
        while True:
            if not self._taken_over(session):
                await session.ready()
            try:
                request = await context.read()
                received_ns = time.time_ns()
                if request is grpc.aio.EOF:
                    self._heard_all = self._said_all
                    break
                if self._taken_over(session) or 0 < request.input_sequence <= self._repeated_until:
                    continue  # of another call by now; or kept already, and sent again by a resuming caller
                sequence = self._count(request)
                if session.ended is None:
                    command = self._kind.command(request)
                    ended_by_message = ended_by_message or isinstance(command, EndSession)
                    session.submit(command, sequence, received_ns)
            except WavegateError as exc:
                if not self._taken_over(session):
                    session.fail(exc)
            except (grpc.aio.InternalError, grpc.aio.UsageError):
                return  # the connection has gone; the handler is told in its own way
            except Exception as exc:
                logger.exception("a request could not be processed")
                session.fail(status.as_error(exc))
                return
        if not ended_by_message and session.ended is None:
            await asyncio.sleep(GRACE_S)
            if not self._taken_over(session):
                session.submit(EndSession(by_half_close=True), self._input_sequence)

    async def _write(self, session: Session, trace_id: str) -> None:
        """Write what the session says until it has said its last, or another call goes on with it."""
        write, response, log = self._context.write, self._kind.response, session.log
        try:
            if self._resumed_after is not None:
                entry = Entry(session.resumed_event(trace_id), session.input_sequence)
                await write(response(entry, self._resumed_after))
                self._sequence = self._resumed_after
            try:
                while (waiting := await log.next(self._reader)) is not None:
                    entry, self._sequence = waiting, log.position
                    session.handing_over(entry.event)
                    message, handed_ns = response(entry, self._sequence), time.time_ns()
                    # Before the write: who hears them and ends its input may be read before that returns.
                    self._said_all = isinstance(entry.event, SessionEnded)
                    await write(message)
                    session.handed_over(entry, self._sequence, handed_ns, time.time_ns())
            except Detached:
                error = errors.SessionTakenOver("another call has resumed this session")
                last = SessionEnded(EndReason.TAKEN_OVER, error, session.usage())
                await write(response(Entry(last, session.input_sequence), self._sequence + 1))
        except (grpc.aio.InternalError, grpc.aio.UsageError) as exc:
            self._broken = exc  # the connection has gone; a cancel would have come next

    async def _refuse(self, error: WavegateError) -> None:
        """End a call that never became a session: the same last words, then input is read to its end."""
        await self._write_refusal(error)
        try:
            async with asyncio.timeout(DRAIN_S):
                while await self._drop():
                    pass
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if take_cut() is None:
                raise

    async def _write_refusal(self, error: WavegateError) -> None:
        usage = Usage(0, 0, 0.0, 0, 0, 0.0, None)
        match error:
            case errors.StartTimeout():
                reason = EndReason.CLIENT_IDLE
            case errors.CapacityError():
                reason = EndReason.LIMIT
            case errors.GatewayDraining():
                reason = EndReason.DRAIN
            case _:
                reason = EndReason.FAILURE
        entry = Entry(SessionEnded(reason, error, usage), self._input_sequence)
        await self._context.write(self._kind.response(entry, 1))

    async def _drop(self) -> bool:
        """Read one request and forget it; False at their end."""
        try:
            return (await self._context.read()) is not grpc.aio.EOF
        except WavegateError:
            return True  # one that cannot be parsed, dropped like the others
