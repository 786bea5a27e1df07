"""What holds for the server as a whole, whatever happens inside it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
import websockets
from waves_local import Engine, Options, deterministic_engine, serve, speak
from waves_local.engine import (
    RecognitionEvent,
    RecognitionRequest,
    RecognitionStream,
    SpokenAudio,
    SpokenWord,
    Voice,
    VoiceRequest,
)

from tests.waves_local.support import AUTH, PATIENCE_S, finals, stt, text_of, tts, ws_url

BODY = {"text": "Hello.", "voice_id": "meher", "sample_rate": 8000}


class FailingSynthesizer:
    """Says one second of silence and breaks."""

    def __init__(self, voices: Sequence[Voice]) -> None:
        self._voices = voices

    def voices(self) -> Sequence[Voice]:
        return self._voices

    async def synthesize(self, request: VoiceRequest) -> AsyncIterator[SpokenAudio | SpokenWord]:
        yield SpokenAudio(bytes(2 * request.sample_rate_hz))
        raise RuntimeError("out of breath")


class FailingStream:
    """Breaks at the first sound."""

    def __init__(self) -> None:
        self.is_closed = False

    async def accept(self, pcm: bytes) -> Sequence[RecognitionEvent]:
        raise RuntimeError("deaf")

    async def finalize(self) -> Sequence[RecognitionEvent]:
        return []

    async def close(self) -> None:
        self.is_closed = True


class FailingRecognizer:
    """Hands out streams that fail."""

    def __init__(self) -> None:
        self.streams: list[FailingStream] = []

    async def open(self, request: RecognitionRequest) -> RecognitionStream:
        self.streams.append(FailingStream())
        return self.streams[-1]


@pytest.fixture
def failing() -> Engine:
    good = deterministic_engine()
    return Engine("failing", FailingSynthesizer(good.synthesizer.voices()), FailingRecognizer())


async def test_an_engine_that_fails_is_an_error_frame_and_the_socket_lives(failing: Engine) -> None:
    async with serve(engine=failing, options=Options(active_requests=1)) as upstream, tts(upstream) as client:
        for _ in range(2):
            await client.send("Hello.")
            error = (await client.until("error"))[-1]
            assert error["message"] == "Internal server error"
            assert error["request_id"]


async def test_a_recognizer_that_fails_ends_its_session(failing: Engine) -> None:
    async with serve(engine=failing) as upstream, stt(upstream) as client:
        await client.hear(bytes(320))
        [error] = await client.rest()
        assert (error["type"], error["message"]) == ("error", "Internal server error")
        assert client.ws.close_code == 1011
    assert isinstance(failing.recognizer, FailingRecognizer)
    assert failing.recognizer.streams[0].is_closed


async def test_a_post_that_fails_is_answered_500(failing: Engine) -> None:
    async with (
        serve(engine=failing) as upstream,
        httpx.AsyncClient(base_url=upstream.url, headers=AUTH) as client,
    ):
        response = await client.post("/waves/v1/tts", json=BODY)
        assert response.status_code == 500
        assert response.json()["error"] == "InternalServerError"
        with pytest.raises(httpx.TransportError):  # the answer had begun: it can only be cut
            await client.post("/waves/v1/tts/live", json=BODY)


async def test_the_old_model_speaks_over_http_too() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url, headers=AUTH) as client:
        body = {**BODY, "voice_id": "emily", "consistency": 0.5}
        assert (await client.post("/waves/v1/lightning-v2/get_speech", json=body)).status_code == 200
        assert "event: audio" in (await client.post("/waves/v1/lightning-v2/stream", json=body)).text
        response = await client.post("/waves/v1/lightning-v2/get_speech", json={**body, "consistency": 2})
        assert response.json()["message"] == "'consistency' must be between 0 and 1."


async def test_options_can_be_changed_while_it_runs() -> None:
    async with serve() as upstream:
        async with tts(upstream) as before:
            upstream.options = dataclasses.replace(upstream.options, echo_ids=False)
            await before.send("x", request_id="r")
            assert (await before.until())[-1]["external_request_id"] == "r"
        async with tts(upstream) as after:
            await after.send("x", request_id="r")
            assert "external_request_id" not in (await after.until())[-1]


async def test_a_taken_port_is_an_error() -> None:
    async with serve() as upstream:
        with pytest.raises(OSError, match="address already in use"):
            async with serve(port=upstream.port):
                pass


async def test_ipv6() -> None:
    try:
        async with serve(host="::1") as upstream, stt(upstream) as client:
            assert upstream.url.startswith("http://[::1]:")
            await client.hear(speak(["six"], 8000))
            assert finals(await client.finish()) == ["six"]
    except OSError:
        pytest.skip("no IPv6 here")


async def test_it_stops_whatever_its_clients_do() -> None:
    """Speaking, stalled, deaf, never answered, streaming over HTTP: none holds it up for long."""
    options = Options(chunk_interval_s=0.05)
    faults = ["tts:stall,nth=2", "tts:deaf,nth=3", "tts:hang,nth=4"]
    async with asyncio.timeout(PATIENCE_S):
        async with serve(options=options, faults=faults) as upstream:
            url = ws_url(upstream, "/waves/v1/tts/live")
            sockets = [await websockets.connect(url, additional_headers=AUTH) for _ in range(3)]
            hanging = asyncio.create_task(websockets.connect(url, additional_headers=AUTH).__aenter__())
            for ws in sockets:
                await ws.send('{"text":"' + "long " * 200 + '","voice_id":"meher"}')
            http = httpx.AsyncClient(base_url=upstream.url, headers=AUTH)
            streaming = asyncio.create_task(
                http.post("/waves/v1/tts/live", json={**BODY, "text": "long " * 200})
            )
            await upstream.journal.wait_for(lambda j: len(j.of("sse")) and j.of("sse")[0].frames_sent)
        for task in (hanging, streaming):
            with pytest.raises((OSError, httpx.TransportError, websockets.WebSocketException)):
                await task
        for ws in sockets:
            await ws.wait_closed()
        await http.aclose()


async def test_one_connection_does_not_hold_up_another() -> None:
    long = "A very long text. " * 200  # 3 600 characters, 216 seconds of audio
    async with serve() as upstream, tts(upstream) as greedy, tts(upstream) as modest:
        await greedy.send(long, sample_rate=44100)
        await modest.send("Short.")
        assert text_of(await modest.until()) == "Short."
        assert upstream.journal.of("tts")[0].frames_sent < 2160


HANDLES_WHAT_WAS_RESET = sys.version_info < (3, 12)
"""From Python 3.12 on, aiohttp finds the reset before it has read the request: there is nothing to note then."""


async def test_clients_that_leave_in_the_handshake_are_a_debug_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Load balancers and port scanners do so all day."""
    handshake = (
        "GET /waves/v1/tts/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    def gone() -> list[logging.LogRecord]:
        return [r for r in caplog.records if "/waves/v1/tts/live" in r.getMessage()]

    caplog.set_level(logging.DEBUG, "waves_local")
    async with serve() as upstream:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", upstream.port)) as leaving:
                leaving.sendall(handshake.encode())
                # It closes with a reset, as a process that is killed does.
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if HANDLES_WHAT_WAS_RESET:
            async with asyncio.timeout(PATIENCE_S):
                while len(gone()) < 5:  # noqa: ASYNC110 - a log line has no Event
                    await asyncio.sleep(0.01)
        # Connections are accepted in their order: when this one is answered, those before it are done with.
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{upstream.url}/waves/v1/health")).status_code == 200
    assert {(r.levelname, r.exc_info) for r in gone()} <= {("DEBUG", None)}
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
