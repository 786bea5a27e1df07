"""The WebSocket endpoints: from the URL to a session."""

from __future__ import annotations

from aiohttp import web

from waves_local import frames
from waves_local.connection import Connection
from waves_local.faults import FaultPlan
from waves_local.journal import ConnectionRecord
from waves_local.stt import SttSession
from waves_local.stt_request import ParameterError, read_live_parameters
from waves_local.tts import TtsSession
from waves_local.upstream import Refusal, Upstream

# Longer than any message that a client has reason to send.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_LONGEST_TIMEOUT_S = 86_400


async def tts_live(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET /waves/v1/tts/live`, upgraded; also `…/lightning-v3.1/get_speech/stream`."""
    return await _tts(upstream, request, record, plan, is_v2=False)


async def tts_v2(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET …/lightning-v2/get_speech/stream`, upgraded."""
    return await _tts(upstream, request, record, plan, is_v2=True)


async def stt_live(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET /waves/v1/stt/live`, upgraded."""
    return await _stt(upstream, request, record, plan, is_old_path=False)


async def stt_old(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> web.StreamResponse:
    """`GET …/pulse/get_text`, upgraded."""
    return await _stt(upstream, request, record, plan, is_old_path=True)


async def _tts(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_v2: bool
) -> web.StreamResponse:
    options, limits = upstream.options, upstream.limits
    key = upstream.authorize(request, frames.tts_http_error)
    if upstream.engine.cannot_speak:
        raise Refusal(400, frames.tts_http_error("InvalidRequest", upstream.engine.cannot_speak))
    idle_timeout_s = _idle_timeout_s(request.query.get("timeout", ""), options.idle_timeout_s)
    if not limits.take_socket(key, "tts"):
        raise upstream.too_many(
            frames.tts_http_error("TooManyRequests", "Concurrency limit reached: too many open WebSockets.")
        )
    try:
        ws, connection = await _upgrade(upstream, request, record, plan)
    except BaseException:
        limits.free_socket(key, "tts")
        raise

    async def converse() -> None:
        session = TtsSession(
            connection,
            upstream.engine,
            options,
            limits,
            upstream.voices,
            key=key,
            idle_timeout_s=idle_timeout_s,
            is_v2=is_v2,
        )
        try:
            await session.run()
        finally:
            limits.free_socket(key, "tts")

    await upstream.converse(connection, converse())
    return ws


async def _stt(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan, *, is_old_path: bool
) -> web.StreamResponse:
    options, limits = upstream.options, upstream.limits
    key = upstream.authorize(request, lambda _, message: frames.stt_http_error(message))
    if upstream.engine.cannot_listen:
        raise Refusal(400, frames.stt_http_error(upstream.engine.cannot_listen))
    try:
        parameters = read_live_parameters(request.query, options, is_old_path=is_old_path)
    except ParameterError as error:
        raise Refusal(400, frames.stt_http_error(str(error), error.details)) from error
    ws, connection = await _upgrade(upstream, request, record, plan)

    async def converse() -> None:
        if not limits.take_socket(key, "stt"):
            # Documented so: accepted first, then closed.
            await connection.close(1008, "concurrency limit reached")
            return
        clock = (key, parameters.external_session_id)
        offset_s = 0.0 if options.stt_times_restart else upstream.stt_clock_s.get(clock, 0.0)
        session = SttSession(connection, upstream.engine, options, parameters, time_offset_s=offset_s)
        try:
            await session.run()
        finally:
            limits.free_socket(key, "stt")
            if not options.stt_times_restart:
                upstream.stt_clock_s[clock] = offset_s + session.heard_s

    await upstream.converse(connection, converse())
    return ws


async def _upgrade(
    upstream: Upstream, request: web.Request, record: ConnectionRecord, plan: FaultPlan
) -> tuple[web.WebSocketResponse, Connection]:
    ws = web.WebSocketResponse(
        autoping=False, autoclose=False, compress=False, max_msg_size=_MAX_MESSAGE_BYTES
    )
    if not ws.can_prepare(request):
        raise Refusal(426, frames.tts_http_error("UpgradeRequired", "Connect here with a WebSocket."))
    await ws.prepare(request)
    connection = Connection(ws, request, record, upstream.journal, plan)
    connection.opened()
    return ws, connection


def _idle_timeout_s(given: str, default_s: float) -> float:
    if not given:
        return default_s
    if not (given.isascii() and given.isdigit() and 0 < int(given) <= _LONGEST_TIMEOUT_S):
        raise Refusal(
            400, frames.tts_http_error("InvalidRequest", "'timeout' must be a positive integer (seconds).")
        )
    return int(given)
