"""What all endpoints of one local upstream share: its state, who may come in, and what happens around a request."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine

from aiohttp import web

from waves_local import catalog, frames
from waves_local.connection import Connection
from waves_local.engine import Engine
from waves_local.faults import Fault, FaultPlan, Faults
from waves_local.journal import ConnectionRecord, Journal
from waves_local.limits import Limits
from waves_local.options import Options

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ErrorBody = Callable[[str, str], bytes]
"""Error name and sentence -> body."""


class Refusal(Exception):
    """Raised when a request is answered with an error status and a JSON body."""

    def __init__(self, status: int, body: bytes, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(body.decode())
        self.status = status
        self.body = body
        self.headers = headers or {}

    def response(self) -> web.Response:
        return web.Response(
            status=self.status, body=self.body, content_type="application/json", headers=self.headers
        )


class Upstream:
    """A running local upstream.

    `options` may be replaced while it runs: connections made from then on follow the new ones (the limits and the
    journal's bounds stay).
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
        self.voices = catalog.by_id(engine.synthesizer.voices())
        self.stt_clock_s: dict[tuple[str, str], float] = {}
        """Where the times of the next STT socket begin, by key and `external_session_id`, if they run on."""
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """`http://HOST:PORT`; WebSockets are served there too."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def open_connections(self) -> int:
        """WebSockets that are open."""
        return len(self._connections)

    def __repr__(self) -> str:
        return f"<Upstream {self.url} engine={self.engine.name} open={self.open_connections}>"

    def authorize(self, request: web.Request, error: ErrorBody) -> str:
        """The caller's key. Raises Refusal: 401 without a good one, 403 with a forbidden one."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        key = key.strip()
        options = self.options
        if scheme.lower() == "bearer" and key:
            if key in options.forbidden_keys:
                raise Refusal(403, error("Forbidden", "Your plan does not include access to this resource."))
            if not options.keys or key in options.keys:
                return key
        raise Refusal(401, error("Unauthorized", "Bearer token is missing or invalid."))

    def too_many(self, body: bytes) -> Refusal:
        """A 429."""
        retry_after_s = self.options.retry_after_s
        return Refusal(429, body, headers={"Retry-After": str(retry_after_s)} if retry_after_s else {})

    def endpoint(
        self,
        kind: str,
        serve: Callable[[Upstream, web.Request, ConnectionRecord, FaultPlan], Awaitable[web.StreamResponse]],
    ) -> Handler:
        """A handler: `serve` with the journal, handshake faults and refusals around it."""
        return functools.partial(self._handle, kind, serve)

    async def _handle(
        self,
        kind: str,
        serve: Callable[[Upstream, web.Request, ConnectionRecord, FaultPlan], Awaitable[web.StreamResponse]],
        request: web.Request,
    ) -> web.StreamResponse:
        record = self.journal.open(kind, request.path, request.query, request.headers)
        plan = self.faults.plan(kind, record.number)
        try:
            if (fault := plan.handshake()) is not None:
                raise await self._refuse(record, fault)
            response = await serve(self, request, record, plan)
            if record.status is None:
                record.status = response.status
            return response
        except Refusal as refusal:
            record.status = refusal.status
            record.refusal = str(refusal)
            return refusal.response()
        finally:
            if not any(c.record is record for c in self._connections):
                plan.closed()
                if record.closed_at_s is None:
                    record.closed_at_s = asyncio.get_running_loop().time()
            self.journal.notify()

    async def _refuse(self, record: ConnectionRecord, fault: Fault) -> Refusal:
        record.closed_by = "fault"
        if fault.do == "hang":
            self.journal.notify()
            await asyncio.Event().wait()  # until the client goes, which cancels this handler
        headers = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
        body = fault.body.encode() or frames.tts_http_error("Fault", "A scripted fault.")
        return Refusal(fault.status, body, headers=headers)

    async def converse(self, connection: Connection, session: Coroutine[None, None, None]) -> None:
        """Run the session of a WebSocket to its end.

        It is not cut short when the client goes, which cancels the handler: what the client had sent before is
        still read then.
        """

        async def run() -> None:
            try:
                await session
            except Exception:
                _log.exception("a session of %s failed", connection.record.kind)
                connection.close_soon(1011, "internal error")
            finally:
                await connection.ended()
                self._connections.discard(connection)

        self._connections.add(connection)
        try:
            await asyncio.shield(self.in_background(run()))
        except asyncio.CancelledError:
            connection.lost()
            raise

    def in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that may outlive its request. It is cancelled when the upstream stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def hang_up(self) -> None:
        """End all that is open, with a close frame where the client still answers."""
        closing = [asyncio.create_task(c.close(1001, "server shutdown")) for c in tuple(self._connections)]
        if closing:
            await asyncio.wait(closing, timeout=1.0)
        for connection in tuple(self._connections):
            connection.drop()
        if tasks := tuple(self._tasks):
            await asyncio.wait(tasks, timeout=1.0)
            for task in tasks:
                task.cancel()
