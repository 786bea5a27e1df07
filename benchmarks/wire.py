"""What the load generator and the upstream say to each other through the gateway, and how figures are reduced.

Every chunk of audio carries a stamp in its first bytes: when it was sent and which one it is. Both processes read
the same monotonic clock of the machine, so a chunk's way can be timed by whoever receives it.

Speech is ordered by its text (`Order`). A transcript's words say when they were sent and how late the audio was that
they stand for (`Heard`): that is how the generator learns when its audio arrived.
"""

from __future__ import annotations

import re
import statistics
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

_STAMP = struct.Struct("<qq2s")
STAMP_BYTES = _STAMP.size
"""18: in base64 24 characters without padding, so that a frame's stamp can be replaced in place."""
_MARK = b"wg"
FILLING = b"\x12\x34"
"""The sample that the rest of a chunk is made of: loud, so that it counts as sound."""

SAMPLE_RATE_TTS_HZ = 24_000
SAMPLE_RATE_STT_HZ = 16_000
FRAMES_A_WORD = 5
"""Audio frames that one word of a transcript stands for."""
WORDS_A_FINAL = 20


def now_ns() -> int:
    """The clock that all processes of the machine share."""
    return time.monotonic_ns()


def stamp(number: int, at_ns: int) -> bytes:
    return _STAMP.pack(at_ns, number, _MARK)


class Damaged(Exception):
    """Raised where a chunk is not what was sent: of another size, cut elsewhere, or with other samples."""


def read_stamp(audio: bytes) -> tuple[int, int]:
    """Number and time of sending of a chunk. Raises `Damaged`."""
    if len(audio) < STAMP_BYTES:
        raise Damaged(f"a chunk of {len(audio)} bytes")
    at_ns, number, mark = _STAMP.unpack_from(audio)
    if mark != _MARK:
        raise Damaged("a chunk without a stamp")
    return number, at_ns


def filling(size_bytes: int) -> bytes:
    """What follows the stamp in a chunk of this size."""
    return (FILLING * (size_bytes // 2))[: size_bytes - STAMP_BYTES]


class Series:
    """Checks the chunks of one utterance or session as they arrive: in order, none missing, none changed."""

    def __init__(self, size_bytes: int) -> None:
        self._size = size_bytes
        self._rest = filling(size_bytes)
        self.next = 0

    def take(self, audio: bytes) -> int:
        """When this chunk was sent. Raises `Damaged`."""
        number, at_ns = read_stamp(audio)
        if number != self.next:
            raise Damaged(f"chunk {number} came where {self.next} was due")
        if len(audio) != self._size or not audio.endswith(self._rest):
            raise Damaged(f"chunk {number} of {len(audio)} bytes is not what was sent")
        self.next += 1
        return at_ns


@dataclass(frozen=True, slots=True)
class Order:
    """What an utterance's text asks of the upstream. One sentence without an end in it, so that it is released in
    one piece."""

    chunks: int
    chunk_bytes: int
    interval_us: int
    """0: as fast as the connection takes it."""
    opening: str = ""
    """Sentences before, which make it a text that can have several releases."""

    def __str__(self) -> str:
        return f"{self.opening}say {self.chunks} chunks of {self.chunk_bytes} bytes one every {self.interval_us} us"

    @classmethod
    def parse(cls, text: str) -> Order:
        chunks, chunk_bytes, interval_us = (int(n) for n in re.findall(r"\d+", text))
        return cls(chunks, chunk_bytes, interval_us)


@dataclass(frozen=True, slots=True)
class Heard:
    """One word of a transcript, as long as a word is: when it was sent, and how long the last audio frame that it
    stands for was on its way up. Times are microseconds, up to `_WRAP_US` and then from 0 again."""

    sent_us: int
    up_us: int

    @classmethod
    def now(cls, frame_sent_ns: int) -> Heard:
        """The word of a frame that was sent then and has come now."""
        now = now_ns()
        return cls(now // 1000 % _WRAP_US, (now - frame_sent_ns) // 1000)

    def __str__(self) -> str:
        return _base36(self.sent_us).rjust(_DIGITS, "0") + _base36(self.up_us)

    @classmethod
    def parse(cls, word: str) -> Heard:
        return cls(int(word[:_DIGITS], 36), int(word[_DIGITS:], 36))

    def down_us(self) -> int:
        """How long the word was on its way down until now."""
        return (now_ns() // 1000 - self.sent_us) % _WRAP_US


_DIGITS = 6
_WRAP_US = 36**6


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits


# -- figures ----------------------------------------------------------------------------------------------------


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies (nearest rank). 0.0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def spread(values: Sequence[float], name: str) -> dict[str, float]:
    """`{name}_p50` and `{name}_p99` of a sample."""
    return {
        f"{name}_p50": round(percentile(values, 0.50), 4),
        f"{name}_p99": round(percentile(values, 0.99), 4),
    }


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median slope between all pairs of points (Theil-Sen), which one odd sample does not tilt. 0.0 of nothing."""
    slopes = [
        (y2 - y1) / (x2 - x1)
        for index, (x1, y1) in enumerate(points)
        for x2, y2 in points[index + 1 :]
        if x2 != x1
    ]
    return median(slopes)
