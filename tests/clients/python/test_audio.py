"""Audio as bytes, as time, as files."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from wavegate.audio import Pacer, WavWriter, bytes_per_second, opus_duration_s, pieces, wav_header
from wavegate.errors import AudioFileError
from wavegate.recordings import decode, encode, open_audio, open_stream
from wavegate.settings import AudioEncoding, AudioFormat


def tone(rate_hz: int, duration_s: float = 1.0, frequency_hz: float = 440.0) -> Any:
    """A sine at half scale."""
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(int(rate_hz * duration_s)) / rate_hz)


def pitch_hz(samples: Any, rate_hz: int) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)


def as_floats(audio: bytes) -> Any:
    return np.frombuffer(audio, "<i2") / 32768.0


@pytest.mark.parametrize(
    ("packet", "duration_ms"),
    [
        (b"", 0),
        (b"\x08", 20),  # SILK narrowband, one frame
        (b"\x18", 60),
        (b"\x61", 20),  # hybrid, two of 10 ms
        (b"\xf8\xff\xfe", 20),  # CELT fullband
        (b"\xe2", 5),  # two of 2.5 ms
        (b"\xfb\x83", 60),  # three of 20 ms, as the second byte counts
        (b"\xfb", 0),
    ],
)
def test_opus_packets_tell_how_long_they_are(packet: bytes, duration_ms: int) -> None:
    assert opus_duration_s(packet) == duration_ms / 1000


class TestPieces:
    @given(st.binary(max_size=500), st.integers(1, 50), st.sampled_from(["LINEAR16", "LINEAR32", "MULAW"]))
    def test_lose_nothing_and_cut_between_samples(
        self, content: bytes, limit_bytes: int, encoding: AudioEncoding
    ) -> None:
        cut = list(pieces(content, AudioFormat(encoding, 8000), limit_bytes))
        width = {"LINEAR16": 2, "LINEAR32": 4, "MULAW": 1}[encoding]
        assert b"".join(piece for _, piece in cut) == content
        assert all(offset % width == 0 for offset, _ in cut)
        assert all(0 < len(piece) <= max(limit_bytes, width) for _, piece in cut)

    def test_packets_stay_whole(self) -> None:
        assert list(pieces(bytes(900), AudioFormat("OPUS", 48000), 100)) == [(0, bytes(900))]


class TestPacer:
    def test_a_piece_is_due_when_its_last_sample_would_have_been_recorded(self) -> None:
        pacer = Pacer(AudioFormat("LINEAR16", 16000))
        assert pacer.bytes_in(0.1) == 3200
        assert pacer.delay_s(3200, now_s=10.0) == pytest.approx(0.1)
        assert pacer.delay_s(3200, now_s=10.1) == pytest.approx(0.1)
        assert pacer.delay_s(3200, now_s=10.25) == pytest.approx(0.05)

    def test_a_late_timer_is_made_up_for_but_not_a_pause(self) -> None:
        pacer = Pacer(AudioFormat("MULAW", 8000))
        pacer.delay_s(800, now_s=0.0)
        assert pacer.delay_s(800, now_s=0.15) == pytest.approx(0.05)
        assert pacer.delay_s(800, now_s=60.0) == 0.0
        assert pacer.delay_s(800, now_s=60.0) == pytest.approx(0.1)

    def test_compressed_audio_has_no_pace(self) -> None:
        with pytest.raises(ValueError, match="MP3 has no fixed rate"):
            Pacer(AudioFormat("MP3", 24000))
        assert bytes_per_second(AudioFormat("LINEAR32", 16000)) == 64000


class TestWav:
    @pytest.mark.parametrize(
        ("encoding", "subtype"),
        [("LINEAR16", "PCM_16"), ("LINEAR32", "PCM_32"), ("MULAW", "ULAW"), ("ALAW", "ALAW")],
    )
    def test_is_read_by_another_library(self, tmp_path: Path, encoding: AudioEncoding, subtype: str) -> None:
        samples = tone(8000).astype(np.float32)
        with (tmp_path / "a.wav").open("wb") as file:
            writer = WavWriter(file, AudioFormat(encoding, 8000))
            audio = encode(samples, encoding)
            for at in range(0, len(audio), 999):
                writer.write(audio[at : at + 999])
            writer.close()
        info = soundfile.info(tmp_path / "a.wav")
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (8000, 1, subtype, 8000)
        read, _ = soundfile.read(tmp_path / "a.wav")
        assert np.max(np.abs(read - samples)) < 0.02

    def test_is_playable_before_it_is_complete(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.write_bytes(wav_header(AudioFormat("LINEAR16", 24000)) + encode(tone(24000), "LINEAR16"))
        assert len(decode(path, 24000)) == 24000

    def test_an_odd_number_of_bytes_is_padded(self, tmp_path: Path) -> None:
        file = io.BytesIO()
        writer = WavWriter(file, AudioFormat("MULAW", 8000))
        writer.write(b"\xff" * 3)
        writer.close()
        content = file.getvalue()
        assert len(content) % 2 == 0
        assert struct.unpack("<I", content[4:8])[0] == len(content) - 8

    def test_a_pipe_keeps_the_header_of_unknown_length(self) -> None:
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb") as pipe:
            writer = WavWriter(pipe, AudioFormat("LINEAR16", 24000))
            writer.write(b"\0\0")
            writer.close()
            pipe.close()
            assert reader.read() == wav_header(AudioFormat("LINEAR16", 24000)) + b"\0\0"


CONTAINERS = [
    ("a.wav", {"subtype": "PCM_16"}),
    ("a.wav", {"subtype": "PCM_24"}),
    ("a.wav", {"subtype": "FLOAT"}),
    ("a.wav", {"subtype": "ULAW"}),
    ("a.wav", {"subtype": "PCM_16", "format": "WAVEX"}),
    ("a.flac", {}),
    ("a.ogg", {}),
    ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
    ("a.mp3", {}),
    ("a.aiff", {}),
]
IDS = ["-".join([name, *options.values()]) for name, options in CONTAINERS]


class TestFiles:
    @pytest.mark.parametrize(("name", "options"), CONTAINERS, ids=IDS)
    @pytest.mark.parametrize("channels", [1, 2])
    @pytest.mark.parametrize("rate_hz", [8000, 48000])
    def test_any_container_rate_and_channels(
        self, tmp_path: Path, name: str, options: dict[str, str], channels: int, rate_hz: int
    ) -> None:
        path = tmp_path / name
        soundfile.write(path, np.column_stack([tone(rate_hz)] * channels), rate_hz, **options)
        samples = decode(path, 16000)
        assert abs(len(samples) - 16000) < 16000 * 0.15, "MP3 and Vorbis pad their ends"
        assert pitch_hz(samples, 16000) == pytest.approx(440, abs=3)
        assert 0.4 < np.max(np.abs(samples[4000:12000])) / 32768 < 0.6

    def test_lossless_audio_at_its_own_rate_is_untouched(self, tmp_path: Path) -> None:
        original = np.random.default_rng(7).integers(-32768, 32767, 5000, dtype=np.int16)
        soundfile.write(tmp_path / "a.wav", original, 16000)
        assert np.array_equal(decode(tmp_path / "a.wav", 16000), original)

    @pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac"])
    def test_reading_in_blocks_is_reading_the_whole(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        noise = np.random.default_rng(7).normal(0, 0.1, 48000)
        soundfile.write(path, noise, 24000)
        whole, _ = soundfile.read(path, dtype="float32")
        expected = np.frombuffer(encode(whole, "LINEAR16"), "<i2").astype(int)
        assert np.max(np.abs(decode(path, 24000) - expected)) <= 1, "but for rounding"

    @pytest.mark.parametrize("encoding", ["LINEAR16", "LINEAR32", "MULAW", "ALAW"])
    def test_goes_into_every_raw_encoding(self, tmp_path: Path, encoding: AudioEncoding) -> None:
        soundfile.write(tmp_path / "a.wav", tone(24000), 24000)
        audio_format = AudioFormat(encoding, 8000)
        with open_audio(tmp_path / "a.wav", audio_format) as source:
            audio = b"".join(source)
        assert len(audio) == bytes_per_second(audio_format)
        subtype = {"LINEAR16": "PCM_16", "LINEAR32": "PCM_32", "MULAW": "ULAW", "ALAW": "ALAW"}[encoding]
        samples, _ = soundfile.read(
            io.BytesIO(audio), format="RAW", subtype=subtype, samplerate=8000, channels=1, endian="LITTLE"
        )
        assert pitch_hz(samples, 8000) == pytest.approx(440, abs=3)

    def test_what_is_too_loud_is_clipped_not_wrapped(self) -> None:
        loud = np.array([2.0, -2.0, 1.0], np.float32)
        assert np.frombuffer(encode(loud, "LINEAR16"), "<i2").tolist() == [32767, -32768, 32767]

    def test_ogg_opus_goes_out_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "a.opus"
        soundfile.write(path, tone(48000), 48000, format="OGG", subtype="OPUS")
        with open_audio(path, AudioFormat("OGG_OPUS", 48000)) as source:
            assert b"".join(source) == path.read_bytes()
        soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
        with pytest.raises(AudioFileError, match="is no Ogg Opus file"):
            open_audio(tmp_path / "a.wav", AudioFormat("OGG_OPUS", 48000))

    def test_bad_files_are_a_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "empty.wav").touch()
        (tmp_path / "letter.wav").write_text("Dear Sir or Madam")
        soundfile.write(tmp_path / "silent.wav", np.zeros(0), 8000)
        for name, sentence in [
            ("empty.wav", "empty.wav is empty"),
            ("letter.wav", "letter.wav is no audio file that can be read"),
            ("silent.wav", "silent.wav holds no audio"),
        ]:
            with pytest.raises(AudioFileError, match=sentence):
                open_audio(tmp_path / name, AudioFormat())
        with pytest.raises(FileNotFoundError):
            open_audio(tmp_path / "missing.wav", AudioFormat())
        with pytest.raises(IsADirectoryError):
            open_audio(tmp_path, AudioFormat())
        with pytest.raises(ValueError, match="no file can be converted to OPUS here"):
            open_audio(tmp_path / "letter.wav", AudioFormat("OPUS", 48000))

    def test_a_truncated_file_gives_what_it_has(self, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "a.wav", tone(16000), 16000)
        whole = (tmp_path / "a.wav").read_bytes()
        assert len(decode(whole[: len(whole) // 2], 16000)) == pytest.approx(8000, abs=30)


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives little at a time."""

    def __init__(self, content: bytes, at_once: int) -> None:
        self._content = io.BytesIO(content)
        self._at_once = at_once

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._content.read() if size < 0 else self._content.read(min(size, self._at_once))

    def read1(self, size: int) -> bytes:
        return self.read(size)


def through_pipe(content: bytes, *, raw: bool = False, at_once: int = 1000, rate_hz: int = 16000) -> bytes:
    stream: Any = Pipe(content, at_once)
    return b"".join(open_stream(stream, "standard input", AudioFormat("LINEAR16", rate_hz), raw=raw))


class TestPipes:
    @pytest.mark.parametrize(("name", "options"), CONTAINERS, ids=IDS)
    @pytest.mark.parametrize("at_once", [331, 5000])
    def test_any_container_comes_through(
        self, tmp_path: Path, name: str, options: dict[str, str], at_once: int
    ) -> None:
        soundfile.write(tmp_path / name, np.column_stack([tone(48000)] * 2), 48000, **options)
        samples = as_floats(through_pipe((tmp_path / name).read_bytes(), at_once=at_once))
        assert abs(len(samples) - 16000) < 16000 * 0.15
        assert pitch_hz(samples, 16000) == pytest.approx(440, abs=3)

    def test_a_wav_stream_is_converted_before_it_ends(self) -> None:
        header = wav_header(AudioFormat("LINEAR16", 16000))
        audio = encode(tone(16000), "LINEAR16")
        stream: Any = Pipe(header + audio, 1000)
        source = open_stream(stream, "standard input", AudioFormat("LINEAR16", 16000), raw=False)
        assert next(source) == audio[:1000]
        assert stream._content.tell() == len(header) + 1000

    def test_what_follows_the_samples_is_not_heard(self) -> None:
        audio = encode(tone(16000), "LINEAR16")
        content = wav_header(AudioFormat("LINEAR16", 16000), len(audio)) + audio + b"LIST\x04\0\0\0INFO"
        assert through_pipe(content, at_once=999) == audio

    @pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
    def test_a_stream_claims_any_length(self, claimed: int) -> None:
        audio = encode(tone(16000), "LINEAR16")
        header = wav_header(AudioFormat("LINEAR16", 16000))[:-4] + struct.pack("<I", claimed)
        assert through_pipe(header + audio) == audio

    def test_raw_samples_go_through_untouched_where_they_are_expected(self) -> None:
        samples = bytes(range(256)) * 20
        assert through_pipe(samples, raw=True) == samples
        assert through_pipe(b"\xff\xfb" + samples, raw=True) == b"\xff\xfb" + samples

    def test_and_are_refused_where_they_are_not(self) -> None:
        with pytest.raises(AudioFileError, match="for raw samples say their rate and encoding"):
            through_pipe(bytes(range(256)))
        with pytest.raises(AudioFileError, match="standard input is empty"):
            through_pipe(b"")

    def test_other_riff_files_are_a_sentence(self) -> None:
        with pytest.raises(AudioFileError, match="standard input is no audio file that can be read"):
            through_pipe(b"RIFF\x10\0\0\0AVI LIST" + bytes(50))
        with pytest.raises(AudioFileError, match="standard input is no audio file that can be read"):
            through_pipe(b"RIFF")

    def test_half_a_frame_at_the_end_is_left_out(self) -> None:
        content = wav_header(AudioFormat("LINEAR16", 16000)) + b"\1\0\2\0\3"
        assert through_pipe(content) == b"\1\0\2\0"
