"""Recordings: what is asked of the upstream, what goes into the body, and what the answer means."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from wavegate_server import errors
from wavegate_server.audio import AudioFormat, Encoding
from wavegate_server.waves.settings import TRANSCRIPTION, Settings, query_value, upstream_values
from wavegate_server.waves.stt import DEFAULTS, HeardSentence, HeardWord, sentences_of, words_of

RECORDED_PATH = "/waves/v1/stt/"
RECORDED_OLD_PATH = "/waves/v1/pulse/get_text"

MODELS = ("pulse", "pulse-pro")
URL_MODELS = ("pulse",)
"""Models that fetch a recording from an address."""

COMPRESSED_BYTES_PER_S = 8000
"""64 kbit/s: what speech is often compressed to."""

RAW_ENCODINGS = (Encoding.LINEAR16, Encoding.LINEAR32, Encoding.MULAW, Encoding.ALAW)
"""Raw audio that a WAV header makes a recording of."""

LIVE_ONLY = frozenset(
    "interim_results voice_activity_events end_of_utterance_timeout auto_finalize_on_words max_words endpointing "
    "endpointing_timeout vad_threshold vad_min_speech no_format_delay full_transcript word_timings "
    "sentence_timings".split()
)
"""Settings that mean nothing once all audio is there; the last two are one switch here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The transcript of a recording. Times are seconds from its start; None where the upstream did not say."""

    text: str
    words: tuple[HeardWord, ...] = ()
    sentences: tuple[HeardSentence, ...] = ()
    languages: tuple[str, ...] = ()
    duration_s: float | None = None
    request_id: str = ""


def query(settings: Settings, *, old_path: bool = False) -> str:
    """The query of a request with these effective settings. Sentences come with the words."""
    effective = {**DEFAULTS, **settings}
    values = upstream_values(TRANSCRIPTION, {k: v for k, v in effective.items() if k not in LIVE_ONLY})
    timed = bool(effective.get("word_timings") or effective.get("sentence_timings"))
    always = {"model": values.pop("model"), "language": values.pop("language"), "word_timestamps": timed}
    if old_path:
        del always["model"]
    return urlencode([(k, query_value(v)) for k, v in {**always, **values}.items()], quote_via=quote)


def path_of(*, old_path: bool) -> str:
    """The endpoint; a flag brings the old one back, which has one model."""
    return RECORDED_OLD_PATH if old_path else RECORDED_PATH


def address_body(uri: str) -> bytes:
    """The body that has the upstream fetch a recording."""
    return msgspec.json.encode({"url": uri})


def parse(body: bytes) -> Answer:
    """Read an answer. Raises `errors.UpstreamProtocol` for what is none."""
    try:
        answer: Any = msgspec.json.decode(body)
    except msgspec.DecodeError as exc:
        raise errors.UpstreamProtocol("the upstream answered a recording with what is not JSON") from exc
    if not isinstance(answer, dict):
        raise errors.UpstreamProtocol("the upstream answered a recording with what is not an object")
    text = answer.get("transcription", answer.get("transcript"))
    if not isinstance(text, str):
        if answer.get("status") == "processing":
            raise errors.NotSupported(
                "the upstream delivers this transcript to a webhook; without `webhook_url` it comes back here"
            )
        raise errors.UpstreamProtocol("the upstream answered a recording without a transcript")
    metadata = answer.get("metadata")
    duration = metadata.get("duration") if isinstance(metadata, dict) else None
    language, request_id = answer.get("language"), answer.get("request_id")
    return Answer(
        text,
        words_of(answer.get("words")),
        sentences_of(answer.get("utterances")),
        (language,) if isinstance(language, str) and language else (),
        float(duration) if isinstance(duration, int | float) and duration >= 0 else None,
        request_id if isinstance(request_id, str) else "",
    )


# -- recordings -------------------------------------------------------------------------------------------------

_WAV_CODES = {Encoding.LINEAR16: 1, Encoding.LINEAR32: 1, Encoding.MULAW: 7, Encoding.ALAW: 6}


def wav(audio: bytes, audio_format: AudioFormat) -> bytes:
    """Raw audio as a WAV recording. `audio` is whole samples of one of `RAW_ENCODINGS`."""
    width, rate = audio_format.encoding.bytes_per_sample, audio_format.sample_rate_hz
    code = _WAV_CODES[audio_format.encoding]
    fmt = struct.pack("<HHIIHH", code, 1, rate, rate * width, width, width * 8)
    if code != 1:
        fmt += b"\0\0"  # other formats than PCM say how much more they say: nothing
    padding = len(audio) % 2
    size = 4 + 8 + len(fmt) + 8 + len(audio) + padding
    return b"".join(
        (
            b"RIFF", struct.pack("<I", size), b"WAVE",
            b"fmt ", struct.pack("<I", len(fmt)), fmt,
            b"data", struct.pack("<I", len(audio)), audio, b"\0" * padding,
        )
    )  # fmt: skip


def is_wav(content: bytes) -> bool:
    """Whether it is a WAV file."""
    return content[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and content[8:12] == b"WAVE"


def playing_s(content: bytes) -> float:
    """Return how many seconds a recording plays: for a WAV file what its header says of its bytes, else as long as
    speech compressed to `COMPRESSED_BYTES_PER_S`. For a time limit, not for a report."""
    bytes_per_s = COMPRESSED_BYTES_PER_S
    fmt = content.find(b"fmt ", 12, _HEADER_BYTES) if is_wav(content) else -1
    if fmt > 0 and len(content) >= fmt + 20:
        order = ">I" if content[:4] == b"RIFX" else "<I"
        bytes_per_s = struct.unpack_from(order, content, fmt + 16)[0] or COMPRESSED_BYTES_PER_S
    return len(content) / bytes_per_s


_HEADER_BYTES = 4096
"""A WAV file's format stands within this much of its beginning; only tags come before it."""
_BEGINNINGS = (
    b"fLaC", b"OggS", b"ID3", b"caff", b"\x1aE\xdf\xa3", b"#!AMR", b".snd", b"NIST_1A",
    b"riff\x2e\x91\xcf\x11", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
)  # fmt: skip
"""FLAC, Ogg, MP3 with a tag, Core Audio, WebM and Matroska, AMR, AU, NIST SPHERE, Wave64, Windows Media."""


def is_file(content: bytes) -> bool:
    """Whether it says itself how it is encoded. Raw audio does not."""
    return has_container(content) or _is_mpeg(content) or _is_adts(content)


def has_container(content: bytes) -> bool:
    """Whether it begins as raw audio never does, not even by chance."""
    return (
        is_wav(content)
        or content.startswith(_BEGINNINGS)
        or content[4:8] == b"ftyp"  # MP4 and its kin
        or (content[:4] == b"FORM" and content[8:12] in (b"AIFF", b"AIFC"))
    )


def _is_adts(content: bytes) -> bool:
    """Whether two frames of an AAC stream follow each other."""
    if len(content) < 7 or content[0] != 0xFF or content[1] & 0xF6 != 0xF0:
        return False
    length = (content[3] & 3) << 11 | content[4] << 3 | content[5] >> 5
    return length > 7 and content[length : length + 2] in (b"", content[:2])


def _is_mpeg(content: bytes) -> bool:
    """Whether two MPEG audio frames follow each other: one header alone is likely in raw audio, too."""
    length = _mpeg_frame_bytes(content[:4])
    if not length:
        return False
    behind = content[length : length + 4]
    return not behind or bool(_mpeg_frame_bytes(behind))


_BIT_RATES = {
    # (MPEG version 1, layer) -> kbit/s by index
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


def _mpeg_frame_bytes(header: bytes) -> int:
    """Size of the MPEG audio frame with this header (layers II and III); 0 for what is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    bit_rates = _BIT_RATES.get((version == 3, layer))
    bit_rate, rate = header[2] >> 4, header[2] >> 2 & 3
    if bit_rates is None or version not in _RATES_HZ or not 0 < bit_rate < 15 or rate == 3:
        return 0
    per_frame = 1152 if version == 3 or layer == 2 else 576
    return per_frame // 8 * bit_rates[bit_rate] * 1000 // _RATES_HZ[version][rate] + (header[2] >> 1 & 1)
