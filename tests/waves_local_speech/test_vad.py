"""When speech begins and ends."""

from __future__ import annotations

import pytest

pytest.importorskip(
    "waves_local.speech", reason="the optional extra wavegate[speech] is not installed", exc_type=ImportError
)

from waves_local.engine import VoiceActivity
from waves_local.speech.vad import SpeechDetector

FRAME_S = 0.02


def run(detector: SpeechDetector, pattern: str) -> list[VoiceActivity]:
    """One frame a character: `#` is voiced."""
    events = [detector.frame(mark == "#", (i + 1) * FRAME_S) for i, mark in enumerate(pattern)]
    return [event for event in events if event is not None]


def test_speech_has_the_times_of_its_sound() -> None:
    events = run(SpeechDetector(FRAME_S), "." * 20 + "#" * 30 + "." * 20)
    assert events == [VoiceActivity(True, 0.4), VoiceActivity(False, 1.0)]


def test_a_gap_shorter_than_the_hangover_does_not_end_speech() -> None:
    assert run(SpeechDetector(FRAME_S), "#" * 30 + "." * 12 + "#" * 30) == [VoiceActivity(True, 0.0)]


def test_the_hangover_can_be_shorter() -> None:
    events = run(SpeechDetector(FRAME_S, hangover_s=0.1), "#" * 30 + "." * 6 + "#" * 30)
    assert [event.speaking for event in events] == [True, False, True]


def test_a_click_is_not_speech_and_does_not_keep_speech_going() -> None:
    assert run(SpeechDetector(FRAME_S), "." * 10 + "#" * 3 + "." * 30) == []
    assert run(SpeechDetector(FRAME_S), "#" * 10 + "." * 10 + "#" + "." * 10)[-1] == VoiceActivity(False, 0.2)


def test_min_speech_and_threshold_say_how_much_is_enough() -> None:
    short = "." * 20 + "#" * 10 + "." * 20
    assert run(SpeechDetector(FRAME_S, min_speech_s=0.4), short) == []
    assert run(SpeechDetector(FRAME_S, min_speech_s=0.1), short)[0] == VoiceActivity(True, 0.4)
    broken = "#." * 20
    assert run(SpeechDetector(FRAME_S, threshold=0.9), broken) == []
    assert run(SpeechDetector(FRAME_S, threshold=0.4), broken)[0] == VoiceActivity(True, 0.0)
