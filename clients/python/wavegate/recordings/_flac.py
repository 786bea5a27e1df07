"""FLAC, native and in Ogg: cut into frames here, decoded by libsndfile.

A frame holds all that is needed to decode it but what the header of the stream says. So those that are there are
decoded together, as a small file of their own, and one that is damaged costs no other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from wavegate.recordings._input import Input
from wavegate.recordings._link import Link, NotAudioError, Notes, amount, cut_off, span
from wavegate.recordings._samples import Samples, decoded_file

__all__ = ["Decoder", "open_flac"]

_RUN_FRAMES = 20
"""Frames that are decoded at a time, at most."""

_LONGEST_HEADER_BYTES = 16
_SEARCHED_BYTES = 64 * 1024
_SHORTEST_FRAME_BYTES = 9
_LARGEST_GAP_FRAMES = 10_000
_MAGIC = b"fLaC"
_NEXT_STREAM = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
_NO_TOTAL = 1 << 36


class Decoder:
    """Frames -> samples. Raises `NotAudioError` for a STREAMINFO that is none."""

    def __init__(self, info: bytes, notes: Notes) -> None:
        if len(info) != 34:
            raise NotAudioError("is a damaged FLAC file: its header is too short")
        packed = int.from_bytes(info[10:18], "big")
        self.rate_hz = packed >> 44
        self.channels = (packed >> 41 & 7) + 1
        self.bits = (packed >> 36 & 31) + 1
        self.total = packed & (_NO_TOTAL - 1)
        """Frames of samples in the stream; 0 where its writer did not know."""
        self.longest_bytes = int.from_bytes(info[2:4], "big") * self.channels * (self.bits // 8 + 2) + 64
        self._info = info
        self._packed = packed
        self._notes = notes
        self._lost = 0

    def decode(self, frames: list[tuple[bytes, int]]) -> Samples:
        """The sound of frames with their numbers of samples; silence in the place of one that is damaged."""
        whole = self._decode(frames)
        if whole is not None or not frames:
            return np.zeros((0, self.channels), np.float32) if whole is None else whole
        parts = []
        for frame in frames:
            part = self._decode([frame])
            if part is None:
                self._lost += frame[1]
                part = np.zeros((frame[1], self.channels), np.float32)
            parts.append(part)
        return np.concatenate(parts)

    def can_decode(self, frame: bytes, samples: int) -> bool:
        """Whether this is a whole frame."""
        return self._decode([(frame, samples)]) is not None

    def _decode(self, frames: list[tuple[bytes, int]]) -> Samples | None:
        total = sum(samples for _, samples in frames)
        packed = self._packed & ~(_NO_TOTAL - 1) | total
        info = self._info[:4] + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
        content = _MAGIC + b"\x80\0\0\x22" + info + b"".join(frame for frame, _ in frames)
        samples = decoded_file(content)
        return samples if samples is not None and samples.shape == (total, self.channels) else None

    def ended(self, decoded_frames: int) -> None:
        """Notes what is missing, once nothing more comes."""
        if self._lost:
            self._notes.add(f"is damaged: {span(self._lost, self.rate_hz)} of it could not be decoded")
        if decoded_frames < self.total:
            self._notes.add(cut_off(self.total, decoded_frames, self.rate_hz))


def open_flac(source: Input, notes: Notes) -> Link:
    """A native FLAC stream from its first byte on."""
    source.skip(4)
    info = b""
    last = False
    while not last and len(head := source.read(4)) == 4:
        last = head[0] >= 0x80
        size = int.from_bytes(head[1:], "big")
        if head[0] & 0x7F == 0 and not info:
            info = source.read(min(size, 34))
            size -= len(info)
        source.skip(size)
    decoder = Decoder(info, notes)
    return Link(decoder.rate_hz, decoder.channels, _decoded(source, decoder, notes))


def _decoded(source: Input, decoder: Decoder, notes: Notes) -> Iterator[Samples]:
    count = 0
    for run in _runs(source, decoder, notes):
        samples = decoder.decode(run)
        count += len(samples)
        yield samples
    decoder.ended(count)


def _runs(source: Input, decoder: Decoder, notes: Notes) -> Iterator[list[tuple[bytes, int]]]:
    """Whole frames, as many at a time as are there."""
    run: list[tuple[bytes, int]] = []
    left_out = 0
    while True:
        found = frame_header(source.peek(_LONGEST_HEADER_BYTES))
        if found is None:
            skipped = _skip_to_frame(source)
            left_out += skipped
            if not skipped:
                break
            continue
        length = 0
        checked = found.length
        ended = False
        while not length and not ended and source.waiting_bytes <= decoder.longest_bytes + _SEARCHED_BYTES:
            length = _end_of_frame(source, found, checked)
            if not length:
                # Complete frames go out before more is waited for.
                if run:
                    yield run
                    run = []
                checked = max(found.length, source.waiting_bytes - _LONGEST_HEADER_BYTES)
                ended = not source.grow()
        if not length:
            length = _last_frame(source.peek(source.waiting_bytes), found, decoder)
            if not length and not ended:  # longer than any frame: not one of this stream, or damaged
                left_out += source.skip(found.length)
                continue
            if not length:
                source.skip(source.waiting_bytes)
                if not decoder.total:
                    notes.add("ends in the middle of a FLAC frame, and may be cut off")
                break
        run.append((source.read(length), found.samples))
        if len(run) >= _RUN_FRAMES:
            yield run
            run = []
    if run:
        yield run
    if left_out:
        notes.add(f"is damaged: {amount(left_out)} between its frames are no FLAC and were left out")


def _last_frame(content: bytes, header: FrameHeader, decoder: Decoder) -> int:
    """Return the length of the frame that these bytes begin, behind which no other follows; 0 if it is cut off."""
    for end in _ends(content[: decoder.longest_bytes]):
        if decoder.can_decode(content[:end], header.samples):
            return end
    return 0


def _skip_to_frame(source: Input) -> int:
    """Go past what is no frame; return how many bytes that was, 0 where no frame follows."""
    content = source.peek(_SEARCHED_BYTES)
    if content.startswith(_MAGIC):
        return 0
    for first in (b"\xff\xf8", b"\xff\xf9"):
        at = content.find(first)
        while at > 0:
            if frame_header(content[at : at + _LONGEST_HEADER_BYTES]) is not None:
                return source.skip(at)
            at = content.find(first, at + 1)
    return 0


def _end_of_frame(source: Input, frame: FrameHeader, start: int) -> int:
    """Return where the next frame or stream begins among the waiting bytes; 0 if that does not show yet."""
    ends = [at for magic in _NEXT_STREAM if (at := source.find(magic, start)) > 0]
    limit = min(ends, default=source.waiting_bytes)
    first = b"\xff\xf9" if frame.variable else b"\xff\xf8"
    at = source.find(first, start)
    while 0 < at < limit:
        content = source.peek(min(at + _LONGEST_HEADER_BYTES, source.waiting_bytes))[at:]
        found = frame_header(content)
        if found is not None and found.may_follow(frame):
            return at
        at = source.find(first, at + 1)
    return min(ends, default=0)


def _ends(frame: bytes) -> Iterator[int]:
    """Where a frame may end, by the checksum in its last two bytes."""
    table, register = _crc16_table(), 0
    for at, byte in enumerate(frame, 1):
        register = (register << 8 & 0xFFFF) ^ table[register >> 8 ^ byte]
        if not register and at > _SHORTEST_FRAME_BYTES:
            yield at


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """The beginning of a frame."""

    length: int
    samples: int
    number: int
    variable: bool
    shape: bytes
    """Codes that the frames of a stream have in common: rate and size of samples."""

    def may_follow(self, other: FrameHeader) -> bool:
        """Whether this is the next frame, or a later one of the same stream where some are missing."""
        step = other.samples if other.variable else 1
        return (
            self.variable == other.variable
            and self.shape == other.shape
            and step <= self.number - other.number < step * _LARGEST_GAP_FRAMES
        )


def frame_header(content: bytes) -> FrameHeader | None:
    """The frame that these bytes begin; None for what is no frame or too short."""
    if len(content) < 6 or content[0] != 0xFF or content[1] & 0xFE != 0xF8:
        return None
    size_code, rate_code = content[2] >> 4, content[2] & 15
    if (
        size_code == 0
        or rate_code == 15
        or content[3] >> 4 > 10
        or content[3] & 1
        or content[3] >> 1 & 7 == 3
    ):
        return None
    extra = 8 - (content[4] ^ 0xFF).bit_length()  # as in UTF-8, the leading ones tell the length
    if extra == 1 or extra > 7:
        return None
    at = 4 + max(1, extra)
    number = content[4] & (0x7F >> extra)
    for byte in content[5:at]:
        if byte & 0xC0 != 0x80:
            return None
        number = number << 6 | byte & 0x3F
    if size_code in (6, 7):
        width = size_code - 5
        samples = int.from_bytes(content[at : at + width], "big") + 1
        at += width
    else:
        samples = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if len(content) <= at or _crc8(content[:at]) != content[at]:
        return None
    shape = bytes([rate_code, content[3] & 0x0F])
    return FrameHeader(at + 1, samples, number, bool(content[1] & 1), shape)


@cache
def _crc8_table() -> bytes:
    table = bytearray()
    for index in range(256):
        register = index
        for _ in range(8):
            register = register << 1 ^ (0x107 if register & 0x80 else 0)
        table.append(register)
    return bytes(table)


@cache
def _crc16_table() -> tuple[int, ...]:
    table = []
    for index in range(256):
        register = index << 8
        for _ in range(8):
            register = register << 1 ^ (0x18005 if register & 0x8000 else 0)
        table.append(register)
    return tuple(table)


def _crc8(content: bytes) -> int:
    table, register = _crc8_table(), 0
    for byte in content:
        register = table[register ^ byte]
    return register


def ogg_stream_info(packet: bytes) -> bytes:
    """The STREAMINFO in the first packet of FLAC in Ogg."""
    return (
        packet[17 : 17 + 34]
        if struct.unpack_from(">I", packet.ljust(17, b"\0"), 13)[0] & 0xFFFFFF == 34
        else b""
    )
