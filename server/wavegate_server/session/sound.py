"""Silence to send and sound to notice, in every encoding that a session may have."""

from __future__ import annotations

import warnings

from wavegate_server.audio import AudioFormat, Encoding

with warnings.catch_warnings():
    # Gone from the standard library with Python 3.13; there `audioop-lts` brings the same module.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

SILENCE_S = 0.1
LOUD_RMS = 655
"""2 % of full scale, -34 dB: any speech is louder, hum and breath are not."""
OPUS_SOUND_BYTES_PER_S = 1000
"""8 kbit/s: a silent stretch takes less, with or without discontinuous transmission, speech more."""

_SILENT_SAMPLE = {
    Encoding.LINEAR16: b"\0\0",
    Encoding.LINEAR32: b"\0\0\0\0",
    Encoding.MULAW: b"\xff",  # G.711: +0
    Encoding.ALAW: b"\xd5",
}
_SILENT_PACKET = b"\xf8\xff\xfe"
"""20 ms of digital silence: CELT, full band, one mono frame (RFC 6716, 3.1)."""


def silence(audio_format: AudioFormat) -> list[bytes]:
    """`SILENCE_S` of silence as pieces to send. None for Ogg, whose pages are numbered."""
    match audio_format.encoding:
        case Encoding.OGG_OPUS:
            return []
        case Encoding.OPUS:
            return [_SILENT_PACKET] * round(SILENCE_S / 0.02)
        case encoding:
            return [_SILENT_SAMPLE[encoding] * round(audio_format.sample_rate_hz * SILENCE_S)]


def sound_s(data: bytes, encoding: Encoding, duration_s: float) -> float:
    """How much of a piece of audio is sound, in seconds: all of it or nothing."""
    match encoding:
        case Encoding.LINEAR16:
            loud = audioop.rms(data, 2) >= LOUD_RMS
        case Encoding.LINEAR32:
            loud = audioop.rms(data, 4) >> 16 >= LOUD_RMS
        case Encoding.MULAW:
            loud = audioop.rms(audioop.ulaw2lin(data, 2), 2) >= LOUD_RMS
        case Encoding.ALAW:
            loud = audioop.rms(audioop.alaw2lin(data, 2), 2) >= LOUD_RMS
        case _:
            loud = len(data) >= OPUS_SOUND_BYTES_PER_S * duration_s
    return duration_s if loud else 0.0
