"""SessionService: the control plane over live sessions of both kinds."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from itertools import islice
from typing import Any, Final

import grpc.aio
from wavegate.speech.v1 import session_service_pb2 as pb
from wavegate.speech.v1 import session_service_pb2_grpc as pb_grpc

from wavegate_server import errors
from wavegate_server.errors import WavegateError
from wavegate_server.rpc.auth import ANONYMOUS
from wavegate_server.rpc.convert import control
from wavegate_server.rpc.convert.common import page_token, place_of_token, required_id
from wavegate_server.rpc.gateway import Gateway
from wavegate_server.rpc.trace import current_call
from wavegate_server.session.base import Session
from wavegate_server.session.events import AckState, SessionEnded, SettingsAcknowledged

MAX_UNREAD = 1024
"""Responses that wait for a control stream's reader; then its requests are read no further."""
DEFAULT_PAGE = 100
MAX_PAGE = 1000
SPANS_PER_RESPONSE: Final = 50
"""They take the event loop about a millisecond."""
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")


class SessionServicer(pb_grpc.SessionServiceServicer):
    """Serves the live sessions of the registry and the newest spans, each caller only its own."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def UpdateSettings(self, request_iterator: Any, context: Any) -> None:  # noqa: N802
        await _Control(self._gateway, context).run()

    async def GetSession(self, request: pb.GetSessionRequest, context: Any) -> pb.GetSessionResponse:  # noqa: N802
        session = self._get(request.session_id)
        return pb.GetSessionResponse(session=control.session(session))

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> pb.ListSessionsResponse:  # noqa: N802
        if request.page_size < 0:
            raise errors.InvalidInput.field("page_size", "must not be negative")
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        sessions = self._gateway.registry.of_caller(current_call().caller, request.labels)
        # Sessions come and go between pages; the place is where the last one stood in time.
        sessions.sort(key=lambda s: (s.created_at, s.session_id))
        if request.page_token:
            after = _place(request.page_token)
            sessions = [s for s in sessions if (s.created_at, s.session_id) > after]
        page = sessions[:size]
        token = _token(page[-1]) if len(sessions) > size else ""
        return pb.ListSessionsResponse(sessions=[control.session(s) for s in page], next_page_token=token)

    async def CloseSession(self, request: pb.CloseSessionRequest, context: Any) -> pb.CloseSessionResponse:  # noqa: N802
        self._get(request.session_id).close_by_operator(request.discard)
        return pb.CloseSessionResponse()

    async def GetTrace(self, request: pb.GetTraceRequest, context: Any) -> None:  # noqa: N802
        caller = current_call().caller
        spans = self._gateway.telemetry.recent(_trace_key(request), "" if caller == ANONYMOUS else caller)
        is_empty = True
        while batch := list(islice(spans, SPANS_PER_RESPONSE)):
            is_empty = False
            await context.write(pb.GetTraceResponse(spans=map(control.trace_span, batch)))
        if is_empty:
            raise errors.TraceNotFound(
                f"no span of {_trace_key(request)!r} is held: the gateway keeps the newest ones of its callers, each "
                "from its end on; ask soon after a session, or ask the collector"
            )

    def _get(self, session_id: str) -> Session:
        return self._gateway.registry.get(required_id(session_id, "session_id"), current_call().caller)


def _trace_key(request: pb.GetTraceRequest) -> str:
    """What is asked for. Raises `errors.InvalidInput`."""
    match request.WhichOneof("key"):
        case "trace_id":
            trace_id = request.trace_id.lower()
            if not _TRACE_ID.fullmatch(trace_id):
                raise errors.InvalidInput.field("trace_id", "must be 32 hex digits")
            return trace_id
        case "session_id":
            return required_id(request.session_id, "session_id")
    raise errors.InvalidInput.field("key", "must be a trace_id or a session_id")


def _token(session: Session) -> str:
    return page_token("sessions", f"{session.created_at!r} {session.session_id}")


def _place(token: str) -> tuple[float, str]:
    created_at, _, session_id = place_of_token("sessions", token).partition(" ")
    try:
        return float(created_at), session_id
    except ValueError as exc:
        raise errors.InvalidInput.field("page_token", "is not one that this service gave") from exc


class _Control:
    """One UpdateSettings call."""

    def __init__(self, gateway: Gateway, context: Any) -> None:
        self._gateway = gateway
        self._context = context
        self._caller = current_call().caller
        self._out: deque[pb.UpdateSettingsResponse] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._waiting: dict[str, set[str]] = {}
        """The deltas whose terminal ack is to come, by session. One that came twice has one ack."""
        self._listeners: dict[str, tuple[Session, Any]] = {}
        self._watched: set[str] = set()
        self._input_ended = False
        self._error: WavegateError | None = None

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(), name="read control stream")
                await self._write()
                reader.cancel()
        finally:
            for session, listener in self._listeners.values():
                session.unwatch(listener)
        if self._error is not None:
            raise self._error

    async def _read(self) -> None:
        try:
            while True:
                await self._room.wait()
                request = await self._context.read()
                if request is grpc.aio.EOF:
                    break
                self._take(request)
        except WavegateError as exc:
            self._error = exc
        self._input_ended = True
        self._wake.set()

    def _take(self, request: pb.UpdateSettingsRequest) -> None:
        """Hand one delta to its session. Raises `errors.InvalidInput` for an id that is none."""
        session_id = required_id(request.session_id, "session_id")
        update_id = required_id(request.update_id, "update_id")
        try:
            session = self._gateway.registry.get(session_id, self._caller)
        except errors.SessionNotFound as exc:
            ack = SettingsAcknowledged(update_id, AckState.REJECTED, error=exc)
            self._put(control.unknown_session_ack(session_id, ack))
            return
        listener = self._listener(session)
        if request.watch:
            self._watched.add(session_id)
            session.watch(listener)
        self._waiting.setdefault(session_id, set()).add(update_id)
        session.update_settings(control.update(session, request), listener, current_call().span)

    def _listener(self, session: Session) -> Any:
        """One listener a session: it is told of its acks, and with `watch` of all that happens."""
        session_id = session.session_id
        if session_id not in self._listeners:

            def listen(event: Any) -> None:
                if isinstance(event, SettingsAcknowledged) and event.state.terminal:
                    self._waiting.get(session_id, set()).discard(event.update_id)
                self._put(control.session_event(session, event))
                if isinstance(event, SessionEnded):
                    self._listeners.pop(session_id, None)
                    self._watched.discard(session_id)
                    self._waiting.pop(session_id, None)

            self._listeners[session_id] = (session, listen)
        return self._listeners[session_id][1]

    def _put(self, response: pb.UpdateSettingsResponse) -> None:
        self._out.append(response)
        if len(self._out) >= MAX_UNREAD:
            self._room.clear()
        self._wake.set()

    def _done(self) -> bool:
        """After the last request: every delta has its terminal ack, and every watched session has ended."""
        if self._error is not None:
            return True
        return self._input_ended and not self._watched and not any(self._waiting.values())

    async def _write(self) -> None:
        while True:
            while self._out:
                response = self._out.popleft()
                if len(self._out) < MAX_UNREAD:
                    self._room.set()
                await self._context.write(response)
            if self._done():
                return
            self._wake.clear()
            await self._wake.wait()
