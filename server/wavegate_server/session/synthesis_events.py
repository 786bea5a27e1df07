"""What a synthesis session is told and what it tells, beside what all sessions have in common (`events`)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from wavegate_server.audio import AudioFormat
from wavegate_server.errors import WavegateError
from wavegate_server.session.events import WarningRaised
from wavegate_server.session.utterance import EstimateSource, TimedWord, Utterance
from wavegate_server.waves.tts import Completion


@dataclass(frozen=True, slots=True)
class SpeakText:
    """A piece of text. An empty id means the open utterance, else a new one."""

    text: str
    utterance_id: str = ""
    end_utterance: bool = False
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class FlushText:
    """Speak what is buffered; the utterance stays open."""

    utterance_id: str = ""


@dataclass(frozen=True, slots=True)
class EndUtterance:
    """No more text for this utterance."""

    utterance_id: str = ""


@dataclass(frozen=True, slots=True)
class CancelUtterance:
    """Barge-in. An empty id means every utterance not yet completed."""

    utterance_id: str = ""
    playback_offset_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReportPlayback:
    """What the listener has heard of an utterance, in seconds from its start."""

    utterance_id: str
    playback_offset_s: float


@dataclass(frozen=True, slots=True)
class UtteranceStarted:
    """The gateway sends an utterance's first text upstream."""

    utterance_id: str
    first_input_sequence: int
    settings_revision: int


class AudioProduced(msgspec.Struct, frozen=True):
    """A piece of an utterance's audio, in the session's encoding."""

    utterance: Utterance
    audio: bytes
    chunk_index: int
    start_offset_s: float
    samples: int
    discontinuity: bool = False


@dataclass(frozen=True, slots=True)
class WordsTimed:
    """Times of words of an utterance."""

    utterance_id: str
    words: tuple[TimedWord, ...]


@dataclass(frozen=True, slots=True)
class UtteranceCompleted:
    """All audio of an utterance came before this. `source` None: nothing was to be said.

    `is_unconfirmed`: nothing proves that all of the text was heard.
    """

    utterance: Utterance
    source: Completion | None
    is_unconfirmed: bool = False


class CancelMethod(Enum):
    """What was done upstream; the contract's `UtteranceCancelled.Method`."""

    NOT_SENT = "NOT_SENT"
    DISCARD = "DISCARD"
    RECONNECT = "RECONNECT"
    UPSTREAM_CANCEL = "UPSTREAM_CANCEL"


@dataclass(frozen=True, slots=True)
class UtteranceCancelled:
    """No chunk of the utterance follows."""

    utterance: Utterance
    method: CancelMethod
    spoken_text: str
    remaining_text: str
    estimate_source: EstimateSource
    discarded_audio_s: float


@dataclass(frozen=True, slots=True)
class UtteranceFailed:
    """The utterance cannot be spoken; the session goes on."""

    utterance: Utterance
    error: WavegateError
    audio_sent_s: float


def chunks(
    utterance: Utterance, audio: bytes, samples: int, audio_format: AudioFormat, size: int | None
) -> list[AudioProduced]:
    """Audio in pieces of at most `size` bytes, never a partial sample, and the account of it.

    `samples` is what the encoder was given for it. Playing time that the encoder holds back goes with the piece
    that comes next.
    """
    metrics = utterance.metrics
    samples += utterance.held_samples
    if not audio:
        utterance.held_samples = samples
        return []
    utterance.held_samples = 0
    width = audio_format.encoding.bytes_per_sample or 1
    size = size or len(audio)
    size = max(width, size - size % width)
    out = []
    left = samples
    for at in range(0, len(audio), size):
        piece = audio[at : at + size] if size < len(audio) else audio
        share = left if at + size >= len(audio) else samples * len(piece) // len(audio)
        left -= share
        start_s = metrics.audio_samples / audio_format.sample_rate_hz
        out.append(
            AudioProduced(utterance, piece, utterance.chunk_index, start_s, share, utterance.discontinuity)
        )
        utterance.discontinuity = False
        utterance.chunk_index += 1
        metrics.audio_samples += share
        metrics.audio_bytes += len(piece)
        metrics.chunk_count += 1
    return out


def unspeakable(removed: str, utterance_id: str) -> WarningRaised:
    """The warning of an utterance that is spoken without the control characters in its text; `removed` is the first."""
    return WarningRaised(
        "CONTROL_CHARACTERS",
        f"the text holds control characters (the first is {removed}); it is spoken without them",
        {"character": removed},
        utterance_id,
    )
