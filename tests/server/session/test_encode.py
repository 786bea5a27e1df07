"""Encodings that the upstream does not stream, checked by what other libraries make of them."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.audio import SYNTHESIS_ENCODINGS, SYNTHESIS_RATES_HZ, AudioFormat, Encoding
from wavegate_server.session.encode import make_encoder, wav_header

EACH_RATE = pytest.mark.parametrize("rate_hz", SYNTHESIS_RATES_HZ)


def tone(rate_hz: int, seconds: float = 0.5) -> bytes:
    """A 440 Hz sine at half scale."""
    time = np.arange(round(rate_hz * seconds)) / rate_hz
    samples: bytes = (np.sin(2 * np.pi * 440 * time) * 16_384).astype("<i2").tobytes()
    return samples


def encoded(encoding: Encoding, rate_hz: int, pcm: bytes, piece_bytes: int = 1 << 20) -> bytes:
    """All that an encoder makes of PCM which comes in pieces."""
    encoder = make_encoder(AudioFormat(encoding, rate_hz))
    out = [encoder.encode(pcm[at : at + piece_bytes]) for at in range(0, len(pcm), piece_bytes)]
    return b"".join(out) + encoder.finish()


def decoded(audio: bytes, **how: object) -> tuple[np.ndarray, int]:
    """Samples from -1 to 1 and their rate, by libsndfile."""
    samples, rate_hz = soundfile.read(io.BytesIO(audio), **how)
    return samples, rate_hz


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation at the best alignment: MP3 delays."""
    n = len(a) + len(b)
    spectrum = np.fft.rfft(a, n) * np.conj(np.fft.rfft(b, n))
    return float(np.fft.irfft(spectrum, n).max() / np.sqrt((a**2).sum() * (b**2).sum()))


@EACH_RATE
def test_linear16_is_the_upstreams_own(rate_hz: int) -> None:
    pcm = tone(rate_hz)
    assert encoded(Encoding.LINEAR16, rate_hz, pcm) == pcm


@EACH_RATE
@pytest.mark.parametrize(
    ("encoding", "subtype"), [(Encoding.MULAW, "ULAW"), (Encoding.ALAW, "ALAW")], ids=["mulaw", "alaw"]
)
def test_g711_is_a_byte_a_sample_and_sounds_the_same(encoding: Encoding, subtype: str, rate_hz: int) -> None:
    pcm = tone(rate_hz)
    audio = encoded(encoding, rate_hz, pcm)
    assert len(audio) == len(pcm) // 2
    samples, _ = decoded(audio, format="RAW", subtype=subtype, samplerate=rate_hz, channels=1)
    original = np.frombuffer(pcm, "<i2") / 32_768
    assert np.abs(samples - original).max() < 0.02


@EACH_RATE
def test_wav_is_pcm_behind_one_header(rate_hz: int) -> None:
    pcm = tone(rate_hz)
    audio = encoded(Encoding.WAV, rate_hz, pcm, piece_bytes=1000)
    assert audio == wav_header(rate_hz) + pcm
    assert audio[:4] + audio[8:12] == b"RIFFWAVE"
    channels, rate, byte_rate, block, bits = struct.unpack("<HIIHH", audio[22:36])
    assert (channels, rate, byte_rate, block, bits) == (1, rate_hz, rate_hz * 2, 2, 16)
    samples, found_hz = decoded(audio)
    assert found_hz == rate_hz
    assert (samples * 32_768).astype("<i2").tobytes() == pcm


def test_wav_of_nothing_is_nothing() -> None:
    assert encoded(Encoding.WAV, 24_000, b"") == b""


@EACH_RATE
def test_mp3_decodes_to_what_went_in(rate_hz: int) -> None:
    pcm = tone(rate_hz, 1.0)
    audio = encoded(Encoding.MP3, rate_hz, pcm, piece_bytes=rate_hz // 5 * 2)
    samples, found_hz = decoded(audio)
    assert found_hz == rate_hz
    assert samples.ndim == 1, "one channel"
    assert len(samples) >= len(pcm) // 2, "no tail is cut off"
    assert likeness(samples, np.frombuffer(pcm, "<i2") / 32_768) > 0.95


def test_mp3_of_nothing_is_nothing() -> None:
    assert encoded(Encoding.MP3, 24_000, b"") == b""


@given(
    st.sampled_from([Encoding.LINEAR16, Encoding.MULAW, Encoding.ALAW, Encoding.WAV]),
    st.binary(max_size=200).map(lambda b: b[: len(b) // 2 * 2]),
    st.integers(1, 40),
)
def test_how_the_samples_come_makes_no_difference(encoding: Encoding, pcm: bytes, samples: int) -> None:
    assert encoded(encoding, 8000, pcm, piece_bytes=samples * 2) == encoded(encoding, 8000, pcm)


def test_each_utterance_has_an_encoder_of_its_own() -> None:
    audio_format = AudioFormat(Encoding.WAV, 8000)
    assert make_encoder(audio_format).encode(b"ab") == make_encoder(audio_format).encode(b"ab")


def test_what_is_not_spoken() -> None:
    for encoding in Encoding:
        if encoding in SYNTHESIS_ENCODINGS:
            assert make_encoder(AudioFormat(encoding, 24_000))
        else:
            with pytest.raises(ValueError, match="speech is not made"):
                make_encoder(AudioFormat(encoding, 24_000))
