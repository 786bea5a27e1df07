"""An engine for tests: audio that proves which characters were spoken, transcripts that prove which samples
were heard.

One code serves both directions. Each character is a *block* of samples, the same for the same character,
voice, speed and rate, wherever it stands:

    marker, 2 samples at the highest level | code point, block length, voice, take, checksum | filling

Every sample of a block is known in advance, so a lost, repeated, changed or foreign sample is found, and every
sample is loud, so silence is never part of a block. The levels lie so far apart that the code survives
mu-law and A-law. `spoken` reads a synthesizer's audio; `speak` makes audio for the recognizer, which hears it
by the same code: what the synthesizer says, the recognizer understands.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import sys
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from waves_local.catalog import VOICES
from waves_local.engine import (
    Engine,
    HeardWord,
    Hypothesis,
    RecognitionEvent,
    RecognitionRequest,
    SpokenAudio,
    SpokenWord,
    Voice,
    VoiceActivity,
    VoiceRequest,
)

Samples = npt.NDArray[np.int16]

BROKEN = "\N{REPLACEMENT CHARACTER}"
"""Stands where blocks are damaged or samples do not belong to one."""

DEFAULT_CHARACTER_S = 0.06
"""Seconds of one character at speed 1."""

QUIET = 256
"""Samples below this are silence. A-law turns 0 into 8; real noise floors lie below it too."""

# 16 data levels and one for the marker. Neighbours differ by a quarter: G.711 errs by 3 % at most.
_LEVELS = np.array([round(1000 * 1.23**k) for k in range(17)], dtype=np.int32)
_BOUNDS = np.sqrt(_LEVELS[:-1].astype(float) * _LEVELS[1:])
_MARKER = 16
_HEADER_NIBBLES = 20
HEADER_SAMPLES = 2 + _HEADER_NIBBLES
MIN_BLOCK_SAMPLES = HEADER_SAMPLES + 2
_MAX_BLOCK_SAMPLES = 0xFFFF


def voice_tag(voice_id: str) -> int:
    """The 16 bits that a voice leaves in each of its blocks."""
    return binascii.crc_hqx(voice_id.encode(), 0x5A5A)


def block_samples(sample_rate_hz: int, speed: float = 1.0, character_s: float = DEFAULT_CHARACTER_S) -> int:
    """The length of one block."""
    return min(_MAX_BLOCK_SAMPLES, max(MIN_BLOCK_SAMPLES, round(sample_rate_hz * character_s / speed)))


def _nibbles(value: int, count: int) -> list[int]:
    return [value >> 4 * (count - 1 - i) & 0xF for i in range(count)]


def _value(nibbles: Iterable[int]) -> int:
    value = 0
    for nibble in nibbles:
        value = value << 4 | int(nibble)
    return value


def _checksum(body: Sequence[int]) -> int:
    return binascii.crc_hqx(bytes(body), 0x1234)


@lru_cache(maxsize=4096)
def _samples_of_block(code_point: int, length: int, tag: int, take: int) -> Samples:
    """All samples of one block."""
    body = [*_nibbles(code_point, 6), *_nibbles(length, 4), *_nibbles(tag, 4), *_nibbles(take, 2)]
    levels = np.empty(length, dtype=np.int64)
    levels[:2] = _MARKER
    levels[2:HEADER_SAMPLES] = [*body, *_nibbles(_checksum(body), 4)]
    # The filling differs at each position and with each header.
    seed = zlib.crc32(bytes(body)) | 1
    position = np.arange(length - HEADER_SAMPLES, dtype=np.uint64)
    mixed = (position + np.uint64(1)) * np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
    levels[HEADER_SAMPLES:] = (mixed >> np.uint64(59)) & np.uint64(0xF)
    samples = _LEVELS[levels]
    samples[1::2] *= -1
    block = samples.astype(np.int16)
    block.flags.writeable = False
    return block


def _levels_of(samples: Samples) -> npt.NDArray[np.intp]:
    return np.searchsorted(_BOUNDS, np.abs(samples.astype(np.int32)))


def _level(sample: int) -> int:
    return int(np.searchsorted(_BOUNDS, abs(sample)))


def _same_levels(got: Samples, expected: Samples) -> bool:
    """Companded audio differs in its values, not in its levels and signs."""
    return np.array_equal(np.signbit(got), np.signbit(expected)) and np.array_equal(
        _levels_of(got), _levels_of(expected)
    )


def encode_text(
    text: str,
    sample_rate_hz: int,
    *,
    voice_id: str = "",
    speed: float = 1.0,
    take: int = 0,
    character_s: float = DEFAULT_CHARACTER_S,
) -> bytes:
    """The audio of a text, 16-bit PCM: one block for each code point, nothing between them."""
    length, tag = block_samples(sample_rate_hz, speed, character_s), voice_tag(voice_id)
    return b"".join(_samples_of_block(ord(c), length, tag, take).tobytes() for c in text)


@dataclass(frozen=True, slots=True)
class Heard:
    """A stretch of audio and what it is."""

    kind: Literal["character", "silence", "garbage"]
    start: int
    """First sample."""
    end: int
    """Sample after the last."""
    character: str = ""
    tag: int = 0
    """`voice_tag` of the voice."""
    take: int = 0
    pcm: bytes = b""
    """Of garbage: the audio itself."""


class BlockReader:
    """Finds blocks, silence and garbage in audio that comes in pieces.

    Every sample is accounted for once, and how the audio is cut into pieces makes no difference to what is
    found, only to how finely neighbouring silence or garbage is reported.
    """

    def __init__(self, pause_samples: int = 160) -> None:
        self._samples: Samples = np.empty(0, dtype=np.int16)
        self._at = 0
        self._pause = pause_samples
        self._in_garbage = False

    @property
    def position(self) -> int:
        """Samples accounted for."""
        return self._at

    def add(self, pcm: bytes) -> list[Heard]:
        """What is certain with this audio."""
        new: Samples = np.frombuffer(pcm, dtype="<i2")
        self._samples = np.concatenate([self._samples, new]) if len(self._samples) else new
        return list(self._read(is_end=False))

    def end(self) -> list[Heard]:
        """What is left: a block that is not whole is garbage. More audio may follow."""
        return list(self._read(is_end=True))

    def _read(self, *, is_end: bool) -> Iterator[Heard]:
        while len(self._samples):
            samples = self._samples
            if abs(int(samples[0])) < QUIET:
                loud = np.flatnonzero(np.abs(samples.astype(np.int32)) >= QUIET)
                length = int(loud[0]) if len(loud) else len(samples)
                # Noise crosses zero all the time: a short quiet stretch within it is part of it.
                if self._in_garbage and length <= self._pause:
                    if len(loud):
                        yield self._garbage(length)
                        continue
                    if not is_end:
                        return
                self._in_garbage = False
                yield self._take(Heard("silence", self._at, self._at + length))
                continue
            if samples[0] > 0 and _level(int(samples[0])) == _MARKER:
                found = self._block(samples, is_end=is_end)
                if found == "undecided":
                    return
                if isinstance(found, Heard):
                    self._in_garbage = False
                    yield self._take(found)
                    continue
            length = self._garbage_length(samples, is_end=is_end)
            if length == 0:
                return
            yield self._garbage(length)

    def _take(self, heard: Heard) -> Heard:
        self._samples = self._samples[heard.end - heard.start :]
        self._at = heard.end
        return heard

    def _garbage(self, length: int) -> Heard:
        self._in_garbage = True
        pcm = self._samples[:length].tobytes()
        return self._take(Heard("garbage", self._at, self._at + length, pcm=pcm))

    def _block(self, samples: Samples, *, is_end: bool) -> Heard | Literal["undecided", "none"]:
        """The block that begins with the first sample."""
        undecided: Literal["undecided", "none"] = "none" if is_end else "undecided"
        head = _levels_of(samples[:HEADER_SAMPLES])
        if len(head) > 1 and head[1] != _MARKER:
            return "none"
        if len(head) < HEADER_SAMPLES:
            return undecided
        body, checksum = head[2:-4].tolist(), _value(head[-4:].tolist())
        if max(body) > 0xF or _checksum(body) != checksum:
            return "none"
        code_point, length, tag, take = (
            _value(body[:6]),
            _value(body[6:10]),
            _value(body[10:14]),
            _value(body[14:]),
        )
        if length < MIN_BLOCK_SAMPLES or code_point > sys.maxunicode:
            return "none"
        expected = _samples_of_block(code_point, length, tag, take)[: len(samples)]
        got = samples[:length]
        if not np.array_equal(got, expected) and not _same_levels(got, expected):
            return "none"
        if len(got) < length:
            return undecided
        return Heard("character", self._at, self._at + length, chr(code_point), tag, take)

    def _garbage_length(self, samples: Samples, *, is_end: bool) -> int:
        """Up to the next marker, or to where it becomes quiet for long. 0: not certain yet."""
        levels = _levels_of(samples)
        is_marker = (levels == _MARKER) & (samples > 0)
        is_marker[0] = False
        is_marker[:-1] &= levels[1:] == _MARKER
        marker = np.flatnonzero(is_marker)
        # Half a marker at the very end of the audio is none.
        is_half = len(marker) > 0 and is_end and marker[0] == len(samples) - 1
        end = int(marker[0]) if len(marker) and not is_half else len(samples)
        loud = np.flatnonzero(np.abs(samples[:end].astype(np.int32)) >= QUIET)
        gaps = np.flatnonzero(np.diff(loud) > self._pause + 1)
        if len(gaps):
            return int(loud[gaps[0]]) + 1
        if end == len(samples) or end - int(loud[-1]) - 1 > self._pause:
            return int(loud[-1]) + 1  # a quiet rest is looked at again with what follows
        return end


def heard(pcm: bytes) -> list[Heard]:
    """Every stretch of a recording, in order, without a gap."""
    reader = BlockReader()
    return [*reader.add(pcm), *reader.end()]


def spoken(pcm: bytes) -> str:
    """The characters that this audio speaks. Silence counts for nothing, damage for one BROKEN a stretch."""
    text: list[str] = []
    for piece in heard(pcm):
        if piece.kind == "character":
            text.append(piece.character)
        elif piece.kind == "garbage" and (not text or text[-1] != BROKEN):
            text.append(BROKEN)
    return "".join(text)


def speak(
    words: Iterable[str],
    sample_rate_hz: int,
    *,
    gap_s: float = 0.12,
    lead_s: float = 0.0,
    tail_s: float = 0.0,
    voice_id: str = "",
    character_s: float = DEFAULT_CHARACTER_S,
) -> bytes:
    """Audio in which the recognizer hears exactly these words: 16-bit PCM, with silence of `gap_s` between them,
    `lead_s` before and `tail_s` after. Different voices are different speakers."""
    gap = bytes(2 * round(gap_s * sample_rate_hz))
    body = gap.join(encode_text(w, sample_rate_hz, voice_id=voice_id, character_s=character_s) for w in words)
    return bytes(2 * round(lead_s * sample_rate_hz)) + body + bytes(2 * round(tail_s * sample_rate_hz))


class DeterministicSynthesizer:
    """Speaks in blocks."""

    def __init__(self, *, character_s: float, varying: bool, voices: Sequence[Voice]) -> None:
        self._character_s = character_s
        self._varying = varying
        self._voices = voices
        self._takes = 0

    def voices(self) -> Sequence[Voice]:
        return self._voices

    async def synthesize(self, request: VoiceRequest) -> AsyncIterator[SpokenAudio | SpokenWord]:
        """Speak the text, word by word; the blanks after a word belong to its audio."""
        take = 0
        if self._varying:
            self._takes += 1
            take = self._takes % 256
        rate_hz = request.sample_rate_hz
        character_s = block_samples(rate_hz, request.speed, self._character_s) / rate_hz
        for match in re.finditer(r"\s*(\S+)\s*|\s+", request.text):
            if match[1] is not None:
                yield SpokenWord(match[1], match.start(1) * character_s, match.end(1) * character_s)
            yield SpokenAudio(
                encode_text(
                    match[0],
                    rate_hz,
                    voice_id=request.voice_id,
                    speed=request.speed,
                    take=take,
                    character_s=self._character_s,
                )
            )


@dataclass(slots=True)
class _Word:
    """A word that is being heard, from sample to sample."""

    text: str
    start: int
    end: int
    speaker: int


class DeterministicStream:
    """Hears blocks.

    Blocks that follow each other without a pause or a blank are one word. Other sound is heard as words
    `noise-` and a digest of its samples, a quarter of a second each; where it touches a block it is damage: one
    BROKEN in the word. Silence is what lies below QUIET.
    """

    def __init__(self, request: RecognitionRequest, vad_silence_s: float) -> None:
        rate_hz = request.sample_rate_hz
        self._rate_hz = rate_hz
        self._reader = BlockReader(max(1, rate_hz // 100))
        self._noise_samples = rate_hz // 4
        self._vad_silence = round(vad_silence_s * rate_hz)
        self._min_speech = round((request.vad_min_speech_s or 0.0) * rate_hz)
        self._eou_silence = round(request.end_of_utterance_s * rate_hz) if request.endpointing else None
        self._words: list[_Word] = []
        """Of the current utterance."""
        self._joins = False
        """Whether the next character goes on with the last word."""
        self._noise = bytearray()
        self._noise_start = 0
        self._speech_start: int | None = None
        """First sample of the sound since the last pause; `None` in a pause."""
        self._speech_end = 0
        self._is_speaking = False
        """Whether the beginning has been reported."""
        self._reported: list[str] = []
        self._speakers: dict[int, int] = {}
        """Speaker by voice tag, in the order of their appearance."""
        self._speaker = 0

    async def accept(self, pcm: bytes) -> Sequence[RecognitionEvent]:
        """Hear these samples."""
        events: list[RecognitionEvent] = []
        for piece in self._reader.add(pcm):
            self._hear(piece, events)
        texts = [w.text for w in self._words]
        if texts and texts != self._reported:
            self._reported = texts
            events.append(self._hypothesis(self._reader.position, is_final=False))
        return events

    async def finalize(self) -> Sequence[RecognitionEvent]:
        """End the utterance here; a block that is cut by it is BROKEN."""
        events: list[RecognitionEvent] = []
        for piece in self._reader.end():
            self._hear(piece, events)
        self._end_noise()
        events.append(self._final(self._reader.position))
        return events

    async def close(self) -> None:
        """Nothing is held."""

    def _hear(self, piece: Heard, events: list[RecognitionEvent]) -> None:
        if piece.kind == "silence":
            self._hear_silence(piece, events)
            return
        if self._speech_start is None:
            self._speech_start = piece.start
        self._speech_end = piece.end
        if not self._is_speaking and piece.end - self._speech_start >= self._min_speech:
            self._is_speaking = True
            events.append(VoiceActivity(True, self._speech_start / self._rate_hz))
        if piece.kind == "character":
            self._hear_character(piece)
        else:
            self._hear_garbage(piece)

    def _hear_silence(self, piece: Heard, events: list[RecognitionEvent]) -> None:
        self._end_noise()
        self._joins = False
        if self._speech_start is not None and piece.end - self._speech_end >= self._vad_silence:
            self._speech_start = None
            if self._is_speaking:
                self._is_speaking = False
                events.append(VoiceActivity(False, self._speech_end / self._rate_hz))
        if (
            self._eou_silence is not None
            and self._words
            and piece.end - self._speech_end >= self._eou_silence
        ):
            events.append(self._final(self._speech_end + self._eou_silence, by_endpoint=True))

    def _hear_character(self, piece: Heard) -> None:
        self._speaker = self._speakers.setdefault(piece.tag, len(self._speakers))
        if self._noise:
            self._append(BROKEN, self._noise_start, piece.start)
            self._noise.clear()
        if piece.character.isspace():
            self._joins = False
        else:
            self._append(piece.character, piece.start, piece.end)

    def _hear_garbage(self, piece: Heard) -> None:
        if self._joins:
            word = self._words[-1]
            if not word.text.endswith(BROKEN):
                word.text += BROKEN
            word.end = piece.end
            return
        if not self._noise:
            self._noise_start = piece.start
        self._noise += piece.pcm
        size = 2 * self._noise_samples
        while len(self._noise) >= size:
            self._add_noise(bytes(self._noise[:size]))
            del self._noise[:size]

    def _append(self, text: str, start: int, end: int) -> None:
        if self._joins and self._words:
            word = self._words[-1]
            word.text += text
            word.end = end
        else:
            self._words.append(_Word(text, start, end, self._speaker))
            self._joins = True

    def _end_noise(self) -> None:
        if self._noise:
            self._add_noise(bytes(self._noise))
            self._noise.clear()

    def _add_noise(self, pcm: bytes) -> None:
        digest = hashlib.sha256(pcm).hexdigest()[:8]
        end = self._noise_start + len(pcm) // 2
        self._words.append(_Word(f"noise-{digest}", self._noise_start, end, self._speaker))
        self._noise_start = end

    def _final(self, end: int, *, by_endpoint: bool = False) -> Hypothesis:
        hypothesis = self._hypothesis(end, is_final=True, by_endpoint=by_endpoint)
        self._words, self._reported, self._joins = [], [], False
        return hypothesis

    def _hypothesis(self, end: int, *, is_final: bool, by_endpoint: bool = False) -> Hypothesis:
        rate_hz = self._rate_hz
        words = tuple(
            HeardWord(w.text, w.start / rate_hz, w.end / rate_hz, 0.5 if BROKEN in w.text else 1.0, w.speaker)
            for w in self._words
        )
        return Hypothesis(words, is_final, end / rate_hz, by_endpoint)


class DeterministicRecognizer:
    """Hears blocks."""

    def __init__(self, vad_silence_s: float) -> None:
        self._vad_silence_s = vad_silence_s

    async def open(self, request: RecognitionRequest) -> DeterministicStream:
        """Begin a stream."""
        return DeterministicStream(request, self._vad_silence_s)


def deterministic_engine(
    *,
    character_s: float = DEFAULT_CHARACTER_S,
    varying: bool = False,
    vad_silence_s: float = 0.2,
    voices: Sequence[Voice] = VOICES,
) -> Engine:
    """The engine for tests.

    `character_s` is the length of a character at speed 1. `varying` makes each synthesis sound different, in the
    `take` of its blocks: an engine that does not repeat itself. `vad_silence_s` is the silence after which speech
    has ended for the voice activity events.
    """
    return Engine(
        name="deterministic",
        synthesizer=DeterministicSynthesizer(character_s=character_s, varying=varying, voices=voices),
        recognizer=DeterministicRecognizer(vad_silence_s),
        punctuates=True,
        notes=("deterministic engine: audio made of coded characters, for tests, not for ears",),
    )
