"""The upstream connection is cut at random points, 200 a kind of session (40 in `make test`): nothing lost or twice.

A TCP proxy between the gateway and the upstream cuts each connection of a session after so many bytes, in the middle
of whatever frame that is. The deterministic engine proves what was heard, to the sample.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import waves_local
from wavegate.speech import v1
from waves_local.deterministic import encode_text

from benchmarks.soak import check_speech, check_words, expected_words
from tests.support.fault_proxy import FaultProxy, Faults
from tests.support.gateway import END, RunningGateway, audio_of, collect, of, running_gateway, start, text
from tests.support.seeds import repetitions, seeds

# Much work: on a machine under load it takes minutes.
pytestmark = pytest.mark.timeout(900)

POINTS = repetitions(40, 200)
AT_ONCE = 10
"""Lanes: a proxy and a gateway each, side by side."""
STORY = "Once upon a time there was a stream of words. All could hear it."
SAID = "the quick brown fox jumps over the lazy dog and runs away from here"
SAID_LATER = "into the deep dark wood"
RATE_HZ = 16000
PAUSE_S = 0.7


@asynccontextmanager
async def lane() -> AsyncIterator[tuple[RunningGateway, FaultProxy]]:
    """A gateway whose upstream is behind a proxy."""
    async with (
        waves_local.serve(options=waves_local.Options(word_timings="always")) as upstream,
        FaultProxy(upstream.port) as proxy,
        running_gateway(upstream_url=proxy.url) as gateway,
    ):
        yield gateway, proxy


async def in_lanes(seed: int, conversation: Any) -> list[int]:
    """Have `conversation(gateway, proxy, rng)` once for each point, those of a lane one after the other.

    Returns how many connections each of them lost.
    """
    found: list[int] = []

    async def run(number: int) -> None:
        async with lane() as (gateway, proxy):
            for point in range(number, POINTS, AT_ONCE):
                proxy.clear()
                try:
                    found.append(await conversation(gateway, proxy, random.Random(f"{seed}/{point}")))
                except BaseException as exc:
                    exc.add_note(f"point {point}")
                    raise

    async with asyncio.TaskGroup() as lanes:
        for number in range(AT_ONCE):
            lanes.create_task(run(number))
    return found


def cut(proxy: FaultProxy, rng: random.Random, *, up_bytes: int, down_bytes: int) -> None:
    """One or two connections end within so many bytes that go up, or come down, by FIN or by RST."""
    is_up = rng.random() < 0.5
    faults = Faults(
        limit_bytes=rng.randrange(1, up_bytes if is_up else down_bytes),
        limit_by=rng.choice(["close", "reset"]),
        limit_times=rng.choice([1, 1, 2]),
    )
    proxy.set(**{"up" if is_up else "down": faults})


async def listen(gateway: RunningGateway, proxy: FaultProxy, rng: random.Random) -> int:
    pcm = encode_text(SAID, RATE_HZ) + bytes(2 * round(RATE_HZ * PAUSE_S)) + encode_text(SAID_LATER, RATE_HZ)
    cut(proxy, rng, up_bytes=len(pcm), down_bytes=8_000)
    size = rng.choice([640, 3200, 9600])
    settings = v1.TranscriptionSettings(word_timings=True, full_transcript=True)
    opening = v1.StartTranscription(
        audio_format=v1.AudioFormat(encoding=v1.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=RATE_HZ),
        settings=settings,
    )
    got = await collect(
        gateway.transcription.TranscribeStream(),
        [
            v1.TranscribeStreamRequest(start=opening),
            *(
                v1.TranscribeStreamRequest(audio=v1.AudioInput(content=pcm[at : at + size]))
                for at in range(0, len(pcm), size)
            ),
            v1.TranscribeStreamRequest(end_session=v1.EndSession()),
        ],
    )
    finals = [t for t in of("transcript", got) if t.is_final]
    words = [(w.text, w.start_offset.ToTimedelta().total_seconds()) for t in finals for w in t.words]
    later_s = len(SAID) * 0.06 + PAUSE_S
    check_words(expected_words([(SAID, 0.0), (SAID_LATER, later_s)]), words, is_whole=True)
    assert finals[-1].full_text == f"{SAID} {SAID_LATER}"
    assert not any(c.lost_audio_duration.ToNanoseconds() for c in of("connection", got))
    return int(of("session_ended", got)[0].usage.reconnect_count)


async def speak(gateway: RunningGateway, proxy: FaultProxy, rng: random.Random, *, word_timings: bool) -> int:
    cut(proxy, rng, up_bytes=2_000, down_bytes=260_000)
    pieces = [text(STORY, "u", end=True)]
    if rng.random() < 0.5:
        words = STORY.split(" ")
        pieces = [
            text(w + " " * (i < len(words) - 1), "u", end=i == len(words) - 1) for i, w in enumerate(words)
        ]
    got = await collect(
        gateway.synthesis.SynthesizeStream(), [start(word_timings=word_timings), *pieces, END]
    )
    assert [c.utterance_id for c in of("utterance_completed", got)] == ["u"]
    chunks = of("audio", got)
    assert [c.chunk_index for c in chunks] == list(range(len(chunks)))
    check_speech(STORY, chunks, is_whole=True)
    if word_timings:
        heard = {w.word_index: w.text for e in of("word_timings", got) for w in e.words}
        assert [heard[i] for i in sorted(heard)] == STORY.split()
    else:
        assert not any(c.discontinuity for c in chunks)
        assert waves_local.spoken(audio_of(got)) == STORY
    return int(of("session_ended", got)[0].usage.reconnect_count)


@pytest.mark.parametrize("seed", seeds(1))
async def test_no_word_is_lost_or_heard_twice(seed: int) -> None:
    """Every word, once, where it was said, on one timeline."""
    lost = await in_lanes(seed, listen)
    assert len(lost) == POINTS
    assert sum(n > 0 for n in lost) >= POINTS // 2, "the cuts do not meet the sessions"


@pytest.mark.parametrize("word_timings", [False, True])
@pytest.mark.parametrize("seed", seeds(1))
async def test_every_text_is_spoken_once(seed: int, word_timings: bool) -> None:
    """Every character once and in order; with word times, the word in which it was cut may begin twice."""
    lost = await in_lanes(seed, functools.partial(speak, word_timings=word_timings))
    assert len(lost) == POINTS
    assert sum(n > 0 for n in lost) >= POINTS // 2, "the cuts do not meet the sessions"
