"""MP3, and MPEG audio of layers I and II: cut into frames here, decoded by miniaudio.

Frames depend on what came before them: on up to 511 bytes of the frames before, and on the last frame's sound. So those
that are there are decoded together with enough of the frames before them, whose sound is then cut off. The result
is exactly that of decoding the whole at once, and nothing has to be known of what follows. Without miniaudio it is
decoded by libsndfile, once all of it is there.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wavegate.recordings._general import open_general
from wavegate.recordings._input import Input
from wavegate.recordings._link import Link, NotAudioError, Notes, amount, cut_off, span
from wavegate.recordings._samples import Samples

try:
    import miniaudio
except ImportError:  # it is not built for every machine
    miniaudio = None

__all__ = ["find_frames", "open_mpeg", "starts_with_frames", "tag_bytes"]

_SEARCHED_BYTES = 64 * 1024
"""How far the first frame may be from the beginning."""

_CONFIRMED_FRAMES = 4
"""Frames that have to follow each other before chance is ruled out."""

_RESERVOIR_BYTES = 511
_DECODER_DELAY = 529
"""Samples by which every decoder is late; LAME's tag counts without them."""

_RUN_FRAMES = 100
"""Frames that are decoded at a time, at most."""

_BIT_RATES = {
    # (MPEG version 1, layer) -> kbit/s by index
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By version: MPEG-1, MPEG-2, and MPEG-2.5."""


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    layer: int
    rate_hz: int
    channels: int
    length: int
    samples: int

    @property
    def kind(self) -> tuple[int, int, int, int]:
        """The properties that all frames of a stream share."""
        return self.version, self.layer, self.rate_hz, self.channels

    @property
    def side_bytes(self) -> int:
        """Size of layer III's side information."""
        return (32 if self.channels == 2 else 17) if self.version == 3 else 17 if self.channels == 2 else 9


def _header(head: bytes) -> _Header | None:
    """The frame that these 4 bytes begin; None for what is no frame, or one whose length is free."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rates = _BIT_RATES.get((version == 3, layer))
    bit_rate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if (
        bit_rates is None
        or version not in _RATES_HZ
        or not 0 < bit_rate < 15
        or rate == 3
        or head[3] & 3 == 2
    ):
        return None
    rate_hz = _RATES_HZ[version][rate]
    bits_per_s = bit_rates[bit_rate] * 1000
    samples = 384 if layer == 1 else 1152 if layer == 2 or version == 3 else 576
    if layer == 1:
        length = (12 * bits_per_s // rate_hz + padding) * 4
    else:
        length = samples // 8 * bits_per_s // rate_hz + padding
    return _Header(version, layer, rate_hz, 1 if head[3] >> 6 == 3 else 2, length, samples)


def starts_with_frames(source: Input) -> bool:
    """Whether MPEG frames of one stream follow each other from here on, or one is all there is."""
    at = 0
    first = _header(source.peek(4))
    for number in range(_CONFIRMED_FRAMES):
        there = source.peek(at + 10)  # no more than it takes: a slow stream is not waited for
        if len(there) < at:
            return number > 1  # the last one is cut off
        content = there[at:]
        if number and (len(content) < 4 or tag_bytes(content)):
            return True
        found = _header(content)
        if found is None or first is None or found.kind != first.kind:
            return False
        at += found.length
    return True


def _are_frames(content: bytes, at: int, *, whole: bool) -> bool:
    """The same of `content` from `at` on. `whole` says that nothing follows it, so that fewer frames are enough."""
    first = _header(content[at : at + 4])
    for number in range(_CONFIRMED_FRAMES):
        if number and at + 4 > len(content):
            return whole
        found = _header(content[at : at + 4])
        if found is None or first is None or found.kind != first.kind:
            return whole and number > 0 and tag_bytes(content[at : at + 10]) > 0
        at += found.length
    return True


def find_frames(content: bytes, *, whole: bool) -> int:
    """Return where frames begin in `content`, or -1: the first may have been cut off, as of a stream joined late."""
    at = content.find(b"\xff")
    while at != -1:
        if _are_frames(content, at, whole=whole):
            return at
        at = content.find(b"\xff", at + 1)
    return -1


def tag_bytes(head: bytes) -> int:
    """Size of the ID3 or APE tag that these bytes begin (10 of them are enough); 0 for what is none."""
    if head[:3] == b"ID3" and len(head) >= 10 and all(byte < 0x80 for byte in head[6:10]):
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG":
        return 128
    return 32 if head[:8] == b"APETAGEX" else 0


def open_mpeg(source: Input, notes: Notes) -> Link:
    """Frames from here on, or a little further on."""
    if not starts_with_frames(source):
        start = find_frames(source.peek(_SEARCHED_BYTES), whole=True)
        if start < 0:
            raise NotAudioError("holds no MP3 frames")
        source.skip(start)
    if miniaudio is None:
        return open_general(source)
    first = _header(source.peek(4))
    assert first is not None
    return Link(first.rate_hz, first.channels, _decoded(source, first, notes))


def _decoded(source: Input, first: _Header, notes: Notes) -> Iterator[Samples]:
    info = _Info.of(source.peek(first.length), first)
    if info is not None:
        source.skip(first.length)
    skip = info.skipped_samples if info else 0
    before: deque[bytes] = deque()
    seen = lost = 0
    for run in _runs(source, first, notes):
        samples, missing = _decode(list(before), run, first, is_first=not seen)
        seen += len(run)
        lost += missing
        before.extend(run)
        overhead = 4 + (first.side_bytes if first.layer == 3 else 0)
        while len(before) > 3 and sum(len(f) - overhead for f in list(before)[3:]) >= _RESERVOIR_BYTES:
            before.popleft()
        yield samples[skip:]
        skip = max(0, skip - len(samples))
    if lost:
        notes.add(f"is damaged: {span(lost * first.samples, first.rate_hz)} of it could not be decoded")
    if info and info.frames and seen < info.frames:
        notes.add(cut_off(info.frames * first.samples, seen * first.samples, first.rate_hz))


def _runs(source: Input, first: _Header, notes: Notes) -> Iterator[list[bytes]]:
    """Whole frames, as many at a time as are there."""
    run: list[bytes] = []
    while True:
        # Complete frames go out before more is waited for.
        if run and (source.waiting_bytes < 4 or len(run) >= _RUN_FRAMES):
            yield run
            run = []
        head = source.peek(4)
        found = _header(head)
        if found is not None and found.kind == first.kind:
            if run and source.waiting_bytes < found.length:
                yield run
                run = []
            if len(frame := source.peek(found.length)) < found.length:
                notes.add("ends in the middle of an MP3 frame, and may be cut off")
                source.skip(found.length)
                break
            run.append(frame)
            source.skip(found.length)
            continue
        if len(head) < 4 or (found is not None and starts_with_frames(source)):
            break  # the end, or a stream of another rate
        if run:
            yield run
            run = []
        if not _skip_to_frames(source, first, notes):
            break
    if run:
        yield run


def _skip_to_frames(source: Input, first: _Header, notes: Notes) -> bool:
    """Go past what is no frame. False where no frames of this stream follow."""
    if size := tag_bytes(source.peek(10)):
        if source.peek(8) == b"APETAGEX":
            size += int(struct.unpack("<I", source.peek(16)[12:].ljust(4, b"\0"))[0])
        source.skip(size)
        return True
    if source.peek(4) in (b"RIFF", b"OggS", b"fLaC", b"FORM"):
        return False
    content = source.peek(_SEARCHED_BYTES)
    at = find_frames(content, whole=len(content) < _SEARCHED_BYTES)
    if at <= 0:
        return False
    source.skip(at)
    if any(content[:at]):
        notes.add(f"is damaged: {amount(at)} between its frames are no MP3 and were left out")
    return True


def _decode(before: list[bytes], run: list[bytes], first: _Header, *, is_first: bool) -> tuple[Samples, int]:
    """The sound of `run`, and of how many of its frames there is none."""
    wanted = len(run) * first.samples
    try:
        flat = miniaudio.mp3_read_f32(b"".join([*before, *run])).samples
    except miniaudio.DecodeError:
        return np.zeros((0 if is_first else wanted, first.channels), np.float32), len(run)
    samples = np.frombuffer(flat, np.float32).reshape(-1, first.channels)[-wanted:]
    if len(samples) < wanted and not is_first:
        silence = np.zeros((wanted - len(samples), first.channels), np.float32)
        return np.concatenate([silence, samples]), (wanted - len(samples)) // first.samples
    return samples, 0


@dataclass(frozen=True, slots=True)
class _Info:
    """The Xing, LAME or VBRI tag that a first frame may hold in the place of sound."""

    frames: int
    skipped_samples: int

    @classmethod
    def of(cls, frame: bytes, header: _Header) -> _Info | None:
        """None for an ordinary frame."""
        at = 4 + header.side_bytes
        if frame[at : at + 4] in (b"Xing", b"Info"):
            flags = frame[at + 7] if len(frame) > at + 7 else 0
            counted = flags & 1 and len(frame) >= at + 12
            frames = int(struct.unpack(">I", frame[at + 8 : at + 12])[0]) if counted else 0
            encoder = (
                at
                + 8
                + 4 * (flags & 1)
                + 4 * (flags >> 1 & 1)
                + 100 * (flags >> 2 & 1)
                + 4 * (flags >> 3 & 1)
            )
            delay = frame[encoder + 21 : encoder + 23]
            if frame[encoder : encoder + 1].isalpha() and len(delay) == 2:
                return cls(frames, (delay[0] << 4 | delay[1] >> 4) + _DECODER_DELAY)
            return cls(frames, 0)
        if frame[36:40] == b"VBRI" and len(frame) >= 54:
            return cls(int(struct.unpack(">I", frame[50:54])[0]), 0)
        return None
