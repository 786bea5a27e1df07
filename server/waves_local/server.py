"""The local upstream: every endpoint on one port.

async with serve(engine=deterministic_engine(), options=Options(...)) as upstream:
    ... connect to upstream.url ...
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from waves_local import catalog, frames
from waves_local.connection import Connection
from waves_local.deterministic import deterministic_engine
from waves_local.engine import Engine
from waves_local.faults import Fault, FaultPlan, Faults
from waves_local.journal import ConnectionRecord, Journal
from waves_local.limits import Limits
from waves_local.options import Options
from waves_local.stt import SttSession
from waves_local.stt_request import ParameterError, read_live_parameters
from waves_local.tts import TtsSession

_log = logging.getLogger(__name__)

# Longer than any message that a client has reason to send.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_MAX_BODY_BYTES = 250 * 1024 * 1024


class Refusal(Exception):
    """Raised when a request is answered with an error status."""

    def __init__(
        self, status: int, body: bytes, *, headers: dict[str, str] | None = None, reason: str = ""
    ) -> None:
        super().__init__(reason or body.decode())
        self.status = status
        self.body = body
        self.headers = headers or {}


class Upstream:
    """A running local upstream.

    `options` may be replaced while it runs: connections made from then on follow the new ones.
    """

    def __init__(self, engine: Engine, options: Options, faults: Faults) -> None:
        self.engine = engine
        self.options = options
        self.faults = faults
        self.journal = Journal(
            options.journal_connections, options.journal_messages, keep_audio=options.journal_audio
        )
        self.limits = Limits(options)
        self.host = ""
        self.port = 0
        self._voices = catalog.by_id(engine.synthesizer.voices())
        self._sessions: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._stt_clock_s: dict[tuple[str, str], float] = {}

    @property
    def url(self) -> str:
        """`http://HOST:PORT`; WebSockets are served there too."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Upstream {self.url} engine={self.engine.name} open={len(self._connections)}>"

    # --- what all endpoints share ------------------------------------------------------------------------

    def authorize(self, request: web.Request, error: Callable[[str, str], bytes]) -> str:
        """The caller's key. Raises Refusal: 401 without a good one, 403 with a forbidden one."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        if (
            scheme.lower() != "bearer"
            or not key
            or (self.options.keys and key not in self.options.keys and key not in self.options.forbidden_keys)
        ):
            raise Refusal(401, error("Unauthorized", "Bearer token is missing or invalid."))
        if key in self.options.forbidden_keys:
            raise Refusal(403, error("Forbidden", "This key may not use this resource."))
        return key

    def too_many(self, body: bytes) -> Refusal:
        """A 429."""
        retry_after_s = self.options.retry_after_s
        return Refusal(429, body, headers={"Retry-After": str(retry_after_s)} if retry_after_s else {})

    def endpoint(
        self,
        kind: str,
        serve: Callable[[web.Request, ConnectionRecord, FaultPlan], Awaitable[web.StreamResponse]],
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler with journal, handshake faults and refusals around `serve`."""

        async def handle(request: web.Request) -> web.StreamResponse:
            record = self.journal.open(kind, request.path, request.query, request.headers)
            plan = self.faults.plan(kind, record.number)
            if (fault := plan.handshake()) is not None:
                return await self._refuse_by_fault(request, record, fault)
            try:
                response = await serve(request, record, plan)
            except Refusal as refusal:
                record.status = refusal.status
                record.refusal = str(refusal)
                self._finish(record)
                return web.Response(
                    status=refusal.status,
                    body=refusal.body,
                    content_type="application/json",
                    headers=refusal.headers,
                )
            if record.status is None:
                record.status = response.status
            self._finish(record)
            return response

        return handle

    def _finish(self, record: ConnectionRecord) -> None:
        if record.closed_at_s is None:
            record.closed_at_s = asyncio.get_running_loop().time()
        self.journal.notify()

    async def _refuse_by_fault(
        self, request: web.Request, record: ConnectionRecord, fault: Fault
    ) -> web.Response:
        record.closed_by = "fault"
        if fault.do == "hang":
            self.journal.notify()
            try:
                await asyncio.Event().wait()  # until the client goes, which cancels this handler
            finally:
                self._finish(record)
        record.status = fault.status
        record.refusal = "fault"
        self._finish(record)
        headers = {}
        if fault.retry_after_s is not None:
            headers["Retry-After"] = f"{fault.retry_after_s:g}"
        body = fault.body.encode() or frames.dumps({"error": "Fault", "message": "A scripted fault."})
        return web.Response(status=fault.status, body=body, content_type="application/json", headers=headers)

    # --- WebSockets --------------------------------------------------------------------------------------

    async def _upgrade(
        self, request: web.Request, record: ConnectionRecord, plan: FaultPlan
    ) -> tuple[web.WebSocketResponse, Connection]:
        ws = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=_MAX_MESSAGE_BYTES, timeout=2.0
        )
        if not ws.can_prepare(request):
            raise Refusal(426, frames.tts_http_error("UpgradeRequired", "This endpoint speaks WebSocket."))
        await ws.prepare(request)
        connection = Connection(ws, request, record, self.journal, plan)
        connection.opened()
        return ws, connection

    async def _converse(self, connection: Connection, session: Awaitable[None]) -> None:
        """Run a session to its end, also when the handler is cancelled because the client has gone: what the
        client had sent before is still read then."""

        async def run() -> None:
            self._connections.add(connection)
            try:
                await session
            finally:
                await connection.ended()
                self._connections.discard(connection)

        task = asyncio.create_task(run())
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)
        await asyncio.shield(task)

    async def tts_socket(
        self, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_v2: bool = False
    ) -> web.StreamResponse:
        """`GET …/tts/live` and the older TTS paths, upgraded."""
        options = self.options
        key = self.authorize(request, frames.tts_http_error)
        timeout = request.query.get("timeout", "")
        idle_timeout_s = options.idle_timeout_s
        if timeout:
            if not (timeout.isascii() and timeout.isdigit() and 0 < int(timeout) <= 86400):
                raise Refusal(
                    400,
                    frames.tts_http_error(
                        "InvalidRequest", "'timeout' must be a positive integer (seconds)."
                    ),
                )
            idle_timeout_s = int(timeout)
        if not self.limits.take_socket(key, "tts"):
            raise self.too_many(
                frames.tts_http_error(
                    "TooManyRequests", "Concurrency limit reached: too many open WebSockets."
                )
            )
        try:
            ws, connection = await self._upgrade(request, record, plan)
        except BaseException:
            self.limits.free_socket(key, "tts")
            raise

        async def run() -> None:
            try:
                await TtsSession(
                    connection,
                    self.engine,
                    options,
                    self.limits,
                    self._voices,
                    key=key,
                    idle_timeout_s=idle_timeout_s,
                    is_v2=is_v2,
                ).run()
            finally:
                self.limits.free_socket(key, "tts")

        await self._converse(connection, run())
        return ws

    async def stt_socket(
        self, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_old_path: bool = False
    ) -> web.StreamResponse:
        """`GET …/stt/live` and its older path, upgraded."""
        options = self.options
        key = self.authorize(request, lambda _, message: frames.stt_http_error(message))
        try:
            parameters = read_live_parameters(request.query, options, is_old_path=is_old_path)
        except ParameterError as error:
            raise Refusal(400, frames.stt_http_error(str(error), error.details)) from error
        ws, connection = await self._upgrade(request, record, plan)

        async def run() -> None:
            if not self.limits.take_socket(key, "stt"):
                await connection.close(1008, "concurrency limit reached")
                return
            clock = (key, parameters.external_session_id)
            offset_s = 0.0 if options.stt_times_restart else self._stt_clock_s.get(clock, 0.0)
            try:
                session = SttSession(connection, self.engine, options, parameters, time_offset_s=offset_s)
                await session.run()
                if not options.stt_times_restart:
                    self._stt_clock_s[clock] = offset_s + session.heard_s
            finally:
                self.limits.free_socket(key, "stt")

        await self._converse(connection, run())
        return ws

    # --- the application ---------------------------------------------------------------------------------

    def application(self) -> web.Application:
        """All routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_get("/waves/v1/tts/live", self.endpoint("tts", self.tts_socket))
        app.router.add_get("/waves/v1/stt/live", self.endpoint("stt", self.stt_socket))
        app.on_shutdown.append(self._hang_up)
        return app

    async def _hang_up(self, _: web.Application) -> None:
        closing = [asyncio.create_task(c.close(1001, "server shutdown")) for c in tuple(self._connections)]
        if closing:
            await asyncio.wait(closing, timeout=1.0)
        for connection in tuple(self._connections):
            connection.drop()
        if self._sessions:
            await asyncio.wait(tuple(self._sessions), timeout=1.0)
        for session in tuple(self._sessions):
            session.cancel()


@asynccontextmanager
async def serve(
    *,
    engine: Engine | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    options: Options | None = None,
    faults: Iterable[Fault | str] = (),
) -> AsyncIterator[Upstream]:
    """Serve until the block is left; then open connections are closed with 1001.

    Without an engine the deterministic one is used. `port` 0 picks a free one. Raises OSError where the address
    cannot be had.
    """
    upstream = Upstream(engine or deterministic_engine(), options or Options(), Faults(faults))
    runner = web.AppRunner(
        upstream.application(),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=1.0,
        handle_signals=False,
    )
    await runner.setup()
    try:
        # Connections come in bursts in tests: leave room for them.
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        upstream.host, upstream.port = runner.addresses[0][:2]
        yield upstream
    finally:
        await runner.cleanup()
