"""The account's limits, as clients meet them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import websockets
from waves_local import Options, serve, speak

from tests.waves_local.support import AUTH, PATIENCE_S, eventually, stt, text_of, tts, ws_url

SLOW = 0.02  # seconds between chunks: long enough to be met in mid-speech
LONG = "A sentence that is long enough to be overtaken by another one. " * 3
BODY = {"text": "Hello.", "voice_id": "magnus", "sample_rate": 8000}


async def test_active_requests_are_counted_over_all_endpoints() -> None:
    options = Options(active_requests=1, chunk_interval_s=SLOW)
    async with (
        serve(options=options) as upstream,
        tts(upstream) as first,
        tts(upstream) as second,
        httpx.AsyncClient(base_url=upstream.url, headers=AUTH, timeout=PATIENCE_S) as client,
    ):
        await first.send(LONG)
        await first.frame()
        await second.send("Too much.", request_id="r")
        error = await second.frame()
        assert (error["status"], error["external_request_id"]) == ("error", "r")
        assert error["message"] == "Concurrency limit reached: this account may have 1 active TTS requests."
        for path in ("/waves/v1/tts", "/waves/v1/tts/live"):
            response = await client.post(path, json=BODY)
            assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        # Another key has its own account.
        response = await client.post("/waves/v1/tts", json=BODY, headers={"Authorization": "Bearer other"})
        assert response.status_code == 200
        await first.until()
        await second.send("Now.")
        assert text_of(await second.until()) == "Now."


async def test_an_idle_socket_holds_no_request() -> None:
    async with (
        serve(options=Options(active_requests=1)) as upstream,
        tts(upstream) as first,
        tts(upstream) as second,
    ):
        for client in (first, second, first):
            await client.send("One.")
            assert text_of(await client.until()) == "One."


@pytest.mark.parametrize(("freed_by", "outcome"), [("last_chunk", "chunk"), ("complete", "error")])
async def test_a_request_ends_with_its_last_chunk_or_its_complete(freed_by: Any, outcome: str) -> None:
    options = Options(active_requests=1, slot_freed_by=freed_by)
    async with serve(options=options) as upstream, tts(upstream) as first, tts(upstream) as second:
        await first.send("x", complete_backoff_ms=1500)
        await first.frame()
        await second.send("y")
        assert (await second.frame())["status"] == outcome
        await first.until()
        if outcome == "error":
            await second.send("y")
            assert text_of(await second.until()) == "y"


async def test_cutting_the_socket_frees_the_request_at_once_or_later() -> None:
    for linger_s, outcome in [(0.0, "chunk"), (30.0, "error")]:
        options = Options(active_requests=1, chunk_interval_s=SLOW, slot_linger_s=linger_s)
        async with serve(options=options) as upstream, tts(upstream) as second:
            async with tts(upstream) as first:
                await first.send(LONG)
                await first.frame()
            await upstream.journal.wait_for(lambda j: j.of("tts")[1].closed_at_s is not None)
            await second.send("y")
            assert (await second.frame())["status"] == outcome


async def test_cancelling_frees_the_request() -> None:
    options = Options(active_requests=1, chunk_interval_s=SLOW)
    async with serve(options=options) as upstream, tts(upstream) as first, tts(upstream) as second:
        await first.send(LONG, context_id="c")
        await first.frame()
        await first.send_raw({"context_id": "c", "cancel_request": True})
        await eventually(lambda: not upstream.limits.active("a-key"))
        await second.send("y")
        assert text_of(await second.until()) == "y"


async def test_a_tts_socket_too_many_is_refused() -> None:
    async with serve(options=Options(active_requests=1)) as upstream:
        held = [
            await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
            for _ in range(5)
        ]
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        response = refused.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
        await held.pop().close()
        await upstream.journal.wait_for(lambda j: any(r.closed_at_s and r.status == 101 for r in j.of("tts")))
        async with tts(upstream) as client:
            await client.send("Room again.")
            assert text_of(await client.until()) == "Room again."
        for ws in held:
            await ws.close()


async def test_an_stt_socket_too_many_is_accepted_and_closed() -> None:
    async with (
        serve(options=Options(stt_sockets=1)) as upstream,
        stt(upstream) as first,
        stt(upstream) as second,
    ):
        assert await second.rest() == []
        assert second.ws.close_code == 1008
        await first.hear(speak(["mine"], 8000))
        assert (await first.finish())[-1]["transcript"] == "mine"


async def test_retry_after_can_be_left_out() -> None:
    options = Options(tts_sockets=1, retry_after_s=0)
    async with serve(options=options) as upstream, tts(upstream):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(ws_url(upstream, "/waves/v1/tts/live"), additional_headers=AUTH)
        assert "Retry-After" not in refused.value.response.headers
