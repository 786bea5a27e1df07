"""What is asked of speech and transcripts, with either engine."""

from __future__ import annotations

from waves_local import Upstream, speak, spoken
from waves_local.engine import SpokenAudio, VoiceRequest

SENTENCE = "Please confirm my order for tomorrow morning."
PATIENCE_S = 60


def assert_spoken(upstream: Upstream, pcm: bytes, text: str, sample_rate_hz: int) -> None:
    """The audio says the text: exactly so with the deterministic engine, for about as long with a real one."""
    if upstream.engine.name == "deterministic":
        assert spoken(pcm).split() == text.split()
        return
    seconds = len(pcm) / 2 / sample_rate_hz
    assert 0.2 * len(text.split()) < seconds < 1.0 * len(text.split())


async def recording(upstream: Upstream, text: str, sample_rate_hz: int) -> bytes:
    """Audio in which the text can be heard, with a second of silence behind it: 16-bit PCM."""
    silence = bytes(2 * sample_rate_hz)
    if upstream.engine.name == "deterministic":
        return speak(text.split(), sample_rate_hz, lead_s=0.3, character_s=0.03) + silence
    request = VoiceRequest(text, "magnus", sample_rate_hz=sample_rate_hz)
    pieces = [
        p.pcm async for p in upstream.engine.synthesizer.synthesize(request) if isinstance(p, SpokenAudio)
    ]
    return silence[: len(silence) // 2] + b"".join(pieces) + silence


def assert_heard(upstream: Upstream, transcript: str, text: str) -> None:
    """The transcript is the text: word for word with the deterministic engine, more than half of it with a real
    one, which mishears."""
    if upstream.engine.name == "deterministic":
        assert transcript == text
        return
    heard = [w.strip(".,").lower() for w in transcript.split()]
    said = [w.strip(".,").lower() for w in text.split()]
    assert sum(w in heard for w in said) > len(said) / 2, transcript
