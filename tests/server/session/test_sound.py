"""Silence to send and sound to notice."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.session.sound import SILENCE_S, silence, sound_s
from wavegate_server.waves.framing import packet_samples

RATE_HZ = 8000
TONE = (np.sin(np.arange(RATE_HZ) / 3) * 8000).astype("<i2")
HUM = (np.sin(np.arange(RATE_HZ) / 30) * 300).astype("<i2")


def encoded(samples: np.ndarray, encoding: Encoding) -> bytes:
    """By libsndfile, which is another's G.711."""
    match encoding:
        case Encoding.LINEAR16:
            return samples.tobytes()
        case Encoding.LINEAR32:
            return (samples.astype("<i4") << 16).tobytes()
        case _:
            out = io.BytesIO()
            subtype = "ULAW" if encoding is Encoding.MULAW else "ALAW"
            soundfile.write(out, samples, RATE_HZ, format="RAW", subtype=subtype)
            return out.getvalue()


PCM = [Encoding.LINEAR16, Encoding.LINEAR32, Encoding.MULAW, Encoding.ALAW]


@pytest.mark.parametrize("encoding", PCM)
def test_silence_is_silent_in_its_encoding(encoding: Encoding) -> None:
    (piece,) = silence(AudioFormat(encoding, RATE_HZ))
    assert len(piece) == RATE_HZ * SILENCE_S * encoding.bytes_per_sample
    assert piece == encoded(np.zeros(round(RATE_HZ * SILENCE_S), dtype="<i2"), encoding)


def test_silence_of_opus_is_packets_and_of_ogg_nothing() -> None:
    packets = silence(AudioFormat(Encoding.OPUS, 16000))
    assert sum(map(packet_samples, packets)) == 48000 * SILENCE_S
    assert silence(AudioFormat(Encoding.OGG_OPUS, 16000)) == []


@pytest.mark.parametrize("encoding", PCM)
def test_speech_is_sound_and_hum_is_not(encoding: Encoding) -> None:
    assert sound_s(encoded(TONE, encoding), encoding, 1.0) == 1.0
    assert sound_s(encoded(HUM, encoding), encoding, 1.0) == 0.0
    assert sound_s(b"".join(silence(AudioFormat(encoding, RATE_HZ))), encoding, 0.1) == 0.0


def test_opus_tells_by_its_size() -> None:
    assert sound_s(bytes(60), Encoding.OPUS, 0.02) == 0.02
    assert sound_s(b"\xf8\xff\xfe", Encoding.OPUS, 0.02) == 0.0
