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
from wavegate.recordings import decode, encode
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
