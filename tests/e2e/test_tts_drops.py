"""The upstream connection drops in mid-utterance: every character is heard once, in order, or the caller is told."""

from __future__ import annotations

import random

import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.waves.tts import Mode

from tests.support.gateway import END, audio_of, collect, of, running_gateway, start, text
from tests.support.seeds import seeds

STORY = (
    "Once upon a time there was a stream of words. It went up a hill, and down again. "
    "Nobody knew where it came from, but all could hear it."
)


def common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("frames", [0, 1, 2, 5, 17, 60])
async def test_without_word_times_the_speech_goes_on_where_it_was_cut(mode: Mode, frames: int) -> None:
    """The text is spoken again, and only what was not heard yet is delivered."""
    async with running_gateway(mode=mode) as gw:
        assert gw.upstream is not None
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=1, after_frames=frames))
        got = await collect(gw.synthesis.SynthesizeStream(), [start(), text(STORY, "u", end=True), END])
        assert waves_local.spoken(audio_of(got)) == STORY
        assert len(of("utterance_completed", got)) == 1
        assert not any(c.discontinuity for c in of("audio", got))
        states = [c.state for c in of("connection", got)]
        assert v1.ConnectionEvent.STATE_DISCONNECTED in states
        assert of("session_ended", got)[0].usage.reconnect_count == 1
        chunks = of("audio", got)
        assert [c.chunk_index for c in chunks] == list(range(len(chunks)))


@pytest.mark.parametrize("seed", seeds(8))
async def test_with_word_times_every_word_is_heard_whole(seed: int) -> None:
    """The rest is spoken from the first word that was not heard to its end."""
    rng = random.Random(seed)
    async with running_gateway(waves_local.Options(word_timings="always")) as gw:
        assert gw.upstream is not None
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=1, after_frames=rng.randrange(2, 80)))
        got = await collect(
            gw.synthesis.SynthesizeStream(), [start(word_timings=True), text(STORY, "u", end=True), END]
        )
        assert len(of("utterance_completed", got)) == 1
        words = {w.word_index: w for event in of("word_timings", got) for w in event.words}
        assert [words[i].text.strip(".,") for i in sorted(words)] == [w.strip(".,") for w in STORY.split()]
        heard = waves_local.spoken(audio_of(got))
        begins = common(heard, STORY)
        ends = common(heard[::-1], STORY[::-1])
        assert begins + ends >= len(STORY), "nothing is missing"
        assert len(heard) - len(STORY) <= max(map(len, STORY.split())) + 2, (
            "at most one word is heard cut, then whole"
        )
        broken = [c for c in of("audio", got) if c.discontinuity]
        assert (heard != STORY) <= len(broken) <= 1


async def test_a_voice_that_never_says_it_the_same_way_twice_fails_the_utterance() -> None:
    async with running_gateway(engine=waves_local.deterministic_engine(varying=True)) as gw:
        assert gw.upstream is not None
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=1, after_frames=5))
        got = await collect(
            gw.synthesis.SynthesizeStream(),
            [start(), text(STORY, "u1", end=True), text("And on.", "u2", end=True), END],
        )
        failed = of("utterance_failed", got)[0]
        assert failed.retryable
        assert failed.audio_sent_duration.ToTimedelta().total_seconds() > 0
        assert waves_local.spoken(audio_of(got, "u2")) == "And on."


async def test_two_drops_in_one_utterance() -> None:
    async with running_gateway() as gw:
        assert gw.upstream is not None
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=1, after_frames=12))
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=2, after_frames=7))
        gw.upstream.faults.add(waves_local.Fault("tts", "drop", nth=3, after_frames=30))
        got = await collect(gw.synthesis.SynthesizeStream(), [start(), text(STORY, "u", end=True), END])
        assert waves_local.spoken(audio_of(got)) == STORY
        assert of("session_ended", got)[0].usage.reconnect_count == 3
