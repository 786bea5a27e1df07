"""Audio of any message size, cut into what goes upstream."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.waves.framing import (
    FRAME_BYTES,
    BadAudio,
    OggFramer,
    OpusFramer,
    PcmFramer,
    Piece,
    clock_hz,
    make_framer,
    ogg_checksum,
    packet_samples,
    split,
)


def ogg_opus(seconds: float, rate_hz: int = 48000) -> bytes:
    """A real Ogg stream."""
    tone = np.sin(np.arange(round(seconds * rate_hz)) / 20).astype("float32") * 0.3
    out = io.BytesIO()
    soundfile.write(out, tone, rate_hz, format="OGG", subtype="OPUS")
    return out.getvalue()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in messages of these sizes, over and over."""
    messages, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        messages.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return messages


@given(
    width=st.sampled_from([1, 2, 4]),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=8),
    total=st.integers(1, 60_000),
)
def test_pcm_of_any_message_size_keeps_every_byte_and_cuts_no_sample(
    width: int, sizes: list[int], total: int
) -> None:
    data = random.Random(total).randbytes(total)
    framer = PcmFramer(width)
    pieces = [p for message in cut(data, sizes) for p in framer.add(message)]
    whole = total - total % width
    assert b"".join(p.data for p in pieces) == data[:whole]
    assert framer.rest_bytes == total % width
    assert all(0 < len(p.data) <= FRAME_BYTES and len(p.data) == p.samples * width for p in pieces)


def test_pcm_that_fits_is_not_copied() -> None:
    message = bytes(640)
    assert PcmFramer(2).add(message)[0].data is message


@pytest.mark.parametrize(
    ("packet", "milliseconds"),
    [
        (b"\x08", 20),  # SILK narrow band
        (b"\x18", 60),
        (b"\x60", 10),  # hybrid
        (b"\x80", 2.5),  # CELT
        (b"\xf8\xff\xfe", 20),
        (b"\xf9", 40),  # two equal frames
        (b"\xfa", 40),  # two frames
        (b"\xfb\x06", 120),  # six frames
    ],
)
def test_opus_durations_come_from_the_packet(packet: bytes, milliseconds: float) -> None:
    assert packet_samples(packet) == milliseconds * 48
    assert OpusFramer().add(packet) == [Piece(packet, round(milliseconds * 48))]


@pytest.mark.parametrize("packet", [b"", b"\xfb", b"\xfb\x00", b"\xfb\x07", b"\x1b\x03"])
def test_what_is_no_opus_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(BadAudio):
        packet_samples(packet)


@pytest.mark.parametrize("sizes", [[1], [7, 333], [50_000], [4096]])
def test_ogg_cut_anywhere_comes_out_in_whole_pages(sizes: list[int]) -> None:
    data = ogg_opus(3.0)
    framer = OggFramer()
    pieces = [p for message in cut(data, sizes) for p in framer.add(message)]
    assert b"".join(p.data for p in pieces) == data
    assert framer.rest_bytes == 0
    assert all(p.data.startswith(b"OggS") for p in pieces)
    assert [p.header for p in pieces[:3]] == [True, True, False]
    assert sum(p.samples for p in pieces if p.header) == 0
    assert framer.lead_in == 312
    # Whole packets: the last one is filled up behind the end.
    assert 3 * 48000 <= sum(p.samples for p in pieces) - framer.lead_in < 3.1 * 48000


def test_ogg_that_goes_wrong_is_refused() -> None:
    data = ogg_opus(0.5)
    with pytest.raises(BadAudio, match="OggS"):
        OggFramer().add(b"RIFF" + bytes(100))
    damaged = bytearray(data)
    damaged[60] ^= 1
    with pytest.raises(BadAudio, match="checksum"):
        OggFramer().add(bytes(damaged))
    with pytest.raises(BadAudio, match="second Ogg stream"):
        OggFramer().add(data + data)
    second_page = data.index(b"OggS", 4)
    with pytest.raises(BadAudio, match="no first page"):
        OggFramer().add(data[second_page:])
    vorbis = io.BytesIO()
    soundfile.write(vorbis, np.zeros(4800, dtype="float32"), 48000, format="OGG", subtype="VORBIS")
    with pytest.raises(BadAudio, match="Opus"):
        OggFramer().add(vorbis.getvalue())


def test_a_page_that_goes_on_from_another_is_no_place_to_begin() -> None:
    first, continued = bytearray(page(1, [255])), bytearray(page(2, [10], flags=1))
    framer = OggFramer()
    framer.add(page(0, [19], b"OpusHead\x01\x01\x38\x01" + bytes(7), flags=2))
    framer.add(page(0, [16], b"OpusTags" + bytes(8)))
    pieces = framer.add(bytes(first + continued))
    assert [p.fresh for p in pieces] == [True, False]
    assert [p.samples for p in pieces] == [0, 480]  # the packet counts where it ends


def page(number: int, lacing: list[int], body: bytes | None = None, *, flags: int = 0) -> bytes:
    """An Ogg page with a right checksum."""
    body = bytes(sum(lacing)) if body is None else body
    header = b"OggS\0" + bytes([flags]) + bytes(8) + (7).to_bytes(4, "little") + number.to_bytes(4, "little")
    made = header + bytes(4) + bytes([len(lacing), *lacing]) + body
    return made[:22] + ogg_checksum(made).to_bytes(4, "little") + made[26:]


def test_framers_and_clocks_follow_the_format() -> None:
    assert clock_hz(AudioFormat(Encoding.LINEAR16, 16000)) == 16000
    assert clock_hz(AudioFormat(Encoding.OPUS, 16000)) == 48000
    assert isinstance(make_framer(AudioFormat(Encoding.OGG_OPUS, 16000)), OggFramer)
    assert isinstance(make_framer(AudioFormat(Encoding.OPUS, 16000)), OpusFramer)
    assert make_framer(AudioFormat(Encoding.LINEAR32, 8000)).add(bytes(8)) == [Piece(bytes(8), 2)]


def test_messages_are_bounded_but_packets_stay_whole() -> None:
    data = bytes(FRAME_BYTES * 2 + 1)
    assert [len(m) for m in split(data, Encoding.OGG_OPUS)] == [FRAME_BYTES, FRAME_BYTES, 1]
    assert split(data, Encoding.OPUS) == [data]
