"""Speech to text by pocketsphinx. The sentences are some that it understands word for word, spoken by espeak-ng."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)
pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed: make speech says what it lacks")

from waves_local.engine import (
    Engine,
    HeardWord,
    Hypothesis,
    RecognitionEvent,
    RecognitionRequest,
    RecognitionStream,
    SpokenAudio,
    SpokenWord,
    VoiceActivity,
    VoiceRequest,
)
from waves_local.speech import SpeechProcessError, SphinxRecognizer
from waves_local.speech.sphinx import Recognition

HELLO = "hello world"
BUS = "he took the bus to work every day"
BREAD = "we are going to the market to buy some bread"
STATION = "can you tell me how to get to the station"


async def spoken(
    engine: Engine, text: str, sample_rate_hz: int = 16000, voice_id: str = "magnus"
) -> tuple[bytes, list[SpokenWord]]:
    request = VoiceRequest(text.capitalize() + ".", voice_id, sample_rate_hz=sample_rate_hz)
    pieces = [piece async for piece in engine.synthesizer.synthesize(request)]
    pcm = b"".join(piece.pcm for piece in pieces if isinstance(piece, SpokenAudio))
    return pcm, [piece for piece in pieces if isinstance(piece, SpokenWord)]


def quiet(seconds: float, sample_rate_hz: int = 16000) -> bytes:
    """A room in which nobody speaks."""
    noise = np.random.default_rng(3).standard_normal(round(seconds * sample_rate_hz)) * 33
    return noise.astype("<i2").tobytes()


async def accept_all(
    stream: RecognitionStream, pcm: bytes, piece_bytes: int = 3200
) -> list[RecognitionEvent]:
    events: list[RecognitionEvent] = []
    for begin in range(0, len(pcm), piece_bytes):
        events += await stream.accept(pcm[begin : begin + piece_bytes])
    return events


async def hear(
    engine: Engine, pcm: bytes, request: RecognitionRequest | None = None, piece_bytes: int = 3200
) -> list[RecognitionEvent]:
    stream = await engine.recognizer.open(request or RecognitionRequest())
    try:
        return [*await accept_all(stream, pcm, piece_bytes), *await stream.finalize()]
    finally:
        await stream.close()


def finals(events: Sequence[RecognitionEvent]) -> list[Hypothesis]:
    return [event for event in events if isinstance(event, Hypothesis) and event.is_final]


def text(hypothesis: Hypothesis) -> str:
    return " ".join(word.text for word in hypothesis.words)


def activity(events: Sequence[RecognitionEvent]) -> list[VoiceActivity]:
    return [event for event in events if isinstance(event, VoiceActivity)]


class TestTranscripts:
    @pytest.mark.parametrize("sample_rate_hz", [16000, 22050, 24000, 44100, 48000])
    async def test_it_understands_what_was_said_at_every_rate(
        self, engine: Engine, sample_rate_hz: int
    ) -> None:
        pcm, _ = await spoken(engine, HELLO, sample_rate_hz)
        (final,) = finals(await hear(engine, pcm, RecognitionRequest(sample_rate_hz=sample_rate_hz)))
        assert text(final) == HELLO
        assert final.end_s == pytest.approx(len(pcm) / 2 / sample_rate_hz)
        assert not final.by_endpoint

    async def test_over_the_telephone_it_understands_something(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, BREAD, 8000)
        (final,) = finals(await hear(engine, pcm, RecognitionRequest(sample_rate_hz=8000)))
        heard = [word.text for word in final.words]
        assert sum(word in heard for word in BREAD.split()) >= 5

    @pytest.mark.parametrize("voice_id", ["avery", "jordan"])
    async def test_it_understands_other_voices(self, engine: Engine, voice_id: str) -> None:
        pcm, _ = await spoken(engine, STATION, voice_id=voice_id)
        (final,) = finals(await hear(engine, pcm))
        assert text(final) == STATION

    async def test_words_are_heard_when_they_were_spoken(self, engine: Engine) -> None:
        pcm, words = await spoken(engine, BREAD)
        (final,) = finals(await hear(engine, quiet(1.0) + pcm))
        assert [word.text for word in final.words] == [word.text.lower() for word in words]
        for heard, said in zip(final.words, words, strict=True):
            assert heard.start_s == pytest.approx(said.start_s + 1.0, abs=0.12)
            assert heard.end_s == pytest.approx(said.end_s + 1.0, abs=0.12)
            assert 0 <= heard.confidence <= 1
        assert all(before.end_s <= after.start_s for before, after in pairwise(final.words))
        assert final.words[-1].end_s <= final.end_s

    async def test_partials_grow_into_the_final(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, BUS)
        hypotheses = [event for event in await hear(engine, pcm) if isinstance(event, Hypothesis)]
        *partials, final = hypotheses
        assert final.is_final
        assert not any(partial.is_final for partial in partials)
        assert len(partials) >= 4
        assert all(before.end_s < after.end_s for before, after in pairwise(partials))
        assert all(text(before) != text(after) for before, after in pairwise(partials))
        assert text(partials[-1]).split()[:4] == text(final).split()[:4]
        assert all(partial.words[-1].end_s <= partial.end_s for partial in partials)

    @pytest.mark.parametrize("piece_bytes", [46, 274, 64000])
    async def test_the_size_of_the_pieces_changes_nothing(self, engine: Engine, piece_bytes: int) -> None:
        pcm, _ = await spoken(engine, BUS, 24000)
        pcm = pcm[: 2 * 24000]
        request = RecognitionRequest(sample_rate_hz=24000)
        assert await hear(engine, pcm, request, piece_bytes) == await hear(engine, pcm, request)

    async def test_two_streams_at_once_do_not_mix(self, engine: Engine) -> None:
        said = [BUS, HELLO]
        audio = [(await spoken(engine, sentence))[0] for sentence in said]
        heard = await asyncio.gather(*[hear(engine, pcm) for pcm in audio])
        assert [text(finals(events)[0]) for events in heard] == said

    async def test_any_language_is_accepted(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, HELLO)
        (final,) = finals(await hear(engine, pcm, RecognitionRequest(language="hi")))
        assert text(final) == HELLO

    async def test_a_keyword_is_heard_and_written_as_it_was_given(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, "please call jensen about the blackwell chip")
        (without,) = finals(await hear(engine, pcm))
        keywords = (("Jensen", 3.0), ("Blackwell", 3.0), ("Xyzzyplugh", 3.0), ("chip", 0.0))
        (boosted,) = finals(await hear(engine, pcm, RecognitionRequest(keywords=keywords)))
        assert "blackwell" not in text(without).lower()
        assert {"Jensen", "Blackwell"} <= {word.text for word in boosted.words}

    async def test_a_bad_rate_is_refused(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="sample rate"):
            await engine.recognizer.open(RecognitionRequest(sample_rate_hz=0))


class TestUtterances:
    async def test_finalize_ends_an_utterance_and_offsets_go_on(self, engine: Engine) -> None:
        first, _ = await spoken(engine, HELLO, 44100)
        second, _ = await spoken(engine, STATION, 44100)
        first += quiet(0.2, 44100)[:-2]  # an odd number of samples, for the resampler's sake
        stream = await engine.recognizer.open(RecognitionRequest(sample_rate_hz=44100))
        await accept_all(stream, first)
        (one,) = finals(await stream.finalize())
        (nothing,) = finals(await stream.finalize())
        await accept_all(stream, second)
        (two,) = finals(await stream.finalize())
        await stream.close()
        boundary_s = len(first) / 2 / 44100
        assert (text(one), text(nothing), text(two)) == (HELLO, "", STATION)
        assert one.end_s == nothing.end_s == pytest.approx(boundary_s)
        assert two.words[0].start_s >= boundary_s
        assert two.end_s == pytest.approx(boundary_s + len(second) / 2 / 44100)

    async def test_the_last_word_is_not_lost_where_audio_stops_with_it(self, engine: Engine) -> None:
        pcm, words = await spoken(engine, BUS, 48000)
        pcm = pcm[: 2 * round(words[-1].end_s * 48000)]
        (final,) = finals(await hear(engine, pcm, RecognitionRequest(sample_rate_hz=48000), piece_bytes=9600))
        assert text(final).split()[-1] == "day"

    async def test_silence_ends_an_utterance(self, engine: Engine) -> None:
        first, first_words = await spoken(engine, BUS)
        second, second_words = await spoken(engine, HELLO)
        audio = quiet(0.5) + first + quiet(1.0) + second + quiet(1.0)
        second_s = 1.5 + len(first) / 2 / 16000
        events = await hear(engine, audio, RecognitionRequest(end_of_utterance_s=0.6))
        one, two, rest = finals(events)
        assert [(text(one), one.by_endpoint), (text(two), two.by_endpoint)] == [(BUS, True), (HELLO, True)]
        assert (text(rest), rest.by_endpoint) == ("", False)
        speech = [0.5, 0.5 + first_words[-1].end_s, second_s, second_s + second_words[-1].end_s]
        assert [event.speaking for event in activity(events)] == [True, False, True, False]
        assert [event.at_s for event in activity(events)] == pytest.approx(speech, abs=0.15)
        # The end of speech is told before the final that it makes, and that comes soon after the silence.
        assert events.index(activity(events)[1]) < events.index(one)
        assert one.end_s == pytest.approx(speech[1] + 0.6, abs=0.2)

    async def test_without_endpointing_only_finalize_ends_an_utterance(self, engine: Engine) -> None:
        first, _ = await spoken(engine, BUS)
        second, _ = await spoken(engine, STATION)
        audio = first + quiet(1.5) + second
        (final,) = finals(await hear(engine, audio, RecognitionRequest(endpointing=False)))
        assert text(final) == f"{BUS} {STATION}"

    async def test_where_nobody_speaks_nothing_is_heard(self, engine: Engine) -> None:
        events = await hear(engine, quiet(3.0) + bytes(32000))
        assert events == [Hypothesis((), is_final=True, end_s=4.0)]

    async def test_speech_shorter_than_the_minimum_is_ignored(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, "hello")
        audio = quiet(0.5) + pcm + quiet(0.5)
        assert activity(await hear(engine, audio))
        assert not activity(await hear(engine, audio, RecognitionRequest(vad_min_speech_s=2.0)))


class TestLifetime:
    @staticmethod
    def children(engine: Engine) -> list[int]:
        assert isinstance(engine.recognizer, SphinxRecognizer)
        process = engine.recognizer._process._process
        assert process is not None
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(pid) for pid in listed.split()]

    async def wait_until_childless(self, engine: Engine) -> None:
        async with asyncio.timeout(30):
            while self.children(engine):  # noqa: ASYNC110 - the kernel sets no event
                await asyncio.sleep(0.01)

    async def test_closing_early_ends_the_work(self, engine: Engine) -> None:
        stream = await engine.recognizer.open(RecognitionRequest())
        await stream.accept(quiet(0.1))
        assert self.children(engine)
        await stream.close()
        await stream.close()
        await self.wait_until_childless(engine)
        with pytest.raises(SpeechProcessError):
            await stream.accept(quiet(0.1))

    async def test_cancelling_a_call_ends_the_stream(self, engine: Engine) -> None:
        pcm, _ = await spoken(engine, BREAD)
        stream = await engine.recognizer.open(RecognitionRequest())
        call = asyncio.create_task(stream.accept(pcm * 20))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await self.wait_until_childless(engine)
        with pytest.raises(SpeechProcessError):
            await stream.finalize()

    async def test_a_crash_fails_its_own_stream_only(self, engine: Engine) -> None:
        await self.wait_until_childless(engine)
        stream = await engine.recognizer.open(RecognitionRequest())
        for child in self.children(engine):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with pytest.raises(SpeechProcessError, match="ended unexpectedly"):
            await accept_all(stream, quiet(1.0))
        await stream.close()
        pcm, _ = await spoken(engine, HELLO)
        assert text(finals(await hear(engine, pcm))[0]) == HELLO


class CountingDecoder:
    """Hears one word a second, as long as the utterance lasts."""

    def __init__(self) -> None:
        self.bytes = 0
        self.utterances = 0

    def set_cmn(self, mean: str) -> None:
        pass

    def get_lm(self) -> None:
        return None

    def start_utt(self) -> None:
        self.bytes = 0
        self.utterances += 1

    def process_raw(self, pcm: bytes) -> None:
        self.bytes += len(pcm)

    def end_utt(self) -> None:
        pass

    def seg(self) -> list[object]:
        return [Segment("word(2)", 100 * i, 100 * i + 49) for i in range(self.bytes // 32000)]


class Segment:
    prob = 0.5

    def __init__(self, word: str, start_frame: int, end_frame: int) -> None:
        self.word, self.start_frame, self.end_frame = word, start_frame, end_frame


class LoudIsSpeech:
    def is_speech(self, frame: bytes) -> bool:
        return any(frame)


class TestDecoding:
    """With a decoder that counts."""

    LOUD, SILENT = b"\1\1" * 16000, bytes(32000)  # a second each

    def recognition(self, **settings: bool) -> Recognition:
        return Recognition(CountingDecoder(), LoudIsSpeech(), RecognitionRequest(**settings))

    def test_a_very_long_one_is_cut_in_a_gap_and_says_that_silence_did_not_end_it(self) -> None:
        recognition = self.recognition(endpointing=False)
        events = recognition.accept(self.LOUD * 32 + self.SILENT + self.LOUD * 3)
        (final,) = finals(events)
        assert not final.by_endpoint
        assert 32.0 < final.end_s < 32.3
        assert len(final.words) == 32
        (last,) = finals(recognition.finalize())
        # What follows belongs to the next: nothing is heard twice, nothing is left out.
        assert last.words[0].start_s >= final.end_s
        assert last.end_s == 36.0

    def test_an_endless_one_is_cut_without_a_gap(self) -> None:
        recognition = self.recognition()
        (final,) = finals(recognition.accept(self.LOUD * 70))
        assert 60.0 < final.end_s < 60.1
        (last,) = finals(recognition.finalize())
        assert last.words[0] == HeardWord("word", final.end_s, final.end_s + 0.5, 0.5)

    def test_silence_after_finalize_is_not_another_utterance(self) -> None:
        recognition = self.recognition()
        recognition.accept(self.LOUD * 2 + self.SILENT[:3200])
        recognition.finalize()
        events = recognition.accept(self.SILENT * 3)
        assert events == [VoiceActivity(speaking=False, at_s=2.0)]

    def test_speech_goes_on_after_finalize(self) -> None:
        recognition = self.recognition()
        recognition.accept(self.LOUD * 2)
        recognition.finalize()
        (final,) = finals(recognition.accept(self.LOUD * 2 + self.SILENT))
        assert final.by_endpoint
        assert [word.start_s for word in final.words] == [2.0, 3.0]

    def test_a_noise_without_words_makes_no_final(self) -> None:
        recognition = self.recognition()
        assert finals(recognition.accept(self.LOUD[:12800] + self.SILENT * 2)) != []
        recognition = self.recognition(endpointing=True)
        recognition._decoder.seg = list
        events = recognition.accept(self.LOUD[:12800] + self.SILENT * 2)
        assert [event.speaking for event in activity(events)] == [True, False]
        assert finals(events) == []

    def test_silence_costs_no_decoding(self) -> None:
        recognition = self.recognition()
        recognition.accept(self.SILENT * 60)
        assert recognition._decoder.utterances == 0

    def test_partials_come_each_fifth_of_a_second_at_most_and_only_when_they_differ(self) -> None:
        events = self.recognition().accept(self.LOUD * 5)
        assert [event.end_s for event in events if isinstance(event, Hypothesis)] == pytest.approx(
            [1.16, 2.16, 3.16, 4.16], abs=0.21
        )
