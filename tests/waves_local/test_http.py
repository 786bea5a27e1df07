"""The endpoints that are no WebSockets, and what they share with those that are."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import websockets
from aiohttp import web
from waves_local import Options, Upstream, codecs, serve, speak, spoken

from tests.waves_local.support import (
    AUTH,
    PATIENCE_S,
    audio_of,
    eventually,
    status_of_handshake,
    text_of,
    tts,
    ws_url,
)

BODY = {"text": "Hello world.", "voice_id": "magnus", "sample_rate": 8000}


@asynccontextmanager
async def client_of(options: Options | None = None) -> AsyncIterator[tuple[Upstream, httpx.AsyncClient]]:
    async with (
        serve(options=options) as upstream,
        httpx.AsyncClient(base_url=upstream.url, headers=AUTH, timeout=PATIENCE_S) as client,
    ):
        yield upstream, client


def events_of(body: str) -> list[tuple[str, dict[str, Any]]]:
    """Server-sent events: name and data."""
    found = []
    for block in filter(None, body.split("\n\n")):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


# --- speech -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/waves/v1/tts/live", "/waves/v1/lightning-v3.1/stream"])
async def test_speech_as_events(path: str) -> None:
    async with client_of() as (_, client):
        response = await client.post(path, json={**BODY, "session_id": "s", "request_id": "r"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-external-session-id"] == "s"
    assert response.headers["x-external-request-id"] == "r"
    assert response.headers["x-session-id"]
    assert response.headers["x-request-id"]
    *chunks, (last_name, last) = events_of(response.text)
    assert {name for name, _ in chunks} == {"audio"}
    assert {(data["done"], data["status"]) for _, data in chunks} == {(False, "206")}
    assert (last_name, last) == ("", {"status": "200", "done": True})
    pcm = audio_of([{"status": "chunk", "data": data} for _, data in chunks])
    assert spoken(pcm) == "Hello world."


async def test_speech_as_events_in_the_old_shape() -> None:
    async with client_of(Options(sse_shape="websocket")) as (_, client):
        response = await client.post("/waves/v1/tts/live", json=BODY)
    frames = [data for _, data in events_of(response.text)]
    assert text_of(frames) == "Hello world."
    assert frames[-1]["status"] == "complete"


@pytest.mark.parametrize(
    ("asked", "content_type"),
    [
        (None, "audio/pcm"),
        ("pcm", "audio/pcm"),
        ("wav", "audio/wav"),
        ("mp3", "audio/mpeg"),
        ("ulaw", "audio/basic"),
        ("mulaw", "audio/basic"),
        ("alaw", "audio/x-alaw-basic"),
    ],
)
async def test_speech_in_one_piece(asked: str | None, content_type: str) -> None:
    async with client_of() as (_, client):
        response = await client.post(
            "/waves/v1/tts", json={**BODY, "sample_rate": 16000, "output_format": asked}
        )
    assert response.headers["content-type"] == content_type
    audio = response.content
    match asked:
        case "wav":
            pcm, rate_hz = codecs.read_recording(audio)
            assert (spoken(pcm), rate_hz) == ("Hello world.", 16000)
        case "mp3":
            samples, rate_hz = soundfile.read(io.BytesIO(audio))
            assert rate_hz == 16000
            assert len(samples) / rate_hz == pytest.approx(12 * 0.06, abs=0.15)
        case "ulaw" | "mulaw":
            assert spoken(codecs.mulaw_decode(audio)) == "Hello world."
        case "alaw":
            assert spoken(codecs.alaw_decode(audio)) == "Hello world."
        case _:
            assert spoken(audio) == "Hello world."


@pytest.mark.parametrize("path", ["/waves/v1/tts", "/waves/v1/tts/live"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"voice_id": "magnus"}, "The 'text' field is required."),
        ({"text": " ", "voice_id": "magnus"}, "The 'text' field is required."),
        ({**BODY, "speed": 9}, "'speed' must be between 0.5 and 2."),
        ({**BODY, "voice_id": "nobody"}, "Voice not found: nobody"),
        ([], "The request must be a JSON object."),
    ],
)
async def test_bad_requests_for_speech(path: str, body: Any, message: str) -> None:
    async with client_of() as (_, client):
        response = await client.post(path, json=body)
        assert response.status_code == 400
        assert response.json() == {"error": "InvalidRequest", "message": message}
        assert (await client.post(path, content=b"{")).json()["message"] == "The body is not JSON."


async def test_expiry_of_content_is_answered() -> None:
    async with client_of() as (_, client):
        response = await client.post("/waves/v1/tts", json=BODY, headers={"x-expire-content": "true"})
        assert response.headers["x-content-expiry"] == "not-entitled"
        assert "x-content-expiry" not in (await client.post("/waves/v1/tts", json=BODY)).headers


async def test_a_client_that_leaves_stops_the_speech() -> None:
    async with client_of(Options(chunk_interval_s=0.05, active_requests=1)) as (upstream, client):
        async with client.stream(
            "POST", "/waves/v1/tts/live", json={**BODY, "text": "long " * 50}
        ) as response:
            await anext(response.aiter_raw())
            assert upstream.limits.active("a-key") == 1
        await eventually(lambda: not upstream.limits.active("a-key"))


# --- recordings -------------------------------------------------------------------------------------------


async def recognize(
    audio: bytes, options: Options | None = None, path: str = "/waves/v1/stt/", **query: Any
) -> Any:
    async with client_of(options) as (_, client):
        response = await client.post(
            path, params={"model": "pulse", "language": "en", **query}, content=audio
        )
    assert response.status_code == 200, response.text
    return response.json()


def _file(
    samples: bytes, rate_hz: int, container: str, subtype: str | None = None, channels: int = 1
) -> bytes:
    out = io.BytesIO()
    data = np.frombuffer(samples, "<i2")
    soundfile.write(out, np.stack([data] * channels, axis=1), rate_hz, format=container, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(
    ("container", "subtype", "rate_hz", "channels"),
    [
        ("WAV", None, 8000, 1),
        ("WAV", "ULAW", 8000, 1),
        ("WAV", None, 44100, 2),
        ("WAV", "PCM_24", 16000, 1),
        ("FLAC", None, 24000, 1),
    ],
)  # fmt: skip
async def test_a_file_says_its_own_form(
    container: str, subtype: str | None, rate_hz: int, channels: int
) -> None:
    audio = _file(speak(["from", "file."], rate_hz), rate_hz, container, subtype, channels)
    answer = await recognize(audio, word_timestamps="true")
    assert answer["transcription"] == "from file."
    assert answer["words"][1]["start"] == pytest.approx(4 * 0.06 + 0.12, abs=0.001)


async def test_a_wav_file_that_was_never_finished_is_read_to_its_end() -> None:
    audio = _file(speak(["to", "the", "end."], 8000), 8000, "WAV")
    at = audio.index(b"data") + 4
    assert (await recognize(audio[:at] + bytes(4) + audio[at + 4 :]))["transcription"] == "to the end."


async def test_bare_samples_need_to_be_described() -> None:
    audio = codecs.mulaw_encode(speak(["bare"], 8000))
    assert (await recognize(audio, encoding="mulaw", sample_rate=8000))["transcription"] == "bare"
    async with client_of() as (_, client):
        response = await client.post("/waves/v1/stt/?model=pulse&language=en", content=audio)
        assert response.status_code == 400
        assert response.json()["error"].startswith("Unsupported or corrupt audio")


async def test_pulse_and_pulse_pro_answer_in_their_own_shapes() -> None:
    audio = _file(speak(["One.", "Two."], 8000, tail_s=1.0), 8000, "WAV")
    pulse = await recognize(audio)
    assert pulse == {
        "status": "success",
        "transcription": "One. Two.",
        "words": [],
        "utterances": [],
        "metadata": {"duration": 1.6, "fileSize": len(audio)},
    }
    pulse = await recognize(audio, word_timestamps="true", diarize="true")
    assert [u["text"] for u in pulse["utterances"]] == ["One.", "Two."]
    assert {w["speaker"] for w in pulse["words"]} == {0}
    pro = await recognize(audio, model="pulse-pro", word_timestamps="true", diarize="true")
    assert set(pro) == {
        "status",
        "transcription",
        "words",
        "language",
        "metadata",
        "totalBytes",
        "request_id",
    }
    assert set(pro["metadata"]) == {"duration", "processing_time_ms", "rtfx", "num_chunks"}
    assert "speaker" not in pro["words"][0]


async def test_redaction_and_traits_of_recordings() -> None:
    audio = _file(speak("i am Alice".split(), 16000), 16000, "WAV")
    assert (await recognize(audio, redact_pii="true"))["transcription"] == "i am [FIRSTNAME_1]"
    t = np.arange(32000) / 16000
    hum = (6000 * np.sign(np.sin(2 * np.pi * 110 * t))).astype("<i2").tobytes()
    answer = await recognize(_file(hum, 16000, "WAV"), gender_detection="true", emotion_detection="true")
    assert answer["gender"] == "male"
    assert sum(answer["emotions"].values()) == pytest.approx(1, abs=0.01)


async def test_the_old_path_for_recordings() -> None:
    audio = _file(speak(["old"], 8000), 8000, "WAV")
    async with client_of() as (_, client):
        response = await client.post("/waves/v1/pulse/get_text?language=en", content=audio)
    assert response.json()["transcription"] == "old"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("", "Missing required query param: model. Supported values: pulse | pulse-pro."),
        ("model=pulse-2", "Invalid query param: model."),
        ("model=pulse&language=yue", "Invalid query param: language"),
        ("model=pulse&diarize=1", "Invalid query param: diarize"),
        (
            "model=pulse&webhook_url=http://127.0.0.1/",
            "Invalid query param: webhook_url is supported by pulse-pro",
        ),
        ("model=pulse-pro&webhook_method=PUT&webhook_url=x", "Invalid query param: webhook_method"),
        ("model=pulse-pro&webhook_url=http://example.com/", "'webhook_url' may not be reached from here"),
    ],
)
async def test_bad_requests_for_transcripts(query: str, complaint: str) -> None:
    async with client_of() as (_, client):
        response = await client.post(f"/waves/v1/stt/?{query}", content=speak(["x"], 8000))
        if "encoding" not in query:
            response = await client.post(
                f"/waves/v1/stt/?{query}&sample_rate=8000", content=speak(["x"], 8000)
            )
    assert response.status_code == 400
    assert response.json()["error"].startswith(complaint)


@asynccontextmanager
async def file_server(audio: bytes) -> AsyncIterator[tuple[str, list[Any]]]:
    """A server with one recording, that also takes webhook calls."""
    calls: list[Any] = []

    async def serve_file(_: web.Request) -> web.Response:
        return web.Response(body=audio)

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPFound("http://example.com/")

    async def webhook(request: web.Request) -> web.Response:
        calls.append(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_get("/a.wav", serve_file)
    app.router.add_get("/away", redirect)
    app.router.add_post("/hook", webhook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", calls
    finally:
        await runner.cleanup()


async def test_audio_by_url_is_fetched_from_loopback_only() -> None:
    audio = _file(speak(["fetched"], 8000), 8000, "WAV")
    async with file_server(audio) as (url, _), client_of() as (_, client):
        for target, complaint in [
            (f"{url}/a.wav", None),
            (f"{url}/missing", "The URL answered 404."),
            (f"{url}/away", "The URL answered 302."),
            ("http://example.com/a.wav", "'url' may not be reached from here"),
            ("file:///etc/passwd", "'url' must be an http or https URL."),
            (7, "The body needs a 'url'"),
        ]:
            response = await client.post("/waves/v1/stt/?model=pulse&language=en", json={"url": target})
            if complaint is None:
                assert response.json()["transcription"] == "fetched"
            else:
                assert response.status_code == 400
                assert response.json()["error"].startswith(complaint)
        response = await client.post(
            "/waves/v1/stt/?model=pulse-pro&language=en", json={"url": f"{url}/a.wav"}
        )
        assert "raw bytes" in response.json()["error"]
    async with client_of(Options(fetch_urls="none")) as (_, client):
        response = await client.post("/waves/v1/stt/?model=pulse&language=en", json={"url": f"{url}/a.wav"})
        assert response.status_code == 400


async def test_a_webhook_gets_the_transcript() -> None:
    audio = _file(speak(["later"], 8000), 8000, "WAV")
    async with file_server(audio) as (url, calls), client_of() as (_, client):
        response = await client.post(
            "/waves/v1/stt/",
            params={
                "model": "pulse-pro",
                "language": "en",
                "webhook_url": f"{url}/hook",
                "webhook_extra": "tag",
            },
            content=audio,
        )
        assert response.json()["status"] == "processing"
        await eventually(lambda: calls)
    assert calls[0]["transcription"] == "later"
    assert calls[0]["request_id"] == response.json()["request_id"]
    assert calls[0]["webhook_extra"] == "tag"


async def test_a_recording_that_is_too_large() -> None:
    async with client_of(Options(max_upload_mb=1)) as (_, client):
        response = await client.post("/waves/v1/stt/?model=pulse&language=en", content=bytes(1_100_000))
    assert response.status_code == 413
    assert response.json()["error"] == "File size exceeds maximum limit of 1MB."


# --- voices, and paths ------------------------------------------------------------------------------------


async def test_voices() -> None:
    async with client_of() as (_, client):
        listed = (await client.get("/waves/v1/lightning-v3.1/get_voices")).json()["voices"]
        meher = next(v for v in listed if v["voiceId"] == "meher")
        assert meher["tags"]["language"] == ["english", "hindi"]
        assert {"magnus", "sophia", "devansh"} <= {v["voiceId"] for v in listed}
        v2 = (await client.get("/waves/v1/lightning-v2/get_voices")).json()["voices"]
        assert 0 < len(v2) < len(listed)
        catalogue = (await client.get("/waves/v1/voice/get-all-models")).json()["voices"]
        assert {v["voiceId"] for v in listed} <= {v["voiceId"] for v in catalogue}
        assert (await client.get("/waves/v1/lightning-v7/get_voices")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/waves/v1/tts/dead", 404),
        ("GET", "/waves/v1/tts", 405),
        ("POST", "/waves/v1/lightning/get_speech", 410),
        ("POST", "/waves/v1/lightning-large/get_speech", 410),
        ("GET", "/api/v1/streaming-tts/stream", 410),
        ("GET", "/waves/v1/tts/live", 426),
        ("GET", "/waves/v1/health", 200),
    ],
)
async def test_other_paths_are_answered_in_json(method: str, path: str, status: int) -> None:
    async with client_of() as (_, client):
        response = await client.request(method, path)
        assert response.status_code == status
        assert response.json()


@pytest.mark.parametrize(("policy", "status"), [("gone", 410), ("missing", 404)])
async def test_old_paths_can_be_retired(policy: Any, status: int) -> None:
    options = Options(old_tts_paths=policy, old_stt_paths=policy)
    async with client_of(options) as (upstream, client):
        for path in ("/waves/v1/lightning-v2/get_speech/stream", "/waves/v1/pulse/get_text"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(ws_url(upstream, path), additional_headers=AUTH)
            assert refused.value.response.status_code == status
        assert (await client.post("/waves/v1/lightning-v3.1/stream", json=BODY)).status_code == status
        async with tts(upstream) as socket:
            await socket.send("New.")
            assert text_of(await socket.until()) == "New."


# --- keys -------------------------------------------------------------------------------------------------

ENDPOINTS = [
    ("GET", "/waves/v1/lightning-v3.1/get_voices"),
    ("GET", "/waves/v1/voice/get-all-models"),
    ("POST", "/waves/v1/tts"),
    ("POST", "/waves/v1/tts/live"),
    ("POST", "/waves/v1/stt/?model=pulse&language=en"),
]
SOCKETS = ["/waves/v1/tts/live", "/waves/v1/stt/live?model=pulse&language=en"]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [(None, 401), ("Bearer", 401), ("Basic good", 401), ("Bearer bad", 401), ("Bearer known", 403), ("bearer good", 0)],
)  # fmt: skip
async def test_keys(authorization: str | None, status: int) -> None:
    options = Options(keys=("good",), forbidden_keys=("known",))
    headers = {} if authorization is None else {"Authorization": authorization}
    async with serve(options=options) as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        for method, path in ENDPOINTS:
            response = await client.request(method, path, headers=headers, content=b"x")
            if status:
                assert response.status_code == status
                assert response.json()["error"]
            else:
                assert response.status_code not in {401, 403}
        for path in SOCKETS:
            assert await status_of_handshake(upstream, path, headers) == (status or 101)


async def test_any_key_is_good_by_default_but_one_is_needed() -> None:
    async with serve() as upstream, httpx.AsyncClient(base_url=upstream.url) as client:
        path = "/waves/v1/lightning-v3.1/get_voices"
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"Authorization": "Bearer whatever"})).status_code == 200
