"""LiveKit's plugin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from waves_local import Upstream

from tests.thirdparty.checks import PATIENCE_S, SENTENCE, assert_heard, assert_spoken, recording

pytest.importorskip("livekit.plugins.smallestai", reason="LiveKit's plugin is not installed")

from livekit import rtc
from livekit.agents import stt
from livekit.plugins import smallestai

RATE_HZ = 16000


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def tts_of(upstream: Upstream, session: aiohttp.ClientSession, **options: object) -> smallestai.TTS:
    return smallestai.TTS(
        api_key="key",
        sample_rate=RATE_HZ,
        base_url=f"{upstream.url}/waves/v1",
        ws_url=upstream.url.replace("http", "ws", 1) + "/waves/v1/tts/live",
        http_session=session,
        **options,
    )


def stt_of(upstream: Upstream, session: aiohttp.ClientSession, **options: object) -> smallestai.STT:
    return smallestai.STT(
        api_key="key",
        sample_rate=RATE_HZ,
        base_url=f"{upstream.url}/waves/v1",
        http_session=session,
        **options,
    )


@pytest.mark.parametrize("use_continuations", [True, False])
async def test_streaming_speech(
    upstream: Upstream, session: aiohttp.ClientSession, use_continuations: bool
) -> None:
    speaker = tts_of(upstream, session, use_continuations=use_continuations, word_timestamps=True)
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(2):  # the second on a socket of the pool
            stream = speaker.stream()
            for word in SENTENCE.split(" "):
                stream.push_text(word if word.endswith(".") else word + " ")
            stream.flush()
            stream.end_input()
            pcm = b"".join([bytes(audio.frame.data) async for audio in stream])
            await stream.aclose()
            assert_spoken(upstream, pcm, SENTENCE, RATE_HZ)
    await speaker.aclose()


async def test_whole_speech(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    speaker = tts_of(upstream, session)
    async with asyncio.timeout(PATIENCE_S):
        pcm = b"".join([bytes(audio.frame.data) async for audio in speaker.synthesize(SENTENCE)])
    assert_spoken(upstream, pcm, SENTENCE, RATE_HZ)
    await speaker.aclose()


async def test_an_interrupted_stream_cancels_its_context(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    speaker = tts_of(upstream, session)
    stream = speaker.stream()
    stream.push_text("This will not be finished. ")
    async with asyncio.timeout(PATIENCE_S):
        await anext(stream)
        await stream.aclose()
        await upstream.journal.wait_for(
            lambda j: any(m.get("cancel_request") for r in j.of("tts") for m in r.texts), PATIENCE_S
        )
    await speaker.aclose()


async def test_streaming_transcription(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    listener = stt_of(upstream, session)
    audio = await recording(upstream, SENTENCE, RATE_HZ)
    events = []
    async with asyncio.timeout(PATIENCE_S):
        stream = listener.stream()
        step = RATE_HZ // 50 * 2
        for start in range(0, len(audio), step):
            piece = audio[start : start + step]
            stream.push_frame(rtc.AudioFrame(piece, RATE_HZ, 1, len(piece) // 2))
        stream.end_input()
        async for event in stream:
            events.append(event)
        await stream.aclose()
    kinds = [e.type for e in events]
    assert kinds.count(stt.SpeechEventType.START_OF_SPEECH) >= 1
    assert kinds.count(stt.SpeechEventType.START_OF_SPEECH) == kinds.count(stt.SpeechEventType.END_OF_SPEECH)
    finals = [e.alternatives[0] for e in events if e.type == stt.SpeechEventType.FINAL_TRANSCRIPT]
    assert_heard(upstream, " ".join(f.text for f in finals), SENTENCE)
    assert all(f.words for f in finals)


async def test_recorded_transcription(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    listener = stt_of(upstream, session)
    audio = await recording(upstream, SENTENCE, RATE_HZ)
    async with asyncio.timeout(PATIENCE_S):
        event = await listener.recognize(rtc.AudioFrame(audio, RATE_HZ, 1, len(audio) // 2))
    assert_heard(upstream, event.alternatives[0].text, SENTENCE)
