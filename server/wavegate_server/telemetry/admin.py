"""The gateway's HTTP port for those who run it: metrics, and whether it lives and serves.

| path | answer |
| --- | --- |
| `/metrics` | all metrics, as Prometheus text or, where it is accepted, OpenMetrics with exemplars |
| `/healthz` | 200 as long as the event loop runs |
| `/readyz` | 200 while new sessions are taken, 503 before and while stopping |
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

Render = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Body and content type of `/metrics`, by an `Accept` header."""


class AdminServer:
    """Serves on the running loop, from `start` to `stop`."""

    def __init__(self, render: Render, is_ready: Callable[[], bool]) -> None:
        self._render = render
        self._is_ready = is_ready
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port that is served; 0 before `start`."""

    def __repr__(self) -> str:
        return f"<AdminServer :{self.port}>"

    async def start(self, host: str, port: int) -> None:
        """Bind and serve; port 0 lets the system pick one. Raises `OSError` where the port cannot be had."""
        bound = _bind(host, port)
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, bound).start()
        self.port = bound.getsockname()[1]

    async def stop(self) -> None:
        """Close the port and what is connected. Safe to call again, or before `start`."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return _said("ok", 200)

    async def _readyz(self, _request: web.Request) -> web.Response:
        return _said("ready", 200) if self._is_ready() else _said("not ready", 503)


def _said(text: str, status: int) -> web.Response:
    return web.Response(text=text + "\n", status=status)


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError:
        bound.close()
        raise
    return bound
