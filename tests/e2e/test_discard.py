"""Callers who leave: `discard` never makes the upstream finish what nobody will hear."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest
import waves_local
from wavegate.speech import v1
from waves_local.deterministic import encode_text

from tests.support.gateway import RunningGateway, of, responses, running_gateway, start, text
from tests.support.seeds import repetitions, seeds

# Much work: on a machine under load it takes minutes.
pytestmark = pytest.mark.timeout(600)

CALLERS = repetitions(200, 1000)
AT_ONCE = 50
RATE_HZ = 16000
SAID = encode_text("the quick brown fox", RATE_HZ)


def finishing(record: waves_local.ConnectionRecord) -> list[dict[str, Any]]:
    """What the upstream was sent that makes it finish what was begun."""
    return [
        m
        for m in record.texts
        if m.get("type") in ("close_stream", "finalize") or m.get("continue") is False or m.get("flush")
    ]


async def leave(gateway: RunningGateway, rng: random.Random, *, discard: bool = True) -> None:
    """Begin something, and end the session in the midst of it."""
    listens = rng.random() < 0.5
    request: Any
    if listens:
        request = v1.TranscribeStreamRequest
        opening = v1.StartTranscription(audio_format=v1.AudioFormat(sample_rate_hertz=RATE_HZ))
        pieces = [
            request(start=opening),
            *(
                request(audio=v1.AudioInput(content=SAID[at : at + 3200]))
                for at in range(0, rng.randrange(3200, len(SAID)), 3200)
            ),
        ]
        call = gateway.transcription.TranscribeStream()
    else:
        request = v1.SynthesizeStreamRequest
        pieces = [start(), *(text(f"Word {n} of an open end ", "u") for n in range(rng.randrange(1, 5)))]
        call = gateway.synthesis.SynthesizeStream()
    for piece in pieces:
        await call.write(piece)
    if rng.random() < 0.7:
        assert (await call.read()).WhichOneof("event") == "session_started"
        await asyncio.sleep(rng.random() * 0.05)
    await call.write(request(end_session=v1.EndSession(discard=discard)))
    if rng.random() < 0.5:
        await call.done_writing()
    got = [r async for r in responses(call)]
    assert of("session_ended", got)[0].reason == v1.SessionEnded.REASON_CLIENT_END
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("seed", seeds(1))
async def test_of_many_callers_that_discard_none_makes_the_upstream_finish(seed: int) -> None:
    options = waves_local.Options(journal_connections=2 * CALLERS)
    async with running_gateway(options) as gateway:
        assert gateway.upstream is not None
        rng = random.Random(seed)
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with room:
                await leave(gateway, rng)

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(one())
        upstream = gateway.upstream
        await upstream.journal.wait_for(lambda _: upstream.open_connections == 0)
        records = [r for r in upstream.journal if r.kind in ("tts", "stt")]
        # A session that was given up before its handshake has none.
        assert len(records) > CALLERS // 2
        assert sum(r.received_count > 0 for r in records) > CALLERS // 4
        assert [(r, finishing(r)) for r in records if finishing(r)] == []


async def test_those_who_do_not_discard_do() -> None:
    """What the figure above is worth: the same callers, but for `discard`."""
    async with running_gateway() as gateway:
        assert gateway.upstream is not None
        for seed in range(8):
            await leave(gateway, random.Random(seed), discard=False)
        records = [r for r in gateway.upstream.journal if r.kind in ("tts", "stt")]
        assert len(records) == 8
        assert all(finishing(r) for r in records)
