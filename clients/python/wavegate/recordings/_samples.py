"""Samples: from the encodings that containers and raw files have, into those that the gateway takes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import soundfile

from wavegate.audio import RawEncoding
from wavegate.settings import AudioEncoding

__all__ = ["Decoder", "Samples", "decoded", "decoded_file", "encode"]

_BLOCK_FRAMES = 1 << 14

Samples = npt.NDArray[np.float32]
"""From -1 to 1. One column a channel where there are two dimensions."""

_DTYPES: dict[str, str] = {
    "u8": "u1", "s8": "i1", "s16le": "<i2", "s16be": ">i2", "s32le": "<i4", "s32be": ">i4",
    "f32le": "<f4", "f32be": ">f4", "f64le": "<f8", "f64be": ">f8",
}  # fmt: skip

_SUBTYPES: dict[AudioEncoding, str] = {
    "LINEAR16": "PCM_16",
    "LINEAR32": "PCM_32",
    "MULAW": "ULAW",
    "ALAW": "ALAW",
}
"""The encodings that a recording can be converted into, in libsndfile's words."""


def decoded(content: bytes, encoding: RawEncoding, channels: int) -> Samples:
    """Raw samples as floats, one row a frame. `content` is whole frames."""
    flat: Samples
    if encoding in ("mulaw", "alaw"):
        flat = _g711(encoding)[np.frombuffer(content, np.uint8)]
    elif encoding in ("s24le", "s24be"):
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        at, dtype = (slice(1, 4), "<i4") if encoding == "s24le" else (slice(0, 3), ">i4")
        wide[:, at] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        flat = wide.view(dtype)[:, 0].astype(np.float32) / np.float32(2**31)
    else:
        raw = np.frombuffer(content, _DTYPES[encoding])
        if raw.dtype.kind == "f":
            # A single sample that is no number would make everything behind it silent in the resampler.
            flat = np.nan_to_num(raw.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
        elif encoding == "u8":
            flat = (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
        else:
            flat = raw.astype(np.float32) / np.float32(2.0 ** (8 * raw.dtype.itemsize - 1))
    return flat.reshape(-1, channels)


@cache
def _g711(encoding: str) -> Samples:
    """The value of each of the 256 codes."""
    subtype = "ULAW" if encoding == "mulaw" else "ALAW"
    codes = io.BytesIO(bytes(range(256)))
    values: Samples = soundfile.read(
        codes, dtype="float32", format="RAW", subtype=subtype, channels=1, samplerate=8000
    )[0]
    return values


class Decoder(soundfile.SoundFile):  # type: ignore[misc]  # it has no types
    """A file that libsndfile reads from its beginning to its end.

    Between two reads soundfile seeks to where it is already, if it can. That fails where a file begins in the middle of
    a stream, and it is not needed.
    """

    def seekable(self) -> bool:
        """Never."""
        return False

    def blocks(self) -> Iterator[Samples]:
        """All of it. Raises `soundfile.LibsndfileError` where it is damaged."""
        while len(block := self.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block


def decoded_file(content: bytes) -> Samples | None:
    """All samples of a small file; None where libsndfile cannot decode it."""
    try:
        with Decoder(io.BytesIO(content)) as decoder:
            return np.concatenate([np.zeros((0, decoder.channels), np.float32), *decoder.blocks()])
    except (soundfile.LibsndfileError, RuntimeError):
        return None


def encode(samples: Samples, encoding: AudioEncoding) -> bytes:
    """Samples of one channel in a raw encoding of the gateway; what is beyond -1 to 1 is clipped."""
    if encoding == "LINEAR16":
        return (samples * 32768.0).round().clip(-32768, 32767).astype("<i2").tobytes()
    raw = io.BytesIO()
    soundfile.write(raw, samples, 8000, format="RAW", subtype=_SUBTYPES[encoding], endian="LITTLE")
    return raw.getvalue()
