"""Opus as live clients send it: bare packets, one a message, or an Ogg stream cut into messages anywhere.

libsndfile decodes Opus, but only in whole Ogg files. So each packet is decoded in a small file of its own, behind
the packets of the 80 ms before it: that much a decoder needs to find its state (RFC 7845, 4.2.2). What comes out
depends on the packets alone, not on how they are cut into messages.
"""

from __future__ import annotations

import io
import struct
from collections import deque

import numpy as np
import soundfile
import soxr

_OGG_RATE_HZ = 48000
"""Opus counts in 48 kHz samples whatever the rate."""
_DECODED_RATES_HZ = frozenset({8000, 12000, 16000, 24000, 48000})
_PREROLL_SAMPLES = 3840
_LONGEST_PACKET_SAMPLES = 5760
_PAGE_HEADER = struct.Struct("<4sBBqIIIB")
_HEADER_TYPE_BOS = 2


def _crc_table() -> list[int]:
    table = []
    for index in range(256):
        register = index << 24
        for _ in range(8):
            register = (register << 1) ^ (0x04C11DB7 if register & 0x80000000 else 0)
        table.append(register & 0xFFFFFFFF)
    return table


_CRC = _crc_table()


def _checksum(page: bytes) -> int:
    register = 0
    for byte in page:
        register = (register << 8 & 0xFFFFFFFF) ^ _CRC[(register >> 24) ^ byte]
    return register


def packet_samples(packet: bytes) -> int:
    """How long a packet is, in samples at 48 kHz (RFC 6716, 3.1). Raises ValueError for what is no packet."""
    if not packet:
        raise ValueError("an Opus packet is not empty")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config % 4]
    elif config < 16:
        frame = (480, 960)[config % 2]
    else:
        frame = (120, 240, 480, 960)[config % 4]
    if code == 3:
        if len(packet) < 2:
            raise ValueError("an Opus packet of many frames says how many")
        count = packet[1] & 0x3F
    else:
        count = 1 if code == 0 else 2
    if not 0 < count * frame <= _LONGEST_PACKET_SAMPLES:
        raise ValueError("an Opus packet lasts at most 120 ms")
    return count * frame


def ogg_page(packets: list[bytes], *, granule: int, sequence: int, flags: int = 0, serial: int = 1) -> bytes:
    """An Ogg page of whole packets."""
    lacing = b"".join(b"\xff" * (len(p) // 255) + bytes([len(p) % 255]) for p in packets)
    head = _PAGE_HEADER.pack(b"OggS", 0, flags, granule, serial, sequence, 0, len(lacing))
    page = head + lacing + b"".join(packets)
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


class OpusPacketDecoder:
    """Bare packets -> 16-bit PCM."""

    def __init__(self, sample_rate_hz: int) -> None:
        is_direct = sample_rate_hz in _DECODED_RATES_HZ
        self._rate_hz = sample_rate_hz if is_direct else _OGG_RATE_HZ
        self._resampler = None if is_direct else soxr.ResampleStream(_OGG_RATE_HZ, sample_rate_hz, 1, "int16")
        # Version 1, one channel, nothing to skip, the rate to decode to, no gain, mapping family 0.
        head = b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, self._rate_hz, 0, 0)
        tags = b"OpusTags" + struct.pack("<II", 0, 0)
        self._headers = ogg_page([head], granule=0, sequence=0, flags=_HEADER_TYPE_BOS) + ogg_page(
            [tags], granule=0, sequence=1
        )
        self._before: deque[tuple[bytes, int]] = deque()
        self._before_samples = 0

    def decode(self, message: bytes) -> bytes:
        """One packet. Raises ValueError where it is none."""
        length = packet_samples(message)
        total = self._before_samples + length
        file = self._headers + ogg_page(
            [*(p for p, _ in self._before), message], granule=total, sequence=2, flags=4
        )
        try:
            samples = soundfile.read(io.BytesIO(file), dtype="int16")[0]
        except (soundfile.LibsndfileError, RuntimeError) as error:
            raise ValueError("not an Opus packet") from error
        new = length * self._rate_hz // _OGG_RATE_HZ
        # A decoder that lost a packet's content gives less: the time counts all the same.
        pcm = np.zeros(new, dtype="<i2")
        got = samples[-new:]
        pcm[new - len(got) :] = got
        self._remember(message, length)
        if self._resampler is not None:
            pcm = np.asarray(self._resampler.resample_chunk(pcm), dtype="<i2")
        return pcm.tobytes()

    def _remember(self, packet: bytes, length: int) -> None:
        self._before.append((packet, length))
        self._before_samples += length
        while self._before_samples - self._before[0][1] >= _PREROLL_SAMPLES:
            self._before_samples -= self._before.popleft()[1]


class OggOpusReader:
    """An Ogg stream -> the packets in it, headers included."""

    def __init__(self) -> None:
        self._data = b""
        self._open = b""
        """A packet that goes on in the next page."""

    def add(self, data: bytes) -> list[bytes]:
        """The packets that are whole with this. Raises ValueError for what is no Ogg."""
        self._data += data
        packets: list[bytes] = []
        while len(self._data) >= _PAGE_HEADER.size:
            magic, version, flags, _, _, _, checksum, segments = _PAGE_HEADER.unpack_from(self._data)
            if magic != b"OggS" or version != 0:
                raise ValueError("not an Ogg stream")
            lacing_end = _PAGE_HEADER.size + segments
            lacing = self._data[_PAGE_HEADER.size : lacing_end]
            end = lacing_end + sum(lacing)
            if len(lacing) < segments or len(self._data) < end:
                break
            page, self._data = self._data[:end], self._data[end:]
            if _checksum(page[:22] + b"\0\0\0\0" + page[26:]) != checksum:
                raise ValueError("an Ogg page is damaged")
            if not flags & 1:
                self._open = b""
            at = lacing_end
            for size in lacing:
                self._open += page[at : at + size]
                at += size
                if size < 255:
                    packets.append(self._open)
                    self._open = b""
        return packets


class OggOpusDecoder:
    """An Ogg Opus stream -> 16-bit PCM. Header pages may come again, as after a reconnect."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._reader = OggOpusReader()
        self._decoder: OpusPacketDecoder | None = None
        self._skip = 0
        """Samples at the beginning that are not meant to be heard."""

    def decode(self, message: bytes) -> bytes:
        """Whatever packets are whole with this. Raises ValueError for what is no such stream."""
        pcm = []
        for packet in self._reader.add(message):
            if packet.startswith(b"OpusHead"):
                if len(packet) < 19:
                    raise ValueError("the Opus header is too short")
                self._decoder = OpusPacketDecoder(self._sample_rate_hz)
                pre_skip = struct.unpack_from("<H", packet, 10)[0]
                self._skip = 2 * (pre_skip * self._sample_rate_hz // _OGG_RATE_HZ)
            elif self._decoder is None:
                raise ValueError("the Ogg stream does not begin with an Opus header")
            elif not packet.startswith(b"OpusTags"):
                decoded = self._decoder.decode(packet)
                skipped = min(self._skip, len(decoded))
                self._skip -= skipped
                pcm.append(decoded[skipped:])
        return b"".join(pcm)
