"""Audio in other forms than the engines' 16-bit PCM: what clients send, and what they ask for."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable
from typing import Protocol

import lameenc
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from waves_local.opus import OggOpusDecoder, OpusPacketDecoder

CONTENT_TYPES = {
    "pcm": "audio/pcm",
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "mulaw": "audio/basic",
    "ulaw": "audio/basic",
    "alaw": "audio/x-alaw-basic",
}


def _mulaw_decode_table() -> npt.NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_decode_table() -> npt.NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = (code & 0x70) >> 4, code & 0x0F
    magnitude = np.where(
        exponent == 0, (mantissa << 4) + 8, ((mantissa << 4) + 0x108) << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _encode_table(decode: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """For each 16-bit sample, offset by 32768, the code whose value is nearest."""
    order = np.argsort(decode, kind="stable")
    values = decode[order].astype(np.int32)
    samples = np.arange(-32768, 32768, dtype=np.int32)
    above = np.clip(np.searchsorted(values, samples), 1, len(values) - 1)
    nearest = np.where(samples - values[above - 1] <= values[above] - samples, above - 1, above)
    return order[nearest].astype(np.uint8)


_MULAW_DECODE = _mulaw_decode_table()
_ALAW_DECODE = _alaw_decode_table()
_MULAW_ENCODE = _encode_table(_MULAW_DECODE)
_ALAW_ENCODE = _encode_table(_ALAW_DECODE)


def _samples(pcm: bytes) -> npt.NDArray[np.int16]:
    return np.frombuffer(pcm, dtype="<i2")


def mulaw_encode(pcm: bytes) -> bytes:
    """G.711 mu-law of 16-bit PCM."""
    return _MULAW_ENCODE[_samples(pcm).astype(np.int32) + 32768].tobytes()


def alaw_encode(pcm: bytes) -> bytes:
    """G.711 A-law of 16-bit PCM."""
    return _ALAW_ENCODE[_samples(pcm).astype(np.int32) + 32768].tobytes()


def mulaw_decode(data: bytes) -> bytes:
    """16-bit PCM of G.711 mu-law."""
    return _MULAW_DECODE[np.frombuffer(data, dtype=np.uint8)].astype("<i2").tobytes()


def alaw_decode(data: bytes) -> bytes:
    """16-bit PCM of G.711 A-law."""
    return _ALAW_DECODE[np.frombuffer(data, dtype=np.uint8)].astype("<i2").tobytes()


def wav(pcm: bytes, sample_rate_hz: int) -> bytes:
    """A WAV file, mono."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(pcm)
    return out.getvalue()


def mp3(pcm: bytes, sample_rate_hz: int) -> bytes:
    """An MP3 stream, mono."""
    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(1)
    encoder.set_bit_rate(64)
    encoder.set_in_sample_rate(sample_rate_hz)
    encoder.set_out_sample_rate(sample_rate_hz)
    encoder.set_quality(7)
    return bytes(encoder.encode(pcm)) + bytes(encoder.flush())


def chunk_encoder(output_format: str, sample_rate_hz: int) -> Callable[[bytes], bytes]:
    """PCM -> the format asked for. WAV and MP3 frame each piece by itself, as the real service does."""
    match output_format:
        case "wav":
            return lambda pcm: wav(pcm, sample_rate_hz)
        case "mp3":
            return lambda pcm: mp3(pcm, sample_rate_hz)
        case "mulaw" | "ulaw":
            return mulaw_encode
        case "alaw":
            return alaw_encode
        case _:
            return lambda pcm: pcm


class Decoder(Protocol):
    """Turns what a client sends into 16-bit PCM, message by message."""

    def decode(self, message: bytes) -> bytes:
        """The whole samples that are complete with this message. Raises ValueError for what is no such audio."""


class FixedWidthDecoder:
    """Formats of so many bytes a sample, cut into messages anywhere."""

    def __init__(self, sample_bytes: int, to_pcm: Callable[[bytes], bytes]) -> None:
        self._sample_bytes = sample_bytes
        self._to_pcm = to_pcm
        self._rest = b""

    def decode(self, message: bytes) -> bytes:
        data = self._rest + message if self._rest else message
        whole = len(data) - len(data) % self._sample_bytes
        self._rest = data[whole:]
        return self._to_pcm(data if whole == len(data) else data[:whole])


def _linear32_to_pcm(data: bytes) -> bytes:
    return (np.frombuffer(data, dtype="<i4") >> 16).astype("<i2").tobytes()


def decoder(encoding: str, sample_rate_hz: int) -> Decoder:
    """The decoder of a live STT `encoding`. Raises ValueError where there is none."""
    match encoding:
        case "linear16":
            return FixedWidthDecoder(2, lambda data: data)
        case "linear32":
            return FixedWidthDecoder(4, _linear32_to_pcm)
        case "mulaw":
            return FixedWidthDecoder(1, mulaw_decode)
        case "alaw":
            return FixedWidthDecoder(1, alaw_decode)
        case "opus":
            return OpusPacketDecoder(sample_rate_hz)
        case "ogg_opus":
            return OggOpusDecoder(sample_rate_hz)
    raise ValueError(f"cannot decode {encoding}")


def read_recording(data: bytes) -> tuple[bytes, int]:
    """An audio file (WAV, FLAC, OGG, MP3, …) as mono PCM, and its rate in Hz. Raises ValueError."""
    try:
        with soundfile.SoundFile(io.BytesIO(_with_length(data))) as file:
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
            rate_hz = int(file.samplerate)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError("not a recording in a known format") from error
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes(), rate_hz


def _with_length(data: bytes) -> bytes:
    """The same, where a WAV file was never finished and says that it holds nothing."""
    at = data.find(b"data", 12, 4096) + 4
    if data[:4] == b"RIFF" and at > 4 and data[at : at + 4] == bytes(4):
        return data[:at] + struct.pack("<I", min(len(data) - at - 4, 0xFFFFFFFF)) + data[at + 4 :]
    return data


def resample(pcm: bytes, from_hz: int, to_hz: int) -> bytes:
    """The same sound at another rate."""
    return np.asarray(soxr.resample(_samples(pcm), from_hz, to_hz), dtype="<i2").tobytes()
