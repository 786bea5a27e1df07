"""Recordings: decoding and converting audio of any container, from files and from pipes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from wavegate.errors import AudioFileError
from wavegate.settings import AudioEncoding, AudioFormat

__all__ = ["AudioSource", "decode", "open_audio", "open_stream"]

Samples = npt.NDArray[np.float32]

_SUBTYPES: dict[AudioEncoding, str] = {
    "LINEAR16": "PCM_16",
    "LINEAR32": "PCM_32",
    "MULAW": "ULAW",
    "ALAW": "ALAW",
}
"""What libsndfile calls the encodings."""

_BLOCK_S = 0.1
"""Playing time that is decoded and handed on at a time."""

DEFAULT_INPUT_RATE_HZ = 16000


class AudioSource(AbstractContextManager["AudioSource"]):
    """Audio of some container, converted to a format while it is read: an iterator of pieces of 0.1 s."""

    def __init__(self, blocks: Iterator[Samples], rate_hz: int, audio_format: AudioFormat, file: Any) -> None:
        self._blocks = blocks
        self._format = audio_format
        self._file = file
        self._resampler = (
            None
            if rate_hz == audio_format.sample_rate_hz
            else soxr.ResampleStream(rate_hz, audio_format.sample_rate_hz, 1, dtype="float32")
        )
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece. Raises `AudioFileError` where the file is damaged."""
        while not self._ended:
            block = next(self._blocks, None)
            self._ended = block is None
            samples = np.zeros(0, np.float32) if block is None else block
            if self._resampler is not None:
                samples = self._resampler.resample_chunk(samples, last=self._ended)
            if samples.size:
                return encode(samples, self._format.encoding)
        raise StopIteration

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class _RawFile(AudioSource):
    """A file that goes out as it is."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __next__(self) -> bytes:
        content: bytes = self._file.read(4096)
        if not content:
            raise StopIteration
        return content


def open_audio(
    source: str | Path | bytes, audio_format: AudioFormat, *, name: str | None = None
) -> AudioSource:
    """A recording (WAV, FLAC, OGG, MP3, ...; any rate and number of channels) in a raw format.

    `source` is a path, or the recording itself; `name` is what errors call it. For OGG_OPUS it has to be such a
    file, which then goes out as it is. A rate of 0 is 16000 Hz. Raises `AudioFileError` for what is no audio or
    holds none, `OSError` for what cannot be read, `ValueError` for a format into which nothing is converted here.
    """
    file: BinaryIO
    if isinstance(source, bytes):
        name, file = name or "the recording", io.BytesIO(source)
    else:
        name, file = name or str(source), Path(source).open("rb")  # noqa: SIM115
    try:
        return _open(file, name, audio_format)
    except BaseException:
        file.close()
        raise


def _open(file: BinaryIO, name: str, audio_format: AudioFormat) -> AudioSource:
    head = file.read(64)
    file.seek(0)
    if not head:
        raise AudioFileError(f"{name} is empty")
    if audio_format.encoding == "OGG_OPUS":
        if not (head.startswith(b"OggS") and b"OpusHead" in head):
            raise AudioFileError(f"{name} is no Ogg Opus file; choose another encoding and it is converted")
        return _RawFile(file)
    audio_format = _complete(audio_format)
    try:
        decoder = _Decoder(file)
    except soundfile.LibsndfileError as exc:
        raise AudioFileError(f"{name} is no audio file that can be read: {exc.error_string}") from exc
    if decoder.frames == 0:
        raise AudioFileError(f"{name} holds no audio")
    return AudioSource(_decoded(decoder, name), decoder.samplerate, audio_format, file)


class _Decoder(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file that is read from its beginning to its end.

    Between two reads soundfile seeks to where it is already, if it can, and every seek damages what an MP3 decoder
    gives next.
    """

    def seekable(self) -> bool:
        return False


def _decoded(decoder: _Decoder, name: str) -> Iterator[Samples]:
    block_frames = max(1, int(decoder.samplerate * _BLOCK_S))
    while True:
        try:
            block = decoder.read(block_frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as exc:
            raise AudioFileError(f"{name} is damaged: {exc.error_string}") from exc
        if not len(block):
            return
        yield block.mean(axis=1, dtype=np.float32)


def decode(source: str | Path | bytes, sample_rate_hz: int) -> npt.NDArray[np.int16]:
    """A whole recording as 16-bit samples of one channel. Raises as `open_audio` does."""
    with open_audio(source, AudioFormat("LINEAR16", sample_rate_hz)) as audio:
        return np.frombuffer(b"".join(audio), np.dtype("<i2"))


def encode(samples: Samples, encoding: AudioEncoding) -> bytes:
    """Samples from -1 to 1 in a raw encoding; what is beyond is clipped."""
    if encoding == "LINEAR16":
        return (samples * 32768.0).round().clip(-32768, 32767).astype("<i2").tobytes()
    raw = io.BytesIO()
    soundfile.write(
        raw, samples, DEFAULT_INPUT_RATE_HZ, format="RAW", subtype=_SUBTYPES[encoding], endian="LITTLE"
    )
    return raw.getvalue()


def _complete(audio_format: AudioFormat) -> AudioFormat:
    if audio_format.encoding not in _SUBTYPES:
        raise ValueError(
            f"no file can be converted to {audio_format.encoding} here; there are {', '.join(_SUBTYPES)}"
        )
    return AudioFormat(audio_format.encoding, audio_format.sample_rate_hz or DEFAULT_INPUT_RATE_HZ)


# --- a pipe, whose end is not known ---------------------------------------------------------------

_SIGNATURES = (b"RIFF", b"fLaC", b"OggS", b"FORM", b".snd", b"ID3")
_MP3_FRAMES = (b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")
"""Of an MP3 without a tag. Raw samples may begin like that too, so that it counts only where none are expected."""


def open_stream(stream: BinaryIO, name: str, audio_format: AudioFormat, *, raw: bool) -> Iterator[bytes]:
    """Audio from a pipe, as it comes, in `audio_format`.

    A WAV stream is converted while it comes, whatever length its header claims; other containers are read to the end
    first. What is no container goes out as it is if `raw` says that samples of that format may come.
    Raises as `open_audio` does.
    """
    head = _read_exactly(stream, 4)
    if not head:
        raise AudioFileError(f"{name} is empty")
    if not head.startswith(_SIGNATURES if raw else _SIGNATURES + _MP3_FRAMES):
        if not raw:
            raise AudioFileError(
                f"{name} is no audio file of a known kind; for raw samples say their rate and encoding"
            )
        yield head
        while content := _read_some(stream):
            yield content
        return
    consumed = bytearray(head)
    wave = _read_wave_header(stream, consumed) if head == b"RIFF" else None
    if wave is None:
        with open_audio(bytes(consumed) + stream.read(), audio_format, name=name) as source:
            yield from source
        return
    yield from AudioSource(_raw_blocks(stream, wave), wave.rate_hz, _complete(audio_format), stream)


@dataclass(frozen=True, slots=True)
class _Wave:
    """What the header of a WAV stream says of the samples behind it."""

    subtype: str
    channels: int
    rate_hz: int
    frame_bytes: int
    data_bytes: int | None


_WAVE_SUBTYPES = {
    (1, 8): "PCM_U8",
    (1, 16): "PCM_16",
    (1, 24): "PCM_24",
    (1, 32): "PCM_32",
    (3, 32): "FLOAT",
    (3, 64): "DOUBLE",
    (6, 8): "ALAW",
    (7, 8): "ULAW",
}
_EXTENSIBLE = 0xFFFE
_LONGEST_CLAIM_BYTES = 0x7FFF0000


def _read_wave_header(stream: BinaryIO, consumed: bytearray) -> _Wave | None:
    """Reads up to the samples; `None` for a kind of WAV that does not stream. Everything read is in `consumed`."""

    def read(count: int) -> bytes:
        content = _read_exactly(stream, count)
        consumed.extend(content)
        return content

    if read(8)[4:] != b"WAVE":
        return None
    wave: _Wave | None = None
    while len(chunk := read(8)) == 8:
        name, size = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"data":
            # Whoever writes into a pipe claims nothing, or the most that fits.
            known = 0 < size < _LONGEST_CLAIM_BYTES
            return wave and replace(wave, data_bytes=size if known else None)
        body = read(size + size % 2)
        if name == b"fmt " and len(body) >= 16:
            tag, channels, rate_hz, _, frame_bytes, bits = struct.unpack("<HHIIHH", body[:16])
            if tag == _EXTENSIBLE and len(body) >= 26:
                tag = struct.unpack("<H", body[24:26])[0]
            subtype = _WAVE_SUBTYPES.get((tag, bits))
            if subtype and channels and rate_hz and frame_bytes == channels * bits // 8:
                wave = _Wave(subtype, channels, rate_hz, frame_bytes, None)
    return None


def _raw_blocks(stream: BinaryIO, wave: _Wave) -> Iterator[Samples]:
    rest = b""
    left = wave.data_bytes
    while content := _read_some(stream):
        if left is not None:  # what follows the samples is no audio
            content = content[:left]
            left -= len(content)
        content = rest + content
        whole = len(content) - len(content) % wave.frame_bytes
        rest = content[whole:]
        if whole:
            block = soundfile.read(
                io.BytesIO(content[:whole]),
                dtype="float32",
                always_2d=True,
                format="RAW",
                subtype=wave.subtype,
                channels=wave.channels,
                samplerate=wave.rate_hz,
                endian="LITTLE",
            )[0]
            yield block.mean(axis=1, dtype=np.float32)
        if left == 0:
            return


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    content = b""
    while len(content) < count and (more := stream.read(count - len(content))):
        content += more
    return content


def _read_some(stream: BinaryIO) -> bytes:
    """What is there, without waiting for more than there is."""
    read1 = getattr(stream, "read1", None)
    content: bytes = read1(4096) if read1 is not None else stream.read(4096)
    return content
