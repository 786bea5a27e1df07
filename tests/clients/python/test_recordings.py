"""Recordings: whatever a person may have, from a file and from a pipe."""

from __future__ import annotations

import io
import os
import re
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, ClassVar

import lameenc
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from wavegate.audio import RAW_ENCODINGS, RawFormat, WavWriter, bytes_per_second, wav_header
from wavegate.errors import AudioFileError
from wavegate.recordings import AudioSource, _mpeg, decode, encode, open_audio
from wavegate.settings import AudioEncoding, AudioFormat

Floats = npt.NDArray[np.float64]
HEARD = AudioFormat("LINEAR16", 16000)


# --- recordings that are made here ------------------------------------------------------------------------------


def sweep(rate_hz: int, duration_s: float = 3.0, *, from_hz: float = 200, to_hz: float = 1500) -> Floats:
    """A tone that rises, at half scale, with a little noise: no moment of it sounds like another one."""
    t = np.arange(int(rate_hz * duration_s)) / rate_hz
    noise = np.random.default_rng(7).normal(0, 0.01, len(t))
    return noise + 0.5 * np.sin(2 * np.pi * (from_hz * t + (to_hz - from_hz) * t * t / (2 * duration_s)))


def written(samples: Floats, rate_hz: int, container: str, subtype: str | None = None, **how: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=container, subtype=subtype, **how)
    return out.getvalue()


def mp3(samples: Floats, rate_hz: int, kbit_per_s: int = 32) -> bytes:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(kbit_per_s)
    encoder.set_in_sample_rate(rate_hz)
    encoder.set_out_sample_rate(rate_hz)
    encoder.set_channels(channels)
    encoder.silence()
    pcm = (samples * 32767).astype("<i2").tobytes()
    return bytes(encoder.encode(pcm)) + bytes(encoder.flush())


def ogg_page(packet: bytes, *, number: int, granule: int, flags: int, serial: int = 7) -> bytes:
    """A page with one packet; the checksum is reckoned here bit by bit."""
    lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
    assert len(lacing) < 256
    page = (
        struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, number, 0, len(lacing))
        + lacing
        + packet
    )
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x104C11DB7 if register & 0x80000000 else 0)) & 0x1FFFFFFFF
        register &= 0xFFFFFFFF
    return page[:22] + struct.pack("<I", register) + page[26:]


def flac_in_ogg(samples: Floats, rate_hz: int) -> bytes:
    """As `flac --ogg` writes it: a header packet, a comment, then a packet for each frame."""
    # Frames of one size, which show in the stream by their headers: the fixed part of the first.
    native = written(samples, rate_hz, "FLAC", "PCM_16")
    assert len(samples) % 4096 == 0
    at, last = 4, False
    while not last:
        last, size = native[at] >= 0x80, int.from_bytes(native[at + 1 : at + 4], "big")
        at += 4 + size
    starts = [m.start() for m in re.finditer(re.escape(native[at : at + 4]), native) if m.start() >= at]
    ends = [*starts[1:], len(native)]
    head = b"\x7fFLAC\x01\x00\x00\x01fLaC\x00\x00\x00\x22" + native[8:42]
    comment = b"\x84\x00\x00\x08" + bytes(8)
    pages = [ogg_page(head, number=0, granule=0, flags=2), ogg_page(comment, number=1, granule=0, flags=0)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        flags = 4 if end == len(native) else 0
        pages.append(ogg_page(native[start:end], number=number + 2, granule=4096 * (number + 1), flags=flags))
    return b"".join(pages)


def kind(container: str, subtype: str, rate_hz: int = 24000, **how: str) -> tuple[bytes, int]:
    return written(sweep(rate_hz), rate_hz, container, subtype, **how), rate_hz


KINDS: dict[str, Callable[[], tuple[bytes, int]]] = {
    "wav of bytes": lambda: kind("WAV", "PCM_U8"),
    "wav of 16 bits": lambda: kind("WAV", "PCM_16"),
    "wav of 24 bits": lambda: kind("WAV", "PCM_24"),
    "wav of 32 bits": lambda: kind("WAV", "PCM_32"),
    "wav of floats": lambda: kind("WAV", "FLOAT"),
    "wav of long floats": lambda: kind("WAV", "DOUBLE"),
    "wav of mu-law": lambda: kind("WAV", "ULAW", 8000),
    "wav of A-law": lambda: kind("WAV", "ALAW", 8000),
    "wav of GSM": lambda: kind("WAV", "GSM610", 8000),
    "wav of IMA ADPCM": lambda: kind("WAV", "IMA_ADPCM"),
    "wav of MS ADPCM": lambda: kind("WAV", "MS_ADPCM"),
    "wav, extensible": lambda: kind("WAVEX", "PCM_24", 48000),
    "wav, big-endian": lambda: kind("WAV", "PCM_16", endian="BIG"),
    "rf64": lambda: kind("RF64", "PCM_16"),
    "w64": lambda: kind("W64", "PCM_24"),
    "aiff": lambda: kind("AIFF", "PCM_16"),
    "aiff of bytes": lambda: kind("AIFF", "PCM_S8"),
    "aiff-c, little-endian": lambda: kind("AIFF", "PCM_16", endian="LITTLE"),
    "aiff-c of floats": lambda: kind("AIFF", "FLOAT"),
    "aiff-c of mu-law": lambda: kind("AIFF", "ULAW", 8000),
    "aiff-c of IMA ADPCM": lambda: kind("AIFF", "IMA_ADPCM"),
    "au": lambda: kind("AU", "PCM_16"),
    "au, little-endian": lambda: kind("AU", "PCM_16", endian="LITTLE"),
    "au of mu-law": lambda: kind("AU", "ULAW", 8000),
    "au of G.721": lambda: kind("AU", "G721_32", 8000),
    "caf": lambda: kind("CAF", "PCM_16"),
    "caf, little-endian": lambda: kind("CAF", "PCM_24", endian="LITTLE"),
    "caf of A-law": lambda: kind("CAF", "ALAW", 8000),
    "caf of ALAC": lambda: kind("CAF", "ALAC_16"),
    "flac": lambda: kind("FLAC", "PCM_16"),
    "flac of 24 bits at 96 kHz": lambda: kind("FLAC", "PCM_24", 96000),
    "ogg vorbis": lambda: kind("OGG", "VORBIS"),
    "ogg vorbis at 44.1 kHz": lambda: kind("OGG", "VORBIS", 44100),
    "ogg opus": lambda: kind("OGG", "OPUS"),
    "ogg flac": lambda: (flac_in_ogg(np.append(sweep(16000), np.zeros(1152)), 16000), 16000),
    "nist sphere": lambda: kind("NIST", "PCM_16"),
    "8svx": lambda: kind("SVX", "PCM_16"),
    "voc": lambda: kind("VOC", "PCM_16"),
    **{
        f"mp3 at {rate_hz} Hz": lambda rate_hz=rate_hz: (mp3(sweep(rate_hz), rate_hz), rate_hz)  # type: ignore[misc]
        for rate_hz in (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
    },
}
STREAMED = (
    "wav of 16 bits",
    "flac",
    "ogg vorbis",
    "ogg opus",
    "ogg flac",
    "mp3 at 8000 Hz",
    "mp3 at 44100 Hz",
)


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives little at a time."""

    def __init__(self, content: bytes, at_once: int = 1000) -> None:
        self._content = io.BytesIO(content)
        self._at_once = at_once
        self.given_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "nobody waits for the end"
        content = self._content.read(min(size, self._at_once))
        self.given_bytes += len(content)
        return content


def heard(source: Any, rate_hz: int = 16000, **how: Any) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The samples, and what was warned of."""
    with open_audio(source, AudioFormat("LINEAR16", rate_hz), **how) as audio:
        samples = np.frombuffer(b"".join(audio), "<i2").astype(np.int64)
        return samples, audio.warnings


def refused(source: Any, **how: Any) -> AudioFileError:
    with pytest.raises(AudioFileError) as caught:
        heard(source, name="it", **how)
    return caught.value


def as_heard(samples: Floats, rate_hz: int) -> npt.NDArray[np.int64]:
    """These samples at 16000 Hz, as an independent conversion has them."""
    return np.round(soxr.resample(samples, rate_hz, 16000) * 32768).astype(np.int64)


def likeness(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Their correlation where they overlap best; 1 for the same sound."""
    size = 1 << (max(len(one), len(other)) * 2 - 1).bit_length()
    spectrum = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    norm = np.linalg.norm(one.astype(float)) * np.linalg.norm(other.astype(float))
    return float(np.max(np.fft.irfft(spectrum)) / norm)


def level(samples: npt.NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


# --- the tests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
class TestKinds:
    def test_of_any_the_whole_is_heard(self, name: str) -> None:
        content, rate_hz = KINDS[name]()
        samples, warnings = heard(content)
        assert warnings == []
        assert abs(len(samples) - 48000) < 3000, "encoders in blocks pad their ends"
        assert likeness(samples, as_heard(sweep(rate_hz), rate_hz)) > 0.95

    @pytest.mark.parametrize("at_once", [331, 5000])
    def test_a_pipe_gives_what_the_file_gives(self, tmp_path: Path, name: str, at_once: int) -> None:
        content, _ = KINDS[name]()
        (tmp_path / "recording").write_bytes(content)
        file, _ = heard(tmp_path / "recording")
        pipe, warnings = heard(Pipe(content, at_once))
        assert warnings == []
        assert len(pipe) == len(file)
        # Opus and GSM remember without end, ever more faintly.
        assert np.max(np.abs(pipe - file)) <= (300 if name in ("ogg opus", "wav of GSM") else 0)


NEED_ALL = ("caf of ALAC", "voc", "nist sphere", "8svx", "aiff-c of IMA ADPCM", "au of G.721")
"""Decoded by libsndfile, which looks at their lengths, and at nothing behind them."""


@pytest.mark.parametrize("name", [name for name in KINDS if name not in NEED_ALL])
class TestMostKinds:
    def test_cut_off_it_gives_what_is_there(self, name: str) -> None:
        content, rate_hz = KINDS[name]()
        samples, warnings = heard(content[: len(content) * 6 // 10 + 7], name="it")
        expected = as_heard(sweep(rate_hz), rate_hz)[: len(samples)]
        assert 16000 < len(samples) < 32000
        assert likeness(samples, expected) > 0.9
        assert "cut off" in warnings[0]

    @pytest.mark.parametrize("make", [bytes, Pipe], ids=["file", "pipe"])
    def test_two_that_follow_each_other_are_heard(self, name: str, make: Callable[[bytes], Any]) -> None:
        content, _ = KINDS[name]()
        once, _ = heard(content)
        twice, warnings = heard(make(content * 2))
        assert warnings == []
        assert abs(len(twice) - 2 * len(once)) <= 2
        assert likeness(twice[-len(once) :], once) > 0.98


class TestWhatIsClaimed:
    @pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
    @pytest.mark.parametrize("make", [bytes, Pipe], ids=["file", "pipe"])
    def test_a_wav_that_does_not_know_its_length_goes_on_to_its_end(
        self, claimed: int, make: Callable[[bytes], Any]
    ) -> None:
        content = written(sweep(16000), 16000, "WAV", "PCM_16")
        at = content.index(b"data") + 4
        samples, warnings = heard(make(content[:at] + struct.pack("<I", claimed) + content[at + 4 :]))
        assert (len(samples), warnings) == (48000, [])

    @pytest.mark.parametrize(
        ("container", "mark", "skip", "length"),
        [
            ("AIFF", b"SSND", 4, b"\0\0\0\0"),
            ("AIFF", b"SSND", 4, b"\xff\xff\xff\xff"),
            ("AU", b".snd", 8, b"\0\0\0\0"),
            ("AU", b".snd", 8, b"\xff\xff\xff\xff"),
            ("CAF", b"data", 4, b"\xff" * 8),
            ("CAF", b"data", 4, b"\0" * 8),
            ("RF64", b"ds64", 16, b"\0" * 8),
            ("RF64", b"ds64", 16, b"\xff" * 8),
            ("W64", b"data", 16, b"\0" * 8),
        ],
    )
    def test_nor_does_any_other(self, container: str, mark: bytes, skip: int, length: bytes) -> None:
        content = written(sweep(16000), 16000, container, "PCM_16")
        at = content.index(mark) + skip
        samples, warnings = heard(content[:at] + length + content[at + len(length) :])
        assert (len(samples), warnings) == (48000, [])

    def test_a_flac_stream_without_a_total(self) -> None:
        content = bytearray(written(sweep(16000), 16000, "FLAC", "PCM_16"))
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        samples, warnings = heard(bytes(content))
        assert (len(samples), warnings) == (48000, [])

    def test_less_than_claimed_is_told(self) -> None:
        content = written(sweep(16000), 16000, "WAV", "PCM_16")
        _, warnings = heard(content[: 44 + 32000], name="call.wav")
        assert warnings == ["call.wav is cut off: its header tells of 3.00 s of audio, 1.00 s are there"]

    def test_a_header_and_nothing_behind_it(self) -> None:
        for length in (0, 0xFFFFFFFF):
            content = wav_header(AudioFormat("LINEAR16", 16000))[:-4] + struct.pack("<I", length)
            assert str(refused(content)) == "it holds no audio"
        empty = content[:-4] + bytes(4) + b"LIST\x04\0\0\0INFO"
        assert str(refused(empty)) == "it holds no audio"

    def test_what_follows_the_samples_is_not_heard(self) -> None:
        audio = encode(sweep(16000, 0.5).astype(np.float32), "LINEAR16")
        content = wav_header(AudioFormat("LINEAR16", 16000), len(audio)) + audio + b"LIST\x04\0\0\0INFO"
        samples, warnings = heard(content)
        assert (len(samples), warnings) == (8000, [])

    @pytest.mark.parametrize("pad", [b"\0", b""], ids=["padded", "not padded"])
    def test_chunks_before_the_samples_may_be_odd(self, pad: bytes) -> None:
        content = written(sweep(16000), 16000, "WAV", "PCM_16")
        odd = b"LIST\x05\0\0\0INFOx" + pad + b"JUNK\x03\0\0\0abc" + pad
        assert len(heard(content[:12] + odd + content[12:])[0]) == 48000

    def test_half_a_frame_at_the_end_is_left_out(self) -> None:
        samples, _ = heard(wav_header(HEARD) + b"\1\0\2\0\3")
        assert samples.tolist() == [1, 2]

    def test_one_sample(self) -> None:
        assert heard(wav_header(HEARD, 2) + b"\1\0")[0].tolist() == [1]
        assert len(heard(wav_header(AudioFormat("LINEAR16", 44100), 2) + b"\1\0")[0]) <= 1

    def test_twenty_bits_in_three_bytes_and_in_four(self) -> None:
        for width in (3, 4):
            form = struct.pack("<HHIIHH", 1, 1, 16000, 16000 * width, width, 20)
            value = (1 << 22).to_bytes(3, "little").rjust(width, b"\0")
            body = (
                b"WAVEfmt "
                + struct.pack("<I", 16)
                + form
                + b"data"
                + struct.pack("<I", 10 * width)
                + value * 10
            )
            content = b"RIFF" + struct.pack("<I", len(body)) + body
            assert heard(content)[0].tolist() == [16384] * 10

    def test_floats_that_are_no_numbers_do_no_harm(self) -> None:
        samples = sweep(24000)
        samples[100] = np.nan
        found, _ = heard(written(samples, 24000, "WAV", "FLOAT"))
        assert likeness(found, as_heard(sweep(24000), 24000)) > 0.99


class TestSeveral:
    """Recordings that follow each other in one stream: all of them are heard."""

    def test_of_different_rates_channels_and_kinds(self) -> None:
        parts = [
            written(sweep(44100), 44100, "OGG", "VORBIS"),
            written(np.column_stack([sweep(48000)] * 2), 48000, "OGG", "VORBIS"),
            written(sweep(24000), 24000, "WAV", "PCM_16"),
            mp3(sweep(8000), 8000),
            mp3(sweep(44100), 44100, 64),
            written(sweep(96000), 96000, "FLAC", "PCM_24"),
        ]
        samples, warnings = heard(b"".join(parts))
        assert warnings == []
        assert len(samples) == pytest.approx(6 * 48000, abs=5000)
        assert likeness(samples[-48000:], as_heard(sweep(96000), 96000)) > 0.99

    @pytest.mark.parametrize("first", ["wav of 16 bits", "wav, big-endian", "aiff", "caf", "w64"])
    def test_whatever_follows_chunks_is_none_of_them(self, first: str) -> None:
        """How a recording begins could be taken for a chunk's name."""
        after = (
            "wav of 16 bits", "wav, big-endian", "rf64", "aiff", "au", "au, little-endian", "caf", "w64", "flac",
            "ogg vorbis",
        )  # fmt: skip
        before, _ = KINDS[first]()
        for second in after:
            samples, warnings = heard(before + KINDS[second]()[0])
            assert (len(samples), warnings) == (96000, []), second
        samples, warnings = heard(before + b"BW64" + KINDS["rf64"]()[0][4:])
        assert (len(samples), warnings) == (96000, [])

    def test_what_is_no_recording_is_told(self) -> None:
        for content in (
            written(sweep(16000), 16000, "WAV", "PCM_16"),
            written(sweep(16000), 16000, "OGG", "VORBIS"),
        ):
            samples, warnings = heard(content + b"?" * 20000, name="it")
            assert len(samples) == 48000
            assert warnings == [
                "it holds 20 kB behind its audio that are no recording of a known kind and were left out"
            ]

    @pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(5000), b"APETAGEX" + bytes(200)])
    def test_tags_and_padding_are_not(self, tail: bytes) -> None:
        for name in ("wav of 16 bits", "flac", "ogg vorbis", "mp3 at 16000 Hz"):
            content, _ = KINDS[name]()
            samples, warnings = heard(content + tail)
            assert (abs(len(samples) - 48000) < 3000, warnings) == (True, []), name

    def test_other_streams_of_an_ogg_file_are_passed_over(self) -> None:
        content, _ = KINDS["ogg vorbis"]()
        skeleton = ogg_page(b"fishead\0" + bytes(56), number=0, granule=0, flags=2, serial=9)
        more = ogg_page(b"fisbone\0" + bytes(44), number=1, granule=0, flags=0, serial=9)
        first_page = content.index(b"OggS", 4)
        mixed = skeleton + content[:first_page] + more + content[first_page:]
        assert len(heard(mixed)[0]) == 48000


class TestDamaged:
    @pytest.mark.parametrize(
        ("missing_bytes", "sentence"),
        [
            (1, "the last sample that its header tells of is not there"),
            (2, "the last sample that its header tells of is not there"),
            (13, "the last 7 samples that its header tells of are not there"),
            (16000, "its header tells of 3.00 s of audio, 2.50 s are there"),
        ],
    )
    def test_what_is_cut_off_is_told_in_figures_that_differ(self, missing_bytes: int, sentence: str) -> None:
        content = wav_header(HEARD, 96000) + b"\1" * (96000 - missing_bytes)
        _, warnings = heard(content, name="it")
        assert warnings == [f"it is cut off: {sentence}"]

    @pytest.mark.parametrize("name", ["flac", "ogg vorbis", "ogg opus", "mp3 at 16000 Hz", "mp3 at 44100 Hz"])
    @pytest.mark.parametrize("hole", [b"", b"\x55" * 3000], ids=["bytes missing", "others in between"])
    def test_what_is_behind_the_damage_is_heard(self, name: str, hole: bytes) -> None:
        content, rate_hz = KINDS[name]()
        middle = len(content) // 2
        samples, warnings = heard(content[:middle] + hole + content[middle + 1000 :], name="it")
        whole = as_heard(sweep(rate_hz), rate_hz)
        assert likeness(samples[:8000], whole[:8000]) > 0.9
        assert likeness(samples[-16000:], whole[-16000:]) > 0.9
        assert warnings, "and it is told"

    def test_a_tag_with_a_picture_before_the_audio(self) -> None:
        size = 3_000_000
        tag = (
            b"ID3\x04\0\0"
            + bytes([size >> 21, size >> 14 & 127, size >> 7 & 127, size & 127])
            + b"\xff\xfb" * (size // 2)
        )
        for name in ("mp3 at 16000 Hz", "flac", "wav of 16 bits"):
            content, _ = KINDS[name]()
            assert np.array_equal(heard(Pipe(tag + content, 9999))[0], heard(content)[0])

    @pytest.mark.parametrize("name", ["mp3 at 8000 Hz", "mp3 at 16000 Hz", "mp3 at 44100 Hz"])
    def test_a_machine_without_miniaudio_hears_mp3_too(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content, _ = KINDS[name]()
        expected, _ = heard(content)
        monkeypatch.setattr(_mpeg, "miniaudio", None)
        for source in (content, Pipe(content)):
            found, warnings = heard(source)
            assert (len(found), warnings) == (len(expected), [])
            assert np.max(np.abs(found - expected)) <= 3

    def test_a_stream_that_was_joined_late(self) -> None:
        content, _ = KINDS["mp3 at 16000 Hz"]()
        samples, _ = heard(content[1234:])
        assert len(samples) > 40000

    def test_the_tag_of_lame_is_obeyed_and_not_heard(self) -> None:
        content, _ = KINDS["mp3 at 44100 Hz"]()
        plain, _ = heard(content)
        # A frame as LAME writes it first: no sound, a count of frames, and a delay of 1105 samples.
        head = bytearray(content[: 144 * 32000 // 44100])
        head[4:] = bytes(len(head) - 4)
        side = 36 if head[3] >> 6 != 3 else 21
        head[side : side + 12] = b"Info\0\0\0\x01" + struct.pack(">I", 1000)
        head[side + 12 : side + 36] = b"LAME3.100" + bytes(12) + bytes([1105 >> 4, (1105 & 15) << 4, 0])
        tagged, warnings = heard(bytes(head) + content, name="it")
        assert len(plain) - len(tagged) == pytest.approx((1105 + 529) * 16000 / 44100, abs=2)
        assert re.fullmatch(
            r"it is cut off: its header tells of 26\.12 s of audio, 3\.\d\d s are there", warnings[0]
        )

    @given(
        st.sampled_from(sorted(STREAMED)),
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
        st.floats(0, 1),
    )
    @settings(max_examples=60, deadline=None)
    def test_nothing_but_a_sentence_comes_of_it(
        self, name: str, changes: list[tuple[float, int]], end: float
    ) -> None:
        content = bytearray(KINDS[name]()[0])
        for at, value in changes:
            content[int(at * at * (len(content) - 1))] = value  # more of them near the beginning
        try:
            heard(bytes(content[: 1 + int(end * len(content))]), name="it")
        except AudioFileError as error:
            sentence = str(error)
        else:
            sentence = "it is heard"
        assert sentence.startswith("it ")


class Endless(io.RawIOBase):
    """A stream without an end that says how much of it was taken."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self.given_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        part = next(self._parts)
        assert len(part) <= size
        self.given_bytes += len(part)
        return part


def in_parts(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


class TestStreams:
    """A stream without an end is heard while it goes on."""

    @pytest.mark.parametrize("name", STREAMED)
    def test_audio_comes_as_soon_as_it_is_there(self, name: str) -> None:
        content, _ = KINDS[name]()
        whole = len(heard(content)[0])
        stream = Pipe(content, 200)
        late_s = []
        done = 0
        with open_audio(stream, HEARD) as source:
            for piece in source:
                done += len(piece) // 2
                late_s.append(stream.given_bytes / len(content) * whole / 16000 - done / 16000)
        # A frame of FLAC lasts 4096 samples here and shows its end by the next one; pages of Ogg are as long as their
        # writer likes: libsndfile makes them of a second.
        limit_s = {
            "wav of 16 bits": 0.2,
            "flac": 0.6,
            "ogg flac": 0.8,
            "ogg vorbis": 2.0,
            "ogg opus": 1.5,
        }.get(name, 0.5)
        assert max(late_s) < limit_s

    @pytest.mark.parametrize(
        "parts",
        [
            lambda: cycle(in_parts(mp3(sweep(16000), 16000), 1000)),
            lambda: (p for c in [KINDS["flac"]()[0]] for p in cycle(in_parts(c, 4000))),
            lambda: (p for c in [KINDS["ogg opus"]()[0]] for p in cycle(in_parts(c, 4000))),
            lambda: iter(lambda: wav_header(HEARD) and bytes(range(256)) * 16, b""),
        ],
        ids=["mp3", "flac", "ogg opus", "raw"],
    )
    def test_and_memory_stays_small(self, parts: Callable[[], Iterator[bytes]]) -> None:
        stream: Any = Endless(parts())
        raw = RawFormat("s16le", 16000)
        with open_audio(stream, HEARD, raw=raw, raw_unless_known=True) as source:
            for _ in islice(source, 500):
                pass
            tracemalloc.start()
            try:
                for _ in islice(source, 2000):
                    pass
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 8_000_000

    @pytest.mark.parametrize("name", ["flac", "ogg vorbis", "mp3 at 16000 Hz"])
    def test_nor_does_memory_grow_with_what_cannot_be_decoded(self, name: str) -> None:
        """Neither behind a recording nor in the place of its second half."""
        content, _ = KINDS[name]()
        noise = np.random.default_rng(7).bytes(30_000_000)
        for part in (content, content[: len(content) // 2]):
            stream = Pipe(part + noise, 65536)
            tracemalloc.start()
            try:
                samples, warnings = heard(stream, name="it")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert len(samples) > 10000
            assert warnings
            assert peak < 12_000_000

    def test_a_wav_stream_is_converted_before_it_ends(self) -> None:
        audio = encode(sweep(16000).astype(np.float32), "LINEAR16")
        stream = Pipe(wav_header(HEARD) + audio)
        with open_audio(stream, HEARD) as source:
            assert next(source) == audio[: 1000 - 44 - (1000 - 44) % 2]
        assert stream.given_bytes == 1000

    def test_a_fifo_is_read_by_its_name(self, tmp_path: Path) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        content = mp3(sweep(16000, 0.5), 16000)
        keeper = os.open(fifo, os.O_RDWR)  # so that neither side waits for the other; a pipe holds 64 KiB
        try:
            os.write(keeper, content)
            source = open_audio(fifo, HEARD)
        finally:
            os.close(keeper)
        with source:
            assert b"".join(source) == encode_as_heard(content)

    def test_a_stream_that_does_not_block_is_waited_for(self) -> None:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        answers = iter([None, wav_header(HEARD), None, b"\1\0", b""])

        class Shy(io.FileIO):
            def read(self, size: int | None = -1) -> Any:
                return next(answers)

        os.write(writing, b"x")  # so that it is ready whenever it is asked for
        with Shy(reading) as stream, open_audio(stream, HEARD) as source:
            assert b"".join(source) == b"\1\0"
        os.close(writing)

    def test_a_stream_that_is_handed_in_stays_open(self) -> None:
        stream = io.BytesIO(wav_header(HEARD, 2) + b"\1\0")
        with open_audio(stream, HEARD) as source:
            assert len(b"".join(source)) == 2
        assert not stream.closed
        with pytest.raises(AudioFileError):
            open_audio(io.BytesIO(b"no"), HEARD)


def encode_as_heard(content: bytes) -> bytes:
    with open_audio(content, HEARD) as source:
        return b"".join(source)


class TestChannels:
    def mixed(self, *channels: Floats) -> npt.NDArray[np.int64]:
        return heard(written(np.column_stack(channels), 16000, "WAV", "FLOAT"))[0]

    def test_opposite_phase_does_not_cancel(self) -> None:
        one = sweep(16000)
        alone = np.round(one * 32768)
        found = self.mixed(one, -one)
        assert level(found) == pytest.approx(level(alone), rel=0.01)
        assert abs(np.corrcoef(found, alone)[0, 1]) > 0.99
        assert level(self.mixed(one, -0.9 * one, one)) > 0.9 * level(alone)

    def test_a_voice_in_one_channel_keeps_its_level(self) -> None:
        one = sweep(16000)
        alone = np.round(one * 32768)
        for channels in ([one, 0 * one], [0 * one, one], [0 * one] * 5 + [one] + [0 * one] * 2):
            assert np.max(np.abs(self.mixed(*channels) - alone)) <= 1

    def test_a_call_with_a_speaker_in_each_channel(self) -> None:
        one, other = sweep(16000), sweep(16000, from_hz=1700, to_hz=3000)
        turns = np.repeat([1.0, 0.0, 1.0], 16000)
        found = self.mixed(one * turns, other * (1 - turns))
        for begin, voice in ((0, one), (16000, other), (32000, one)):
            at = slice(begin + 2000, begin + 16000)  # but for a moment in which the gain slides
            assert level(found[at]) == pytest.approx(level(voice[at] * 32768), rel=0.05)
        both = self.mixed(one, other)
        assert level(both) == pytest.approx(level(one * 32768), rel=0.05)

    def test_channels_that_are_the_same_are_untouched(self) -> None:
        original = np.random.default_rng(7).integers(-32768, 32767, (5000, 1), dtype=np.int16)
        for channels in (2, 4, 8):
            content = written(np.repeat(original, channels, axis=1), 16000, "WAV", "PCM_16")
            assert np.array_equal(heard(content)[0], original[:, 0])

    def test_a_phase_that_turns_in_mid_recording(self) -> None:
        one = sweep(16000)
        turned = one * np.repeat([1.0, -1.0, 1.0], 16000)
        found = self.mixed(one, turned)
        for begin in range(0, 48000, 16000):
            assert level(found[begin + 3200 : begin + 16000]) > 0.95 * level(one * 32768)

    @given(
        st.integers(2, 4),
        st.integers(0, 2**32 - 1),
        st.lists(st.floats(-1, 1), min_size=4, max_size=4),
        st.floats(0, 1),
    )
    @settings(max_examples=60, deadline=None)
    def test_never_much_quieter_nor_louder_than_the_loudest(
        self, count: int, seed: int, gains: list[float], own: float
    ) -> None:
        """Channels that have a sound in common, each with a sign and gain of its own, and noise of their own."""
        if max(abs(gain) for gain in gains[:count]) < 0.01:
            gains[0] = 1.0
        rng = np.random.default_rng(seed)
        common = rng.normal(0, 0.05, 16000)
        channels = [gain * common + own * rng.normal(0, 0.05, 16000) for gain in gains[:count]]
        loudest = max(level(channel[3200:]) for channel in channels) * 32768
        assert 0.8 * loudest < level(self.mixed(*channels)[3200:]) < 1.1 * loudest

    def test_one_alone(self) -> None:
        one, other = sweep(16000), sweep(16000, from_hz=1700, to_hz=3000)
        content = written(np.column_stack([one, other]), 16000, "WAV", "FLOAT")
        assert np.max(np.abs(heard(content, channel=2)[0] - np.round(other * 32768))) <= 1
        assert str(refused(content, channel=3)) == "it has 2 channels: there is no channel 3"
        assert str(refused(KINDS["flac"]()[0], channel=2)) == "it has one channel: there is no channel 2"

    def test_eight_channels_keep_their_order(self) -> None:
        tones = [sweep(48000, from_hz=300 * n, to_hz=300 * n) for n in range(1, 9)]
        for container, subtype in (("FLAC", "PCM_16"), ("WAVEX", "PCM_24"), ("CAF", "PCM_16")):
            content = written(np.column_stack(tones), 48000, container, subtype)
            for number in (1, 4, 8):
                found, _ = heard(content, channel=number)
                assert pitch_hz(found, 16000) == pytest.approx(300 * number, abs=3)


def pitch_hz(samples: npt.NDArray[Any], rate_hz: int) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


class TestRaw:
    ENCODINGS: ClassVar = {
        "u8": ("PCM_U8", "LITTLE"), "s8": ("PCM_S8", "LITTLE"),
        "s16le": ("PCM_16", "LITTLE"), "s16be": ("PCM_16", "BIG"),
        "s24le": ("PCM_24", "LITTLE"), "s24be": ("PCM_24", "BIG"),
        "s32le": ("PCM_32", "LITTLE"), "s32be": ("PCM_32", "BIG"),
        "f32le": ("FLOAT", "LITTLE"), "f32be": ("FLOAT", "BIG"),
        "f64le": ("DOUBLE", "LITTLE"), "f64be": ("DOUBLE", "BIG"),
        "mulaw": ("ULAW", "LITTLE"), "alaw": ("ALAW", "LITTLE"),
    }  # fmt: skip

    @pytest.mark.parametrize("encoding", ENCODINGS)
    @pytest.mark.parametrize("channels", [1, 2])
    def test_samples_of_any_kind(self, encoding: Any, channels: int) -> None:
        subtype, endian = self.ENCODINGS[encoding]
        content = written(np.column_stack([sweep(24000)] * channels), 24000, "RAW", subtype, endian=endian)
        expected = as_heard(sweep(24000), 24000)
        for source in (content, Pipe(content, 997)):
            found, _ = heard(source, raw=RawFormat(encoding, 24000, channels))
            assert likeness(found, expected) > 0.999
            assert level(found) == pytest.approx(level(expected), rel=0.02)

    def test_a_raw_format_says_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="'s12' is no encoding of raw samples; there are u8, s8, s16le"):
            RawFormat("s12", 8000)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a rate of 0 Hz cannot be"):
            RawFormat("s16le", 0)
        with pytest.raises(ValueError, match="0 channels cannot be"):
            RawFormat("s16le", 8000, 0)
        assert (
            str(refused(bytes(100), raw=RawFormat("s16le", 5)))
            == "it is damaged: 1 channel at 5 Hz cannot be speech"
        )

    def test_unless_known_a_recording_is_one(self) -> None:
        raw = RawFormat.of(AudioFormat("MULAW", 8000))
        content, _ = KINDS["mp3 at 16000 Hz"]()
        assert np.array_equal(heard(content, raw=raw, raw_unless_known=True)[0], heard(content)[0])
        error = refused(b"<!DOCTYPE html><html>", raw=raw, raw_unless_known=True)
        assert "is an HTML page" in str(error)

    @pytest.mark.parametrize("encoding", RAW_ENCODINGS)
    def test_what_needs_no_conversion_is_not_touched(self, encoding: AudioEncoding) -> None:
        audio_format = AudioFormat(encoding, 8000)
        samples = encode(sweep(8000).astype(np.float32), encoding)
        for content in (samples, b"\xff\xfb" + samples[2:]):
            with open_audio(
                Pipe(content, 996), audio_format, raw=RawFormat.of(audio_format), raw_unless_known=True
            ) as source:
                assert b"".join(source) == content

    def test_what_looks_like_another_kind_is_told(self) -> None:
        one, other = sweep(24000), sweep(24000, from_hz=1700, to_hz=3000)
        stereo = "looks like s16le,24000,2: describe it so (--raw) if the words make no sense"
        for content, warning in [
            (
                written(one, 24000, "RAW", "FLOAT"),
                "looks like f32le,24000: describe it so (--raw) if the words make no sense",
            ),
            (written(np.column_stack([one, one]), 24000, "RAW", "PCM_16"), stereo),
            (written(np.column_stack([one, 0 * one]), 24000, "RAW", "PCM_16"), stereo),
            (written(np.column_stack([one, -other]), 24000, "RAW", "PCM_16"), stereo),
        ]:
            for rate_hz in (16000, 24000):
                _, warnings = heard(content, rate_hz, name="it", raw=RawFormat("s16le", 24000))
                assert warnings == [f"it {warning}"]
            with open_audio(
                content,
                AudioFormat("LINEAR16", 24000),
                name="it",
                raw=RawFormat("s16le", 24000),
                raw_unless_known=True,
            ) as source:
                assert b"".join(source) == content
                assert source.warnings == [f"it {warning}"]
        noise = np.random.default_rng(7).normal(0, 0.1, 48000)
        for samples in (one, other, noise, np.zeros(48000), np.cumsum(noise) / 100):
            assert heard(written(samples, 24000, "RAW", "PCM_16"), raw=RawFormat("s16le", 24000))[1] == []


class TestSentences:
    @pytest.mark.parametrize(
        ("content", "sentence", "cure"),
        [
            (b"", "it is empty", None),
            (b"Dear Sir or Madam", "it is text, no recording", None),
            (
                b"\xef\xbb\xbf <!DOCTYPE HTML><html>",
                "it is an HTML page, no recording: perhaps an error",
                None,
            ),
            (b'{"error": "no such file"}', "it is text, no recording: perhaps an error", None),
            (
                b"\0\0\0\x20ftypM4A " + bytes(99),
                "it is an MP4 file (M4A, AAC), which is not decoded here",
                "convert",
            ),
            (b"\x1a\x45\xdf\xa3" + bytes(99), "it is a WebM or Matroska file, which is not", "convert"),
            (b"#!AMR\n" + bytes(99), "it is an AMR file", "convert"),
            (b"\xff\xf1\x50\x80\x01\x7f\xfc" + bytes(4) + b"\xff\xf1", "it is an AAC stream", "convert"),
            (
                b"RIFF\x10\0\0\0AVI LIST" + bytes(50),
                "it is an AVI video, which is not decoded here",
                "convert",
            ),
            (
                b"RIFF\x10\0\0\0WAVEfmt \2\0\0\0\1\0",
                "it is a damaged WAV file: its header is too short",
                None,
            ),
            (b"RIFF\x04\0\0\0WAVE", "it is a WAV file that holds no audio", None),
            (b"PK\x03\x04" + bytes(99), "it is a ZIP archive: unpack it first", None),
            (bytes(range(256)), "it is no recording of a known kind", "raw"),
            (bytes(5000), "it holds nothing but zeros", "raw"),
            (bytes(5000) + b"\1", "it is no recording of a known kind", "raw"),
            (bytes(100_000) + b"\1", "it begins with 66 kB of nothing but zeros", "raw"),
            (b"\xff\xfb\x90\x44" + bytes(range(256)), "it is no recording of a known kind", "raw"),
            (b"OggS" + bytes(99), "it is an Ogg file that has lost its beginning", None),
            (
                ogg_page(b"Speex   1.2", number=0, granule=0, flags=2),
                "it is an Ogg file with Speex in it, which is not decoded here",
                "convert",
            ),
            (
                b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0"
                + struct.pack("<HHIIHH", 0x161, 1, 16000, 2000, 1, 16)
                + b"data\x04\0\0\0",
                "it is a WAV file with WMA in it, which is not decoded here",
                "convert",
            ),
            (
                b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0"
                + struct.pack("<HHIIHH", 1, 0, 0, 0, 0, 16)
                + b"data\x04\0\0\0",
                "it is damaged: 0 channels at 0 Hz cannot be speech",
                None,
            ),
        ],
    )
    def test_what_cannot_be_heard_says_what_it_is(
        self, content: bytes, sentence: str, cure: str | None
    ) -> None:
        for source in (content, Pipe(content)):
            error = refused(source)
            assert str(error).startswith(sentence)
            assert error.cure == cure

    def test_its_name_does_not_matter(self, tmp_path: Path) -> None:
        content, _ = KINDS["flac"]()
        for name in ("a.raw", "a.mp3", "a.wav", "a", "a.ulaw"):
            (tmp_path / name).write_bytes(content)
            assert len(heard(tmp_path / name)[0]) == 48000

    def test_files_that_cannot_be_opened(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            open_audio(tmp_path / "missing.wav", HEARD)
        with pytest.raises(IsADirectoryError):
            open_audio(tmp_path, HEARD)
        with pytest.raises(ValueError, match="no file can be converted to OPUS here"):
            open_audio(b"x", AudioFormat("OPUS", 48000))


class TestConversion:
    @pytest.mark.parametrize("container", ["WAV", "AIFF", "FLAC", "CAF", "W64", "AU"])
    def test_lossless_audio_at_its_own_rate_is_untouched(self, container: str) -> None:
        original = np.random.default_rng(7).integers(-32768, 32767, 5000, dtype=np.int16)
        assert np.array_equal(decode(written(original, 16000, container, "PCM_16"), 16000), original)

    @pytest.mark.parametrize("name", ["mp3 at 16000 Hz", "ogg vorbis", "flac"])
    def test_decoding_in_runs_is_decoding_the_whole(self, name: str) -> None:
        content, rate_hz = KINDS[name]()
        whole, _ = soundfile.read(io.BytesIO(content), dtype="float32")
        expected = np.frombuffer(encode(whole, "LINEAR16"), "<i2").astype(int)
        found, _ = heard(content, rate_hz)
        assert len(found) == len(expected)
        assert np.max(np.abs(found - expected)) <= 2, "but for rounding"

    @pytest.mark.parametrize("encoding", RAW_ENCODINGS)
    def test_goes_into_every_raw_encoding(self, encoding: AudioEncoding) -> None:
        audio_format = AudioFormat(encoding, 8000)
        with open_audio(written(sweep(24000), 24000, "WAV", "PCM_16"), audio_format) as source:
            audio = b"".join(source)
        assert len(audio) == 3 * bytes_per_second(audio_format)
        found, _ = heard(audio, raw=RawFormat.of(audio_format))
        assert likeness(found, as_heard(sweep(24000), 24000)) > 0.99

    def test_what_is_too_loud_is_clipped_not_wrapped(self) -> None:
        loud = np.array([2.0, -2.0, 1.0], np.float32)
        assert np.frombuffer(encode(loud, "LINEAR16"), "<i2").tolist() == [32767, -32768, 32767]

    def test_pieces_are_short(self) -> None:
        with open_audio(KINDS["mp3 at 44100 Hz"]()[0], HEARD) as source:
            assert max(map(len, source)) <= 3200

    def test_ogg_opus_goes_out_as_it_is(self) -> None:
        content, _ = KINDS["ogg opus"]()
        for stream in (content, Pipe(content)):
            with open_audio(stream, AudioFormat("OGG_OPUS", 48000)) as source:
                assert b"".join(source) == content
        with pytest.raises(AudioFileError, match="is no Ogg Opus file"):
            open_audio(KINDS["flac"]()[0], AudioFormat("OGG_OPUS", 48000))

    @pytest.mark.parametrize("encoding", RAW_ENCODINGS)
    @pytest.mark.parametrize("closed", [True, False])
    def test_what_is_written_is_read(self, encoding: AudioEncoding, closed: bool) -> None:
        """A WAV file that is complete, and one whose writer was killed."""
        audio_format = AudioFormat(encoding, 24000)
        out = io.BytesIO()
        writer = WavWriter(out, audio_format)
        writer.write(encode(sweep(24000).astype(np.float32), encoding))
        if closed:
            writer.close()
        found, warnings = heard(out.getvalue())
        assert (len(found), warnings) == (48000, [])
        assert likeness(found, as_heard(sweep(24000), 24000)) > 0.99

    def test_a_source_is_an_iterator(self) -> None:
        source = open_audio(KINDS["flac"]()[0], HEARD)
        assert isinstance(source, AudioSource)
        assert iter(source) is source
