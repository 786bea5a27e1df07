"""Audio that the upstream does not stream, made from its PCM, one encoder an utterance.

Each encoder takes whole samples of signed 16-bit little-endian mono PCM and returns what is ready; `finish`
returns the rest. The codecs are libraries': G.711 from `audioop`, MP3 from LAME.
"""

from __future__ import annotations

import struct
import warnings
from typing import Protocol

import lameenc

from wavegate_server.audio import AudioFormat, Encoding

with warnings.catch_warnings():
    # Gone from the standard library with Python 3.13; there `audioop-lts` brings the same module.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

MP3_BITRATE_KBPS = 64
"""Transparent for mono speech; LAME's lowest rate that keeps 24 kHz material whole."""


class Encoder(Protocol):
    """Turns PCM into another encoding."""

    def encode(self, pcm: bytes) -> bytes:
        """Encode whole samples; may return nothing yet."""

    def finish(self) -> bytes:
        """What is still held back."""


class Linear16Encoder:
    """PCM as it is."""

    def encode(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""


class MulawEncoder(Linear16Encoder):
    """G.711 mu-law."""

    def encode(self, pcm: bytes) -> bytes:
        return audioop.lin2ulaw(pcm, 2)


class AlawEncoder(Linear16Encoder):
    """G.711 A-law."""

    def encode(self, pcm: bytes) -> bytes:
        return audioop.lin2alaw(pcm, 2)


class WavEncoder(Linear16Encoder):
    """PCM behind one RIFF header. The sizes are the largest possible, as in every stream of unknown length."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._header: bytes | None = wav_header(sample_rate_hz)

    def encode(self, pcm: bytes) -> bytes:
        if self._header is not None:
            pcm, self._header = self._header + pcm, None
        return pcm


def wav_header(sample_rate_hz: int) -> bytes:
    """A 44-byte RIFF header for mono LINEAR16 of unknown length."""
    return (
        b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, sample_rate_hz, sample_rate_hz * 2, 2, 16)
        + b"data" + struct.pack("<I", 0xFFFFFFFF)
    )  # fmt: skip


class Mp3Encoder:
    """MPEG layer III at a constant bit rate."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._lame = lameenc.Encoder()
        self._lame.silence()
        self._lame.set_bit_rate(MP3_BITRATE_KBPS)
        self._lame.set_in_sample_rate(sample_rate_hz)
        self._lame.set_out_sample_rate(sample_rate_hz)
        self._lame.set_channels(1)
        self._lame.set_quality(
            5
        )  # 2 is LAME's best, 7 its fastest; 5 costs a few milliseconds a second of speech
        self._started = False

    def encode(self, pcm: bytes) -> bytes:
        self._started = True
        return bytes(self._lame.encode(pcm))

    def finish(self) -> bytes:
        return bytes(self._lame.flush()) if self._started else b""


def make_encoder(audio_format: AudioFormat) -> Encoder:
    """The encoder of a synthesis format."""
    match audio_format.encoding:
        case Encoding.LINEAR16:
            return Linear16Encoder()
        case Encoding.MULAW:
            return MulawEncoder()
        case Encoding.ALAW:
            return AlawEncoder()
        case Encoding.WAV:
            return WavEncoder(audio_format.sample_rate_hz)
        case Encoding.MP3:
            return Mp3Encoder(audio_format.sample_rate_hz)
        case other:
            raise ValueError(f"speech is not made in {other.value}")
