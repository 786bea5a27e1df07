"""Recordings: the request, the body, the answer."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import parse_qsl

import lameenc
import numpy as np
import pytest
import soundfile
from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.waves import prerecorded
from wavegate_server.waves.prerecorded import Answer
from wavegate_server.waves.settings import TRANSCRIPTION, Keyword
from wavegate_server.waves.stt import HeardSentence, HeardWord

ALWAYS = {"model": "pulse", "language": "en", "word_timestamps": "false"}
TONE = (np.sin(np.arange(8000) / 3) * 8000).astype("<i2")

ROWS: list[tuple[str, Any, dict[str, str]]] = [
    ("model", "pulse-pro", {"model": "pulse-pro"}),
    ("language_code", "pl", {"language": "pl"}),
    ("interim_results", False, {}),
    ("word_timings", True, {"word_timestamps": "true"}),
    ("sentence_timings", True, {"word_timestamps": "true"}),
    ("diarization", True, {"diarize": "true"}),
    ("voice_activity_events", True, {}),
    ("end_of_utterance_timeout", 0.75, {}),
    ("auto_finalize_on_words", False, {}),
    ("max_words", 12, {}),
    ("formatting", False, {"format": "false"}),
    ("punctuation", False, {"punctuate": "false"}),
    ("capitalization", True, {"capitalize": "true"}),
    ("inverse_text_normalization", True, {"itn_normalize": "true"}),
    ("redact_pii", True, {"redact_pii": "true"}),
    ("redact_pci", True, {"redact_pci": "true"}),
    ("keywords", (Keyword("a b", 2.0),), {"keywords": "a b:2"}),
    ("full_transcript", True, {}),
    ("numerals", "auto", {"numerals": "auto"}),
    ("extra", {"webhook_extra": "x"}, {"webhook_extra": "x"}),
    ("endpointing", False, {}),
    ("endpointing_timeout", 1.2, {}),
    ("emotion_detection", True, {"emotion_detection": "true"}),
    ("gender_detection", True, {"gender_detection": "true"}),
    ("vad_threshold", 0.35, {}),
    ("vad_min_speech", 0.08, {}),
    ("no_format_delay", True, {}),
]


def test_there_is_a_row_for_every_field() -> None:
    assert [name for name, _, _ in ROWS] == [f.name for f in TRANSCRIPTION.fields]


@pytest.mark.parametrize(("name", "value", "told"), ROWS, ids=[r[0] for r in ROWS])
def test_each_setting_is_told_where_it_means_something(name: str, value: Any, told: dict[str, str]) -> None:
    assert dict(parse_qsl(prerecorded.query({name: value}))) == ALWAYS | told


def test_the_old_path_has_no_model() -> None:
    assert prerecorded.path_of(old_path=False) == "/waves/v1/stt/"
    assert prerecorded.path_of(old_path=True) == "/waves/v1/pulse/get_text"
    assert "model" not in dict(parse_qsl(prerecorded.query({}, old_path=True)))


def test_an_answer_with_everything() -> None:
    body = {
        "status": "success",
        "transcription": "Hello, how are you?",
        "words": [
            {
                "start": 0.16,
                "end": 1.12,
                "speaker": 0,
                "speaker_confidence": 1,
                "word": "Hello,",
                "confidence": 0.9,
            }
        ],
        "utterances": [{"start": 0.16, "end": 2.88, "speaker": 0, "text": "Hello, how are you?"}],
        "language": "en",
        "metadata": {"duration": 5.28, "fileSize": 465740},
        "request_id": "r-1",
    }
    assert prerecorded.parse(json.dumps(body).encode()) == Answer(
        "Hello, how are you?",
        (HeardWord("Hello,", 0.16, 1.12, 0.9, "0", 1.0),),
        (HeardSentence("Hello, how are you?", 0.16, 2.88, "0"),),
        ("en",),
        5.28,
        "r-1",
    )


def test_an_answer_with_little() -> None:
    assert prerecorded.parse(b'{"transcription":""}') == Answer("")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status":"success"}', b'{"transcription":7}'])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(errors.UpstreamProtocol):
        prerecorded.parse(body)


def test_a_transcript_that_goes_to_a_webhook_is_said_so() -> None:
    with pytest.raises(errors.NotSupported, match="webhook"):
        prerecorded.parse(b'{"status":"processing","request_id":"r"}')


@pytest.mark.parametrize("encoding", prerecorded.RAW_ENCODINGS)
def test_raw_audio_becomes_a_recording_that_others_can_read(encoding: Encoding) -> None:
    raw = {
        Encoding.LINEAR16: TONE.tobytes(),
        Encoding.LINEAR32: (TONE.astype("<i4") << 16).tobytes(),
        Encoding.MULAW: _g711("ULAW"),
        Encoding.ALAW: _g711("ALAW"),
    }[encoding]
    made = prerecorded.wav(raw, AudioFormat(encoding, 8000))
    assert prerecorded.is_wav(made)
    samples, rate = soundfile.read(io.BytesIO(made), dtype="int16")
    assert rate == 8000
    assert len(samples) == len(TONE)
    assert np.max(np.abs(samples.astype(int) - TONE)) < (1 if "linear" in encoding.value else 500)


def test_an_odd_number_of_bytes_is_padded_as_wav_wants_it() -> None:
    made = prerecorded.wav(_g711("ULAW")[:7999], AudioFormat(Encoding.MULAW, 8000))
    assert len(made) % 2 == 0
    assert len(soundfile.read(io.BytesIO(made))[0]) == 7999


def _g711(subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, TONE, 8000, format="RAW", subtype=subtype)
    return out.getvalue()


def _file(format_name: str, subtype: str) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, TONE, 8000, format=format_name, subtype=subtype)
    return out.getvalue()


def _mp3(rate_hz: int) -> bytes:
    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_channels(1)
    encoder.set_in_sample_rate(rate_hz)
    encoder.set_out_sample_rate(rate_hz)
    return bytes(encoder.encode(TONE.tobytes())) + bytes(encoder.flush())


@pytest.mark.parametrize(
    "content",
    [
        _file("WAV", "PCM_16"),
        _file("FLAC", "PCM_16"),
        _file("OGG", "VORBIS"),
        _file("AIFF", "PCM_16"),
        _file("AU", "PCM_16"),
        _file("CAF", "PCM_16"),
        _file("W64", "PCM_16"),
        _file("RF64", "PCM_16"),
        _file("NIST", "PCM_16"),
        b"\xff\xf1\x50\x80\x01\x7f\xfc" + bytes(4) + b"\xff\xf1\x50\x80",
        _mp3(8000),
        _mp3(16000),
        _mp3(44100),
        b"ID3" + bytes(100),
        b"\0\0\0\x20ftypM4A " + bytes(20),
        b"\x1aE\xdf\xa3" + bytes(20),
    ],
)
def test_files_are_known_by_their_beginnings(content: bytes) -> None:
    assert prerecorded.is_file(content)


@pytest.mark.parametrize(
    "content",
    [
        TONE.tobytes(),
        bytes(1000),
        _g711("ULAW"),
        np.random.default_rng(1).integers(-32768, 32767, 5000).astype("<i2").tobytes(),
        b"\xff\xfb\x90\x44" + bytes(2000),  # one MPEG header, and nothing behind it
        b"RIFF" + bytes(4) + b"AVI ",
        b"\xff",
    ],
)
def test_raw_audio_is_none(content: bytes) -> None:
    assert not prerecorded.is_file(content)


def test_an_address_is_a_body_of_its_own() -> None:
    assert json.loads(prerecorded.address_body("https://a.example/x.wav")) == {
        "url": "https://a.example/x.wav"
    }
