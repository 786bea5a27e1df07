"""The vendor's own SDK."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave
from collections.abc import Iterator

import pytest
from waves_local import Upstream

from tests.thirdparty.checks import PATIENCE_S, SENTENCE, assert_heard, assert_spoken, recording

pytest.importorskip("smallestai", reason="the vendor's SDK is not installed")

from smallestai import AsyncSmallestAI, SmallestAI
from smallestai.environment import SmallestAIEnvironment
from smallestai.waves import TTSConfig, WavesStreamingTTS
from smallestai.waves.helpers import stream_speech_to_text, synthesize_bytes, synthesize_with_expiry
from smallestai.waves.tts.types import TtsRequestMessage

RATE_HZ = 24000


def environment(upstream: Upstream) -> SmallestAIEnvironment:
    return SmallestAIEnvironment(
        atoms=upstream.url,
        waves=upstream.url,
        waves_ws=upstream.url.replace("http", "ws", 1),
        payment=upstream.url,
    )


def sync_client(upstream: Upstream) -> SmallestAI:
    return SmallestAI(api_key="key", environment=environment(upstream))


async def test_whole_recordings(upstream: Upstream) -> None:
    client = sync_client(upstream)
    audio = await asyncio.to_thread(
        synthesize_bytes, client, SENTENCE, voice_id="magnus", output_format="wav", sample_rate=RATE_HZ
    )
    with wave.open(io.BytesIO(audio)) as file:
        assert file.getframerate() == RATE_HZ
        assert_spoken(upstream, file.readframes(file.getnframes()), SENTENCE, RATE_HZ)
    audio, outcome = await asyncio.to_thread(
        synthesize_with_expiry, client, SENTENCE, voice_id="magnus", output_format="pcm", sample_rate=RATE_HZ
    )
    assert_spoken(upstream, audio, SENTENCE, RATE_HZ)
    assert outcome == "not-entitled"


async def test_server_sent_events(upstream: Upstream) -> None:
    # The generated parser takes each event for a plain string and drops what the service is documented to send,
    # so the events are read from the response itself.
    client = AsyncSmallestAI(api_key="key", environment=environment(upstream))
    pcm, last = b"", {}
    async with client.waves.with_raw_response.synthesize_sse_tts(
        text=SENTENCE, voice_id="magnus", sample_rate=RATE_HZ, output_format="pcm"
    ) as raw:
        async for line in raw._response.aiter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
                pcm += base64.b64decode(last.get("audio", ""))
    assert last == {"status": "200", "done": True}
    assert_spoken(upstream, pcm, SENTENCE, RATE_HZ)


async def test_the_generated_socket_client(upstream: Upstream) -> None:
    client = AsyncSmallestAI(api_key="key", environment=environment(upstream))
    pcm = b""
    async with asyncio.timeout(PATIENCE_S), client.waves.tts.connect() as socket:
        fragments = SENTENCE.split(" ")
        for index, fragment in enumerate(fragments):
            is_last = index == len(fragments) - 1
            await socket.synthesize_streaming_tts(
                TtsRequestMessage(
                    voice_id="meher",
                    model="lightning_v3.1_pro",
                    text=fragment if is_last else fragment + " ",
                    sample_rate=RATE_HZ,
                    complete_backoff_ms=0,
                    **{"continue": not is_last},
                )
            )
        while (frame := await socket.recv()).status != "complete":
            if frame.status == "chunk":
                pcm += base64.b64decode(frame.data.audio)
    assert_spoken(upstream, pcm, SENTENCE, RATE_HZ)


async def test_the_streaming_helper(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    url = upstream.url.replace("http", "ws", 1) + "/waves/v1/tts/live"
    monkeypatch.setattr(WavesStreamingTTS, "WS_URL", url)
    config = TTSConfig(voice_id="magnus", api_key="key", sample_rate=RATE_HZ, similarity=0.5, enhancement=1)

    def whole() -> bytes:
        return b"".join(WavesStreamingTTS(config).synthesize(SENTENCE))

    def streamed() -> bytes:
        def words() -> Iterator[str]:
            for word in SENTENCE.split(" "):
                yield word + " "

        return b"".join(WavesStreamingTTS(config).synthesize_streaming(words()))

    assert_spoken(upstream, await asyncio.to_thread(whole), SENTENCE, RATE_HZ)
    assert_spoken(upstream, await asyncio.to_thread(streamed), SENTENCE, RATE_HZ)


async def test_streaming_transcription(upstream: Upstream) -> None:
    audio = await recording(upstream, SENTENCE, 16000)

    def listen() -> str:
        finals = []
        with stream_speech_to_text(
            sync_client(upstream),
            language="en",
            keywords=["order", "morning:2"],
            punctuate=True,
            word_timestamps=True,
        ) as socket:
            for start in range(0, len(audio), 3200):
                socket.send_audio_chunk_out(audio[start : start + 3200])
            socket._send({"type": "finalize"})
            socket._send({"type": "close_stream"})
            for event in socket:
                if getattr(event, "is_final", False) and event.transcript:
                    finals.append(event.transcript)
        return " ".join(finals)

    async with asyncio.timeout(PATIENCE_S):
        assert_heard(upstream, await asyncio.to_thread(listen), SENTENCE)


async def test_recorded_transcription(upstream: Upstream) -> None:
    pcm = await recording(upstream, SENTENCE, 16000)
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(pcm)
    client = AsyncSmallestAI(api_key="key", environment=environment(upstream))
    for model in ("pulse", "pulse-pro"):
        answer = await client.waves.speech_to_text.transcribe(
            model=model, language="en", request=out.getvalue(), word_timestamps=True
        )
        assert_heard(upstream, answer.transcription, SENTENCE)
        assert answer.words


async def test_voices(upstream: Upstream) -> None:
    client = AsyncSmallestAI(api_key="key", environment=environment(upstream))
    listed = await client.waves.get_voices(model="lightning-v3.1")
    assert "magnus" in {voice.voice_id for voice in listed.voices}
    catalogue = await client.waves.voices.get_all_voice_models()
    assert len(catalogue.voices) >= len(listed.voices)
