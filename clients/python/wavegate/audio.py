"""Audio as bytes and as time: how much it is, how fast it may go, and what a WAV file puts around it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

from wavegate.settings import AudioEncoding, AudioFormat

__all__ = [
    "RAW_ENCODINGS",
    "Pacer",
    "RawEncoding",
    "RawFormat",
    "WavWriter",
    "bytes_per_second",
    "opus_duration_s",
    "pieces",
    "sample_bytes",
    "wav_header",
]

_SAMPLE_BYTES: dict[AudioEncoding, int] = {"LINEAR16": 2, "LINEAR32": 4, "MULAW": 1, "ALAW": 1}

RawEncoding = Literal[
    "u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be",
    "f32le", "f32be", "f64le", "f64be", "mulaw", "alaw",
]  # fmt: skip
"""How a raw sample is coded, in the names that ffmpeg has for them: PCM, floats, G.711."""

RAW_ENCODINGS: dict[AudioEncoding, RawEncoding] = {
    "LINEAR16": "s16le",
    "LINEAR32": "s32le",
    "MULAW": "mulaw",
    "ALAW": "alaw",
}
"""The gateway's raw encodings under those names."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The form of samples that have no header to tell it. Raises `ValueError` for one that cannot be."""

    encoding: RawEncoding
    sample_rate_hz: int
    channels: int = 1

    def __post_init__(self) -> None:
        names: tuple[str, ...] = get_args(RawEncoding)
        if self.encoding not in names:
            raise ValueError(f"{self.encoding!r} is no encoding of raw samples; there are {', '.join(names)}")
        if self.sample_rate_hz < 1:
            raise ValueError(f"a rate of {self.sample_rate_hz} Hz cannot be")
        if not 1 <= self.channels <= 1024:
            raise ValueError(f"{self.channels} channels cannot be")

    @classmethod
    def of(cls, audio_format: AudioFormat) -> RawFormat:
        """Samples as the gateway takes or gives them. Raises `KeyError` for an encoding that is not raw."""
        return cls(RAW_ENCODINGS[audio_format.encoding], audio_format.sample_rate_hz)

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        bits = "".join(filter(str.isdigit, self.encoding))
        return int(bits or 8) // 8 * self.channels


_CATCH_UP_S = 0.1
"""What a pacer makes up for of a source that was late: the jitter of timers, not a pause."""


def bytes_per_second(audio_format: AudioFormat) -> int:
    """The rate of a raw format; `ValueError` for a compressed one, which has none."""
    if audio_format.encoding not in _SAMPLE_BYTES:
        raise ValueError(f"{audio_format.encoding} has no fixed rate of bytes")
    return _SAMPLE_BYTES[audio_format.encoding] * audio_format.sample_rate_hz


def sample_bytes(audio_format: AudioFormat) -> int:
    """The size of a sample of a raw format; `KeyError` for a compressed one."""
    return _SAMPLE_BYTES[audio_format.encoding]


def opus_duration_s(packet: bytes) -> float:
    """The playing time of an Opus packet, as its first two bytes tell it (RFC 6716, 3.1 and 3.2)."""
    if not packet:
        return 0.0
    config = packet[0] >> 3
    if config < 12:  # SILK
        frame_ms = (10.0, 20.0, 40.0, 60.0)[config % 4]
    elif config < 16:  # hybrid
        frame_ms = (10.0, 20.0)[config % 2]
    else:  # CELT
        frame_ms = (2.5, 5.0, 10.0, 20.0)[config % 4]
    code = packet[0] & 3
    count = (1, 2, 2)[code] if code < 3 else packet[1] & 63 if len(packet) > 1 else 0
    return count * frame_ms / 1000


def pieces(content: bytes, audio_format: AudioFormat, limit_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Audio in pieces of at most `limit_bytes` with the offset of each, cut between samples; Opus packets whole."""
    width = _SAMPLE_BYTES.get(audio_format.encoding, 1)
    step = max(limit_bytes - limit_bytes % width, width)
    if audio_format.encoding == "OPUS" or len(content) <= step:
        if content:
            yield 0, content
        return
    for offset in range(0, len(content), step):
        yield offset, content[offset : offset + step]


class Pacer:
    """Says how long to hold audio back, so that it leaves no faster than it was spoken.

    A piece is due when its last sample would have been recorded. The clock starts with the first piece. A source
    that was late is not made up for: the time that it lost stays lost, as with a microphone.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        self._bytes_per_s = bytes_per_second(audio_format)
        self._due_s: float | None = None

    def bytes_in(self, duration_s: float) -> int:
        """How many bytes play for so long."""
        return int(self._bytes_per_s * duration_s)

    def delay_s(self, length_bytes: int, now_s: float) -> float:
        """How long the next piece has to wait."""
        start_s = now_s if self._due_s is None else max(self._due_s, now_s - _CATCH_UP_S)
        self._due_s = start_s + length_bytes / self._bytes_per_s
        return max(0.0, self._due_s - now_s)


_WAVE_TAGS: dict[AudioEncoding, int] = {"LINEAR16": 1, "LINEAR32": 1, "ALAW": 6, "MULAW": 7}
_UNKNOWN_BYTES = 0xFFFFFFFF  # what readers take for "until the end"


def wav_header(audio_format: AudioFormat, data_bytes: int | None = None) -> bytes:
    """The RIFF header of one channel of raw audio; without `data_bytes` for a stream of unknown length."""
    width = _SAMPLE_BYTES[audio_format.encoding]
    rate = audio_format.sample_rate_hz
    form = struct.pack("<HHIIHH", _WAVE_TAGS[audio_format.encoding], 1, rate, rate * width, width, width * 8)
    chunks = b""
    if _WAVE_TAGS[audio_format.encoding] != 1:  # any format but PCM has an extension and a fact chunk
        form += struct.pack("<H", 0)
        samples = _UNKNOWN_BYTES if data_bytes is None else data_bytes // width
        chunks = b"fact" + struct.pack("<II", 4, samples)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + chunks
    size = _UNKNOWN_BYTES if data_bytes is None else len(body) + 8 + data_bytes + data_bytes % 2
    length = _UNKNOWN_BYTES if data_bytes is None else data_bytes
    return b"RIFF" + struct.pack("<I", size) + body + b"data" + struct.pack("<I", length)


class WavWriter:
    """Writes raw audio as a WAV file while it comes.

    What is on disk is playable at any moment, also after a crash. `close` puts the true length into the header
    where the stream can seek; a pipe keeps the header of a stream of unknown length. The stream stays open.
    """

    def __init__(self, stream: BinaryIO, audio_format: AudioFormat) -> None:
        self._stream = stream
        self._format = audio_format
        self.data_bytes = 0
        self._stream.write(wav_header(audio_format))

    def write(self, audio: bytes) -> None:
        """Appends audio."""
        self._stream.write(audio)
        self.data_bytes += len(audio)

    def close(self) -> None:
        """Completes the file."""
        if self._stream.seekable():
            if self.data_bytes % 2:
                self._stream.write(b"\0")  # chunks have an even length
            self._stream.seek(0)
            self._stream.write(wav_header(self._format, self.data_bytes))
            self._stream.seek(0, io.SEEK_END)
        self._stream.flush()
