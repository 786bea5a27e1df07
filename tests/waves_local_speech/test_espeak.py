"""Text to speech by espeak-ng."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)

import soxr
import uvloop
from waves_local.engine import Engine, SpokenAudio, SpokenWord, VoiceRequest
from waves_local.speech import SpeechProcessError
from waves_local.speech.espeak import EspeakSynthesizer
from waves_local.speech.text import tokens
from waves_local.speech.voices import VOICES, espeak_language

TEXT = "Hello, world. The children are playing in the garden; he took the bus to work every day!"
DEADLINE_S = 30.0


async def speak(
    engine: Engine,
    text: str = TEXT,
    voice_id: str = "magnus",
    sample_rate_hz: int = 24000,
    **settings: object,
) -> tuple[bytes, list[SpokenWord]]:
    request = VoiceRequest(text, voice_id, sample_rate_hz=sample_rate_hz)
    audio, words = [], []
    async for piece in engine.synthesizer.synthesize(dataclasses.replace(request, **settings)):
        if isinstance(piece, SpokenAudio):
            audio.append(piece.pcm)
        else:
            words.append(piece)
    return b"".join(audio), words


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def children(engine: Engine) -> list[int]:
    assert isinstance(engine.synthesizer, EspeakSynthesizer)
    process = engine.synthesizer._process._process
    assert process is not None
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


async def wait_until_childless(engine: Engine) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while children(engine):
        assert time.monotonic() < deadline, "a child still works for nobody"
        await asyncio.sleep(0.01)


class TestCatalogue:
    def test_each_voice_is_listed_once_under_its_id(self, engine: Engine) -> None:
        voices = engine.synthesizer.voices()
        assert len(voices) == len(VOICES) >= 20
        assert {voice.voice_id for voice in voices} == set(VOICES)
        assert {model for voice in voices for model in voice.models} == {
            "lightning_v3.1",
            "lightning_v3.1_pro",
            "lightning-v2",
        }
        assert all(voice.languages and voice.gender in {"male", "female"} for voice in voices)

    @pytest.mark.parametrize("voice_id", VOICES)
    async def test_each_voice_speaks_its_own_languages(self, engine: Engine, voice_id: str) -> None:
        pcm, words = await speak(engine, "One 2 3.", voice_id)
        assert np.abs(samples(pcm)).max() > 3000
        assert bool(words) == VOICES[voice_id].listed.word_timestamps

    async def test_voices_differ(self, engine: Engine) -> None:
        assert len({(await speak(engine, "Hello.", voice_id))[0] for voice_id in VOICES}) == len(VOICES)

    @pytest.mark.parametrize(
        "language",
        "ar bn de el en es fi fr gu hi id it ja kn ko ml mr ms nl no or pa pl pt ru sv ta te tr vi yue zh".split(),
    )
    async def test_each_language_is_spoken(self, engine: Engine, language: str) -> None:
        english, _ = await speak(engine, "12 15")
        spoken, _ = await speak(engine, "12 15", language=language)
        assert (spoken == english) == (language == "en")

    def test_language_codes_may_have_a_region_and_unknown_ones_are_english(self) -> None:
        liam = VOICES["liam"]
        assert espeak_language("en", liam) == "en"
        assert espeak_language("en-US", liam) == "en-us"
        assert espeak_language("hi-IN", liam) == "hi"
        assert espeak_language("pt_BR", liam) == "pt-br"
        assert espeak_language("tlh", liam) == "en"


class TestAudio:
    @pytest.mark.parametrize("sample_rate_hz", [8000, 16000, 22050, 24000, 44100, 48000])
    async def test_it_lasts_equally_long_at_every_rate(self, engine: Engine, sample_rate_hz: int) -> None:
        native, _ = await speak(engine, sample_rate_hz=22050)
        pcm, _ = await speak(engine, sample_rate_hz=sample_rate_hz)
        assert len(pcm) % 2 == 0
        expected = len(native) / 2 * sample_rate_hz / 22050
        assert len(pcm) / 2 == pytest.approx(expected, abs=2)

    async def test_chunks_meet_without_a_click(self, engine: Engine) -> None:
        """The pieces are what resampling the whole at once makes."""
        native, _ = await speak(engine, sample_rate_hz=22050)
        pcm, _ = await speak(engine, sample_rate_hz=24000)
        whole = soxr.resample(samples(native) / 32768, 22050, 24000) * 32768
        length = min(len(whole), len(pcm) // 2)
        # The native audio was rounded once more than the pieces' own source.
        assert np.abs(whole[:length] - samples(pcm)[:length]).max() <= 3

    async def test_equal_requests_make_equal_samples_whatever_was_spoken_between(
        self, engine: Engine
    ) -> None:
        first = await speak(engine)
        await speak(engine, "Etwas anderes.", "lukas", speed=1.7)
        assert await speak(engine) == first

    async def test_there_is_a_little_noise_in_the_pauses_and_room_at_the_top(self, engine: Engine) -> None:
        pcm, words = await speak(engine, "Hello. World.")
        pause = samples(pcm)[int(words[0].end_s * 24000) + 1200 : int(words[1].start_s * 24000) - 1200]
        assert 20 < pause.std() < 50
        assert np.abs(samples(pcm)).max() < 32767

    @pytest.mark.parametrize("speed", [0.5, 0.75, 1.5, 2.0])
    async def test_speed_changes_the_length(self, engine: Engine, speed: float) -> None:
        usual, _ = await speak(engine)
        pcm, _ = await speak(engine, speed=speed)
        assert len(usual) / len(pcm) == pytest.approx(speed, rel=0.3)

    @pytest.mark.parametrize("text", ["", " ", " \n\t "])
    async def test_a_blank_text_has_no_audio(self, engine: Engine, text: str) -> None:
        assert await speak(engine, text) == (b"", [])

    async def test_a_sentence_ends_with_a_pause_and_a_fragment_does_not(self, engine: Engine) -> None:
        fragment, _ = await speak(engine, "It costs")
        sentence, _ = await speak(engine, "It costs.")
        assert len(sentence) - len(fragment) > 0.2 * 48000

    async def test_an_unknown_voice_and_a_bad_rate_are_refused(self, engine: Engine) -> None:
        with pytest.raises(ValueError, match="no voice 'nobody'"):
            await speak(engine, voice_id="nobody")
        with pytest.raises(ValueError, match="sample rate"):
            await speak(engine, sample_rate_hz=0)

    @pytest.mark.parametrize(
        "text",
        [
            "...",
            "😀👨‍👩‍👧",
            "\x01200S\x00 [[h@l'oU]] <b>&amp;</b>",
            "\ud800 half a pair",
            "a" * 5000,
            "?!" * 500,
        ],
    )
    async def test_strange_text_is_no_error(self, engine: Engine, text: str) -> None:
        pcm, words = await speak(engine, text)
        assert all(word.end_s <= len(pcm) / 48000 + 0.001 for word in words)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            (TEXT, {}),
            ("It costs $100 for the 25th time at e-mail 3.5! Well-known, don't (really).", {}),
            ("I am happy 😀 today, ok? “Quoted” — dash… end", {"voice_id": "meher"}),
            ("नमस्ते दुनिया, यह 100 रुपये है।", {"voice_id": "devansh"}),
            ("Grüße aus München über die Straße für 5 €.", {"language": "de"}),
            ("Room 101 has 5 x 3 chairs, 1,000.50 in all.", {"number_language": "hi", "math_notation": True}),
            ("One two three. " * 60, {"speed": 2.0}),
        ],
    )
    async def test_words_are_the_text_s_in_order_and_inside_of_the_audio(
        self, engine: Engine, text: str, settings: dict[str, object]
    ) -> None:
        pcm, words = await speak(engine, text, **settings)
        expected = [text[token.start : token.end] for token in tokens(text)]
        assert [word.text for word in words] == expected
        assert all(word.start_s < word.end_s for word in words)
        assert all(before.end_s <= after.start_s for before, after in pairwise(words))
        assert words[0].start_s >= 0
        assert words[-1].end_s <= len(pcm) / 48000

    async def test_words_are_loud_and_the_pause_between_sentences_is_not(self, engine: Engine) -> None:
        pcm, words = await speak(engine, "Hello. World.")
        audio = samples(pcm)

        def level(start_s: float, end_s: float) -> float:
            return float(audio[int(start_s * 24000) : int(end_s * 24000)].std())

        hello, world = words
        assert level(hello.end_s + 0.05, world.start_s - 0.02) < 100
        assert min(level(hello.start_s, hello.end_s), level(world.start_s, world.end_s)) > 1000

    async def test_the_times_do_not_depend_on_the_sample_rate(self, engine: Engine) -> None:
        assert (await speak(engine, sample_rate_hz=8000))[1] == (await speak(engine, sample_rate_hz=48000))[1]


class TestLanguage:
    async def test_auto_follows_the_script_and_none_the_voice(self, engine: Engine) -> None:
        hindi, _ = await speak(engine, "नमस्ते 100", language="hi")
        assert (await speak(engine, "नमस्ते 100", language="auto"))[0] == hindi
        german, _ = await speak(engine, "Guten Tag.", "lukas", language="de")
        assert (await speak(engine, "Guten Tag.", "lukas"))[0] == german
        english, _ = await speak(engine, "Good day.", "devansh", language="en")
        assert (await speak(engine, "Good day.", "devansh"))[0] == english

    async def test_numbers_alone_may_be_in_another_language(self, engine: Engine) -> None:
        english, _ = await speak(engine, "I have 12 apples.", language="en")
        mixed, _ = await speak(engine, "I have 12 apples.", language="en", number_language="de")
        assert mixed != english
        assert (await speak(engine, "I have apples.", language="en", number_language="de"))[0] == (
            await speak(engine, "I have apples.", language="en")
        )[0]

    async def test_without_a_language_the_numbers_language_is_the_language(self, engine: Engine) -> None:
        german, _ = await speak(engine, "Guten Tag.", language="de")
        assert (await speak(engine, "Guten Tag.", number_language="de"))[0] == german

    async def test_math_notation_is_spoken(self, engine: Engine) -> None:
        spoken, _ = await speak(engine, "5 times 3")
        assert (await speak(engine, "5 x 3", math_notation=True))[0] == spoken
        assert (await speak(engine, "5 x 3"))[0] != spoken


class TestStreaming:
    LONG = "The children are playing in the garden. " * 500  # 20 minutes of speech

    async def test_fifty_at_once_are_all_right(self, engine: Engine) -> None:
        texts = [f"This is number {i % 7}. He took the bus to work every day." for i in range(50)]
        alone = {text: await speak(engine, text) for text in set(texts)}
        together = await asyncio.gather(*[speak(engine, text) for text in texts])
        assert all(spoken == alone[text] for text, spoken in zip(texts, together, strict=True))

    async def test_a_slow_reader_is_not_worked_far_ahead_of_and_leaving_ends_the_work(
        self, engine: Engine
    ) -> None:
        await wait_until_childless(engine)
        stream = engine.synthesizer.synthesize(VoiceRequest(self.LONG, "magnus", sample_rate_hz=24000))
        assert isinstance(await anext(stream), SpokenWord | SpokenAudio)
        (child,) = children(engine)

        def cpu_ticks() -> list[str]:
            # Fails where the child has ended, which it would have after a few seconds of unhindered work.
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]

        deadline = time.monotonic() + DEADLINE_S
        before = None
        while (now := cpu_ticks()) != before:
            assert time.monotonic() < deadline, "the work goes on although nobody reads"
            before = now
            await asyncio.sleep(0.3)
        await stream.aclose()
        await wait_until_childless(engine)

    async def test_cancelling_a_reader_ends_the_work(self, engine: Engine) -> None:
        await wait_until_childless(engine)
        begun = asyncio.Event()

        async def read() -> None:
            async for _piece in engine.synthesizer.synthesize(VoiceRequest(self.LONG, "magnus")):
                begun.set()

        reader = asyncio.create_task(read())
        await begun.wait()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await wait_until_childless(engine)

    async def test_a_crash_fails_its_own_request_only(self, engine: Engine) -> None:
        await wait_until_childless(engine)
        stream = engine.synthesizer.synthesize(VoiceRequest(self.LONG, "magnus"))
        await anext(stream)
        for child in children(engine):
            os.kill(child, signal.SIGKILL)
        with pytest.raises(SpeechProcessError, match="ended unexpectedly"):
            async for _piece in stream:
                pass
        assert (await speak(engine))[0]

    def test_it_works_on_uvloop(self, engine: Engine) -> None:
        with asyncio.Runner() as plain, asyncio.Runner(loop_factory=uvloop.new_event_loop) as fast:
            assert fast.run(speak(engine)) == plain.run(speak(engine))
