"""Many sessions at once through one gateway, and what is left of them when they have gone."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
import waves_local
from wavegate.speech import v1
from waves_local.deterministic import DEFAULT_CHARACTER_S, block_samples, heard, voice_tag

from benchmarks import processes
from benchmarks.scenarios import renew_spans, settled
from benchmarks.wire import slope
from tests.support.calls import Speaking, check, eventually, failure_of, seconds
from tests.support.gateway import END, RunningGateway, running_gateway
from tests.support.seeds import repetitions

# Much work: on a machine under load it takes minutes.
pytestmark = pytest.mark.timeout(600)

SESSIONS = 200
"""Every other one speaks, every other one listens."""
WORDS = "alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november".split()
VOICES = ("magnus", "sophia", "jordan")
RATES_HZ = (8000, 16000, 24000)
LISTENING_HZ = 16000
PAUSE_S = 0.12


def pieces(chance: random.Random, whole: Any, largest: int) -> Iterator[Any]:
    """Text or bytes, cut anywhere."""
    at = 0
    while at < len(whole):
        size = chance.randint(1, largest)
        yield whole[at : at + size]
        at += size


def words_of(chance: random.Random, number: int) -> list[str]:
    """What only this session says."""
    return [f"number{number}", *chance.choices(WORDS, k=6)]


async def speak(gateway: RunningGateway, number: int, everyone: asyncio.Barrier) -> None:
    """Two utterances, written token by token; every sample must be this session's."""
    chance = random.Random(number)
    voice, rate_hz, speed = chance.choice(VOICES), chance.choice(RATES_HZ), chance.choice((0.8, 1.0, 1.5))
    session = Speaking(gateway.synthesis.SynthesizeStream())
    settings = v1.SynthesisSettings(voice_id=voice, speed=speed)
    audio_format = v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=rate_hz)
    start = v1.StartSynthesis(settings=settings, audio_format=audio_format)
    await session.begin(v1.SynthesizeStreamRequest(start=start))
    await everyone.wait()
    texts = {"first": " ".join(words_of(chance, number)) + ".", "second": " ".join(words_of(chance, number))}

    async def write() -> None:
        for utterance_id, text in texts.items():
            for token in pieces(chance, text, 9):
                said = v1.TextInput(text=token, utterance_id=utterance_id)
                await session.say(v1.SynthesizeStreamRequest(text=said))
            ended = v1.EndUtterance(utterance_id=utterance_id)
            await session.say(v1.SynthesizeStreamRequest(end_utterance=ended))
        await session.say(END)
        await session.call.done_writing()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while await session.next() is not None:
            pass
    assert (await failure_of(session.call)).code is grpc.StatusCode.OK
    check(session.got)
    assert session.warnings() == []
    for utterance_id, text in texts.items():
        blocks = heard(session.audio(utterance_id))
        assert "".join(b.character for b in blocks) == text
        assert {b.kind for b in blocks} == {"character"}
        assert {b.tag for b in blocks} == {voice_tag(voice)}
        assert {b.end - b.start for b in blocks} == {block_samples(rate_hz, speed)}


async def listen(gateway: RunningGateway, number: int, everyone: asyncio.Barrier) -> None:
    """A recording in pieces of any size; every word must be heard once, at its time."""
    chance = random.Random(number)
    words = words_of(chance, number)
    pcm = waves_local.speak(words, LISTENING_HZ, gap_s=PAUSE_S)
    session = Speaking(gateway.transcription.TranscribeStream())
    settings = v1.TranscriptionSettings(language_code="en", word_timings=True, full_transcript=True)
    audio_format = v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=LISTENING_HZ)
    start = v1.StartTranscription(settings=settings, audio_format=audio_format)
    await session.begin(v1.TranscribeStreamRequest(start=start))
    await everyone.wait()

    async def write() -> None:
        for content in pieces(chance, pcm, 6000):
            await session.say(v1.TranscribeStreamRequest(audio=v1.AudioInput(content=content)))
        await session.say(v1.TranscribeStreamRequest(end_session=v1.EndSession()))
        await session.call.done_writing()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        while await session.next() is not None:
            pass
    assert (await failure_of(session.call)).code is grpc.StatusCode.OK
    assert session.warnings() == []
    finals = [t for t in session.all("transcript") if t.is_final]
    timed = [word for transcript in finals for word in transcript.words]
    assert [word.text for word in timed] == words
    assert finals[-1].full_text == " ".join(words)
    assert [t.is_last for t in finals].count(True) == 1
    starts = [0.0]
    for word, _ in pairwise(words):
        starts.append(starts[-1] + len(word) * DEFAULT_CHARACTER_S + PAUSE_S)
    assert [seconds(word.start_offset) for word in timed] == pytest.approx(starts, abs=0.002)
    assert seconds(session.ended.usage.audio_duration) == pytest.approx(len(pcm) / 2 / LISTENING_HZ)


def held() -> tuple[int, int]:
    """Descriptors and tasks of this process: those of gateway, upstream and callers."""
    return len(os.listdir("/dev/fd")), len(asyncio.all_tasks())


async def test_two_hundred_sessions_at_once_and_none_is_wrong() -> None:
    # On a busy machine a caller may fall silent in mid-word, for as long as silence would be sent in its place.
    async with running_gateway(waves_local.Options(chunk_s=0.2), stt_keepalive="message") as gateway:
        upstream, registry = gateway.upstream, gateway.gateway.registry
        assert upstream is not None

        async def all_together(sessions: int) -> None:
            everyone = asyncio.Barrier(sessions + 1)
            async with asyncio.TaskGroup() as tasks:
                for number in range(sessions):
                    tasks.create_task((listen if number % 2 else speak)(gateway, number, everyone))
                await eventually(lambda: everyone.n_waiting == sessions)
                assert len(registry) == sessions
                assert upstream.open_connections == sessions
                await everyone.wait()
            await eventually(lambda: len(registry) == 0 and upstream.open_connections == 0)

        # The first two make what is made once: the connection, threads of the libraries.
        await all_together(2)
        descriptors, tasks = held()
        await all_together(SESSIONS)
        await eventually(lambda: held()[0] <= descriptors and held()[1] <= tasks)


WARM_UP = 100
CHURN = 100
SAMPLES = repetitions(5, 9)
MAX_NATIVE_BYTES = 256
MAX_PYTHON_BLOCKS = 0.5
"""What a session that is gone may leave in use, by libraries and by Python, whose blocks have 512 bytes at most. A
session that is not let go leaves hundreds of blocks and many kilobytes. The slope over the samples, not the difference
of two: what is weighed at a time wavers."""
TRIES = 4
"""Caches fill now and then, and then they are full. What leaks does so each time."""


@pytest.mark.random  # it has no seed, but `make soak` weighs for longer
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_neither_ended_nor_cancelled_sessions_leave_anything() -> None:
    """A gateway process of its own, every chunk traced and sent to a collector; sessions of both kinds, every other
    one cancelled in the middle."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with (
            processes.upstream(folder) as port,
            processes.collector() as to,
            processes.gateway(
                processes.Variant("gateway", environment=to.environment("grpc")), port, folder
            ) as gateway,
            processes.generator() as load,
        ):

            async def churn(sessions: int) -> None:
                job = {"job": "churn", "target": gateway.target, "sessions": sessions, "chunk_bytes": 2400}
                done = await load.do(job, timeout_s=300.0)
                assert done == {"ended": sessions // 2, "cancelled": sessions // 2}

            await churn(WARM_UP)
            await renew_spans(gateway, lambda: churn(CHURN))
            before = await settled(gateway, None)
            left: list[tuple[float, float]] = []
            while len(left) < TRIES:
                weighed = [await settled(gateway, before)]
                for _ in range(SAMPLES):
                    await churn(CHURN)
                    weighed.append(await settled(gateway, before))
                assert weighed[-1]["tasks"] <= before["tasks"]
                assert weighed[-1]["descriptors"] <= before["descriptors"]
                native, blocks = (
                    slope([(float(number * CHURN), held[what]) for number, held in enumerate(weighed)])
                    for what in ("native_bytes", "python_blocks")
                )
                left.append((native, blocks))
                if native <= MAX_NATIVE_BYTES and blocks <= MAX_PYTHON_BLOCKS:
                    break
            else:
                pytest.fail(f"sessions that are gone leave (bytes, blocks) each: {left}")
            assert (await to.had())["grpc"]["spans"] > SAMPLES * CHURN
