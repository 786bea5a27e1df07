"""Containers of plain samples: WAV in all its forms (RIFF, RIFX, RF64, BW64, W64), AIFF, AU, CAF, and none at all."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from wavegate.audio import RawEncoding, RawFormat
from wavegate.recordings import _mpeg
from wavegate.recordings._input import Input
from wavegate.recordings._link import LEFT_OUT, Link, NotAudioError, Notes, amount, check_shape, cut_off
from wavegate.recordings._samples import Samples, decoded, decoded_file

__all__ = [
    "Elsewhere",
    "open_aiff",
    "open_au",
    "open_caf",
    "open_raw",
    "open_w64",
    "open_wave",
    "untouched",
]

_BLOCK_S = 0.5
"""Playing time that is decoded at a time, at most."""

_AUDIBLE = 100
"""Of 32768: quieter samples are not looked at."""

_LONGEST_CLAIM_BYTES = 0x7FFF0000
"""A 32-bit length from here on says that the program which wrote the header did not know it.

Into a pipe ffmpeg writes 0xFFFFFFFF, arecord 0x80000000 and sox 0x7FFFFFFF, each less some header; others 0.
"""

_LONGEST_CLAIM_64_BYTES = 1 << 48


class Elsewhere(Exception):
    """The container is known, and holds samples in an encoding that only a general decoder reads."""


def open_raw(source: Input, raw: RawFormat, notes: Notes) -> Link:
    """Samples without any header."""
    contents = untouched(source, raw, notes)
    return Link(
        raw.sample_rate_hz,
        raw.channels,
        (decoded(content, raw.encoding, raw.channels) for content in contents),
    )


def untouched(source: Input, raw: RawFormat, notes: Notes) -> Iterator[bytes]:
    """Samples without any header as they are, cut between frames. Notes it if they look like another kind."""
    checked = 0
    for content in _contents(source, None, raw, notes):
        if checked < _CHECKED_BYTES and not notes.sentences:
            checked += len(content)
            if doubt := _doubt(content, raw):
                notes.add(doubt)
        yield content


_CHECKED_BYTES = 1 << 20
_CHECKED_SAMPLES = 2000


def _doubt(content: bytes, raw: RawFormat) -> str:
    """Return a sentence where 16-bit samples of one channel are more likely another kind, else nothing."""
    if raw.encoding != "s16le" or raw.channels != 1 or len(content) < 4 * _CHECKED_SAMPLES:
        return ""
    floats = np.abs(np.frombuffer(content[: len(content) // 4 * 4], "<f4"))
    sounding = floats[floats != 0]
    # Half of what any sound's samples give as a float is no number, or a huge one.
    if len(sounding) > len(floats) / 2 and np.mean((sounding > 1e-9) & (sounding <= 2)) > 0.99:
        return f"looks like f32le,{raw.sample_rate_hz}: describe it so (--raw) if the words make no sense"
    samples = np.frombuffer(content, "<i2").astype(np.float32)
    steps, strides = (float(np.mean((samples[n:] - samples[:-n]) ** 2)) for n in (1, 2))
    # Of one channel, neighbours are more alike than others, except for sounds near the highest that there can be.
    if np.std(samples) > _AUDIBLE and (strides < steps / 4 or np.array_equal(samples[::2], samples[1::2])):
        return f"looks like s16le,{raw.sample_rate_hz},2: describe it so (--raw) if the words make no sense"
    return ""


def _raw_format(encoding: RawEncoding, rate_hz: int, channels: int) -> RawFormat:
    check_shape(rate_hz, channels)
    return RawFormat(encoding, rate_hz, channels)


def _frames(source: Input, length: int | None, raw: RawFormat, notes: Notes) -> Iterator[Samples]:
    """The samples in `length` bytes, or up to the end where that is unknown (None)."""
    for content in _contents(source, length, raw, notes):
        yield decoded(content, raw.encoding, raw.channels)


def _contents(source: Input, length: int | None, raw: RawFormat, notes: Notes) -> Iterator[bytes]:
    """Whole frames as they come: of `length` bytes, or up to the end where that is unknown (None)."""
    limit = max(1, int(raw.sample_rate_hz * _BLOCK_S)) * raw.frame_bytes
    rest = b""
    left = length
    while left is None or left > 0:
        content = source.read_some(limit if left is None else min(limit, left))
        if not content:
            if left and length:
                claimed, there = -(-length // raw.frame_bytes), (length - left) // raw.frame_bytes
                notes.add(cut_off(claimed, there, raw.sample_rate_hz))
            return
        left = None if left is None else left - len(content)
        content = rest + content
        whole = len(content) - len(content) % raw.frame_bytes
        rest = content[whole:]
        if whole:
            yield content[:whole]


# --- WAV and its kin --------------------------------------------------------------------------------------------

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MPEG_TAGS = (0x50, 0x55)
_BLOCK_TAGS = {0x02: 0, 0x11: 0, 0x31: 50}
"""Encodings in blocks, with the blocks before one that its decoder needs: MS ADPCM, IMA ADPCM, GSM 6.10.

The last one goes on from its own past, so that what is forgotten of a steady sound fades in seconds only.
"""

_TAG_NAMES = {
    0x22: "TrueSpeech", 0x40: "G.721 ADPCM", 0x42: "G.723.1", 0x45: "G.726 ADPCM", 0x64: "G.726 ADPCM",
    0x65: "G.722", 0x83: "G.729", 0xFF: "AAC", 0x160: "WMA", 0x161: "WMA", 0x162: "WMA", 0x163: "WMA",
    0x28F: "G.722", 0x674F: "Vorbis", 0x1600: "AAC", 0x1610: "AAC", 0x7A21: "AMR", 0x7A22: "AMR", 0xA109: "Speex",
}  # fmt: skip

_BEHIND_SAMPLES = frozenset(
    (b"LIST", b"INFO", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"inst", b"PEAK", b"JUNK", b"junk",
     b"PAD ", b"FLLR", b"iXML", b"axml", b"_PMX", b"afsp", b"plst", b"DISP")
)  # fmt: skip
"""Chunks that follow samples. Of samples of no length they show that there are none."""

_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""How the names of a W64 file's chunks go on behind their four letters, but for the first chunk's."""


@dataclass(frozen=True, slots=True)
class _Form:
    """The content of a `fmt ` chunk."""

    body: bytes
    order: str
    tag: int
    channels: int
    rate_hz: int
    block_bytes: int
    bits: int

    @property
    def block_samples(self) -> int:
        """Samples of a channel in a block, of encodings that have blocks."""
        return int(struct.unpack("<H", self.body[18:20])[0]) if len(self.body) >= 20 else 0


def open_wave(source: Input, notes: Notes) -> Link:
    """WAV: RIFF, RIFX (big-endian), RF64 and BW64, from the first byte on."""
    magic = source.read(12)[:4]
    order = ">" if magic == b"RIFX" else "<"
    form: _Form | None = None
    length_64 = 0
    while len(head := source.read(8)) == 8:
        name, size = head[:4], int(struct.unpack(order + "I", head[4:])[0])
        if name == b"data":
            if form is None:
                raise NotAudioError("is a damaged WAV file: its samples come before what they are")
            known: int | None = size
            if magic in (b"RF64", b"BW64") and size == 0xFFFFFFFF:
                known = length_64 if 0 < length_64 < _LONGEST_CLAIM_64_BYTES else None
            elif (size == 0 and source.peek(4) not in _BEHIND_SAMPLES) or size >= _LONGEST_CLAIM_BYTES:
                known = None
            return _wave_link(source, form, known, notes, trailer=lambda: _skip_chunks(source, order, notes))
        if name == b"fmt ":
            form = _form(_body(source, size), order)
        elif name == b"ds64":
            body = _body(source, size)
            length_64 = int(struct.unpack("<Q", body[8:16])[0]) if len(body) >= 16 else 0
        elif source.skip(size) < size:
            break
        _skip_pad(source, size)
    raise NotAudioError("is a WAV file that holds no audio")


def open_w64(source: Input, notes: Notes) -> Link:
    """Sony Wave64: as WAV, with longer names and lengths."""
    source.skip(40)
    form: _Form | None = None
    while len(head := source.read(24)) == 24:
        name, size = head[:4], int(struct.unpack("<Q", head[16:])[0])
        if name == b"data" and form is not None:
            known = size - 24 if 24 < size < _LONGEST_CLAIM_64_BYTES else None
            return _wave_link(source, form, known, notes, trailer=lambda: _skip_w64_chunks(source))
        body_bytes = max(0, size - 24)
        if name == b"fmt ":
            form = _form(_body(source, body_bytes), "<")
        elif source.skip(body_bytes) < body_bytes:
            break
        source.skip(-body_bytes % 8)
    raise NotAudioError("is a W64 file that holds no audio")


def _form(body: bytes, order: str) -> _Form:
    if len(body) < 14:
        raise NotAudioError("is a damaged WAV file: its header is too short")
    tag, channels, rate_hz, _, block_bytes = struct.unpack(order + "HHIIH", body[:14])
    bits = struct.unpack(order + "H", body[14:16])[0] if len(body) >= 16 else 0
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = struct.unpack(order + "H", body[24:26])[0]
    check_shape(rate_hz, channels)
    return _Form(body, order, tag, channels, rate_hz, block_bytes, bits or 8 * block_bytes // channels)


def _wave_link(
    source: Input, form: _Form, length: int | None, notes: Notes, trailer: Callable[[], object]
) -> Link:
    def to_the_end(blocks: Iterator[Samples]) -> Iterator[Samples]:
        yield from blocks
        if length is not None:
            _skip_pad(source, length)
            trailer()

    if form.tag in _MPEG_TAGS:
        return _mpeg.open_mpeg(source, notes)
    if form.tag in _BLOCK_TAGS:
        blocks = to_the_end(_blocks(source, form, length, notes))
        return Link(form.rate_hz, form.channels, blocks)
    raw = _raw_format(_wave_encoding(form), form.rate_hz, form.channels)
    return Link(form.rate_hz, form.channels, to_the_end(_frames(source, length, raw, notes)))


def _wave_encoding(form: _Form) -> RawEncoding:
    width = (form.bits + 7) // 8
    # The size of a frame is nearer to the samples than their bits: 20 bits may lie in 3 bytes or in 4.
    if form.block_bytes % form.channels == 0 and form.block_bytes // form.channels >= width:
        width = form.block_bytes // form.channels
    end = "le" if form.order == "<" else "be"
    names: dict[tuple[int, int], str] = {
        (_PCM, 1): "u8", (_PCM, 2): f"s16{end}", (_PCM, 3): f"s24{end}", (_PCM, 4): f"s32{end}",
        (_FLOAT, 4): f"f32{end}", (_FLOAT, 8): f"f64{end}", (6, 1): "alaw", (7, 1): "mulaw",
    }  # fmt: skip
    name = names.get((form.tag, width))
    if name is None:
        what = _TAG_NAMES.get(form.tag) or f"samples of {form.bits} bits in encoding {form.tag:#x}"
        raise NotAudioError(f"is a WAV file with {what} in it, which is not decoded here", "convert")
    return name  # type: ignore[return-value]  # one of the literals, put together


def _blocks(source: Input, form: _Form, length: int | None, notes: Notes) -> Iterator[Samples]:
    """Samples that are coded in blocks: as many as are there are decoded at a time, in a small WAV file."""
    size = form.block_bytes
    if size < 4 * form.channels or not form.block_samples:
        raise NotAudioError(f"is damaged: its header tells of blocks of {size} bytes")
    before_count = _BLOCK_TAGS[form.tag]
    before = rest = b""
    left = length
    while left is None or left > 0:
        content = source.read_some(64 * 1024 if left is None else min(64 * 1024, left))
        if not content:
            if left:
                notes.add(f"is cut off: the last {amount(left)} that its header tells of are not there")
            break
        left = None if left is None else left - len(content)
        content = rest + content
        whole = len(content) - len(content) % size
        rest, content = content[whole:], content[:whole]
        if not content:
            continue
        samples = _decoded_blocks(before + content, form)
        yield samples[len(before) // size * form.block_samples :]
        before = (before + content)[-before_count * size :] if before_count else b""


def _decoded_blocks(content: bytes, form: _Form) -> Samples:
    fact = b"fact" + struct.pack("<II", 4, 0xFFFFFFF)
    body = b"WAVEfmt " + struct.pack("<I", len(form.body)) + form.body + fact
    body += b"data" + struct.pack("<I", len(content)) + content
    samples = decoded_file(b"RIFF" + struct.pack("<I", len(body)) + body)
    if samples is None:
        raise NotAudioError("is a damaged WAV file: its blocks cannot be decoded")
    # Of an odd number of blocks libsndfile makes an even one.
    return samples[: len(content) // form.block_bytes * form.block_samples]


def _body(source: Input, size: int) -> bytes:
    """A chunk's content. Of one that claims to be huge, its beginning."""
    body = source.read(min(size, 4096))
    source.skip(size - len(body))
    return body


def _skip_pad(source: Input, size: int) -> None:
    """A chunk of odd length is padded, but not by everybody."""
    if size % 2:
        following = source.peek(5)
        if following[:1] == b"\0" or not _is_name(following[:4]):
            source.skip(1)


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


_BEGINNINGS = frozenset(
    (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b".snd", b"dns.", b"caff", b"OggS", b"fLaC", b"APET")
)  # fmt: skip
"""How what may follow a recording begins, a tag among it: each could be taken for a chunk's name."""


def _is_chunk(name: bytes) -> bool:
    return _is_name(name) and name not in _BEGINNINGS


def _skip_chunks(source: Input, order: str, notes: Notes) -> None:
    """Go past the chunks that follow the samples, up to what is none or is another file."""
    while len(head := source.peek(8)) == 8:
        size = int(struct.unpack(order + "I", head[4:])[0])
        if not _is_chunk(head[:4]) or size >= _LONGEST_CLAIM_BYTES:
            return
        if (skipped := source.skip(8 + size)) < 8 + size:
            notes.add(LEFT_OUT.format(amount(skipped)))
        _skip_pad(source, size)


def _skip_w64_chunks(source: Input) -> None:
    source.skip(-source.position % 8 if source.peek(1) == b"\0" else 0)
    while (head := source.peek(24))[4:16] == _W64_TAIL and len(head) == 24:
        size = int(struct.unpack("<Q", head[16:])[0])
        if not 24 <= size < _LONGEST_CLAIM_64_BYTES:
            return
        source.skip(size + -size % 8)


# --- AIFF, AU, CAF ----------------------------------------------------------------------------------------------


def open_aiff(source: Input, notes: Notes) -> Link:
    """AIFF and AIFF-C. Raises `Elsewhere` for encodings that are no plain samples."""
    compressed = source.read(12)[8:] == b"AIFC"
    form: tuple[int, int, float, bytes] | None = None
    while len(head := source.read(8)) == 8:
        name, size = head[:4], int(struct.unpack(">I", head[4:])[0])
        if name == b"SSND":
            if form is None:
                raise Elsewhere
            channels, bits, rate, kind = form
            raw = _raw_format(_aiff_encoding(kind, bits), round(rate), channels)
            offset = struct.unpack(">I", source.read(8)[:4].rjust(4, b"\0"))[0]
            source.skip(offset)
            known = None if size <= 8 + offset or size >= _LONGEST_CLAIM_BYTES else size - 8 - offset
            return Link(round(rate), channels, _then_chunks(source, known, raw, notes))
        if name == b"COMM":
            body = _body(source, size)
            if len(body) < 18:
                raise NotAudioError("is a damaged AIFF file: its header is too short")
            channels, _, bits = struct.unpack(">HIH", body[:8])
            form = channels, bits, _extended(body[8:18]), body[18:22] if compressed else b"NONE"
        elif source.skip(size) < size:
            break
        _skip_pad(source, size)
    raise NotAudioError("is an AIFF file that holds no audio")


def _then_chunks(source: Input, length: int | None, raw: RawFormat, notes: Notes) -> Iterator[Samples]:
    yield from _frames(source, length, raw, notes)
    if length is not None:
        _skip_pad(source, length)
        _skip_chunks(source, ">", notes)


def _aiff_encoding(kind: bytes, bits: int) -> RawEncoding:
    plain: dict[int, RawEncoding] = {1: "s8", 2: "s16be", 3: "s24be", 4: "s32be"}
    named: dict[bytes, RawEncoding] = {
        b"fl32": "f32be", b"FL32": "f32be", b"fl64": "f64be", b"FL64": "f64be", b"raw ": "u8",
        b"ulaw": "mulaw", b"ULAW": "mulaw", b"alaw": "alaw", b"ALAW": "alaw",
        b"in24": "s24be", b"in32": "s32be", b"42ni": "s24le", b"23ni": "s32le",
    }  # fmt: skip
    width = (bits + 7) // 8
    if kind in (b"NONE", b"twos") and width in plain:
        return plain[width]
    if kind == b"sowt" and width in plain:
        return {1: "s8", 2: "s16le", 3: "s24le", 4: "s32le"}[width]  # type: ignore[return-value]
    if kind in named:
        return named[kind]
    raise Elsewhere


def _extended(content: bytes) -> float:
    """An 80-bit floating-point number, which is how AIFF writes a rate."""
    exponent, mantissa = struct.unpack(">HQ", content)
    return float(mantissa) * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63) if exponent & 0x7FFF < 0x4100 else 0.0


_AU_ENCODINGS: dict[int, tuple[RawEncoding, RawEncoding]] = {
    1: ("mulaw", "mulaw"), 2: ("s8", "s8"), 3: ("s16be", "s16le"), 4: ("s24be", "s24le"), 5: ("s32be", "s32le"),
    6: ("f32be", "f32le"), 7: ("f64be", "f64le"), 27: ("alaw", "alaw"),
}  # fmt: skip


def open_au(source: Input, notes: Notes) -> Link:
    """Sun's and NeXT's AU. Raises `Elsewhere` for encodings that are no plain samples."""
    order = ">" if source.read(4) == b".snd" else "<"
    fields = source.read(20)
    if len(fields) < 20:
        raise NotAudioError("is a damaged AU file: its header is too short")
    offset, size, code, rate_hz, channels = struct.unpack(order + "IIIII", fields)
    if code not in _AU_ENCODINGS:
        raise Elsewhere
    source.skip(max(0, offset - 24))
    raw = _raw_format(_AU_ENCODINGS[code][order == "<"], rate_hz, channels)
    known = size if 0 < size < _LONGEST_CLAIM_BYTES else None
    return Link(rate_hz, channels, _frames(source, known, raw, notes))


def open_caf(source: Input, notes: Notes) -> Link:
    """Apple's Core Audio Format. Raises `Elsewhere` for encodings that are no plain samples."""
    source.skip(8)
    raw: RawFormat | None = None
    rate_hz = channels = 0
    while len(head := source.read(12)) == 12:
        name, size = head[:4], int(struct.unpack(">q", head[4:])[0])
        if name == b"data":
            if raw is None:
                raise NotAudioError("is a damaged CAF file: its samples come before what they are")
            source.skip(4)  # the number of edits
            known = size - 4 if 4 < size < _LONGEST_CLAIM_64_BYTES else None
            return Link(rate_hz, channels, _then_rest(source, known, raw, notes))
        if name == b"desc":
            body = _body(source, max(0, size))
            if len(body) < 32:
                raise NotAudioError("is a damaged CAF file: its header is too short")
            rate, kind, flags, _, _, channels, bits = struct.unpack(">d4sIIIII", body[:32])
            rate_hz = round(rate) if 0 < rate < 2**31 else 0
            raw = _raw_format(_caf_encoding(kind, flags, bits), rate_hz, channels)
        elif size < 0 or source.skip(size) < size:
            break
    raise NotAudioError("is a CAF file that holds no audio")


def _then_rest(source: Input, length: int | None, raw: RawFormat, notes: Notes) -> Iterator[Samples]:
    yield from _frames(source, length, raw, notes)
    while length is not None and len(head := source.peek(12)) == 12 and _is_chunk(head[:4]):
        size = int(struct.unpack(">q", head[4:])[0])
        if not 0 <= size < _LONGEST_CLAIM_64_BYTES:
            return
        source.skip(12 + size)


def _caf_encoding(kind: bytes, flags: int, bits: int) -> RawEncoding:
    end = "le" if flags & 2 else "be"
    if kind == b"lpcm":
        name = f"f{bits}{end}" if flags & 1 else "s8" if bits == 8 else f"s{bits}{end}"
        if name in ("s8", f"s16{end}", f"s24{end}", f"s32{end}", f"f32{end}", f"f64{end}"):
            return name  # type: ignore[return-value]  # one of the literals, put together
    if kind in (b"ulaw", b"alaw"):
        return "mulaw" if kind == b"ulaw" else "alaw"
    raise Elsewhere
