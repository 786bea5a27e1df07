"""Many conversations while the upstream keeps failing: `make soak`, for a while."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
import waves_local
from wavegate.speech import v1
from waves_local.deterministic import encode_text

from benchmarks import soak
from tests.support.seeds import seeds

SECONDS = float(os.environ.get("WAVEGATE_SOAK_SECONDS", "20"))


@pytest.mark.timeout(SECONDS + 2 * soak.PATIENCE_S)
@pytest.mark.parametrize("seed", seeds(1, first=2))  # two upstreams that speak fast, so that it is soon over
async def test_every_conversation_is_whole(seed: int) -> None:
    """Of 40 streams, each character is heard once and in order, and each word where it was said."""
    report = await soak.soak(SECONDS, seed, is_brief=SECONDS < 60, fault_every_s=min(10.0, SECONDS / 8))
    assert not report.mismatches, str(report)
    for kind in ("utterances whole", "words heard", "reconnects"):
        assert report.totals[kind] > 0, str(report)


def test_upstreams_of_every_kind_are_drawn() -> None:
    drawn = [soak.dialect(random.Random(seed)) for seed in range(200)]
    assert {o.complete_per for o in drawn} == {"turn", "release", "request", "none"}
    for name in (
        "complete_late_s",
        "complete_closes",
        "echo_ids",
        "word_timings",
        "generation_speed",
        "last_apart",
    ):
        assert len({getattr(o, name) for o in drawn}) > 1, name
    world = soak.described("1.0", "flush", waves_local.Options(complete_per="none", echo_ids=False))
    assert world == "world 1.0: flush; waves-local --complete-per none --no-echo-ids"


def chunks(*stretches: str) -> list[Any]:
    """The audio of these texts, each but the first behind a discontinuity; cut within a character at each end."""
    found = []
    for number, text in enumerate(stretches):
        pcm = encode_text(text, 24000)
        pcm = pcm[:-500] if number < len(stretches) - 1 else pcm
        found += [
            v1.AudioChunk(audio=pcm[at : at + 4800], discontinuity=number > 0 and at == 0)
            for at in range(0, len(pcm), 4800)
        ]
    return found


@pytest.mark.parametrize(
    "stretches",
    [("one two three",), ("one tw", "two three"), ("one two t", "three"), ("one t", "two th", "three")],
)
def test_speech_that_is_whole(stretches: tuple[str, ...]) -> None:
    soak.check_speech("one two three", chunks(*stretches), is_whole=True)


@pytest.mark.parametrize(
    "stretches",
    [
        ("one two",),
        ("one three",),
        ("one two two three",),
        ("one two thre",),
        ("one tw", "three"),
        ("one two th", "two three"),
        ("one tw", "wo three"),
        ("two three",),
    ],
)
def test_speech_that_is_not(stretches: tuple[str, ...]) -> None:
    with pytest.raises(soak.Mismatch):
        soak.check_speech("one two three", chunks(*stretches), is_whole=True)


def test_words_that_are_lost_repeated_or_moved() -> None:
    said = [("one", 0.0), ("two", 0.5), ("three", 1.0)]
    soak.check_words(said, said, is_whole=True)
    soak.check_words(said, said[:2], is_whole=False)
    for heard in (
        said[:2],
        said[1:],
        [*said, said[2]],
        [said[0], said[0], *said[1:]],
        [*said[:2], ("three", 1.1)],
    ):
        with pytest.raises(soak.Mismatch):
            soak.check_words(said, heard, is_whole=True)


def test_a_mark_behind_the_last_word_may_be_silent() -> None:
    soak.check_speech("had through..", chunks("had through."), is_whole=True)
    with pytest.raises(soak.Mismatch):
        soak.check_speech("had through. a", chunks("had through."), is_whole=True)
