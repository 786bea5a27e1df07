"""Ogg with Opus, Vorbis or FLAC in it, streams that follow each other included: cut into packets here.

The packets that are there are decoded by libsndfile as a small file of their own, behind as many of those before them
as their decoder needs: the last one of Vorbis, 80 ms of Opus (RFC 7845, 4.2.2). So nothing has to be known of what
follows.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from wavegate.audio import opus_duration_s
from wavegate.recordings import _flac
from wavegate.recordings._input import Input
from wavegate.recordings._link import Link, NotAudioError, Notes, amount
from wavegate.recordings._samples import Samples, decoded_file

__all__ = ["is_ogg_opus", "open_ogg"]

_HEAD = struct.Struct("<4sBBqIIIB")
_CONTINUED, _FIRST, _LAST = 1, 2, 4
_NO_PACKET_ENDS = -1
_RUN_PAGES = 30
"""Pages that are decoded at a time, at most."""

OPUS_RATE_HZ = 48000
_OPUS_PREROLL_SAMPLES = 4 * 3840
"""More than the 80 ms that a decoder needs at least: it costs little, and what comes out is nearer to the whole."""


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    granule: int
    """Position at the end of the last packet that ends in this page."""
    serial: int
    sequence: int
    packets: tuple[bytes, ...]
    """Those that end here; the first may have begun before."""
    begun: bytes
    """Of one that goes on in the next page."""


@dataclass(slots=True)
class _Run:
    """Packets of one stream that are decoded together."""

    packets: list[bytes]
    granule: int
    is_last: bool


def is_ogg_opus(source: Input) -> bool:
    """Whether it begins as an Ogg Opus stream does."""
    head = source.peek(64)
    return head.startswith(b"OggS") and b"OpusHead" in head


def open_ogg(source: Input, notes: Notes) -> Link | None:
    """The next stream of audio in an Ogg file; None where no stream begins any more."""
    serial: int | None = None
    first = b""
    others: list[str] = []
    pages = _Pages(source, notes)
    while (flags := pages.peek_flags()) is not None:
        if not flags & _FIRST and serial is not None:
            break  # the pages that begin streams come all before any other
        page = pages.read()
        if page is None:
            break
        if not page.flags & _FIRST or not page.packets:
            continue
        name = _codec(page.packets[0])
        if serial is None and name in ("Opus", "Vorbis", "FLAC"):
            serial, first = page.serial, page.packets[0]
        elif name:
            others.append(name)
    if serial is None:
        if others:
            what = " and ".join(others)
            raise NotAudioError(f"is an Ogg file with {what} in it, which is not decoded here", "convert")
        return None
    stream = _Stream(pages, serial, notes)
    reader = {"Opus": _opus, "Vorbis": _vorbis, "FLAC": _ogg_flac}[_codec(first)]
    return reader(first, stream, notes)


def _codec(packet: bytes) -> str:
    for beginning, name in (
        (b"OpusHead", "Opus"),
        (b"\x01vorbis", "Vorbis"),
        (b"\x7fFLAC", "FLAC"),
        (b"Speex   ", "Speex"),
        (b"\x80theora", "Theora"),
        (b"CELT    ", "CELT"),
        (b"PCM     ", "OggPCM"),
    ):
        if packet.startswith(beginning):
            return name
    return ""


class _Pages:
    """The pages of an Ogg file in order, past what is damaged."""

    def __init__(self, source: Input, notes: Notes) -> None:
        self._source = source
        self._notes = notes

    def peek_flags(self) -> int | None:
        """The flags of the next page; None where there is none."""
        if not self._find():
            return None
        head = self._source.peek(6)
        return head[5] if len(head) == 6 else None

    @property
    def is_waiting(self) -> bool:
        """Whether a whole page can be read without waiting."""
        have = self._source.waiting_bytes
        if have < _HEAD.size:
            return False
        head = self._source.peek(_HEAD.size)
        lacing_end = _HEAD.size + head[26]
        return have >= lacing_end and have >= lacing_end + sum(self._source.peek(lacing_end)[_HEAD.size :])

    def read(self) -> _Page | None:
        """The next page; None at the end."""
        while self._find():
            head = self._source.peek(_HEAD.size)
            if len(head) < _HEAD.size:
                break
            _, _, flags, granule, serial, sequence, checksum, segments = _HEAD.unpack(head)
            lacing_end = _HEAD.size + segments
            lacing = self._source.peek(lacing_end)[_HEAD.size :]
            length = lacing_end + sum(lacing)
            content = self._source.peek(length)
            if len(lacing) < segments or len(content) < length:
                self._source.skip(length)
                self._notes.add("ends in the middle of an Ogg page, and may be cut off")
                packets, _ = _packets(content[lacing_end:], lacing)
                return _Page(flags, _NO_PACKET_ENDS, serial, sequence, packets, b"")
            if _checksum(content[:22] + b"\0\0\0\0" + content[26:]) != checksum:
                self._notes.add("is damaged: an Ogg page with a wrong checksum was left out")
                self._source.skip(4)
                continue
            self._source.skip(length)
            packets, begun = _packets(content[lacing_end:], lacing)
            return _Page(flags, granule, serial, sequence, packets, begun)
        return None

    def _find(self) -> bool:
        """Go to the next page, unless what comes is of another kind."""
        if self._source.peek(4) == b"OggS":
            return True
        at = self._source.peek(128 * 1024).find(b"OggS")  # pages are at most 64 KiB long
        if at < 0:
            return False
        self._source.skip(at)
        self._notes.add(f"is damaged: {amount(at)} between its pages are no Ogg and were left out")
        return True


def _packets(body: bytes, lacing: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The packets that end in a page, and the beginning of one that goes on; of a page that is cut off those there."""
    packets, begun, at = [], b"", 0
    for size in lacing:
        if at + size > len(body):
            break
        begun += body[at : at + size]
        at += size
        if size < 255:
            packets.append(begun)
            begun = b""
    return tuple(packets), begun


class _Stream:
    """The packets of one logical stream, to its end."""

    def __init__(self, pages: _Pages, serial: int, notes: Notes) -> None:
        self._pages = pages
        self._serial = serial
        self._notes = notes
        self._begun: bytes | None = None
        self._sequence: int | None = None
        self._pending: _Run | None = None
        self._ended = False

    def header(self) -> bytes:
        """The next packet of those before the audio; nothing at the end."""
        while self._pending is None or not self._pending.packets:
            if self._ended or not self._more():
                return b""
        return self._pending.packets.pop(0)

    def runs(self) -> Iterator[_Run]:
        """Packets up to a page whose position is known, as many at a time as are there."""
        pages = 0
        while not self._ended:
            run = self._pending
            known = run is not None and run.packets and run.granule != _NO_PACKET_ENDS
            if run is not None and known and (not self._pages.is_waiting or pages >= _RUN_PAGES):
                self._pending, pages = None, 0
                yield run
            self._more()
            pages += 1
        if self._pending is not None and self._pending.packets:
            yield self._pending

    def _more(self) -> bool:
        """Take one more page in. False at the end of the stream."""
        flags = self._pages.peek_flags()
        page = None if flags is None or flags & _FIRST else self._pages.read()
        if page is None:
            self._ended = True
            return False
        if page.serial != self._serial:
            return True
        packets = list(page.packets)
        lost = self._sequence is not None and page.sequence != self._sequence + 1
        if lost:
            self._notes.add("is damaged: a part of it is missing")
        self._sequence = page.sequence
        if page.flags & _CONTINUED and packets:
            if self._begun is None or lost:
                packets.pop(0)  # its beginning is lost
            else:
                packets[0] = self._begun + packets[0]
        if page.begun:
            goes_on = page.flags & _CONTINUED and not page.packets
            self._begun = (self._begun or b"") + page.begun if goes_on else page.begun
        elif page.packets:
            self._begun = b""
        self._ended = bool(page.flags & _LAST)
        before = self._pending.packets if self._pending else []
        granule = page.granule if page.packets else self._pending.granule if self._pending else page.granule
        self._pending = _Run([*before, *packets], granule, self._ended)
        return not self._ended


# --- what the streams hold --------------------------------------------------------------------------------------


def _ogg_flac(first: bytes, stream: _Stream, notes: Notes) -> Link:
    decoder = _flac.Decoder(_flac.ogg_stream_info(first), notes)

    def blocks() -> Iterator[Samples]:
        total = 0
        for run in stream.runs():
            headers = [(packet, _flac.frame_header(packet[:16])) for packet in run.packets]
            samples = decoder.decode(
                [(packet, found.samples) for packet, found in headers if found is not None]
            )
            total += len(samples)
            yield samples
        decoder.ended(total)

    return Link(decoder.rate_hz, decoder.channels, blocks())


def _vorbis(first: bytes, stream: _Stream, notes: Notes) -> Link:
    headers = [first, stream.header(), stream.header()]
    if len(first) < 16 or not headers[2].startswith(b"\x05vorbis"):
        raise NotAudioError("is a damaged Ogg Vorbis file: its headers are not complete")
    channels, rate_hz = struct.unpack_from("<BI", first, 11)

    def blocks() -> Iterator[Samples]:
        before: list[bytes] = []
        position = 0
        for run in stream.runs():
            length = run.granule - position
            if run.granule < 0 or (before and not 0 <= length <= len(run.packets) * 8192):
                # Not known, a gap, or another count from here on: no packet is longer.
                length = len(run.packets) * 8192
            samples = _decoded(headers, [*before, *run.packets], length, run.is_last)
            if samples is None:
                notes.add("is damaged: a part of it could not be decoded")
                samples = np.zeros((min(length, rate_hz), channels), np.float32)
            yield samples
            before, position = run.packets[-1:], run.granule

    return Link(rate_hz, channels, blocks())


def _opus(first: bytes, stream: _Stream, notes: Notes) -> Link:
    stream.header()  # the tags
    if len(first) < 19:
        raise NotAudioError("is a damaged Ogg Opus file: its header is too short")
    channels, pre_skip = struct.unpack_from("<BH", first, 9)
    # Decoded at the full rate, from the first sample on.
    headers = [first[:10] + struct.pack("<HI", 0, OPUS_RATE_HZ) + first[16:], b"OpusTags" + bytes(8)]

    def blocks() -> Iterator[Samples]:
        before: deque[tuple[bytes, int]] = deque()
        skip, total, begin = pre_skip, 0, None
        for run in stream.runs():
            timed = [(packet, round(opus_duration_s(packet) * OPUS_RATE_HZ)) for packet in run.packets]
            timed = [(packet, length) for packet, length in timed if 0 < length <= 5760]
            length = sum(length for _, length in timed)
            preroll = sum(length for _, length in before)
            samples = _decoded(
                headers, [packet for packet, _ in [*before, *timed]], preroll + length, is_last=True
            )
            if samples is None:
                notes.add("is damaged: a part of it could not be decoded")
                samples = np.zeros((preroll + length, channels), np.float32)
            samples = samples[preroll:]
            begin = run.granule - length if begin is None and not run.is_last else begin
            total += length
            if run.is_last and (excess := total - (run.granule - max(0, begin or 0))) > 0:
                samples = samples[: max(0, len(samples) - excess)]
            yield samples[skip:]
            skip = max(0, skip - len(samples))
            before.extend(timed)
            while before and sum(n for _, n in before) - before[0][1] >= _OPUS_PREROLL_SAMPLES:
                before.popleft()

    return Link(OPUS_RATE_HZ, channels, blocks())


def _decoded(headers: list[bytes], packets: list[bytes], granule: int, is_last: bool) -> Samples | None:
    """The samples that libsndfile decodes from an Ogg file with these packets; None where it is damaged."""
    numbers = count()
    file = _page([headers[0]], 0, _FIRST, next(numbers)) + b"".join(
        _pages(headers[1:], 0, 0, numbers) + _pages(packets, granule, _LAST if is_last else 0, numbers)
    )
    return decoded_file(file)


def _pages(packets: list[bytes], granule: int, flags: int, numbers: count[int]) -> list[bytes]:
    """Pages of these packets, the last of which has the position and the flags."""
    pages: list[bytes] = []
    lacing, body = bytearray(), bytearray()
    continued = 0
    ends = False
    for packet in packets:
        sizes = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
        at = 0
        for size in sizes:
            if len(lacing) == 255:
                pages.append(_raw_page(lacing, body, _NO_PACKET_ENDS, continued, next(numbers)))
                lacing, body = bytearray(), bytearray()
                continued = 0 if ends else _CONTINUED
            lacing.append(size)
            body += packet[at : at + size]
            at += size
            ends = size < 255
    pages.append(_raw_page(lacing, body, granule, continued | flags, next(numbers)))
    return pages


def _page(packets: list[bytes], granule: int, flags: int, number: int) -> bytes:
    return b"".join(_pages(packets, granule, flags, count(number)))


def _raw_page(lacing: bytearray, body: bytearray, granule: int, flags: int, number: int) -> bytes:
    page = _HEAD.pack(b"OggS", 0, flags, granule, 1, number, 0, len(lacing)) + lacing + body
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _checksum(page: bytes) -> int:
    """Ogg's CRC: zlib's with all bits in the other order, from 0 on."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")
