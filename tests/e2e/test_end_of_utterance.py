"""The end of an utterance against upstreams that pause, stall, say `complete` in other ways, or send other frames.

What is reported completed was heard whole; what was not heard whole has failed, and says how much was heard.
"""

from __future__ import annotations

from typing import Any

import pytest
import waves_local
from wavegate.speech import v1
from wavegate_server.waves.tts import Mode

from tests.support.calls import Speaking, seconds, together
from tests.support.gateway import END, audio_of, collect, of, running_gateway, start, text

WORDS = (
    "The upstream has spoken the first of these thirty words when it pauses for a while and every one of the others "
    "has to be heard in its place all the same today."
)
SENTENCES = (
    "The first of two sentences is longer than the second one, and it ends just here. Then comes this."
)
Options = waves_local.Options


def tokens(words: str, name: str) -> list[v1.SynthesizeStreamRequest]:
    """A text word by word, and its end."""
    pieces = [f"{word} " for word in words.split(" ")[:-1]] + [words.rsplit(" ", maxsplit=1)[-1]]
    return [*(text(piece, name) for piece in pieces[:-1]), text(pieces[-1], name, True)]


def whole(words: str, name: str) -> list[v1.SynthesizeStreamRequest]:
    return [text(words, name, True)]


async def spoken_whole(
    options: Options,
    faults: list[str],
    said: str,
    *,
    mode: Mode = Mode.CONTINUATIONS,
    streamed: bool = False,
    **settings: Any,
) -> list[Any]:
    """Speak a text through a fresh gateway, and again through the same one; the events of both."""
    events = []
    async with running_gateway(options, mode=mode) as gateway:
        assert gateway.upstream is not None
        for fault in faults:
            gateway.upstream.faults.add(fault)
        for name in ("fresh", "warm"):
            requests = tokens(said, name) if streamed else whole(said, name)
            got = await collect(gateway.synthesis.SynthesizeStream(), [start(**settings), *requests, END])
            (completed,) = of("utterance_completed", got)
            heard = waves_local.spoken(audio_of(got))
            assert heard.split() == said.split(), (name, completed.completion_source)
            assert not of("utterance_failed", got)
            assert not [w for w in of("warning", got) if w.reason == "LATE_AUDIO"]
            events += got
    return events


@pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)
async def test_a_pause_is_waited_for(mode: Mode) -> None:
    """Soon after the start and near the end, of upstreams that say `complete` and of those that do not."""

    async def check(per: str, pause_s: float, after: int) -> None:
        fault = f"tts:slow={pause_s},after-frames={after},frames=1"
        await spoken_whole(Options(complete_per=per), [fault], WORDS, mode=mode)

    await together(
        *(
            check(per, pause_s, after)
            for per in ("turn", "none")
            for pause_s, after in ((1.0, 5), (2.5, 2), (4.0, 40), (2.5, 80))
        )
    )


@pytest.mark.parametrize("mode", list(Mode), ids=lambda m: m.value)
async def test_a_complete_of_each_release_is_waited_for(mode: Mode) -> None:
    """The second sentence comes long after the `complete` of the first."""

    async def check(first_audio_s: float, timings: str) -> None:
        options = Options(complete_per="release", first_audio_delay_s=first_audio_s, word_timings=timings)
        await spoken_whole(options, [], SENTENCES, mode=mode, streamed=True, word_timings=timings == "always")

    await together(*(check(s, t) for s in (0.1, 0.7, 3.0) for t in ("always", "never")))


@pytest.mark.parametrize("fault", ["tts:stall", "tts:vanish"])
async def test_an_upstream_that_falls_silent_for_ever_is_repaired(fault: str) -> None:
    """Once, at any point: another connection says what is missing."""

    async def check(after: int) -> None:
        await spoken_whole(Options(), [f"{fault},after-frames={after},nth=1"], WORDS)

    await together(*(check(after) for after in (0, 1, 2, 10, 50, 80)))


async def test_an_upstream_that_always_falls_silent_fails_the_utterance() -> None:
    """It never counts as spoken; what was heard is told."""

    async def check(mode: Mode, after: int) -> None:
        async with running_gateway(mode=mode) as gateway:
            assert gateway.upstream is not None
            gateway.upstream.faults.add(f"tts:stall,after-frames={after}")
            stream = Speaking(gateway.synthesis.SynthesizeStream())
            await stream.begin(start(), text(WORDS, "u", True))
            failed = await stream.until("utterance_failed")
            assert seconds(failed.audio_sent_duration) == pytest.approx(len(stream.audio("u")) / 2 / 24_000)
            assert not stream.all("utterance_completed")

    await together(*(check(mode, after) for mode in Mode for after in (1, 3, 20)))


@pytest.mark.parametrize("what", ["bad-json", "binary", "wrong-type", "bad-base64"])
async def test_a_frame_in_the_place_of_audio_is_repaired(what: str) -> None:
    async def check(after: int) -> None:
        await spoken_whole(Options(), [f"tts:{what},after-frames={after},nth=1"], WORDS)

    await together(*(check(after) for after in (0, 7, 60)))


async def test_an_upstream_that_sends_no_complete_is_reported_late_and_as_not_confirmed() -> None:
    events = await spoken_whole(Options(complete_per="none"), [], WORDS)
    for completed in of("utterance_completed", events):
        assert completed.completion_source == v1.UtteranceCompleted.COMPLETION_SOURCE_QUIET_TIMEOUT
        assert completed.end_unconfirmed
    events = await spoken_whole(Options(), [], "A sentence that can be no more than one release.")
    assert not any(completed.end_unconfirmed for completed in of("utterance_completed", events))
