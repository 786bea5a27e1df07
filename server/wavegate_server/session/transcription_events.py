"""What a transcription session is told and what it tells, beside what all sessions have in common (`events`).

All offsets are seconds from the first sample that the caller ever sent, plus the session's initial offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from wavegate_server.session.events import Upstream


class AcceptAudio(msgspec.Struct, frozen=True):
    """A piece of audio. `captured_at`: when its first sample was recorded, in seconds since the Unix epoch."""

    content: bytes
    captured_at: float | None = None


@dataclass(frozen=True, slots=True)
class FinalizeTurn:
    """The turn is over: make what was said until here final."""

    finalize_id: str = ""
    traceparent: str = ""


class FinalTrigger(Enum):
    """What made a transcript final; the contract's `Transcript.FinalTrigger`."""

    UNSPECIFIED = "UNSPECIFIED"
    ENDPOINT = "ENDPOINT"
    CLIENT_FINALIZE = "CLIENT_FINALIZE"
    END = "END"
    RECONNECT = "RECONNECT"


class Word(msgspec.Struct, frozen=True):
    """A recognised word."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None = None
    speaker: str = ""
    speaker_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """A recognised sentence."""

    text: str
    start_s: float
    end_s: float
    speaker: str = ""


class Transcribed(msgspec.Struct, frozen=True):
    """What was said in a stretch of the audio, so far or for good."""

    segment_id: str
    segment_revision: int
    text: str
    is_final: bool
    start_s: float
    end_s: float
    is_last: bool = False
    final_trigger: FinalTrigger = FinalTrigger.UNSPECIFIED
    finalize_id: str = ""
    words: tuple[Word, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    languages: tuple[str, ...] = ()
    stable_prefix_length: int = 0
    full_text: str = ""
    redacted_entities: tuple[str, ...] = ()
    settings_revision: int = 0
    upstream: Upstream = msgspec.field(default_factory=Upstream)
    speech_final: bool = False
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict)
    finalize_latency_s: float | None = None
    audio_latency_s: float | None = None
    capture_latency_s: float | None = None


@dataclass(frozen=True, slots=True)
class VoiceStarted:
    """A voice began."""

    audio_offset_s: float


@dataclass(frozen=True, slots=True)
class VoiceEnded:
    """A voice stopped."""

    audio_offset_s: float


@dataclass(frozen=True, slots=True)
class AudioProgressed:
    """How far the session's audio has come, in seconds; `lost_s` in all."""

    received_s: float
    forwarded_s: float
    finalized_s: float
    lost_s: float
