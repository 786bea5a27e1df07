"""The HTTP port: metrics, life and readiness."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from wavegate_server.telemetry.admin import AdminServer
from wavegate_server.telemetry.exposition import Exposition
from wavegate_server.telemetry.metrics import Metrics


class Serving:
    """Whether the gateway takes sessions."""

    def __init__(self) -> None:
        self.ready = False


@asynccontextmanager
async def serving(state: Serving) -> AsyncIterator[httpx.AsyncClient]:
    admin = AdminServer(Exposition(Metrics()).render, lambda: state.ready)
    await admin.start("127.0.0.1", 0)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin.port}", trust_env=False) as client:
            yield client
    finally:
        await admin.stop()


async def test_it_is_ready_while_the_gateway_serves() -> None:
    state = Serving()
    async with serving(state) as client:
        for ready, status in ((False, 503), (True, 200), (False, 503)):
            state.ready = ready
            assert (await client.get("/readyz")).status_code == status
            assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        # As Prometheus 3 asks.
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
            "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0",
        ),
    ],
)
async def test_metrics_come_in_the_format_that_is_accepted(accept: str, content_type: str) -> None:
    async with serving(Serving()) as client:
        answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(content_type)
    assert answer.text.count("# EOF\n") == content_type.startswith("application/")
    assert answer.text.endswith("\n")
    assert "wavegate_characters_total 0.0" in answer.text


async def test_there_is_nothing_else() -> None:
    async with serving(Serving()) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/metrics")).status_code == 405


async def test_the_loop_goes_on_while_metrics_are_written() -> None:
    """Between one family and the next, everything else has its turn."""
    exposition = Exposition(Metrics())
    writing = asyncio.create_task(exposition.render(""))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20


async def test_a_port_that_is_taken_is_told_and_let_go() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        admin = AdminServer(Exposition(Metrics()).render, lambda: True)
        with pytest.raises(OSError, match="Address already in use"):
            await admin.start("127.0.0.1", taken.getsockname()[1])
        await admin.stop()


async def test_after_the_end_nobody_listens() -> None:
    admin = AdminServer(Exposition(Metrics()).render, lambda: True)
    await admin.start("127.0.0.1", 0)
    await admin.stop()
    await admin.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", admin.port)
