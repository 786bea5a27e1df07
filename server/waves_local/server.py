"""The local upstream, put together: every endpoint on one port.

async with serve(options=Options(complete_closes=True)) as upstream:
    ... connect to upstream.url ...
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from waves_local import control, frames, http, sockets
from waves_local.deterministic import deterministic_engine
from waves_local.engine import Engine
from waves_local.faults import Fault, Faults
from waves_local.options import Options
from waves_local.upstream import Handler, Refusal, Upstream

_log = logging.getLogger(__name__)

_BASES = ("/waves/v1", "/api/v1")
"""The older paths are known under both; the newer ones under the first."""

_MAX_URL_BYTES = 1024 * 1024
"""Room for the 10,000 keywords that an STT connection may name."""

_RETIRED = (
    "/lightning/get_speech",
    "/lightning-large/get_speech",
    "/lightning-large/stream",
    "/lightning-large/get_speech/stream",
    "/streaming-tts/stream",
)


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

    Without an engine the deterministic one is used. `port` 0 picks a free one; `upstream.port` says which. Raises
    OSError where the address cannot be had, FaultSyntaxError where a fault cannot be read.
    """
    upstream = Upstream(engine or deterministic_engine(), options or Options(), Faults(faults))
    runner = web.AppRunner(
        application(upstream),
        access_log=None,
        handle_signals=False,
        # Without this a response to a client that has gone would be produced to its end.
        handler_cancellation=True,
        shutdown_timeout=1.0,
        max_line_size=_MAX_URL_BYTES,
    )
    await runner.setup()
    try:
        # Clients connect in bursts, in tests above all.
        await web.TCPSite(runner, host, port, backlog=1024).start()
        upstream.host, upstream.port = runner.addresses[0][:2]
        yield upstream
    finally:
        await runner.cleanup()


def application(upstream: Upstream) -> web.Application:
    """All routes of a local upstream."""
    app = web.Application(
        client_max_size=upstream.options.max_upload_mb * 1024 * 1024, middlewares=[_errors_as_json]
    )
    add = app.router.add_route
    add("GET", "/waves/v1/tts/live", upstream.endpoint("tts", sockets.tts_live))
    add("POST", "/waves/v1/tts/live", upstream.endpoint("sse", http.tts_sse))
    add("POST", "/waves/v1/tts", upstream.endpoint("tts-http", http.tts_whole))
    add("POST", "/waves/v1/tts/", upstream.endpoint("tts-http", http.tts_whole))
    add("GET", "/waves/v1/stt/live", upstream.endpoint("stt", sockets.stt_live))
    add("POST", "/waves/v1/stt/", upstream.endpoint("stt-http", http.stt_recorded))
    add("POST", "/waves/v1/stt", upstream.endpoint("stt-http", http.stt_recorded))
    add("GET", "/waves/v1/voice/get-all-models", upstream.endpoint("voices", http.all_voices))
    add("GET", "/waves/v1/health", http.health)
    for base in _BASES:
        add("GET", base + "/{model}/get_voices", upstream.endpoint("voices", http.voices))
        old_tts = (
            ("GET", "/lightning-v3.1/get_speech/stream", "tts", sockets.tts_live),
            ("GET", "/lightning-v2/get_speech/stream", "tts", sockets.tts_v2),
            ("POST", "/lightning-v3.1/stream", "sse", http.tts_sse),
            ("POST", "/lightning-v2/stream", "sse", http.tts_sse_v2),
            ("POST", "/lightning-v3.1/get_speech", "tts-http", http.tts_whole),
            ("POST", "/lightning-v2/get_speech", "tts-http", http.tts_whole_v2),
        )
        for method, path, kind, endpoint in old_tts:
            add(
                method,
                base + path,
                _unless_gone(upstream, "old_tts_paths", upstream.endpoint(kind, endpoint)),
            )
        old_stt = (
            ("GET", "/pulse/get_text", "stt", sockets.stt_old),
            ("POST", "/pulse/get_text", "stt-http", http.stt_recorded_old),
        )
        for method, path, kind, endpoint in old_stt:
            add(
                method,
                base + path,
                _unless_gone(upstream, "old_stt_paths", upstream.endpoint(kind, endpoint)),
            )
        for path in _RETIRED:
            add("*", base + path, _gone)
    if upstream.options.control:
        app.add_routes(control.routes(upstream))

    async def hang_up(_: web.Application) -> None:
        await upstream.hang_up()

    app.on_shutdown.append(hang_up)
    return app


def _unless_gone(upstream: Upstream, option: str, handler: Handler) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        match getattr(upstream.options, option):
            case "gone":
                return await _gone(request)
            case "missing":
                return _not_found()
        return await handler(request)

    return handle


async def _gone(_: web.Request) -> web.StreamResponse:
    message = "This endpoint was retired. Use /waves/v1/tts/live or /waves/v1/stt/live."
    return Refusal(410, frames.tts_http_error("Gone", message)).response()


def _not_found() -> web.Response:
    return Refusal(404, frames.tts_http_error("NotFound", "There is no such endpoint.")).response()


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the library itself refuses (no such path, wrong method) in the service's form."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _not_found()
    except web.HTTPException as error:
        return web.Response(
            status=error.status,
            body=frames.tts_http_error(error.reason.replace(" ", ""), error.reason + "."),
            content_type="application/json",
            headers={"Allow": error.headers["Allow"]} if "Allow" in error.headers else {},
        )
    except ConnectionError:
        if request.transport is not None and not request.transport.is_closing():
            raise
        # It left in the handshake, or while it sent its request. What is returned goes nowhere.
        _log.debug("%s %s: the client has gone", request.method, request.path)
        return web.Response(status=499)
    except Exception:
        _log.exception("%s %s failed", request.method, request.path)
        body = frames.tts_http_error("InternalServerError", "An unexpected error occurred.")
        return Refusal(500, body).response()
