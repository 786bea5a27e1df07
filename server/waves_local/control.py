"""`/_waves_local/…`: the journal and the faults, for those who are not in the same process. Loopback only."""

from __future__ import annotations

import ipaddress
from typing import Any

from aiohttp import web

from waves_local import frames
from waves_local.faults import Fault, FaultSyntaxError
from waves_local.upstream import Handler, Refusal, Upstream


def routes(upstream: Upstream) -> list[web.RouteDef]:
    """The control endpoint's routes."""

    def guarded(handler: Any) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                _require_loopback(request)
                answer = await handler(upstream, request)
            except Refusal as refusal:
                return refusal.response()
            return web.Response(body=frames.dumps(answer), content_type="application/json")

        return handle

    return [
        web.get("/_waves_local/journal", guarded(_get_journal)),
        web.delete("/_waves_local/journal", guarded(_clear_journal)),
        web.get("/_waves_local/faults", guarded(_get_faults)),
        web.post("/_waves_local/faults", guarded(_add_faults)),
        web.delete("/_waves_local/faults", guarded(_clear_faults)),
    ]


def _require_loopback(request: web.Request) -> None:
    try:
        is_loopback = ipaddress.ip_address((request.remote or "").partition("%")[0]).is_loopback
    except ValueError:
        is_loopback = False
    # A browser page must not reach it either.
    if not is_loopback or "Origin" in request.headers:
        raise Refusal(
            403, frames.tts_http_error("Forbidden", "The control endpoint serves this machine only.")
        )


async def _get_journal(upstream: Upstream, request: web.Request) -> Any:
    kind = request.query.get("kind", "")
    records = upstream.journal.of(kind) if kind else list(upstream.journal)
    return {"connections": [r.to_dict() for r in records]}


async def _clear_journal(upstream: Upstream, request: web.Request) -> Any:
    upstream.journal.clear()
    return {"connections": len(upstream.journal)}


async def _get_faults(upstream: Upstream, request: web.Request) -> Any:
    return {
        "faults": [
            {"id": number, "struck": upstream.faults.struck(number), **fault.to_dict()}
            for number, fault in upstream.faults.items()
        ]
    }


async def _add_faults(upstream: Upstream, request: web.Request) -> Any:
    """One or a list of: the command line's form as a string, or an object of field values."""
    try:
        given = frames.loads(await request.read())
        wanted = given if isinstance(given, list) else [given]
        # All or none.
        faults = [Fault.parse(w) if isinstance(w, str) else Fault.from_dict(w) for w in wanted]
    except (ValueError, TypeError, FaultSyntaxError) as error:
        raise Refusal(400, frames.tts_http_error("InvalidRequest", str(error))) from error
    return {"ids": [upstream.faults.add(fault) for fault in faults]}


async def _clear_faults(upstream: Upstream, request: web.Request) -> Any:
    number = request.query.get("id", "")
    if number.isdigit():
        upstream.faults.remove(int(number))
    else:
        upstream.faults.clear()
    return {"faults": len(upstream.faults)}
