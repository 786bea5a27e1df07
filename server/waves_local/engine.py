"""What the local upstream asks of an engine.

The server (`waves_local.server`) speaks the wire protocol and knows nothing of how speech is made or
understood; an engine makes and understands speech and knows nothing of the wire. Two engines ship:
`waves_local.deterministic` (provable audio and transcripts, for tests) and `waves_local.speech`
(espeak-ng and pocketsphinx, the optional extra `wavegate[speech]`).

All audio is signed 16-bit little-endian mono PCM at the rate named in the request. Offsets and durations
are seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of the catalogue, as `GET /waves/v1/lightning-v3.1/get_voices` lists it."""

    voice_id: str
    display_name: str
    models: tuple[str, ...]
    """Model names as in requests, e.g. `lightning_v3.1`."""
    languages: tuple[str, ...]
    """Language names as the catalogue writes them, e.g. `english`."""
    accent: str = ""
    gender: str = ""
    age: str = ""
    emotions: tuple[str, ...] = ()
    usecases: tuple[str, ...] = ()
    word_timestamps: bool = True
    """Whether the voice sends word timings ("only some voices send any")."""


@dataclass(frozen=True, slots=True)
class VoiceRequest:
    """One piece of text to speak."""

    text: str
    voice_id: str
    model: str = "lightning_v3.1"
    language: str | None = None
    number_language: str | None = None
    speed: float = 1.0
    sample_rate_hz: int = 44100
    math_notation: bool = False
    consistency: float | None = None
    similarity: float | None = None
    enhancement: int | None = None


@dataclass(frozen=True, slots=True)
class SpokenAudio:
    """A piece of audio, whole samples, in order."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """When a word is heard, from the start of this request's audio. May come before its audio."""

    text: str
    """The exact substring of the input text."""
    start_s: float
    end_s: float


class Synthesizer(Protocol):
    """Text to speech."""

    def voices(self) -> Sequence[Voice]:
        """The catalogue."""

    def synthesize(self, request: VoiceRequest) -> AsyncIterator[SpokenAudio | SpokenWord]:
        """Speak the text. Closing the iterator stops the work."""


@dataclass(frozen=True, slots=True)
class RecognitionRequest:
    """What a recogniser is told at the start of a stream."""

    sample_rate_hz: int = 16000
    language: str = "en"
    model: str = "pulse"
    endpointing: bool = True
    """Whether silence ends an utterance by itself."""
    end_of_utterance_s: float = 0.8
    """The silence after speech that ends an utterance."""
    keywords: tuple[tuple[str, float], ...] = ()
    vad_threshold: float | None = None
    vad_min_speech_s: float | None = None


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word, with offsets from the first sample of the stream."""

    text: str
    start_s: float
    end_s: float
    confidence: float = 1.0
    speaker: int = 0
    """Speakers count from 0, in the order in which they were first heard."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the current utterance is thought to say.

    A final hypothesis covers everything up to `end_s` and begins a new utterance; a partial one replaces
    the partial before it.
    """

    words: tuple[HeardWord, ...]
    is_final: bool
    end_s: float
    """How far into the stream this hypothesis reaches."""
    by_endpoint: bool = False
    """Whether silence made it final."""


@dataclass(frozen=True, slots=True)
class VoiceActivity:
    """Speech began or ended, at an offset from the first sample of the stream."""

    speaking: bool
    at_s: float


RecognitionEvent = Hypothesis | VoiceActivity


class RecognitionStream(Protocol):
    """One stream of audio. Calls are made one after the other."""

    async def accept(self, pcm: bytes) -> Sequence[RecognitionEvent]:
        """Hear these whole samples; say what became known by them."""

    async def finalize(self) -> Sequence[RecognitionEvent]:
        """End the utterance here. One final hypothesis, empty where nothing was said."""

    async def close(self) -> None:
        """Let go of the stream's resources. Safe to call twice."""


class Recognizer(Protocol):
    """Speech to text."""

    async def open(self, request: RecognitionRequest) -> RecognitionStream:
        """Begin a stream."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A synthesizer and a recognizer that belong together."""

    name: str
    synthesizer: Synthesizer
    recognizer: Recognizer
    punctuates: bool = False
    """Whether recognized words come with their punctuation and case. If so, formatting options take away
    what is not wanted; if not, they add it."""
    notes: tuple[str, ...] = field(default=())
    """Lines for the banner: what these engines are."""
    cannot_speak: str = ""
    """Why the synthesizer is only a catalogue, as a sentence for clients. Empty where it speaks."""
    cannot_listen: str = ""
    """Why the recognizer cannot be opened, as a sentence for clients. Empty where it listens."""
