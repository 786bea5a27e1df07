"""Upstreams that hear more slowly than a caller sends, over real sockets: whole, only slower."""

from __future__ import annotations

import asyncio

import grpc
import waves_local
from wavegate.speech import v1
from waves_local.deterministic import encode_text

from benchmarks.soak import check_words, expected_words
from tests.support.calls import Speaking, failure_of, together
from tests.support.gateway import running_gateway

RATE_HZ = 16000
SAID = "the quick brown fox jumps over the lazy dog"
SILENCE_S = 25.0


async def test_a_file_sent_at_once_to_a_slow_upstream_is_whole() -> None:
    """More lies before its first word than a ping and an answer may take otherwise: 5 and 10 s. It reads no faster
    than it hears, or has a proxy before it that buffers and answers pings for it."""
    await together(check(listens_behind=False), check(listens_behind=True))


async def check(*, listens_behind: bool) -> None:
    options = waves_local.Options(listening_speed=2.0, listens_behind=listens_behind)
    pcm = bytes(2 * round(RATE_HZ * SILENCE_S)) + encode_text(SAID, RATE_HZ)
    async with running_gateway(options) as gateway:
        call = Speaking(gateway.transcription.TranscribeStream())
        opening = v1.StartTranscription(
            audio_format=v1.AudioFormat(), settings=v1.TranscriptionSettings(word_timings=True)
        )
        await call.begin(v1.TranscribeStreamRequest(start=opening))

        async def send() -> None:
            for at in range(0, len(pcm), 32_000):
                await call.say(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=pcm[at : at + 32_000])))
            await call.say(v1.TranscribeStreamRequest(end_session=v1.EndSession()))

        sending = asyncio.create_task(send())
        while await call.next() is not None:
            pass
        await sending
        assert (await failure_of(call.call)).code is grpc.StatusCode.OK, call.kinds()
        finals = [t for t in call.all("transcript") if t.is_final]
        words = [(w.text, w.start_offset.ToTimedelta().total_seconds()) for t in finals for w in t.words]
        check_words(expected_words([(SAID, SILENCE_S)]), words, is_whole=True)
        assert call.ended.usage.reconnect_count == 0
