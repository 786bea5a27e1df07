"""Settings of a session: what a caller may set, and what the gateway says is in force.

A setting that is not given stays as it is. Durations are seconds (`..._s`); names are otherwise the contract's,
whose comments in `protos/wavegate/speech/v1/types.proto` give meaning and range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

__all__ = [
    "ApplyPolicy",
    "AudioEncoding",
    "AudioFormat",
    "ContentFilter",
    "JsonValue",
    "Keyword",
    "Numerals",
    "SynthesisOptions",
    "SynthesisSettings",
    "TranscriptionOptions",
    "TranscriptionSettings",
]

JsonValue = None | bool | int | float | str | Sequence["JsonValue"] | Mapping[str, "JsonValue"]

AudioEncoding = Literal["LINEAR16", "LINEAR32", "MULAW", "ALAW", "OPUS", "OGG_OPUS", "MP3", "WAV"]
ContentFilter = Literal["FLAG", "REJECT", "OFF"]
Numerals = Literal["AUTO", "ALWAYS", "NONE"]
ApplyPolicy = Literal["NEXT_BOUNDARY", "IMMEDIATE", "NO_RECONNECT"]
"""How much a change may disturb: wait for the end of an utterance or of speech (5 s at most), happen at once,
or be refused where it needs a reconnect."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """How audio is coded on the wire; fixed for the life of a session. One channel."""

    encoding: AudioEncoding = "LINEAR16"
    sample_rate_hz: int = 0
    """0: the gateway's default, 24000 for speech out and 16000 for speech in."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A phrase that the recogniser shall expect."""

    phrase: str
    boost: float | None = None


class SynthesisOptions(TypedDict, total=False):
    """Settings of speech synthesis, as keyword arguments."""

    voice_id: str
    model: str
    language_code: str
    number_language_code: str
    speed: float
    word_timings: bool
    math_notation: bool
    max_buffer_delay_s: float
    completion_backoff_s: float
    max_chunk_bytes: int
    consistency: float
    similarity: float
    enhancement: int
    extra: Mapping[str, JsonValue]
    content_filter: ContentFilter


class TranscriptionOptions(TypedDict, total=False):
    """Settings of transcription, as keyword arguments."""

    model: str
    language_code: str
    interim_results: bool
    word_timings: bool
    sentence_timings: bool
    diarization: bool
    voice_activity_events: bool
    end_of_utterance_timeout_s: float
    auto_finalize_on_words: bool
    max_words: int
    formatting: bool
    punctuation: bool
    capitalization: bool
    inverse_text_normalization: bool
    redact_pii: bool
    redact_pci: bool
    keywords: Sequence[str | Keyword]
    full_transcript: bool
    numerals: Numerals
    extra: Mapping[str, JsonValue]
    endpointing: bool
    endpointing_timeout_s: float
    emotion_detection: bool
    gender_detection: bool
    vad_threshold: float
    vad_min_speech_s: float
    no_format_delay: bool


@dataclass(frozen=True, slots=True)
class SynthesisSettings:
    """Settings in force for speech synthesis; `None` where the upstream's own default holds."""

    voice_id: str | None = None
    model: str | None = None
    language_code: str | None = None
    number_language_code: str | None = None
    speed: float | None = None
    word_timings: bool | None = None
    math_notation: bool | None = None
    max_buffer_delay_s: float | None = None
    completion_backoff_s: float | None = None
    max_chunk_bytes: int | None = None
    consistency: float | None = None
    similarity: float | None = None
    enhancement: int | None = None
    extra: Mapping[str, JsonValue] | None = None
    content_filter: ContentFilter | None = None


@dataclass(frozen=True, slots=True)
class TranscriptionSettings:
    """Settings in force for transcription; `None` where the upstream's own default holds."""

    model: str | None = None
    language_code: str | None = None
    interim_results: bool | None = None
    word_timings: bool | None = None
    sentence_timings: bool | None = None
    diarization: bool | None = None
    voice_activity_events: bool | None = None
    end_of_utterance_timeout_s: float | None = None
    auto_finalize_on_words: bool | None = None
    max_words: int | None = None
    formatting: bool | None = None
    punctuation: bool | None = None
    capitalization: bool | None = None
    inverse_text_normalization: bool | None = None
    redact_pii: bool | None = None
    redact_pci: bool | None = None
    keywords: Sequence[Keyword] | None = None
    full_transcript: bool | None = None
    numerals: Numerals | None = None
    extra: Mapping[str, JsonValue] | None = None
    endpointing: bool | None = None
    endpointing_timeout_s: float | None = None
    emotion_detection: bool | None = None
    gender_detection: bool | None = None
    vad_threshold: float | None = None
    vad_min_speech_s: float | None = None
    no_format_delay: bool | None = None
