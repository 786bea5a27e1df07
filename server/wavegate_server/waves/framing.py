"""Audio of any message size, cut into what goes upstream: never a partial sample, one Opus packet a frame.

A framer takes the caller's messages one after the other and returns the pieces that are complete with them.
Lengths are counted in samples of the format's clock: the sample rate for PCM, 48 kHz for Opus, whatever rate
its encoder was fed with (RFC 6716, 2.).
"""

from __future__ import annotations

import zlib
from typing import Protocol

import msgspec

from wavegate_server.audio import AudioFormat, Encoding

FRAME_BYTES = 4096
"""The upstream asks for binary messages of about this size (stt-live). A multiple of every sample size."""
OPUS_CLOCK_HZ = 48_000
MAX_PACKET_SAMPLES = 5760
"""An Opus packet holds at most 120 ms (RFC 6716, R5)."""

_FIRST_PAGE = 0x02
_CONTINUED = 0x01
_NO_GRANULE = 0xFFFFFFFFFFFFFFFF


class BadAudio(Exception):
    """Raised when a message is no such audio. The message says what is wrong and what would be right."""


class Piece(msgspec.Struct, frozen=True):
    """Audio that can be sent as it is."""

    data: bytes
    samples: int
    fresh: bool = True
    """Whether a decoder can begin here, behind the headers if there are any."""
    header: bool = False
    """An Ogg page that every decoder of the stream has to see first."""


class Framer(Protocol):
    """Cuts one stream of audio."""

    lead_in: int
    """Samples that a decoder drops at its beginning, wherever in the stream it begins."""

    def add(self, content: bytes) -> list[Piece]:
        """Pieces that are complete with this message. Raises `BadAudio`."""

    @property
    def rest_bytes(self) -> int:
        """Bytes that wait for the next message to be whole."""


class PcmFramer:
    """Samples of a fixed size. A message may end within a sample."""

    lead_in = 0

    def __init__(self, bytes_per_sample: int) -> None:
        self._width = bytes_per_sample
        self._rest = b""

    @property
    def rest_bytes(self) -> int:
        return len(self._rest)

    def add(self, content: bytes) -> list[Piece]:
        width = self._width
        data = self._rest + content if self._rest else content
        whole = len(data) - len(data) % width
        self._rest = data[whole:]
        if whole == len(data) <= FRAME_BYTES:
            return [Piece(data, whole // width)]  # the caller's own bytes: no copy
        return [
            Piece(data[at : min(at + FRAME_BYTES, whole)], (min(at + FRAME_BYTES, whole) - at) // width)
            for at in range(0, whole, FRAME_BYTES)
        ]


class OpusFramer:
    """Raw Opus packets, one a message; each goes out whole."""

    lead_in = 0
    rest_bytes = 0

    def add(self, content: bytes) -> list[Piece]:
        return [Piece(content, packet_samples(content))]


class OggFramer:
    """An Ogg stream with one Opus stream in it (RFC 7845), cut into messages anywhere; pages go out whole.

    The pages up to the end of the comment header are headers. A page's length is that of the packets that end
    on it.
    """

    def __init__(self) -> None:
        self.lead_in = 0
        self._buffer = b""
        self._serial: int | None = None
        self._headers_left = 2
        self._packet = bytearray()
        """The packet that goes on over the page's end."""

    @property
    def rest_bytes(self) -> int:
        return len(self._buffer)

    def add(self, content: bytes) -> list[Piece]:
        data = self._buffer + content
        pieces = []
        at = 0
        while (size := _page_size(data, at)) is not None and at + size <= len(data):
            pieces.append(self._page(data[at : at + size]))
            at += size
        self._buffer = data[at:]
        return pieces

    def _page(self, page: bytes) -> Piece:
        flags, serial = page[5], int.from_bytes(page[14:18], "little")
        if int.from_bytes(page[22:26], "little") != ogg_checksum(page):
            raise BadAudio("an Ogg page is damaged: its checksum is wrong")
        if flags & _FIRST_PAGE:
            if self._serial is not None:
                raise BadAudio("a second Ogg stream began; open another session for it")
            self._serial = serial
        elif serial != self._serial:
            raise BadAudio("the Ogg stream has no first page, or a second stream is mixed into it")
        packets = self._packets(page)
        header = self._headers_left > 0
        samples = 0
        for packet in packets:
            if self._headers_left:
                self._read_header(packet)
                self._headers_left -= 1
            else:
                samples += packet_samples(packet)
        return Piece(page, samples, fresh=not flags & _CONTINUED, header=header)

    def _packets(self, page: bytes) -> list[bytes]:
        """Packets that end on this page (RFC 3533, 6.)."""
        packets = []
        segments = page[27 : 27 + page[26]]
        at = 27 + page[26]
        for lacing in segments:
            self._packet += page[at : at + lacing]
            at += lacing
            if lacing < 255:
                packets.append(bytes(self._packet))
                self._packet.clear()
        return packets

    def _read_header(self, packet: bytes) -> None:
        expected = b"OpusHead" if self._headers_left == 2 else b"OpusTags"
        if packet[:8] != expected:
            raise BadAudio(f"the Ogg stream does not hold Opus: {expected.decode()} is missing")
        if expected == b"OpusHead":
            if len(packet) < 19:
                raise BadAudio("the Opus header is too short")
            self.lead_in = int.from_bytes(packet[10:12], "little")


def make_framer(audio_format: AudioFormat) -> Framer:
    """The framer of a transcription format."""
    match audio_format.encoding:
        case Encoding.OPUS:
            return OpusFramer()
        case Encoding.OGG_OPUS:
            return OggFramer()
        case encoding:
            return PcmFramer(encoding.bytes_per_sample)


def clock_hz(audio_format: AudioFormat) -> int:
    """Samples a second on the stream's timeline."""
    if audio_format.encoding in (Encoding.OPUS, Encoding.OGG_OPUS):
        return OPUS_CLOCK_HZ
    return audio_format.sample_rate_hz


def split(data: bytes, encoding: Encoding) -> list[bytes]:
    """A piece as messages: Opus packets stay whole, an Ogg page may be larger than a message should be."""
    if len(data) <= FRAME_BYTES or encoding is Encoding.OPUS:
        return [data]
    return [data[at : at + FRAME_BYTES] for at in range(0, len(data), FRAME_BYTES)]


def packet_samples(packet: bytes) -> int:
    """Playing time of one Opus packet, in samples at 48 kHz (RFC 6716, 3.1). Raises `BadAudio`."""
    if not packet:
        raise BadAudio("an Opus packet is empty")
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:  # SILK: 10, 20, 40 or 60 ms
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:  # hybrid: 10 or 20 ms
        frame = (480, 960)[config & 1]
    else:  # CELT: 2.5, 5, 10 or 20 ms
        frame = (120, 240, 480, 960)[config & 3]
    if code < 3:
        count = 1 if code == 0 else 2
    elif len(packet) < 2:
        raise BadAudio("an Opus packet ends within its header")
    else:
        count = packet[1] & 0x3F
    samples = frame * count
    if not 0 < samples <= MAX_PACKET_SAMPLES:
        raise BadAudio("not an Opus packet: it would last no time, or more than 120 ms")
    return samples


def _page_size(data: bytes, at: int) -> int | None:
    """Size of the page that begins at `at`; None where its header is not complete."""
    if data[at : at + 4] != b"OggS"[: len(data) - at]:
        raise BadAudio("not an Ogg stream: a page begins with 'OggS'")
    if len(data) - at < 27 or len(data) - at < 27 + data[at + 26]:
        return None
    segments = data[at + 26]
    return 27 + segments + sum(data[at + 27 : at + 27 + segments])


# Ogg's CRC-32 is zlib's polynomial, but not reflected and without inversion; reversing the bits of input and
# output makes zlib's fast code compute it.
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def ogg_checksum(page: bytes) -> int:
    """The checksum that belongs into bytes 22 to 25 of a page (RFC 3533, 6.)."""
    blank = page[:22] + b"\0\0\0\0" + page[26:]
    # zlib begins and ends with an inversion; both are undone.
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
