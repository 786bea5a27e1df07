"""Audio arithmetic: bytes, samples and seconds, without touching a sample.

All audio is mono. Positions are counted in samples (exact integers), and become seconds only at the edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NANOS_PER_SECOND = 1_000_000_000


class Encoding(Enum):
    """Codec of an audio stream. The value is the upstream's own name where it has one."""

    LINEAR16 = "linear16"
    LINEAR32 = "linear32"
    MULAW = "mulaw"
    ALAW = "alaw"
    OPUS = "opus"
    OGG_OPUS = "ogg_opus"
    MP3 = "mp3"
    WAV = "wav"

    @property
    def bytes_per_sample(self) -> int:
        """Size of one sample, in bytes; 0 where samples have no fixed size (Opus, MP3)."""
        return _BYTES_PER_SAMPLE.get(self, 0)


_BYTES_PER_SAMPLE = {
    Encoding.LINEAR16: 2,
    Encoding.LINEAR32: 4,
    Encoding.MULAW: 1,
    Encoding.ALAW: 1,
    Encoding.WAV: 2,
}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding and rate of one direction of a session; fixed for its life."""

    encoding: Encoding
    sample_rate_hz: int

    def duration_s(self, size_bytes: int) -> float:
        """Playing time of `size_bytes` of this audio, in seconds. Raises ValueError for Opus and MP3."""
        return self.samples(size_bytes) / self.sample_rate_hz

    def samples(self, size_bytes: int) -> int:
        """Whole samples in `size_bytes`. Raises ValueError for encodings without a sample size."""
        width = self.encoding.bytes_per_sample
        if not width:
            raise ValueError(f"{self.encoding.value} has no fixed sample size")
        return size_bytes // width


# What the two directions accept; from the upstream's API descriptions (sample_rate, encoding).
SYNTHESIS_RATES_HZ = (8000, 16000, 24000, 44100)
TRANSCRIPTION_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)
SYNTHESIS_ENCODINGS = (Encoding.LINEAR16, Encoding.MULAW, Encoding.ALAW, Encoding.MP3, Encoding.WAV)
TRANSCRIPTION_ENCODINGS = (
    Encoding.LINEAR16,
    Encoding.LINEAR32,
    Encoding.MULAW,
    Encoding.ALAW,
    Encoding.OPUS,
    Encoding.OGG_OPUS,
)
DEFAULT_SYNTHESIS_FORMAT = AudioFormat(Encoding.LINEAR16, 24000)
DEFAULT_TRANSCRIPTION_FORMAT = AudioFormat(Encoding.LINEAR16, 16000)
