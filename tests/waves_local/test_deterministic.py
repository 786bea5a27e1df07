"""The deterministic engine proves what it claims to prove."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waves_local import codecs, deterministic_engine, speak, spoken
from waves_local.deterministic import BROKEN, block_samples, encode_text, heard, voice_tag
from waves_local.engine import (
    Hypothesis,
    RecognitionEvent,
    RecognitionRequest,
    SpokenAudio,
    SpokenWord,
    VoiceActivity,
    VoiceRequest,
)

# On a busy machine one example may take long.
unhurried = settings(max_examples=50, deadline=None)

RATES = (8000, 16000, 24000, 44100)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.lists(st.text("abcxyz019äक", min_size=1, max_size=6), min_size=1, max_size=5)


async def recognize(
    pcm: bytes, rate_hz: int = 8000, pieces: int | None = None, **request: float
) -> list[RecognitionEvent]:
    """All events for this audio, heard in pieces of so many bytes, and finalized."""
    stream = await deterministic_engine().recognizer.open(
        RecognitionRequest(sample_rate_hz=rate_hz, **request)  # type: ignore[arg-type]
    )
    events: list[RecognitionEvent] = []
    step = pieces or len(pcm) or 1
    for start in range(0, len(pcm), step):
        events += await stream.accept(pcm[start : start + step])
    events += await stream.finalize()
    await stream.close()
    return events


def final_words(events: list[RecognitionEvent]) -> list[str]:
    return [w.text for e in events if isinstance(e, Hypothesis) and e.is_final for w in e.words]


# --- what was spoken --------------------------------------------------------------------------------------


@unhurried
@given(texts, st.sampled_from(RATES), st.floats(0.5, 2.0))
def test_any_text_is_read_back_from_its_audio(text: str, rate_hz: int, speed: float) -> None:
    pcm = encode_text(text, rate_hz, speed=speed, character_s=0.02)
    assert spoken(pcm) == text
    assert len(pcm) == 2 * len(text) * block_samples(rate_hz, speed, 0.02)


@unhurried
@given(texts)
def test_g711_does_not_hurt_the_code(text: str) -> None:
    pcm = encode_text(text, 8000)
    assert spoken(codecs.mulaw_decode(codecs.mulaw_encode(pcm))) == text
    assert spoken(codecs.alaw_decode(codecs.alaw_encode(pcm))) == text


@unhurried
@given(st.data())
def test_lost_samples_show(data: st.DataObject) -> None:
    text = "abcdef"
    pcm = encode_text(text, 8000)
    start = data.draw(st.integers(0, len(pcm) // 2 - 1))
    count = data.draw(st.integers(1, len(pcm) // 2 - start))
    damaged = pcm[: 2 * start] + pcm[2 * (start + count) :]
    block = block_samples(8000)
    if start % block == 0 and count % block == 0:
        # Whole characters went: the text itself tells.
        assert spoken(damaged) == text[: start // block] + text[(start + count) // block :]
    else:
        assert BROKEN in spoken(damaged)


@unhurried
@given(st.data())
def test_repeated_samples_show(data: st.DataObject) -> None:
    text = "abcdef"
    pcm = encode_text(text, 8000)
    end = data.draw(st.integers(1, len(pcm) // 2))
    start = data.draw(st.integers(0, end - 1))
    repeated = spoken(pcm[: 2 * end] + pcm[2 * start :])
    assert repeated != text
    block = block_samples(8000)
    assert BROKEN in repeated or (start % block == 0 and end % block == 0)


def test_one_changed_sample_shows() -> None:
    pcm = bytearray(encode_text("abc", 8000))
    middle = 2 * (block_samples(8000) + 100)
    pcm[middle : middle + 2] = (-int.from_bytes(pcm[middle : middle + 2], "little", signed=True)).to_bytes(
        2, "little", signed=True
    )
    assert spoken(bytes(pcm)) == f"a{BROKEN}c"


def test_every_sample_of_a_recording_is_accounted_for() -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(-20000, 20000, 3000, dtype=np.int16).tobytes()
    pcm = bytes(1000) + encode_text("hi", 8000) + noise + bytes(2000) + encode_text("you", 8000)[:-40]
    pieces = heard(pcm)
    assert [p.start for p in pieces] == [0, *(p.end for p in pieces[:-1])]
    assert pieces[-1].end == len(pcm) // 2


def test_a_block_tells_voice_and_take() -> None:
    pieces = heard(encode_text("a", 16000, voice_id="meher", take=7))
    assert [(p.character, p.tag, p.take) for p in pieces] == [("a", voice_tag("meher"), 7)]
    assert voice_tag("meher") != voice_tag("liam")


async def test_the_synthesizer_speaks_every_character_and_times_every_word() -> None:
    synthesizer = deterministic_engine().synthesizer
    request = VoiceRequest(text="  Hello,  $100 world! ", voice_id="meher", sample_rate_hz=24000, speed=2.0)
    pcm, found = b"", []
    async for piece in synthesizer.synthesize(request):
        if isinstance(piece, SpokenAudio):
            pcm += piece.pcm
        else:
            found.append(piece)
    assert spoken(pcm) == request.text
    assert [w.text for w in found] == ["Hello,", "$100", "world!"]
    for word in found:
        assert spoken(pcm[2 * round(word.start_s * 24000) : 2 * round(word.end_s * 24000)]) == word.text


async def test_a_varying_engine_does_not_repeat_itself() -> None:
    async def say(varying: bool) -> tuple[bytes, bytes]:
        synthesizer = deterministic_engine(varying=varying).synthesizer
        said = []
        for _ in range(2):
            pieces = [p async for p in synthesizer.synthesize(VoiceRequest("again", "liam"))]
            said.append(b"".join(p.pcm for p in pieces if not isinstance(p, SpokenWord)))
        return said[0], said[1]

    same, changing = await say(False), await say(True)
    assert same[0] == same[1]
    assert changing[0] != changing[1]
    assert spoken(changing[0]) == spoken(changing[1]) == "again"


# --- what was heard ---------------------------------------------------------------------------------------


@unhurried
@given(words, st.sampled_from(RATES), st.integers(1, 4000))
async def test_exactly_the_words_are_heard_at_their_samples(
    said: list[str], rate_hz: int, pieces: int
) -> None:
    pcm = speak(said, rate_hz, lead_s=0.1, tail_s=0.1)
    events = await recognize(pcm, rate_hz, 2 * pieces)
    assert final_words(events) == said
    block, gap, at = block_samples(rate_hz), round(0.12 * rate_hz), round(0.1 * rate_hz)
    [final] = [e for e in events if isinstance(e, Hypothesis) and e.is_final]
    for word in final.words:
        assert round(word.start_s * rate_hz) == at
        assert round(word.end_s * rate_hz) == at + len(word.text) * block
        at += len(word.text) * block + gap


async def test_what_the_synthesizer_says_the_recognizer_understands() -> None:
    pcm = encode_text("How do you do?", 16000, voice_id="liam")
    assert final_words(await recognize(pcm, 16000)) == ["How", "do", "you", "do?"]


async def test_g711_speech_is_heard() -> None:
    pcm = speak(["alpha", "bravo"], 8000, lead_s=0.2)
    for heard_pcm in (
        codecs.mulaw_decode(codecs.mulaw_encode(pcm)),
        codecs.alaw_decode(codecs.alaw_encode(pcm)),
    ):
        assert final_words(await recognize(heard_pcm, 8000, 320)) == ["alpha", "bravo"]


@unhurried
@given(st.integers(0, 2**32 - 1), st.integers(1, 3000))
async def test_foreign_audio_is_heard_the_same_however_it_is_cut(seed: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    loud = rng.normal(0, 3000, 5000)
    loud[rng.integers(0, 5000) :][:200] *= 0.01
    pcm = bytes(400) + loud.clip(-32768, 32767).astype("<i2").tobytes() + speak(["end"], 8000, lead_s=0.2)
    whole = await recognize(pcm)
    assert final_words(whole) == final_words(await recognize(pcm, pieces=2 * pieces))
    assert final_words(whole)[0].startswith("noise-")
    assert final_words(whole)[-1] == "end"


async def test_foreign_audio_proves_its_samples() -> None:
    noise = bytearray(np.random.default_rng(3).integers(300, 9000, 8000, dtype=np.int16).tobytes())
    before = final_words(await recognize(bytes(noise)))
    noise[6001] ^= 0x08
    after = final_words(await recognize(bytes(noise)))
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True]


async def test_a_word_cut_short_is_broken() -> None:
    pcm = speak(["alpha"], 8000)
    assert final_words(await recognize(pcm[:-100])) == [f"alph{BROKEN}"]
    assert final_words(await recognize(pcm[100:])) == [f"{BROKEN}lpha"]
    assert final_words(await recognize(pcm[:1000] + pcm[1100:])) == [f"a{BROKEN}pha"]


async def test_partials_grow_word_by_word() -> None:
    events = await recognize(speak(["ab", "cd"], 8000), pieces=960)
    partials = [
        " ".join(w.text for w in e.words) for e in events if isinstance(e, Hypothesis) and not e.is_final
    ]
    assert partials == ["a", "ab", "ab c", "ab cd"]


async def test_silence_ends_an_utterance() -> None:
    pcm = speak(["one"], 8000, tail_s=0.7) + speak(["two"], 8000)
    events = await recognize(pcm, pieces=500, end_of_utterance_s=0.5)
    found = [e for e in events if isinstance(e, Hypothesis) and e.is_final]
    assert [([w.text for w in e.words], e.by_endpoint) for e in found] == [(["one"], True), (["two"], False)]
    assert found[0].end_s == pytest.approx(0.18 + 0.5)
    # A shorter silence does not.
    assert len(await recognize(pcm, end_of_utterance_s=0.9)) < len(events)


async def test_voice_activity_is_told_at_its_samples() -> None:
    pcm = speak(["one"], 8000, lead_s=0.25, tail_s=0.3) + speak(["x"], 8000, tail_s=0.3)
    events = [e for e in await recognize(pcm, pieces=333 * 2) if isinstance(e, VoiceActivity)]
    assert [(e.speaking, e.at_s) for e in events] == [
        (True, 0.25),
        (False, 0.43),
        (True, 0.73),
        (False, 0.79),
    ]
    # Sound shorter than the minimum is no speech.
    events = [e for e in await recognize(pcm, vad_min_speech_s=0.1) if isinstance(e, VoiceActivity)]
    assert [(e.speaking, e.at_s) for e in events] == [(True, 0.25), (False, 0.43)]


async def test_voices_are_speakers() -> None:
    pcm = b"".join(speak([w], 8000, tail_s=0.1, voice_id=v) for w, v in [("a", "x"), ("b", "y"), ("c", "x")])
    [final] = [e for e in await recognize(pcm) if isinstance(e, Hypothesis) and e.is_final]
    assert [w.speaker for w in final.words] == [0, 1, 0]


async def test_finalizing_nothing_gives_one_empty_final() -> None:
    events = await recognize(bytes(1600))
    assert [(e.words, e.is_final) for e in events if isinstance(e, Hypothesis)] == [((), True)]
