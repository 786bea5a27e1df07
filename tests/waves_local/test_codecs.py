"""Audio in other forms than 16-bit PCM."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from waves_local import codecs, voice_traits
from waves_local.opus import OggOpusReader, OpusPacketDecoder, ogg_page, packet_samples

ALL_CODES = bytes(range(256))
RAMP = np.arange(-32768, 32768, dtype="<i2").tobytes()


@pytest.mark.parametrize(
    ("subtype", "decode", "encode"),
    [
        ("ULAW", codecs.mulaw_decode, codecs.mulaw_encode),
        ("ALAW", codecs.alaw_decode, codecs.alaw_encode),
    ],
)
def test_g711_is_what_another_library_takes_it_for(subtype: str, decode: object, encode: object) -> None:
    assert callable(decode)
    assert callable(encode)
    theirs, _ = soundfile.read(
        io.BytesIO(ALL_CODES), dtype="int16", format="RAW", subtype=subtype, samplerate=8000, channels=1
    )
    assert np.array_equal(np.frombuffer(decode(ALL_CODES), "<i2"), theirs)
    again = np.frombuffer(decode(encode(decode(ALL_CODES))), "<i2")
    assert np.array_equal(again, theirs)
    # Each sample becomes the nearest value there is.
    error = np.abs(np.frombuffer(decode(encode(RAMP)), "<i2").astype(int) - np.frombuffer(RAMP, "<i2"))
    assert error.max() <= 1024
    assert error[32768 - 500 : 32768 + 500].max() <= 16


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (bytes([0 << 3]), 480), (bytes([3 << 3]), 2880), (bytes([13 << 3]), 960), (bytes([16 << 3]), 120),
        (bytes([31 << 3]), 960), (bytes([31 << 3 | 1]), 1920), (bytes([31 << 3 | 3, 6]), 5760),
    ],
)  # fmt: skip
def test_opus_packets_say_how_long_they_are(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples


@pytest.mark.parametrize(
    "packet", [b"", bytes([31 << 3 | 3]), bytes([31 << 3 | 3, 7]), bytes([3 << 3 | 3, 0])]
)
def test_what_is_no_opus_packet(packet: bytes) -> None:
    with pytest.raises(ValueError, match="Opus packet"):
        packet_samples(packet)


def _tone_in_opus(seconds: float = 1.0, tone_hz: float = 440.0) -> bytes:
    t = np.arange(int(48000 * seconds)) / 48000
    out = io.BytesIO()
    soundfile.write(out, 0.5 * np.sin(2 * np.pi * tone_hz * t), 48000, format="OGG", subtype="OPUS")
    return out.getvalue()


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 24000, 44100, 48000])
def test_opus_is_decoded_at_the_rate_that_was_asked_for(rate_hz: int) -> None:
    ogg = _tone_in_opus()
    decoder = codecs.decoder("ogg_opus", rate_hz)
    pcm = b"".join(decoder.decode(ogg[i : i + 500]) for i in range(0, len(ogg), 500))
    samples = np.frombuffer(pcm, "<i2").astype(float)
    assert len(samples) / rate_hz == pytest.approx(1.0, abs=0.03)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() * rate_hz / len(samples) == pytest.approx(440, abs=3)


def test_opus_sounds_the_same_however_it_is_cut() -> None:
    ogg = _tone_in_opus(0.5)
    heard = []
    for size in (37, 1000, len(ogg)):
        decoder = codecs.decoder("ogg_opus", 16000)
        heard.append(b"".join(decoder.decode(ogg[i : i + size]) for i in range(0, len(ogg), size)))
    assert heard[0] == heard[1] == heard[2]


def test_header_pages_may_come_again() -> None:
    ogg = _tone_in_opus(0.2)
    decoder = codecs.decoder("ogg_opus", 16000)
    once = decoder.decode(ogg)
    assert decoder.decode(ogg) == once


def test_bare_packets_are_decoded_one_by_one() -> None:
    packets = [p for p in OggOpusReader().add(_tone_in_opus(0.5)) if not p.startswith(b"Opus")]
    decoder = OpusPacketDecoder(16000)
    assert [len(decoder.decode(p)) for p in packets] == [packet_samples(p) // 3 * 2 for p in packets]


def test_damaged_and_foreign_ogg_is_refused() -> None:
    page = bytearray(ogg_page([b"OpusHead" + bytes(11)], granule=0, sequence=0, flags=2))
    page[-1] ^= 1
    for data in (bytes(page), b"RIFF" + bytes(40), ogg_page([b"no head"], granule=0, sequence=0)):
        with pytest.raises(ValueError, match="Ogg"):
            codecs.decoder("ogg_opus", 16000).decode(data)


def test_a_packet_longer_than_a_page() -> None:
    packet = bytes(range(256)) * 4
    page = ogg_page([packet], granule=0, sequence=0)
    assert OggOpusReader().add(page) == [packet]


def test_traits_follow_the_pitch() -> None:
    t = np.arange(16000) / 16000
    for pitch_hz, gender in [(100, "male"), (230, "female")]:
        hum = (8000 * np.sign(np.sin(2 * np.pi * pitch_hz * t))).astype("<i2").tobytes()
        traits = voice_traits.estimate(hum, 16000)
        assert traits is not None
        assert traits.gender == gender
    assert voice_traits.estimate(bytes(32000), 16000) is None  # silence
    assert voice_traits.estimate(hum[:1000], 16000) is None  # too short
